//! What a query contains that a replica must not get: data-modifying parts, row locks, calls, and names.

use super::change::Change;
use super::facts::{CatalogFacts, Reach, Verdict};
use super::keyword::Keyword as K;
use super::lexer::Kind;
use super::statement::{Finding, Statement};
use super::{Class, Effects, Rule, setting};

/// Judges a statement that looks like a query: a read, unless something in it is worse.
pub(super) fn judge(statement: &Statement<'_>, facts: &CatalogFacts) -> Finding {
    let mut finding = Finding::read(Rule::ReadsOnly);
    let reach = reach(statement, facts);
    unknown_code(reach, facts, &mut finding);
    for at in 0..statement.tokens.len() {
        clause(statement, at, &mut finding);
        if is_call(statement, at) {
            call(statement, at, facts, &mut finding);
        }
        names(statement, at, facts, &mut finding);
        hidden(statement, at, reach, facts, &mut finding);
        attribute(statement, at, facts, &mut finding);
    }
    finding
}

/// Judges a statement that is planned but not run: planning opens relations, but calls nothing volatile.
pub(super) fn judge_plan(statement: &Statement<'_>, facts: &CatalogFacts) -> Finding {
    let mut finding = Finding::read(Rule::ReadsOnly);
    for at in 0..statement.tokens.len() {
        names(statement, at, facts, &mut finding);
        // The planner runs functions that are labelled immutable or stable.
        hidden(statement, at, Reach::Mention, facts, &mut finding);
    }
    finding
}

/// Adds what the calls of any statement do to the session.
pub(super) fn add_effects(statement: &Statement<'_>, facts: &CatalogFacts, finding: &mut Finding) {
    let reach = reach(statement, facts);
    unknown_code(reach, facts, finding);
    for at in 0..statement.tokens.len() {
        if is_call(statement, at) {
            call(statement, at, facts, finding);
        }
        hidden(statement, at, reach, facts, finding);
        temporary(statement, at, finding);
    }
}

/// How far into a relation's code the statement may get.
fn reach(statement: &Statement<'_>, facts: &CatalogFacts) -> Reach {
    if facts.is_loaded() && !facts.hides() {
        return Reach::Mention;
    }
    let reads = matches!(
        statement.keyword(0),
        K::Select | K::With | K::Values | K::Table | K::Declare | K::Update | K::Delete | K::Set
    );
    if !reads && !statement.is(0, Kind::Open) {
        return Reach::Insert;
    }
    let mut reach = Reach::Mention;
    for at in 0..statement.tokens.len() {
        let locks = at > 0 && matches!(statement.keyword(at - 1), K::For | K::Key);
        match statement.keyword(at) {
            K::Insert | K::Merge => return Reach::Insert,
            K::Reserved if statement.name(at) == b"default" => return Reach::Insert,
            K::Update if !locks => reach = Reach::Write,
            K::Delete => reach = Reach::Write,
            _ => {}
        }
    }
    reach
}

/// Before the facts are loaded, whatever is written to may have triggers, and defaults from sequences.
fn unknown_code(reach: Reach, facts: &CatalogFacts, finding: &mut Finding) {
    if !facts.is_loaded() && reach >= Reach::Write {
        finding.change.add(Effects::HIDDEN | Effects::SEQUENCE);
    }
}

/// What the code behind a name changes.
fn hidden(statement: &Statement<'_>, at: usize, reach: Reach, facts: &CatalogFacts, finding: &mut Finding) {
    match statement.kind(at) {
        Some(Kind::Encoded) if statement.is(at + 1, Kind::Open) || statement.is_word(at + 1, b"uescape") => {
            finding.worsen(Class::Write, Rule::EncodedName, b"");
            finding.change.add(Effects::HIDDEN | Effects::SET_UNNAMED);
        }
        Some(Kind::Encoded) => finding.change.add(Effects::HIDDEN),
        Some(Kind::Word | Kind::Quoted | Kind::Operator) => {}
        _ => return,
    }
    let name = statement.name(at);
    let Some(hidden) = facts.hidden(name) else { return };
    let is_called = || statement.is(at + 1, Kind::Open) || at > 0 && statement.is(at - 1, Kind::Dot);
    if hidden.only_called && !is_called() {
        return;
    }
    for change in hidden.within(reach) {
        finding.change.join(change);
        if change.effects.intersects(Effects::NEEDS_PRIMARY) {
            finding.worsen(Class::Write, Rule::SessionFunction, name);
        }
    }
}

