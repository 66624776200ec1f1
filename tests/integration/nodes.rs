//! Who is primary when nodes misbehave: two that can write, former primaries that come back, and what clients see of it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use causeway::app::demo::cluster::{ClusterOptions, LocalCluster, LocalNode, Stop};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use crate::faults::await_reads_on;
use crate::forks::follow;
use crate::harness::{Env, Test, block_on, cluster, wait_for};
use crate::proxy::Proxy;
use crate::traffic::{self, DATABASE};

pub const TESTS: &[Test] = &[
    ("nodes::of_two_promotions_to_one_timeline_none_is_believed", of_two_promotions_to_one_timeline_none_is_believed),
    ("nodes::a_successor_of_the_primary_takes_over_from_it", a_successor_of_the_primary_takes_over_from_it),
    ("nodes::a_higher_number_from_another_branch_is_refused", a_higher_number_from_another_branch_is_refused),
    ("nodes::a_former_primary_serves_when_it_has_been_rewound", a_former_primary_serves_when_it_has_been_rewound),
    ("nodes::a_primary_that_slept_acknowledges_nothing", a_primary_that_slept_acknowledges_nothing),
];

/// On a busy machine a node that answers late must not look like one that is gone.
pub const PATIENT_PROBE: &str =
    "\n[log]\nlevel = \"info,causeway=debug\"\n\n[probe]\ninterval = \"100ms\"\ntimeout = \"5s\"\n";

/// Recovery, promotion and rewinding on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);
const WRITE: &str = "INSERT INTO journal DEFAULT VALUES";

/// Nodes that can be rewound, and tell their histories.
fn started() -> LocalCluster {
    let extra_conf = "wal_log_hints = on\nfull_page_writes = on\n".to_owned();
    let options = ClusterOptions { extra_conf, ..ClusterOptions::default() };
    let cluster = cluster(&options);
    cluster.primary().sql("postgres", "ALTER ROLE causeway REPLICATION").unwrap();
    traffic::prepare(&cluster);
    cluster
}

/// Gives a file the owner of the directory that it is in: the tests may be root's, and the nodes never are.
fn own(path: &Path) {
    let directory = fs::metadata(path.parent().unwrap()).unwrap();
    std::os::unix::fs::chown(path, Some(directory.uid()), Some(directory.gid())).unwrap();
}

/// Makes a node that is stopped start as a replica of another one, with what it has.
fn demote(cluster: &LocalCluster, node: &LocalNode, upstream: &LocalNode) {
    let data = cluster.directory().join(node.name());
    let signal = data.join("standby.signal");
    fs::write(&signal, "").unwrap();
    own(&signal);
    let conninfo = format!(
        "primary_conninfo = 'host={} port={} user=postgres application_name={}'\nprimary_slot_name = ''\n",
        upstream.socket_dir().display(),
        upstream.port(),
        node.name()
    );
    let file = data.join("postgresql.auto.conf");
    fs::write(&file, conninfo).unwrap();
    own(&file);
}

/// Throws away what a node that is stopped has and another one has not.
fn rewind(cluster: &LocalCluster, node: &LocalNode, source: &LocalNode) {
    // pg_rewind believes the control file, which says nothing of a promotion before the next checkpoint.
    source.sql("postgres", "CHECKPOINT").unwrap();
    let bin = source.sql("postgres", "SELECT setting FROM pg_config WHERE name = 'BINDIR'").unwrap();
    let data = cluster.directory().join(node.name());
    let owner = fs::metadata(&data).unwrap();
    let server = format!("host={} port={} user=postgres dbname=postgres", source.socket_dir().display(), source.port());
    let mut command = Command::new(Path::new(&bin).join("pg_rewind"));
    command.arg("--target-pgdata").arg(&data).arg("--source-server").arg(server).current_dir("/");
    if nix::unistd::geteuid().is_root() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    demote(cluster, node, source);
}

async fn try_write(client: &Client) -> Result<(), Error> {
    client.simple_query(WRITE).await.map(drop)
}

