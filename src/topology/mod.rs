//! What the nodes are doing: probes and lag, published as one immutable view.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use crate::types::{NodeId, Position, Role};

/// The immutable snapshot of all nodes of a cluster that routing reads.
#[derive(Clone, Debug)]
pub struct View {
    /// In the order of the configuration; `nodes[id.index()]`.
    pub nodes: Box<[NodeView]>,
    /// The one routable primary, if there is one.
    pub primary: Option<NodeId>,
}

#[derive(Clone, Debug)]
pub struct NodeView {
    pub id: NodeId,
    pub name: Arc<str>,
    /// Unknown before the first successful probe.
    pub role: Option<Role>,
    pub position: Option<Position>,
    /// When the probe that gave `position` was sent.
    pub sampled_at: Option<Instant>,
    pub lag_bytes: Option<u64>,
    pub staleness: Option<Duration>,
    /// May it serve reads as a replica? If not, why.
    pub eligible: Result<(), Ineligible>,
    pub load: Arc<NodeLoad>,
}

/// Why a node gets no reads: a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ineligible {
    NotProbed,
    Unreachable,
    Primary,
    OtherHistory,
    LagBytes,
    LagTime,
    Returning,
}

/// Shared by all workers; written by sessions, read by balancing.
#[derive(Debug, Default)]
pub struct NodeLoad {
    pub in_flight: AtomicU64,
    /// Peak-EWMA of the latency, in nanoseconds.
    pub latency_ns: AtomicU64,
}
