//! What SHOW shows. Where PgBouncer has the command, its columns come first, in its order; what it has and we do not is
//! NULL, or zero where it counts.

use std::time::{Duration, Instant, SystemTime};

use super::table::{Table, Value, maybe, text};
use crate::config::{Address, Config};
use crate::net::stream::PeerInfo;
use crate::session::cancel::Activity;
use crate::session::gate::Closure;
use crate::session::worker::Shared;
use crate::topology::NodeView;
use crate::types::{PoolMode, Role};
use crate::wire::startup::Replication;

pub(super) fn version(_: &Shared) -> Table {
    let mut table = Table::new(&["version"]);
    table.row([text(concat!("Causeway ", env!("CARGO_PKG_VERSION")))]);
    table
}

pub(super) fn clusters(shared: &Shared) -> Table {
    let mut table = Table::new(&["name", "primary", "system", "#timeline", "forked_at", "paused", "#waiting", "alarm"]);
    for cluster in &shared.clusters {
        let view = cluster.topology.view();
        let primary = view.primary.and_then(|id| view.node(id)).map(|node| &node.name);
        let paused = match cluster.gate.closure() {
            None => "no",
            Some(Closure::Pause) => "pause",
            Some(Closure::Switchover) => "switchover",
        };
        table.row([
            text(&cluster.config.name),
            maybe(primary),
            maybe(view.epoch.map(|epoch| epoch.system)),
            maybe(view.epoch.map(|epoch| epoch.timeline)),
            maybe(view.history.last_fork().map(|fork| fork.at)),
            text(paused),
            text(cluster.gate.waiting()),
            maybe(view.alarm.map(|alarm| alarm.message(&view))),
        ]);
    }
    table
}

pub(super) fn nodes(shared: &Shared) -> Table {
    let mut table = Table::new(&[
        "cluster",
        "name",
        "host",
        "#port",
        "role",
        "writes",
        "reads",
        "#timeline",
        "position",
        "#lag_bytes",
        "#staleness_us",
        "#sample_age_us",
        "#version",
        "replay_paused",
    ]);
    let now = Instant::now();
    for cluster in &shared.clusters {
        let view = cluster.topology.view();
        for (node, config) in view.nodes.iter().zip(&cluster.config.nodes) {
            let (host, port) = place(&config.address);
            table.row([
                text(&cluster.config.name),
                text(&node.name),
                host,
                port,
                maybe(node.role.map(Role::as_str)),
                yes_or_no(view.primary == Some(node.id)),
                text(reads(node)),
                maybe(node.position.map(|position| position.timeline)),
                maybe(node.position.map(|position| position.lsn)),
                maybe(node.lag_bytes),
                maybe(node.staleness_at(now).map(|staleness| staleness.as_micros())),
                maybe(node.sampled_at.map(|at| now.saturating_duration_since(at).as_micros())),
                maybe(node.version),
                yes_or_no(node.replay_paused),
            ]);
        }
    }
    table
}

/// Whether it serves reads as a replica; if not, why.
fn reads(node: &NodeView) -> &'static str {
    match node.eligible {
        Ok(()) => "yes",
        Err(why) => why.as_str(),
    }
}

fn yes_or_no(yes: bool) -> Value {
    text(if yes { "yes" } else { "no" })
}

fn place(address: &Address) -> (Value, Value) {
    match address {
        Address::Tcp { host, port } => (text(host), text(port)),
        Address::Unix { directory, port } => (text(directory.display()), text(port)),
    }
}

pub(super) fn pools(shared: &Shared) -> Table {
    let mut table = Table::new(&[
        "database",
        "user",
        "#cl_active",
        "#cl_waiting",
        "#cl_active_cancel_req",
        "#cl_waiting_cancel_req",
        "#sv_active",
        "#sv_active_cancel",
        "#sv_being_canceled",
        "#sv_idle",
        "#sv_used",
        "#sv_tested",
        "#sv_login",
        "#maxwait",
        "#maxwait_us",
        "pool_mode",
        "cluster",
        "node",
    ]);
    for cluster in &shared.clusters {
        for set in cluster.pools.sets() {
            for (pool, node) in set.pools().iter().zip(&cluster.config.nodes) {
                let census = pool.census();
                let (seconds, micros) = apart(census.oldest_wait.map(|since| since.elapsed()).unwrap_or_default());
                table.row([
                    text(&set.login.database),
                    text(&set.login.user),
                    text(census.lent),
                    text(census.waiting),
                    text(0),
                    text(0),
                    text(census.lent),
                    text(0),
                    text(0),
                    text(census.idle),
                    text(0),
                    text(0),
                    text(census.connecting),
                    seconds,
                    micros,
                    text(pool_mode(&shared.config, &set.login.user)),
                    text(&cluster.config.name),
                    text(&node.name),
                ]);
            }
        }
    }
    table
}

/// Whole seconds, and the microseconds beyond them.
fn apart(duration: Duration) -> (Value, Value) {
    (text(duration.as_secs()), text(duration.subsec_micros()))
}

fn pool_mode(config: &Config, user: &str) -> &'static str {
    match config.users.get(user).and_then(|user| user.pool_mode).unwrap_or(config.pool.mode) {
        PoolMode::Transaction => "transaction",
        PoolMode::Session => "session",
    }
}

pub(super) fn clients(shared: &Shared) -> Table {
    let mut table = Table::new(&[
        "type",
        "user",
        "database",
        "replication",
        "state",
        "addr",
        "#port",
        "local_addr",
        "#local_port",
        "connect_time",
        "request_time",
        "#wait",
        "#wait_us",
        "#close_needed",
        "ptr",
        "link",
        "#remote_pid",
        "tls",
        "application_name",
        "#prepared_statements",
        "#id",
    ]);
    for slot in shared.cancels.sessions() {
        let who = &slot.who;
        let (addr, port, remote_pid) = match &who.peer {
            PeerInfo::Tcp(address) => (text(address.ip()), text(address.port()), None),
            PeerInfo::Unix { process_id } => (text("unix"), None, maybe(*process_id)),
        };
        let replication = match who.replication {
            Replication::Off => "none",
            Replication::Physical => "physical",
            Replication::Logical => "logical",
        };
        let state = match slot.activity() {
            Activity::Idle => "idle",
            Activity::Waiting => "waiting",
            Activity::Active => "active",
        };
        table.row([
            text("C"),
            text(&who.user),
            text(&who.database),
            text(replication),
            text(state),
            addr,
            port,
            None,
            None,
            text(timestamp(who.connected_at)),
            None,
            None,
            None,
            text(0),
            None,
            None,
            remote_pid,
            text(if who.tls { "TLS" } else { "" }),
            None,
            None,
            text(slot.session),
        ]);
    }
    table
}

/// `2026-01-31 12:00:00 UTC`.
fn timestamp(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string().replace('T', " ").replace('Z', " UTC")
}
