//! Positions asked from real nodes, straight through the topology: the primary's, and those that replicas replay.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use causeway::app::demo::cluster::{ClusterOptions, LocalCluster};
use causeway::config;
use causeway::metrics::Metrics;
use causeway::topology::{PositionError, PositionSample, Topology, View};
use causeway::types::{Lsn, Mutant, NodeId, Position};
use tokio::runtime::Runtime;
use tokio_postgres::Client;

use crate::harness::{CONTROL_USER, Env, Test, USER, block_on, cluster, wait_for};
use crate::target::Target;

pub const TESTS: &[Test] = &[
    ("positions::a_commit_is_there_when_its_position_is", a_commit_is_there_when_its_position_is),
    ("positions::a_page_boundary_is_no_place_to_wait_for", a_page_boundary_is_no_place_to_wait_for),
    ("positions::an_unflushed_neighbour_is_not_waited_for", an_unflushed_neighbour_is_not_waited_for),
    ("positions::half_a_record_is_not_waited_for", half_a_record_is_not_waited_for),
    ("positions::many_share_a_question", many_share_a_question),
    ("positions::a_replica_that_stands_still_is_not_hammered", a_replica_that_stands_still_is_not_hammered),
    ("positions::a_node_that_does_not_answer_is_not_waited_for", a_node_that_does_not_answer_is_not_waited_for),
    ("positions::a_broken_promise_is_noticed", a_broken_promise_is_noticed),
];

pub const LIMIT: Duration = Duration::from_secs(20);
pub const DATABASE: &str = "shop";
const PAGE: u64 = 8192;
pub const REPLICAS: [NodeId; 2] = [NodeId(1), NodeId(2)];

/// A topology on a control plane of its own; tests ask it from other threads, as sessions do.
pub struct Watched {
    pub topology: Arc<Topology>,
    metrics: Arc<Metrics>,
    _control_plane: Runtime,
}

impl Watched {
    pub fn start(cluster: &LocalCluster, interval: Duration) -> Self {
        let control_plane = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let url = |port| format!("postgres://{CONTROL_USER}:pass%20word%27s@127.0.0.1:{port}/postgres");
        let replicas: Vec<String> = cluster.replicas().iter().map(|node| url(node.port())).collect();
        let config = config::from_urls(&url(cluster.primary().port()), &replicas, None, None).unwrap();
        let probe = config::Probe { interval, timeout: Duration::from_secs(1), ..config.probe };
        let metrics = Metrics::new(2).unwrap();
        let cluster = &config.clusters[0];
        let (routing, network, handle) = (&config.routing, &config.network, control_plane.handle());
        let topology = Topology::start(cluster, &probe, routing, network, &metrics, handle).unwrap();
        let watched = Self { topology, metrics, _control_plane: control_plane };
        watched.await_view(|view| view.primary.is_some() && view.eligible().count() == 2);
        watched
    }

    pub fn await_view(&self, wanted: impl Fn(&View) -> bool) -> Arc<View> {
        block_on(self.topology.wait_for(wanted))
    }

    /// A position from a question that is sent from now on.
    pub async fn position(&self) -> PositionSample {
        self.topology.ask_primary(Instant::now()).await.unwrap()
    }

    /// The value of a metric, all its series together.
    fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.render();
        let of_it = text.lines().filter(|line| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ']));
        of_it.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }
}

pub fn started(extra_conf: &str) -> LocalCluster {
    let cluster = cluster(&ClusterOptions { extra_conf: extra_conf.to_owned(), ..ClusterOptions::default() });
    cluster.create_database(DATABASE, USER).unwrap();
    cluster.primary().sql(DATABASE, "CREATE TABLE t (n int8); GRANT ALL ON t TO app").unwrap();
    cluster.catch_up().unwrap();
    cluster
}

pub async fn connect(cluster: &LocalCluster, node: usize) -> Client {
    Target::new("127.0.0.1", cluster.nodes()[node].port(), DATABASE).connect().await
}

pub async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

pub fn soon(limit: Duration) -> tokio::time::Instant {
    tokio::time::Instant::now() + limit
}

