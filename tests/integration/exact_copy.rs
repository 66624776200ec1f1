//! COPY, message by message, as in [`exact`](crate::exact): both ways, and errors of either side at every point.

use crate::exact::{Script, TABLE, compare, once, simple};
use crate::frames::{
    COPY_DONE, FLUSH, SYNC, bind, copy_data, copy_fail, describe, execute, extended, parse, play, query, turn,
};
use crate::harness::{Env, Test, wait_for};
use crate::proxy::Proxy;

pub const TESTS: &[Test] = &[
    ("exact_copy::out_and_in", out_and_in),
    ("exact_copy::in_by_extended_messages", in_by_extended_messages),
    ("exact_copy::errors_in_a_query", errors_in_a_query),
    ("exact_copy::errors_in_extended_messages", errors_in_extended_messages),
    ("exact_copy::a_client_that_leaves_leaves_nothing", a_client_that_leaves_leaves_nothing),
];

const COPY_IN: &str = "COPY t FROM STDIN";
const ROWS: &[u8] = b"1001\ta\n1002\tb\n";

/// Parse to Execute of the unnamed statement.
fn unsynced(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", "", &[], 0), describe(b'P', ""), execute("", 0)].concat()
}

fn out_and_in(env: &Env) {
    let data = ROWS;
    let (begin, rollback) = (query("BEGIN"), query("ROLLBACK"));
    let halves = [copy_data(&data[..3]), copy_data(&data[3..])].concat();
    let empty = [copy_data(b""), copy_data(data)].concat();
    let scripts: Vec<Script> = vec![
        simple("COPY (SELECT n, s FROM t ORDER BY n) TO STDOUT"),
        simple("COPY t TO STDOUT (FORMAT binary)"),
        simple("COPY (SELECT repeat('z', 300000) FROM generate_series(1, 5)) TO STDOUT"),
        simple("COPY (SELECT 10 / (3 - n) FROM t ORDER BY n) TO STDOUT"),
        simple("COPY t TO STDOUT; SELECT 1; COPY t TO STDOUT"),
        once("out, extended", extended("COPY (SELECT n FROM t ORDER BY n LIMIT 3) TO STDOUT")),
        (
            "in",
            vec![
                turn(&[&begin, &query(COPY_IN)], "G"),
                turn(&[&copy_data(data)[..], COPY_DONE], "Z"),
                turn(&[&query("SELECT count(*) FROM t"), &rollback], "ZZ"),
            ],
        ),
        ("in, rows cut", vec![turn(&[&begin, &query(COPY_IN)], "G"), turn(&[&halves[..], COPY_DONE, &rollback], "ZZ")]),
        (
            "in, nothing and all at once",
            vec![turn(&[&begin[..], &query(COPY_IN), &empty, COPY_DONE, &rollback], "ZZZ")],
        ),
        (
            "in, twice in one Query",
            vec![
                turn(&[&begin, &query("COPY t FROM STDIN; SELECT 5; COPY t FROM STDIN")], "G"),
                turn(&[&copy_data(b"1001\ta\n")[..], COPY_DONE], "G"),
                turn(&[&copy_data(b"1002\tb\n")[..], COPY_DONE, &rollback], "ZZ"),
            ],
        ),
    ];
    compare(env, "copy", &[], TABLE, &scripts);
}

