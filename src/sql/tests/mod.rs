//! Classification as tables: texts and what they are, with the catalog of a real server.

mod effects;
mod hidden;
mod lexing;
mod memo;
mod own;
mod properties;
mod reads;
mod writes;

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use super::*;

/// The catalog of an empty PostgreSQL 15, and some objects of a user.
static FACTS: LazyLock<CatalogFacts> = LazyLock::new(|| {
    let mut builder = CatalogFacts::builder();
    for line in include_str!("../testdata/postgresql15.txt").lines() {
        let mut words = line.split(' ');
        let mut next = || words.next().unwrap_or_default();
        match next() {
            "function" => {
                let (schema, volatility, field_style) = (next(), Volatility::from_catalog(next()), next() == "t");
                for name in words {
                    builder.function(FunctionRow { schema, name, volatility, field_style });
                }
            }
            "relation" => {
                let (schema, why) = (next(), next());
                for name in words {
                    builder.relation(RelationRow { schema, name, why });
                }
            }
            _ => {}
        }
    }
    for (schema, name, volatility, field_style) in [
        ("public", "volatile_fn", Volatility::Volatile, false),
        ("public", "Volatile Fn", Volatility::Volatile, false),
        ("public", "row_fn", Volatility::Volatile, true),
        ("public", "stable_fn", Volatility::Stable, false),
        ("public", "immutable_fn", Volatility::Immutable, false),
        ("public", "overloaded", Volatility::Immutable, false),
        ("other", "overloaded", Volatility::Volatile, false),
        ("other", "now", Volatility::Stable, false),
        ("ext", "uuid_generate_v4", Volatility::Volatile, false),
        ("ext", "dblink_exec", Volatility::Volatile, false),
    ] {
        builder.function(FunctionRow { schema, name, volatility, field_style });
    }
    for (schema, name, why) in [
        ("public", "unlogged_t", "unlogged"),
        ("public", "foreign_t", "foreign"),
        ("public", "id_seq", "sequence"),
        ("public", "view_nextval", "volatile:nextval"),
        ("public", "view_volatile", "volatile:volatile_fn"),
        ("audit", "log", "volatile:volatile_fn, unlogged"),
    ] {
        builder.relation(RelationRow { schema, name, why });
    }
    builder.type_(TypeRow { schema: "public", name: "volatile_domain" });
    builder.operator(OperatorRow { name: "<~~>" });
    builder.build()
});

fn context(facts: &CatalogFacts) -> Context<'_> {
    Context { facts, facts_version: 1, standard_conforming_strings: true, safe_encoding: true, now: Instant::now() }
}

fn classify_with(facts: &CatalogFacts, text: impl AsRef<[u8]>) -> Arc<Classified> {
    Classifier::new(1 << 16).classify(text.as_ref(), &context(facts))
}

fn classify(text: impl AsRef<[u8]>) -> Arc<Classified> {
    classify_with(&FACTS, text)
}

/// An explanation, a row on a line.
fn said_of(text: impl AsRef<[u8]>) -> Vec<String> {
    let text = text.as_ref();
    explain(text, &classify(text), &FACTS).into_iter().map(|row| format!("{}: {}", row.name, row.value)).collect()
}

/// The statements of a file of test data; each ends with a semicolon at the end of a line.
fn statements(file: &'static str) -> impl Iterator<Item = &'static str> {
    file.split(";\n").filter(|s| !s.trim().is_empty())
}

fn everyday_reads() -> impl Iterator<Item = &'static str> {
    statements(include_str!("../testdata/reads.sql")).chain(statements(include_str!("../testdata/psql.sql")))
}