/// By level of durability: with `off` a commit is answered before it is flushed, and only the insert position has it.
fn a_commit_is_there_when_its_position_is(_: &Env) {
    let cluster = started("");
    let watched = Watched::start(&cluster, Duration::from_millis(100));
    block_on(async {
        let writer = connect(&cluster, 0).await;
        let readers = [connect(&cluster, 1).await, connect(&cluster, 2).await];
        for (synchronous_commit, rounds) in [("on", 300), ("off", 300)] {
            writer.batch_execute(&format!("SET synchronous_commit = {synchronous_commit}")).await.unwrap();
            for round in 0..rounds {
                writer.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
                let rows = number(&writer, "SELECT count(*) FROM t").await;
                let sample = watched.position().await;
                for id in REPLICAS {
                    let met = watched.topology.wait_for_replay(sample.position, &[id], soon(LIMIT)).await;
                    assert_eq!(met, Some(id), "{synchronous_commit}, round {round}");
                    let seen = number(&readers[id.index() - 1], "SELECT count(*) FROM t").await;
                    assert_eq!(seen, rows, "{synchronous_commit}, round {round}");
                }
            }
        }
    });
    assert_eq!(watched.metric("causeway_position_question_failures_total"), 0);
}

async fn inserted(client: &Client) -> u64 {
    let sql = "SELECT (pg_current_wal_insert_lsn() - '0/0')::int8";
    u64::try_from(number(client, sql).await).unwrap()
}

/// Commits so that the commit record ends exactly where a page does; gives what the primary calls its position.
async fn commit_at_a_page_boundary(writer: &Client) -> u64 {
    let commit = async |filler: u64| {
        let sql = format!(
            "BEGIN; INSERT INTO t VALUES (1); SELECT pg_logical_emit_message(true, '', repeat('x', {filler})); COMMIT"
        );
        writer.batch_execute(&sql).await.unwrap();
        inserted(writer).await
    };
    let mut cost = 0;
    for _ in 0..1000 {
        let before = inserted(writer).await;
        let left = PAGE - before % PAGE;
        // Too little is left for a filler, or what it costs is not known yet.
        let filler = if cost == 0 || left < cost + 300 { 2000 } else { left - cost };
        let after = commit(filler).await;
        if after % PAGE == 24 {
            return after;
        }
        if after / PAGE == before / PAGE {
            cost = after - before - filler;
        }
    }
    panic!("no commit ended at a page boundary");
}

fn a_page_boundary_is_no_place_to_wait_for(_: &Env) {
    let cluster = started("");
    // Nothing else is written, not even by a probe's nudge.
    let watched = Watched::start(&cluster, Duration::from_secs(60));
    block_on(async {
        let writer = connect(&cluster, 0).await;
        let readers = [connect(&cluster, 1).await, connect(&cluster, 2).await];
        for round in 0..6 {
            let header = if round == 0 {
                // A segment begins with a longer one.
                cluster.primary().sql("postgres", "SELECT pg_switch_wal()").unwrap();
                40
            } else {
                24
            };
            let shown = if round == 0 { inserted(&writer).await } else { commit_at_a_page_boundary(&writer).await };
            let sample = watched.position().await;
            assert_eq!(sample.position.lsn, Lsn(shown - header), "round {round}");
            for id in REPLICAS {
                let reader = &readers[id.index() - 1];
                // Nobody waits for it through the topology, which would help with a nudge in the end.
                let replayed = "SELECT (pg_last_wal_replay_lsn() - '0/0')::int8";
                let deadline = Instant::now() + LIMIT;
                while number(reader, replayed).await.cast_unsigned() < sample.position.lsn.0 {
                    assert!(Instant::now() < deadline, "round {round}: {} is never replayed", sample.position.lsn);
                }
                let rows = "SELECT count(*) FROM t";
                assert_eq!(number(reader, rows).await, number(&writer, rows).await);
            }
        }
    });
}

