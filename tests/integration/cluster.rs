//! The local cluster itself: replicas stream, nodes stop, freeze, die and are promoted, and nothing stays behind.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use causeway::app::demo::cluster::{ClusterOptions, LocalCluster, LocalNode, Stop};

use tokio_postgres::error::SqlState;

use crate::harness::{Env, Test, block_on, check, cluster, wait_for};
use crate::target::node_of;

pub const TESTS: &[Test] = &[
    ("cluster::replicas_stream", replicas_stream),
    ("cluster::logs_tell_where_a_statement_ran", logs_tell_where_a_statement_ran),
    ("cluster::nodes_come_back_on_their_port", nodes_come_back_on_their_port),
    ("cluster::a_frozen_node_answers_later", a_frozen_node_answers_later),
    ("cluster::a_replica_is_promoted", a_replica_is_promoted),
    ("cluster::nothing_stays_behind", nothing_stays_behind),
    ("cluster::nothing_stays_behind_a_killed_owner", nothing_stays_behind_a_killed_owner),
];

/// In the environment, makes this program [`hold`] a cluster instead of testing.
pub const HOLD: &str = "CAUSEWAY_TEST_HOLDS_A_CLUSTER";

const LIMIT: Duration = Duration::from_secs(20);

fn one_replica() -> LocalCluster {
    cluster(&ClusterOptions { replicas: 1, ..ClusterOptions::default() })
}

fn recovering(node: &LocalNode) -> String {
    node.sql("postgres", "SELECT pg_is_in_recovery()").unwrap()
}

fn replicas_stream(env: &Env) {
    let database = env.database("stream");
    database.prepare("CREATE TABLE t AS SELECT 42 AS answer; GRANT SELECT ON t TO app");
    check(
        &[(0, ("primary", "f", "42")), (1, ("replica1", "t", "42")), (2, ("replica2", "t", "42"))]
            .map(|(index, (name, recovering, answer))| (index, format!("{name}|{recovering}|{answer}"))),
        |&index| {
            database.node(index).psql("SELECT current_setting('cluster_name'), pg_is_in_recovery(), answer FROM t")
        },
    );
    let slots = "SELECT count(*) FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid \
                 WHERE r.state = 'streaming' AND r.application_name = s.slot_name";
    assert_eq!(env.shared().cluster.primary().sql("postgres", slots).unwrap(), "2");
}

fn logs_tell_where_a_statement_ran(env: &Env) {
    let database = env.database("ran_on");
    block_on(async {
        let replica = database.node(1).connect().await;
        replica.simple_query("SELECT 1 /* simple on replica1 */").await.unwrap();
        let other = database.node(2).connect().await;
        assert_eq!(node_of(&other).await, "replica2");
        for client in [&replica, &other] {
            client.query("SELECT $1::int /* extended on both */", &[&1]).await.unwrap();
        }
        let refused = replica.simple_query("CREATE TABLE t () /* refused by replica1 */").await.unwrap_err();
        assert_eq!(refused.code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION));
    });
    database.prepare("SELECT 'on\nthe primary, second line'");
    check(
        &[
            ("simple on replica1", vec!["replica1"]),
            ("extended on both", vec!["replica1", "replica2"]),
            ("refused by replica1", vec!["replica1"]),
            ("the primary, second line", vec!["primary"]),
            ("never sent", vec![]),
        ],
        |marker| env.shared().cluster.ran_on(marker).unwrap(),
    );
}

fn nodes_come_back_on_their_port(_: &Env) {
    let cluster = one_replica();
    for node in cluster.nodes() {
        let port = node.port();
        for stop in
            [LocalNode::kill9, |node: &LocalNode| node.stop(Stop::Fast), |node: &LocalNode| node.stop(Stop::Immediate)]
        {
            stop(node).unwrap();
            assert!(node.sql("postgres", "SELECT").is_err(), "{} still answers", node.name());
            node.start().unwrap();
            assert_eq!((node.port(), node.sql("postgres", "SELECT 1").unwrap().as_str()), (port, "1"));
        }
    }
    cluster.catch_up().unwrap();
}

fn a_frozen_node_answers_later(_: &Env) {
    let cluster = one_replica();
    let replica = &cluster.replicas()[0];
    std::thread::scope(|scope| {
        replica.sigstop().unwrap();
        let answer = scope.spawn(|| recovering(replica));
        // The primary goes on, and the replica has not answered by the time the primary has.
        cluster.primary().sql("postgres", "CREATE TABLE t ()").unwrap();
        assert!(!answer.is_finished());
        replica.sigcont().unwrap();
        assert_eq!(answer.join().unwrap(), "t");
    });
    cluster.catch_up().unwrap();
    // A frozen node can be stopped, too.
    replica.sigstop().unwrap();
    replica.stop(Stop::Fast).unwrap();
}

fn a_replica_is_promoted(_: &Env) {
    let cluster = one_replica();
    cluster.primary().stop(Stop::Fast).unwrap();
    let replica = &cluster.replicas()[0];
    assert_eq!(recovering(replica), "t");
    replica.promote().unwrap();
    assert_eq!(recovering(replica), "f");
    replica.sql("postgres", "CREATE TABLE t ()").unwrap();
    assert_eq!(replica.name(), "replica1");
}

fn nothing_stays_behind(_: &Env) {
    let cluster = one_replica();
    let traces = traces(cluster.directory());
    assert_eq!(left(&traces), traces);
    drop(cluster);
    assert_eq!(left(&traces), [] as [&Path; 0]);
}

fn nothing_stays_behind_a_killed_owner(_: &Env) {
    let mut owner = Command::new(std::env::current_exe().unwrap());
    let mut owner = owner.env(HOLD, "").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut directory = String::new();
    BufReader::new(owner.stdout.as_mut().unwrap()).read_line(&mut directory).unwrap();
    let traces = traces(Path::new(directory.trim_end()));
    assert_eq!(left(&traces), traces);
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_for(LIMIT, "the watchdog has cleaned up", || left(&traces).is_empty());
}

/// Says where its cluster is, and keeps it until it is killed or its input ends.
pub fn hold() -> ExitCode {
    let cluster = LocalCluster::start(&ClusterOptions { replicas: 1, ..ClusterOptions::default() }).unwrap();
    println!("{}", cluster.directory().display());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    ExitCode::SUCCESS
}

/// What a cluster in `directory` leaves if it is not cleaned up: the directory and its two postmasters.
fn traces(directory: &Path) -> Vec<PathBuf> {
    let process = |node| {
        let text = std::fs::read_to_string(directory.join(node).join("postmaster.pid")).unwrap();
        Path::new("/proc").join(text.lines().next().unwrap()).join("cwd")
    };
    vec![directory.to_owned(), process("primary"), process("replica1")]
}

/// Those of `traces` that are there; a process that has ended has no working directory.
fn left(traces: &[PathBuf]) -> Vec<&Path> {
    traces.iter().map(PathBuf::as_path).filter(|path| path.exists()).collect()
}
