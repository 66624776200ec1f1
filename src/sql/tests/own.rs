//! What texts say to Causeway itself: hints, its settings, EXPLAIN ROUTE.

use std::time::Duration;

use proptest::prelude::*;

use super::Assigned::{Default, Unread, Value};
use super::*;
use crate::types::{Level, Lsn, Overrides, OwnSetting, OwnValue, Position};

/// Of system 7, timeline 2, at 0/63.
const TOKEN: &str = "cw1_0000000000000007000000020000000000000063d04c3a32";
const POSITION: Position = Position { system: 7, timeline: 2, lsn: Lsn(0x63) };

const NONE: Overrides = Overrides { level: None, max_staleness: None, causal_wait: None };

fn level(level: Level) -> Overrides {
    Overrides { level: Some(level), ..NONE }
}

/// The SQLSTATE and the message of what is refused; empty, when nothing is.
fn refusal(text: &str) -> String {
    classify(text).refusal().map(|bad| format!("{} {}", bad.sqlstate, bad.message)).unwrap_or_default()
}

#[test]
fn hints_are_read_from_comments_before_the_first_token() {
    let staleness = Overrides { max_staleness: Some(Duration::from_millis(500)), ..NONE };
    let all = Overrides { level: Some(Level::Bounded), causal_wait: Some(Duration::from_secs(60)), ..staleness };
    for (comments, overrides, after, target) in [
        ("", NONE, None, None),
        ("/* causeway: consistency=strong */", level(Level::Strong), None, None),
        ("/*CAUSEWAY:Consistency=STRONG*/", level(Level::Strong), None, None),
        ("/* x */ -- y\n /* causeway : consistency = eventual */", level(Level::Eventual), None, None),
        ("/* causeway: max_staleness=500 */", staleness, None, None),
        ("/* causeway: max_staleness=500ms, consistency=bounded causal_wait=1min */", all, None, None),
        ("/* causeway: max_staleness=500ms */ /* causeway:,consistency=bounded,causal_wait=60s, */", all, None, None),
        ("/* causeway: consistency=strong consistency=Strong */", level(Level::Strong), None, None),
        (&format!("/* causeway: after={TOKEN} */"), NONE, Some(POSITION), None),
        (&format!("/* causeway: replica\n\tafter={TOKEN} */"), NONE, Some(POSITION), Some(Hint::Replica)),
        ("/* causeway: after= */", NONE, None, None),
        ("/* causeway: primary consistency=session */", level(Level::Session), None, Some(Hint::Primary)),
        ("/* causeway: replica, primary */ /* causeway: replica */", NONE, None, Some(Hint::Primary)),
        ("/* causewayx: consistency=strong */ /* a causeway: b */ /* causeway */", NONE, None, None),
    ] {
        for statement in ["SELECT 1", "DELETE FROM t", "SELECT 'x", ""] {
            let answer = classify(format!("{comments} {statement}"));
            assert_eq!(answer.hints(), Hints { overrides, after }, "{comments}");
            assert_eq!((answer.hint, answer.refusal()), (target, None), "{comments}");
        }
        let behind = classify(format!("SELECT {comments} 1"));
        assert_eq!((behind.hints(), behind.hint, behind.refusal()), (Hints::default(), None, None), "{comments}");
    }
}

