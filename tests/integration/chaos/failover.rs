//! An unplanned failover under load: the primary is killed, a replica is promoted, and fifty clients go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::forks::follow;
use crate::harness::{Env, wait_for};

use super::cell::{Cell, Fault, State, Target};
use super::errors::Role;
use super::ledger::{Fate, Found, Ledger, Write, found};
use super::matrix::{record, seed};
use super::session::{Door, Session};
use super::stage::{Places, Stage};

const CLIENTS: u32 = 50;
const PLACES: Places = Places { clients: 2 * CLIENTS, of_node: 100 };
const PAUSE: Duration = Duration::from_millis(5);
const LIMIT: Duration = Duration::from_secs(60);
/// Before the primary is killed, and after another one is there.
const WRITES: usize = 500;

const HEADER: &str = "| failover | seed | acknowledged | errors | in flight at the kill | told committed: there, lost | \
                      told lost: absent, there | not told: there, absent | \
                      in doubt for the proxy: committed, aborted, unknown | acknowledged writes lost | \
                      next acknowledged write after ms | longest wait ms | verdict |\n\
                      |---|---|---|---|---|---|---|---|---|---|---|---|---|\n";

/// Nothing is lost that a synchronous replica has.
pub fn loses_nothing(_: &Env) {
    fail_over("synchronous");
}

/// What no replica has is lost, and nothing else goes wrong.
pub fn loses_what_was_not_replicated(_: &Env) {
    fail_over("asynchronous");
}

/// Kills the primary, promotes a replica, and judges.
fn fail_over(replication: &'static str) {
    let seed = seed();
    let stage = Stage::build(seed, 2, PLACES);
    let [primary, heir, other] = [0, 1, 2].map(|index| &stage.cluster.nodes()[index]);
    let is_synchronous = replication == "synchronous";
    if is_synchronous {
        // On the primary only: the heir has nobody to wait for.
        primary.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'replica1'").unwrap();
        primary.sql("postgres", "SELECT pg_reload_conf()").unwrap();
        wait_for(LIMIT, "commits wait for the replica", || {
            let state = "SELECT sync_state FROM pg_stat_replication WHERE application_name = 'replica1'";
            primary.sql("postgres", state).unwrap() == "sync"
        });
    }
    let (ledger, [struck, killed]) = under_load(&stage, seed, || {
        let struck = Instant::now();
        primary.kill9().unwrap();
        stage.behind[0].listen(false);
        let killed = Instant::now();
        heir.promote().unwrap();
        follow(other, Some(heir));
        [struck, killed]
    });
    let found = found(heir);
    let is_lost = |write: &Write| write.fate == Fate::Acknowledged && !found.contains_key(&write.id);
    let (lost, kept): (Vec<Write>, Vec<Write>) = ledger.writes().into_iter().partition(is_lost);
    for write in kept.iter().chain(lost.iter().filter(|_| is_synchronous)) {
        ledger.judge_write(write, &found);
    }
    ledger.judge_total(heir);
    ledger.judge_errors(Cell { target: Target::Primary, fault: Fault::Kill, state: State::Idle });
    let doubts = ["committed", "aborted", "unknown"].map(|outcome| {
        let count = stage.proxy().metric("causeway_commits_in_doubt_total", &format!("outcome=\"{outcome}\""));
        // No samples make a sum of -0.
        count.abs().to_string()
    });
    let wrong = ledger.take_wrong();
    let drill = Drill { replication, seed, ledger, found, struck, killed, lost: lost.len(), doubts, wrong };
    let row = drill.row();
    print!("{HEADER}{row}");
    record(HEADER, &row);
    assert!(drill.wrong.is_empty(), "{HEADER}{row}");
}

/// What a failover was like.
struct Drill {
    replication: &'static str,
    seed: u64,
    ledger: Arc<Ledger>,
    /// What the new primary has.
    found: Found,
    struck: Instant,
    killed: Instant,
    /// Acknowledged writes.
    lost: usize,
    /// By what the proxy found out.
    doubts: [String; 3],
    wrong: Vec<String>,
}

impl Drill {
    fn row(&self) -> String {
        let writes = self.ledger.writes();
        let acknowledged = || writes.iter().filter(|write| write.fate == Fate::Acknowledged);
        let in_flight = || writes.iter().filter(|write| write.asked < self.killed && write.answered > self.struck);
        let count = |fate, is_there| {
            in_flight().filter(|write| write.fate == fate && self.found.contains_key(&write.id) == is_there).count()
        };
        let told = [(Fate::Acknowledged, true), (Fate::Denied, false), (Fate::Unknown, true)]
            .map(|(fate, expected)| format!("{}, {}", count(fate, expected), count(fate, !expected)));
        let next = acknowledged().filter(|write| write.asked > self.killed).map(|write| write.answered).min();
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            self.replication,
            self.seed,
            acknowledged().count(),
            self.ledger.errors(),
            in_flight().count(),
            told.join(" | "),
            self.doubts.join(", "),
            self.lost,
            next.map_or(0, |at| (at - self.killed).as_millis()),
            self.ledger.longest().as_millis(),
            if self.wrong.is_empty() { "ok".to_owned() } else { self.wrong.join("; ") },
        )
    }
}

/// Lets something happen in the midst of the load, which goes on afterwards; gives what clients were told, and what
/// the event gives.
fn under_load<T>(stage: &Stage, seed: u64, event: impl FnOnce() -> T) -> (Arc<Ledger>, T) {
    let ledger = Arc::new(Ledger::default());
    stage.await_ready();
    let load = Load::start(&stage.door(&ledger), seed);
    load.await_writes(WRITES);
    let outcome = event();
    load.await_writes(WRITES);
    load.stop();
    (ledger, outcome)
}

/// Clients that read, write, transfer and run prepared statements, until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    ledger: Arc<Ledger>,
    clients: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn start(door: &Door, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..CLIENTS).map(|number| {
            let (door, stop) = (door.clone(), Arc::clone(&stop));
            thread::spawn(move || client(&door, number, seed, &stop))
        });
        Self { clients: clients.collect(), stop, ledger: Arc::clone(&door.ledger) }
    }

    /// Waits until as many more writes are acknowledged.
    fn await_writes(&self, more: usize) {
        let wanted = self.ledger.count(Fate::Acknowledged) + more;
        wait_for(LIMIT, "writes go on", || self.ledger.count(Fate::Acknowledged) >= wanted);
    }

    fn stop(self) {
        self.stop.store(true, Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
    }
}

fn client(door: &Door, number: u32, seed: u64, stop: &AtomicBool) {
    let mut rng = fastrand::Rng::with_seed(seed ^ u64::from(number));
    let mut session = None;
    for login in 0.. {
        while session.as_ref().is_none_or(Session::is_gone) && !stop.load(Relaxed) {
            thread::sleep(PAUSE);
            session = Session::open(door, "app", &format!("client {number} {login}"), Role::Traffic);
        }
        let Some(session) = session.as_mut().filter(|_| !stop.load(Relaxed)) else { return };
        match number % 5 {
            0 => {
                session.read_total();
            }
            1 => drop(session.write()),
            2 | 3 => {
                let from = rng.u32(1..20);
                session.transfer(from, rng.u32(from + 1..=20));
            }
            _ => drop(session.write_prepared()),
        }
        session.check_identity();
        thread::sleep(PAUSE);
    }
}
