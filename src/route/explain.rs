//! A route in words: what the batch needs, how each node stands to that, and what follows.

use std::time::{Duration, Instant};

use super::{Needs, Patience, Proof, Reason, Refusal, Request, Route, Standing, primary_reason, route};
use crate::config::Fallback;
use crate::sql::Property;
use crate::topology::{NodeView, View};
use crate::types::{Consistency, Level, NodeId, show_duration};

/// What an explanation says besides what a [`Request`] decides by.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    pub consistency: Consistency,
    pub origin: Origin,
    /// What the request needs was asked of the primary just now.
    pub asked: bool,
    /// The session's server is on this node.
    pub held: Option<NodeId>,
}

/// Who has chosen the level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configuration, or the client at login.
    Configured,
    /// The session, or its transaction.
    Set,
    /// The statement itself.
    Hint,
}

impl Origin {
    fn as_str(self) -> &'static str {
        match self {
            Self::Configured => "as configured or asked for at login",
            Self::Set => "as set in the session",
            Self::Hint => "as the statement's hint says",
        }
    }
}

/// The rows `level`, `needs`, one for each node, and `route`.
pub fn explain(request: &Request, circumstances: &Circumstances, view: &View, now: Instant) -> Vec<Property> {
    let reads = primary_reason(request).is_none();
    let may_serve = |node: &NodeView| match request.stay {
        None => reads && node.eligible.is_ok(),
        // A transaction on a replica waits there.
        Some(_) => reads && node.eligible.is_ok() && circumstances.held == Some(node.id),
    };
    let has_needs = reads && (request.stay.is_none() || view.nodes.iter().any(may_serve));
    let needs = if has_needs { needs(request, circumstances, view) } else { nothing() };
    let mut rows = vec![Property::new("level", level(circumstances)), Property::new("needs", needs)];
    for node in &view.nodes {
        let standing = may_serve(node).then(|| request.needs.standing(node, &view.history, now));
        rows.push(Property::new(format!("node {}", node.name), node_in_words(node, standing, view, now)));
    }
    if let Some(alarm) = view.alarm {
        rows.push(Property::new("alarm", alarm.message(view)));
    }
    rows.push(Property::new("route", route_in_words(request, circumstances, view, now)));
    rows
}

fn nothing() -> String {
    "nothing".to_owned()
}

fn level(circumstances: &Circumstances) -> String {
    let Consistency { level, max_staleness, causal_wait } = circumstances.consistency;
    let staleness = match level {
        Level::Bounded => format!(", max_staleness {}", show_duration(max_staleness)),
        _ => String::new(),
    };
    let (name, origin, wait) = (level.as_str(), circumstances.origin.as_str(), show_duration(causal_wait));
    format!("{name}, {origin}{staleness}, causal_wait {wait}")
}

fn needs(request: &Request, circumstances: &Circumstances, view: &View) -> String {
    let Needs { position, covered_since, unknown_since, own } = request.needs;
    let asked = if circumstances.asked { ", asked of the primary first" } else { "" };
    let mut all = Vec::new();
    if let Some(position) = position {
        all.push(format!("position {} of timeline {}{asked}", position.lsn, position.timeline));
    }
    if unknown_since.is_some() {
        let failed = if circumstances.asked { ", which did not answer in time" } else { "" };
        let spared = own.map(|(own, _)| format!(", but not of {}, where the session has read", name(view, own)));
        all.push(format!("a position to be asked of the primary first{failed}{}", spared.unwrap_or_default()));
    }
    if covered_since.is_some() {
        let limit = show_duration(circumstances.consistency.max_staleness);
        all.push(format!("a staleness of at most {limit}"));
    }
    if all.is_empty() { nothing() } else { all.join("; ") }
}

fn name(view: &View, id: NodeId) -> &str {
    view.node(id).map_or("?", |node| &node.name)
}

