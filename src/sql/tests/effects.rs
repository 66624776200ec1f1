<<<<<<< HEAD
//! What texts leave behind in a session.
=======
//! What texts do to the state of a session.
>>>>>>> config

use super::Effects as E;
use super::*;

const EFFECTS: &[(&str, E)] = &[
    ("SET x = 1", E::SET),
    ("SET SESSION x TO 1", E::SET),
    ("SET TIME ZONE 'UTC'", E::SET),
    ("SET NAMES 'utf8'", E::SET),
    ("SET ROLE x", E::SET.union(E::SESSION)),
    ("SET SESSION AUTHORIZATION x", E::SET.union(E::SESSION)),
    ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", E::SET),
    ("SET LOCAL x = 1", E::NONE),
    ("SET LOCAL ROLE x", E::NONE),
    ("SET TRANSACTION READ ONLY", E::NONE),
    ("SELECT set_config('a', 'b', false)", E::SET),
    ("SELECT set_config('a', 'b', true)", E::NONE),
    ("SELECT set_config('a', 'b', $1)", E::SET),
    ("SELECT set_config('a', 'b', 't')", E::SET),
    ("SELECT set_config('a', f(1, 2), true)", E::NONE),
    ("SELECT set_config('a', 'b', not true)", E::SET),
    ("SELECT set_config(is_local => true, setting_name => 'a', new_value => 'b')", E::SET),
    ("SELECT pg_catalog.set_config('a', 'b', false)", E::SET),
    ("INSERT INTO t SELECT set_config('a', 'b', false)", E::SET),
    ("PREPARE p AS SELECT set_config('a', 'b', false)", E::PREPARE.union(E::SET)),
    ("SELECT setseed(0.5)", E::SET.union(E::SESSION)),
    ("RESET x", E::SET),
    ("RESET ROLE", E::SET.union(E::SESSION)),
    ("RESET ALL", E::CLEAR_SET),
    ("DISCARD ALL", E::CLEAR_ALL),
    ("DISCARD TEMP", E::CLEAR_TEMP),
    ("DISCARD TEMPORARY", E::CLEAR_TEMP),
    ("DISCARD PLANS", E::NONE),
    ("PREPARE p (int) AS SELECT $1", E::PREPARE),
    ("DEALLOCATE p", E::NONE),
    ("DEALLOCATE ALL", E::CLEAR_PREPARE),
    ("DEALLOCATE PREPARE ALL", E::CLEAR_PREPARE),
    ("LISTEN a", E::LISTEN),
    ("UNLISTEN a", E::NONE),
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
    ("DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT nextval('s')", E::HOLD_CURSOR),
    ("DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1", E::NONE),
    ("CLOSE c", E::NONE),
    ("CLOSE ALL", E::CLEAR_HOLD_CURSOR),
    ("SELECT pg_advisory_lock(1)", E::ADVISORY_LOCK),
    ("SELECT pg_try_advisory_lock_shared(1, 2)", E::ADVISORY_LOCK),
    ("SELECT pg_advisory_xact_lock(1)", E::NONE),
    ("SELECT pg_advisory_unlock(1)", E::NONE),
    ("SELECT pg_advisory_unlock_all()", E::CLEAR_ADVISORY_LOCK),
    ("LOAD 'auto_explain'", E::SESSION),
    ("SELECT dblink_connect('c', 'x')", E::NONE),
    ("SELECT nextval('s')", E::NONE),
    ("SELECT currval('s')", E::NONE),
    ("CREATE TABLE t (a int)", E::DDL),
    ("COMMENT ON TABLE t IS 'x'", E::DDL),
    ("GRANT SELECT ON t TO u", E::DDL),
    ("CALL p()", E::DDL),
    ("DO $$ BEGIN UPDATE t SET a = 1; END $$", E::DDL),
    ("DO $$ BEGIN SET search_path = x; END $$", E::DDL.union(E::SET).union(E::SESSION)),
    ("DO 'BEGIN IF x THEN RESET ALL; END IF; END'", E::DDL.union(E::SET).union(E::SESSION)),
    ("DO $$ BEGIN PERFORM set_config('a', 'b', false); END $$ LANGUAGE plpgsql", E::DDL.union(E::SET)),
    ("DO $$ BEGIN EXECUTE 'SET x = 1'; END $$", E::DDL.union(E::SET).union(E::SESSION)),
    ("DO 'BEGIN EXECUTE ''LISTEN x''; END'", E::DDL.union(E::LISTEN)),
    ("DO $$ BEGIN CREATE TEMP TABLE x (a int); END $$", E::DDL.union(E::TEMP)),
    ("DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$", E::DDL.union(E::ADVISORY_LOCK)),
    ("DO $$ BEGIN SET LOCAL x = 1; END $$", E::DDL),
    ("BEGIN; SET x = 1; RESET ALL; LISTEN a; COMMIT", E::SET.union(E::CLEAR_SET).union(E::LISTEN)),
];

#[test]
fn effects_are_found() {
    for (text, effects) in EFFECTS {
        assert_eq!(classify(text).effects, *effects, "{text}");
    }
}
