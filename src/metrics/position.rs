//! What is counted of positions: questions to the primary, waits for replicas, nudges, forks.

use std::fmt;
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

use super::labels::WaitOutcome;
use super::maker::{LATENCY_BUCKETS, Maker};

/// The families; a cluster's handles are taken from them once.
pub(super) struct PositionFamilies {
    question_seconds: HistogramVec,
    question_failures: IntCounterVec,
    waiters: IntCounterVec,
    replay_wait_seconds: HistogramVec,
    nudges: IntCounterVec,
    forks: IntCounterVec,
    lost_writes: IntCounterVec,
}

impl PositionFamilies {
    pub(super) fn new(maker: &Maker<'_>) -> prometheus::Result<Self> {
        const CLUSTER: &[&str] = &["cluster"];
        Ok(Self {
            question_seconds: maker.histograms(
                "causeway_position_question_seconds",
                "From asking the primary for its position until the answer or the failure.",
                CLUSTER,
                &LATENCY_BUCKETS,
            )?,
            question_failures: maker.counters(
                "causeway_position_question_failures_total",
                "Questions for the primary's position that it did not answer as the primary.",
                CLUSTER,
            )?,
            waiters: maker.counters(
                "causeway_position_waiters_total",
                "Sessions that a question for the primary's position answered.",
                CLUSTER,
            )?,
            replay_wait_seconds: maker.histograms(
                "causeway_replay_wait_seconds",
                "How long sessions waited for replicas to replay a position, by outcome.",
                &["cluster", "outcome"],
                &LATENCY_BUCKETS,
            )?,
            nudges: maker.counters(
                "causeway_nudges_total",
                "Commits of ours that made the primary flush what somebody waited for.",
                CLUSTER,
            )?,
            forks: maker.counters(
                "causeway_forks_total",
                "New timelines accepted, by whether it is known where the one before was left.",
                &["cluster", "point"],
            )?,
            lost_writes: maker.counters(
                "causeway_lost_writes_total",
                "Sessions told that what they had seen or written was lost in a failover.",
                CLUSTER,
            )?,
        })
    }

    pub(super) fn cluster(&self, cluster: &str) -> PositionMetrics {
        let labels = &[cluster];
        let fork = |point: &str| self.forks.with_label_values(&[cluster, point]);
        PositionMetrics {
            question_seconds: self.question_seconds.with_label_values(labels),
            question_failures: self.question_failures.with_label_values(labels),
            waiters: self.waiters.with_label_values(labels),
            replay_wait_seconds: WaitOutcome::ALL
                .map(|outcome| self.replay_wait_seconds.with_label_values(&[cluster, outcome.as_str()])),
            nudges: self.nudges.with_label_values(labels),
            known_forks: fork("known"),
            unknown_forks: fork("unknown"),
            lost_writes: self.lost_writes.with_label_values(labels),
        }
    }
}

/// The handles of one cluster.
pub struct PositionMetrics {
    question_seconds: Histogram,
    question_failures: IntCounter,
    waiters: IntCounter,
    /// In the order of [`WaitOutcome::ALL`].
    replay_wait_seconds: [Histogram; WaitOutcome::ALL.len()],
    nudges: IntCounter,
    known_forks: IntCounter,
    unknown_forks: IntCounter,
    /// Counted by the session that tells its client.
    pub lost_writes: IntCounter,
}

impl PositionMetrics {
    /// A question to the primary took `elapsed` and served so many waiters.
    pub fn answered(&self, elapsed: Duration, ok: bool, waiters: usize) {
        self.question_seconds.observe(elapsed.as_secs_f64());
        self.question_failures.inc_by(u64::from(!ok));
        self.waiters.inc_by(waiters as u64);
    }

    pub fn replay_wait(&self, outcome: WaitOutcome, elapsed: Duration) {
        let [met, timed_out, no_answer] = &self.replay_wait_seconds;
        let seconds = match outcome {
            WaitOutcome::Met => met,
            WaitOutcome::TimedOut => timed_out,
            WaitOutcome::NoAnswer => no_answer,
        };
        seconds.observe(elapsed.as_secs_f64());
    }

    pub fn nudged(&self) {
        self.nudges.inc();
    }

    pub fn forked(&self, known: bool) {
        if known { &self.known_forks } else { &self.unknown_forks }.inc();
    }
}

impl fmt::Debug for PositionMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PositionMetrics").finish_non_exhaustive()
    }
}
