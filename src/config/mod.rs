//! What the operator said, checked once: `Config` is immutable and has no "unset" that means a default.

mod address;
mod document;
mod error;
mod load;
mod raw;
#[cfg(test)]
mod tests;
mod urls;
mod validate;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use self::error::{ConfigError, ConfigErrors};
pub use self::load::{load, read};
pub use self::urls::from_urls;
pub use self::validate::check_level;

use crate::types::{Consistency, Overrides, PoolMode, Secret};

/// Who connects to one of these gets the admin console: ours, and the name that PgBouncer's users know.
pub const CONSOLE_DATABASES: [&str; 2] = ["causeway", "pgbouncer"];

/// Everything Causeway runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Data-plane threads; one current-thread runtime each.
    pub workers: usize,
    pub listeners: Vec<Listener>,
    pub clusters: Vec<Cluster>,
    /// What differs for single databases, by their names.
    pub databases: BTreeMap<String, Database>,
    pub users: BTreeMap<String, User>,
    pub auth_type: AuthType,
    /// Who may do everything in the admin console.
    pub admin_users: Vec<String>,
    /// Who may look at everything there.
    pub stats_users: Vec<String>,
    pub pool: Pool,
    pub routing: Routing,
    pub probe: Probe,
    pub network: Network,
    pub limits: Limits,
    pub metrics: Option<Metrics>,
    pub log: Log,
    /// How long running transactions may take to end after SIGTERM.
    pub shutdown_timeout: Duration,
}

impl Config {
    /// What is promised to the reads of a session that says nothing about it.
    pub fn consistency(&self, cluster: &Cluster, database: &str, user: &str) -> Consistency {
        let database = self.databases.get(database).map(|database| database.consistency).unwrap_or_default();
        let user = self.users.get(user).map(|user| user.consistency).unwrap_or_default();
        user.over(database.over(cluster.consistency.over(self.routing.consistency)))
    }

    /// How many clients a user may have at a time; `None`: no limit of its own.
    pub fn user_clients(&self, user: &str) -> Option<usize> {
        let own = self.users.get(user).and_then(|user| user.max_client_connections);
        Some(own.unwrap_or(self.limits.max_user_client_connections)).filter(|&most| most > 0)
    }

    /// How many clients a database may have at a time; `None`: no limit of its own.
    pub fn database_clients(&self, database: &str) -> Option<usize> {
        let own = self.databases.get(database).and_then(|database| database.max_client_connections);
        Some(own.unwrap_or(self.limits.max_db_client_connections)).filter(|&most| most > 0)
    }

    /// The shortest of all limits on how long sessions may do something; `None`: there is none.
    pub fn shortest_timeout(&self) -> Option<Duration> {
        let users = self.users.values().map(|user| &*user.timeouts);
        users.chain([&self.limits.timeouts]).flat_map(Timeouts::all).filter(|limit| !limit.is_zero()).min()
    }
}

/// Where clients connect, or where a node listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `host` is a name or an IP address without brackets; for a listener also `*`, all addresses of both families.
    Tcp { host: String, port: u16 },
    /// The directory that holds `.s.PGSQL.<port>`, as in libpq.
    Unix { directory: PathBuf, port: u16 },
}

#[derive(Clone, Debug)]
pub struct Listener {
    pub address: Address,
    pub tls: ClientTls,
    /// Where it is written, for errors: `causeway.toml:12`, or `--listen`.
    pub origin: String,
}

/// TLS towards clients.
#[derive(Clone, Debug)]
pub enum ClientTls {
    Disable,
    /// Clients may use TLS.
    Allow {
        cert_file: PathBuf,
        key_file: PathBuf,
    },
    /// Clients without TLS are refused.
    Require {
        cert_file: PathBuf,
        key_file: PathBuf,
    },
}

#[derive(Clone, Debug)]
pub struct Cluster {
    pub name: String,
    /// Database names that it serves; empty means all.
    pub databases: Vec<String>,
    pub nodes: Vec<Node>,
    pub server_tls: ServerTls,
    pub control: Control,
    pub consistency: Overrides,
}

impl Cluster {
    pub fn serves(&self, database: &str) -> bool {
        self.databases.is_empty() || self.databases.iter().any(|name| name == database)
    }
}

#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub address: Address,
}

/// libpq's `sslmode` and what belongs to it, towards nodes.
#[derive(Clone, Debug)]
pub struct ServerTls {
    pub mode: SslMode,
    /// `None`: the system's trust store.
    pub root_cert_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    pub const NAMES: [(&str, Self); 6] = [
        ("disable", Self::Disable),
        ("allow", Self::Allow),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
        ("verify-ca", Self::VerifyCa),
        ("verify-full", Self::VerifyFull),
    ];

    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, mode)| *mode)
    }
}

/// The login of the prober and of the catalog loader.
#[derive(Clone, Debug)]
pub struct Control {
    pub user: String,
    pub password: Option<Secret>,
    pub database: String,
}

/// How clients prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthType {
    Trust,
    Password,
    Md5,
    ScramSha256,
}

/// What differs for one database.
#[derive(Clone, Copy, Debug, Default)]
pub struct Database {
    /// In place of `limits.max_db_client_connections`. Zero: no limit.
    pub max_client_connections: Option<usize>,
    /// In place of `pool.max_db_connections`. Zero: no limit.
    pub max_connections: Option<usize>,
    pub consistency: Overrides,
}

