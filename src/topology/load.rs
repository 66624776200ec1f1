//! How busy a node is: batches in flight and peak-EWMA of the latency. Workers write it, balancing reads it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::metrics::{GaugeGuard, NodeMetrics};

/// After this long a peak has faded to a third.
const DECAY: Duration = Duration::from_secs(10);

/// Shared by all workers; written by sessions, read by balancing. Its races lose a sample at worst.
#[derive(Debug)]
pub struct NodeLoad {
    metrics: Arc<NodeMetrics>,
    born: Instant,
    /// Nanoseconds at the time of the last sample.
    peak_ns: AtomicU64,
    /// Time of the last sample, in nanoseconds since `born`.
    observed_ns: AtomicU64,
}

impl NodeLoad {
    pub fn new(metrics: Arc<NodeMetrics>) -> Self {
        Self { metrics, born: Instant::now(), peak_ns: AtomicU64::new(0), observed_ns: AtomicU64::new(0) }
    }

    pub fn metrics(&self) -> &NodeMetrics {
        &self.metrics
    }

    /// A batch is on its way to the node, until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        InFlight { since: Instant::now(), _count: GaugeGuard::new(&self.metrics.in_flight), load: Arc::clone(self) }
    }

    /// Batches that wait for the node's answer.
    pub fn in_flight(&self) -> u64 {
        u64::try_from(self.metrics.in_flight.get()).unwrap_or(0)
    }

    /// Expected latency: jumps to a peak at once and fades from it, so that a node that became slow is avoided
    /// immediately and tried again after a while. Zero while nothing is known.
    pub fn latency(&self, now: Instant) -> Duration {
        let peak = Duration::from_nanos(self.peak_ns.load(Relaxed));
        peak.mul_f64(self.faded(now))
    }

    /// What one more batch here would cost, for comparing two nodes.
    pub fn cost(&self, now: Instant) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "nobody has 2^53 batches in flight")]
        let queue = (self.in_flight() + 1) as f64;
        // A node without a sample is compared by its queue alone, at the price of the fastest answer there is.
        self.latency(now).as_secs_f64().max(1e-6) * queue
    }

    /// One answer took `latency`.
    pub fn observe(&self, now: Instant, latency: Duration) {
        let faded = self.faded(now);
        let expected = Duration::from_nanos(self.peak_ns.load(Relaxed));
        let next = latency.max(expected.mul_f64(faded) + latency.mul_f64(1.0 - faded));
        self.peak_ns.store(nanos(next), Relaxed);
        self.observed_ns.store(nanos(now.saturating_duration_since(self.born)), Relaxed);
    }

    /// The weight that the last sample still has: 1 at once, towards 0 with time.
    fn faded(&self, now: Instant) -> f64 {
        let observed = Duration::from_nanos(self.observed_ns.load(Relaxed));
        let age = now.saturating_duration_since(self.born).saturating_sub(observed);
        (-age.as_secs_f64() / DECAY.as_secs_f64()).exp()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A batch on its way. Dropped without [`InFlight::answered`], it counts down and says nothing about latency.
#[derive(Debug)]
#[must_use = "the batch counts as in flight until this is dropped"]
pub struct InFlight {
    load: Arc<NodeLoad>,
    since: Instant,
    _count: GaugeGuard,
}

impl InFlight {
    /// The node's `ReadyForQuery` has arrived.
    pub fn answered(self) {
        let now = Instant::now();
        let latency = now.saturating_duration_since(self.since);
        self.load.observe(now, latency);
        self.load.metrics.round_trip.observe(latency.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn load() -> Arc<NodeLoad> {
        Arc::new(NodeLoad::new(Metrics::new().unwrap().node("main", "a")))
    }

    #[test]
    fn latency_jumps_to_a_peak_and_fades_from_it() {
        let load = load();
        let ms = Duration::from_millis;
        let t0 = load.born;
        assert_eq!(load.latency(t0), Duration::ZERO);
        load.observe(t0, ms(2));
        assert_eq!(load.latency(t0), ms(2));
        load.observe(t0 + ms(1), ms(50));
        assert_eq!(load.latency(t0 + ms(1)), ms(50), "a peak counts at once");
        load.observe(t0 + ms(2), ms(2));
        assert!(load.latency(t0 + ms(2)) > ms(49), "one good answer does not forget it");
        let later = load.latency(t0 + ms(2) + DECAY);
        assert!(later > ms(17) && later < ms(20), "{later:?}");
        assert!(load.latency(t0 + DECAY * 20) < ms(1), "a node without traffic gets its chance again");
    }

    #[test]
    fn a_guard_counts_down_and_only_an_answer_is_a_latency() {
        let load = load();
        let (one, two) = (load.begin(), load.begin());
        assert_eq!(load.in_flight(), 2);
        drop(one);
        assert_eq!(load.in_flight(), 1);
        assert_eq!(load.metrics.round_trip.get_sample_count(), 0);
        two.answered();
        assert_eq!(load.in_flight(), 0);
        assert_eq!(load.metrics.round_trip.get_sample_count(), 1);
    }

    #[test]
    fn a_longer_queue_costs_more() {
        let (idle, busy) = (load(), load());
        let now = Instant::now();
        let _queue = (busy.begin(), busy.begin());
        assert!(busy.cost(now) > idle.cost(now));
        idle.observe(now, Duration::from_secs(1));
        assert!(busy.cost(now) < idle.cost(now));
    }
}
