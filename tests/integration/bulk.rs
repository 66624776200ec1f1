//! Much data, little memory: whatever is larger than a batch passes through without being held.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::frames::{COPY_DONE, SYNC, bind, copy_data, execute, parse, play, query, turn};
use crate::harness::{Database, Env, Test, wait_for};
use crate::proxy::Proxy;
use crate::raw::{Message, RawClient, tags};

pub const TESTS: &[Test] = &[
    ("bulk::passes_without_being_held", passes_without_being_held),
    ("bulk::idle_clients_hold_no_memory", idle_clients_hold_no_memory),
];

const MIB: usize = 1 << 20;

/// More than the largest batch and its copies, less than any of what passes.
const MOST_MIB: u64 = 70;

/// What the proxy's memory grows by at most while `work` runs.
pub fn growth_mib<T>(proxy: &Proxy, work: impl FnOnce() -> T) -> (u64, T) {
    let before = proxy.memory_mib();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut peak = before;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(proxy.memory_mib());
                thread::sleep(Duration::from_millis(2));
            }
            peak
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        (sampler.join().unwrap() - before, result)
    })
}

fn last_row(transcript: &[Message]) -> String {
    let row = transcript.iter().rev().find(|(tag, _)| *tag == 'D');
    // One column: two bytes of their number, four of its length.
    row.map_or(String::new(), |(_, body)| String::from_utf8_lossy(&body[6..]).into_owned())
}

type Work = fn(&mut RawClient) -> String;

/// Each gives what it saw, which says that all has arrived.
const WORKS: &[(&str, Work, &str)] = &[
    ("200 MB of rows for a slow reader", slow_reader, "200000 rows, 200800000 bytes"),
    (
        "one row of 100 MB",
        |client| {
            let sql = query("SELECT repeat('x', 100000000)");
            let row = play(client, &[turn(&[sql], "Z")]);
            last_row(&row).len().to_string()
        },
        "100000000",
    ),
    ("a parameter of 100 MB, unnamed", |client| parameter(client, ""), "100000000"),
    ("a parameter of 100 MB, named", |client| parameter(client, "named"), "100000000"),
    (
        "a Query of 40 MB",
        |client| {
            let sql = format!("SELECT length('{}')", "x".repeat(40 * MIB));
            last_row(&play(client, &[turn(&[query(sql)], "Z")]))
        },
        "41943040",
    ),
    (
        "a Parse of 40 MB",
        |client| {
            let sql = format!("SELECT length('{}')", "x".repeat(40 * MIB));
            let steps = [turn(&[&parse("", sql)[..], &bind("", "", &[], 0), &execute("", 0), SYNC], "Z")];
            last_row(&play(client, &steps))
        },
        "41943040",
    ),
    ("100 MB copied in", |client| copy_in(client, &rows(1), 100), "102400"),
    ("100 MB copied in, in one message", |client| copy_in(client, &rows(100), 1), "102400"),
    (
        "30 MB copied in behind a Query in one write",
        |client| {
            let rows = rows(30);
            let begin = query("TRUNCATE t");
            play(client, &[turn(&[&begin[..], &query("COPY t FROM STDIN"), &rows, COPY_DONE], "ZZ")]);
            last_row(&play(client, &[turn(&[query("/* causeway: primary */ SELECT count(*) FROM t")], "Z")]))
        },
        "30720",
    ),
    (
        "30 MB copied in by an extended COPY in one write",
        |client| {
            let rows = rows(30);
            let copy = [parse("", "COPY t FROM STDIN"), bind("", "", &[], 0), execute("", 0)].concat();
            play(client, &[turn(&[&query("TRUNCATE t")[..], &copy, &rows, COPY_DONE, SYNC], "ZZ")]);
            last_row(&play(client, &[turn(&[query("/* causeway: primary */ SELECT count(*) FROM t")], "Z")]))
        },
        "30720",
    ),
    (
        "100 MB copied out",
        |client| {
            let copied = play(
                client,
                &[turn(&[query("COPY (SELECT repeat('x', 999) FROM generate_series(1, 100000)) TO STDOUT")], "Z")],
            );
            copied.iter().filter(|(tag, _)| *tag == 'd').map(|(_, body)| body.len()).sum::<usize>().to_string()
        },
        "100000000",
    ),
];

