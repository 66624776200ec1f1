//! Pools under random use, and what each limit does.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use proptest::prelude::*;

use super::*;
use crate::error::{Fault, sqlstate};
use crate::metrics::Metrics;
use crate::net::timers::Timers;

#[derive(Debug)]
pub(super) struct Fake {
    pub(super) id: usize,
    pub(super) quiet: bool,
    pub(super) connected_at: Instant,
}

impl Pooled for Fake {
    fn is_quiet(&mut self) -> bool {
        self.quiet
    }

    fn rehome(self) -> io::Result<Self> {
        Ok(self)
    }

    fn connected_at(&self) -> Instant {
        self.connected_at
    }

    fn is_stray(&self) -> bool {
        false
    }
}

pub(super) fn limits(size: usize) -> Limits {
    Limits {
        size,
        min_size: 0,
        idle_timeout: Duration::from_secs(60),
        lifetime: Duration::from_secs(3600),
        wait_timeout: Duration::from_secs(5),
        login_retry: Duration::from_secs(1),
        max_waiting: 0,
        most_of_database: 0,
        most_of_user: 0,
    }
}

fn pool(limits: Limits) -> Arc<Pool<Fake>> {
    pool_under(limits, &[])
}

pub(super) fn pool_under(limits: Limits, ceilings: &[&Arc<Ceiling<Fake>>]) -> Arc<Pool<Fake>> {
    let metrics = Metrics::new(2).unwrap();
    let ceilings = ceilings.iter().map(|ceiling| Arc::clone(ceiling)).collect();
    Pool::new("test".into(), 2, limits, ceilings, metrics.pool("main", "a", "app", "app"))
}

pub(super) const ONE: WorkerId = WorkerId(0);
pub(super) const TWO: WorkerId = WorkerId(1);

pub(super) fn connect(pool: &Arc<Pool<Fake>>, worker: WorkerId, id: usize) -> Lease<Fake> {
    match pool.attempt(worker) {
        Attempt::Connect(place) => place.fill(Fake { id, quiet: true, connected_at: Instant::now() }),
        other => panic!("expected a place, got {other:?}"),
    }
}

fn lend(pool: &Arc<Pool<Fake>>, worker: WorkerId) -> Lease<Fake> {
    match pool.attempt(worker) {
        Attempt::Server(lease) => lease,
        other => panic!("expected a server, got {other:?}"),
    }
}

pub(super) fn queue(pool: &Arc<Pool<Fake>>, worker: WorkerId) -> Waiting<Fake> {
    match pool.attempt(worker) {
        Attempt::Wait(waiting) => waiting,
        other => panic!("expected to wait, got {other:?}"),
    }
}

#[test]
fn a_released_server_is_lent_again_and_a_dropped_one_is_not() {
    let pool = pool(limits(1));
    connect(&pool, ONE, 1).release(Instant::now());
    let lease = lend(&pool, ONE);
    assert_eq!(lease.id, 1);
    drop(lease);
    assert!(pool.is_unused());
    assert_eq!(connect(&pool, ONE, 2).id, 2);
}

#[test]
fn a_full_pool_lends_what_is_idle_on_another_worker() {
    let pool = pool(limits(1));
    connect(&pool, ONE, 1).release(Instant::now());
    assert_eq!(lend(&pool, TWO).id, 1);
}

#[tokio::test]
async fn while_the_node_is_full_clients_wait_for_the_servers_that_there_are() {
    let pool = pool(limits(3));
    let lease = connect(&pool, ONE, 1);
    let full = Error::new(Fault::Node, sqlstate::TOO_MANY_CONNECTIONS, "sorry, too many clients already");
    let Attempt::Connect(place) = pool.attempt(ONE) else { panic!("it may grow") };
    let now = Instant::now();
    pool.note_refusal(&full, now);
    assert!(pool.should_wait(&full, now));
    drop(place);
    let (first, second) = (queue(&pool, ONE), queue(&pool, ONE));
    lease.release(now);
    let timers = Timers::current();
    let Attempt::Server(lease) = first.turn(ONE, &timers).await.unwrap() else { panic!("a server is free") };
    // Not before it is over.
    pool.resume(ONE, now);
    let third = queue(&pool, ONE);
    pool.resume(ONE, now + Duration::from_secs(1));
    for waiting in [second, third] {
        assert!(matches!(waiting.turn(ONE, &timers).await.unwrap(), Attempt::Connect(_)));
    }
    // Without a server there is nothing to wait for.
    pool.note_refusal(&full, now);
    drop(lease);
    assert!(!pool.should_wait(&full, now));
    assert!(matches!(pool.attempt(ONE), Attempt::Connect(_)));
}

#[test]
fn a_server_that_is_not_quiet_is_not_lent() {
    let pool = pool(limits(1));
    let mut lease = connect(&pool, ONE, 1);
    lease.quiet = false;
    lease.release(Instant::now());
    assert_eq!(connect(&pool, ONE, 2).id, 2);
}

