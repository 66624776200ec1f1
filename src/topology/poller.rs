//! Waits for replicas to replay a position: each replica is polled only while somebody waits for it, for all at once.
//!
//! PostgreSQL before 19 cannot be told to say when it has replayed something, so there is nothing but to ask again
//! and again. A replica usually is half a millisecond behind: the first polls follow closely, and the longer it does
//! not move, the longer the pauses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::Shared;
use super::progress::PositionSample;
use super::question::Line;
use crate::metrics::WaitOutcome;
use crate::net::timers::Timers;
use crate::types::{Lsn, NodeId, Position};

const SHORTEST_PAUSE: Duration = Duration::from_micros(300);
const LONGEST_PAUSE: Duration = Duration::from_millis(5);
/// Whoever still waits after this long for what the primary has not flushed makes it flush.
const NUDGE_AFTER: Duration = Duration::from_millis(2);

/// Those who wait for replicas.
#[derive(Debug)]
pub(super) struct Poller {
    waiters: Mutex<Vec<Waiter>>,
    /// By node: somebody waits for it.
    wanted: Box<[Notify]>,
}

#[derive(Debug)]
struct Waiter {
    wanted: Wanted,
    began: Instant,
    /// Those that may still answer.
    nodes: Vec<NodeId>,
    answer: oneshot::Sender<NodeId>,
}

/// What a sample has to show.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    Replayed(Position),
    /// Whatever the node says when it is asked at this instant or later.
    News(Instant),
}

impl Poller {
    pub(super) fn new(nodes: usize) -> Self {
        Self { waiters: Mutex::default(), wanted: (0..nodes).map(|_| Notify::new()).collect() }
    }

    /// The first of `nodes` to say that it has replayed `position`, in an answer that comes from now on. `None`: time
    /// is over, or none of them answers. Cancel safe.
    async fn wait(&self, wanted: Wanted, nodes: &[NodeId], until: tokio::time::Instant, timers: &Timers) -> Waited {
        if nodes.is_empty() {
            return Waited::NoAnswer;
        }
        let (answer, answered) = oneshot::channel();
        self.waiters.lock().push(Waiter { wanted, began: Instant::now(), nodes: nodes.to_vec(), answer });
        for id in nodes {
            if let Some(wanted) = self.wanted.get(id.index()) {
                wanted.notify_one();
            }
        }
        match timers.timeout_at(until, answered).await {
            Ok(Ok(id)) => Waited::Met(id),
            Ok(Err(_)) => Waited::NoAnswer,
            Err(_) => Waited::TooLong,
        }
    }

    fn is_wanted(&self, id: NodeId) -> bool {
        let mut waiters = self.waiters.lock();
        waiters.retain(|waiter| !waiter.answer.is_closed());
        waiters.iter().any(|waiter| waiter.nodes.contains(&id))
    }

    /// Tells all whose wish the sample meets. Gives the furthest position among those who have waited for so long
    /// that the primary may have to be nudged.
    fn reply(&self, id: NodeId, sample: &PositionSample, state: &Shared) -> Option<Position> {
        let view = state.view.load();
        let (met, impatient) = {
            let mut waiters = self.waiters.lock();
            let met: Vec<Waiter> = waiters
                .extract_if(.., |waiter| {
                    waiter.nodes.contains(&id)
                        && match waiter.wanted {
                            Wanted::Replayed(position) => sample.has(position, &view.history),
                            Wanted::News(since) => sample.sent_at >= since,
                        }
                })
                .collect();
            let waiting = waiters.iter().filter(|waiter| waiter.began.elapsed() >= NUDGE_AFTER);
            let positions = waiting.filter_map(|waiter| match waiter.wanted {
                Wanted::Replayed(position) => Some(position),
                Wanted::News(_) => None,
            });
            (met, positions.max_by_key(|position| (position.timeline, position.lsn)))
        };
        for waiter in met {
            // Whoever is gone needs no answer.
            let _ = waiter.answer.send(id);
        }
        impatient
    }

    /// The node does not answer: nobody waits for it any more, and who waits for no other hears so.
    fn give_up(&self, id: NodeId) {
        self.waiters.lock().retain_mut(|waiter| {
            waiter.nodes.retain(|&node| node != id);
            !waiter.nodes.is_empty()
        });
    }
}

enum Waited {
    Met(NodeId),
    TooLong,
    NoAnswer,
}

impl Shared {
    /// See [`super::Topology::wait_for_replay`].
    pub(super) async fn wait_for_replay(
        &self,
        wanted: Position,
        nodes: &[NodeId],
        until: tokio::time::Instant,
    ) -> Option<NodeId> {
        let began = Instant::now();
        let waited = self.poller.wait(Wanted::Replayed(wanted), nodes, until, &self.timers).await;
        let (outcome, id) = match waited {
            Waited::Met(id) => (WaitOutcome::Met, Some(id)),
            Waited::TooLong => (WaitOutcome::TimedOut, None),
            Waited::NoAnswer => (WaitOutcome::NoAnswer, None),
        };
        self.positions.replay_wait(outcome, began.elapsed());
        id
    }

    /// Polls each of the nodes once, shared with all others who wait for them, and publishes what each answers.
    pub(super) async fn poll_once(&self, nodes: &[NodeId], until: tokio::time::Instant) {
        let since = Instant::now();
        let polls = nodes.iter().map(async |&id| {
            if let Waited::Met(_) = self.poller.wait(Wanted::News(since), &[id], until, &self.timers).await {
                self.publish_news(Instant::now());
            }
        });
        futures_util::future::join_all(polls).await;
    }
}

/// Polls a node for as long as somebody waits for it.
pub(super) async fn keep_polling(state: Arc<Shared>, id: NodeId, mut line: Line) {
    let Some(wanted) = state.poller.wanted.get(id.index()) else { return };
    let mut last: Option<Lsn> = None;
    let (mut pause, mut polled_at) = (Duration::ZERO, Instant::now());
    loop {
        wanted.notified().await;
        if polled_at.elapsed() > LONGEST_PAUSE {
            pause = Duration::ZERO;
        }
        while state.poller.is_wanted(id) {
            rest(pause.saturating_sub(polled_at.elapsed())).await;
            polled_at = Instant::now();
            match line.ask_replica().await {
                Ok(sample) => {
                    state.count_poll(id);
                    let sample = state.observe(id, sample);
                    let impatient = state.poller.reply(id, &sample, &state);
                    let nudged = impatient.is_some_and(|position| state.nudger.ask_for(position));
                    let moved = last.replace(sample.position.lsn) != Some(sample.position.lsn);
                    let longer = if moved || nudged { SHORTEST_PAUSE } else { pause * 2 };
                    pause = longer.clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
                }
                Err(error) => {
                    tracing::debug!(cluster = state.cluster, node = id.0, %error, "a replica did not tell its position");
                    state.poller.give_up(id);
                    state.probe_now(id);
                    pause = LONGEST_PAUSE;
                }
            }
        }
    }
}

/// Timers of tokio tick in milliseconds, which is longer than most replicas are behind; threads sleep more exactly.
async fn rest(pause: Duration) {
    if pause >= Duration::from_millis(2) {
        tokio::time::sleep(pause).await;
    } else if !pause.is_zero() {
        // It can only fail when the runtime shuts down, and this task with it.
        let _ = tokio::task::spawn_blocking(move || std::thread::sleep(pause)).await;
    }
}
