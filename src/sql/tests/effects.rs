//! What texts do to the state of a session.

use super::Effects as E;
use super::*;

const SET_RESET: E = E::SET.union(E::RESET);
const SET_HIDDEN: E = E::SET.union(E::HIDDEN);
const SET_UNNAMED: E = E::SET.union(E::SET_UNNAMED);
const DO: E = E::DDL.union(E::HIDDEN);

const EFFECTS: &[(&str, E)] = &[
    ("SET x = 1", E::SET),
    ("SET SESSION x TO 1", E::SET),
    ("SET TIME ZONE 'UTC'", E::SET),
    ("SET NAMES 'utf8'", E::SET),
    ("SET ROLE x", E::SET),
    ("SET SESSION AUTHORIZATION x", E::SET),
    ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", E::SET),
    ("SET LOCAL x = 1", E::LOCAL),
    ("SET LOCAL ROLE x", E::LOCAL),
    ("SET TRANSACTION READ ONLY", E::NONE),
    ("SELECT set_config('a', 'b', false)", E::SET),
    ("SELECT set_config('a', 'b', true)", E::LOCAL),
    ("SELECT set_config('a', 'b', $1)", E::SET),
    ("SELECT set_config($1, 'b', false)", SET_HIDDEN),
    ("SELECT set_config($1::text, $2, $3)", SET_HIDDEN),
    ("SELECT set_config(a, b, false) FROM t", SET_UNNAMED),
    ("SELECT set_config('a' || 'b', 'c', false)", SET_UNNAMED),
    ("SELECT set_config(E'\\x61', 'c', false)", SET_UNNAMED),
    ("SELECT set_config('a', 'b', 't')", E::SET),
    ("SELECT set_config('a', concat(1, 2), true)", E::LOCAL),
    ("SELECT set_config('a', 'b', not true)", E::SET),
    ("SELECT set_config(is_local => true, setting_name => 'a', new_value => 'b')", SET_UNNAMED),
    ("SELECT pg_catalog.set_config('a', 'b', false)", E::SET),
    ("INSERT INTO t SELECT set_config('a', 'b', false)", E::SET),
    ("PREPARE p AS SELECT set_config('a', 'b', false)", E::PREPARE.union(E::SET)),
    ("SELECT setseed(0.5)", E::SESSION),
    ("SET SEED TO 0.5", E::SESSION),
    ("RESET x", SET_RESET),
    ("RESET ROLE", SET_RESET),
    ("RESET SESSION AUTHORIZATION", SET_RESET),
    ("SET x TO DEFAULT", SET_RESET),
    ("SET TIME ZONE LOCAL", SET_RESET),
    ("SET SESSION AUTHORIZATION DEFAULT", SET_RESET),
    ("SET transaction_read_only = on", E::LOCAL),
    ("SET SESSION transaction_isolation TO serializable", E::LOCAL),
    ("RESET ALL", E::CLEAR_SET.union(E::RESET)),
    ("DISCARD ALL", E::CLEAR_ALL.union(E::RESET)),
    ("DISCARD TEMP", E::CLEAR_TEMP),
    ("DISCARD TEMPORARY", E::CLEAR_TEMP),
    ("DISCARD PLANS", E::NONE),
    ("DISCARD SEQUENCES", E::NONE),
    ("PREPARE p (int) AS SELECT $1", E::PREPARE),
    ("EXECUTE p (1)", E::HIDDEN),
    ("EXPLAIN ANALYZE EXECUTE p", E::HIDDEN),
    ("CREATE TABLE t AS EXECUTE p (1)", DO),
    ("CREATE TRIGGER t AFTER INSERT ON t EXECUTE FUNCTION f()", E::DDL),
    ("DEALLOCATE p", E::CLEAR_PREPARE),
    ("DEALLOCATE ALL", E::CLEAR_PREPARE),
    ("DEALLOCATE PREPARE ALL", E::CLEAR_PREPARE),
    ("LISTEN a", E::LISTEN),
    ("UNLISTEN a", E::CLEAR_LISTEN),
    ("UNLISTEN *", E::CLEAR_LISTEN),
    ("CREATE TEMP TABLE t (a int)", E::TEMP.union(E::DDL)),
    ("CREATE TEMPORARY TABLE t (a int)", E::TEMP.union(E::DDL)),
    ("CREATE GLOBAL TEMPORARY TABLE t (a int)", E::TEMP.union(E::DDL)),
    ("CREATE OR REPLACE TEMP VIEW v AS SELECT 1", E::TEMP.union(E::DDL)),
    ("CREATE TABLE pg_temp.t (a int)", E::TEMP.union(E::DDL)),
    ("CREATE TABLE temp (a int)", E::DDL),
    ("SELECT 1 INTO TEMP t", E::TEMP),
    ("SELECT 1 INTO LOCAL TEMPORARY TABLE t", E::TEMP),
    ("SELECT 1 INTO t", E::NONE),
    ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", E::HOLD_CURSOR),
    ("DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT nextval('s')", E::HOLD_CURSOR.union(E::SEQUENCE)),
    ("DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1", E::NONE),
    ("CLOSE c", E::CLEAR_HOLD_CURSOR),
    ("DROP TABLE t", E::DDL.union(E::CLEAR_TEMP)),
    ("ALTER TABLE t ADD a int", E::DDL.union(E::CLEAR_TEMP)),
    ("CLOSE ALL", E::CLEAR_HOLD_CURSOR),
    ("SELECT pg_advisory_lock(1)", E::ADVISORY_LOCK),
    ("SELECT pg_try_advisory_lock_shared(1, 2)", E::ADVISORY_LOCK),
    ("SELECT pg_advisory_xact_lock(1)", E::NONE),
    ("SELECT pg_advisory_unlock(1)", E::CLEAR_ADVISORY_LOCK),
    ("SELECT pg_advisory_unlock_all()", E::CLEAR_ADVISORY_LOCK),
    ("LOAD 'auto_explain'", E::SESSION),
    ("SELECT dblink_connect('c', 'x')", E::SESSION.union(E::HIDDEN)),
    ("SELECT nextval('s')", E::SEQUENCE),
    ("INSERT INTO t VALUES (setval('s', 1))", E::SEQUENCE),
    ("SELECT currval('s')", E::CURRVAL),
    ("SELECT query_to_xml('SELECT 1', true, true, '')", E::HIDDEN),
    ("CREATE TABLE t (a int)", E::DDL),
    ("COMMENT ON TABLE t IS 'x'", E::DDL),
    ("GRANT SELECT ON t TO u", E::DDL),
    ("CALL p()", DO),
    ("DO $$ BEGIN UPDATE t SET a = 1; END $$", DO),
    ("DO $$ BEGIN RAISE NOTICE 'SET x = 1'; END $$", DO),
    ("DO $$ BEGIN SET search_path = x; END $$", DO.union(E::SET)),
    ("DO 'BEGIN IF x THEN RESET ALL; END IF; END'", DO.union(E::CLEAR_SET).union(E::RESET)),
    ("DO $$ BEGIN PERFORM set_config('a', 'b', false); END $$ LANGUAGE plpgsql", DO.union(E::SET)),
    ("DO $$ BEGIN PERFORM set_config('a', 'b', true); END $$", DO.union(E::LOCAL)),
    ("DO $$ BEGIN EXECUTE 'SET x = 1'; END $$", DO.union(E::SET)),
    ("DO 'BEGIN EXECUTE ''LISTEN x''; END'", DO.union(E::LISTEN)),
    ("DO E'BEGIN\\nSET x = 1;\\nEND'", DO.union(E::SET)),
    ("DO $$ BEGIN CREATE TEMP TABLE x (a int); END $$", DO.union(E::TEMP)),
    ("DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$", DO.union(E::ADVISORY_LOCK)),
    ("DO $$ BEGIN SET LOCAL x = 1; END $$", DO.union(E::LOCAL)),
    ("DO $$ BEGIN PERFORM nextval('s'); END $$", DO.union(E::SEQUENCE)),
    ("BEGIN; SET x = 1; RESET ALL; LISTEN a; COMMIT", E::SET.union(E::CLEAR_SET).union(E::RESET).union(E::LISTEN)),
];