/// A server goes to a client of its own worker, which overtakes at most as many as the pool has servers.
#[tokio::test]
async fn waiters_are_served_where_the_server_is_and_nearly_in_order() {
    let pool = pool(limits(1));
    let lease = connect(&pool, ONE, 1);
    let (first, second, third) = (queue(&pool, TWO), queue(&pool, ONE), queue(&pool, ONE));
    lease.release(Instant::now());
    let Attempt::Server(lease) = second.turn(ONE, &Timers::current()).await.unwrap() else {
        panic!("a server is free")
    };
    lease.release(Instant::now());
    let Attempt::Server(lease) = first.turn(TWO, &Timers::current()).await.unwrap() else { panic!("a server is free") };
    lease.release(Instant::now());
    assert!(matches!(third.turn(ONE, &Timers::current()).await.unwrap(), Attempt::Server(_)));
}

#[test]
fn as_many_wait_as_may_and_who_left_counts_no_more() {
    let pool = pool(Limits { max_waiting: 2, ..limits(1) });
    let lease = connect(&pool, ONE, 1);
    let (first, second) = (queue(&pool, ONE), queue(&pool, TWO));
    assert!(matches!(pool.attempt(ONE), Attempt::Full));
    let error = pool.too_many_wait();
    assert_eq!(error.sqlstate(), sqlstate::TOO_MANY_CONNECTIONS);
    assert!(error.message().contains("max_waiting_clients = 2") && error.message().contains("test"), "{error}");
    // The one behind it still has its place.
    drop(first);
    let third = queue(&pool, ONE);
    assert!(matches!(pool.attempt(ONE), Attempt::Full));
    drop((second, third, lease));
    assert!(matches!(pool.attempt(TWO), Attempt::Connect(_)));
}

#[tokio::test]
async fn a_waiter_that_leaves_passes_on_what_it_was_handed() {
    let pool = pool(limits(1));
    let lease = connect(&pool, ONE, 1);
    let (first, second) = (queue(&pool, ONE), queue(&pool, ONE));
    lease.release(Instant::now());
    drop(first);
    assert!(matches!(second.turn(ONE, &Timers::current()).await.unwrap(), Attempt::Server(_)));
}

/// A server that is released while another worker finds the pool empty goes to that worker.
#[test]
fn no_release_is_missed() {
    const ROUNDS: usize = 10_000;
    // Nobody releases it again in the same round.
    let arrived = Arc::new(AtomicUsize::new(0));
    let pool = pool(Limits { wait_timeout: Duration::from_secs(2), ..limits(1) });
    connect(&pool, ONE, 1).release(Instant::now());
    let turns = |worker| {
        let (pool, arrived) = (Arc::clone(&pool), Arc::clone(&arrived));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        move || {
            for round in 1..=ROUNDS {
                // A barrier would wake the two one after the other.
                arrived.fetch_add(1, SeqCst);
                let since = Instant::now();
                while arrived.load(SeqCst) < 2 * round {
                    assert!(since.elapsed() < Duration::from_secs(60), "the other thread has failed");
                    std::thread::yield_now();
                }
                let lease = match pool.attempt(worker) {
                    Attempt::Wait(waiting) => {
                        match runtime.block_on(async { waiting.turn(worker, &Timers::current()).await }).unwrap() {
                            Attempt::Server(lease) => lease,
                            other => panic!("expected a server, got {other:?}"),
                        }
                    }
                    Attempt::Server(lease) => lease,
                    other @ (Attempt::Connect(_) | Attempt::Full) => {
                        panic!("expected a server or to wait, got {other:?}")
                    }
                };
                lease.release(Instant::now());
            }
        }
    };
    let threads = [ONE, TWO].map(|worker| std::thread::spawn(turns(worker)));
    for thread in threads {
        thread.join().unwrap();
    }
}

#[tokio::test]
async fn a_closed_server_lets_the_first_waiter_connect() {
    let pool = pool(limits(1));
    let lease = connect(&pool, ONE, 1);
    let waiting = queue(&pool, ONE);
    drop(lease);
    assert!(matches!(waiting.turn(ONE, &Timers::current()).await.unwrap(), Attempt::Connect(_)));
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_with_an_error_that_names_the_setting() {
    let pool = pool(limits(1));
    let _lease = connect(&pool, ONE, 1);
    let error = queue(&pool, ONE).turn(ONE, &Timers::current()).await.unwrap_err();
    assert_eq!(error.sqlstate(), sqlstate::TOO_MANY_CONNECTIONS);
    assert!(error.message().contains("query_wait_timeout (5s) in the pool of test"), "{error}");
}

#[test]
fn old_and_idle_servers_expire_down_to_the_minimum() {
    let pool = pool(Limits { min_size: 1, ..limits(3) });
    let leases: Vec<_> = (0..3).map(|id| connect(&pool, ONE, id)).collect();
    let start = Instant::now();
    for lease in leases {
        lease.release(start);
    }
    let expired = |after: u64| pool.expired(ONE, start + Duration::from_secs(after)).len();
    assert_eq!(expired(1), 0);
    assert_eq!(expired(61), 2);
    assert_eq!(expired(3601), 1);
    assert!(pool.below_minimum(ONE).is_some());
}

#[derive(Clone, Debug)]
enum Step {
    /// By a client of this worker.
    Take(usize),
    /// The next connection is refused.
    Refuse,
    Park(usize),
    Close(usize),
    Leave(usize),
    /// What is idle for too long is closed.
    Expire(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..2usize).prop_map(Step::Take),
        1 => Just(Step::Refuse),
        4 => any::<usize>().prop_map(Step::Park),
        2 => any::<usize>().prop_map(Step::Close),
        2 => any::<usize>().prop_map(Step::Leave),
        1 => (0..2usize).prop_map(Step::Expire),
    ];
    proptest::collection::vec(step, 0..200)
}

