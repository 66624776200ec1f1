//! A text that a client sends, and what we make of it.

use std::cell::RefCell;
use std::time::Instant;

use causeway::sql::{
    CatalogFacts, Class, Classified, Classifier, Context, Effects, FunctionRow, RelationRow, Rule, Volatility, explain,
    explained, parameters, prepared_text, rename,
};
use sqlparser::ast::{Query, SetExpr, Statement};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

thread_local! {
    /// A real server's functions and relations.
    static FACTS: CatalogFacts = facts();
    static CLASSIFIER: RefCell<Classifier> = RefCell::new(Classifier::new(1 << 16));
}

fn facts() -> CatalogFacts {
    let mut builder = CatalogFacts::builder();
    for line in include_str!("../../../src/sql/testdata/postgresql15.txt").lines() {
        let mut words = line.split(' ');
        let mut next = || words.next().unwrap_or_default();
        match next() {
            "function" => {
                let (schema, volatility, field_style) = (next(), Volatility::from_catalog(next()), next() == "t");
                words.for_each(|name| builder.function(FunctionRow { schema, name, volatility, field_style }));
            }
            "relation" => {
                let (schema, why) = (next(), next());
                words.for_each(|name| builder.relation(RelationRow { schema, name, why }));
            }
            _ => {}
        }
    }
    builder.build()
}

pub fn survive(data: &[u8]) {
    FACTS.with(|facts| {
        CLASSIFIER.with_borrow_mut(|memo| {
            check(data, facts, memo);
        });
    });
}

fn check(text: &[u8], facts: &CatalogFacts, memo: &mut Classifier) {
    let context = Context {
        facts,
        facts_version: 1,
        standard_conforming_strings: true,
        safe_encoding: true,
        now: Instant::now(),
    };
    let fresh = || Classifier::new(1 << 14);
    let classified = fresh().classify(text, &context);
    // What other texts came before makes no difference, and neither does the second time.
    assert_eq!(memo.classify(text, &context), classified);
    assert_eq!(memo.classify(text, &context), classified);
    let doubtful = [(false, true), (true, false), (false, false)];
    for (standard_conforming_strings, safe_encoding) in doubtful {
        let context = Context { standard_conforming_strings, safe_encoding, ..context };
        let other = fresh().classify(text, &context);
        let may_read = standard_conforming_strings && text.is_ascii();
        assert!(other.class == Class::Write || may_read && other.class >= classified.class, "{other:?}");
    }
    check_answer(text, &classified);
    sees_every_write_that_the_parser_sees(text, &classified);
    let more = [text, b"\n;DELETE FROM t"].concat();
    assert_eq!(fresh().classify(&more, &context).class, Class::Write, "what follows counts");
    if let Some(renamed) = rename(text, b"other") {
        let renamed = fresh().classify(&renamed, &context);
        assert_eq!(
            renamed.by_name.as_ref().map(|by| (by.verb, &*by.name)),
            classified.by_name.as_ref().map(|by| (by.verb, &b"other"[..]))
        );
    }
    assert!(prepared_text(text).is_none_or(|text_in_it| text_in_it.len() < text.len()));
    assert!(explained(text).is_none_or(|text_in_it| text_in_it.len() < text.len()));
    assert!(parameters(text).count() <= text.len());
    let rows = explain(text, &classified, facts);
    assert!(rows.iter().map(|row| row.name.len() + row.value.len()).sum::<usize>() < 4096 + 16 * text.len());
}

fn check_answer(text: &[u8], classified: &Classified) {
    let reads = classified.class == Class::Read;
    assert!(!reads || !classified.effects.intersects(Effects::LASTING), "{classified:?}");
    assert!(classified.begins.is_none() || classified.transaction_control);
    let named: usize = classified.settings.iter().map(|name| name.len()).sum();
    assert!(named <= 2 * text.len() + 64 * classified.settings.len());
    assert!(classified.refusal().is_none_or(|bad| bad.message.len() < 600));
}

/// The parser's own opinion is asked too, so the class alone would not show what the scanner has passed over.
fn sees_every_write_that_the_parser_sees(text: &[u8], classified: &Classified) {
    if classified.why.rule != Rule::Veto {
        return;
    }
    // The parser has read it once already, so it is not too deep.
    let text = str::from_utf8(text).unwrap();
    let statements = Parser::parse_sql(&PostgreSqlDialect {}, text).unwrap_or_default();
    assert!(!statements.iter().any(writes), "the scanner takes it for a read: {statements:?}");
}

/// Without doubt: the parser also takes in statements of other databases, of which PostgreSQL would run nothing.
fn writes(statement: &Statement) -> bool {
    match statement {
        Statement::Query(query) => query_writes(query),
        Statement::Explain { analyze, statement, .. } => *analyze && writes(statement),
        Statement::Insert(_)
        | Statement::Update(_)
        | Statement::Delete(_)
        | Statement::Merge(_)
        | Statement::Truncate(_)
        | Statement::CreateTable(_)
        | Statement::CreateView(_)
        | Statement::CreateIndex(_)
        | Statement::AlterTable(_)
        | Statement::Drop { .. }
        | Statement::Call(_)
        | Statement::Prepare { .. }
        | Statement::Execute { .. }
        | Statement::NOTIFY { .. }
        | Statement::LISTEN { .. } => true,
        Statement::Copy { to, .. } => !*to,
        _ => false,
    }
}

fn query_writes(query: &Query) -> bool {
    let in_with =
        |query: &Query| query.with.iter().flat_map(|with| &with.cte_tables).any(|cte| query_writes(&cte.query));
    !query.locks.is_empty() || in_with(query) || body_writes(&query.body)
}

fn body_writes(body: &SetExpr) -> bool {
    match body {
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => true,
        SetExpr::Select(select) => select.into.is_some(),
        SetExpr::Query(query) => query_writes(query),
        SetExpr::SetOperation { left, right, .. } => body_writes(left) || body_writes(right),
        SetExpr::Values(_) | SetExpr::Table(_) => false,
    }
}
