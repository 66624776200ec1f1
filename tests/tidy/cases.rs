//! Files that break the rules, and some that only look so.

use super::*;

const LIB: (&str, &str) = (
    "src/lib.rs",
    "//! Map\n//! | 1 | [`types`] | x |\n//! | 2 | [`pool`] | x |\n//! | 3 | [`app`] | x |\npub mod app;\npub mod \
     pool;\npub mod types;\n",
);

/// A rule, a file besides `LIB`, and what is wrong with it; nothing, when it only looks wrong.
const CASES: &[(Rule, &str, &str, &str)] = &[
    (lower_layers_only, "src/pool/mod.rs", "\nuse crate::app::X;", "src/pool/mod.rs:2: pool imports app"),
    (lower_layers_only, "src/pool/mod.rs", "use crate::{types::{A, app}, app};", "src/pool/mod.rs:1: pool imports app"),
    (lower_layers_only, "src/pool/a.rs", "fn f() { crate::app::g() }", "src/pool/a.rs:1: pool imports app"),
    (lower_layers_only, "src/pool/a.rs", "fn f() { m!(crate::app::g()) }", "src/pool/a.rs:1: pool imports app"),
    (lower_layers_only, "src/pool/a.rs", "use super::super::app;", "src/pool/a.rs:1: super leads out of pool"),
    (lower_layers_only, "src/pool/mod.rs", "use super::app;", "src/pool/mod.rs:1: super leads out of pool"),
    (lower_layers_only, "src/pool/a.rs", "use super::app; use crate::{pool::app, types};", ""),
    (lower_layers_only, "src/pool/a.rs", "//! [`crate::app`]\nconst X: &str = \"crate::app\";", ""),
    (lower_layers_only, "src/pool/a.rs", "#[cfg(test)]\nmod tests { use crate::app; }", ""),
    (lower_layers_only, "src/pool/a.rs", "#[cfg(test)]\nmod tests {} use crate::app;", "src/pool/a.rs:2: pool imports"),
    (absences, "src/session/x.rs", "use pgwire::X;", "src/session/x.rs:1: uses pgwire"),
    (absences, "src/auth/x.rs", "use pgwire::X;", ""),
    (absences, "src/route/x.rs", "use sqlparser::X;", "src/route/x.rs:1: uses sqlparser"),
    (absences, "src/app/x.rs", "fn f() -> anyhow::Result<()> {}", "src/app/x.rs:1: uses anyhow"),
    (absences, "src/main.rs", "use anyhow::Result;", ""),
    (absences, "src/pool/x.rs", "use arc_swap::ArcSwap;", "src/pool/x.rs:1: uses arc_swap"),
    (absences, "src/sql/x.rs", "use tokio::time;", "src/sql/x.rs:1: uses tokio"),
    (absences, "src/route.rs", "use std::{io, net::IpAddr};", "src/route.rs:1: uses std::net"),
    (absences, "src/pool/x.rs", "use crate::route::Route;", "src/pool/x.rs:1: uses crate::route"),
    (absences, "src/pool/x.rs", "use crate::{topology};", "src/pool/x.rs:1: uses crate::topology"),
    (absences, "src/backend/x.rs", "use deadpool_postgres::Pool;", "src/backend/x.rs:1: uses deadpool_postgres"),
    (
        only_raw_derives_deserialize,
        "src/config/mod.rs",
        "#[derive(Debug, serde::Deserialize)] struct X;",
        "src/config/mod.rs:1: only config::raw",
    ),
    (only_raw_derives_deserialize, "src/config/raw.rs", "#[derive(Deserialize)] struct X;", ""),
    (only_raw_derives_deserialize, "src/config/a.rs", "#[derive(Debug)] struct X; use serde::Deserialize as _;", ""),
    (no_static_state, "src/a.rs", "static X: Mutex<u8> = Mutex::new(0);", "src/a.rs:1: static state"),
    (no_static_state, "src/a.rs", "fn f() { static N: AtomicU64 = x(); }", "src/a.rs:1: static state"),
    (no_static_state, "src/a.rs", "thread_local! { static X: u8 = 0; }", "src/a.rs:1: thread_local state"),
    (no_static_state, "src/a.rs", "static X: &str = \"\"; fn f(x: &'static mut Mutex<()>) {}", ""),
    (prints_only_for_the_terminal, "src/a.rs", "fn f() { println!(\"\") }", "src/a.rs:1: println!: use tracing"),
    (prints_only_for_the_terminal, "src/app/demo/a.rs", "fn f() { println!(\"\") }", ""),
    (nothing_left_to_do, "src/a.rs", "fn f() { todo!() }", "src/a.rs:1: todo!"),
    (nothing_left_to_do, "src/a.rs", "fn f() { dbg!(1); }", "src/a.rs:1: dbg!"),
    (nothing_left_to_do, "src/a.rs", "\n// TODO: more", "src/a.rs:2: do it"),
    (headers, "src/a.rs", "use x;", "src/a.rs: begin with //!"),
    (headers, "tests/a.rs", "//! Tests.", ""),
    (links_lead_somewhere, "README.md", "[a](src/nowhere.rs)", "README.md: links to src/nowhere.rs"),
    (links_lead_somewhere, "README.md", "[a](src/lib.rs#x) [b](https://x.example) [c](#d)", ""),
    (links_lead_somewhere, "src/a.md", "[a](../Cargo.toml) [b](lib.rs)", ""),
    (tests_are_found, "src/a.rs", "#[test]\nfn f() {}", "src/a.rs:1: a test outside"),
    (tests_are_found, "src/a.rs", "#[cfg(test)]\nmod tests { #[test]\nfn f() {} }", ""),
];