/// A pool's clients, in the hands of a test.
struct Clients {
    pool: Arc<Pool<Fake>>,
    lent: Vec<Lease<Fake>>,
    /// By arrival.
    waiters: Vec<(usize, Waiting<Fake>)>,
    made: usize,
    arrived: usize,
    refused: bool,
}

impl Clients {
    fn step(&mut self, step: &Step, size: usize, max_waiting: usize) {
        match *step {
            Step::Take(worker) => match self.pool.attempt(WorkerId(worker)) {
                Attempt::Server(lease) => self.lent.push(lease),
                Attempt::Connect(place) => self.connect(place),
                Attempt::Wait(waiting) => {
                    assert_eq!(self.lent.len(), size, "somebody waits for nothing");
                    self.arrived += 1;
                    self.waiters.push((self.arrived, waiting));
                }
                Attempt::Full => assert!(max_waiting > 0 && self.waiters.len() == max_waiting, "there is room"),
            },
            Step::Refuse => self.refused = true,
            Step::Park(nth) if !self.lent.is_empty() => {
                self.lent.swap_remove(nth % self.lent.len()).release(Instant::now());
            }
            Step::Close(nth) if !self.lent.is_empty() => drop(self.lent.swap_remove(nth % self.lent.len())),
            Step::Leave(nth) if !self.waiters.is_empty() => drop(self.waiters.remove(nth % self.waiters.len())),
            Step::Expire(worker) => {
                drop(self.pool.expired(WorkerId(worker), Instant::now() + Duration::from_secs(61)));
            }
            Step::Park(_) | Step::Close(_) | Step::Leave(_) => {}
        }
        self.take_turns(size);
    }

    fn connect(&mut self, place: Place<Fake>) {
        if std::mem::take(&mut self.refused) {
            return drop(place);
        }
        self.made += 1;
        self.lent.push(place.fill(Fake { id: self.made, quiet: true, connected_at: Instant::now() }));
    }

    /// Whoever has got a turn takes it; who comes to nothing leaves it to the next.
    fn take_turns(&mut self, size: usize) {
        let mut at = 0;
        while let Some((number, waiting)) = self.waiters.get_mut(at) {
            let Ok(turn) = waiting.receiver.try_recv() else {
                at += 1;
                continue;
            };
            let overtaken = *number - self.waiters[0].0;
            assert!(overtaken <= size, "somebody was overtaken by {overtaken} of {size}");
            self.waiters.remove(at);
            match turn {
                Turn::Server(lease) => self.lent.push(lease),
                Turn::Connect(place) => self.connect(place),
            }
            at = 0;
        }
    }
}

proptest! {
    /// Never more servers than the size, no server in two hands, nobody waits while a server or a place is free, nobody is
    /// refused while there is room to wait, and nobody is overtaken by more than the pool's size.
    #[test]
    fn the_books_stay_true(size in 1..5usize, max_waiting in 0..4usize, steps in steps()) {
        let pool = pool(Limits { max_waiting, ..limits(size) });
        let (lent, waiters) = (Vec::new(), Vec::new());
        let mut clients = Clients { pool: Arc::clone(&pool), lent, waiters, made: 0, arrived: 0, refused: false };
        for step in &steps {
            clients.step(step, size, max_waiting);
            let Census { idle, waiting, lent, connecting, .. } = pool.census();
            prop_assert_eq!((lent, waiting, connecting), (clients.lent.len(), clients.waiters.len(), 0));
            prop_assert_eq!(pool.core.queue.servers(), lent + idle);
            prop_assert!(lent + idle <= size && (clients.waiters.is_empty() || lent == size));
            prop_assert!(max_waiting == 0 || waiting <= max_waiting);
            let distinct: HashSet<_> = clients.lent.iter().map(|lease| lease.id).collect();
            prop_assert_eq!(distinct.len(), lent);
        }
        clients.lent.clear();
        clients.waiters.clear();
        drop(pool.take_idle());
        prop_assert!(pool.is_unused());
    }
}
