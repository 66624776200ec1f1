//! What sessions see, and where, while replay stands still on one replica or on both.

use causeway::app::demo::cluster::LocalCluster;

use crate::frames;
use crate::harness::{Env, check};
use crate::proxy::Proxy;
use crate::raw::RawClient;
use crate::speech::{ask, extended, query, run, sync};

use super::stage::{
    DATABASE, LIMIT, PROTOCOLS, Step, WHERE, informed, pause, play, play_all, resume, said, started, tell,
};

const SETUP: &str = "
    CREATE TABLE t (n int); CREATE TABLE c (n int); CREATE SEQUENCE s;
    CREATE FUNCTION f_insert(int) RETURNS int LANGUAGE plpgsql AS $$BEGIN INSERT INTO t VALUES ($1); RETURN $1; END$$;
    CREATE FUNCTION f_liar(int) RETURNS int STABLE LANGUAGE plpgsql AS $$BEGIN PERFORM f_insert($1); RETURN $1; END$$;
    CREATE PROCEDURE p_insert(int) LANGUAGE plpgsql AS $$BEGIN INSERT INTO t VALUES ($1); COMMIT; END$$";

const CONF: &str = "max_prepared_transactions = 10\n";

/// A replica that stands still for long stays one that may be read from; and nobody waits for it for long.
const PATIENT: &str = "\n[routing]\nmax_lag = \"1h\"\nmax_lag_bytes = \"1GiB\"\n[probe]\ninterval = \"200ms\"\n";

/// Statements after each of which all that they have written is to be seen.
const WRITES: &[(&str, &[&str])] = &[
    ("INSERT", &["INSERT INTO t VALUES (1)"]),
    ("a transaction", &["BEGIN", "INSERT INTO t VALUES (1)", "COMMIT"]),
    ("COMMIT AND CHAIN", &["BEGIN", "INSERT INTO t VALUES (1)", "COMMIT AND CHAIN", "ROLLBACK"]),
    ("END", &["START TRANSACTION READ WRITE", "INSERT INTO t VALUES (1)", "END"]),
    ("a savepoint", &["BEGIN", "SAVEPOINT a", "INSERT INTO t VALUES (1)", "RELEASE a", "COMMIT"]),
    ("a function", &["SELECT f_insert(1)"]),
    ("a function that lies", &["SELECT f_liar(1)"]),
    ("DO", &["DO $$BEGIN INSERT INTO t VALUES (1); END$$"]),
    ("CALL", &["CALL p_insert(1)"]),
    ("COPY", &["COPY c FROM STDIN"]),
    ("WITH", &["WITH w AS (INSERT INTO t VALUES (1) RETURNING n) SELECT n FROM w"]),
    ("EXPLAIN ANALYZE", &["EXPLAIN ANALYZE INSERT INTO t VALUES (1)"]),
    ("DDL", &["CREATE TABLE made (n int)", "INSERT INTO c SELECT 1 FROM made", "DROP TABLE made"]),
    ("more DDL", &["ALTER TABLE c ADD x int", "ALTER TABLE c DROP x"]),
    ("two phases", &["BEGIN", "INSERT INTO t VALUES (1)", "PREPARE TRANSACTION 'p'", "COMMIT PREPARED 'p'"]),
    ("asynchronous", &["SET synchronous_commit = off", "INSERT INTO t VALUES (1)", "RESET synchronous_commit"]),
    ("PREPARE", &["PREPARE p AS INSERT INTO t VALUES (1)", "EXECUTE p", "DEALLOCATE p"]),
    ("a failed transaction behind", &["INSERT INTO t VALUES (1)", "BEGIN", "SELECT 1/0", "ROLLBACK"]),
    ("COMMIT of a cursor", &["BEGIN", "DECLARE x CURSOR FOR SELECT f_insert(1)", "FETCH x", "COMMIT"]),
];

