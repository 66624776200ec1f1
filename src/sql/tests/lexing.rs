//! Texts and their tokens.

use super::super::lexer::{Kind, Tokens, scan};

/// The tokens, spaced out; a literal as `?`, a quoted name in quotes.
fn tokens(text: &str) -> String {
    let mut scanned = Tokens::default();
    if let Err(unscannable) = scan(text.as_bytes(), true, &mut scanned) {
        return format!("{unscannable:?}");
    }
    let show = |kind, name: &[u8]| match kind {
        Kind::Literal => "?".to_owned(),
        Kind::Encoded => "U&".to_owned(),
        Kind::Quoted => format!("\"{}\"", String::from_utf8_lossy(name)),
        Kind::Word | Kind::Operator => String::from_utf8_lossy(name).into_owned(),
        Kind::Open => "(".to_owned(),
        Kind::Close => ")".to_owned(),
        Kind::OpenBracket => "[".to_owned(),
        Kind::CloseBracket => "]".to_owned(),
        Kind::Comma => ",".to_owned(),
        Kind::Semicolon => ";".to_owned(),
        Kind::Dot => ".".to_owned(),
        Kind::Colon => ":".to_owned(),
        Kind::Typecast => "::".to_owned(),
    };
    let words: Vec<_> = scanned.list.iter().map(|t| show(t.kind, scanned.name(*t))).collect();
    words.join(" ")
}

#[test]
fn tokens_are_postgresqls() {
    for (text, expected) in [
        ("SELECT a,B FROM \"C\"", "select a , b from \"C\""),
        ("\"a\"\"b\"", "\"a\"b\""),
        ("a$b$1 $1 $12", "a$b$1 ? ?"),
        ("'a''b' E'a\\'b' e'\\\\' B'1' x'1F' N'a'", "? ? ? ? ? ?"),
        ("'a\\' b", "? b"),
        ("'a'\n'b' 'c'", "? ?"),
        ("'a' 'b'", "? ?"),
        ("E'a'\n'\\'b' c", "? c"),
        ("E'a' -- x\n  '\\'' c", "? c"),
        ("'a' /* x\n */ 'b'", "? ?"),
        ("U&'a' u&\"b\" u & v", "? U& u & v"),
        ("$$a$b$$ $x$ $$ $y$ $x$ $é$ $é$", "? ? ?"),
        ("a$$b$$", "a$$b$$"),
        ("1 1.5 .5 1. 1e5 1.5e-3 1e 1e+ 0x1F 1_000", "? ? ? ? ? ? ? e ? e + ? ?"),
        ("1..10", "? . . ?"),
        ("a[1:2] a::int b:=1 c=>1", "a [ ? : ? ] a :: int b := ? c => ?"),
        ("a.b.*", "a . b . *"),
        ("1+-1", "? + - ?"),
        ("1*-1", "? * - ?"),
        ("1@-1", "? @- ?"),
        ("1<-1", "? < - ?"),
        ("1-+-+1", "? - + - + ?"),
        ("a->>'b' #>> '{c}' @> d", "a ->> ? #>> ? @> d"),
        ("a--b\n+c", "a + c"),
        ("a+--b\nc", "a + c"),
        ("a+/*b*/c", "a + c"),
        ("a*/*b*/c", "a * c"),
        ("a/* /* b */ ' */ c", "a c"),
        ("a /**/ b /***/ c", "a b c"),
        ("a--", "a"),
        ("a--b\rc", "a c"),
        ("Ünder SELECT1 _x é", "Ünder select1 _x é"),
        ("a;b", "a ; b"),
        ("a!=b<>c||d", "a != b <> c || d"),
        ("'", "Malformed"),
        ("\"", "Malformed"),
        ("\"a\"\"", "Malformed"),
        ("E'\\", "Malformed"),
        ("$a", "Malformed"),
        ("$a$", "Malformed"),
        ("$", "Malformed"),
        ("/*", "Malformed"),
        ("/*/", "Malformed"),
        ("{fn now()}", "Malformed"),
    ] {
        assert_eq!(tokens(text), expected, "{text}");
    }
}
