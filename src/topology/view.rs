//! The view: what routing knows about the nodes of a cluster.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::history::{Fork, History};
use super::load::NodeLoad;
use super::progress::Progress;
use crate::types::{NodeId, Position, Role};

/// The immutable snapshot of all nodes of a cluster that routing reads.
#[derive(Clone, Debug)]
pub struct View {
    /// In the order of the configuration; `nodes[id.index()]`.
    pub nodes: Box<[NodeView]>,
    /// The one routable primary, if there is one.
    pub primary: Option<NodeId>,
    /// Which history counts: that of the primary accepted last. It outlives the primary.
    pub epoch: Option<Epoch>,
    /// How the timeline of `epoch` came about.
    pub history: Arc<History>,
    /// Why there is no primary although a node can write.
    pub alarm: Option<Alarm>,
}

impl View {
    pub fn node(&self, id: NodeId) -> Option<&NodeView> {
        self.nodes.get(id.index())
    }

    pub fn is_unreachable(&self, id: NodeId) -> bool {
        self.node(id).is_some_and(NodeView::is_unreachable)
    }

    pub fn is_fenced(&self, id: NodeId) -> bool {
        self.node(id).is_some_and(|node| node.fenced)
    }

    /// The replicas that may serve reads.
    pub fn eligible(&self) -> impl Iterator<Item = &NodeView> {
        self.nodes.iter().filter(|node| node.eligible.is_ok())
    }

    /// No node answers.
    pub fn is_dark(&self) -> bool {
        self.nodes.iter().all(|node| matches!(node.eligible, Err(Ineligible::Unreachable | Ineligible::NotProbed)))
    }

    /// Is there a node for writes, or at least one for reads?
    pub fn serves(&self) -> bool {
        self.primary.is_some() || self.eligible().next().is_some()
    }
}

#[derive(Clone, Debug)]
pub struct NodeView {
    pub id: NodeId,
    pub name: Arc<str>,
    /// The role observed last; unknown before the first successful probe.
    pub role: Option<Role>,
    /// A primary's insert position (normalised), a replica's replay position.
    pub position: Option<Position>,
    /// When the probe that gave `position` was sent.
    pub sampled_at: Option<Instant>,
    /// Bytes that the primary had flushed and this node had not replayed.
    pub lag_bytes: Option<u64>,
    /// How long ago `covered_at` was when the view was made. Use [`NodeView::staleness_at`] for now.
    pub staleness: Option<Duration>,
    /// All that the primary showed at this instant has certainly been replayed here.
    pub covered_at: Option<Instant>,
    /// May it serve reads as a replica? If not, why.
    pub eligible: Result<(), Ineligible>,
    /// It can write, or could when it was heard of last, and is not the accepted primary: nothing is sent to it, and
    /// its servers are closed, until it follows the accepted history as a replica.
    pub fenced: bool,
    /// Since when it serves reads without a break; `None`: it does not.
    pub serves_since: Option<Instant>,
    /// As `server_version_num`: 150004 is 15.4.
    pub version: Option<u32>,
    pub replay_paused: bool,
    pub load: Arc<NodeLoad>,
    /// The newest position that anybody knows; later than `position`, mostly.
    pub progress: Arc<Progress>,
}

impl NodeView {
    /// It did not answer when it was asked last.
    pub fn is_unreachable(&self) -> bool {
        self.eligible == Err(Ineligible::Unreachable)
    }

    /// The age of the newest primary position that this node has certainly replayed; never understated.
    pub fn staleness_at(&self, now: Instant) -> Option<Duration> {
        self.covered_at.map(|covered_at| now.saturating_duration_since(covered_at))
    }
}

/// A history of a cluster: who wrote it, and on which timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    pub system: u64,
    pub timeline: u32,
    /// The node that was accepted as the primary of this timeline.
    pub primary: NodeId,
}

/// Why a node gets no reads: a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ineligible {
    NotProbed,
    Unreachable,
    /// It is the primary, or may turn out to be.
    Primary,
    /// It can write, and is not the accepted primary.
    Fenced,
    /// Another system identifier, or another timeline than that of the primary accepted last.
    OtherHistory,
    LagBytes,
    LagTime,
    /// No primary position is known that this node has replayed, so its staleness cannot be bounded.
    LagUnknown,
    /// It answers again, but not yet often enough in a row.
    Returning,
}

impl Ineligible {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotProbed => "not_probed",
            Self::Unreachable => "unreachable",
            Self::Primary => "primary",
            Self::Fenced => "fenced",
            Self::OtherHistory => "other_history",
            Self::LagBytes => "lag_bytes",
            Self::LagTime => "lag_time",
            Self::LagUnknown => "lag_unknown",
            Self::Returning => "returning",
        }
    }
}

/// Two nodes have a right to be the primary, by histories that cannot both be true, so writes go nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// The one that was accepted, or came first.
    pub one: Claimant,
    pub other: Claimant,
    pub dispute: Dispute,
}

/// A node that can write, or was accepted as one that can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimant {
    pub node: NodeId,
    pub timeline: u32,
    /// Where its timeline begins, if anybody knows.
    pub fork: Option<Fork>,
}

/// Why two histories cannot both be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dispute {
    /// Two nodes write on timelines of one number.
    SameTimeline,
    /// The higher timeline does not go on from the lower one.
    OtherBranch,
}

impl Alarm {
    /// What happened and what to do, with the nodes' names.
    pub fn message(self, view: &View) -> String {
        let name = |claimant: Claimant| view.node(claimant.node).map_or("?", |node| &*node.name);
        let who = |claimant: Claimant| {
            let fork = claimant.fork;
            let begins = fork.map(|fork| format!(", which left timeline {} at {}", fork.timeline, fork.at));
            format!("{} (timeline {}{})", name(claimant), claimant.timeline, begins.unwrap_or_default())
        };
        let (one, other) = (name(self.one), name(self.other));
        let why = match self.dispute {
            Dispute::SameTimeline => "both claim to be the primary of one timeline".to_owned(),
            Dispute::OtherBranch => {
                format!("both claim to be the primary, and the history of {other} does not go on from that of {one}")
            }
        };
        format!(
            "nodes {} and {} {why}: writes go nowhere until {other} is stopped or follows {one}; to keep {other} \
             instead, stop {one} and restart Causeway",
            who(self.one),
            who(self.other)
        )
    }
}