/// Keywords that make a query write: a data-modifying CTE, INTO, FOR UPDATE.
fn clause(statement: &Statement<'_>, at: usize, finding: &mut Finding) {
    let next = statement.keyword(at + 1);
    let rule = match statement.keyword(at) {
        K::Insert | K::Merge if next == K::Into => Rule::DataModifying,
        K::Delete if next == K::From => Rule::DataModifying,
        K::Update if next == K::Only || statement.is_name(at + 1) => Rule::DataModifying,
        K::Into => Rule::SelectInto,
        K::For if matches!(next, K::Update | K::Share) => Rule::RowLock,
        K::For if next == K::No && statement.keyword(at + 2) == K::Key => Rule::RowLock,
        K::For if next == K::Key && statement.keyword(at + 2) == K::Share => Rule::RowLock,
        _ => return,
    };
    // Behind AS or a dot any keyword is a plain name.
    let labelled = at > 0 && (statement.keyword(at - 1) == K::As || statement.is(at - 1, Kind::Dot));
    if labelled {
        return;
    }
    let name = if rule == Rule::DataModifying { statement.name(at) } else { b"" };
    finding.worsen(Class::Write, rule, name);
    if rule == Rule::SelectInto && matches!(next, K::Temp | K::Local | K::Global) {
        finding.change.add(Effects::TEMP);
    }
}

/// A name with `(` behind it, unless it is an alias or a type.
fn is_call(statement: &Statement<'_>, at: usize) -> bool {
    if !statement.is(at + 1, Kind::Open) || !matches!(statement.kind(at), Some(Kind::Word | Kind::Quoted)) {
        return false;
    }
    let mut first = at;
    while first >= 2 && statement.is(first - 1, Kind::Dot) {
        first -= 2;
    }
    let before = first.checked_sub(1);
    let is_type = before.is_some_and(|before| statement.is(before, Kind::Typecast));
    let is_alias =
        before.is_some_and(|before| first == at && matches!(statement.keyword(before), K::As | K::With | K::Recursive));
    !is_type && !is_alias
}

fn call(statement: &Statement<'_>, at: usize, facts: &CatalogFacts, finding: &mut Finding) {
    let name = statement.name(at);
    call_changes(statement, at, &mut finding.change);
    if name == b"current_setting" && setting::is_of_node(statement, at) {
        finding.worsen(Class::Write, Rule::NodeSetting, name);
    }
    match facts.function(statement.qualifier(at), name) {
        Some(Verdict::Harmless) => {}
        // Ours are the session's, whatever server it has.
        Some(Verdict::Session) if setting::is_of_ours(statement, at) => {}
        Some(verdict) => finding.worsen(verdict.class(), verdict.rule(), name),
        None if statement.keyword(at).is_no_call() => {}
        None if facts.is_loaded() && may_be_alias(statement, at) => {}
        None => {
            finding.worsen(Class::Unknown, Rule::UnknownFunction, name);
            if !is_target(statement, at) {
                finding.change.add(Effects::HIDDEN);
            }
        }
    }
}

/// Behind INSERT INTO, COPY or PREPARE a name with columns or types, before them INSERT or SET; in DDL a name with columns, or a type.
fn is_target(statement: &Statement<'_>, at: usize) -> bool {
    let mut first = at;
    while first >= 2 && statement.is(first - 1, Kind::Dot) {
        first -= 2;
    }
    let before = first.checked_sub(1).map_or(K::None, |before| statement.keyword(before));
    matches!(before, K::Into | K::Copy | K::Prepare)
        || matches!(statement.keyword(at), K::Insert | K::Set)
        || before == K::On && statement.is_word(at, b"conflict")
        || matches!(statement.keyword(0), K::Create | K::Alter | K::Comment | K::Grant | K::Drop | K::Revoke)
            && statement.tokens.iter().all(|t| t.keyword != K::Select)
}

/// A name that no function has may be an alias with a column list: `f(1) t(a, b)`, `(VALUES (1)) t(a)`,
/// `t1 t(a)`, `WITH ORDINALITY t(a, n)`, or a common table expression: `, x(a) AS (SELECT …)`.
fn may_be_alias(statement: &Statement<'_>, at: usize) -> bool {
    let Some(before) = at.checked_sub(1) else {
        return false;
    };
    match statement.kind(before) {
        Some(Kind::Close | Kind::Quoted) => true,
        Some(Kind::Word) => matches!(statement.keyword(before), K::None | K::Ordinality),
        Some(Kind::Comma) => is_table_expression(statement, at),
        _ => false,
    }
}

