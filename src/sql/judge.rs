//! From tokens to a class: each statement by its verb, the text by the worst of its statements.

use super::facts::CatalogFacts;
use super::keyword::Keyword as K;
use super::lexer::{Kind, Tokens};
use super::statement::{Finding, Statement};
use super::{Class, Effects, Rule, Sole, by_name, control, opaque, own, query};

/// Judges a scanned text. `each` sees every statement's finding.
pub(super) fn judge(
    text: &[u8],
    scanned: &Tokens,
    facts: &CatalogFacts,
    mut each: impl FnMut(&Statement<'_>, &Finding),
) -> Finding {
    let mut whole: Option<Finding> = None;
    for tokens in scanned.list.split(|t| t.kind == Kind::Semicolon) {
        if tokens.is_empty() {
            continue;
        }
        let statement = Statement { tokens, scanned, text };
        let mut finding = judge_statement(&statement, facts);
        if matches!(finding.why.rule, Rule::Verb | Rule::SelectInto) {
            finding.change.join(facts.at_ddl());
        }
        finding.by_name = by_name::by_name(&statement);
        finding.own = own::set(&statement);
        finding.explains_route = own::explains_route(&statement);
        each(&statement, &finding);
        match &mut whole {
            None => whole = Some(finding),
            Some(whole) => whole.join(finding),
        }
    }
    match whole {
        None => Finding::read(Rule::Empty),
        // What it asks about is not run.
        Some(Finding { explains_route: true, .. }) => {
            Finding { explains_route: true, ..Finding::read(Rule::ExplainRoute) }
        }
        Some(whole) => whole,
    }
}

fn judge_statement(statement: &Statement<'_>, facts: &CatalogFacts) -> Finding {
    match statement.keyword(0) {
        _ if is_query(statement) => query::judge(statement, facts),
        K::Explain => explain(statement, facts),
        K::Copy => copy(statement, facts),
        K::Declare => declare(statement, facts),
        K::Show => control::show(statement),
        K::Begin | K::Start => control::begin(statement),
        K::Commit | K::End | K::Rollback | K::Abort | K::Savepoint | K::Release => control::end(statement),
        K::Set => with_calls(control::set(statement), statement, facts),
        K::Reset | K::Discard | K::Deallocate | K::Unlisten | K::Close => control::clear(statement),
        verb => with_calls(write(statement, verb), statement, facts),
    }
}

/// SELECT, VALUES, TABLE or WITH, in any number of parentheses.
fn is_query(statement: &Statement<'_>) -> bool {
    let first = statement.tokens.iter().find(|t| t.kind != Kind::Open);
    first.is_some_and(|t| matches!(t.keyword, K::Select | K::Values | K::Table | K::With))
}

/// Adds what the calls in a statement that is already a write do to the session.
fn with_calls(mut finding: Finding, statement: &Statement<'_>, facts: &CatalogFacts) -> Finding {
    query::add_effects(statement, facts, &mut finding);
    finding
}

/// Every verb that is not known to read.
fn write(statement: &Statement<'_>, verb: K) -> Finding {
    let name = statement.name(0);
    let finding = |rule, effects| Finding::write(rule, name).with(effects);
    match verb {
        K::Insert | K::Update | K::Delete | K::Merge => {
            Finding { sole: Some(Sole::Dml), ..finding(Rule::DataModifying, Effects::NONE) }
        }
        K::Prepare if statement.keyword(1) == K::Transaction => finding(Rule::Verb, Effects::NONE).control(),
        K::Prepare => finding(Rule::SessionState, Effects::PREPARE),
        // What it runs is in another text, or behind a name that only the server knows.
        K::Execute => finding(Rule::SessionState, Effects::HIDDEN),
        K::Fetch | K::Move => finding(Rule::SessionState, Effects::NONE),
        K::Listen => finding(Rule::SessionState, Effects::LISTEN),
        K::Load => finding(Rule::SessionState, Effects::SESSION),
        K::Do => run_code(finding(Rule::Verb, Effects::DDL | Effects::HIDDEN), statement),
        K::Create => finding(Rule::Verb, Effects::DDL | created(statement)),
        // Either may drop a temporary object, or the schema that it is in.
        K::Alter | K::Drop => finding(Rule::Verb, Effects::DDL | Effects::CLEAR_TEMP),
        K::Call | K::Comment | K::Grant | K::Import | K::Reassign | K::Refresh | K::Revoke | K::Security => {
            finding(Rule::Verb, Effects::DDL)
        }
        _ => finding(Rule::Verb, Effects::NONE),
    }
}

/// DO runs the code in its literal.
fn run_code(mut finding: Finding, statement: &Statement<'_>) -> Finding {
    for at in 1..statement.tokens.len() {
        if let Some(literal) = statement.literal(at) {
            opaque::code_changes(&opaque::unquoted(literal), &mut finding.change);
        }
    }
    finding
}

/// `CREATE [OR REPLACE] [GLOBAL | LOCAL] TEMP …`, `CREATE TABLE … AS EXECUTE p`
fn created(statement: &Statement<'_>) -> Effects {
    let filler = |k: K| matches!(k, K::Reserved | K::Replace | K::Global | K::Local);
    let what = (1..statement.tokens.len()).map(|at| statement.keyword(at)).find(|k| !filler(*k));
    let executes =
        (1..statement.tokens.len()).any(|at| statement.keyword(at - 1) == K::As && statement.keyword(at) == K::Execute);
    let temporary = if what == Some(K::Temp) { Effects::TEMP } else { Effects::NONE };
    if executes { temporary | Effects::HIDDEN } else { temporary }
}

/// EXPLAIN plans, and with ANALYZE it also runs.
fn explain(statement: &Statement<'_>, facts: &CatalogFacts) -> Finding {
    let mut at = 1;
    let mut analyze = false;
    if statement.is(1, Kind::Open) && !is_query(&statement.from(1)) {
        let Some(close) = statement.closing(1) else {
            return Finding::write(Rule::Verb, statement.name(0));
        };
        analyze = has_analyze(statement, close);
        at = close + 1;
    }
    while matches!(statement.keyword(at), K::Analyze | K::Verbose) {
        analyze |= statement.keyword(at) == K::Analyze;
        at += 1;
    }
    let explained = statement.from(at);
    if analyze {
        return judge_explained(&explained, facts);
    }
    match explained.keyword(0) {
        _ if is_query(&explained) => query::judge_plan(&explained, facts),
        K::Insert | K::Update | K::Delete | K::Merge => query::judge_plan(&explained, facts),
        _ => Finding::write(Rule::Verb, explained.name(0)),
    }
}

/// EXPLAIN takes no statement but these, so it cannot nest.
fn judge_explained(explained: &Statement<'_>, facts: &CatalogFacts) -> Finding {
    match explained.keyword(0) {
        _ if is_query(explained) => query::judge(explained, facts),
        K::Declare => declare(explained, facts),
        verb => with_calls(Finding { sole: None, ..write(explained, verb) }, explained, facts),
    }
}

/// ANALYZE is among the options before `close`, and not surely off. Literals count as on, for the class must not
/// depend on them.
fn has_analyze(statement: &Statement<'_>, close: usize) -> bool {
    (2..close).any(|at| match statement.kind(at) {
        Some(Kind::Quoted | Kind::Encoded) => true,
        _ => statement.keyword(at) == K::Analyze && !matches!(statement.keyword(at + 1), K::Off | K::False),
    })
}

/// Reads: `COPY t … TO STDOUT`, and `COPY (query) TO STDOUT` of a query that reads.
fn copy(statement: &Statement<'_>, facts: &CatalogFacts) -> Finding {
    let mut depth = 0_usize;
    let direction = statement.tokens.iter().position(|t| {
        match t.kind {
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && matches!(t.keyword, K::To | K::From)
    });
    let to_client =
        direction.is_some_and(|at| statement.keyword(at) == K::To && statement.keyword(at + 1) == K::Stdout);
    if !to_client {
        return with_calls(Finding::write(Rule::Verb, statement.name(0)), statement, facts);
    }
    let copied = statement.from(1);
    if !copied.is(0, Kind::Open) {
        return query::judge_plan(&copied, facts);
    }
    let close = copied.closing(0).unwrap_or_default();
    match copied.until(close) {
        query if is_query(&query) => query::judge(&query, facts),
        other => with_calls(Finding::write(Rule::DataModifying, other.name(1)), statement, facts),
    }
}

/// A cursor reads what its query reads; WITH HOLD lasts beyond the transaction.
fn declare(statement: &Statement<'_>, facts: &CatalogFacts) -> Finding {
    let mut finding = query::judge(statement, facts);
    let at = (1..statement.tokens.len()).find(|at| statement.keyword(*at) == K::For).unwrap_or_default();
    let holds = (1..at).any(|at| statement.keyword(at) == K::With && statement.keyword(at + 1) == K::Hold);
    if holds {
        finding.worsen(Class::Write, Rule::SessionState, statement.name(0));
        finding.change.add(Effects::HOLD_CURSOR);
    }
    finding
}
