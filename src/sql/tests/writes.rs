//! Texts that may not go to a replica, with the rule and the name that decide.

use super::Rule as R;
use super::*;

/// Text, and the rule and the name that decide.
const WRITES: &[(&str, R, &str)] = &[
    // Data-modifying statements, wherever they hide.
    ("INSERT INTO t VALUES (1)", R::DataModifying, "insert"),
    ("update t set a = 1", R::DataModifying, "update"),
    ("DELETE FROM t", R::DataModifying, "delete"),
    ("MERGE INTO t USING s ON false WHEN NOT MATCHED THEN DO NOTHING", R::DataModifying, "merge"),
    ("WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x", R::DataModifying, "insert"),
    ("WITH x AS (SELECT 1) DELETE FROM t", R::DataModifying, "delete"),
    ("WITH x AS (SELECT 1) UPDATE ONLY t SET a = 1", R::DataModifying, "update"),
    ("WITH RECURSIVE a AS (SELECT 1) SEARCH DEPTH FIRST BY x SET y DELETE FROM t", R::DataModifying, "delete"),
    (
        "WITH x AS MATERIALIZED (WITH y AS (UPDATE \"T\" SET a = 1 RETURNING 1) TABLE y) TABLE x",
        R::DataModifying,
        "update",
    ),
    ("EXPLAIN ANALYZE DELETE FROM t", R::DataModifying, "delete"),
    ("EXPLAIN (ANALYSE) DELETE FROM t", R::DataModifying, "delete"),
    ("EXPLAIN (COSTS OFF, ANALYZE TRUE) UPDATE t SET a = 1", R::DataModifying, "update"),
    ("EXPLAIN (ANALYZE 'on') DELETE FROM t", R::DataModifying, "delete"),
    ("EXPLAIN (ANALYZE off, ANALYZE) DELETE FROM t", R::DataModifying, "delete"),
    ("EXPLAIN (\"analyze\") DELETE FROM t", R::DataModifying, "delete"),
    ("EXPLAIN ANALYSE VERBOSE INSERT INTO t VALUES (1)", R::DataModifying, "insert"),
    ("EXPLAIN ANALYZE WITH x AS (DELETE FROM t RETURNING 1) SELECT * FROM x", R::DataModifying, "delete"),
    ("EXPLAIN ANALYZE SELECT * FROM t FOR SHARE", R::RowLock, ""),
    ("EXPLAIN ANALYZE EXECUTE p", R::SessionState, "execute"),
    ("EXPLAIN EXECUTE p", R::Verb, "execute"),
    ("EXPLAIN ANALYZE CREATE TABLE x AS SELECT 1", R::Verb, "create"),
    ("EXPLAIN SELECT * FROM unlogged_t", R::Relation, "unlogged_t"),
    ("COPY (INSERT INTO t VALUES (1) RETURNING *) TO STDOUT", R::DataModifying, "insert"),
    ("COPY (SELECT nextval('s')) TO STDOUT", R::WritingFunction, "nextval"),
    ("COPY t FROM STDIN", R::Verb, "copy"),
    ("COPY t (a, b) FROM '/tmp/x'", R::Verb, "copy"),
    ("COPY t TO '/tmp/x'", R::Verb, "copy"),
    ("COPY t TO PROGRAM 'rm x'", R::Verb, "copy"),
    ("COPY unlogged_t TO STDOUT", R::Relation, "unlogged_t"),
    ("SELECT 1; INSERT INTO t VALUES (1)", R::DataModifying, "insert"),
    ("SELECT a INTO t2 FROM t", R::SelectInto, ""),
    ("SELECT ALL INTO t2 FROM t", R::SelectInto, ""),
    ("SELECT INTO t2 FROM t", R::SelectInto, ""),
    ("SELECT 1 AS into INTO t2", R::SelectInto, ""),
    // Row locks.
    ("SELECT * FROM t FOR UPDATE", R::RowLock, ""),
    ("SELECT * FROM t FOR NO KEY UPDATE OF t SKIP LOCKED", R::RowLock, ""),
    ("SELECT * FROM t FOR/**/SHARE", R::RowLock, ""),
    ("SELECT * FROM (SELECT * FROM t FOR SHARE) x", R::RowLock, ""),
    ("SELECT * FROM t FOR KEY SHARE", R::RowLock, ""),
    // Functions.
    ("SELECT nextval('s')", R::WritingFunction, "nextval"),
    ("SELECT NextVal ('s')", R::WritingFunction, "nextval"),
    ("SELECT nextval/* */('s')", R::WritingFunction, "nextval"),
    ("SELECT pg_catalog . nextval('s')", R::WritingFunction, "nextval"),
    ("SELECT \"nextval\"('s')", R::WritingFunction, "nextval"),
    ("SELECT \"pg_catalog\".\"nextval\"('s')", R::WritingFunction, "nextval"),
    ("SELECT U&\"pg_catalog\".nextval('s')", R::WritingFunction, "nextval"),
    ("SELECT DISTINCT ON (a) nextval('s') FROM t", R::WritingFunction, "nextval"),
    ("SELECT 1 OPERATOR(pg_catalog.+) nextval('s')", R::WritingFunction, "nextval"),
    ("SELECT txid_current()", R::WritingFunction, "txid_current"),
    ("SELECT pg_current_xact_id()", R::WritingFunction, "pg_current_xact_id"),
    ("SELECT pg_notify('a', 'b')", R::WritingFunction, "pg_notify"),
    ("SELECT lo_create(0)", R::WritingFunction, "lo_create"),
    ("SELECT pg_current_wal_lsn()", R::WritingFunction, "pg_current_wal_lsn"),
    ("SELECT setval('s', 1)", R::WritingFunction, "setval"),
    ("SELECT currval('s')", R::SessionFunction, "currval"),
    ("SELECT lastval()", R::SessionFunction, "lastval"),
    ("SELECT pg_backend_pid()", R::SessionFunction, "pg_backend_pid"),
    ("SELECT current_setting('x')", R::SessionFunction, "current_setting"),
    ("SELECT query_to_xml('DELETE FROM t', true, true, '')", R::SessionFunction, "query_to_xml"),
    ("SELECT pg_advisory_xact_lock(1)", R::SessionFunction, "pg_advisory_xact_lock"),
    ("SELECT dblink_exec('c', 'DELETE FROM t')", R::SessionFunction, "dblink_exec"),
    ("SELECT pg_is_in_recovery()", R::NodeFunction, "pg_is_in_recovery"),
    ("SELECT pg_last_wal_replay_lsn()", R::NodeFunction, "pg_last_wal_replay_lsn"),
    ("SELECT pg_stat_get_numscans(1)", R::NodeFunction, "pg_stat_get_numscans"),
    ("SELECT inet_server_addr()", R::NodeFunction, "inet_server_addr"),
    ("SELECT pg_current_snapshot()", R::NodeFunction, "pg_current_snapshot"),
    ("SELECT pg_terminate_backend(1)", R::NodeFunction, "pg_terminate_backend"),
    ("SELECT pg_reload_conf()", R::NodeFunction, "pg_reload_conf"),
    ("SELECT pg_read_file('x')", R::NodeFunction, "pg_read_file"),
    ("SELECT 1 FROM t WHERE a > (SELECT count(*) FROM pg_ls_waldir())", R::NodeFunction, "pg_ls_waldir"),
    ("SELECT * FROM a JOIN LATERAL nextval('s') x ON true", R::WritingFunction, "nextval"),
    ("VALUES (nextval('s'))", R::WritingFunction, "nextval"),
    ("SELECT U&\"n\\0065xtval\"('s')", R::EncodedName, ""),
    ("SELECT u&\"n!0065xtval\" UESCAPE '!' ('s')", R::EncodedName, ""),
    ("DECLARE c CURSOR FOR SELECT nextval('s')", R::WritingFunction, "nextval"),
    // Relations that a replica cannot give.
    ("TABLE unlogged_t", R::Relation, "unlogged_t"),
    ("SELECT * FROM public.foreign_t", R::Relation, "foreign_t"),
    ("SELECT last_value FROM id_seq", R::Relation, "id_seq"),
    ("SELECT * FROM VIEW_NEXTVAL", R::Relation, "view_nextval"),
    ("SELECT * FROM \"view_nextval\"", R::Relation, "view_nextval"),
    ("SELECT * FROM audit.log", R::Relation, "log"),
    ("SELECT * FROM pg_stat_activity", R::Relation, "pg_stat_activity"),
    ("SELECT * FROM pg_catalog.pg_settings WHERE name = 'x'", R::Relation, "pg_settings"),
    ("SELECT count(*) FROM pg_locks l JOIN t ON true", R::Relation, "pg_locks"),
    ("SELECT * FROM pg_temp.x", R::TempRelation, "pg_temp"),
    ("SELECT * FROM pg_temp_3.x", R::TempRelation, "pg_temp_3"),
    // What goes beyond the transaction, or needs its server.
    ("SET search_path = x", R::SessionState, "set"),
    ("SET LOCAL transaction_read_only = off", R::SessionState, "set"),
    ("SET TRANSACTION READ WRITE", R::SessionState, "set"),
    ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", R::SessionState, "set"),
    ("SET TRANSACTION SNAPSHOT '1-1-1'", R::SessionState, "set"),
    ("EXECUTE p (1)", R::SessionState, "execute"),
    ("FETCH ALL FROM c", R::SessionState, "fetch"),
    ("MOVE 5 IN c", R::SessionState, "move"),
    ("UNLISTEN a", R::SessionState, "unlisten"),
    ("COMMIT PREPARED 'x'", R::Verb, "commit"),
    ("ROLLBACK PREPARED 'x'", R::Verb, "rollback"),
    ("PREPARE TRANSACTION 'x'", R::Verb, "prepare"),
    ("SHOW transaction_read_only", R::NodeSetting, "transaction_read_only"),
    ("SHOW in_hot_standby", R::NodeSetting, "in_hot_standby"),
    ("SHOW ALL", R::NodeSetting, "all"),
    ("SHOW my.setting", R::NodeSetting, "my"),
    ("SHOW max_connections", R::NodeSetting, "max_connections"),
    // Every other verb.
    ("NOTIFY a", R::Verb, "notify"),
    ("LOCK t IN ACCESS SHARE MODE", R::Verb, "lock"),
    ("CHECKPOINT", R::Verb, "checkpoint"),
    ("VACUUM", R::Verb, "vacuum"),
    ("ANALYZE t", R::Verb, "analyze"),
    ("CLUSTER", R::Verb, "cluster"),
    ("REINDEX TABLE t", R::Verb, "reindex"),
    ("REFRESH MATERIALIZED VIEW v", R::Verb, "refresh"),
    ("TRUNCATE t", R::Verb, "truncate"),
    ("CREATE TABLE t AS SELECT 1", R::Verb, "create"),
    ("ALTER SYSTEM SET a = 1", R::Verb, "alter"),
    ("GRANT SELECT ON t TO u", R::Verb, "grant"),
    ("CALL p(1)", R::Verb, "call"),
    ("DO $$ BEGIN NULL; END $$", R::Verb, "do"),
    ("SELEC 1", R::Verb, "selec"),
    ("(DELETE FROM t)", R::Verb, ""),
    // What the scanner cannot finish.
    ("SELECT 'x", R::Malformed, ""),
    ("SELECT $$x", R::Malformed, ""),
    ("SELECT $a$x$b$", R::Malformed, ""),
    ("SELECT \"x", R::Malformed, ""),
    ("SELECT 1 /* /* */", R::Malformed, ""),
    ("SELECT E'\\'", R::Malformed, ""),
    ("SELECT 1 \\ 2", R::Malformed, ""),
    ("SELECT 1 \u{0}", R::Malformed, ""),
];

