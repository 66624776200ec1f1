//! EXPLAIN ROUTE in sessions of every kind, and `causeway explain`.

use std::collections::BTreeMap;
use std::process::Command;

use causeway::app::demo::cluster::free_port;
use causeway::app::demo::{Login, configuration};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row, SimpleQueryMessage};

use crate::faults::{LIMIT, PROBE, cluster_with_tables};
use crate::harness::{CONTROL_USER, Database, Env, PASSWORD, Test, USER, block_on, wait_for};
use crate::proxy::Proxy;
use crate::raw::{RawClient, field, tags};
use crate::traffic::DATABASE;

pub const TESTS: &[Test] = &[
    ("explain::statements_are_explained_and_not_run", statements_are_explained_and_not_run),
    ("explain::the_session_is_explained", the_session_is_explained),
    ("explain::every_protocol_has_the_answer", every_protocol_has_the_answer),
    ("explain::what_is_not_one_explain_route_is_postgresqls_to_refuse", not_one),
    ("explain::answers_have_a_limit", answers_have_a_limit),
    ("explain::replicas_that_are_behind_are_explained", replicas_that_are_behind_are_explained),
    ("explain::the_command_knows_the_nodes", the_command_knows_the_nodes),
];

type Rows = BTreeMap<String, String>;

async fn explain(client: &Client, sql: &str) -> Rows {
    let messages = client.simple_query(&format!("EXPLAIN ROUTE {sql}")).await.unwrap();
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((row.get("property")?.to_owned(), row.get("value")?.to_owned())),
        _ => None,
    });
    rows.collect()
}

/// Each property must contain its text.
fn check(rows: &Rows, expected: &[(&str, &str)], what: &str) {
    for (name, part) in expected {
        let value = rows.get(*name).map_or("(no such row)", String::as_str);
        assert!(value.contains(part), "{what}: {name} is {value:?}, which does not say {part:?}: {rows:#?}");
    }
}

fn prepared<'a>(env: &'a Env, name: &str) -> Database<'a> {
    let database = env.database(name);
    database.prepare(
        "CREATE TABLE t (a text); INSERT INTO t VALUES ('x'); GRANT ALL ON t TO app; CREATE SEQUENCE s; \
         GRANT ALL ON s TO app; CREATE FUNCTION writes() RETURNS void VOLATILE LANGUAGE sql AS 'DELETE FROM t'",
    );
    database
}

/// Another session has made the proxy read the catalog.
async fn connect(env: &Env, database: &Database<'_>) -> Client {
    let proxy = env.proxy();
    let first = proxy.target(&database.name).connect().await;
    first.simple_query("SELECT 1").await.unwrap();
    proxy.facts_loaded(&database.name, 1);
    proxy.target(&database.name).connect().await
}

/// A statement, and what its rows say.
type Case = (&'static str, &'static [(&'static str, &'static str)]);

const CASES: &[Case] = &[
    (
        "SELECT * FROM t",
        &[
            ("class", "read"),
            ("decided by", "reads only"),
            ("effects", "none"),
            ("hint", "none"),
            ("level", "session, as configured"),
            ("needs", "nothing"),
            ("node primary", "primary, at "),
            ("node replica1", "replica, at "),
            ("node replica1", "bytes behind at the last probe, staleness "),
            ("node replica2", "eligible, serves: nothing is needed of it"),
            ("route", "replica1 or replica2, the better of two by latency and load (read)"),
        ],
    ),
    ("DELETE FROM t", &[("class", "write"), ("route", "primary (write)"), ("needs", "nothing")]),
    ("SELECT writes()", &[("decided by", "calls a volatile function: writes"), ("route", "primary (")]),
    ("SELECT nextval('s')", &[("decided by", ": nextval"), ("effects", "sequence"), ("route", "primary (write)")]),
    ("SELECT nowhere()", &[("decided by", "not in the catalog facts: nowhere"), ("route", "primary (")]),
    ("CREATE TABLE made ()", &[("class", "write"), ("effects", "ddl"), ("route", "primary (write)")]),
    ("SET work_mem = '1MB'", &[("effects", "set"), ("settings", "work_mem")]),
    ("/* causeway: primary */ SELECT 1", &[("hint", "primary"), ("route", "primary (hint_primary)")]),
    (
        "/* causeway: consistency=strong */ SELECT 1",
        &[
            ("level", "strong, as the statement's hint says"),
            ("needs", "asked of the primary first"),
            ("class", "read"),
        ],
    ),
    ("/* causeway: consistency=stong */ SELECT 1", &[("refused", "SQLSTATE 22023")]),
    ("BEGIN READ ONLY", &[("route", "(read_only_transaction)")]),
    ("EXPLAIN ROUTE SELECT 1", &[("class", "read"), ("decided by", "explains a route")]),
];

fn statements_are_explained_and_not_run(env: &Env) {
    let database = prepared(env, "explained");
    block_on(async {
        let client = connect(env, &database).await;
        for (sql, expected) in CASES {
            check(&explain(&client, sql).await, expected, sql);
        }
        let left = "SELECT count(*), to_regclass('made') IS NULL, (SELECT NOT is_called FROM s), \
                    current_setting('work_mem') <> '1MB' FROM t";
        let left = client.query_one(left, &[]).await.unwrap();
        assert_eq!(left.get::<_, i64>(0), 1);
        assert!((1..4).all(|column| left.get::<_, bool>(column)), "{left:?}");
    });
}

