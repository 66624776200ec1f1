//! The shape of the TOML file and every default: the one definition of a setting.
//!
//! What a value may be is checked where it becomes part of a [`Config`](super::Config); here only its type is.
//! `config/causeway.toml` documents every field, and a test compares the defaults that it shows with the ones here.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use toml::Spanned;

use crate::types::Secret;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// A value that is not in the file.
pub fn unset<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}

fn text(value: &str) -> Spanned<String> {
    unset(value.to_owned())
}

fn seconds(value: u64) -> Spanned<Time> {
    unset(Time(Duration::from_secs(value)))
}

/// The whole file.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct File {
    /// 0: one for each core.
    pub workers: Spanned<u64>,
    pub auth_type: Spanned<String>,
    pub admin_users: Vec<Spanned<String>>,
    pub stats_users: Vec<Spanned<String>>,
    pub shutdown_timeout: Spanned<Time>,
    pub listeners: Vec<Spanned<Listener>>,
    pub clusters: BTreeMap<Spanned<String>, Spanned<Cluster>>,
    pub databases: BTreeMap<Spanned<String>, Spanned<Database>>,
    pub users: BTreeMap<Spanned<String>, Spanned<User>>,
    pub pool: Pool,
    pub routing: Routing,
    pub probe: Probe,
    pub network: Network,
    pub limits: Limits,
    pub metrics: Metrics,
    pub log: Log,
}

impl Default for File {
    fn default() -> Self {
        Self {
            workers: unset(0),
            auth_type: text("scram-sha-256"),
            admin_users: Vec::new(),
            stats_users: Vec::new(),
            shutdown_timeout: seconds(30),
            listeners: Vec::new(),
            clusters: BTreeMap::new(),
            databases: BTreeMap::new(),
            users: BTreeMap::new(),
            pool: Pool::default(),
            routing: Routing::default(),
            probe: Probe::default(),
            network: Network::default(),
            limits: Limits::default(),
            metrics: Metrics::default(),
            log: Log::default(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Listener {
    pub address: Option<Spanned<String>>,
    /// For an address without one, and for Unix sockets.
    pub port: Spanned<u64>,
    pub client_tls_sslmode: Spanned<String>,
    pub client_tls_cert_file: Option<Spanned<String>>,
    pub client_tls_key_file: Option<Spanned<String>>,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            address: None,
            port: unset(6432),
            client_tls_sslmode: text("disable"),
            client_tls_cert_file: None,
            client_tls_key_file: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Cluster {
    pub databases: Vec<Spanned<String>>,
    pub server_tls_sslmode: Spanned<String>,
    pub server_tls_ca_file: Option<Spanned<String>>,
    pub consistency: Option<Spanned<String>>,
    pub max_staleness: Option<Spanned<Time>>,
    pub causal_wait: Option<Spanned<Time>>,
    pub control: Option<Spanned<Control>>,
    pub nodes: Vec<Spanned<Node>>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            databases: vec![text(ALL_DATABASES)],
            server_tls_sslmode: text("prefer"),
            server_tls_ca_file: None,
            consistency: None,
            max_staleness: None,
            causal_wait: None,
            control: None,
            nodes: Vec::new(),
        }
    }
}

/// In a list of databases: whatever the client asks for.
pub const ALL_DATABASES: &str = "*";

#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Control {
    pub user: Option<Spanned<String>>,
    pub password: Option<Spanned<Password>>,
    pub password_file: Option<Spanned<String>>,
    pub password_env: Option<Spanned<String>>,
    pub database: Spanned<String>,
}

impl Default for Control {
    fn default() -> Self {
        Self { user: None, password: None, password_file: None, password_env: None, database: text("postgres") }
    }
}

#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Node {
    pub name: Option<Spanned<String>>,
    pub host: Option<Spanned<String>>,
    pub port: Spanned<u64>,
}

impl Default for Node {
    fn default() -> Self {
        Self { name: None, host: None, port: unset(5432) }
    }
}

#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct User {
    pub password: Option<Spanned<Password>>,
    pub password_file: Option<Spanned<String>>,
    pub password_env: Option<Spanned<String>>,
    pub server_password: Option<Spanned<Password>>,
    pub server_password_file: Option<Spanned<String>>,
    pub server_password_env: Option<Spanned<String>>,
    pub pool_mode: Option<Spanned<String>>,
    pub pool_size: Option<Spanned<u64>>,
    pub replication: Option<Spanned<bool>>,
    pub max_user_client_connections: Option<Spanned<u64>>,
    pub max_user_connections: Option<Spanned<u64>>,
    pub query_timeout: Option<Spanned<Time>>,
    pub idle_transaction_timeout: Option<Spanned<Time>>,
    pub transaction_timeout: Option<Spanned<Time>>,
    pub client_idle_timeout: Option<Spanned<Time>>,
    pub consistency: Option<Spanned<String>>,
    pub max_staleness: Option<Spanned<Time>>,
    pub causal_wait: Option<Spanned<Time>>,
}