fn in_by_extended_messages(env: &Env) {
    let (begin, rollback) = (query("BEGIN"), query("ROLLBACK"));
    let (data, unsynced) = (ROWS, || unsynced(COPY_IN));
    let scripts: Vec<Script> = vec![
        (
            "in, extended",
            vec![
                turn(&[&begin[..], &unsynced(), FLUSH], "G"),
                turn(&[&copy_data(data)[..], COPY_DONE, SYNC, &rollback], "ZZ"),
            ],
        ),
        (
            "in, extended as libpq does",
            vec![
                turn(&[&begin[..], &unsynced(), SYNC], "G"),
                turn(&[&copy_data(data)[..], COPY_DONE, SYNC, &rollback], "ZZ"),
            ],
        ),
        (
            "in, extended in one write",
            vec![turn(&[&begin[..], &unsynced(), &copy_data(data), COPY_DONE, SYNC, &rollback], "ZZZ")],
        ),
        (
            "in, extended with Flush and Sync between the rows",
            vec![turn(
                &[
                    &begin[..],
                    &unsynced(),
                    &copy_data(b"1001\ta\n"),
                    SYNC,
                    FLUSH,
                    &copy_data(b"1002\tb\n"),
                    COPY_DONE,
                    SYNC,
                    &rollback,
                ],
                "ZZZ",
            )],
        ),
        (
            "in, then a statement before Sync",
            vec![
                turn(&[&begin[..], &unsynced(), FLUSH], "G"),
                turn(
                    &[
                        &copy_data(data)[..],
                        COPY_DONE,
                        &parse("", "SELECT 1"),
                        &bind("", "", &[], 0),
                        &execute("", 0),
                        SYNC,
                        &rollback,
                    ],
                    "ZZ",
                ),
            ],
        ),
        (
            "in, outside a transaction, undone by a bad row",
            vec![
                turn(&[query(COPY_IN)], "G"),
                turn(&[&copy_data(b"1001\ta\nbad\tb\n")[..], COPY_DONE], "Z"),
                turn(&[query("SELECT count(*) FROM t")], "Z"),
            ],
        ),
    ];
    compare(env, "copy", &[], TABLE, &scripts);
}

const REFUSING_TABLE: &str = "\
    CREATE TABLE refused (n int); GRANT ALL ON refused TO app; \
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$; \
    CREATE TRIGGER refuse BEFORE INSERT ON refused EXECUTE FUNCTION refuse()";

/// A row that is none, many messages with rows, and one long one.
fn bad_rows() -> [Vec<u8>; 3] {
    let more = (0..200).flat_map(|n| copy_data(format!("{n}\tlate\n").repeat(100).as_bytes())).collect();
    [copy_data(b"x\ty\n"), more, copy_data(&b"1\tlarge\n".repeat(200_000))]
}

fn errors_in_a_query(env: &Env) {
    let [bad, more, large] = bad_rows();
    let after = || query("SELECT 'after'");
    let scripts: Vec<Script> = vec![
        ("CopyFail", vec![turn(&[query(COPY_IN)], "G"), turn(&[copy_data(b"1"), copy_fail("changed my mind")], "Z")]),
        ("CopyFail at once", vec![turn(&[query(COPY_IN), copy_fail("never mind"), after()], "ZZ")]),
        (
            "a table that is not there",
            vec![turn(&[&query("COPY nowhere FROM STDIN")[..], &copy_data(b"1"), COPY_DONE, &after()], "ZZ")],
        ),
        ("an error while rows keep coming", vec![turn(&[&query(COPY_IN)[..], &bad, &more, COPY_DONE, &after()], "ZZ")]),
        (
            "an error before a message that is long",
            vec![turn(&[&query(COPY_IN)[..], &bad, &large, COPY_DONE, &after()], "ZZ")],
        ),
        (
            "an error in a message that is long",
            vec![turn(&[&query(COPY_IN)[..], &large, &large, COPY_DONE, &after()], "ZZ")],
        ),
        (
            "a message cut by an error",
            vec![turn(&[&query(COPY_IN)[..], &bad, &large[..100_000]], "Z"), turn(&[&large[100_000..], &after()], "Z")],
        ),
        (
            "an error by a trigger before the first row",
            vec![
                turn(&[query("COPY refused FROM STDIN")], "Z"),
                turn(&[&copy_data(b"1\n")[..], COPY_DONE, &after()], "Z"),
            ],
        ),
        (
            "a Query in the middle",
            vec![turn(&[query(COPY_IN)], "G"), turn(&[copy_data(b"1001\tx\n"), query("SELECT 'no'")], "Z")],
        ),
    ];
    compare(env, "copy_errors", &[], &[TABLE, REFUSING_TABLE].join(";"), &scripts);
}

