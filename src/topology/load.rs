//! How busy a node is: batches in flight and peak-EWMA of the latency. Workers write it, each for itself; balancing reads
//! it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::metrics::{Lanes, NodeLane, NodeMetrics, Tally};
use crate::types::WorkerId;

/// A peak has faded to a third after this long, and to nothing if there was no other sample.
const FADES_IN: Duration = Duration::from_secs(10);

/// Written by sessions, read by balancing.
#[derive(Debug)]
pub struct NodeLoad {
    metrics: Arc<NodeMetrics>,
    born: Instant,
    peaks: Lanes<Peak>,
}

/// The latency that one worker expects.
#[derive(Debug, Default)]
struct Peak {
    /// At the time of the last sample.
    ns: Tally,
    /// Time of the last sample, in nanoseconds since the load was born.
    observed_ns: Tally,
}

impl Peak {
    /// It fades in a straight line.
    fn at(&self, now_ns: u64) -> u64 {
        let age = now_ns.saturating_sub(self.observed_ns.get());
        let fades_in = nanos(FADES_IN);
        let left = fades_in.saturating_sub(age);
        let faded = u128::from(self.ns.get()) * u128::from(left) / u128::from(fades_in);
        u64::try_from(faded).unwrap_or(u64::MAX)
    }
}

impl NodeLoad {
    pub fn new(metrics: Arc<NodeMetrics>) -> Self {
        let peaks = metrics.lanes.alike();
        Self { metrics, born: Instant::now(), peaks }
    }

    pub fn metrics(&self) -> &NodeMetrics {
        &self.metrics
    }

    /// What this worker counts; only its thread may write there.
    pub fn lane(&self, worker: WorkerId) -> &NodeLane {
        self.metrics.lanes.of(worker)
    }

    /// A batch is on its way to the node since `now`, until the guard is dropped on this worker.
    pub fn begin(&self, worker: WorkerId, now: Instant) -> InFlight<'_> {
        self.lane(worker).in_flight.add(1);
        InFlight { load: self, worker, since: now }
    }

    /// Batches that wait for the node's answer.
    pub fn in_flight(&self) -> u64 {
        self.metrics.lanes.sum(|lane| lane.in_flight.get())
    }

    /// Expected latency: jumps to a peak at once and fades from it, so that a node that became slow is avoided
    /// immediately and tried again after a while. Zero while nothing is known.
    pub fn latency(&self, now: Instant) -> Duration {
        let now_ns = self.age_ns(now);
        Duration::from_nanos(self.peaks.most(|peak| peak.at(now_ns)))
    }

    /// What one more batch here would cost, for comparing two nodes.
    pub fn cost(&self, now: Instant) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "nobody has 2^53 batches in flight")]
        let queue = (self.in_flight() + 1) as f64;
        // A node without a sample is compared by its queue alone, at the price of the fastest answer there is.
        self.latency(now).as_secs_f64().max(1e-6) * queue
    }

    /// One answer to a batch of this worker's took `latency`.
    fn observe(&self, worker: WorkerId, now: Instant, latency: Duration) {
        let (peak, now_ns) = (self.peaks.of(worker), self.age_ns(now));
        peak.ns.set(peak.at(now_ns).max(nanos(latency)));
        peak.observed_ns.set(now_ns);
    }

    fn age_ns(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.born))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A batch on its way. Dropped without [`InFlight::answered`], it counts down and says nothing about latency.
#[derive(Debug)]
#[must_use = "the batch counts as in flight until this is dropped"]
pub struct InFlight<'a> {
    load: &'a NodeLoad,
    worker: WorkerId,
    since: Instant,
}

impl InFlight<'_> {
    /// The node's `ReadyForQuery` has arrived.
    pub fn answered(self, now: Instant) {
        let latency = now.saturating_duration_since(self.since);
        self.load.observe(self.worker, now, latency);
        self.load.lane(self.worker).round_trips.observe(latency);
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.load.lane(self.worker).in_flight.subtract(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    const ONE: WorkerId = WorkerId(0);
    const TWO: WorkerId = WorkerId(1);

    fn load() -> NodeLoad {
        NodeLoad::new(Metrics::new(2).unwrap().node("main", "a"))
    }

    #[test]
    fn latency_jumps_to_a_peak_and_fades_from_it() {
        let load = load();
        let ms = Duration::from_millis;
        let t0 = load.born;
        assert_eq!(load.latency(t0), Duration::ZERO);
        load.observe(ONE, t0, ms(2));
        assert_eq!(load.latency(t0), ms(2));
        load.observe(TWO, t0 + ms(1), ms(50));
        assert_eq!(load.latency(t0 + ms(1)), ms(50), "a peak counts at once");
        load.observe(TWO, t0 + ms(2), ms(2));
        assert!(load.latency(t0 + ms(2)) > ms(49), "one good answer does not forget it");
        let busy = t0 + ms(10_000);
        (3..=10_000).for_each(|at| load.observe(TWO, t0 + ms(at), ms(2)));
        assert!(load.latency(busy) > ms(17) && load.latency(busy) < ms(20), "{:?}", load.latency(busy));
        assert!(load.latency(busy + FADES_IN) < ms(1), "a node without traffic gets its chance again");
    }

    #[test]
    fn a_guard_counts_down_and_only_an_answer_is_a_latency() {
        let load = load();
        let now = load.born;
        let (one, two) = (load.begin(ONE, now), load.begin(TWO, now));
        assert_eq!(load.in_flight(), 2);
        drop(one);
        assert_eq!(load.in_flight(), 1);
        assert_eq!(load.latency(now), Duration::ZERO);
        two.answered(now + Duration::from_millis(3));
        assert_eq!(load.in_flight(), 0);
        assert_eq!(load.latency(now + Duration::from_millis(3)), Duration::from_millis(3));
    }

    #[test]
    fn a_longer_queue_costs_more() {
        let (idle, busy) = (load(), load());
        let now = Instant::now();
        let _queue = (busy.begin(ONE, now), busy.begin(TWO, now));
        assert!(busy.cost(now) > idle.cost(now));
        idle.observe(ONE, now, Duration::from_secs(1));
        assert!(busy.cost(now) < idle.cost(now));
    }
}
