//! What an operator is told of a cluster: whatever changes, in one line each.

use super::view::{Epoch, Ineligible, NodeView, View};
use crate::types::{NodeId, Role};

/// Logs what is new in a view.
pub(super) fn log_changes(cluster: &str, before: &View, now: &View) {
    let name = |id: Option<NodeId>| id.and_then(|id| now.node(id)).map_or("none", |node| &*node.name);
    if before.primary != now.primary {
        let timeline = now.epoch.map(|epoch| epoch.timeline);
        let fork = now.history.last_fork().map(|fork| fork.at.to_string());
        tracing::info!(cluster, from = name(before.primary), to = name(now.primary), timeline, fork, "primary changed");
    }
    let about = |view: &View| view.alarm.map(|alarm| (alarm.one.node, alarm.other.node, alarm.dispute));
    if about(before) != about(now) {
        if let Some(alarm) = now.alarm {
            tracing::error!(cluster, "{}", alarm.message(now));
        } else {
            tracing::info!(cluster, "at most one node claims to be the primary again");
        }
    }
    let accepted = Accepted { epoch: now.epoch, primary: name(now.epoch.map(|epoch| epoch.primary)) };
    for (old, new) in before.nodes.iter().zip(&now.nodes) {
        if old.fenced != new.fenced {
            log_fence(cluster, new, &accepted);
        }
        // In an alarm, that says why.
        if old.eligible != new.eligible && (new.eligible != Err(Ineligible::Fenced) || now.alarm.is_none()) {
            log_eligibility(cluster, new, &accepted);
        }
    }
}

/// What the nodes are measured against.
struct Accepted<'a> {
    epoch: Option<Epoch>,
    primary: &'a str,
}

fn log_fence(cluster: &str, node: &NodeView, accepted: &Accepted<'_>) {
    let (name, primary) = (&*node.name, accepted.primary);
    if !node.fenced {
        tracing::info!(cluster, node = name, "node is not fenced any more");
    } else if node.eligible != Err(Ineligible::Fenced) {
        tracing::warn!(
            cluster,
            node = name,
            primary,
            "node is fenced: it was the primary; its servers are closed, and it gets nothing until it follows the new one"
        );
    }
}

fn log_eligibility(cluster: &str, node: &NodeView, accepted: &Accepted<'_>) {
    let name = &*node.name;
    let Err(why) = node.eligible else {
        tracing::info!(cluster, node = name, lag_bytes = node.lag_bytes, staleness = ?node.staleness, "serves reads");
        return;
    };
    match (why, node.position, accepted.epoch) {
        (Ineligible::OtherHistory, Some(its), Some(ours)) if its.system != ours.system => tracing::error!(
            cluster,
            node = name,
            system = its.system,
            expected = ours.system,
            "node belongs to another cluster: its system identifier is not the primary's; correct its address"
        ),
        (Ineligible::Fenced, Some(its), Some(ours)) => tracing::error!(
            cluster,
            node = name,
            timeline = its.timeline,
            accepted = ours.timeline,
            primary = accepted.primary,
            "node is fenced: it can write, on a timeline that was left; nothing is sent to it, and its servers are \
             closed; stop it, or make it follow the primary"
        ),
        // Said already, with the cause; and at the start nothing is known for a moment.
        (Ineligible::Unreachable, ..) | (Ineligible::LagUnknown, _, None) => {}
        (Ineligible::Primary | Ineligible::NotProbed, ..) => {
            tracing::info!(cluster, node = name, role = node.role.map(Role::as_str), why = why.as_str(), "no reads");
        }
        _ => tracing::warn!(
            cluster,
            node = name,
            why = why.as_str(),
            timeline = node.position.map(|position| position.timeline),
            lag_bytes = node.lag_bytes,
            staleness = ?node.staleness,
            "serves no reads"
        ),
    }
}