/// The same in one message or batch.
fn batches() -> Vec<(&'static str, Vec<u8>)> {
    let insert = "INSERT INTO t VALUES (1)";
    let unnamed = |sql| [frames::parse("", sql), run("", &[])].concat();
    vec![
        ("several statements", query("INSERT INTO t VALUES (1); SELECT 1")),
        ("a transaction in a Query", query("BEGIN; INSERT INTO t VALUES (1); COMMIT")),
        ("half a Query", query("BEGIN; INSERT INTO t VALUES (1); COMMIT; SELECT 1/0")),
        ("a batch", [unnamed(insert), unnamed("SELECT 1"), sync()].concat()),
        ("a batch that reads first", [unnamed("SELECT count(*) FROM t"), unnamed(insert), sync()].concat()),
        ("a batch in steps", [unnamed(insert), frames::FLUSH.to_vec(), unnamed("SELECT 1"), sync()].concat()),
        (
            "a batch that reads first in steps",
            [unnamed("SELECT count(*) FROM t"), frames::FLUSH.to_vec(), unnamed(insert), sync()].concat(),
        ),
        (
            "a transaction in a batch",
            [unnamed("BEGIN"), unnamed(insert), unnamed("COMMIT"), unnamed("SELECT 1"), sync()].concat(),
        ),
        ("a function call", function_call()),
    ]
}

/// `f_insert(1)` by its oid, which is put in later.
fn function_call() -> Vec<u8> {
    let body = [&0_i32.to_be_bytes()[..], &0_i16.to_be_bytes(), &1_i16.to_be_bytes(), &1_i32.to_be_bytes(), b"1"];
    frames::message(b'F', &[body.concat(), 0_i16.to_be_bytes().to_vec()].concat())
}

const READ: &str = "SELECT (SELECT count(*) FROM t) || ' ' || (SELECT count(*) FROM c)";

fn truth(cluster: &LocalCluster) -> String {
    cluster.primary().sql(DATABASE, READ).unwrap()
}

/// Sends a batch and the read behind it without waiting; gives what the read says.
fn read_ahead(client: &mut RawClient, batch: &[u8], read: &[u8]) -> String {
    client.send(&[batch, read].concat());
    client.read_to('Z');
    said(&client.read_to('Z'))
}

/// Each write, then a read that must see it, by both protocols; gives the reads' markers.
fn write_and_read(cluster: &LocalCluster, proxy: &Proxy, name: &str, wrong: &mut Vec<String>) -> Vec<String> {
    let mut client = proxy.target(DATABASE).raw();
    let mut markers = Vec::new();
    let oid = cluster.primary().sql(DATABASE, "SELECT 'f_insert'::regproc::oid::int4").unwrap();
    let mut judge = |what: String, marker: String, got: String| {
        let want = truth(cluster);
        if got != want {
            wrong.push(format!("{name}: {what}: want {want}, got {got}"));
        }
        markers.push(marker);
    };
    let steps = WRITES.iter().flat_map(|write| PROTOCOLS.map(|protocol| (write, protocol)));
    for (number, ((what, steps), (protocol, frames))) in steps.enumerate() {
        for sql in *steps {
            let answer = said(&ask(&mut client, &frames(sql)));
            assert!(!answer.starts_with('!') || *sql == "SELECT 1/0", "{sql} ({protocol}): {answer}");
        }
        let marker = format!("/* {name} {number} */");
        let got = said(&ask(&mut client, &frames(&format!("{READ} {marker}"))));
        judge(format!("{what} ({protocol})"), marker, got);
    }
    for (number, (what, mut batch)) in batches().into_iter().enumerate() {
        if batch.first() == Some(&b'F') {
            batch[5..9].copy_from_slice(&oid.parse::<u32>().unwrap().to_be_bytes());
        }
        for (protocol, frames) in PROTOCOLS {
            let marker = format!("/* {name} batch {number} {protocol} */");
            ask(&mut client, &batch);
            let got = said(&ask(&mut client, &frames(&format!("{READ} {marker}"))));
            judge(format!("{what}, then {protocol}"), marker, got);
            let marker = format!("/* {name} ahead {number} {protocol} */");
            let got = read_ahead(&mut client, &batch, &frames(&format!("{READ} {marker}")));
            judge(format!("{what}, {protocol} ahead"), marker, got);
        }
    }
    markers
}

