//! Pipelines, portals and what is copied, message by message, as in [`exact`](crate::exact): whatever stands where.

use crate::exact::{Script, TABLE, compare};
use crate::frames::{
    COPY_DONE, FLUSH, SYNC, TERMINATE, bind, close, copy_data, copy_fail, describe, execute, message, parse, query,
    turn,
};
use crate::harness::{Env, Test};

pub const TESTS: &[Test] = &[
    ("wire_pipelines::many_syncs", many_syncs),
    ("wire_pipelines::errors_and_flushes_at_every_place", errors_and_flushes_at_every_place),
    ("wire_pipelines::portals", portals),
    ("wire_pipelines::empty_queries_and_function_calls", empty_queries_and_function_calls),
    ("wire_pipelines::copies", copies),
];

/// Parse, Bind, Execute of the unnamed statement.
fn run(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", "", &[], 0), execute("", 0)].concat()
}

fn named(name: String, turns: Vec<crate::frames::Turn>) -> Script {
    (&*name.leak(), turns)
}

fn zs(count: usize) -> &'static str {
    "Z".repeat(count).leak()
}

/// Answers come in the order of the questions, whichever node gives them.
fn many_syncs(env: &Env) {
    const SYNCS: usize = 1000;
    let sync = |bytes: Vec<u8>| [&bytes[..], SYNC].concat();
    let each = |what: fn(usize) -> String| (0..SYNCS).flat_map(|n| sync(run(&what(n)))).collect::<Vec<u8>>();
    let mixed = |n: usize| match n % 4 {
        0 => format!("INSERT INTO t VALUES ({}, 'new')", 1000 + n),
        1 => format!("SELECT {n}"),
        2 => format!("UPDATE t SET s = 'set' WHERE n = {}", n % 50),
        _ => "SELECT count(*) FROM (SELECT 1) one".to_owned(),
    };
    let failing = |n: usize| if n.is_multiple_of(3) { "SELECT 1/0".to_owned() } else { format!("SELECT {n}") };
    let queries = (0..SYNCS).flat_map(|n| query(mixed(n))).collect::<Vec<_>>();
    let scripts = [
        ("a thousand reads", vec![turn(&[each(|n| format!("SELECT {n}"))], zs(SYNCS))]),
        ("a thousand reads and writes", vec![turn(&[each(mixed), query("DELETE FROM t WHERE n > 50")], zs(SYNCS + 1))]),
        ("a thousand, every third fails", vec![turn(&[each(failing)], zs(SYNCS))]),
        ("a thousand Queries", vec![turn(&[queries, query("DELETE FROM t WHERE n > 50")], zs(SYNCS + 1))]),
        ("a thousand in a transaction", vec![turn(&[query("BEGIN"), each(mixed), query("ROLLBACK")], zs(SYNCS + 2))]),
        ("a thousand Syncs and nothing else", vec![turn(&[SYNC.repeat(SYNCS)], zs(SYNCS))]),
    ];
    compare(env, "many_syncs", &[], TABLE, &scripts);
}

/// A statement that the server of a failed batch does not have yet, and would have to prove.
fn statements_that_are_unknown_where_a_batch_failed() -> Script {
    let described = [parse("b", "SELECT 'of a replica'"), describe(b'S', "b"), SYNC.to_vec()].concat();
    let failing = [run("INSERT INTO t VALUES (301, 'p')"), parse("", "SELEKT"), query("")].concat();
    let skipped = [bind("", "b", &[], 0), execute("", 0), query("")].concat();
    let turns = vec![turn(&[described], "Z"), turn(&[failing], "E"), turn(&[skipped, SYNC.to_vec()], "Z")];
    ("a statement of elsewhere where a batch failed", turns)
}

/// A batch in parts; whatever comes between two of them, the others keep their answers.
fn parts() -> Vec<Vec<u8>> {
    vec![
        run("INSERT INTO t VALUES (201, 'p')"),
        run("SELECT 'read'"),
        [parse("s", "SELECT $1::int"), describe(b'S', "s"), bind("p", "s", &[b"1"], 1), describe(b'P', "p")].concat(),
        [execute("p", 0), close(b'P', "p"), close(b'S', "s")].concat(),
        run("SELECT count(*) FROM t WHERE n <= 50"),
    ]
}

/// The last tag of the answer to each part.
const LAST_TAGS: [&str; 5] = ["C", "C", "T", "3", "C"];

fn with(place: usize, piece: &[u8]) -> Vec<u8> {
    let mut parts = parts();
    parts.insert(place, piece.to_vec());
    parts.concat()
}

