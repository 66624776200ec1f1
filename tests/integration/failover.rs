//! The primary goes while sessions work: what each is told, what is there afterwards, and that all go on.

use std::thread;

use causeway::app::demo::cluster::{LocalCluster, LocalNode, Stop};

use crate::faults::{LIMIT, PROBE, await_catalog};
use crate::forks::follow;
use crate::harness::{Env, Test, check, wait_for};
use crate::positions::started;
use crate::promises::stage::said;
use crate::proxy::Proxy;
use crate::raw::RawClient;
use crate::speech::{ask, extended, query as simple};

pub const TESTS: &[Test] = &[
    ("failover::a_commit_without_an_answer_is_looked_up", a_commit_without_an_answer_is_looked_up),
    ("failover::a_transaction_is_lost_once", a_transaction_is_lost_once),
    ("failover::statements_wait_for_the_next_primary", statements_wait_for_the_next_primary),
    ("failover::a_primary_that_is_none_any_more_costs_no_error", a_primary_that_is_none_any_more_costs_no_error),
];

const DATABASE: &str = "shop";

fn proxied(settings: &str) -> (LocalCluster, Proxy) {
    let cluster = started("wal_sender_timeout = 5s\n");
    let proxy = Proxy::start(&cluster, &format!("{settings}{PROBE}"));
    await_catalog_of(&proxy);
    (cluster, proxy)
}

fn await_catalog_of(proxy: &Proxy) {
    drop(proxy.target(DATABASE).raw());
    await_catalog(proxy);
}

/// One step of a client, by the simple or the extended protocol.
type Frames = fn(&str) -> Vec<u8>;

