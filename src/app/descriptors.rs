//! The operating system's limit on open files: every client and every server takes one.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::Config;

/// Listeners, logs, probes, and what the runtimes need.
const OWN: usize = 128;

/// Takes as many descriptors as the process may have, and warns when that is too few for the configuration.
pub fn raise(config: &Config) {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => return tracing::warn!(%error, "the limit on open files is unknown"),
    };
    let limit = if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    let needed = needed(config);
    if usize::try_from(limit).is_ok_and(|limit| limit < needed) {
        tracing::warn!(
            limit,
            needed,
            "open files are limited to fewer than limits.max_client_conn and one full pool on each node need: raise the \
             limit (ulimit -Hn, LimitNOFILE=), or lower limits.max_client_conn"
        );
    }
}

/// For all clients, and a full pool on each node.
fn needed(config: &Config) -> usize {
    let nodes: usize = config.clusters.iter().map(|cluster| cluster.nodes.len()).sum();
    let servers = nodes.saturating_mul(config.pool.size);
    config.limits.max_client_conn.saturating_add(servers).saturating_add(OWN)
}
