//! From `raw` to [`Config`], once, with every mistake that is found on the way.

mod cluster;
mod consistency;
mod limits;
mod listen;
mod report;
mod user;

use std::ops::RangeInclusive;
use std::path::Path;
use std::thread;
use std::time::Duration;

use toml::Spanned;

use self::report::Report;
use super::document::Document;
use super::error::{ConfigError, ConfigErrors};
use super::{AuthType, Config, Fallback, Keepalive, Log, LogFormat, Network, Pool, Probe, Routing, raw};
use crate::types::PoolMode;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

const KIB: u64 = bytesize::KIB;
const MIB: u64 = bytesize::MIB;
const GIB: u64 = bytesize::GIB;

const AUTH_TYPES: [(&str, AuthType); 4] = [
    ("trust", AuthType::Trust),
    ("password", AuthType::Password),
    ("md5", AuthType::Md5),
    ("scram-sha-256", AuthType::ScramSha256),
];

const POOL_MODES: [(&str, PoolMode); 2] = [("transaction", PoolMode::Transaction), ("session", PoolMode::Session)];
const POOL_SIZES: RangeInclusive<u64> = 1..=10_000;

/// Checks everything. `form` are the errors found while reading; `directory` is what relative paths start from.
pub fn validate(
    file: &raw::File,
    document: &Document,
    directory: &Path,
    form: Vec<ConfigError>,
) -> Result<Config, ConfigErrors> {
    let incomplete = !form.is_empty();
    let mut report = Report { document, directory, incomplete, errors: form };
    let config = build(file, &mut report);
    if report.errors.is_empty() {
        return Ok(config);
    }
    report.errors.sort_by_key(|error| error.line);
    Err(ConfigErrors(report.errors))
}

fn build(file: &raw::File, report: &mut Report<'_>) -> Config {
    let auth_type = report.word(&file.auth_type, &AUTH_TYPES);
    let clusters = cluster::clusters(file, report);
    let databases = consistency::databases(file, &clusters, report);
    let (listeners, metrics) = listen::listeners_and_metrics(file, report);
    Config {
        workers: workers(&file.workers, report),
        listeners,
        clusters,
        databases,
        users: user::users(file, auth_type, report),
        auth_type,
        admin_users: user::known(&file.admin_users, file, report),
        stats_users: user::known(&file.stats_users, file, report),
        pool: pool(&file.pool, report),
        routing: routing(file, report),
        probe: probe(&file.probe, report),
        network: network(&file.network, report),
        limits: limits::limits(&file.limits, report),
        metrics,
        log: log(&file.log, report),
        shutdown_timeout: report.time(&file.shutdown_timeout, &(Duration::ZERO..=DAY)),
    }
}

fn workers(value: &Spanned<u64>, report: &mut Report<'_>) -> usize {
    match report.count(value, &(0..=1024)) {
        0 => thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    }
}

fn pool(raw: &raw::Pool, report: &mut Report<'_>) -> Pool {
    let pool = Pool {
        mode: report.word(&raw.pool_mode, &POOL_MODES),
        size: report.count(&raw.default_pool_size, &POOL_SIZES),
        min_size: report.count(&raw.min_pool_size, &(0..=*POOL_SIZES.end())),
        idle_timeout: report.time(&raw.server_idle_timeout, &(SECOND..=365 * DAY)),
        lifetime: report.time(&raw.server_lifetime, &(SECOND..=365 * DAY)),
        query_wait_timeout: report.time(&raw.query_wait_timeout, &(MILLISECOND..=DAY)),
        max_waiting_clients: report.count(&raw.max_waiting_clients, &limits::CLIENTS),
        max_db_connections: report.count(&raw.max_db_connections, &limits::SERVERS),
        max_user_connections: report.count(&raw.max_user_connections, &limits::SERVERS),
        connect_timeout: report.time(&raw.server_connect_timeout, &(10 * MILLISECOND..=HOUR)),
        login_retry: report.time(&raw.server_login_retry, &(Duration::ZERO..=HOUR)),
        max_prepared_statements: report.count(&raw.max_prepared_statements, &(1..=100_000)),
    };
    if pool.min_size > pool.size {
        let problem = format!("{} is more than default_pool_size, which is {}", pool.min_size, pool.size);
        report.at(&raw.min_pool_size.span(), problem);
    }
    pool
}