#[test]
fn hints_that_cannot_be_read_are_refused() {
    let damaged = TOKEN.replace("63", "64");
    for (comment, expected) in [
        ("consistency=stong", "22023 invalid value for parameter \"causeway.consistency\": \"stong\""),
        ("consistency=", "22023 invalid value for parameter \"causeway.consistency\": \"\""),
        ("consistency='strong'", "22023 invalid value for parameter \"causeway.consistency\": \"'strong'\""),
        ("max_staleness=500 ms", "22023 unrecognized hint \"ms\""),
        ("max_staleness=0", "22023 invalid value for parameter \"causeway.max_staleness\": \"0\""),
        ("causal_wait=1m", "22023 invalid value for parameter \"causeway.causal_wait\": \"1m\""),
        (&format!("after={damaged}"), "22023 invalid value for parameter \"causeway.after\": \"cw1_"),
        (&format!("position={TOKEN}"), "22023 unrecognized hint \"position\""),
        ("", "22023 unrecognized hint \"\""),
        (" , ", "22023 unrecognized hint \"\""),
        ("elsewhere", "22023 unrecognized hint \"elsewhere\""),
        ("strong", "22023 unrecognized hint \"strong\""),
        ("=strong", "22023 unrecognized hint \"\""),
        ("primary=yes", "22023 unrecognized hint \"primary\""),
        ("primary; replica", "22023 unrecognized hint \"primary;\""),
        ("consistency=strong, consistency=session", "22023 the hint \"consistency\" is there twice"),
        ("consistency=strong elsewhere", "22023 unrecognized hint \"elsewhere\""),
    ] {
        let bad = format!("/* causeway: {comment} */");
        for text in [
            format!("{bad} SELECT 1"),
            format!("/* causeway: replica */{bad}/* causeway: elsewhere else */ DELETE FROM t"),
            format!("{bad} SET causeway.position = 1"),
            format!("{bad} SELECT 'x"),
            format!("{bad} SELECT '{}'", "x".repeat(2 << 20)),
        ] {
            let shown = refusal(&text);
            assert!(shown.starts_with(expected), "{bad}: {shown}");
        }
        assert_eq!(classify(format!("{bad} DELETE FROM t")).class, Class::Write);
    }
    let answer = classify(b"/* causeway: consistency=strong \xff */ SELECT 1");
    assert_eq!(answer.refusal().map(|bad| bad.message.as_str()), Some("the hint is not UTF-8"));
}

/// A SET, what it sets, whether it is LOCAL, and how it is refused.
type Set<'a> = (&'a str, &'a [(OwnSetting, Assigned, bool)], &'a str);

