//! What all tests stand on: the shared cluster, databases of their own, time limits.

use std::fmt::Debug;
use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use causeway::app::demo::cluster::{ClusterOptions, LocalCluster, TlsIdentity};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::drivers::Proxies;
use crate::proxy::Proxy;
use crate::target::Target;

/// A name (`module::what_holds`) and what checks it; it fails by panicking.
pub type Test = (&'static str, fn(&Env));

/// The role that tests log in with.
pub const USER: &str = "app";
pub const PASSWORD: &str = "pass word's";
/// The role that a proxy probes the nodes with.
pub const CONTROL_USER: &str = "causeway";

/// No test with a future in it runs longer: a hang is a failure that says where.
const TEST_LIMIT: Duration = Duration::from_secs(60);

/// What tests share. The cluster starts when the first test asks for it.
#[derive(Default)]
pub struct Env {
    // Go before the cluster that they are in front of.
    proxy: OnceLock<Proxy>,
    drivers: OnceLock<Proxies>,
    shared: OnceLock<Shared>,
    databases: AtomicUsize,
}

/// A cluster, and the certificate authority that its nodes' certificate comes from.
pub struct Shared {
    pub cluster: LocalCluster,
    pub ca_pem: String,
}

impl Env {
    /// A healthy primary with two replicas, for all tests: read and write in a database of your own, and leave the
    /// nodes alone; [`USER`] may `SET ROLE other`. For faults there is [`cluster`].
    pub fn shared(&self) -> &Shared {
        self.shared.get_or_init(|| {
            let (ca_pem, identity) = identity();
            let options = ClusterOptions {
                max_connections: 300,
                // A commit waits for the replicas where a test's database says so.
                extra_conf: "synchronous_standby_names = '2 (replica1, replica2)'\nsynchronous_commit = local\n"
                    .to_owned(),
                tls: Some(identity),
                ..ClusterOptions::default()
            };
            let cluster = cluster(&options);
            cluster.create_role("other", PASSWORD, &format!("ROLE {USER}")).unwrap();
            Shared { cluster, ca_pem }
        })
    }

    /// A proxy in front of the shared cluster, with the defaults but for small pools: the nodes are everybody's.
    pub fn proxy(&self) -> &Proxy {
        self.proxy.get_or_init(|| Proxy::start(&self.shared().cluster, "[pool]\ndefault_pool_size = 8\n"))
    }

    /// The proxies that drivers are tested through.
    pub fn drivers(&self) -> &Proxies {
        self.drivers.get_or_init(|| Proxies::start(self))
    }

    /// A new database on all nodes of the shared cluster; it goes when the value goes.
    pub fn database(&self, test: &str) -> Database<'_> {
        let cluster = &self.shared().cluster;
        let name = format!("t_{test}_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        cluster.create_database(&name, USER).unwrap();
        cluster.catch_up().unwrap();
        Database { cluster, name }
    }
}

/// A cluster for one test, which may stop, pause and promote its nodes.
pub fn cluster(options: &ClusterOptions) -> LocalCluster {
    let cluster = LocalCluster::start(options).unwrap();
    cluster.create_role(USER, PASSWORD, "").unwrap();
    cluster.create_role(CONTROL_USER, PASSWORD, "IN ROLE pg_monitor").unwrap();
    cluster.catch_up().unwrap();
    cluster
}

pub struct Database<'a> {
    cluster: &'a LocalCluster,
    pub name: String,
}

impl Database<'_> {
    /// Runs `sql` on the primary as the superuser, and waits until the replicas show it.
    pub fn prepare(&self, sql: &str) {
        self.cluster.primary().sql(&self.name, sql).unwrap();
        self.cluster.catch_up().unwrap();
    }

    /// How to log in to a node directly: `nodes()[0]` is the primary.
    pub fn node(&self, index: usize) -> Target {
        Target::new("127.0.0.1", self.cluster.nodes()[index].port(), &self.name)
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        // The disk matters while many tests run; the rest goes with the cluster.
        let drop = format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", self.name);
        if let Err(error) = self.cluster.primary().sql("postgres", &drop) {
            eprintln!("{} stays until the end: {error}", self.name);
        }
    }
}

/// A certificate for 127.0.0.1 and localhost, and the authority that signed it.
pub fn identity() -> (String, TlsIdentity) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    // OpenSSL takes a certificate whose issuer has its own name for a self-signed one.
    params.distinguished_name.push(DnType::CommonName, "the tests' authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // OpenSSL takes a certificate whose issuer has its own name for self-signed.
    params.distinguished_name.push(DnType::CommonName, "the tests' certificate authority");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let cert = CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap();
    (ca.pem(), TlsIdentity { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
}

/// Runs a test's future on this thread.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(TEST_LIMIT, future).await.expect("the test hangs") })
}

/// Asks until `condition` holds.
pub fn wait_for(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "after {limit:?} still not: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Checks a table of cases, all of them, so that one failure does not hide the next.
pub fn check<C: Debug, T: PartialEq + Debug>(cases: &[(C, T)], mut actual: impl FnMut(&C) -> T) {
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(case, want)| {
            let got = actual(case);
            (got != *want).then(|| format!("{case:?}: want {want:?}, got {got:?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
