//! PAUSE and RESUME.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Notices;
use crate::error::{Error, Fault, Result, sqlstate};
use crate::session::cluster::Cluster;
use crate::session::gate::Closure;
use crate::session::worker::Shared;

/// How often it is looked whether servers of the primary are still lent.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Whoever waits for transactions of others is told whose, this often.
const TOLD_EVERY: Duration = Duration::from_secs(5);
const TOLD_FIRST: Duration = Duration::from_secs(1);
/// How long RESUME waits for a primary, which may just have been started.
const PRIMARY_WAIT: Duration = Duration::from_secs(5);

/// A cluster whose gate is closed; it opens with the value.
#[derive(Debug)]
pub(super) struct Closed {
    shared: Arc<Shared>,
    cluster: Arc<Cluster>,
    closure: Closure,
    stays: bool,
}

impl Closed {
    /// # Errors
    /// 55000: it is closed already.
    pub(super) fn new(shared: &Arc<Shared>, cluster: &Arc<Cluster>, closure: Closure) -> Result<Self> {
        let name = &cluster.config.name;
        cluster.gate.close(closure).map_err(|closed_by| match closed_by {
            Closure::Pause => wrong_state(format!("cluster {name:?} is paused already")).hint("RESUME ends that."),
            Closure::Switchover => wrong_state(format!("a switchover of cluster {name:?} is under way"))
                .hint("It ends within its timeout, or with the connection that it was asked for on."),
        })?;
        shared.metrics.set_paused(name, true);
        Ok(Self { shared: Arc::clone(shared), cluster: Arc::clone(cluster), closure, stays: false })
    }

    /// It stays closed until it is opened otherwise.
    fn stay(mut self) {
        self.stays = true;
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        if !self.stays && self.cluster.gate.open(self.closure) {
            self.shared.metrics.set_paused(&self.cluster.config.name, false);
            tracing::warn!(cluster = self.cluster.config.name, "not paused any more");
        }
    }
}

fn wrong_state(message: String) -> Error {
    Error::new(Fault::Client, sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
}

/// Closes the gates, and waits until the primaries have nothing to do. When it does not get that far, it undoes what it
/// has done.
///
/// # Errors
/// A cluster is paused already.
pub(super) async fn pause(
    shared: &Arc<Shared>,
    user: &str,
    clusters: &[Arc<Cluster>],
    notices: &Notices,
) -> Result<()> {
    let closed = clusters.iter().map(|cluster| Closed::new(shared, cluster, Closure::Pause));
    let closed = closed.collect::<Result<Vec<_>>>()?;
    for cluster in clusters {
        drained(shared, cluster, notices).await;
    }
    for closed in closed {
        tracing::warn!(cluster = closed.cluster.config.name, user, "paused: what needs the primary waits for RESUME");
        closed.stay();
    }
    Ok(())
}

/// Opens the gates of those that are paused, as soon as they have a primary.
///
/// # Errors
/// None is paused.
pub(super) async fn resume(shared: &Arc<Shared>, user: &str, clusters: &[Arc<Cluster>]) -> Result<()> {
    let is_paused = |cluster: &&Arc<Cluster>| cluster.gate.closure() == Some(Closure::Pause);
    let paused: Vec<_> = clusters.iter().filter(is_paused).collect();
    if paused.is_empty() {
        let names: Vec<_> = clusters.iter().map(|cluster| format!("{:?}", cluster.config.name)).collect();
        let under_way = clusters.iter().any(|cluster| cluster.gate.is_closed());
        let hint = if under_way { "A switchover is under way: it resumes by itself." } else { "SHOW CLUSTERS tells." };
        return Err(wrong_state(format!("not paused: cluster {}", names.join(", "))).hint(hint));
    }
    for cluster in paused {
        for node in &cluster.topology.view().nodes {
            cluster.topology.probe_now(node.id);
        }
        let has_primary = cluster.topology.wait_for(|view| view.primary.is_some());
        // Without one, who waits is told so.
        let _ = shared.timers.timeout(PRIMARY_WAIT, has_primary).await;
        if cluster.gate.open(Closure::Pause) {
            shared.metrics.set_paused(&cluster.config.name, false);
            tracing::warn!(cluster = cluster.config.name, user, "resumed");
        }
    }
    Ok(())
}

/// Waits until no server of the primary is lent. After that none is used, as long as the gate is closed.
pub(super) async fn drained(shared: &Shared, cluster: &Cluster, notices: &Notices) {
    let mut looks = shared.timers.interval(LOOK_EVERY);
    let mut tell_at = Instant::now() + TOLD_FIRST;
    loop {
        let lent = lent(cluster);
        if lent.is_empty() {
            return;
        }
        if Instant::now() >= tell_at {
            tell_at += TOLD_EVERY;
            // It does not matter whether anybody listens.
            let _ = notices.send(format!("waiting for transactions and pinned sessions: {}", lent.join("; ")));
        }
        looks.tick().await;
    }
}

/// Who has servers of the primary, in words.
fn lent(cluster: &Cluster) -> Vec<String> {
    let view = cluster.topology.view();
    let Some(primary) = view.epoch.map(|epoch| epoch.primary) else { return Vec::new() };
    let sets = cluster.pools.sets();
    let lent = sets.iter().filter_map(|set| {
        let lent = set.pools().get(primary.index())?.census().lent;
        (lent > 0).then(|| format!("{lent} of user {:?} in database {:?}", set.login.user, set.login.database))
    });
    lent.collect()
}
