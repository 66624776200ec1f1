//! What a read needs of a replica, and how replicas stand to it.

use std::time::{Duration, Instant};

use crate::topology::{History, NodeView};
use crate::types::{NodeId, Position};

/// What a replica must have replayed to serve a read. Nothing: whatever is eligible will do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// At least this.
    pub position: Option<Position>,
    /// All that the primary had shown by then.
    pub covered_since: Option<Instant>,
    /// What a position stands for that is still to be asked of the primary, at or after this instant.
    pub unknown_since: Option<Instant>,
    /// The replica that showed the session all this, and when. Of it only `position` is asked.
    pub own: Option<(NodeId, Instant)>,
}

/// Why a replica may serve a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing is needed.
    Needless,
    /// The session has read there at this instant, on a server that was connected before.
    Own(Instant),
    /// It answered a question that was sent at this instant; that counts for servers that were connected before, because
    /// a replica that restarts can go back.
    Sample(Instant),
    /// It should have replayed enough by now: a guard in front of the read will tell.
    Expected,
}

/// How a replica stands to what a read needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Serves(Proof),
    /// It should get there within this time; `None`: it does not move.
    Behind(Option<Duration>),
    /// Its staleness is known to be too great, or not known to be small enough.
    Stale,
    /// Nobody knows before the primary was asked.
    Unknown,
}

/// A replica that is expected to get there this soon will be there before the read is: about half a round trip in a
/// local network.
const AS_GOOD_AS_THERE: Duration = Duration::from_micros(100);

impl Needs {
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    pub fn standing(&self, node: &NodeView, history: &History, now: Instant) -> Standing {
        let own = self.own.filter(|(own, _)| *own == node.id).map(|(_, at)| at);
        if self.unknown_since.is_some() && own.is_none() {
            return Standing::Unknown;
        }
        if self.covered_since.is_some_and(|since| node.covered_at.is_none_or(|covered_at| covered_at < since)) {
            return Standing::Stale;
        }
        let Some(position) = self.position else {
            return Standing::Serves(own.map_or(Proof::Needless, Proof::Own));
        };
        if let Some(sample) = node.progress.latest().filter(|sample| sample.has(position, history)) {
            return Standing::Serves(Proof::Sample(sample.sent_at));
        }
        match node.progress.expected_wait(position.lsn, now) {
            Some(wait) if wait <= AS_GOOD_AS_THERE => Standing::Serves(Proof::Expected),
            wait => Standing::Behind(wait),
        }
    }
}
