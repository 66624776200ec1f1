//! Cancel requests at every moment of a session, and clients that leave while something runs for them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use causeway::app::demo::cluster::ClusterOptions;

use crate::cancel::{Cancellable, cancel, error_code, log_in, runs_somewhere, start};
use crate::frames::{COPY_DONE, SYNC, TERMINATE, bind, copy_data, execute, extended, parse, play, query, turn};
use crate::harness::{Env, Test, cluster, wait_for};
use crate::proxy::Proxy;
use crate::raw::{RawClient, tags};
use crate::speech::seen;
use crate::target::Target;

pub const TESTS: &[Test] = &[
    ("wire_cancel::of_copies", of_copies),
    ("wire_cancel::of_a_client_that_waits_for_a_new_server", of_a_client_that_waits_for_a_new_server),
    ("wire_cancel::storm_hits_only_who_asked", storm_hits_only_who_asked),
    ("wire_cancel::who_leaves_is_noticed_at_once", who_leaves_is_noticed_at_once),
    ("wire_cancel::a_write_with_a_good_bye_is_done", a_write_with_a_good_bye_is_done),
];

const LIMIT: Duration = Duration::from_secs(10);
const PROTOCOL_3_0: [u8; 4] = [0, 3, 0, 0];

fn of_copies(env: &Env) {
    let (database, _proxy, through) = start(env, "cancel_copy", "");
    database.prepare("CREATE TABLE t (n int); GRANT ALL ON t TO app");
    let rows = copy_data(&b"1\n".repeat(1000));
    let unsynced = [&parse("", "COPY t FROM STDIN")[..], &bind("", "", &[], 0), &execute("", 0), SYNC].concat();
    let heard = |target: &Target| {
        let Cancellable { mut client, key } = log_in(target, PROTOCOL_3_0);
        let mut heard = Vec::new();
        for (copy, rest) in [(query("COPY t FROM STDIN"), &b""[..]), (unsynced.clone(), SYNC)] {
            play(&mut client, &[turn(&[&copy], "G")]);
            client.send(&rows);
            // The node looks at it when the next row comes.
            cancel(target, &key);
            let answer = play(&mut client, &[turn(&[&rows[..], COPY_DONE, rest], "Z")]);
            assert_eq!(error_code(&answer), "57014");
            // The row at which it was depends on the moment.
            heard.push(seen(&answer));
        }
        let out = "COPY (SELECT repeat('x', 1000), generate_series(1, 100000000)) TO STDOUT";
        for copy in [query(out), extended(out)] {
            play(&mut client, &[turn(&[copy], "ddd")]);
            cancel(target, &key);
            let rest = client.read_to('Z');
            assert_eq!(error_code(&rest), "57014", "{}", tags(&rest[rest.len() - 3..]));
        }
        client.query("SELECT 'in order'");
        heard.push(seen(&client.read_to('Z')));
        heard
    };
    assert_eq!(heard(&database.node(0)), heard(&through));
}

fn of_a_client_that_waits_for_a_new_server(_: &Env) {
    let cluster = cluster(&ClusterOptions { replicas: 0, ..ClusterOptions::default() });
    cluster.create_database("shop", "app").unwrap();
    let proxy = Proxy::start(&cluster, "[probe]\ntimeout = \"1m\"\n");
    let target = proxy.target("shop");
    let mut holder = target.raw();
    play(&mut holder, &[turn(&[query("BEGIN")], "Z")]);
    let Cancellable { mut client, key } = log_in(&target, PROTOCOL_3_0);
    cluster.primary().sigstop().unwrap();
    let done = AtomicBool::new(false);
    let codes = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                cancel(&target, &key);
            }
        });
        let codes: Vec<_> = [query("SELECT 1"), extended("SELECT 2"), query("BEGIN")]
            .map(|batch| error_code(&play(&mut client, &[turn(&[batch], "Z")])))
            .into();
        done.store(true, Ordering::Relaxed);
        codes
    });
    cluster.primary().sigcont().unwrap();
    assert_eq!(codes, ["57014"; 3]);
    let answer = play(&mut client, &[turn(&[query("SELECT 'in order'")], "Z")]);
    assert_eq!(tags(&answer), "T D C Z");
}

