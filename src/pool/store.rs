//! The books of one pool, without I/O: who is idle, how many places are taken, who waits.
//!
//! `taken` counts every server that exists or is being connected, idle ones too.

use std::collections::VecDeque;
use std::time::Instant;

use tokio::sync::oneshot;

use super::Close;
use crate::types::WorkerId;

/// `T` is what a waiter is sent, `S` a server.
#[derive(Debug)]
pub(super) struct Store<T, S> {
    /// By worker. The last one released is lent first: its caches are warm, and the others can expire.
    idle: Vec<Vec<Idle<S>>>,
    taken: usize,
    size: usize,
    waiters: VecDeque<oneshot::Sender<T>>,
}

#[derive(Debug)]
struct Idle<S> {
    server: S,
    since: Instant,
}

/// What somebody who asks for a server can have.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<S> {
    Own(S),
    /// Idle on another worker.
    Foreign {
        parked: S,
        home: WorkerId,
    },
    /// One place is taken for the caller.
    Grow,
    Wait,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    Close(Close),
    /// Closed as long as the minimum stays.
    CloseUnlessNeeded(Close),
}

impl<T, S> Store<T, S> {
    pub(super) fn new(workers: usize, size: usize) -> Self {
        Self {
            idle: (0..workers.max(1)).map(|_| Vec::new()).collect(),
            taken: 0,
            size: size.max(1),
            waiters: VecDeque::new(),
        }
    }

    fn of(&mut self, worker: WorkerId) -> &mut Vec<Idle<S>> {
        let index = worker.0 % self.idle.len();
        &mut self.idle[index]
    }

    pub(super) fn take(&mut self, worker: WorkerId) -> Next<S> {
        if let Some(idle) = self.of(worker).pop() {
            return Next::Own(idle.server);
        }
        if self.taken < self.size {
            self.taken += 1;
            return Next::Grow;
        }
        let foreign = self.idle.iter_mut().enumerate().find_map(|(home, idle)| Some((idle.pop()?, WorkerId(home))));
        match foreign {
            Some((idle, home)) => Next::Foreign { parked: idle.server, home },
            None => Next::Wait,
        }
    }

    /// The idle server released last that fits; a new one if that is better than one that does not; else any.
    pub(super) fn take_fitting(&mut self, worker: WorkerId, or_grow: bool, fits: impl Fn(&S) -> bool) -> Next<S> {
        let own = worker.0 % self.idle.len();
        let others = (0..self.idle.len()).filter(|home| *home != own);
        for home in std::iter::once(own).chain(others) {
            if let Some(at) = self.idle[home].iter().rposition(|idle| fits(&idle.server)) {
                let parked = self.idle[home].remove(at).server;
                return if home == own { Next::Own(parked) } else { Next::Foreign { parked, home: WorkerId(home) } };
            }
        }
        if or_grow && self.taken < self.size {
            self.taken += 1;
            return Next::Grow;
        }
        self.take(worker)
    }

    pub(super) fn wait(&mut self, waiter: oneshot::Sender<T>) {
        self.waiters.push_back(waiter);
    }

    /// The first in line who still waits.
    pub(super) fn next_waiter(&mut self) -> Option<oneshot::Sender<T>> {
        while let Some(waiter) = self.waiters.pop_front() {
            if !waiter.is_closed() {
                return Some(waiter);
            }
        }
        None
    }

    pub(super) fn park(&mut self, server: S, worker: WorkerId, since: Instant) {
        self.of(worker).push(Idle { server, since });
    }

    /// Gives up a place, or hands it to the first waiter.
    pub(super) fn free(&mut self) -> Option<oneshot::Sender<T>> {
        let waiter = self.next_waiter();
        if waiter.is_none() {
            self.taken -= 1;
        }
        waiter
    }

    pub(super) fn grow_below(&mut self, minimum: usize) -> bool {
        let grows = self.taken < minimum.min(self.size);
        self.taken += usize::from(grows);
        grows
    }

    pub(super) fn take_idle_where(
        &mut self,
        worker: WorkerId,
        minimum: usize,
        mut judge: impl FnMut(&S, Instant) -> Verdict,
    ) -> Vec<(S, Close)> {
        let mut spare = self.taken.saturating_sub(minimum);
        let mut taken = Vec::new();
        let kept = std::mem::take(self.of(worker)).into_iter().filter_map(|idle| {
            let reason = match judge(&idle.server, idle.since) {
                Verdict::Keep => return Some(idle),
                Verdict::CloseUnlessNeeded(_) if spare == 0 => return Some(idle),
                Verdict::Close(reason) | Verdict::CloseUnlessNeeded(reason) => reason,
            };
            spare = spare.saturating_sub(1);
            taken.push((idle.server, reason));
            None
        });
        let kept: Vec<_> = kept.collect();
        *self.of(worker) = kept;
        taken
    }

    pub(super) fn take_idle(&mut self) -> Vec<(S, WorkerId)> {
        let workers = self.idle.iter_mut().enumerate();
        workers.flat_map(|(home, idle)| idle.drain(..).map(move |idle| (idle.server, WorkerId(home)))).collect()
    }

    pub(super) fn is_unused(&self) -> bool {
        self.taken == 0 && self.waiters.iter().all(oneshot::Sender::is_closed)
    }
}
