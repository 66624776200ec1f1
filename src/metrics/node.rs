//! What is counted by node.

use std::fmt;

use prometheus::{Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::maker::{LATENCY_BUCKETS, Maker};
use crate::types::Role;

/// The families; a node's handles are taken from them once.
pub(super) struct NodeFamilies {
    up: IntGaugeVec,
    role: IntGaugeVec,
    eligible: IntGaugeVec,
    lag_bytes: GaugeVec,
    lag_seconds: GaugeVec,
    in_flight: IntGaugeVec,
    round_trip: HistogramVec,
    sent: IntCounterVec,
    received: IntCounterVec,
    routed: IntCounterVec,
    polls: IntCounterVec,
}

impl NodeFamilies {
    pub(super) fn new(maker: &Maker<'_>) -> prometheus::Result<Self> {
        const NODE: &[&str] = &["cluster", "node"];
        Ok(Self {
            up: maker.gauges("causeway_node_up", "1 while the node answers probes.", NODE)?,
            role: maker.gauges(
                "causeway_node_role",
                "1 for the role that was observed last, 0 for the other.",
                &["cluster", "node", "role"],
            )?,
            eligible: maker.gauges("causeway_node_eligible", "1 while the node may serve reads as a replica.", NODE)?,
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
            in_flight: maker.gauges("causeway_node_in_flight", "Batches that wait for the node's answer.", NODE)?,
            round_trip: maker.histograms(
                "causeway_node_round_trip_seconds",
                "From sending a batch to the node until its ReadyForQuery.",
                NODE,
                &LATENCY_BUCKETS,
            )?,
            sent: maker.counters("causeway_node_sent_bytes_total", "Bytes sent to the node for clients.", NODE)?,
            received: maker.counters("causeway_node_received_bytes_total", "Bytes received for clients.", NODE)?,
            routed: maker.counters(
                "causeway_routed_total",
                "Batches by the node they went to, and why.",
                &["cluster", "node", "reason"],
            )?,
            polls: maker.counters(
                "causeway_replay_polls_total",
                "Questions to the replica how far it is, while somebody waited for it.",
                NODE,
            )?,
        })
    }

    pub(super) fn node(&self, cluster: &str, node: &str) -> NodeMetrics {
        let labels = &[cluster, node];
        let role = |role: Role| self.role.with_label_values(&[cluster, node, role.as_str()]);
        let metrics = NodeMetrics {
            cluster: cluster.to_owned(),
            node: node.to_owned(),
            up: self.up.with_label_values(labels),
            primary: role(Role::Primary),
            replica: role(Role::Replica),
            eligible: self.eligible.with_label_values(labels),
            lag_bytes: self.lag_bytes.with_label_values(labels),
            lag_seconds: self.lag_seconds.with_label_values(labels),
            in_flight: self.in_flight.with_label_values(labels),
            round_trip: self.round_trip.with_label_values(labels),
            sent_bytes: self.sent.with_label_values(labels),
            received_bytes: self.received.with_label_values(labels),
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
    lag_bytes: Gauge,
    lag_seconds: Gauge,
    routed: IntCounterVec,
    /// Batches that wait for the node's answer; `topology::NodeLoad` moves it.
    pub in_flight: IntGauge,
    /// Seconds from sending a batch until its `ReadyForQuery`; `topology::NodeLoad` observes it.
    pub round_trip: Histogram,
    pub sent_bytes: IntCounter,
    pub received_bytes: IntCounter,
    /// Questions to a replica how far it is, between probes.
    pub polls: IntCounter,
}

impl NodeMetrics {
    /// The counter of batches that went here for `reason`. Resolve it once per reason, then only count.
    pub fn routed(&self, reason: &'static str) -> IntCounter {
        self.routed.with_label_values(&[&self.cluster, &self.node, reason])
    }

    pub fn show(&self, status: &NodeStatus) {
        #[expect(clippy::cast_precision_loss, reason = "a lag of more than 2^53 bytes need not be exact")]
        let lag_bytes = status.lag_bytes.map_or(f64::NAN, |bytes| bytes as f64);
        self.up.set(status.up.into());
        self.primary.set((status.role == Some(Role::Primary)).into());
        self.replica.set((status.role == Some(Role::Replica)).into());
        self.eligible.set(status.eligible.into());
        self.lag_bytes.set(lag_bytes);
        self.lag_seconds.set(status.lag_seconds.unwrap_or(f64::NAN));
    }
}

impl fmt::Debug for NodeMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeMetrics").field("cluster", &self.cluster).field("node", &self.node).finish_non_exhaustive()
    }
}
