//! Where statements go, by the nodes' own logs, and that the answer is what the primary itself gives.

use std::collections::BTreeSet;
use std::process::Command;

use causeway::app::demo::cluster::{LocalCluster, free_port};
use causeway::app::demo::{Login, configuration};

use crate::harness::{CONTROL_USER, Database, Env, PASSWORD, Test, USER, check};
use crate::raw::{Message, RawClient, tags};
use crate::speech::{ask, extended, query, seen, sqlstate, value};

mod statements;

pub const TESTS: &[Test] = &[
    ("routing::reads_go_to_a_replica", reads_go_to_a_replica),
    ("routing::what_is_missing_is_looked_for_on_the_primary", what_is_missing_is_looked_for_on_the_primary),
    ("routing::what_a_replica_cannot_do_goes_to_the_primary", what_a_replica_cannot_do_goes_to_the_primary),
    ("routing::a_function_that_lies_is_rescued", a_function_that_lies_is_rescued),
    ("routing::new_relations_and_functions_are_known", new_relations_and_functions_are_known),
    ("routing::transactions_have_one_node", transactions_have_one_node),
    ("routing::hidden_state_is_known", hidden_state_is_known),
];

/// Two databases alike: one is used through the proxy, the other on the primary.
struct Twins<'a> {
    env: &'a Env,
    proxied: Database<'a>,
    direct: Database<'a>,
}

impl<'a> Twins<'a> {
    fn new(env: &'a Env, name: &str) -> Self {
        let twins = Self { env, proxied: env.database(name), direct: env.database(name) };
        let port = twins.cluster().primary().port();
        for database in [&twins.proxied, &twins.direct] {
            database.prepare(&statements::setup(USER, PASSWORD, port, &database.name));
        }
        twins
    }

    fn cluster(&self) -> &LocalCluster {
        &self.env.shared().cluster
    }

    /// A client of the proxy that has waited for the catalog facts, and one of the primary. What its statements are must
    /// decide where they go, not whether the replicas of a busy machine stand still behind what was written before.
    fn connect(&self) -> (RawClient, RawClient) {
        let (proxied, _) =
            self.env.proxy().target(&self.proxied.name).raw_with(&[("causeway.consistency", "eventual")]);
        self.env.proxy().facts_loaded(&self.proxied.name, 1);
        (proxied, self.direct.node(0).raw())
    }
}

/// How a text is sent.
type Protocol = (&'static str, fn(&str) -> Vec<u8>);
const PROTOCOLS: [Protocol; 2] = [("simple", query), ("extended", extended)];

/// A statement; with `~` in front, its answer is not the same twice, and only its form is compared.
fn split(statement: &'static str) -> (&'static str, bool) {
    statement.strip_prefix('~').map_or((statement, true), |statement| (statement, false))
}

/// The roles of the nodes that were given a text with this marker.
fn roles(logs: &[(String, Vec<u8>)], marker: &str) -> String {
    let ran = logs.iter().filter(|(_, log)| memchr::memmem::find(log, marker.as_bytes()).is_some());
    let roles: BTreeSet<&str> = ran.map(|(node, _)| node.trim_end_matches(char::is_numeric)).collect();
    roles.into_iter().collect::<Vec<_>>().join("+")
}

fn logs(cluster: &LocalCluster) -> Vec<(String, Vec<u8>)> {
    cluster.nodes().iter().map(|node| (node.name().to_owned(), node.log().unwrap())).collect()
}

/// Ends what the statement may have left open or set, so that it has no say in where the next one goes.
fn clean(client: &mut RawClient, answer: &[Message]) {
    if answer.last().is_some_and(|(_, status)| status != b"I") {
        ask(client, &query("ROLLBACK"));
    }
    assert_eq!(tags(&ask(client, &query("DISCARD ALL"))).chars().last(), Some('Z'));
}

fn compared(answer: &[Message], exactly: bool) -> Vec<String> {
    let ours = |(tag, _): &&Message| *tag != 'S';
    let messages: Vec<Message> = answer.iter().filter(ours).cloned().collect();
    if exactly { seen(&messages) } else { vec![tags(&messages), sqlstate(&messages)] }
}

/// Runs all statements by all protocols through the proxy and on the primary: they must run on `role`, and answer alike.
fn run_table(twins: &Twins<'_>, name: &str, role: &str, statements: &[&'static str]) {
    let (mut proxied, mut direct) = twins.connect();
    let mut cases = Vec::new();
    let mut differing = Vec::new();
    for (index, statement) in statements.iter().enumerate() {
        let (sql, exactly) = split(statement);
        for (protocol, frames) in PROTOCOLS {
            let marker = format!("/* {name}-{index}-{protocol} */");
            let answer = ask(&mut proxied, &frames(&format!("{sql} {marker}")));
            let expected = ask(&mut direct, &frames(&format!("{sql} {}", "-".repeat(marker.len()))));
            let (got, want) = (compared(&answer, exactly), compared(&expected, exactly));
            if got != want {
                differing.push(format!("{sql} ({protocol}):\n  want {want:?}\n  got  {got:?}"));
            }
            clean(&mut proxied, &answer);
            clean(&mut direct, &expected);
            cases.push(((sql, protocol, marker), role.to_owned()));
        }
    }
    let logs = logs(twins.cluster());
    check(&cases, |(_, _, marker)| roles(&logs, marker));
    assert!(differing.is_empty(), "{} answers differ:\n{}", differing.len(), differing.join("\n"));
}

fn what_is_missing_is_looked_for_on_the_primary(env: &Env) {
    run_table(&Twins::new(env, "missing"), "missing", "primary+replica", statements::MISSING);
}

