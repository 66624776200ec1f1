//! Cancel requests reach the query that they mean, and no other.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use crate::frames::{play, query, turn};
use crate::harness::{Database, Env, PASSWORD, Test, USER, wait_for};
use crate::proxy::Proxy;
use crate::raw::{Message, RawClient, field};
use crate::target::Target;

pub const TESTS: &[Test] = &[
    ("cancel::stops_what_runs", stops_what_runs),
    ("cancel::stops_waiting_for_a_server", stops_waiting_for_a_server),
    ("cancel::of_a_stranger_or_at_rest_does_nothing", of_a_stranger_or_at_rest_does_nothing),
    ("cancel::never_hits_another_client", never_hits_another_client),
    ("cancel::of_a_transaction_never_hits_the_next", of_a_transaction_never_hits_the_next),
];

/// A client that can be cancelled: process id and secret.
pub struct Cancellable {
    pub client: RawClient,
    pub key: Vec<u8>,
}

pub fn log_in(target: &Target, version: [u8; 4]) -> Cancellable {
    let mut client = RawClient::connect(&target.host, target.port);
    client.startup_of(version, &[("user", USER), ("database", &target.database)]);
    let greeting = client.prove(PASSWORD);
    let key = greeting.into_iter().find(|(tag, _)| *tag == 'K').unwrap().1;
    Cancellable { client, key }
}

/// Returns when the proxy has closed the connection, which it does when the node has.
pub fn cancel(target: &Target, key: &[u8]) {
    let mut connection = std::net::TcpStream::connect((&*target.host, target.port)).unwrap();
    let length = u32::try_from(8 + key.len()).unwrap().to_be_bytes();
    let request = [&length, &80_877_102_u32.to_be_bytes()[..], key].concat();
    std::io::Write::write_all(&mut connection, &request).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(connection.read(&mut [0]).unwrap(), 0, "a cancel request is not answered");
}

pub fn error_code(transcript: &[Message]) -> String {
    transcript.iter().find(|(tag, _)| *tag == 'E').map_or(String::new(), |(_, body)| field(body, b'C'))
}

pub fn runs_somewhere(env: &Env, marker: &str) -> bool {
    let active = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%{marker}%' AND pid <> pg_backend_pid()"
    );
    env.shared().cluster.nodes().iter().any(|node| node.sql("postgres", &active).unwrap() != "0")
}

pub fn start<'a>(env: &'a Env, test: &str, settings: &str) -> (Database<'a>, Proxy, Target) {
    let database = env.database(test);
    let proxy = Proxy::start(&env.shared().cluster, settings);
    let target = proxy.target(&database.name);
    (database, proxy, target)
}

fn stops_what_runs(env: &Env) {
    let (_database, _proxy, target) = start(env, "cancel", "");
    let primary = "/* causeway: primary */ SELECT pg_sleep(60), 'cancel-on-primary'";
    for (version, sql, marker, node) in [
        ([0, 3, 0, 0], primary, "cancel-on-primary", "primary"),
        ([0, 3, 0, 2], "SELECT pg_sleep(60), 'cancel-on-replica'", "cancel-on-replica", "replica"),
        ([0, 3, 0, 0], "BEGIN; SELECT pg_sleep(60), 'cancel-in-block'", "cancel-in-block", "primary"),
    ] {
        let Cancellable { mut client, key } = log_in(&target, version);
        assert_eq!(key.len(), if version[3] == 0 { 8 } else { 36 });
        client.query(sql);
        wait_for(Duration::from_secs(10), "the query runs", || runs_somewhere(env, marker));
        cancel(&target, &key);
        let answer = client.read_to('Z');
        assert_eq!(error_code(&answer), "57014", "{sql}");
        let ran_on = env.shared().cluster.ran_on(marker).unwrap();
        assert!(ran_on.iter().any(|name| name.starts_with(node)), "{sql} ran on {ran_on:?}");
        client.query("ROLLBACK; SELECT 1");
        assert_eq!(error_code(&client.read_to('Z')), "");
    }
}