fn errors_and_flushes_at_every_place(env: &Env) {
    let bad: [(&str, Vec<u8>); 6] = [
        ("a division", run("SELECT 1/0")),
        ("a syntax error", parse("", "SELEKT")),
        ("no such statement", bind("", "nobody", &[], 0)),
        ("no such portal", execute("nobody", 0)),
        ("a bad parameter", [parse("", "SELECT $1::int"), bind("", "", &[b"x"], 0), execute("", 0)].concat()),
        ("a duplicate", run("INSERT INTO t VALUES (1, 'duplicate')")),
    ];
    let after = || query("SELECT count(*) FROM t WHERE n <= 50");
    let mut scripts = Vec::new();
    for place in 0..=LAST_TAGS.len() {
        for (what, bad) in &bad {
            let turns = vec![turn(&[&with(place, bad)[..], SYNC, &run("SELECT 'next'"), SYNC, &after()], "ZZZ")];
            scripts.push(named(format!("{what} at {place}"), turns));
        }
        scripts.extend(interruptions(place));
    }
    scripts.push(statements_that_are_unknown_where_a_batch_failed());
    compare(env, "every_place", &[], TABLE, &scripts);
}

/// What is no error, or no end of a batch.
fn interruptions(place: usize) -> Vec<Script> {
    let (begin, rollback) = (query("BEGIN"), query("ROLLBACK"));
    let in_block = |piece: &[u8], read| vec![turn(&[&begin[..], &with(place, piece), SYNC, &rollback], read)];
    let (before, behind) = (parts()[..place].concat(), parts()[place..].concat());
    let answered = |place: usize| turn(&[FLUSH, FLUSH], LAST_TAGS[place]);
    let mut flushed = vec![turn(&[&begin[..], &before, FLUSH], if place == 0 { "Z" } else { "Z1" })];
    flushed.extend(place.checked_sub(1).map(answered));
    flushed.push(turn(&[&behind[..], SYNC, &rollback], "ZZ"));
    let failed = with(place, &query("SELECT 1/0"));
    vec![
        named(format!("Flush at {place}"), in_block(FLUSH, "ZZZ")),
        named(format!("a Query at {place}"), in_block(&query("SELECT 'Query'"), "ZZZZ")),
        named(
            format!("a function call at {place}"),
            in_block(&message(b'F', b"\0\0\x05\x75\0\0\0\x01\0\0\0\x02-5\0\0"), "ZZZZ"),
        ),
        named(
            format!("a Query that fails at {place}"),
            vec![turn(&[&failed[..], SYNC, &query("DELETE FROM t WHERE n > 50")], "ZZZ")],
        ),
        named(format!("no Sync, and good-bye at {place}"), vec![turn(&[&before[..], TERMINATE], "$")]),
        named(format!("no Sync, Flush and on at {place}"), flushed),
    ]
}

/// The unnamed statement, bound to a portal.
fn select(portal: &str) -> Vec<u8> {
    [parse("", "SELECT n, s FROM t ORDER BY n LIMIT 7"), bind(portal, "", &[], 0)].concat()
}

fn suspended_portals() -> Vec<Script> {
    let begin = || turn(&[query("BEGIN")], "Z");
    vec![
        (
            "two portals in turn across Flush",
            vec![
                begin(),
                turn(&[select("a"), select("b"), execute("a", 2), execute("b", 3), FLUSH.to_vec()], "ss"),
                turn(&[execute("a", 2), execute("b", 1), FLUSH.to_vec()], "ss"),
                turn(&[describe(b'P', "a"), execute("a", 9), execute("b", 9), FLUSH.to_vec()], "CC"),
                turn(&[execute("a", 9), execute("b", 1), SYNC.to_vec()], "Z"),
            ],
        ),
        (
            "suspended across Syncs, a Query between",
            vec![
                begin(),
                turn(&[select("a"), execute("a", 2), SYNC.to_vec()], "Z"),
                turn(&[query("SELECT 'between'")], "Z"),
                turn(&[execute("a", 2), SYNC.to_vec()], "Z"),
                turn(&[query("SELECT 1/0"), execute("a", 2), SYNC.to_vec()], "ZZ"),
            ],
        ),
        (
            "an Execute of what is done",
            vec![begin(), turn(&[select("a"), execute("a", 0), execute("a", 0), execute("a", 0), SYNC.to_vec()], "Z")],
        ),
        (
            "an INSERT with RETURNING, a row at a time",
            vec![
                begin(),
                turn(
                    &[
                        parse("", "INSERT INTO t SELECT n, 'r' FROM generate_series(300, 305) n RETURNING n"),
                        bind("i", "", &[], 1),
                        execute("i", 1),
                        execute("i", 2),
                        FLUSH.to_vec(),
                    ],
                    "ss",
                ),
                turn(&[execute("i", 0), execute("i", 0), SYNC.to_vec(), query("ROLLBACK")], "ZZ"),
            ],
        ),
    ]
}