const SETS: &[Set<'_>] = &[
    ("SET x = 1", &[], ""),
    (
        "SET causeway.consistency = 'strong'",
        &[(OwnSetting::Consistency, Value(OwnValue::Consistency(Level::Strong)), false)],
        "",
    ),
    (
        "set session Causeway.CONSISTENCY to Eventual;",
        &[(OwnSetting::Consistency, Value(OwnValue::Consistency(Level::Eventual)), false)],
        "",
    ),
    (
        "SET LOCAL \"causeway\".\"consistency\" TO \"session\"",
        &[(OwnSetting::Consistency, Value(OwnValue::Consistency(Level::Session)), true)],
        "",
    ),
    (
        "SET \"causeway.consistency\" = $$primary$$",
        &[(OwnSetting::Consistency, Value(OwnValue::Consistency(Level::Primary)), false)],
        "",
    ),
    (
        "SET/**/causeway/**/./**/max_staleness = 1500",
        &[(OwnSetting::MaxStaleness, Value(OwnValue::MaxStaleness(Duration::from_millis(1500))), false)],
        "",
    ),
    ("SET causeway.causal_wait TO DEFAULT", &[(OwnSetting::CausalWait, Default, false)], ""),
    ("SET causeway.after = ''", &[(OwnSetting::After, Value(OwnValue::After(None)), false)], ""),
    // The last counts, of those that end with the transaction and of the others.
    (
        "SET causeway.causal_wait = 1; SET LOCAL causeway.causal_wait = 2; SELECT 1; SET causeway.causal_wait = '3s'",
        &[
            (OwnSetting::CausalWait, Value(OwnValue::CausalWait(Duration::from_millis(2))), true),
            (OwnSetting::CausalWait, Value(OwnValue::CausalWait(Duration::from_secs(3))), false),
        ],
        "",
    ),
    // What only the server can read.
    ("SET causeway.consistency = E'str\\x6fng'", &[(OwnSetting::Consistency, Unread, false)], ""),
    ("SET causeway.consistency = U&'strong'", &[(OwnSetting::Consistency, Unread, false)], ""),
    ("SET causeway.consistency = 'str' 'ong'", &[(OwnSetting::Consistency, Unread, false)], ""),
    ("SET causeway.consistency = 'a', 'b'", &[(OwnSetting::Consistency, Unread, false)], ""),
    ("SET causeway.consistency FROM CURRENT", &[(OwnSetting::Consistency, Unread, false)], ""),
    ("SET causeway.consistency = $1", &[(OwnSetting::Consistency, Unread, false)], ""),
    ("SET causeway.consistency =", &[(OwnSetting::Consistency, Unread, false)], ""),
    ("SET LOCAL causeway.after = ''; SET LOCAL causeway.after = E'\\x'", &[(OwnSetting::After, Unread, true)], ""),
    // Not a SET.
    ("RESET causeway.consistency", &[], ""),
    ("DO $$ BEGIN SET causeway.consistency = 'stong'; END $$", &[], ""),
    ("SELECT set_config('causeway.consistency', 'stong', false)", &[], ""),
    // What cannot be.
    (
        "SET causeway.consistency = 'stong'",
        &[],
        "22023 invalid value for parameter \"causeway.consistency\": \"stong\"",
    ),
    ("SET LOCAL causeway.consistency = 5", &[], "22023 invalid value for parameter \"causeway.consistency\": \"5\""),
    ("SET causeway.causal_wait = -5", &[], "22023 invalid value for parameter \"causeway.causal_wait\": \"-5\""),
    ("SET causeway.after = 'x'", &[], "22023 invalid value for parameter \"causeway.after\": \"x\""),
    ("SET causeway.position = DEFAULT", &[], "55P02 parameter \"causeway.position\" cannot be changed"),
    ("SET LOCAL causeway.position TO 'x'", &[], "55P02 parameter \"causeway.position\" cannot be changed"),
    ("SET causeway.foo = E'\\n'", &[], "42704 unrecognized configuration parameter \"causeway.foo\""),
    ("SET causeway.after.x = ''", &[], "42704 unrecognized configuration parameter \"causeway.after.x\""),
    (
        "SELECT 1; SET causeway.a = 1; SET causeway.after = ''; SET causeway.b = 1",
        &[(OwnSetting::After, Value(OwnValue::After(None)), false)],
        "42704 unrecognized configuration parameter \"causeway.a\"",
    ),
];

#[test]
fn set_of_our_settings_is_read_and_checked() {
    for (text, sets, refused) in SETS {
        let answer = classify(text);
        let found = answer.own.as_ref().map(|own| own.sets.clone()).unwrap_or_default();
        let sets: Vec<_> = sets.iter().map(|&(setting, to, local)| OwnSet { setting, to, local }).collect();
        assert_eq!(found, sets, "{text}");
        assert_eq!(refusal(text), *refused, "{text}");
        assert_eq!(answer.mentions_own, text.to_ascii_lowercase().contains("causeway"), "{text}");
    }
    let many: Vec<_> = (0..10_000).map(|n| format!("SET causeway.causal_wait = {n}; SET causeway.x{n} = 1")).collect();
    assert!(classify(many.join(";")).own.as_ref().is_some_and(|own| own.sets.len() == 1));
}

