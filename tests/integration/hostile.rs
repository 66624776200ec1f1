//! Whatever a client sends, it gets an error or is closed, memory stays bounded, and everyone else goes on.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::frames::{SYNC, bind, message, parse, query};
use crate::harness::{Env, Test, USER, wait_for};
use crate::proxy::Proxy;
use crate::raw::{Message, RawClient, field};
use crate::target::Target;

pub const TESTS: &[Test] = &[("hostile::clients_harm_nobody", clients_harm_nobody)];

/// What becomes of a hostile client.
#[derive(Debug, PartialEq)]
enum Fate {
    /// An error with this SQLSTATE, and the session goes on.
    Error(&'static str),
    /// An error with this SQLSTATE, and the end.
    Fatal(&'static str),
    Closed,
    /// PostgreSQL does not mind.
    Answered,
}
use Fate::{Answered, Closed, Error, Fatal};

const LOGIN_TIMEOUT: Duration = Duration::from_secs(2);
const MOST_MIB: u64 = 80;

fn startup_of(length: u32, rest: &[u8]) -> Vec<u8> {
    [&length.to_be_bytes()[..], rest].concat()
}

fn before_login() -> Vec<(&'static str, Vec<u8>, Fate)> {
    let start = {
        let body = [&[0, 3, 0, 0][..], b"user\0", USER.as_bytes(), b"\0database\0x\0\0"].concat();
        startup_of(u32::try_from(body.len() + 4).unwrap(), &body)
    };
    let after_start = |bytes: &[u8]| [&start[..], bytes].concat();
    let hundred_mb = vec![b'x'; 100_000_000];
    let random: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(4096).collect();
    vec![
        ("length 3", startup_of(3, b"xxxx"), Fatal("08P01")),
        ("length 0", startup_of(0, b""), Fatal("08P01")),
        ("2 GiB", startup_of(0x8000_0000, &[0, 3, 0, 0]), Fatal("08P01")),
        ("100 MB", startup_of(100_000_000, &hundred_mb), Fatal("08P01")),
        ("protocol 1.0", startup_of(8, &[0, 1, 0, 0]), Fatal("0A000")),
        ("no terminator", startup_of(12, &[0, 3, 0, 0, b'u', b's', b'e', b'r']), Fatal("08P01")),
        ("no user", startup_of(9, &[0, 3, 0, 0, 0]), Fatal("28000")),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), Fatal("08P01")),
        ("TLS without asking", [&[0x16, 3, 1, 2, 0][..], &[1; 512]].concat(), Fatal("08P01")),
        ("a cancel request that is too short", startup_of(8, &80_877_102_u32.to_be_bytes()), Fatal("08P01")),
        ("garbage", [&[0xff][..], &random].concat(), Fatal("08P01")),
        ("a password of length 0", after_start(b"p\0\0\0\0"), Fatal("08P01")),
        ("a password of length 1", after_start(b"p\0\0\0\x01"), Fatal("08P01")),
        ("a password of length 2", after_start(b"p\0\0\0\x02"), Fatal("08P01")),
        ("a password of length 3", after_start(b"p\0\0\0\x03"), Fatal("08P01")),
        ("a password without NUL", after_start(b"p\0\0\0\x04"), Fatal("08P01")),
        ("a password of 100 MB", [&after_start(b"p\x05\xf5\xe1\0")[..], &hundred_mb].concat(), Fatal("08P01")),
        ("a Query instead of a password", after_start(&query("SELECT 1")), Fatal("08P01")),
        ("an unknown message instead of a password", after_start(b"~\0\0\0\x04"), Fatal("08P01")),
    ]
}

/// The node's own answers are the measure where it has one; where it closes without a word we may say why.
fn after_login() -> Vec<(&'static str, Vec<u8>, Fate)> {
    let sums = format!("SELECT {}1", "1+".repeat(32 << 10));
    let parentheses = format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000));
    let and_sync = |bytes: Vec<u8>| [&bytes[..], SYNC].concat();
    let random: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(128..)).take(4096).collect();
    vec![
        ("length 3", b"Q\0\0\0\x03".to_vec(), Fatal("08P01")),
        ("length 0", b"S\0\0\0\0".to_vec(), Fatal("08P01")),
        ("2 GiB", b"Q\x80\0\0\0".to_vec(), Fatal("08P01")),
        ("2 GiB of a row", b"d\x7f\xff\xff\xff".to_vec(), Fatal("08P01")),
        ("a Sync of 1 MB", b"S\0\x10\0\0".to_vec(), Fatal("08P01")),
        ("unknown type", b"~\0\0\0\x04".to_vec(), Fatal("08P01")),
        ("a password", message(b'p', b"x\0"), Fatal("08P01")),
        ("garbage", random, Fatal("08P01")),
        ("a Query without NUL", message(b'Q', b"SELECT 1"), Error("08P01")),
        ("an empty Query message", message(b'Q', b""), Error("08P01")),
        ("two strings in a Query", message(b'Q', b"SELECT 1\0SELECT 2\0"), Error("08P01")),
        ("64 KB of sums", query(&sums), Error("54001")),
        ("64 KB of sums to parse", and_sync(parse("", &sums)), Error("54001")),
        ("100,000 parentheses", query(&parentheses), Error("42601")),
        ("100,000 parentheses to parse", and_sync(parse("x", &parentheses)), Error("42601")),
        ("100,000 open parentheses", query("(".repeat(100_000)), Error("42601")),
        // PostgreSQL takes half a minute for 100,000 of these.
        ("10,000 open comments", query("/*".repeat(10_000)), Error("42601")),
        ("100,000 quotes", query("'".repeat(100_001)), Error("42601")),
        ("100,000 statements", query("SELECT 1;".repeat(100_000)), Answered),
        ("an empty Parse", and_sync(message(b'P', b"")), Error("08P01")),
        ("a Parse without types", and_sync(message(b'P', b"x\0SELECT 1\0")), Error("08P01")),
        (
            "a Parse with fewer types than it says",
            and_sync(message(b'P', b"x\0SELECT 1\0\xff\xff\0\0")),
            Error("08P01"),
        ),
        ("an empty Bind", and_sync(message(b'B', b"")), Error("08P01")),
        ("a Bind without a statement", and_sync(message(b'B', b"x\0y")), Error("08P01")),
        (
            "a Bind with fewer parameters than it says",
            and_sync([parse("", "SELECT 1"), message(b'B', b"\0\0\0\0\xff\xff")].concat()),
            Error("08P01"),
        ),
        (
            "a Bind of a parameter of 2 GiB",
            and_sync([parse("", "SELECT $1::text"), message(b'B', b"\0\0\0\0\0\x01\x7f\xff\xff\xff\0\0")].concat()),
            Error("08P01"),
        ),
        ("an empty Describe", and_sync(message(b'D', b"")), Error("08P01")),
        ("a Describe of something else", and_sync(message(b'D', b"X\0")), Error("08P01")),
        ("a Close without NUL", and_sync(message(b'C', b"Sx")), Error("08P01")),
        ("an empty Execute", and_sync(message(b'E', b"")), Error("08P01")),
        ("an empty function call", message(b'F', b""), Error("08P01")),
        ("a statement that is not there", and_sync(bind("", "\u{fffd}", &[], 0)), Error("26000")),
        ("rows where none belong", and_sync(message(b'd', &[0; 100_000])), Answered),
        ("100,000 Syncs", SYNC.repeat(100_000), Answered),
    ]
}

