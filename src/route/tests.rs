//! Routes as a table, and what holds for all of them.

use std::sync::Arc;

use super::*;
use crate::metrics::Metrics;
use crate::topology::{History, Ineligible, NodeLoad, NodeView, PositionSample};
use crate::types::{Lsn, Role, WorkerId};

pub(super) const READ: Request = Request {
    class: Class::Read,
    hint: None,
    begins_read_only: false,
    stay: None,
    split: true,
    rescued: false,
    fallback: Fallback::Primary,
    last_replica: None,
    avoid: NodeSet(0),
    level: Level::Session,
    needs: Needs { position: None, covered_since: None, unknown_since: None, own: None },
    patience: Patience { guard: true, wait: Duration::from_millis(50) },
};
pub(super) const WRITE: Request = Request { class: Class::Write, ..READ };
const UNKNOWN: Request = Request { class: Class::Unknown, ..READ };

/// Node 0 is the primary if `primary`, the nodes of `replicas` are eligible, of three in all.
pub(super) fn view(primary: bool, replicas: &[u16]) -> View {
    let metrics = Metrics::new(2).unwrap();
    let node = |id: u16| NodeView {
        id: NodeId(id),
        name: format!("n{id}").into(),
        role: Some(if id == 0 { Role::Primary } else { Role::Replica }),
        position: None,
        sampled_at: None,
        lag_bytes: None,
        staleness: None,
        covered_at: None,
        serves_since: None,
        fenced: false,
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
    let to = |node, reason| match node {
        0 => Route::To(NodeId(0), reason),
        _ => Route::Replica(NodeId(node), reason, Proof::Needless),
    };
    let primary = Request { level: Level::Primary, ..READ };
    let cases = [
        (primary, to(0, Reason::Level)),
        (hint(Hint::Replica, primary), to(0, Reason::Level)),
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
        (READ, view(false, &[2]), Route::Replica(NodeId(2), Reason::Read, Proof::Needless)),
        (WRITE, view(false, &[1, 2]), Route::Refuse(Refusal::NoPrimary)),
    ] {
        assert_eq!(decide(&request, &view), expected);
    }
}

#[test]
fn a_replica_that_has_just_come_back_gets_its_share_little_by_little() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut random = fastrand::Rng::with_seed(7);
    let mut share = |since: [Option<Instant>; 2], now| {
        let mut view = view(true, &[1, 2]);
        for (node, since) in view.nodes.iter_mut().skip(1).zip(since) {
            node.serves_since = since;
        }
        let mut choose = || route(&READ, &view, now, |below| random.usize(..below));
        let reads = (0..10_000).filter(|_| matches!(choose(), Route::Replica(NodeId(2), ..))).count();
        // In hundredths.
        reads / 100
    };
    for (since, now, expected) in [
        // Both have served for long, or began together.
        ([None, None], 0, 47..=53),
        ([Some(at(0)), Some(at(0))], 0, 47..=53),
        ([Some(at(0)), Some(at(15))], 500, 47..=53),
        ([None, Some(at(0))], 0, 0..=0),
        ([None, Some(at(0))], 500, 4..=7),
        ([None, Some(at(0))], 2500, 22..=28),
        ([None, Some(at(0))], 5000, 47..=53),
        ([Some(at(0)), Some(at(1500))], 3000, 22..=28),
    ] {
        let hundredths = share(since, at(now));
        assert!(expected.contains(&hundredths), "{hundredths} after {now} ms");
    }
    // The only one gets all, and who reads there stays.
    let mut alone = view(true, &[2]);
    alone.nodes[2].serves_since = Some(start);
    assert!(matches!(route(&READ, &alone, start, |_| 0), Route::Replica(NodeId(2), ..)));
    let mut both = view(true, &[1, 2]);
    both.nodes[2].serves_since = Some(start);
    let there = Request { last_replica: Some(NodeId(2)), ..READ };
    assert!(matches!(route(&there, &both, start, |_| 0), Route::Replica(NodeId(2), ..)));
}

