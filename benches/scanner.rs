//! What classifying a text costs: known by its text, known by its shape, and not known.

use std::hint::black_box;
use std::time::Instant;

use causeway::sql::{CatalogFacts, Classifier, Context, FunctionRow, Volatility};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const SHORT: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = 4711";

fn long() -> String {
    let columns: Vec<_> = (0..40).map(|n| format!("coalesce(t{n}.\"column_{n}\", 'x') AS c{n}")).collect();
    format!("SELECT {} FROM t0 WHERE t0.id IN (1, 2, 3) AND lower(t0.name) LIKE '%a%' ORDER BY 1", columns.join(", "))
}

fn facts() -> CatalogFacts {
    let mut builder = CatalogFacts::builder();
    builder.function(FunctionRow {
        schema: "pg_catalog",
        name: "lower",
        volatility: Volatility::Immutable,
        field_style: false,
    });
    builder.build()
}

fn classify(criterion: &mut Criterion) {
    let facts = facts();
    let context = Context {
        facts: &facts,
        facts_version: 1,
        standard_conforming_strings: true,
        safe_encoding: true,
        now: Instant::now(),
    };
    let long = long();
    for (name, text) in [("short", SHORT), ("long", long.as_str())] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(text.len() as u64));
        let mut classifier = Classifier::new(1 << 20);
        group.bench_function("known text", |b| b.iter(|| classifier.classify(black_box(text.as_bytes()), &context)));
        let others: Vec<_> =
            (0..4096).map(|n| text.replace("= 4711", &format!("= {n}")).replace("%a%", &n.to_string())).collect();
        let mut next = others.iter().cycle();
        group.bench_function("known shape", |b| {
            b.iter(|| next.next().map(|text| classifier.classify(black_box(text.as_bytes()), &context)));
        });
        let mut forgetful = Classifier::new(0);
        group.bench_function("unknown", |b| b.iter(|| forgetful.classify(black_box(text.as_bytes()), &context)));
        let write = format!("{text} FOR UPDATE");
        group.bench_function("unknown, without the parser", |b| {
            b.iter(|| forgetful.classify(black_box(write.as_bytes()), &context));
        });
        group.finish();
    }
}

criterion_group!(benches, classify);
criterion_main!(benches);