/// Writes as soon as some node takes it.
fn await_write(proxy: &Proxy) {
    wait_for(LIMIT, "somebody takes writes", || {
        block_on(async {
            match proxy.target(DATABASE).try_connect().await {
                Ok(client) => try_write(&client).await.is_ok(),
                Err(_) => false,
            }
        })
    });
}

pub fn await_metric(proxy: &Proxy, name: &str, node: &LocalNode, wanted: f64) {
    let what = format!("{name} of {} is {wanted}", node.name());
    wait_for(LIMIT, &what, || proxy.node_metric(name, node.name()).to_bits() == wanted.to_bits());
}

fn await_primary(proxy: &Proxy, node: &LocalNode) {
    wait_for(LIMIT, &format!("{} is the primary", node.name()), || {
        proxy.log().contains(&format!(" to=\"{}\" ", node.name()))
    });
}

/// Lines of the proxy's log that have all of these.
fn logged(proxy: &Proxy, words: &[&str]) -> Vec<String> {
    let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
    proxy.log().lines().filter(has_all).map(str::to_owned).collect()
}

/// What a client is told that wants to write while nobody may.
fn refused(proxy: &Proxy, marker: &str) -> String {
    let error = block_on(async {
        let client = proxy.target(DATABASE).connect().await;
        client.simple_query(&format!("{WRITE} -- {marker}")).await.unwrap_err()
    });
    let error = error.as_db_error().unwrap_or_else(|| panic!("the session is gone: {error}"));
    assert_eq!(error.code(), &SqlState::CANNOT_CONNECT_NOW);
    error.message().to_owned()
}

fn has_all(text: &str, words: &[&str]) {
    let missing: Vec<&&str> = words.iter().filter(|word| !text.contains(**word)).collect();
    assert!(missing.is_empty(), "{missing:?} is not in {text:?}");
}

/// Both replicas of a dead primary are promoted: both call their timeline 2, and it is not the same one.
fn of_two_promotions_to_one_timeline_none_is_believed(_: &Env) {
    let cluster = started();
    let [primary, one, two] = [0, 1, 2].map(|index| &cluster.nodes()[index]);
    let proxy = Proxy::start(&cluster, PATIENT_PROBE);
    await_write(&proxy);
    primary.kill9().unwrap();
    one.promote().unwrap();
    await_primary(&proxy, one);
    await_write(&proxy);

    two.promote().unwrap();
    wait_for(LIMIT, "the alarm", || proxy.metric("causeway_split_brain", "") > 0.0);
    let told = refused(&proxy, "nobody runs this");
    has_all(&told, &["no primary", "replica1 (timeline 2, which left timeline 1 at ", "replica2 (timeline 2, which"]);
    assert!(cluster.ran_on("nobody runs this").unwrap().is_empty());
    let alarms = logged(&proxy, &["ERROR", "both claim to be the primary of one timeline"]);
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    has_all(&alarms[0], &["replica1", "replica2", "writes go nowhere"]);
    for node in [one, two] {
        await_metric(&proxy, "causeway_node_fenced", node, 1.0);
        assert!(!proxy.is_eligible(node.name()));
    }

    // The operator decides.
    two.stop(Stop::Fast).unwrap();
    await_write(&proxy);
    assert_eq!(proxy.metric("causeway_split_brain", "").to_bits(), 0.0_f64.to_bits());
    await_metric(&proxy, "causeway_node_fenced", one, 0.0);
    await_metric(&proxy, "causeway_node_fenced", two, 1.0);
    rewind(&cluster, two, one);
    two.start().unwrap();
    await_metric(&proxy, "causeway_node_eligible", two, 1.0);
    await_metric(&proxy, "causeway_node_fenced", two, 0.0);
    await_reads_on(two, &proxy.target(DATABASE));
}

