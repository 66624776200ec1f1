//! The admin console: who may do what, what it shows, and that PAUSE holds up writes and nothing else.

use std::thread;
use std::time::Duration;

use causeway::app::demo::cluster::Stop;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use crate::cancel::{cancel, error_code, log_in};
use crate::faults::{PROBE, await_catalog, cluster_with_tables};
use crate::harness::{Database, Env, PASSWORD, Test, USER, block_on, check, wait_for};
use crate::proxy::Proxy;
use crate::target::Target;
use crate::traffic::{DATABASE, Traffic};

pub const TESTS: &[Test] = &[
    ("console::shows_what_it_has_to_whom_it_may", shows_what_it_has_to_whom_it_may),
    ("console::says_what_is_wrong", says_what_is_wrong),
    ("console::a_pause_holds_up_writes_and_nothing_else", a_pause_holds_up_writes_and_nothing_else),
    ("console::a_pause_that_is_given_up_is_undone", a_pause_that_is_given_up_is_undone),
    ("console::who_waits_too_long_is_told_why", who_waits_too_long_is_told_why),
    ("console::a_restart_behind_a_pause_is_not_seen", a_restart_behind_a_pause_is_not_seen),
];

const LIMIT: Duration = Duration::from_secs(30);
const PEEK: &str = "stats";

/// The user of the tests may do everything in the console, another one may look.
pub fn with_console(text: &str) -> String {
    let password = toml::Value::from(PASSWORD).to_string();
    let users = format!("admin_users = [\"{USER}\"]\nstats_users = [\"{PEEK}\"]\n");
    let others = format!("\n[users.{PEEK}]\npassword = {password}\n[users.nobody]\npassword = {password}\n");
    users + text + &others
}

fn start<'a>(env: &'a Env, test: &str, settings: &str) -> (Database<'a>, Proxy) {
    let database = env.database(test);
    database.prepare(&format!("CREATE TABLE t (n int); ALTER TABLE t OWNER TO {USER}"));
    let proxy = Proxy::start_as(&env.shared().cluster, |text| with_console(&text) + settings);
    // Before the catalog is known, functions are writes.
    drop(proxy.target(&database.name).raw());
    proxy.facts_loaded(&database.name, 1);
    (database, proxy)
}

/// Names of the columns, and the rows.
type Shown = (Vec<String>, Vec<Vec<Option<String>>>);

/// What one command answers.
pub async fn ask(client: &Client, command: &str) -> Result<Shown, Error> {
    let (mut names, mut rows) = (Vec::new(), Vec::new());
    for message in client.simple_query(command).await? {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                names = columns.iter().map(|column| column.name().to_owned()).collect();
            }
            SimpleQueryMessage::Row(row) => {
                rows.push((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect());
            }
            _ => {}
        }
    }
    Ok((names, rows))
}

/// One value of the row whose `key` column is `is`.
pub async fn value(client: &Client, show: &str, (key, is): (&str, &str), column: &str) -> Option<String> {
    let (names, rows) = ask(client, show).await.unwrap();
    let at = |name: &str| names.iter().position(|known| known == name).unwrap_or_else(|| panic!("{name}: {names:?}"));
    let (key, column) = (at(key), at(column));
    rows.into_iter().find(|row| row[key].as_deref() == Some(is)).and_then(|mut row| row.swap_remove(column))
}