#[test]
fn each_rule_can_fail() {
    for (rule, path, text, expected) in CASES {
        let files = [LIB, (*path, *text)].map(|(path, text)| (path.to_owned(), text.to_owned())).into();
        let wrong = rule(&files);
        match *expected {
            "" => assert_eq!(wrong, [""; 0], "{path}: {text}"),
            expected => assert!(wrong.iter().any(|wrong| wrong.starts_with(expected)), "{path}: {text}: {wrong:?}"),
        }
    }
}

/// A rule, the files, and the beginning of each thing that is wrong.
type Case<'a> = (Rule, &'a [(&'a str, &'a str)], &'a [&'a str]);

/// Rules over more than one file.
#[test]
fn each_rule_over_several_files_can_fail() {
    let long = "//! Long.\n".repeat(MAX_LINES + 1);
    let short = "//! Short.\n".repeat(MAX_LINES);
    let raw = "pub struct Pool {\n    pub size: u8,\n    pub mode: u8,\n}\nimpl X {\n    pub fn new(a: u8) -> u8 {}\n}";
    let metrics = "fn f() { x(\"causeway_clients\", \"causeway_wait_seconds\") }";
    let cases: [Case<'_>; 8] = [
        (files_are_short, &[("src/a.rs", &long), ("src/b.rs", &short)], &["src/a.rs: 601 lines"]),
        (
            dashboards_show_what_exists,
            &[
                ("src/metrics/mod.rs", metrics),
                (
                    "grafana/a.json",
                    "\"rate(causeway_wait_seconds_bucket[1m])\" \"causeway_clients\" \"causeway_client\"",
                ),
            ],
            &["grafana/a.json: shows causeway_client,"],
        ),
        (
            settings_are_documented,
            &[("src/config/raw.rs", raw), ("config/causeway.toml", "#size = 1\n# mode = 2 is described here\n")],
            &["config/causeway.toml: the setting mode"],
        ),
        (
            settings_are_documented,
            &[("src/config/raw.rs", raw), ("config/causeway.toml", "size = 1\n[[a.mode]]\n")],
            &[],
        ),
        // Files that are there for tests are no production code, wherever they are.
        (
            lower_layers_only,
            &[
                LIB,
                ("src/pool/mod.rs", "#[cfg(test)]\nmod tests;\n#[cfg(test)]\n#[path = \"other.rs\"]\nmod more;"),
                ("src/pool/tests.rs", "use crate::app;"),
                ("src/pool/other.rs", "use crate::app;"),
                ("src/pool/tests_of_it.rs", "use crate::app;"),
            ],
            &["src/pool/tests_of_it.rs:1: "],
        ),
        (
            lower_layers_only,
            &[
                LIB,
                ("src/pool/a.rs", "#[cfg(test)]\npub(crate) mod tests;"),
                ("src/pool/a/tests/x.rs", "use crate::app;"),
                ("src/pool/tests.rs", "use crate::app;"),
            ],
            &["src/pool/tests.rs:1: "],
        ),
        (
            map_is_complete,
            &[LIB, ("src/types.rs", ""), ("src/pool/mod.rs", "")],
            &["src/lib.rs: module app is not in src/"],
        ),
        (
            map_is_complete,
            &[LIB, ("src/types.rs", ""), ("src/pool/mod.rs", ""), ("src/app/mod.rs", ""), ("src/net.rs", "")],
            &["src/lib.rs: module net is not in the map", "src/lib.rs: module net is not in pub mod"],
        ),
    ];
    for (rule, files, expected) in cases {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        let wrong = rule(&files);
        assert_eq!(wrong.len(), expected.len(), "{wrong:?}");
        assert!(wrong.iter().zip(expected).all(|(wrong, start)| wrong.starts_with(start)), "{wrong:?}");
    }
}
