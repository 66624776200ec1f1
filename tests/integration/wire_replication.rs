//! Replication connections: PostgreSQL's own programs get from the proxy what a node gives them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use causeway::app::demo::cluster::ClusterOptions;
use nix::sys::signal::Signal;

use crate::cancel::{cancel, error_code};
use crate::frames::{FLUSH, TERMINATE, message, query};
use crate::harness::{Env, PASSWORD, Test, cluster, wait_for};
use crate::proxy::{Process, Proxy};
use crate::raw::{Message, RawClient, field, tags};
use crate::speech::{seen, value};
use crate::target::Target;

pub const TESTS: &[Test] = &[
    ("wire_replication::programs_of_postgresql", programs_of_postgresql),
    ("wire_replication::commands_answer_as_on_the_node", commands_answer_as_on_the_node),
    ("wire_replication::who_may_not_is_told", who_may_not_is_told),
    ("wire_replication::streams_end_with_a_word", streams_end_with_a_word),
];

const REPLICATOR: &str = "replicator";
const LIMIT: Duration = Duration::from_secs(20);

fn allow(text: String) -> String {
    text + &format!("[users.{REPLICATOR}]\npassword = \"{PASSWORD}\"\nreplication = true\n")
}

fn replicator(target: &Target, command: &mut Command) {
    target.lead(command);
    command.env("PGUSER", REPLICATOR).env_remove("PGDATABASE");
}

