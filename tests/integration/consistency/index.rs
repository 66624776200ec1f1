//! A history, arranged for the judges' questions.

use std::collections::HashMap;

use super::history::{History, Nanos, Op, Outcome, Register, Version, What, Write, WriteId};

/// Of one register: instants, and the highest version up to each.
#[derive(Debug, Default)]
struct Ladder(Vec<(Nanos, Version)>);

impl Ladder {
    fn new(mut steps: Vec<(Nanos, Version)>) -> Self {
        steps.sort_unstable();
        let mut highest = 0;
        for (_, version) in &mut steps {
            highest = highest.max(*version);
            *version = highest;
        }
        Self(steps)
    }

    fn before(&self, instant: Nanos) -> Version {
        let steps = self.0.partition_point(|&(at, _)| at < instant);
        steps.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}

/// What the judges ask of a history.
#[derive(Debug)]
pub struct Index<'a> {
    pub ops: &'a [Op],
    /// The place of a write in `ops`.
    by_id: HashMap<WriteId, usize>,
    by_version: HashMap<(Register, Version), usize>,
    /// What only reads tell.
    shown_of: HashMap<(usize, Register), Version>,
    committed: HashMap<Register, Ladder>,
    shown: HashMap<Register, Ladder>,
    /// Instants and versions backwards, so that "the highest before" is "the lowest after".
    to_come: HashMap<Register, Ladder>,
}

impl<'a> Index<'a> {
    pub fn new(history: &'a History) -> Self {
        let ops = history.0.as_slice();
        let mut index = Self {
            ops,
            by_id: HashMap::new(),
            by_version: HashMap::new(),
            shown_of: HashMap::new(),
            committed: HashMap::new(),
            shown: HashMap::new(),
            to_come: HashMap::new(),
        };
        for (at, op) in ops.iter().enumerate() {
            if let What::Write(write) = &op.what {
                index.by_id.insert(write.id, at);
            }
        }
        let shown = || history.reads().flat_map(|(op, read)| read.values.iter().map(move |value| (op, value)));
        for (_, value) in shown() {
            if let Some(&write) = index.by_id.get(&value.write) {
                index.by_version.insert((value.register, value.version), write);
                index.shown_of.insert((write, value.register), value.version);
            }
        }
        for (at, op) in ops.iter().enumerate() {
            for (register, version) in survivors(op) {
                index.by_version.insert((register, version), at);
            }
        }
        index.shown = ladders(shown().map(|(op, value)| (value.register, op.returned, value.version)));
        let versions = || index.by_version.iter().map(|(&(register, version), &at)| (&ops[at], register, version));
        let committed = versions().filter(|(op, ..)| is_committed(op));
        index.committed = ladders(committed.map(|(op, register, version)| (register, op.returned, version)));
        let backwards = versions().map(|(op, register, version)| (register, !op.invoked, !version));
        index.to_come = ladders(backwards);
        index
    }

    /// The highest version whose write had returned before `instant`.
    pub fn committed_before(&self, register: Register, instant: Nanos) -> Version {
        self.committed.get(&register).map_or(0, |ladder| ladder.before(instant))
    }

    /// The highest version that a read had shown before `instant`.
    pub fn shown_before(&self, register: Register, instant: Nanos) -> Version {
        self.shown.get(&register).map_or(0, |ladder| ladder.before(instant))
    }

    /// The lowest version of a write that was sent after `instant`.
    pub fn lowest_after(&self, register: Register, instant: Nanos) -> Version {
        !self.to_come.get(&register).map_or(0, |ladder| ladder.before(!instant))
    }

    pub fn write(&self, id: WriteId) -> Option<(usize, &'a Write)> {
        let &at = self.by_id.get(&id)?;
        match &self.ops[at].what {
            What::Write(write) => Some((at, write)),
            _ => None,
        }
    }

    /// 0 where that is no write.
    pub fn id(&self, at: usize) -> WriteId {
        match &self.ops[at].what {
            What::Write(write) => write.id,
            _ => 0,
        }
    }

    /// What a read has shown of a write that was not told its version.
    pub fn version_of(&self, write: usize, register: Register) -> Option<Version> {
        self.shown_of.get(&(write, register)).copied()
    }

    /// The place of the write that made a version.
    pub fn writer(&self, register: Register, version: Version) -> Option<usize> {
        self.by_version.get(&(register, version)).copied()
    }

    /// Whether the write of a version had returned before `instant`, so that the primary shows it.
    pub fn has_returned(&self, register: Register, version: Version, instant: Nanos) -> bool {
        self.writer(register, version).is_some_and(|at| is_committed(&self.ops[at]) && self.ops[at].returned < instant)
    }
}

fn is_committed(op: &Op) -> bool {
    matches!(&op.what, What::Write(write) if write.outcome == Outcome::Committed)
}

/// What a write that may have happened has made, as far as it was told. Where nobody knows whether it did, somebody
/// else may have made the same version.
fn survivors(op: &Op) -> impl Iterator<Item = (Register, Version)> {
    let registers = match &op.what {
        What::Write(Write { outcome: Outcome::Committed, registers, .. }) => registers.as_slice(),
        _ => &[],
    };
    registers.iter().filter_map(|&(register, version)| Some((register, version?)))
}

fn ladders(steps: impl Iterator<Item = (Register, Nanos, Version)>) -> HashMap<Register, Ladder> {
    let mut by_register: HashMap<Register, Vec<(Nanos, Version)>> = HashMap::new();
    for (register, instant, version) in steps {
        by_register.entry(register).or_default().push((instant, version));
    }
    by_register.into_iter().map(|(register, steps)| (register, Ladder::new(steps))).collect()
}