#[test]
fn the_better_of_two_choices_is_taken() {
    let view = view(true, &[1, 2]);
    let read = |node| Route::Replica(NodeId(node), Reason::Read, Proof::Needless);
    let choose = |last: Option<u16>, numbers: [usize; 2]| {
        let mut numbers = numbers.into_iter();
        let request = Request { last_replica: last.map(NodeId), ..READ };
        route(&request, &view, Instant::now(), |below| numbers.next().unwrap() % below)
    };
    assert_eq!(choose(None, [0, 1]), read(2), "equal: the second");
    assert_eq!(choose(Some(1), [1, 1]), read(1), "equal: the one it read from last");
    let begin = || view.nodes[2].load.begin(WorkerId(0), Instant::now());
    let _busy = [begin(), begin()];
    assert_eq!(choose(None, [0, 1]), read(1));
    assert_eq!(choose(Some(2), [0, 1]), read(1), "it does not stay where it is crowded");
}

const SECOND: Duration = Duration::from_secs(1);

fn at(lsn: u64) -> Position {
    Position { system: 1, timeline: 1, lsn: Lsn(lsn) }
}

/// Node 1 has replayed 100 and node 2 has replayed 200, by samples of just now; the primary is at 300.
fn behind(now: Instant) -> View {
    let mut view = view(true, &[1, 2]);
    view.history = Arc::new(History::of(1, 1));
    for (node, lsn) in view.nodes.iter_mut().zip([300, 100, 200]) {
        let sent_at = now;
        let flush = (node.id == NodeId(0)).then_some(Lsn(lsn));
        let sample = PositionSample { sent_at, connected_at: sent_at, position: at(lsn), flush, paused: lsn == 100 };
        node.progress.record(sample);
        node.covered_at = Some(now + SECOND * u32::from(node.id.0));
    }
    view
}

#[test]
fn a_read_goes_where_what_it_needs_is_or_soon_will_be() {
    let now = Instant::now();
    let view = behind(now);
    let replica = |node, proof| Route::Replica(NodeId(node), Reason::Read, proof);
    let primary = Route::To(NodeId(0), Reason::Behind);
    let sampled = Proof::Sample(now);
    let needs = |position: Option<u64>| Needs { position: position.map(at), ..Needs::default() };
    let unknown = Needs { unknown_since: Some(now), ..Needs::default() };
    let own = |node| Needs { own: Some((NodeId(node), now)), ..unknown };
    let covered = |seconds: u32| Needs { covered_since: Some(now + SECOND * seconds), ..Needs::default() };
    let none = Request { patience: Patience { guard: true, wait: Duration::ZERO }, ..READ };
    let error = Request { fallback: Fallback::Error, ..READ };
    let only = |node: u16| NodeSet::default().with(NodeId(3 - node));
    let (one, two) = (Request { avoid: only(1), ..READ }, Request { avoid: only(2), ..READ });
    for (request, needs, route) in [
        (two, needs(Some(200)), replica(2, sampled)),
        (READ, needs(Some(150)), replica(2, sampled)),
        // Node 2 should have it by now; node 1 is paused.
        (READ, needs(Some(250)), replica(2, Proof::Expected)),
        (
            Request { patience: Patience { guard: false, ..READ.patience }, ..READ },
            needs(Some(250)),
            Route::Wait(at(250)),
        ),
        (Request { patience: Patience { guard: false, ..none.patience }, ..none }, needs(Some(250)), primary),
        (one, needs(Some(150)), primary),
        (Request { avoid: only(1), ..error }, needs(Some(150)), Route::Wait(at(150))),
        (
            Request { avoid: only(1), patience: none.patience, ..error },
            needs(Some(150)),
            Route::Refuse(Refusal::Behind),
        ),
        (READ, unknown, Route::Ask),
        (none, unknown, primary),
        (READ, own(1), replica(1, Proof::Own(now))),
        (READ, own(2), replica(2, Proof::Own(now))),
        (two, own(1), Route::Ask),
        (READ, Needs { position: Some(at(150)), ..own(2) }, replica(2, sampled)),
        (one, covered(1), replica(1, Proof::Needless)),
        (READ, covered(2), replica(2, Proof::Needless)),
        (READ, covered(3), Route::Measure),
        (none, covered(3), primary),
        (Request { avoid: only(1).with(NodeId(1)), ..READ }, unknown, Route::To(NodeId(0), Reason::NoReplica)),
    ] {
        let request = Request { needs, ..request };
        assert_eq!(super::route(&request, &view, now, |_| 0), route, "{request:?}");
    }
}
