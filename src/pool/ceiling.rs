//! Limits on servers that several pools of a node share: `max_db_connections` and `max_user_connections`.
//!
//! A pool takes a place under each of its ceilings before it grows. A client whose pool may not grow because of one waits
//! in its pool's line: an idle server elsewhere under that ceiling is closed to make room, and so is one that is given
//! back, if that client has waited for noticeably longer than those in the other pool. Whoever gives up a place hands it
//! to the one who has waited longest.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::lease::{Place, Turn};
use super::{Close, Core, Lease, Pool, Pooled};
use crate::types::WorkerId;

/// A pool goes on with a server for its own clients as long as nobody elsewhere came this much before them: to connect
/// costs much more than to pass on.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Ceiling<S: Pooled> {
    most: usize,
    taken: AtomicUsize,
    pools: Mutex<Vec<Weak<Pool<S>>>>,
    /// Somebody may wait for a place here. Written under the lock on the pools.
    hungry: AtomicBool,
}

impl<S: Pooled> Ceiling<S> {
    /// For `most` servers.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: AtomicUsize::new(0), pools: Mutex::default(), hungry: AtomicBool::new(false) })
    }

    fn take(&self) -> bool {
        let more = |taken: usize| Some(taken + 1).filter(|&taken| taken <= self.most);
        self.taken.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    fn give_back(&self) {
        self.taken.fetch_sub(1, Relaxed);
    }

    fn is_full(&self) -> bool {
        self.taken.load(Relaxed) >= self.most
    }

    /// The pools with clients who wait for a place here, longest first, and since when.
    fn hungry(&self) -> Vec<(Instant, Arc<Pool<S>>)> {
        if !self.hungry.load(SeqCst) {
            return Vec::new();
        }
        let pools = self.pools.lock();
        let all = pools.iter().filter_map(Weak::upgrade);
        let mut hungry: Vec<_> = all.filter_map(|pool| Some((pool.core.queue.hungry_since()?, pool))).collect();
        hungry.sort_by_key(|(since, _)| *since);
        // Whoever is hungry is in line before this lock is taken to say so.
        self.hungry.store(!hungry.is_empty(), SeqCst);
        drop(pools);
        hungry
    }

    fn is_wanted(&self) {
        let pools = self.pools.lock();
        self.hungry.store(true, SeqCst);
        drop(pools);
    }

    /// An idle server of another pool.
    fn idle_elsewhere(&self, than: &Pool<S>) -> Option<Lease<S>> {
        let pools: Vec<_> = self.pools.lock().iter().filter_map(Weak::upgrade).collect();
        pools.iter().filter(|pool| !Arc::ptr_eq(&pool.core, &than.core)).find_map(|pool| pool.take_any_idle())
    }
}

/// All ceilings of a pool.
#[derive(Debug)]
pub(super) struct Ceilings<S: Pooled>(pub(super) Box<[Arc<Ceiling<S>>]>);

impl<S: Pooled> Ceilings<S> {
    /// A place under each, or under none.
    pub(super) fn take(&self) -> bool {
        let taken = self.0.iter().take_while(|ceiling| ceiling.take()).count();
        if taken < self.0.len() {
            self.0[..taken].iter().for_each(|ceiling| ceiling.give_back());
        }
        taken == self.0.len()
    }

    /// Gives a place under each back, and lets the one connect who has waited longest for such.
    pub(super) fn give_back(&self) {
        self.0.iter().for_each(|ceiling| ceiling.give_back());
        self.serve();
    }

    fn serve(&self) {
        let mut hungry: Vec<_> = self.0.iter().flat_map(|ceiling| ceiling.hungry()).collect();
        hungry.sort_by_key(|(since, _)| *since);
        for (_, pool) in hungry {
            if let Some(waiter) = pool.core.queue.grow_for_waiter(|| pool.core.ceilings.take()) {
                // When the waiter has gone, the drop of what could not be sent serves the next one.
                return drop(waiter.send(Turn::Connect(Place::new(pool.own(WorkerId(0))))));
            }
        }
    }

    /// Somebody elsewhere should have the place of a server that this pool has no use for now, or has one only for
    /// clients who came later.
    pub(super) fn wants_place(&self, core: &Core<S>, is_idle: bool) -> bool {
        let full = || self.0.iter().filter(|ceiling| ceiling.is_full());
        full().flat_map(|ceiling| ceiling.hungry()).any(|(since, pool)| {
            let elsewhere = !std::ptr::eq(&raw const *pool.core, core);
            let is_ours = |ceiling: &Arc<Ceiling<S>>| self.0.iter().any(|ours| Arc::ptr_eq(ours, ceiling));
            let enough = || pool.core.ceilings.0.iter().filter(|ceiling| ceiling.is_full()).all(is_ours);
            let before_ours = || core.queue.oldest().is_none_or(|ours| since + PATIENCE < ours);
            elsewhere && (is_idle || enough() && before_ours())
        })
    }
}

impl<S: Pooled> Pool<S> {
    pub(super) fn join_ceilings(self: &Arc<Self>) {
        for ceiling in &self.core.ceilings.0 {
            let mut pools = ceiling.pools.lock();
            pools.retain(|pool| pool.strong_count() > 0);
            pools.push(Arc::downgrade(self));
        }
    }

    /// A client of this pool is in line, maybe because of a ceiling: what is idle elsewhere makes room.
    pub(super) fn press(self: &Arc<Self>) {
        let ceilings = &self.core.ceilings;
        if ceilings.0.is_empty() || self.core.queue.hungry_since().is_none() {
            return;
        }
        ceilings.0.iter().for_each(|ceiling| ceiling.is_wanted());
        let full = ceilings.0.iter().filter(|ceiling| ceiling.is_full());
        for idle in full.filter_map(|ceiling| ceiling.idle_elsewhere(self)) {
            idle.close(Close::MadeRoom);
        }
        // A place may have become free before this pool counted as hungry.
        ceilings.serve();
    }
}
