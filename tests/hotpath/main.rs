//! What a query costs on the hot path, in figures steady enough to guard: instructions, allocations, system calls.
//!
//! The parsing of what the instruments print is tested by `cargo test`. What measures is ignored there, since it wants
//! the release binary, valgrind and strace: `make test` runs `guard`, which fails when a figure has grown, and
//! `make hotpath` runs `compare`, which puts PgBouncer's figures beside ours.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where something is not as it should be"
)]

mod binary;
mod calls;
mod cost;
mod driver;
mod guard;
mod kind;
mod limits;
mod measure;
mod process;
#[path = "../integration/raw.rs"]
#[expect(dead_code, reason = "the integration tests use all of it")]
mod raw;
mod record;
mod stage;
mod subject;
mod switches;
mod table;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

/// A name and what checks it; it fails by panicking.
type Test = (&'static str, fn());

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let pure: &[&[Test]] = &[binary::TESTS, calls::TESTS, cost::TESTS, limits::TESTS, record::TESTS, switches::TESTS];
    let mut trials: Vec<Trial> = pure.iter().copied().flatten().map(|&(name, test)| trial(name, test)).collect();
    trials.extend(guard::TESTS.iter().map(|&(name, test)| trial(name, test).with_ignored_flag(true)));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(name: &str, test: fn()) -> Trial {
    Trial::test(name, move || -> Result<(), Failed> {
        test();
        Ok(())
    })
}
