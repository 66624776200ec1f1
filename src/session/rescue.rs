//! Which errors of a replica mean that the batch should run elsewhere.

use crate::wire::backend::ErrorFields;

/// Why a batch runs again on another node: a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It writes, or needs what only a primary has.
    ReadOnly,
    /// Replay removed what it was reading.
    Conflict,
    /// The replica is ending or starting.
    Shutdown,
    /// The connection is gone.
    Lost,
    /// It does not take the session's parameters.
    Parameters,
    /// It has no object of that name: perhaps it has not replayed yet what made it.
    Missing,
    /// It cannot run a prepared statement whose result has changed since.
    StalePlan,
    /// It has not replayed what the session must see.
    Behind,
}

impl Cause {
    pub const ALL: [Self; 8] = [
        Self::ReadOnly,
        Self::Conflict,
        Self::Shutdown,
        Self::Lost,
        Self::Parameters,
        Self::Missing,
        Self::StalePlan,
        Self::Behind,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read_only",
            Self::Conflict => "recovery_conflict",
            Self::Shutdown => "shutdown",
            Self::Lost => "connection_lost",
            Self::Parameters => "parameters",
            Self::Missing => "missing_object",
            Self::StalePlan => "stale_plan",
            Self::Behind => "behind",
        }
    }

    /// `None`: the error is the statement's own, and the client's to read. PostgreSQL words these messages in
    /// `PreventCommandDuringRecovery`, `PreventCommandIfReadOnly`, `RecoveryConflictInterrupt` and their like; where a
    /// SQLSTATE has other uses the English wording must agree, else the client reads the error.
    pub fn of(error: &ErrorFields<'_>) -> Option<Self> {
        let says = |words: &str| memchr::memmem::find(error.message, words.as_bytes()).is_some();
        match &error.sqlstate {
            b"25006" => Some(Self::ReadOnly),
            b"0A000" if error.routine == b"RevalidateCachedQuery" => Some(Self::StalePlan),
            b"0A000" if says("recovery") || says("hot standby") => Some(Self::ReadOnly),
            b"55000" | b"XX000" if says("recovery") => Some(Self::ReadOnly),
            // Of a type that is gone, as PostgreSQL never looks up a statement's parameters again.
            b"XX000" if says("cache lookup failed for type") => Some(Self::StalePlan),
            b"40001" | b"40P01" | b"57P04" if says("conflict with recovery") => Some(Self::Conflict),
            b"57P01" | b"57P02" | b"57P03" => Some(Self::Shutdown),
            // Of a table, column, function, type or other object, or schema.
            b"42P01" | b"42703" | b"42883" | b"42704" | b"3F000" => Some(Self::Missing),
            _ => None,
        }
    }

    /// The statement's shape is to blame: it would be refused again.
    pub fn is_the_statements(self) -> bool {
        self == Self::ReadOnly
    }

    /// Only the primary knows better.
    pub fn needs_primary(self) -> bool {
        matches!(self, Self::ReadOnly | Self::Missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_follow_what_a_standby_answers() {
        use Cause::{Conflict, Missing, ReadOnly, Shutdown, StalePlan};
        for (sqlstate, message, cause) in [
            (b"25006", "cannot execute nextval() in a read-only transaction", Some(ReadOnly)),
            (b"25006", "cannot execute LISTEN during recovery", Some(ReadOnly)),
            (b"0A000", "cannot use serializable mode in a hot standby", Some(ReadOnly)),
            (b"0A000", "cannot access temporary or unlogged relations during recovery", Some(ReadOnly)),
            (b"0A000", "cannot set transaction read-write mode during recovery", Some(ReadOnly)),
            (b"0A000", "cross-database references are not implemented", None),
            (b"55000", "recovery is in progress", Some(ReadOnly)),
            (b"55000", "currval of sequence \"s\" is not yet defined in this session", None),
            (b"XX000", "cannot assign OIDs during recovery", Some(ReadOnly)),
            (b"XX000", "cache lookup failed for type 7", Some(StalePlan)),
            (b"XX000", "cache lookup failed for relation 7", None),
            (b"40001", "canceling statement due to conflict with recovery", Some(Conflict)),
            (b"40001", "could not serialize access due to concurrent update", None),
            (b"57P01", "terminating connection due to administrator command", Some(Shutdown)),
            (b"57014", "canceling statement due to user request", None),
            (b"42P01", "relation \"t\" does not exist", Some(Missing)),
            (b"42601", "syntax error at or near \"x\"", None),
        ] {
            let fields = ErrorFields {
                severity: b"ERROR",
                sqlstate: *sqlstate,
                message: message.as_bytes(),
                detail: None,
                hint: None,
                routine: b"",
            };
            assert_eq!(Cause::of(&fields), cause, "{message}");
        }
    }
}
