//! Nodes that lag, stop, freeze, crash and come back under steady traffic: what its clients see, and where reads go.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use causeway::app::demo::cluster::{ClusterOptions, LocalCluster, LocalNode, Stop};

use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

use crate::harness::{Env, Test, block_on, cluster, wait_for};
use crate::proxy::Proxy;
use crate::target::Target;
use crate::traffic::{self, DATABASE, MARKER, Traffic};

pub const TESTS: &[Test] = &[
    ("faults::a_lagging_replica_leaves_and_returns", a_lagging_replica_leaves_and_returns),
    ("faults::a_replica_goes_and_comes_back", a_replica_goes_and_comes_back),
    ("faults::a_recovery_conflict_is_not_seen", a_recovery_conflict_is_not_seen),
    (
        "faults::the_answer_to_a_question_that_was_given_up_is_nobodys",
        the_answer_to_a_question_that_was_given_up_is_nobodys,
    ),
    ("faults::servers_that_were_ended_are_not_missed", servers_that_were_ended_are_not_missed),
];

pub const LIMIT: Duration = Duration::from_secs(20);
pub const INTERVAL: Duration = Duration::from_millis(100);
const TIMEOUT: Duration = Duration::from_millis(500);
pub const PROBE: &str =
    "\n[log]\nlevel = \"info,causeway=debug\"\n\n[probe]\ninterval = \"100ms\"\ntimeout = \"500ms\"\n";

/// Of scheduling on a busy machine, and of our asking.
const SLACK: Duration = Duration::from_millis(500);

/// Long for a read, short for an outage.
const PATIENCE: Duration = Duration::from_secs(3);

pub fn cluster_with_tables() -> LocalCluster {
    let cluster = cluster(&ClusterOptions::default());
    traffic::prepare(&cluster);
    cluster
}

fn count_reads(node: &LocalNode) -> usize {
    memchr::memmem::find_iter(&node.log().unwrap(), MARKER).count()
}

/// Waits until the node has got more reads. Sessions that are there may all stay with another one; new ones choose anew.
pub fn await_reads_on(node: &LocalNode, target: &Target) {
    let before = count_reads(node);
    wait_for(LIMIT, "the replica gets reads", || {
        block_on(async {
            // An error is not what is asked for here: the traffic tells of errors.
            if let Ok(client) = target.try_connect().await {
                let _ = client.simple_query(&format!("SELECT sum(value) FROM item -- {MARKER}")).await;
            }
        });
        count_reads(node) > before
    });
}

/// Until the catalog is read, much of what reads is not known to do no more. It is read when the first client logs in.
pub fn await_catalog(proxy: &Proxy) {
    wait_for(LIMIT, "the catalog is read", || proxy.log().contains("catalog facts loaded"));
}

pub fn await_eligible(proxy: &Proxy, node: &LocalNode, wanted: bool) {
    let what = format!("{} is {}eligible", node.name(), if wanted { "" } else { "not " });
    wait_for(LIMIT, &what, || proxy.is_eligible(node.name()) == wanted);
}

/// The node gets no reads any more, while the clients go on reading.
fn assert_reads_moved_away(node: &LocalNode, traffic: &Traffic) {
    // Those that were routed before.
    traffic.await_reads(2);
    let before = count_reads(node);
    traffic.await_reads(50);
    assert_eq!(count_reads(node), before, "{} still gets reads", node.name());
}

fn a_lagging_replica_leaves_and_returns(_: &Env) {
    let max_lag = Duration::from_secs(1);
    let cluster = cluster_with_tables();
    let proxy = Proxy::start(&cluster, &format!("\n[routing]\nmax_lag = \"1s\"\n{PROBE}"));
    let traffic = Traffic::start(&proxy.target(DATABASE));
    let replica = &cluster.replicas()[0];
    await_reads_on(replica, &proxy.target(DATABASE));
    traffic.await_writes(5);

    replica.sql("postgres", "SELECT pg_wal_replay_pause()").unwrap();
    wait_for(LIMIT, "replay is paused", || {
        replica.sql("postgres", "SELECT pg_get_wal_replay_pause_state()").unwrap() == "paused"
    });
    let paused = Instant::now();
    await_eligible(&proxy, replica, false);
    let left_after = paused.elapsed();
    assert!(left_after <= max_lag + 2 * INTERVAL + SLACK, "it left only after {left_after:?}");
    assert!(proxy.node_metric("causeway_node_lag_seconds", replica.name()) > max_lag.as_secs_f64());
    assert_reads_moved_away(replica, &traffic);
    assert!(proxy.is_eligible(cluster.replicas()[1].name()));

    replica.sql("postgres", "SELECT pg_wal_replay_resume()").unwrap();
    await_eligible(&proxy, replica, true);
    await_reads_on(replica, &proxy.target(DATABASE));
    traffic.assert_no_failure("while a replica lagged");
}

