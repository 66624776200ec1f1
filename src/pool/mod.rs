//! Servers to one node for one (database, user), lent to sessions one at a time.
//!
//! A pool is one for the whole process: its limit and the order of its waiters are global (`queue`). Idle servers are
//! kept per worker (`shelf`), because a server works best on the thread whose reactor knows its socket; it moves only
//! when a waiter elsewhere is next in line, or when the pool may not grow. So a lease from a worker's own shelf touches
//! no memory that other workers write.
//!
//! A [`Lease`] that is dropped closes its server; only [`Lease::release`] gives it back. So a server in an unknown
//! state is never reused by mistake.

mod ceiling;
mod lease;
mod queue;
mod refusal;
pub mod set;
mod shelf;
mod waiting;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::ceiling::Ceiling;
use self::ceiling::Ceilings;
use self::lease::Turn;
pub use self::lease::{Lease, Place};
use self::queue::{Line, Queue};
use self::refusal::Refusals;
use self::shelf::{Shelf, Verdict};
pub use self::waiting::Waiting;
use crate::error::Error;
use crate::metrics::PoolMetrics;
use crate::types::WorkerId;

/// What a pool must know about the servers that it keeps.
pub trait Pooled: Send + Sized + 'static {
    /// Nothing has arrived since it was released, and the peer has not closed.
    fn is_quiet(&mut self) -> bool;
    /// Registers the socket with the current worker's reactor.
    fn rehome(self) -> io::Result<Self>;
    fn connected_at(&self) -> Instant;
    /// Its node is not there any more.
    fn is_stray(&self) -> bool;
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub size: usize,
    pub min_size: usize,
    /// Zero: no limit.
    pub idle_timeout: Duration,
    /// Zero: no limit.
    pub lifetime: Duration,
    pub wait_timeout: Duration,
    /// How long a refused login is not tried again. Zero: it is at once.
    pub login_retry: Duration,
    /// Zero: no limit.
    pub max_waiting: usize,
    /// Servers of all pools of the same node and database. Zero: no limit.
    pub most_of_database: usize,
    /// Servers of all pools of the same node and user. Zero: no limit.
    pub most_of_user: usize,
}

/// What all workers share of a pool.
#[derive(Debug)]
struct Core<S: Pooled> {
    /// For messages: `node "a", database "app", user "app"`.
    name: String,
    limits: Limits,
    queue: Queue<Turn<S>>,
    refusals: Refusals,
    ceilings: Ceilings<S>,
    metrics: Arc<PoolMetrics>,
}

#[derive(Debug)]
pub struct Pool<S: Pooled> {
    core: Arc<Core<S>>,
    /// By worker.
    shelves: Box<[Arc<Shelf<S>>]>,
}

/// Why a server was closed: a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Close {
    IdleTimeout,
    Lifetime,
    /// It closed, or said something, while it was idle.
    NotQuiet,
    /// It was lost while it worked, or broke the protocol.
    Lost,
    /// Its client left in the middle of a statement.
    Abandoned,
    /// A cancel request may still be under way to it.
    Cancelled,
    /// It could not be cleaned.
    Unclean,
    /// Its node is not the primary any more, and does not follow it.
    Fenced,
    /// Its node's host name has left the address that it is connected to.
    Moved,
    /// A client of another pool needs its place under `max_db_connections` or `max_user_connections`.
    MadeRoom,
    /// Its database is to be dropped, renamed or copied, for which nobody may be connected to it.
    Database,
}

impl Close {
    fn as_str(self) -> &'static str {
        match self {
            Self::IdleTimeout => "idle_timeout",
            Self::Lifetime => "lifetime",
            Self::NotQuiet => "not_quiet",
            Self::Lost => "lost",
            Self::Abandoned => "abandoned",
            Self::Cancelled => "cancelled",
            Self::Unclean => "unclean",
            Self::Fenced => "fenced",
            Self::Moved => "moved",
            Self::MadeRoom => "made_room",
            Self::Database => "database",
        }
    }
}

