//! What a session has seen, and what its next read must therefore have reached. Pure.
//!
//! A session remembers no position per write. It remembers the node whose state it saw last and when that was: any
//! position that this node (or the primary, which is ahead of all) shows to a question sent later stands for all that
//! the session has seen. The question is asked only if a read goes elsewhere, and mostly somebody has asked it already.

use std::time::{Duration, Instant};

use crate::route::Needs;
use crate::types::{Level, Mutant, NodeId, Position};

/// Whose state the session saw last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It ran a batch on the primary.
    Primary { node: NodeId, at: Instant },
    /// It read on a replica that had all that it had seen before.
    Replica { node: NodeId, at: Instant },
    /// It read on a replica that had not proven that, so only the primary is sure to have it all.
    Unproven { at: Instant },
}

impl Seen {
    /// A position asked for at or after this instant stands for it.
    pub fn at(self) -> Instant {
        match self {
            Self::Primary { at, .. } | Self::Replica { at, .. } | Self::Unproven { at } => at,
        }
    }

    /// The node whose position stands for it, if not only the primary's does.
    pub fn node(self) -> Option<NodeId> {
        match self {
            Self::Primary { node, .. } | Self::Replica { node, .. } => Some(node),
            Self::Unproven { .. } => None,
        }
    }
}

/// A session's place in the history of its cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Causality {
    /// What was seen before `seen`, and has not been proven of the node that was read since.
    floor: Option<Position>,
    seen: Option<Seen>,
    /// What the client asked for by `causeway.after`.
    after: Option<Position>,
    /// The node of `seen` has reached `after`.
    after_is_met: bool,
    /// On which `seen` was.
    timeline: u32,
}

impl Causality {
    /// A batch ran on the primary, which has everything.
    pub fn ran_on_primary(&mut self, node: NodeId, timeline: u32, at: Instant) {
        if Mutant::ForgetsWrites.is_on() {
            return;
        }
        let seen = Some(Seen::Primary { node, at });
        *self = Self { floor: None, seen, after: self.after, after_is_met: true, timeline };
    }

    /// A batch read on a replica. `proven`: it had all that a read at level session needs.
    pub fn read_on_replica(&mut self, node: NodeId, timeline: u32, proven: bool, at: Instant) {
        if proven {
            let seen = Some(Seen::Replica { node, at });
            *self = Self { floor: None, seen, after: self.after, after_is_met: true, timeline };
        } else {
            self.seen = Some(Seen::Unproven { at });
            self.timeline = timeline;
        }
    }

    /// A position that stands for what was `seen`.
    pub fn resolve(&mut self, position: Position) {
        self.floor = self.floor.max(Some(position));
        self.seen = None;
        self.after_is_met = false;
    }

    pub fn seen(&self) -> Option<Seen> {
        self.seen
    }

    /// The timeline on which the session has seen that; 0: it has seen nothing.
    pub fn timeline(&self) -> u32 {
        self.timeline
    }

    pub fn floor(&self) -> Option<Position> {
        self.floor
    }

    /// The position that stands for all that the session has seen; `None`: nothing, or it must be resolved first.
    pub fn position(&self) -> Option<Position> {
        if self.seen.is_some() { None } else { self.floor.max(self.after) }
    }

    pub fn after(&self) -> Option<Position> {
        self.after
    }

    /// `causeway.after` has this value now.
    pub fn set_after(&mut self, after: Option<Position>) {
        if self.after != after && !Mutant::DeafToTokens.is_on() {
            self.after = after;
            self.after_is_met = false;
        }
    }

    /// What was lost was told.
    pub fn forget(&mut self) {
        *self = Self { after: self.after, ..Self::default() };
    }

    /// What a read at this level needs. `asked`: the position that a strong read has asked for.
    pub fn needs(&self, level: Level, max_staleness: Duration, arrived: Instant, asked: Option<Position>) -> Needs {
        let after = self.after;
        match level {
            Level::Eventual | Level::Primary => Needs { position: after, ..Needs::default() },
            Level::Bounded => {
                let covered_since = arrived.checked_sub(max_staleness);
                Needs { position: after, covered_since, ..Needs::default() }
            }
            Level::Session => self.session_needs(),
            Level::Strong => match asked {
                Some(_) => Needs { position: asked.max(after), ..Needs::default() },
                None => Needs { unknown_since: Some(arrived), position: after, ..Needs::default() },
            },
        }
    }

    fn session_needs(&self) -> Needs {
        let after = self.after.filter(|_| !self.after_is_met);
        let (own, unknown_since) = match self.seen {
            None => (None, None),
            Some(Seen::Replica { .. }) if Mutant::Wanders.is_on() => (None, None),
            Some(Seen::Replica { node, at }) => (Some((node, at)), Some(at)),
            Some(Seen::Primary { at, .. } | Seen::Unproven { at }) => (None, Some(at)),
        };
        Needs { position: self.floor.max(after), covered_since: None, unknown_since, own }
    }
}
