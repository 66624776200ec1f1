//! One run of pgbench against one peer, and what the processes did meanwhile.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// What is measured from the first second on: before it the clients log in and the pools fill.
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

/// Runs `load` against `peer` for its time and one more second, in which nothing is counted.
///
/// # Errors
/// pgbench fails, hangs, or a client of it is cut off: then it says what pgbench said.
pub fn run(stage: &Stage, peer: &Peer, load: Load) -> Result<Outcome> {
    let logs = tempfile::tempdir()?;
    let pgbench = stage.install.client("pgbench");
    let mut command = stage.install.client("timeout");
    command.args(["--foreground", "--kill-after=2", &(load.secs + 30).to_string()]).arg(pgbench.get_program());
    command.args(["-h", "127.0.0.1", "-p", &peer.port.to_string(), "-U", stage.app.user, "-n", "-j", "2", "-P", "1"]);
    command.args(["-M", load.protocol, "-c", &load.clients.to_string(), "-T", &(load.secs + 1).to_string()]);
    command.arg("--log").arg("--log-prefix").arg(logs.path().join("log"));
    if load.script == Script::Select {
        command.args(["-S", "--sampling-rate", "0.2"]);
    }
    command.arg(stage.app.database).env("PGPASSWORD", &stage.app.password);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut said = String::new();
    let mut start = None;
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines() {
            let line = line?;
            match progress(&line) {
                Some(done) if start.is_none() => start = Some((Counters::read(stage, peer), done)),
                Some(_) => {}
                None => said += &(line + "\n"),
            }
        }
    }
    let end = Counters::read(stage, peer);
    let mut summary = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut summary)?;
    }
    let status = child.wait()?;
    let total = summary.lines().find_map(|line| line.strip_prefix("number of transactions actually processed: "));
    let total = total.and_then(|text| text.split('/').next()?.trim().parse::<f64>().ok());
    match (status.success(), start, total) {
        (true, Some((begin, done)), Some(total)) => {
            let latencies = latencies_ms(logs.path(), begin.at)?;
            let transactions = total - done.transactions;
            let queries = transactions * load.script.queries();
            if queries <= 0.0 {
                return Err("nothing was answered after the first second".into());
            }
            Ok(Outcome {
                tps: transactions / (Duration::from_secs(load.secs + 1).as_secs_f64() - done.secs),
                p50_ms: percentile(&latencies, 0.50),
                p99_ms: percentile(&latencies, 0.99),
                cpu: (end.proxy_cpu - begin.proxy_cpu) / queries * 1e4,
                postgres_cpu: (end.postgres_cpu - begin.postgres_cpu) / queries * 1e4,
                switches: (end.switches - begin.switches) / queries,
                on_replicas: (end.routed[0] - begin.routed[0]) / (end.routed[1] - begin.routed[1]) * 100.0,
            })
        }
        _ => Err(complaint(&said).into()),
    }
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

/// How far pgbench has come.
struct Progress {
    secs: f64,
    transactions: f64,
}

/// `progress: 1.0 s, 10000.0 tps, …`
fn progress(line: &str) -> Option<Progress> {
    let (secs, rest) = line.strip_prefix("progress: ")?.split_once(" s, ")?;
    let (secs, tps) = (secs.parse::<f64>().ok()?, rest.split_once(" tps")?.0.parse::<f64>().ok()?);
    Some(Progress { secs, transactions: secs * tps })
}

/// The latencies of the sampled transactions that ended after `from`, sorted. Of each line the third word is the
/// latency in µs, the fifth and sixth are when it ended, in seconds and µs.
fn latencies_ms(logs: &Path, from: SystemTime) -> Result<Vec<f64>> {
    let from = from.duration_since(UNIX_EPOCH)?.as_secs_f64();
    let mut latencies = Vec::new();
    for log in fs::read_dir(logs)? {
        for line in fs::read_to_string(log?.path())?.lines() {
            let words: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            if let [_, _, latency, _, secs, micros, ..] = words[..]
                && secs + micros / 1e6 >= from
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

/// The first line that says what is wrong.
fn complaint(said: &str) -> String {
    let wrong = |line: &&str| ["error", "ERROR", "FATAL", "aborted"].iter().any(|word| line.contains(word));
    said.lines().find(wrong).or(said.lines().last()).unwrap_or("pgbench gave no result in time").to_owned()
}
