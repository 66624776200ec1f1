//! What code in the database changes in the session, as its callers see it.

use super::Effects as E;
use super::*;

const SET: E = E::SET.union(E::HIDDEN);

/// Name, language, source.
const CODE: &[(&str, &str, &str)] = &[
    ("f_plain", "plpgsql", "BEGIN UPDATE t SET a = 1; RAISE NOTICE 'SET my.no = 1'; RETURN 1; END"),
    ("f_set", "plpgsql", "BEGIN SET My.X = 1; PERFORM set_config('my.y', 'z', false); RETURN 1; END"),
    ("f_local", "plpgsql", "BEGIN PERFORM set_config('my.l', 'z', true); SET LOCAL a = 1; RETURN 1; END"),
    ("f_outer", "sql", "SELECT public.\"f_set\"()"),
    ("f_outermost", "sql", "SELECT F_Outer()"),
    ("f_dynamic", "plpgsql", "DECLARE q text := 'SET my.d = 1'; BEGIN RETURN QUERY EXECUTE q; END"),
    ("f_temp", "plpgsql", "BEGIN CREATE TEMP TABLE x (temp int); END"),
    ("f_lock", "plpgsql", "BEGIN PERFORM pg_advisory_lock(1); END"),
    ("f_unnamed", "sql", "SELECT set_config(k, 'my.u', false) FROM t"),
    ("f_next", "plpgsql", "BEGIN RETURN nextval('s'); END"),
    ("f_last", "sql", "SELECT lastval()"),
    ("f_inserts", "sql", "INSERT INTO t_serial (a) VALUES (1)"),
    ("f_reads", "sql", "SELECT count(*) FROM t_serial"),
    ("f_ddl", "plpgsql", "BEGIN CREATE TABLE x (a int); END"),
    ("f_python", "plpython3u", "plpy.execute(\"SET my.p = 1; SELECT set_config('my.q', x.y, false)\") # don't"),
    ("f_python_plain", "plpython3u", "return set(x) # don't"),
    ("f_trigger", "plpgsql", "BEGIN PERFORM f_outer(); RETURN NEW; END"),
    ("f_recursive", "plpgsql", "BEGIN LISTEN a; PERFORM f_recursive_2(); END"),
    ("f_recursive_2", "plpgsql", "BEGIN PERFORM f_recursive(); END"),
    ("f_broken", "plpgsql", "BEGIN 'x"),
    ("größe", "sql", "SELECT f_lock()"),
];

/// What is used, what uses it, how.
const USES: &[(&str, &str, &str)] = &[
    ("b nextval", "r t_serial", "insert"),
    ("b set_config", "r v_config", "same"),
    ("f f_outer", "f f_atomic", "always"),
    ("f f_trigger", "r t_trigger", "write"),
    ("f f_trigger", "r t_part", "write"),
    ("r t_part", "r t_parent", "same"),
    ("f f_trigger", "r t_child", "write"),
    ("r t_child", "r t_cascaded", "cascade"),
    ("f f_lock", "r t_default", "insert"),
    ("f f_lock", "r v_lock", "same"),
    ("r v_lock", "r v_view", "same"),
    ("r t_serial", "r v_serial", "same"),
    ("f f_temp", "t d_temp", "always"),
    ("f f_lock", "o +!", "always"),
];

fn facts(event_trigger: bool) -> CatalogFacts {
    let mut builder = CatalogFacts::builder();
    let mut names: Vec<&str> = CODE.iter().map(|(name, ..)| *name).collect();
    let mut known = |object: &'static str| {
        let (kind, name) = object.split_once(' ').unwrap();
        let at = names.iter().position(|known| *known == name).unwrap_or_else(|| {
            names.push(name);
            names.len() - 1
        });
        CatalogObject { kind, oid: u32::try_from(at).unwrap(), name }
    };
    for (used, user, how) in USES {
        builder.uses(UseRow { used: known(used), user: known(user), how });
    }
    if event_trigger {
        builder.uses(UseRow { used: known("f f_trigger"), user: known("e "), how: "always" });
    }
    for (at, (name, language, source)) in CODE.iter().enumerate() {
        builder.code(CodeRow { oid: u32::try_from(at).unwrap(), name, language, source: Some(source) });
        builder.function(FunctionRow { schema: "public", name, volatility: Volatility::Volatile, field_style: false });
    }
    builder.code(CodeRow { oid: 999, name: "f_long", language: "sql", source: None });
    builder.function(FunctionRow {
        schema: "public",
        name: "f_atomic",
        volatility: Volatility::Stable,
        field_style: false,
    });
    builder.build()
}

