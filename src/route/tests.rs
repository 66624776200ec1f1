//! Routes as a table, and what holds for all of them.

use std::sync::Arc;

use super::*;
use crate::metrics::Metrics;
use crate::topology::{Ineligible, NodeLoad, NodeView};
use crate::types::Role;

const READ: Request = Request {
    class: Class::Read,
    hint: None,
    begins_read_only: false,
    stay: None,
    split: true,
    rescued: false,
    fallback: Fallback::Primary,
    last_replica: None,
    avoid: NodeSet(0),
};
const WRITE: Request = Request { class: Class::Write, ..READ };
const UNKNOWN: Request = Request { class: Class::Unknown, ..READ };

/// Node 0 is the primary if `primary`, the nodes of `replicas` are eligible, of three in all.
fn view(primary: bool, replicas: &[u16]) -> View {
    let metrics = Metrics::new().unwrap();
    let node = |id: u16| NodeView {
        id: NodeId(id),
        name: format!("n{id}").into(),
        role: Some(if id == 0 { Role::Primary } else { Role::Replica }),
        position: None,
        sampled_at: None,
        lag_bytes: None,
        staleness: None,
        covered_at: None,
        eligible: if replicas.contains(&id) { Ok(()) } else { Err(Ineligible::LagTime) },
        version: None,
        replay_paused: false,
        load: Arc::new(NodeLoad::new(metrics.node("main", &format!("n{id}")))),
        progress: Arc::default(),
    };
    View {
        nodes: (0..3).map(node).collect(),
        primary: primary.then_some(NodeId(0)),
        epoch: None,
        history: Arc::default(),
        alarm: None,
    }
}

fn decide(request: &Request, view: &View) -> Route {
    route(request, view, Instant::now(), |_| 0)
}

#[test]
fn every_batch_has_a_route_and_a_reason() {
    let healthy = view(true, &[1]);
    let hint = |hint, request: Request| Request { hint: Some(hint), ..request };
    let to = |node, reason| Route::To(NodeId(node), reason);
    let cases = [
        (READ, to(1, Reason::Read)),
        (WRITE, to(0, Reason::Write)),
        (UNKNOWN, to(0, Reason::Unknown)),
        (Request { begins_read_only: true, ..READ }, to(1, Reason::ReadOnlyTransaction)),
        (hint(Hint::Primary, READ), to(0, Reason::HintPrimary)),
        (hint(Hint::Replica, UNKNOWN), to(1, Reason::HintReplica)),
        (hint(Hint::Replica, WRITE), to(0, Reason::Write)),
        (Request { split: false, ..READ }, to(0, Reason::SplitOff)),
        (Request { rescued: true, ..READ }, to(0, Reason::Rescue)),
        (Request { avoid: NodeSet::default().with(NodeId(1)), ..READ }, to(0, Reason::NoReplica)),
        (Request { stay: Some(Stay::Transaction), ..WRITE }, Route::Stay(Reason::Transaction)),
        (Request { stay: Some(Stay::Pinned), ..hint(Hint::Replica, READ) }, Route::Stay(Reason::Pinned)),
    ];
    for (request, expected) in cases {
        assert_eq!(decide(&request, &healthy), expected, "{request:?}");
    }
}

#[test]
fn what_is_missing_is_said() {
    let error = Request { fallback: Fallback::Error, ..READ };
    for (request, view, expected) in [
        (READ, view(true, &[]), Route::To(NodeId(0), Reason::NoReplica)),
        (error, view(true, &[]), Route::Refuse(Refusal::NoReplica)),
        (READ, view(false, &[]), Route::Refuse(Refusal::NoReplica)),
        (READ, view(false, &[2]), Route::To(NodeId(2), Reason::Read)),
        (WRITE, view(false, &[1, 2]), Route::Refuse(Refusal::NoPrimary)),
    ] {
        assert_eq!(decide(&request, &view), expected);
    }
}

#[test]
fn the_better_of_two_choices_is_taken() {
    let view = view(true, &[1, 2]);
    let choose = |last: Option<u16>, numbers: [usize; 2]| {
        let mut numbers = numbers.into_iter();
        let request = Request { last_replica: last.map(NodeId), ..READ };
        route(&request, &view, Instant::now(), |below| numbers.next().unwrap() % below)
    };
    assert_eq!(choose(None, [0, 1]), Route::To(NodeId(2), Reason::Read), "equal: the second");
    assert_eq!(choose(Some(1), [1, 1]), Route::To(NodeId(1), Reason::Read), "equal: the one it read from last");
    let _busy = [view.nodes[2].load.begin(), view.nodes[2].load.begin()];
    assert_eq!(choose(None, [0, 1]), Route::To(NodeId(1), Reason::Read));
    assert_eq!(choose(Some(2), [0, 1]), Route::To(NodeId(1), Reason::Read), "it does not stay where it is crowded");
}
