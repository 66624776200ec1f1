//! A client must not be able to tell the proxy from the node: the same bytes sent, the same messages read.

use std::panic::catch_unwind;

use crate::frames::{
    COPY_DONE, FLUSH, SYNC, Step, TERMINATE, bind, close, copy_data, copy_fail, describe, execute, extended, message,
    parse, play, query, send, show,
};
use crate::harness::{Env, PASSWORD, Test, USER};
use crate::proxy::Proxy;
use crate::raw::RawClient;
use crate::target::Target;

pub const TESTS: &[Test] = &[
    ("exact::simple_queries", simple_queries),
    ("exact::extended_queries", extended_queries),
    ("exact::pipelines", pipelines),
    ("exact::copy", copy),
    ("exact::copy_errors", copy_errors),
    ("exact::text_in_other_encodings", text_in_other_encodings),
    ("exact::what_servers_say_by_themselves", what_servers_say_by_themselves),
];

use Step::{Read, ReadToEnd};

type Script = (&'static str, Vec<Step>);

/// One Query, or anything else that ends in one ReadyForQuery.
fn once(name: &'static str, bytes: Vec<u8>) -> Script {
    (name, vec![Step::Send(bytes), Read('Z', 1)])
}

fn simple(sql: &'static str) -> Script {
    once(sql, query(sql))
}

/// Plays each script to the primary and to a proxy, each on a connection of its own, which must then still be in
/// order, unless the script ends it.
fn compare(env: &Env, test: &str, parameters: &[(&str, &str)], setup: &str, scripts: &[Script]) {
    let database = env.database(test);
    database.prepare(setup);
    let proxy = Proxy::start(&env.shared().cluster, "[pool]\ndefault_pool_size = 2\n");
    let (direct, through) = (database.node(0), proxy.target(&database.name));
    let mut wrong = Vec::new();
    for (name, script) in scripts {
        let [want, got] = [&direct, &through].map(|target| {
            let perform = || {
                let mut client = connect(target, parameters);
                let mut transcript = play(&mut client, script);
                if !matches!(script.last(), Some(ReadToEnd)) {
                    client.query("ROLLBACK; SELECT 'in order'");
                    transcript.extend(client.read_to('Z'));
                }
                transcript
            };
            // It panics when an answer does not come: then the other scripts are still of interest.
            catch_unwind(perform).unwrap_or_else(|_| vec![('?', b"no answer".to_vec())])
        });
        if want != got {
            wrong.push(format!("{name}: a node says\n{}  the proxy says\n{}", show(&want), show(&got)));
        }
    }
    assert!(wrong.is_empty(), "{} of {} scripts:\n{}", wrong.len(), scripts.len(), wrong.join("\n"));
}

fn connect(target: &Target, parameters: &[(&str, &str)]) -> RawClient {
    let mut client = RawClient::connect(&target.host, target.port);
    client.startup(&[&[("user", USER), ("database", &target.database)], parameters].concat());
    client.prove(PASSWORD);
    client
}

const TABLE: &str = "CREATE TABLE t (n int PRIMARY KEY, s text); GRANT ALL ON t TO app; \
                     INSERT INTO t SELECT n, 'row ' || n FROM generate_series(1, 50) n";

fn simple_queries(env: &Env) {
    let mut scripts: Vec<Script> = [
        "SELECT 1",
        "",
        " ; -- nothing",
        "SELECT 1; SELECT 'two' AS b, NULL; SELECT",
        "SELECT n, s FROM t ORDER BY n",
        "SELECT 1; SELECT 1/0; SELECT 2",
        "SELECT * FROM no_such_table",
        "SELECT nonsense FROM",
        "INSERT INTO t VALUES (1, 'duplicate')",
        "DO $$ BEGIN RAISE NOTICE 'heard' USING DETAIL = 'd', HINT = 'h'; RAISE WARNING 'too'; END $$",
        "DO $$ BEGIN RAISE EXCEPTION 'mine' USING ERRCODE = 'XY123', DETAIL = 'd', HINT = 'h', COLUMN = 'c', \
         CONSTRAINT = 'k', DATATYPE = 'd', TABLE = 't', SCHEMA = 's'; END $$",
        "DO $$ BEGIN RAISE EXCEPTION '%', repeat('long ', 50000); END $$",
        "BEGIN; INSERT INTO t VALUES (100, 'x'); SELECT count(*) FROM t; ROLLBACK",
        "BEGIN; SELECT 1/0",
        "COMMIT",
        "SET search_path = nowhere; SHOW search_path",
        "SET application_name = 'told'",
        "SET client_encoding = 'LATIN1'; SET datestyle = 'German'",
        "SELECT repeat('x', 3000000)",
        "SELECT g, repeat('y', 100) FROM generate_series(1, 20000) g",
        "EXPLAIN (COSTS OFF) SELECT * FROM t",
        "VACUUM t",
        "CREATE TEMP TABLE gone (n int); DROP TABLE gone; DROP TABLE IF EXISTS gone",
    ]
    .map(simple)
    .into();
    scripts.push((
        "a transaction in steps, with an error in it",
        ["BEGIN", "SELECT 1", "SELECT 1/0", "SELECT 1", "COMMIT"]
            .into_iter()
            .flat_map(|sql| [Step::Send(query(sql)), Read('Z', 1)])
            .collect(),
    ));
    scripts.push(("three at once", vec![send(&["SELECT 1", "SELECT 1/0", "SELECT 3"].map(query)), Read('Z', 3)]));
    scripts.push(("good-bye", vec![Step::Send(TERMINATE.to_vec()), ReadToEnd]));
    scripts.push((
        "good-bye in a transaction",
        vec![Step::Send(query("BEGIN")), Read('Z', 1), Step::Send(TERMINATE.to_vec()), ReadToEnd],
    ));
    compare(env, "simple", &[], TABLE, &scripts);
}

fn extended_queries(env: &Env) {
    let select = parse("", "SELECT n, s FROM t ORDER BY n LIMIT 5");
    let call = |oid: u32, argument: &[u8]| {
        let length = u32::try_from(argument.len()).unwrap().to_be_bytes();
        message(b'F', &[&oid.to_be_bytes()[..], &[0, 0, 0, 1], &length, argument, &[0, 0]].concat())
    };
    let fetch = |rows| [execute("", rows), SYNC.to_vec()].concat();
    let mut scripts: Vec<Script> = ["SELECT n FROM t ORDER BY n", "", "SELECT 1/0", "SELECT * FROM nowhere", "BEGIN"]
        .map(|sql| once(sql, extended(sql)))
        .into();
    scripts.extend([
        once(
            "binary",
            [parse("", "SELECT $1::int8, $2::text"), bind("", "", &[b"42", b"x"], 1), execute("", 0), SYNC.to_vec()]
                .concat(),
        ),
        once(
            "named",
            [
                parse("a", "SELECT $1::int"),
                describe(b'S', "a"),
                bind("p", "a", &[b"7"], 0),
                describe(b'P', "p"),
                execute("p", 0),
                close(b'P', "p"),
                close(b'S', "a"),
                SYNC.to_vec(),
            ]
            .concat(),
        ),
        once("unknown statement", [bind("", "nobody", &[], 0), SYNC.to_vec()].concat()),
        once("unknown portal", [execute("nobody", 0), SYNC.to_vec()].concat()),
        once("closing what is not there", [close(b'S', "nobody"), close(b'P', "nobody"), SYNC.to_vec()].concat()),
        once("a duplicate name", [parse("a", "SELECT 1"), parse("a", "SELECT 2"), SYNC.to_vec()].concat()),
        once(
            "bad parameter",
            [parse("", "SELECT $1::int"), bind("", "", &[b"x"], 0), execute("", 0), SYNC.to_vec()].concat(),
        ),
        once("suspended, and gone with its transaction", [&select[..], &bind("", "", &[], 0), &fetch(2)].concat()),
        (
            "a portal across Syncs in a transaction",
            vec![
                Step::Send(query("BEGIN")),
                Read('Z', 1),
                send(&[&select[..], &bind("p", "", &[], 0), &execute("p", 2), SYNC]),
                Read('Z', 1),
                send(&[&execute("p", 2)[..], SYNC]),
                Read('Z', 1),
                send(&[&execute("p", 2)[..], SYNC]),
                Read('Z', 1),
                send(&[&execute("p", 2)[..], SYNC]),
                Read('Z', 1),
            ],
        ),
        (
            "a portal outside a transaction, with Flush",
            vec![
                send(&[&select[..], &bind("p", "", &[], 0), &execute("p", 2), FLUSH]),
                Read('s', 1),
                send(&[&execute("p", 2)[..], FLUSH]),
                Read('s', 1),
                send(&[&execute("p", 0)[..], SYNC]),
                Read('Z', 1),
                send(&[&execute("p", 0)[..], SYNC]),
                Read('Z', 1),
            ],
        ),
        (
            "a statement used again and again",
            vec![
                send(&[&parse("s", "SELECT $1::text")[..], SYNC]),
                Read('Z', 1),
                send(&[&bind("", "s", &[b"1"], 0)[..], &execute("", 0), SYNC]),
                Read('Z', 1),
                Step::Send(query("SELECT 'between'")),
                Read('Z', 1),
                send(&[&bind("", "s", &[b"2"], 0)[..], &execute("", 0), SYNC]),
                Read('Z', 1),
                send(&[&parse("s", "SELECT 2")[..], SYNC]),
                Read('Z', 1),
                send(&[&close(b'S', "s")[..], &parse("s", "SELECT 3"), &bind("", "s", &[], 0), &execute("", 0), SYNC]),
                Read('Z', 1),
            ],
        ),
        (
            "the unnamed statement used again",
            vec![
                send(&[&parse("", "SELECT $1::text")[..], SYNC]),
                Read('Z', 1),
                send(&[&bind("", "", &[b"1"], 0)[..], &execute("", 0), SYNC]),
                Read('Z', 1),
                send(&[&bind("", "", &[b"2"], 0)[..], &execute("", 0), SYNC]),
                Read('Z', 1),
                Step::Send(query("SELECT 'between'")),
                Read('Z', 1),
                send(&[&bind("", "", &[b"3"], 0)[..], SYNC]),
                Read('Z', 1),
            ],
        ),
        // int4abs is 1397, int4div 154; 1 is nobody.
        once("a function call", call(1397, b"-5")),
        once("a function call that fails", call(154, b"1")),
        once("a function call of nobody", call(1, b"1")),
    ]);
    compare(env, "extended", &[], TABLE, &scripts);
}

fn pipelines(env: &Env) {
    let ok = |text: &str| [parse("", format!("SELECT '{text}'")), bind("", "", &[], 0), execute("", 0)].concat();
    let bad = || [parse("", "SELECT 1/0"), bind("", "", &[], 0), execute("", 0)].concat();
    let insert =
        |n: u32| [parse("", format!("INSERT INTO t VALUES ({n}, 'p')")), bind("", "", &[], 0), execute("", 0)].concat();
    let count = || query("SELECT count(*) FROM t");
    let sync = || SYNC.to_vec();
    let flush = || FLUSH.to_vec();
    let rows = |text: &'static str| Read('C', text.len());
    let scripts: Vec<Script> = vec![
        (
            "fifty Syncs in one write",
            vec![Step::Send((0..50).flat_map(|n| [ok(&n.to_string()), sync()].concat()).collect()), Read('Z', 50)],
        ),
        ("an error in the middle", vec![send(&[ok("1"), bad(), ok("2"), sync(), ok("3"), sync()]), Read('Z', 2)]),
        ("an implicit transaction undone", vec![send(&[insert(201), bad(), sync(), count()]), Read('Z', 2)]),
        ("two Syncs", vec![send(&[ok("1"), sync(), sync(), sync()]), Read('Z', 3)]),
        ("Syncs alone", vec![send(&[sync(), sync()]), Read('Z', 2)]),
        (
            "Flush after each",
            vec![
                send(&[ok("1"), flush()]),
                rows("1"),
                send(&[ok("2"), flush()]),
                rows("2"),
                send(&[sync()]),
                Read('Z', 1),
            ],
        ),
        ("Flush alone", vec![send(&[flush(), flush(), sync()]), Read('Z', 1)]),
        (
            "an error, Flush, more, Sync",
            vec![send(&[bad(), flush()]), Read('E', 1), send(&[ok("1"), flush(), ok("2"), sync()]), Read('Z', 1)],
        ),
        (
            "a Query after unsynced messages",
            vec![send(&[ok("1"), query("SELECT 2")]), Read('Z', 1), send(&[sync()]), Read('Z', 1)],
        ),
        ("a Query after an unsynced error", vec![send(&[bad(), query("SELECT 2"), sync()]), Read('Z', 1)]),
        (
            "a Query after an unsynced error, and the Sync later",
            vec![send(&[bad(), query("SELECT 2")]), Read('E', 1), send(&[query("SELECT 3"), sync()]), Read('Z', 1)],
        ),
        (
            "a prepare that fails, with Flush",
            vec![
                send(&[parse("broken", "SELECT nothing"), describe(b'S', "broken"), flush()]),
                Read('E', 1),
                send(&[ok("1"), flush(), sync()]),
                Read('Z', 1),
                send(&[ok("2"), sync()]),
                Read('Z', 1),
            ],
        ),
        (
            "a prepare that fails in a transaction, with Flush",
            vec![
                send(&[query("BEGIN"), parse("", "SELECT nothing"), describe(b'S', ""), flush()]),
                Read('E', 1),
                send(&[ok("1"), sync(), query("SELECT 1"), query("ROLLBACK")]),
                Read('Z', 3),
            ],
        ),
        (
            "prepares and executions in turn, with Flush",
            vec![
                send(&[parse("one", "SELECT 1"), describe(b'S', "one"), flush()]),
                Read('T', 1),
                send(&[bind("", "one", &[], 0), execute("", 0), flush()]),
                Read('C', 1),
                send(&[parse("two", "SELECT 2"), describe(b'S', "two"), flush()]),
                Read('T', 1),
                send(&[bind("", "two", &[], 0), execute("", 0), sync()]),
                Read('Z', 1),
            ],
        ),
        (
            "a Query after a flushed error",
            vec![send(&[bad(), flush()]), Read('E', 1), send(&[query("SELECT 2")]), send(&[sync()]), Read('Z', 1)],
        ),
        (
            "a function call after an unsynced error",
            vec![send(&[bad(), message(b'F', &[0; 10]), sync()]), Read('Z', 1)],
        ),
        (
            "a write unsynced, then a Query",
            vec![send(&[insert(202), query("ROLLBACK")]), Read('Z', 1), send(&[sync(), count()]), Read('Z', 2)],
        ),
        (
            "BEGIN and COMMIT in a pipeline",
            vec![send(&[extended("BEGIN"), extended("SELECT 1"), extended("COMMIT")]), Read('Z', 3)],
        ),
        (
            "Parse and Describe first, Bind later",
            vec![
                send(&[parse("x", "SELECT $1::int"), describe(b'S', "x"), flush()]),
                Read('T', 1),
                send(&[bind("", "x", &[b"1"], 0), execute("", 0), sync()]),
                Read('Z', 1),
            ],
        ),
        (
            "copy messages where none belong",
            vec![send(&[copy_data(b"x"), COPY_DONE.to_vec(), copy_fail("x"), query("SELECT 1")]), Read('Z', 1)],
        ),
        ("good-bye without Sync", vec![send(&[insert(203), TERMINATE.to_vec()]), ReadToEnd]),
        ("what was not synced is not there", vec![send(&[count()]), Read('Z', 1)]),
        ("good-bye after Flush", vec![send(&[ok("1"), flush()]), Read('C', 1), send(&[TERMINATE]), ReadToEnd]),
        ("good-bye behind a Query", vec![send(&[query("SELECT 1"), TERMINATE.to_vec()]), ReadToEnd]),
    ];
    compare(env, "pipelines", &[], TABLE, &scripts);
}

fn copy(env: &Env) {
    let data = b"1001\ta\n1002\tb\n".as_slice();
    let (begin, rollback) = (query("BEGIN"), query("ROLLBACK"));
    let copy_in = "COPY t FROM STDIN";
    let unsynced = || [parse("", copy_in), bind("", "", &[], 0), describe(b'P', ""), execute("", 0)].concat();
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
                send(&[&begin, &query(copy_in)]),
                Read('G', 1),
                send(&[&copy_data(data)[..], COPY_DONE]),
                Read('Z', 1),
                send(&[&query("SELECT count(*) FROM t"), &rollback]),
                Read('Z', 2),
            ],
        ),
        (
            "in, rows cut",
            vec![
                send(&[&begin, &query(copy_in)]),
                Read('G', 1),
                send(&[&halves[..], COPY_DONE, &rollback]),
                Read('Z', 2),
            ],
        ),
        (
            "in, nothing and all at once",
            vec![send(&[&begin[..], &query(copy_in), &empty, COPY_DONE, &rollback]), Read('Z', 3)],
        ),
        (
            "in, twice in one Query",
            vec![
                send(&[&begin, &query("COPY t FROM STDIN; SELECT 5; COPY t FROM STDIN")]),
                Read('G', 1),
                send(&[&copy_data(b"1001\ta\n")[..], COPY_DONE]),
                Read('G', 1),
                send(&[&copy_data(b"1002\tb\n")[..], COPY_DONE, &rollback]),
                Read('Z', 2),
            ],
        ),
        (
            "in, extended",
            vec![
                send(&[&begin[..], &unsynced(), FLUSH]),
                Read('G', 1),
                send(&[&copy_data(data)[..], COPY_DONE, SYNC, &rollback]),
                Read('Z', 2),
            ],
        ),
        (
            "in, extended as libpq does",
            vec![
                send(&[&begin[..], &unsynced(), SYNC]),
                Read('G', 1),
                send(&[&copy_data(data)[..], COPY_DONE, SYNC, &rollback]),
                Read('Z', 2),
            ],
        ),
        (
            "in, extended in one write",
            vec![send(&[&begin[..], &unsynced(), &copy_data(data), COPY_DONE, SYNC, &rollback]), Read('Z', 3)],
        ),
        (
            "in, extended with Flush and Sync between the rows",
            vec![
                send(&[
                    &begin[..],
                    &unsynced(),
                    &copy_data(b"1001\ta\n"),
                    SYNC,
                    FLUSH,
                    &copy_data(b"1002\tb\n"),
                    COPY_DONE,
                    SYNC,
                    &rollback,
                ]),
                Read('Z', 3),
            ],
        ),
        (
            "in, then a statement before Sync",
            vec![
                send(&[&begin[..], &unsynced(), FLUSH]),
                Read('G', 1),
                send(&[
                    &copy_data(data)[..],
                    COPY_DONE,
                    &parse("", "SELECT 1"),
                    &bind("", "", &[], 0),
                    &execute("", 0),
                    SYNC,
                    &rollback,
                ]),
                Read('Z', 2),
            ],
        ),
        (
            "in, outside a transaction, undone by a bad row",
            vec![
                send(&[query(copy_in)]),
                Read('G', 1),
                send(&[&copy_data(b"1001\ta\nbad\tb\n")[..], COPY_DONE]),
                Read('Z', 1),
                send(&[query("SELECT count(*) FROM t")]),
                Read('Z', 1),
            ],
        ),
    ];
    compare(env, "copy", &[], TABLE, &scripts);
}

