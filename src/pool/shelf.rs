//! The idle servers of one worker. Only that worker touches them, as long as the pool may grow and nobody waits.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::lease::Turn;
use super::{Close, Core, Lease, Pooled};
use crate::types::WorkerId;

#[derive(Debug)]
pub(super) struct Shelf<S: Pooled> {
    pub(super) core: Arc<Core<S>>,
    pub(super) worker: WorkerId,
    idle: Mutex<Vec<Idle<S>>>,
}

/// A server is in a box, so that to lend it moves a pointer.
#[derive(Debug)]
struct Idle<S> {
    server: Box<S>,
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    Close(Close),
    /// Closed as long as the minimum stays.
    CloseUnlessNeeded(Close),
}

impl<S: Pooled> Shelf<S> {
    pub(super) fn new(core: Arc<Core<S>>, worker: WorkerId) -> Self {
        Self { core, worker, idle: Mutex::default() }
    }

    /// To be called under the lock.
    fn show(&self, idle: &[Idle<S>]) {
        self.core.metrics.show_idle(self.worker, idle.len());
    }

    /// The servers on all of these shelves at one moment, and what `then` gives while none can come or go.
    pub(super) fn count<T>(shelves: &[Arc<Self>], then: impl FnOnce() -> T) -> (usize, T) {
        let locked: Vec<_> = shelves.iter().map(|shelf| shelf.idle.lock()).collect();
        (locked.iter().map(|idle| idle.len()).sum(), then())
    }

    /// The server that fits and was released last: its caches are warm, and the others can expire.
    pub(super) fn take(shelf: &Arc<Self>, fits: impl Fn(&S) -> bool) -> Option<Lease<S>> {
        let mut idle = shelf.idle.lock();
        let at = idle.iter().rposition(|idle| fits(&idle.server))?;
        let server = idle.remove(at).server;
        shelf.show(&idle);
        drop(idle);
        Some(Lease::new(server, Arc::clone(shelf)))
    }

    /// Takes servers out by what `judge` says of each and of when it was released, `spare` at most of those that are
    /// closed unless needed.
    pub(super) fn take_where(
        shelf: &Arc<Self>,
        mut spare: usize,
        mut judge: impl FnMut(&S, Instant) -> Verdict,
    ) -> Vec<(Lease<S>, Close)> {
        let mut is_over = |idle: &mut Idle<S>| {
            let reason = match judge(&idle.server, idle.since) {
                Verdict::Keep => return None,
                Verdict::CloseUnlessNeeded(_) if spare == 0 => return None,
                Verdict::Close(reason) | Verdict::CloseUnlessNeeded(reason) => reason,
            };
            spare = spare.saturating_sub(1);
            Some(reason)
        };
        let mut idle = shelf.idle.lock();
        let mut taken = Vec::new();
        for mut one in std::mem::take(&mut *idle) {
            match is_over(&mut one) {
                None => idle.push(one),
                Some(reason) => taken.push((Lease::new(one.server, Arc::clone(shelf)), reason)),
            }
        }
        shelf.show(&idle);
        taken
    }

    fn keep(&self, server: Idle<S>) {
        let mut idle = self.idle.lock();
        idle.push(server);
        self.show(&idle);
    }

    fn pop(&self) -> Option<Idle<S>> {
        let mut idle = self.idle.lock();
        let last = idle.pop();
        self.show(&idle);
        last
    }

    fn make_room(shelf: &Arc<Self>) {
        if let Some(idle) = shelf.pop() {
            Lease::new(idle.server, Arc::clone(shelf)).close(Close::MadeRoom);
        }
    }

    /// Gives a server to the first waiter, or keeps it.
    pub(super) fn put(shelf: &Arc<Self>, mut server: Box<S>, now: Instant) {
        let (queue, ceilings) = (&shelf.core.queue, &shelf.core.ceilings);
        loop {
            if !queue.has_waiters() {
                shelf.keep(Idle { server, since: now });
                // Whoever came in between may have looked here too early.
                if ceilings.wants_place(&shelf.core, true) {
                    return Self::make_room(shelf);
                }
                if !queue.has_waiters() {
                    return;
                }
                match shelf.pop() {
                    Some(idle) => server = idle.server,
                    None => return,
                }
            }
            if ceilings.wants_place(&shelf.core, false) {
                return Lease::new(server, Arc::clone(shelf)).close(Close::MadeRoom);
            }
            let Some(waiter) = queue.next_waiter(shelf.worker) else { continue };
            match waiter.send(Turn::Server(Lease::new(server, Arc::clone(shelf)))) {
                // It left at this moment.
                Err(Turn::Server(lease)) => match lease.into_server() {
                    Some(back) => server = back,
                    None => return,
                },
                Ok(()) | Err(Turn::Connect(_)) => return,
            }
        }
    }
}