/// SET is a write that names what it sets, SET LOCAL harmless; SHOW goes anywhere and leaves nothing behind.
#[test]
fn our_settings_have_the_effects_of_any_other() {
    let set = Effects::SET;
    for (text, class, effects, settings) in [
        ("SET causeway.after = 'x'", Class::Write, set, &["causeway.after"][..]),
        ("SET LOCAL causeway.after = 'x'", Class::Read, Effects::LOCAL, &["causeway.after"]),
        ("RESET causeway.after", Class::Write, set | Effects::RESET, &["causeway.after"]),
        ("SHOW causeway.position", Class::Read, Effects::NONE, &[]),
        ("show \"causeway\" . POSITION;", Class::Read, Effects::NONE, &[]),
        ("SHOW \"Causeway.position\"", Class::Read, Effects::NONE, &[]),
        ("SHOW causewayx.position", Class::Write, Effects::NONE, &[]),
        ("SHOW causeway", Class::Write, Effects::NONE, &[]),
        ("SELECT current_setting('causeway.position')", Class::Read, Effects::NONE, &[]),
        ("SELECT 1, pg_catalog.current_setting($$causeway.x$$, true)", Class::Read, Effects::NONE, &[]),
        ("SELECT current_setting('causeway.x' || 'y')", Class::Write, Effects::NONE, &[]),
        ("SELECT current_setting('app.x')", Class::Write, Effects::NONE, &[]),
        ("SELECT set_config('causeway.after', 'x', true)", Class::Write, Effects::LOCAL, &["causeway.after"]),
    ] {
        let answer = classify(text);
        let names: Vec<_> = answer.settings.iter().map(|name| &**name).collect();
        assert_eq!((answer.class, answer.effects, &names[..]), (class, effects, settings), "{text}");
    }
}

#[test]
fn mentions_are_found() {
    for (text, mentioned) in [
        ("SHOW causeway.position", true),
        ("SHOW /* x */ \"causeway\" /* y */ . /* z */ position", true),
        ("RESET \"CAUSEWAY.AFTER\"", true),
        ("SET causeway/**/.after = ''", true),
        ("SELECT current_setting('Causeway.Position', true)", true),
        ("SELECT current_setting(n) FROM (VALUES ('causeway.after')) v (n)", true),
        ("DO $$ BEGIN PERFORM set_config('causeway.after', '', false); END $$", true),
        ("SELECT 'causeway.", true),
        ("SELECT * FROM causeway", false),
        ("SELECT 'causeway'", false),
        ("SELECT 'cause way.x', w.y, 'ausEway.z'", false),
        ("/* causeway: consistency=strong */ SELECT wwwwww FROM w", false),
        ("W", false),
        ("", false),
    ] {
        assert_eq!(classify(text).mentions_own, mentioned, "{text}");
    }
    assert!(classify(format!("SELECT '{}'", "x".repeat(2 << 20))).mentions_own, "too long to look at");
    let mut builder = CatalogFacts::builder();
    builder.function(FunctionRow {
        schema: "public",
        name: "hasten",
        volatility: Volatility::Volatile,
        field_style: false,
    });
    let source = Some("SELECT set_config('causeway.consistency', 'eventual', false)");
    builder.code(CodeRow { oid: 1, name: "hasten", language: "sql", source });
    let facts = builder.build();
    assert!(classify_with(&facts, "SELECT hasten()").mentions_own);
    assert!(!classify_with(&facts, "SELECT other()").mentions_own);
}

#[test]
fn explain_route_is_a_read_of_whatever_it_asks_about() {
    for (text, asks) in [
        ("EXPLAIN ROUTE SELECT 1", Some(" SELECT 1")),
        ("explain/* x */Route\nDELETE FROM t;", Some("\nDELETE FROM t;")),
        (";-- x\n EXPLAIN route -- y\n/* causeway: primary */ x;;", Some(" -- y\n/* causeway: primary */ x;;")),
        ("EXPLAIN ROUTE EXPLAIN ROUTE SET x = 1", Some(" EXPLAIN ROUTE SET x = 1")),
        ("/* causeway: consistency=strong */ EXPLAIN ROUTE CREATE TEMP TABLE t ()", Some(" CREATE TEMP TABLE t ()")),
        ("EXPLAIN ROUTE", None),
        ("EXPLAIN ROUTE;", None),
        ("EXPLAIN \"route\" SELECT 1", None),
        ("EXPLAIN (ROUTE) SELECT 1", None),
        ("EXPLAIN SELECT route", None),
        ("EXPLAIN ROUTE SELECT 1; SELECT 2", None),
        ("SELECT 2; EXPLAIN ROUTE SELECT 1", None),
        ("EXPLAIN ROUTE SELECT 'x", None),
        ("ROUTE SELECT 1", None),
    ] {
        let answer = classify(text);
        assert_eq!(explained(text.as_bytes()), asks.map(str::as_bytes), "{text}");
        assert_eq!(answer.explains_route, asks.is_some(), "{text}");
        if asks.is_some() {
            assert_eq!((answer.class, answer.why.rule), (Class::Read, Rule::ExplainRoute), "{text}");
            assert_eq!((answer.effects, answer.settings.len(), answer.begins), (Effects::NONE, 0, None), "{text}");
        }
    }
}

