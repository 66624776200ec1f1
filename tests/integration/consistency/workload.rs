//! A run: many sessions and a fault, and the history that comes of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use causeway::app::demo::cluster::LocalCluster;
use causeway::types::Level;

use super::faults::Fault;
use super::history::History;
use super::recorder::{Errors, Recorder};
use super::session::{Profile, sessions};
use crate::target::Target;

/// No session may need longer to end what it is doing.
const END_LIMIT: Duration = Duration::from_secs(30);

/// A prepared transaction as old as this is nobody's.
const FORGOTTEN: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// One session each, at a time.
    pub profiles: Vec<Profile>,
    pub fault: Fault,
    /// At least.
    pub duration: Duration,
    /// At least, of each level that a profile has.
    pub reads: u64,
    /// At most.
    pub limit: Duration,
}

#[derive(Debug)]
pub struct Run {
    pub history: History,
    /// By their numbers in the history.
    pub sessions: Vec<Profile>,
    pub errors: Errors,
    pub elapsed: Duration,
}

/// Begins with registers that nobody has written; returns when all is well with the nodes again.
pub fn run(target: &Target, cluster: &LocalCluster, plan: &Plan) -> Run {
    forget_prepared(cluster, &target.database, Duration::ZERO);
    cluster.primary().sql(&target.database, "UPDATE register SET version = 0, writer = 0").unwrap();
    cluster.catch_up().unwrap();
    let recorder = Arc::new(Recorder::new());
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let stop = AtomicBool::new(false);
    let elapsed = thread::scope(|scope| {
        let schedule = rng.fork();
        let faults = scope.spawn(|| plan.fault.drive(cluster, schedule, &stop));
        let clients = scope.spawn(|| serve(target, &recorder, plan, &mut rng));
        let began = Instant::now();
        let mut cleaned = began;
        while !is_enough(&recorder, plan) && !faults.is_finished() && !clients.is_finished() {
            thread::sleep(Duration::from_millis(20));
            if cleaned.elapsed() >= FORGOTTEN {
                forget_prepared(cluster, &target.database, FORGOTTEN);
                cleaned = Instant::now();
            }
        }
        recorder.stop();
        let clients = clients.join();
        let elapsed = began.elapsed();
        // Whatever became of the clients: the nodes are healed, and nobody waits for ever.
        stop.store(true, Relaxed);
        faults.join().unwrap();
        clients.unwrap();
        elapsed
    });
    cluster.catch_up().unwrap();
    let (ops, errors, sessions) = Arc::into_inner(recorder).expect("all sessions have ended").finish();
    Run { history: History(ops), sessions, errors, elapsed }
}

/// A prepared transaction whose end was refused holds its locks for ever. Whoever comes to end it later is told that it
/// is gone.
fn forget_prepared(cluster: &LocalCluster, database: &str, age: Duration) {
    let forgotten = format!(
        "SELECT format('ROLLBACK PREPARED %L', gid) FROM pg_prepared_xacts WHERE prepared < now() - interval '{} s'",
        age.as_secs()
    );
    for end in cluster.primary().sql(database, &forgotten).unwrap().lines() {
        // Its own session may be faster.
        let _ = cluster.primary().sql(database, end);
    }
}

fn is_enough(recorder: &Recorder, plan: &Plan) -> bool {
    let mut levels = plan.profiles.iter().map(|profile| profile.level);
    let enough = recorder.elapsed() >= plan.duration && levels.all(|level| recorder.reads(level) >= plan.reads);
    enough || recorder.elapsed() >= plan.limit
}

/// All sessions on one thread of their own, until the recorder says stop.
fn serve(target: &Target, recorder: &Arc<Recorder>, plan: &Plan, rng: &mut fastrand::Rng) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let tasks = plan.profiles.iter().map(|&profile| {
            let (target, recorder, rng) = (target.clone(), Arc::clone(recorder), rng.fork());
            tokio::spawn(async move { sessions(&target, &recorder, profile, rng).await })
        });
        let tasks = futures_util::future::join_all(tasks.collect::<Vec<_>>());
        let end = async {
            while !recorder.is_over() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            tokio::time::sleep(END_LIMIT).await;
        };
        tokio::select! {
            outcomes = tasks => outcomes.into_iter().for_each(|outcome| outcome.unwrap()),
            () = end => panic!("a session hangs"),
        }
    });
}

/// How often each node was read under each level: the primary, then the replicas.
pub fn shares(history: &History) -> BTreeMap<Level, [usize; 3]> {
    let mut shares: BTreeMap<Level, [usize; 3]> = BTreeMap::new();
    for (_, read) in history.reads() {
        shares.entry(read.promise.level).or_default()[usize::from(read.node.0)] += 1;
    }
    shares
}