#[test]
fn effects_are_found() {
    for (text, effects) in EFFECTS {
        assert_eq!(classify(text).effects, *effects, "{text}");
    }
}

const SETTINGS: &[(&str, &[&str])] = &[
    ("SELECT 1", &[]),
    ("SET x = 1", &["x"]),
    ("SET SESSION X TO 1", &["x"]),
    ("SET x FROM CURRENT", &["x"]),
    ("SET my.X = 1", &["my.x"]),
    ("SET \"My.X\" = 1", &["my.x"]),
    ("SET \"My\".\"X\" = 1", &["my.x"]),
    ("SET session = 1", &["session"]),
    ("SET time = 1", &["time"]),
    ("SET role.x = 1", &["role.x"]),
    ("SET TIME ZONE 'UTC'", &["timezone"]),
    ("SET TIME ZONE INTERVAL '1' HOUR TO MINUTE", &["timezone"]),
    ("SET NAMES 'utf8'", &["client_encoding"]),
    ("SET SCHEMA 'x'", &["search_path"]),
    (
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        &["default_transaction_isolation", "default_transaction_read_only", "default_transaction_deferrable"],
    ),
    ("SET ROLE x", &["role"]),
    ("SET SESSION ROLE NONE", &["role"]),
    ("SET role = 'x'", &["role"]),
    ("SET SESSION AUTHORIZATION x", &["session_authorization", "role"]),
    ("SET XML OPTION DOCUMENT", &["xmloption"]),
    ("SET SEED TO 0.5", &[]),
    ("SET LOCAL x = 1", &["x"]),
    ("SET x TO DEFAULT", &["x"]),
    ("RESET x", &["x"]),
    ("RESET a.b", &["a.b"]),
    ("RESET ROLE", &["role"]),
    ("RESET SESSION AUTHORIZATION", &["session_authorization", "role"]),
    ("RESET TIME ZONE", &["timezone"]),
    ("RESET ALL", &[]),
    ("SELECT set_config('My.A', 'b', false)", &["my.a"]),
    ("SELECT set_config('a'::text, 'b', $1)", &["a"]),
    ("SELECT set_config(E'a.b', 'c', false), set_config($$d$$, 'e', false)", &["a.b", "d"]),
    ("SELECT set_config('a', 'b', true)", &["a"]),
    ("SELECT set_config($1, 'my.b', false)", &[]),
    ("SELECT set_config(k, v, false) FROM (VALUES ('my.a', 'x.'), ('my.b', '1.2')) t(k, v)", &["my.a", "my.b"]),
    ("SELECT set_limit(0.5)", &["pg_trgm.similarity_threshold"]),
    ("SET a = 1; SET b = 1; RESET a; SELECT set_config('c', '', false)", &["a", "b", "c"]),
    ("DO $$ BEGIN SET a = 1; EXECUTE format('SET %I = 1', 'my.a'); END $$", &["a", "my.a"]),
    ("DO 'BEGIN PERFORM set_config(''my.a'', x, false); END'", &["my.a"]),
];

