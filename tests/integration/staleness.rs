//! The staleness that a view tells, against what is measured from outside: a table of heartbeats, read on the replica.
//!
//! The claim of a view is exact: what the primary showed at `covered_at` has been replayed. So no heartbeat whose
//! commit was answered by then may be missing. How much it overstates depends on how often was asked.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use causeway::app::demo::cluster::{LocalCluster, LocalNode};
use causeway::types::NodeId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;

use crate::forks::follow;
use crate::harness::{Env, Test, block_on, wait_for};
use crate::positions::{DATABASE, LIMIT, REPLICAS, Watched, connect, number, soon, started};

pub const TESTS: &[Test] = &[("staleness::is_never_understated", is_never_understated)];

const INTERVAL: Duration = Duration::from_millis(100);
const DELAY: Duration = Duration::from_secs(1);
/// The primary and the replica are asked once an interval each; nodes and we are busy.
const OVERSTATED: Duration = Duration::from_millis(600);
/// When both are asked at once, only a busy machine overstates.
const OVERSTATED_AT_ONCE: Duration = Duration::from_millis(300);
const MEASUREMENTS: usize = 40;
/// The last heartbeat that a node shows.
const SEEN: &str = "SELECT coalesce(max(n), 0) FROM beat";

/// When each commit was answered: the first heartbeat has number 1.
#[derive(Default)]
struct Heartbeats {
    answered_at: Mutex<Vec<Instant>>,
    over: AtomicBool,
}

impl Heartbeats {
    fn beat(&self, cluster: &LocalCluster) {
        block_on(async {
            let writer = connect(cluster, 0).await;
            while !self.over.load(Relaxed) {
                let next = i64::try_from(self.answered_at.lock().len()).unwrap() + 1;
                writer.execute("INSERT INTO beat VALUES ($1)", &[&next]).await.unwrap();
                self.answered_at.lock().push(Instant::now());
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
    }

    /// Commits of some size, one after the other.
    fn load(&self, cluster: &LocalCluster) {
        block_on(async {
            let writer = connect(cluster, 0).await;
            while !self.over.load(Relaxed) {
                writer.batch_execute("INSERT INTO t SELECT generate_series(1, 200)").await.unwrap();
            }
        });
    }

    /// When the first heartbeat after `seen` was answered.
    fn missing_since(&self, seen: i64) -> Option<Instant> {
        self.answered_at.lock().get(usize::try_from(seen).unwrap()).copied()
    }
}

/// Compares what views say of a replica with what it shows. Gives by how much each overstated.
async fn measure(watched: &Watched, cluster: &LocalCluster, beats: &Heartbeats, id: NodeId, at_once: bool) -> Vec<f64> {
    let reader = connect(cluster, id.index()).await;
    let mut errors = Vec::with_capacity(MEASUREMENTS);
    for _ in 0..MEASUREMENTS {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..15))).await;
        let seen_before = number(&reader, SEEN).await;
        let before = Instant::now();
        if at_once {
            watched.topology.refresh_staleness(soon(LIMIT)).await;
        }
        let node = watched.topology.view().nodes[id.index()].clone();
        let now = Instant::now();
        let missing_after = beats.missing_since(number(&reader, SEEN).await);
        let covered_at = node.covered_at.expect("a position that it has replayed is known");
        assert!(
            missing_after.is_none_or(|missing| missing > covered_at),
            "{}: what was missing came {:?} before it is said to have all",
            node.name,
            covered_at - missing_after.unwrap()
        );
        let truth = beats
            .missing_since(seen_before)
            .map_or(Duration::ZERO, |missing| before.saturating_duration_since(missing));
        let overstated = node.staleness_at(now).unwrap().saturating_sub(truth);
        errors.push(overstated.as_secs_f64() * 1000.0);
    }
    errors
}

fn check(what: &str, watched: &Watched, cluster: &LocalCluster, beats: &Heartbeats) {
    for id in REPLICAS {
        for (at_once, limit) in [(false, OVERSTATED), (true, OVERSTATED_AT_ONCE)] {
            let mut errors = block_on(measure(watched, cluster, beats, id, at_once));
            errors.sort_by(f64::total_cmp);
            let [median, high, most] = [0.5, 0.95, 1.0].map(|part| {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    clippy::cast_precision_loss,
                    reason = "a rank"
                )]
                let rank = (errors.len() as f64 * part).ceil() as usize - 1;
                errors[rank]
            });
            let name = cluster.nodes()[id.index()].name();
            let when = if at_once { "asked at once" } else { "by probes" };
            println!("{what}, {name}, {when}: overstated by {median:.1} ms, p95 {high:.1} ms, most {most:.1} ms");
            assert!(high <= limit.as_secs_f64() * 1000.0, "{what}: {name} is said to be {high} ms staler than it is");
        }
    }
}

fn set(node: &LocalNode, setting: &str) {
    node.sql("postgres", &format!("ALTER SYSTEM SET {setting}")).unwrap();
    node.sql("postgres", "SELECT pg_reload_conf()").unwrap();
}

/// The process that receives WAL on a replica.
fn receiver(node: &LocalNode) -> Pid {
    Pid::from_raw(node.sql("postgres", "SELECT pid FROM pg_stat_wal_receiver").unwrap().parse().unwrap())
}

fn is_never_understated(_: &Env) {
    let cluster = started("");
    let [one, two] = [0, 1].map(|index| &cluster.replicas()[index]);
    cluster.primary().sql(DATABASE, "CREATE TABLE beat (n int8 PRIMARY KEY); GRANT ALL ON beat TO app").unwrap();
    cluster.catch_up().unwrap();
    let watched = Watched::start(&cluster, INTERVAL);
    let beats = Heartbeats::default();
    // One that catches up has more than what it was asked last.
    let settled = || {
        wait_for(LIMIT, "all have caught up", || {
            watched.topology.view().nodes[1..].iter().all(|node| node.staleness < Some(OVERSTATED_AT_ONCE))
        });
    };
    let late = || {
        let seen = one.sql(DATABASE, SEEN).unwrap().parse().unwrap();
        beats.missing_since(seen).is_some_and(|missing| missing.elapsed() >= DELAY)
    };

    check("idle", &watched, &cluster, &beats);
    thread::scope(|scope| {
        // Ends the threads also when a check fails.
        let _end = End(&beats.over);
        scope.spawn(|| beats.beat(&cluster));
        check("heartbeats", &watched, &cluster, &beats);
        scope.spawn(|| beats.load(&cluster));
        check("load", &watched, &cluster, &beats);

        let receiver = receiver(one);
        kill(receiver, Signal::SIGSTOP).unwrap();
        wait_for(LIMIT, "the stopped receiver is late", late);
        check("receiver stopped", &watched, &cluster, &beats);
        kill(receiver, Signal::SIGCONT).unwrap();

        follow(two, Some(one));
        settled();
        check("cascading", &watched, &cluster, &beats);
        set(one, "recovery_min_apply_delay = '1s'");
        wait_for(LIMIT, "the replica is as late as it was told", late);
        check("apply delay", &watched, &cluster, &beats);
    });
    assert!(!beats.answered_at.lock().is_empty());
    set(one, "recovery_min_apply_delay = 0");
    settled();
    check("idle again", &watched, &cluster, &beats);
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
