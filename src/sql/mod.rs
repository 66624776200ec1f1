//! What a statement does, decided from its bytes, without I/O.
//!
//! Whatever is not known to be a read is a write. [`Classifier`] is the entry: it scans a text by PostgreSQL's
//! lexical rules (`lexer`), judges each statement by its verb, its clauses and the names that it calls and mentions
//! (`judge`, `query`, `control`) against [`CatalogFacts`], lets sqlparser veto what looks like a read (`veto`), and
//! remembers the answer (`memo`).
//!
//! Besides the class it says what a text may leave in the session ([`Effects`], [`Classified::settings`]), be it by code
//! that the text only causes to run: functions, triggers, defaults, rules, views, policies (`change`, `setting`,
//! `opaque`, `facts::code`). It may say too much, which costs a question to the server.
//!
//! What a text says to Causeway itself, hints, SET and SHOW of its settings, EXPLAIN ROUTE, is in [`Own`] (`hint`, `own`).
//!
//! What it cannot see, and who helps: a function declared STABLE or IMMUTABLE that writes (the replica refuses, the
//! session runs the batch on the primary and calls [`Classifier::learn_write`]); state that a function in C changes;
//! settings with a dot in their name that code puts together piece by piece; code that was made since the facts were
//! loaded.

mod by_name;
mod change;
mod classify;
mod control;
mod cursor;
mod effects;
mod explain;
mod facts;
mod hint;
mod judge;
mod keyword;
mod lexer;
mod memo;
mod opaque;
mod own;
mod query;
mod setting;
mod statement;
mod veto;

#[cfg(test)]
mod tests;

pub use by_name::{named, prepared_text, rename};
pub use change::is_custom_setting;
pub use classify::{Classifier, Context, Stats};
pub use effects::Effects;
pub use explain::{Property, explain, parameters};
pub use facts::{
    CatalogFacts, CatalogObject, CodeRow, FactsBuilder, FunctionRow, OperatorRow, RelationRow, TypeRow, UseRow,
    Volatility, queries,
};
pub use hint::{Hint, Hints};
pub use own::{Assigned, Own, OwnSet, explained};

use std::fmt;

use crate::types::BadSetting;

/// Read or write. What is not known to be a read is a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    Read,
    /// Routed as a write, unless the text says `/* causeway: replica */`.
    Unknown,
    Write,
}

impl Class {
    /// A metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Unknown => "unknown",
            Self::Write => "write",
        }
    }
}

/// One classified text (one or more statements).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classified {
    /// The worst of the text's statements.
    pub class: Class,
    /// The union over the text's statements.
    pub effects: Effects,
    pub hint: Option<Hint>,
    /// The text is one BEGIN or START TRANSACTION (and nothing else).
    pub begins: Option<Begin>,
    /// What the text's only statement does to its transaction.
    pub sole: Option<Sole>,
    /// BEGIN, COMMIT, ROLLBACK, SAVEPOINT … is among the statements.
    pub transaction_control: bool,
    /// Hash of the text without literals, parameters, comments, white space and the case of unquoted names; the same
    /// in every process of one build.
    pub fingerprint: u64,
    /// The session parameters that [`Effects::SET`], [`Effects::RESET`] and [`Effects::HIDDEN`] may be about, by name in
    /// lower case: those that the text names, and those that the functions it calls are known to name.
    pub settings: Box<[Box<str>]>,
    /// The text is one PREPARE, EXECUTE or DEALLOCATE of a statement by its name (and nothing else).
    pub by_name: Option<ByName>,
    /// What the text says to Causeway itself; mostly nothing.
    pub own: Option<Box<Own>>,
    /// A name of ours, `causeway.x`, is in the text or in code that it runs, so that an answer may depend on what the server
    /// has for it. It may be true of other texts too.
    pub mentions_own: bool,
    /// The text is one EXPLAIN ROUTE (and nothing else); [`explained`] is what it asks about.
    pub explains_route: bool,
    /// What decided the class: `calls nextval`, `INSERT`, `reads only`.
    pub why: Why,
}

