//! Scenes of samples, and what is expected of a node after them.

use super::*;

const SYSTEM: u64 = 7;

/// A node at a start of time.
struct Scene {
    start: Instant,
    progress: Progress,
}

/// What happens, at a number of milliseconds.
enum Event {
    /// The primary was at this position.
    Expect(u64, u64),
    /// The replica answers: its replay position.
    At(u64, u64),
    Paused(u64, u64),
    /// As a primary of this timeline: the insert position.
    Writes(u64, u32, u64),
    /// As a replica of this timeline, on a connection made at the last number.
    Follows(u64, u32, u64, u64),
    Fail(u64),
}
use Event::{At, Expect, Fail, Follows, Paused, Writes};

impl Scene {
    fn play(events: &[Event]) -> Self {
        let scene = Self { start: Instant::now(), progress: Progress::default() };
        for event in events {
            match *event {
                Expect(ms, lsn) => scene.progress.expect(scene.at(ms), Lsn(lsn)),
                At(ms, lsn) => scene.progress.record(scene.sample(ms, 1, lsn)),
                Paused(ms, lsn) => scene.progress.record(PositionSample { paused: true, ..scene.sample(ms, 1, lsn) }),
                Writes(ms, timeline, lsn) => {
                    let flush = Some(Lsn(lsn));
                    scene.progress.record(PositionSample { flush, ..scene.sample(ms, timeline, lsn) });
                }
                Follows(ms, timeline, lsn, connected) => {
                    let connected_at = scene.at(connected);
                    scene.progress.record(PositionSample { connected_at, ..scene.sample(ms, timeline, lsn) });
                }
                Fail(ms) => scene.progress.forget(scene.at(ms)),
            }
        }
        scene
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn sample(&self, ms: u64, timeline: u32, lsn: u64) -> PositionSample {
        PositionSample {
            sent_at: self.at(ms),
            connected_at: self.start,
            position: Position { system: SYSTEM, timeline, lsn: Lsn(lsn) },
            flush: None,
            paused: false,
        }
    }
}

#[test]
fn the_newest_sample_counts_and_a_failure_forgets_it() {
    for (events, expected) in [
        (&[][..], None),
        (&[At(10, 100)], Some(100)),
        (&[At(20, 200), At(10, 100)], Some(200)),
        // It came back further behind.
        (&[At(20, 200), Fail(30), At(40, 150)], Some(150)),
        (&[At(20, 200), Fail(30)], None),
        // Sent before the failure.
        (&[At(20, 200), Fail(30), At(25, 200)], None),
    ] {
        let latest = Scene::play(events).progress.latest();
        assert_eq!(latest.map(|sample| sample.position.lsn.0), expected);
    }
}

#[test]
fn the_wait_for_a_position_is_foreseen() {
    /// After the events, how many milliseconds are expected at `now` for `lsn`.
    #[track_caller]
    fn check(events: &[Event], now: u64, lsn: u64, expected: Option<u64>) {
        let scene = Scene::play(events);
        let wait = scene.progress.expected_wait(Lsn(lsn), scene.at(now));
        assert_eq!(wait.map(|wait| wait.as_millis()), expected.map(u128::from));
    }
    // Nothing is known.
    check(&[], 0, 1, None);
    // It has it.
    check(&[At(0, 100)], 5, 100, Some(0));
    // Nobody has seen it late: it should have it by now.
    check(&[At(0, 100), Expect(10, 200)], 10, 200, Some(0));
    // A primary has what it has written, and this is asked of what it wrote.
    check(&[Writes(0, 1, 100)], 5, 200, Some(0));
    // Replay is paused.
    check(&[Paused(0, 100)], 5, 200, None);
    check(&[Paused(0, 100), At(10, 100)], 10, 200, Some(0));
    // It lacked what came at 0 for 80 ms: a quarter of that is believed, and counted from when it was written.
    let late = [At(0, 100), Expect(1, 200), At(81, 100), At(82, 200)];
    check(&late, 82, 300, Some(20));
    let late = [At(0, 100), Expect(1, 200), At(81, 100), At(82, 200), Expect(90, 300)];
    check(&late, 95, 300, Some(15));
    check(&late, 200, 300, Some(0));
    // A backlog that it works off at 1000 bytes a second; 500 are left, and half of that time is over.
    let busy = [At(0, 0), Expect(0, 2000), At(1000, 1000), At(1500, 1500)];
    check(&busy, 1750, 2000, Some(250));
    check(&busy, 2000, 2000, Some(0));
    // Caught up: what it could do then says nothing of one byte now.
    check(&[At(0, 0), Expect(0, 2000), At(1000, 1000), At(1500, 2000), Expect(1600, 2001)], 1600, 2001, Some(250));
    // It lacks something and does not move.
    check(&[At(0, 100), Expect(1, 200), At(10, 100), At(259, 100)], 260, 200, Some(0));
    check(&[At(0, 100), Expect(1, 200), At(10, 100), At(261, 100)], 262, 200, None);
    check(&[At(0, 100), Expect(1, 200), At(10, 100), At(300, 100), At(301, 150)], 301, 200, Some(1));
    // It does not move, and lacks nothing.
    check(&[At(0, 100), Expect(1, 100), At(10, 100), At(900, 100)], 900, 200, Some(0));
    // After a failure nothing is expected, and after its return it is as if it were new.
    check(&[At(0, 100), Expect(1, 200), At(10, 100), At(300, 100), Fail(310)], 320, 200, None);
    check(&[At(0, 100), Expect(1, 200), At(10, 100), At(300, 100), Fail(310), At(320, 100)], 320, 200, Some(0));
}

#[test]
fn a_delay_is_learned() {
    // Everything comes 2 s late, and is seen every 100 ms.
    let mut events = vec![At(0, 0)];
    for step in 1..100 {
        events.push(Expect(step * 100, step * 10));
        events.push(At(step * 100 + 1, step.saturating_sub(20) * 10));
    }
    let scene = Scene::play(&events);
    let wait = scene.progress.expected_wait(Lsn(1000), scene.at(10_000)).unwrap();
    assert!(wait > Duration::from_millis(1700) && wait < Duration::from_millis(2200), "{wait:?}");
}

#[test]
fn a_sample_covers_what_the_node_had_shown_in_the_same_life() {
    /// After the events, the position that covers all that was shown by `since`.
    #[track_caller]
    fn check(events: &[Event], since: u64, expected: Option<(u32, u64)>) {
        let scene = Scene::play(events);
        let covering = scene.progress.covering(scene.at(since));
        assert_eq!(covering.map(|sample| (sample.position.timeline, sample.position.lsn.0)), expected);
    }
    let replica = [At(0, 100), At(20, 200)];
    check(&replica, 20, Some((1, 200)));
    check(&replica, 21, None);
    // Its connection is younger: it may have restarted and gone back.
    check(&[At(0, 100), Follows(20, 1, 90, 15)], 10, None);
    check(&[At(0, 100), Follows(20, 1, 90, 15)], 16, Some((1, 90)));
    check(&[At(0, 100), At(20, 200), Fail(30)], 10, None);
    // What a primary had written stays known: after it failed, returned as a replica, and was promoted again.
    let old = [
        Writes(0, 1, 100),
        Writes(20, 1, 200),
        Fail(30),
        Follows(40, 2, 150, 35),
        Writes(60, 3, 170),
        Writes(80, 3, 180),
    ];
    check(&old, 10, Some((1, 200)));
    check(&old, 20, Some((1, 200)));
    check(&old, 25, None);
    check(&old, 45, None);
    check(&old, 70, Some((3, 180)));
    check(&old, 90, None);
    // A primary that restarts has all that it had; its connections are new.
    check(&[Writes(0, 1, 100), Fail(10), Writes(20, 1, 200)], 5, Some((1, 200)));
    // Before anything was known of it, nothing was shown.
    let scene = Scene::play(&[At(10, 100)]);
    assert_eq!(scene.progress.covering(scene.start), None);
}

#[test]
fn a_sample_has_a_position_of_its_history_only() {
    let scene = Scene::play(&[]);
    let mut history = History::of(SYSTEM, 1);
    history.accept(SYSTEM, 2, Some(super::super::history::Fork { timeline: 1, at: Lsn(100) }));
    let wanted = |timeline, lsn| Position { system: SYSTEM, timeline, lsn: Lsn(lsn) };
    for (timeline, lsn, position, expected) in [
        (1, 100, wanted(1, 100), true),
        (1, 99, wanted(1, 100), false),
        // The new timeline has what lies before the fork.
        (2, 120, wanted(1, 100), true),
        (2, 120, wanted(1, 101), false),
        // Who still follows the old one may have gone another way.
        (1, 120, wanted(2, 110), false),
        (3, 120, wanted(2, 110), false),
        (2, 120, Position { system: 8, ..wanted(2, 110) }, false),
    ] {
        let sample = scene.sample(0, timeline, lsn);
        assert_eq!(sample.has(position, &history), expected, "{sample:?} has {position:?}");
    }
}

#[test]
fn memory_is_bounded() {
    let scene = Scene::play(&[]);
    for index in 0..1000_u32 {
        let (ms, lsn) = (u64::from(index), u64::from(index));
        scene.progress.expect(scene.at(ms), Lsn(lsn + 10_000));
        let flush = index.is_multiple_of(2).then_some(Lsn(lsn));
        scene.progress.record(PositionSample { flush, ..scene.sample(ms, index, lsn) });
        let state = scene.progress.0.lock();
        assert!(state.lives.len() <= MAX_LIVES && state.motion.marks.len() <= MAX_MARKS);
    }
    for ms in 0..1000 {
        scene.progress.expect(scene.at(ms), Lsn(ms));
    }
    let state = scene.progress.0.lock();
    assert!(state.motion.marks.len() <= MAX_MARKS);
    assert_eq!(state.motion.marks.front().map(|mark| mark.at), Some(scene.start));
}