pub fn a_session_sees_what_it_has_written(_: &Env) {
    let cluster = started(SETUP, CONF);
    let proxy = informed(&cluster, PATIENT);
    let mut first = proxy.target(DATABASE).raw();
    let [one, two] = [0, 1].map(|index| &cluster.replicas()[index]);
    let mut wrong = Vec::new();
    let mut cases: Vec<((&str, String), bool)> = Vec::new();
    pause(one);
    let markers = write_and_read(&cluster, &proxy, "one stands still", &mut wrong);
    let moved = markers.iter().filter(|marker| cluster.ran_on(marker).unwrap().contains(&"replica2")).count();
    assert!(moved * 2 > markers.len(), "{moved} of {} reads ran on the replica that moves", markers.len());
    cases.extend(markers.into_iter().map(|marker| (("replica1", marker), false)));
    pause(two);
    let markers = write_and_read(&cluster, &proxy, "both stand still", &mut wrong);
    cases.extend(markers.into_iter().map(|marker| (("replica", marker), false)));
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    // Who does not mind reads there.
    for (number, (protocol, frames)) in PROTOCOLS.into_iter().enumerate() {
        let marker = format!("/* does not mind {protocol} */");
        ask(&mut first, &frames("INSERT INTO t VALUES (1)"));
        let hint = ["/* causeway: consistency=eventual */ ", ""][number];
        tell(&mut first, "SET causeway.consistency = 'eventual'");
        let got = said(&ask(&mut first, &frames(&format!("{hint}{READ} {marker}"))));
        tell(&mut first, "RESET causeway.consistency");
        assert_ne!(got, truth(&cluster), "{protocol}");
        cases.push((("replica", marker), true));
    }
    // What was refused on a replica was rescued: the function that lies is known after the first time.
    let ran = |(node, marker): &(&str, String)| cluster.ran_on(marker).unwrap().iter().any(|ran| ran.starts_with(node));
    // A replica that stands still is given guarded reads until it is known to stand still, and none of them counts.
    let astray = cases.iter().filter(|(case, mind)| !mind && ran(case)).count();
    let behind = proxy.metric("causeway_rescues_total", "behind");
    assert!(
        f64::from(u32::try_from(astray).unwrap()) <= behind,
        "{astray} reads on what stands still, {behind} of them not counted"
    );
    check(&cases.into_iter().filter(|(_, expected)| *expected).collect::<Vec<_>>(), ran);
    resume(one);
    resume(two);
}

/// So often has a node been asked what it has replayed in front of a read.
fn guards(cluster: &LocalCluster) -> usize {
    let logs = cluster.replicas().iter().map(|node| node.log().unwrap());
    logs.map(|log| memchr::memmem::find_iter(&log, b"fastpath function call").count()).sum()
}

pub fn who_only_reads_asks_nothing(_: &Env) {
    let cluster = started(SETUP, CONF);
    let proxy = informed(&cluster, "");
    let mut client = proxy.target(DATABASE).raw();
    let cost = || {
        let metric = |name| proxy.metric(name, "");
        let waits = metric("causeway_replay_polls_total") + metric("causeway_replay_wait_seconds_count");
        (metric("causeway_position_waiters_total"), format!("{waits} {}", guards(&cluster)))
    };
    let before = cost();
    for level in ["session", "eventual"] {
        tell(&mut client, &format!("SET causeway.consistency = '{level}'"));
        for (_, frames) in PROTOCOLS {
            for _ in 0..100 {
                assert_eq!(said(&ask(&mut client, &frames("SELECT count(*) FROM t"))), "0");
            }
            for sql in ["BEGIN READ ONLY", "SELECT count(*) FROM t", "COMMIT"] {
                ask(&mut client, &frames(sql));
            }
        }
    }
    let after = cost();
    assert_eq!(after.1, before.1, "polls and waits; guards");
    // The position of a primary that was in use until now is asked for once more.
    assert!(after.0 - before.0 < 2.0, "{before:?} {after:?}");
    // Who writes and never reads costs the questions that keep the position of a primary in use fresh, and no more.
    for _ in 0..50 {
        tell(&mut client, "INSERT INTO t VALUES (1)");
    }
    assert_eq!(cost().1, before.1, "polls and waits; guards");
}

