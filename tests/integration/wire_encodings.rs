//! Text in every encoding of clients: the same bytes and the same errors as from a node.

use crate::exact::{Script, compare};
use crate::frames::{COPY_DONE, SYNC, Turn, bind, copy_data, describe, execute, parse, play, query, show, turn};
use crate::harness::{Env, Test};

pub const TESTS: &[Test] =
    &[("wire_encodings::set_at_login", set_at_login), ("wire_encodings::set_by_statements", set_by_statements)];

/// An encoding, a word in it whose bytes look like quotes and backslashes where that can be, and bytes that are none.
const ENCODINGS: &[(&str, &[u8], &[u8])] = &[
    ("LATIN1", b"caf\xe9", b"\xe9"),
    ("LATIN9", b"\xa4uro", b"\xa4"),
    ("WIN1252", b"\x80uro", b"\x81"),
    ("KOI8R", b"\xd2\xd5\xd3", b"\xff"),
    ("EUC_JP", b"\xc9\xbd\xbc\xa8", b"\xc9"),
    ("SJIS", b"\x95\x5c\x8e\xa6", b"\x95"),
    ("BIG5", b"\xa5\x5c\xa4\x40", b"\xa5"),
    ("GBK", b"\x81\x5c\xb1\xed", b"\x81"),
    ("UHC", b"\xb0\xa1", b"\xb0"),
    ("EUC_KR", b"\xb0\xa1", b"\xb0"),
    ("GB18030", b"\x81\x5c\x81\x30\x81\x30", b"\x81\x30"),
    ("UTF8", b"\xe8\xa1\xa8", b"\xe8\xa1"),
];

const SETUP: &str = "CREATE TABLE t (s text); GRANT ALL ON t TO app";

fn turns(word: &[u8], broken: &[u8]) -> Vec<Turn> {
    let say = |parts: &[&[u8]]| query(parts.concat());
    let mut turns = vec![
        turn(&[say(&[b"SELECT '", word, b"' AS \"", word, b"\", length('", word, b"') -- ", word])], "Z"),
        turn(&[say(&[b"SELECT E'", word, b"\\n', $x$", word, b"$x$ /* ", word, b" */"])], "Z"),
        turn(&[say(&[b"SELECT '", word, b"'::int"])], "Z"),
        turn(&[say(&[b"SELECT 1 AS one, ", word, b" FROM ", word])], "Z"),
        turn(&[say(&[b"DO $$ BEGIN RAISE NOTICE '", word, b"' USING HINT = '", word, b"'; END $$"])], "Z"),
        turn(&[say(&[b"SELECT '", broken, b"'"])], "Z"),
        turn(
            &[
                &parse("", [&b"SELECT $1::text || '"[..], word, b"', '", word, b"'"].concat())[..],
                &bind("", "", &[word], 0),
                &describe(b'P', ""),
                &execute("", 0),
                SYNC,
            ],
            "Z",
        ),
        turn(&[&parse("", "SELECT $1::text")[..], &bind("", "", &[broken], 0), &execute("", 0), SYNC], "Z"),
        turn(&[&parse("n", [b"SELECT '", word, b"'"].concat())[..], SYNC], "Z"),
        turn(&[&bind("", "n", &[], 0)[..], &execute("", 0), SYNC], "Z"),
        turn(&[&query("BEGIN")[..], &query("COPY t FROM STDIN"), &copy_data(&[word, b"\n"].concat()), COPY_DONE], "ZZ"),
        turn(&[query("COPY t TO STDOUT"), query("SELECT s, octet_length(s) FROM t"), query("ROLLBACK")], "ZZZ"),
    ];
    // What this encoding lacks.
    turns.push(turn(&[query("SELECT chr(8364), chr(35920)")], "Z"));
    turns
}

fn set_at_login(env: &Env) {
    let database = env.database("encodings");
    database.prepare(SETUP);
    let targets = [database.node(0), env.proxy().target(&database.name)];
    for (encoding, word, broken) in ENCODINGS {
        let [want, got] = [&targets[0], &targets[1]].map(|target| {
            let (mut client, _) = target.raw_with(&[("client_encoding", encoding)]);
            play(&mut client, &turns(word, broken))
        });
        assert!(want == got, "{encoding}: a node says\n{}  the proxy says\n{}", show(&want), show(&got));
    }
}

fn set_by_statements(env: &Env) {
    let mut scripts: Vec<Script> = Vec::new();
    for (encoding, word, broken) in ENCODINGS {
        for set in ["SET client_encoding = ", "SET NAMES ", "SELECT set_config('client_encoding', "] {
            let close = if set.starts_with("SELECT") { ", false)" } else { "" };
            let mut script = vec![turn(&[query(format!("{set}'{encoding}'{close}"))], "Z")];
            script.extend(turns(word, broken));
            script.push(turn(&[query("RESET client_encoding"), query("SELECT '\u{e9}'")], "ZZ"));
            scripts.push((&*format!("{encoding} by {set}").leak(), script));
        }
    }
    scripts.push((
        "two in one Query, and in a transaction that fails",
        vec![
            turn(&[query("SET client_encoding = 'SJIS'; SET client_encoding = 'LATIN1'")], "Z"),
            turn(&[query(b"SELECT 'caf\xe9'")], "Z"),
            turn(&[query("BEGIN; SET client_encoding = 'EUC_JP'"), query(b"SELECT '\xc9\xbd'")], "ZZ"),
            turn(&[query("SELECT 1/0"), query("ROLLBACK"), query(b"SELECT 'caf\xe9'")], "ZZZ"),
        ],
    ));
    compare(env, "by_statements", &[], SETUP, &scripts);
}
