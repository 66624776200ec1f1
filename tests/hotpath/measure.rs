//! Each figure per query: what was counted between two points of one run, after a warm-up, so that start, logins,
//! catalog and memo are not in it.

use std::collections::BTreeMap;

use crate::driver::Driver;
use crate::kind::Kind;
use crate::process::{Instrument, Process};
use crate::subject::Subject;
use crate::switches;

/// Queries before it counts, and while it counts.
const WARM_UP: usize = 1000;
const COUNTED: usize = 2000;

/// No subject starts with fewer allocations; with an allocator that cost.rs does not know, it would seem to.
const FEWEST_TO_START: u64 = 1000;

/// The clients of the second run of strace.
const MANY: usize = 16;

/// All figures are per query.
#[derive(Clone, Debug)]
pub struct Figures {
    pub kind: Kind,
    pub work: Work,
    pub alone: Waiting,
    pub together: Waiting,
}

/// With one client: what several do at the same time depends on the time.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Of the thread that serves the clients.
    pub instructions: f64,
    pub allocations: f64,
    /// Instructions of all other threads; most are so many per second, however many queries there are.
    pub beside: f64,
}

/// With one client, or with many at the same time.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub clients: usize,
    /// System calls of the thread that serves the clients, by name.
    pub calls: BTreeMap<String, f64>,
    /// System calls that send to sockets or receive from them.
    pub transfers: f64,
    /// System calls that wake another thread, or wait for one.
    pub wakes: f64,
    /// Voluntary context switches of all threads.
    pub switches: f64,
}

/// Measures all kinds.
pub fn measure(subject: &Subject) -> Vec<Figures> {
    let runs = work(subject).into_iter().zip(waiting(subject, 1)).zip(waiting(subject, MANY));
    let figures = Kind::ALL.into_iter().zip(runs);
    figures.map(|(kind, ((work, alone), together))| Figures { kind, work, alone, together }).collect()
}

fn work(subject: &Subject) -> [Work; Kind::ALL.len()] {
    let mut process = Process::start(subject, Instrument::Callgrind);
    let started: u64 = process.costs().iter().map(|cost| cost.allocations).sum();
    assert!(started >= FEWEST_TO_START, "{}: {started} allocations to start: see cost.rs", subject.name);
    Kind::ALL.map(|kind| {
        let mut driver = warm(&mut process, kind, 1);
        process.costs();
        let queries = count(driver.run(COUNTED));
        let costs = process.costs();
        let worker = costs.iter().copied().max_by_key(|cost| cost.instructions).unwrap();
        let all: u64 = costs.iter().map(|cost| cost.instructions).sum();
        Work {
            instructions: float(worker.instructions) / queries,
            allocations: float(worker.allocations) / queries,
            beside: float(all - worker.instructions) / queries,
        }
    })
}

fn waiting(subject: &Subject, clients: usize) -> Vec<Waiting> {
    let traced = {
        let mut process = Process::start(subject, Instrument::Strace);
        Kind::ALL.map(|kind| {
            let mut driver = warm(&mut process, kind, clients);
            let start = process.traced();
            let queries = count(driver.run(COUNTED));
            let calls = process.calls(start);
            let by_name = calls.by_name.into_iter().map(|(name, times)| (name, float(times) / queries));
            (by_name.collect(), float(calls.transfers) / queries, float(calls.wakes) / queries)
        })
    };
    // strace makes every call a switch.
    let mut process = Process::start(subject, Instrument::Nothing);
    let switches = Kind::ALL.map(|kind| {
        let mut driver = warm(&mut process, kind, clients);
        let before = switches::of(process.pid());
        let queries = count(driver.run(COUNTED));
        float(switches::of(process.pid()) - before) / queries
    });
    let both = traced.into_iter().zip(switches);
    both.map(|((calls, transfers, wakes), switches)| Waiting { clients, calls, transfers, wakes, switches }).collect()
}

/// Clients whose queries go where they will go from now on: reads to the replica, where there is a choice.
fn warm(process: &mut Process<'_>, kind: Kind, clients: usize) -> Driver {
    let mut driver = Driver::connect(process.subject.port, process.subject.database(kind), kind, clients);
    process.wait_until("reads go to the replica", |process| {
        let before = process.subject.queries_on_primary();
        driver.run(WARM_UP);
        kind == Kind::Transaction || process.subject.queries_on_primary() <= before
    });
    driver
}

fn count(queries: usize) -> f64 {
    f64::from(u32::try_from(queries).unwrap())
}

fn float(count: u64) -> f64 {
    f64::from(u32::try_from(count).expect("less than four billion of anything"))
}