/// How a node stands, and to what a read needs if it is a replica that may serve it.
pub fn node_in_words(node: &NodeView, standing: Option<Standing>, view: &View, now: Instant) -> String {
    let position = node.progress.latest().map(|sample| sample.position).or(node.position);
    let mut said = vec![
        node.role.map_or("role unknown", |role| role.as_str()).to_owned(),
        position.map_or_else(|| "position unknown".to_owned(), |position| format!("at {}", position.lsn)),
    ];
    if view.primary == Some(node.id) {
        said.push("takes writes".to_owned());
        return said.join(", ");
    }
    said.push(
        node.lag_bytes
            .map_or_else(|| "lag unknown".to_owned(), |bytes| format!("{bytes} bytes behind at the last probe")),
    );
    said.push(match node.staleness_at(now) {
        Some(age) => format!("staleness {}", roughly(age)),
        None => "staleness unknown".to_owned(),
    });
    if node.replay_paused {
        said.push("replay paused".to_owned());
    }
    said.push(match node.eligible {
        Ok(()) => "eligible".to_owned(),
        Err(why) => format!("not eligible ({})", why.as_str()),
    });
    said.extend(standing.map(standing_in_words));
    said.join(", ")
}

fn standing_in_words(standing: Standing) -> String {
    match standing {
        Standing::Serves(Proof::Needless) => "serves: nothing is needed of it".to_owned(),
        Standing::Serves(Proof::Own(_)) => "serves: the session has read there".to_owned(),
        Standing::Serves(Proof::Sample(_)) => "serves: has what is needed".to_owned(),
        Standing::Serves(Proof::Expected) => "serves: should have what is needed, and a guard makes sure".to_owned(),
        Standing::Behind(Some(wait)) => format!("behind: should have what is needed in {}", roughly(wait)),
        Standing::Behind(None) => "behind: lacks what is needed, and is not expected to get it".to_owned(),
        Standing::Stale => "too stale, as far as was measured".to_owned(),
        Standing::Unknown => "not known to have what is needed".to_owned(),
    }
}

fn route_in_words(request: &Request, circumstances: &Circumstances, view: &View, now: Instant) -> String {
    let chosen = decide(request, view, now);
    let otherwise = || {
        let patience = Patience { wait: Duration::ZERO, ..request.patience };
        let impatient = Request { patience, ..*request };
        decided(decide(&impatient, view, now), request, circumstances, view, now)
    };
    let patience = || roughly(request.patience.wait);
    match chosen {
        Route::Ask => {
            format!("asks the primary for its position, and decides then; without an answer: {}", otherwise())
        }
        Route::Wait(position) => {
            let (lsn, patience) = (position.lsn, patience());
            format!("waits up to {patience} for a replica to replay {lsn}; if none does: {}", otherwise())
        }
        Route::Measure => {
            let patience = patience();
            format!("measures the replicas anew for up to {patience}; if none is fresh enough: {}", otherwise())
        }
        Route::Stay(_) | Route::To(..) | Route::Replica(..) | Route::Refuse(_) => {
            decided(chosen, request, circumstances, view, now)
        }
    }
}

fn decide(request: &Request, view: &View, now: Instant) -> Route {
    route(request, view, now, |_| 0)
}

fn decided(route: Route, request: &Request, circumstances: &Circumstances, view: &View, now: Instant) -> String {
    let (where_to, reason) = match route {
        Route::Stay(reason) => (circumstances.held.map_or("its server", |held| name(view, held)).to_owned(), reason),
        Route::To(node, reason) => (name(view, node).to_owned(), reason),
        Route::Replica(_, reason, _) => (one_of(&choices(request, view, now), view), reason),
        Route::Refuse(refusal) => return format!("refused: {}", refusal_in_words(refusal, request)),
        // Whoever has no patience is never told to wait.
        Route::Ask | Route::Wait(_) | Route::Measure => return "waits".to_owned(),
    };
    format!("{where_to} ({}): {}", reason.as_str(), reason_in_words(reason))
}

