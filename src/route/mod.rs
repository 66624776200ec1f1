//! Where a batch goes, and why. Pure: (what it does, how the session stands, [`View`]) to a [`Route`].

mod balance;
pub mod explain;
mod needs;

use std::time::{Duration, Instant};

pub use needs::{Needs, Proof, Standing};

use crate::config::Fallback;
use crate::sql::{Class, Hint};
use crate::topology::View;
use crate::types::{Level, NodeId, Position};

/// What routing must know about a batch and its session.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub class: Class,
    pub hint: Option<Hint>,
    /// The batch is one BEGIN … READ ONLY.
    pub begins_read_only: bool,
    /// Why the session must stay with the server it holds, if it must.
    pub stay: Option<Stay>,
    /// Reads may go to replicas at all.
    pub split: bool,
    /// This batch was refused by a replica and goes again.
    pub rescued: bool,
    pub fallback: Fallback,
    /// The replica of the session's last read: it stays there while that is no worse.
    pub last_replica: Option<NodeId>,
    /// Nodes that failed for this batch already.
    pub avoid: NodeSet,
    pub level: Level,
    pub needs: Needs,
    pub patience: Patience,
}

/// What may still be tried to find a replica that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// A guard in front of the batch; not again after one has failed.
    pub guard: bool,
    /// For how long it may still wait.
    pub wait: Duration,
}

/// Why a session must stay with its server: a pin that is not a statement's effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stay {
    Transaction,
    Pipeline,
    SessionMode,
    Pinned,
}

/// Where a batch goes, always with a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// On the server that the session holds.
    Stay(Reason),
    To(NodeId, Reason),
    /// On a replica, if its server is not too young for the proof.
    Replica(NodeId, Reason, Proof),
    /// Decide again once the primary was asked.
    Ask,
    /// Decide again when some replica has replayed this much, or patience is over.
    Wait(Position),
    /// Decide again when the staleness of the replicas was measured anew.
    Measure,
    Refuse(Refusal),
}

/// Why a batch went where it went: a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    Read,
    ReadOnlyTransaction,
    Write,
    Unknown,
    HintPrimary,
    HintReplica,
    /// The session's or the statement's level is `primary`.
    Level,
    SplitOff,
    NoReplica,
    /// There are replicas, and none has replayed enough.
    Behind,
    Rescue,
    Transaction,
    Pipeline,
    SessionMode,
    Pinned,
}

impl Reason {
    pub const ALL: [Self; 15] = [
        Self::Read,
        Self::ReadOnlyTransaction,
        Self::Write,
        Self::Unknown,
        Self::HintPrimary,
        Self::HintReplica,
        Self::Level,
        Self::SplitOff,
        Self::NoReplica,
        Self::Behind,
        Self::Rescue,
        Self::Transaction,
        Self::Pipeline,
        Self::SessionMode,
        Self::Pinned,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ReadOnlyTransaction => "read_only_transaction",
            Self::Write => "write",
            Self::Unknown => "unknown",
            Self::HintPrimary => "hint_primary",
            Self::HintReplica => "hint_replica",
            Self::Level => "level",
            Self::SplitOff => "split_off",
            Self::NoReplica => "no_replica",
            Self::Behind => "behind",
            Self::Rescue => "rescue",
            Self::Transaction => "transaction",
            Self::Pipeline => "pipeline",
            Self::SessionMode => "session_mode",
            Self::Pinned => "pinned",
        }
    }
}

/// Nobody may serve the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    NoPrimary,
    NoReplica,
    /// No replica has replayed enough.
    Behind,
}

/// A set of nodes of one cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeSet(u64);

impl NodeSet {
    /// A cluster has at most this many nodes.
    pub const CAPACITY: usize = 64;

    #[must_use]
    pub fn with(self, node: NodeId) -> Self {
        Self(self.0 | 1 << (node.0 % 64))
    }

    pub fn contains(self, node: NodeId) -> bool {
        self.0 & 1 << (node.0 % 64) != 0
    }
}

