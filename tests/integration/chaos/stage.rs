//! A primary and a replica, Causeway in front, a relay before each of the three; what is struck, and how it heals.

use std::sync::Arc;
use std::time::Duration;

use causeway::app::demo::cluster::{ClusterOptions, LocalCluster, LocalNode};
use nix::sys::signal::Signal;

use crate::harness::{PASSWORD, USER, cluster, wait_for};
use crate::proxy::Proxy;
use crate::raw::{RawClient, field};

use super::cell::{Fault, Target};
use super::ledger::{DATABASE, Ledger};
use super::relay::{End, Relay, Trap, Verdict, Weather};
use super::session::Door;

/// Its pool has one server for each node.
pub const NARROW: &str = "narrow";
/// Who takes the places of others.
const FILLER: &str = "filler";
const LIMIT: Duration = Duration::from_secs(60);

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    pub clients: u32,
    pub of_node: u32,
}

/// Of the matrix: soon taken.
pub const FEW: Places = Places { clients: 40, of_node: 40 };

const TABLES: &str = "CREATE TABLE journal (id text NOT NULL); CREATE TABLE account (id int PRIMARY KEY, balance int); \
                      INSERT INTO account SELECT id, 100 FROM generate_series(1, 20) id; \
                      ALTER TABLE journal OWNER TO app; ALTER TABLE account OWNER TO app";

pub struct Stage {
    proxy: Proxy,
    pub front: Relay,
    /// In the order of the cluster's nodes.
    pub behind: Vec<Relay>,
    pub cluster: LocalCluster,
    fillers: Vec<RawClient>,
    places: Places,
}

impl Stage {
    pub fn build(seed: u64, replicas: usize, places: Places) -> Self {
        let options = ClusterOptions { replicas, max_connections: places.of_node, ..ClusterOptions::default() };
        let cluster = cluster(&options);
        cluster.create_role(NARROW, PASSWORD, &format!("IN ROLE {USER}")).unwrap();
        cluster.create_database(DATABASE, USER).unwrap();
        cluster.primary().sql(DATABASE, TABLES).unwrap();
        cluster.catch_up().unwrap();
        let behind: Vec<_> = cluster.nodes().iter().map(|node| Relay::start(node.port(), seed)).collect();
        let proxy = Proxy::start_as(&cluster, |text| configuration(&text, &cluster, &behind, places));
        let front = Relay::start(proxy.target(DATABASE).port, seed);
        Self { proxy, front, behind, cluster, fillers: Vec::new(), places }
    }

    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// Where clients log in.
    pub fn door(&self, ledger: &Arc<Ledger>) -> Door {
        Door { port: self.front.port(), ledger: Arc::clone(ledger) }
    }

    /// The relay before what is struck.
    pub fn relay(&self, target: Target) -> &Relay {
        match target {
            Target::Primary => &self.behind[0],
            Target::Replica => &self.behind[1],
            Target::Proxy => &self.front,
        }
    }

    fn node(&self, target: Target) -> Option<&LocalNode> {
        match target {
            Target::Primary => Some(self.cluster.primary()),
            Target::Replica => Some(&self.cluster.replicas()[0]),
            Target::Proxy => None,
        }
    }

    /// Strikes, and lets go what is held in the traps: it is lost, or torn, or comes late.
    pub fn strike(&mut self, target: Target, fault: Fault, traps: &[Arc<Trap>]) {
        let decide = |verdict| traps.iter().for_each(|trap| trap.decide(verdict));
        match fault {
            Fault::Kill => {
                if let Some(node) = self.node(target) {
                    node.kill9().unwrap();
                    self.relay(target).listen(false);
                } else {
                    self.proxy.signal(Signal::SIGKILL);
                    self.proxy.wait();
                }
                decide(Verdict::Tear(0, End::Close));
            }
            Fault::Freeze => {
                match self.node(target) {
                    Some(node) => node.sigstop().unwrap(),
                    None => self.proxy.signal(Signal::SIGSTOP),
                }
                decide(Verdict::Pass);
            }
            Fault::Slow => {
                let [latency, jitter] = [150, 100].map(Duration::from_millis);
                let weather = Weather { latency, jitter, bandwidth: Some(200_000), frozen: false };
                self.relay(target).weather_all(weather);
                decide(Verdict::Pass);
            }
            Fault::Cut => {
                // What is in a trap is torn, the others end between two messages.
                decide(Verdict::Tear(3, End::Close));
                let torn: Vec<_> = traps.iter().filter_map(|trap| trap.owner()).collect();
                let links = self.relay(target).links();
                links.iter().filter(|link| !torn.contains(&link.number())).for_each(|link| link.end(End::Close));
            }
            Fault::Reset => {
                decide(Verdict::Tear(0, End::Reset));
                self.relay(target).end_all(End::Reset);
            }
            Fault::Full => {
                self.fill(target);
                if let Some(node) = self.node(target) {
                    end_idle_servers(node);
                    self.fill(target);
                }
                decide(Verdict::Pass);
            }
        }
    }

