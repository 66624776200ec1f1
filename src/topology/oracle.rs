//! Where is the primary now? One question in flight for the cluster, and one answer for all who wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_postgres::error::SqlState;

use super::Shared;
use super::progress::PositionSample;
use super::question::Line;
use crate::net::timers::Timers;
use crate::types::NodeId;

/// Why the position of the primary is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    #[error("there is no primary")]
    NoPrimary,
    /// Two nodes claim to be the primary, by histories that cannot both be true.
    #[error("two nodes claim to be the primary")]
    Alarm,
    /// It answered, but not as the primary that was accepted.
    #[error("the node is no longer the primary")]
    NotPrimary,
    #[error("the primary did not answer within probe.timeout")]
    NoAnswer,
}

type Answer = Result<PositionSample, PositionError>;

/// Those who wait for the next answer. All come from threads of the data plane; each costs a push under a lock and
/// one wake-up, and only the first of them wakes the task that asks.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    waiters: Mutex<Vec<Waiter>>,
    wanted: Notify,
    /// The primary was used since it was asked last.
    used: AtomicBool,
}

#[derive(Debug)]
struct Waiter {
    /// It takes the answer to a question sent at this instant or later.
    since: Instant,
    answer: oneshot::Sender<Answer>,
}

impl Oracle {
    /// Some session has seen what the primary shows now.
    pub(super) fn note_use(&self) {
        // Mostly it is noted already, and a store would take the line from everybody else's cache.
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
    }

    /// Waits for the answer to a question sent at or after `since`. Cancel safe: whoever goes is not answered.
    pub(super) async fn ask(&self, since: Instant, patience: Duration, timers: &Timers) -> Answer {
        let (answer, answered) = oneshot::channel();
        // A question can't be sent in the future.
        let since = since.min(Instant::now());
        let first = {
            let mut waiters = self.waiters.lock();
            waiters.push(Waiter { since, answer });
            waiters.len() == 1
        };
        if first {
            self.wanted.notify_one();
        }
        match timers.timeout(patience, answered).await {
            Ok(Ok(answer)) => answer,
            // The time is over, or the task is: the topology was shut down.
            Ok(Err(_)) | Err(_) => Err(PositionError::NoAnswer),
        }
    }

    /// Does anybody wait? Whoever comes when nobody does wakes the task.
    fn is_wanted(&self) -> bool {
        let mut waiters = self.waiters.lock();
        waiters.retain(|waiter| !waiter.answer.is_closed());
        !waiters.is_empty()
    }

    /// Answers all whose `since` a question sent at `sent_at` meets, and says how many. The others wait on.
    fn reply(&self, sent_at: Instant, answer: Answer) -> usize {
        let met: Vec<Waiter> = {
            let mut waiters = self.waiters.lock();
            waiters.extract_if(.., |waiter| waiter.since <= sent_at).collect()
        };
        // Outside the lock: each wakes another thread.
        met.into_iter().filter_map(|waiter| waiter.answer.send(answer).ok()).count()
    }
}

/// After somebody has used the primary, its position is asked for this soon, whether anybody waits for it or not: what
/// sessions have seen there is then known even if the primary is lost, and their next reads mostly need not ask.
const FRESHEN: Duration = Duration::from_millis(20);

/// Asks the primary now and then while it is used.
pub(super) async fn keep_fresh(state: Arc<Shared>) {
    let mut ticks = tokio::time::interval(FRESHEN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if state.oracle.used.swap(false, Relaxed) {
            // Nobody is told if it fails.
            let _ = state.oracle.ask(Instant::now(), state.patience, &state.timers).await;
        }
    }
}

/// Asks the primary for as long as anybody wants to know.
pub(super) async fn keep_answering(state: Arc<Shared>, mut lines: Box<[Line]>) {
    loop {
        state.oracle.wanted.notified().await;
        while state.oracle.is_wanted() {
            let asked_at = Instant::now();
            let answer = ask(&state, &mut lines).await;
            let sent_at = answer.map_or(asked_at, |sample| sample.sent_at);
            let served = state.oracle.reply(sent_at, answer);
            state.positions.answered(asked_at.elapsed(), answer.is_ok(), served);
        }
    }
}

/// One question to the primary. What it answers is known to everybody before those who wait hear it.
async fn ask(state: &Shared, lines: &mut [Line]) -> Answer {
    let view = state.view.load_full();
    let Some(id) = view.primary else {
        return Err(if view.alarm.is_some() { PositionError::Alarm } else { PositionError::NoPrimary });
    };
    let Some(line) = lines.get_mut(id.index()) else { return Err(PositionError::NoPrimary) };
    match line.ask_primary().await {
        Ok(sample) if is_primary(state, id, &sample) => {
            state.observe(id, sample);
            Ok(sample)
        }
        Ok(_) => {
            state.probe_now(id);
            Err(PositionError::NotPrimary)
        }
        Err(error) => {
            tracing::debug!(cluster = state.cluster, node = id.0, %error, "the primary did not tell its position");
            state.probe_now(id);
            let recovers = error.sqlstate() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
            Err(if recovers { PositionError::NotPrimary } else { PositionError::NoAnswer })
        }
    }
}

/// Is it still the primary, now that it has answered, and of the accepted history?
fn is_primary(state: &Shared, id: NodeId, sample: &PositionSample) -> bool {
    let view = state.view.load();
    view.primary == Some(id) && view.history.is_of(sample.position.system, sample.position.timeline)
}