fn fate(transcript: &[Message], ended: bool) -> Fate {
    let error = transcript.iter().rev().find(|(tag, _)| *tag == 'E').map(|(_, body)| field(body, b'C'));
    let known = ["08P01", "0A000", "28000", "54001", "42601", "26000", "54000"];
    let code = error.map(|code| known.into_iter().find(|known| *known == code).unwrap_or("another"));
    match code {
        Some(code) if ended => Fatal(code),
        Some(code) => Error(code),
        None if ended => Closed,
        None => Answered,
    }
}

fn clients_harm_nobody(env: &Env) {
    let database = env.database("hostile");
    let limits = format!("[limits]\nclient_login_timeout = \"{}s\"\n", LOGIN_TIMEOUT.as_secs());
    let proxy = Proxy::start(&env.shared().cluster, &limits);
    let target = proxy.target(&database.name);
    let (served, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let memory = proxy.memory_mib();
    thread::scope(|scope| {
        let witness = scope.spawn(|| {
            let mut client = target.raw();
            while !done.load(Ordering::Relaxed) {
                client.query("SELECT 'witness'");
                assert_eq!(crate::raw::tags(&client.read_to('Z')), "T D C Z");
                served.fetch_add(1, Ordering::Relaxed);
            }
        });
        let wrong = [harm(&proxy, &target, &served, false), harm(&proxy, &target, &served, true)].concat();
        loris(&target);
        done.store(true, Ordering::Relaxed);
        witness.join().unwrap();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
    wait_for(Duration::from_secs(5), "no hostile client is left", || {
        proxy.http("/metrics").lines().any(|line| line.starts_with("causeway_clients") && line.ends_with(" 0"))
    });
    assert!(proxy.memory_mib() < memory + MOST_MIB, "{memory} MiB, then {}", proxy.memory_mib());
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
}

fn harm(proxy: &Proxy, target: &Target, served: &AtomicUsize, logged_in: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, bytes, want) in if logged_in { after_login() } else { before_login() } {
        let mut client = if logged_in { target.raw() } else { RawClient::connect(&target.host, target.port) };
        let before = (served.load(Ordering::Relaxed), proxy.memory_mib());
        // Half of it first: what is cut must not hang anybody either.
        drop({
            let mut cut = if logged_in { target.raw() } else { RawClient::connect(&target.host, target.port) };
            cut.send(&bytes[..bytes.len() / 2]);
            cut
        });
        client.send(&bytes);
        let mut transcript = client.read_to(if logged_in { 'Z' } else { 'E' });
        let mut ended = !logged_in || transcript.last().is_none_or(|(tag, _)| *tag != 'Z');
        if logged_in && !ended {
            client.query("SELECT 'still here'");
            let rest = std::iter::from_fn(|| client.read())
                .take_while(|(tag, body)| *tag != 'D' || !body.ends_with(b"still here"));
            transcript.extend(rest.filter(|(tag, _)| *tag == 'E'));
        } else {
            ended &= client.read_to('Z').is_empty();
        }
        let got = fate(&transcript, ended);
        let grown = proxy.memory_mib().saturating_sub(before.1);
        if got != want || grown > MOST_MIB {
            wrong.push(format!("{name} (logged in: {logged_in}): want {want:?}, got {got:?}, {grown} MiB"));
        }
        wait_for(Duration::from_secs(5), "the witness is served", || served.load(Ordering::Relaxed) > before.0);
    }
    wrong
}

/// Clients that say nothing, or a byte now and then, are closed when their time is over.
fn loris(target: &Target) {
    let mut silent: Vec<RawClient> = (0..50).map(|_| RawClient::connect(&target.host, target.port)).collect();
    for (index, client) in silent.iter_mut().enumerate() {
        client.send(&[0, 0, 0, 50, 0, 3, 0, 0][..index % 8]);
    }
    let started = std::time::Instant::now();
    for client in &mut silent {
        while client.read().is_some() {}
    }
    assert!(started.elapsed() < 3 * LOGIN_TIMEOUT, "{:?}", started.elapsed());
}
