//! The history of the accepted primary: which timelines it comes from, and where it left them.

use std::str;

use crate::types::{Lsn, Position};

/// Older forks than so many are not remembered; positions of timelines before them are then unknown.
const MAX_FORKS: usize = 64;

/// Where a promoted node left the timeline that it had replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The timeline that was left.
    pub timeline: u32,
    /// Up to here it is part of the new one.
    pub at: Lsn,
}

/// What a node says of its own timeline: all the forks that lead to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    timeline: u32,
    /// By timeline, ascending; of a long line the latest.
    forks: Vec<Fork>,
}

/// Does one timeline go on from another?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Descent {
    Certain,
    Unknown,
    /// It left their common past elsewhere.
    Foreign,
}

impl Lineage {
    /// Reads the answer to `TIMELINE_HISTORY`, the text of a timeline history file: on each line a timeline, where it
    /// was left, and why, between tabs. Timeline 1 has none. `None`: it is not what PostgreSQL writes.
    pub fn parse(timeline: u32, text: &[u8]) -> Option<Self> {
        let mut forks: Vec<Fork> = Vec::new();
        for line in text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii) {
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let mut fields = line.split(u8::is_ascii_whitespace).map(|field| str::from_utf8(field).ok());
            let fork = Fork { timeline: fields.next()??.parse().ok()?, at: fields.next()??.parse().ok()? };
            let ascends = forks.last().is_none_or(|last| last.timeline < fork.timeline && last.at <= fork.at);
            if !ascends || fork.timeline >= timeline {
                return None;
            }
            if forks.len() >= MAX_FORKS {
                forks.remove(0);
            }
            forks.push(fork);
        }
        Some(Self { timeline, forks })
    }

    pub(super) fn timeline(&self) -> u32 {
        self.timeline
    }

    /// Where the timeline itself begins.
    pub(super) fn last_fork(&self) -> Option<Fork> {
        self.forks.last().copied()
    }

    /// Does it go on from `timeline`, whose own past has these forks, as far as they are known?
    pub(super) fn descent_from(&self, timeline: u32, past: impl IntoIterator<Item = Fork>) -> Descent {
        let left_at = |timeline| self.forks.iter().find(|fork| fork.timeline == timeline).map(|fork| fork.at);
        let differs = |fork: Fork| left_at(fork.timeline).is_some_and(|at| at != fork.at);
        if left_at(timeline).is_none() || past.into_iter().any(differs) { Descent::Foreign } else { Descent::Certain }
    }

    pub(super) fn forks(&self) -> impl Iterator<Item = Fork> + '_ {
        self.forks.iter().copied()
    }
}

/// A bounded list of forks that leads to the accepted timeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// System identifier and timeline; none before the first primary.
    current: Option<(u64, u32)>,
    /// By the timeline that was left, ascending: those that Causeway saw accepted, and the forks it knows.
    left: Vec<(u32, Option<Lsn>)>,
}

/// Is a position part of the history?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    Yes,
    /// It lies beyond the fork: what was written there is gone.
    Lost {
        forked_at: Lsn,
    },
    /// Nobody saw where its timeline was left, or there is no primary yet.
    Unknown,
    /// Another cluster's.
    OtherSystem,
    /// Of a timeline that is not accepted yet.
    Future,
}

impl History {
    /// The timeline of a first primary; what came before it is not known.
    pub fn of(system: u64, timeline: u32) -> Self {
        Self { current: Some((system, timeline)), left: Vec::new() }
    }

    pub fn is_of(&self, system: u64, timeline: u32) -> bool {
        self.current == Some((system, timeline))
    }

    /// The new primary's timeline takes over, with all that it says of its past.
    pub(super) fn accept_lineage(&mut self, system: u64, lineage: &Lineage) {
        self.current = Some((system, lineage.timeline));
        self.left = lineage.forks().map(|fork| (fork.timeline, Some(fork.at))).collect();
    }