fn the_session_is_explained(env: &Env) {
    let database = prepared(env, "explained_session");
    block_on(async {
        let client = connect(env, &database).await;
        let run = async |sql: &str| client.batch_execute(sql).await.unwrap();

        run("INSERT INTO t VALUES ('y')").await;
        check(&explain(&client, "SELECT 1").await, &[("needs", "position "), ("class", "read")], "after a write");
        run("PREPARE p AS SELECT 1").await;
        let by_name = [("counts as", "read: it is what it executes")];
        check(&explain(&client, "EXECUTE p").await, &by_name, "of its name alone, it could be anything");
        for (level, expected) in [
            ("strong", [("level", "strong, as set in the session"), ("needs", "asked of the primary first")]),
            ("primary", [("level", "primary, as set in the session"), ("route", "primary (level)")]),
            ("bounded", [("level", "max_staleness "), ("needs", "a staleness of at most ")]),
            ("eventual", [("level", "eventual, as set in the session"), ("needs", "nothing")]),
        ] {
            run(&format!("SET causeway.consistency = '{level}'")).await;
            check(&explain(&client, "SELECT 1").await, &expected, level);
        }
        run("RESET causeway.consistency; BEGIN; INSERT INTO t VALUES ('z')").await;
        check(&explain(&client, "SELECT 1").await, &[("route", "primary (transaction)")], "in a transaction");
        client.batch_execute("SELECT 1/0").await.unwrap_err();
        let refused = client.batch_execute("EXPLAIN ROUTE SELECT 1").await.unwrap_err();
        assert_eq!(refused.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
        run("ROLLBACK; BEGIN READ ONLY; SELECT 1").await;
        let there = [("route", "(transaction): the session is in a transaction there")];
        check(&explain(&client, "SELECT 1").await, &there, "in a transaction on a replica");
        run("COMMIT; CREATE TEMP TABLE mine ()").await;
        check(&explain(&client, "SELECT 1").await, &[("route", "primary (pinned)"), ("pins", "temp")], "pinned");
        run("DROP TABLE mine").await;
        run("SET default_transaction_isolation = 'serializable'").await;
        let serializable = [("counts as", "write: all transactions"), ("route", "primary (write)")];
        check(&explain(&client, "SELECT 1").await, &serializable, "serializable");
    });
}

fn every_protocol_has_the_answer(env: &Env) {
    let database = prepared(env, "explained_protocols");
    let rows = |rows: &[Row]| -> Rows { rows.iter().map(|row| (row.get("property"), row.get("value"))).collect() };
    block_on(async {
        let client = connect(env, &database).await;
        // To run a prepared answer is a read, perhaps of the primary: a loaded replica would be waited for then.
        client.batch_execute("SET causeway.consistency = 'eventual'").await.unwrap();
        let expected = [("class", "read"), ("route", "(read)")];
        check(&rows(&client.query("EXPLAIN ROUTE SELECT * FROM t", &[]).await.unwrap()), &expected, "prepared");
        let text = "EXPLAIN ROUTE SELECT * FROM t WHERE a = $1 OR a = $2";
        check(&rows(&client.query(text, &[&"x", &"y"]).await.unwrap()), &expected, "with parameters");
        let statement = client.prepare_typed(text, &[tokio_postgres::types::Type::INT4]).await.unwrap();
        for _ in 0..2 {
            check(&rows(&client.query(&statement, &[&1, &"y"]).await.unwrap()), &expected, "with typed parameters");
        }
    });
    let mut raw = env.proxy().target(&database.name).raw();
    let parse = |raw: &mut RawClient, sql: &str| {
        raw.message(b'P', &[b"\0", sql.as_bytes(), b"\0\0\0"].concat());
        raw.message(b'B', b"\0\0\0\0\0\0\0\0");
        raw.message(b'E', b"\0\0\0\0\0");
    };
    // A pipeline of several, with messages behind it that came in the same read.
    parse(&mut raw, "INSERT INTO t VALUES ('piped')");
    parse(&mut raw, "EXPLAIN ROUTE DELETE FROM t");
    parse(&mut raw, "SELECT a FROM t WHERE a = 'piped'");
    raw.message(b'S', b"");
    raw.query("SELECT 'behind'");
    let answer = raw.read_to('Z');
    let data = answer.iter().filter(|(tag, _)| *tag == 'D').count();
    assert_eq!(tags(&answer).replace("D ", ""), "1 2 C 1 2 C 1 2 C Z");
    assert!(data > 6, "{data} rows");
    assert!(answer.iter().any(|(_, body)| String::from_utf8_lossy(body).contains("primary (write)")), "{answer:?}");
    assert_eq!(tags(&raw.read_to('Z')), "T D C Z");
}

fn not_one(env: &Env) {
    let database = prepared(env, "not_explained");
    block_on(async {
        let client = connect(env, &database).await;
        for (sql, code) in [
            ("EXPLAIN ROUTE SELECT 1; SELECT 2", SqlState::SYNTAX_ERROR),
            ("EXPLAIN ROUTE", SqlState::SYNTAX_ERROR),
            ("EXPLAIN (ROUTE) SELECT 1", SqlState::SYNTAX_ERROR),
            ("/* causeway: nonsense */ EXPLAIN ROUTE SELECT 1", SqlState::INVALID_PARAMETER_VALUE),
        ] {
            let error = client.simple_query(sql).await.unwrap_err();
            assert_eq!(error.code(), Some(&code), "{sql}: {error}");
        }
        check(&explain(&client, "SELECT 1").await, &[("class", "read")], "afterwards");
    });
}

/// Short questions have long answers.
fn answers_have_a_limit(env: &Env) {
    let database = prepared(env, "explained_often");
    let proxy = Proxy::start(&env.shared().cluster, "[limits]\nmax_batch_size = \"64KiB\"\n");
    let mut raw = proxy.target(&database.name).raw();
    for (times, tags_expected) in [(20, "C Z"), (500, "E Z"), (20, "C Z")] {
        for _ in 0..times {
            raw.message(b'P', b"\0EXPLAIN ROUTE SELECT 1\0\0\0");
        }
        raw.message(b'B', b"\0\0\0\0\0\0\0\0");
        raw.message(b'E', b"\0\0\0\0\0");
        raw.message(b'S', b"");
        let answer = raw.read_to('Z');
        assert!(tags(&answer).ends_with(tags_expected), "{times}: {}", tags(&answer));
        for (tag, body) in answer {
            assert!(tag != 'E' || (field(&body, b'C') == "54000" && field(&body, b'M').contains("max_batch_size")));
        }
    }
}

fn replicas_that_are_behind_are_explained(_: &Env) {
    let cluster = cluster_with_tables();
    let routing = "\n[routing]\nmax_lag = \"1h\"\n";
    let falls_back = Proxy::start(&cluster, &format!("{PROBE}{routing}"));
    let fails = Proxy::start(&cluster, &format!("{PROBE}{routing}fallback = \"error\"\n"));
    for replica in cluster.replicas() {
        replica.sql("postgres", "SELECT pg_wal_replay_pause()").unwrap();
        wait_for(LIMIT, "replay is paused", || {
            replica.sql("postgres", "SELECT pg_get_wal_replay_pause_state()").unwrap() == "paused"
        });
    }
    let read = "SELECT * FROM item";
    let cases = [(&falls_back, "primary (behind)"), (&fails, "for a replica to replay 0/")];
    for (proxy, route) in cases {
        block_on(async {
            let client = proxy.target(DATABASE).connect().await;
            client.batch_execute("INSERT INTO journal DEFAULT VALUES").await.unwrap();
            loop {
                let rows = explain(&client, read).await;
                // Until a probe has seen that replay is paused.
                if rows["node replica1"].contains("not expected") && rows["node replica2"].contains("not expected") {
                    let behind = "eligible, behind: lacks what is needed";
                    let expected = [("needs", "position 0/"), ("node replica1", behind), ("route", route)];
                    check(&rows, &expected, "behind");
                    break;
                }
            }
            // Neither the plain protocol nor a prepared statement waits for what nobody has.
            let rows = client.query(&format!("EXPLAIN ROUTE {read}"), &[]).await.unwrap();
            assert!(rows.iter().any(|row| row.get::<_, &str>(1).contains(route)), "{rows:?}");
        });
    }
    assert_eq!(cluster.primary().sql(DATABASE, "SELECT count(*) FROM journal").unwrap(), "2");
}

fn the_command_knows_the_nodes(env: &Env) {
    let database = prepared(env, "explained_outside");
    let app = Login { user: USER, password: PASSWORD.to_owned(), database: "" };
    let control = Login { user: CONTROL_USER, password: PASSWORD.to_owned(), database: "postgres" };
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let text = configuration(&env.shared().cluster, &app, &control, free_port().unwrap());
    std::fs::write(file.path(), text + "consistency = \"strong\"\n").unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_causeway"));
        let output = command.arg("explain").args(arguments).arg("--config").arg(file.path()).output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let cases: [(&[&str], i32, &[&str]); 4] = [
        (
            &["--database", &database.name, "SELECT * FROM t"],
            0,
            &[
                "session, as configured",
                "replica1 or replica2",
                "\nneeds          nothing\n",
                "\nnode primary   primary, at ",
            ],
        ),
        (
            &["--database", &database.name, "--user", "app", "SELECT * FROM t"],
            0,
            &["strong, as configured", "asked of the primary first", "class          read"],
        ),
        (&["--database", &database.name, "SELECT writes()"], 0, &[": writes", "primary ("]),
        (&["--user", "stranger", "SELECT 1"], 1, &["stranger"]),
    ];
    for (arguments, code, parts) in cases {
        let (got, said) = run(arguments);
        assert_eq!(got, Some(code), "{arguments:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{arguments:?} does not say {part:?}:\n{said}");
        }
    }
}