#[test]
fn the_memo_keeps_what_texts_say_to_us_apart() {
    let mut classifier = Classifier::new(1 << 20);
    let context = context(&FACTS);
    let mut ask = |text: &str| {
        let answer = classifier.classify(text.as_bytes(), &context);
        let hints = said_of(text).into_iter().find(|row| row.starts_with("hint: ")).unwrap();
        assert_eq!(*answer, *classify(text), "{text}");
        (hints, classifier.stats.misses, classifier.remembered())
    };
    let hint = |hints: &str| format!("hint: {hints}");
    let after = format!("/* causeway: after={TOKEN}*/ SELECT 5");
    for (text, hints, misses, remembered) in [
        ("SELECT 1", "none", 1, 1),
        ("/* causeway: consistency=strong */ SELECT 2", "consistency=strong", 1, 1),
        ("/* causeway: consistency=eventual */ SELECT 2", "consistency=eventual", 1, 1),
        ("SELECT 2", "none", 1, 1),
        ("/* causeway: max_staleness=1.5s causal_wait=0 */ SELECT 3", "max_staleness=1500ms, causal_wait=0", 1, 1),
        (&after, &format!("after={TOKEN}"), 1, 1),
        ("SELECT 'causeway.x'", "none", 1, 1),
        ("SELECT 'causeway'", "none", 1, 1),
        ("/* causeway: bad */ SELECT 4", "none", 1, 1),
        ("/* causeway: primary, consistency=strong */ SELECT 4", "primary, consistency=strong", 2, 2),
    ] {
        assert_eq!(ask(text), (hint(hints), misses, remembered), "{text}");
    }
    for text in ["SET causeway.consistency = 'strong'", "SET causeway.consistency = 'stong'"] {
        assert_eq!(ask(text).2, 2, "{text}");
    }
    assert_eq!(said_of("/* causeway: x */").last().unwrap(), "refused: unrecognized hint \"x\" (SQLSTATE 22023)");
}

proptest! {
    #[test]
    fn hints_are_read_or_refused_but_never_passed_over(wishes in "[a-z_=,:0-9 ]{0,40}") {
        let answer = classify(format!("/* causeway:{wishes}*/ SELECT 1"));
        let empty = wishes.split([',', ' ']).any(|word| word.ends_with("after="));
        let says = answer.hint.is_some() || !answer.hints().is_empty();
        prop_assert!(says || empty || answer.refusal().is_some());
    }

    #[test]
    fn hints_change_nothing_else(
        text in prop::sample::select(everyday_reads().collect::<Vec<_>>()),
        level in prop::sample::select(&Level::ALL[..]),
    ) {
        let plain = classify(text);
        let hinted = classify(format!("/* causeway: consistency={} */{text}", level.as_str()));
        prop_assert_eq!(hinted.hints().overrides.level, Some(level));
        prop_assert_eq!(&Classified { own: None, ..Classified::clone(&hinted) }, &*plain);
    }

    #[test]
    fn what_is_explained_is_what_follows(text in "[ -~]{1,60}", comment in "[a-z ]{0,9}") {
        let asked = format!("/*{comment}*/ EXPLAIN ROUTE {text}");
        if let Some(explained) = explained(asked.as_bytes()) {
            let expected = format!(" {text}");
            prop_assert_eq!(explained, expected.as_bytes());
            prop_assert!(classify(&asked).explains_route);
        }
    }
}