    /// The forks on the way to the accepted timeline that are known.
    pub(super) fn forks(&self) -> impl Iterator<Item = Fork> + '_ {
        self.left.iter().filter_map(|&(timeline, at)| Some(Fork { timeline, at: at? }))
    }

    /// The new primary's timeline takes over; `fork` is where it says it comes from, if anybody saw it.
    pub fn accept(&mut self, system: u64, timeline: u32, fork: Option<Fork>) {
        match self.current {
            Some((known, left)) if known == system && left < timeline => {
                // A fork from another timeline than the accepted one says nothing of where this one was left.
                let at = fork.filter(|fork| fork.timeline == left).map(|fork| fork.at);
                if self.left.len() >= MAX_FORKS {
                    self.left.remove(0);
                }
                self.left.push((left, at));
                self.current = Some((system, timeline));
            }
            Some(current) if current == (system, timeline) => {}
            _ => *self = Self::of(system, timeline),
        }
    }

    /// Where the timeline before the accepted one was left; `None` if there was none, or nobody saw it.
    pub fn last_fork(&self) -> Option<Fork> {
        let &(timeline, at) = self.left.last()?;
        at.map(|at| Fork { timeline, at })
    }

    pub fn holds(&self, position: Position) -> Holds {
        let Some((system, timeline)) = self.current else { return Holds::Unknown };
        if position.system != system {
            return Holds::OtherSystem;
        }
        if position.timeline >= timeline {
            return if position.timeline == timeline { Holds::Yes } else { Holds::Future };
        }
        let Ok(index) = self.left.binary_search_by_key(&position.timeline, |left| left.0) else {
            return Holds::Unknown;
        };
        let forks = self.left.get(index..).unwrap_or_default();
        // Each later primary goes on from its fork at most, so one that lies before the position is enough.
        match forks.iter().filter_map(|fork| fork.1).min() {
            Some(forked_at) if position.lsn > forked_at => Holds::Lost { forked_at },
            Some(_) if forks.iter().all(|fork| fork.1.is_some()) => Holds::Yes,
            _ => Holds::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SYSTEM: u64 = 7;

    fn position(timeline: u32, lsn: u64) -> Position {
        Position { system: SYSTEM, timeline, lsn: Lsn(lsn) }
    }

    fn fork(timeline: u32, at: u64) -> Fork {
        Fork { timeline, at: Lsn(at) }
    }

    /// 1 left at 100 for 2, that at 200 for 3, that nobody knows where for 5, and that at 400 for 6.
    fn history() -> History {
        let mut history = History::default();
        history.accept(SYSTEM, 1, None);
        history.accept(SYSTEM, 2, Some(fork(1, 100)));
        history.accept(SYSTEM, 2, None);
        history.accept(SYSTEM, 3, Some(fork(2, 200)));
        history
    }

    #[test]
    fn a_position_holds_up_to_the_forks_that_came_after_it() {
        let mut later = history();
        later.accept(SYSTEM, 5, None);
        later.accept(SYSTEM, 6, Some(fork(5, 400)));
        let lost = |at| Holds::Lost { forked_at: Lsn(at) };
        for (history, position, expected) in [
            (History::default(), position(1, 0), Holds::Unknown),
            (history(), position(3, 9999), Holds::Yes),
            (history(), position(4, 0), Holds::Future),
            (history(), position(2, 200), Holds::Yes),
            (history(), position(2, 201), lost(200)),
            (history(), position(1, 100), Holds::Yes),
            (history(), position(1, 101), lost(100)),
            (history(), position(1, 500), lost(100)),
            (history(), Position { system: 8, ..position(3, 0) }, Holds::OtherSystem),
            (History::of(SYSTEM, 3), position(2, 1), Holds::Unknown),
            (later.clone(), position(5, 400), Holds::Yes),
            (later.clone(), position(5, 401), lost(400)),
            (later.clone(), position(4, 1), Holds::Unknown),
            (later.clone(), position(3, 300), Holds::Unknown),
            (later.clone(), position(3, 401), lost(400)),
            (later.clone(), position(1, 100), Holds::Unknown),
            (later, position(1, 101), lost(100)),
        ] {
            assert_eq!(history.holds(position), expected, "{position:?} in {history:?}");
        }
    }

    #[test]
    fn a_fork_from_another_timeline_tells_nothing() {
        let mut history = History::of(SYSTEM, 2);
        history.accept(SYSTEM, 3, Some(fork(1, 100)));
        assert_eq!(history.last_fork(), None);
        assert_eq!(history.holds(position(2, 1)), Holds::Unknown);
        assert_eq!(self::history().last_fork(), Some(fork(2, 200)));
    }

    #[test]
    fn a_history_file_is_read_and_anything_else_is_not() {
        let forks = |text: &str| Lineage::parse(4, text.as_bytes()).map(|lineage| lineage.forks);
        for (text, expected) in [
            ("", Some(vec![])),
            ("# a comment\n\n1\t0/3000148\tno recovery target specified\n", Some(vec![fork(1, 0x300_0148)])),
            ("1\t0/A\tbefore 2026-01-01\n\n3\t1/B\tx", Some(vec![fork(1, 0xA), fork(3, 0x1_0000_000B)])),
            ("1\t0/A\r\n2\t0/A\r\n", Some(vec![fork(1, 0xA), fork(2, 0xA)])),
            ("1", None),
            ("1\tnowhere\tx", None),
            ("x\t0/A\ty", None),
            ("2\t0/A\tx\n1\t0/B\ty", None),
            ("1\t0/B\tx\n2\t0/A\ty", None),
            ("4\t0/A\tof itself", None),
            ("-1\t0/A\tx", None),
        ] {
            assert_eq!(forks(text), expected, "{text:?}");
        }
        let endless: Vec<String> = (1..1000).map(|timeline| format!("{timeline}\t0/{timeline:X}\tx")).collect();
        assert_eq!(Lineage::parse(1000, endless.join("\n").as_bytes()).unwrap().forks.len(), MAX_FORKS);
    }

    #[test]
    fn a_lineage_tells_what_it_goes_on_from() {
        let line = |timeline, forks: &[(u32, u64)]| Lineage {
            timeline,
            forks: forks.iter().map(|&(timeline, at)| fork(timeline, at)).collect(),
        };
        for (lineage, timeline, past, expected) in [
            (line(2, &[(1, 100)]), 1, vec![], Descent::Certain),
            (line(3, &[(1, 100), (2, 200)]), 2, vec![fork(1, 100)], Descent::Certain),
            (line(3, &[(1, 100), (2, 200)]), 2, vec![], Descent::Certain),
            // Promoted from what 2 had left behind.
            (line(3, &[(1, 100)]), 2, vec![fork(1, 100)], Descent::Foreign),
            // Another 2 than that which is known.
            (line(3, &[(1, 90), (2, 200)]), 2, vec![fork(1, 100)], Descent::Foreign),
            (line(4, &[(1, 100), (3, 200)]), 2, vec![], Descent::Foreign),
        ] {
            assert_eq!(lineage.descent_from(timeline, past.clone()), expected, "{lineage:?} from {timeline}, {past:?}");
        }
    }

    #[test]
    fn a_lineage_makes_the_past_known() {
        let mut history = History::of(SYSTEM, 1);
        history.accept_lineage(SYSTEM, &Lineage { timeline: 3, forks: vec![fork(1, 100), fork(2, 200)] });
        assert_eq!(history, self::history());
        assert_eq!(history.forks().collect::<Vec<_>>(), [fork(1, 100), fork(2, 200)]);
    }

    #[test]
    fn another_system_has_a_history_of_its_own_and_none_is_endless() {
        let mut history = history();
        history.accept(8, 3, None);
        assert_eq!(history, History::of(8, 3));
        for timeline in 4..1000 {
            history.accept(8, timeline, Some(fork(timeline - 1, u64::from(timeline))));
        }
        assert_eq!(history.left.len(), MAX_FORKS);
        assert_eq!(history.holds(Position { system: 8, timeline: 998, lsn: Lsn(999) }), Holds::Yes);
        assert_eq!(history.holds(Position { system: 8, timeline: 3, lsn: Lsn(0) }), Holds::Unknown);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(timeline: u32, text in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Lineage::parse(timeline, &text);
        }
    }
}