/// Waits until the one cluster shows this.
fn await_cluster(proxy: &Proxy, column: &str, wanted: &str) {
    block_on(async {
        let console = proxy.target("causeway").connect().await;
        let limit = tokio::time::Instant::now() + LIMIT;
        while value(&console, "SHOW CLUSTERS", ("name", "demo"), column).await.as_deref() != Some(wanted) {
            assert!(tokio::time::Instant::now() < limit, "{column} does not become {wanted}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

/// Runs a command of the console in a thread of its own.
fn command(target: &Target, command: &'static str) -> thread::JoinHandle<Result<(), Error>> {
    let target = target.clone();
    thread::spawn(move || block_on(async { ask(&target.connect().await, command).await.map(drop) }))
}

fn shows_what_it_has_to_whom_it_may(env: &Env) {
    let (database, proxy) = start(env, "console", "");
    block_on(async {
        let client = proxy.target(&database.name).connect().await;
        client.simple_query("INSERT INTO t VALUES (1)").await.unwrap();
        for (name, user) in [("causeway", USER), ("pgbouncer", PEEK)] {
            let console = proxy.target(name).connect_as(user).await;
            for (show, columns) in [
                (
                    "SHOW POOLS",
                    "database,user,cl_active,cl_waiting,cl_active_cancel_req,cl_waiting_cancel_req,sv_active,\
                                sv_active_cancel,sv_being_canceled,sv_idle,sv_used,sv_tested,sv_login,maxwait,maxwait_us,\
                                pool_mode,cluster,node",
                ),
                (
                    "show clients;",
                    "type,user,database,replication,state,addr,port,local_addr,local_port,connect_time,\
                                   request_time,wait,wait_us,close_needed,ptr,link,remote_pid,tls,application_name,\
                                   prepared_statements,id",
                ),
                ("SHOW VERSION", "version"),
                ("SHOW HELP", "command,does"),
            ] {
                let (names, rows) = ask(&console, show).await.unwrap();
                assert_eq!(names.join(","), columns);
                assert!(!rows.is_empty(), "{show}");
            }
            for (node, role, writes, reads) in
                [("primary", "primary", "yes", "primary"), ("replica1", "replica", "no", "yes")]
            {
                for (column, wanted) in [("role", role), ("writes", writes), ("reads", reads), ("timeline", "1")] {
                    let shown = value(&console, "SHOW NODES", ("name", node), column).await;
                    assert_eq!(shown.as_deref(), Some(wanted), "{node} {column}");
                }
            }
            for (column, wanted) in [("primary", Some("primary")), ("paused", Some("no")), ("alarm", None)] {
                let shown = value(&console, "SHOW CLUSTERS", ("name", "demo"), column).await;
                assert_eq!(shown.as_deref(), wanted, "{column}");
            }
            let who = value(&console, "SHOW CLIENTS", ("database", &database.name), "user").await;
            assert_eq!(who.as_deref(), Some(USER));
            let idle = value(&console, "SHOW POOLS", ("database", &database.name), "sv_idle").await;
            assert_eq!(idle.as_deref(), Some("1"), "on the primary");
        }
    });
    // psql asks nothing that the console does not know.
    assert!(proxy.target("causeway").psql("SHOW VERSION").starts_with("Causeway "));
}

/// SQLSTATE and hint.
fn refused(error: &Error) -> (String, String) {
    let error = error.as_db_error().unwrap_or_else(|| panic!("{error}"));
    (error.code().code().to_owned(), error.hint().unwrap_or_default().to_owned())
}

fn says_what_is_wrong(env: &Env) {
    let (_database, proxy) = start(env, "mistakes", "");
    block_on(async {
        let cases = [
            (USER, "SELECT 1", "42601", "SHOW HELP"),
            (USER, "PAUSE demo demo", "42601", "PAUSE [cluster]"),
            (USER, "SHOW HELP; SHOW HELP", "42601", "SHOW HELP"),
            (USER, "PAUSE nowhere", "42704", "SHOW CLUSTERS"),
            (USER, "RESUME", "55000", "SHOW CLUSTERS"),
            (USER, "RESUME demo", "55000", "SHOW CLUSTERS"),
            (USER, "SWITCHOVER demo TO nowhere", "42704", "SHOW NODES"),
            (USER, "SWITCHOVER demo TO primary", "55000", "SHOW NODES"),
            (USER, "SWITCHOVER demo TO replica1 TIMEOUT soon", "22023", "TIMEOUT 30s"),
            (PEEK, "PAUSE", "42501", ""),
            (PEEK, "SWITCHOVER demo TO replica1", "42501", ""),
        ];
        for (user, command, code, hint) in cases {
            let console = proxy.target("causeway").connect_as(user).await;
            let said = refused(&ask(&console, command).await.unwrap_err());
            assert!(said.0 == code && said.1.contains(hint), "{command}: {said:?}");
            assert!(!ask(&console, "SHOW VERSION").await.unwrap().1.is_empty(), "it goes on");
        }
        let console = proxy.target("causeway").connect().await;
        let said = refused(&console.query("SHOW VERSION", &[]).await.unwrap_err());
        assert!(said.0 == "0A000" && said.1.contains("psql"), "{said:?}");
        assert!(!ask(&console, "SHOW VERSION").await.unwrap().1.is_empty(), "it goes on");
    });
    let mut stranger = crate::raw::RawClient::connect("127.0.0.1", proxy.target("").port);
    stranger.startup(&[("user", "nobody"), ("database", "causeway")]);
    let refusal = stranger.try_prove(PASSWORD);
    assert_eq!(error_code(&refusal), "28000", "{refusal:?}");
}

fn a_pause_holds_up_writes_and_nothing_else(env: &Env) {
    let (database, proxy) = start(env, "pause", "");
    let target = proxy.target(&database.name);
    let console = proxy.target("causeway");
    let mut transaction = target.raw();
    let tell = |client: &mut crate::raw::RawClient, sql: &str| {
        client.query(sql);
        client.read_to('Z')
    };
    assert_eq!(error_code(&tell(&mut transaction, "BEGIN; INSERT INTO t VALUES (2)")), "");
    let pause = command(&console, "PAUSE demo");
    await_cluster(&proxy, "paused", "pause");
    let writes: Vec<_> = (0..3)
        .map(|_| {
            let target = target.clone();
            thread::spawn(move || {
                block_on(async { target.connect().await.simple_query("INSERT INTO t VALUES (3)").await.map(drop) })
            })
        })
        .collect();
    await_cluster(&proxy, "waiting", "3");
    let mut given_up = log_in(&target, [0, 3, 0, 0]);
    given_up.client.query("INSERT INTO t VALUES (4)");
    await_cluster(&proxy, "waiting", "4");
    cancel(&target, &given_up.key);
    assert_eq!(error_code(&given_up.client.read_to('Z')), "57014");
    await_cluster(&proxy, "waiting", "3");
    // Reads on replicas go on, new clients come in, and the transaction ends as it likes.
    block_on(async { target.connect().await.simple_query("SELECT count(*) FROM t").await.unwrap() });
    assert_eq!(error_code(&tell(&mut transaction, "INSERT INTO t VALUES (2)")), "");
    assert!(!pause.is_finished(), "a transaction is open");
    assert_eq!(error_code(&tell(&mut transaction, "COMMIT")), "");
    pause.join().unwrap().unwrap();
    let again = block_on(async { ask(&console.connect().await, "PAUSE").await.map(drop).unwrap_err() });
    assert_eq!(refused(&again), ("55000".to_owned(), "RESUME ends that.".to_owned()));
    assert!(proxy.metric("causeway_paused", "demo") > 0.5);
    assert!(writes.iter().all(|write| !write.is_finished()));
    assert_eq!(env.shared().cluster.primary().sql(&database.name, "SELECT count(*) FROM t").unwrap(), "2");
    command(&console, "RESUME").join().unwrap().unwrap();
    for write in writes {
        write.join().unwrap().unwrap();
    }
    assert_eq!(env.shared().cluster.primary().sql(&database.name, "SELECT count(*) FROM t").unwrap(), "5");
    assert!(proxy.metric("causeway_paused", "demo") < 0.5);
}

fn a_pause_that_is_given_up_is_undone(env: &Env) {
    let (database, proxy) = start(env, "given_up", "");
    let target = proxy.target(&database.name);
    let mut transaction = target.raw();
    transaction.query("BEGIN; INSERT INTO t VALUES (1)");
    transaction.read_to('Z');
    // By a cancel request, and by leaving.
    let mut console = log_in(&proxy.target("causeway"), [0, 3, 0, 0]);
    console.client.query("PAUSE");
    await_cluster(&proxy, "paused", "pause");
    cancel(&proxy.target("causeway"), &console.key);
    assert_eq!(error_code(&console.client.read_to('Z')), "57014");
    await_cluster(&proxy, "paused", "no");
    console.client.query("PAUSE");
    await_cluster(&proxy, "paused", "pause");
    drop(console);
    await_cluster(&proxy, "paused", "no");
    block_on(async { target.connect().await.simple_query("INSERT INTO t VALUES (2)").await.unwrap() });
}

fn who_waits_too_long_is_told_why(env: &Env) {
    let (database, proxy) = start(env, "too_long", "\n[pool]\nquery_wait_timeout = \"300ms\"\n");
    command(&proxy.target("causeway"), "PAUSE").join().unwrap().unwrap();
    let cases = ["INSERT INTO t VALUES (1)", "BEGIN", "/* causeway: primary */ SELECT 1"];
    check(&cases.map(|sql| (sql, true)), |sql| {
        let error =
            block_on(async { proxy.target(&database.name).connect().await.simple_query(sql).await.unwrap_err() });
        let error = error.as_db_error().unwrap();
        *error.code() == SqlState::CANNOT_CONNECT_NOW
            && error.message().contains("\"demo\" is paused")
            && error.message().contains("query_wait_timeout (300ms)")
            && error.hint().is_some_and(|hint| hint.contains("RESUME"))
    });
    command(&proxy.target("causeway"), "RESUME").join().unwrap().unwrap();
    block_on(async { proxy.target(&database.name).connect().await.simple_query(cases[0]).await.unwrap() });
}

fn a_restart_behind_a_pause_is_not_seen(_: &Env) {
    let cluster = cluster_with_tables();
    let proxy = Proxy::start_as(&cluster, |text| with_console(&text) + PROBE);
    let target = proxy.target(DATABASE);
    let console = proxy.target("causeway");
    drop(target.raw());
    await_catalog(&proxy);
    let traffic = Traffic::start(&target);
    traffic.await_writes(5);
    for _ in 0..2 {
        command(&console, "PAUSE").join().unwrap().unwrap();
        cluster.primary().stop(Stop::Fast).unwrap();
        wait_for(LIMIT, "the primary is missed", || proxy.node_metric("causeway_node_up", "primary") < 0.5);
        // Who comes while there is no primary waits, too.
        let late = {
            let target = target.clone();
            let write = "INSERT INTO journal DEFAULT VALUES";
            thread::spawn(move || block_on(async { target.connect().await.simple_query(write).await.map(drop) }))
        };
        await_cluster(&proxy, "waiting", "5");
        traffic.await_reads(5);
        cluster.primary().start().unwrap();
        command(&console, "RESUME").join().unwrap().unwrap();
        late.join().unwrap().unwrap();
        traffic.await_writes(5);
    }
    wait_for(LIMIT, "nobody waits", || proxy.metric("causeway_paused", "demo") < 0.5);
    traffic.assert_no_failure("restarts behind a pause");
}
