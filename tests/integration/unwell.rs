//! Nodes that are there and do not serve: full, refusing, recovering for long, behind a name that moves or a network that
//! swallows everything.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use causeway::app::demo::cluster::{ClusterOptions, LocalCluster, LocalNode, Stop};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::faults::{await_catalog, await_reads_on, cluster_with_tables};
use crate::harness::{Env, Test, block_on, cluster, wait_for};
use crate::nodes::{LIMIT, PATIENT_PROBE as PROBE, await_metric};
use crate::proxy::Proxy;
use crate::target::Target;
use crate::traffic::{self, DATABASE, Traffic};

pub const TESTS: &[Test] = &[
    ("unwell::a_full_node_is_waited_for", a_full_node_is_waited_for),
    ("unwell::a_refused_login_is_not_repeated", a_refused_login_is_not_repeated),
    ("unwell::a_node_may_recover_for_long", a_node_may_recover_for_long),
    ("unwell::a_network_that_swallows_everything_is_noticed", a_network_that_swallows_everything_is_noticed),
    ("unwell::a_host_name_may_move", a_host_name_may_move),
    ("unwell::while_all_nodes_are_down_clients_may_log_in_or_not", while_all_nodes_are_down_clients_may_log_in_or_not),
];

const WRITE: &str = "INSERT INTO journal DEFAULT VALUES";

fn count(node: &LocalNode, words: &str) -> usize {
    memchr::memmem::find_iter(&node.log().unwrap(), words).count()
}

/// Takes all the connections that a node has left.
async fn fill(node: &LocalNode) -> Vec<Client> {
    let target = Target::new("127.0.0.1", node.port(), DATABASE);
    let mut clients = Vec::new();
    loop {
        match target.try_connect().await {
            Ok(client) => clients.push(client),
            Err(error) => {
                assert_eq!(error.code(), Some(&SqlState::TOO_MANY_CONNECTIONS));
                return clients;
            }
        }
    }
}

fn a_full_node_is_waited_for(_: &Env) {
    let cluster = cluster(&ClusterOptions { max_connections: 25, ..ClusterOptions::default() });
    traffic::prepare(&cluster);
    let proxy = Proxy::start(&cluster, &format!("\n[pool]\nserver_login_retry = \"2s\"\n{PROBE}"));
    block_on(async {
        let target = proxy.target(DATABASE);
        let clients = [target.connect().await, target.connect().await, target.connect().await];
        await_catalog(&proxy);
        clients[0].simple_query(&format!("BEGIN; {WRITE}")).await.unwrap();
        let crowd = fill(cluster.primary()).await;
        let writes = futures_util::future::join(clients[1].simple_query(WRITE), clients[2].simple_query(WRITE));
        let commit = async {
            // Not before they have been refused, and wait for this client's server.
            while proxy.metric("causeway_pool_waiting_clients", "node=\"primary\"") < 2.0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            clients[0].simple_query("COMMIT").await
        };
        let ((one, two), committed) = futures_util::future::join(writes, commit).await;
        assert!(one.is_ok() && two.is_ok() && committed.is_ok(), "{one:?} {two:?} {committed:?}");
        assert!(proxy.node_metric("causeway_node_up", "primary") > 0.0, "{}", proxy.log());
        assert!(!proxy.log().contains("node is unreachable"), "{}", proxy.log());
        drop(crowd);
        clients[1].simple_query(WRITE).await.unwrap();
    });
}