/// What a client does before it sends the batch whose answer is lost, that batch, and what it reads if all is well.
type Commit = (&'static str, Frames, &'static [&'static str], &'static str, &'static str);

const COMMITS: &[Commit] = &[
    ("a transaction", simple, &["BEGIN", "INSERT INTO t VALUES (1)"], "COMMIT", "COMMIT"),
    ("a transaction, extended", extended, &["BEGIN", "INSERT INTO t VALUES (2)", "SELECT 1"], "END", "COMMIT"),
    ("a statement", simple, &[], "INSERT INTO t VALUES (3)", "INSERT 0 1"),
    ("a statement, extended", extended, &[], "INSERT INTO t VALUES (4)", "INSERT 0 1"),
    ("one with rows", simple, &[], "INSERT INTO t VALUES (5) RETURNING n", "5"),
    ("one with rows, extended", extended, &[], "INSERT INTO t VALUES (6) RETURNING n", "6"),
];

/// What happens to the primary while it commits, and whether the commit is there afterwards.
type Event = (&'static str, fn(&LocalCluster), bool);

const EVENTS: &[Event] = &[
    (
        "it crashes and comes back",
        |cluster| {
            cluster.primary().kill9().unwrap();
            cluster.primary().start().unwrap();
        },
        true,
    ),
    (
        "a replica that has it is promoted",
        |cluster| {
            cluster.primary().kill9().unwrap();
            cluster.replicas()[0].promote().unwrap();
        },
        true,
    ),
    (
        "a replica that lacks it is promoted",
        |cluster| {
            cluster.primary().kill9().unwrap();
            cluster.replicas()[1].promote().unwrap();
        },
        false,
    ),
    (
        "its servers are ended",
        |cluster| {
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            cluster.primary().sql("postgres", end).unwrap();
        },
        true,
    ),
];

fn a_commit_without_an_answer_is_looked_up(_: &Env) {
    thread::scope(|scope| {
        let events: Vec<_> = EVENTS.iter().map(|event| scope.spawn(|| look_up(event))).collect();
        for event in events {
            if let Err(panic) = event.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

fn look_up(&(what, strike, is_there): &Event) {
    let (cluster, proxy) = proxied("");
    let mut clients: Vec<RawClient> = COMMITS.iter().map(|_| proxy.target(DATABASE).raw()).collect();
    for (client, (name, frames, before, ..)) in clients.iter_mut().zip(COMMITS) {
        for sql in *before {
            let got = said(&ask(client, &frames(sql)));
            assert!(!got.starts_with('!'), "{what}, {name}: {sql}: {got}");
        }
    }
    if !is_there {
        follow(&cluster.replicas()[1], None);
    }
    // A commit waits for a standby that does not exist.
    let primary = cluster.primary();
    primary.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'").unwrap();
    primary.sql("postgres", "SELECT pg_reload_conf()").unwrap();
    wait_for(LIMIT, "commits would wait", || {
        primary.sql("postgres", "SHOW synchronous_standby_names").unwrap() == "nobody"
    });
    for (client, (_, frames, _, commit, _)) in clients.iter_mut().zip(COMMITS) {
        client.send(&frames(commit));
    }
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    wait_for(LIMIT, "all commits wait", || primary.sql("postgres", waiting).unwrap() == COMMITS.len().to_string());
    let committed = primary.sql("postgres", "SELECT pg_current_wal_flush_lsn()").unwrap();
    wait_for(LIMIT, "a replica has them", || {
        let has = format!("SELECT pg_last_wal_replay_lsn() >= '{committed}'");
        cluster.replicas()[0].sql("postgres", &has).unwrap() == "t"
    });
    strike(&cluster);
    let mut wrong = Vec::new();
    for (client, (name, _, _, _, answer)) in clients.iter_mut().zip(COMMITS) {
        let got = said(&client.read_to('Z'));
        let right = if is_there { got == *answer } else { got.starts_with("!40001") };
        if !right {
            wrong.push(format!("{name}: {got}"));
        }
    }
    assert!(wrong.is_empty(), "{what}:\n{}\n{}", wrong.join("\n"), proxy.log());
    let outcome = if is_there { "committed" } else { "aborted" };
    let found = proxy.metric("causeway_commits_in_doubt_total", &format!("outcome=\"{outcome}\""));
    assert!((found - f64::from(u32::try_from(COMMITS.len()).unwrap())).abs() < 0.1, "{what}: {found} {outcome}");
    // Their sessions go on, and see what they have written.
    let release = |node: &LocalNode| {
        node.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = ''").unwrap();
        node.sql("postgres", "SELECT pg_reload_conf()").unwrap();
    };
    if let Some(primary) = cluster
        .nodes()
        .iter()
        .find(|node| node.sql("postgres", "SELECT pg_is_in_recovery()").is_ok_and(|recovers| recovers == "f"))
    {
        release(primary);
    }
    for (n, (client, (name, ..))) in (1..).zip(clients.iter_mut().zip(COMMITS)) {
        let got = said(&ask(client, &simple(&format!("SELECT count(*) FROM t WHERE n = {n}"))));
        assert_eq!(got, u8::from(is_there).to_string(), "{what}, {name}");
    }
}

type Strike = (&'static str, fn(&LocalNode));

/// What a client sends in a transaction whose server was lost, and what it reads; the first letter is the protocol.
const AFTER_LOSS: &[&[(&str, &str)]] = &[
    &[("SELECT 1", "!40001"), ("SELECT 1", "!25P02"), ("ROLLBACK", "ROLLBACK")],
    &[("INSERT INTO t VALUES (9)", "!40001"), ("COMMIT", "ROLLBACK")],
    &[("COMMIT", "!40001"), ("SELECT 1", "1")],
    &[("ROLLBACK", "ROLLBACK"), ("SELECT 1", "1")],
    &[("SAVEPOINT a", "!40001"), ("ROLLBACK TO a", "!25P02"), ("ABORT", "ROLLBACK")],
];

fn a_transaction_is_lost_once(_: &Env) {
    let (cluster, proxy) = proxied("");
    let primary = cluster.primary();
    let strikes: [Strike; 2] = [
        ("its server is ended", |node| {
            let end =
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE state = 'idle in transaction'";
            node.sql("postgres", end).unwrap();
        }),
        ("the primary crashes", |node| {
            node.kill9().unwrap();
            node.start().unwrap();
        }),
    ];
    for (what, strike) in strikes {
        let sessions: Vec<(Frames, &[(&str, &str)])> = [simple as Frames, extended]
            .into_iter()
            .flat_map(|frames| AFTER_LOSS.iter().map(move |s| (frames, *s)))
            .collect();
        let mut clients: Vec<RawClient> = sessions
            .iter()
            .map(|(frames, _)| {
                let mut client = proxy.target(DATABASE).raw();
                assert_eq!(said(&ask(&mut client, &frames("SET statement_timeout = '77s'"))), "SET");
                for sql in ["BEGIN", "SET LOCAL work_mem = '5MB'", "INSERT INTO t VALUES (1)"] {
                    let got = said(&ask(&mut client, &frames(sql)));
                    assert!(!got.starts_with('!'), "{sql}: {got}");
                }
                client
            })
            .collect();
        strike(primary);
        for (client, (frames, steps)) in clients.iter_mut().zip(&sessions) {
            for (sql, want) in *steps {
                let got = said(&ask(client, &frames(sql)));
                assert!(got.starts_with(want), "{what}: {steps:?}: {sql}: {got}");
            }
            // The session is as it was before its transaction.
            for (sql, want) in [
                ("SELECT current_setting('statement_timeout')", "77s"),
                ("INSERT INTO t VALUES (2)", "INSERT 0 1"),
                ("SELECT count(*) FROM t WHERE n IN (1, 9)", "0"),
            ] {
                assert_eq!(said(&ask(client, &frames(sql))), want, "{what}: {steps:?}: {sql}");
            }
        }
    }
}

fn statements_wait_for_the_next_primary(_: &Env) {
    let (cluster, proxy) = proxied("\n[routing]\nmax_held_statements = 3\n");
    let mut clients: Vec<RawClient> = (0..4).map(|_| proxy.target(DATABASE).raw()).collect();
    for client in &mut clients {
        assert_eq!(said(&ask(client, &simple("INSERT INTO t VALUES (1)"))), "INSERT 0 1");
    }
    cluster.catch_up().unwrap();
    wait_for(LIMIT, "positions are known", || {
        clients.iter_mut().all(|client| !said(&ask(client, &simple("SHOW causeway.position"))).starts_with('!'))
    });
    cluster.primary().kill9().unwrap();
    wait_for(LIMIT, "the outage is noticed", || proxy.node_metric("causeway_node_up", "primary") < 1.0);
    // Reads go on.
    for client in &mut clients {
        assert_eq!(said(&ask(client, &simple("SELECT count(*) FROM t"))), "4");
    }
    let held = |count: f64| {
        wait_for(LIMIT, "statements wait", || (proxy.metric("causeway_held_statements", "demo") - count).abs() < 0.1);
    };
    let (last, waiting) = clients.split_last_mut().unwrap();
    for (client, sql) in waiting.iter_mut().zip(["INSERT INTO t VALUES (2)", "BEGIN", "UPDATE t SET n = n WHERE n = 1"])
    {
        client.send(&simple(sql));
    }
    held(3.0);
    let got = said(&ask(last, &simple("INSERT INTO t VALUES (2)")));
    check(&[("!53300", true), ("routing.max_held_statements", true), ("\"demo\"", true)], |part| got.contains(part));
    cluster.replicas()[0].promote().unwrap();
    let answers: Vec<String> = waiting.iter_mut().map(|client| said(&client.read_to('Z'))).collect();
    assert_eq!(answers, ["INSERT 0 1", "BEGIN", "UPDATE 4"].map(str::to_owned), "{}", proxy.log());
    held(0.0);
}

/// The roles change while nobody looks: the first write finds it out.
fn a_primary_that_is_none_any_more_costs_no_error(_: &Env) {
    let cluster = started("wal_log_hints = on\nfull_page_writes = on\n");
    let seldom = PROBE.replace("interval = \"100ms\"", "interval = \"1m\"").replace("\"500ms\"", "\"10s\"");
    let patient = "\n[routing]\nmax_staleness = \"5m\"\nmax_lag = \"5m\"\n";
    let proxy = Proxy::start(&cluster, &format!("{patient}{seldom}"));
    await_catalog_of(&proxy);
    let sessions: [(Frames, &[(&str, &str)]); 4] = [
        (simple, &[("INSERT INTO t VALUES (2)", "INSERT 0 1")]),
        (extended, &[("INSERT INTO t VALUES (2)", "INSERT 0 1")]),
        (simple, &[("BEGIN", "BEGIN"), ("INSERT INTO t VALUES (2)", "INSERT 0 1"), ("COMMIT", "COMMIT")]),
        (
            extended,
            &[
                ("BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN"),
                ("INSERT INTO t VALUES (2) RETURNING current_setting('transaction_isolation')", "repeatable read"),
                ("END", "COMMIT"),
            ],
        ),
    ];
    let mut clients = sessions.each_ref().map(|_| proxy.target(DATABASE).raw());
    for client in &mut clients {
        assert_eq!(said(&ask(client, &simple("INSERT INTO t VALUES (1)"))), "INSERT 0 1");
        assert!(!said(&ask(client, &simple("SHOW causeway.position"))).starts_with('!'));
    }
    cluster.catch_up().unwrap();
    let [old, new] = [0, 1].map(|index| &cluster.nodes()[index]);
    old.stop(Stop::Fast).unwrap();
    new.promote().unwrap();
    new.sql("postgres", "CHECKPOINT").unwrap();
    old.rewind(new).unwrap();
    old.start().unwrap();
    for (client, (frames, steps)) in clients.iter_mut().zip(sessions) {
        for (sql, want) in steps {
            assert_eq!(said(&ask(client, &frames(sql))), *want, "{sql}\n{}", proxy.log());
        }
    }
    assert_eq!(new.sql(DATABASE, "SELECT count(*) FROM t WHERE n = 2").unwrap(), "4");
    // Who wants no writes is told so by the primary itself.
    let got = said(&ask(&mut clients[0], &simple("SET default_transaction_read_only = on")));
    assert_eq!(got, "SET");
    for frames in [simple, extended] {
        let got = said(&ask(&mut clients[0], &frames("INSERT INTO t VALUES (3)")));
        assert!(got.starts_with("!25006"), "{got}");
    }
}