#[test]
fn statements_that_are_not_for_a_replica() {
    for (text, rule, name) in WRITES {
        let answer = classify(text);
        let reason = (answer.why.rule, answer.why.name.as_deref().unwrap_or_default());
        assert_eq!((answer.class, reason), (Class::Write, (*rule, *name)), "{text}");
    }
}

#[test]
fn what_only_the_user_knows_is_unknown() {
    for (text, rule) in [
        ("SELECT volatile_fn()", R::VolatileFunction),
        ("SELECT public.volatile_fn()", R::VolatileFunction),
        ("SELECT \"Volatile Fn\"()", R::VolatileFunction),
        ("SELECT overloaded(1)", R::VolatileFunction),
        ("SELECT other.overloaded(1)", R::VolatileFunction),
        ("SELECT t.row_fn FROM t", R::VolatileFunction),
        ("SELECT (t).row_fn FROM t", R::VolatileFunction),
        ("SELECT no_such_fn()", R::UnknownFunction),
        ("SELECT other.stable_fn()", R::UnknownFunction),
        ("SELECT \"NOW\"()", R::UnknownFunction),
        ("SELECT 1, no_such_fn(2)", R::UnknownFunction),
        ("SELECT * FROM t, no_such_fn(1) AS (a int)", R::UnknownFunction),
        ("SELECT U&\"n\\0065xt\" FROM t", R::EncodedName),
        ("SELECT * FROM view_volatile", R::VolatileRelation),
        ("SELECT a <~~> b FROM t", R::Operator),
        ("SELECT a OPERATOR(public.<~~>) b FROM t", R::Operator),
        ("SELECT 1::volatile_domain", R::Type),
        ("SELECT CAST('1' AS public.volatile_domain)", R::Type),
    ] {
        let answer = classify(text);
        assert_eq!((answer.class, answer.why.rule), (Class::Unknown, rule), "{text}");
    }
    for text in ["SELECT overloaded_not(1) FROM t WHERE false AND x = 1", "SELECT public.overloaded(1)"] {
        assert_ne!(classify(text).class, Class::Write, "{text}");
    }
    assert_eq!(classify("SELECT public.overloaded(1), ext.uuid_generate_v4()").class, Class::Read);
}

