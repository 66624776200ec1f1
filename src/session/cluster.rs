//! A cluster as sessions use it: its view, its pools, its catalog facts, and counters of where batches went.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::gate::Gate;
use crate::config;
use crate::error::{Error, Result};
use crate::metrics::MAX_REASONS;
use crate::pool::set::Pools;
use crate::route::Reason;
use crate::topology::{FactsStore, NodeLoad, Topology};
use crate::types::NodeId;

#[derive(Debug)]
pub struct Cluster {
    /// Among all clusters.
    pub index: usize,
    pub config: config::Cluster,
    pub topology: Arc<Topology>,
    pub pools: Pools,
    pub facts: FactsStore,
    /// Closed while writes are paused.
    pub gate: Gate,
    /// Places on the primary for reads that belong on replicas; `None`: as many as there are.
    pub spill: Option<Arc<Semaphore>>,
    /// Places for statements that wait for a primary.
    pub holding: Semaphore,
    /// By node.
    loads: Box<[Arc<NodeLoad>]>,
}

const _: () = assert!(Reason::ALL.len() <= MAX_REASONS, "all reasons are counted");

impl Cluster {
    pub fn new(
        index: usize,
        config: config::Cluster,
        routing: &config::Routing,
        topology: Arc<Topology>,
        pools: Pools,
        facts: FactsStore,
    ) -> Self {
        let loads: Box<[_]> = topology.view().nodes.iter().map(|node| Arc::clone(&node.load)).collect();
        let reasons = Reason::ALL.map(Reason::as_str);
        loads.iter().for_each(|load| load.metrics().name_reasons(&reasons));
        let places = Some(routing.max_spilled_reads).filter(|&places| places > 0);
        let spill = places.map(|places| Arc::new(Semaphore::new(places)));
        let holding = Semaphore::new(routing.max_held_statements);
        Self { index, config, topology, pools, facts, gate: Gate::default(), spill, holding, loads }
    }

    /// What `work` gives, unless its node becomes unreachable or is fenced first. Cancel safe if `work` is.
    ///
    /// # Errors
    /// Those of `work`; the node is unreachable or fenced (`Retry::Elsewhere`).
    pub async fn while_reachable<T>(&self, node: NodeId, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            done = work => done,
            view = self.topology.wait_for(|view| view.is_unreachable(node) || view.is_fenced(node)) => {
                let name = view.node(node).map_or("?", |node| &*node.name);
                let what = if view.is_fenced(node) { "is fenced" } else { "has stopped answering" };
                Err(Error::node(format!("node {name:?} {what}")).retry_elsewhere())
            }
        }
    }

    /// How busy a node is, and what is counted of it.
    pub fn load(&self, node: NodeId) -> &NodeLoad {
        &self.loads[node.index()]
    }
}
