//! A planned switchover: nothing is written while a replica that has everything takes over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Notices;
use super::pause::{Closed, drained};
use crate::error::{Error, Fault, Result, sqlstate};
use crate::session::cluster::Cluster;
use crate::session::gate::Closure;
use crate::session::worker::Shared;
use crate::topology::PromoteError;
use crate::types::{NodeId, parse_duration, show_duration};

/// How long clients may be held up for it where nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Once a replica was told to take over, writes may not go on elsewhere, so for so long it is waited for.
const PROMOTION_WAIT: Duration = Duration::from_secs(60);
/// How often the new primary is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What the operator wants.
#[derive(Debug)]
pub(super) struct Order {
    cluster: Arc<Cluster>,
    to: NodeId,
    to_name: String,
    /// The operator promotes the node.
    waits: bool,
    limit: Duration,
}

impl Order {
    /// # Errors
    /// 42704: there is no such node; 22023: no such duration.
    pub(super) fn new(cluster: Arc<Cluster>, node: Option<&str>, waits: bool, duration: Option<&str>) -> Result<Self> {
        let name = node.unwrap_or_default();
        let found = (0..).map(NodeId).zip(&cluster.config.nodes).find(|(_, node)| node.name == name);
        let Some((to, _)) = found else {
            let message = format!("cluster {:?} has no node {name:?}", cluster.config.name);
            return Err(Error::new(Fault::Client, sqlstate::UNDEFINED_OBJECT, message).hint("SHOW NODES lists them."));
        };
        let limit =
            duration.map_or(Some(TIMEOUT), parse_duration).filter(|limit| !limit.is_zero()).ok_or_else(|| {
                let message = format!("{:?} is no duration", duration.unwrap_or_default());
                Error::new(Fault::Client, sqlstate::INVALID_PARAMETER_VALUE, message)
                    .hint("Write for example TIMEOUT 30s.")
            })?;
        Ok(Self { cluster, to, to_name: name.to_owned(), waits, limit })
    }

    /// # Errors
    /// 55000: there is nothing to switch from, or the node is not fit to switch to.
    fn check(&self) -> Result<()> {
        let view = self.cluster.topology.view();
        let why = match (view.primary, view.node(self.to).map(|node| node.eligible)) {
            (None, _) => "the cluster has no primary to switch from".to_owned(),
            (Some(primary), _) if primary == self.to => "it is the primary".to_owned(),
            (Some(_), Some(Err(why))) => format!("it is not fit to take over ({})", why.as_str()),
            (Some(_), _) => return Ok(()),
        };
        let message = format!("no switchover to node {:?}: {why}", self.to_name);
        Err(Error::new(Fault::Node, sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
            .hint("SHOW NODES says how the nodes are."))
    }

    fn failed(&self, why: &str) -> Error {
        let message = format!("the switchover to node {:?} was given up: {why}", self.to_name);
        Error::new(Fault::Node, sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
            .detail("Writes go on where they went before.")
    }

    fn late(&self, why: &str) -> Error {
        self.failed(&format!("{why} within {}", show_duration(self.limit)))
            .hint("Say TIMEOUT with a longer time; clients wait no longer than pool.query_wait_timeout.")
    }
}

/// Pauses, promotes, resumes. Whatever happens, the cluster is not paused when it returns or is dropped; but once the
/// node was told to take over, that goes on by itself.
///
/// # Errors
/// It came to nothing, and the old primary is used again.
pub(super) async fn switch_over(shared: &Arc<Shared>, user: &str, order: Order, notices: &Notices) -> Result<()> {
    order.check()?;
    let closed = Closed::new(shared, &order.cluster, Closure::Switchover)?;
    let (cluster, node) = (order.cluster.config.name.clone(), order.to_name.clone());
    tracing::warn!(cluster, node, user, "switchover: writes are paused");
    let began = Instant::now();
    let deadline = tokio::time::Instant::now() + order.limit;
    let drain = drained(shared, &order.cluster, notices);
    shared
        .timers
        .timeout_at(deadline, drain)
        .await
        .map_err(|_| order.late("the primary's transactions did not end"))?;
    catch_up(&order, deadline).await?;
    if order.waits {
        let _ = notices.send(format!("writes are paused, and node {node:?} has them all: promote it now"));
        let promoted = shared.timers.timeout_at(deadline, leads(shared, &order));
        promoted.await.map_err(|_| order.late("it was not promoted").hint("Do not promote it any more."))?;
        drop(closed);
    } else {
        let promotion = promote(Arc::clone(shared), order, closed);
        let promoted = tokio::task::spawn_local(promotion).await;
        promoted.map_err(|error| {
            Error::new(Fault::Proxy, sqlstate::INTERNAL_ERROR, "the switchover broke off").source(error)
        })??;
    }
    let paused = began.elapsed();
    tracing::warn!(cluster, node, user, ?paused, "switchover: the node is the primary, writes go on");
    let _ = notices.send(format!("node {node:?} is the primary; writes were paused for {} ms", paused.as_millis()));
    Ok(())
}

/// Waits until the node has replayed all that the primary has.
async fn catch_up(order: &Order, deadline: tokio::time::Instant) -> Result<()> {
    let topology = &order.cluster.topology;
    let sample = topology.ask_primary(Instant::now()).await;
    let sample = sample.map_err(|error| order.failed(&format!("the primary's position is not known: {error}")))?;
    match topology.wait_for_replay(sample.position, &[order.to], deadline).await {
        Some(_) => Ok(()),
        None => Err(order.late(&format!("it did not replay {}", sample.position.lsn))),
    }
}

async fn promote(shared: Arc<Shared>, order: Order, closed: Closed) -> Result<()> {
    let Order { cluster, to, .. } = &order;
    match cluster.topology.promote(&cluster.config, *to).await {
        Ok(()) => {}
        Err(error @ PromoteError::Refused(_)) => {
            let hint = format!(
                "GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO {:?} in database {:?}; or say WAIT and promote \
                 the node yourself.",
                cluster.config.control.user, cluster.config.control.database
            );
            return Err(order.failed(&error.to_string()).hint(hint));
        }
        // It may have heard.
        Err(PromoteError::Unknown(why)) => tracing::warn!(node = order.to_name, why, "promotion: no answer"),
    }
    let promoted = shared.timers.timeout(PROMOTION_WAIT, leads(&shared, &order)).await;
    drop(closed);
    promoted.map(drop).map_err(|_| {
        tracing::error!(
            cluster = cluster.config.name,
            node = order.to_name,
            "a node that was told to become the primary has not; should it do so later, what is written meanwhile is lost"
        );
        order
            .failed(&format!("it was promoted and did not lead within {}", show_duration(PROMOTION_WAIT)))
            .hint("Look at its log, and stop it before it leads: what is written from now on it does not have.")
    })
}

/// Ready when the node is accepted as the primary.
async fn leads(shared: &Shared, order: &Order) {
    let topology = &order.cluster.topology;
    let mut looks = shared.timers.interval(LOOK_EVERY);
    loop {
        topology.probe_now(order.to);
        tokio::select! {
            _ = topology.wait_for(|view| view.primary == Some(order.to)) => return,
            _ = looks.tick() => {}
        }
    }
}
