//! What another checker of linearizability says of small histories: it tries all orders, where ours knows the order.

use causeway::types::Level;
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

use super::history::{History, Node, Op, Outcome, Promise, Read, Value, Version, What, Write};
use super::judges::{explain, judge};

const HISTORIES: u64 = 4_000;
const SESSIONS: u32 = 3;
const OPS: u32 = 3;

/// A register as PostgreSQL serves it.
#[derive(Clone, Debug, Default)]
struct Register(Version);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Bump,
    Read,
}

impl SequentialSpec for Register {
    type Op = Call;
    type Ret = Version;

    fn invoke(&mut self, call: &Call) -> Version {
        self.0 += Version::from(*call == Call::Bump);
        self.0
    }
}

fn call(op: &Op) -> (Call, Version) {
    match &op.what {
        What::Write(write) => (Call::Bump, write.registers[0].1.unwrap()),
        What::Read(read) => (Call::Read, read.values[0].version),
        _ => unreachable!("only these are made below"),
    }
}

fn is_linearizable(history: &History) -> bool {
    let mut events: Vec<_> =
        history.0.iter().flat_map(|op| [(op.invoked, false, op), (op.returned, true, op)]).collect();
    events.sort_unstable_by_key(|&(at, ..)| at);
    let mut tester = LinearizabilityTester::new(Register::default());
    for (_, returns, op) in events {
        let (call, version) = call(op);
        let outcome = if returns { tester.on_return(op.session, version) } else { tester.on_invoke(op.session, call) };
        outcome.expect("a session does one thing at a time");
    }
    tester.is_consistent()
}

/// Operations that take effect at an instant between their ends; one of them may lie about what it was told.
fn random_history(rng: &mut fastrand::Rng) -> History {
    let calls = SESSIONS * OPS;
    // In order, the calls' three instants; all differ.
    let mut turns: Vec<u32> = (0..SESSIONS).flat_map(|session| vec![session; 3 * OPS as usize]).collect();
    rng.shuffle(&mut turns);
    let mut ops: Vec<Op> = Vec::new();
    let mut open: Vec<Option<Op>> = vec![None; SESSIONS as usize];
    let mut version = 0;
    for (at, session) in (0..).zip(turns) {
        let slot = &mut open[session as usize];
        match slot {
            None => {
                let what = if rng.bool() { written(0) } else { shown(0) };
                *slot = Some(Op { session, invoked: at, returned: 0, what });
            }
            Some(op) if op.returned == 0 => {
                op.returned = u64::MAX;
                version += u64::from(matches!(op.what, What::Write(_)));
                op.what = if matches!(op.what, What::Write(_)) { written(version) } else { shown(version) };
            }
            Some(op) => {
                op.returned = at;
                ops.extend(slot.take());
            }
        }
    }
    assert_eq!(ops.len(), calls as usize);
    lie(&mut ops, version, rng);
    History(ops)
}

/// Two writes swap what they say, or one read says something else.
fn lie(ops: &mut [Op], highest: Version, rng: &mut fastrand::Rng) {
    let picked = rng.usize(..ops.len());
    match &ops[picked].what {
        What::Read(_) => ops[picked].what = shown(rng.u64(0..=highest)),
        What::Write(_) => {
            let other = rng.usize(..ops.len());
            if let (What::Write(_), first, second) = (&ops[other].what, call(&ops[picked]).1, call(&ops[other]).1) {
                (ops[picked].what, ops[other].what) = (written(second), written(first));
            }
        }
        _ => {}
    }
}

/// The number of a write is its version.
fn written(version: Version) -> What {
    What::Write(Write { id: version, outcome: Outcome::Committed, registers: vec![(0, Some(version))] })
}

fn shown(version: Version) -> What {
    let promise = Promise { level: Level::Strong, staleness: None };
    let values = vec![Value { register: 0, version, write: version }];
    What::Read(Read { promise, node: Node(1), snapshot: None, values })
}

pub fn another_checker_agrees() {
    let mut said = [0, 0];
    for seed in 0..HISTORIES {
        let history = random_history(&mut fastrand::Rng::with_seed(seed));
        let theirs = is_linearizable(&history);
        let ours = judge(&history).violations;
        let text = || history.0.iter().map(|op| format!("{op}\n")).collect::<Vec<_>>().concat();
        assert_eq!(ours.is_empty(), theirs, "seed {seed}:\n{}{}", text(), explain(&ours, usize::MAX));
        said[usize::from(theirs)] += 1;
    }
    println!("{} histories are linearizable, {} are not: both checkers say so", said[1], said[0]);
    assert!(said.iter().all(|&count| count > HISTORIES / 10), "they are too much alike: {said:?}");
}