#[derive(Clone, Debug)]
pub struct User {
    pub credential: Credential,
    /// What logs in to the nodes; `None` where the nodes trust us.
    pub server_password: Option<Secret>,
    pub pool_mode: Option<PoolMode>,
    pub pool_size: Option<usize>,
    /// May make replication connections to the primary.
    pub replication: bool,
    /// In place of `limits.max_user_client_connections`. Zero: no limit.
    pub max_client_connections: Option<usize>,
    /// In place of `pool.max_user_connections`. Zero: no limit.
    pub max_connections: Option<usize>,
    pub timeouts: Arc<Timeouts>,
    pub consistency: Overrides,
}

#[derive(Clone, Debug)]
pub enum Credential {
    /// Only with `auth_type = "trust"`.
    None,
    Plain(Secret),
    /// `md5` and 32 hexadecimal digits, as in `pg_authid.rolpassword`.
    Md5(Secret),
    /// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`, as in `pg_authid.rolpassword`.
    Scram(Secret),
}

/// Servers per (node, database, user).
#[derive(Clone, Debug)]
pub struct Pool {
    pub mode: PoolMode,
    pub size: usize,
    pub min_size: usize,
    pub idle_timeout: Duration,
    pub lifetime: Duration,
    pub query_wait_timeout: Duration,
    /// In each pool. Zero: no limit.
    pub max_waiting_clients: usize,
    /// On each node, of all users. Zero: no limit.
    pub max_db_connections: usize,
    /// On each node, in all databases. Zero: no limit.
    pub max_user_connections: usize,
    pub connect_timeout: Duration,
    /// How long nobody connects after a node has refused a login.
    pub login_retry: Duration,
    /// Prepared statements kept on one server.
    pub max_prepared_statements: usize,
}

#[derive(Clone, Debug)]
pub struct Routing {
    /// Reads go to replicas; off: everything goes to the primary.
    pub split: bool,
    /// What is promised where cluster, database and user say nothing else.
    pub consistency: Consistency,
    pub max_lag: Duration,
    pub max_lag_bytes: u64,
    pub fallback: Fallback,
    /// Reads at a time, for each cluster, that may run on the primary only because no replica can serve them as
    /// promised. Zero: no limit.
    pub max_spilled_reads: usize,
    /// How long the others wait for a place there, or for a replica, before they fail.
    pub spill_wait: Duration,
    /// How long a statement that needs the primary waits while there is none. Zero: it fails at once.
    pub hold_timeout: Duration,
    /// Statements of each cluster that may wait so at a time.
    pub max_held_statements: usize,
    /// What writes tells its transaction id before it commits, so that the fate of a commit can be found out whose
    /// answer was lost.
    pub resolve_commits: bool,
    /// How long the shape of a statement that a replica refused stays with the primary.
    pub rescue_memory: Duration,
    /// How often the catalog facts are checked for changes.
    pub catalog_refresh: Duration,
}

/// Where reads go when no replica is eligible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    Primary,
    Error,
}

#[derive(Clone, Debug)]
pub struct Probe {
    pub interval: Duration,
    pub timeout: Duration,
    /// Probes in a row that must succeed before a node returns to rotation.
    pub rise: u32,
}

/// How connections are kept, and names looked up.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// `None`: silence is never taken for a loss.
    pub keepalive: Option<Keepalive>,
    /// How long what was sent to a node may go unacknowledged. Zero: as long as the kernel has patience.
    pub user_timeout: Duration,
    /// How long the addresses of a host name serve.
    pub dns_max_ttl: Duration,
}

/// How a peer that is silent is asked whether it is there.
#[derive(Clone, Copy, Debug)]
pub struct Keepalive {
    /// After so long a silence.
    pub idle: Duration,
    /// Between two questions.
    pub interval: Duration,
    /// So many in vain, and the connection is lost.
    pub probes: u32,
}

#[derive(Clone, Debug)]
pub struct Limits {
    pub max_client_conn: usize,
    /// Clients may log in while no node can be reached, if what the nodes would say to them is known.
    pub login_during_outage: bool,
    /// Zero: no limit.
    pub max_user_client_connections: usize,
    /// Zero: no limit.
    pub max_db_client_connections: usize,
    pub client_login_timeout: Duration,
    /// Of users that have none of their own.
    pub timeouts: Timeouts,
    /// What all sessions may hold of large batches.
    pub memory_bytes: usize,
    /// The largest single message from a client.
    pub max_message_bytes: usize,
    /// What is held of a batch before it must be sent on to the primary unrouted.
    pub max_batch_bytes: usize,
    /// Statement texts and classes remembered per worker.
    pub memo_bytes: usize,
    /// Named statements that one client may have at a time.
    pub max_client_statements: usize,
}

/// How long a session may do something. Zero: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From a batch's arrival to its answer's end.
    pub query: Duration,
    /// Waiting for the client in a transaction.
    pub idle_transaction: Duration,
    /// From a transaction's first batch to the end of its last.
    pub transaction: Duration,
    /// Waiting for the client outside a transaction.
    pub client_idle: Duration,
}

impl Timeouts {
    fn all(&self) -> [Duration; 4] {
        [self.query, self.idle_transaction, self.transaction, self.client_idle]
    }
}

#[derive(Clone, Debug)]
pub struct Metrics {
    pub address: SocketAddr,
    /// Where it is written, for errors: `causeway.toml:12`, or `--metrics`.
    pub origin: String,
}

#[derive(Clone, Debug)]
pub struct Log {
    pub format: LogFormat,
    /// A `tracing` filter: `info`, or `info,causeway::topology=debug`.
    pub level: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}
