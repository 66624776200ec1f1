//! How far one node is: the newest position known of it, whoever asked, and when it will have a position.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::history::{History, Holds};
use super::samples::PrimarySamples;
use crate::types::{Lsn, Position, Role};

/// What one question found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PositionSample {
    /// When the question was sent: what it says is true of a later instant. It counts for a connection to the node
    /// that was there by then; one that was made later may have met the node restarted, and further back.
    pub sent_at: Instant,
    /// The connection that asked is this old, so the node has not restarted between here and the answer.
    pub connected_at: Instant,
    /// A primary's insert position (normalised), a replica's replay position.
    pub position: Position,
    /// What a primary has flushed; `None`: the node is a replica.
    pub flush: Option<Lsn>,
    /// Somebody has paused replay, or asked for it.
    pub paused: bool,
}

impl PositionSample {
    pub fn role(&self) -> Role {
        if self.flush.is_some() { Role::Primary } else { Role::Replica }
    }

    /// Had the node reached `wanted`? A later timeline counts as far as it is known to go on from there.
    pub fn has(&self, wanted: Position, history: &History) -> bool {
        let own = self.position;
        own.system == wanted.system
            && own.lsn >= wanted.lsn
            && (own.timeline == wanted.timeline
                || (history.is_of(own.system, own.timeline) && history.holds(wanted) == Holds::Yes))
    }

    /// Of the same role in the same history.
    fn continues(&self, earlier: &Self) -> bool {
        self.role() == earlier.role()
            && self.position.system == earlier.position.system
            && self.position.timeline == earlier.position.timeline
    }
}

/// Roles and histories of a node that are remembered, so that what was done on it before a failover can be judged.
const MAX_LIVES: usize = 8;
/// Positions of the primary that a replica lacks and that its delay is measured by.
const MAX_MARKS: usize = 64;
/// What the last observation weighs in an estimate.
const WEIGHT: f64 = 0.25;
/// A replica that lacks something and has not moved for this long, and four times its usual delay, is stuck.
const STUCK_AFTER: Duration = Duration::from_millis(250);

/// Shared by all who ask the node and all who wonder how far it is.
#[derive(Debug, Default)]
pub struct Progress(Mutex<State>);

impl Progress {
    /// The newest sample; none after a failure, until the node answers again.
    pub fn latest(&self) -> Option<PositionSample> {
        self.0.lock().latest
    }

    /// A sample that covers all that the node had shown by `since`: sent after it, in the same role and history, and
    /// without a restart in between that could have taken a replica back. Of a primary it has the earliest position that
    /// does.
    pub fn covering(&self, since: Instant) -> Option<PositionSample> {
        let state = self.0.lock();
        state.lives.iter().rev().find(|life| life.began <= since)?.covering(since)
    }

    /// How long from `now` until the node should have replayed `lsn` of its own history; zero when it has, or should
    /// have by now. `None`: not to be expected, because nothing is known of it or it does not move.
    pub fn expected_wait(&self, lsn: Lsn, now: Instant) -> Option<Duration> {
        self.0.lock().expected_wait(lsn, now)
    }

    /// The node answered. An older sample than the one that is known changes nothing.
    pub fn record(&self, sample: PositionSample) {
        self.0.lock().record(sample);
    }

    /// The primary was at `lsn` at `at`, and the node will have to get there.
    pub fn expect(&self, at: Instant, lsn: Lsn) {
        self.0.lock().motion.expect(at, lsn);
    }

    /// The node failed at `at`: it may come back further behind, so nothing sent before counts any more. What a
    /// primary had written by then stays known.
    pub fn forget(&self, at: Instant) {
        let mut state = self.0.lock();
        state.latest = None;
        state.failed_at = Some(at);
        state.motion = Motion::default();
        state.lives.retain(|life| life.last.role() == Role::Primary);
    }
}

#[derive(Debug, Default)]
struct State {
    latest: Option<PositionSample>,
    failed_at: Option<Instant>,
    lives: VecDeque<Life>,
    motion: Motion,
}

/// A time in which the node kept its role and its history.
#[derive(Debug)]
struct Life {
    began: Instant,
    last: PositionSample,
    /// Of a primary, all its positions: what a session has seen there is not more than the first one after.
    shown: PrimarySamples,
}

impl Life {
    fn new(sample: PositionSample) -> Self {
        let mut life = Self { began: sample.sent_at, last: sample, shown: PrimarySamples::default() };
        life.record(sample);
        life
    }

    fn record(&mut self, sample: PositionSample) {
        self.last = sample;
        if let Some(flush) = sample.flush {
            self.shown.push(sample.sent_at, sample.position.lsn, flush);
        }
    }