/// A replica of the primary is promoted beside it: its timeline goes on from the primary's.
fn a_successor_of_the_primary_takes_over_from_it(_: &Env) {
    let cluster = started();
    let [primary, one, two] = [0, 1, 2].map(|index| &cluster.nodes()[index]);
    let proxy = Proxy::start(&cluster, PATIENT_PROBE);
    primary.kill9().unwrap();
    one.promote().unwrap();
    await_primary(&proxy, one);
    follow(two, Some(one));
    await_metric(&proxy, "causeway_node_eligible", two, 1.0);
    block_on(async {
        let target = proxy.target(DATABASE);
        let (client, idle) = (target.connect().await, target.connect().await);
        idle.simple_query(WRITE).await.unwrap();
        client.simple_query(&format!("BEGIN; {WRITE}")).await.unwrap();
        two.promote().unwrap();
        await_primary(&proxy, two);
        // The server is gone, with what it had not committed.
        let error = client.simple_query("COMMIT /* too late */").await;
        assert!(error.is_err(), "the old primary has committed");
        // As long as somebody uses the pools: their series go with them.
        wait_for(LIMIT, "its idle servers are counted as closed", || {
            let of_it = "node=\"replica1\",reason=\"fenced\"";
            proxy.metric("causeway_pool_closes_total", of_it) > 0.0
        });
        drop(idle);
    });
    await_metric(&proxy, "causeway_node_fenced", one, 1.0);
    assert_eq!(proxy.metric("causeway_split_brain", "").to_bits(), 0.0_f64.to_bits());
    await_write(&proxy);
    assert!(cluster.ran_on("too late").unwrap().is_empty());
    let fenced = logged(&proxy, &["node is fenced", "node=\"replica1\""]);
    assert_eq!(fenced.len(), 1, "{fenced:?}");
    has_all(&fenced[0], &["ERROR", "primary=\"replica2\"", "timeline=2", "accepted=3"]);
}

/// A replica that was further than the new primary, and is promoted after it has seen that one's history file, takes the
/// next number; but it has not what the new primary has.
fn a_higher_number_from_another_branch_is_refused(_: &Env) {
    let cluster = started();
    let [primary, one, two] = [0, 1, 2].map(|index| &cluster.nodes()[index]);
    let proxy = Proxy::start(&cluster, PATIENT_PROBE);
    await_write(&proxy);
    follow(one, None);
    primary.sql(DATABASE, "INSERT INTO journal SELECT now() FROM generate_series(1, 1000)").unwrap();
    let ahead = primary.sql("postgres", "SELECT pg_current_wal_flush_lsn()").unwrap();
    wait_for(LIMIT, "one replica is ahead", || {
        two.sql("postgres", &format!("SELECT pg_last_wal_replay_lsn() >= '{ahead}'")).unwrap() == "t"
    });
    primary.kill9().unwrap();
    one.promote().unwrap();
    await_primary(&proxy, one);
    await_write(&proxy);
    let source =
        format!("host={} port={} user=postgres application_name=replica2", one.socket_dir().display(), one.port());
    two.sql("postgres", &format!("ALTER SYSTEM SET primary_conninfo = '{source}'")).unwrap();
    two.sql("postgres", "ALTER SYSTEM SET primary_slot_name = ''").unwrap();
    two.sql("postgres", "SELECT pg_reload_conf()").unwrap();
    wait_for(LIMIT, "it knows of timeline 2, and cannot follow", || {
        two.sql("postgres", "SELECT count(*) FROM pg_ls_waldir() WHERE name = '00000002.history'").unwrap() == "1"
    });
    two.promote().unwrap();
    wait_for(LIMIT, "the alarm", || proxy.metric("causeway_split_brain", "") > 0.0);
    let told = refused(&proxy, "nobody runs this");
    has_all(
        &told,
        &[
            "replica1 (timeline 2, which left timeline 1 at ",
            "replica2 (timeline 3, which left timeline 1 at ",
            "the history of replica2 does not go on from that of replica1",
        ],
    );
    assert!(cluster.ran_on("nobody runs this").unwrap().is_empty());
    assert_eq!(logged(&proxy, &["ERROR", "does not go on from"]).len(), 1);
    two.stop(Stop::Fast).unwrap();
    await_write(&proxy);
}

