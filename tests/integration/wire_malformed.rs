//! Messages that are no messages: what a node says of them, the proxy says, and the session goes on where it does there.

use crate::exact::{Script, TABLE, compare};
use crate::frames::{
    COPY_DONE, FLUSH, SYNC, bind, copy_data, copy_fail, describe, execute, extended, message, parse, query, turn,
};
use crate::harness::{Env, Test};

pub const TESTS: &[Test] = &[("wire_malformed::bodies", bodies), ("wire_malformed::in_a_copy", in_a_copy)];

/// Malformed bodies of the messages up to Sync.
const EXTENDED: &[(u8, &[u8])] = &[
    (b'P', b""),
    (b'P', b"x"),
    (b'P', b"x\0SELECT 1"),
    (b'P', b"x\0SELECT 1\0"),
    (b'P', b"x\0SELECT 1\0\0"),
    (b'P', b"x\0SELECT 1\0\0\0more"),
    (b'P', b"x\0SELECT 1\0\xff\xff\0\0"),
    (b'P', b"\0SELECT 1\0\0\x02\0\0\0\x17"),
    (b'B', b""),
    (b'B', b"x\0y"),
    (b'B', b"\0\0"),
    (b'B', b"\0\0\0\0\xff\xff"),
    (b'B', b"\0\0\0\x02\0\x01\0\0\0\0"),
    (b'B', b"\0\0\0\0\0\x01\x7f\xff\xff\xff\0\0"),
    (b'B', b"\0\0\0\x01\0\x09\0\0\0\0"),
    (b'D', b""),
    (b'D', b"S"),
    (b'D', b"X\0"),
    (b'D', b"S\0more"),
    (b'C', b""),
    (b'C', b"Sx"),
    (b'C', b"Q\0"),
    (b'C', b"P\0\0"),
    (b'E', b""),
    (b'E', b"\0"),
    (b'E', b"\0\0\0"),
    (b'E', b"\0\0\0\0\0\0"),
    (b'H', b"x"),
];

/// The same of those that are a batch by themselves.
const SIMPLE: &[(u8, &[u8])] = &[
    (b'Q', b""),
    (b'Q', b"SELECT 1"),
    (b'Q', b"SELECT 1\0SELECT 2\0"),
    (b'F', b""),
    (b'F', b"\0\0"),
    (b'F', b"\0\0\x05\x75\0\x01\0\0\0\x09\0\0\0\x01"),
    (b'F', b"\0\0\x05\x75\0\0\0\x01\0\0\0\x025\0\0"),
    (b'F', b"\0\0\x05\x75\0\0\0\x02\0\0\0\x015\0\0\0\x015\0\0"),
    (b'F', b"\0\0\x05\x75\0\0\0\x01\0\0\0\x015\0\0more"),
    (b'S', b"x"),
];

fn bodies(env: &Env) {
    let ok = |text: &str| [parse("", format!("SELECT '{text}'")), bind("", "", &[], 0), execute("", 0)].concat();
    let mut scripts: Vec<Script> = Vec::new();
    let mut add = |name: String, turns| scripts.push((&*name.leak(), turns));
    for (tag, body) in EXTENDED {
        let (name, bad) = (format!("{} {}", char::from(*tag), body.escape_ascii()), message(*tag, body));
        add(format!("{name} alone"), vec![turn(&[&bad[..], SYNC], "Z")]);
        add(
            format!("{name} amid others"),
            vec![turn(&[&ok("1")[..], &bad, &ok("2"), &bad, SYNC, &ok("3"), SYNC, &query("SELECT 4")], "ZZZ")],
        );
        add(
            format!("{name} in a transaction, with Flush"),
            vec![
                turn(&[query("BEGIN")], "Z"),
                turn(&[&parse("s", "SELECT 1")[..], &describe(b'S', "s"), FLUSH], "T"),
                turn(&[&bad[..], FLUSH], "E"),
                turn(&[&ok("5")[..], SYNC, &query("SELECT 6"), &query("ROLLBACK")], "ZZZ"),
            ],
        );
        add(
            format!("{name} behind an error"),
            vec![turn(&[&extended("SELECT 1/0")[..extended("SELECT 1/0").len() - 5], &bad, &ok("7"), SYNC], "Z")],
        );
    }
    for (tag, body) in SIMPLE {
        let (name, bad) = (format!("{} {}", char::from(*tag), body.escape_ascii()), message(*tag, body));
        add(format!("{name} alone"), vec![turn(&[&bad], "Z")]);
        add(format!("{name} amid others"), vec![turn(&[&query("SELECT 1"), &bad, &query("SELECT 2")], "ZZZ")]);
        add(format!("{name} before Sync"), vec![turn(&[&ok("3")[..], &bad, &ok("4"), SYNC], "ZZ")]);
        add(
            format!("{name} in a transaction"),
            vec![turn(&[query("BEGIN"), bad.clone(), query("SELECT 1"), query("ROLLBACK")], "ZZZZ")],
        );
        add(
            format!("{name} behind an error"),
            vec![turn(&[&extended("SELECT 1/0")[..extended("SELECT 1/0").len() - 5], &bad, SYNC], "Z")],
        );
    }
    compare(env, "malformed", &[], TABLE, &scripts);
}

/// A server that copies in looks at less.
fn in_a_copy(env: &Env) {
    let begun = |copy: &[u8], rest: &[&[u8]]| {
        vec![
            turn(&[copy], "G"),
            turn(&[rest.concat()], "Z"),
            turn(&[query("SELECT count(*) FROM t WHERE n <= 50")], "Z"),
        ]
    };
    let simple = query("COPY t FROM STDIN");
    let unsynced = [&parse("", "COPY t FROM STDIN")[..], &bind("", "", &[], 0), &execute("", 0), FLUSH].concat();
    let mut scripts: Vec<Script> = Vec::new();
    let between = [SYNC, FLUSH, &message(b'S', b"x"), &message(b'H', b"xyz"), FLUSH, SYNC].concat();
    let fails = [message(b'f', &[b'x'; 9000]), message(b'f', b"x"), message(b'f', b""), copy_fail("no")];
    for (copy, end) in [(&simple, &b""[..]), (&unsynced, SYNC)] {
        scripts.push(("Sync and Flush between rows", begun(copy, &[&between, &copy_data(b""), COPY_DONE, end])));
        scripts.push(("Sync and Flush before CopyFail", begun(copy, &[&between, &copy_fail("no"), end])));
        scripts.push(("CopyDone with a body", begun(copy, &[&message(b'c', b"x"), end])));
        scripts.extend(fails.iter().map(|fail| ("CopyFail", begun(copy, &[fail, end]))));
    }
    scripts.push((
        "a Query in a COPY",
        vec![turn(&[&simple], "G"), turn(&[query("SELECT 1"), extended("SELECT 2")], "$")],
    ));
    scripts.push(("a Parse in a COPY", vec![turn(&[&unsynced], "G"), turn(&[extended("SELECT 1")], "$")]));
    compare(env, "malformed_copy", &[], TABLE, &scripts);
}
