//! More than there is room for: limits are kept and named, what takes too long is ended, and who is in good faith is
//! served all the same.

mod crowd;
mod slow;

use std::time::Duration;

use crate::frames::{SYNC, bind, execute, message, parse, query};
use crate::harness::{Env, PASSWORD, Test, USER, check, wait_for};
use crate::proxy::Proxy;
use crate::raw::{Message, RawClient, field, tags};
use crate::speech::{sqlstate, value};
use crate::target::Target;

pub const TESTS: &[Test] = &[
    ("overload::clients_are_limited_by_user_and_database", clients_are_limited_by_user_and_database),
    ("overload::pools_share_the_servers_of_a_database_and_a_user", pools_share_the_servers_of_a_database_and_a_user),
    ("overload::as_many_wait_as_may", as_many_wait_as_may),
    ("overload::what_takes_too_long_is_ended", what_takes_too_long_is_ended),
    ("overload::who_waits_too_long_is_told_which_limit", who_waits_too_long_is_told_which_limit),
    ("overload::large_batches_share_their_memory", large_batches_share_their_memory),
    ("overload::slow_logins_end_at_every_stage", slow::logins_end_at_every_stage),
    ("overload::slow_logins_make_room", slow::logins_make_room),
    ("overload::who_does_not_read_gives_the_server_back", slow::who_does_not_read_gives_the_server_back),
    ("overload::few_servers_serve_a_crowd_fairly", crowd::few_servers_serve_a_crowd_fairly),
];

/// On a busy machine everything may take this long.
const LIMIT: Duration = Duration::from_secs(60);

/// What a limit does to somebody.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    sqlstate: String,
    /// All parts are in the message.
    names: Vec<&'static str>,
    /// The session goes on.
    goes_on: bool,
}

