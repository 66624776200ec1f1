//! Counts what happens: one struct of handles that is passed in, over a registry of our own.
//!
//! Label values come from closed enums or from the configuration; only the database and user of a pool come from
//! outside, and their series end with the pool. Handles are resolved once, so that counting is one atomic add; what every
//! query counts is a number of its worker's own ([`Lanes`]), summed when it is asked for.

mod guard;
mod labels;
mod lanes;
mod maker;
mod node;
mod pool;
mod position;
mod pulled;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use prometheus::proto::MetricType;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};

pub use guard::{GaugeGuard, WaitGuard};
pub use labels::{CancelOutcome, LoginOutcome, Origin, WaitOutcome};
pub use lanes::{Lanes, Tally};
pub use node::{MAX_REASONS, NodeLane, NodeMetrics, NodeStatus};
pub use pool::PoolMetrics;
pub use position::PositionMetrics;

use crate::error::{Error, Fault, sqlstate};
use maker::Maker;
use node::NodeFamilies;
use pool::PoolFamilies;
use position::PositionFamilies;
use pulled::Reading;

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    nodes: NodeFamilies,
    pools: Arc<PoolFamilies>,
    positions: PositionFamilies,
    clients: IntGauge,
    replication_clients: IntGauge,
    logins: IntCounterVec,
    cancels: IntCounterVec,
    errors: IntCounterVec,
    refused: IntCounterVec,
    rescues: IntCounterVec,
    failover: Failover,
    pins: IntCounterVec,
    split_brain: IntGaugeVec,
    paused: IntGaugeVec,
    pub client_bytes: Arc<Lanes<ClientBytes>>,
    /// What large batches take of `max_memory` now.
    pub batch_bytes: Arc<AtomicUsize>,
    /// Classifications that the memo answered, and those that it did not.
    pub memo_hits: IntCounter,
    pub memo_misses: IntCounter,
    /// Texts that the structural parser could not read; they are classified without it.
    pub parse_failures: IntCounter,
}

/// What one worker has exchanged with its clients.
#[derive(Debug, Default)]
pub struct ClientBytes {
    pub received: Tally,
    pub sent: Tally,
}

impl Metrics {
    /// # Errors
    /// Two metrics with one name: a bug of ours.
    pub fn new(workers: usize) -> Result<Arc<Self>, Error> {
        Self::build(workers).map(Arc::new).map_err(|e| {
            Error::new(Fault::Proxy, sqlstate::INTERNAL_ERROR, "the metrics could not be registered").source(e)
        })
    }

