//! However much passes, and however slowly, the proxy holds a few buffers of it.

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use crate::bulk::{growth_mib, quiet};
use crate::frames::{COPY_DONE, SYNC, bind, copy_data, execute, parse, play, query, turn};
use crate::harness::{Env, Test};
use crate::proxy::Proxy;
use crate::raw::{RawClient, tags};
use crate::speech::value;

pub const TESTS: &[Test] = &[
    ("wire_memory::stays_flat_for_slow_readers", stays_flat_for_slow_readers),
    ("wire_memory::stays_flat_for_slow_servers", stays_flat_for_slow_servers),
    ("wire_memory::takes_a_byte_at_a_time", takes_a_byte_at_a_time),
];

const MOST_MIB: u64 = 6;

/// Megabytes that pass in each test; more of them with this in the environment, to measure.
fn megabytes() -> usize {
    std::env::var("CAUSEWAY_TEST_MEGABYTES").map_or(60, |text| text.parse().unwrap())
}

/// Reads slowly at first, so that all that lies between is full, then to the first message with `tag`.
fn read_slowly(client: &mut RawClient, tag: char) -> usize {
    thread::sleep(Duration::from_millis(300));
    let mut bytes = 0;
    while let Some((got, body)) = client.read() {
        bytes += body.len();
        if got == tag {
            break;
        }
    }
    bytes
}

fn stays_flat_for_slow_readers(env: &Env) {
    let megabytes = megabytes();
    let database = quiet(env, "slow_readers");
    let proxy = Proxy::start(&env.shared().cluster, "");
    let target = proxy.target(&database.name);
    target.psql("SELECT 1");
    let rows = format!("SELECT repeat('x', 9990) FROM generate_series(1, {})", megabytes * 100);
    let row = format!("SELECT repeat('x', {})", megabytes.min(400) * 1_000_000);
    let wide = [&parse("", &row)[..], &bind("", "", &[], 1), &execute("", 0), SYNC].concat();
    let copy = format!("COPY ({rows}) TO STDOUT");
    let primary = format!("/* causeway: primary */ {rows}");
    for (name, ask) in
        [("rows", query(&rows)), ("rows of the primary", query(&primary)), ("one row", wide), ("copied", query(&copy))]
    {
        let mut client = target.raw();
        let (growth, bytes) = growth_mib(&proxy, || {
            client.send(&ask);
            read_slowly(&mut client, 'Z')
        });
        assert!(bytes >= megabytes.min(400) * 990_000, "{name}: {bytes} bytes");
        assert!(growth <= MOST_MIB, "{name}: {growth} MiB");
        println!("{name}: {bytes} bytes, {growth} MiB more");
    }
}

/// A lock holds the node up before the COPY begins, and another one at its first row.
fn stays_flat_for_slow_servers(env: &Env) {
    let megabytes = megabytes();
    let database = quiet(env, "slow_servers");
    database.prepare(
        "CREATE UNLOGGED TABLE t (s text); CREATE UNLOGGED TABLE held (s text); GRANT ALL ON t, held TO app; \
         CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(7); \
         RETURN NULL; END $$; CREATE TRIGGER hold BEFORE INSERT ON held FOR EACH STATEMENT EXECUTE FUNCTION hold()",
    );
    let proxy = Proxy::start(&env.shared().cluster, "");
    let target = proxy.target(&database.name);
    target.psql("SELECT 1");
    let rows = copy_data(&[&[b'x'; 1023][..], b"\n"].concat().repeat(1 << 10));
    for table in ["t", "held"] {
        for extended in [false, true] {
            let (mut holder, mut client) = (database.node(0).raw(), target.raw());
            let lock = "BEGIN; SELECT pg_advisory_xact_lock(7); LOCK TABLE t";
            play(&mut holder, &[turn(&[query(lock)], "Z")]);
            let copy = format!("COPY {table} FROM STDIN");
            let (begin, end) = if extended {
                ([&parse("", &copy)[..], &bind("", "", &[], 0), &execute("", 0)].concat(), SYNC)
            } else {
                (query(&copy), &b""[..])
            };
            let (growth, answer) = growth_mib(&proxy, || {
                thread::scope(|scope| {
                    scope.spawn(|| {
                        // By then the client has filled all that lies between.
                        thread::sleep(Duration::from_millis(300));
                        holder.query("COMMIT");
                        holder.read_to('Z');
                    });
                    client.send(&begin);
                    (0..megabytes).for_each(|_| client.send(&rows));
                    client.send(&[COPY_DONE, end].concat());
                    client.read_to('Z')
                })
            });
            let complete = answer.iter().find(|(tag, _)| *tag == 'C').map(|(_, body)| body.clone());
            let want = format!("COPY {}\0", megabytes << 10).into_bytes();
            assert_eq!(complete, Some(want), "{}", tags(&answer));
            assert!(growth <= MOST_MIB, "{copy}, extended: {extended}: {growth} MiB");
            println!("{copy}, extended: {extended}: {growth} MiB more");
            database.prepare(&format!("TRUNCATE {table}"));
        }
    }
}

fn takes_a_byte_at_a_time(env: &Env) {
    let database = env.database("bytes");
    database.prepare("CREATE TABLE t (s text); GRANT ALL ON t TO app");
    let target = env.proxy().target(&database.name);
    let mut client = target.raw();
    let copy = [query("COPY t FROM STDIN"), copy_data(b"one\ntwo\nthree\n"), COPY_DONE.to_vec()].concat();
    let select = "/* causeway: primary */ SELECT string_agg(s, ',') FROM t";
    let batches =
        [copy, query(select), [&parse("", select)[..], &bind("", "", &[], 0), &execute("", 0), SYNC].concat()];
    for (batch, want) in batches.iter().zip([None, Some("one,two,three"), Some("one,two,three")]) {
        for byte in batch {
            client.send(&[*byte]);
        }
        assert_eq!(value(&client.read_to('Z')).as_deref(), want);
    }

    // The same for the start of a session.
    let mut stream = std::net::TcpStream::connect((&*target.host, target.port)).unwrap();
    for byte in b"\0\0\0\x08\x04\xd2\x16\x2f" {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"N");
}
