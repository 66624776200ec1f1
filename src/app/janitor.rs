//! Closes servers that have been idle or alive for too long, and keeps the minimum connected.

use std::rc::Rc;
use std::sync::Arc;

use crate::pool::set::PoolSet;
use crate::session::worker::Worker;
use crate::types::{NodeId, WorkerId};

/// Looks after the idle servers of one worker; the first worker also keeps the minima.
pub fn sweep(worker: &Rc<Worker>) {
    for set in worker.shared.clusters.iter().flat_map(|cluster| cluster.pools.sweep()) {
        for (node, pool) in (0..).map(NodeId).zip(set.pools()) {
            for (mut lease, reason) in pool.expired(worker.id, worker.now()) {
                tokio::task::spawn_local(async move {
                    lease.say_goodbye().await;
                    lease.close(reason);
                });
            }
            if worker.id == WorkerId(0) {
                pool.resume(worker.id, worker.now());
                fill(worker, &set, node);
            }
        }
    }
}

/// Connects one more server when there are fewer than `min_pool_size`.
fn fill(worker: &Rc<Worker>, set: &Arc<PoolSet>, node: NodeId) {
    let Some(place) = set.pools()[node.index()].below_minimum(worker.id) else { return };
    let (worker, set) = (Rc::clone(worker), Arc::clone(set));
    tokio::task::spawn_local(async move {
        match set.connect(node, place).await {
            Ok(lease) => lease.release(worker.now()),
            Err(error) => tracing::debug!(%error, "min_pool_size is not reached"),
        }
    });
}