pub fn no_session_goes_back(_: &Env) {
    const ROUNDS: i32 = 3;
    let cluster = started(SETUP, CONF);
    let proxy = informed(&cluster, PATIENT);
    for round in 1..=ROUNDS {
        let [still, moving] =
            [round % 2, 1 - round % 2].map(|index| &cluster.replicas()[index.unsigned_abs() as usize]);
        proxy.await_replicas(&cluster);
        pause(still);
        cluster.primary().sql(DATABASE, "INSERT INTO t VALUES (1)").unwrap();
        let rows = round.to_string();
        crate::harness::wait_for(LIMIT, "it is replayed", || {
            moving.sql(DATABASE, "SELECT count(*) FROM t").unwrap() == rows
        });
        // New sessions go where they like; keep some that have seen the new row.
        let mut sessions: Vec<RawClient> = Vec::new();
        while sessions.len() < 4 {
            let mut client = proxy.target(DATABASE).raw();
            if tell(&mut client, "SELECT count(*) FROM t") == rows {
                sessions.push(client);
            }
        }
        let token = tell(&mut sessions[0], "SHOW causeway.position");
        assert!(token.starts_with("cw1_"), "{token}");
        moving.kill9().unwrap();
        for (client, (_, frames)) in sessions.iter_mut().zip(PROTOCOLS.into_iter().cycle()) {
            let transaction: &[Step] = &[("BEGIN READ ONLY", "BEGIN"), ("SELECT count(*) FROM t", ""), ("COMMIT", "")];
            assert_eq!(said(&ask(client, &frames("SELECT count(*) FROM t"))), rows, "round {round}");
            assert_eq!(play(client, frames, transaction), [] as [String; 0]);
        }
        resume(still);
        moving.start().unwrap();
        cluster.catch_up().unwrap();
    }
}

/// An error of ours in the middle of a pipeline is what one of PostgreSQL's is.
pub fn a_refusal_ends_a_pipeline(_: &Env) {
    let cluster = started(SETUP, CONF);
    let proxy = informed(&cluster, PATIENT);
    let unnamed = |sql: &str| [frames::parse("", sql), run("", &[])].concat();
    let flush = || frames::FLUSH.to_vec();
    let insert = || unnamed("INSERT INTO t VALUES (1)");
    let refused = || unnamed("/* causeway: consistency=stong */ SELECT count(*) FROM t");
    for (what, begin, rest) in [
        ("by its Sync", "", vec![insert(), flush(), refused(), sync()]),
        ("by a Flush", "", vec![insert(), flush(), refused(), flush(), insert(), sync()]),
        ("at once", "", vec![refused(), flush(), insert(), sync()]),
        ("in a transaction", "BEGIN", vec![insert(), flush(), refused(), sync()]),
        ("by a Flush in a transaction", "BEGIN", vec![insert(), flush(), refused(), flush(), insert(), sync()]),
        ("at once in a transaction", "BEGIN", vec![refused(), flush(), insert(), sync()]),
        ("on a replica", "BEGIN READ ONLY", vec![unnamed(WHERE), flush(), refused(), sync()]),
    ] {
        let mut client = proxy.target(DATABASE).raw();
        if !begin.is_empty() {
            assert_eq!(tell(&mut client, begin), "BEGIN");
        }
        client.send(&rest.concat());
        let answer = client.read_to('Z');
        assert_eq!(crate::speech::sqlstate(&answer), "22023", "{what}");
        let status = if begin.is_empty() { b"I" } else { b"E" };
        assert_eq!(answer.last(), Some(&('Z', status.to_vec())), "{what}");
        if !begin.is_empty() {
            assert_eq!(tell(&mut client, "COMMIT"), "ROLLBACK", "{what}");
        }
        // Nothing is left of it, and the session goes on.
        assert_eq!(tell(&mut client, "SELECT count(*) FROM t"), "0", "{what}");
        assert_eq!(said(&ask(&mut client, &extended("SELECT count(*) FROM t"))), "0", "{what}");
        assert_eq!(truth(&cluster), "0 0", "{what}");
    }
}

