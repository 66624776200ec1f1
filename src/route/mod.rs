//! Where a batch goes, and why. Pure: (what it does, how the session stands, [`View`]) to a [`Route`].

mod balance;

use std::time::Instant;

use crate::config::Fallback;
use crate::sql::{Class, Hint};
use crate::topology::View;
use crate::types::NodeId;

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
    SplitOff,
    NoReplica,
    Rescue,
    Transaction,
    Pipeline,
    SessionMode,
    Pinned,
}

impl Reason {
    pub const ALL: [Self; 13] = [
        Self::Read,
        Self::ReadOnlyTransaction,
        Self::Write,
        Self::Unknown,
        Self::HintPrimary,
        Self::HintReplica,
        Self::SplitOff,
        Self::NoReplica,
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
            Self::SplitOff => "split_off",
            Self::NoReplica => "no_replica",
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

fn to_replica(request: &Request, view: &View, now: Instant, random: impl FnMut(usize) -> usize) -> Route {
    let reason = match request {
        Request { begins_read_only: true, .. } => Reason::ReadOnlyTransaction,
        Request { class: Class::Unknown, .. } => Reason::HintReplica,
        _ => Reason::Read,
    };
    match balance::choose(view, request.avoid, request.last_replica, now, random) {
        Some(node) => Route::To(node, reason),
        None if request.fallback == Fallback::Primary => match to_primary(request, view, Reason::NoReplica) {
            Route::Refuse(_) => Route::Refuse(Refusal::NoReplica),
            route => route,
        },
        None => Route::Refuse(Refusal::NoReplica),
    }
}

#[cfg(test)]
mod tests;