/// Reads that are on their way while something happens.
struct LongReads(Vec<JoinHandle<()>>);

impl LongReads {
    /// Returns when one of them, at least, runs on the node.
    fn start(proxy: &Proxy, node: &LocalNode, name: &str) -> Self {
        let marker = format!("long read, {name}");
        let read = |number: i32| {
            let (target, marker) = (proxy.target(DATABASE), marker.clone());
            thread::spawn(move || {
                block_on(async {
                    let client = target.connect().await;
                    let sql = format!("/* causeway: replica */ SELECT count(*) FROM item, pg_sleep(1) -- {marker}");
                    // By the simple and by the extended protocol.
                    if number % 2 == 0 {
                        client.simple_query(&sql).await.unwrap();
                    } else {
                        client.query_one(&sql, &[]).await.unwrap();
                    }
                    // And the session goes on.
                    assert_eq!(client.query_one("SELECT $1::int", &[&number]).await.unwrap().get::<_, i32>(0), number);
                });
            })
        };
        let mut reads: Vec<JoinHandle<()>> = (0..6).map(read).collect();
        let mut begun = Instant::now();
        wait_for(LIMIT, "a long read runs on the node", || {
            // One that has just come back gets only some.
            if begun.elapsed() > Duration::from_millis(500) {
                reads.extend((0..2).map(read));
                begun = Instant::now();
            }
            memchr::memmem::find(&node.log().unwrap(), marker.as_bytes()).is_some()
        });
        Self(reads)
    }

    /// Each has got its answer, without an error.
    fn join(self) {
        self.0.into_iter().for_each(|read| read.join().unwrap());
    }
}

/// Something that happens to a node.
type Event = fn(&LocalNode);

/// What happens, and what undoes it.
const REPLICA_FAULTS: &[(&str, Event, Event)] = &[
    ("stopped fast", |node| node.stop(Stop::Fast).unwrap(), |node| node.start().unwrap()),
    ("stopped immediately", |node| node.stop(Stop::Immediate).unwrap(), |node| node.start().unwrap()),
    ("killed", |node| node.kill9().unwrap(), |node| node.start().unwrap()),
    ("frozen", |node| node.sigstop().unwrap(), |node| node.sigcont().unwrap()),
];

fn a_replica_goes_and_comes_back(_: &Env) {
    let cluster = cluster_with_tables();
    let proxy = Proxy::start(&cluster, PROBE);
    let traffic = Traffic::start(&proxy.target(DATABASE));
    let replica = &cluster.replicas()[0];
    for (what, strike, heal) in REPLICA_FAULTS {
        await_reads_on(replica, &proxy.target(DATABASE));
        let long_reads = LongReads::start(&proxy, replica, what);
        traffic.take_slowest_read();
        strike(replica);
        await_eligible(&proxy, replica, false);
        assert_reads_moved_away(replica, &traffic);
        long_reads.join();
        traffic.assert_no_failure(what);
        // Not even a read that was on its way to a frozen node waits for much longer than it takes to notice.
        let slowest = traffic.take_slowest_read();
        assert!(slowest <= TIMEOUT + PATIENCE, "{what}: a read took {slowest:?}");
        heal(replica);
        await_eligible(&proxy, replica, true);
        await_reads_on(replica, &proxy.target(DATABASE));
        traffic.assert_no_failure(&format!("{what}, and back"));
    }
}

/// A statement that holds back what replay wants to remove, and what its client gets.
const CONFLICTS: &[(&str, Result<&str, &str>)] = &[
    // Nothing was shown yet: another node answers, and sees what the primary has done in between.
    ("SELECT count(*) FROM item, pg_sleep(2)", Ok("99")),
    // The client has read a part of it.
    (
        "SELECT repeat('x', 9000), CASE WHEN id > 50 THEN pg_sleep(0.1) END FROM item",
        Err("canceling statement due to conflict with recovery"),
    ),
];

