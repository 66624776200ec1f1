//! Timers that the control plane keeps for the workers.
//!
//! A runtime that keeps timers looks at the clock and at its timers each time that it goes to sleep: twice per query. The
//! workers need timers only when something is slow, so their runtimes have none.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, Interval, Sleep, Timeout};

/// Makes timers for futures that any runtime may run.
#[derive(Clone, Debug)]
pub struct Timers(Handle);

impl Timers {
    /// Those of a runtime, which must outlive all that use them.
    pub fn of(runtime: &Handle) -> Self {
        Self(runtime.clone())
    }

    /// Those of the runtime that runs this.
    pub fn current() -> Self {
        Self(Handle::current())
    }

    pub fn timeout<F: Future>(&self, limit: Duration, work: F) -> Timeout<F> {
        let _kept_there = self.0.enter();
        tokio::time::timeout(limit, work)
    }

    pub fn timeout_at<F: Future>(&self, deadline: Instant, work: F) -> Timeout<F> {
        let _kept_there = self.0.enter();
        tokio::time::timeout_at(deadline, work)
    }

    pub fn sleep(&self, duration: Duration) -> Sleep {
        let _kept_there = self.0.enter();
        tokio::time::sleep(duration)
    }

    pub fn interval(&self, period: Duration) -> Interval {
        let _kept_there = self.0.enter();
        tokio::time::interval(period)
    }
}
