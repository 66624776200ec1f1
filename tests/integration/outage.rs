//! No primary, no replicas, no nodes at all: what clients are told, what goes on, and that all is well when they return.

use std::time::Duration;

use causeway::app::demo::cluster::{LocalNode, Stop};
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::{Client, Error};

use crate::faults::{LIMIT, PROBE, await_catalog, await_reads_on, cluster_with_tables};
use crate::harness::{Env, Test, block_on, check, wait_for};
use crate::proxy::Proxy;
use crate::target::{Target, node_of};
use crate::traffic::{DATABASE, Kind, Traffic};

pub const TESTS: &[Test] = &[
    ("outage::reads_outlive_the_primary", reads_outlive_the_primary),
    ("outage::reads_end_when_staleness_passes_the_limit", reads_end_when_staleness_passes_the_limit),
    ("outage::replicas_may_be_down_at_the_start", replicas_may_be_down_at_the_start),
    ("outage::all_nodes_may_be_down_at_the_start", all_nodes_may_be_down_at_the_start),
];

const WRITE: &str = "INSERT INTO journal DEFAULT VALUES";
const READ: &str = "SELECT count(*) FROM item";
/// A read that fails elsewhere than on a replica.
const ON_REPLICA: &str = "SELECT on_replica()";
const ON_REPLICA_SETUP: &str = "CREATE FUNCTION on_replica() RETURNS int STABLE LANGUAGE plpgsql \
                                AS 'BEGIN RETURN 1 / pg_is_in_recovery()::int; END'";

/// What happens to the primary, and what undoes it.
type Event = fn(&LocalNode);

const PRIMARY_FAULTS: &[(&str, Event, Event)] = &[
    ("stopped fast", |node| node.stop(Stop::Fast).unwrap(), |node| node.start().unwrap()),
    ("stopped immediately", |node| node.stop(Stop::Immediate).unwrap(), |node| node.start().unwrap()),
    ("killed", |node| node.kill9().unwrap(), |node| node.start().unwrap()),
    ("frozen", |node| node.sigstop().unwrap(), |node| node.sigcont().unwrap()),
];

/// What a client is told when there is nowhere to write: code, message and hint.
fn told(error: &Error) -> (SqlState, String, Option<String>) {
    let error: &DbError = error.as_db_error().unwrap_or_else(|| panic!("the session is gone: {error}"));
    (error.code().clone(), error.message().to_owned(), error.hint().map(str::to_owned))
}

