//! From `causeway check` to the last client's good-bye: the command, its signals, its HTTP, its log.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use causeway::app::demo::cluster::{ClusterOptions, free_port};
use nix::sys::signal::Signal;

use crate::frames::{play, query, turn};
use crate::harness::{self, Env, PASSWORD, Test, USER, check, wait_for};
use crate::proxy::{Process, Proxy};
use crate::raw::{Message, RawClient, field};
use crate::target::Target;

pub const TESTS: &[Test] = &[
    ("lifecycle::sigterm_drains", sigterm_drains),
    ("lifecycle::shutdown_timeout_ends_what_is_stuck", shutdown_timeout_ends_what_is_stuck),
    ("lifecycle::a_second_signal_ends_at_once", a_second_signal_ends_at_once),
    ("lifecycle::commands_answer", commands_answer),
    ("lifecycle::a_port_in_use_is_named", a_port_in_use_is_named),
    ("lifecycle::runs_without_a_file", runs_without_a_file),
    ("lifecycle::logs_are_json_and_without_secrets", logs_are_json_and_without_secrets),
    ("lifecycle::a_full_pool_is_named", a_full_pool_is_named),
    ("lifecycle::session_mode_keeps_one_server", session_mode_keeps_one_server),
    ("lifecycle::http_says_how_it_is", http_says_how_it_is),
];

fn run(client: &mut RawClient, sql: &str) -> Vec<Message> {
    play(client, &[turn(&[query(sql)], "Z")])
}

fn error_code(transcript: &[Message]) -> String {
    transcript.iter().find(|(tag, _)| *tag == 'E').map_or(String::new(), |(_, body)| field(body, b'C'))
}

fn value(transcript: &[Message]) -> String {
    let row = transcript.iter().find(|(tag, _)| *tag == 'D');
    row.map_or(String::new(), |(_, body)| String::from_utf8_lossy(&body[6..]).into_owned())
}

/// The SQLSTATE that a client is sent away with, which must be the last that it reads.
fn farewell(client: &mut RawClient) -> String {
    let last: Vec<Message> = std::iter::from_fn(|| client.read()).collect();
    assert!(last.len() <= 1, "{last:?}");
    error_code(&last)
}

const TOP: &str = "shutdown_timeout = \"20s\"\n";

fn sigterm_drains(env: &Env) {
    let database = env.database("drain");
    database.prepare("CREATE TABLE t (n int); GRANT ALL ON t TO app");
    let settings = |text: String| format!("{TOP}{text}\n[pool]\npool_mode = \"transaction\"\n");
    let mut proxy = Proxy::start_as(&env.shared().cluster, settings);
    let target = proxy.target(&database.name);
    let (mut idle, mut busy, mut pinned, mut working) = (target.raw(), target.raw(), target.raw(), target.raw());
    run(&mut idle, "SELECT 1");
    run(&mut busy, "BEGIN; INSERT INTO t VALUES (1)");
    run(&mut pinned, "SET search_path = public");
    working.query("SELECT pg_sleep(1), 'working'");
    wait_for(Duration::from_secs(5), "the query runs", || env.shared().cluster.ran_on("'working'").unwrap().len() == 1);
    proxy.signal(Signal::SIGTERM);
    assert_eq!(farewell(&mut idle), "57P01");
    assert_eq!(farewell(&mut pinned), "57P01");
    wait_for(Duration::from_secs(5), "new clients are refused", || {
        std::net::TcpStream::connect((&*target.host, target.port)).is_err()
    });
    let ready = proxy.http("/readyz");
    assert!(ready.starts_with("HTTP/1.0 503") || ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert_eq!(error_code(&working.read_to('Z')), "", "a running query ends as ever");
    assert_eq!(farewell(&mut working), "57P01");
    run(&mut busy, "INSERT INTO t VALUES (2)");
    assert_eq!(error_code(&run(&mut busy, "COMMIT")), "");
    assert_eq!(farewell(&mut busy), "57P01");
    assert_eq!(proxy.wait().code(), Some(0));
    assert_eq!(env.shared().cluster.primary().sql(&database.name, "SELECT sum(n) FROM t").unwrap(), "3");
}

fn shutdown_timeout_ends_what_is_stuck(env: &Env) {
    let database = env.database("stuck");
    let settings = |text: String| format!("shutdown_timeout = \"1s\"\n{text}");
    let mut proxy = Proxy::start_as(&env.shared().cluster, settings);
    let target = proxy.target(&database.name);
    let (mut waiting, mut sleeping) = (target.raw(), target.raw());
    run(&mut waiting, "BEGIN");
    sleeping.query("SELECT pg_sleep(100)");
    let started = Instant::now();
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait().code(), Some(0));
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(4), "{took:?}");
    assert!(proxy.log().contains("shutdown_timeout"), "{}", proxy.log());
    for client in [&mut waiting, &mut sleeping] {
        farewell(client);
    }
}

