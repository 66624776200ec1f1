//! Random sequences of messages, well and ill ordered, cut into random writes: a node's answers are the proxy's.

use fastrand::Rng;

use crate::frames::{
    COPY_DONE, FLUSH, SYNC, bind, close, copy_data, copy_fail, describe, execute, message, parse, query,
};
use crate::harness::{Env, Test};
use crate::proxy::Proxy;
use crate::raw::{Message, RawClient};
use crate::speech::seen;
use crate::target::Target;

pub const TESTS: &[Test] = &[("wire_fuzz::any_messages", any_messages)];

const SETUP: &str = "CREATE TABLE t (n int PRIMARY KEY, s text); CREATE TABLE log (n int); GRANT ALL ON t, log TO app; \
                     INSERT INTO t SELECT n, 'row ' || n FROM generate_series(1, 50) n";

const STATEMENTS: &[&str] = &[
    "SELECT 1",
    "SELECT n, s FROM t ORDER BY n LIMIT 3",
    "SELECT n FROM t ORDER BY n LIMIT 9",
    "SELECT $1::int",
    "SELECT $1::int + $2::int",
    "SELECT 1/0",
    "SELEKT",
    "SELECT * FROM nowhere",
    "",
    "UPDATE t SET s = s WHERE n = 1",
    "INSERT INTO log VALUES (1) RETURNING n",
    "INSERT INTO log SELECT generate_series(1, 5) RETURNING n",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "DO $$ BEGIN RAISE NOTICE 'heard'; END $$",
    "COPY t TO STDOUT",
    "VALUES (1), (2), (3)",
    "SET LOCAL search_path = nowhere",
    "SHOW search_path",
];

const QUERIES: &[&str] = &[
    "SELECT 1; SELECT 2",
    "BEGIN; SELECT 1/0",
    "SELECT 1; COMMIT; SELECT 2",
    "INSERT INTO log VALUES (2); SELECT 1/0",
    "DECLARE c CURSOR FOR SELECT n FROM t ORDER BY n",
    "FETCH 2 FROM c",
];

const NAMES: [&str; 3] = ["", "a", "b"];

fn any<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.usize(..from.len())]
}

fn any_message(rng: &mut Rng) -> Vec<u8> {
    let (statement, portal) = (any(rng, &NAMES), any(rng, &NAMES));
    match rng.u32(..100) {
        0..18 => parse(statement, any(rng, STATEMENTS)),
        18..36 => {
            let parameters = &[&b"7"[..]; 2][..[0, 0, 0, 1, 2][rng.usize(..5)]];
            [parse_unnamed(rng, statement), bind(portal, statement, parameters, rng.u8(..2))].concat()
        }
        36..42 => [parse_unnamed(rng, statement), describe(b'S', statement)].concat(),
        42..48 => describe(b'P', portal),
        48..66 => execute(portal, [0, 0, 1, 2][rng.usize(..4)]),
        66..69 => close(b'S', statement),
        69..72 => close(b'P', portal),
        72..80 => SYNC.to_vec(),
        80..84 => FLUSH.to_vec(),
        84..92 => query(any(rng, STATEMENTS)),
        92..95 => query(any(rng, QUERIES)),
        95 => message(b'F', b"\0\0\x05\x75\0\0\0\x01\0\0\0\x02-5\0\0"),
        96 => message([b'P', b'B', b'D', b'C', b'E', b'Q', b'F'][rng.usize(..7)], b"x"),
        97 => vec![copy_data(b"1"), copy_fail("no"), COPY_DONE.to_vec()].swap_remove(rng.usize(..3)),
        98 => [query("COPY log FROM STDIN"), copy_data(b"1\n"), COPY_DONE.to_vec()].concat(),
        _ => [
            parse("", "COPY log FROM STDIN"),
            bind("", "", &[], 0),
            execute("", 0),
            copy_data(if rng.bool() { b"1\n" } else { b"x\n" }),
            if rng.bool() { COPY_DONE.to_vec() } else { copy_fail("no") },
        ]
        .concat(),
    }
}

/// A batch that fails between two Parses of the unnamed statement leaves it undefined, and on a node it leaves the first.
fn parse_unnamed(rng: &mut Rng, name: &str) -> Vec<u8> {
    if name.is_empty() { parse(name, any(rng, STATEMENTS)) } else { Vec::new() }
}

/// Runs of messages that belong together, as drivers send them, are as likely as any mixture.
fn any_piece(rng: &mut Rng) -> Vec<u8> {
    if rng.bool() {
        return any_message(rng);
    }
    let (name, sql) = (any(rng, &NAMES), any(rng, STATEMENTS));
    let mut piece = [parse(name, sql), bind("", name, &[], 0), describe(b'P', ""), execute("", 0)].concat();
    if rng.bool() {
        piece.extend_from_slice(SYNC);
    }
    piece
}

const LAST: &str = "SELECT 'the last one'";

fn script(seed: u64) -> Vec<Vec<u8>> {
    let mut rng = Rng::with_seed(seed);
    let mut script: Vec<_> = (0..rng.usize(1..14)).map(|_| any_piece(&mut rng)).collect();
    script.push([SYNC.to_vec(), query("ROLLBACK"), query(LAST)].concat());
    script
}

/// Up to the answer to the last Query, or to the end of the connection.
fn transcript(target: &Target, seed: u64) -> Vec<String> {
    let mut client = target.raw();
    let mut rng = Rng::with_seed(seed);
    let mut waiting = Vec::new();
    for piece in script(seed) {
        waiting.extend_from_slice(&piece);
        if rng.bool() {
            send(&mut client, &mut rng, &std::mem::take(&mut waiting));
        }
    }
    send(&mut client, &mut rng, &waiting);
    let mut heard: Vec<Message> = Vec::new();
    while let Some(message) = client.read() {
        let is_last = message.0 == 'D' && message.1.ends_with(b"the last one");
        heard.push(message);
        if is_last {
            heard.extend(client.read_to('Z'));
            break;
        }
    }
    seen(&heard)
}

/// In one write, or in two that cut a message.
fn send(client: &mut RawClient, rng: &mut Rng, bytes: &[u8]) {
    let (first, second) = bytes.split_at(rng.usize(..=bytes.len()));
    client.send(first);
    client.send(second);
}

/// More scripts, or others, with these in the environment.
fn any_messages(env: &Env) {
    let scripts = std::env::var("CAUSEWAY_TEST_SCRIPTS").map_or(400, |text| text.parse().unwrap());
    let first = std::env::var("CAUSEWAY_TEST_SEED").map_or(1, |text| text.parse().unwrap());
    let database = env.database("fuzz");
    database.prepare(SETUP);
    let proxy = Proxy::start(&env.shared().cluster, "[pool]\ndefault_pool_size = 3\n");
    let (direct, through) = (database.node(0), proxy.target(&database.name));
    let mut wrong = Vec::new();
    for seed in first..first + scripts {
        let (want, got) = (transcript(&direct, seed), transcript(&through, seed));
        if want != got {
            let sent: Vec<_> = script(seed).iter().map(|piece| piece.escape_ascii().to_string()).collect();
            let (want, got) = (want.join("\n    "), got.join("\n    "));
            wrong
                .push(format!("seed {seed}:\n  {}\n  a node:\n    {want}\n  the proxy:\n    {got}", sent.join("\n  ")));
        }
    }
    assert!(wrong.is_empty(), "{} of {scripts} scripts:\n{}", wrong.len(), wrong.join("\n"));
}
