//! The tests that measure.

use std::env;

use crate::Test;
use crate::limits::{Verdict, is_frugal, stays, verdict};
use crate::measure::{Figures, measure};
use crate::record::{Record, Recorded, rustc};
use crate::stage;
use crate::subject::Subject;
use crate::table;

pub const TESTS: &[Test] = &[("guard", guard), ("compare", compare)];

/// Set, the figures are recorded in place of being held against the record.
const RECORD: &str = "CAUSEWAY_RECORD_HOTPATH";

/// Allocations per query that a timer or a probe beside the queries may add.
const SLACK: f64 = 0.05;

/// Holds the release binary's figures against the record.
fn guard() {
    let cluster = stage::cluster();
    let subject = Subject::causeway(&cluster);
    let measured = [(subject.name, measure(&subject))];
    table::print(&measured);
    let [(_, figures)] = measured;
    let chatty: Vec<_> = figures.iter().flat_map(chatter).collect();
    if env::var_os(RECORD).is_some_and(|value| !value.is_empty()) {
        Record::new(&figures).write();
        assert!(chatty.is_empty(), "\n{}", chatty.join("\n"));
        return;
    }
    let record = Record::read();
    let here = rustc();
    let elsewhere = if record.rustc == here {
        String::new()
    } else {
        format!("\nThe record is of {}, this is {here}: that alone may make a difference.", record.rustc)
    };
    let (mut grown, mut shrunk) = (chatty, Vec::new());
    for figures in &figures {
        let name = figures.kind.name();
        let recorded = record.queries.get(name).unwrap_or_else(|| panic!("{name} is not recorded. {ADVICE}"));
        for (verdict, text) in compared(figures, recorded) {
            match verdict {
                Verdict::Grown => grown.push(text),
                Verdict::Shrunk => shrunk.push(text),
                Verdict::Same => {}
            }
        }
    }
    if !shrunk.is_empty() {
        println!("\nCheaper than recorded; please record it, so that it stays so. {ADVICE}\n{}", shrunk.join("\n"));
    }
    println!("{elsewhere}");
    assert!(grown.is_empty(), "the hot path has grown dearer:\n{}\n{ADVICE}{elsewhere}", grown.join("\n"));
}

const ADVICE: &str =
    "`make record-hotpath` records new values; a change that makes them higher says in its message what for.";

fn compared(figures: &Figures, recorded: &Recorded) -> [(Verdict, String); 2] {
    [
        ("instructions", recorded.instructions, figures.work.instructions, 0.0),
        ("allocations", recorded.allocations, figures.work.allocations, SLACK),
    ]
    .map(|(what, before, now, slack)| {
        let text = format!("{}: {now:.2} {what} per query, {before:.2} recorded", figures.kind.name());
        (verdict(before, now, slack), text)
    })
}

/// What is wrong with a query's system calls.
fn chatter(figures: &Figures) -> Vec<String> {
    let mut wrong = Vec::new();
    for run in [&figures.alone, &figures.together] {
        let which = format!("{}, {} clients", figures.kind.name(), run.clients);
        if !is_frugal(run.transfers) {
            wrong.push(format!("{which}: {:.2} system calls on sockets per query, 4 are needed", run.transfers));
        }
        if !stays(run.wakes) {
            wrong.push(format!("{which}: {:.2} system calls per query to wake threads, none is needed", run.wakes));
        }
    }
    wrong
}

/// Ours beside PgBouncer's, if that is installed.
fn compare() {
    let cluster = stage::cluster();
    let subjects = [Some(Subject::causeway(&cluster)), Subject::pgbouncer(&cluster)];
    if subjects[1].is_none() {
        println!("PgBouncer is not installed: `apt-get install pgbouncer`.");
    }
    let measured: Vec<_> = subjects.iter().flatten().map(|subject| (subject.name, measure(subject))).collect();
    table::print(&measured);
}