/// What the program prints; it must succeed.
fn run(target: &Target, program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    replicator(target, command.args(arguments));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn connect(target: &Target, parameters: &[(&str, &str)]) -> (RawClient, Vec<Message>) {
    let mut client = RawClient::connect(&target.host, target.port);
    client.startup(&[&[("user", REPLICATOR)][..], parameters].concat());
    let greeting = client.try_prove(PASSWORD);
    (client, greeting)
}

fn programs_of_postgresql(_: &Env) {
    let cluster = cluster(&ClusterOptions { replicas: 1, ..ClusterOptions::default() });
    cluster.create_role(REPLICATOR, PASSWORD, "REPLICATION").unwrap();
    cluster.create_database("shop", REPLICATOR).unwrap();
    let proxy = Proxy::start_as(&cluster, allow);
    let target = proxy.target("shop");
    let primary = |sql: &str| cluster.primary().sql("shop", sql).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();

    primary("CREATE TABLE t AS SELECT n, repeat('x', 1000) AS s FROM generate_series(1, 20000) n");
    let backup = path("backup");
    run(&target, "pg_basebackup", &["-D", &backup, "-X", "stream", "-c", "fast"]);
    let file = primary("SELECT pg_relation_filepath('t')");
    let bytes: u64 = primary("SELECT pg_relation_size('t')").parse().unwrap();
    assert_eq!(std::fs::metadata(Path::new(&backup).join(file)).unwrap().len(), bytes);
    assert!(Path::new(&backup).join("backup_manifest").exists());

    let identify = run(&target, "psql", &["-XAt", "dbname=shop replication=database", "-c", "IDENTIFY_SYSTEM"]);
    let node = format!("{}|1|", primary("SELECT system_identifier FROM pg_control_system()"));
    assert!(identify.starts_with(&node) && identify.ends_with("|shop\n"), "{identify}");

    let archive = path("archive");
    std::fs::create_dir(&archive).unwrap();
    let mut receiver = Command::new("pg_receivewal");
    let end = primary("SELECT pg_current_wal_insert_lsn() + 3000000");
    replicator(&target, receiver.args(["-D", &archive, "--no-loop", "--endpos", &end]).stderr(Stdio::null()));
    let mut receiver = Process(receiver.spawn().unwrap());
    let streams = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'pg_receivewal'";
    wait_for(LIMIT, "pg_receivewal streams", || primary(streams) == "1");
    assert!(proxy.metric("causeway_replication_clients", "") >= 1.0);
    primary("INSERT INTO t SELECT n, repeat('y', 1000) FROM generate_series(1, 5000) n");
    let mut status = None;
    wait_for(LIMIT, "pg_receivewal has got there", || {
        status = receiver.0.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success());
    assert!(std::fs::read_dir(&archive).unwrap().count() > 0);

    let slot = ["-d", "shop", "--slot", "decoded"];
    run(&target, "pg_recvlogical", &[&slot[..], &["--create-slot", "-P", "test_decoding"]].concat());
    primary("CREATE TABLE l (s text)");
    primary("INSERT INTO l SELECT 'told ' || n FROM generate_series(1, 3) n");
    let end = primary("SELECT pg_current_wal_flush_lsn()");
    let decoded =
        run(&target, "pg_recvlogical", &[&slot[..], &["--start", "-f", "-", "--no-loop", "--endpos", &end]].concat());
    assert_eq!(decoded.matches("table public.l: INSERT: s[text]:'told ").count(), 3, "{decoded}");
    run(&target, "pg_recvlogical", &[&slot[..], &["--drop-slot"]].concat());
    wait_for(LIMIT, "nobody replicates", || proxy.metric("causeway_replication_clients", "") == 0.0);

    // The primary hangs, and another node takes its place.
    let mut client = stream(&target);
    cluster.primary().sigstop().unwrap();
    cluster.replicas()[0].promote().unwrap();
    let (tag, body) = last_word(&mut client);
    assert_eq!((tag, field(&body, b'C').as_str()), ('E', "57P01"));
    assert!(field(&body, b'M').contains("another node is the primary"), "{}", field(&body, b'M'));
}

/// What differs from one moment to the next is the position.
fn commands_answer_as_on_the_node(env: &Env) {
    let database = env.database("walsender");
    let cluster = &env.shared().cluster;
    let _ = cluster.create_role(REPLICATOR, PASSWORD, "REPLICATION");
    let proxy = Proxy::start_as(cluster, allow);
    let logical = [("database", database.name.as_str()), ("replication", "database"), ("application_name", "told")];
    let physical = [("replication", "true"), ("options", "-c search_path=nowhere")];
    let [direct, through] = [database.node(0), proxy.target(&database.name)];
    for (parameters, script) in [
        (
            &logical[..],
            vec![
                query("SHOW application_name"),
                query("SELECT current_database(), pg_sleep(0.1)"),
                query("SELECT 1/0"),
                query("READ_REPLICATION_SLOT nobody"),
                query("NONSENSE"),
                query("START_REPLICATION SLOT nobody LOGICAL 0/0"),
                query("CREATE_REPLICATION_SLOT s TEMPORARY LOGICAL nothing"),
                query("BEGIN; SELECT 1; COMMIT"),
                message(b'P', b"\0SELECT 1\0\0\0"),
            ],
        ),
        (
            &physical,
            vec![
                query("SHOW search_path"),
                query("SELECT 1"),
                query("TIMELINE_HISTORY 9"),
                query("START_REPLICATION 0/FFFFFFFF"),
            ],
        ),
    ] {
        let [want, got] = [&direct, &through].map(|target| {
            let (mut client, greeting) = connect(target, parameters);
            let mut heard: Vec<_> = greeting.iter().map(|(tag, body)| seen(&[(*tag, body.clone())])).collect();
            for message in &script {
                client.send(message);
                if message[0] == b'P' {
                    client.send(FLUSH);
                    heard.push(seen(&client.read_to('E')));
                } else {
                    heard.push(seen(&client.read_to('Z')));
                }
            }
            client.send(TERMINATE);
            heard.push(seen(&client.read_to('$')));
            heard[1..].sort();
            heard
        });
        assert_eq!(want, got);
    }
    let [want, got] = [&direct, &through].map(|target| {
        let (mut client, _) = connect(target, &logical);
        client.query("IDENTIFY_SYSTEM");
        value(&client.read_to('Z'))
    });
    assert_eq!(want, got);

    let (mut client, greeting) = connect(&through, &logical);
    let key = greeting.into_iter().find(|(tag, _)| *tag == 'K').unwrap().1;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                cancel(&through, &key);
            }
        });
        client.query("SELECT pg_sleep(60)");
        assert_eq!(error_code(&client.read_to('Z')), "57014");
        done.store(true, Ordering::Relaxed);
    });
}

