//! Reads that no replica can serve: what is said of them, and how many of them the primary gets.

use std::thread;
use std::time::Duration;

use causeway::app::demo::cluster::LocalCluster;

use crate::harness::{Env, wait_for};
use crate::proxy::Proxy;
use crate::raw::{RawClient, field};
use crate::speech::{ask, query};

use super::stage::{DATABASE, LIMIT, PROTOCOLS, informed, pause, resume, said, started, tell};

const SETUP: &str = "CREATE TABLE t (n int); CREATE TABLE locked (n int)";
const WRITE: &str = "INSERT INTO t VALUES (1)";
const COUNT: &str = "SELECT count(*) FROM t";
const BLOCKED: &str = "SELECT count(*) FROM locked";

fn routing(settings: &str) -> String {
    format!("\n[routing]\nmax_lag = \"1h\"\nmax_lag_bytes = \"1GiB\"\n{settings}\n[probe]\ninterval = \"200ms\"\n")
}

pub fn what_cannot_be_served_is_said(_: &Env) {
    let cluster = started(SETUP, "");
    let proxy = informed(&cluster, &routing("fallback = \"error\""));
    for replica in cluster.replicas() {
        pause(replica);
    }
    let mut wrong = Vec::new();
    let startup = [("causeway.causal_wait", "300ms"), ("causeway.max_staleness", "10ms")];
    for (level, needed) in [("session", "position "), ("strong", "position "), ("bounded", "staleness of at most 10ms")]
    {
        for (protocol, frames) in PROTOCOLS {
            let (mut client, _) = proxy.target(DATABASE).raw_with(&startup);
            tell(&mut client, &format!("SET causeway.consistency = '{level}'"));
            for read in [COUNT, "BEGIN READ ONLY"] {
                assert_eq!(tell(&mut client, WRITE), "INSERT 0 1");
                let answer = ask(&mut client, &frames(read));
                let got = said(&answer);
                let error = answer.iter().find(|(tag, _)| *tag == 'E').map(|(_, error)| error.clone());
                let detail = field(&error.unwrap_or_default(), b'D');
                let parts = [
                    (got.as_str(), "!57P03 no node of cluster \"demo\" can serve a read at level"),
                    (&got, level),
                    (&got, needed),
                    (&got, "causeway.causal_wait (300ms)"),
                    (&got, "routing.fallback = \"primary\""),
                    (&detail, "primary: primary, at 0/"),
                    (&detail, "replica1: replica, at 0/"),
                    (&detail, "replica2: replica, at 0/"),
                ];
                for (text, part) in parts.into_iter().filter(|(text, part)| !text.contains(part)) {
                    wrong.push(format!("{level}, {protocol}, {read}: {part:?} is not in {text:?}"));
                }
                tell(&mut client, "ROLLBACK");
            }
            // Writes, and reads that ask for less, go on.
            assert_eq!(tell(&mut client, WRITE), "INSERT 0 1");
            assert_eq!(tell(&mut client, &format!("/* causeway: consistency=eventual */ {COUNT}")), "0");
            assert_ne!(tell(&mut client, &format!("/* causeway: primary */ {COUNT}")), "0");
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    // A replica that goes on before the time is over serves.
    let (mut client, _) = proxy.target(DATABASE).raw_with(&[("causeway.causal_wait", "20s")]);
    assert_eq!(tell(&mut client, WRITE), "INSERT 0 1");
    client.send(&query(COUNT));
    wait_for(LIMIT, "the read waits", || proxy.metric("causeway_replay_polls_total", "") > 3.0);
    resume(&cluster.replicas()[0]);
    let rows = cluster.primary().sql(DATABASE, COUNT).unwrap();
    assert_eq!(said(&client.read_to('Z')), rows);
}

/// Holds [`BLOCKED`] up on the primary until it is dropped.
fn lock(cluster: &LocalCluster) -> RawClient {
    let mut holder = crate::target::Target::new("127.0.0.1", cluster.primary().port(), DATABASE).raw();
    tell(&mut holder, "BEGIN");
    assert_eq!(tell(&mut holder, "LOCK TABLE locked"), "LOCK TABLE");
    holder
}

fn waiting(cluster: &LocalCluster) -> String {
    cluster.primary().sql(DATABASE, "SELECT count(*) FROM pg_locks WHERE NOT granted").unwrap()
}

/// Sessions that have written what no replica has replayed.
fn writers(proxy: &Proxy, count: usize) -> Vec<RawClient> {
    let writer = || {
        let mut client = proxy.target(DATABASE).raw();
        assert_eq!(tell(&mut client, WRITE), "INSERT 0 1");
        client
    };
    std::iter::repeat_with(writer).take(count).collect()
}

pub fn so_many_reads_spill(_: &Env) {
    const PLACES: usize = 2;
    const LATE: usize = 4;
    let cluster = started(SETUP, "");
    let places = |wait| routing(&format!("max_spilled_reads = {PLACES}\nspill_wait = \"{wait}\""));
    let [hasty, patient] = ["500ms", "20s"].map(|wait| informed(&cluster, &places(wait)));
    for replica in cluster.replicas() {
        pause(replica);
    }
    for (proxy, is_hasty) in [(&hasty, true), (&patient, false)] {
        let mut holder = lock(&cluster);
        let mut spilled = writers(proxy, PLACES);
        let mut late = writers(proxy, LATE);
        for client in &mut spilled {
            client.send(&query(BLOCKED));
        }
        wait_for(LIMIT, "as many as may read on the primary", || waiting(&cluster) == PLACES.to_string());
        for client in &mut late {
            client.send(&query(COUNT));
        }
        let rows = cluster.primary().sql(DATABASE, COUNT).unwrap();
        if is_hasty {
            for client in &mut late {
                let got = said(&client.read_to('Z'));
                assert!(got.starts_with("!57P03"), "{got}");
                for part in
                    ["\"demo\"", "routing.max_spilled_reads", "(2)", "routing.spill_wait", "causeway.consistency"]
                {
                    assert!(got.contains(part), "{part} is not in {got}");
                }
            }
            assert_eq!(format!("{}", proxy.metric("causeway_refused_total", "spill")), LATE.to_string());
        } else {
            // A replica that catches up takes them all, while the primary is as busy as before.
            thread::sleep(Duration::from_millis(200));
            resume(&cluster.replicas()[0]);
            for client in &mut late {
                assert_eq!(said(&client.read_to('Z')), rows);
            }
            assert_eq!(waiting(&cluster), PLACES.to_string());
        }
        tell(&mut holder, "ROLLBACK");
        for client in &mut spilled {
            assert_eq!(said(&client.read_to('Z')), "0");
        }
        // The places are free again, one after the other for all.
        for client in spilled.iter_mut().chain(&mut late) {
            client.send(&query(COUNT));
        }
        for client in spilled.iter_mut().chain(&mut late) {
            assert_eq!(said(&client.read_to('Z')), rows);
        }
    }
}