/// Decides. `random(n)` gives a number below `n`.
pub fn route(request: &Request, view: &View, now: Instant, random: impl FnMut(usize) -> usize) -> Route {
    if let Some(stay) = request.stay {
        return Route::Stay(match stay {
            Stay::Transaction => Reason::Transaction,
            Stay::Pipeline => Reason::Pipeline,
            Stay::SessionMode => Reason::SessionMode,
            Stay::Pinned => Reason::Pinned,
        });
    }
    match primary_reason(request) {
        Some(reason) => to_primary(request, view, reason),
        None => to_replica(request, view, now, random),
    }
}

/// Why the batch needs the primary; `None`: a replica will do.
fn primary_reason(request: &Request) -> Option<Reason> {
    match request {
        Request { rescued: true, .. } => Some(Reason::Rescue),
        Request { hint: Some(Hint::Primary), .. } => Some(Reason::HintPrimary),
        Request { class: Class::Write, .. } => Some(Reason::Write),
        Request { split: false, .. } => Some(Reason::SplitOff),
        Request { level: Level::Primary, .. } => Some(Reason::Level),
        Request { class: Class::Read, .. } | Request { hint: Some(Hint::Replica), .. } => None,
        Request { class: Class::Unknown, .. } => Some(Reason::Unknown),
    }
}

fn to_primary(request: &Request, view: &View, reason: Reason) -> Route {
    match view.primary {
        Some(node) if !request.avoid.contains(node) => Route::To(node, reason),
        _ => Route::Refuse(Refusal::NoPrimary),
    }
}

/// A replica that serves, or else what may make one serve, or else the primary.
///
/// A replica that will serve soon goes before a primary that could answer now: offloading the primary is what replicas
/// are for, and a session that has just written is mostly let wait for less than a millisecond. How long at most is the
/// operator's choice, `causal_wait`; a replica that is not expected to be there by then is not waited for at all.
fn to_replica(request: &Request, view: &View, now: Instant, random: impl FnMut(usize) -> usize) -> Route {
    let reason = match request {
        Request { begins_read_only: true, .. } => Reason::ReadOnlyTransaction,
        Request { class: Class::Unknown, .. } => Reason::HintReplica,
        _ => Reason::Read,
    };
    let candidates = || view.eligible().filter(|node| !request.avoid.contains(node.id));
    let standings = || candidates().map(|node| (node, request.needs.standing(node, &view.history, now)));
    let serving = |expected: bool| {
        standings().filter_map(move |(node, standing)| match standing {
            Standing::Serves(Proof::Expected) if !expected => None,
            Standing::Serves(proof) => Some((node, proof)),
            _ => None,
        })
    };
    let mut choose = {
        let mut random = random;
        move |expected: bool| balance::choose(|| serving(expected), request.last_replica, now, &mut random)
    };
    if let Some((node, proof)) = choose(false) {
        return Route::Replica(node, reason, proof);
    }
    if request.patience.guard
        && let Some((node, proof)) = choose(true)
    {
        return Route::Replica(node, reason, proof);
    }
    let may_fall_back = request.fallback == Fallback::Primary
        && to_primary(request, view, Reason::Behind) != Route::Refuse(Refusal::NoPrimary);
    if let Some(route) = what_may_help(request, standings().map(|(_, standing)| standing), may_fall_back) {
        return route;
    }
    let (reason, refusal) = if candidates().next().is_some() {
        (Reason::Behind, Refusal::Behind)
    } else {
        (Reason::NoReplica, Refusal::NoReplica)
    };
    if may_fall_back { to_primary(request, view, reason) } else { Route::Refuse(refusal) }
}

/// What to do before it is decided again, while no replica serves and there is patience; `None`: nothing helps in time.
fn what_may_help(request: &Request, standings: impl Iterator<Item = Standing>, may_fall_back: bool) -> Option<Route> {
    let wait = request.patience.wait;
    if wait.is_zero() {
        return None;
    }
    let mut worth_waiting = false;
    for standing in standings {
        match standing {
            Standing::Unknown => return Some(Route::Ask),
            Standing::Stale => return Some(Route::Measure),
            Standing::Serves(_) => worth_waiting = true,
            // Where nobody else can serve, even a replica that does not move is waited for.
            Standing::Behind(expected) => {
                worth_waiting |= !may_fall_back || expected.is_some_and(|expected| expected <= wait);
            }
        }
    }
    request.needs.position.filter(|_| worth_waiting).map(Route::Wait)
}

#[cfg(test)]
mod tests;