    pub fn heal(&mut self, target: Target, fault: Fault) {
        match (fault, self.node(target)) {
            (Fault::Kill, Some(node)) => {
                node.start().unwrap();
                self.relay(target).listen(true);
            }
            (Fault::Kill, None) => {
                self.proxy =
                    Proxy::launch(&self.cluster, |text| configuration(&text, &self.cluster, &self.behind, self.places));
                self.front.retarget(self.proxy.target(DATABASE).port);
            }
            (Fault::Freeze, Some(node)) => node.sigcont().unwrap(),
            (Fault::Freeze, None) => self.proxy.signal(Signal::SIGCONT),
            (Fault::Slow, _) => self.relay(target).weather_all(Weather::default()),
            (Fault::Cut | Fault::Reset, _) => {}
            (Fault::Full, _) => self.fillers.clear(),
        }
    }

    /// Takes all places that there are.
    fn fill(&mut self, target: Target) {
        let node = self.node(target).map(LocalNode::port);
        let port = node.unwrap_or_else(|| self.proxy.target(DATABASE).port);
        for _ in 0..=self.places.clients.max(self.places.of_node) {
            let mut filler = RawClient::connect("127.0.0.1", port);
            filler.startup(&[("user", USER), ("database", DATABASE), ("application_name", FILLER)]);
            let answer = filler.try_prove(PASSWORD);
            if let Some((_, error)) = answer.iter().find(|(tag, _)| *tag == 'E') {
                assert_eq!(field(error, b'C'), "53300", "{}", field(error, b'M'));
                return;
            }
            self.fillers.push(filler);
        }
        panic!("there is always another place on port {port}");
    }

    /// Waits until the replicas get reads, and the proxy has read the catalog, as it does when the first client comes:
    /// before, nobody knows what functions do.
    pub fn await_ready(&self) {
        self.await_replicas();
        let mut client = RawClient::connect("127.0.0.1", self.proxy.target(DATABASE).port);
        client.login(USER, PASSWORD, DATABASE);
        self.proxy.facts_loaded(DATABASE, 1);
    }

    /// Waits until the replicas get reads.
    pub fn await_replicas(&self) {
        self.proxy.await_replicas(&self.cluster);
    }

    pub fn await_waiter(&self) {
        let waits = || self.proxy.metric("causeway_pool_waiting_clients", &format!("user=\"{NARROW}\"")) >= 1.0;
        wait_for(LIMIT, "a client waits for a server", waits);
    }
}

/// Those that nobody is using now.
fn end_idle_servers(node: &LocalNode) {
    let end = format!(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity \
         WHERE usename IN ('{USER}', '{NARROW}') AND state = 'idle' AND application_name <> '{FILLER}'"
    );
    node.sql("postgres", &end).unwrap();
}

/// Nodes behind their relays, clients without passwords, and few places.
fn configuration(text: &str, cluster: &LocalCluster, behind: &[Relay], places: Places) -> String {
    let mut text = text.to_owned();
    for (node, relay) in cluster.nodes().iter().zip(behind) {
        text = text.replace(&format!("\nport = {}\n", node.port()), &format!("\nport = {}\n", relay.port()));
    }
    format!(
        "auth_type = \"trust\"\n{text}\n[users.{NARROW}]\npassword = \"{PASSWORD}\"\npool_size = 1\n\
         [pool]\ndefault_pool_size = 12\nquery_wait_timeout = \"30s\"\n[limits]\nmax_client_conn = {}\n\
         [probe]\ninterval = \"100ms\"\ntimeout = \"2s\"\n[log]\nlevel = \"info,causeway=debug\"\n",
        places.clients
    )
}