impl Classified {
    /// Wishes for this text only.
    pub fn hints(&self) -> Hints {
        self.own.as_ref().map(|own| own.hints).unwrap_or_default()
    }

    /// Why the text must not run: a hint that cannot be read, or a setting of ours that cannot be so.
    pub fn refusal(&self) -> Option<&BadSetting> {
        self.own.as_ref().and_then(|own| own.refusal.as_ref())
    }
}

/// A statement of SQL's that names a prepared statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByName {
    pub verb: Verb,
    /// As the server knows it: in lower case unless quoted.
    pub name: Box<[u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Prepare,
    Execute,
    Deallocate,
}

/// The options of a BEGIN or START TRANSACTION.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    pub read_only: bool,
    /// A standby refuses it.
    pub serializable: bool,
}

/// A text of one statement that matters to the transaction that it runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sole {
    /// COMMIT or END of the whole transaction.
    Commit,
    /// ROLLBACK or ABORT of the whole transaction.
    Rollback,
    /// SAVEPOINT, RELEASE or ROLLBACK TO, which leave it open.
    Savepoint,
    /// INSERT, UPDATE, DELETE or MERGE.
    Dml,
}

/// Shown by `causeway explain` and in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    pub rule: Rule,
    /// The name that decided: a function, a relation, an operator, a verb.
    pub name: Option<Box<str>>,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rule.sentence())?;
        match &self.name {
            Some(name) => write!(f, ": {name}"),
            None => Ok(()),
        }
    }
}

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident $label:literal $sentence:literal,)*) => {
        /// What decided a class.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Rule {
            $($(#[$doc])* $name,)*
        }

        impl Rule {
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// A metric label.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }

            fn sentence(self) -> &'static str {
                match self {
                    $(Self::$name => $sentence,)*
                }
            }
        }
    };
}

rules! {
    Empty "empty" "nothing to run",
    ReadsOnly "reads_only" "reads only",
    ExplainRoute "explain_route" "explains a route, and runs nothing",
    TransactionControl "transaction_control" "transaction control, goes where the transaction is",
    BeginReadOnly "begin_read_only" "begins a read-only transaction",
    BeginReadWrite "begin_read_write" "begins a transaction that may write",
    BeginSerializable "begin_serializable" "serializable transactions need the primary",
    /// Unknown, but the client says that a replica will do.
    HintReplica "hint_replica" "unknown, and the hint says replica",
    DataModifying "data_modifying" "modifies data",
    /// A verb that is not known to read: DDL, maintenance, or no verb of PostgreSQL.
    Verb "verb" "not known to read",
    SelectInto "select_into" "SELECT INTO creates a table",
    RowLock "row_lock" "locks rows",
    SessionState "session_state" "changes or uses the session's state",
    NodeSetting "node_setting" "shows a setting that may differ between nodes",
    WritingFunction "writing_function" "calls a function that writes or needs the primary",
    SessionFunction "session_function" "calls a function of the session's state, or one that runs SQL",
    NodeFunction "node_function" "calls a function that answers for one node",
    VolatileFunction "volatile_function" "calls a volatile function",
    UnknownFunction "unknown_function" "calls a function that is not in the catalog facts",
    EncodedName "encoded_name" "has a name in Unicode escapes",
    Relation "relation" "reads a relation that a replica cannot give",
    VolatileRelation "volatile_relation" "reads a view or policy with a volatile function",
    TempRelation "temp_relation" "uses a temporary relation",
    Type "type" "casts through a volatile function",
    Operator "operator" "uses an operator with a volatile function",
    /// sqlparser's tree has a data-modifying statement.
    Veto "veto" "the parser sees a statement that may write",
    Learned "learned" "a replica refused this shape before",
    TooLong "too_long" "too long to be scanned",
    Malformed "malformed" "has no end by PostgreSQL's lexical rules",
    UnsafeText "unsafe_text" "client_encoding or standard_conforming_strings makes the text ambiguous",
}
