//! What the primary has shown, sample by sample, and what a replay position proves about the age of a replica.
//!
//! A sample (t, L) says: all that any client could see on the primary at t lies at or before L, because t is when the
//! question was *sent*, and the insert position can only have grown until the answer was made. A replica that has
//! replayed L therefore has all of it, and is not older than now − t. Clocks need not agree, and an idle primary
//! gives ever newer samples with the same L, which a replica that has replayed L covers without doing anything.

use std::collections::VecDeque;
use std::time::Instant;

use crate::types::Lsn;

/// Bounds the memory. When it is reached, samples are dropped whose age neighbours tell well enough: answers about the
/// past become coarser, never too good.
const CAPACITY: usize = 1024;
/// After that, neighbours are no further apart than this part of their age; unless nothing was asked in between. So a
/// day of thousands of questions a second needs some 700 samples.
const COARSENESS: u32 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PrimarySample {
    sent_at: Instant,
    insert: Lsn,
}

/// Samples of one primary on one timeline; time and position both ascend.
#[derive(Debug, Default)]
pub(super) struct PrimarySamples {
    samples: VecDeque<PrimarySample>,
    flush: Option<Lsn>,
}

impl PrimarySamples {
    /// Adds what the primary answered to a question sent at `sent_at`. A sample that is not newer changes nothing.
    pub(super) fn push(&mut self, sent_at: Instant, insert: Lsn, flush: Lsn) {
        if self.samples.back().is_some_and(|last| last.sent_at >= sent_at) {
            return;
        }
        self.flush = Some(flush);
        // After a crash of the primary its positions go back to what was flushed; what lay beyond is not history.
        // At the same position the newer time proves more, so the older sample is of no use.
        while self.samples.back().is_some_and(|last| last.insert >= insert) {
            self.samples.pop_back();
        }
        if self.samples.len() >= CAPACITY {
            self.thin_out(sent_at);
        }
        self.samples.push_back(PrimarySample { sent_at, insert });
    }

    fn thin_out(&mut self, now: Instant) {
        let mut kept: VecDeque<PrimarySample> = VecDeque::with_capacity(CAPACITY);
        for (index, sample) in self.samples.iter().enumerate() {
            let needed = match (kept.back(), self.samples.get(index + 1)) {
                (Some(before), Some(after)) => {
                    after.sent_at.duration_since(before.sent_at) > now.duration_since(sample.sent_at) / COARSENESS
                }
                _ => true,
            };
            if needed {
                kept.push_back(*sample);
            }
        }
        while kept.len() >= CAPACITY {
            kept.remove(1);
        }
        self.samples = kept;
    }

    /// The newest instant at which nothing was visible on the primary that a node at `replay` lacks.
    pub(super) fn covered_at(&self, replay: Lsn) -> Option<Instant> {
        let covered = self.samples.partition_point(|sample| sample.insert <= replay);
        self.samples.get(covered.checked_sub(1)?).map(|sample| sample.sent_at)
    }

    /// The earliest known position that has all that was visible at `since`.
    pub(super) fn shown_by(&self, since: Instant) -> Option<Lsn> {
        let earlier = self.samples.partition_point(|sample| sample.sent_at < since);
        self.samples.get(earlier).map(|sample| sample.insert)
    }