/// Rows of 1 KiB as text, in one message.
fn rows(mib: usize) -> Vec<u8> {
    copy_data(&[&[b'x'; 1023][..], b"\n"].concat().repeat(mib << 10))
}

/// Stops reading until the proxy has filled all that lies between, again and again.
fn slow_reader(client: &mut RawClient) -> String {
    client.query("SELECT repeat('x', 998) FROM generate_series(1, 200000)");
    let (mut rows, mut bytes) = (0, 0);
    while let Some((tag, body)) = client.read() {
        match tag {
            'D' => {
                rows += 1;
                bytes += body.len();
                if rows % 20_000 == 0 {
                    thread::sleep(Duration::from_millis(50));
                }
            }
            'Z' => break,
            _ => {}
        }
    }
    format!("{rows} rows, {bytes} bytes")
}

fn parameter(client: &mut RawClient, name: &str) -> String {
    let value = vec![b'x'; 100_000_000];
    let steps = [
        turn(&[&parse(name, "SELECT length($1::text)")[..], SYNC], "Z"),
        turn(&[&bind("", name, &[&value], 0)[..], &execute("", 0), SYNC], "Z"),
    ];
    last_row(&play(client, &steps))
}

fn copy_in(client: &mut RawClient, message: &[u8], times: usize) -> String {
    play(client, &[turn(&[query("TRUNCATE t"), query("COPY t FROM STDIN")], "G")]);
    (0..times).for_each(|_| client.send(message));
    play(client, &[turn(&[COPY_DONE], "Z")]);
    last_row(&play(client, &[turn(&[query("/* causeway: primary */ SELECT count(*) FROM t")], "Z")]))
}

/// A database whose statements are not logged: other tests search the log.
pub fn quiet<'a>(env: &'a Env, test: &str) -> Database<'a> {
    let database = env.database(test);
    database.prepare(&format!("ALTER DATABASE {} SET log_statement = 'none'", database.name));
    database
}

fn passes_without_being_held(env: &Env) {
    let database = quiet(env, "bulk");
    database.prepare("CREATE UNLOGGED TABLE t (s text); ALTER TABLE t OWNER TO app");
    let proxy = Proxy::start(&env.shared().cluster, "");
    let target = proxy.target(&database.name);
    let mut wrong = Vec::new();
    for (name, work, want) in WORKS {
        let (growth, got) = growth_mib(&proxy, || work(&mut target.raw()));
        if got != *want || growth > MOST_MIB {
            wrong.push(format!("{name}: want {want}, got {}; {growth} MiB", &got[..got.len().min(100)]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn idle_clients_hold_no_memory(env: &Env) {
    const CLIENTS: usize = 10;
    let database = quiet(env, "idle");
    let proxy = Proxy::start(&env.shared().cluster, "");
    let target = proxy.target(&database.name);
    let value = vec![b'x'; 10 * MIB];
    let works: &[(&str, Vec<u8>)] = &[
        ("a long Query", query(format!("SELECT length('{}')", "x".repeat(10 * MIB)))),
        (
            "a long statement",
            [
                &parse("", format!("SELECT length('{}')", "x".repeat(10 * MIB)))[..],
                &bind("", "", &[], 0),
                &execute("", 0),
                SYNC,
            ]
            .concat(),
        ),
        (
            "a long parameter",
            [&parse("s", "SELECT length($1::text)")[..], &bind("", "s", &[&value], 0), &execute("", 0), SYNC].concat(),
        ),
        ("many messages", [&close_many(300_000)[..], &parse("", "SELECT 1"), SYNC].concat()),
    ];
    for (name, bytes) in works {
        let before = proxy.memory_mib();
        let mut clients: Vec<RawClient> = (0..CLIENTS).map(|_| target.raw()).collect();
        for client in &mut clients {
            client.send(bytes);
            assert!(tags(&client.read_to('Z')).ends_with('Z'), "{name}");
            // What is left of a batch goes with the next one.
            client.query("SELECT 1");
            client.read_to('Z');
        }
        let most = before + MOST_MIB;
        wait_for(Duration::from_secs(5), &format!("memory comes back after {name}: {before} MiB before"), || {
            proxy.memory_mib() < most
        });
    }
}

fn close_many(times: usize) -> Vec<u8> {
    crate::frames::close(b'P', "").repeat(times)
}