#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Database {
    pub max_db_client_connections: Option<Spanned<u64>>,
    pub max_db_connections: Option<Spanned<u64>>,
    pub consistency: Option<Spanned<String>>,
    pub max_staleness: Option<Spanned<Time>>,
    pub causal_wait: Option<Spanned<Time>>,
}

#[expect(clippy::struct_field_names, reason = "the names are PgBouncer's")]
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Pool {
    pub pool_mode: Spanned<String>,
    pub default_pool_size: Spanned<u64>,
    pub min_pool_size: Spanned<u64>,
    pub server_idle_timeout: Spanned<Time>,
    pub server_lifetime: Spanned<Time>,
    pub query_wait_timeout: Spanned<Time>,
    pub max_waiting_clients: Spanned<u64>,
    pub max_db_connections: Spanned<u64>,
    pub max_user_connections: Spanned<u64>,
    pub server_connect_timeout: Spanned<Time>,
    pub server_login_retry: Spanned<Time>,
    pub max_prepared_statements: Spanned<u64>,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            pool_mode: text("transaction"),
            default_pool_size: unset(20),
            min_pool_size: unset(0),
            server_idle_timeout: seconds(10 * MINUTE),
            server_lifetime: seconds(HOUR),
            query_wait_timeout: seconds(2 * MINUTE),
            max_waiting_clients: unset(0),
            max_db_connections: unset(0),
            max_user_connections: unset(0),
            server_connect_timeout: seconds(15),
            server_login_retry: seconds(1),
            max_prepared_statements: unset(200),
        }
    }
}

#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Routing {
    pub split: Spanned<bool>,
    pub consistency: Spanned<String>,
    pub max_staleness: Spanned<Time>,
    pub causal_wait: Spanned<Time>,
    pub max_lag: Spanned<Time>,
    pub max_lag_bytes: Spanned<Size>,
    pub fallback: Spanned<String>,
    pub max_spilled_reads: Spanned<u64>,
    pub spill_wait: Spanned<Time>,
    pub hold_timeout: Spanned<Time>,
    pub max_held_statements: Spanned<u64>,
    pub resolve_commits: Spanned<bool>,
    pub rescue_memory: Spanned<Time>,
    pub catalog_refresh: Spanned<Time>,
}

impl Default for Routing {
    fn default() -> Self {
        Self {
            split: unset(true),
            consistency: text("session"),
            max_staleness: seconds(1),
            causal_wait: unset(Time(Duration::from_millis(50))),
            max_lag: seconds(10),
            max_lag_bytes: unset(Size(ByteSize::mib(64))),
            fallback: text("primary"),
            max_spilled_reads: unset(0),
            spill_wait: seconds(1),
            hold_timeout: seconds(30),
            max_held_statements: unset(10_000),
            resolve_commits: unset(true),
            rescue_memory: seconds(10 * MINUTE),
            catalog_refresh: seconds(30),
        }
    }
}

#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Probe {
    pub interval: Spanned<Time>,
    pub timeout: Spanned<Time>,
    pub rise: Spanned<u64>,
}

impl Default for Probe {
    fn default() -> Self {
        Self { interval: unset(Time(Duration::from_millis(250))), timeout: seconds(1), rise: unset(2) }
    }
}

