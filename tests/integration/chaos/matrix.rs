//! Runs cells: workload, strike, heal, recovery, verdict.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::actors::{Actor, Casting};
use super::cell::{Cell, Fault, SHORT, Target, check_patterns, groups};
use super::errors::Role;
use super::ledger::Ledger;
use super::session::{Door, Session};
use super::stage::{FEW, Stage};

/// Which cells: patterns with commas between them, `*` for all.
const CELLS: &str = "CHAOS_CELLS";
/// A number, so that the same faults come at the same times.
const SEED: &str = "CHAOS_SEED";
/// A file that the table is appended to.
const TABLE: &str = "CHAOS_TABLE";

const HEADER: &str = "| cell | seed | acknowledged | denied | unknown | errors | longest wait ms | recovery ms | verdict |\n\
                      |---|---|---|---|---|---|---|---|---|\n";
/// Until new clients and those that are there are served as before.
const RECOVERY_LIMIT: Duration = Duration::from_secs(60);
const READY_LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

/// Runs the cells of a target that are asked for, or the short set; prints the table, and fails if a cell does.
pub fn run(target: Target) {
    let patterns = std::env::var(CELLS).unwrap_or_else(|_| SHORT.to_owned());
    check_patterns(&patterns);
    let seed = seed();
    let (mut table, mut failed) = (String::new(), String::new());
    for group in groups(target, &patterns) {
        let mut stage = Stage::build(seed, 1, FEW);
        for cell in group {
            let row = play(&mut stage, cell, seed);
            let line = row.line() + "\n";
            print!("{line}");
            table += &line;
            failed += if row.wrong.is_empty() { "" } else { &line };
        }
    }
    record(HEADER, &table);
    assert!(failed.is_empty(), "cells failed:\n{HEADER}{failed}");
}

pub fn seed() -> u64 {
    std::env::var(SEED).map_or(1, |seed| seed.parse().expect("CHAOS_SEED is a number"))
}

/// Appends to the table's file, if one is wanted; the header goes where it is not yet.
pub fn record(header: &str, rows: &str) {
    let Some(path) = std::env::var_os(TABLE) else { return };
    let mut file = OpenOptions::new().create(true).append(true).read(true).open(path).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    let header = if text.contains(header) { String::new() } else { format!("\n{header}") };
    file.write_all((header + rows).as_bytes()).unwrap();
}

struct Row {
    cell: Cell,
    seed: u64,
    ledger: Arc<Ledger>,
    recovery: Duration,
    wrong: Vec<String>,
}

impl Row {
    fn line(&self) -> String {
        use super::ledger::Fate::{Acknowledged, Denied, Unknown};
        let [acknowledged, denied, unknown] = [Acknowledged, Denied, Unknown].map(|fate| self.ledger.count(fate));
        let mut line = format!("| {} | {} | {acknowledged} | {denied} | {unknown} ", self.cell, self.seed);
        let [longest, recovery] = [self.ledger.longest(), self.recovery].map(|time| time.as_millis());
        let verdict = if self.wrong.is_empty() { "ok".to_owned() } else { self.wrong.join("; ") };
        // It cannot fail.
        let _ = write!(line, "| {} | {longest} | {recovery} | {verdict} |", self.ledger.errors());
        line
    }
}

