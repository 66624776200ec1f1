//! Judges: what a history breaks, and why. Pure.
//!
//! All of them are sound: a history of a correct system has no violation, whatever was lost on the way. What a judge
//! may build on is that one primary commits, in one order, and that a write which was answered before another was sent
//! committed before it.

use std::collections::HashMap;
use std::fmt;

use causeway::types::Level;

use super::history::{History, Nanos, Node, Op, Outcome, Read, Register, Token, Value, Version, What, Write};
use super::index::Index;

/// What a read can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// What is shown was written, was not rolled back, and not before it was sent.
    Integrity,
    /// A session sees what it has committed.
    OwnWrites,
    /// A session sees no older version of what it has seen.
    Monotonic,
    /// Who has seen a write sees what was committed before that was sent, and what was committed with it.
    Causal,
    /// The same over a token that one session gave to another.
    Token,
    /// What was committed, or shown to anybody, before the read began is seen.
    RealTime,
    /// What was committed a while before the read began is seen.
    Staleness,
    /// Reads of one snapshot agree.
    Snapshot,
}

impl Rule {
    pub const ALL: [Self; 8] = [
        Self::Integrity,
        Self::OwnWrites,
        Self::Monotonic,
        Self::Causal,
        Self::Token,
        Self::RealTime,
        Self::Staleness,
        Self::Snapshot,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Integrity => "integrity",
            Self::OwnWrites => "read your writes",
            Self::Monotonic => "monotonic reads",
            Self::Causal => "writes follow reads",
            Self::Token => "tokens",
            Self::RealTime => "strong",
            Self::Staleness => "staleness",
            Self::Snapshot => "one snapshot",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    pub level: Level,
    pub session: u32,
    pub text: String,
}

/// What the judges found.
#[derive(Debug, Default)]
pub struct Verdict {
    pub violations: Vec<Violation>,
    /// How often a rule asked for more than the first version.
    pub checks: HashMap<Rule, usize>,
    /// Reads on the primary that do not show what a replica showed before it: a commit is in the log, and so on the
    /// replicas, before the primary shows it. No proxy can know.
    pub ahead: usize,
    /// Of what each rule asked for.
    pub samples: HashMap<Rule, Sample>,
}

/// A read owes a version of a register.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub op: usize,
    pub register: Register,
    pub version: Version,
}

/// The same history where the read does not show what it owes, but the version before it.
pub fn corrupted(history: &History, sample: &Sample) -> History {
    let index = Index::new(history);
    let version = sample.version - 1;
    let write = index.writer(sample.register, version).map_or(0, |at| index.id(at));
    let mut history = history.clone();
    if let What::Read(read) = &mut history.0[sample.op].what {
        for value in read.values.iter_mut().filter(|value| value.register == sample.register) {
            (value.version, value.write) = (version, write);
        }
    }
    history
}

impl Verdict {
    pub fn count(&self, rule: Rule) -> usize {
        self.violations.iter().filter(|violation| violation.rule == rule).count()
    }

    fn demand(&mut self, index: &Index, at: usize, value: &Value, demand: &Demand) {
        if demand.version == 0 {
            return;
        }
        let op = &index.ops[at];
        let checks = self.checks.entry(demand.rule).or_default();
        *checks += 1;
        let What::Read(read) = &op.what else { return };
        let shown_elsewhere = matches!(demand.rule, Rule::Monotonic | Rule::Token | Rule::RealTime);
        let may_lack = shown_elsewhere
            && read.node == Node::PRIMARY
            && !index.has_returned(value.register, demand.version, op.invoked);
        // Each check has the same chance to be the sample.
        if !may_lack && fastrand::Rng::with_seed(*checks as u64).usize(..*checks) == 0 {
            self.samples.insert(demand.rule, Sample { op: at, register: value.register, version: demand.version });
        }
        if value.version >= demand.version {
            return;
        }
        if may_lack {
            self.ahead += 1;
            return;
        }
        let Value { register, version, write } = *value;
        let own = format!("{op:.0} r{register}={version}#{write}");
        let because = demand.because.map_or(String::new(), |at| format!(" by `{:.0}`", index.ops[at]));
        let writer = index.writer(register, demand.version);
        let writer = writer.map_or(String::new(), |at| format!(", of `{}`", index.ops[at]));
        let text = format!("`{own}` owes r{register}={}{because}{writer}", demand.version);
        self.violations.push(Violation { rule: demand.rule, level: read.promise.level, session: op.session, text });
    }

    fn corrupt(&mut self, op: &Op, level: Level, why: &fmt::Arguments<'_>) {
        let text = format!("`{op}` {why}");
        self.violations.push(Violation { rule: Rule::Integrity, level, session: op.session, text });
    }
}

