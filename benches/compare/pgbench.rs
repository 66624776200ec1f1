//! One run of pgbench against one peer, and what the processes did meanwhile.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Result;
use crate::cluster::Stage;
use crate::peers::Peer;
use crate::procfs;

/// What pgbench runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// One SELECT by key.
    Select,
    /// The built-in transaction like TPC-B: BEGIN, three updates, a select, an insert, END.
    Tpcb,
}

impl Script {
    fn queries(self) -> f64 {
        match self {
            Self::Select => 1.0,
            Self::Tpcb => 7.0,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub script: Script,
    /// pgbench's `-M`: simple, extended or prepared.
    pub protocol: &'static str,
    pub clients: usize,
    pub secs: u64,
}

/// What is measured after the first second, in which the clients log in and the pools fill.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub tps: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// CPU seconds of the proxy per 10,000 queries.
    pub cpu: f64,
    /// The same of all nodes together.
    pub postgres_cpu: f64,
    /// How often threads of the proxy go to sleep, per query.
    pub switches: f64,
    /// What part of the batches Causeway sent to replicas, in percent; not a number for the others.
    pub on_replicas: f64,
}

/// Runs `load` against `peer` for its time and one second before, in which nothing is counted. Nor is the end, at which
/// the clients leave and their processes go.
///
/// # Errors
/// pgbench fails, or a client of it is cut off, or nothing is answered: with what pgbench said.
pub fn run(stage: &Stage, peer: &Peer, load: Load) -> Result<Outcome> {
    let logs = tempfile::tempdir()?;
    let mut pgbench = command(stage, peer, load, logs.path()).spawn()?;
    let watched = pgbench.stderr.take().map(|stderr| watch(stage, peer, load, BufReader::new(stderr)));
    // It has said all that we want to know. `timeout` hands the signal on.
    let _ = kill(Pid::from_raw(i32::try_from(pgbench.id())?), Signal::SIGTERM);
    pgbench.wait()?;
    let Window { begin, end, transactions } = watched.ok_or("pgbench has no standard error")??;
    let queries = transactions * load.script.queries();
    let latencies = latencies_ms(logs.path(), begin.at, end.at)?;
    Ok(Outcome {
        tps: transactions / end.at.duration_since(begin.at)?.as_secs_f64(),
        p50_ms: percentile(&latencies, 0.50),
        p99_ms: percentile(&latencies, 0.99),
        cpu: (end.proxy_cpu - begin.proxy_cpu) / queries * 1e4,
        postgres_cpu: (end.postgres_cpu - begin.postgres_cpu) / queries * 1e4,
        switches: (end.switches - begin.switches) / queries,
        on_replicas: (end.routed[0] - begin.routed[0]) / (end.routed[1] - begin.routed[1]) * 100.0,
    })
}

/// pgbench under `timeout`, as a proxy that hangs may hang it. It would run for longer than it is let.
fn command(stage: &Stage, peer: &Peer, load: Load, logs: &Path) -> Command {
    let secs = load.secs + 30;
    let mut command = stage.install.client("timeout");
    command.args(["--foreground", "--kill-after=2", &secs.to_string()]);
    command.arg(stage.install.client("pgbench").get_program());
    command.args(["-h", "127.0.0.1", "-p", &peer.port.to_string(), "-U", stage.app.user, "-n", "-j", "2", "-P", "1"]);
    command.args(["-M", load.protocol, "-c", &load.clients.to_string(), "-T", &secs.to_string()]);
    command.arg("--log").arg("--log-prefix").arg(logs.join("log"));
    if load.script == Script::Select {
        command.args(["-S", "--sampling-rate", "0.5"]);
    }
    command.arg(stage.app.database).env("PGPASSWORD", &stage.app.password);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// From pgbench's first report of progress to the one after `secs` more.
struct Window {
    begin: Counters,
    end: Counters,
    transactions: f64,
}

fn watch(stage: &Stage, peer: &Peer, load: Load, stderr: impl BufRead) -> Result<Window> {
    let mut begin = None;
    let (mut last, mut reports, mut transactions) = (Instant::now(), 0, 0.0);
    for line in stderr.lines() {
        let line = line?;
        let Some(tps) = tps(&line) else {
            // The rest is its version and that it is told to end.
            if ["error:", "fatal:", "ERROR:", "FATAL:"].iter().any(|word| line.contains(word)) {
                return Err(line.into());
            }
            continue;
        };
        let now = Instant::now();
        if begin.is_some() {
            transactions += tps * (now - last).as_secs_f64();
            reports += 1;
        } else {
            begin = Some(Counters::read(stage, peer));
        }
        last = now;
        if reports == load.secs {
            break;
        }
    }
    match begin {
        Some(begin) if reports == load.secs && transactions > 0.0 => {
            Ok(Window { begin, end: Counters::read(stage, peer), transactions })
        }
        _ => Err(format!("nothing was answered in {} s", load.secs).into()),
    }
}

/// `progress: 1.0 s, 10000.0 tps, …`: of the time since the last such line.
fn tps(line: &str) -> Option<f64> {
    line.strip_prefix("progress: ")?.split_once(" s, ")?.1.split_once(" tps")?.0.parse().ok()
}

struct Counters {
    at: SystemTime,
    proxy_cpu: f64,
    postgres_cpu: f64,
    switches: f64,
    routed: [f64; 2],
}

impl Counters {
    fn read(stage: &Stage, peer: &Peer) -> Self {
        let pids = peer.pids();
        Self {
            at: SystemTime::now(),
            proxy_cpu: procfs::cpu_seconds(&pids),
            postgres_cpu: procfs::cpu_seconds(&stage.postgres_pids()),
            switches: procfs::voluntary_switches(&pids),
            routed: peer.routed(),
        }
    }
}

/// The latencies of the sampled transactions that ended between the two times, sorted. Of each line the third word is the
/// latency in µs, the fifth and sixth are when it ended, in seconds and µs.
fn latencies_ms(logs: &Path, from: SystemTime, to: SystemTime) -> Result<Vec<f64>> {
    let window = from.duration_since(UNIX_EPOCH)?.as_secs_f64()..to.duration_since(UNIX_EPOCH)?.as_secs_f64();
    let mut latencies = Vec::new();
    for log in fs::read_dir(logs)? {
        for line in fs::read_to_string(log?.path())?.lines() {
            let words: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            if let [_, _, latency, _, secs, micros, ..] = words[..]
                && window.contains(&(secs + micros / 1e6))
            {
                latencies.push(latency / 1e3);
            }
        }
    }
    latencies.sort_by(f64::total_cmp);
    Ok(latencies)
}

/// Of sorted values; not a number when there are none.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the number of transactions of a few seconds"
)]
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at).or(sorted.last()).copied().unwrap_or(f64::NAN)
}