#[test]
fn every_volatile_function_of_postgresql_has_a_category() {
    let volatile = |line: &&str| line.starts_with("function pg_catalog v ");
    let names =
        include_str!("../testdata/postgresql15.txt").lines().filter(volatile).flat_map(|l| l.split(' ').skip(4));
    // The handlers of a language cannot be called from SQL.
    let callable = names.filter(|name| !name.starts_with("plpgsql_"));
    let uncategorised: Vec<_> =
        callable.filter(|name| classify(format!("SELECT {name}()")).class == Class::Unknown).collect();
    assert_eq!(uncategorised, [""; 0]);
}

#[test]
fn names_are_cut_where_postgresql_cuts_them() {
    let stored = "v".repeat(63);
    let mut builder = CatalogFacts::builder();
    builder.relation(RelationRow { schema: "public", name: &stored, why: "unlogged" });
    let facts = builder.build();
    for (text, class) in [
        (format!("TABLE {stored}"), Class::Write),
        (format!("TABLE {stored}abc"), Class::Write),
        (format!("TABLE {}", &stored[1..]), Class::Read),
    ] {
        assert_eq!(classify_with(&facts, &text).class, class, "{text}");
    }
}

#[test]
fn a_harmful_name_beyond_ascii_makes_all_such_names_suspect() {
    let mut builder = CatalogFacts::builder();
    builder.relation(RelationRow { schema: "public", name: "größe", why: "unlogged" });
    let facts = builder.build();
    for (text, class) in [
        ("TABLE größe".as_bytes(), Class::Write),
        ("TABLE GRÖSSE".as_bytes(), Class::Write),
        (b"TABLE gr\xf6\xdfe", Class::Write),
        (b"TABLE users", Class::Read),
    ] {
        assert_eq!(classify_with(&facts, text).class, class);
    }
}