fn errors_in_extended_messages(env: &Env) {
    let [bad, more, large] = bad_rows();
    let (unsynced, refused) = (|| unsynced(COPY_IN), || unsynced("COPY refused FROM STDIN"));
    let after = || query("SELECT 'after'");
    let scripts: Vec<Script> = vec![
        (
            "CopyFail, extended",
            vec![turn(&[&unsynced()[..], FLUSH], "G"), turn(&[&copy_fail("no")[..], SYNC, &after()], "ZZ")],
        ),
        (
            "CopyFail, extended as libpq does",
            vec![turn(&[&unsynced()[..], SYNC], "G"), turn(&[&copy_fail("no")[..], SYNC, &after()], "ZZ")],
        ),
        (
            "an error while rows keep coming, extended",
            vec![turn(&[&unsynced()[..], &bad, &more, COPY_DONE, SYNC, &after()], "ZZ")],
        ),
        (
            "an error before a message that is long, extended",
            vec![turn(&[&unsynced()[..], &bad, &large, COPY_DONE, SYNC, &after()], "ZZ")],
        ),
        (
            "an error, then rows and a Query before Sync",
            vec![turn(&[&unsynced()[..], &bad, &query("SELECT 'skipped'"), SYNC, &after()], "ZZ")],
        ),
        (
            "an error by a trigger, extended",
            vec![turn(&[&refused()[..], FLUSH], "E"), turn(&[&copy_data(b"1\n")[..], COPY_DONE, SYNC, &after()], "ZZ")],
        ),
        (
            "an error by a trigger, extended as libpq does",
            vec![turn(&[&refused()[..], SYNC], "Z"), turn(&[&copy_data(b"1\n")[..], COPY_DONE, SYNC, &after()], "ZZ")],
        ),
    ];
    compare(env, "copy_errors_extended", &[], &[TABLE, REFUSING_TABLE].join(";"), &scripts);
}

/// The only server of the pool goes to the next client without what the last one began.
fn a_client_that_leaves_leaves_nothing(env: &Env) {
    let database = env.database("leaving");
    database.prepare(TABLE);
    let settings = "[pool]\ndefault_pool_size = 1\n[routing]\nsplit = false\n";
    let proxy = Proxy::start(&env.shared().cluster, settings);
    let target = proxy.target(&database.name);
    let insert = query("BEGIN; INSERT INTO t VALUES (1001, 'open')");
    let copy = [query("COPY t FROM STDIN"), copy_data(b"1002\tcopied\n")].concat();
    let cut = &copy_data(&b"1003\tcut\n".repeat(10_000))[..5000];
    let extended = [&parse("", "COPY t FROM STDIN")[..], &bind("", "", &[], 0), &execute("", 0), FLUSH].concat();
    let cases: Vec<Script> = vec![
        ("a transaction", vec![turn(&[&insert], "Z")]),
        ("a failed transaction", vec![turn(&[query("BEGIN; INSERT INTO t VALUES (1001, 'open'); SELECT 1/0")], "Z")]),
        ("a COPY", vec![turn(&[&copy], "G")]),
        ("a COPY in a message", vec![turn(&[&copy[..], cut], "G")]),
        ("a COPY in a transaction", vec![turn(&[&insert[..], &copy, cut], "G")]),
        ("an extended COPY", vec![turn(&[&extended[..]], "G"), turn(&[cut], "")]),
        (
            "messages without Sync",
            vec![turn(
                &[&parse("", "INSERT INTO t VALUES (1001, 'open')")[..], &bind("", "", &[], 0), &execute("", 0), FLUSH],
                "C",
            )],
        ),
        ("a Query in a message", vec![turn(&[&query("INSERT INTO t VALUES (1001, 'open')")[..20]], "")]),
        (
            "a statement at work",
            vec![turn(&[query("BEGIN; INSERT INTO t VALUES (1001, 'open'); SELECT pg_sleep(0.3)")], "")],
        ),
    ];
    for (name, script) in cases {
        let mut client = target.raw();
        play(&mut client, &script);
        drop(client);
        assert_eq!(target.psql("SELECT count(*) FROM t WHERE n > 1000"), "0", "{name}");
    }
    let busy = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND usename = 'app' AND state <> 'idle'",
        database.name
    );
    wait_for(std::time::Duration::from_secs(5), "no server is left at work", || {
        env.shared().cluster.primary().sql("postgres", &busy).unwrap() == "0"
    });
}
