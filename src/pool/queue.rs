//! The books that a pool has only one of, without I/O: how many places are taken, and who waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// `T` is what a waiter is sent. Locked only to connect, to close and to wait.
#[derive(Debug)]
pub(super) struct Queue<T> {
    books: Mutex<Books<T>>,
    /// So many are in line, some of whom may have left.
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct Books<T> {
    size: usize,
    /// Every server that exists or is being connected, idle ones too.
    taken: usize,
    /// Of these, the ones that are being connected.
    connecting: usize,
    waiters: VecDeque<oneshot::Sender<T>>,
}

/// What a place that is given up was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freed {
    Server,
    /// One that was not connected after all.
    Connecting,
}

impl<T> Queue<T> {
    pub(super) fn new(size: usize) -> Self {
        let books = Books { size: size.max(1), taken: 0, connecting: 0, waiters: VecDeque::new() };
        Self { books: Mutex::new(books), waiting: AtomicUsize::new(0) }
    }

    /// True: one place is taken for the caller, who connects.
    pub(super) fn grow(&self) -> bool {
        self.books.lock().grow_below(usize::MAX)
    }

    /// The same, as long as there are fewer than `minimum` servers.
    pub(super) fn grow_below(&self, minimum: usize) -> bool {
        self.books.lock().grow_below(minimum)
    }

    /// `None`: one place is taken for the caller, who connects. Else the caller is in line, and must look once more at
    /// what is idle.
    pub(super) fn grow_or_wait(&self) -> Option<oneshot::Receiver<T>> {
        let mut books = self.books.lock();
        if books.grow_below(usize::MAX) {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        books.waiters.push_back(sender);
        self.waiting.store(books.waiters.len(), Relaxed);
        Some(receiver)
    }

    /// Somebody may be in line. Who makes a server available asks again behind that: the lock on the idle servers, which
    /// both hold once, makes sure that the one sees the server or the other the waiter.
    pub(super) fn has_waiters(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// The first in line who still waits.
    pub(super) fn next_waiter(&self) -> Option<oneshot::Sender<T>> {
        let mut books = self.books.lock();
        let waiter = books.next_waiter();
        self.waiting.store(books.waiters.len(), Relaxed);
        waiter
    }

    /// A server was connected in a place that was taken for it.
    pub(super) fn connected(&self) {
        self.books.lock().connecting -= 1;
    }

    /// Gives up a place, or hands it to the first waiter, who connects.
    pub(super) fn free(&self, freed: Freed) -> Option<oneshot::Sender<T>> {
        let mut books = self.books.lock();
        let waiter = books.next_waiter();
        self.waiting.store(books.waiters.len(), Relaxed);
        books.connecting -= usize::from(freed == Freed::Connecting);
        match waiter {
            Some(_) => books.connecting += 1,
            None => books.taken -= 1,
        }
        waiter
    }

    /// How many servers are connected, idle or lent.
    pub(super) fn servers(&self) -> usize {
        let books = self.books.lock();
        books.taken - books.connecting
    }

    pub(super) fn is_unused(&self) -> bool {
        let books = self.books.lock();
        books.taken == 0 && books.waiters.iter().all(oneshot::Sender::is_closed)
    }
}

impl<T> Books<T> {
    fn grow_below(&mut self, minimum: usize) -> bool {
        let grows = self.taken < minimum.min(self.size);
        self.taken += usize::from(grows);
        self.connecting += usize::from(grows);
        grows
    }

    fn next_waiter(&mut self) -> Option<oneshot::Sender<T>> {
        while let Some(waiter) = self.waiters.pop_front() {
            if !waiter.is_closed() {
                return Some(waiter);
            }
        }
        None
    }
}
