//! The style that no compiler checks: layers, absences, lengths, and that the documents say what the code says.
//!
//! A rule is a function from the tree of files to what is wrong with it. Each is tried on files that break it, too.

#[path = "tidy/cases.rs"]
mod cases;
#[path = "tidy/files.rs"]
mod files;
#[path = "tidy/tokens.rs"]
mod tokens;

use std::collections::BTreeSet;
use std::path::Path;

use files::{Files, ROOT, has_extension, is_source, is_within, layers, module, read_tree, sources};
use tokens::{each_production_file, escapes, is_word, macros, names, production};

type Rule = fn(&Files) -> Vec<String>;

const MAX_LINES: usize = 600;

const RULES: [Rule; 13] = [
    map_is_complete,
    lower_layers_only,
    absences,
    only_raw_derives_deserialize,
    no_static_state,
    prints_only_for_the_terminal,
    nothing_left_to_do,
    files_are_short,
    headers,
    dashboards_show_what_exists,
    settings_are_documented,
    links_lead_somewhere,
    tests_are_found,
];

/// A name, and where it may be used or where not.
struct Absence {
    name: &'static str,
    scope: Scope,
    why: &'static str,
}

enum Scope {
    Only(&'static [&'static str]),
    Never(&'static [&'static str]),
}

use Scope::{Never, Only};

const ABSENCES: [Absence; 9] = [
    Absence { name: "pgwire", scope: Only(&["src/wire", "src/auth"]), why: "only wire and auth import pgwire" },
    Absence { name: "sqlparser", scope: Only(&["src/sql"]), why: "only sql imports sqlparser" },
    Absence { name: "anyhow", scope: Only(&["src/main.rs"]), why: "errors of the library have types" },
    Absence { name: "arc_swap", scope: Only(&["src/topology", "src/net", "src/app"]), why: "for snapshots only" },
    Absence { name: "tokio", scope: Never(&["src/sql", "src/route"]), why: "sql and route are pure" },
    Absence { name: "std::net", scope: Never(&["src/sql", "src/route"]), why: "sql and route are pure" },
    Absence { name: "crate::route", scope: Never(&["src/pool"]), why: "a pool does not choose nodes" },
    Absence { name: "crate::topology", scope: Never(&["src/pool"]), why: "a pool does not watch nodes" },
    Absence { name: "deadpool_postgres", scope: Only(&["src/topology"]), why: "it is for control connections" },
];

#[test]
fn the_tree_is_tidy() {
    let files = read_tree().unwrap();
    assert!(files.keys().filter(|path| is_source(path)).count() > 50, "too few files: {:?}", files.keys());
    let wrong: Vec<_> = RULES.iter().flat_map(|rule| rule(&files)).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

// Rules.

fn map_is_complete(files: &Files) -> Vec<String> {
    let Some(lib) = files.get("src/lib.rs") else { return Vec::new() };
    let listed: BTreeSet<_> = layers(files).into_iter().collect();
    let declared = lib.lines().filter_map(|line| line.trim().strip_prefix("pub mod ")?.strip_suffix(';'));
    let declared: BTreeSet<_> = declared.map(str::to_owned).collect();
    let present = files.keys().filter_map(|path| module(path)).map(str::to_owned).collect::<BTreeSet<_>>();
    let mut wrong = Vec::new();
    for name in listed.union(&declared).chain(&present) {
        for (place, names) in [("the map", &listed), ("pub mod", &declared), ("src/", &present)] {
            if !names.contains(name) {
                wrong.push(format!("src/lib.rs: module {name} is not in {place}"));
            }
        }
    }
    wrong
}

fn lower_layers_only(files: &Files) -> Vec<String> {
    let layers = layers(files);
    let layer = |name: &str| layers.iter().position(|layer| layer == name);
    let mut wrong = Vec::new();
    for (path, code) in production(files) {
        let Some(own) = module(path) else { continue };
        for (name, line) in names(&code) {
            let Some(used) = name.strip_prefix("crate::") else { continue };
            if used != own && layer(used) > layer(own) {
                wrong.push(format!("{path}:{line}: {own} imports {used}, which is a higher layer"));
            }
        }
        for line in escapes(path, &code) {
            wrong.push(format!("{path}:{line}: super leads out of {own}; write crate:: so that the layer shows"));
        }
    }
    wrong
}

fn absences(files: &Files) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, code) in production(files) {
        let inside = |places: &[&str]| places.iter().any(|place| is_within(path, place));
        for (name, line) in names(&code) {
            let broken = ABSENCES.iter().find(|absence| {
                absence.name == name
                    && match absence.scope {
                        Only(places) => !inside(places),
                        Never(places) => inside(places),
                    }
            });
            wrong.extend(broken.map(|absence| format!("{path}:{line}: uses {name}: {}", absence.why)));
        }
    }
    wrong
}