fn a_refused_login_is_not_repeated(_: &Env) {
    let cluster = cluster_with_tables();
    let proxy = Proxy::start(&cluster, &format!("\n[pool]\nserver_login_retry = \"1h\"\n{PROBE}"));
    let primary = cluster.primary();
    block_on(async {
        let client = proxy.target(DATABASE).connect().await;
        client.simple_query(WRITE).await.unwrap();
        primary.sql("postgres", "ALTER ROLE app NOLOGIN").unwrap();
        let end = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'app'";
        primary.sql("postgres", end).unwrap();
        let refused = |error: tokio_postgres::Error| {
            let error = error.as_db_error().unwrap_or_else(|| panic!("the session is gone: {error}"));
            let shown = (error.code().clone(), error.message().to_owned());
            assert_eq!(shown.0, SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
            assert!(shown.1.contains("node \"primary\": role \"app\" is not permitted to log in"), "{}", shown.1);
        };
        // A server that was ended may be lent before that is known.
        let mut client = client;
        let first = loop {
            match client.simple_query(WRITE).await {
                Err(error) if error.as_db_error().is_some_and(|error| error.code().code().starts_with("28")) => {
                    break error;
                }
                Err(_) => client = proxy.target(DATABASE).connect().await,
                Ok(_) => {}
            }
        };
        refused(first);
        let asked = count(primary, "is not permitted to log in");
        for _ in 0..20 {
            refused(client.simple_query(WRITE).await.unwrap_err());
        }
        assert_eq!(count(primary, "is not permitted to log in"), asked, "the node was asked again");
        assert!(proxy.node_metric("causeway_node_up", "primary") > 0.0);
    });
}

fn a_node_may_recover_for_long(_: &Env) {
    let cluster = cluster_with_tables();
    let proxy = Proxy::start(&cluster, PROBE);
    let traffic = Traffic::start(&proxy.target(DATABASE));
    let replica = &cluster.replicas()[0];
    let flag = cluster.directory().join("recovers");
    let wait = format!("while test -e {}; do sleep 0.05; done; false", flag.display());
    replica.sql("postgres", &format!("ALTER SYSTEM SET restore_command = '{wait}'")).unwrap();
    replica.stop(Stop::Immediate).unwrap();
    await_metric(&proxy, "causeway_node_eligible", replica, 0.0);
    fs::write(&flag, "").unwrap();
    thread::scope(|scope| {
        let starting = scope.spawn(|| replica.start().unwrap());
        wait_for(LIMIT, "it is said why", || {
            proxy
                .log()
                .lines()
                .any(|line| line.contains("still unreachable, for another reason") && line.contains("SQLSTATE 57P03"))
        });
        traffic.await_reads(50);
        traffic.await_writes(5);
        traffic.assert_no_failure("while a node recovers");
        let changes = proxy.log().lines().filter(|line| line.contains("node is unreachable")).count();
        assert_eq!(changes, 1, "it flaps");
        fs::remove_file(&flag).unwrap();
        starting.join().unwrap();
    });
    await_metric(&proxy, "causeway_node_eligible", replica, 1.0);
    await_reads_on(replica, &proxy.target(DATABASE));
    traffic.assert_no_failure("after a node has recovered");
}

/// Passes bytes on between its port and a node's, until it is told to swallow them: what comes then is never
/// acknowledged by anybody who listens, and nobody is told that a connection is lost.
struct Wire {
    port: u16,
    swallows: Arc<AtomicBool>,
}

impl Wire {
    fn to(node: &LocalNode) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (port, node) = (listener.local_addr().unwrap().port(), node.port());
        let swallows = Arc::new(AtomicBool::new(false));
        let state = Arc::clone(&swallows);
        // It ends with the process of the tests.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, node)) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to, state) = (from.try_clone().unwrap(), to.try_clone().unwrap(), Arc::clone(&state));
                    thread::spawn(move || pass_on(from, to, &state));
                }
            }
        });
        Self { port, swallows }
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, swallows: &AtomicBool) {
    let mut bytes = [0; 8192];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if !swallows.load(Relaxed) && to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    if !swallows.load(Relaxed) {
        // An error means that it is closed already.
        let _ = to.shutdown(std::net::Shutdown::Write);
    }
}

fn a_network_that_swallows_everything_is_noticed(_: &Env) {
    let cluster = cluster_with_tables();
    let replica = &cluster.replicas()[0];
    let wire = Wire::to(replica);
    let through = |text: String| {
        let port = |port: u16| format!("\nport = {port}\n");
        text.replace(&port(replica.port()), &port(wire.port)) + PROBE
    };
    let proxy = Proxy::start_as(&cluster, through);
    let traffic = Traffic::start(&proxy.target(DATABASE));
    await_catalog(&proxy);
    await_reads_on(replica, &proxy.target(DATABASE));
    wire.swallows.store(true, Relaxed);
    await_metric(&proxy, "causeway_node_eligible", replica, 0.0);
    traffic.await_reads(100);
    traffic.await_writes(5);
    traffic.assert_no_failure("while a replica cannot be heard");
    assert!(proxy.log().contains("error=no answer within 5s"), "{}", proxy.log());
    wire.swallows.store(false, Relaxed);
    await_metric(&proxy, "causeway_node_eligible", replica, 1.0);
    await_reads_on(replica, &proxy.target(DATABASE));
    traffic.assert_no_failure("after a replica is heard again");
}

/// Our connections to a node.
fn processes(node: &LocalNode, user: &str) -> BTreeSet<String> {
    let sql = format!("SELECT pid FROM pg_stat_activity WHERE usename = '{user}'");
    node.sql("postgres", &sql).unwrap().lines().map(str::to_owned).collect()
}

