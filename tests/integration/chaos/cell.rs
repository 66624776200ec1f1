//! The cells of the matrix: what is struck, how, and what its clients were doing.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Primary,
    Replica,
    /// The process, or the network between clients and it.
    Proxy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// kill -9, and a new start.
    Kill,
    /// SIGSTOP, and SIGCONT.
    Freeze,
    /// A network with latency, jitter and little bandwidth.
    Slow,
    /// Connections are closed, some within a message.
    Cut,
    /// Connections are reset.
    Reset,
    /// It takes no more connections, and loses those that nobody is using.
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Idle,
    Transaction,
    /// COMMIT was sent: it has not arrived, or its answer has not.
    Commit,
    Copy,
    Pipeline,
    Prepared,
    /// Waiting for a server.
    Queue,
}

const TARGETS: [Target; 3] = [Target::Primary, Target::Replica, Target::Proxy];
const FAULTS: [Fault; 6] = [Fault::Kill, Fault::Freeze, Fault::Slow, Fault::Cut, Fault::Reset, Fault::Full];
const STATES: [State; 7] =
    [State::Idle, State::Transaction, State::Commit, State::Copy, State::Pipeline, State::Prepared, State::Queue];

/// What runs when nobody says what: of each target, the faults and states where most can go wrong.
pub const SHORT: &str = "primary/kill/commit,primary/kill/pipeline,primary/kill/queue,primary/reset/transaction,\
                         replica/kill/prepared,replica/kill/copy,replica/freeze/queue,proxy/kill/commit,\
                         proxy/cut/pipeline";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub target: Target,
    pub fault: Fault,
    pub state: State,
}

impl fmt::Display for Cell {
    /// `primary/kill/idle`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, fault, state } = self;
        f.write_str(&format!("{target:?}/{fault:?}/{state:?}").to_lowercase())
    }
}

impl Cell {
    /// Whether one of the patterns is its name: `primary/kill/idle`, where `*` and what is left out behind stand for
    /// all.
    fn is_in(self, patterns: &str) -> bool {
        let name = self.to_string();
        patterns.split(',').any(|pattern| pattern.split('/').zip(name.split('/')).all(|(a, b)| a == "*" || a == b))
    }
}

/// The cells of a target that the patterns name, those with the same fault together.
pub fn groups(target: Target, patterns: &str) -> Vec<Vec<Cell>> {
    let of_fault = |fault| STATES.map(|state| Cell { target, fault, state }).into_iter();
    let groups = FAULTS.map(|fault| of_fault(fault).filter(|cell| cell.is_in(patterns)).collect::<Vec<_>>());
    groups.into_iter().filter(|group| !group.is_empty()).collect()
}

/// A typing error in the patterns must not pass for a run without faults.
pub fn check_patterns(patterns: &str) {
    for pattern in patterns.split(',') {
        let any = TARGETS.iter().any(|target| !groups(*target, pattern).is_empty());
        assert!(any, "{pattern:?} names no cell: target/fault/state, as in {SHORT}");
    }
}
