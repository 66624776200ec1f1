//! Why a session must keep its server although no transaction runs: state that cannot move.

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
    Sequence,
}

/// A pin: the effects that may set and clear it, and how to ask the server whether there is a reason for it.
struct Rule {
    pin: Pin,
    set: Effects,
    clear: Effects,
    /// A condition in SQL; `None`: nobody can tell, so it stays until all is discarded.
    holds: Option<&'static str>,
}

/// PostgreSQL's own objects only, by their full names, for a session's `search_path` may say anything.
const RULES: [Rule; 8] = [
    Rule { pin: Pin::Set, set: Effects::SET_UNNAMED, clear: Effects::NONE, holds: None },
    Rule {
        pin: Pin::Prepare,
        set: Effects::PREPARE,
        clear: Effects::CLEAR_PREPARE,
        // Those with a name of ours follow their client.
        holds: Some(
            "EXISTS (SELECT FROM pg_catalog.pg_prepared_statement() \
             WHERE from_sql AND NOT pg_catalog.starts_with(name, 'causeway_'))",
        ),
    },
    Rule {
        pin: Pin::Listen,
        set: Effects::LISTEN,
        clear: Effects::CLEAR_LISTEN,
        holds: Some("EXISTS (SELECT FROM pg_catalog.pg_listening_channels())"),
    },
    Rule {
        pin: Pin::Temp,
        set: Effects::TEMP,
        clear: Effects::CLEAR_TEMP,
        // What is in a temporary schema depends on it (2615 is pg_namespace), and that is indexed.
        holds: Some(
            "pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.<>) 0 AND EXISTS (SELECT FROM pg_catalog.pg_depend \
             WHERE refclassid OPERATOR(pg_catalog.=) 2615 \
             AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())",
        ),
    },
    Rule {
        pin: Pin::HoldCursor,
        set: Effects::HOLD_CURSOR,
        clear: Effects::CLEAR_HOLD_CURSOR,
        holds: Some("EXISTS (SELECT FROM pg_catalog.pg_cursor() WHERE is_holdable)"),
    },
    Rule {
        pin: Pin::AdvisoryLock,
        set: Effects::ADVISORY_LOCK,
        clear: Effects::CLEAR_ADVISORY_LOCK,
        holds: Some(
            "EXISTS (SELECT FROM pg_catalog.pg_lock_status() WHERE locktype OPERATOR(pg_catalog.=) 'advisory' \
             AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())",
        ),
    },
    Rule { pin: Pin::Session, set: Effects::SESSION, clear: Effects::NONE, holds: None },
    // Only in a database where somebody asks for them.
    Rule { pin: Pin::Sequence, set: Effects::NONE, clear: Effects::NONE, holds: None },
];

impl Pin {
    pub const ALL: [Self; 8] = [
        Self::Set,
        Self::Prepare,
        Self::Listen,
        Self::Temp,
        Self::HoldCursor,
        Self::AdvisoryLock,
        Self::Session,
        Self::Sequence,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Prepare => "prepare",
            Self::Listen => "listen",
            Self::Temp => "temp_table",
            Self::HoldCursor => "hold_cursor",
            Self::AdvisoryLock => "advisory_lock",
            Self::Session => "session_state",
            Self::Sequence => "sequence",
        }
    }

    /// A condition in SQL that a server can answer.
    pub fn holds(self) -> Option<&'static str> {
        RULES[self as usize].holds
    }
}

/// A set of pins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pins(u8);

impl Pins {
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn contains(self, pin: Pin) -> bool {
        self.0 & 1 << pin as u8 != 0
    }

    #[must_use]
    pub fn with(self, pin: Pin) -> Self {
        Self(self.0 | 1 << pin as u8)
    }

    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub fn iter(self) -> impl Iterator<Item = Pin> {
        Pin::ALL.into_iter().filter(move |pin| self.contains(*pin))
    }

    fn of(choose: impl Fn(&Rule) -> bool) -> Self {
        RULES.iter().filter(|rule| choose(rule)).fold(Self::default(), |pins, rule| pins.with(rule.pin))
    }

    /// Which of a session's pins these effects may have changed, of those that its server can tell.
    #[must_use]
    pub fn doubtful(self, effects: Effects) -> Self {
        Self::of(|rule| {
            let may_be_set = effects.intersects(rule.set.union(Effects::HIDDEN));
            let may_be_cleared = self.contains(rule.pin) && effects.intersects(rule.clear.union(Effects::CLEAR_ALL));
            rule.holds.is_some() && (may_be_set || may_be_cleared)
        })
    }

    /// The pins that nobody can tell: they hold from now on.
    #[must_use]
    pub fn untold(effects: Effects) -> Self {
        Self::of(|rule| rule.holds.is_none() && effects.intersects(rule.set))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_stand_in_the_order_of_the_pins() {
        assert!(RULES.iter().zip(Pin::ALL).all(|(rule, pin)| rule.pin == pin));
    }

    #[test]
    fn what_is_asked_follows_from_the_effects_and_the_pins() {
        use Effects as E;
        type Case = (&'static [Pin], Effects, &'static [Pin], &'static [Pin]);
        const ASKABLE: &[Pin] = &[Pin::Prepare, Pin::Listen, Pin::Temp, Pin::HoldCursor, Pin::AdvisoryLock];
        let cases: [Case; 7] = [
            (&[], E::NONE, &[], &[]),
            (&[], E::LISTEN, &[Pin::Listen], &[]),
            (&[], E::CLEAR_LISTEN, &[], &[]),
            (&[Pin::Listen], E::CLEAR_LISTEN, &[Pin::Listen], &[]),
            (&[], E::HIDDEN, ASKABLE, &[]),
            (&[], E::SESSION.union(E::SET_UNNAMED), &[], &[Pin::Set, Pin::Session]),
            (&[Pin::Session, Pin::Temp], E::CLEAR_ALL, &[Pin::Temp], &[]),
        ];
        for (pins, effects, doubtful, untold) in cases {
            let pins = pins.iter().fold(Pins::default(), |pins, pin| pins.with(*pin));
            assert_eq!(pins.doubtful(effects).iter().collect::<Vec<_>>(), doubtful, "{effects}");
            assert_eq!(Pins::untold(effects).iter().collect::<Vec<_>>(), untold, "{effects}");
        }
    }
}