#[test]
fn settings_are_named() {
    for (text, settings) in SETTINGS {
        let answer = classify(text);
        let names: Vec<&str> = answer.settings.iter().map(|name| &**name).collect();
        assert_eq!(names, *settings, "{text}");
    }
    let many: Vec<String> = (0..10_000).map(|n| format!("SET a{n} = 1")).collect();
    let answer = classify(many.join(";"));
    assert!(answer.settings.len() < 300 && answer.effects.contains(E::SET_UNNAMED), "{}", answer.settings.len());
}

/// Else a replica might be left with it.
#[test]
fn what_may_last_is_a_write() {
    let many: Vec<_> = (0..100).map(|n| format!("SET LOCAL x{n} = 1")).collect();
    let many = many.join(";");
    for text in [b"SET LOCAL \xff = 1".as_slice(), b"SET LOCAL seed = 0", many.as_bytes()] {
        let classified = classify(text);
        assert!(classified.effects.intersects(E::LASTING), "{classified:?}");
        assert_eq!(classified.class, Class::Write);
    }
}

#[test]
fn a_shape_has_one_set_of_settings() {
    let mut classifier = Classifier::new(1 << 20);
    for round in 0..2 {
        for name in ["a", "my.b"] {
            for text in [
                format!("SELECT set_config('{name}', '{round}', false)"),
                format!("SELECT set_config(lower('{name}'), '{round}', false)"),
            ] {
                let answer = classifier.classify(text.as_bytes(), &context(&FACTS));
                let known = answer.settings.iter().any(|known| **known == *name);
                assert!(known || answer.effects.contains(E::SET_UNNAMED), "{text}");
                assert!(answer.settings.iter().all(|known| **known == *name), "{text}: {:?}", answer.settings);
            }
        }
    }
    // Only the names that stand where names stand are remembered by shape.
    assert_eq!((classifier.remembered(), classifier.stats.hits), (2, 2));
}

