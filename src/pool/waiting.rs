//! A client's place in the queue of a pool.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::lease::Turn;
use super::{Attempt, Pool, Pooled};
use crate::error::{Error, Fault, Result, sqlstate};
use crate::metrics::WaitGuard;
use crate::net::timers::Timers;
use crate::types::WorkerId;

/// A place in a pool's queue. Dropping it leaves the queue; what was already handed over goes to the next in line.
#[derive(Debug)]
pub struct Waiting<S: Pooled> {
    pool: Arc<Pool<S>>,
    pub(super) receiver: oneshot::Receiver<Turn<S>>,
    counted: Option<WaitGuard>,
}

impl<S: Pooled> Waiting<S> {
    pub(super) fn new(pool: Arc<Pool<S>>, receiver: oneshot::Receiver<Turn<S>>) -> Self {
        let counted = Some(pool.metrics().waiting_client());
        Self { pool, receiver, counted }
    }

    /// Waits for its turn, at most `query_wait_timeout`.
    pub async fn turn(mut self, worker: WorkerId, timers: &Timers) -> Result<Attempt<S>> {
        let limit = self.pool.core.limits.wait_timeout;
        let turn = match timers.timeout(limit, &mut self.receiver).await {
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
            Turn::Connect(place) => Attempt::Connect(place.at(self.pool.own(worker))),
            Turn::Server(lease) => match lease.rehome_to(self.pool.own(worker)) {
                Some(lease) => Attempt::Server(lease),
                None => self.pool.attempt(worker),
            },
        })
    }

    fn timed_out(&self, limit: Duration) -> Error {
        let message = format!(
            "no server became free within query_wait_timeout ({}) in the pool of {}",
            humantime::format_duration(limit),
            self.pool.name()
        );
        Error::new(Fault::Limit, sqlstate::TOO_MANY_CONNECTIONS, message)
            .hint("Raise default_pool_size, or shorten the transactions that hold the servers.")
    }
}

impl<S: Pooled> Pool<S> {
    pub(super) fn too_many_wait(&self) -> Error {
        let message = format!(
            "sorry, too many clients wait for a server already (max_waiting_clients = {}) in the pool of {}",
            self.core.limits.max_waiting,
            self.name()
        );
        Error::new(Fault::Limit, sqlstate::TOO_MANY_CONNECTIONS, message)
            .hint("Try again later; raise default_pool_size, or shorten the transactions that hold the servers.")
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