/// A name in a hosts file that only the proxy sees. The node listens at both addresses.
fn a_host_name_may_move(_: &Env) {
    let may = std::process::Command::new("unshare").args(["--mount", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        eprintln!("skipped: only root may have a hosts file of his own");
        return;
    }
    let extra_conf = "listen_addresses = '127.0.0.1, 127.0.0.2'\n".to_owned();
    let extra_hba = "host all all 127.0.0.0/8 scram-sha-256\n".to_owned();
    let cluster = cluster(&ClusterOptions { extra_conf, extra_hba, ..ClusterOptions::default() });
    traffic::prepare(&cluster);
    let hosts = tempfile::NamedTempFile::new().unwrap();
    let at = |address: &str| fs::write(hosts.path(), format!("127.0.0.1 localhost\n{address} moving-node\n")).unwrap();
    at("127.0.0.1");
    let port = format!("host = \"127.0.0.1\"\nport = {}\n", cluster.primary().port());
    let named = port.replace("127.0.0.1", "moving-node");
    let settings = format!("\n[network]\ndns_max_ttl = \"1s\"\n{PROBE}");
    let proxy =
        Proxy::start_in_mounts(&cluster, &bind_mount(hosts.path()), |text| text.replace(&port, &named) + &settings);
    let primary = cluster.primary();
    block_on(async {
        let client = proxy.target(DATABASE).connect().await;
        let held = proxy.target(DATABASE).connect().await;
        held.simple_query("BEGIN; SELECT txid_current()").await.unwrap();
        client.simple_query(WRITE).await.unwrap();
        let (servers, control) = (processes(primary, "app"), processes(primary, "causeway"));
        assert_eq!(servers.len(), 2);
        let left = |before: &BTreeSet<String>, user| before.intersection(&processes(primary, user)).count();
        at("127.0.0.2");
        wait_for(LIMIT, "the idle server is closed", || left(&servers, "app") == 1);
        held.simple_query("COMMIT").await.unwrap();
        wait_for(LIMIT, "the other one is, too", || left(&servers, "app") == 0);
        wait_for(LIMIT, "the probes have moved", || left(&control, "causeway") == 0);
        wait_for_write(&client).await;
        assert!(proxy.metric("causeway_pool_closes_total", "node=\"primary\",reason=\"moved\"") > 0.0);
        let address = "/* causeway: primary */ SELECT host(inet_server_addr())";
        let address: String = client.query_one(address, &[]).await.unwrap().get(0);
        assert_eq!(address, "127.0.0.2");
    });
    assert!(proxy.log().contains("a host name has moved"), "{}", proxy.log());
}

fn bind_mount(hosts: &Path) -> String {
    format!("mount --bind {} /etc/hosts", hosts.display())
}

async fn wait_for_write(client: &Client) {
    let writing = async {
        while client.simple_query(WRITE).await.is_err() {
            assert!(!client.is_closed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, writing).await.expect("nobody takes writes");
}

fn while_all_nodes_are_down_clients_may_log_in_or_not(_: &Env) {
    let cluster: LocalCluster = cluster_with_tables();
    let [open, closed] =
        [true, false].map(|may| Proxy::start(&cluster, &format!("\n[limits]\nlogin_during_outage = {may}\n{PROBE}")));
    block_on(async {
        let before = [open.target(DATABASE).connect().await, closed.target(DATABASE).connect().await];
        for client in &before {
            client.simple_query(WRITE).await.unwrap();
        }
        for proxy in [&open, &closed] {
            wait_for(LIMIT, "their servers are back", || {
                proxy.metric("causeway_pool_servers", "state=\"active\"").to_bits() == 0.0_f64.to_bits()
            });
        }
        cluster.nodes().iter().for_each(|node| node.stop(Stop::Immediate).unwrap());
        for proxy in [&open, &closed] {
            wait_for(LIMIT, "all are gone", || proxy.metric("causeway_node_up", "").to_bits() == 0.0_f64.to_bits());
        }
        let after = open.target(DATABASE).connect().await;
        let error = after.simple_query(WRITE).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::CANNOT_CONNECT_NOW));
        let error = closed.target(DATABASE).try_connect().await.map(drop).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(
            (error.code(), error.message()),
            (&SqlState::CANNOT_CONNECT_NOW, "no node of cluster \"demo\" can be reached")
        );
        assert!(error.hint().unwrap().contains("login_during_outage"));
        cluster.nodes().iter().for_each(|node| node.start().unwrap());
        for client in before.iter().chain([&after]) {
            wait_for_write(client).await;
        }
    });
    wait_for(LIMIT, "clients may log in again", || {
        block_on(async { closed.target(DATABASE).try_connect().await.is_ok() })
    });
}