/// Eight clients share two servers of each node; four are cancelled at any moment, the others never asked.
fn storm_hits_only_who_asked(env: &Env) {
    const TIME: Duration = Duration::from_secs(3);
    let (_database, proxy, target) = start(env, "storm", "[pool]\ndefault_pool_size = 2\n");
    let until = Instant::now() + TIME;
    let batches = [
        query("SELECT pg_sleep(0.001)"),
        query("/* causeway: primary */ SELECT pg_sleep(0.002)"),
        extended("SELECT pg_sleep(0.001)"),
        query("BEGIN; SELECT pg_sleep(0.001)"),
        query("COMMIT"),
    ];
    let work = |client: &mut RawClient| {
        let mut codes = Vec::new();
        while Instant::now() < until {
            for batch in &batches {
                codes.push(error_code(&play(client, &[turn(&[batch], "Z")])));
            }
        }
        codes
    };
    let (victims, keys): (Vec<_>, Vec<_>) = std::iter::repeat_with(|| log_in(&target, PROTOCOL_3_0))
        .map(|victim| (victim.client, victim.key))
        .take(4)
        .unzip();
    let work = &work;
    let (asked, innocent) = thread::scope(|scope| {
        let asked: Vec<_> = victims.into_iter().map(|mut client| scope.spawn(move || work(&mut client))).collect();
        let innocent: Vec<_> = (0..4).map(|_| scope.spawn(|| work(&mut target.raw()))).collect();
        for _ in 0..2 {
            scope.spawn(|| {
                while Instant::now() < until {
                    cancel(&target, &keys[fastrand::usize(..keys.len())]);
                }
            });
        }
        let all = |workers: Vec<thread::ScopedJoinHandle<'_, Vec<String>>>| {
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
        };
        (all(asked), all(innocent))
    });
    let hits = asked.iter().filter(|code| *code == "57014").count();
    assert!(hits > 20, "only {hits} of {} queries were cancelled: the race was not run", asked.len());
    let other: Vec<_> = asked.iter().filter(|code| !["", "57014", "25P02"].contains(&code.as_str())).collect();
    assert!(other.is_empty(), "{other:?}; {}", proxy.log());
    let wrong: Vec<_> = innocent.iter().filter(|code| !code.is_empty()).collect();
    assert!(wrong.is_empty(), "of {} batches of the others: {wrong:?}", innocent.len());
}

fn who_leaves_is_noticed_at_once(env: &Env) {
    let (_database, proxy, target) = start(env, "leaves", "[pool]\ndefault_pool_size = 2\n");
    let sleep = |marker: &str| format!("SELECT pg_sleep(60), 'leave-{marker}'");
    let cases = [
        ("replica", query(sleep("replica"))),
        ("primary", query(format!("/* causeway: primary */ {}", sleep("primary")))),
        ("block", query(format!("BEGIN; {}", sleep("block")))),
        ("extended", extended(&sleep("extended"))),
        ("flush", [parse("", sleep("flush")), bind("", "", &[], 0), execute("", 0), b"H\0\0\0\x04".to_vec()].concat()),
        ("ahead", [query(sleep("ahead")), query("SELECT 'next'")].concat()),
        ("good-bye", [query(sleep("good-bye")), TERMINATE.to_vec()].concat()),
        ("copy", query("COPY (SELECT pg_sleep(60), 'leave-copy') TO STDOUT")),
    ];
    for (marker, batch) in cases {
        let marker = format!("leave-{marker}");
        let mut client = target.raw();
        client.send(&batch);
        wait_for(LIMIT, "the statement runs", || runs_somewhere(env, &marker));
        drop(client);
        wait_for(Duration::from_secs(3), &marker, || !runs_somewhere(env, &marker));
    }
    wait_for(LIMIT, "no client is left", || proxy.metric("causeway_clients ", "") == 0.0);
    assert_eq!(target.psql("SELECT 'in order'"), "in order");
}

/// A client that sends a write and leaves meant it: on the node it would be done.
fn a_write_with_a_good_bye_is_done(env: &Env) {
    let (database, _proxy, through) = start(env, "good_bye", "");
    database.prepare("CREATE TABLE t (n int); GRANT ALL ON t TO app");
    for (target, number) in [(database.node(0), 1), (through, 2)] {
        let mut client = target.raw();
        let insert = format!("INSERT INTO t SELECT {number} FROM pg_sleep(0.3)");
        client.send(&[query(&insert), TERMINATE.to_vec()].concat());
        drop(client);
        let count = format!("SELECT count(*) FROM t WHERE n = {number}");
        wait_for(LIMIT, &insert, || database.node(0).psql(&count) == "1");
    }
}
