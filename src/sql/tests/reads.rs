//! Texts that may go to a replica.

use super::*;

#[test]
fn everyday_reads_are_reads() {
    let missed: Vec<_> = everyday_reads()
        .map(|text| (text, classify(text)))
        .filter(|(_, answer)| answer.class != Class::Read || !answer.effects.is_empty())
        .map(|(text, answer)| format!("{}: {text}", answer.why))
        .collect();
    assert!(missed.is_empty(), "{} missed:\n{}", missed.len(), missed.join("\n"));
}

#[test]
fn simple_reads_are_reads_before_the_catalog_is_loaded() {
    let facts = CatalogFacts::unloaded();
    for (text, class) in [
        ("SELECT 1", Class::Read),
        ("SELECT * FROM users WHERE id = $1", Class::Read),
        ("SELECT random(), clock_timestamp()", Class::Read),
        ("WITH x(a) AS (SELECT 1) SELECT coalesce(a, 2) FROM x", Class::Read),
        ("SELECT * FROM pg_class, pg_stats", Class::Read),
        ("SELECT count(*) FROM users", Class::Unknown),
        ("SELECT my_function()", Class::Unknown),
        ("SELECT gen_salt('md5')", Class::Read),
        ("SELECT * FROM t, f(1) t(a)", Class::Unknown),
        ("SELECT nextval('s')", Class::Write),
        ("SELECT pg_advisory_lock(1)", Class::Write),
        ("SELECT pg_try_advisory_xact_lock(1)", Class::Write),
        ("SELECT pg_create_physical_replication_slot('s')", Class::Write),
        ("SELECT * FROM pg_stat_activity", Class::Write),
        ("SELECT * FROM pg_catalog.pg_locks", Class::Write),
        ("SELECT * FROM mine.pg_locks", Class::Read),
    ] {
        assert_eq!(classify_with(&facts, text).class, class, "{text}");
    }
}

#[test]
fn a_transaction_in_one_text_is_as_bad_as_its_worst_statement() {
    for (text, class) in [
        ("BEGIN READ ONLY; SELECT 1; COMMIT", Class::Read),
        ("BEGIN READ ONLY; SET LOCAL statement_timeout = 5; SELECT 1; COMMIT;", Class::Read),
        ("BEGIN; SELECT 1; COMMIT", Class::Write),
        ("SELECT 1; SELECT 2", Class::Read),
        ("SELECT 1; COMMIT", Class::Read),
        (";;SELECT 1;;", Class::Read),
        ("", Class::Read),
        ("  -- nothing\n", Class::Read),
        ("; ;", Class::Read),
        ("COMMIT", Class::Read),
        ("ROLLBACK TO SAVEPOINT a", Class::Read),
        ("RELEASE a", Class::Read),
        ("SET TRANSACTION READ ONLY; SELECT 1", Class::Read),
        ("SET CONSTRAINTS ALL DEFERRED", Class::Read),
        ("SELECT 1; INSERT INTO t VALUES (1)", Class::Write),
        ("SELECT 1; VACUUM", Class::Write),
    ] {
        assert_eq!(classify(text).class, class, "{text}");
    }
}

#[test]
fn begin_says_what_it_begins() {
    let begin = |read_only, serializable| Some(Begin { read_only, serializable });
    for (text, begins, class) in [
        ("BEGIN", begin(false, false), Class::Write),
        ("begin work;", begin(false, false), Class::Write),
        ("START TRANSACTION", begin(false, false), Class::Write),
        ("BEGIN READ ONLY", begin(true, false), Class::Read),
        ("BEGIN TRANSACTION READ ONLY", begin(true, false), Class::Read),
        ("START TRANSACTION READ ONLY, ISOLATION LEVEL REPEATABLE READ;", begin(true, false), Class::Read),
        ("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY NOT DEFERRABLE", begin(true, false), Class::Read),
        ("BEGIN ISOLATION LEVEL READ UNCOMMITTED, READ ONLY", begin(true, false), Class::Read),
        ("BEGIN READ ONLY DEFERRABLE", begin(true, false), Class::Read),
        ("BEGIN /* x */ READ -- y\n ONLY", begin(true, false), Class::Read),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE", begin(true, true), Class::Write),
        ("BEGIN READ WRITE", begin(false, false), Class::Write),
        ("BEGIN READ ONLY READ WRITE", begin(false, false), Class::Write),
        ("BEGIN ISOLATION LEVEL REPEATABLE READ", begin(false, false), Class::Write),
        ("BEGIN READ ONLY SOMETHING", begin(false, false), Class::Write),
        ("BEGIN; SELECT 1", None, Class::Write),
        ("BEGIN READ ONLY; SELECT 1", None, Class::Read),
        ("COMMIT; BEGIN READ ONLY", None, Class::Read),
    ] {
        let answer = classify(text);
        assert_eq!((answer.begins, answer.class), (begins, class), "{text}");
        assert!(answer.transaction_control, "{text}");
    }
    assert!(!classify("SELECT 1").transaction_control);
}