fn an_unflushed_neighbour_is_not_waited_for(_: &Env) {
    // The background writer of WAL would flush it in the end.
    let cluster = started("wal_writer_delay = '10s'\nautovacuum = off\n");
    let watched = Watched::start(&cluster, Duration::from_secs(60));
    block_on(async {
        let (neighbour, writer) = (connect(&cluster, 0).await, connect(&cluster, 0).await);
        neighbour.batch_execute("BEGIN").await.unwrap();
        let mut slowest = Duration::ZERO;
        for round in 1..=20 {
            writer.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
            neighbour.batch_execute("INSERT INTO t SELECT generate_series(1, 100)").await.unwrap();
            let sample = watched.position().await;
            assert!(sample.position.lsn > sample.flush.unwrap(), "round {round}: nothing is left to flush");
            let began = Instant::now();
            let met = watched.topology.wait_for_replay(sample.position, &REPLICAS, soon(Duration::from_secs(5))).await;
            assert!(met.is_some(), "round {round}: nobody made it flow");
            slowest = slowest.max(began.elapsed());
        }
        let nudges = watched.metric("causeway_nudges_total");
        println!("{nudges} nudges in 20 rounds, slowest wait {slowest:?}");
        assert!((1..=20).contains(&nudges), "{nudges} nudges");
        // What is flushed needs no nudge: a wait that does not end makes none.
        cluster.replicas()[0].sql("postgres", "SELECT pg_wal_replay_pause()").unwrap();
        neighbour.batch_execute("COMMIT").await.unwrap();
        let sample = watched.position().await;
        let nudges = watched.metric("causeway_nudges_total");
        let replica = &REPLICAS[..1];
        let met = watched.topology.wait_for_replay(sample.position, replica, soon(Duration::from_millis(300))).await;
        assert_eq!(met, None);
        // At the end of a page a flush position may be that of half a record; and the last one of before may still have
        // been under way.
        let doubtful = u64::from(sample.position.lsn.0.is_multiple_of(PAGE));
        assert!(watched.metric("causeway_nudges_total") <= nudges + doubtful + 1);
    });
}

/// Full pages are flushed in the background, also when the record on the last of them goes on after it: replay stops
/// before that record, and so before the flush position.
fn half_a_record_is_not_waited_for(_: &Env) {
    let cluster = started("wal_writer_delay = '10ms'\nautovacuum = off\n");
    let watched = Watched::start(&cluster, Duration::from_secs(60));
    block_on(async {
        let (neighbour, writer) = (connect(&cluster, 0).await, connect(&cluster, 0).await);
        for round in 0..5 {
            writer.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
            let written = "BEGIN; SELECT pg_logical_emit_message(true, '', repeat('x', 50000))";
            neighbour.batch_execute(written).await.unwrap();
            let deadline = Instant::now() + LIMIT;
            let position = loop {
                let sample = watched.position().await;
                let flush = sample.flush.unwrap();
                if flush < sample.position.lsn && flush.0.is_multiple_of(PAGE) {
                    break Position { lsn: flush, ..sample.position };
                }
                assert!(Instant::now() < deadline, "round {round}: {flush} of {}", sample.position.lsn);
            };
            for id in REPLICAS {
                let met = watched.topology.wait_for_replay(position, &[id], soon(Duration::from_secs(5))).await;
                assert_eq!(met, Some(id), "round {round}: {} is never replayed", position.lsn);
            }
            neighbour.batch_execute("COMMIT").await.unwrap();
        }
    });
    assert!(watched.metric("causeway_nudges_total") > 0);
}

fn many_share_a_question(_: &Env) {
    const THREADS: usize = 4;
    const WAITERS: usize = 50;
    let cluster = started("");
    let watched = Watched::start(&cluster, Duration::from_secs(60));
    let before = watched.metric("causeway_position_question_seconds_count");
    let (asked, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                block_on(futures_util::future::join_all((0..WAITERS).map(async |_| {
                    while !over.load(Relaxed) {
                        let since = Instant::now();
                        let sample = watched.topology.ask_primary(since).await.unwrap();
                        assert!(sample.sent_at >= since, "an answer to an older question");
                        asked.fetch_add(1, Relaxed);
                        // Some come and go without waiting for an answer.
                        let impatient = watched.topology.ask_primary(Instant::now());
                        let _ = tokio::time::timeout(Duration::ZERO, impatient).await;
                    }
                })));
            });
        }
        thread::sleep(Duration::from_secs(2));
        over.store(true, Relaxed);
    });
    let asked = asked.into_inner() as u64;
    let questions = watched.metric("causeway_position_question_seconds_count") - before;
    println!("{asked} positions by {questions} questions in 2 s");
    assert!(questions > 10 && asked / questions > 10, "{asked} positions by {questions} questions");
    assert!(watched.metric("causeway_position_waiters_total") >= asked);
}

