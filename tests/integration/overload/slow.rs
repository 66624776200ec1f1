//! Clients that take their time, at every stage of a session's life.

use std::fs;
use std::thread;
use std::time::Duration;

use super::{LIMIT, log_in, run};
use crate::frames::query;
use crate::harness::{Env, USER, identity, wait_for};
use crate::proxy::Proxy;
use crate::raw::{RawClient, tags};
use crate::speech::value;

const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
/// The head of a handshake that announces 512 bytes, and some of them.
const HALF_HELLO: &[u8] = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03";

fn startup(database: &str) -> Vec<u8> {
    let body = [b"\0\x03\0\0user\0", USER.as_bytes(), b"\0database\0", database.as_bytes(), b"\0\0"].concat();
    [&u32::try_from(body.len() + 4).unwrap().to_be_bytes(), &body[..]].concat()
}

fn sasl_initial_response() -> Vec<u8> {
    let first = b"n,,n=,r=012345678901234567890123";
    let length = u32::try_from(first.len()).unwrap().to_be_bytes();
    crate::frames::message(b'p', &[&b"SCRAM-SHA-256\0"[..], &length, first].concat())
}

pub fn logins_end_at_every_stage(env: &Env) {
    let database = env.database("slow_logins");
    let files = tempfile::tempdir().unwrap();
    let (_, identity) = identity();
    let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("crt"), &identity.cert_pem).unwrap();
    fs::write(path("key"), &identity.key_pem).unwrap();
    let tls = format!(
        "client_tls_sslmode = \"allow\"\nclient_tls_cert_file = \"{}\"\nclient_tls_key_file = \"{}\"\n",
        path("crt"),
        path("key")
    );
    let edit = |text: String| {
        text.replace("\n\n[clusters.demo]", &format!("\n{tls}\n[clusters.demo]"))
            + "[limits]\nclient_login_timeout = \"1s\"\n"
    };
    let proxy = Proxy::start_as(&env.shared().cluster, edit);
    let target = proxy.target(&database.name);
    let (start, response) = (startup(&database.name), sasl_initial_response());
    let stages: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("half a length", start[..2].to_vec()),
        ("half a start-up message", start[..20].to_vec()),
        ("TLS asked for", SSL_REQUEST.to_vec()),
        ("a TLS handshake begun", HALF_HELLO.to_vec()),
        ("GSS asked for, again and again", b"\0\0\0\x08\x04\xd2\x16\x30".repeat(100)),
        ("the start-up message", start.clone()),
        ("half an answer", [&start[..], &response[..30]].concat()),
        ("one answer of two", [&start[..], &response[..]].concat()),
    ];
    let mut good = target.raw();
    let mut slow: Vec<(&str, RawClient)> = Vec::new();
    for (what, bytes) in &stages {
        let mut client = RawClient::connect(&target.host, target.port);
        client.send(bytes);
        slow.push((what, client));
    }
    // After the answer to the request, which a handshake must wait for.
    let mut shaking = RawClient::connect(&target.host, target.port);
    shaking.send(SSL_REQUEST);
    assert_eq!(shaking.read_byte(), b'S');
    shaking.send(HALF_HELLO);
    slow.push(("a TLS handshake begun when asked", shaking));
    let trickler = thread::spawn({
        let (host, port) = (target.host.clone(), target.port);
        move || {
            let mut client = RawClient::connect(&host, port);
            // For much longer than it may take; once it is closed this fails silently.
            for byte in &start {
                client.send(&[*byte]);
                thread::sleep(Duration::from_millis(50));
            }
            assert_eq!(client.read(), None, "a byte at a time");
        }
    });
    for (what, mut client) in slow {
        // What comes before the end is an answer to what it has sent.
        while client.read_some() > 0 {}
        println!("closed: {what}");
    }
    trickler.join().unwrap();
    let timed_out = proxy.metric("causeway_logins_total", "timed_out");
    assert!(timed_out >= 11.0, "{timed_out}");
    assert_eq!(value(&run(&mut good, "SELECT 7")).as_deref(), Some("7"));
    wait_for(LIMIT, "nobody else is left", || proxy.metric("causeway_clients", "") < 2.0);
}

/// Whoever has been logging in for long does not keep out those who want to.
pub fn logins_make_room(env: &Env) {
    const PLACES: u16 = 10;
    /// Those who are beyond the limit are told so as far as there is room for that.
    const TO_REFUSE: u16 = 128;
    let database = env.database("room");
    let edit = |text: String| format!("workers = 1\n{text}[limits]\nmax_client_conn = {PLACES}\n");
    let proxy = Proxy::start_as(&env.shared().cluster, edit);
    let target = proxy.target(&database.name);
    wait_for(LIMIT, "the start is over", || proxy.metric("causeway_clients", "") < 1.0);
    let mut half_open = Vec::new();
    for nth in 1..=PLACES {
        half_open.push(RawClient::connect(&target.host, target.port));
        wait_for(LIMIT, "it is accepted", || proxy.metric("causeway_clients", "") >= f64::from(nth));
    }
    let mut good = None;
    wait_for(LIMIT, "somebody made room", || {
        good = log_in(&target, USER).map_err(|(code, text)| assert_eq!(code, "53300", "{text}")).ok();
        good.is_some()
    });
    let mut good = good.unwrap();
    assert_eq!(half_open.remove(0).read(), None, "the slowest one");
    assert!(proxy.metric("causeway_logins_total", "made_room") >= 1.0);
    let mut last = half_open.pop().unwrap();
    last.login(USER, crate::harness::PASSWORD, &target.database);

    let flood: Vec<_> = (0..2 * TO_REFUSE).map(|_| RawClient::connect(&target.host, target.port)).collect();
    for client in [&mut good, &mut last] {
        assert_eq!(value(&run(client, "SELECT 7")).as_deref(), Some("7"));
    }
    let clients = proxy.metric("causeway_clients", "");
    assert!(clients <= f64::from(PLACES + TO_REFUSE + 1), "{clients}");
    drop((flood, half_open));
    wait_for(LIMIT, "there is room again", || log_in(&target, USER).is_ok());
}

pub fn who_does_not_read_gives_the_server_back(env: &Env) {
    let database = env.database("no_reader");
    let settings = "[limits]\nquery_timeout = \"1s\"\n[pool]\ndefault_pool_size = 1\n";
    let proxy = Proxy::start(&env.shared().cluster, settings);
    let target = proxy.target(&database.name);
    let rows = "/* causeway: primary */ SELECT repeat('x', 1000000) FROM generate_series(1, 10000)";
    let mut client = target.raw();
    client.send(&query(rows));
    assert_eq!(client.read().map(|(tag, _)| tag), Some('T'), "it has the server");
    let mut other = target.raw();
    let primary = "/* causeway: primary */ SELECT 7";
    wait_for(LIMIT, "the server is somebody else's", || value(&run(&mut other, primary)).is_some());
    let answer = client.read_to('Z');
    assert!(!tags(&answer).ends_with('Z'), "the session is over");
}
