//! Two random eligible choices, the better one by latency times load ("the power of two choices",
//! Mitzenmacher 2001), so that no replica is flooded because it was the best a moment ago.

use std::sync::atomic::Ordering::Relaxed;

use super::NodeSet;
use crate::topology::{NodeView, View};
use crate::types::NodeId;

/// A node without a latency yet is taken to be about this fast.
const UNKNOWN_LATENCY_NS: u64 = 100_000;

/// The eligible replica to ask; `None` when there is none.
pub fn choose(
    view: &View,
    avoid: NodeSet,
    last: Option<NodeId>,
    mut random: impl FnMut(usize) -> usize,
) -> Option<NodeId> {
    let candidates = || view.nodes.iter().filter(|node| node.eligible.is_ok() && !avoid.contains(node.id));
    let count = candidates().count();
    if count <= 1 {
        return candidates().next().map(|node| node.id);
    }
    let first = candidates().nth(random(count))?;
    let second = match last.and_then(|last| candidates().find(|node| node.id == last)) {
        Some(node) => node,
        None => candidates().nth(random(count))?,
    };
    Some(if cost(second) <= cost(first) { second.id } else { first.id })
}

fn cost(node: &NodeView) -> u64 {
    let latency = match node.load.latency_ns.load(Relaxed) {
        0 => UNKNOWN_LATENCY_NS,
        known => known,
    };
    latency.saturating_mul(node.load.in_flight.load(Relaxed) + 1)
}