fn portals(env: &Env) {
    let begin = || turn(&[query("BEGIN")], "Z");
    let mut scripts = suspended_portals();
    scripts.extend(vec![
        (
            "a portal closed while suspended",
            vec![
                begin(),
                turn(&[select("a"), execute("a", 2), close(b'P', "a"), execute("a", 2), SYNC.to_vec()], "Z"),
            ],
        ),
        (
            "a portal name used twice",
            vec![begin(), turn(&[select("a"), select("a"), SYNC.to_vec()], "Z")],
        ),
        (
            "a cursor of SQL by messages",
            vec![
                begin(),
                turn(&[query("DECLARE c CURSOR FOR SELECT n FROM t ORDER BY n")], "Z"),
                turn(&[describe(b'P', "c"), execute("c", 3), execute("c", 1), SYNC.to_vec()], "Z"),
                turn(&[query("FETCH 2 FROM c"), close(b'P', "c"), SYNC.to_vec(), query("FETCH c")], "ZZZ"),
            ],
        ),
        (
            "a suspended portal outside of a block, and its Sync",
            vec![turn(&[select(""), execute("", 1), execute("", 1), SYNC.to_vec(), execute("", 1), SYNC.to_vec()], "ZZ")],
        ),
        (
            "COMMIT with a portal open",
            vec![
                begin(),
                turn(&[select("a"), execute("a", 2), FLUSH.to_vec()], "s"),
                turn(&[run("COMMIT"), execute("a", 2), SYNC.to_vec()], "Z"),
            ],
        ),
        (
            "more binary formats",
            vec![turn(
                &[
                    message(
                        b'P',
                        b"\0SELECT $1, $2, 1.5::numeric, now() - now(), '\\xdead'::bytea, ARRAY[1,NULL]\0\0\x02\0\0\0\x17\0\0\0\x14",
                    ),
                    message(
                        b'B',
                        b"\0\0\0\x02\0\x01\0\x01\0\x02\0\0\0\x04\0\0\0\x2a\0\0\0\x08\0\0\0\0\0\0\0\x07\0\x06\0\x01\0\0\0\x01\0\x01\0\x01\0\x01",
                    ),
                    describe(b'P', ""),
                    execute("", 0),
                    SYNC.to_vec(),
                ],
                "Z",
            )],
        ),
    ]);
    compare(env, "portals", &[], TABLE, &scripts);
}

fn empty_queries_and_function_calls(env: &Env) {
    let call = |oid: u32, arguments: &[&[u8]], format: u8| {
        let mut body = [&oid.to_be_bytes()[..], &[0, 1, 0, format, 0, u8::try_from(arguments.len()).unwrap()]].concat();
        for argument in arguments {
            body.extend_from_slice(&u32::try_from(argument.len()).unwrap().to_be_bytes());
            body.extend_from_slice(argument);
        }
        body.extend_from_slice(&[0, format]);
        message(b'F', &body)
    };
    let scripts: Vec<Script> = vec![
        (
            "empty, both ways",
            vec![turn(
                &[query(""), query(";"), query(" -- x"), run(""), run(";"), run("/* x */"), SYNC.to_vec()],
                "ZZZZ",
            )],
        ),
        (
            "empty, described, a row at a time, in a block",
            vec![turn(
                &[
                    &query("BEGIN")[..],
                    &parse("e", ""),
                    &describe(b'S', "e"),
                    &bind("", "e", &[], 0),
                    &describe(b'P', ""),
                    &execute("", 1),
                    SYNC,
                    &query(""),
                    &query("SELECT 1/0"),
                    &query(""),
                    &bind("", "e", &[], 0),
                    &execute("", 0),
                    SYNC,
                    &query("ROLLBACK"),
                ],
                "ZZZZZZZ",
            )],
        ),
        (
            "calls in text and binary",
            vec![turn(&[call(1397, &[b"-5"], 0), call(1397, &[b"\xff\xff\xff\xfb"], 1)], "ZZ")],
        ),
        (
            "calls in a block and a failed one",
            vec![turn(
                &[
                    query("BEGIN"),
                    call(1397, &[b"-5"], 0),
                    call(154, &[b"1", b"0"], 0),
                    call(1397, &[b"-5"], 0),
                    query("ROLLBACK"),
                    call(1397, &[b"-6"], 0),
                ],
                "ZZZZZZ",
            )],
        ),
        ("a call with too few arguments", vec![turn(&[call(154, &[b"1"], 0), query("SELECT 1")], "ZZ")]),
        ("a call that notices", vec![turn(&[call(89, &[], 0), query("SELECT 1")], "ZZ")]),
    ];
    compare(env, "empty", &[], TABLE, &scripts);
}