fn a_recovery_conflict_is_not_seen(_: &Env) {
    let extra_conf = "max_standby_streaming_delay = 0".to_owned();
    let cluster = cluster(&ClusterOptions { extra_conf, ..ClusterOptions::default() });
    traffic::prepare(&cluster);
    let proxy = Proxy::start(&cluster, PROBE);
    for (number, (sql, want)) in (1..).zip(CONFLICTS) {
        let target = proxy.target(DATABASE);
        let marker = format!("conflict {number}");
        let sql = format!("/* causeway: replica */ {sql} -- {marker}");
        let read = thread::spawn(move || block_on(async { target.connect().await.simple_query(&sql).await }));
        let runs =
            format!("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{marker}' AND wait_event = 'PgSleep'");
        wait_for(LIMIT, "the read runs on a replica", || {
            cluster.replicas().iter().any(|node| node.sql("postgres", &runs).unwrap() == "1")
        });
        let change = format!("DELETE FROM item WHERE id = {number}");
        cluster.primary().sql(DATABASE, &change).unwrap();
        wait_for(LIMIT, "the read ends", || {
            // It removes nothing while somebody, such as the proxy that looks at the catalog, might still see it.
            cluster.primary().sql(DATABASE, "VACUUM item").unwrap();
            read.is_finished()
        });
        let got = read.join().unwrap();
        match (got, want) {
            (Ok(rows), Ok(want)) => {
                let row = rows.iter().find_map(|message| match message {
                    SimpleQueryMessage::Row(row) => row.get(0),
                    _ => None,
                });
                assert_eq!(row, Some(*want));
            }
            (Err(error), Err(want)) => assert_eq!(error.as_db_error().unwrap().message(), *want),
            (got, want) => panic!("{got:?}, not {want:?}"),
        }
    }
    let rescues = "causeway_rescues_total{cause=\"recovery_conflict\"} 1";
    assert!(proxy.http("/metrics").lines().any(|line| line == rescues));
}

/// Ends all servers of the application's on a node, and waits for their end.
fn end_servers(node: &LocalNode) -> usize {
    let end = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'app'";
    node.sql("postgres", end).unwrap().lines().count()
}

fn servers_that_were_ended_are_not_missed(_: &Env) {
    let cluster = cluster_with_tables();
    let proxy = Proxy::start(&cluster, PROBE);
    // Idle ones, on all nodes: the next statements find new ones.
    block_on(async {
        let mut clients = Vec::new();
        for _ in 0..8 {
            clients.push(proxy.target(DATABASE).connect().await);
        }
        for _ in 0..2 {
            let reads = clients
                .iter()
                .map(|client| client.query("/* causeway: replica */ SELECT count(*) FROM item, pg_sleep(0.05)", &[]));
            futures_util::future::try_join_all(reads).await.unwrap();
            let writes =
                clients.iter().map(|client| client.simple_query("INSERT INTO journal SELECT FROM pg_sleep(0.05)"));
            futures_util::future::try_join_all(writes).await.unwrap();
            for node in cluster.nodes() {
                assert!(end_servers(node) > 0, "{} had no server", node.name());
            }
        }
    });
    // Busy ones, on replicas: reads run elsewhere, and the node stays.
    let traffic = Traffic::start(&proxy.target(DATABASE));
    traffic.await_reads(2);
    for _ in 0..4 {
        for node in cluster.replicas() {
            end_servers(node);
        }
        traffic.await_reads(2);
    }
    // One on the primary: only its own client is told.
    let target = proxy.target(DATABASE);
    let victim = thread::spawn(move || {
        block_on(async { target.connect().await.simple_query("DO $$BEGIN PERFORM pg_sleep(30); END$$").await })
    });
    let end = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE query LIKE 'DO %'";
    wait_for(LIMIT, "the victim was ended", || !cluster.primary().sql("postgres", end).unwrap().is_empty());
    // The code may have committed something before.
    assert_eq!(victim.join().unwrap().unwrap_err().code(), Some(&SqlState::TRANSACTION_RESOLUTION_UNKNOWN));
    traffic.await_writes(2);
    traffic.assert_no_failure("while servers were ended");
    assert!(!proxy.log().contains("unreachable"), "a node was blamed");
}

/// A replica freezes while the proxy asks whether a statement is still what it was, and thaws when that runs elsewhere.
fn the_answer_to_a_question_that_was_given_up_is_nobodys(_: &Env) {
    let cluster = cluster(&ClusterOptions { replicas: 1, ..ClusterOptions::default() });
    traffic::prepare(&cluster);
    // All clients get the same server of the replica.
    let proxy = Proxy::start(&cluster, &format!("\n[pool]\ndefault_pool_size = 1\n{PROBE}"));
    let replica = &cluster.replicas()[0];
    block_on(async {
        let client = proxy.target(DATABASE).connect().await;
        await_catalog(&proxy);
        let statement = client.prepare("SELECT count(*) FROM item WHERE id <= $1").await.unwrap();
        let count = async |up_to: i32| client.query_one(&statement, &[&up_to]).await.unwrap().get::<_, i64>(0);
        assert_eq!(count(7).await, 7);
        // A new server does not have the statement.
        end_servers(replica);
        let other = proxy.target(DATABASE).connect().await;
        other.query_one("SELECT sum(id) FROM item", &[]).await.unwrap();

        replica.sigstop().unwrap();
        assert_eq!(count(8).await, 8);
        replica.sigcont().unwrap();
        await_eligible(&proxy, replica, true);
        for number in 0..50 {
            assert_eq!(count(number).await, i64::from(number));
            let sql = format!("SELECT id + 1000 FROM item WHERE id = {}", number + 1);
            assert_eq!(other.query_one(&sql, &[]).await.unwrap().get::<_, i32>(0), 1001 + number);
        }
    });
}