fn a_second_signal_ends_at_once(env: &Env) {
    let database = env.database("twice");
    for (first, second) in [(Signal::SIGTERM, Signal::SIGINT), (Signal::SIGINT, Signal::SIGINT)] {
        let mut proxy = Proxy::start(&env.shared().cluster, "");
        let mut stuck = proxy.target(&database.name).raw();
        run(&mut stuck, "BEGIN");
        proxy.signal(first);
        wait_for(Duration::from_secs(5), "it drains", || proxy.log().contains("shutting down"));
        let started = Instant::now();
        proxy.signal(second);
        assert!(proxy.wait().code().is_some());
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
}

fn causeway(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_causeway")).args(arguments).output().unwrap()
}

fn commands_answer(_env: &Env) {
    let directory = tempfile::tempdir().unwrap();
    let good = "[[listeners]]\naddress = \"127.0.0.1:6432\"\n[clusters.main]\ncontrol = { user = \"c\", password = \"hunter2\" }\n\
                [[clusters.main.nodes]]\nname = \"a\"\nhost = \"10.0.0.1\"\n[users.app]\npassword = \"hunter2\"\n";
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (ok, unknown, unit, broken) = (
        file("ok.toml", good),
        file("unknown.toml", &good.replace("host =", "hots =")),
        file("unit.toml", &format!("{good}[pool]\nquery_wait_timeout = \"2 fortnights\"\n")),
        file("broken.toml", "[[listeners]\n"),
    );
    let no_file = directory.path().join("nowhere.toml").to_str().unwrap().to_owned();
    let cases: Vec<(Vec<&str>, i32, Vec<&str>)> = vec![
        (vec!["check", &ok], 0, vec!["ok", "127.0.0.1:6432", "node a"]),
        (vec!["check", &unknown], 1, vec!["unknown.toml:7", "hots", "host"]),
        (vec!["check", &unit], 1, vec!["unit.toml:11", "query_wait_timeout", "ms"]),
        (vec!["check", &broken], 1, vec!["broken.toml:1"]),
        (vec!["check", &no_file], 1, vec!["nowhere.toml"]),
        (vec!["run", "--config", &unknown], 1, vec!["unknown.toml:7"]),
        (vec!["run", "--config", &no_file], 1, vec!["nowhere.toml"]),
        (vec!["--version"], 0, vec!["causeway 0."]),
        (vec!["--help"], 0, vec!["run", "check", "explain", "demo", "Examples"]),
        (vec!["run", "--help"], 0, vec!["--primary", "--replica", "--config"]),
        (vec!["run"], 2, vec!["--config"]),
        (vec!["nonsense"], 2, vec!["nonsense"]),
        (vec!["explain", "SELECT nextval('s')"], 0, vec!["write"]),
        (vec!["explain", "SELECT 1"], 0, vec!["read"]),
    ];
    for (arguments, code, parts) in cases {
        let output = causeway(&arguments);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{arguments:?} does not say {part:?}: {said}");
        }
        assert!(!said.contains("hunter2"), "{said}");
    }
}

fn a_port_in_use_is_named(_env: &Env) {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let other = format!("127.0.0.1:{}", free_port().unwrap());
    let node = "postgres://u:p@127.0.0.1:1/d";
    for arguments in [
        ["run", "--primary", node, "--listen", &address, "--metrics", &other],
        ["run", "--primary", node, "--listen", &other, "--metrics", &address],
    ] {
        let output = causeway(&arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&address) && said.contains("in use"), "{said}");
    }
}

fn runs_without_a_file(env: &Env) {
    let database = env.database("urls");
    let cluster = &env.shared().cluster;
    let (port, metrics) = (free_port().unwrap(), free_port().unwrap());
    let [primary, replica] = [0, 1].map(|node| cluster.nodes()[node].port());
    let process = Command::new(env!("CARGO_BIN_EXE_causeway"))
        .args(["run", "--primary", &format!("postgres://{USER}@127.0.0.1:{primary}/{}", database.name)])
        .args(["--replica", &format!("postgres://127.0.0.1:{replica}")])
        .args(["--listen", &format!("127.0.0.1:{port}"), "--metrics", &format!("127.0.0.1:{metrics}")])
        .env("PGPASSWORD", PASSWORD)
        .stderr(Stdio::null())
        .spawn();
    let _process = Process(process.unwrap());
    wait_for(Duration::from_secs(20), "it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let target = Target::new("127.0.0.1", port, &database.name);
    assert_eq!(target.psql("CREATE TABLE t (n int); INSERT INTO t VALUES (7); TABLE t"), "7");
}

fn logs_are_json_and_without_secrets(env: &Env) {
    let database = env.database("json");
    let settings = "[log]\nformat = \"json\"\nlevel = \"trace\"\n";
    let mut proxy = Proxy::start(&env.shared().cluster, settings);
    let target = proxy.target(&database.name);
    run(&mut target.raw(), "SELECT 1");
    let mut wrong = RawClient::connect(&target.host, target.port);
    wrong.startup(&[("user", "nobody"), ("database", "x")]);
    wrong.send(b"\0\0\0\0\0");
    farewell_or_question(&mut wrong);
    proxy.signal(Signal::SIGTERM);
    proxy.wait();
    let log = proxy.log();
    assert!(log.lines().count() > 5, "{log}");
    let script = "import json, sys\nfor line in sys.stdin:\n    json.loads(line)['level']";
    let mut python = Command::new("python3").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut python.stdin.take().unwrap(), log.as_bytes()).unwrap();
    assert!(python.wait().unwrap().success(), "{log}");
    assert!(!log.contains(PASSWORD), "a password is in the log");
}

