//! A batch that a replica refuses runs elsewhere, and nothing of it runs twice.

use std::time::{Duration, Instant};

use crate::frames;
use crate::harness::{Env, wait_for};
use crate::speech::{ask, extended, query, run, sqlstate, sync};

use super::stage::{DATABASE, LIMIT, informed, pause, resume, said, started, tell};

/// Functions that say that they write nothing, and write.
const SETUP: &str = "
    CREATE TABLE counted (n int); CREATE TABLE t (n int);
    CREATE FUNCTION f_count(int) RETURNS int LANGUAGE plpgsql AS
        $$BEGIN INSERT INTO counted VALUES ($1); RETURN $1; END$$;
    CREATE FUNCTION f_stable(int) RETURNS int STABLE LANGUAGE plpgsql AS $$BEGIN RETURN f_count($1); END$$;
    CREATE FUNCTION f_immutable(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN f_count($1); END$$;
    CREATE VIEW v_stable AS SELECT f_stable(1)";

pub fn nothing_runs_twice(_: &Env) {
    let cluster = started(SETUP, "");
    let proxy = informed(&cluster, "\n[routing]\nrescue_memory = \"1ms\"\n");
    let mut client = proxy.target(DATABASE).raw();
    let unnamed = |sql: &str| [frames::parse("", sql), run("", &[])].concat();
    let stable = "SELECT f_stable(1)";
    let many = "SELECT g, repeat('x', 1000), CASE g WHEN 300 THEN f_stable(g) END FROM generate_series(1, 1000) g";
    // What is sent at once, how many answers end with ReadyForQuery, and how often something is counted.
    let cases: Vec<(&str, Vec<u8>, usize, usize)> = vec![
        ("simple", query(stable), 1, 1),
        ("immutable", query("SELECT f_immutable(t.n) FROM (VALUES (1)) t(n)"), 1, 1),
        ("view", query("SELECT * FROM v_stable"), 1, 1),
        ("two in a Query", query("SELECT f_stable(1); SELECT f_stable(2)"), 1, 2),
        ("a read before it", query("SELECT count(*) FROM t; SELECT f_stable(1)"), 1, 1),
        ("extended", extended(stable), 1, 1),
        ("two in a batch", [unnamed(stable), unnamed(stable), sync()].concat(), 1, 2),
        ("reads around it", [unnamed("SELECT 1"), unnamed(stable), unnamed("SELECT 2"), sync()].concat(), 1, 1),
        ("pipelined", [extended(stable), extended("SELECT 1"), extended(stable)].concat(), 3, 2),
        ("Queries ahead", [query(stable), query(stable), query("SELECT 1")].concat(), 3, 2),
        ("in steps", [unnamed(stable), frames::FLUSH.to_vec(), unnamed(stable), sync()].concat(), 1, 2),
        ("behind a write", [extended("INSERT INTO t VALUES (1)"), extended(stable)].concat(), 2, 1),
        ("an error behind it", query("SELECT f_stable(1); SELECT 1/0"), 1, 0),
        ("long before it", query(many), 1, 1),
        ("long before it, extended", extended(many), 1, 1),
    ];
    let counted =
        || -> usize { cluster.primary().sql(DATABASE, "SELECT count(*) FROM counted").unwrap().parse().unwrap() };
    let mut wrong = Vec::new();
    for (what, bytes, ends, times) in &cases {
        for round in 0..3 {
            let before = counted();
            client.send(bytes);
            let answers: Vec<_> = (0..*ends).flat_map(|_| client.read_to('Z')).collect();
            let error = sqlstate(&answers);
            let more = counted() - before;
            // What has been shown cannot be taken back: then the client has the error, and nothing was counted.
            let expected = if what.starts_with("long") && error == "25006" { 0 } else { *times };
            if more != expected || (!error.is_empty() && !what.contains("error") && expected > 0) {
                wrong.push(format!("{what}, round {round}: {more} times instead of {expected}, {error}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(proxy.metric("causeway_rescues_total", "read_only") >= 5.0);
}

/// Takes a replica long, and the primary no time.
const LONG: &str = "SELECT count(*) FROM generate_series(1, CASE node() WHEN 'primary' THEN 1 \
                    ELSE 100000000 END)";

pub fn a_long_read_behind_a_guard_is_not_waited_for(_: &Env) {
    let cluster = started(SETUP, "");
    let proxy = informed(&cluster, "");
    let (mut client, _) = proxy.target(DATABASE).raw_with(&[("causeway.causal_wait", "300ms")]);
    let behind = || proxy.metric("causeway_rescues_total", "behind");
    let mut slowest = Duration::ZERO;
    for round in 0..40 {
        for replica in cluster.replicas() {
            resume(replica);
        }
        // Replicas that keep up are expected to keep up.
        for _ in 0..20 {
            tell(&mut client, "INSERT INTO t VALUES (1)");
            tell(&mut client, "SELECT count(*) FROM t");
        }
        for replica in cluster.replicas() {
            pause(replica);
        }
        tell(&mut client, "INSERT INTO t VALUES (1)");
        let began = Instant::now();
        assert_eq!(said(&ask(&mut client, &query(LONG))), "1", "round {round}");
        slowest = slowest.max(began.elapsed());
        if behind() >= 3.0 {
            break;
        }
    }
    println!("{} guards failed, slowest read {slowest:?}", behind());
    assert!(behind() >= 1.0, "no guard has failed");
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    wait_for(LIMIT, "nobody goes on with what nobody wants", || {
        let active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%generate_series%' \
                      AND pid <> pg_backend_pid()";
        cluster.replicas().iter().all(|replica| replica.sql(DATABASE, active).unwrap() == "0")
    });
}
