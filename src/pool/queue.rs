//! The books that a pool has only one of, without I/O: how many places are taken, and who waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::types::WorkerId;

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
    /// Zero: no limit.
    max_waiting: usize,
    /// Every server that exists or is being connected, idle ones too.
    taken: usize,
    /// Of these, the ones that are being connected.
    connecting: usize,
    /// The node takes no more: who comes waits for a server that exists, as long as there is one.
    full: bool,
    /// By worker.
    waiters: Box<[VecDeque<Waiter<T>>]>,
    /// How many have come to wait so far.
    arrivals: u64,
}

#[derive(Debug)]
struct Waiter<T> {
    turn: oneshot::Sender<T>,
    /// Which arrival it was.
    number: u64,
    since: Instant,
}

/// What the books say at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    pub(super) taken: usize,
    pub(super) connecting: usize,
    pub(super) waiting: usize,
    /// Since when the first of them waits.
    pub(super) oldest: Option<Instant>,
}

/// Where somebody stands who asked for a server.
#[derive(Debug)]
pub(super) enum Line<T> {
    /// One place is taken for the caller, who connects.
    Grows,
    /// The caller is in line, and must look once more at what is idle.
    Waits(oneshot::Receiver<T>),
    /// As many are in line as may.
    Full,
}

/// What a place that is given up was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freed {
    Server,
    /// One that was not connected after all.
    Connecting,
}

impl<T> Queue<T> {
    pub(super) fn new(size: usize, max_waiting: usize, workers: usize) -> Self {
        let waiters = (0..workers).map(|_| VecDeque::new()).collect();
        let books =
            Books { size: size.max(1), max_waiting, taken: 0, connecting: 0, full: false, waiters, arrivals: 0 };
        Self { books: Mutex::new(books), waiting: AtomicUsize::new(0) }
    }

    /// True: one place is taken for the caller, who connects, because there are fewer than `minimum` servers and `room`
    /// elsewhere, too.
    pub(super) fn grow_below(&self, minimum: usize, room: impl FnOnce() -> bool) -> bool {
        self.books.lock().grow_below(minimum, room)
    }

    /// The same for the first in line.
    pub(super) fn grow_for_waiter(&self, room: impl FnOnce() -> bool) -> Option<oneshot::Sender<T>> {
        let mut books = self.books.lock();
        let line = books.first_line()?;
        if !books.grow_below(usize::MAX, room) {
            return None;
        }
        // It may leave at this moment, but it is in line.
        let waiter = books.waiters[line].pop_front()?;
        self.waiting.store(books.waiting(), Relaxed);
        Some(waiter.turn)
    }