#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Network {
    pub tcp_keepalive: Spanned<bool>,
    pub tcp_keepidle: Spanned<Time>,
    pub tcp_keepintvl: Spanned<Time>,
    pub tcp_keepcnt: Spanned<u64>,
    pub tcp_user_timeout: Spanned<Time>,
    pub dns_max_ttl: Spanned<Time>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            tcp_keepalive: unset(true),
            tcp_keepidle: seconds(30),
            tcp_keepintvl: seconds(5),
            tcp_keepcnt: unset(3),
            tcp_user_timeout: seconds(30),
            dns_max_ttl: seconds(15),
        }
    }
}

#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Limits {
    pub max_client_conn: Spanned<u64>,
    pub max_user_client_connections: Spanned<u64>,
    pub max_db_client_connections: Spanned<u64>,
    pub client_login_timeout: Spanned<Time>,
    pub login_during_outage: Spanned<bool>,
    pub client_idle_timeout: Spanned<Time>,
    pub query_timeout: Spanned<Time>,
    pub idle_transaction_timeout: Spanned<Time>,
    pub transaction_timeout: Spanned<Time>,
    pub max_memory: Spanned<Size>,
    pub max_message_size: Spanned<Size>,
    pub max_batch_size: Spanned<Size>,
    pub memo_size: Spanned<Size>,
    pub max_client_statements: Spanned<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_client_conn: unset(10_000),
            max_user_client_connections: unset(0),
            max_db_client_connections: unset(0),
            client_login_timeout: seconds(MINUTE),
            login_during_outage: unset(true),
            client_idle_timeout: seconds(0),
            query_timeout: seconds(0),
            idle_transaction_timeout: seconds(0),
            transaction_timeout: seconds(0),
            max_memory: unset(Size(ByteSize::gib(1))),
            max_message_size: unset(Size(ByteSize::gib(1))),
            max_batch_size: unset(Size(ByteSize::mib(16))),
            memo_size: unset(Size(ByteSize::mib(16))),
            max_client_statements: unset(10_000),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Metrics {
    pub address: Option<Spanned<String>>,
}

#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Log {
    pub format: Spanned<String>,
    pub level: Spanned<String>,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: text("text"), level: text("info") }
    }
}

/// A duration, written with its unit.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Time(pub Duration);

/// A number of bytes, written with its unit.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Size(pub ByteSize);

/// A string that no error shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Password(pub Secret);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Duration::ZERO => f.write_str("0s"),
            value => write!(f, "{}", humantime::format_duration(value)),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("GiB", bytesize::GIB), ("MiB", bytesize::MIB), ("KiB", bytesize::KIB)];
        let bytes = self.0.as_u64();
        match units.iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor)) {
            Some((unit, factor)) => write!(f, "{}{unit}", bytes / factor),
            None => write!(f, "{bytes}B"),
        }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Quantity {
            what: "a duration with a unit (ms, s, m, h or d), such as \"250ms\", \"5s\" or \"1m\"",
            units: &["ms", "s", "m", "h", "d"],
            parse: |text| humantime::parse_duration(text).ok().map(Time),
        })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Quantity {
            what: "a size with a unit (B, KiB, MiB or GiB), such as \"64KiB\", \"16MiB\" or \"1GiB\"",
            units: &["B", "KiB", "MiB", "GiB"],
            // The crate saturates; a value at the top of the range is out of every limit of ours.
            parse: |text| text.parse().ok().map(Size),
        })
    }
}

impl<'de> Deserialize<'de> for Password {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The deserializer's own error would show the value.
        match String::deserialize(deserializer) {
            Ok(text) => Ok(Self(Secret::new(text))),
            Err(_) => Err(D::Error::custom("must be a string in quotes")),
        }
    }
}

/// Reads a number with a unit from a string.
struct Quantity<T> {
    what: &'static str,
    units: &'static [&'static str],
    parse: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for Quantity<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        if unit.is_empty() && !text.is_empty() {
            return Err(E::custom(format!("{text:?} has no unit; it must be {}", self.what)));
        }
        let parsed = if self.units.contains(&unit.trim_start()) { (self.parse)(text) } else { None };
        parsed.ok_or_else(|| E::custom(format!("{text:?} is not {}", self.what)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
        Err(E::custom(format!("{value} has no unit; it must be {}", self.what)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<T, E> {
        Err(E::custom(format!("{value} has no unit; it must be {}", self.what)))
    }
}
