//! A client must not be able to tell the proxy from the node: the same bytes sent, the same messages read.

use std::panic::catch_unwind;

use crate::frames::{
    COPY_DONE, FLUSH, SYNC, TERMINATE, Turn, bind, close, copy_data, copy_fail, describe, execute, extended, message,
    parse, play, query, show, turn,
};
use crate::harness::{Env, PASSWORD, Test, USER};
use crate::proxy::Proxy;
use crate::raw::RawClient;
use crate::target::Target;

pub const TESTS: &[Test] = &[
    ("exact::simple_queries", simple_queries),
    ("exact::extended_queries", extended_queries),
    ("exact::statements_and_portals", statements_and_portals),
    ("exact::pipelines", pipelines),
    ("exact::prepares_with_flush", prepares_with_flush),
    ("exact::text_in_other_encodings", text_in_other_encodings),
    ("exact::what_servers_say_by_themselves", what_servers_say_by_themselves),
];

pub type Script = (&'static str, Vec<Turn>);

/// One Query, or anything else that ends in one ReadyForQuery.
pub fn once(name: &'static str, bytes: Vec<u8>) -> Script {
    (name, vec![turn(&[bytes], "Z")])
}

pub fn simple(sql: &'static str) -> Script {
    once(sql, query(sql))
}

/// Plays each script to the primary and to a proxy, each on a connection of its own, which must then still be in
/// order, unless the script ends it.
pub fn compare(env: &Env, test: &str, parameters: &[(&str, &str)], setup: &str, scripts: &[Script]) {
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
                if !script.last().is_some_and(Turn::ends_session) {
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

pub const TABLE: &str = "CREATE TABLE t (n int PRIMARY KEY, s text); GRANT ALL ON t TO app; \
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
            .map(|sql| turn(&[query(sql)], "Z"))
            .collect(),
    ));
    scripts.push(("three at once", vec![turn(&["SELECT 1", "SELECT 1/0", "SELECT 3"].map(query), "ZZZ")]));
    scripts.push(("good-bye", vec![turn(&[TERMINATE.to_vec()], "$")]));
    scripts.push(("good-bye in a transaction", vec![turn(&[query("BEGIN")], "Z"), turn(&[TERMINATE.to_vec()], "$")]));
    compare(env, "simple", &[], TABLE, &scripts);
}

fn extended_queries(env: &Env) {
    let call = |oid: u32, argument: &[u8]| {
        let length = u32::try_from(argument.len()).unwrap().to_be_bytes();
        message(b'F', &[&oid.to_be_bytes()[..], &[0, 0, 0, 1], &length, argument, &[0, 0]].concat())
    };
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
        // int4abs is 1397, int4div 154; 1 is nobody.
        once("a function call", call(1397, b"-5")),
        once("a function call that fails", call(154, b"1")),
        once("a function call of nobody", call(1, b"1")),
    ]);
    compare(env, "extended", &[], TABLE, &scripts);
}