/// Servers by what they are doing, and the clients that wait for one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    pub idle: usize,
    /// Being connected.
    pub connecting: usize,
    pub lent: usize,
    pub waiting: usize,
    /// Since when the first of these waits.
    pub oldest_wait: Option<Instant>,
}

/// What a session may do now.
#[derive(Debug)]
pub enum Attempt<S: Pooled> {
    Server(Lease<S>),
    /// The pool may grow: connect, then [`Place::fill`].
    Connect(Place<S>),
    Wait(Waiting<S>),
    /// As many wait already as may.
    Full,
}

impl<S: Pooled> Pool<S> {
    /// `ceilings`: what it shares with other pools of its node.
    pub fn new(
        name: String,
        workers: usize,
        limits: Limits,
        ceilings: Box<[Arc<Ceiling<S>>]>,
        metrics: Arc<PoolMetrics>,
    ) -> Arc<Self> {
        let queue = Queue::new(limits.size, limits.max_waiting, workers.max(1));
        let core = Arc::new(Core {
            name,
            limits,
            queue,
            ceilings: Ceilings(ceilings),
            refusals: Refusals::default(),
            metrics,
        });
        let shelves =
            (0..workers.max(1)).map(|worker| Arc::new(Shelf::new(Arc::clone(&core), WorkerId(worker)))).collect();
        let pool = Arc::new(Self { core, shelves });
        pool.join_ceilings();
        pool
    }

    pub fn name(&self) -> &str {
        &self.core.name
    }

    pub fn metrics(&self) -> &PoolMetrics {
        &self.core.metrics
    }

    fn own(&self, worker: WorkerId) -> &Arc<Shelf<S>> {
        &self.shelves[worker.0 % self.shelves.len()]
    }

    /// A server without waiting, the right to connect one, or a place in the queue.
    pub fn attempt(self: &Arc<Self>, worker: WorkerId) -> Attempt<S> {
        if let Some(lease) = self.take_own(worker, |_| true) {
            return Attempt::Server(lease);
        }
        if self.core.grow() {
            return Attempt::Connect(Place::new(self.own(worker)));
        }
        if let Some(lease) = self.take_foreign(worker, |_| true) {
            return Attempt::Server(lease);
        }
        let receiver = match self.core.queue.grow_or_wait(worker, || self.core.ceilings.take()) {
            Line::Grows => return Attempt::Connect(Place::new(self.own(worker))),
            Line::Full => return Attempt::Full,
            Line::Waits(receiver) => receiver,
        };
        let waiting = Waiting::new(Arc::clone(self), receiver);
        // Whoever puts a server on a shelf from now on sees that somebody waits; what was put there before is found here.
        if let Some(lease) = self.take_own(worker, |_| true).or_else(|| self.take_foreign(worker, |_| true)) {
            return Attempt::Server(lease);
        }
        self.press();
        Attempt::Wait(waiting)
    }

    /// The same, with a preference among the idle servers; `or_grow`: a new one is better than one that does not fit.
    pub fn attempt_fitting(self: &Arc<Self>, worker: WorkerId, or_grow: bool, fits: impl Fn(&S) -> bool) -> Attempt<S> {
        match self.take_own(worker, &fits).or_else(|| self.take_foreign(worker, &fits)) {
            Some(lease) => Attempt::Server(lease),
            None if or_grow && self.core.grow() => Attempt::Connect(Place::new(self.own(worker))),
            None => self.attempt(worker),
        }
    }

    fn take_own(&self, worker: WorkerId, fits: impl Fn(&S) -> bool) -> Option<Lease<S>> {
        loop {
            let lease = Shelf::take(self.own(worker), &fits)?;
            if let Some(lease) = lease.if_quiet() {
                return Some(lease);
            }
        }
    }

    fn take_foreign(&self, worker: WorkerId, fits: impl Fn(&S) -> bool) -> Option<Lease<S>> {
        let own = self.own(worker);
        for shelf in self.shelves.iter().filter(|shelf| !Arc::ptr_eq(shelf, own)) {
            while let Some(lease) = Shelf::take(shelf, &fits) {
                if let Some(lease) = lease.if_quiet().and_then(|lease| lease.rehome_to(own)) {
                    return Some(lease);
                }
            }
        }
        None
    }

