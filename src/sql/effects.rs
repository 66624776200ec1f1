//! What a text leaves behind in the session.

use std::fmt;
use std::ops::BitOr;

/// What a text does to the session beyond its result: a set of bits.
///
/// The set is a union over the text's statements, without their order.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Effects(u32);

impl Effects {
    pub const NONE: Self = Self(0);
    /// SET, RESET x, `set_config(…, false)`, SET ROLE …: the session's parameters may differ from before; the text names
    /// them ([`Classified::settings`](super::Classified::settings)).
    pub const SET: Self = Self(1 << 0);
    /// SQL PREPARE.
    pub const PREPARE: Self = Self(1 << 1);
    pub const LISTEN: Self = Self(1 << 2);
    /// A temporary relation may have been created, or is mentioned (`pg_temp`).
    pub const TEMP: Self = Self(1 << 3);
    /// DECLARE … WITH HOLD.
    pub const HOLD_CURSOR: Self = Self(1 << 4);
    /// `pg_advisory_lock` and friends that last beyond the transaction.
    pub const ADVISORY_LOCK: Self = Self(1 << 5);
    /// What only DISCARD ALL or the server's end undoes: LOAD, the random seed, dblink connections, a replication origin.
    pub const SESSION: Self = Self(1 << 6);
    /// SET LOCAL, `set_config(…, true)`: parameters differ from the session's until the transaction ends.
    pub const LOCAL: Self = Self(1 << 7);
    /// RESET ALL.
    pub const CLEAR_SET: Self = Self(1 << 8);
    /// DEALLOCATE: fewer of SQL's prepared statements may be left.
    pub const CLEAR_PREPARE: Self = Self(1 << 9);
    /// UNLISTEN.
    pub const CLEAR_LISTEN: Self = Self(1 << 10);
    /// DROP or DISCARD TEMP: fewer temporary objects may be left.
    pub const CLEAR_TEMP: Self = Self(1 << 11);
    /// CLOSE: fewer cursors may be left.
    pub const CLEAR_HOLD_CURSOR: Self = Self(1 << 12);
    /// `pg_advisory_unlock()` and friends.
    pub const CLEAR_ADVISORY_LOCK: Self = Self(1 << 13);
    /// DISCARD ALL.
    pub const CLEAR_ALL: Self = Self(1 << 14);
    /// Parameters go back to the server's own values: RESET, SET … TO DEFAULT, DISCARD ALL. The login's must come back.
    pub const RESET: Self = Self(1 << 15);
    /// DDL: catalog facts may be out of date afterwards.
    pub const DDL: Self = Self(1 << 16);
    /// It runs code that may change any of the session's state out of our sight.
    pub const HIDDEN: Self = Self(1 << 17);
    /// A parameter is set whose name is in no text: it cannot follow the session.
    pub const SET_UNNAMED: Self = Self(1 << 18);
    /// A sequence may be advanced: `currval` and `lastval` of the session change.
    pub const SEQUENCE: Self = Self(1 << 19);
    /// `currval` or `lastval`: answered by the server where the session's sequences were advanced.
    pub const CURRVAL: Self = Self(1 << 20);

    /// All that may tie a session to its server.
    pub const LASTING: Self = Self(0x7e | Self::SET_UNNAMED.0);

    /// Code that does it may not run on a replica.
    pub(super) const NEEDS_PRIMARY: Self = Self(Self::LASTING.0 | Self::SET.0 | Self::SEQUENCE.0 | Self::CURRVAL.0);

    const NAMES: [(Self, &'static str); 21] = [
        (Self::SET, "set"),
        (Self::PREPARE, "prepare"),
        (Self::LISTEN, "listen"),
        (Self::TEMP, "temp"),
        (Self::HOLD_CURSOR, "hold_cursor"),
        (Self::ADVISORY_LOCK, "advisory_lock"),
        (Self::SESSION, "session"),
        (Self::LOCAL, "local"),
        (Self::CLEAR_SET, "clear_set"),
        (Self::CLEAR_PREPARE, "clear_prepare"),
        (Self::CLEAR_LISTEN, "clear_listen"),
        (Self::CLEAR_TEMP, "clear_temp"),
        (Self::CLEAR_HOLD_CURSOR, "clear_hold_cursor"),
        (Self::CLEAR_ADVISORY_LOCK, "clear_advisory_lock"),
        (Self::CLEAR_ALL, "clear_all"),
        (Self::RESET, "reset"),
        (Self::DDL, "ddl"),
        (Self::HIDDEN, "hidden"),
        (Self::SET_UNNAMED, "set_unnamed"),
        (Self::SEQUENCE, "sequence"),
        (Self::CURRVAL, "currval"),
    ];

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// All bits of `other` are here.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Some bit of `other` is here.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The names of the bits, as printed and logged.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(bit, _)| self.contains(*bit)).map(|(_, name)| name)
    }
}

impl BitOr for Effects {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl fmt::Debug for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `set, temp`, or `none`.
impl fmt::Display for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (n, name) in self.names().enumerate() {
            let separator = if n == 0 { "" } else { ", " };
            write!(f, "{separator}{name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Effects as E;

    #[test]
    fn effects_print_their_names() {
        assert_eq!(E::NONE.to_string(), "none");
        assert_eq!(format!("{:?}", E::SET | E::CLEAR_ALL | E::DDL), "set, clear_all, ddl");
    }
}