fn statements_and_portals(env: &Env) {
    let select = parse("", "SELECT n, s FROM t ORDER BY n LIMIT 5");
    let scripts: Vec<Script> = vec![
        (
            "suspended, and gone with its transaction",
            vec![
                turn(&[&select[..], &bind("", "", &[], 0), &execute("", 2), SYNC], "Z"),
                turn(&[&execute("", 2)[..], SYNC], "Z"),
            ],
        ),
        (
            "a portal across Syncs in a transaction",
            vec![
                turn(&[query("BEGIN")], "Z"),
                turn(&[&select[..], &bind("p", "", &[], 0), &execute("p", 2), SYNC], "Z"),
                turn(&[&execute("p", 2)[..], SYNC], "Z"),
                turn(&[&execute("p", 2)[..], SYNC], "Z"),
                turn(&[&execute("p", 2)[..], SYNC], "Z"),
            ],
        ),
        (
            "a portal outside a transaction, with Flush",
            vec![
                turn(&[&select[..], &bind("p", "", &[], 0), &execute("p", 2), FLUSH], "s"),
                turn(&[&execute("p", 2)[..], FLUSH], "s"),
                turn(&[&execute("p", 0)[..], SYNC], "Z"),
                turn(&[&execute("p", 0)[..], SYNC], "Z"),
            ],
        ),
        (
            "a statement used again and again",
            vec![
                turn(&[&parse("s", "SELECT $1::text")[..], SYNC], "Z"),
                turn(&[&bind("", "s", &[b"1"], 0)[..], &execute("", 0), SYNC], "Z"),
                turn(&[query("SELECT 'between'")], "Z"),
                turn(&[&bind("", "s", &[b"2"], 0)[..], &execute("", 0), SYNC], "Z"),
                turn(&[&parse("s", "SELECT 2")[..], SYNC], "Z"),
                turn(
                    &[&close(b'S', "s")[..], &parse("s", "SELECT 3"), &bind("", "s", &[], 0), &execute("", 0), SYNC],
                    "Z",
                ),
            ],
        ),
        (
            "the unnamed statement used again",
            vec![
                turn(&[&parse("", "SELECT $1::text")[..], SYNC], "Z"),
                turn(&[&bind("", "", &[b"1"], 0)[..], &execute("", 0), SYNC], "Z"),
                turn(&[&bind("", "", &[b"2"], 0)[..], &execute("", 0), SYNC], "Z"),
                turn(&[query("SELECT 'between'")], "Z"),
                turn(&[&bind("", "", &[b"3"], 0)[..], SYNC], "Z"),
            ],
        ),
    ];
    compare(env, "statements", &[], TABLE, &scripts);
}

fn pipelines(env: &Env) {
    let ok = |text: &str| [parse("", format!("SELECT '{text}'")), bind("", "", &[], 0), execute("", 0)].concat();
    let bad = || [parse("", "SELECT 1/0"), bind("", "", &[], 0), execute("", 0)].concat();
    let insert =
        |n: u32| [parse("", format!("INSERT INTO t VALUES ({n}, 'p')")), bind("", "", &[], 0), execute("", 0)].concat();
    let count = || query("SELECT count(*) FROM t");
    let sync = || SYNC.to_vec();
    let flush = || FLUSH.to_vec();
    let scripts: Vec<Script> = vec![
        (
            "fifty Syncs in one write",
            vec![turn(
                &[(0..50).flat_map(|n| [ok(&n.to_string()), sync()].concat()).collect::<Vec<u8>>()],
                "ZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZ",
            )],
        ),
        ("an error in the middle", vec![turn(&[ok("1"), bad(), ok("2"), sync(), ok("3"), sync()], "ZZ")]),
        ("an implicit transaction undone", vec![turn(&[insert(201), bad(), sync(), count()], "ZZ")]),
        ("two Syncs", vec![turn(&[ok("1"), sync(), sync(), sync()], "ZZZ")]),
        ("Syncs alone", vec![turn(&[sync(), sync()], "ZZ")]),
        (
            "Flush after each",
            vec![turn(&[ok("1"), flush()], "C"), turn(&[ok("2"), flush()], "C"), turn(&[sync()], "Z")],
        ),
        ("Flush alone", vec![turn(&[flush(), flush(), sync()], "Z")]),
        (
            "an error, Flush, more, Sync",
            vec![turn(&[bad(), flush()], "E"), turn(&[ok("1"), flush(), ok("2"), sync()], "Z")],
        ),
        ("a Query after unsynced messages", vec![turn(&[ok("1"), query("SELECT 2")], "Z"), turn(&[sync()], "Z")]),
        ("a Query after an unsynced error", vec![turn(&[bad(), query("SELECT 2"), sync()], "Z")]),
        (
            "a Query after an unsynced error, and the Sync later",
            vec![turn(&[bad(), query("SELECT 2")], "E"), turn(&[query("SELECT 3"), sync()], "Z")],
        ),
        (
            "a Query after a flushed error",
            vec![turn(&[bad(), flush()], "E"), turn(&[query("SELECT 2")], ""), turn(&[sync()], "Z")],
        ),
        ("a function call after an unsynced error", vec![turn(&[bad(), message(b'F', &[0; 10]), sync()], "Z")]),
        (
            "a write unsynced, then a Query",
            vec![turn(&[insert(202), query("ROLLBACK")], "Z"), turn(&[sync(), count()], "ZZ")],
        ),
        (
            "BEGIN and COMMIT in a pipeline",
            vec![turn(&[extended("BEGIN"), extended("SELECT 1"), extended("COMMIT")], "ZZZ")],
        ),
        (
            "Parse and Describe first, Bind later",
            vec![
                turn(&[parse("x", "SELECT $1::int"), describe(b'S', "x"), flush()], "T"),
                turn(&[bind("", "x", &[b"1"], 0), execute("", 0), sync()], "Z"),
            ],
        ),
        (
            "copy messages where none belong",
            vec![turn(&[copy_data(b"x"), COPY_DONE.to_vec(), copy_fail("x"), query("SELECT 1")], "Z")],
        ),
        ("good-bye without Sync", vec![turn(&[insert(203), TERMINATE.to_vec()], "$")]),
        ("what was not synced is not there", vec![turn(&[count()], "Z")]),
        ("good-bye after Flush", vec![turn(&[ok("1"), flush()], "C"), turn(&[TERMINATE], "$")]),
        ("good-bye behind a Query", vec![turn(&[query("SELECT 1"), TERMINATE.to_vec()], "$")]),
    ];
    compare(env, "pipelines", &[], TABLE, &scripts);
}