fn several_in_one_query() -> Vec<Script> {
    let rows = copy_data(b"1001\ta\n1002\tb\n");
    let after = || query("SELECT count(*) FROM t");
    vec![
        (
            "three in one Query, the second fails",
            vec![
                turn(&[query("COPY t FROM STDIN; COPY t FROM STDIN; COPY t FROM STDIN")], "G"),
                turn(&[&rows[..], COPY_DONE], "G"),
                turn(&[&rows[..], COPY_DONE, &after()], "ZZ"),
            ],
        ),
        (
            "out, in, out in one Query",
            vec![
                turn(
                    &[query(
                        "BEGIN; COPY (SELECT 1) TO STDOUT; COPY t FROM STDIN; COPY (SELECT count(*) FROM t) TO STDOUT",
                    )],
                    "G",
                ),
                turn(&[&rows[..], COPY_DONE, &query("ROLLBACK")], "ZZ"),
            ],
        ),
        (
            "three in one Query, in one write",
            vec![turn(
                &[
                    &query("BEGIN")[..],
                    &query("COPY t FROM STDIN; COPY t FROM STDIN"),
                    &rows,
                    COPY_DONE,
                    &copy_data(b"1003\tc\n"),
                    COPY_DONE,
                    &query("ROLLBACK"),
                ],
                "ZZZ",
            )],
        ),
        (
            "CopyFail in the second",
            vec![
                turn(&[query("COPY t FROM STDIN; COPY t FROM STDIN")], "G"),
                turn(&[&rows[..], COPY_DONE], "G"),
                turn(&[&copy_fail("enough")[..], &after()], "ZZ"),
            ],
        ),
    ]
}

fn copies(env: &Env) {
    let rows = copy_data(b"1001\ta\n1002\tb\n");
    let after = || query("SELECT count(*) FROM t");
    let mut scripts = several_in_one_query();
    scripts.extend(vec![
        (
            "two in a pipeline",
            vec![turn(
                &[
                    &query("BEGIN")[..],
                    &run("COPY t FROM STDIN"),
                    &rows,
                    COPY_DONE,
                    &run("COPY t FROM STDIN"),
                    &copy_data(b"1003\tc\n"),
                    COPY_DONE,
                    &run("SELECT count(*) FROM t"),
                    SYNC,
                    &query("ROLLBACK"),
                ],
                "ZZZ",
            )],
        ),
        (
            "out in a pipeline, with an error at its end",
            vec![turn(
                &[
                    run("COPY (SELECT n FROM t ORDER BY n LIMIT 3) TO STDOUT"),
                    run("COPY (SELECT 10 / (3 - n) FROM t ORDER BY n) TO STDOUT"),
                    run("SELECT 'never'"),
                    SYNC.to_vec(),
                    after(),
                ],
                "ZZ",
            )],
        ),
        (
            "binary, and a header that is none",
            vec![
                turn(&[query("COPY t FROM STDIN (FORMAT binary)")], "G"),
                turn(&[&copy_data(b"PGCOPY\n\xff\r\n\0")[..], &copy_data(b"nonsense"), COPY_DONE, &after()], "ZZ"),
            ],
        ),
        (
            "notices in the middle",
            vec![turn(
                &[
                    query(
                        "DO $$ BEGIN RAISE NOTICE 'one'; PERFORM set_config('TimeZone', 'Asia/Tokyo', true); RAISE NOTICE 'two'; END $$",
                    ),
                    query("SET application_name = 'x'; SELECT 1; SET DateStyle = 'German'; SELECT 2; RESET ALL"),
                ],
                "ZZ",
            )],
        ),
        (
            "to a table that loses its rows to a trigger's error at the end",
            vec![
                turn(&[query("COPY c FROM STDIN")], "G"),
                turn(&[&copy_data(b"1\n")[..], &copy_data(b"2\n"), COPY_DONE, &after()], "ZZ"),
            ],
        ),
    ]);
    let setup = "CREATE TABLE c (n int); GRANT ALL ON c TO app; CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql \
                 AS $$ BEGIN RAISE EXCEPTION 'too late'; END $$; CREATE CONSTRAINT TRIGGER late AFTER INSERT ON c \
                 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late()";
    compare(env, "copies", &[], &[TABLE, setup].join(";"), &scripts);
}