fn copy_errors(env: &Env) {
    let copy_in = "COPY t FROM STDIN";
    let unsynced = || [parse("", copy_in), bind("", "", &[], 0), execute("", 0)].concat();
    let refused = || [parse("", "COPY refused FROM STDIN"), bind("", "", &[], 0), execute("", 0)].concat();
    let bad = copy_data(b"x\ty\n");
    let more: Vec<u8> = (0..200).flat_map(|n| copy_data(format!("{n}\tlate\n").repeat(100).as_bytes())).collect();
    let large = copy_data(&b"1\tlarge\n".repeat(200_000));
    let after = || query("SELECT 'after'");
    let setup = format!(
        "{TABLE}; CREATE TABLE refused (n int); GRANT ALL ON refused TO app; \
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$; \
         CREATE TRIGGER refuse BEFORE INSERT ON refused EXECUTE FUNCTION refuse()"
    );
    let scripts: Vec<Script> = vec![
        (
            "CopyFail",
            vec![
                send(&[query(copy_in)]),
                Read('G', 1),
                send(&[copy_data(b"1"), copy_fail("changed my mind")]),
                Read('Z', 1),
            ],
        ),
        ("CopyFail at once", vec![send(&[query(copy_in), copy_fail("never mind"), after()]), Read('Z', 2)]),
        (
            "CopyFail, extended",
            vec![
                send(&[&unsynced()[..], FLUSH]),
                Read('G', 1),
                send(&[&copy_fail("no")[..], SYNC, &after()]),
                Read('Z', 2),
            ],
        ),
        (
            "CopyFail, extended as libpq does",
            vec![
                send(&[&unsynced()[..], SYNC]),
                Read('G', 1),
                send(&[&copy_fail("no")[..], SYNC, &after()]),
                Read('Z', 2),
            ],
        ),
        (
            "a table that is not there",
            vec![send(&[&query("COPY nowhere FROM STDIN")[..], &copy_data(b"1"), COPY_DONE, &after()]), Read('Z', 2)],
        ),
        (
            "an error while rows keep coming",
            vec![send(&[&query(copy_in)[..], &bad, &more, COPY_DONE, &after()]), Read('Z', 2)],
        ),
        (
            "an error before a message that is long",
            vec![send(&[&query(copy_in)[..], &bad, &large, COPY_DONE, &after()]), Read('Z', 2)],
        ),
        (
            "an error in a message that is long",
            vec![send(&[&query(copy_in)[..], &large, &large, COPY_DONE, &after()]), Read('Z', 2)],
        ),
        (
            "a message cut by an error",
            vec![
                send(&[&query(copy_in)[..], &bad, &large[..100_000]]),
                Read('Z', 1),
                send(&[&large[100_000..], &after()]),
                Read('Z', 1),
            ],
        ),
        (
            "an error while rows keep coming, extended",
            vec![send(&[&unsynced()[..], &bad, &more, COPY_DONE, SYNC, &after()]), Read('Z', 2)],
        ),
        (
            "an error before a message that is long, extended",
            vec![send(&[&unsynced()[..], &bad, &large, COPY_DONE, SYNC, &after()]), Read('Z', 2)],
        ),
        (
            "an error, then rows and a Query before Sync",
            vec![send(&[&unsynced()[..], &bad, &query("SELECT 'skipped'"), SYNC, &after()]), Read('Z', 2)],
        ),
        (
            "an error by a trigger before the first row",
            vec![
                send(&[query("COPY refused FROM STDIN")]),
                Read('Z', 1),
                send(&[&copy_data(b"1\n")[..], COPY_DONE, &after()]),
                Read('Z', 1),
            ],
        ),
        (
            "an error by a trigger, extended",
            vec![
                send(&[&refused()[..], FLUSH]),
                Read('E', 1),
                send(&[&copy_data(b"1\n")[..], COPY_DONE, SYNC, &after()]),
                Read('Z', 2),
            ],
        ),
        (
            "an error by a trigger, extended as libpq does",
            vec![
                send(&[&refused()[..], SYNC]),
                Read('Z', 1),
                send(&[&copy_data(b"1\n")[..], COPY_DONE, SYNC, &after()]),
                Read('Z', 2),
            ],
        ),
        (
            "a Query in the middle",
            vec![
                send(&[query(copy_in)]),
                Read('G', 1),
                send(&[copy_data(b"1001\tx\n"), query("SELECT 'no'")]),
                Read('Z', 1),
            ],
        ),
    ];
    compare(env, "copy_errors", &[], &setup, &scripts);
}