const BY_NAME: &[(&str, Option<(Verb, &str)>)] = &[
    ("PREPARE p AS SELECT 1", Some((Verb::Prepare, "p"))),
    ("prepare \"P\"\"q\" (int) as select $1;", Some((Verb::Prepare, "P\"q"))),
    (";; EXECUTE Plan (1);", Some((Verb::Execute, "plan"))),
    ("DEALLOCATE p", Some((Verb::Deallocate, "p"))),
    ("DEALLOCATE p\" q\"", Some((Verb::Deallocate, "p"))),
    ("DEALLOCATE PREPARE p", Some((Verb::Deallocate, "p"))),
    ("DEALLOCATE prepare", Some((Verb::Deallocate, "prepare"))),
    ("DEALLOCATE ALL", None),
    ("DEALLOCATE PREPARE ALL", None),
    ("DEALLOCATE \"all\"", Some((Verb::Deallocate, "all"))),
    ("PREPARE TRANSACTION 'x'", None),
    ("EXECUTE U&\"p\"", None),
    ("EXECUTE p; EXECUTE q", None),
    ("EXPLAIN ANALYZE EXECUTE p", None),
    ("SELECT 1", None),
];

#[test]
fn statements_by_their_names_are_found_and_renamed() {
    for (text, found) in BY_NAME {
        let by_name = found.map(|(verb, name)| ByName { verb, name: name.as_bytes().into() });
        assert_eq!(classify(text).by_name, by_name, "{text}");
        let renamed = rename(text.as_bytes(), b"N\"1");
        assert_eq!(renamed.is_some(), found.is_some(), "{text}");
        if let (Some(renamed), Some((verb, _))) = (renamed, found) {
            assert_eq!(classify(renamed).by_name, Some(ByName { verb: *verb, name: (*b"N\"1").into() }), "{text}");
        }
    }
    let long = "p".repeat(70);
    let name = classify(format!("EXECUTE {long}")).by_name.clone().map(|by| by.name);
    assert_eq!(name.as_deref(), Some(&long.as_bytes()[..63]));
}

#[test]
fn all_but_the_name_stays() {
    for (text, renamed) in [
        ("EXECUTE p", "EXECUTE \"n\""),
        (
            "/* a /* b */ */ ; -- c\n prepare\tP(numeric(1, 2)) AS SELECT 'p';",
            "/* a /* b */ */ ; -- c\n prepare\t\"n\"(numeric(1, 2)) AS SELECT 'p';",
        ),
        ("DEALLOCATE/**/PREPARE--\n\"a\"\"b\" ;", "DEALLOCATE/**/PREPARE--\n\"n\" ;"),
    ] {
        assert_eq!(rename(text.as_bytes(), b"n").as_deref(), Some(renamed.as_bytes()), "{text}");
    }
}

#[test]
fn what_is_prepared_is_behind_as() {
    for (text, prepared) in [
        ("PREPARE p AS SELECT 1", Some(" SELECT 1")),
        ("PREPARE p(int, numeric(1, 2), \")\" /* ) */) as/**/SELECT 1 AS x", Some("/**/SELECT 1 AS x")),
        ("PREPARE p AS SELECT 1; SELECT 2", None),
        ("PREPARE p SELECT 1", None),
        ("EXECUTE p", None),
    ] {
        assert_eq!(prepared_text(text.as_bytes()), prepared.map(str::as_bytes), "{text}");
    }
}
