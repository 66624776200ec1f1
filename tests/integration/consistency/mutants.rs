//! Each guarantee, broken on purpose: a run in which it matters, and the judges must say so.

use std::collections::BTreeSet;
use std::time::Duration;

use causeway::app::demo::cluster::LocalCluster;
use causeway::types::{Level, Mutant};

use super::faults::Fault;
use super::history::MILLISECOND;
use super::judges::{explain, judge};
use super::session::{Profile, Way};
use super::workload::{Plan, run};
use super::{DATABASE, MAX_LAG_MS, PROBE_SLACK_MS, REGISTERS, settings};
use crate::proxy::Proxy;

/// Runs until the mutant is caught, at most.
const ATTEMPTS: u64 = 12;
const ATTEMPT: Duration = Duration::from_millis(1_500);
const SESSIONS: usize = 8;

/// Where a mutant shows.
struct Trap {
    mutant: Mutant,
    level: Level,
    fault: Fault,
    /// Of 100 operations.
    writes: u8,
    asynchronous: bool,
    tokens: bool,
}

impl Trap {
    fn of(mutant: Mutant) -> Self {
        let trap = |level, fault| Self { mutant, level, fault, writes: 15, asynchronous: false, tokens: false };
        match mutant {
            Mutant::ForgetsWrites | Mutant::OldPosition => trap(Level::Session, Fault::ReplayPaused),
            // A guard is asked where the replica is expected to be there in time.
            Mutant::BlindGuard => trap(Level::Session, Fault::FrozenReceiver),
            // Nobody else makes the log be flushed.
            Mutant::FlushPosition => Self { asynchronous: true, ..trap(Level::Session, Fault::None) },
            Mutant::Wanders => Self { writes: 4, ..trap(Level::Session, Fault::ReplayPaused) },
            Mutant::OldStrong => trap(Level::Strong, Fault::ReplayPaused),
            Mutant::DeafToTokens => Self { tokens: true, ..trap(Level::Session, Fault::ReplayPaused) },
            Mutant::FlatteringStaleness => trap(Level::Bounded, Fault::ApplyDelay),
        }
    }

    fn plan(&self, seed: u64) -> Plan {
        let profile = Profile {
            level: self.level,
            way: Way::Set,
            writes: self.writes,
            asynchronous: self.asynchronous,
            tokens: self.tokens,
            pause: Duration::from_millis(3),
            registers: REGISTERS,
            max_lag: (MAX_LAG_MS + PROBE_SLACK_MS) * MILLISECOND,
        };
        let profiles = vec![profile; SESSIONS];
        Plan { seed, profiles, fault: self.fault, duration: ATTEMPT, reads: 0, limit: ATTEMPT }
    }
}

/// Each mutant is caught in a run that is clean without it.
pub fn are_caught(cluster: &LocalCluster, seed: u64) {
    let mut wrong = Vec::new();
    let proxy = Proxy::start_as(cluster, |text| text + &settings());
    println!("{:<21} {:<9} {:<21} {:>8} {:>8}  breaks", "mutant", "level", "fault", "attempts", "reads");
    for trap in Mutant::ALL.map(Trap::of) {
        proxy.await_replicas(cluster);
        let clean = run(&proxy.target(DATABASE), cluster, &trap.plan(seed));
        let verdict = judge(&clean.history);
        if !verdict.violations.is_empty() {
            let examples = explain(&verdict.violations, 3);
            wrong.push(format!("without the mutant {}:\n{examples}", trap.mutant.as_str()));
        }
        let (line, caught) = catch(cluster, &trap, seed);
        println!("{line}");
        if !caught {
            wrong.push(format!("not caught: {line}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// What there is to say, and whether it was caught.
fn catch(cluster: &LocalCluster, trap: &Trap, seed: u64) -> (String, bool) {
    let name = trap.mutant.as_str();
    let proxy = Proxy::launch_in(cluster, &[("CAUSEWAY_MUTANT", name)], |text| text + &settings());
    let (mut attempts, mut reads, mut rules) = (0, 0, BTreeSet::new());
    while rules.is_empty() && attempts < ATTEMPTS {
        proxy.await_replicas(cluster);
        let outcome = run(&proxy.target(DATABASE), cluster, &trap.plan(seed + attempts));
        attempts += 1;
        reads += outcome.history.reads().count();
        rules = judge(&outcome.history).violations.iter().map(|violation| violation.rule.as_str()).collect();
    }
    let broken = rules.iter().copied().collect::<Vec<_>>().join(", ");
    let (level, fault) = (trap.level.as_str(), trap.fault.as_str());
    (format!("{name:<21} {level:<9} {fault:<21} {attempts:>8} {reads:>8}  {broken}"), !rules.is_empty())
}
