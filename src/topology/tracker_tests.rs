//! Scenes of probes and failures, and the view that must follow.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::super::view::Dispute;
use super::*;
use crate::metrics::Metrics;

const SYSTEM: u64 = 7;
const MAX_LAG_MS: u64 = 1000;
const MAX_LAG_BYTES: u64 = 10_000;
const MAX_SAMPLE_AGE_MS: u64 = 500;

enum Event {
    /// (node, sent at, timeline, insert position)
    Primary(u16, u64, u32, u64),
    /// (node, sent at, timeline, replay position)
    Replica(u16, u64, u32, u64),
    /// A primary of another cluster: (node, sent at, timeline)
    Stranger(u16, u64, u32),
    /// What a node says of its timeline's past: (node, timeline, history file)
    Lineage(u16, u32, &'static str),
    /// (node, at)
    Fail(u16, u64),
    /// The view at this time, as `show` writes it.
    See(u64, &'static str),
}
use Event::{Fail, Lineage, Primary, Replica, See, Stranger};

/// `primary=a b=ok c=lag_time`: the primary, then what each other node is for reads, and whether it is fenced.
fn show(view: &View) -> String {
    let name = |id: NodeId| view.node(id).map_or("?", |node| &*node.name);
    let mut text = format!("primary={}", view.primary.map_or("none", name));
    for node in view.nodes.iter().filter(|node| view.primary != Some(node.id)) {
        let why = node.eligible.err().map_or("ok", Ineligible::as_str);
        let fenced = if node.fenced && why != "fenced" { "(fenced)" } else { "" };
        write!(text, " {}={why}{fenced}", node.name).unwrap();
    }
    match view.alarm.map(|alarm| alarm.dispute) {
        Some(Dispute::SameTimeline) => text.push_str(" ALARM same timeline"),
        Some(Dispute::OtherBranch) => text.push_str(" ALARM other branch"),
        None => {}
    }
    text
}

fn tracker(nodes: usize) -> Tracker {
    let metrics = Metrics::new(2).unwrap();
    let nodes = ["a", "b", "c"]
        .into_iter()
        .take(nodes)
        .map(|name| (Arc::from(name), Arc::new(NodeLoad::new(metrics.node("main", name)))));
    Tracker::new(
        nodes,
        Limits {
            max_lag: Duration::from_millis(MAX_LAG_MS),
            max_lag_bytes: MAX_LAG_BYTES,
            rise: 2,
            max_sample_age: Duration::from_millis(MAX_SAMPLE_AGE_MS),
        },
    )
}

/// Plays a scene over `nodes` nodes and compares what is seen.
#[track_caller]
fn check(nodes: usize, scene: &[Event]) {
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let mut tracker = tracker(nodes);
    let sample = |ms, system, timeline, state| Sample {
        sent_at: at(ms),
        connected_at: start,
        system,
        timeline,
        version: 150_004,
        state,
    };
    for event in scene {
        // As the prober does: every piece of news is judged at once.
        let now = match *event {
            Primary(node, ms, timeline, lsn) => {
                let state = State::Primary { insert: Lsn(lsn), flush: Lsn(lsn), fork: None };
                tracker.record(NodeId(node), sample(ms, SYSTEM, timeline, state));
                ms
            }
            Replica(node, ms, timeline, lsn) => {
                let state = State::Replica { replay: Lsn(lsn), paused: false };
                tracker.record(NodeId(node), sample(ms, SYSTEM, timeline, state));
                ms
            }
            Stranger(node, ms, timeline) => {
                let state = State::Primary { insert: Lsn(1), flush: Lsn(1), fork: None };
                tracker.record(NodeId(node), sample(ms, 666, timeline, state));
                ms
            }
            Lineage(node, timeline, text) => {
                let lineage = super::Lineage::parse(timeline, text.as_bytes()).unwrap();
                tracker.tell_lineage(NodeId(node), lineage);
                continue;
            }
            Fail(node, ms) => {
                tracker.fail(NodeId(node), at(ms));
                ms
            }
            See(ms, _) => ms,
        };
        let view = tracker.judge(at(now));
        if let See(ms, expected) = event {
            assert_eq!(show(&view), *expected, "at {ms} ms");
        }
    }
}

#[test]
fn nobody_is_trusted_before_everybody_was_asked() {
    check(
        3,
        &[
            See(0, "primary=none a=not_probed b=not_probed c=not_probed"),
            Primary(0, 1, 1, 100),
            Replica(1, 1, 1, 100),
            See(2, "primary=none a=primary b=lag_unknown c=not_probed"),
            Fail(2, 3),
            See(4, "primary=a b=ok c=unreachable"),
        ],
    );
}

#[test]
fn any_node_may_be_down_at_the_start() {
    check(
        2,
        &[
            Fail(0, 0),
            Replica(1, 0, 1, 100),
            // Without a primary sample nothing bounds the age of the replica.
            See(1, "primary=none a=unreachable b=lag_unknown"),
            Primary(0, 10, 1, 100),
            See(11, "primary=a b=ok"),
        ],
    );
    check(2, &[Primary(0, 0, 1, 100), Fail(1, 1), See(1, "primary=a b=unreachable")]);
}

#[test]
fn a_replica_leaves_above_a_limit_and_returns_well_below_it() {
    // By bytes.
    check(
        2,
        &[
            Primary(0, 0, 1, 20_000),
            Replica(1, 0, 1, 20_000),
            See(0, "primary=a b=ok"),
            Replica(1, 10, 1, 30_000),
            Primary(0, 10, 1, 40_000),
            See(10, "primary=a b=ok"),
            Replica(1, 20, 1, 29_999),
            See(20, "primary=a b=lag_bytes"),
            Replica(1, 30, 1, 31_999),
            See(30, "primary=a b=lag_bytes"),
            Replica(1, 40, 1, 32_000),
            See(40, "primary=a b=ok"),
        ],
    );
    // By time: the replica stays at 100, which was the primary's position at 0 ms.
    check(
        2,
        &[
            Primary(0, 0, 1, 100),
            Replica(1, 0, 1, 100),
            See(0, "primary=a b=ok"),
            Primary(0, 200, 1, 200),
            Primary(0, 600, 1, 300),
            Replica(1, 1000, 1, 150),
            Primary(0, 1000, 1, 400),
            See(1000, "primary=a b=ok"),
            See(1001, "primary=a b=lag_time"),
            Replica(1, 1010, 1, 200),
            See(1010, "primary=a b=lag_time"),
            Replica(1, 1020, 1, 300),
            See(1020, "primary=a b=ok"),
        ],
    );
}

#[test]
fn an_idle_primary_does_not_look_like_lag_and_a_dead_one_does() {
    check(
        2,
        &[
            Primary(0, 0, 1, 100),
            Replica(1, 0, 1, 100),
            See(0, "primary=a b=ok"),
            Primary(0, 5000, 1, 100),
            Replica(1, 5000, 1, 100),
            See(5000, "primary=a b=ok"),
            Fail(0, 5100),
            Replica(1, 6000, 1, 100),
            See(6000, "primary=none a=unreachable b=ok"),
            See(6001, "primary=none a=unreachable b=lag_time"),
        ],
    );
}

#[test]
fn a_failure_counts_at_once_and_reads_return_gradually() {
    check(
        2,
        &[
            Primary(0, 0, 1, 100),
            Replica(1, 0, 1, 100),
            See(0, "primary=a b=ok"),
            Fail(1, 100),
            See(100, "primary=a b=unreachable"),
            // Sent before the failure, so it says nothing about what came after.
            Replica(1, 90, 1, 100),
            See(110, "primary=a b=unreachable"),
            Replica(1, 120, 1, 100),
            See(130, "primary=a b=returning"),
            Fail(1, 140),
            Replica(1, 150, 1, 100),
            See(150, "primary=a b=returning"),
            Replica(1, 160, 1, 100),
            See(160, "primary=a b=ok"),
            // There is only one primary, so it is back with the first good probe.
            Fail(0, 200),
            See(200, "primary=none a=unreachable b=ok"),
            Primary(0, 210, 1, 100),
            See(210, "primary=a b=ok"),
        ],
    );
}

/// Lets a replica return and fail over and over, and gives how many good probes it needed each time. `pauses` are how
/// long it stays up before it fails.
fn probes_needed(pauses: &[u64]) -> Vec<u32> {
    let start = Instant::now();
    let mut tracker = tracker(2);
    let mut now = start;
    let sample =
        |now, state| Sample { sent_at: now, connected_at: start, system: SYSTEM, timeline: 1, version: 150_004, state };
    let probe = |tracker: &mut Tracker, now: &mut Instant| {
        *now += Duration::from_millis(10);
        tracker.record(NodeId(0), sample(*now, State::Primary { insert: Lsn(1), flush: Lsn(1), fork: None }));
        tracker.record(NodeId(1), sample(*now, State::Replica { replay: Lsn(1), paused: false }));
        tracker.judge(*now).node(NodeId(1)).unwrap().eligible
    };
    probe(&mut tracker, &mut now).unwrap();
    let mut needed = Vec::new();
    for pause in pauses {
        now += Duration::from_secs(*pause);
        tracker.fail(NodeId(1), now);
        let mut probes = 1;
        while probe(&mut tracker, &mut now).is_err() {
            probes += 1;
        }
        needed.push(probes);
    }
    needed
}

#[test]
fn a_node_that_fails_again_and_again_returns_later_and_later() {
    for (pauses, expected) in [
        (vec![1], vec![2]),
        (vec![1, 1, 1, 1, 1, 1, 1], vec![2, 4, 8, 16, 32, 32, 32]),
        // It has been well for a minute.
        (vec![1, 1, 1, 61, 1], vec![2, 4, 8, 2, 4]),
    ] {
        assert_eq!(probes_needed(&pauses), expected, "{pauses:?}");
    }
}

#[test]
fn a_node_whose_probes_hang_is_unreachable() {
    check(
        2,
        &[
            Primary(0, 0, 1, 100),
            Replica(1, 0, 1, 100),
            See(500, "primary=a b=ok"),
            Replica(1, 400, 1, 100),
            See(501, "primary=none a=unreachable b=ok"),
        ],
    );
}

#[test]
fn a_promotion_moves_the_primary_and_fences_the_old_one() {
    check(
        3,
        &[
            Primary(0, 0, 1, 100),
            Replica(1, 0, 1, 100),
            Replica(2, 0, 1, 100),
            See(0, "primary=a b=ok c=ok"),
            Fail(0, 100),
            Primary(1, 110, 2, 120),
            // The other replica has not followed yet.
            See(110, "primary=b a=unreachable(fenced) c=other_history"),
            Replica(2, 120, 2, 110),
            Primary(1, 130, 2, 120),
            See(130, "primary=b a=unreachable(fenced) c=lag_unknown"),
            Replica(2, 140, 2, 120),
            See(140, "primary=b a=unreachable(fenced) c=ok"),
            // The old primary comes back as it was.
            Primary(0, 200, 1, 5000),
            Primary(0, 210, 1, 5000),
            See(210, "primary=b a=fenced c=ok"),
            // And has no chance while the new one is away either.
            Fail(1, 220),
            See(220, "primary=none a=fenced b=unreachable c=ok"),
            // Started as a replica, and on what it had before.
            Replica(0, 250, 1, 5000),
            See(250, "primary=none a=other_history(fenced) b=unreachable c=ok"),
            // Rebuilt as a replica of the new one.
            Replica(0, 300, 2, 120),
            See(300, "primary=none a=ok b=unreachable c=ok"),
        ],
    );
}

#[test]
fn two_primaries_of_one_timeline_stop_writes() {
    // At the start.
    check(
        3,
        &[
            Primary(0, 0, 2, 100),
            Primary(1, 0, 2, 100),
            Replica(2, 0, 2, 100),
            See(0, "primary=none a=fenced b=fenced c=other_history ALARM same timeline"),
            Fail(1, 10),
            See(10, "primary=a b=unreachable(fenced) c=ok"),
        ],
    );
    // The accepted one is gone; a stranger to its history uses the same number.
    check(
        2,
        &[
            Primary(0, 0, 2, 100),
            Replica(1, 0, 1, 90),
            See(0, "primary=a b=other_history"),
            Fail(0, 10),
            Primary(1, 20, 2, 100),
            See(20, "primary=none a=unreachable b=fenced ALARM same timeline"),
            // Promoted once more, it is certainly the younger one.
            Primary(1, 30, 3, 100),
            See(30, "primary=b a=unreachable(fenced)"),
        ],
    );
}

#[test]
fn the_younger_of_two_primaries_wins_if_it_descends_from_the_other() {
    // The old one is not gone.
    check(
        3,
        &[
            Primary(0, 0, 1, 100),
            Replica(1, 0, 1, 100),
            Replica(2, 0, 1, 100),
            See(0, "primary=a b=ok c=ok"),
            Lineage(1, 2, "1\t0/64\tx"),
            Primary(1, 10, 2, 100),
            See(10, "primary=b a=fenced c=other_history"),
            // Promoted from what the first had left behind, with the next number.
            Lineage(2, 3, "1\t0/70\tx"),
            Primary(2, 20, 3, 120),
            See(20, "primary=none a=fenced b=fenced c=fenced ALARM other branch"),
            Fail(2, 30),
            See(30, "primary=b a=fenced c=unreachable(fenced)"),
            // It follows.
            Replica(2, 40, 2, 100),
            Replica(2, 50, 2, 100),
            See(50, "primary=b a=fenced c=ok"),
        ],
    );
    // At the start, of two the older is fenced; and a stranger's is nobody's.
    check(
        3,
        &[
            Lineage(1, 2, "1\t0/64\tx"),
            Primary(0, 0, 1, 100),
            Primary(1, 0, 2, 100),
            Stranger(2, 0, 9),
            See(0, "primary=b a=fenced c=other_history(fenced)"),
        ],
    );
}

#[test]
fn a_primary_that_is_away_for_a_moment_is_not_replaced_by_a_former_one() {
    check(
        2,
        &[
            Fail(0, 0),
            Primary(1, 0, 2, 100),
            See(0, "primary=b a=unreachable"),
            Fail(1, 10),
            Primary(0, 20, 1, 5000),
            See(20, "primary=none a=fenced b=unreachable"),
            Primary(1, 30, 2, 100),
            See(30, "primary=b a=fenced"),
        ],
    );
}

#[test]
fn a_node_of_another_cluster_gets_nothing() {
    check(
        3,
        &[
            Stranger(0, 0, 9),
            Primary(1, 0, 1, 100),
            Replica(2, 0, 1, 100),
            // The majority decides which cluster this is.
            See(0, "primary=b a=other_history(fenced) c=ok"),
            Fail(1, 10),
            See(10, "primary=none a=other_history(fenced) b=unreachable c=ok"),
        ],
    );
}

#[test]
fn a_replica_keeps_its_timeline_when_its_wal_receiver_stops() {
    check(
        2,
        &[
            Primary(0, 0, 2, 100),
            Replica(1, 0, 2, 100),
            See(0, "primary=a b=ok"),
            Fail(0, 10),
            // The control file still names the timeline of the last restartpoint.
            Replica(1, 20, 1, 100),
            See(20, "primary=none a=unreachable b=ok"),
            // After a break it may have been rebuilt.
            Fail(1, 30),
            Replica(1, 40, 1, 100),
            Replica(1, 50, 1, 100),
            See(50, "primary=none a=unreachable b=other_history"),
        ],
    );
}

#[test]
fn the_view_says_what_was_measured() {
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let mut tracker = tracker(2);
    let sample = |ms, state| Sample {
        sent_at: at(ms),
        connected_at: start,
        system: SYSTEM,
        timeline: 1,
        version: 150_004,
        state,
    };
    tracker.record(NodeId(0), sample(0, State::Primary { insert: Lsn(100), flush: Lsn(100), fork: None }));
    tracker.record(NodeId(1), sample(5, State::Replica { replay: Lsn(150), paused: true }));
    tracker.judge(at(10));
    tracker.record(NodeId(0), sample(20, State::Primary { insert: Lsn(400), flush: Lsn(300), fork: None }));
    let view = tracker.judge(at(30));
    let replica = view.node(NodeId(1)).unwrap();
    assert_eq!(replica.lag_bytes, Some(150), "counted from what the primary has flushed");
    assert_eq!(replica.covered_at, Some(at(0)));
    assert_eq!(replica.staleness, Some(Duration::from_millis(30)));
    assert_eq!(replica.staleness_at(at(50)), Some(Duration::from_millis(50)));
    assert_eq!(replica.position, Some(Position { system: SYSTEM, timeline: 1, lsn: Lsn(150) }));
    assert_eq!((replica.sampled_at, replica.version, replica.replay_paused), (Some(at(5)), Some(150_004), true));
    let primary = view.node(NodeId(0)).unwrap();
    assert_eq!(primary.position.map(|position| position.lsn), Some(Lsn(400)));
    assert_eq!((primary.staleness, primary.lag_bytes), (Some(Duration::ZERO), Some(0)));
    assert_eq!(view.epoch, Some(Epoch { system: SYSTEM, timeline: 1, primary: NodeId(0) }));
    assert!(view.serves());
}

#[test]
fn a_question_between_probes_makes_lag_sharper() {
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let mut tracker = tracker(2);
    let sample =
        |ms, state| Sample { sent_at: at(ms), connected_at: start, system: SYSTEM, timeline: 1, version: 1, state };
    let news = |ms, timeline, lsn, flush: Option<u64>| PositionSample {
        sent_at: at(ms),
        connected_at: start,
        position: Position { system: SYSTEM, timeline, lsn: Lsn(lsn) },
        flush: flush.map(Lsn),
        paused: false,
    };
    tracker.record(NodeId(0), sample(0, State::Primary { insert: Lsn(100), flush: Lsn(100), fork: None }));
    tracker.record(NodeId(1), sample(0, State::Replica { replay: Lsn(100), paused: false }));
    tracker.judge(at(0));
    let covered = |tracker: &mut Tracker| {
        let view = tracker.judge(at(100));
        assert_eq!(view.primary, Some(NodeId(0)));
        view.node(NodeId(1)).unwrap().covered_at.map(|covered_at| covered_at.duration_since(start).as_millis())
    };
    tracker.observe(NodeId(0), news(40, 1, 200, Some(200)));
    assert_eq!(covered(&mut tracker), Some(0), "the replica has not told yet");
    tracker.observe(NodeId(1), news(50, 1, 200, None));
    assert_eq!(covered(&mut tracker), Some(40));
    // A probe that was overtaken, and a primary of another timeline, change nothing.
    tracker.record(NodeId(1), sample(45, State::Replica { replay: Lsn(150), paused: false }));
    tracker.observe(NodeId(0), news(60, 2, 150, Some(150)));
    assert_eq!(covered(&mut tracker), Some(40));
    // Nor does what was asked before a failure.
    tracker.fail(NodeId(1), at(70));
    tracker.observe(NodeId(1), news(65, 1, 900, None));
    assert_eq!(tracker.judge(at(100)).node(NodeId(1)).unwrap().progress.latest(), None);
    // Without a WAL receiver a replica shows an older timeline; on a new connection it may be true.
    let mut tracker = self::tracker(2);
    tracker.record(NodeId(1), Sample { timeline: 2, ..sample(0, State::Replica { replay: Lsn(100), paused: false }) });
    assert_eq!(tracker.observe(NodeId(1), news(10, 1, 100, None)).position.timeline, 2);
    let reconnected = PositionSample { connected_at: at(15), ..news(20, 1, 100, None) };
    assert_eq!(tracker.observe(NodeId(1), reconnected).position.timeline, 1);
}

#[test]
fn a_promotion_that_was_seen_tells_its_fork() {
    let (start, fork) = (Instant::now(), Fork { timeline: 1, at: Lsn(110) });
    for (fork, expected) in [(Some(fork), Some(fork)), (None, None), (Some(Fork { timeline: 9, ..fork }), None)] {
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut tracker = tracker(2);
        let sample = |ms, timeline, state| Sample {
            sent_at: at(ms),
            connected_at: start,
            system: SYSTEM,
            timeline,
            version: 150_004,
            state,
        };
        tracker.record(NodeId(0), sample(0, 1, State::Primary { insert: Lsn(120), flush: Lsn(120), fork: None }));
        tracker.record(NodeId(1), sample(0, 1, State::Replica { replay: Lsn(100), paused: false }));
        assert_eq!(tracker.judge(at(0)).history.last_fork(), None);
        tracker.fail(NodeId(0), at(10));
        tracker.record(NodeId(1), sample(20, 2, State::Primary { insert: Lsn(130), flush: Lsn(130), fork }));
        let view = tracker.judge(at(20));
        assert_eq!((view.primary, view.history.last_fork()), (Some(NodeId(1)), expected));
        // What the old primary had written stays known.
        let written = view.node(NodeId(0)).unwrap().progress.covering(start).map(|sample| sample.position);
        assert_eq!(written, Some(Position { system: SYSTEM, timeline: 1, lsn: Lsn(120) }));
    }
}

proptest! {
    /// Whatever comes in, in whatever order: a primary is a node that said so, on the youngest timeline accepted so
    /// far, and an eligible node is a replica of that history within the limits.
    #[test]
    fn a_view_never_promises_more_than_it_knows(
        events in prop::collection::vec((0_u16..3, 0_u8..3, 1_u32..4, 0_u64..30_000, 0_u64..2), 0..80),
    ) {
        let start = Instant::now();
        let mut tracker = tracker(3);
        let mut youngest = 0;
        let mut now = start;
        for (node, kind, timeline, lsn, stranger) in events {
            now += Duration::from_millis(70);
            let state = match kind {
                0 => State::Primary { insert: Lsn(lsn), flush: Lsn(lsn), fork: None },
                _ => State::Replica { replay: Lsn(lsn), paused: false },
            };
            let sample = Sample { sent_at: now, connected_at: start, system: SYSTEM + stranger, timeline, version: 150_004, state };
            if kind == 2 { tracker.fail(NodeId(node), now); } else { tracker.record(NodeId(node), sample); }
            let view = tracker.judge(now);
            if let Some(epoch) = view.epoch {
                prop_assert!(epoch.timeline >= youngest, "an epoch never goes back");
                youngest = epoch.timeline;
            }
            if let Some(primary) = view.primary {
                let node = view.node(primary).unwrap();
                prop_assert_eq!(node.role, Some(Role::Primary));
                prop_assert_eq!(view.epoch.map(|epoch| epoch.primary), Some(primary));
                prop_assert!(view.alarm.is_none());
                prop_assert!(!node.fenced);
            }
            let other_writers = view.nodes.iter().filter(|node| view.epoch.is_some() && view.primary != Some(node.id));
            for node in other_writers.filter(|node| node.role == Some(Role::Primary) && !node.is_unreachable()) {
                prop_assert!(node.fenced, "{} can write", node.name);
            }
            for node in view.eligible() {
                prop_assert!(!node.fenced);
                let (epoch, position) = (view.epoch.unwrap(), node.position.unwrap());
                prop_assert_eq!(node.role, Some(Role::Replica));
                prop_assert_eq!((position.system, position.timeline), (epoch.system, epoch.timeline));
                prop_assert!(node.staleness.unwrap() <= Duration::from_millis(MAX_LAG_MS));
                prop_assert!(node.lag_bytes.unwrap() <= MAX_LAG_BYTES);
                prop_assert!(now.duration_since(node.sampled_at.unwrap()) <= Duration::from_millis(MAX_SAMPLE_AGE_MS));
            }
        }
    }
}
