//! Which errors a client may see, by what was struck and what the client was doing.

use super::cell::{Cell, Fault, State, Target};

/// What a client is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Idle,
    /// Outside of a transaction, with a temporary table.
    Pinned,
    Transaction,
    Commit,
    Copy,
    Pipeline,
    Prepared,
    /// Waits for a server.
    Waiter,
    /// Reads, writes and transfers all the time, beside what the cell is about.
    Traffic,
    /// Asks whether all is well again.
    Recovery,
}

/// The connection ended without a word.
pub const GONE: &str = "gone";
/// The transaction is rolled back, or never was committed.
const LOST: &str = "40001";
/// Nobody can tell whether it is committed.
const IN_DOUBT: &str = "08007";
/// A part of the answer has been passed on, so that it can be had from nobody else.
const TORN: &str = "08006 and gone";
const FULL: &str = "53300";

/// A connection that ends with an error of these classes says nothing of the work that was in flight.
pub fn leaves_in_doubt(code: &str) -> bool {
    code == IN_DOUBT || code.starts_with("08") || ["57P01", "57P02"].contains(&code)
}

/// The SQLSTATEs of errors after which a session goes on, and what else may happen to it.
pub fn documented(cell: Cell, role: Role) -> &'static [&'static str] {
    use Fault::{Cut, Freeze, Full, Kill, Reset, Slow};
    let Cell { target, fault, state: _ } = cell;
    match (target, fault) {
        (_, Slow) | (Target::Proxy, Freeze) => &[],
        (Target::Proxy, Kill | Cut | Reset) => &[GONE],
        (Target::Proxy, Full) => match role {
            // Of new logins; who is there is not concerned.
            Role::Recovery => &[FULL],
            _ => &[],
        },
        (Target::Primary | Target::Replica, Full) => match role {
            Role::Transaction | Role::Commit | Role::Copy => &[],
            Role::Pinned => &["57P01 and gone"],
            // Its server may be ended as it gets the next statement.
            _ => &[FULL, LOST, IN_DOUBT],
        },
        // The statement may go out as the connection ends.
        (Target::Primary, Cut | Reset) if role == Role::Idle => &[LOST, IN_DOUBT],
        (Target::Primary, Kill | Freeze | Cut | Reset) => match role {
            Role::Idle | Role::Waiter | Role::Recovery => &[],
            Role::Pinned => &["57P01 and gone", "08006 and gone"],
            Role::Transaction => &[LOST],
            Role::Copy => &[LOST, IN_DOUBT, TORN],
            Role::Commit | Role::Pipeline | Role::Prepared | Role::Traffic => &[LOST, IN_DOUBT],
        },
        (Target::Replica, Kill | Freeze | Cut | Reset) => match role {
            Role::Idle | Role::Prepared | Role::Waiter | Role::Traffic | Role::Recovery => &[],
            Role::Pinned | Role::Transaction | Role::Commit => &[LOST],
            Role::Copy | Role::Pipeline => &[LOST, TORN],
        },
    }
}

/// What the clients that a cell is about are at; the holder of a queue's server is in a transaction.
pub fn role(state: State) -> Role {
    match state {
        State::Idle => Role::Idle,
        State::Transaction => Role::Transaction,
        State::Commit => Role::Commit,
        State::Copy => Role::Copy,
        State::Pipeline => Role::Pipeline,
        State::Prepared => Role::Prepared,
        State::Queue => Role::Waiter,
    }
}
