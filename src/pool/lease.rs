//! A lent server, and the right to connect one.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Instant;

use super::queue::Freed;
use super::shelf::Shelf;
use super::{Close, Core, Pooled};

/// What a waiter gets when it is its turn.
#[derive(Debug)]
pub(super) enum Turn<S: Pooled> {
    Server(Lease<S>),
    /// A place became free: the waiter connects.
    Connect(Place<S>),
}

/// The right to connect one server. Dropping it frees the place.
#[derive(Debug)]
pub struct Place<S: Pooled> {
    /// `None` once the server is there.
    shelf: Option<Arc<Shelf<S>>>,
}

impl<S: Pooled> Place<S> {
    pub(super) fn new(shelf: &Arc<Shelf<S>>) -> Self {
        Self { shelf: Some(Arc::clone(shelf)) }
    }

    /// On another worker's behalf.
    pub(super) fn at(mut self, shelf: &Arc<Shelf<S>>) -> Self {
        self.shelf = Some(Arc::clone(shelf));
        self
    }

    /// The worker that has the place has connected a server.
    #[expect(clippy::missing_panics_doc, clippy::expect_used, reason = "a place has its shelf until it is consumed")]
    pub fn fill(mut self, server: S) -> Lease<S> {
        let shelf = self.shelf.take().expect("the place has its shelf");
        shelf.core.queue.connected();
        shelf.core.metrics.connected();
        Lease::new(Box::new(server), shelf)
    }
}

impl<S: Pooled> Drop for Place<S> {
    fn drop(&mut self) {
        if let Some(shelf) = self.shelf.take() {
            free(&shelf, Freed::Connecting);
        }
    }
}

/// The first waiter may connect, if there is one, here or under the same ceiling.
fn free<S: Pooled>(shelf: &Arc<Shelf<S>>, freed: Freed) {
    if freed == Freed::Server {
        shelf.core.metrics.disconnected();
    }
    let core = &shelf.core;
    let waiter = if core.ceilings.wants_place(core, false) {
        core.queue.give_up(freed);
        None
    } else {
        core.queue.free(shelf.worker, freed)
    };
    match waiter {
        // When the waiter has gone, the place is freed again by the drop of what could not be sent.
        Some(waiter) => drop(waiter.send(Turn::Connect(Place::new(shelf)))),
        None => core.ceilings.give_back(),
    }
}

/// A server lent to a session. Dropping it closes the server.
#[derive(Debug)]
pub struct Lease<S: Pooled> {
    /// `None` only while it is taken apart.
    held: Option<(Box<S>, Arc<Shelf<S>>)>,
}

impl<S: Pooled> Lease<S> {
    pub(super) fn new(server: Box<S>, shelf: Arc<Shelf<S>>) -> Self {
        Self { held: Some((server, shelf)) }
    }

    fn core(&self) -> Option<&Core<S>> {
        self.held.as_ref().map(|(_, shelf)| &*shelf.core)
    }

    /// Gives a clean server back: to the first waiter, or to the idle ones.
    pub fn release(mut self, now: Instant) {
        if self.core().is_some_and(|core| core.lifetime_is_over(&self, now)) {
            self.close(Close::Lifetime);
        } else if let Some((server, shelf)) = self.held.take() {
            Shelf::put(&shelf, server, now);
        }
    }

    /// Closes the server, and counts why.
    pub fn close(self, reason: Close) {
        if let Some(core) = self.core() {
            core.metrics.closed(reason.as_str());
        }
    }

    /// `None`: it was not quiet, and is closed.
    pub(super) fn if_quiet(mut self) -> Option<Self> {
        if self.is_quiet() {
            return Some(self);
        }
        self.close(Close::NotQuiet);
        None
    }

    /// `None`: the socket could not move, and the server is closed.
    pub(super) fn rehome_to(mut self, shelf: &Arc<Shelf<S>>) -> Option<Self> {
        if self.held.as_ref().is_some_and(|(_, its)| Arc::ptr_eq(its, shelf)) {
            return Some(self);
        }
        let (server, its) = self.held.take()?;
        let moved = server.rehome().ok();
        if moved.is_none() {
            free(&its, Freed::Server);
        }
        moved.map(|server| Self::new(Box::new(server), Arc::clone(shelf)))
    }

    /// The place stays taken.
    pub(super) fn into_server(mut self) -> Option<Box<S>> {
        self.held.take().map(|(server, _)| server)
    }
}

impl<S: Pooled> Drop for Lease<S> {
    fn drop(&mut self) {
        if let Some((server, shelf)) = self.held.take() {
            drop(server);
            free(&shelf, Freed::Server);
        }
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
