//! Scenes of samples, and what is expected of a node after them.

use super::*;

const SYSTEM: u64 = 7;

/// A replica's answer: (milliseconds, replay position).
fn replica(start: Instant, ms: u64, lsn: u64) -> PositionSample {
    PositionSample {
        sent_at: start + Duration::from_millis(ms),
        connected_at: start,
        position: Position { system: SYSTEM, timeline: 1, lsn: Lsn(lsn) },
        flush: None,
        paused: false,
    }
}

#[test]
fn the_newest_sample_counts_and_a_failure_forgets_it() {
    let (start, progress) = (Instant::now(), Progress::default());
    assert_eq!(progress.latest(), None);
    let (early, late) = (replica(start, 10, 100), replica(start, 20, 200));
    progress.record(late);
    progress.record(early);
    assert_eq!(progress.latest(), Some(late));
    progress.forget(start + Duration::from_millis(30));
    progress.record(late);
    assert_eq!(progress.latest(), None, "sent before the failure");
    // It came back further behind.
    progress.record(replica(start, 40, 150));
    assert_eq!(progress.latest(), Some(replica(start, 40, 150)));
}