fn text_in_other_encodings(env: &Env) {
    let setup =
        "CREATE TABLE t (s text); GRANT ALL ON t TO app; INSERT INTO t VALUES ('caf\u{e9}'), ('\u{8868}\u{793a}')";
    // In SJIS the second byte of 0x95 0x5C is a backslash, and in LATIN1 0xE9 is no UTF-8.
    let sjis = [
        once("a literal", query(b"SELECT '\x95\x5c\x8e\xa6' AS \"\x95\x5c\"")),
        once("found", query(b"SELECT count(*) FROM t WHERE s = '\x95\x5c\x8e\xa6'")),
        once(
            "a parameter",
            [parse("", "SELECT $1::text"), bind("", "", &[b"\x95\x5c"], 0), execute("", 0), SYNC.to_vec()].concat(),
        ),
        once("an error", query(b"SELECT '\x95\x5c'::int")),
        once("no character", query(b"SELECT '\x81'")),
        once(
            "a named statement",
            [parse("x", b"SELECT '\x95\x5c'"), bind("", "x", &[], 0), execute("", 0), SYNC.to_vec()].concat(),
        ),
    ];
    compare(env, "sjis", &[("client_encoding", "SJIS")], setup, &sjis);
    let latin = [
        once("rows", query("SELECT s FROM t WHERE s LIKE 'caf%'")),
        once("a literal", query(b"SELECT count(*) FROM t WHERE s = 'caf\xe9'")),
        once("an error", query(b"SELECT 'caf\xe9'::int")),
        once("a name", query(b"SELECT * FROM \"caf\xe9\"")),
        once("no such character", query("SELECT s FROM t")),
        once(
            "a named statement",
            [parse("\u{e9}", b"SELECT 'caf\xe9'"), bind("", "\u{e9}", &[], 0), execute("", 0), SYNC.to_vec()].concat(),
        ),
        once("another encoding", [query("SET client_encoding = 'UTF8'"), query("SELECT s FROM t")].concat()),
    ];
    compare(env, "latin1", &[("client_encoding", "LATIN1"), ("application_name", "caf\u{e9}")], setup, &latin);
}

