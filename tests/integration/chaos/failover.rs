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
                      told lost: absent, there | not told: there, absent | acknowledged writes lost | \
                      next acknowledged write after ms | longest wait ms | verdict |\n\
                      |---|---|---|---|---|---|---|---|---|---|---|---|\n";

/// Nothing is lost that a synchronous replica has.
pub fn loses_nothing(_: &Env) {
    let (row, wrong) = fail_over(true);
    assert!(wrong.is_empty(), "{HEADER}{row}");
}

/// What no replica has is lost, and nothing else goes wrong.
pub fn loses_what_was_not_replicated(_: &Env) {
    let (row, wrong) = fail_over(false);
    assert!(wrong.is_empty(), "{HEADER}{row}");
}

/// Kills the primary, promotes a replica; gives a row of the table, and what was wrong.
fn fail_over(synchronous: bool) -> (String, Vec<String>) {
    let seed = seed();
    let stage = Stage::build(seed, 2, PLACES);
    let [primary, heir, other] = [0, 1, 2].map(|index| &stage.cluster.nodes()[index]);
    if synchronous {
        // On the primary only: the heir has nobody to wait for.
        primary.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'replica1'").unwrap();
        primary.sql("postgres", "SELECT pg_reload_conf()").unwrap();
        wait_for(LIMIT, "commits wait for the replica", || {
            let state = "SELECT sync_state FROM pg_stat_replication WHERE application_name = 'replica1'";
            primary.sql("postgres", state).unwrap() == "sync"
        });
    }
    let (ledger, [struck, killed]) = under_load(&stage, seed, || {
        primary.kill9().unwrap();
        stage.behind[0].listen(false);
        let killed = Instant::now();
        heir.promote().unwrap();
        follow(other, Some(heir));
        killed
    });
    let found = found(heir);
    let (lost, kept): (Vec<Write>, Vec<Write>) = ledger
        .writes()
        .into_iter()
        .partition(|write| write.fate == Fate::Acknowledged && !found.contains_key(&write.id));
    for write in kept.iter().chain(lost.iter().filter(|_| synchronous)) {
        ledger.judge_write(write, &found);
    }
    ledger.judge_total(heir);
    // What was committed nowhere else is also known to be lost, once, by who wrote it.
    ledger.judge_errors(Cell { target: Target::Primary, fault: Fault::Kill, state: State::Idle });
    let wrong = ledger.take_wrong();
    let name = if synchronous { "synchronous" } else { "asynchronous" };
    let row = row(name, seed, &ledger, &found, lost.len(), [struck, killed], &wrong);
    print!("{HEADER}{row}");
    record(HEADER, &row);
    (row, wrong)
}

/// Lets something happen in the midst of the load, which goes on afterwards; gives what clients were told, when it began,
/// and when it had struck.
fn under_load(stage: &Stage, seed: u64, event: impl FnOnce() -> Instant) -> (Arc<Ledger>, [Instant; 2]) {
    let ledger = Arc::new(Ledger::default());
    stage.await_ready();
    let load = Load::start(&stage.door(&ledger), seed);
    load.await_writes(WRITES);
    let began = Instant::now();
    let at = event();
    load.await_writes(WRITES);
    load.stop();
    (ledger, [began, at])
}

fn row(
    name: &str,
    seed: u64,
    ledger: &Ledger,
    found: &Found,
    lost: usize,
    [struck, killed]: [Instant; 2],
    wrong: &[String],
) -> String {
    let writes = ledger.writes();
    let in_flight: Vec<&Write> =
        writes.iter().filter(|write| write.asked < killed && write.answered > struck).collect();
    let count = |fate, is_there| {
        let of = in_flight.iter().filter(|write| write.fate == fate && found.contains_key(&write.id) == is_there);
        of.count()
    };
    let told = [(Fate::Acknowledged, true), (Fate::Denied, false), (Fate::Unknown, true)]
        .map(|(fate, expected)| format!("{}, {}", count(fate, expected), count(fate, !expected)));
    let acknowledged = || writes.iter().filter(|write| write.fate == Fate::Acknowledged);
    let next =
        acknowledged().filter(|write| write.asked > struck || write.answered > killed).map(|write| write.answered);
    let next = next.filter(|answered| *answered > killed).min().map_or(Duration::MAX, |at| at - struck);
    let verdict = if wrong.is_empty() { "ok".to_owned() } else { wrong.join("; ") };
    format!(
        "| {name} | {seed} | {} | {} | {} | {} | {lost} | {} | {} | {verdict} |\n",
        acknowledged().count(),
        ledger.errors(),
        in_flight.len(),
        told.join(" | "),
        next.as_millis(),
        ledger.longest().as_millis(),
    )
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
            0 | 1 => drop(session.read_total()),
            2 => drop(session.write()),
            3 => {
                let from = rng.u32(1..20);
                session.transfer(from, rng.u32(from + 1..=20));
            }
            _ => drop(session.write_prepared()),
        }
        session.check_identity();
        thread::sleep(PAUSE);
    }
}
