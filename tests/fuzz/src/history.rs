//! A cluster whose primaries are replaced again and again, and what is known of it: the bytes say where each was left,
//! and whether somebody saw that.

use causeway::topology::{Fork, History, Holds};
use causeway::types::{Lsn, Position};

use super::input::Input;

/// Older forks may be forgotten.
const REMEMBERED: usize = 64;
const SYSTEM: u64 = 7;

/// A timeline that was left.
#[derive(Clone, Copy, Debug)]
struct Left {
    timeline: u32,
    /// What lies beyond on it is gone.
    at: Lsn,
    seen: bool,
}

pub fn survive(data: &[u8]) {
    let mut input = Input(data);
    let mut history = History::default();
    assert_eq!(history.holds(position(1, 0)), Holds::Unknown);
    let mut timeline = 1 + u32::from(input.byte());
    history.accept(SYSTEM, timeline, None);
    let mut lefts: Vec<Left> = Vec::new();
    while !input.is_empty() {
        let (choice, at) = (input.byte(), Lsn(u64::from(input.byte())));
        match choice & 7 {
            0 => {
                let asked = position(u32::from(input.byte()), at.0);
                check(&history, timeline, &lefts, asked);
            }
            // Somebody says again what is known, or what another timeline's fork is.
            1 => history.accept(SYSTEM, timeline, Some(Fork { timeline, at })),
            // An older timeline is another history, of which nothing before is known.
            2 if choice & 0x80 != 0 && timeline > 1 => {
                timeline -= 1;
                lefts.clear();
                history.accept(SYSTEM, timeline, None);
                assert_eq!(history, History::of(SYSTEM, timeline));
            }
            _ => {
                let seen = choice & 8 == 0;
                let next = timeline.saturating_add(1 + u32::from(choice >> 4));
                let told = if choice & 16 == 0 { timeline } else { timeline.wrapping_add(1) };
                let seen_rightly = seen && told == timeline;
                history.accept(SYSTEM, next, seen.then_some(Fork { timeline: told, at }));
                if next > timeline {
                    lefts.push(Left { timeline, at, seen: seen_rightly });
                    let last = seen_rightly.then_some(Fork { timeline, at });
                    assert_eq!(history.last_fork(), last);
                }
                timeline = next;
            }
        }
        assert!(history.is_of(SYSTEM, timeline));
    }
    for left in &lefts {
        check(&history, timeline, &lefts, position(left.timeline, left.at.0));
        check(&history, timeline, &lefts, position(left.timeline, left.at.0 + 1));
    }
    assert_eq!(history.holds(Position { system: SYSTEM + 1, ..position(timeline, 0) }), Holds::OtherSystem);
}

fn position(timeline: u32, lsn: u64) -> Position {
    Position { system: SYSTEM, timeline, lsn: Lsn(lsn) }
}

/// What is said of a position is true, and said if it can be known.
fn check(history: &History, timeline: u32, lefts: &[Left], asked: Position) {
    let said = history.holds(asked);
    if asked.timeline >= timeline {
        assert_eq!(said, if asked.timeline == timeline { Holds::Yes } else { Holds::Future });
        return;
    }
    let Some(index) = lefts.iter().position(|left| left.timeline == asked.timeline) else {
        assert_eq!(said, Holds::Unknown);
        return;
    };
    let later = &lefts[index..];
    let is_there = later.iter().all(|left| asked.lsn <= left.at);
    let is_remembered = later.len() <= REMEMBERED;
    match said {
        Holds::Yes => assert!(is_there && later.iter().all(|left| left.seen), "{asked:?} in {lefts:?}"),
        Holds::Lost { forked_at } => {
            assert!(!is_there && later.iter().any(|left| left.seen && left.at == forked_at), "{asked:?} in {lefts:?}");
        }
        Holds::Unknown => assert!(!is_remembered || later.iter().any(|left| !left.seen), "{asked:?} in {lefts:?}"),
        Holds::OtherSystem | Holds::Future => panic!("{said:?} of {asked:?}"),
    }
    let seen_loss = later.iter().any(|left| left.seen && asked.lsn > left.at);
    assert!(!is_remembered || !seen_loss || matches!(said, Holds::Lost { .. }), "{asked:?} in {lefts:?}");
}
