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
    pub fn new(after: Option<Position>) -> Self {
        let mut new = Self::default();
        new.set_after(after);
        new
    }

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

    /// What was lost was told. A token of the client's stands for something else.
    pub fn forget(&mut self) {
        *self = Self::new(self.after);
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

    /// Any replica has all that the session has seen: nothing.
    pub fn needs_nothing(&self) -> bool {
        self.session_needs().is_nothing()
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::Lsn;

    const PRIMARY: NodeId = NodeId(0);
    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn at(lsn: u64) -> Position {
        Position { system: 1, timeline: 1, lsn: Lsn(lsn) }
    }

    fn session(causality: &Causality) -> Needs {
        causality.needs(Level::Session, Duration::ZERO, Instant::now(), None)
    }

    #[test]
    fn a_session_needs_what_it_has_seen_and_nothing_else() {
        let now = Instant::now();
        let mut causality = Causality::default();
        assert!(session(&causality).is_nothing(), "it has seen nothing");
        causality.read_on_replica(A, 1, true, now);
        let needs = session(&causality);
        assert_eq!((needs.own, needs.unknown_since, needs.position), (Some((A, now)), Some(now), None));
        causality.ran_on_primary(PRIMARY, 1, now);
        let needs = session(&causality);
        assert_eq!((needs.own, needs.unknown_since, needs.position), (None, Some(now), None));
        causality.resolve(at(100));
        assert_eq!(session(&causality), Needs { position: Some(at(100)), ..Needs::default() });
        causality.read_on_replica(B, 1, true, now);
        assert_eq!(session(&causality).position, None, "whoever reads there again needs no proof");
    }

    #[test]
    fn a_read_that_proves_nothing_forgets_nothing() {
        let now = Instant::now();
        let mut causality = Causality::default();
        causality.ran_on_primary(PRIMARY, 1, now);
        causality.resolve(at(100));
        causality.read_on_replica(A, 1, false, now);
        let needs = session(&causality);
        assert_eq!((needs.own, needs.unknown_since, needs.position), (None, Some(now), Some(at(100))));
        causality.resolve(at(50));
        assert_eq!(session(&causality).position, Some(at(100)));
    }

    #[test]
    fn a_token_holds_at_every_level_and_until_it_is_met() {
        let now = Instant::now();
        let mut causality = Causality::new(Some(at(70)));
        for level in Level::ALL {
            assert_eq!(causality.needs(level, Duration::ZERO, now, Some(at(60))).position, Some(at(70)), "{level:?}");
        }
        causality.read_on_replica(A, 1, true, now);
        assert_eq!(session(&causality).position, None);
        causality.resolve(at(80));
        assert_eq!(session(&causality).position, Some(at(80)));
        causality.set_after(Some(at(90)));
        assert_eq!((session(&causality).position, causality.position()), (Some(at(90)), Some(at(90))));
    }

    #[test]
    fn the_levels_ask_for_what_they_promise() {
        let earlier = Instant::now();
        let now = earlier + Duration::from_secs(2);
        let mut causality = Causality::default();
        causality.ran_on_primary(PRIMARY, 1, now);
        let needs = |level, asked| causality.needs(level, Duration::from_secs(2), now, asked);
        assert!(needs(Level::Eventual, None).is_nothing());
        assert_eq!(needs(Level::Bounded, None), Needs { covered_since: Some(earlier), ..Needs::default() });
        assert_eq!(needs(Level::Strong, None), Needs { unknown_since: Some(now), ..Needs::default() });
        assert_eq!(needs(Level::Strong, Some(at(5))), Needs { position: Some(at(5)), ..Needs::default() });
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Of somebody else.
        Write,
        OnPrimary,
        /// On this replica, at level session or eventual.
        Read(usize, bool),
        Replay(usize, u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            Just(Step::Write),
            Just(Step::OnPrimary),
            (0..2_usize, any::<bool>()).prop_map(|(node, proven)| Step::Read(node, proven)),
            (0..2_usize, 1..4_u64).prop_map(|(node, by)| Step::Replay(node, by)),
        ];
        prop::collection::vec(step, 1..60)
    }

    proptest! {
        /// A model of one session, one primary and two replicas: whatever happens, a read that the needs allow at level
        /// session sees no less than the session has seen.
        #[test]
        fn a_session_never_goes_back(steps in steps()) {
            let start = Instant::now();
            let mut causality = Causality::default();
            let (mut primary, mut replayed, mut seen) = (1_u64, [0_u64; 2], 0_u64);
            for (tick, step) in (1_u32..).zip(steps) {
                let now = start + Duration::from_millis(1) * tick;
                match step {
                    Step::Write => primary += 1,
                    Step::Replay(node, by) => replayed[node] = (replayed[node] + by).min(primary),
                    Step::OnPrimary => {
                        primary += 1;
                        seen = primary;
                        causality.ran_on_primary(PRIMARY, 1, now);
                    }
                    Step::Read(node, false) => {
                        seen = seen.max(replayed[node]);
                        causality.read_on_replica([A, B][node], 1, false, now);
                    }
                    Step::Read(node, true) => {
                        let id = [A, B][node];
                        let own = session(&causality).own.is_some_and(|(own, _)| own == id);
                        if !own && session(&causality).unknown_since.is_some() {
                            causality.resolve(at(primary));
                        }
                        let needs = session(&causality);
                        if needs.position.is_none_or(|position| position.lsn.0 <= replayed[node]) {
                            prop_assert!(replayed[node] >= seen, "{step:?}: {} after {seen}", replayed[node]);
                            seen = replayed[node];
                            causality.read_on_replica(id, 1, true, now);
                        }
                    }
                }
            }
        }
    }
}
