//! Two random choices, the better one by latency times load ("the power of two choices", Mitzenmacher 2001), so that no
//! replica is flooded because it was the best a moment ago. One that has just come back gets its share little by little:
//! its caches are cold.

use std::time::{Duration, Instant};

use crate::topology::NodeView;
use crate::types::NodeId;

/// A replica that begins to serve has its full share after this long.
const WARM_AFTER: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(5);
const FULL: usize = 1000;

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
    let better = if second_is_better { second } else { first };
    if last == Some(better.0.id) || warmth(better.0, now) == FULL {
        return Some(chosen(better));
    }
    let warmest = candidates().max_by_key(|(node, _)| warmth(node, now))?;
    let is_put_off = random(warmth(warmest.0, now).max(1)) > warmth(better.0, now);
    Some(chosen(if is_put_off { warmest } else { better }))
}

/// How much of its share a replica may have, of [`FULL`].
fn warmth(node: &NodeView, now: Instant) -> usize {
    let warming = node.serves_since.map(|since| now.saturating_duration_since(since)).filter(|age| *age < WARM_AFTER);
    warming.map_or(FULL, |age| usize::try_from(age.as_millis() / STEP.as_millis()).unwrap_or(FULL))
}
