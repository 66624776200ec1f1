//! sqlparser's opinion of what looks like a read. It may say that a statement writes; it never makes one a read.

use sqlparser::ast::{Query, SetExpr, Statement};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::keyword::Keyword as K;
use super::lexer::{Kind, Tokens};

/// A parser's tree of a longer text is too deep to be dropped on a small stack.
const MAX_TEXT_BYTES: usize = 16 << 10;
const MAX_TOKENS: usize = 8192;
/// Every operator, keyword of an expression, and bracket may be one level of the tree: `1+1+1…` is as deep as it is
/// long.
const MAX_DEPTH: usize = 256;

/// Calls of the parser within calls: each takes up to 40 KB of the stack in a debug build.
const MAX_RECURSION: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opinion {
    Reads,
    Writes,
    Unparsed,
    /// Too long or too deep, or not UTF-8.
    NotAsked,
}

pub(super) fn opinion(text: &[u8], scanned: &Tokens) -> Opinion {
    let Some(text) = parseable(text, scanned) else {
        return Opinion::NotAsked;
    };
    let parser = Parser::new(&PostgreSqlDialect {}).with_recursion_limit(MAX_RECURSION);
    match parser.try_with_sql(text).and_then(|mut parser| parser.parse_statements()) {
        Err(_) => Opinion::Unparsed,
        Ok(statements) if statements.iter().any(writes) => Opinion::Writes,
        Ok(_) => Opinion::Reads,
    }
}

fn parseable<'a>(text: &'a [u8], scanned: &Tokens) -> Option<&'a str> {
    if text.len() > MAX_TEXT_BYTES || scanned.list.len() > MAX_TOKENS {
        return None;
    }
    let deepens = |kind: Kind, keyword: K| match kind {
        Kind::Operator | Kind::Typecast | Kind::Open | Kind::OpenBracket | Kind::Colon => true,
        Kind::Word => matches!(keyword, K::Reserved | K::Phrase | K::Not | K::In | K::Select | K::All | K::Distinct),
        _ => false,
    };
    let depth = scanned.list.iter().filter(|t| deepens(t.kind, t.keyword)).count();
    if depth > MAX_DEPTH { None } else { str::from_utf8(text).ok() }
}

/// Anything but the kinds that read or control the transaction.
pub(super) fn writes(statement: &Statement) -> bool {
    match statement {
        Statement::Query(query) => query_writes(query),
        Statement::Explain { analyze, statement, .. } => *analyze && writes(statement),
        Statement::Copy { to, .. } => !*to,
        Statement::ExplainTable { .. }
        | Statement::ShowVariable { .. }
        | Statement::ShowVariables { .. }
        | Statement::StartTransaction { .. }
        | Statement::Commit { .. }
        | Statement::Rollback { .. }
        | Statement::Savepoint { .. }
        | Statement::ReleaseSavepoint { .. }
        | Statement::Declare { .. }
        | Statement::Set(_) => false,
        _ => true,
    }
}

/// Data-modifying statements stand only in the CTEs and the bodies of queries outside of expressions.
fn query_writes(query: &Query) -> bool {
    let mut queries = vec![query];
    let mut bodies = Vec::new();
    while let Some(query) = queries.pop() {
        if !query.locks.is_empty() {
            return true;
        }
        queries.extend(query.with.iter().flat_map(|with| with.cte_tables.iter()).map(|cte| &*cte.query));
        bodies.push(&*query.body);
        while let Some(body) = bodies.pop() {
            match body {
                SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => return true,
                SetExpr::Select(select) if select.into.is_some() => return true,
                SetExpr::Query(query) => queries.push(query),
                SetExpr::SetOperation { left, right, .. } => bodies.extend([&**left, &**right]),
                SetExpr::Select(_) | SetExpr::Values(_) | SetExpr::Table(_) => {}
            }
        }
    }
    false
}