fn routing(file: &raw::File, report: &mut Report<'_>) -> Routing {
    let raw = &file.routing;
    Routing {
        split: *raw.split.get_ref(),
        consistency: consistency::of_all(raw, &file.probe, report),
        max_lag: report.time(&raw.max_lag, &(MILLISECOND..=DAY)),
        max_lag_bytes: report.size(&raw.max_lag_bytes, &(1..=1024 * GIB)),
        fallback: report.word(&raw.fallback, &[("primary", Fallback::Primary), ("error", Fallback::Error)]),
        max_spilled_reads: report.count(&raw.max_spilled_reads, &(0..=1_000_000)),
        spill_wait: report.time(&raw.spill_wait, &(Duration::ZERO..=DAY)),
        hold_timeout: report.time(&raw.hold_timeout, &(Duration::ZERO..=DAY)),
        max_held_statements: report.count(&raw.max_held_statements, &(0..=1_000_000)),
        resolve_commits: *raw.resolve_commits.get_ref(),
        rescue_memory: report.time(&raw.rescue_memory, &(Duration::ZERO..=365 * DAY)),
        catalog_refresh: report.time(&raw.catalog_refresh, &(SECOND..=DAY)),
    }
}

fn probe(raw: &raw::Probe, report: &mut Report<'_>) -> Probe {
    Probe {
        interval: report.time(&raw.interval, &(10 * MILLISECOND..=MINUTE)),
        timeout: report.time(&raw.timeout, &(10 * MILLISECOND..=MINUTE)),
        rise: report.count(&raw.rise, &(1..=1000)),
    }
}

fn network(raw: &raw::Network, report: &mut Report<'_>) -> Network {
    // The kernel counts whole seconds, up to 32767 of them.
    let seconds = SECOND..=9 * HOUR;
    let keepalive = Keepalive {
        idle: report.time(&raw.tcp_keepidle, &seconds),
        interval: report.time(&raw.tcp_keepintvl, &seconds),
        probes: report.count(&raw.tcp_keepcnt, &(1..=127)),
    };
    Network {
        keepalive: Some(keepalive).filter(|_| *raw.tcp_keepalive.get_ref()),
        user_timeout: report.time(&raw.tcp_user_timeout, &(Duration::ZERO..=DAY)),
        dns_max_ttl: report.time(&raw.dns_max_ttl, &(Duration::ZERO..=DAY)),
    }
}

fn log(raw: &raw::Log, report: &mut Report<'_>) -> Log {
    let level = raw.level.get_ref();
    if let Err(problem) = check_level(level) {
        report.at(&raw.level.span(), problem);
    }
    Log {
        format: report.word(&raw.format, &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
        level: level.clone(),
    }
}

/// A filter as `tracing` reads it: `info`, or with levels for single modules, `info,causeway::topology=debug`.
///
/// # Errors
/// A sentence that says what is allowed. (`tracing` itself takes a misspelt level for the name of a module.)
pub fn check_level(filter: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let known = |directive: &str| {
        let (target, level) = directive.rsplit_once('=').map_or((None, directive), |(t, level)| (Some(t), level));
        let target_ok = |target: &str| {
            !target.is_empty() && target.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'))
        };
        target.is_none_or(target_ok) && LEVELS.contains(&level)
    };
    match filter.split(',').find(|directive| !known(directive)) {
        None => Ok(()),
        Some(bad) => Err(format!(
            "{bad:?} is no level. Allowed: {}, and more of them for single modules, such as \
             \"info,causeway::topology=debug\"",
            LEVELS.join(", ")
        )),
    }
}
