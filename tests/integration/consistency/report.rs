//! What runs have shown: for people, and for the test.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use causeway::types::Level;

use super::faults::Fault;
use super::judges::{Rule, Verdict, corrupted, explain, judge};
use super::workload::{Run, shares};

/// What a client may be told while nodes go: nobody can serve it now, or its server has gone.
const EXPECTED: [&str; 6] = [
    "57P0",
    "08",
    "40001 the transaction was lost with its server",
    "40001 the server was lost",
    "connection closed",
    "error communicating with the server",
];

/// Under each level and fault, however busy the machine is.
pub const FEWEST_READS: usize = 100;

/// Of violations, in a message.
const MOST: usize = 5;

/// Level by fault, and rule by rule.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
    rules: BTreeMap<Rule, Tally>,
    /// Where, what, how often.
    errors: Vec<(Fault, Level, String, usize)>,
    ahead: usize,
    wrong: Vec<String>,
    operations: usize,
    elapsed: Duration,
}

#[derive(Debug)]
struct Row {
    fault: Fault,
    level: Level,
    /// On the primary, and on the replicas.
    reads: [usize; 3],
    errors: usize,
    violations: usize,
}

#[derive(Debug, Default)]
struct Tally {
    checks: usize,
    violations: usize,
    /// Reads that we made wrong, and how many of them the judge has found.
    seeded: usize,
    found: usize,
}

impl Table {
    pub fn add(&mut self, fault: Fault, run: &Run) {
        let verdict = judge(&run.history);
        self.operations += run.history.0.len();
        self.elapsed += run.elapsed;
        self.ahead += verdict.ahead;
        for (level, reads) in shares(&run.history) {
            let violations = verdict.violations.iter().filter(|violation| violation.level == level).count();
            let errors = run.errors.iter().filter(|((of, _), _)| *of == level).map(|(_, count)| count).sum();
            if reads.iter().sum::<usize>() < FEWEST_READS {
                self.wrong.push(format!("{}, {}: {reads:?} reads show nothing", fault.as_str(), level.as_str()));
            }
            self.rows.push(Row { fault, level, reads, errors, violations });
        }
        if !verdict.violations.is_empty() {
            let mut by_way: BTreeMap<String, usize> = BTreeMap::new();
            for violation in &verdict.violations {
                let profile = &run.sessions[usize::try_from(violation.session).unwrap()];
                let way = format!("{} by {:?}", violation.level.as_str(), profile.way);
                *by_way.entry(way).or_default() += 1;
            }
            let examples = explain(&verdict.violations, MOST);
            self.wrong.push(format!("{}: {by_way:?}\n{examples}", fault.as_str()));
        }
        for ((level, text), &count) in &run.errors {
            if !EXPECTED.iter().any(|expected| text.starts_with(expected)) {
                self.wrong.push(format!("{}, {}: {count} times: {text}", fault.as_str(), level.as_str()));
            }
            self.errors.push((fault, *level, text.clone(), count));
        }
        self.tally(run, &verdict);
    }

    /// Also makes one read of a good history wrong for each rule, and asks the judges again.
    fn tally(&mut self, run: &Run, verdict: &Verdict) {
        for rule in Rule::ALL {
            let tally = self.rules.entry(rule).or_default();
            tally.checks += verdict.checks.get(&rule).copied().unwrap_or_default();
            tally.violations += verdict.count(rule);
            let Some(sample) = verdict.samples.get(&rule).filter(|_| verdict.violations.is_empty()) else { continue };
            tally.seeded += 1;
            if judge(&corrupted(&run.history, sample)).count(rule) > 0 {
                tally.found += 1;
            } else {
                let read = &run.history.0[sample.op];
                self.wrong.push(format!("{} is not found: {sample:?} of `{read}`", rule.as_str()));
            }
        }
    }

    pub fn assert_nothing_wrong(&self) {
        assert!(self.wrong.is_empty(), "\n{}", self.wrong.join("\n"));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["reads", "primary", "replica1", "replica2", "errors", "violations"];
        write!(f, "{:<21} {:<9}", "fault", "level")?;
        names.iter().try_for_each(|name| write!(f, " {name:>10}"))?;
        writeln!(f)?;
        for Row { fault, level, reads, errors, violations } in &self.rows {
            write!(f, "{:<21} {:<9} {:>10}", fault.as_str(), level.as_str(), reads.iter().sum::<usize>())?;
            let numbers = reads.iter().chain([errors, violations]);
            numbers.into_iter().try_for_each(|number| write!(f, " {number:>10}"))?;
            writeln!(f)?;
        }
        writeln!(f, "\n{:<21} {:>10} {:>10} {:>10} {:>10}", "rule", "checks", "violations", "seeded", "found")?;
        for (rule, Tally { checks, violations, seeded, found }) in &self.rules {
            writeln!(f, "{:<21} {checks:>10} {violations:>10} {seeded:>10} {found:>10}", rule.as_str())?;
        }
        let rate = u32::try_from(self.operations).map_or(f64::NAN, f64::from) / self.elapsed.as_secs_f64();
        writeln!(f, "\n{} operations in {:.1?}, {rate:.0}/s", self.operations, self.elapsed)?;
        writeln!(f, "{} reads on the primary that a replica was ahead of", self.ahead)?;
        self.errors.iter().try_for_each(|(fault, level, text, count)| {
            writeln!(f, "{count:>6} {}, {}: {text}", fault.as_str(), level.as_str())
        })
    }
}
