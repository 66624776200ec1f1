//! Two random choices, the better one by latency times load ("the power of two choices", Mitzenmacher 2001), so that no
//! replica is flooded because it was the best a moment ago.

use std::time::Instant;

use crate::topology::NodeView;
use crate::types::NodeId;

/// One of the candidates; `None` when there is none.
pub fn choose<'a, T, I: Iterator<Item = (&'a NodeView, T)>>(
    candidates: impl Fn() -> I,
    last: Option<NodeId>,
    now: Instant,
    mut random: impl FnMut(usize) -> usize,
) -> Option<(NodeId, T)> {
    let chosen = |(node, what): (&NodeView, T)| (node.id, what);
    let count = candidates().count();
    if count <= 1 {
        return candidates().next().map(chosen);
    }
    let first = candidates().nth(random(count))?;
    let second = match last.and_then(|last| candidates().find(|(node, _)| node.id == last)) {
        Some(node) => node,
        None => candidates().nth(random(count))?,
    };
    let second_is_better = first.0.id != second.0.id && second.0.load.cost(now) <= first.0.load.cost(now);
    Some(chosen(if second_is_better { second } else { first }))
}