fn a_replica_that_stands_still_is_not_hammered(_: &Env) {
    let cluster = started("");
    let watched = Watched::start(&cluster, Duration::from_millis(100));
    let stuck = &cluster.replicas()[0];
    stuck.sql("postgres", "SELECT pg_wal_replay_pause()").unwrap();
    wait_for(LIMIT, "replay is paused", || {
        stuck.sql("postgres", "SELECT pg_get_wal_replay_pause_state()").unwrap() == "paused"
    });
    let polls = || watched.metric("causeway_replay_polls_total");
    block_on(async {
        connect(&cluster, 0).await.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
        let wanted = watched.position().await.position;
        // The other one answers for both.
        let met = watched.topology.wait_for_replay(wanted, &REPLICAS, soon(LIMIT)).await;
        assert_eq!(met, Some(NodeId(2)));
        let before = polls();
        let waits = (0..100).map(async |_| {
            let until = soon(Duration::from_secs(1));
            assert_eq!(watched.topology.wait_for_replay(wanted, &[NodeId(1)], until).await, None);
        });
        futures_util::future::join_all(waits).await;
        let polls = polls() - before;
        assert!((10..=300).contains(&polls), "{polls} polls in a second");
        let progress = watched.topology.view().nodes[1].progress.clone();
        assert!(progress.latest().unwrap().paused);
        assert_eq!(progress.expected_wait(wanted.lsn, Instant::now()), None);
        stuck.sql("postgres", "SELECT pg_wal_replay_resume()").unwrap();
        let met = watched.topology.wait_for_replay(wanted, &[NodeId(1)], soon(LIMIT)).await;
        assert_eq!(met, Some(NodeId(1)));
        assert_eq!(progress.expected_wait(wanted.lsn, Instant::now()), Some(Duration::ZERO));
    });
    assert!(watched.metric("causeway_replay_wait_seconds_count") == 102);
}

fn a_node_that_does_not_answer_is_not_waited_for(_: &Env) {
    let cluster = started("");
    let watched = Watched::start(&cluster, Duration::from_millis(100));
    let [one, two] = [0, 1].map(|index| &cluster.replicas()[index]);
    block_on(async {
        let wanted = watched.position().await.position;
        let wait = async |nodes: &[NodeId], limit| {
            let began = Instant::now();
            (watched.topology.wait_for_replay(wanted, nodes, soon(limit)).await, began.elapsed())
        };
        // One that is frozen, with another, and alone: as long as it may be.
        one.sigstop().unwrap();
        assert_eq!(wait(&REPLICAS, LIMIT).await.0, Some(NodeId(2)));
        assert_eq!(wait(&REPLICAS[..1], Duration::from_millis(200)).await.0, None);
        one.sigcont().unwrap();
        assert_eq!(wait(&REPLICAS[..1], LIMIT).await.0, Some(NodeId(1)));
        // One that is gone says so.
        two.kill9().unwrap();
        let (met, elapsed) = wait(&REPLICAS[1..], LIMIT).await;
        assert!(met.is_none() && elapsed < LIMIT, "{met:?} after {elapsed:?}");
        assert_eq!(wait(&[], LIMIT).await.0, None);
        two.start().unwrap();
        watched.topology.wait_for(|view| !view.is_unreachable(NodeId(2))).await;
        assert_eq!(wait(&REPLICAS[1..], LIMIT).await.0, Some(NodeId(2)));

        cluster.primary().sigstop().unwrap();
        let began = Instant::now();
        let answer = watched.topology.ask_primary(began).await;
        assert!(matches!(answer, Err(PositionError::NoAnswer | PositionError::NoPrimary)), "{answer:?}");
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        watched.topology.wait_for(|view| view.primary.is_none()).await;
        assert_eq!(watched.topology.ask_primary(Instant::now()).await, Err(PositionError::NoPrimary));
        cluster.primary().sigcont().unwrap();
        watched.topology.wait_for(|view| view.primary.is_some()).await;
        watched.position().await;
    });
}

/// A fault of ours, the test that it must fail, and what that says then.
const BROKEN: &[(Mutant, &str, &str)] = &[
    (Mutant::OldPosition, "positions::many_share_a_question", "an answer to an older question"),
    (Mutant::FlushPosition, "positions::a_commit_is_there_when_its_position_is", "off, round"),
    (Mutant::FlatteringStaleness, "staleness::is_never_understated", "before it is said to have all"),
];

fn a_broken_promise_is_noticed(_: &Env) {
    // No release build can be broken.
    for (mutant, test, says) in BROKEN.iter().filter(|_| cfg!(debug_assertions)) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test]).env("CAUSEWAY_MUTANT", mutant.as_str());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains(says), "{mutant:?} is not noticed by {test}: {said}");
    }
}