fn reads_go_to_a_replica(env: &Env) {
    run_table(&Twins::new(env, "reads"), "reads", "replica", statements::READS);
}

fn what_a_replica_cannot_do_goes_to_the_primary(env: &Env) {
    let twins = Twins::new(env, "primary");
    for (group, statements) in statements::FOR_THE_PRIMARY {
        run_table(&twins, group, "primary", statements);
    }
}

/// Through both protocols: refused by a replica once, then known; the client sees neither.
fn a_function_that_lies_is_rescued(env: &Env) {
    let twins = Twins::new(env, "rescue");
    let rescues = || env.proxy().metric("causeway_rescues_total", "read_only");
    for (protocol, frames) in PROTOCOLS {
        for (shape, sql) in [
            ("function", "SELECT f_liar()"),
            ("view", "SELECT * FROM v_liar"),
            ("set", "SELECT f_liar() UNION ALL SELECT 7"),
        ] {
            let (mut proxied, mut direct) = twins.connect();
            // Each protocol has shapes of its own, which nothing has learned yet.
            let sql = format!("{sql} -- AS {protocol}\nLIMIT {}", if protocol == "simple" { "10" } else { "5 + 5" });
            let before = rescues();
            for (round, role) in [("first", "primary+replica"), ("second", "primary"), ("third", "primary")] {
                let marker = format!("/* rescue-{protocol}-{shape}-{round} */");
                let answer = ask(&mut proxied, &frames(&format!("{sql} {marker}")));
                let expected = ask(&mut direct, &frames(&sql));
                assert_eq!(seen(&answer), seen(&expected), "{sql}");
                assert_eq!(roles(&logs(twins.cluster()), &marker), role, "{marker}");
            }
            // Other tests share the proxy, but none of them is rescued as often as this one would be.
            assert!(rescues() >= before + 1.0);
        }
    }
}

/// DDL through the proxy, then at once the use of what it made.
fn new_relations_and_functions_are_known(env: &Env) {
    let twins = Twins::new(env, "ddl");
    let (mut proxied, mut direct) = twins.connect();
    for (index, (ddl, used)) in statements::NEW.iter().enumerate() {
        for (protocol, frames) in PROTOCOLS {
            let operator = if protocol == "simple" { "+!" } else { "*!" };
            let [ddl, used] = [ddl, used].map(|sql| sql.replace('#', protocol).replace('@', operator));
            for client in [&mut proxied, &mut direct] {
                assert_eq!(sqlstate(&ask(client, &query(&ddl))), "", "{ddl}");
            }
            // What a replica has not replayed yet is not there for anybody.
            twins.cluster().catch_up().unwrap();
            let marker = format!("/* new-{index}-{protocol} */");
            let answer = ask(&mut proxied, &frames(&format!("{used} {marker}")));
            assert_eq!(seen(&answer), seen(&ask(&mut direct, &frames(&used))), "{used}");
            let roles = roles(&logs(twins.cluster()), &marker);
            assert!(roles.contains("primary"), "{used}: {roles}");
        }
    }
    // Once the new facts are there, what can be known needs no rescue.
    env.proxy().facts_loaded(&twins.proxied.name, 2);
}

fn transactions_have_one_node(env: &Env) {
    let twins = Twins::new(env, "transactions");
    let (mut proxied, mut direct) = twins.connect();
    let mut cases = Vec::new();
    for (index, (role, texts)) in statements::TRANSACTIONS.iter().enumerate() {
        for (protocol, frames) in PROTOCOLS {
            for (step, sql) in texts.iter().enumerate() {
                let marker = format!("/* transaction-{index}-{step}-{protocol} */");
                let answer = ask(&mut proxied, &frames(&format!("{sql} {marker}")));
                let expected = ask(&mut direct, &frames(sql));
                assert_eq!(seen(&answer), seen(&expected), "{texts:?}: {sql}");
                cases.push(((*sql, marker), (*role).to_owned()));
            }
            let status = ask(&mut proxied, &query("SELECT 1"));
            assert_eq!(status.last(), Some(&('Z', b"I".to_vec())), "{texts:?}");
            assert_eq!(value(&status).as_deref(), Some("1"));
        }
    }
    let logs = logs(twins.cluster());
    check(&cases, |(_, marker)| roles(&logs, marker));
}

/// What `causeway explain` says of code in the catalog of a real server.
fn hidden_state_is_known(env: &Env) {
    let database = env.database("hidden");
    database.prepare(statements::HIDDEN_SETUP);
    let app = Login { user: USER, password: PASSWORD.to_owned(), database: "" };
    let control = Login { user: CONTROL_USER, password: PASSWORD.to_owned(), database: "postgres" };
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), configuration(&env.shared().cluster, &app, &control, free_port().unwrap())).unwrap();
    let texts: Vec<&str> = statements::HIDDEN.iter().map(|(text, _)| *text).collect();
    let mut explain = Command::new(env!("CARGO_BIN_EXE_causeway"));
    explain.args(["explain", "--database", &database.name, &texts.join(";"), "--config"]).arg(file.path());
    let output = explain.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let settings = said.lines().find_map(|line| line.strip_prefix("settings "));
    assert_eq!(settings.map(str::trim_start), Some("my.x, my.y, my.l"), "{said}");
    let effects: Vec<&str> = said.lines().filter_map(|line| Some(line.split_once(", effects ")?.1)).collect();
    assert_eq!(effects.len(), texts.len(), "{said}");
    for ((text, expected), effects) in statements::HIDDEN.iter().zip(effects) {
        assert_eq!(effects, *expected, "{text}");
    }
}
