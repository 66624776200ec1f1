//! Tests over real nodes: one binary, one cluster that all tests share, each test in a database of its own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where something is not as it should be"
)]

mod bulk;
mod cancel;
mod chaos;
mod cluster;
mod consistency;
mod console;
mod demo;
mod drivers;
mod exact;
mod exact_copy;
mod explain;
mod failover;
mod faults;
mod forks;
mod frames;
mod harness;
mod harness_check;
mod hostile;
mod lag;
mod lifecycle;
mod login;
mod nodes;
mod outage;
mod overload;
mod pgbench;
mod positions;
mod prepared;
mod promises;
mod proxy;
mod raw;
mod routing;
mod speech;
mod staleness;
mod state;
mod switchover;
mod target;
mod traffic;
mod unwell;
mod wire_cancel;
mod wire_encodings;
mod wire_fuzz;
mod wire_malformed;
mod wire_memory;
mod wire_notify;
mod wire_pipelines;
mod wire_replication;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use harness::{Env, Test};

fn main() -> ExitCode {
    if std::env::var_os(cluster::HOLD).is_some() {
        return cluster::hold();
    }
    let arguments = Arguments::from_args();
    let env = Arc::new(Env::default());
    let tests: &[&[Test]] = &[
        chaos::TESTS,
        cluster::TESTS,
        consistency::TESTS,
        console::TESTS,
        harness_check::TESTS,
        demo::TESTS,
        drivers::TESTS,
        exact::TESTS,
        explain::TESTS,
        failover::TESTS,
        faults::TESTS,
        lag::TESTS,
        positions::TESTS,
        forks::TESTS,
        staleness::TESTS,
        nodes::TESTS,
        unwell::TESTS,
        outage::TESTS,
        overload::TESTS,
        routing::TESTS,
        state::TESTS,
        switchover::TESTS,
        prepared::TESTS,
        promises::TESTS,
        pgbench::TESTS,
        exact_copy::TESTS,
        bulk::TESTS,
        cancel::TESTS,
        hostile::TESTS,
        lifecycle::TESTS,
        login::TESTS,
        wire_cancel::TESTS,
        wire_encodings::TESTS,
        wire_fuzz::TESTS,
        wire_malformed::TESTS,
        wire_memory::TESTS,
        wire_notify::TESTS,
        wire_pipelines::TESTS,
        wire_replication::TESTS,
    ];
    let trials = tests.iter().copied().flatten().map(|&(name, test)| {
        let env = Arc::clone(&env);
        Trial::test(name, move || {
            test(&env);
            Ok(())
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // No thread of a test is left, so this stops the nodes.
    drop(env);
    conclusion.exit_code()
}