    fn build(workers: usize) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let make = Maker(&registry);
        let metrics = Self {
            nodes: NodeFamilies::new(&make, workers)?,
            pools: Arc::new(PoolFamilies::new(&make, workers)?),
            positions: PositionFamilies::new(&make)?,
            clients: make.gauge("causeway_clients", "Clients that are connected, logged in or not.")?,
            replication_clients: make.gauge(
                "causeway_replication_clients",
                "Clients with a replication connection to a primary; they count among the clients, too.",
            )?,
            logins: make.counters("causeway_logins_total", "Logins of clients, by outcome.", &["outcome"])?,
            cancels: make.counters("causeway_cancels_total", "Cancel requests, by outcome.", &["outcome"])?,
            errors: make.counters(
                "causeway_errors_total",
                "Errors that clients read, by who raised them and SQLSTATE class.",
                &["origin", "class"],
            )?,
            refused: make.counters(
                "causeway_refused_total",
                "Batches that no node could serve within what was asked, by reason.",
                &["reason"],
            )?,
            rescues: make.counters(
                "causeway_rescues_total",
                "Batches that a replica refused and another node ran, by cause.",
                &["cause"],
            )?,
            failover: Failover::new(&make)?,
            pins: make.counters("causeway_pins_total", "Pins of a session to its server, by reason.", &["reason"])?,
            split_brain: make.gauges(
                "causeway_split_brain",
                "1 while two nodes claim to be the primary by histories that cannot both be true: writes go nowhere.",
                &["cluster"],
            )?,
            paused: make.gauges(
                "causeway_paused",
                "1 while what needs the cluster's primary waits, because of PAUSE or a switchover.",
                &["cluster"],
            )?,
            client_bytes: client_bytes(&make, workers)?,
            batch_bytes: batch_bytes(&make)?,
            memo_hits: make.counter("causeway_memo_hits_total", "Classifications that the memo answered.")?,
            memo_misses: make.counter("causeway_memo_misses_total", "Classifications that the memo lacked.")?,
            parse_failures: make.counter(
                "causeway_parse_failures_total",
                "Texts that the structural parser could not read; they are classified without it.",
            )?,
            registry,
        };
        // Series that exist from the start show a rate of zero instead of nothing.
        for outcome in LoginOutcome::ALL {
            metrics.logins.with_label_values(&[outcome.as_str()]);
        }
        for outcome in CancelOutcome::ALL {
            metrics.cancels.with_label_values(&[outcome.as_str()]);
        }
        Ok(metrics)
    }

    /// The handles of a node. Ask once.
    pub fn node(&self, cluster: &str, node: &str) -> Arc<NodeMetrics> {
        Arc::new(self.nodes.node(cluster, node))
    }

    /// The handles of a pool. The series go when the last holder drops them.
    pub fn pool(&self, cluster: &str, node: &str, database: &str, user: &str) -> Arc<PoolMetrics> {
        self.pools.pool(cluster, node, database, user)
    }

    /// The handles of a cluster's positions. Ask once.
    pub fn positions(&self, cluster: &str) -> PositionMetrics {
        self.positions.cluster(cluster)
    }

    /// A client is connected for as long as the guard lives.
    pub fn client(&self) -> GaugeGuard {
        GaugeGuard::new(&self.clients)
    }

    /// A client has a replication connection for as long as the guard lives.
    pub fn replication_client(&self) -> GaugeGuard {
        GaugeGuard::new(&self.replication_clients)
    }

    pub fn login(&self, outcome: LoginOutcome) {
        self.logins.with_label_values(&[outcome.as_str()]).inc();
    }

    pub fn cancel(&self, outcome: CancelOutcome) {
        self.cancels.with_label_values(&[outcome.as_str()]).inc();
    }

    /// An error that a client read. Any text may come as `sqlstate`; unknown classes count as `other`.
    pub fn error(&self, origin: Origin, sqlstate: &str) {
        self.errors.with_label_values(&[origin.as_str(), labels::sqlstate_class(sqlstate)]).inc();
    }

    /// The counter of batches refused for `reason`. Resolve it once per reason.
    pub fn refused(&self, reason: &'static str) -> IntCounter {
        self.refused.with_label_values(&[reason])
    }

    /// The counter of rescues for `cause`. Resolve it once per cause.
    pub fn rescues(&self, cause: &'static str) -> IntCounter {
        self.rescues.with_label_values(&[cause])
    }

    /// A statement waits for a primary for as long as the guard lives.
    pub fn held_statement(&self, cluster: &str) -> GaugeGuard {
        GaugeGuard::new(&self.failover.held_statements.with_label_values(&[cluster]))
    }

    /// A session lost a server that it worked with.
    pub fn lost_server(&self, cluster: &str, outcome: &'static str) {
        self.failover.lost_servers.with_label_values(&[cluster, outcome]).inc();
    }

    /// A commit was in doubt.
    pub fn doubt(&self, cluster: &str, outcome: &'static str) {
        self.failover.doubts.with_label_values(&[cluster, outcome]).inc();
    }

    /// The counter of pins for `reason`. Resolve it once per reason.
    pub fn pins(&self, reason: &'static str) -> IntCounter {
        self.pins.with_label_values(&[reason])
    }

    /// A cluster is paused, or resumed.
    pub fn set_paused(&self, cluster: &str, paused: bool) {
        self.paused.with_label_values(&[cluster]).set(i64::from(paused));
    }

    /// Raises or ends the alarm of a cluster.
    pub fn set_split_brain(&self, cluster: &str, alarm: bool) {
        self.split_brain.with_label_values(&[cluster]).set(alarm.into());
    }

    /// All metrics in the Prometheus text format, version 0.0.4.
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_else(|e| format!("# the metrics could not be written: {e}\n"))
    }
}

/// What sessions live through when nodes go, by cluster.
struct Failover {
    held_statements: IntGaugeVec,
    lost_servers: IntCounterVec,
    doubts: IntCounterVec,
}

impl Failover {
    fn new(make: &Maker<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            held_statements: make.gauges(
                "causeway_held_statements",
                "Statements that wait because their cluster has no primary, or no node that can serve them.",
                &["cluster"],
            )?,
            lost_servers: make.counters(
                "causeway_lost_servers_total",
                "Servers that were lost while a session worked with them, by what became of the session.",
                &["cluster", "outcome"],
            )?,
            doubts: make.counters(
                "causeway_commits_in_doubt_total",
                "Commits whose answer was lost with the server, by what was found out.",
                &["cluster", "outcome"],
            )?,
        })
    }
}

fn client_bytes(make: &Maker<'_>, workers: usize) -> prometheus::Result<Arc<Lanes<ClientBytes>>> {
    let lanes = Arc::new(Lanes::<ClientBytes>::new(workers));
    let counter = |name, help, of: fn(&ClientBytes) -> u64| -> prometheus::Result<()> {
        let lanes = Arc::clone(&lanes);
        make.pulled(name, help, &[], MetricType::COUNTER)?.add(&[], move || Reading::Counter(lanes.sum(of)));
        Ok(())
    };
    counter("causeway_client_received_bytes_total", "Bytes from clients.", |bytes| bytes.received.get())?;
    counter("causeway_client_sent_bytes_total", "Bytes to clients.", |bytes| bytes.sent.get())?;
    Ok(lanes)
}