    /// Idle servers of `worker` that have been idle or alive for too long; the caller closes them.
    pub fn expired(&self, worker: WorkerId, now: Instant) -> Vec<(Lease<S>, Close)> {
        let over = |since: Instant, limit: Duration| !limit.is_zero() && now.saturating_duration_since(since) >= limit;
        let limits = self.core.limits;
        let spare = self.core.queue.servers().saturating_sub(limits.min_size);
        Shelf::take_where(self.own(worker), spare, |server, idle_since| {
            if server.is_stray() {
                Verdict::Close(Close::Moved)
            } else if over(server.connected_at(), limits.lifetime) {
                Verdict::Close(Close::Lifetime)
            } else if over(idle_since, limits.idle_timeout) {
                Verdict::CloseUnlessNeeded(Close::IdleTimeout)
            } else {
                Verdict::Keep
            }
        })
    }

    /// Idle servers of all workers, to be closed.
    pub fn take_idle(self: &Arc<Self>) -> Vec<Lease<S>> {
        std::iter::from_fn(|| self.take_any_idle()).collect()
    }

    fn take_any_idle(&self) -> Option<Lease<S>> {
        self.shelves.iter().find_map(|shelf| Shelf::take(shelf, |_| true))
    }

    /// The right of a worker to connect one more server when there are fewer than `min_pool_size`.
    pub fn below_minimum(&self, worker: WorkerId) -> Option<Place<S>> {
        self.core
            .queue
            .grow_below(self.core.limits.min_size, || self.core.ceilings.take())
            .then(|| Place::new(self.own(worker)))
    }

    /// How the pool stands at one moment. Whoever takes a server after this call sees what its caller wrote before.
    pub fn census(&self) -> Census {
        let (idle, counts) = Shelf::count(&self.shelves, || self.core.queue.counts());
        Census {
            idle,
            connecting: counts.connecting,
            lent: counts.taken.saturating_sub(idle + counts.connecting),
            waiting: counts.waiting,
            oldest_wait: counts.oldest,
        }
    }

    /// The node did not let somebody in, who still has the place for it. Others are told the same for `login_retry`,
    /// without asking the node. If the node is full, the pool does not grow meanwhile as long as it has servers.
    fn note_refusal(&self, error: &Error, now: Instant) {
        self.core.refusals.note(error, now, self.core.limits.login_retry);
        if refusal::is_full(error) && !self.core.refusals.is_over(now) {
            self.core.queue.stop_growing();
        }
    }

    /// Whoever has got this error for a place of this pool waits for a server instead: there are some, and the node takes
    /// no more of them for now.
    fn should_wait(&self, error: &Error, now: Instant) -> bool {
        refusal::is_full(error) && self.core.queue.servers() > 0 && !self.core.refusals.is_over(now)
    }

    /// Lets those who wait for a place connect, when the last refusal is over.
    pub fn resume(&self, worker: WorkerId, now: Instant) {
        if !self.core.refusals.is_over(now) {
            return;
        }
        while let Some(waiter) = self.core.queue.resume(worker) {
            // Whoever has left gives the place back by dropping it.
            drop(waiter.send(Turn::Connect(Place::new(self.own(worker)))));
        }
    }

    /// Nothing is idle, lent or awaited.
    pub fn is_unused(&self) -> bool {
        self.core.queue.is_unused()
    }
}

impl<S: Pooled> Core<S> {
    /// True: one place is taken for the caller, who connects.
    fn grow(&self) -> bool {
        self.queue.grow_below(usize::MAX, || self.ceilings.take())
    }

    fn lifetime_is_over(&self, server: &S, now: Instant) -> bool {
        let limit = self.limits.lifetime;
        !limit.is_zero() && now.saturating_duration_since(server.connected_at()) >= limit
    }
}

#[cfg(test)]
mod ceiling_tests;
#[cfg(test)]
mod tests;
