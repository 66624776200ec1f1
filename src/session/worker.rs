//! What the sessions of one data-plane thread share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::buffers::Buffers;
use super::cancel::Cancels;
use super::cluster::Cluster;
use crate::auth::client::Users;
use crate::backend::prepared::Statements;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::sql::classify::Classifier;
use crate::types::WorkerId;

/// What the whole process shares.
#[derive(Debug)]
pub struct Shared {
    pub config: Arc<Config>,
    pub clusters: Box<[Arc<Cluster>]>,
    pub users: Users,
    pub metrics: Arc<Metrics>,
    pub statements: Statements,
    pub cancels: Arc<Cancels>,
    /// Clients that are connected, logged in or not.
    pub clients: AtomicUsize,
}

/// One data-plane thread.
pub struct Worker {
    pub id: WorkerId,
    pub shared: Arc<Shared>,
    pub classifier: RefCell<Classifier>,
    pub client_buffers: Buffers,
    pub server_buffers: Buffers,
    /// The time as of the last tick: good enough for idle times, and free.
    now: Cell<Instant>,
    draining: Cell<bool>,
    seats: RefCell<Vec<Rc<Seat>>>,
}

/// A session as its worker sees it.
#[derive(Debug)]
pub struct Seat {
    waker: Waker,
    /// When it last became idle; `None` while it works.
    idle_since: Cell<Option<Instant>>,
    must_leave: Cell<Option<Leave>>,
}

/// Why a session that is idle must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    Shutdown,
    IdleTooLong,
}

/// Requests are small, answers can be large.
const CLIENT_BUFFER_BYTES: usize = 8 << 10;
const SERVER_BUFFER_BYTES: usize = 64 << 10;

impl Worker {
    pub fn new(id: WorkerId, shared: Arc<Shared>) -> Self {
        let classifier = Classifier::new(shared.config.limits.memo_bytes);
        Self {
            id,
            shared,
            classifier: RefCell::new(classifier),
            client_buffers: Buffers::new(CLIENT_BUFFER_BYTES),
            server_buffers: Buffers::new(SERVER_BUFFER_BYTES),
            now: Cell::new(Instant::now()),
            draining: Cell::new(false),
            seats: RefCell::default(),
        }
    }

    pub fn now(&self) -> Instant {
        self.now.get()
    }

    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    pub fn sessions(&self) -> usize {
        self.seats.borrow().len()
    }

    /// Idle sessions leave, the others when their transactions end.
    pub fn drain(&self) {
        self.draining.set(true);
        self.dismiss(Leave::Shutdown, |_| true);
    }

    /// Coarse time: once a second or so.
    pub fn tick(&self, now: Instant) {
        self.now.set(now);
        let limit = self.shared.config.limits.client_idle_timeout;
        if !limit.is_zero() {
            self.dismiss(Leave::IdleTooLong, |since| is_over(since, limit, now));
        }
    }

    fn dismiss(&self, leave: Leave, mut condition: impl FnMut(Instant) -> bool) {
        for seat in self.seats.borrow().iter() {
            if seat.idle_since.get().is_some_and(&mut condition) {
                seat.must_leave.set(Some(leave));
                seat.waker.wake_by_ref();
            }
        }
    }

    /// Takes a seat for the session whose task has this waker.
    pub fn seat(self: &Rc<Self>, waker: Waker) -> SeatGuard {
        let seat = Rc::new(Seat { waker, idle_since: Cell::new(None), must_leave: Cell::new(None) });
        self.seats.borrow_mut().push(Rc::clone(&seat));
        SeatGuard { worker: Rc::clone(self), seat }
    }
}

fn is_over(since: Instant, limit: Duration, now: Instant) -> bool {
    now.saturating_duration_since(since) >= limit
}

/// A session's seat for as long as it lives.
pub struct SeatGuard {
    worker: Rc<Worker>,
    seat: Rc<Seat>,
}

impl SeatGuard {
    /// The session waits for its client, outside a transaction. Whoever is idle must look at [`Self::must_leave`].
    pub fn is_idle(&self) {
        self.seat.idle_since.set(Some(self.worker.now()));
        if self.worker.is_draining() {
            self.seat.must_leave.set(Some(Leave::Shutdown));
        }
    }

    pub fn is_busy(&self) {
        self.seat.idle_since.set(None);
    }

    pub fn must_leave(&self) -> Option<Leave> {
        self.seat.must_leave.get()
    }
}

impl Drop for SeatGuard {
    fn drop(&mut self) {
        self.worker.seats.borrow_mut().retain(|seat| !Rc::ptr_eq(seat, &self.seat));
    }
}

/// A client counts from the moment it connects until the guard is dropped.
#[derive(Debug)]
pub struct ClientCount(Arc<Shared>);

impl ClientCount {
    /// `None`: `max_client_conn` are connected already.
    pub fn take(shared: &Arc<Shared>) -> Option<Self> {
        let before = shared.clients.fetch_add(1, Relaxed);
        let guard = Self(Arc::clone(shared));
        (before < shared.config.limits.max_client_conn).then_some(guard)
    }
}

impl Drop for ClientCount {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Relaxed);
    }
}