const HIDDEN: &[(&str, E, &[&str])] = &[
    ("SELECT f_plain()", E::NONE, &[]),
    ("SELECT f_set()", SET, &["my.x", "my.y"]),
    ("SELECT public.F_SET()", SET, &["my.x", "my.y"]),
    ("SELECT * FROM \"f_set\"()", SET, &["my.x", "my.y"]),
    ("SELECT t.f_set FROM t", SET, &["my.x", "my.y"]),
    ("SELECT f_set FROM t", E::NONE, &[]),
    ("SELECT f_local()", E::LOCAL, &["my.l", "a"]),
    ("SELECT f_outermost()", SET, &["my.x", "my.y"]),
    ("SELECT f_atomic()", SET, &["my.x", "my.y"]),
    ("CALL f_outer()", SET.union(E::DDL), &["my.x", "my.y"]),
    ("INSERT INTO t SELECT f_outer()", SET, &["my.x", "my.y"]),
    ("EXPLAIN ANALYZE SELECT f_outer()", SET, &["my.x", "my.y"]),
    ("COPY (SELECT f_outer()) TO STDOUT", SET, &["my.x", "my.y"]),
    ("SELECT f_dynamic()", SET, &["my.d"]),
    ("SELECT f_temp()", E::TEMP.union(E::HIDDEN), &[]),
    ("SELECT f_lock()", E::ADVISORY_LOCK.union(E::HIDDEN), &[]),
    ("SELECT f_unnamed()", SET.union(E::SET_UNNAMED), &["my.u"]),
    ("SELECT f_next()", E::SEQUENCE, &[]),
    ("SELECT f_last()", E::CURRVAL, &[]),
    ("SELECT f_inserts()", E::SEQUENCE, &[]),
    ("SELECT f_reads()", E::NONE, &[]),
    ("SELECT f_python()", E::HIDDEN, &["my.p", "my.q"]),
    ("SELECT f_python_plain()", E::NONE, &[]),
    ("SELECT f_recursive_2()", E::LISTEN.union(E::HIDDEN), &[]),
    ("SELECT größe()", E::ADVISORY_LOCK.union(E::HIDDEN), &[]),
    ("SELECT 1 AS GRÖSSE", E::ADVISORY_LOCK.union(E::HIDDEN), &[]),
    ("SELECT no_such_fn()", E::HIDDEN, &[]),
    ("INSERT INTO no_such_table (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET (a) = ROW(1)", E::NONE, &[]),
    ("SELECT * FROM t_serial", E::NONE, &[]),
    ("SELECT * FROM t_serial FOR NO KEY UPDATE", E::NONE, &[]),
    ("INSERT INTO t_serial (a) VALUES (1)", E::SEQUENCE, &[]),
    ("WITH x AS (INSERT INTO public.t_serial DEFAULT VALUES RETURNING id) TABLE x", E::SEQUENCE, &[]),
    ("COPY t_serial (a) FROM STDIN", E::SEQUENCE, &[]),
    ("COPY t_serial TO STDOUT", E::NONE, &[]),
    ("UPDATE t_serial SET a = 1", E::NONE, &[]),
    ("UPDATE t_serial SET id = DEFAULT", E::SEQUENCE, &[]),
    ("MERGE INTO t_serial USING t ON true WHEN NOT MATCHED THEN INSERT (a) VALUES (1)", E::SEQUENCE, &[]),
    ("INSERT INTO v_serial (a) VALUES (1)", E::SEQUENCE, &[]),
    ("SELECT * FROM v_config", SET.union(E::SET_UNNAMED), &[]),
    ("SELECT * FROM t_trigger", E::NONE, &[]),
    ("UPDATE t_trigger SET a = 1", SET, &["my.x", "my.y"]),
    ("TRUNCATE t_trigger", SET, &["my.x", "my.y"]),
    ("EXPLAIN UPDATE t_trigger SET a = 1", E::NONE, &[]),
    ("INSERT INTO t_parent VALUES (1)", SET, &["my.x", "my.y"]),
    ("DELETE FROM t_cascaded", SET, &["my.x", "my.y"]),
    ("UPDATE t_default SET b = 1", E::NONE, &[]),
    ("INSERT INTO t_default (b) VALUES (1)", E::ADVISORY_LOCK.union(E::HIDDEN), &[]),
    ("SELECT * FROM v_view", E::ADVISORY_LOCK.union(E::HIDDEN), &[]),
    ("SELECT '1'::d_temp", E::TEMP.union(E::HIDDEN), &[]),
    ("SELECT 1 +! 2", E::ADVISORY_LOCK.union(E::HIDDEN), &[]),
    ("CREATE TABLE x (a int)", E::DDL, &[]),
];