fn stops_waiting_for_a_server(env: &Env) {
    let (_database, proxy, target) = start(env, "queue", "[pool]\ndefault_pool_size = 1\n");
    let mut holder = target.raw();
    play(&mut holder, &[turn(&[query("BEGIN")], "Z")]);
    let Cancellable { mut client, key } = log_in(&target, [0, 3, 0, 0]);
    client.query("BEGIN");
    wait_for(Duration::from_secs(5), "the client waits", || {
        proxy.http("/metrics").lines().any(|line| line.contains("waiting") && line.ends_with(" 1"))
    });
    cancel(&target, &key);
    assert_eq!(error_code(&client.read_to('Z')), "57014");
    play(&mut holder, &[turn(&[query("COMMIT")], "Z")]);
    let answer = play(&mut client, &[turn(&[query("BEGIN; COMMIT")], "Z")]);
    assert_eq!(error_code(&answer), "");
}

fn of_a_stranger_or_at_rest_does_nothing(env: &Env) {
    let (_database, proxy, target) = start(env, "stranger", "");
    let Cancellable { mut client, key } = log_in(&target, [0, 3, 0, 2]);
    for change in [0, 5, 20, 35] {
        let mut wrong = key.clone();
        wrong[change] ^= 1;
        client.query("SELECT pg_sleep(0.05)");
        cancel(&target, &wrong);
        cancel(&target, &wrong[..8]);
        assert_eq!(error_code(&client.read_to('Z')), "");
    }
    let mut transaction = log_in(&target, [0, 3, 0, 0]);
    for sql in ["SELECT 1", "BEGIN", "SELECT 2", "COMMIT"] {
        assert_eq!(error_code(&play(&mut transaction.client, &[turn(&[query(sql)], "Z")])), "");
        cancel(&target, &transaction.key);
    }
    assert!(proxy.http("/metrics").contains("causeway_cancel"));
}

/// Two clients take turns with the only server; one is cancelled at every moment of its queries and between them.
fn never_hits_another_client(env: &Env) {
    race(env, "race", &["SELECT pg_sleep(0.002)"]);
}

fn of_a_transaction_never_hits_the_next(env: &Env) {
    race(env, "race_block", &["BEGIN", "SELECT pg_sleep(0.002)", "ROLLBACK"]);
}

fn race(env: &Env, test: &str, victim: &'static [&'static str]) {
    const TIME: Duration = Duration::from_secs(4);
    let (_database, proxy, target) = start(env, test, "[pool]\ndefault_pool_size = 1\n[routing]\nsplit = false\n");
    let Cancellable { mut client, key } = log_in(&target, [0, 3, 0, 0]);
    let until = Instant::now() + TIME;
    let (hits, innocent) = thread::scope(|scope| {
        let cancelling = scope.spawn(|| {
            while Instant::now() < until {
                cancel(&target, &key);
            }
        });
        let bystander = scope.spawn(|| {
            let mut other = target.raw();
            let mut codes = Vec::new();
            while Instant::now() < until {
                codes.push(error_code(&play(&mut other, &[turn(&[query("SELECT pg_sleep(0.002)")], "Z")])));
            }
            codes
        });
        let mut hits = 0;
        while Instant::now() < until {
            for sql in victim {
                let code = error_code(&play(&mut client, &[turn(&[query(sql)], "Z")]));
                assert!(["", "57014", "25P02"].contains(&code.as_str()), "{code}");
                hits += usize::from(code == "57014");
            }
        }
        cancelling.join().unwrap();
        (hits, bystander.join().unwrap())
    });
    assert!(hits > 10, "only {hits} queries were cancelled: the race was not run");
    let wrong: Vec<_> = innocent.iter().filter(|code| !code.is_empty()).collect();
    assert!(wrong.is_empty(), "of {} queries of the other client: {wrong:?}; {}", innocent.len(), proxy.log());
    assert!(innocent.len() > 5, "the other client had its turn only {} times", innocent.len());
}
