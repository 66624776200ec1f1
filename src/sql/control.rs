//! Transaction control and the session's own state: BEGIN, COMMIT, SET, RESET, DISCARD, SHOW and the like.

use super::keyword::Keyword as K;
use super::lexer::Kind;
use super::statement::{Finding, Statement};
use super::{Begin, Effects, Rule, Sole, own, setting};

/// `BEGIN [WORK | TRANSACTION] [mode [,] …]`, `START TRANSACTION [mode [,] …]`.
pub(super) fn begin(statement: &Statement<'_>) -> Finding {
    let mut at = 1;
    if matches!(statement.keyword(at), K::Work | K::Transaction) {
        at += 1;
    }
    let modes = modes(statement, at);
    let begin = Begin {
        read_only: modes.is_some_and(|m| m.read_only && !m.read_write),
        serializable: modes.is_some_and(|m| m.serializable),
    };
    let mut finding = match begin {
        Begin { serializable: true, .. } => Finding::write(Rule::BeginSerializable, b""),
        Begin { read_only: true, .. } => Finding::read(Rule::BeginReadOnly),
        Begin { .. } => Finding::write(Rule::BeginReadWrite, b""),
    };
    finding.begins = Some(begin);
    finding.control()
}

#[derive(Clone, Copy, Default)]
struct Modes {
    read_only: bool,
    read_write: bool,
    serializable: bool,
}

/// Transaction modes from `at` to the end; `None` when anything else is there.
fn modes(statement: &Statement<'_>, mut at: usize) -> Option<Modes> {
    let mut modes = Modes::default();
    while at < statement.tokens.len() {
        let words = [0, 1, 2, 3].map(|n| statement.keyword(at + n));
        at += match words {
            [K::Isolation, K::Level, K::Serializable, _] => {
                modes.serializable = true;
                3
            }
            [K::Isolation, K::Level, K::Repeatable, K::Read]
            | [K::Isolation, K::Level, K::Read, K::Committed | K::Uncommitted] => 4,
            [K::Read, K::Only, ..] => {
                modes.read_only = true;
                2
            }
            [K::Read, K::Write, ..] => {
                modes.read_write = true;
                2
            }
            [K::Not, K::Deferrable, ..] => 2,
            [K::Deferrable, ..] => 1,
            _ if statement.is(at, Kind::Comma) => 1,
            _ => return None,
        };
    }
    Some(modes)
}

/// COMMIT, END, ROLLBACK, ABORT, SAVEPOINT, RELEASE. The two-phase forms write.
pub(super) fn end(statement: &Statement<'_>) -> Finding {
    match statement.keyword(1) {
        K::Prepared => Finding::write(Rule::Verb, statement.name(0)).control(),
        _ => Finding { sole: ends(statement), ..Finding::read(Rule::TransactionControl).control() },
    }
}

/// `COMMIT [WORK | TRANSACTION]` and its like. One that goes on (AND CHAIN) is nothing of the kind.
fn ends(statement: &Statement<'_>) -> Option<Sole> {
    let filler = usize::from(matches!(statement.keyword(1), K::Work | K::Transaction));
    match statement.keyword(0) {
        K::Savepoint | K::Release => Some(Sole::Savepoint),
        K::Rollback if statement.keyword(1 + filler) == K::To => Some(Sole::Savepoint),
        _ if statement.tokens.len() > 1 + filler => None,
        K::Commit | K::End => Some(Sole::Commit),
        K::Rollback | K::Abort => Some(Sole::Rollback),
        _ => None,
    }
}

