//! What holds for every text.

use proptest::prelude::*;
use proptest::sample::select;
use sqlparser::ast::Statement;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::super::lexer::{Tokens, scan};
use super::super::veto::writes;
use super::*;

/// Pieces of SQL that meet in ways nobody writes.
const PIECES: &[&str] = &[
    "SELECT",
    "INSERT INTO t",
    "DELETE FROM t",
    "UPDATE t SET a = 1",
    "WITH x AS (",
    ")",
    "(",
    "VALUES (1)",
    "FROM t",
    "WHERE",
    "a",
    "\"b\"",
    "1",
    "'x'",
    "$1",
    "$$y$$",
    "E'\\''",
    ",",
    ";",
    ".",
    "::int",
    "+",
    "-",
    "/* c */",
    "-- c\n",
    "FOR UPDATE",
    "FOR SHARE",
    "INTO t2",
    "EXPLAIN",
    "ANALYZE",
    "(ANALYZE)",
    "COPY",
    "TO STDOUT",
    "FROM STDIN",
    "nextval('s')",
    "now()",
    "AS",
    "UNION",
    "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE",
    "RETURNING *",
    "TABLE t",
    "SHOW x",
    "BEGIN",
    "READ ONLY",
    "COMMIT",
    "SET x = 1",
    "CREATE TABLE z AS",
    "DECLARE c CURSOR FOR",
    "PREPARE p AS",
    "LIMIT 1",
    "ORDER BY 1",
    "IN (1, 2)",
    "LATERAL",
    "JOIN u ON true",
    "AND",
    "NOT",
    "U&\"x\"",
    "IS NULL",
];

fn soup() -> impl Strategy<Value = String> {
    prop::collection::vec(select(PIECES), 0..24).prop_map(|pieces| pieces.join(" "))
}

fn everyday() -> impl Strategy<Value = &'static str> {
    select(everyday_reads().collect::<Vec<_>>())
}

/// The text with `filler` between its tokens, as they stand in the text.
fn spread(text: &str, filler: &str) -> String {
    let mut out = String::new();
    let mut plain = true;
    for word in text.split_inclusive(' ') {
        out.push_str(word);
        plain &= !word.contains(['\'', '"', '$', '-', '/']);
        if plain && word.ends_with(' ') {
            out.push_str(filler);
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400), standard in any::<bool>(), safe in any::<bool>()) {
        let context = Context { standard_conforming_strings: standard, safe_encoding: safe, ..context(&FACTS) };
        let mut classifier = Classifier::new(1 << 16);
        let first = classifier.classify(&bytes, &context);
        prop_assert!(first.class == Class::Write || !first.effects.intersects(Effects::LASTING));
        prop_assert_eq!(classifier.classify(&bytes, &context), first);
        if let Some(renamed) = rename(&bytes, b"x") {
            prop_assert!(classify(renamed).by_name.is_some());
        }
        prepared_text(&bytes);
        explain(&bytes, &classifier.classify(&bytes, &context), &FACTS);
        prop_assert!(parameters(&bytes).count() <= bytes.len());
    }

    #[test]
    fn any_soup_is_survived_and_remembered(text in soup()) {
        let mut classifier = Classifier::new(1 << 16);
        let first = classifier.classify(text.as_bytes(), &context(&FACTS));
        prop_assert_eq!(classifier.classify(text.as_bytes(), &context(&FACTS)), first.clone());
        prop_assert!(first.class == Class::Write || !first.effects.intersects(Effects::LASTING));
    }

    #[test]
    fn what_follows_a_read_counts(read in everyday(), write in select(&["DELETE FROM t", "SELECT nextval('s')", "SET x = 1", "LISTEN a"][..])) {
        prop_assert_eq!(classify(format!("{read}; {write}")).class, Class::Write);
        prop_assert_eq!(classify(format!("{write}; {read}")).class, Class::Write);
    }

    #[test]
    fn comments_and_space_change_nothing(text in everyday(), filler in select(&[" ", "\n\t", "/* x */", "-- x\n", "/* /* ; */ DELETE */ "][..])) {
        let (plain, spread) = (classify(text), classify(spread(text, filler)));
        prop_assert_eq!(plain, spread);
    }

    #[test]
    fn the_case_of_words_changes_nothing(text in soup()) {
        let (plain, other) = (classify(&text), classify(text.to_ascii_lowercase()));
        prop_assert_eq!(plain.class, other.class);
        prop_assert_eq!(plain.effects, other.effects);
    }

    #[test]
    fn literals_change_neither_class_nor_fingerprint(text in soup(), number in 0..1000_u32, string in "[a-z ;]{0,12}") {
        let other = text.replace("'x'", &format!("'{string}'")).replace(" 1 ", &format!(" {number} "));
        let (plain, other) = (classify(&text), classify(&other));
        prop_assert_eq!(plain.fingerprint, other.fingerprint);
        prop_assert_eq!(plain.class, other.class);
        prop_assert_eq!(plain.effects, other.effects);
    }

    #[test]
    fn the_scanner_finds_every_write_that_the_parser_finds(text in soup()) {
        let mut scanned = Tokens::default();
        let reads = scan(text.as_bytes(), true, &mut scanned).is_ok()
            && super::super::judge::judge(text.as_bytes(), &scanned, &FACTS, |_, _| {}).class == Class::Read;
        if reads && let Ok(statements) = Parser::parse_sql(&PostgreSqlDialect {}, &text) {
            let writing: Vec<&Statement> = statements.iter().filter(|s| writes(s)).collect();
            prop_assert!(writing.is_empty(), "{} has {:?}", text, writing);
        }
    }
}