/// Tries until it succeeds.
async fn in_time(client: &Client, sql: &str) {
    let trying = async {
        while let Err(error) = client.simple_query(sql).await {
            assert!(!client.is_closed(), "the session is gone: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, trying).await.unwrap_or_else(|_| panic!("still not: {sql}"));
}

fn reads_outlive_the_primary(_: &Env) {
    let cluster = cluster_with_tables();
    cluster.primary().sql(DATABASE, ON_REPLICA_SETUP).unwrap();
    cluster.catch_up().unwrap();
    let proxy = Proxy::start(&cluster, &format!("\n[routing]\nhold_timeout = \"0s\"\n{PROBE}"));
    let traffic = Traffic::start(&proxy.target(DATABASE));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    // It is between two transactions whenever something happens.
    let survivor = runtime.block_on(proxy.target(DATABASE).connect());
    await_catalog(&proxy);
    for (what, strike, heal) in PRIMARY_FAULTS {
        runtime.block_on(survivor.simple_query(WRITE)).unwrap();
        // So that it needs no position of the primary, whatever becomes of that.
        runtime.block_on(in_time(&survivor, ON_REPLICA));
        traffic.await_writes(2);
        strike(cluster.primary());
        wait_for(LIMIT, "the outage is noticed", || proxy.node_metric("causeway_node_up", "primary") < 1.0);
        let error = runtime.block_on(survivor.simple_query(WRITE)).unwrap_err();
        let (code, message, hint) = told(&error);
        assert_eq!(
            (code, message.as_str(), hint.is_some()),
            (SqlState::CANNOT_CONNECT_NOW, "cluster \"demo\" has no primary to write to", true),
            "{what}"
        );
        runtime.block_on(survivor.simple_query(READ)).unwrap();
        traffic.await_reads(20);

        heal(cluster.primary());
        runtime.block_on(in_time(&survivor, WRITE));
        traffic.await_writes(2);
        for failure in traffic.take_failures() {
            // A session whose last read happened to be on the primary is told that its level cannot be kept.
            let is_kept = failure.text.contains("at level \"session\"");
            assert!(!failure.kind.is_read() || is_kept, "{what}: {failure:?}");
            // Between two statements of a transaction the driver has nowhere to put the server's last words.
            let told = failure.code.as_ref().is_some_and(is_of_an_outage);
            assert!(told || failure.kind == Kind::Transaction && failure.code.is_none(), "{what}: {}", failure.text);
        }
        traffic.await_writes(5);
        traffic.assert_no_failure(what);
    }
}

/// Without a primary nobody can tell whether a replica is up to date, so the promise of `max_lag` ends the reads.
fn reads_end_when_staleness_passes_the_limit(_: &Env) {
    let cluster = cluster_with_tables();
    let proxy = Proxy::start(&cluster, &format!("\n[routing]\nmax_lag = \"2s\"\nhold_timeout = \"0s\"\n{PROBE}"));
    block_on(async {
        let client = proxy.target(DATABASE).connect().await;
        await_catalog(&proxy);
        cluster.primary().stop(Stop::Immediate).unwrap();
        client.simple_query(READ).await.unwrap();
        wait_for(LIMIT, "no replica is eligible", || {
            cluster.replicas().iter().all(|node| !proxy.is_eligible(node.name()))
        });
        let (code, message, hint) = told(&client.simple_query(READ).await.unwrap_err());
        assert_eq!(code, SqlState::CANNOT_CONNECT_NOW);
        assert!(message.ends_with("no primary to read from") && hint.is_some(), "{message}");
        cluster.primary().start().unwrap();
        in_time(&client, READ).await;
    });
}

/// A class that drivers take for a lost or a refused connection, or a transaction that was lost with its server.
fn is_of_an_outage(code: &SqlState) -> bool {
    code.code().starts_with("08") || code.code().starts_with("57P0") || *code == SqlState::T_R_SERIALIZATION_FAILURE
}

fn replicas_may_be_down_at_the_start(_: &Env) {
    let cluster = cluster_with_tables();
    cluster.replicas().iter().for_each(|node| node.stop(Stop::Fast).unwrap());
    let [to_primary, to_none] = ["primary", "error"].map(|fallback| {
        let settings = format!("\n[routing]\nfallback = \"{fallback}\"\n{PROBE}");
        Proxy::launch(&cluster, |text| text + &settings)
    });
    for proxy in [&to_primary, &to_none] {
        wait_for(LIMIT, "it is ready", || proxy.http("/readyz").starts_with("HTTP/1.0 200"));
    }
    block_on(async {
        let lucky = to_primary.target(DATABASE).connect().await;
        let unlucky = to_none.target(DATABASE).connect().await;
        await_catalog(&to_primary);
        await_catalog(&to_none);
        assert_eq!(node_of(&lucky).await, "primary");
        let (code, message, hint) = told(&unlucky.simple_query(READ).await.unwrap_err());
        assert_eq!(code, SqlState::CANNOT_CONNECT_NOW);
        assert!(
            message.contains("no replica") && hint.is_some_and(|hint| hint.contains("routing.fallback")),
            "{message}"
        );
        for client in [&lucky, &unlucky] {
            client.simple_query(WRITE).await.unwrap();
        }
        cluster.replicas().iter().for_each(|node| node.start().unwrap());
        in_time(&unlucky, READ).await;
        for client in [&lucky, &unlucky] {
            client.simple_query(READ).await.unwrap();
        }
    });
    for proxy in [&to_primary, &to_none] {
        let target = proxy.target(DATABASE);
        let traffic = Traffic::start(&target);
        cluster.replicas().iter().for_each(|node| await_reads_on(node, &target));
        traffic.assert_no_failure("after the replicas came");
    }
}

fn all_nodes_may_be_down_at_the_start(_: &Env) {
    let cluster = cluster_with_tables();
    cluster.nodes().iter().for_each(|node| node.stop(Stop::Fast).unwrap());
    let proxy = Proxy::launch(&cluster, |text| text + PROBE);
    let target = proxy.target(DATABASE);
    let refused =
        |target: &Target| block_on(async { target.try_connect().await.map(drop).map_err(|error| told(&error)) });
    let (code, message, _) = refused(&target).unwrap_err();
    assert_eq!((code, message.as_str()), (SqlState::CANNOT_CONNECT_NOW, "no node of cluster \"demo\" can be reached"));
    check(&[("/healthz", "200"), ("/readyz", "503")].map(|(path, status)| (path, status.to_owned())), |path| {
        proxy.http(path).split_whitespace().nth(1).unwrap_or_default().to_owned()
    });
    cluster.nodes().iter().for_each(|node| node.start().unwrap());
    wait_for(LIMIT, "clients can log in", || refused(&target).is_ok());
    // A replica may be there before the primary is.
    block_on(async { in_time(&target.connect().await, WRITE).await });
    let traffic = Traffic::start(&target);
    cluster.replicas().iter().for_each(|node| await_reads_on(node, &target));
    traffic.await_writes(2);
    traffic.assert_no_failure("after the nodes came");
}