/// `x(a, b) AS [NOT] [MATERIALIZED] (SELECT …`; not the column definitions in `f(1) AS (a int, b text)`.
fn is_table_expression(statement: &Statement<'_>, at: usize) -> bool {
    let Some(close) = statement.closing_nearby(at + 1) else {
        return false;
    };
    if statement.keyword(close + 1) != K::As {
        return false;
    }
    let mut body = close + 2;
    while matches!(statement.keyword(body), K::Not | K::Materialized) {
        body += 1;
    }
    let verb = statement.keyword(body + 1);
    statement.is(body, Kind::Open)
        && (statement.is(body + 1, Kind::Open)
            || matches!(verb, K::Select | K::Values | K::Table | K::With | K::Insert | K::Update | K::Delete))
}

/// What calling one of PostgreSQL's functions, or of an extension that comes with it, leaves in the session.
pub(super) fn call_changes(statement: &Statement<'_>, at: usize, change: &mut Change) {
    match statement.name(at) {
        b"set_config" => return setting::set_config(statement, at, change),
        b"set_limit" => change.name_setting(b"pg_trgm.similarity_threshold"),
        _ => {}
    }
    change.add(effects_by_name(statement.name(at)));
}

/// The same without a look at the arguments.
pub(super) fn effects_by_name(name: &[u8]) -> Effects {
    match name {
        b"set_config" | b"set_limit" => Effects::SET,
        b"setseed" => Effects::SESSION,
        b"nextval" | b"setval" => Effects::SEQUENCE,
        b"currval" | b"lastval" => Effects::CURRVAL,
        b"pg_advisory_lock" | b"pg_advisory_lock_shared" | b"pg_try_advisory_lock" | b"pg_try_advisory_lock_shared" => {
            Effects::ADVISORY_LOCK
        }
        name if name.starts_with(b"pg_advisory_unlock") => Effects::CLEAR_ADVISORY_LOCK,
        name if name.starts_with(b"pg_replication_origin_session_") => Effects::SESSION,
        name if name.starts_with(b"dblink_connect") => Effects::SESSION,
        name if runs_text(name) => Effects::HIDDEN,
        _ => Effects::NONE,
    }
}

/// Functions that run SQL which they are given as text, or the name of a relation or a cursor.
fn runs_text(name: &[u8]) -> bool {
    name.ends_with(b"_to_xml")
        || name.ends_with(b"_to_xml_and_xmlschema")
        || name.starts_with(b"crosstab")
        || matches!(name, b"ts_stat" | b"ts_rewrite" | b"connectby")
}

/// Relations, types and operators by their names.
fn names(statement: &Statement<'_>, at: usize, facts: &CatalogFacts, finding: &mut Finding) {
    match statement.kind(at) {
        Some(Kind::Word) if statement.keyword(at).is_reserved() => {}
        Some(Kind::Word | Kind::Quoted) => {
            let name = statement.name(at);
            if let Some(verdict) = facts.mention(statement.qualifier(at), name) {
                finding.worsen(verdict.class(), verdict.rule(), name);
            }
            temporary(statement, at, finding);
        }
        Some(Kind::Encoded) => finding.worsen(Class::Unknown, Rule::EncodedName, b""),
        Some(Kind::Operator) if facts.is_volatile_operator(statement.name(at)) => {
            finding.worsen(Class::Unknown, Rule::Operator, statement.name(at));
        }
        _ => {}
    }
}

/// `pg_temp.x`, `pg_temp_3.x`
fn temporary(statement: &Statement<'_>, at: usize, finding: &mut Finding) {
    let name = statement.name(at);
    if name.starts_with(b"pg_temp") && statement.is(at + 1, Kind::Dot) {
        finding.worsen(Class::Write, Rule::TempRelation, name);
        finding.change.add(Effects::TEMP);
    }
}

/// `relation.function`, which calls `function(relation)`.
fn attribute(statement: &Statement<'_>, at: usize, facts: &CatalogFacts, finding: &mut Finding) {
    let is_attribute = at > 0
        && statement.is(at - 1, Kind::Dot)
        && matches!(statement.kind(at), Some(Kind::Word | Kind::Quoted))
        && !statement.is(at + 1, Kind::Open);
    if is_attribute && let Some(verdict) = facts.attribute(statement.name(at)) {
        finding.worsen(verdict.class(), verdict.rule(), statement.name(at));
    }
}
