//! Label values that are the same for every cluster: closed enums, so that a client cannot make a new series.

/// How a login of a client ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoginOutcome {
    Ok,
    /// Unknown user, wrong password, or not allowed to log in this way.
    Refused,
    /// Not finished within `client_login_timeout`.
    TimedOut,
    /// `max_client_conn` or another limit of clients was reached.
    TooMany,
    /// It was slow, and `max_client_conn` was reached: another client got its place.
    MadeRoom,
    /// What the client sent is no login, or it left in the middle of one.
    Broken,
    /// The client is fine; no node could answer for it.
    NoServer,
}

impl LoginOutcome {
    pub const ALL: [Self; 7] =
        [Self::Ok, Self::Refused, Self::TimedOut, Self::TooMany, Self::MadeRoom, Self::Broken, Self::NoServer];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::TooMany => "too_many",
            Self::MadeRoom => "made_room",
            Self::Broken => "broken",
            Self::NoServer => "no_server",
        }
    }
}

/// What became of a `CancelRequest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CancelOutcome {
    /// Passed on to the node that runs the client's query.
    Forwarded,
    /// The client is known and runs nothing now.
    Idle,
    /// No client has that key.
    UnknownKey,
    /// The node could not be reached.
    Failed,
}

impl CancelOutcome {
    pub const ALL: [Self; 4] = [Self::Forwarded, Self::Idle, Self::UnknownKey, Self::Failed];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Idle => "idle",
            Self::UnknownKey => "unknown_key",
            Self::Failed => "failed",
        }
    }
}

/// How a wait for a replica ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitOutcome {
    /// A replica has replayed the position.
    Met,
    TimedOut,
    /// None of the replicas answers any more.
    NoAnswer,
}

impl WaitOutcome {
    pub const ALL: [Self; 3] = [Self::Met, Self::TimedOut, Self::NoAnswer];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::TimedOut => "timed_out",
            Self::NoAnswer => "no_answer",
        }
    }
}

/// Who raised an error that a client read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    Causeway,
    Node,
}

impl Origin {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Causeway => "causeway",
            Self::Node => "node",
        }
    }
}

/// The SQLSTATE classes of PostgreSQL
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>), sorted.
const SQLSTATE_CLASSES: [&str; 43] = [
    "00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "20", "21", "22", "23", "24", "25", "26",
    "27", "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40", "42", "44", "53", "54", "55", "57", "58",
    "72", "F0", "HV", "P0", "XX",
];

/// The class (first two characters) of a SQLSTATE; `other` for one that PostgreSQL does not define, because functions
/// can raise any code they like.
pub(super) fn sqlstate_class(sqlstate: &str) -> &'static str {
    sqlstate
        .get(..2)
        .and_then(|class| SQLSTATE_CLASSES.binary_search(&class).ok())
        .and_then(|found| SQLSTATE_CLASSES.get(found).copied())
        .unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlstate_has_a_class_or_is_other() {
        assert!(SQLSTATE_CLASSES.is_sorted());
        for (sqlstate, class) in [
            ("25006", "25"),
            ("XX000", "XX"),
            ("00000", "00"),
            ("P0001", "P0"),
            ("99999", "other"),
            ("", "other"),
            ("2", "other"),
            ("é1234", "other"),
            ("0a000", "other"),
        ] {
            assert_eq!(sqlstate_class(sqlstate), class, "{sqlstate:?}");
        }
    }
}
