//! The programs of `tests/drivers`, one for each driver, and how their output is compared.

use std::collections::BTreeMap;
use std::io::{Read, pipe};

use super::{Mode, Place, database, in_all_modes};
use crate::harness::Env;

/// What is not the same yet: (driver, feature, mode, why). An entry whose feature is the same fails its test.
const KNOWN_DIFFERENCES: &[(&str, &str, Mode, &str)] = &[
    ("psycopg3", "changed_result_type", Mode::Transaction, "the second execution works, without a proxy none does"),
    ("psycopg3", "prepared_statements_view", Mode::Transaction, "the view shows the names that the server knows"),
];

/// Where Node finds what was installed for it.
const NODE_MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/drivers/node/node_modules");

/// A program that runs for longer is stopped by `timeout`.
const SECONDS: &str = "120";

/// What was printed for each feature.
type Output = BTreeMap<String, String>;

/// Runs a driver's program against the primary and through the proxy in both modes.
pub fn compare(env: &Env, driver: &str, program: &[&str]) {
    let [direct, session, transaction] = in_all_modes(|mode| {
        let database = database(env, &format!("{driver}_{mode:?}").to_lowercase());
        let place = Place::new(env, &database, mode);
        let mut output = run(&place, program);
        let nodes = place.nodes_used();
        if if mode == Mode::Transaction { nodes.len() < 2 } else { nodes != ["primary"] } {
            output.insert("routing".to_owned(), format!("ran on {nodes:?}\n"));
        }
        output
    });
    assert_eq!(
        direct["end"],
        "exit status: 0
",
        "{driver} alone: {direct:#?}"
    );
    let failed = direct.iter().filter(|(_, lines)| lines.contains("FAILED"));
    let mut wrong: Vec<String> = failed.map(|(name, lines)| format!("{driver} {name} alone\n{lines}")).collect();
    for (mode, through) in [(Mode::Session, &session), (Mode::Transaction, &transaction)] {
        for feature in direct.keys().chain(through.keys().filter(|feature| !direct.contains_key(*feature))) {
            let [direct, through] = [&direct, through].map(|output| output.get(feature).map_or("", String::as_str));
            let here = (driver, feature.as_str(), mode);
            let known = KNOWN_DIFFERENCES.iter().find(|&&(driver, feature, mode, _)| (driver, feature, mode) == here);
            match known {
                None if direct != through => {
                    wrong.push(format!("{driver} {feature} {mode:?}:\n{}", difference(direct, through)));
                }
                Some((.., why)) if direct == through => {
                    wrong.push(format!("{driver} {feature} {mode:?} is the same, and should not be: {why}"));
                }
                _ => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

/// The lines from the first to the last that differ: `-` is direct, `+` is through the proxy.
fn difference(direct: &str, through: &str) -> String {
    let (mut direct, mut through): (Vec<_>, Vec<_>) = (direct.lines().collect(), through.lines().collect());
    while direct.last().is_some_and(|last| through.last() == Some(last)) {
        direct.pop();
        through.pop();
    }
    let same = direct.iter().zip(&through).take_while(|(left, right)| left == right).count();
    let removed = direct[same..].iter().map(|line| format!("- {line}"));
    let added = through[same..].iter().map(|line| format!("+ {line}"));
    removed.chain(added).collect::<Vec<_>>().join("\n") + "\n"
}

/// Both streams together, as a program writes them; whether it succeeds is in there too.
fn run(place: &Place<'_>, line: &[&str]) -> Output {
    let (mut reader, writer) = pipe().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let mut command = place.command(&[&["timeout", SECONDS], line].concat());
    command
        .env("SCRATCH", scratch.path())
        .env("NODE_PATH", NODE_MODULES)
        .env("PYTHONUNBUFFERED", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    // SQLAlchemy does things in the order of a set.
    command.env("PYTHONHASHSEED", "0");
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = command.spawn().unwrap();
    // It holds the pipe's other end open.
    drop(command);
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    let status = child.wait().unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    // The programs know no better than to print what they cannot choose.
    let text = text.replace(&place.database.name, "DATABASE");
    let mut output = Output::new();
    let mut lines = "";
    for part in text.split_inclusive('\n') {
        match part.strip_prefix("== ") {
            Some(name) => lines = name.trim_end(),
            None => output.entry(lines.to_owned()).or_default().push_str(part),
        }
    }
    output.insert("end".to_owned(), format!("{status}\n"));
    output
}