    /// Since when the first in line waits.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.books.lock().oldest()
    }

    /// The same, if this pool itself could grow.
    pub(super) fn hungry_since(&self) -> Option<Instant> {
        let mut books = self.books.lock();
        if books.taken < books.size { books.oldest() } else { None }
    }

    pub(super) fn grow_or_wait(&self, worker: WorkerId, room: impl FnOnce() -> bool) -> Line<T> {
        let mut books = self.books.lock();
        if books.grow_below(usize::MAX, room) {
            return Line::Grows;
        }
        if books.is_full() {
            return Line::Full;
        }
        let (sender, receiver) = oneshot::channel();
        books.push(worker, sender);
        self.waiting.store(books.waiting(), Relaxed);
        Line::Waits(receiver)
    }

    /// Somebody may be in line. Who makes a server available asks again behind that: the lock on the idle servers, which
    /// both hold once, makes sure that the one sees the server or the other the waiter.
    pub(super) fn has_waiters(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// Whose turn it is to get what this worker has: the first of its own clients, because a server that stays where
    /// it is costs least, unless that would overtake somebody elsewhere who came more than a pool's size before.
    pub(super) fn next_waiter(&self, worker: WorkerId) -> Option<oneshot::Sender<T>> {
        let mut books = self.books.lock();
        let waiter = books.next_waiter(worker);
        self.waiting.store(books.waiting(), Relaxed);
        waiter
    }

    /// A server was connected in a place that was taken for it.
    pub(super) fn connected(&self) {
        self.books.lock().connecting -= 1;
    }

    /// Gives up a place, or hands it to the first waiter, who connects.
    pub(super) fn free(&self, worker: WorkerId, freed: Freed) -> Option<oneshot::Sender<T>> {
        let mut books = self.books.lock();
        books.connecting -= usize::from(freed == Freed::Connecting);
        books.taken -= 1;
        self.next_to_connect(&mut books, worker)
    }

    /// The first waiter, if he may connect; a place is taken for him.
    fn next_to_connect(&self, books: &mut Books<T>, worker: WorkerId) -> Option<oneshot::Sender<T>> {
        if books.waiters.iter().all(VecDeque::is_empty) || !books.may_grow(usize::MAX) {
            return None;
        }
        let waiter = books.next_waiter(worker);
        self.waiting.store(books.waiting(), Relaxed);
        books.taken += usize::from(waiter.is_some());
        books.connecting += usize::from(waiter.is_some());
        waiter
    }

    /// The node takes no more servers.
    pub(super) fn stop_growing(&self) {
        self.books.lock().full = true;
    }

    /// It may take some again. Gives a waiter who may connect now; to be asked until there is none.
    pub(super) fn resume(&self, worker: WorkerId) -> Option<oneshot::Sender<T>> {
        let mut books = self.books.lock();
        books.full = false;
        self.next_to_connect(&mut books, worker)
    }

    /// Gives up a place, whoever waits here.
    pub(super) fn give_up(&self, freed: Freed) {
        let mut books = self.books.lock();
        books.connecting -= usize::from(freed == Freed::Connecting);
        books.taken -= 1;
    }

    /// How many servers are connected, idle or lent.
    pub(super) fn servers(&self) -> usize {
        let books = self.books.lock();
        books.taken - books.connecting
    }

    /// Places taken, of these being connected, and the clients that wait.
    pub(super) fn counts(&self) -> Counts {
        let books = self.books.lock();
        let waiting = || books.waiters.iter().flatten().filter(|waiter| !waiter.turn.is_closed());
        Counts {
            taken: books.taken,
            connecting: books.connecting,
            waiting: waiting().count(),
            oldest: waiting().map(|waiter| waiter.since).min(),
        }
    }

    pub(super) fn is_unused(&self) -> bool {
        let books = self.books.lock();
        books.taken == 0 && books.waiters.iter().flatten().all(|waiter| waiter.turn.is_closed())
    }
}

impl<T> Books<T> {
    fn grow_below(&mut self, minimum: usize, room: impl FnOnce() -> bool) -> bool {
        let grows = self.may_grow(minimum) && room();
        self.taken += usize::from(grows);
        self.connecting += usize::from(grows);
        grows
    }

    fn may_grow(&self, minimum: usize) -> bool {
        let waits_for_others = self.full && self.taken > self.connecting;
        self.taken < minimum.min(self.size) && !waits_for_others
    }

    fn push(&mut self, worker: WorkerId, turn: oneshot::Sender<T>) {
        self.arrivals += 1;
        let number = self.arrivals;
        let index = worker.0 % self.waiters.len();
        self.waiters[index].push_back(Waiter { turn, number, since: Instant::now() });
    }

    /// Those who have left are forgotten only when they are in the way.
    fn is_full(&mut self) -> bool {
        if self.max_waiting == 0 || self.waiting() < self.max_waiting {
            return false;
        }
        self.waiters.iter_mut().for_each(|line| line.retain(|waiter| !waiter.turn.is_closed()));
        self.waiting() >= self.max_waiting
    }

    fn waiting(&self) -> usize {
        self.waiters.iter().map(VecDeque::len).sum()
    }

    /// Those in front who have left are forgotten.
    fn close_up(&mut self) {
        for line in &mut self.waiters {
            while line.front().is_some_and(|waiter| waiter.turn.is_closed()) {
                line.pop_front();
            }
        }
    }

    /// The line that the first of all waiters is in.
    fn first_line(&mut self) -> Option<usize> {
        self.close_up();
        let heads = self.waiters.iter().enumerate().filter_map(|(at, line)| Some((line.front()?.number, at)));
        heads.min().map(|(_, at)| at)
    }

    fn oldest(&mut self) -> Option<Instant> {
        let line = self.first_line()?;
        self.waiters[line].front().map(|waiter| waiter.since)
    }

    fn next_waiter(&mut self, worker: WorkerId) -> Option<oneshot::Sender<T>> {
        let elsewhere = self.first_line()?;
        let own = worker.0 % self.waiters.len();
        let first = |line: &VecDeque<Waiter<T>>| line.front().map(|waiter| waiter.number);
        let oldest = first(&self.waiters[elsewhere])?;
        let overtakes_few = first(&self.waiters[own]).is_some_and(|number| number - oldest <= self.size as u64);
        let chosen = if overtakes_few { own } else { elsewhere };
        self.waiters[chosen].pop_front().map(|waiter| waiter.turn)
    }
}
