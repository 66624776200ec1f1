//! What the memo keeps, learns and forgets.

use std::time::Duration;

use super::*;

fn fingerprint(text: &str) -> u64 {
    classify(text).fingerprint
}

#[test]
fn fingerprints_leave_out_what_does_not_matter() {
    for (a, b) in [
        ("SELECT * FROM t WHERE a = 1", "select  *\nfrom T where A = 'x' -- c"),
        ("SELECT $1", "SELECT 1"),
        ("SELECT 1 FROM t WHERE a IN (1, 2, 3)", "SELECT 1 FROM t WHERE a IN ('a')"),
        ("/* causeway: primary */ SELECT 1", "SELECT 2"),
    ] {
        assert_eq!(fingerprint(a), fingerprint(b), "{a} and {b}");
    }
    for (a, b) in [
        ("SELECT a", "SELECT b"),
        ("SELECT a", "SELECT \"A\""),
        ("SELECT a, b", "SELECT ab"),
        ("SELECT a b", "SELECT ab"),
        ("SELECT 1", "SELECT 1, 1"),
        ("SELECT a + b", "SELECT a - b"),
        ("SELECT set_config('a', 'b', true)", "SELECT set_config('a', 'b', false)"),
        ("SELECT 1 IN (1, a)", "SELECT 1 IN (1, 1)"),
        ("DO 'BEGIN NULL; END'", "DO 'BEGIN RESET ALL; END'"),
    ] {
        assert_ne!(fingerprint(a), fingerprint(b), "{a} and {b}");
    }
}

#[test]
fn the_memo_answers_texts_and_shapes() {
    let mut classifier = Classifier::new(1 << 20);
    let context = context(&FACTS);
    let mut ask = |text: &str| {
        let answer = classifier.classify(text.as_bytes(), &context);
        (answer.class, classifier.stats.hits, classifier.stats.misses)
    };
    assert_eq!(ask("SELECT 1"), (Class::Read, 0, 1));
    assert_eq!(ask("SELECT 1"), (Class::Read, 1, 1));
    assert_eq!(ask("SELECT 2"), (Class::Read, 2, 1));
    assert_eq!(ask("DELETE FROM t"), (Class::Write, 2, 2));
    assert_eq!(ask("/* causeway: replica */ SELECT volatile_fn()"), (Class::Read, 2, 3));
    assert_eq!(ask("SELECT volatile_fn()"), (Class::Unknown, 2, 4));
}

#[test]
fn other_circumstances_have_other_answers() {
    let loaded = context(&FACTS);
    let empty = CatalogFacts::unloaded();
    let mut classifier = Classifier::new(1 << 20);
    let text = b"SELECT count(*) FROM t";
    for _ in 0..2 {
        assert_eq!(classifier.classify(text, &loaded).class, Class::Read);
        let other = Context { facts: &empty, facts_version: 2, ..loaded };
        assert_eq!(classifier.classify(text, &other).class, Class::Unknown);
        let other = Context { standard_conforming_strings: false, ..loaded };
        assert_eq!(classifier.classify(text, &other).class, Class::Write);
    }
    assert_eq!((classifier.stats.hits, classifier.stats.misses), (3, 3));
}

#[test]
fn the_memo_is_bounded() {
    let mut classifier = Classifier::new(64 << 10);
    for n in 0..10_000 {
        classifier.classify(format!("SELECT c{n} FROM t").as_bytes(), &context(&FACTS));
    }
    assert!((50..500).contains(&classifier.remembered()), "{}", classifier.remembered());
    let mut none = Classifier::new(0);
    for _ in 0..3 {
        assert_eq!(none.classify(b"SELECT 1", &context(&FACTS)).class, Class::Read);
    }
    assert_eq!((none.remembered(), none.stats.misses), (0, 3));
}

#[test]
fn learned_writes_expire() {
    let mut classifier = Classifier::new(1 << 20);
    let start = context(&FACTS);
    let later = |seconds| Context { now: start.now + Duration::from_secs(seconds), ..start };
    let mut learned_at = |text: &str, at: u64, learn: bool| {
        let answer = classifier.classify(text.as_bytes(), &later(at));
        if learn {
            classifier.learn_write(answer.fingerprint, later(at).now, Duration::from_secs(60));
        }
        answer.why.rule == Rule::Learned
    };
    assert!(!learned_at("SELECT stable_fn(1)", 0, true));
    assert!(learned_at("SELECT stable_fn(2)", 1, false));
    assert!(!learned_at("SELECT stable_fn(2), 3", 1, false));
    assert!(learned_at("SELECT stable_fn(1)", 59, false));
    assert!(!learned_at("SELECT stable_fn(1)", 60, false));
    assert!(!learned_at("SELECT stable_fn(1)", 1, false));
}
