//! What is counted by pool. Databases come from clients, so a pool's series go when the pool goes.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use prometheus::proto::MetricType;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::guard::WaitGuard;
use super::lanes::{Lanes, Tally};
use super::maker::{LATENCY_BUCKETS, Maker};
use super::pulled::{Pulled, Reading};
use crate::types::WorkerId;

/// Cluster, node, database, user.
type Key = [String; 4];

/// The families; a pool's handles are taken from them once.
pub(super) struct PoolFamilies {
    servers: Pulled,
    waiting: IntGaugeVec,
    wait: HistogramVec,
    connects: IntCounterVec,
    closes: IntCounterVec,
    wait_timeouts: IntCounterVec,
    /// A pool that is closed while its last lease is out may meet its successor: both get the same handles.
    live: Mutex<HashMap<Key, Weak<PoolMetrics>>>,
    workers: usize,
}

impl PoolFamilies {
    pub(super) fn new(maker: &Maker<'_>, workers: usize) -> prometheus::Result<Self> {
        const POOL: &[&str] = &["cluster", "node", "database", "user"];
        Ok(Self {
            servers: maker.pulled(
                "causeway_pool_servers",
                "Servers of the pool by state: idle, or lent to a client.",
                &["cluster", "node", "database", "user", "state"],
                MetricType::GAUGE,
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
            workers,
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
            self.servers.remove(&pool.labels_and(state));
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

/// How many servers are connected, and how many of them are idle on each worker.
struct Servers {
    connected: AtomicI64,
    idle: Lanes<Tally>,
}

impl Servers {
    fn idle(&self) -> i64 {
        i64::try_from(self.idle.sum(Tally::get)).unwrap_or(i64::MAX)
    }
}

/// The handles of one pool: a (node, database, user).
pub struct PoolMetrics {
    families: Arc<PoolFamilies>,
    key: Key,
    servers: Arc<Servers>,
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
        let servers = Arc::new(Servers { connected: AtomicI64::new(0), idle: Lanes::new(families.workers) });
        let (idle, active) = (Arc::clone(&servers), Arc::clone(&servers));
        families.servers.add(&with("idle"), move || Reading::Gauge(idle.idle()));
        families
            .servers
            .add(&with("active"), move || Reading::Gauge((active.connected.load(Relaxed) - active.idle()).max(0)));
        Self {
            servers,
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

    /// One more server is connected.
    pub fn connected(&self) {
        self.servers.connected.fetch_add(1, Relaxed);
    }

    /// One server less is.
    pub fn disconnected(&self) {
        self.servers.connected.fetch_sub(1, Relaxed);
    }

    /// So many servers are idle on a worker now. Only one thread at a time may say so.
    pub fn show_idle(&self, worker: WorkerId, servers: usize) {
        self.servers.idle.of(worker).set(servers as u64);
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
        let families = Arc::new(PoolFamilies::new(&Maker(&registry), 1).unwrap());
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
