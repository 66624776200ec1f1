//! What the sessions of one data-plane thread share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Waker;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::buffers::Buffers;
use super::cancel::Cancels;
use super::cluster::Cluster;
use super::hold::Hold;
use super::own::Promise;
use crate::auth::client::Authenticator;
use crate::backend::prepared::Statements;
use crate::config::Config;
use crate::error::{Error, Fault, Result, sqlstate};
use crate::metrics::Metrics;
use crate::net::timers::Timers;
use crate::sql::{Classifier, Stats};
use crate::topology::{Follower, ViewHere};
use crate::types::WorkerId;

/// What the whole process shares.
#[derive(Debug)]
pub struct Shared {
    pub config: Arc<Config>,
    pub clusters: Box<[Arc<Cluster>]>,
    pub users: Authenticator,
    pub metrics: Arc<Metrics>,
    pub timers: Timers,
    pub statements: Statements,
    pub cancels: Arc<Cancels>,
    /// By worker: clients that are connected, logged in or not.
    pub clients: Box<[AtomicUsize]>,
}

impl Shared {
    /// The cluster that serves a database.
    ///
    /// # Errors
    /// None does.
    pub fn cluster_of(&self, database: &str) -> Result<&Arc<Cluster>> {
        self.clusters.iter().find(|cluster| cluster.config.serves(database)).ok_or_else(|| {
            let message = format!("database \"{database}\" does not exist");
            Error::new(Fault::Client, sqlstate::INVALID_CATALOG_NAME, message)
                .hint("No cluster in the configuration serves it: see clusters.<name>.databases.")
        })
    }

    /// The worker with the fewest clients.
    pub fn least_loaded(&self) -> WorkerId {
        let loads = self.clients.iter().enumerate().map(|(id, clients)| (clients.load(Relaxed), id));
        WorkerId(loads.min().map_or(0, |(_, id)| id))
    }
}

/// One data-plane thread.
#[derive(Debug)]
pub struct Worker {
    pub id: WorkerId,
    pub shared: Arc<Shared>,
    pub classifier: RefCell<Classifier>,
    pub client_buffers: Buffers,
    pub server_buffers: Buffers,
    /// The time as of the last tick: good enough for idle times, and free.
    now: Cell<Instant>,
    /// What the last session that came was promised.
    pub last_promise: RefCell<Option<Arc<Promise>>>,
    /// By cluster.
    views: Box<[Follower]>,
    /// By cluster: sessions that wait for it to change.
    holds: Box<[Hold]>,
    draining: Cell<bool>,
    seats: RefCell<Vec<Rc<Seat>>>,
    seat_left: Notify,
    counted: Cell<Stats>,
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
        let views = shared.clusters.iter().map(|cluster| cluster.topology.follow()).collect();
        let holds = shared.clusters.iter().map(|_| Hold::default()).collect();
        Self {
            id,
            shared,
            classifier: RefCell::new(classifier),
            client_buffers: Buffers::new(CLIENT_BUFFER_BYTES),
            server_buffers: Buffers::new(SERVER_BUFFER_BYTES),
            now: Cell::new(Instant::now()),
            last_promise: RefCell::default(),
            views,
            holds,
            draining: Cell::new(false),
            seats: RefCell::default(),
            seat_left: Notify::new(),
            counted: Cell::default(),
        }
    }

    pub fn now(&self) -> Instant {
        self.now.get()
    }

    /// What is known of the cluster's nodes now.
    pub fn view(&self, cluster: &Cluster) -> Rc<ViewHere> {
        self.views[cluster.index].view()
    }

    /// The sessions of a cluster that wait for it to change.
    pub fn hold(&self, cluster: &Cluster) -> &Hold {
        &self.holds[cluster.index]
    }

    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Ready when no session is left.
    pub async fn is_empty(&self) {
        while !self.seats.borrow().is_empty() {
            self.seat_left.notified().await;
        }
    }

    /// Idle sessions leave, the others when their transactions end.
    pub fn drain(&self) {
        self.draining.set(true);
        self.dismiss(Leave::Shutdown, |_| true);
    }

    /// Coarse time: once a second or so.
    pub fn tick(&self, now: Instant) {
        self.now.set(now);
        self.count_classifications();
        let limit = self.shared.config.limits.client_idle_timeout;
        if !limit.is_zero() {
            self.dismiss(Leave::IdleTooLong, |since| is_over(since, limit, now));
        }
    }

    /// Wakes all sessions, so that those whose node has become unreachable notice.
    pub fn rouse(&self) {
        self.seats.borrow().iter().for_each(|seat| seat.waker.wake_by_ref());
    }

    fn count_classifications(&self) {
        let stats = self.classifier.borrow().stats;
        let before = self.counted.replace(stats);
        let metrics = &self.shared.metrics;
        metrics.memo_hits.inc_by(stats.hits - before.hits);
        metrics.memo_misses.inc_by(stats.misses - before.misses);
        metrics.parse_failures.inc_by(stats.parse_failures - before.parse_failures);
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
#[derive(Debug)]
pub struct SeatGuard {
    worker: Rc<Worker>,
    seat: Rc<Seat>,
}

impl SeatGuard {
    /// The session waits for its client, outside a transaction. Whoever is idle must look at [`Self::must_leave`].
    pub fn is_idle(&self) {
        self.seat.idle_since.set(Some(self.worker.now()));
        // What was asked of it while it was idle before is over: it has worked since.
        self.seat.must_leave.set(self.worker.is_draining().then_some(Leave::Shutdown));
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
        self.worker.seat_left.notify_one();
    }
}

/// A client counts from the moment it connects until the guard is dropped.
#[derive(Debug)]
pub struct ClientCount {
    shared: Arc<Shared>,
    worker: WorkerId,
}

impl ClientCount {
    pub fn new(shared: &Arc<Shared>, worker: WorkerId) -> Self {
        shared.clients[worker.0].fetch_add(1, Relaxed);
        Self { shared: Arc::clone(shared), worker }
    }

    /// There are no more than `max_client_conn`, this one among them.
    pub fn is_within_limit(&self) -> bool {
        let clients: usize = self.shared.clients.iter().map(|clients| clients.load(Relaxed)).sum();
        clients <= self.shared.config.limits.max_client_conn
    }
}

impl Drop for ClientCount {
    fn drop(&mut self) {
        self.shared.clients[self.worker.0].fetch_sub(1, Relaxed);
    }
}
