//! Notifications reach whoever listens, whatever it is doing, with every payload, and none is lost.

use std::collections::BTreeSet;
use std::thread;

use crate::frames::{FLUSH, SYNC, bind, execute, parse, query};
use crate::harness::{Env, Test};
use crate::raw::{Message, RawClient};
use crate::target::Target;

pub const TESTS: &[Test] = &[
    ("wire_notify::any_payload_in_any_state", any_payload_in_any_state),
    ("wire_notify::none_of_ten_thousand_is_lost", none_of_ten_thousand_is_lost),
];

fn listener(target: &Target) -> RawClient {
    let mut client = target.raw();
    client.query("LISTEN c");
    client.read_to('Z');
    client
}

/// Channel and payload, without the process that sent it.
fn payload((tag, body): &Message) -> Option<String> {
    let mut strings = body.get(4..)?.split(|byte| *byte == 0);
    (*tag == 'A').then(|| strings.nth(1)).flatten().map(|payload| String::from_utf8_lossy(payload).into_owned())
}

/// The next notification.
fn heard(client: &mut RawClient) -> String {
    let messages = client.read_to('A');
    payload(messages.last().unwrap()).unwrap()
}

fn any_payload_in_any_state(env: &Env) {
    let database = env.database("payloads");
    let target = env.proxy().target(&database.name);
    let long = "x".repeat(7999);
    let payloads =
        ["", "it's", "\"quoted\" \\ and $$", "h\u{e9}llo \u{8868}\u{793a} \u{1f600}", "line\nbreak\ttab", &long];
    let notify =
        |payload: &str| format!("SELECT pg_notify('c', E'{}')", payload.replace('\\', "\\\\").replace('\'', "\\'"));
    let send = |payload: &str| database.prepare(&notify(payload));

    let mut idle = listener(&target);
    for payload in payloads {
        send(payload);
        assert_eq!(heard(&mut idle), payload, "while idle");
    }

    // A node keeps them until the transaction ends.
    let mut busy = listener(&target);
    busy.query("BEGIN");
    busy.read_to('Z');
    for payload in payloads {
        send(payload);
    }
    busy.query("SELECT 1");
    assert!(busy.read_to('Z').iter().all(|message| message.0 != 'A'));
    busy.query("COMMIT");
    let after: Vec<_> = std::iter::repeat_with(|| heard(&mut busy)).take(payloads.len()).collect();
    assert_eq!(after, payloads);
    busy.query("SELECT 'in order'");
    busy.read_to('Z');

    // In the middle of a pipeline, between its Syncs, and to itself.
    let mut pipeline = listener(&target);
    let piece = |sql: &str| [&parse("", sql)[..], &bind("", "", &[], 0), &execute("", 0)].concat();
    let own: Vec<u8> = payloads.iter().flat_map(|payload| [&piece(&notify(payload))[..], SYNC].concat()).collect();
    pipeline.send(&[&piece("SELECT 1")[..], FLUSH].concat());
    pipeline.read_to('C');
    send("from outside");
    pipeline.send(&[&piece("SELECT 2")[..], SYNC, &own, &query("SELECT 3")].concat());
    let mut messages = Vec::new();
    (0..payloads.len() + 2).for_each(|_| messages.extend(pipeline.read_to('Z')));
    let mut got: Vec<_> = messages.iter().filter_map(payload).collect();
    while got.len() < payloads.len() + 1 {
        got.push(heard(&mut pipeline));
    }
    let expected: Vec<&str> = ["from outside"].into_iter().chain(payloads).collect();
    assert_eq!(got, expected);
}

fn none_of_ten_thousand_is_lost(env: &Env) {
    const SENDERS: usize = 4;
    const EACH: usize = 2500;
    let database = env.database("many_notes");
    database.prepare(&format!("ALTER DATABASE {} SET log_statement = 'none'", database.name));
    let target = env.proxy().target(&database.name);
    let (mut idle, mut busy) = (listener(&target), listener(&target));
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            // Two through the proxy, two on the node itself.
            let target = if sender % 2 == 0 { target.clone() } else { database.node(0) };
            scope.spawn(move || {
                let mut client = target.raw();
                for block in 0..EACH / 50 {
                    let notes = (0..50).flat_map(|n| query(format!("NOTIFY c, '{sender} {}'", block * 50 + n)));
                    client.send(&notes.collect::<Vec<u8>>());
                    (0..50).for_each(|_| assert!(client.read_to('Z').iter().all(|(tag, _)| *tag != 'E')));
                }
            });
        }
        let everything: BTreeSet<String> =
            (0..SENDERS).flat_map(|sender| (0..EACH).map(move |n| format!("{sender} {n}"))).collect();
        let working = scope.spawn(|| {
            let mut got = Vec::new();
            while got.len() < SENDERS * EACH {
                busy.query(["BEGIN", "SELECT 1", "COMMIT"][got.len() % 3]);
                got.extend(busy.read_to('Z').iter().filter_map(payload));
                busy.query("COMMIT");
                got.extend(busy.read_to('Z').iter().filter_map(payload));
            }
            got
        });
        let waiting: Vec<_> = std::iter::repeat_with(|| heard(&mut idle)).take(SENDERS * EACH).collect();
        for got in [waiting, working.join().unwrap()] {
            assert_eq!(got.len(), SENDERS * EACH);
            assert!(got.into_iter().collect::<BTreeSet<_>>() == everything);
        }
    });
}