/// SET in all its forms. LOCAL, TRANSACTION and CONSTRAINTS end with the transaction.
pub(super) fn set(statement: &Statement<'_>) -> Finding {
    let write = |effects| Finding::write(Rule::SessionState, statement.name(0)).with(effects);
    match (statement.keyword(1), statement.keyword(2)) {
        (K::Transaction, _) => set_transaction(statement, 2),
        (K::Local, K::Transaction) => set_transaction(statement, 3),
        (K::Constraints, _) => Finding::read(Rule::TransactionControl),
        // These set the current transaction's mode, not the session's, but need a server that can have it.
        (K::Local | K::Session, _) if is_transaction_parameter(statement.name(2)) => write(Effects::LOCAL),
        (K::Local, _) if statement.is_name(2) && !statement.is(2, Kind::Encoded) => {
            let mut finding = Finding::read(Rule::TransactionControl).with(Effects::LOCAL);
            setting::local(statement, &mut finding.change);
            finding
        }
        _ if is_transaction_parameter(statement.name(1)) => write(Effects::LOCAL),
        _ => {
            let mut finding = write(Effects::NONE);
            setting::set(statement, &mut finding.change);
            finding
        }
    }
}

fn is_transaction_parameter(name: &[u8]) -> bool {
    let parameters = ["transaction_read_only", "transaction_isolation", "transaction_deferrable"];
    parameters.iter().any(|parameter| name.eq_ignore_ascii_case(parameter.as_bytes()))
}

/// SET TRANSACTION: harmless unless it asks for what a replica refuses, or for another session's snapshot.
fn set_transaction(statement: &Statement<'_>, at: usize) -> Finding {
    match modes(statement, at) {
        Some(Modes { read_write: false, serializable: false, .. }) => Finding::read(Rule::TransactionControl),
        _ => Finding::write(Rule::SessionState, statement.name(0)),
    }
}

/// RESET, DISCARD, DEALLOCATE, UNLISTEN, CLOSE.
pub(super) fn clear(statement: &Statement<'_>) -> Finding {
    let all = statement.keyword(1) == K::All;
    let mut finding = Finding::write(Rule::SessionState, statement.name(0));
    finding.change.add(match statement.keyword(0) {
        K::Reset if all => Effects::CLEAR_SET | Effects::RESET,
        K::Discard if all => Effects::CLEAR_ALL | Effects::RESET,
        K::Discard if statement.keyword(1) == K::Temp => Effects::CLEAR_TEMP,
        K::Deallocate => Effects::CLEAR_PREPARE,
        K::Unlisten => Effects::CLEAR_LISTEN,
        K::Close => Effects::CLEAR_HOLD_CURSOR,
        _ => Effects::NONE,
    });
    if statement.keyword(0) == K::Reset && !all {
        setting::reset(statement, &mut finding.change);
    }
    finding
}

/// Settings that are the same on every node of a cluster, or come from the login, unless the session set them
/// (and then it keeps its server). Any other may come from the node's own configuration file.
const CLUSTER_SETTINGS: &[&[u8]] = &[
    b"application_name",
    b"bytea_output",
    b"client_encoding",
    b"client_min_messages",
    b"datestyle",
    b"default_transaction_isolation",
    b"extra_float_digits",
    b"integer_datetimes",
    b"intervalstyle",
    b"is_superuser",
    b"lc_collate",
    b"lc_ctype",
    b"max_identifier_length",
    b"role",
    b"search_path",
    b"server_encoding",
    b"server_version",
    b"server_version_num",
    b"session_authorization",
    b"standard_conforming_strings",
    b"time",
    b"timezone",
    b"transaction_isolation",
];

/// SHOW of a setting that any node answers alike, as all do for ours.
pub(super) fn show(statement: &Statement<'_>) -> Finding {
    let name = statement.name(1);
    if setting::full_name(&statement.from(1)).0.is_some_and(|name| own::is_own_name(&name)) {
        return Finding { mentions_own: true, ..Finding::read(Rule::ReadsOnly) };
    }
    let phrase = match statement.keyword(1) {
        K::Transaction => statement.keyword(2) == K::Isolation,
        K::Session => statement.keyword(2) == K::Authorization,
        _ => !statement.is(2, Kind::Dot) && CLUSTER_SETTINGS.contains(&name),
    };
    if phrase { Finding::read(Rule::ReadsOnly) } else { Finding::write(Rule::NodeSetting, name) }
}