/// The version that a read must show at least.
#[derive(Clone, Copy, Debug)]
struct Demand {
    rule: Rule,
    version: Version,
    /// The operation that it follows from.
    because: Option<usize>,
}

/// All judges.
pub fn judge(history: &History) -> Verdict {
    let index = Index::new(history);
    let mut verdict = Verdict::default();
    integrity(&index, &mut verdict);
    sessions(&index, &mut verdict);
    real_time(&index, &mut verdict);
    staleness(&index, &mut verdict);
    snapshots(&index, &mut verdict);
    verdict
}

fn reads<'a>(index: &Index<'a>) -> impl Iterator<Item = (usize, &'a Op, &'a Read)> + use<'a> {
    index.ops.iter().enumerate().filter_map(|(at, op)| match &op.what {
        What::Read(read) => Some((at, op, read)),
        _ => None,
    })
}

fn integrity(index: &Index, verdict: &mut Verdict) {
    for op in index.ops {
        match &op.what {
            What::Write(Write { outcome: Outcome::Committed, registers, .. }) => {
                for (register, version) in registers {
                    if version.is_some_and(|version| version <= index.committed_before(*register, op.invoked)) {
                        let why = format_args!("did not write r{register} after what had returned before");
                        verdict.corrupt(op, Level::Primary, &why);
                    }
                }
            }
            What::Read(read) => {
                for value in &read.values {
                    *verdict.checks.entry(Rule::Integrity).or_default() += 1;
                    if let Some(why) = wrong(index, op, value) {
                        verdict.corrupt(op, read.promise.level, &format_args!("{why}"));
                    }
                }
            }
            _ => {}
        }
    }
}

/// Why nobody can have seen this value.
fn wrong(index: &Index, op: &Op, value: &Value) -> Option<String> {
    let Value { register, version, write } = *value;
    if version >= index.lowest_after(register, op.returned) {
        return Some(format!("shows r{register} as a later write left it"));
    }
    if write == 0 {
        return (version > 0).then(|| format!("shows r{register} without its write"));
    }
    let Some((at, found)) = index.write(write) else { return Some(format!("shows what nobody wrote: #{write}")) };
    let writer = &index.ops[at];
    let written = found.registers.iter().find(|(name, _)| *name == register);
    let agrees = written.is_some_and(|(_, told)| told.is_none_or(|told| told == version));
    if found.outcome == Outcome::RolledBack || !agrees {
        return Some(format!("shows what was not committed: `{writer}`"));
    }
    (writer.invoked >= op.returned).then(|| format!("shows what comes later: `{writer}`"))
}

/// What a session knows, and so must see.
#[derive(Clone, Debug, Default)]
struct Knowledge {
    floors: HashMap<Register, Demand>,
    since: Option<Since>,
}

/// All that was committed before an instant must be seen.
#[derive(Clone, Copy, Debug)]
struct Since {
    instant: Nanos,
    rule: Rule,
    because: usize,
    /// Of the write that was sent at that instant: for this one the floor says more.
    register: Option<Register>,
}

impl Knowledge {
    fn raise(&mut self, register: Register, demand: Demand) {
        let floor = self.floors.entry(register).or_insert(demand);
        if floor.version < demand.version {
            *floor = demand;
        }
    }

    /// A write was seen, by a read of `register` or by whoever wrote it: there is what else it has written, and what
    /// was committed before it was sent.
    fn learn(&mut self, index: &Index, write: usize, rule: Rule, because: usize, register: Option<Register>) {
        let op = &index.ops[write];
        let What::Write(written) = &op.what else { return };
        for &(other, version) in written.registers.iter().filter(|(other, _)| Some(*other) != register) {
            let version = version.or_else(|| index.version_of(write, other)).unwrap_or(0);
            self.raise(other, Demand { rule, version, because: Some(because) });
        }
        if self.since.is_none_or(|since| since.instant < op.invoked) {
            self.since = Some(Since { instant: op.invoked, rule: Rule::Causal, because, register });
        }
    }

    /// What another session knew when it gave its token.
    fn join(&mut self, other: &Self) {
        for (&register, demand) in &other.floors {
            self.raise(register, Demand { rule: Rule::Token, ..*demand });
        }
        match (self.since, other.since) {
            (own, Some(since)) if own.is_none_or(|own| own.instant < since.instant) => {
                self.since = Some(Since { rule: Rule::Token, ..since });
            }
            _ => {}
        }
    }
}

