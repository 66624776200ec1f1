//! Two random eligible choices, the better one by latency times load ("the power of two choices",
//! Mitzenmacher 2001), so that no replica is flooded because it was the best a moment ago.

use std::time::Instant;

use super::NodeSet;
use crate::topology::View;
use crate::types::NodeId;

/// The eligible replica to ask; `None` when there is none.
pub fn choose(
    view: &View,
    avoid: NodeSet,
    last: Option<NodeId>,
    now: Instant,
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
    if first.id == second.id {
        return Some(first.id);
    }
    Some(if second.load.cost(now) <= first.load.cost(now) { second.id } else { first.id })
}
