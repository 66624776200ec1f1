//! Why a session must keep its server although no transaction runs: state that cannot move yet.

use crate::sql::Effects;

/// One reason: a metric label, and what the log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pin {
    Set,
    Prepare,
    Listen,
    Temp,
    HoldCursor,
    AdvisoryLock,
    Session,
}

/// A pin, the effect that sets it, the effects that clear it, and whether the state survives an error in its batch.
struct Rule {
    pin: Pin,
    set: Effects,
    clear: Effects,
    survives_error: bool,
}

const RULES: [Rule; 7] = [
    Rule { pin: Pin::Set, set: Effects::SET, clear: Effects::CLEAR_SET, survives_error: false },
    Rule { pin: Pin::Prepare, set: Effects::PREPARE, clear: Effects::CLEAR_PREPARE, survives_error: true },
    Rule { pin: Pin::Listen, set: Effects::LISTEN, clear: Effects::CLEAR_LISTEN, survives_error: false },
    Rule { pin: Pin::Temp, set: Effects::TEMP, clear: Effects::CLEAR_TEMP, survives_error: false },
    Rule { pin: Pin::HoldCursor, set: Effects::HOLD_CURSOR, clear: Effects::CLEAR_HOLD_CURSOR, survives_error: false },
    Rule {
        pin: Pin::AdvisoryLock,
        set: Effects::ADVISORY_LOCK,
        clear: Effects::CLEAR_ADVISORY_LOCK,
        survives_error: true,
    },
    Rule { pin: Pin::Session, set: Effects::SESSION, clear: Effects::NONE, survives_error: true },
];

impl Pin {
    pub const ALL: [Self; 7] =
        [Self::Set, Self::Prepare, Self::Listen, Self::Temp, Self::HoldCursor, Self::AdvisoryLock, Self::Session];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Prepare => "prepare",
            Self::Listen => "listen",
            Self::Temp => "temp_table",
            Self::HoldCursor => "hold_cursor",
            Self::AdvisoryLock => "advisory_lock",
            Self::Session => "session_state",
        }
    }
}

/// How a batch with effects ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Without an error, outside a transaction block: what it did is done.
    Done,
    /// In a transaction that may still be rolled back, or with an error behind a COMMIT of its own: what it set may be
    /// there, and so may what it cleared.
    Unsettled,
    Failed,
}

/// The pins of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pins(u8);

impl Pins {
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn contains(self, pin: Pin) -> bool {
        self.0 & 1 << pin as u8 != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Pin> {
        Pin::ALL.into_iter().filter(move |pin| self.contains(*pin))
    }

    /// What a batch leaves behind. A batch that both clears and sets is taken to have set last.
    #[must_use]
    pub fn after(self, effects: Effects, ending: Ending) -> Self {
        RULES.iter().fold(self, |pins, rule| {
            let bit = 1 << rule.pin as u8;
            let clears = effects.intersects(rule.clear.union(Effects::CLEAR_ALL)) && ending == Ending::Done;
            let sets = effects.intersects(rule.set) && (ending != Ending::Failed || rule.survives_error);
            let kept = if clears { pins.0 & !bit } else { pins.0 };
            Self(if sets { kept | bit } else { kept })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_come_and_go_with_effects() {
        use Effects as E;
        use Ending::{Done, Failed, Unsettled};
        const BOTH: Effects = E::SET.union(E::CLEAR_SET);
        type Case = (&'static [(Effects, Ending)], &'static [Pin]);
        let cases: [Case; 9] = [
            (&[(E::SET, Done)], &[Pin::Set]),
            (&[(E::SET, Failed)], &[]),
            (&[(E::ADVISORY_LOCK, Failed)], &[Pin::AdvisoryLock]),
            (&[(E::SET, Done), (E::CLEAR_SET, Done)], &[]),
            (&[(E::SET, Done), (E::CLEAR_SET, Unsettled)], &[Pin::Set]),
            (&[(E::SET, Done), (E::CLEAR_SET, Failed)], &[Pin::Set]),
            (&[(E::SET, Done), (E::LISTEN, Done), (E::CLEAR_LISTEN, Done)], &[Pin::Set]),
            (&[(E::SET, Done), (E::TEMP, Done), (E::SESSION, Done), (E::CLEAR_ALL, Done)], &[]),
            (&[(BOTH, Done)], &[Pin::Set]),
        ];
        for (history, expected) in cases {
            let pins = history.iter().fold(Pins::default(), |pins, (effects, ending)| pins.after(*effects, *ending));
            assert_eq!(pins.iter().collect::<Vec<_>>(), expected, "{history:?}");
        }
    }
}
