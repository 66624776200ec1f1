//! Numbers that every worker counts for itself: the one thread that writes a number needs no atomic read-modify-write
//! and shares no cache line. They are summed when somebody asks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use prometheus::proto;

use super::maker::LATENCY_BUCKETS;
use crate::types::WorkerId;

/// A number that one thread writes and all may read.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

impl Tally {
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }

    pub fn subtract(&self, less: u64) {
        self.set(self.get().wrapping_sub(less));
    }
}

/// One `T` for each worker.
#[derive(Debug)]
pub struct Lanes<T>(Box<[CachePadded<T>]>);

impl<T: Default> Lanes<T> {
    pub(super) fn new(workers: usize) -> Self {
        Self((0..workers.max(1)).map(|_| CachePadded::default()).collect())
    }

    /// Only this worker's thread may write there.
    pub fn of(&self, worker: WorkerId) -> &T {
        &self.0[worker.0 % self.0.len()]
    }

    pub fn sum(&self, of: impl Fn(&T) -> u64) -> u64 {
        self.0.iter().fold(0, |sum, lane| sum.wrapping_add(of(lane)))
    }

    /// The greatest.
    pub fn most(&self, of: impl Fn(&T) -> u64) -> u64 {
        self.0.iter().map(|lane| of(lane)).max().unwrap_or_default()
    }

    /// As many lanes of something else.
    pub fn alike<U: Default>(&self) -> Lanes<U> {
        Lanes::new(self.0.len())
    }
}

/// How often batches took how long.
#[derive(Debug, Default)]
pub struct Latencies {
    /// Not cumulative; those above all bounds come last.
    buckets: [Tally; LATENCY_BUCKETS.len() + 1],
    sum_ns: Tally,
}

impl Latencies {
    pub fn observe(&self, latency: Duration) {
        let seconds = latency.as_secs_f64();
        let at = LATENCY_BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(LATENCY_BUCKETS.len());
        self.buckets[at].add(1);
        self.sum_ns.add(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// All lanes' latencies together.
pub(super) fn histogram<T: Default>(lanes: &Lanes<T>, of: impl Fn(&T) -> &Latencies) -> proto::Histogram {
    let mut count = 0;
    let mut cumulated = |at: usize| {
        count += lanes.sum(|lane| of(lane).buckets[at].get());
        count
    };
    let buckets = LATENCY_BUCKETS.iter().enumerate().map(|(at, bound)| {
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(cumulated(at));
        bucket
    });
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(cumulated(LATENCY_BUCKETS.len()));
    let sum = Duration::from_nanos(lanes.sum(|lane| of(lane).sum_ns.get()));
    histogram.set_sample_sum(sum.as_secs_f64());
    histogram
}