#[test]
fn a_session_whose_texts_are_ambiguous_only_writes() {
    let ask = |text: &[u8], standard: bool, safe: bool| {
        let context = Context { standard_conforming_strings: standard, safe_encoding: safe, ..context(&FACTS) };
        Classifier::new(1 << 16).classify(text, &context)
    };
    assert_eq!(ask(b"SELECT 1", true, true).class, Class::Read);
    assert_eq!(ask(b"SELECT 1", false, true).why.rule, Rule::UnsafeText);
    assert_eq!(ask(b"BEGIN READ ONLY", false, true).begins, Some(Begin { read_only: false, serializable: false }));
    // Without standard strings the first string goes on to the end of `x`.
    assert_eq!(ask(b"SELECT '\\'; SET x = 1; --'", false, true).effects, Effects::NONE);
    assert_eq!(ask(b"SELECT '\\'; SET x = 1; --'", true, true).effects, Effects::SET);
    assert_eq!(ask(b"SELECT 1", true, false).class, Class::Read);
    let trail_byte_is_a_backslash = b"SELECT E'\x95\\'; SET x = 1; --'";
    assert_eq!(ask(trail_byte_is_a_backslash, true, false).class, Class::Write);
    assert!(ask(trail_byte_is_a_backslash, true, false).effects.contains(Effects::SET));
}

