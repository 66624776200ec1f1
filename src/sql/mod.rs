//! What a statement does, decided from its bytes, without I/O.

use std::time::Instant;

/// Read or write. What is not known to be a read is a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    Read,
    Write,
    /// Routed as a write.
    Unknown,
}

/// What a statement does to the session beyond its result: a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Effects(u32);

impl Effects {
    pub const NONE: Self = Self(0);
    /// SET, RESET x, set_config(…, false), SET ROLE, setseed …: session parameters differ from the login's.
    pub const SET: Self = Self(1 << 0);
    /// SQL PREPARE.
    pub const PREPARE: Self = Self(1 << 1);
    pub const LISTEN: Self = Self(1 << 2);
    /// A temporary relation may have been created, or is mentioned (pg_temp).
    pub const TEMP: Self = Self(1 << 3);
    /// DECLARE … WITH HOLD.
    pub const HOLD_CURSOR: Self = Self(1 << 4);
    /// pg_advisory_lock and friends that last beyond the transaction.
    pub const ADVISORY_LOCK: Self = Self(1 << 5);
    /// LOAD, currval, lastval, nextval's session memory …: only the same server gives the same answer.
    pub const SESSION: Self = Self(1 << 6);
    /// RESET ALL.
    pub const CLEAR_SET: Self = Self(1 << 8);
    /// DEALLOCATE ALL.
    pub const CLEAR_PREPARE: Self = Self(1 << 9);
    /// UNLISTEN *.
    pub const CLEAR_LISTEN: Self = Self(1 << 10);
    /// DISCARD TEMP.
    pub const CLEAR_TEMP: Self = Self(1 << 11);
    /// CLOSE ALL.
    pub const CLEAR_HOLD_CURSOR: Self = Self(1 << 12);
    /// pg_advisory_unlock_all().
    pub const CLEAR_ADVISORY_LOCK: Self = Self(1 << 13);
    /// DISCARD ALL.
    pub const CLEAR_ALL: Self = Self(1 << 14);
    /// DDL: catalog facts may be out of date afterwards.
    pub const DDL: Self = Self(1 << 16);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hint {
    Primary,
    Replica,
}

/// One classified text (one or more statements).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classified {
    pub class: Class,
    pub effects: Effects,
    pub hint: Option<Hint>,
    /// The text is one BEGIN or START TRANSACTION (and nothing else).
    pub begins: Option<Begin>,
    /// Hash of the text without literals, comments and white space.
    pub fingerprint: u64,
    /// What decided the class: `calls nextval`, `INSERT`, `reads only`.
    pub why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    pub read_only: bool,
    pub serializable: bool,
}

/// Shown by `causeway explain` and in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    pub rule: Rule,
    /// The name that decided: a function, a relation, an operator, a verb.
    pub name: Option<Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    ReadsOnly,
}

/// Remembers, until `expires`, that a shape is a write although it looked like a read.
#[derive(Clone, Copy, Debug)]
pub struct Learned {
    pub fingerprint: u64,
    pub expires: Instant,
}