    /// Bytes that the primary has flushed and a node at `replay` has not replayed.
    pub(super) fn lag_bytes(&self, replay: Lsn) -> Option<u64> {
        self.flush.map(|flush| flush.bytes_since(replay))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    /// (milliseconds, insert position) pairs.
    fn samples(start: Instant, pairs: &[(u64, u64)]) -> PrimarySamples {
        let mut samples = PrimarySamples::default();
        for &(ms, lsn) in pairs {
            samples.push(at(start, ms), Lsn(lsn), Lsn(lsn));
        }
        samples
    }

    #[test]
    fn what_was_visible_is_at_or_before_the_next_sample() {
        let start = Instant::now();
        let samples = samples(start, &[(10, 100), (20, 100), (30, 300)]);
        for (since_ms, shown) in [(0, Some(100)), (10, Some(100)), (20, Some(100)), (21, Some(300)), (31, None)] {
            assert_eq!(samples.shown_by(at(start, since_ms)), shown.map(Lsn), "{since_ms}");
        }
    }

    #[test]
    fn a_replay_position_covers_the_newest_sample_at_or_before_it() {
        let start = Instant::now();
        let check = |pairs: &[(u64, u64)], replay: u64, covered_ms: Option<u64>| {
            let covered = samples(start, pairs).covered_at(Lsn(replay));
            assert_eq!(covered, covered_ms.map(|ms| at(start, ms)), "{pairs:?} at {replay}");
        };
        check(&[], 100, None);
        check(&[(0, 100)], 99, None);
        check(&[(0, 100)], 100, Some(0));
        check(&[(0, 100), (10, 200), (20, 300)], 250, Some(10));
        check(&[(0, 100), (10, 200), (20, 300)], 300, Some(20));
        check(&[(0, 100), (10, 200), (20, 300)], 9999, Some(20));
        check(&[(0, 100), (10, 100), (20, 100)], 100, Some(20));
        check(&[(0, 100), (10, 100), (20, 200)], 150, Some(10));
        // A crash took the primary back from 300 to 200.
        check(&[(0, 100), (10, 300), (20, 200)], 250, Some(20));
        check(&[(0, 100), (10, 300), (20, 200)], 150, Some(0));
        // An answer that comes late is ignored.
        check(&[(10, 100), (0, 50)], 60, None);
    }

    #[test]
    fn an_idle_primary_takes_the_place_of_one_sample() {
        let start = Instant::now();
        let pairs: Vec<_> = (0..10_000).map(|i| (i, 100)).collect();
        let samples = samples(start, &pairs);
        assert_eq!(samples.samples.len(), 1);
        assert_eq!(samples.covered_at(Lsn(100)), Some(at(start, 9_999)));
    }

    #[test]
    fn bytes_are_counted_from_the_newest_flush_position() {
        let start = Instant::now();
        assert_eq!(PrimarySamples::default().lag_bytes(Lsn(1)), None);
        let samples = samples(start, &[(0, 100), (10, 300)]);
        assert_eq!(samples.lag_bytes(Lsn(120)), Some(180));
        assert_eq!(samples.lag_bytes(Lsn(400)), Some(0));
    }

    #[test]
    fn a_replica_that_stopped_long_ago_is_still_covered_and_memory_is_bounded() {
        let start = Instant::now();
        let pairs: Vec<_> = (0..100_000).map(|i| (i, i)).collect();
        let samples = samples(start, &pairs);
        assert!(samples.samples.len() <= CAPACITY);
        assert_eq!(samples.covered_at(Lsn(99_999)), Some(at(start, 99_999)));
        let covered = samples.covered_at(Lsn(500)).expect("the first sample is never thinned out");
        assert!(covered <= at(start, 500));
    }

    #[test]
    fn what_is_overstated_is_a_small_part_of_the_age() {
        let start = Instant::now();
        // Ten minutes of questions, one a millisecond.
        let pairs: Vec<_> = (0..600_000).map(|i| (i, i)).collect();
        let samples = samples(start, &pairs);
        assert!(samples.samples.len() <= CAPACITY);
        for age in [1, 10, 100, 1000, 10_000, 60_000, 300_000] {
            let replay = 599_999 - age;
            let covered = samples.covered_at(Lsn(replay)).expect("the first sample is never thinned out");
            let overstated = at(start, replay).duration_since(covered).as_millis();
            assert!(overstated <= u128::from(age / 10), "{overstated} ms of {age}");
        }
    }

    proptest! {
        /// Whatever the primary committed before the instant that we call covered is at or before the replay
        /// position, whatever the delays; and no later sample could have been used.
        #[test]
        fn staleness_is_never_understated(
            commits in prop::collection::vec((1_u64..50, 1_u64..1000), 1..200),
            probes in prop::collection::vec((1_u64..100, 0_u64..80), 1..100),
            replay in 0_u64..100_000,
        ) {
            let start = Instant::now();
            let (mut now, mut lsn) = (0, 0);
            let commits: Vec<(u64, u64)> = commits.iter().map(|&(wait, bytes)| {
                now += wait;
                lsn += bytes;
                (now, lsn)
            }).collect();
            let written = |ms: u64| commits.iter().rev().find(|commit| commit.0 <= ms).map_or(0, |commit| commit.1);

            let mut sent = 0;
            let mut ring = PrimarySamples::default();
            let mut best = None;
            for (wait, delay) in probes {
                sent += wait;
                let answer = written(sent + delay);
                ring.push(at(start, sent), Lsn(answer), Lsn(answer));
                if answer <= replay {
                    best = Some(at(start, sent));
                }
                sent += delay;
            }
            let covered = ring.covered_at(Lsn(replay));
            prop_assert_eq!(covered, best);
            for (ms, lsn) in commits {
                if covered.is_some_and(|covered| at(start, ms) <= covered) {
                    prop_assert!(lsn <= replay);
                }
            }
        }
    }
}