fn farewell_or_question(client: &mut RawClient) {
    while client.read().is_some() {}
}

fn a_full_pool_is_named(env: &Env) {
    let database = env.database("full");
    let settings = "[pool]\ndefault_pool_size = 1\nquery_wait_timeout = \"300ms\"\n";
    let proxy = Proxy::start(&env.shared().cluster, settings);
    let target = proxy.target(&database.name);
    let (mut holder, mut waiter) = (target.raw(), target.raw());
    run(&mut holder, "BEGIN");
    let answer = run(&mut waiter, "BEGIN");
    assert_eq!(error_code(&answer), "53300");
    let message = field(&answer[0].1, b'M');
    for part in ["query_wait_timeout", "300ms", "primary", &database.name, USER] {
        assert!(message.contains(part), "{message}");
    }
    run(&mut holder, "COMMIT");
    assert_eq!(error_code(&run(&mut waiter, "BEGIN")), "", "the session goes on");
}

fn session_mode_keeps_one_server(env: &Env) {
    let database = env.database("session");
    let settings = "[pool]\npool_mode = \"session\"\ndefault_pool_size = 1\nquery_wait_timeout = \"10s\"\n";
    let proxy = Proxy::start(&env.shared().cluster, settings);
    let target = proxy.target(&database.name);
    // What is left behind in a transaction takes another way out.
    for last in ["SELECT 1", "BEGIN", "SELECT 1/0"] {
        let mut first = target.raw();
        let pid = value(&run(&mut first, "SELECT pg_backend_pid()"));
        for sql in LEFT_BEHIND {
            assert_eq!(error_code(&run(&mut first, sql)), "", "{sql}");
        }
        run(&mut first, last);
        assert_eq!(value(&run(&mut first, "SELECT pg_backend_pid()")), pid);
        drop(first);
        let mut second = target.raw();
        let same = value(&run(&mut second, "SELECT pg_backend_pid()"));
        assert_eq!(same, pid, "it is cleaned, not closed");
        check(&CLEAN.map(|(sql, want)| (sql, want.to_owned())), |sql| value(&run(&mut second, sql)));
    }
}

const LEFT_BEHIND: [&str; 5] = [
    "SET work_mem = '123kB'",
    "CREATE TEMP TABLE left_over (n int)",
    "PREPARE left_over AS SELECT 1",
    "LISTEN left_over",
    "SELECT pg_advisory_lock(4711)",
];

const CLEAN: [(&str, &str); 6] = [
    ("SHOW work_mem", "4MB"),
    ("SELECT count(*) FROM pg_class WHERE relname = 'left_over'", "0"),
    ("SELECT count(*) FROM pg_prepared_statements", "0"),
    ("SELECT count(*) FROM pg_listening_channels()", "0"),
    ("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711", "0"),
    ("SELECT pg_current_xact_id_if_assigned() IS NULL", "t"),
];

fn http_says_how_it_is(env: &Env) {
    let cluster = harness::cluster(&ClusterOptions { replicas: 1, ..ClusterOptions::default() });
    let proxy = Proxy::start(&cluster, "");
    let status =
        |path| proxy.http(path).lines().next().unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned();
    assert_eq!(["/healthz", "/readyz", "/metrics", "/nothing"].map(status), ["200", "200", "200", "404"]);
    let database = env.database("http");
    run(&mut proxy.target("postgres").raw(), "SELECT 1");
    drop(database);
    let answer = proxy.http("/metrics");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.to_lowercase().contains("content-type: text/plain"), "{head}");
    for line in body.lines() {
        assert!(is_prometheus(line), "{line}");
    }
    cluster.nodes().iter().for_each(|node| node.stop(causeway::app::demo::cluster::Stop::Fast).unwrap());
    wait_for(Duration::from_secs(10), "it is not ready", || status("/readyz") == "503");
    assert_eq!(status("/healthz"), "200");
    cluster.primary().start().unwrap();
    wait_for(Duration::from_secs(10), "it is ready again", || status("/readyz") == "200");
}

/// `name{label="value",…} number`, or a comment that says what a name means
/// (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
fn is_prometheus(line: &str) -> bool {
    if let Some(comment) = line.strip_prefix("# ") {
        return comment.starts_with("HELP causeway_") || comment.starts_with("TYPE causeway_");
    }
    let Some((series, number)) = line.rsplit_once(' ') else { return false };
    let labels_close = series.contains('{') == series.ends_with('}');
    series.starts_with("causeway_") && labels_close && number.parse::<f64>().is_ok()
}