const READ_ONLY: &[(&str, &[Step])] = &[
    (
        "READ ONLY goes to a replica",
        &[("BEGIN READ ONLY", "BEGIN"), (WHERE, "replica"), ("SELECT count(*) FROM t", "0"), ("COMMIT", "COMMIT")],
    ),
    (
        "REPEATABLE READ too",
        &[("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY", "BEGIN"), (WHERE, "replica"), ("ROLLBACK", "ROLLBACK")],
    ),
    ("SERIALIZABLE does not", &[("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", "BEGIN"), (WHERE, "primary")]),
    (
        "all of them SERIALIZABLE",
        &[
            ("SET default_transaction_isolation = 'serializable'", "SET"),
            ("BEGIN READ ONLY", "BEGIN"),
            (WHERE, "primary"),
            ("COMMIT", "COMMIT"),
            (WHERE, "primary"),
        ],
    ),
    (
        "level primary",
        &[
            ("SET causeway.consistency = 'primary'", "SET"),
            ("BEGIN READ ONLY", "BEGIN"),
            (WHERE, "primary"),
            ("SET LOCAL causeway.consistency = 'eventual'", "SET"),
            (WHERE, "primary"),
            ("COMMIT", "COMMIT"),
        ],
    ),
    ("a comment", &[("/* causeway: primary */ BEGIN READ ONLY", "BEGIN"), (WHERE, "primary"), ("END", "COMMIT")]),
    (
        "what a replica refuses",
        &[
            ("BEGIN READ ONLY", "BEGIN"),
            (WHERE, "replica"),
            ("LISTEN x", "!0A000 READ ONLY transaction on a replica|SET LOCAL"),
            (WHERE, "!25P02"),
            ("ROLLBACK", "ROLLBACK"),
            ("BEGIN READ ONLY", "BEGIN"),
            ("SET LOCAL work_mem = '1MB'", "SET"),
            ("SHOW work_mem", "1MB"),
            ("SET LOCAL causeway.consistency = 'primary'", "!0A000 cannot go to the primary|causeway: primary"),
            ("ROLLBACK", "ROLLBACK"),
            ("BEGIN READ ONLY", "BEGIN"),
            ("SELECT set_config('causeway.consistency', 'strong', true)", "!0A000 SET LOCAL with a literal|SET LOCAL"),
            ("ROLLBACK", "ROLLBACK"),
            ("BEGIN READ ONLY", "BEGIN"),
            ("SET LOCAL causeway.after = 'x'", "!22023 \"causeway.after\"|"),
            ("COMMIT", "ROLLBACK"),
            ("BEGIN READ ONLY", "BEGIN"),
            ("INSERT INTO t VALUES (1)", "!25006 cannot execute INSERT in a read-only transaction|"),
            ("ROLLBACK", "ROLLBACK"),
            ("BEGIN READ ONLY", "BEGIN"),
            ("SET TRANSACTION READ WRITE", "!0A000 recovery|"),
            ("ROLLBACK", "ROLLBACK"),
            ("BEGIN READ ONLY", "BEGIN"),
            ("SELECT nextval('s')", "!25006"),
            ("ROLLBACK", "ROLLBACK"),
            (WHERE, "replica"),
        ],
    ),
    (
        "it can become stricter",
        &[
            ("BEGIN READ ONLY", "BEGIN"),
            ("SET LOCAL causeway.consistency = 'strong'", "SET"),
            ("SHOW causeway.consistency", "strong"),
            (WHERE, "replica"),
            ("SET LOCAL causeway.consistency = 'bounded'", "SET"),
            ("SET LOCAL causeway.max_staleness = '10s'", "SET"),
            (WHERE, "replica"),
            ("COMMIT", "COMMIT"),
            ("SHOW causeway.consistency", "session"),
        ],
    ),
];