#[test]
fn an_end_is_one_of_the_whole_transaction() {
    for (text, ends) in [
        ("COMMIT", Some(Sole::Commit)),
        ("end transaction ;", Some(Sole::Commit)),
        ("/* x */ Rollback Work", Some(Sole::Rollback)),
        ("ABORT", Some(Sole::Rollback)),
        ("COMMIT AND CHAIN", None),
        ("ROLLBACK TO SAVEPOINT a", Some(Sole::Savepoint)),
        ("rollback work to a", Some(Sole::Savepoint)),
        ("COMMIT PREPARED 'x'", None),
        ("COMMIT; COMMIT", None),
        ("SAVEPOINT work", Some(Sole::Savepoint)),
        ("RELEASE work", Some(Sole::Savepoint)),
        ("BEGIN", None),
    ] {
        assert_eq!(classify(text).sole, ends, "{text}");
    }
}

#[test]
fn one_statement_that_modifies_data_is_told_from_many() {
    for (text, is_dml) in [
        ("INSERT INTO t VALUES (1);", true),
        ("update t set a = 1 returning a", true),
        ("MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE", true),
        ("INSERT INTO t VALUES (1); SELECT 1", false),
        ("EXPLAIN ANALYZE DELETE FROM t", false),
        ("COPY t FROM STDIN", false),
        ("SELECT 1", false),
    ] {
        assert_eq!(classify(text).sole == Some(Sole::Dml), is_dml, "{text}");
    }
}

#[test]
fn hints_choose_but_never_make_a_write_a_read() {
    let primary = Some(Hint::Primary);
    let replica = Some(Hint::Replica);
    for (text, hint, class) in [
        ("/* causeway: primary */ SELECT 1", primary, Class::Read),
        ("/*CAUSEWAY:Primary*/SELECT 1", primary, Class::Read),
        ("  -- first\n /* app */ /* causeway : replica */ SELECT 1", replica, Class::Read),
        ("/* causeway: replica */ SELECT volatile_fn()", replica, Class::Read),
        ("/* causeway: replica */ SELECT no_such_fn()", replica, Class::Read),
        ("/* causeway: replica */ SELECT * FROM view_volatile", replica, Class::Read),
        ("/* causeway: replica */ SELECT volatile_fn(); DELETE FROM t", replica, Class::Write),
        ("/* causeway: replica */ INSERT INTO t VALUES (1)", replica, Class::Write),
        ("/* causeway: replica */ SELECT nextval('s')", replica, Class::Write),
        ("/* causeway: replica */ SELECT * FROM t FOR UPDATE", replica, Class::Write),
        ("/* causeway: replica */ SET x = 1", replica, Class::Write),
        ("/* causeway: replica */ /* causeway: primary */ SELECT 1", primary, Class::Read),
        ("/* causeway: primary */ /* causeway: replica */ SELECT 1", primary, Class::Read),
        ("/* causeway: elsewhere */ SELECT 1", None, Class::Read),
        ("/* causewayx: primary */ SELECT 1", None, Class::Read),
        ("-- causeway: primary\nSELECT 1", None, Class::Read),
        ("SELECT /* causeway: primary */ 1", None, Class::Read),
        ("SELECT '/* causeway: primary */'", None, Class::Read),
    ] {
        let answer = classify(text);
        assert_eq!((answer.hint, answer.class), (hint, class), "{text}");
    }
    assert_eq!(classify("/* causeway: replica */ SELECT volatile_fn()").why.rule, Rule::HintReplica);
}

#[test]
fn explain_says_class_reason_and_each_statement() {
    let rows = said_of("SELECT 1; SELECT nextval('s'); SET a = 1");
    let expected = [
        "class: write",
        "decided by: calls a function that writes or needs the primary: nextval (writing_function)",
        "effects: set, sequence",
        "settings: a",
        "hint: none",
    ];
    assert_eq!(rows[..5], expected);
    assert!(rows[5].starts_with("fingerprint: ") && rows[5].len() == 29, "{}", rows[5]);
    assert_eq!(
        rows[6..],
        [
            "statement 1: SELECT: read, reads only, effects none",
            "statement 2: SELECT: write, calls a function that writes or needs the primary: nextval, effects sequence",
            "statement 3: SET: write, changes or uses the session's state: set, effects set",
        ]
    );
    assert_eq!(said_of("SELECT 1").len(), 5);
    assert!(said_of("SELECT 'x")[1].ends_with(" (malformed)"));
}

#[test]
fn parameters_are_found_where_they_are_some() {
    for (text, numbers) in [
        ("SELECT 1", &[][..]),
        ("SELECT $1", &[1]),
        ("SELECT * FROM t WHERE a IN ($3, $1, $3) AND b = $12::int", &[1, 3, 12]),
        ("SELECT '$1', $$ $2 $$, \"$3\" -- $4", &[]),
        ("SELECT $99999999999", &[]),
    ] {
        assert_eq!(parameters(text.as_bytes()).collect::<Vec<_>>(), numbers, "{text}");
    }
}

#[test]
fn the_parser_has_an_opinion_of_most_reads_and_vetoes_none() {
    let (mut reads, mut unparsed) = (0, 0);
    for text in everyday_reads() {
        let mut classifier = Classifier::new(0);
        classifier.classify(text.as_bytes(), &context(&FACTS));
        assert_eq!(classifier.stats.vetoes, 0, "{text}");
        reads += 1;
        unparsed += classifier.stats.parse_failures;
    }
    assert!(unparsed * 10 < reads, "{unparsed} of {reads}");
}
