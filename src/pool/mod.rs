//! Servers to one node for one (database, user), lent to sessions one at a time.
//!
//! A pool is one for the whole process: its limit and the order of its waiters are global. Idle servers are kept per
//! worker, because a server works best on the thread whose reactor knows its socket; it moves only when a waiter
//! elsewhere is next in line, or when the pool may not grow.
//!
//! A [`Lease`] that is dropped closes its server; only [`Lease::release`] gives it back. So a server in an unknown
//! state is never reused by mistake.

mod lease;
pub mod set;
mod store;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

pub use self::lease::{Lease, Place};
use self::store::{Next, Store, Verdict};
use crate::error::{Error, Result, sqlstate};
use crate::metrics::{GaugeGuard, PoolMetrics, WaitGuard};
use crate::types::WorkerId;

/// What a pool must know about the servers that it keeps.
pub trait Pooled: Send + Sized + 'static {
    /// Nothing has arrived since it was released, and the peer has not closed.
    fn is_quiet(&mut self) -> bool;
    /// Registers the socket with the current worker's reactor.
    fn rehome(self) -> io::Result<Self>;
    fn connected_at(&self) -> Instant;
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
}

#[derive(Debug)]
pub struct Pool<S: Pooled> {
    /// For messages: `node "a", database "app", user "app"`.
    name: String,
    limits: Limits,
    store: Mutex<Store<Turn<S>, Parked<S>>>,
    metrics: Arc<PoolMetrics>,
}

/// An idle server.
#[derive(Debug)]
struct Parked<S> {
    server: S,
    _counted: GaugeGuard,
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
            Self::Database => "database",
        }
    }
}

/// What a waiter gets when it is its turn.
#[derive(Debug)]
enum Turn<S: Pooled> {
    Server(Lease<S>),
    /// A place became free: the waiter connects.
    Connect(Place<S>),
}

/// What a session may do now.
#[derive(Debug)]
pub enum Attempt<S: Pooled> {
    Server(Lease<S>),
    /// The pool may grow: connect, then [`Place::fill`].
    Connect(Place<S>),
    Wait(Waiting<S>),
}