/// In transactions that began on a replica which stands still by now.
fn what_cannot_be_seen_is_said(cluster: &LocalCluster, proxy: &Proxy) {
    for (setting, says) in [
        ("consistency = 'strong'", "\"strong\""),
        ("max_staleness = '1ms'; SET LOCAL causeway.consistency = 'bounded'", "\"bounded\""),
    ] {
        let (mut client, _) =
            proxy.target(DATABASE).raw_with(&[("causeway.causal_wait", "200ms"), ("causeway.consistency", "eventual")]);
        assert_eq!(tell(&mut client, "BEGIN READ ONLY"), "BEGIN");
        assert_eq!(tell(&mut client, WHERE), "replica");
        cluster.primary().sql(DATABASE, "INSERT INTO t VALUES (1)").unwrap();
        for set in format!("SET LOCAL causeway.{setting}").split("; ") {
            assert_eq!(tell(&mut client, set), "SET");
        }
        let got = tell(&mut client, "SELECT count(*) FROM t");
        assert!(got.starts_with("!57P03") && got.contains(says) && got.contains("begin it anew"), "{got}");
        assert_eq!(tell(&mut client, "SELECT 1").get(..6), Some("!25P02"));
        assert_eq!(tell(&mut client, "ROLLBACK"), "ROLLBACK");
        // The same by steps of a pipeline.
        assert_eq!(tell(&mut client, "BEGIN READ ONLY"), "BEGIN");
        for set in format!("SET LOCAL causeway.{setting}").split("; ") {
            assert_eq!(tell(&mut client, set), "SET");
        }
        let read = |sql| [frames::parse("", sql), run("", &[])].concat();
        client.send(&[read(WHERE), frames::FLUSH.to_vec()].concat());
        let first = client.read().unwrap();
        client.send(&[read("SELECT count(*) FROM t"), sync()].concat());
        let rest = said(&[vec![first], client.read_to('Z')].concat());
        assert!(rest.starts_with("!57P03") && rest.contains(says), "{rest}");
        tell(&mut client, "ROLLBACK");
    }
}

pub fn transactions_on_replicas(_: &Env) {
    let cluster = started(SETUP, CONF);
    let proxy = informed(&cluster, PATIENT);
    let connect = || proxy.target(DATABASE).raw();
    play_all(connect, READ_ONLY);
    let write = || cluster.primary().sql(DATABASE, "INSERT INTO t VALUES (1)").map(drop).unwrap();
    let count = |client: &mut RawClient| tell(client, "SELECT count(*) FROM t");
    // One snapshot, whatever is written.
    let mut client = connect();
    tell(&mut client, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    assert_eq!(count(&mut client), "0");
    write();
    cluster.catch_up().unwrap();
    assert_eq!((count(&mut client), tell(&mut client, WHERE)), ("0".to_owned(), "replica".to_owned()));
    tell(&mut client, "COMMIT");
    assert_eq!(count(&mut client), "1");
    // Strong reads in a transaction that began before, each of which sees what was committed before it.
    for (expected, (_, frames)) in (2..).zip(PROTOCOLS) {
        ask(&mut client, &frames("BEGIN READ ONLY"));
        ask(&mut client, &frames("SET LOCAL causeway.consistency = 'strong'"));
        write();
        let got = said(&ask(&mut client, &frames("SELECT count(*) FROM t")));
        assert_eq!((got, tell(&mut client, WHERE)), (expected.to_string(), "replica".to_owned()));
        ask(&mut client, &frames("COMMIT"));
    }
    for replica in cluster.replicas() {
        pause(replica);
    }
    what_cannot_be_seen_is_said(&cluster, &proxy);
    // A transaction that minds less says so as it begins, and may mind more later.
    for (_, frames) in PROTOCOLS {
        let (mut client, _) = proxy.target(DATABASE).raw_with(&[("causeway.causal_wait", "200ms")]);
        let careless: &[Step] = &[
            ("INSERT INTO t VALUES (1)", "INSERT 0 1"),
            ("/* causeway: consistency=eventual */ BEGIN READ ONLY", "BEGIN"),
            (WHERE, "replica"),
            ("SET LOCAL causeway.consistency = 'session'", "SET"),
            (WHERE, "!57P03 \"session\"|begin it anew"),
            ("ROLLBACK", "ROLLBACK"),
        ];
        assert_eq!(play(&mut client, frames, careless), [] as [String; 0]);
    }
    // What was written before, a transaction sees at its session's level.
    let mut client = connect();
    for frames in [query, extended] {
        let begin: &[Step] = &[
            ("INSERT INTO t VALUES (1)", "INSERT 0 1"),
            ("BEGIN READ ONLY", "BEGIN"),
            (WHERE, "primary"),
            ("END", "COMMIT"),
        ];
        assert_eq!(play(&mut client, frames, begin), [] as [String; 0]);
    }
}