/// Reads under `session` and above: own writes, never back, causality, also by tokens.
fn sessions(index: &Index, verdict: &mut Verdict) {
    let mut order: Vec<usize> = (0..index.ops.len()).collect();
    // Stable: the operations of a session stay in its order.
    order.sort_by_key(|&at| index.ops[at].invoked);
    let mut sessions: HashMap<u32, Knowledge> = HashMap::new();
    let mut tokens: HashMap<Token, Knowledge> = HashMap::new();
    for at in order {
        let op = &index.ops[at];
        let knowledge = sessions.entry(op.session).or_default();
        match &op.what {
            What::Write(write) if write.outcome == Outcome::Committed => {
                knowledge.learn(index, at, Rule::OwnWrites, at, None);
            }
            What::Write(_) => {}
            What::Read(read) => {
                if read.promise.level >= Level::Session {
                    recall(index, verdict, knowledge, at, read);
                }
                for value in &read.values {
                    let demand = Demand { rule: Rule::Monotonic, version: value.version, because: Some(at) };
                    knowledge.raise(value.register, demand);
                    if let Some((write, _)) = index.write(value.write) {
                        knowledge.learn(index, write, Rule::Monotonic, at, Some(value.register));
                    }
                }
            }
            What::Give(token) => drop(tokens.insert(*token, knowledge.clone())),
            What::Take(token) => tokens.get(token).into_iter().for_each(|given| knowledge.join(given)),
        }
    }
}

/// Compares a read with what its session knew before it.
fn recall(index: &Index, verdict: &mut Verdict, knowledge: &Knowledge, at: usize, read: &Read) {
    for value in &read.values {
        if let Some(floor) = knowledge.floors.get(&value.register) {
            verdict.demand(index, at, value, floor);
        }
        if let Some(since) = knowledge.since.filter(|since| since.register != Some(value.register)) {
            let version = index.committed_before(value.register, since.instant);
            let demand = Demand { rule: since.rule, version, because: Some(since.because) };
            verdict.demand(index, at, value, &demand);
        }
    }
}

/// Reads under `strong` and `primary`: with the writes they are a register that is linearizable.
fn real_time(index: &Index, verdict: &mut Verdict) {
    for (at, op, read) in reads(index).filter(|(.., read)| read.promise.level >= Level::Strong) {
        for value in &read.values {
            let committed = index.committed_before(value.register, op.invoked);
            let shown = index.shown_before(value.register, op.invoked);
            verdict.demand(index, at, value, &Demand { rule: Rule::RealTime, version: committed, because: None });
            if shown > committed {
                verdict.demand(index, at, value, &Demand { rule: Rule::RealTime, version: shown, because: None });
            }
        }
    }
}

fn staleness(index: &Index, verdict: &mut Verdict) {
    for (at, op, read) in reads(index) {
        let Some(limit) = read.promise.staleness else { continue };
        for value in &read.values {
            let version = index.committed_before(value.register, op.invoked.saturating_sub(limit));
            verdict.demand(index, at, value, &Demand { rule: Rule::Staleness, version, because: None });
        }
    }
}

/// A statement, and a REPEATABLE READ transaction, read one state: of what it shows, each part holds for all of it.
fn snapshots(index: &Index, verdict: &mut Verdict) {
    let mut groups: HashMap<(Option<u32>, usize), Vec<usize>> = HashMap::new();
    for (at, _, read) in reads(index) {
        let group = (read.snapshot, if read.snapshot.is_some() { 0 } else { at });
        groups.entry(group).or_default().push(at);
    }
    for group in groups.values() {
        let mut knowledge = Knowledge::default();
        let mut highest: HashMap<Register, (Version, usize)> = HashMap::new();
        let shown = || group.iter().filter_map(|&at| as_read(&index.ops[at]).map(|read| (at, read)));
        for (at, value) in shown().flat_map(|(at, read)| read.values.iter().map(move |value| (at, value))) {
            let highest = highest.entry(value.register).or_insert((value.version, at));
            *highest = (*highest).max((value.version, at));
            if let Some((write, _)) = index.write(value.write) {
                knowledge.learn(index, write, Rule::Snapshot, at, Some(value.register));
            }
        }
        knowledge.since = knowledge.since.map(|since| Since { rule: Rule::Snapshot, ..since });
        for (at, read) in shown() {
            recall(index, verdict, &knowledge, at, read);
            for value in &read.values {
                let (version, other) = highest[&value.register];
                if other != at {
                    let demand = Demand { rule: Rule::Snapshot, version, because: Some(other) };
                    verdict.demand(index, at, value, &demand);
                }
            }
        }
    }
}

fn as_read(op: &Op) -> Option<&Read> {
    match &op.what {
        What::Read(read) => Some(read),
        _ => None,
    }
}

/// One violation a line, as many as `most`.
pub fn explain(violations: &[Violation], most: usize) -> String {
    let lines = violations.iter().take(most);
    lines.map(|violation| format!("  {}: {}", violation.rule.as_str(), violation.text)).collect::<Vec<_>>().join("\n")
}