impl<S: Pooled> Pool<S> {
    pub fn new(name: String, workers: usize, limits: Limits, metrics: Arc<PoolMetrics>) -> Arc<Self> {
        Arc::new(Self { name, limits, store: Mutex::new(Store::new(workers, limits.size)), metrics })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn metrics(&self) -> &PoolMetrics {
        &self.metrics
    }

    /// A server without waiting, the right to connect one, or a place in the queue.
    pub fn attempt(self: &Arc<Self>, worker: WorkerId) -> Attempt<S> {
        self.attempt_by(worker, |store| store.take(worker))
    }

    /// The same, with a preference among the idle servers; `or_grow`: a new one is better than one that does not fit.
    pub fn attempt_fitting(self: &Arc<Self>, worker: WorkerId, or_grow: bool, fits: impl Fn(&S) -> bool) -> Attempt<S> {
        self.attempt_by(worker, |store| store.take_fitting(worker, or_grow, |parked| fits(&parked.server)))
    }

    fn attempt_by(
        self: &Arc<Self>,
        worker: WorkerId,
        take: impl Fn(&mut Store<Turn<S>, Parked<S>>) -> Next<Parked<S>>,
    ) -> Attempt<S> {
        loop {
            let mut store = self.store.lock();
            let (parked, home) = match take(&mut store) {
                Next::Own(parked) => (parked, worker),
                Next::Foreign { parked, home } => (parked, home),
                Next::Grow => return Attempt::Connect(Place::new(Arc::clone(self))),
                // Under the same lock: whatever is released from now on finds this waiter.
                Next::Wait => return Attempt::Wait(self.enqueue(&mut store)),
            };
            drop(store);
            let mut lease = self.lend(parked.server, home);
            if !lease.is_quiet() {
                lease.close(Close::NotQuiet);
            } else if let Some(lease) = lease.rehome_to(worker) {
                return Attempt::Server(lease);
            }
        }
    }

    fn lend(self: &Arc<Self>, server: S, worker: WorkerId) -> Lease<S> {
        Place::new(Arc::clone(self)).fill(server, worker)
    }

    fn enqueue(self: &Arc<Self>, store: &mut Store<Turn<S>, Parked<S>>) -> Waiting<S> {
        let (sender, receiver) = oneshot::channel();
        store.wait(sender);
        Waiting { pool: Arc::clone(self), receiver, counted: Some(self.metrics.waiting_client()) }
    }

    /// Idle servers of `worker` that have been idle or alive for too long; the caller closes them.
    pub fn expired(self: &Arc<Self>, worker: WorkerId, now: Instant) -> Vec<(Lease<S>, Close)> {
        let over = |since: Instant, limit: Duration| !limit.is_zero() && now.saturating_duration_since(since) >= limit;
        let limits = self.limits;
        let servers = self.store.lock().take_idle_where(worker, limits.min_size, |parked, idle_since| {
            if over(parked.server.connected_at(), limits.lifetime) {
                Verdict::Close(Close::Lifetime)
            } else if over(idle_since, limits.idle_timeout) {
                Verdict::CloseUnlessNeeded(Close::IdleTimeout)
            } else {
                Verdict::Keep
            }
        });
        servers.into_iter().map(|(parked, reason)| (self.lend(parked.server, worker), reason)).collect()
    }

    /// Idle servers of all workers, to be closed.
    pub fn take_idle(self: &Arc<Self>) -> Vec<Lease<S>> {
        let parked = self.store.lock().take_idle();
        parked.into_iter().map(|(parked, home)| self.lend(parked.server, home)).collect()
    }

    /// The right to connect one more server when there are fewer than `min_pool_size`.
    pub fn below_minimum(self: &Arc<Self>) -> Option<Place<S>> {
        self.store.lock().grow_below(self.limits.min_size).then(|| Place::new(Arc::clone(self)))
    }

    /// Nothing is idle, lent or awaited.
    pub fn is_unused(&self) -> bool {
        self.store.lock().is_unused()
    }

    pub fn lifetime_is_over(&self, server: &S, now: Instant) -> bool {
        !self.limits.lifetime.is_zero() && now.saturating_duration_since(server.connected_at()) >= self.limits.lifetime
    }

    fn give_back(&self, server: S, worker: WorkerId, now: Instant, place: Place<S>) {
        let mut store = self.store.lock();
        match store.next_waiter() {
            None => {
                store.park(Parked { server, _counted: self.metrics.idle_server() }, worker, now);
                place.keep();
            }
            Some(waiter) => {
                drop(store);
                // A waiter that has gone gives the lease back through `Waiting`'s drop or `send`'s error.
                if let Err(Turn::Server(lease)) = waiter.send(Turn::Server(place.fill(server, worker))) {
                    lease.release(now);
                }
            }
        }
    }

    /// A place is free: the first waiter may connect.
    fn free(self: &Arc<Self>) {
        let waiter = self.store.lock().free();
        if let Some(waiter) = waiter {
            // When the waiter has gone, the place is freed again by the drop of what could not be sent.
            drop(waiter.send(Turn::Connect(Place::new(Arc::clone(self)))));
        }
    }
}

/// A place in a pool's queue. Dropping it leaves the queue; what was already handed over goes to the next in line.
#[derive(Debug)]
pub struct Waiting<S: Pooled> {
    pool: Arc<Pool<S>>,
    receiver: oneshot::Receiver<Turn<S>>,
    counted: Option<WaitGuard>,
}

impl<S: Pooled> Waiting<S> {
    /// Waits for its turn, at most `query_wait_timeout`.
    pub async fn turn(mut self, worker: WorkerId) -> Result<Attempt<S>> {
        let limit = self.pool.limits.wait_timeout;
        let turn = match tokio::time::timeout(limit, &mut self.receiver).await {
            Ok(Ok(turn)) => turn,
            // The sender is dropped only with the pool.
            Ok(Err(_)) => return Err(self.timed_out(limit)),
            Err(_) => {
                if let Some(counted) = self.counted.take() {
                    counted.timed_out();
                }
                return Err(self.timed_out(limit));
            }
        };
        Ok(match turn {
            Turn::Connect(place) => Attempt::Connect(place),
            Turn::Server(lease) => match lease.rehome_to(worker) {
                Some(lease) => Attempt::Server(lease),
                None => self.pool.attempt(worker),
            },
        })
    }

    fn timed_out(&self, limit: Duration) -> Error {
        let message = format!(
            "no server became free within query_wait_timeout ({}) in the pool of {}",
            humantime::format_duration(limit),
            self.pool.name
        );
        Error::new(crate::error::Fault::Limit, sqlstate::TOO_MANY_CONNECTIONS, message)
            .hint("Raise default_pool_size, or shorten the transactions that hold the servers.")
    }
}

impl<S: Pooled> Drop for Waiting<S> {
    fn drop(&mut self) {
        self.receiver.close();
        if let Ok(Turn::Server(lease)) = self.receiver.try_recv() {
            lease.release(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests;