fn only_raw_derives_deserialize(files: &Files) -> Vec<String> {
    each_production_file(files, |path, code| {
        let derives = (0..code.len()).filter(|&at| is_word(code, at, "derive") && is_word(code, at + 1, "("));
        derives
            .filter(|_| path != "src/config/raw.rs")
            .filter(|&at| code[at..].iter().take_while(|token| token.text != ")").any(|t| t.text == "Deserialize"))
            .map(|at| (code[at].line, "only config::raw derives Deserialize".to_owned()))
            .collect()
    })
}

fn no_static_state(files: &Files) -> Vec<String> {
    const STATE: [&str; 9] =
        ["mut", "Mutex", "RwLock", "OnceLock", "LazyLock", "OnceCell", "LazyCell", "RefCell", "ArcSwap"];
    each_production_file(files, |_, code| {
        let mut wrong = Vec::new();
        for (at, token) in code.iter().enumerate() {
            let item = || code[at + 1..].iter().take_while(|token| token.text != "=" && token.text != ";");
            let state = |word: &str| STATE.contains(&word) || word.starts_with("Atomic");
            if token.text == "thread_local" || (token.text == "static" && item().any(|token| state(&token.text))) {
                wrong.push((token.line, format!("{} state; pass it in", token.text)));
            }
        }
        wrong
    })
}

fn prints_only_for_the_terminal(files: &Files) -> Vec<String> {
    const TERMINAL: [&str; 4] = ["src/main.rs", "src/app/cli.rs", "src/app/demo.rs", "src/app/demo"];
    each_production_file(files, |path, code| {
        if TERMINAL.iter().any(|place| is_within(path, place)) {
            return Vec::new();
        }
        macros(code, &["print", "println", "eprint", "eprintln"], "use tracing")
    })
}

fn nothing_left_to_do(files: &Files) -> Vec<String> {
    let mut wrong = each_production_file(files, |_, code| {
        macros(code, &["todo", "unimplemented", "dbg"], "finish it or leave it out")
    });
    for (path, text) in files.iter().filter(|(path, _)| path.starts_with("src/")) {
        for (number, line) in text.lines().enumerate() {
            if ["TODO", "FIXME", "XXX"].iter().any(|mark| line.contains(mark)) {
                wrong.push(format!("{path}:{}: do it, or open an issue", number + 1));
            }
        }
    }
    wrong
}

fn files_are_short(files: &Files) -> Vec<String> {
    let lengths = sources(files).map(|(path, text)| (path, text.lines().count()));
    lengths
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(path, lines)| format!("{path}: {lines} lines are more than {MAX_LINES}; split it by noun"))
        .collect()
}

fn headers(files: &Files) -> Vec<String> {
    sources(files)
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| format!("{path}: begin with //! and say what the file is for"))
        .collect()
}

fn dashboards_show_what_exists(files: &Files) -> Vec<String> {
    let code = files.iter().filter(|(path, _)| path.starts_with("src/metrics"));
    let known: String = code.map(|(_, text)| text.as_str()).collect();
    let mut wrong = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| path.starts_with("grafana/") && has_extension(path, "json")) {
        let shown: BTreeSet<_> = text
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| word.starts_with("causeway_"))
            .collect();
        for metric in shown {
            let parts = ["_bucket", "_sum", "_count"];
            let family = parts.iter().find_map(|part| metric.strip_suffix(part)).unwrap_or(metric);
            if ![metric, family].iter().any(|name| known.contains(&format!("\"{name}\""))) {
                wrong.push(format!("{path}: shows {metric}, which src/metrics does not have"));
            }
        }
    }
    wrong
}

fn settings_are_documented(files: &Files) -> Vec<String> {
    const REFERENCE: &str = "config/causeway.toml";
    let (Some(raw), Some(reference)) = (files.get("src/config/raw.rs"), files.get(REFERENCE)) else {
        return Vec::new();
    };
    let documented: BTreeSet<_> = reference
        .lines()
        .map(|line| line.strip_prefix('#').unwrap_or(line))
        .flat_map(|line| match line.strip_prefix('[') {
            Some(table) => table.trim_matches(['[', ']']).split('.').collect(),
            None => Vec::from_iter(line.split_once(" =").map(|(key, _)| key)),
        })
        .collect();
    let fields = raw.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(": "));
    fields
        .map(|(field, _)| field)
        .filter(|field| !field.contains(['(', ' ']) && !documented.contains(field))
        .map(|field| format!("{REFERENCE}: the setting {field} is not there"))
        .collect()
}

fn links_lead_somewhere(files: &Files) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| has_extension(path, "md")) {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target) {
            let target = target.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains(':') && !Path::new(ROOT).join(folder).join(target).exists() {
                wrong.push(format!("{path}: links to {target}, which is not there"));
            }
        }
    }
    wrong
}

/// The other rules pass over tests; a file that is one only by its name would be passed over by `cargo test` too.
fn tests_are_found(files: &Files) -> Vec<String> {
    each_production_file(files, |_, code| {
        let tests = (0..code.len()).filter(|&at| {
            is_word(code, at, "#")
                && is_word(code, at + 1, "[")
                && is_word(code, at + 2, "test")
                && is_word(code, at + 3, "]")
        });
        tests.map(|at| (code[at].line, "a test outside of #[cfg(test)]".to_owned())).collect()
    })
}
