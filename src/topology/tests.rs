//! The edge without a server: nodes that refuse.

use std::net::TcpListener;

use super::*;
use crate::config::{Address, Cluster, Control as Login, Fallback, Network, Node, Probe, Routing, ServerTls, SslMode};
use crate::types::{Consistency, Level, Overrides};

fn routing() -> Routing {
    Routing {
        split: true,
        max_lag: Duration::from_secs(10),
        max_lag_bytes: 64 << 20,
        consistency: Consistency {
            level: Level::Session,
            max_staleness: Duration::from_secs(1),
            causal_wait: Duration::from_millis(50),
        },
        max_spilled_reads: 0,
        spill_wait: Duration::from_secs(1),
        hold_timeout: Duration::ZERO,
        max_held_statements: 0,
        resolve_commits: true,
        fallback: Fallback::Primary,
        rescue_memory: Duration::from_secs(60),
        catalog_refresh: Duration::from_secs(30),
    }
}

fn probe() -> Probe {
    Probe { interval: Duration::from_millis(250), timeout: Duration::from_secs(1), rise: 2 }
}

fn network() -> Network {
    Network { keepalive: None, user_timeout: Duration::ZERO, dns_max_ttl: Duration::from_secs(15) }
}

/// A cluster of one node; nothing listens on the port.
fn cluster() -> Cluster {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = Address::Tcp { host: "127.0.0.1".to_owned(), port };
    Cluster {
        name: "main".to_owned(),
        databases: Vec::new(),
        nodes: vec![Node { name: "a".to_owned(), address }],
        server_tls: ServerTls { mode: SslMode::Prefer, root_cert_file: None },
        consistency: Overrides::default(),
        control: Login { user: "app".to_owned(), password: None, database: "postgres".to_owned() },
    }
}

fn start(cluster: &Cluster, metrics: &Arc<Metrics>) -> Arc<Topology> {
    Topology::start(cluster, &probe(), &routing(), &network(), metrics, &Handle::current()).unwrap()
}

#[tokio::test]
async fn a_view_is_there_at_once_and_tells_of_a_node_that_refuses() {
    let metrics = Metrics::new(2).unwrap();
    let topology = start(&cluster(), &metrics);
    let first = topology.view().nodes[0].eligible;
    assert!(matches!(first, Err(Ineligible::NotProbed | Ineligible::Unreachable)), "{first:?}");
    let view = topology.wait_for(|view| view.nodes[0].eligible == Err(Ineligible::Unreachable)).await;
    assert!(!view.serves());
    assert_eq!((&*view.nodes[0].name, view.primary, view.epoch), ("a", None, None));
    let text = metrics.render();
    assert!(text.contains(r#"causeway_node_up{cluster="main",node="a"} 0"#), "{text}");
    assert!(text.contains(r#"causeway_split_brain{cluster="main"} 0"#), "{text}");
}

#[tokio::test]
async fn a_reported_failure_is_in_the_view_before_the_report_returns() {
    let topology = start(&cluster(), &Metrics::new(2).unwrap());
    // The tasks run on this thread, so nothing has been probed yet.
    assert_eq!(topology.view().nodes[0].eligible, Err(Ineligible::NotProbed));
    topology.report_failure(NodeId(0));
    assert_eq!(topology.view().nodes[0].eligible, Err(Ineligible::Unreachable));
    topology.report_failure(NodeId(77));
}

#[tokio::test]
async fn a_root_certificate_that_is_not_there_stops_the_start() {
    let mut cluster = cluster();
    cluster.server_tls = ServerTls { mode: SslMode::VerifyFull, root_cert_file: Some("/nonexistent/ca.pem".into()) };
    let error =
        Topology::start(&cluster, &probe(), &routing(), &network(), &Metrics::new(2).unwrap(), &Handle::current());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("/nonexistent/ca.pem"), "{error}");
}

fn store(cluster: &Cluster, topology: &Arc<Topology>) -> FactsStore {
    FactsStore::new(cluster, &routing(), topology, &Arc::default(), &Handle::current())
}

#[tokio::test]
async fn sessions_of_one_database_share_its_facts_and_nothing_is_known_at_first() {
    let cluster = cluster();
    let topology = start(&cluster, &Metrics::new(2).unwrap());
    let store = store(&cluster, &topology);
    let (one, two, other) = (store.facts("shop"), store.facts("shop"), store.facts("other"));
    assert!(Arc::ptr_eq(&one, &two));
    assert!(!Arc::ptr_eq(&one, &other));
    assert_eq!(one.load().version, 0);
}

#[tokio::test]
async fn the_number_of_databases_is_bounded_and_beyond_it_nothing_is_known() {
    let cluster = cluster();
    let topology = start(&cluster, &Metrics::new(2).unwrap());
    let store = store(&cluster, &topology);
    for index in 0..facts::MAX_DATABASES {
        store.facts(&format!("db{index}"));
    }
    let (one, two) = (store.facts("one too many"), store.facts("one too many"));
    assert!(!Arc::ptr_eq(&one, &two), "not kept");
    assert_eq!(one.load().version, 0);
    assert!(Arc::ptr_eq(&store.facts("db0"), &store.facts("db0")));
}