#[test]
fn a_text_too_long_to_scan_is_a_write_with_all_the_effects_it_may_have() {
    let long = |tail: &str| format!("INSERT INTO t VALUES ('{}'){tail}", "x".repeat(1 << 20));
    let unseen = Effects::HIDDEN.union(Effects::SEQUENCE);
    let anything = Effects::LASTING.union(Effects::SET).union(Effects::RESET).union(Effects::CURRVAL).union(unseen);
    for (tail, effects) in [("", unseen), ("; SET x = 1", anything)] {
        let answer = classify(long(tail));
        assert_eq!((answer.class, answer.why.rule, answer.effects), (Class::Write, Rule::TooLong, effects), "{tail}");
    }
}

#[test]
fn questions_asked_at_every_token_stay_cheap() {
    for (part, class) in [
        ("set_config(", Class::Write),
        (", f(", Class::Write),
        (", a(b) AS (", Class::Write),
        ("EXPLAIN (", Class::Unknown),
        ("a.", Class::Write),
        ("$a$", Class::Write),
        ("'x'\n", Class::Read),
        ("/**/", Class::Read),
        ("U&\"x\"", Class::Unknown),
    ] {
        let text = format!("SELECT 1 {}", part.repeat((1 << 20) / part.len() - 10));
        assert_eq!(classify(&text).class, class, "{part}");
    }
}

#[test]
fn deep_and_long_texts_fit_half_the_stack_of_a_worker() {
    let worker = std::thread::Builder::new().stack_size(1 << 20).spawn(classify_deep_and_long_texts);
    worker.unwrap().join().unwrap();
}

fn classify_deep_and_long_texts() {
    let repeat = |head: &str, part: &str, tail: &str, times| format!("{head}{}{tail}", part.repeat(times));
    for text in [
        repeat("SELECT 1", "+1", "", 32 << 10),
        repeat("SELECT 1", "+1", "", 250),
        repeat("SELECT ", "(", "", 100_000),
        repeat("SELECT ", "((((((((((", "1))))))))))", 400),
        repeat("SELECT ", "NOT ", "true", 10_000),
        repeat("SELECT ", "NOT ", "true", 500),
        repeat("SELECT 1", "::int", "", 10_000),
        repeat("SELECT 1", "::int", "", 500),
        repeat("SELECT ", "CASE WHEN true THEN ", "1", 10_000),
        repeat("SELECT ", "CASE WHEN true THEN ", "1", 400),
        repeat("SELECT ", "- ", "1", 10_000),
        repeat("SELECT ", "- ", "1", 500),
        repeat("SELECT 1", " UNION SELECT 1", "", 1000),
        repeat("SELECT 1", " UNION SELECT 1", "", 200),
        repeat("SELECT a", "[1]", "", 500),
        repeat("SELECT a", ".b", "", 4000),
        repeat("SELECT 1", " AND 1", "", 500),
        repeat("SELECT 1", " IS NULL", "", 250),
        repeat("SELECT * FROM a", " JOIN b ON true", "", 250),
        repeat("SELECT * FROM a", " CROSS JOIN b", "", 250),
        repeat("SELECT 1", ", 1", "", 4000),
        repeat("SELECT ", "f(", "", 500),
        repeat("SELECT ", "ARRAY[", "", 500),
        repeat("SELECT 1 ", "+-", "1", 500_000),
        repeat("", "/*", "", 500_000),
        repeat("SELECT 1", "; SELECT 1", "", 3000),
        repeat("WITH a AS (", "WITH a AS (", "", 500),
        repeat("EXPLAIN ", "EXPLAIN ", "SELECT 1", 2000),
        repeat("EXPLAIN ANALYZE ", "EXPLAIN ANALYZE ", "SELECT 1", 5000),
    ] {
        // Every one of these is refused by PostgreSQL or harmless; what counts is that we come back.
        assert!(!classify(&text).effects.intersects(Effects::LASTING), "{text:.40}");
    }
}