/// All that chance and load may choose.
fn choices(request: &Request, view: &View, now: Instant) -> Vec<NodeId> {
    let mut choices = Vec::new();
    for first in 0..view.nodes.len() {
        if let Route::Replica(node, ..) = route(request, view, now, |below| first.min(below.saturating_sub(1)))
            && !choices.contains(&node)
        {
            choices.push(node);
        }
    }
    choices
}

fn one_of(choices: &[NodeId], view: &View) -> String {
    let names: Vec<_> = choices.iter().map(|node| name(view, *node)).collect();
    match names.as_slice() {
        [one] => (*one).to_owned(),
        _ => format!("{}, the better of two by latency and load", names.join(" or ")),
    }
}

fn reason_in_words(reason: Reason) -> &'static str {
    match reason {
        Reason::Read => "it reads only",
        Reason::ReadOnlyTransaction => "it begins a transaction that reads only",
        Reason::Write => "it counts as a write",
        Reason::Unknown => "it is not known to be a read",
        Reason::HintPrimary => "the hint says primary",
        Reason::HintReplica => "the hint says replica",
        Reason::Level => "the level is primary",
        Reason::SplitOff => "reads are not split, by routing.split or pool_mode",
        Reason::NoReplica => "no replica is eligible",
        Reason::Behind => "no replica can serve as promised, nor soon enough",
        Reason::Rescue => "a replica refused it",
        Reason::Transaction => "the session is in a transaction there",
        Reason::Pipeline => "the session has a pipeline open there",
        Reason::SessionMode => "pool_mode is session",
        Reason::Pinned => "the session is pinned there",
    }
}

fn refusal_in_words(refusal: Refusal, request: &Request) -> &'static str {
    match refusal {
        Refusal::NoPrimary => "there is no primary",
        Refusal::NoReplica if request.fallback == Fallback::Primary => "there is no eligible replica, and no primary",
        Refusal::NoReplica => "there is no eligible replica, and routing.fallback allows no other",
        Refusal::Behind => "no replica can serve as promised, and no primary may in its place",
    }
}

/// Two digits are enough of a time.
fn roughly(time: Duration) -> String {
    format!("{time:.1?}")
}

#[cfg(test)]
mod tests {
    use super::super::Stay;
    use super::super::tests::{READ, WRITE, view};
    use super::*;
    use crate::topology::PositionSample;
    use crate::types::{Lsn, Position};

    const SESSION: Circumstances = Circumstances {
        consistency: Consistency {
            level: Level::Session,
            max_staleness: Duration::from_secs(1),
            causal_wait: Duration::from_millis(50),
        },
        origin: Origin::Configured,
        asked: false,
        held: None,
    };

    fn at(lsn: u64) -> Position {
        Position { system: 1, timeline: 1, lsn: Lsn(lsn) }
    }

    /// Two replicas, of which the second has replayed 0/64, and may have paused.
    fn two_replicas(now: Instant, paused: bool) -> View {
        let view = view(true, &[1, 2]);
        let sample = PositionSample { sent_at: now, connected_at: now, position: at(100), flush: None, paused };
        view.nodes[2].progress.record(sample);
        view
    }

    fn said(request: &Request, circumstances: &Circumstances, view: &View, now: Instant) -> Vec<(String, String)> {
        explain(request, circumstances, view, now).into_iter().map(|row| (row.name, row.value)).collect()
    }