fn who_may_not_is_told(env: &Env) {
    let database = env.database("may_not");
    let (_, refusal) = env.proxy().target(&database.name).raw_with(&[("replication", "database")]);
    assert_eq!((tags(&refusal).as_str(), field(&refusal[0].1, b'C').as_str()), ("E", "42501"));
    assert!(field(&refusal[0].1, b'H').contains("users.app.replication = true"));

    let cluster = &env.shared().cluster;
    // The node's own word counts: `app` lacks REPLICATION there.
    let allowed = |text: String| text.replace("[users.\"app\"]\n", "[users.app]\nreplication = true\n");
    let proxy = Proxy::start_as(cluster, allowed);
    let target = proxy.target(&database.name);
    let [want, got] = [database.node(0), target.clone()].map(|target| {
        let (_, refusal) = target.raw_with(&[("replication", "true")]);
        field(&refusal[0].1, b'C') + &field(&refusal[0].1, b'M').replace("node \"primary\": ", "")
    });
    assert_eq!(want, got);
    let (_, refusal) = target.raw_with(&[("replication", "maybe")]);
    assert_eq!(field(&refusal[0].1, b'C'), "22023");

    // Of two clusters, the one that serves the database is meant.
    let _ = cluster.create_role(REPLICATOR, PASSWORD, "REPLICATION");
    let proxy = Proxy::launch(cluster, |text| {
        let (before, cluster) = text.split_once("[clusters.demo]").unwrap();
        let (cluster, users) = cluster.split_once("[users").unwrap();
        let named = |name: &str| format!("[clusters.{name}]{cluster}").replace("demo", name).replace('*', name);
        let two = named("two").replace("127.0.0.1", "localhost");
        allow([before, &named("one"), &two, "[users", users].concat())
    });
    let target = proxy.target("");
    for (parameters, code) in [
        (&[("replication", "true")][..], "3D000"),
        (&[("replication", "true"), ("database", "replication")], "3D000"),
        (&[("replication", "database"), ("database", "neither")], "3D000"),
        (&[("replication", "true"), ("database", "two")], ""),
    ] {
        assert_eq!(error_code(&connect(&target, parameters).1), code, "{parameters:?}");
    }
}

fn streams_end_with_a_word(env: &Env) {
    let cluster = &env.shared().cluster;
    let _ = cluster.create_role(REPLICATOR, PASSWORD, "REPLICATION");
    let database = env.database("stream_ends");
    // The server is ended.
    let proxy = Proxy::start_as(cluster, allow);
    let mut client = stream(&proxy.target(&database.name));
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE usename = 'replicator'";
    wait_for(LIMIT, "the stream can be ended", || cluster.primary().sql("postgres", kill).unwrap() == "t");
    assert_eq!(last_code(&mut client), "57P01");

    // The client ends it, politely or not.
    let gone = "SELECT count(*) FROM pg_stat_replication WHERE usename = 'replicator'";
    for polite in [true, false] {
        let mut client = stream(&proxy.target(&database.name));
        if polite {
            client.message(b'c', b"");
            assert_eq!(tags(&client.read_to('Z')).replace("d ", ""), "c C C Z");
            client.send(TERMINATE);
        }
        drop(client);
        wait_for(LIMIT, "the node knows", || cluster.primary().sql("postgres", gone).unwrap() == "0");
    }

    // Causeway shuts down while the stream is busy.
    let mut proxy = proxy;
    let mut client = stream(&proxy.target(&database.name));
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for _ in 0..20 {
                database.prepare("CREATE TABLE IF NOT EXISTS w AS SELECT repeat('x', 1000) FROM generate_series(1, 5000); DROP TABLE w");
            }
        });
        thread::sleep(Duration::from_millis(50));
        proxy.signal(Signal::SIGTERM);
        assert_eq!(last_code(&mut client), "57P01");
        writer.join().unwrap();
    });
    assert!(proxy.wait().success());
}

/// A client that receives WAL from now on.
fn stream(target: &Target) -> RawClient {
    let (mut client, _) = connect(target, &[("replication", "true")]);
    client.query("IDENTIFY_SYSTEM");
    let row = client.read_to('Z').remove(1).1;
    // Identifier, timeline and position: two bytes of their number, four of each one's length.
    let mut columns = &row[2..];
    let position = (0..3).map(|_| {
        let (length, rest) = columns.split_first_chunk::<4>().unwrap();
        let (text, rest) = rest.split_at(usize::try_from(u32::from_be_bytes(*length)).unwrap());
        columns = rest;
        String::from_utf8_lossy(text).into_owned()
    });
    client.query(&format!("START_REPLICATION {}", position.last().unwrap()));
    assert_eq!(tags(&client.read_to('W')), "W");
    client
}

/// What follows the stream.
fn last_word(client: &mut RawClient) -> Message {
    let mut heard = client.read_to('$');
    let last = heard.pop().unwrap();
    assert!(heard.iter().all(|(tag, _)| *tag == 'd'));
    last
}

fn last_code(client: &mut RawClient) -> String {
    field(&last_word(client).1, b'C')
}
