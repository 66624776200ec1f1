//! What is counted by pool. Databases come from clients, so a pool's series go when the pool goes.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::guard::{GaugeGuard, WaitGuard};
use super::maker::{LATENCY_BUCKETS, Maker};

/// Cluster, node, database, user.
type Key = [String; 4];

/// The families; a pool's handles are taken from them once.
pub(super) struct PoolFamilies {
    servers: IntGaugeVec,
    waiting: IntGaugeVec,
    wait: HistogramVec,
    connects: IntCounterVec,
    closes: IntCounterVec,
    wait_timeouts: IntCounterVec,
    /// A pool that is closed while its last lease is out may meet its successor: both get the same handles.
    live: Mutex<HashMap<Key, Weak<PoolMetrics>>>,
}

impl PoolFamilies {
    pub(super) fn new(maker: &Maker<'_>) -> prometheus::Result<Self> {
        const POOL: &[&str] = &["cluster", "node", "database", "user"];
        Ok(Self {
            servers: maker.gauges(
                "causeway_pool_servers",
                "Servers of the pool by state: idle, or lent to a client.",
                &["cluster", "node", "database", "user", "state"],
            )?,
            waiting: maker.gauges("causeway_pool_waiting_clients", "Clients that wait for a server.", POOL)?,
            wait: maker.histograms(
                "causeway_pool_wait_seconds",
                "How long clients that had to wait for a server waited.",
                POOL,
                &LATENCY_BUCKETS,
            )?,
            connects: maker.counters(
                "causeway_pool_connects_total",
                "Connection attempts to the node, by outcome.",
                &["cluster", "node", "database", "user", "outcome"],
            )?,
            closes: maker.counters(
                "causeway_pool_closes_total",
                "Servers closed, by reason.",
                &["cluster", "node", "database", "user", "reason"],
            )?,
            wait_timeouts: maker.counters(
                "causeway_pool_wait_timeouts_total",
                "Clients that got an error because query_wait_timeout passed.",
                POOL,
            )?,
            live: Mutex::default(),
        })
    }

    pub(super) fn pool(self: &Arc<Self>, cluster: &str, node: &str, database: &str, user: &str) -> Arc<PoolMetrics> {
        let key = [cluster, node, database, user].map(str::to_owned);
        let mut live = self.live.lock();
        if let Some(pool) = live.get(&key).and_then(Weak::upgrade) {
            return pool;
        }
        let pool = Arc::new(PoolMetrics::new(self, key.clone()));
        live.insert(key, Arc::downgrade(&pool));
        pool
    }

    /// Forgets the series of a pool that nobody holds any more.
    fn forget(&self, pool: &PoolMetrics) {
        let mut live = self.live.lock();
        if live.get(&pool.key).is_some_and(|held| held.strong_count() > 0) {
            return;
        }
        live.remove(&pool.key);
        let labels = pool.labels();
        // A family may lack a label set that was never used: nothing to remove then.
        for state in ["idle", "active"] {
            self.servers.remove_label_values(&pool.labels_and(state)).ok();
        }
        for outcome in ["ok", "failed"] {
            self.connects.remove_label_values(&pool.labels_and(outcome)).ok();
        }
        for reason in pool.close_reasons.lock().keys() {
            self.closes.remove_label_values(&pool.labels_and(reason)).ok();
        }
        self.waiting.remove_label_values(&labels).ok();
        self.wait.remove_label_values(&labels).ok();
        self.wait_timeouts.remove_label_values(&labels).ok();
    }
}

/// The handles of one pool: a (node, database, user).
pub struct PoolMetrics {
    families: Arc<PoolFamilies>,
    key: Key,
    idle: IntGauge,
    active: IntGauge,
    waiting: IntGauge,
    wait: Histogram,
    wait_timeouts: IntCounter,
    /// Successful connects.
    pub connects: IntCounter,
    pub failed_connects: IntCounter,
    close_reasons: Mutex<HashMap<&'static str, IntCounter>>,
}

impl PoolMetrics {
    fn new(families: &Arc<PoolFamilies>, key: Key) -> Self {
        let [cluster, node, database, user] = &key;
        let labels = [cluster, node, database, user].map(String::as_str);
        let with = |last: &'static str| [cluster.as_str(), node, database, user, last];
        Self {
            idle: families.servers.with_label_values(&with("idle")),
            active: families.servers.with_label_values(&with("active")),
            waiting: families.waiting.with_label_values(&labels),
            wait: families.wait.with_label_values(&labels),
            wait_timeouts: families.wait_timeouts.with_label_values(&labels),
            connects: families.connects.with_label_values(&with("ok")),
            failed_connects: families.connects.with_label_values(&with("failed")),
            close_reasons: Mutex::default(),
            families: Arc::clone(families),
            key,
        }
    }

    fn labels(&self) -> [&str; 4] {
        let [cluster, node, database, user] = &self.key;
        [cluster, node, database, user]
    }

    fn labels_and<'a>(&'a self, last: &'a str) -> [&'a str; 5] {
        let [cluster, node, database, user] = &self.key;
        [cluster, node, database, user, last]
    }

    /// A server that nobody uses, for as long as the guard lives.
    pub fn idle_server(&self) -> GaugeGuard {
        GaugeGuard::new(&self.idle)
    }

    /// A server that is lent, for as long as the guard lives.
    pub fn active_server(&self) -> GaugeGuard {
        GaugeGuard::new(&self.active)
    }

    /// A client in the queue, for as long as the guard lives.
    pub fn waiting_client(&self) -> WaitGuard {
        WaitGuard::new(&self.waiting, &self.wait, &self.wait_timeouts)
    }

    /// Counts a closed server.
    pub fn closed(&self, reason: &'static str) {
        let mut reasons = self.close_reasons.lock();
        let counter =
            reasons.entry(reason).or_insert_with(|| self.families.closes.with_label_values(&self.labels_and(reason)));
        counter.inc();
    }
}

impl Drop for PoolMetrics {
    fn drop(&mut self) {
        self.families.forget(self);
    }
}

impl fmt::Debug for PoolMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolMetrics").field("key", &self.key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Registry, TextEncoder};

    use super::*;

    #[test]
    fn the_end_of_a_pool_leaves_the_series_to_its_successor() {
        let registry = Registry::new();
        let families = Arc::new(PoolFamilies::new(&Maker(&registry)).unwrap());
        let successor = families.pool("main", "a", "shop", "app");
        // What the drop of a predecessor does when the successor was made in between.
        families.forget(&successor);
        successor.connects.inc();
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(text.contains("causeway_pool_connects_total"), "{text}");
        drop(successor);
        assert!(registry.gather().is_empty());
    }
}
