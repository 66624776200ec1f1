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

/// The clients of the second run of strace.
const MANY: usize = 16;

/// All figures are per query.
#[derive(Clone, Debug)]
pub struct Figures {
    pub kind: Kind,
    pub instructions: f64,
    pub allocations: f64,
    pub alone: Waiting,
    pub together: Waiting,
}

/// With one client, or with many at the same time.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub clients: usize,
    pub calls: BTreeMap<String, f64>,
    /// System calls that send to sockets or receive from them.
    pub transfers: f64,
    /// Voluntary context switches.
    pub switches: f64,
}

/// Measures all kinds.
pub fn measure(subject: &Subject) -> Vec<Figures> {
    let costs = costs(subject);
    let alone = waiting(subject, 1);
    let together = waiting(subject, MANY);
    let figures = costs.into_iter().zip(alone).zip(together).map(|(((kind, cost), alone), together)| {
        let (instructions, allocations) = cost;
        Figures { kind, instructions, allocations, alone, together }
    });
    figures.collect()
}

/// Instructions and allocations with one client: what several do at the same time depends on the time.
fn costs(subject: &Subject) -> Vec<(Kind, (f64, f64))> {
    let mut process = Process::start(subject, Instrument::Callgrind);
    assert!(process.cost().allocations > 0, "{} allocates by functions that cost.rs does not know", subject.name);
    let cost = |kind| {
        let mut driver = warm(&mut process, kind, 1);
        process.cost();
        let queries = count(driver.run(COUNTED));
        let cost = process.cost();
        (kind, (float(cost.instructions) / queries, float(cost.allocations) / queries))
    };
    Kind::ALL.map(cost).to_vec()
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
            (by_name.collect(), float(calls.transfers) / queries)
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
    both.map(|((calls, transfers), switches)| Waiting { clients, calls, transfers, switches }).collect()
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
    f64::from(u32::try_from(count / 16).unwrap()) * 16.0 + f64::from(u32::try_from(count % 16).unwrap())
}