fn batch_bytes(make: &Maker<'_>) -> prometheus::Result<Arc<AtomicUsize>> {
    let held = Arc::new(AtomicUsize::new(0));
    let shown = Arc::clone(&held);
    let reading = move || Reading::Gauge(i64::try_from(shown.load(Relaxed)).unwrap_or(i64::MAX));
    let help = "Memory that clients' large batches take, of max_memory.";
    make.pulled("causeway_batch_memory_bytes", help, &[], MetricType::GAUGE)?.add(&[], reading);
    Ok(held)
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::types::{Role, WorkerId};

    fn metrics() -> Arc<Metrics> {
        Metrics::new(2).unwrap()
    }

    /// Each of `lines` is a line of the rendered text.
    #[track_caller]
    fn check(metrics: &Metrics, lines: &[&str]) {
        let text = metrics.render();
        for line in lines {
            assert!(text.lines().any(|rendered| rendered == *line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn a_node_shows_what_is_known_of_it() {
        let metrics = metrics();
        let node = metrics.node("main", "a");
        check(
            &metrics,
            &[
                r#"causeway_node_up{cluster="main",node="a"} 0"#,
                r#"causeway_node_lag_seconds{cluster="main",node="a"} NaN"#,
                r#"causeway_node_lag_bytes{cluster="main",node="a"} NaN"#,
            ],
        );
        node.show(&NodeStatus {
            up: true,
            role: Some(Role::Replica),
            eligible: true,
            fenced: false,
            lag_bytes: Some(8192),
            lag_seconds: Some(0.25),
        });
        node.name_reasons(&["write", "read"]);
        for worker in [0, 1] {
            let lane = node.lanes.of(WorkerId(worker));
            lane.routed[1].add(1);
            lane.sent_bytes.add(5);
            lane.received_bytes.add(10);
            lane.round_trips.observe(Duration::from_millis(2));
        }
        check(
            &metrics,
            &[
                r#"causeway_node_up{cluster="main",node="a"} 1"#,
                r#"causeway_node_role{cluster="main",node="a",role="primary"} 0"#,
                r#"causeway_node_role{cluster="main",node="a",role="replica"} 1"#,
                r#"causeway_node_eligible{cluster="main",node="a"} 1"#,
                r#"causeway_node_fenced{cluster="main",node="a"} 0"#,
                r#"causeway_node_lag_bytes{cluster="main",node="a"} 8192"#,
                r#"causeway_node_lag_seconds{cluster="main",node="a"} 0.25"#,
                r#"causeway_routed_total{cluster="main",node="a",reason="read"} 2"#,
                r#"causeway_routed_total{cluster="main",node="a",reason="write"} 0"#,
                r#"causeway_node_sent_bytes_total{cluster="main",node="a"} 10"#,
                r#"causeway_node_received_bytes_total{cluster="main",node="a"} 20"#,
                r#"causeway_node_round_trip_seconds_bucket{cluster="main",node="a",le="0.001"} 0"#,
                r#"causeway_node_round_trip_seconds_bucket{cluster="main",node="a",le="0.0025"} 2"#,
                r#"causeway_node_round_trip_seconds_count{cluster="main",node="a"} 2"#,
                r#"causeway_node_round_trip_seconds_sum{cluster="main",node="a"} 0.004"#,
            ],
        );
    }

    #[test]
    fn positions_are_counted_by_cluster() {
        let metrics = metrics();
        let positions = metrics.positions("main");
        let ms = Duration::from_millis;
        positions.answered(ms(2), true, 3);
        positions.answered(ms(2), false, 0);
        positions.replay_wait(WaitOutcome::Met, ms(1));
        positions.replay_wait(WaitOutcome::TimedOut, ms(1));
        positions.replay_wait(WaitOutcome::TimedOut, ms(1));
        positions.nudged();
        positions.forked(true);
        // Whoever asks again gets the same.
        metrics.positions("main").lost_writes.inc();
        metrics.node("main", "a").polls.inc();
        check(
            &metrics,
            &[
                r#"causeway_position_question_seconds_count{cluster="main"} 2"#,
                r#"causeway_position_question_failures_total{cluster="main"} 1"#,
                r#"causeway_position_waiters_total{cluster="main"} 3"#,
                r#"causeway_replay_wait_seconds_count{cluster="main",outcome="met"} 1"#,
                r#"causeway_replay_wait_seconds_count{cluster="main",outcome="timed_out"} 2"#,
                r#"causeway_replay_wait_seconds_count{cluster="main",outcome="no_answer"} 0"#,
                r#"causeway_nudges_total{cluster="main"} 1"#,
                r#"causeway_forks_total{cluster="main",point="known"} 1"#,
                r#"causeway_forks_total{cluster="main",point="unknown"} 0"#,
                r#"causeway_lost_writes_total{cluster="main"} 1"#,
                r#"causeway_replay_polls_total{cluster="main",node="a"} 1"#,
            ],
        );
    }

    #[test]
    fn guards_count_down_by_themselves() {
        let metrics = metrics();
        let pool = metrics.pool("main", "a", "shop", "app");
        let client = metrics.client();
        let replication = metrics.replication_client();
        let waiting = pool.waiting_client();
        (0..3).for_each(|_| pool.connected());
        pool.show_idle(WorkerId(0), 1);
        pool.show_idle(WorkerId(1), 1);
        check(
            &metrics,
            &[
                "causeway_clients 1",
                "causeway_replication_clients 1",
                r#"causeway_pool_servers{cluster="main",database="shop",node="a",state="idle",user="app"} 2"#,
                r#"causeway_pool_servers{cluster="main",database="shop",node="a",state="active",user="app"} 1"#,
                r#"causeway_pool_waiting_clients{cluster="main",database="shop",node="a",user="app"} 1"#,
                r#"causeway_pool_wait_seconds_count{cluster="main",database="shop",node="a",user="app"} 0"#,
            ],
        );
        drop((client, replication));
        waiting.timed_out();
        check(
            &metrics,
            &[
                "causeway_clients 0",
                "causeway_replication_clients 0",
                r#"causeway_pool_waiting_clients{cluster="main",database="shop",node="a",user="app"} 0"#,
                r#"causeway_pool_wait_seconds_count{cluster="main",database="shop",node="a",user="app"} 1"#,
                r#"causeway_pool_wait_timeouts_total{cluster="main",database="shop",node="a",user="app"} 1"#,
            ],
        );
    }

    #[test]
    fn the_series_of_a_pool_end_with_its_last_holder() {
        let metrics = metrics();
        let pool = metrics.pool("main", "a", "we\"ird\n", "app");
        pool.closed("idle_timeout");
        pool.connects.inc();
        check(
            &metrics,
            &[
                r#"causeway_pool_closes_total{cluster="main",database="we\"ird\n",node="a",reason="idle_timeout",user="app"} 1"#,
                r#"causeway_pool_connects_total{cluster="main",database="we\"ird\n",node="a",outcome="ok",user="app"} 1"#,
            ],
        );
        let successor = metrics.pool("main", "a", "we\"ird\n", "app");
        drop(pool);
        successor.connects.inc();
        check(
            &metrics,
            &[
                r#"causeway_pool_connects_total{cluster="main",database="we\"ird\n",node="a",outcome="ok",user="app"} 2"#,
            ],
        );
        drop(successor);
        assert!(!metrics.render().contains("causeway_pool_"), "{}", metrics.render());
    }

    #[test]
    fn events_are_counted_under_closed_labels() {
        let metrics = metrics();
        metrics.login(LoginOutcome::Refused);
        metrics.cancel(CancelOutcome::Forwarded);
        metrics.error(Origin::Node, "23505");
        metrics.error(Origin::Causeway, "57P01");
        metrics.error(Origin::Node, "made up by a function");
        metrics.refused("no_primary").inc();
        metrics.rescues("25006").inc();
        metrics.pins("listen").inc();
        metrics.set_split_brain("main", true);
        metrics.client_bytes.of(WorkerId(0)).received.add(5);
        metrics.client_bytes.of(WorkerId(1)).sent.add(6);
        metrics.memo_hits.inc_by(7);
        metrics.memo_misses.inc_by(8);
        metrics.parse_failures.inc();
        check(
            &metrics,
            &[
                r#"causeway_logins_total{outcome="ok"} 0"#,
                r#"causeway_logins_total{outcome="refused"} 1"#,
                r#"causeway_cancels_total{outcome="forwarded"} 1"#,
                r#"causeway_errors_total{class="23",origin="node"} 1"#,
                r#"causeway_errors_total{class="57",origin="causeway"} 1"#,
                r#"causeway_errors_total{class="other",origin="node"} 1"#,
                r#"causeway_refused_total{reason="no_primary"} 1"#,
                r#"causeway_rescues_total{cause="25006"} 1"#,
                r#"causeway_pins_total{reason="listen"} 1"#,
                r#"causeway_split_brain{cluster="main"} 1"#,
                "causeway_client_received_bytes_total 5",
                "causeway_client_sent_bytes_total 6",
                "causeway_memo_hits_total 7",
                "causeway_memo_misses_total 8",
                "causeway_parse_failures_total 1",
            ],
        );
    }
}
