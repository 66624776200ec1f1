//! What the sessions of one data-plane thread share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::buffers::Buffers;
use super::cancel::{CancelSlot, Cancels};
use super::census::{Census, Logins};
use super::cluster::Cluster;
use super::hold::Hold;
use super::memory::Memory;
use super::own::Promise;
use super::seat::{Seat, SeatGuard};
use crate::auth::client::Authenticator;
use crate::backend::prepared::Statements;
use crate::config::{Config, Timeouts};
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
    pub census: Arc<Census>,
    pub memory: Arc<Memory>,
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
    pub logins: Rc<Logins>,
    seat_left: Notify,
    counted: Cell<Stats>,
}

const SLOWEST_TICK: Duration = Duration::from_secs(1);
const FASTEST_TICK: Duration = Duration::from_millis(50);

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
            logins: Rc::default(),
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
        self.seats.borrow().iter().for_each(|seat| seat.dismiss());
    }

    /// How often to tick: once a second, or more often where limits are short.
    pub fn period(&self) -> Duration {
        let shortest = self.shared.config.shortest_timeout().unwrap_or(SLOWEST_TICK);
        (shortest / 4).clamp(FASTEST_TICK, SLOWEST_TICK)
    }

    /// Coarse time. Sessions that take too long are told.
    pub fn tick(&self, now: Instant) {
        self.now.set(now);
        self.count_classifications();
        if self.shared.config.shortest_timeout().is_none() {
            return;
        }
        for server in self.seats.borrow().iter().filter_map(|seat| seat.tick(now)) {
            tokio::task::spawn_local(async move {
                if let Err(error) = server.send().await {
                    tracing::warn!(%error, "a statement that took longer than query_timeout could not be cancelled");
                }
            });
        }
    }

    /// Wakes all sessions, so that those whose node has become unreachable notice.
    pub fn rouse(&self) {
        self.seats.borrow().iter().for_each(|seat| seat.wake());
    }

    fn count_classifications(&self) {
        let stats = self.classifier.borrow().stats;
        let before = self.counted.replace(stats);
        let metrics = &self.shared.metrics;
        metrics.memo_hits.inc_by(stats.hits - before.hits);
        metrics.memo_misses.inc_by(stats.misses - before.misses);
        metrics.parse_failures.inc_by(stats.parse_failures - before.parse_failures);
    }

    /// Takes a seat for the session whose task has this waker; `slot`: what it runs can be cancelled there.
    pub fn seat(self: &Rc<Self>, waker: Waker, timeouts: Arc<Timeouts>, slot: Option<Arc<CancelSlot>>) -> SeatGuard {
        let seat = Rc::new(Seat::new(waker, timeouts, slot));
        self.seats.borrow_mut().push(Rc::clone(&seat));
        SeatGuard::new(Rc::clone(self), seat)
    }

    /// The session is over.
    pub fn leave(&self, seat: &Rc<Seat>) {
        self.seats.borrow_mut().retain(|other| !Rc::ptr_eq(other, seat));
        self.seat_left.notify_one();
    }
}