#[test]
fn code_behind_names_is_known() {
    let facts = facts(false);
    for (text, effects, settings) in HIDDEN {
        let answer = classify_with(&facts, text);
        let names: Vec<&str> = answer.settings.iter().map(|name| &**name).collect();
        assert_eq!((answer.effects, &names[..]), (*effects, *settings), "{text}");
    }
    for text in ["SELECT f_broken()", "SELECT f_long()", "SELECT U&\"f_s\\0065t\"()"] {
        let effects = E::HIDDEN.union(E::SET_UNNAMED);
        assert!(classify_with(&facts, text).effects.contains(effects), "{text}");
    }
}

#[test]
fn what_names_hide_is_remembered_by_shape() {
    let facts = facts(false);
    let mut classifier = Classifier::new(1 << 20);
    for n in 0..3 {
        classifier.classify(format!("SELECT f_unnamed(), {n}").as_bytes(), &context(&facts));
    }
    assert_eq!((classifier.remembered(), classifier.stats.hits), (1, 2));
}

#[test]
fn event_triggers_run_with_every_ddl() {
    let facts = facts(true);
    for (text, effects) in [
        ("CREATE TABLE x (a int)", SET.union(E::DDL)),
        ("SELECT 1 INTO x", SET),
        ("SELECT f_ddl()", SET),
        ("SELECT f_plain()", E::NONE),
        ("INSERT INTO t VALUES (1)", E::NONE),
    ] {
        assert_eq!(classify_with(&facts, text).effects, effects, "{text}");
    }
}

#[test]
fn what_code_does_to_the_session_is_for_the_primary() {
    let facts = facts(false);
    for (text, class) in [
        ("SELECT f_atomic()", Class::Write),
        ("SELECT * FROM v_view", Class::Write),
        ("SELECT f_dynamic(), f_last()", Class::Write),
        ("SELECT * FROM t_trigger, t_serial", Class::Read),
        ("SELECT f_set FROM t", Class::Read),
    ] {
        assert_eq!(classify_with(&facts, text).class, class, "{text}");
    }
}

#[test]
fn before_the_facts_are_loaded_users_functions_are_out_of_sight() {
    let facts = CatalogFacts::unloaded();
    for (text, hidden) in
        [("SELECT f()", true), ("SELECT random()", false), ("INSERT INTO t VALUES (1)", true), ("TABLE t", false)]
    {
        assert_eq!(classify_with(&facts, text).effects.contains(E::HIDDEN), hidden, "{text}");
    }
}

#[test]
fn a_tangle_of_functions_is_suspect_but_soon_known() {
    let mut builder = CatalogFacts::builder();
    let names: Vec<String> = (0..400).map(|n| format!("f_{n}")).collect();
    let all = names.join("() + ");
    for (name, oid) in names.iter().zip(1..) {
        let source = format!("BEGIN SET my.{name} = 1; RETURN {all}(); END");
        builder.code(CodeRow { oid, name, language: "plpgsql", source: Some(&source) });
    }
    let answer = classify_with(&builder.build(), "SELECT f_7()");
    assert!(answer.effects.contains(SET.union(E::SET_UNNAMED)), "{answer:?}");
}
