//! A lent server, and the place in the pool that it fills.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Instant;

use super::{Close, Pool, Pooled};
use crate::metrics::GaugeGuard;
use crate::types::WorkerId;

/// The right to one server of a pool. Dropping it frees the place.
#[derive(Debug)]
pub struct Place<S: Pooled> {
    /// `None` once the place stays with a parked server.
    pool: Option<Arc<Pool<S>>>,
}

impl<S: Pooled> Place<S> {
    pub(super) fn new(pool: Arc<Pool<S>>) -> Self {
        Self { pool: Some(pool) }
    }

    pub fn fill(self, server: S, worker: WorkerId) -> Lease<S> {
        let counted = self.pool.as_ref().map(|pool| pool.metrics.active_server());
        Lease { held: Some((server, self)), worker, _counted: counted }
    }

    /// The server is parked: its place stays taken.
    pub(super) fn keep(mut self) {
        self.pool = None;
    }
}

impl<S: Pooled> Drop for Place<S> {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.free();
        }
    }
}

/// A server lent to a session. Dropping it closes the server.
#[derive(Debug)]
pub struct Lease<S: Pooled> {
    /// `None` only while `release` or `rehome_to` takes it apart.
    held: Option<(S, Place<S>)>,
    worker: WorkerId,
    _counted: Option<GaugeGuard>,
}

impl<S: Pooled> Lease<S> {
    /// Gives a clean server back: to the first waiter, or to the idle ones.
    pub fn release(mut self, now: Instant) {
        let Some((server, place)) = self.held.take() else { return };
        let Some(pool) = place.pool.clone() else { return };
        if pool.lifetime_is_over(&server, now) {
            pool.metrics.closed(Close::Lifetime.as_str());
        } else {
            pool.give_back(server, self.worker, now, place);
        }
    }

    /// Closes the server, and counts why.
    pub fn close(self, reason: Close) {
        if let Some(pool) = self.held.as_ref().and_then(|(_, place)| place.pool.as_ref()) {
            pool.metrics.closed(reason.as_str());
        }
    }

    /// `None`: the socket could not move, and the server is closed.
    pub(super) fn rehome_to(mut self, worker: WorkerId) -> Option<Self> {
        if worker == self.worker {
            return Some(self);
        }
        let (server, place) = self.held.take()?;
        let server = server.rehome().ok()?;
        Some(place.fill(server, worker))
    }
}

#[expect(clippy::expect_used, reason = "a lease holds its server until it is consumed")]
impl<S: Pooled> Deref for Lease<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.held.as_ref().expect("the lease holds its server").0
    }
}

#[expect(clippy::expect_used, reason = "a lease holds its server until it is consumed")]
impl<S: Pooled> DerefMut for Lease<S> {
    fn deref_mut(&mut self) -> &mut S {
        &mut self.held.as_mut().expect("the lease holds its server").0
    }
}