    fn covering(&self, since: Instant) -> Option<PositionSample> {
        let last = Some(self.last).filter(|last| last.sent_at >= since)?;
        if last.role() == Role::Primary {
            let lsn = self.shown.shown_by(since).unwrap_or(last.position.lsn);
            return Some(PositionSample { position: Position { lsn, ..last.position }, ..last });
        }
        Some(last).filter(|last| last.connected_at <= since)
    }
}

impl State {
    fn record(&mut self, sample: PositionSample) {
        let newest = self.latest.map(|latest| latest.sent_at).max(self.failed_at);
        if newest.is_some_and(|newest| newest > sample.sent_at) {
            return;
        }
        match self.lives.back_mut() {
            Some(life) if sample.continues(&life.last) => life.record(sample),
            _ => {
                if self.lives.len() >= MAX_LIVES {
                    self.lives.pop_front();
                }
                self.lives.push_back(Life::new(sample));
            }
        }
        let before = self.latest.replace(sample);
        match before {
            Some(before) if sample.continues(&before) && sample.position.lsn >= before.position.lsn => {
                self.motion.moved(&before, &sample);
            }
            _ => self.motion = Motion { delay: self.motion.delay, ..Motion::default() },
        }
    }

    fn expected_wait(&self, lsn: Lsn, now: Instant) -> Option<Duration> {
        let latest = self.latest?;
        if latest.position.lsn >= lsn || latest.role() == Role::Primary {
            return Some(Duration::ZERO);
        }
        if latest.paused || self.motion.is_stuck(latest.sent_at) {
            return None;
        }
        Some(self.motion.expected_wait(lsn, &latest, now))
    }
}

/// How a replica follows. Two simple models, and the one that expects more counts: it has what the primary had
/// `delay` ago; and it works off a backlog at `rate`.
#[derive(Debug, Default)]
struct Motion {
    /// What the primary had, and the replica did not have at the last sample; both ascend.
    marks: VecDeque<Mark>,
    /// How long it was seen to lack what it got then.
    delay: Duration,
    /// Bytes per second, while there is a backlog.
    rate: Option<f64>,
    /// It has not moved since, although it lacks something.
    still_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    lsn: Lsn,
}

impl Motion {
    fn expect(&mut self, at: Instant, lsn: Lsn) {
        if self.marks.back().is_some_and(|last| last.lsn >= lsn || last.at >= at) {
            return;
        }
        if self.marks.len() >= MAX_MARKS {
            // The first stays, since when something is lacking is what matters most.
            let mut keep = false;
            self.marks.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.marks.push_back(Mark { at, lsn });
    }

    fn moved(&mut self, before: &PositionSample, now: &PositionSample) {
        let oldest = self.marks.front().copied();
        while self.marks.front().is_some_and(|mark| mark.lsn <= now.position.lsn) {
            self.marks.pop_front();
        }
        let lacking = self.marks.front().is_some_and(|mark| mark.at <= before.sent_at);
        if let Some(got) = oldest.filter(|mark| mark.lsn <= now.position.lsn) {
            // It was certainly lacking at the sample before, and perhaps came right after.
            let lacked = before.sent_at.saturating_duration_since(got.at);
            self.delay = self.delay.mul_f64(1.0 - WEIGHT) + lacked.mul_f64(WEIGHT);
        }
        let bytes = now.position.lsn.bytes_since(before.position.lsn);
        self.still_since = (lacking && bytes == 0).then(|| self.still_since.unwrap_or(before.sent_at));
        let seconds = now.sent_at.saturating_duration_since(before.sent_at).as_secs_f64();
        if !lacking {
            // Without a backlog it moves as fast as the primary writes, which says nothing of what it could.
            self.rate = None;
        } else if seconds > 0.0 && bytes > 0 {
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let rate = bytes as f64 / seconds;
            self.rate = Some(self.rate.map_or(rate, |known| known * (1.0 - WEIGHT) + rate * WEIGHT));
        }
    }

    fn is_stuck(&self, sampled_at: Instant) -> bool {
        self.still_since.is_some_and(|since| sampled_at.saturating_duration_since(since) > STUCK_AFTER + self.delay * 4)
    }

    fn expected_wait(&self, lsn: Lsn, latest: &PositionSample, now: Instant) -> Duration {
        let written_at = self.marks.iter().find(|mark| mark.lsn >= lsn).map_or(now, |mark| mark.at);
        let by_delay = (written_at + self.delay).saturating_duration_since(now);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let gap = lsn.bytes_since(latest.position.lsn) as f64;
        // Longer than a day is as good as never; the division cannot overflow then.
        let backlog = self.rate.map_or(0.0, |rate| (gap / rate.max(1.0)).min(86_400.0));
        let by_rate = Duration::from_secs_f64(backlog).saturating_sub(now.saturating_duration_since(latest.sent_at));
        by_delay.max(by_rate)
    }
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