fn play(stage: &mut Stage, cell: Cell, seed: u64) -> Row {
    // A cell does the same whatever others run.
    let mut rng = fastrand::Rng::with_seed(seed ^ u64::from(crc32fast::hash(cell.to_string().as_bytes())));
    let ledger = Arc::new(Ledger::default());
    let door = stage.door(&ledger);
    stage.await_ready();
    let stop = Arc::new(AtomicBool::new(false));
    let (ready, is_ready) = mpsc::channel();
    let traffic = [0, 1].map(|index| {
        let ready = ready.clone();
        let (door, stop, name) = (door.clone(), Arc::clone(&stop), format!("{cell} traffic {index}"));
        let rng = rng.fork();
        thread::spawn(move || traffic(&door, &name, index == 0, rng, Some(ready), &stop))
    });
    let Casting { actors, traps, .. } = Casting::new(stage, cell, &ledger);
    // It is not about logins.
    for _ in &traffic {
        is_ready.recv_timeout(READY_LIMIT).expect("all is well yet");
    }
    let struck = Instant::now();
    stage.strike(cell.target, cell.fault, &traps);
    let running: Vec<_> = actors
        .into_iter()
        .map(|Actor { mut session, go_on }| {
            thread::spawn(move || {
                go_on(&mut session);
                session
            })
        })
        .collect();
    // As long as the fault lasts; those that wait for it to pass are served then.
    thread::sleep(lasts(cell.fault, &mut rng).saturating_sub(struck.elapsed()));
    let healing = Instant::now();
    stage.heal(cell.target, cell.fault);
    let survivors: Vec<Session> = running.into_iter().map(|thread| thread.join().unwrap()).collect();
    recover(&door, &format!("{cell} newcomer"), healing);
    stage.await_replicas();
    let recovery = healing.elapsed();
    for mut session in survivors.into_iter().filter(|session| !session.is_gone()) {
        if session.check_identity().is_none() || session.write().is_none() || session.read_total().is_none() {
            ledger.wrong(format!("{} does not work after all has recovered", session.name()));
        }
    }
    stop.store(true, Relaxed);
    for thread in traffic {
        thread.join().unwrap();
    }
    ledger.judge_errors(cell);
    ledger.judge_data(&stage.cluster);
    let wrong = ledger.take_wrong();
    if !wrong.is_empty() {
        eprintln!("{cell}: the end of the proxy's log:\n{}", tail(&stage.proxy().log()));
        for node in stage.cluster.nodes() {
            let log = node.log().unwrap();
            eprintln!("of {}'s log:\n{}", node.name(), tail(&String::from_utf8_lossy(&log)));
        }
    }
    Row { cell, seed, ledger, recovery, wrong }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

fn lasts(fault: Fault, rng: &mut fastrand::Rng) -> Duration {
    Duration::from_millis(match fault {
        // Longer than a probe may take.
        Fault::Freeze => rng.u64(2_500..3_500),
        Fault::Cut | Fault::Reset => 0,
        Fault::Kill | Fault::Slow | Fault::Full => rng.u64(300..1_200),
    })
}

/// Logs in anew until reads and writes work.
fn recover(door: &Door, name: &str, healing: Instant) {
    loop {
        let mut newcomer = Session::open(door, "app", name, Role::Recovery);
        let works =
            newcomer.as_mut().is_some_and(|session| session.write().and_then(|()| session.read_total()).is_some());
        if works {
            return;
        }
        if healing.elapsed() > RECOVERY_LIMIT {
            return door.ledger.wrong(format!("{name} is not served after {RECOVERY_LIMIT:?}"));
        }
        thread::sleep(PAUSE);
    }
}

/// A client that reads, writes and transfers, or only reads; it logs in again when it must.
fn traffic(
    door: &Door,
    name: &str,
    writes: bool,
    mut rng: fastrand::Rng,
    mut ready: Option<mpsc::Sender<()>>,
    stop: &AtomicBool,
) {
    let mut session = None;
    for login in 0.. {
        while session.as_ref().is_none_or(Session::is_gone) && !stop.load(Relaxed) {
            thread::sleep(PAUSE);
            session = Session::open(door, "app", &format!("{name} {login}"), Role::Traffic);
        }
        let Some(session) = session.as_mut().filter(|_| !stop.load(Relaxed)) else { return };
        session.read_total();
        if writes {
            session.write();
            // Others hold the accounts up to 10.
            let from = rng.u32(11..20);
            session.transfer(from, rng.u32(from + 1..=20));
        }
        session.check_identity();
        if let Some(ready) = ready.take() {
            ready.send(()).unwrap();
        }
        thread::sleep(PAUSE);
    }
}
