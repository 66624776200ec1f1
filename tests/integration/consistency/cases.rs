//! Histories that are as they should be, and histories with what each judge is for.

use std::collections::BTreeSet;

use super::history::History;
use super::judges::{Rule, explain, judge};

/// What it is about, the history, and the rules that it breaks.
type Case = (&'static str, &'static str, &'static [Rule]);

const CASES: &[Case] = &[
    ("nothing happened", "", &[]),
    ("reads of what was there", "s1 0..1 read strong replica1 r0=0#0 r1=0#0", &[]),
    (
        "own write, seen",
        "s1 0..10 write #1 r0=1
         s1 20..30 read session replica1 r0=1#1",
        &[],
    ),
    (
        "own write, not seen",
        "s1 0..10 write #1 r0=1
         s1 20..30 read session replica1 r0=0#0",
        &[Rule::OwnWrites],
    ),
    (
        "not even on the primary",
        "s1 0..10 write #1 r0=1
         s1 20..30 read session primary r0=0#0",
        &[Rule::OwnWrites],
    ),
    (
        "own write that only a later read tells the version of",
        "s1 0..10 write #1 r0=?
         s1 20..30 read session replica1 r0=0#0
         s2 40..50 read session replica1 r0=1#1",
        &[Rule::OwnWrites],
    ),
    (
        "own write, rolled back",
        "s1 0..10 write! #1 r0=1
         s1 20..30 read session replica1 r0=0#0",
        &[],
    ),
    (
        "own write that nobody knows the end of",
        "s1 0..10 write? #1 r0=1
         s1 20..30 read session replica1 r0=0#0
         s1 40..50 read session replica1 r0=1#1
         s2 20..30 read strong primary r0=0#0",
        &[],
    ),
    (
        "it happened, and is forgotten again",
        "s1 0..10 write? #1 r0=1
         s1 20..30 read session replica1 r0=1#1
         s1 40..50 read session replica2 r0=0#0",
        &[Rule::Monotonic],
    ),
    (
        "it did not happen, and another write made the same version",
        "s1 0..10 write? #1 r0=1
         s2 20..30 write #2 r0=1
         s2 40..50 read strong replica1 r0=1#2",
        &[],
    ),
    (
        "others' writes may be missed under session",
        "s1 0..10 write #1 r0=1
         s2 20..30 read session replica1 r0=0#0",
        &[],
    ),
    (
        "own write, not seen under eventual",
        "s1 0..10 write #1 r0=1
         s1 20..30 read eventual replica1 r0=0#0",
        &[],
    ),
    (
        "back in time",
        "s1 0..10 write #1 r0=1
         s2 20..30 read session replica1 r0=1#1
         s2 40..50 read session replica2 r0=0#0",
        &[Rule::Monotonic],
    ),
    (
        "back in time between two sessions",
        "s1 0..10 write #1 r0=1
         s2 20..30 read session replica1 r0=1#1
         s3 40..50 read session replica2 r0=0#0",
        &[],
    ),
    (
        "back in time from a replica to the primary, which has not answered the writer yet",
        "s1 0..60 write #1 r0=1
         s2 20..30 read session replica1 r0=1#1
         s2 40..50 read session primary r0=0#0
         s3 40..50 read strong primary r0=0#0",
        &[],
    ),
    (
        "and to another replica",
        "s1 0..60 write #1 r0=1
         s2 20..30 read session replica1 r0=1#1
         s2 40..50 read session replica2 r0=0#0
         s3 40..50 read strong replica2 r0=0#0",
        &[Rule::Monotonic, Rule::RealTime],
    ),
    (
        "back in time to the primary, which has",
        "s1 0..10 write #1 r0=1
         s2 20..30 read session replica1 r0=1#1
         s2 40..50 read session primary r0=0#0",
        &[Rule::Monotonic],
    ),
    (
        "the later of two writes without the earlier",
        "s1 0..10 write #1 r0=1
         s1 20..30 write #2 r1=1
         s2 40..50 read session replica1 r1=1#2
         s2 60..70 read session replica2 r0=0#0",
        &[Rule::Causal],
    ),
    (
        "the earlier of two writes without the later",
        "s1 0..10 write #1 r0=1
         s1 20..30 write #2 r1=1
         s2 40..50 read session replica1 r0=1#1
         s2 60..70 read session replica1 r1=0#0",
        &[],
    ),
    (
        "one of two writes at the same time",
        "s1 0..30 write #1 r0=1
         s2 20..30 write #2 r1=1
         s3 40..50 read session replica1 r1=1#2
         s3 60..70 read session replica1 r0=0#0",
        &[],
    ),
    (
        "a half of a transaction, and later not the other",
        "s1 0..10 write #1 r0=1 r1=1
         s2 20..30 read session replica1 r0=1#1
         s2 40..50 read session replica2 r1=0#0",
        &[Rule::Monotonic],
    ),
    (
        "a token, honoured",
        "s1 0..10 write #1 r0=1
         s1 10..11 give t1
         s2 12..13 take t1
         s2 20..30 read session replica1 r0=1#1",
        &[],
    ),
    (
        "a token over a write, not honoured",
        "s1 0..10 write #1 r0=1
         s1 10..11 give t1
         s2 12..13 take t1
         s2 20..30 read session replica1 r0=0#0",
        &[Rule::Token],
    ),
    (
        "a token over a read, not honoured",
        "s1 0..10 write #1 r0=1
         s2 20..30 read session replica1 r0=1#1
         s2 30..31 give t1
         s3 32..33 take t1
         s3 40..50 read session replica2 r0=0#0",
        &[Rule::Token],
    ),
    (
        "a token over two hands, and what came before",
        "s1 0..10 write #1 r0=1
         s1 20..30 write #2 r1=1
         s2 40..50 read session replica1 r1=1#2
         s2 50..51 give t1
         s3 52..53 take t1
         s3 53..54 give t2
         s4 55..56 take t2
         s4 60..70 read session replica2 r0=0#0",
        &[Rule::Token],
    ),
    (
        "a token from before the write",
        "s1 0..1 give t1
         s1 2..10 write #1 r0=1
         s2 12..13 take t1
         s2 20..30 read session replica1 r0=0#0",
        &[],
    ),
    (
        "strong, and not seen",
        "s1 0..10 write #1 r0=1
         s2 20..30 read strong replica1 r0=0#0",
        &[Rule::RealTime],
    ),
    (
        "the primary level, and not seen",
        "s1 0..10 write #1 r0=1
         s2 20..30 read primary primary r0=0#0",
        &[Rule::RealTime],
    ),
    (
        "strong, while the write is on its way",
        "s1 0..25 write #1 r0=1
         s2 20..30 read strong replica1 r0=0#0
         s3 20..30 read strong replica1 r0=1#1",
        &[],
    ),
    (
        "strong, and somebody has seen it while the write was on its way",
        "s1 0..60 write #1 r0=1
         s2 20..30 read eventual replica2 r0=1#1
         s3 40..50 read strong replica1 r0=0#0",
        &[Rule::RealTime],
    ),
    (
        "strong, a version behind",
        "s1 0..10 write #1 r0=1
         s1 11..19 write #2 r0=2
         s2 20..30 read strong replica1 r0=1#1",
        &[Rule::RealTime],
    ),
    (
        "bounded, and old enough to be seen",
        "s1 0..10 write #1 r0=1
         s2 110.5..111 read bounded:100 replica1 r0=0#0",
        &[Rule::Staleness],
    ),
    (
        "bounded, and not old enough",
        "s1 0..10 write #1 r0=1
         s2 109.5..200 read bounded:100 replica1 r0=0#0",
        &[],
    ),
    (
        "eventual, and far too old",
        "s1 0..10 write #1 r0=1
         s2 9000..9001 read eventual:5000 replica1 r0=0#0",
        &[Rule::Staleness],
    ),
    (
        "a snapshot without a part of a transaction",
        "s1 0..10 write #1 r0=1 r1=1
         s2 5..8 read eventual replica1 r0=1#1 r1=0#0",
        &[Rule::Snapshot],
    ),
    (
        "the same over two statements of a transaction",
        "s1 0..10 write #1 r0=1 r1=1
         s2 5..8 read eventual replica1 @7 r1=0#0
         s2 5..9 read eventual replica1 @7 r0=1#1",
        &[Rule::Snapshot],
    ),
    (
        "and over two transactions",
        "s1 0..10 write #1 r0=1 r1=1
         s2 5..8 read eventual replica1 @7 r1=0#0
         s2 8..9 read eventual replica1 @8 r0=1#1",
        &[],
    ),
    (
        "a snapshot with the later of two writes only",
        "s1 0..10 write #1 r0=1
         s1 20..30 write #2 r1=1
         s2 40..50 read eventual replica1 r0=0#0 r1=1#2",
        &[Rule::Snapshot],
    ),
    (
        "a register that changes within a snapshot",
        "s1 0..10 write #1 r0=1
         s2 5..7 read eventual replica1 @1 r0=0#0
         s2 5..9 read eventual replica1 @1 r0=1#1",
        &[Rule::Snapshot],
    ),
    (
        "what was rolled back",
        "s1 0..10 write! #1 r0=1
         s2 20..30 read eventual replica1 r0=1#1",
        &[Rule::Integrity],
    ),
    ("what nobody wrote", "s2 20..30 read eventual replica1 r0=1#1", &[Rule::Integrity]),
    (
        "another version than was written",
        "s1 0..10 write #1 r0=1
         s2 20..30 read eventual replica1 r0=2#1",
        &[Rule::Integrity],
    ),
    (
        "what is written later",
        "s1 20..30 write #1 r0=1
         s2 5..10 read eventual replica1 r0=1#1",
        &[Rule::Integrity],
    ),
    (
        "two writes that swapped their order",
        "s1 0..10 write #1 r0=2
         s1 20..30 write #2 r0=1",
        &[Rule::Integrity],
    ),
];

pub fn judges_find_what_is_wrong() {
    let mut wrong = Vec::new();
    for (name, text, want) in CASES {
        let history = History::parse(text);
        let written: Vec<String> = history.0.iter().map(ToString::to_string).collect();
        let read: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(written.join("\n"), read.join("\n"), "the notation");
        let verdict = judge(&history);
        let want: BTreeSet<Rule> = want.iter().copied().collect();
        let got: BTreeSet<Rule> = verdict.violations.iter().map(|violation| violation.rule).collect();
        if got != want {
            let found = explain(&verdict.violations, usize::MAX);
            wrong.push(format!("{name}: want {want:?}, got {got:?}\n{found}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let uncovered: Vec<Rule> =
        Rule::ALL.into_iter().filter(|rule| !CASES.iter().any(|(_, _, rules)| rules.contains(rule))).collect();
    assert_eq!(uncovered, [], "no case breaks these");
}
