//! What the kernel counts for processes: CPU, context switches, memory (proc(5)).

use std::fs;
use std::ops::Range;

/// `_SC_CLK_TCK`, which Linux shows as 100 to all programs.
const TICKS_PER_SECOND: f64 = 100.0;
const NANOSECONDS_PER_SECOND: f64 = 1e9;

/// Seconds that these processes have run, in user and kernel mode, with the children that they have waited for. Not a
/// number where there is no process.
pub fn cpu_seconds(pids: &[u32]) -> f64 {
    if pids.is_empty() { f64::NAN } else { pids.iter().filter_map(|&pid| cpu_of(pid)).sum() }
}

/// Of a process with one thread in nanoseconds: hundreds of them, each of which runs for some milliseconds, would
/// vanish in ticks. With several threads in ticks, which count threads that have ended, too.
fn cpu_of(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = fields(&stat)?;
    let ticks = |range: Range<usize>| Some(fields.get(range)?.iter().sum::<f64>() / TICKS_PER_SECOND);
    let own = match fields.get(17)? {
        1.0 => nanoseconds(pid).map(|run| run / NANOSECONDS_PER_SECOND).or_else(|| ticks(11..13)),
        _ => ticks(11..13),
    };
    Some(own? + ticks(13..15)?)
}

/// What comes after the name, which is in parentheses and may hold anything: the third field and those after it. utime,
/// stime, cutime and cstime are the 14th to the 17th, `num_threads` is the 20th. What is no number is zero.
fn fields(stat: &str) -> Option<Vec<f64>> {
    let fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some(fields.map(|field| field.parse().unwrap_or_default()).collect())
}

/// The part of [`cpu_seconds`] that was in user mode, in ticks.
pub fn user_seconds(pids: &[u32]) -> f64 {
    let of_process = |pid: &u32| {
        let fields = fields(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        Some((fields.get(11)? + fields.get(13)?) / TICKS_PER_SECOND)
    };
    if pids.is_empty() { f64::NAN } else { pids.iter().filter_map(of_process).sum() }
}

/// What the main thread has run; nothing where the kernel does not say.
fn nanoseconds(pid: u32) -> Option<f64> {
    fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?.split_whitespace().next()?.parse().ok()
}

/// How often the threads of these processes have gone to sleep. Not a number where there is no process.
pub fn voluntary_switches(pids: &[u32]) -> f64 {
    if pids.is_empty() {
        return f64::NAN;
    }
    let of_process = |&pid: &u32| {
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0.0 };
        let status = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
        status.filter_map(|status| field(&status, "voluntary_ctxt_switches:")).sum::<f64>()
    };
    pids.iter().map(of_process).sum()
}

/// Proportional set size in KB: a page that processes share counts once.
pub fn pss_kb(pids: &[u32]) -> f64 {
    let of_process = |pid: &u32| field(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?, "Pss:");
    pids.iter().filter_map(of_process).sum()
}

/// The process, its children and theirs.
pub fn family(pid: u32) -> Vec<u32> {
    let mut pids = vec![pid];
    let mut next = 0;
    while let Some(&parent) = pids.get(next) {
        next += 1;
        let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else { continue };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            pids.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    pids
}

/// The machine's processor, as the kernel names it.
pub fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| "unknown processor".to_owned(), |(_, name)| name.to_owned())
}

fn field(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}
