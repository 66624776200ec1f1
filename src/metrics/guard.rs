//! Gauges that go down by themselves: the guard travels inside the value whose life it measures.

use std::time::Instant;

use prometheus::{Histogram, IntCounter, IntGauge};

/// One more, for as long as this lives.
#[derive(Debug)]
#[must_use = "the gauge goes down when this is dropped"]
pub struct GaugeGuard(IntGauge);

impl GaugeGuard {
    pub fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A client that waits in a pool's queue. However the wait ends, its length is observed.
#[derive(Debug)]
#[must_use = "the client counts as waiting until this is dropped"]
pub struct WaitGuard {
    since: Instant,
    seconds: Histogram,
    timeouts: IntCounter,
    _waiting: GaugeGuard,
}

impl WaitGuard {
    pub(super) fn new(waiting: &IntGauge, seconds: &Histogram, timeouts: &IntCounter) -> Self {
        Self {
            since: Instant::now(),
            seconds: seconds.clone(),
            timeouts: timeouts.clone(),
            _waiting: GaugeGuard::new(waiting),
        }
    }

    /// The wait ended because `query_wait_timeout` passed.
    pub fn timed_out(self) {
        self.timeouts.inc();
    }
}

impl Drop for WaitGuard {
    fn drop(&mut self) {
        self.seconds.observe(self.since.elapsed().as_secs_f64());
    }
}
