//! A cluster as sessions use it: its view, its pools, its catalog facts, and counters of where batches went.

use std::sync::Arc;

use prometheus::IntCounter;
use tokio::sync::Semaphore;

use crate::config;
use crate::error::{Error, Result};
use crate::pool::set::Pools;
use crate::route::Reason;
use crate::topology::{FactsStore, Topology};
use crate::types::NodeId;

#[derive(Debug)]
pub struct Cluster {
    pub config: config::Cluster,
    pub topology: Arc<Topology>,
    pub pools: Pools,
    pub facts: FactsStore,
    /// Places on the primary for reads that belong on replicas; `None`: as many as there are.
    pub spill: Option<Arc<Semaphore>>,
    /// By node and reason.
    routed: Box<[[IntCounter; Reason::ALL.len()]]>,
}

impl Cluster {
    pub fn new(
        config: config::Cluster,
        routing: &config::Routing,
        topology: Arc<Topology>,
        pools: Pools,
        facts: FactsStore,
    ) -> Self {
        let view = topology.view();
        let routed =
            view.nodes.iter().map(|node| Reason::ALL.map(|reason| node.load.metrics().routed(reason.as_str())));
        let routed = routed.collect();
        let places = Some(routing.max_spilled_reads).filter(|&places| places > 0);
        let spill = places.map(|places| Arc::new(Semaphore::new(places)));
        Self { config, topology, pools, facts, spill, routed }
    }

    /// What `work` gives, unless its node becomes unreachable first. Cancel safe if `work` is.
    ///
    /// # Errors
    /// Those of `work`; the node is unreachable (`Retry::Elsewhere`).
    pub async fn while_reachable<T>(&self, node: NodeId, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            done = work => done,
            view = self.topology.wait_for(|view| view.is_unreachable(node)) => {
                let name = view.node(node).map_or("?", |node| &*node.name);
                Err(Error::node(format!("node {name:?} has stopped answering")).retry_elsewhere())
            }
        }
    }

    pub fn count_routed(&self, node: NodeId, reason: Reason) {
        self.routed[node.index()][reason as usize].inc();
    }
}
