//! A cluster as sessions use it: its view, its pools, its catalog facts.

use std::sync::Arc;

use crate::config;
use crate::pool::set::Pools;
use crate::sql::facts::CatalogFacts;
use crate::topology::Topology;
use crate::topology::facts::FactsStore;

#[derive(Debug)]
pub struct Cluster {
    pub config: config::Cluster,
    pub topology: Arc<Topology>,
    pub pools: Pools,
    pub facts: Arc<FactsStore<CatalogFacts>>,
}

impl Cluster {
    pub fn serves(&self, database: &str) -> bool {
        self.config.databases.is_empty() || self.config.databases.iter().any(|name| name == database)
    }
}