fn a_former_primary_serves_when_it_has_been_rewound(_: &Env) {
    let cluster = started();
    let [primary, one, two] = [0, 1, 2].map(|index| &cluster.nodes()[index]);
    let proxy = Proxy::start(&cluster, PATIENT_PROBE);
    await_write(&proxy);
    // What only the primary has.
    follow(one, None);
    follow(two, None);
    primary.sql(DATABASE, "INSERT INTO item VALUES (1000, 1)").unwrap();
    primary.kill9().unwrap();
    one.promote().unwrap();
    await_primary(&proxy, one);
    await_write(&proxy);
    follow(two, Some(one));
    await_metric(&proxy, "causeway_node_eligible", two, 1.0);

    // It comes back as it was.
    primary.start().unwrap();
    await_metric(&proxy, "causeway_node_up", primary, 1.0);
    await_metric(&proxy, "causeway_node_fenced", primary, 1.0);
    has_all(
        &logged(&proxy, &["ERROR", "node is fenced", "node=\"primary\""]).concat(),
        &["timeline=1", "accepted=2", "primary=\"replica1\""],
    );
    await_write(&proxy);

    // As a replica that cannot follow, because it has gone on for itself.
    primary.stop(Stop::Fast).unwrap();
    demote(&cluster, primary, one);
    primary.start().unwrap();
    let cannot_follow = b"new timeline 2 forked off current database system timeline 1 before current recovery point";
    wait_for(LIMIT, "it finds that it cannot follow", || {
        memchr::memmem::find(&primary.log().unwrap(), cannot_follow).is_some()
    });
    let role = || proxy.metric("causeway_node_role", "node=\"primary\",role=\"replica\"") > 0.0;
    wait_for(LIMIT, "it is a replica", || role() && proxy.node_metric("causeway_node_up", "primary") > 0.0);
    await_metric(&proxy, "causeway_node_fenced", primary, 1.0);
    assert!(!proxy.is_eligible("primary"));

    primary.stop(Stop::Fast).unwrap();
    rewind(&cluster, primary, one);
    primary.start().unwrap();
    await_metric(&proxy, "causeway_node_eligible", primary, 1.0);
    await_metric(&proxy, "causeway_node_fenced", primary, 0.0);
    await_reads_on(primary, &proxy.target(DATABASE));
    let lost = "SELECT count(*) FROM item WHERE id = 1000";
    assert_eq!(primary.sql(DATABASE, lost).unwrap(), "0");
}

/// A statement reaches a primary that is frozen, and another one takes over. When the first wakes up, it does what it was
/// told, but nobody is told that it was done.
fn a_primary_that_slept_acknowledges_nothing(_: &Env) {
    let cluster = started();
    let [primary, one] = [0, 1].map(|index| &cluster.nodes()[index]);
    let proxy = Proxy::start(&cluster, PATIENT_PROBE);
    await_write(&proxy);
    block_on(async {
        let client = proxy.target(DATABASE).connect().await;
        // So that it keeps its server.
        client.simple_query("BEGIN; INSERT INTO item VALUES (2000, 1)").await.unwrap();
        primary.sigstop().unwrap();
        let writing = client.simple_query("COMMIT");
        tokio::pin!(writing);
        let early = tokio::time::timeout(Duration::ZERO, &mut writing).await;
        assert!(early.is_err(), "{early:?}");
        one.promote().unwrap();
        await_primary(&proxy, one);
        assert!(writing.await.is_err(), "acknowledged by nobody");
    });
    await_write(&proxy);
    primary.sigcont().unwrap();
    await_metric(&proxy, "causeway_node_up", primary, 1.0);
    await_metric(&proxy, "causeway_node_fenced", primary, 1.0);
    await_write(&proxy);
    assert_eq!(proxy.metric("causeway_split_brain", "").to_bits(), 0.0_f64.to_bits());
}