    #[test]
    fn the_rows_are_the_level_the_needs_the_nodes_and_the_route() {
        let now = Instant::now();
        let expected = [
            ("level", "session, as configured or asked for at login, causal_wait 50ms"),
            ("needs", "nothing"),
            ("node n0", "primary, position unknown, takes writes"),
            (
                "node n1",
                "replica, position unknown, lag unknown, staleness unknown, eligible, serves: nothing is needed of it",
            ),
            ("node n2", "replica, at 0/64, lag unknown, staleness unknown, eligible, serves: nothing is needed of it"),
            ("route", "n1 or n2, the better of two by latency and load (read): it reads only"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(said(&READ, &SESSION, &two_replicas(now, false), now), expected);
    }

    /// A request, what it needs, how the second replica stands to that, and the route.
    type Case = (Request, &'static str, &'static str, &'static str);

    #[test]
    fn needs_and_their_consequences_are_said() {
        let now = Instant::now();
        let view = two_replicas(now, true);
        let needing = |needs: Needs| Request { needs, ..READ };
        let position = |lsn| needing(Needs { position: Some(at(lsn)), ..Needs::default() });
        let unknown = Needs { unknown_since: Some(now), ..Needs::default() };
        let own = Needs { own: Some((NodeId(2), now)), ..unknown };
        let cases: [Case; 9] = [
            (position(100), "position 0/64 of timeline 1", "serves: has what is needed", "n2 (read): it reads only"),
            (
                position(101),
                "position 0/65 of timeline 1",
                "behind: lacks what is needed, and is not expected to get it",
                "n0 (behind): no replica can serve as promised, nor soon enough",
            ),
            (
                Request { fallback: Fallback::Error, ..position(101) },
                "position 0/65 of timeline 1",
                "behind: lacks what is needed, and is not expected to get it",
                "waits up to 50.0ms for a replica to replay 0/65; if none does: refused: no replica can serve as \
                 promised, and no primary may in its place",
            ),
            (
                needing(unknown),
                "a position to be asked of the primary first",
                "not known to have what is needed",
                "asks the primary for its position, and decides then; without an answer: n0 (behind): no replica can \
                 serve as promised, nor soon enough",
            ),
            (
                needing(own),
                "a position to be asked of the primary first, but not of n2, where the session has read",
                "serves: the session has read there",
                "n2 (read): it reads only",
            ),
            (
                needing(Needs { covered_since: Some(now), ..Needs::default() }),
                "a staleness of at most 1s",
                "too stale, as far as was measured",
                "measures the replicas anew for up to 50.0ms; if none is fresh enough: n0 (behind): no replica can \
                 serve as promised, nor soon enough",
            ),
            (
                Request { class: WRITE.class, ..position(101) },
                "nothing",
                "eligible",
                "n0 (write): it counts as a write",
            ),
            (
                Request { stay: Some(Stay::Transaction), ..position(101) },
                "nothing",
                "eligible",
                "n0 (transaction): the session is in a transaction there",
            ),
            (Request { level: Level::Primary, ..READ }, "nothing", "eligible", "n0 (level): the level is primary"),
        ];
        let circumstances = Circumstances { held: Some(NodeId(0)), ..SESSION };
        for (request, needs, standing, route) in cases {
            let rows = said(&request, &circumstances, &view, now);
            assert_eq!(rows[1].1, needs, "{request:?}");
            assert!(rows[4].1.ends_with(standing), "{request:?}: {}", rows[4].1);
            assert_eq!(rows[5].1, route, "{request:?}");
        }
    }

    #[test]
    fn a_transaction_on_a_replica_has_needs_there() {
        let now = Instant::now();
        let request = Request {
            stay: Some(Stay::Transaction),
            needs: Needs { position: Some(at(100)), ..Needs::default() },
            ..READ
        };
        let circumstances = Circumstances { held: Some(NodeId(2)), asked: true, origin: Origin::Set, ..SESSION };
        let rows = said(&request, &circumstances, &two_replicas(now, false), now);
        assert_eq!(rows[0].1, "session, as set in the session, causal_wait 50ms");
        assert_eq!(rows[1].1, "position 0/64 of timeline 1, asked of the primary first");
        assert!(rows[3].1.ends_with("eligible"), "{}", rows[3].1);
        assert!(rows[4].1.ends_with("serves: has what is needed"), "{}", rows[4].1);
        assert_eq!(rows[5].1, "n2 (transaction): the session is in a transaction there");
    }
}
