//! Pools under random use, and what each limit does.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use proptest::prelude::*;

use super::*;
use crate::error::sqlstate;
use crate::metrics::Metrics;
use crate::net::timers::Timers;

#[derive(Debug)]
struct Fake {
    id: usize,
    quiet: bool,
    connected_at: Instant,
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
}

fn limits(size: usize) -> Limits {
    Limits {
        size,
        min_size: 0,
        idle_timeout: Duration::from_secs(60),
        lifetime: Duration::from_secs(3600),
        wait_timeout: Duration::from_secs(5),
    }
}

fn pool(limits: Limits) -> Arc<Pool<Fake>> {
    let metrics = Metrics::new(2).unwrap();
    Pool::new("test".into(), 2, limits, metrics.pool("main", "a", "app", "app"))
}

const ONE: WorkerId = WorkerId(0);
const TWO: WorkerId = WorkerId(1);

fn connect(pool: &Arc<Pool<Fake>>, worker: WorkerId, id: usize) -> Lease<Fake> {
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

fn queue(pool: &Arc<Pool<Fake>>, worker: WorkerId) -> Waiting<Fake> {
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
    let (arrived, started) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let pool = pool(Limits { wait_timeout: Duration::from_secs(2), ..limits(1) });
    connect(&pool, ONE, 1).release(Instant::now());
    let turns = |worker| {
        let (pool, arrived) = (Arc::clone(&pool), Arc::clone(&arrived));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        move || {
            for round in 1..=ROUNDS {
                // A barrier would wake the two one after the other.
                arrived.fetch_add(1, SeqCst);
                while arrived.load(SeqCst) < 2 * round {
                    assert!(started.elapsed() < Duration::from_secs(20), "the other thread has failed");
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
                    other @ Attempt::Connect(_) => panic!("expected a server or to wait, got {other:?}"),
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
    fn step(&mut self, step: &Step, size: usize) {
        match *step {
            Step::Take(worker) => match self.pool.attempt(WorkerId(worker)) {
                Attempt::Server(lease) => self.lent.push(lease),
                Attempt::Connect(place) => self.connect(place),
                Attempt::Wait(waiting) => {
                    assert_eq!(self.lent.len(), size, "somebody waits for nothing");
                    self.arrived += 1;
                    self.waiters.push((self.arrived, waiting));
                }
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
    /// Never more servers than the size, no server in two hands, nobody waits while a server or a place is free, and
    /// nobody is overtaken by more than the pool's size.
    #[test]
    fn the_books_stay_true(size in 1..5usize, steps in steps()) {
        let pool = pool(limits(size));
        let (lent, waiters) = (Vec::new(), Vec::new());
        let mut clients = Clients { pool: Arc::clone(&pool), lent, waiters, made: 0, arrived: 0, refused: false };
        for step in &steps {
            clients.step(step, size);
            let idle: usize = pool.shelves.iter().map(|shelf| shelf.len()).sum();
            let lent = clients.lent.len();
            prop_assert_eq!(pool.core.queue.servers(), lent + idle);
            prop_assert!(lent + idle <= size && (clients.waiters.is_empty() || lent == size));
            let distinct: HashSet<_> = clients.lent.iter().map(|lease| lease.id).collect();
            prop_assert_eq!(distinct.len(), lent);
        }
        clients.lent.clear();
        clients.waiters.clear();
        drop(pool.take_idle());
        prop_assert!(pool.is_unused());
    }
}
