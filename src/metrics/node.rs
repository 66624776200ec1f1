//! What is counted by node.

use std::fmt;
use std::sync::Arc;

use prometheus::proto::MetricType;
use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::lanes::{Lanes, Latencies, Tally, histogram};
use super::maker::Maker;
use super::pulled::{Pulled, Reading};
use crate::types::Role;

/// The families; a node's handles are taken from them once.
pub(super) struct NodeFamilies {
    up: IntGaugeVec,
    role: IntGaugeVec,
    eligible: IntGaugeVec,
    fenced: IntGaugeVec,
    lag_bytes: GaugeVec,
    lag_seconds: GaugeVec,
    in_flight: Pulled,
    round_trip: Pulled,
    sent: Pulled,
    received: Pulled,
    routed: Pulled,
    polls: IntCounterVec,
    workers: usize,
}

/// How many reasons for a route are told apart at most.
pub const MAX_REASONS: usize = 16;

/// What one worker counts of one node.
#[derive(Debug, Default)]
pub struct NodeLane {
    /// Batches that wait for the node's answer.
    pub in_flight: Tally,
    /// From sending a batch until its `ReadyForQuery`.
    pub round_trips: Latencies,
    pub sent_bytes: Tally,
    pub received_bytes: Tally,
    /// Batches by why they went here, as [`NodeMetrics::name_reasons`] has named them.
    pub routed: [Tally; MAX_REASONS],
}

impl NodeFamilies {
    pub(super) fn new(maker: &Maker<'_>, workers: usize) -> prometheus::Result<Self> {
        const NODE: &[&str] = &["cluster", "node"];
        Ok(Self {
            up: maker.gauges("causeway_node_up", "1 while the node answers probes.", NODE)?,
            role: maker.gauges(
                "causeway_node_role",
                "1 for the role that was observed last, 0 for the other.",
                &["cluster", "node", "role"],
            )?,
            eligible: maker.gauges("causeway_node_eligible", "1 while the node may serve reads as a replica.", NODE)?,
            fenced: maker.gauges(
                "causeway_node_fenced",
                "1 while the node can write, or could, and is not the accepted primary: nothing is sent to it.",
                NODE,
            )?,
            lag_bytes: maker.float_gauges(
                "causeway_node_lag_bytes",
                "Bytes of WAL that the primary has flushed and the node has not replayed; NaN while unknown.",
                NODE,
            )?,
            lag_seconds: maker.float_gauges(
                "causeway_node_lag_seconds",
                "Age of the newest primary position that the node has certainly replayed; NaN while unknown.",
                NODE,
            )?,
            in_flight: maker.pulled(
                "causeway_node_in_flight",
                "Batches that wait for the node's answer.",
                NODE,
                MetricType::GAUGE,
            )?,
            round_trip: maker.pulled(
                "causeway_node_round_trip_seconds",
                "From sending a batch to the node until its ReadyForQuery.",
                NODE,
                MetricType::HISTOGRAM,
            )?,
            sent: maker.pulled(
                "causeway_node_sent_bytes_total",
                "Bytes sent to the node for clients.",
                NODE,
                MetricType::COUNTER,
            )?,
            received: maker.pulled(
                "causeway_node_received_bytes_total",
                "Bytes received for clients.",
                NODE,
                MetricType::COUNTER,
            )?,
            routed: maker.pulled(
                "causeway_routed_total",
                "Batches by the node they went to, and why.",
                &["cluster", "node", "reason"],
                MetricType::COUNTER,
            )?,
            polls: maker.counters(
                "causeway_replay_polls_total",
                "Questions to the replica how far it is, while somebody waited for it.",
                NODE,
            )?,
            workers,
        })
    }

    pub(super) fn node(&self, cluster: &str, node: &str) -> NodeMetrics {
        let labels = &[cluster, node];
        let lanes = Arc::new(Lanes::<NodeLane>::new(self.workers));
        let read = |family: &Pulled, read: fn(&Lanes<NodeLane>) -> Reading| {
            let lanes = Arc::clone(&lanes);
            family.add(labels, move || read(&lanes));
        };
        read(&self.in_flight, |lanes| {
            Reading::Gauge(i64::try_from(lanes.sum(|lane| lane.in_flight.get())).unwrap_or_default())
        });
        read(&self.round_trip, |lanes| Reading::Histogram(histogram(lanes, |lane| &lane.round_trips)));
        read(&self.sent, |lanes| Reading::Counter(lanes.sum(|lane| lane.sent_bytes.get())));
        read(&self.received, |lanes| Reading::Counter(lanes.sum(|lane| lane.received_bytes.get())));
        let role = |role: Role| self.role.with_label_values(&[cluster, node, role.as_str()]);
        let metrics = NodeMetrics {
            cluster: cluster.to_owned(),
            node: node.to_owned(),
            up: self.up.with_label_values(labels),
            primary: role(Role::Primary),
            replica: role(Role::Replica),
            eligible: self.eligible.with_label_values(labels),
            fenced: self.fenced.with_label_values(labels),
            lag_bytes: self.lag_bytes.with_label_values(labels),
            lag_seconds: self.lag_seconds.with_label_values(labels),
            lanes,
            routed: self.routed.clone(),
            polls: self.polls.with_label_values(labels),
        };
        metrics.show(&NodeStatus::default());
        metrics
    }
}

/// What topology knows about a node, as far as it is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NodeStatus {
    pub up: bool,
    pub role: Option<Role>,
    pub eligible: bool,
    pub fenced: bool,
    pub lag_bytes: Option<u64>,
    pub lag_seconds: Option<f64>,
}

/// The handles of one node; made once, held for the life of the process.
pub struct NodeMetrics {
    cluster: String,
    node: String,
    up: IntGauge,
    primary: IntGauge,
    replica: IntGauge,
    eligible: IntGauge,
    fenced: IntGauge,
    lag_bytes: Gauge,
    lag_seconds: Gauge,
    routed: Pulled,
    pub lanes: Arc<Lanes<NodeLane>>,
    /// Questions to a replica how far it is, between probes.
    pub polls: IntCounter,
}

impl NodeMetrics {
    /// What the counters in [`NodeLane::routed`] stand for, in their order.
    pub fn name_reasons(&self, reasons: &[&'static str]) {
        for (at, reason) in reasons.iter().enumerate().take(MAX_REASONS) {
            let lanes = Arc::clone(&self.lanes);
            let read = move || Reading::Counter(lanes.sum(|lane| lane.routed[at].get()));
            self.routed.add(&[&self.cluster, &self.node, reason], read);
        }
    }

    pub fn show(&self, status: &NodeStatus) {
        #[expect(clippy::cast_precision_loss, reason = "a lag of more than 2^53 bytes need not be exact")]
        let lag_bytes = status.lag_bytes.map_or(f64::NAN, |bytes| bytes as f64);
        self.up.set(status.up.into());
        self.primary.set((status.role == Some(Role::Primary)).into());
        self.replica.set((status.role == Some(Role::Replica)).into());
        self.eligible.set(status.eligible.into());
        self.fenced.set(status.fenced.into());
        self.lag_bytes.set(lag_bytes);
        self.lag_seconds.set(status.lag_seconds.unwrap_or(f64::NAN));
    }
}

impl fmt::Debug for NodeMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeMetrics").field("cluster", &self.cluster).field("node", &self.node).finish_non_exhaustive()
    }
}