/// Drivers that prepare with a Flush, and run with the next batch what they have prepared.
fn prepares_with_flush(env: &Env) {
    let ok = |text: &str| [parse("", format!("SELECT '{text}'")), bind("", "", &[], 0), execute("", 0)].concat();
    let sync = || SYNC.to_vec();
    let flush = || FLUSH.to_vec();
    let scripts: Vec<Script> = vec![
        (
            "a prepare that fails, with Flush",
            vec![
                turn(&[parse("broken", "SELECT nothing"), describe(b'S', "broken"), flush()], "E"),
                turn(&[ok("1"), flush(), sync()], "Z"),
                turn(&[ok("2"), sync()], "Z"),
            ],
        ),
        (
            "a prepare that fails in a transaction, with Flush",
            vec![
                turn(&[query("BEGIN"), parse("", "SELECT nothing"), describe(b'S', ""), flush()], "E"),
                turn(&[ok("1"), sync(), query("SELECT 1"), query("ROLLBACK")], "ZZZ"),
            ],
        ),
        (
            "prepares and executions in turn, with Flush",
            vec![
                turn(&[parse("one", "SELECT 1"), describe(b'S', "one"), flush()], "T"),
                turn(&[bind("", "one", &[], 0), execute("", 0), flush()], "C"),
                turn(&[parse("two", "SELECT 2"), describe(b'S', "two"), flush()], "T"),
                turn(&[bind("", "two", &[], 0), execute("", 0), sync()], "Z"),
            ],
        ),
    ];
    compare(env, "prepares_with_flush", &[], TABLE, &scripts);
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
    let listening = || vec![turn(&[query("LISTEN c")], "Z")];
    let and = |mut steps: Vec<Turn>, more: Vec<Turn>| {
        steps.extend(more);
        steps
    };
    let scripts = [
        ("a notification to itself", and(listening(), vec![turn(&[query("NOTIFY c, 'p'")], "AZ")])),
        (
            "behind a transaction",
            and(listening(), vec![turn(&[query("BEGIN; NOTIFY c")], "Z"), turn(&[query("COMMIT")], "AZ")]),
        ),
        ("in a block", and(listening(), vec![turn(&[query(notify)], "AZ")])),
        ("a parameter in a function", vec![turn(&[query("SELECT set_config('TimeZone', 'Asia/Tokyo', false)")], "Z")]),
        (
            "a parameter undone",
            vec![turn(&[query("BEGIN; SET TimeZone = 'Asia/Tokyo'")], "Z"), turn(&[query("ROLLBACK")], "Z")],
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
    database.prepare(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'app'",
    );
    let transcript = play(&mut listener, &[turn::<&[u8]>(&[], "$")]);
    assert_eq!(transcript.len(), 1, "{}", show(&transcript));
    assert_eq!(crate::raw::field(&transcript[0].1, b'C'), "57P01");
}