fn told(sqlstate: &str, names: &[&'static str], goes_on: bool) -> Told {
    Told { sqlstate: sqlstate.to_owned(), names: names.to_vec(), goes_on }
}

/// What the client was told, as far as it was to be expected.
fn heard(answer: &[Message], expected: &Told) -> Told {
    let error = answer.iter().find(|(tag, _)| *tag == 'E').map(|(_, body)| body.as_slice()).unwrap_or_default();
    let text = field(error, b'M');
    let names = expected.names.iter().copied().filter(|name| text.contains(name)).collect();
    Told { sqlstate: field(error, b'C'), names, goes_on: answer.last().is_some_and(|(tag, _)| *tag == 'Z') }
}

fn run(client: &mut RawClient, sql: &str) -> Vec<Message> {
    client.query(sql);
    client.read_to('Z')
}

/// Logs in as somebody; gives the SQLSTATE and the message of a refusal.
fn log_in(target: &Target, user: &str) -> Result<RawClient, (String, String)> {
    let mut client = RawClient::connect(&target.host, target.port);
    client.startup(&[("user", user), ("database", &target.database)]);
    let answer = client.try_prove(PASSWORD);
    match answer.iter().find(|(tag, _)| *tag == 'E') {
        Some((_, body)) => Err((field(body, b'C'), field(body, b'M'))),
        None => Ok(client),
    }
}

fn clients_are_limited_by_user_and_database(env: &Env) {
    let (one, other) = (env.database("limited"), env.database("unlimited"));
    let settings = format!(
        "max_user_client_connections = 3\n\
         [users.other]\npassword = \"{PASSWORD}\"\nmax_user_client_connections = 0\n\
         [databases.{}]\nmax_db_client_connections = 4\n",
        one.name
    );
    // The first line belongs to the user that the configuration ends with.
    let edit = |text: String| text.replace("\n[metrics]", &format!("\n{settings}[metrics]"));
    let proxy = Proxy::start_as(&env.shared().cluster, edit);
    let targets = [proxy.target(&one.name), proxy.target(&other.name)];
    let mut here = Vec::new();
    for (user, database, want) in [
        (USER, 0, None),
        (USER, 0, None),
        (USER, 1, None),
        (USER, 1, Some("user \"app\" already (max_user_client_connections = 3)")),
        ("other", 0, None),
        ("other", 0, None),
        ("other", 0, Some("already (max_db_client_connections = 4)")),
        ("other", 1, None),
        (USER, 0, Some("user \"app\" already (max_user_client_connections = 3)")),
    ] {
        match (log_in(&targets[database], user), want) {
            (Ok(client), None) => here.push(client),
            (Err((code, text)), Some(part)) if code == "53300" && text.contains(part) => {}
            (Ok(_), Some(part)) => panic!("{user} in {database} came in against {part}"),
            (Err(refusal), want) => panic!("{user} in {database}: {refusal:?}, want {want:?}"),
        }
    }
    assert!(proxy.metric("causeway_logins_total", "too_many") >= 3.0);
    // Who leaves makes room, for its user and for its database.
    drop(here.remove(0));
    wait_for(LIMIT, "there is room again", || log_in(&targets[0], USER).is_ok());
}

/// A client whose pool has no place waits for one of another pool, which gives up what it does not need.
fn pools_share_the_servers_of_a_database_and_a_user(env: &Env) {
    let (one, other) = (env.database("shared_one"), env.database("shared_other"));
    let cases = [
        ("max_db_connections", [(USER, &one), ("other", &one)]),
        ("max_user_connections", [(USER, &one), (USER, &other)]),
    ];
    for (setting, logins) in cases {
        let settings = format!("[users.other]\npassword = \"{PASSWORD}\"\n[pool]\n{setting} = 1\n");
        let proxy = Proxy::start(&env.shared().cluster, &settings);
        let [mut first, mut second] =
            logins.map(|(user, database)| log_in(&proxy.target(&database.name), user).unwrap());
        for _ in 0..2 {
            run(&mut first, "BEGIN");
            second.query("BEGIN");
            wait_for(LIMIT, "it waits", || proxy.metric("causeway_pool_waiting_clients", "") > 0.0);
            run(&mut first, "COMMIT");
            assert_eq!(tags(&second.read_to('Z')), "C Z", "{setting}");
            std::mem::swap(&mut first, &mut second);
            run(&mut first, "COMMIT");
        }
        assert!(proxy.metric("causeway_pool_closes_total", "reason=\"made_room\"") >= 2.0);
        let most = |node: &str| proxy.metric("causeway_pool_servers", &format!("node=\"{node}\""));
        // One that is being closed may still be counted.
        wait_for(LIMIT, setting, || ["primary", "replica1", "replica2"].iter().all(|node| most(node) <= 1.0));
    }
}

fn as_many_wait_as_may(env: &Env) {
    let database = env.database("waiters");
    let settings = "[pool]\ndefault_pool_size = 1\nmax_waiting_clients = 1\n";
    let proxy = Proxy::start(&env.shared().cluster, settings);
    let target = proxy.target(&database.name);
    let [mut holder, mut waiter, mut refused] = [(); 3].map(|()| target.raw());
    run(&mut holder, "BEGIN");
    waiter.query("BEGIN");
    let labels = format!("database=\"{}\"", database.name);
    wait_for(LIMIT, "it waits", || proxy.metric("causeway_pool_waiting_clients", &labels) > 0.0);
    let want = told("53300", &["max_waiting_clients = 1", "primary", USER], true);
    assert_eq!(heard(&run(&mut refused, "BEGIN"), &want), want);
    run(&mut holder, "COMMIT");
    assert_eq!(tags(&waiter.read_to('Z')), "C Z", "who waited is served");
    run(&mut waiter, "COMMIT");
    assert_eq!(tags(&run(&mut refused, "BEGIN")), "C Z", "who was refused may try again");
}

fn what_takes_too_long_is_ended(env: &Env) {
    let database = env.database("too_long");
    let query_timeout = told("57014", &["query_timeout (1s)"], true);
    let idle = told("25P03", &["idle_transaction_timeout (1s)"], false);
    let transaction = told("25P04", &["transaction_timeout (1s)"], false);
    let client_idle = told("57P05", &["client_idle_timeout (1s)"], false);
    let sleep = "/* causeway: primary */ SELECT pg_sleep(600)";
    let extended = |sql: &str| [parse("", sql), bind("", "", &[], 0), execute("", 0), SYNC.to_vec()].concat();
    // What is sent at once, and what comes of it behind the answers to what was sent before.
    let cases: Vec<(&str, Vec<Vec<u8>>, &Told)> = vec![
        ("query_timeout", vec![query(sleep)], &query_timeout),
        ("query_timeout", vec![query("SELECT pg_sleep(600)")], &query_timeout),
        ("query_timeout", vec![extended(sleep)], &query_timeout),
        ("query_timeout", vec![query("BEGIN"), query(sleep)], &query_timeout),
        ("idle_transaction_timeout", vec![query("BEGIN"), vec![]], &idle),
        ("idle_transaction_timeout", vec![query("BEGIN"), query("SELECT 1/0"), vec![]], &idle),
        // A statement has begun to come, and does not come to its end.
        ("idle_transaction_timeout", vec![query("BEGIN"), b"Q\0\0\0\x20SELE".to_vec()], &idle),
        ("transaction_timeout", vec![query("BEGIN"), vec![]], &transaction),
        ("transaction_timeout", vec![query("BEGIN"), query(sleep)], &transaction),
        ("transaction_timeout", vec![query(sleep)], &transaction),
        ("client_idle_timeout", vec![vec![]], &client_idle),
        ("client_idle_timeout", vec![b"Q\0\0\0\x20SELE".to_vec()], &client_idle),
        ("client_idle_timeout", vec![query("SELECT 1"), message(b'P', b"x\0SELECT 1\0\0\0")], &client_idle),
    ];
    for setting in ["query_timeout", "idle_transaction_timeout", "transaction_timeout", "client_idle_timeout"] {
        let settings = format!("[limits]\n{setting} = \"1s\"\n[pool]\ndefault_pool_size = 2\n");
        let proxy = Proxy::start(&env.shared().cluster, &settings);
        let target = proxy.target(&database.name);
        for (_, turns, want) in cases.iter().filter(|(of, ..)| *of == setting) {
            let mut client = target.raw();
            let (last, before) = turns.split_last().unwrap();
            for turn in before {
                client.send(turn);
                client.read_to('Z');
            }
            client.send(last);
            let answer = client.read_to('Z');
            assert_eq!(heard(&answer, want), **want, "{setting}: {}", last.escape_ascii());
            if want.goes_on {
                run(&mut client, "ROLLBACK");
                assert_eq!(value(&run(&mut client, "SELECT 7")).as_deref(), Some("7"), "{setting}");
            }
        }
        // Nothing is held any more.
        let labels = format!("database=\"{}\",node=\"primary\",state=\"active\"", database.name);
        wait_for(LIMIT, "all servers are free", || proxy.metric("causeway_pool_servers", &labels) == 0.0);
        let sleepers = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(600)'";
        let nobody =
            || env.shared().cluster.nodes().iter().all(|node| node.sql(&database.name, sleepers).unwrap() == "0");
        wait_for(LIMIT, "nothing runs any more", nobody);
    }
}

/// The limit on a query holds for its time in the queue, too; whichever is shorter is the one that is named.
fn who_waits_too_long_is_told_which_limit(env: &Env) {
    let database = env.database("queue");
    let cases = [
        ("1s", "1h", told("57014", &["query_timeout (1s)"], true)),
        ("1h", "1s", told("53300", &["query_wait_timeout (1s)"], true)),
    ];
    for (query, wait, want) in cases {
        let settings = format!(
            "[limits]\nquery_timeout = \"{query}\"\n[pool]\ndefault_pool_size = 1\nquery_wait_timeout = \"{wait}\"\n"
        );
        let proxy = Proxy::start(&env.shared().cluster, &settings);
        let target = proxy.target(&database.name);
        let (mut holder, mut waiter) = (target.raw(), target.raw());
        run(&mut holder, "BEGIN");
        assert_eq!(heard(&run(&mut waiter, "BEGIN"), &want), want);
        run(&mut holder, "COMMIT");
        assert_eq!(tags(&run(&mut waiter, "BEGIN")), "C Z");
    }
}

fn large_batches_share_their_memory(env: &Env) {
    let database = env.database("memory");
    let settings = "[limits]\nmax_batch_size = \"1MiB\"\nmax_memory = \"4MiB\"\n";
    let proxy = Proxy::start(&env.shared().cluster, settings);
    let target = proxy.target(&database.name);
    let held = || proxy.metric("causeway_batch_memory_bytes", "");
    let large = |head: &str| format!("{head} SELECT length('{}')", "x".repeat(1_000_000 - 100));
    let simple = query(large("/* causeway: primary */"));
    let parsed = [parse("", large("")), bind("", "", &[], 0), execute("", 0), SYNC.to_vec()].concat();

    // Two of them are nearly here, and take all that there is.
    let mut holders = [target.raw(), target.raw()];
    for (nth, holder) in holders.iter_mut().enumerate() {
        holder.send(&simple[..simple.len() - 1]);
        let wanted = [2.0, 4.0][nth] * 1024.0 * 1024.0;
        wait_for(LIMIT, "it is held", || held() > wanted - 512.0 * 1024.0);
    }
    let mut client = target.raw();
    let want = told("53200", &["limits.max_memory = 4"], true);
    for (what, batch) in [("simple", &simple), ("extended", &parsed), ("in pieces", &simple)] {
        for piece in batch.chunks(if what == "in pieces" { 10_000 } else { batch.len() }) {
            client.send(piece);
        }
        let answer = client.read_to('Z');
        assert_eq!((heard(&answer, &want), tags(&answer).as_str()), (want.clone(), "E Z"), "{what}");
        assert_eq!(value(&run(&mut client, "SELECT 7")).as_deref(), Some("7"), "usual batches are served: {what}");
    }
    // A transaction is failed by it, as by any error.
    run(&mut client, "BEGIN");
    client.send(&simple);
    client.read_to('Z');
    check(&[("SELECT 7", "25P02".to_owned()), ("ROLLBACK", String::new())], |sql| sqlstate(&run(&mut client, sql)));

    for holder in &mut holders {
        holder.send(&simple[simple.len() - 1..]);
        assert_eq!(value(&holder.read_to('Z')).as_deref(), Some("999900"));
    }
    for batch in [&simple, &parsed] {
        client.send(batch);
        assert_eq!(value(&client.read_to('Z')).as_deref(), Some("999900"));
    }
    // A client that leaves gives back what it held.
    let mut leaver = target.raw();
    leaver.send(&simple[..simple.len() - 1]);
    wait_for(LIMIT, "it is held", || held() > 0.0);
    drop(leaver);
    run(&mut client, "SELECT 7");
    wait_for(LIMIT, "nothing is held", || held() == 0.0);
}
