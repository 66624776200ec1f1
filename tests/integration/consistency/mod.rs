//! Checkers: sessions over two replicas and the primary, with faults, and judges of what they were shown.
//!
//! `make test` takes a few seconds for each fault. `CONSISTENCY_READS=200000` asks for as many reads under each level,
//! `CONSISTENCY_SEED` for the run that printed it, `CONSISTENCY_FAULT="replica frozen"` for one fault alone.

mod cases;
mod faults;
mod history;
mod index;
mod judges;
#[cfg(debug_assertions)]
mod mutants;
mod recorder;
mod report;
mod second_opinion;
mod session;
mod workload;
mod writing;

use std::env;
use std::time::Duration;

use causeway::app::demo::cluster::{ClusterOptions, LocalCluster};
use causeway::types::Level;

use crate::harness::{Env, Test, USER, cluster};
use crate::proxy::Proxy;
use faults::Fault;
use history::{MILLISECOND, Nanos, Register};
use report::{FEWEST_READS, Table};
use session::{Profile, WHERE_AM_I, Way};
use workload::{Plan, run};
use writing::schema;

pub const TESTS: &[Test] = &[
    ("consistency::judges_find_what_is_wrong", |_| cases::judges_find_what_is_wrong()),
    ("consistency::another_checker_agrees", |_| second_opinion::another_checker_agrees()),
    ("consistency::levels_hold_under_faults", levels_hold_under_faults),
    // No other build has them.
    #[cfg(debug_assertions)]
    ("consistency::mutants_are_caught", |_| mutants::are_caught(&cluster_with_registers(), seed())),
];

const DATABASE: &str = "registers";
const REGISTERS: Register = 24;

/// What the proxy is told, and what two probes may add to it.
const MAX_LAG_MS: Nanos = 5_000;
const PROBE_SLACK_MS: Nanos = 1_200;

fn cluster_with_registers() -> LocalCluster {
    // Nobody waits for ever for what somebody else has left behind.
    let extra_conf = "log_statement = none\nmax_connections = 200\nlock_timeout = 10s\n".to_owned();
    let cluster = cluster(&ClusterOptions { extra_conf, ..ClusterOptions::default() });
    cluster.create_database(DATABASE, USER).unwrap();
    cluster.primary().sql(DATABASE, &schema(REGISTERS)).unwrap();
    cluster.primary().sql(DATABASE, WHERE_AM_I).unwrap();
    cluster.catch_up().unwrap();
    cluster
}

fn settings() -> String {
    // No session waits for a server: the one that has prepared a transaction must get one to end it.
    let pool = format!("\n[pool]\ndefault_pool_size = {}\n", 2 * profiles().len());
    format!("{pool}\n[routing]\nmax_lag = \"{MAX_LAG_MS}ms\"\n\n[probe]\ninterval = \"100ms\"\ntimeout = \"500ms\"\n")
}

fn from_environment(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// From the environment, or a new one; printed.
fn seed() -> u64 {
    let seed = from_environment("CONSISTENCY_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("CONSISTENCY_SEED={seed}");
    seed
}

/// Four sessions under each level, or more where a read takes longer, each with another way to say so.
fn profiles() -> Vec<Profile> {
    let ways = [(Way::Startup, false), (Way::Set, false), (Way::Hint, false), (Way::Set, true)];
    let profile = |level: Level, (way, asynchronous)| Profile {
        level,
        way,
        writes: 12,
        asynchronous,
        tokens: level >= Level::Session,
        pause: Duration::from_millis(1),
        registers: REGISTERS,
        max_lag: (MAX_LAG_MS + PROBE_SLACK_MS) * MILLISECOND,
    };
    let levels = Level::ALL.into_iter().chain([Level::Strong]);
    levels.flat_map(|level| ways.map(|way| profile(level, way))).collect()
}

fn levels_hold_under_faults(_: &Env) {
    let reads = from_environment("CONSISTENCY_READS").unwrap_or(0);
    let seed = seed();
    let cluster = cluster_with_registers();
    let proxy = Proxy::start_as(&cluster, |text| text + &settings());
    let mut table = Table::default();
    let wanted = env::var("CONSISTENCY_FAULT").ok();
    let faults: Vec<Fault> =
        Fault::ALL.into_iter().filter(|fault| wanted.as_ref().is_none_or(|name| name == fault.as_str())).collect();
    assert!(!faults.is_empty(), "no fault is named {wanted:?}");
    for (number, &fault) in (0..).zip(&faults) {
        proxy.await_replicas(&cluster);
        let plan = Plan {
            seed: seed + number,
            profiles: profiles(),
            fault,
            duration: Duration::from_secs(4),
            reads: reads.div_ceil(faults.len() as u64).max(FEWEST_READS as u64),
            limit: Duration::from_secs(if reads == 0 { 30 } else { 1_800 }),
        };
        let outcome = run(&proxy.target(DATABASE), &cluster, &plan);
        table.add(fault, &outcome);
        if reads > 0 && number + 1 < faults.len() as u64 {
            // It takes long, and may be ended.
            println!("{table}");
        }
    }
    println!("\n{table}");
    table.assert_nothing_wrong();
}