fn what_servers_say_by_themselves(env: &Env) {
    let notify = "DO $$ BEGIN PERFORM pg_notify('c', 'p'); END $$";
    let listening = || vec![Step::Send(query("LISTEN c")), Read('Z', 1)];
    let and = |mut steps: Vec<Step>, more: Vec<Step>| {
        steps.extend(more);
        steps
    };
    let scripts = [
        (
            "a notification to itself",
            and(listening(), vec![Step::Send(query("NOTIFY c, 'p'")), Read('A', 1), Read('Z', 1)]),
        ),
        (
            "behind a transaction",
            and(
                listening(),
                vec![
                    Step::Send(query("BEGIN; NOTIFY c")),
                    Read('Z', 1),
                    Step::Send(query("COMMIT")),
                    Read('A', 1),
                    Read('Z', 1),
                ],
            ),
        ),
        ("in a block", and(listening(), vec![Step::Send(query(notify)), Read('A', 1), Read('Z', 1)])),
        (
            "a parameter in a function",
            vec![Step::Send(query("SELECT set_config('TimeZone', 'Asia/Tokyo', false)")), Read('Z', 1)],
        ),
        (
            "a parameter undone",
            vec![
                Step::Send(query("BEGIN; SET TimeZone = 'Asia/Tokyo'")),
                Read('Z', 1),
                Step::Send(query("ROLLBACK")),
                Read('Z', 1),
            ],
        ),
    ];
    // A notification names the process that sent it.
    let database = env.database("asynchronous");
    let proxy = Proxy::start(&env.shared().cluster, "");
    for (name, script) in scripts {
        let [want, got] = [database.node(0), proxy.target(&database.name)].map(|target| {
            let mut transcript = play(&mut target.raw(), &script);
            for (_, body) in transcript.iter_mut().filter(|(tag, _)| *tag == 'A') {
                body.drain(..4);
            }
            transcript
        });
        assert!(want == got, "{name}: a node says\n{}  the proxy says\n{}", show(&want), show(&got));
    }
    let mut listener = proxy.target(&database.name).raw();
    listener.query("LISTEN c");
    listener.read_to('Z');
    database.prepare("NOTIFY c, 'while idle'");
    let (tag, body) = listener.read().unwrap();
    assert_eq!((tag, &body[4..]), ('A', &b"c\0while idle\0"[..]));
    database.prepare("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'LISTEN c'");
    let transcript = play(&mut listener, &[ReadToEnd]);
    assert_eq!(transcript.len(), 1, "{}", show(&transcript));
    assert_eq!(crate::raw::field(&transcript[0].1, b'C'), "57P01");
}
