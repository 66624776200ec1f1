//! A promotion: who has lost something is told so, once; nobody else is.

use crate::forks::follow;
use crate::harness::{Env, wait_for};
use crate::raw::RawClient;
use crate::speech::ask;

use super::stage::{DATABASE, LIMIT, PROTOCOLS, informed, is_as_expected, said, started, tell};

const SETUP: &str = "CREATE TABLE t (n int)";
const WRITE: &str = "INSERT INTO t VALUES (1)";
const COUNT: &str = "SELECT count(*) FROM t";
const POSITION: &str = "SHOW causeway.position";
const LOST: &str = "!40001 may have been lost in a failover|said once";

fn count(client: &mut RawClient) -> String {
    tell(client, COUNT)
}

pub fn a_failover_is_told_once(_: &Env) {
    let cluster = started(SETUP, "");
    let proxy = informed(&cluster, "\n[routing]\nmax_lag = \"1h\"\n[probe]\ninterval = \"100ms\"\n");
    let [primary, one, two] = [0, 1, 2].map(|index| &cluster.nodes()[index]);
    let connect = || proxy.target(DATABASE).raw();
    let session = |steps: &[&str]| {
        let mut client = connect();
        for sql in steps {
            let answer = tell(&mut client, sql);
            assert!(!answer.starts_with('!'), "{sql}: {answer}");
        }
        client
    };
    // Who has written what is replicated, and who only reads; the last has done nothing.
    let mut kept = vec![session(&[WRITE, POSITION]), session(&[WRITE, COUNT]), session(&[COUNT]), session(&[])];
    let kept_token = tell(&mut kept[0], POSITION);
    cluster.catch_up().unwrap();
    follow(one, None);
    follow(two, None);
    // Who has seen what is not: by a write, by a read, by a token. Those who do not mind are not told.
    let mut lost: Vec<RawClient> = PROTOCOLS.iter().map(|_| session(&[WRITE, POSITION])).collect();
    lost.push(session(&["/* causeway: primary */ SELECT count(*) FROM t", POSITION]));
    let token = tell(&mut lost[0], POSITION);
    let mut careless = session(&[WRITE, POSITION, "SET causeway.consistency = 'eventual'"]);
    let mut told = session(&[&format!("SET causeway.after = '{token}'")]);
    primary.kill9().unwrap();
    one.promote().unwrap();
    wait_for(LIMIT, "the proxy takes the new primary", || {
        !tell(&mut connect(), "CREATE TABLE IF NOT EXISTS there (n int)").starts_with('!')
    });
    for client in &mut kept {
        assert_eq!(count(client), "2");
        assert_eq!(tell(client, "INSERT INTO t SELECT 1 WHERE false"), "INSERT 0 0");
    }
    let frames = PROTOCOLS.map(|(_, frames)| frames).into_iter().cycle();
    for (client, frames) in lost.iter_mut().chain([&mut told]).zip(frames) {
        let got = said(&ask(client, &frames(COUNT)));
        assert!(is_as_expected(&got, LOST), "{got}");
        for _ in 0..2 {
            assert_eq!(said(&ask(client, &frames(COUNT))), "2");
        }
        assert_eq!(tell(client, "SET causeway.causal_wait = '1s'"), "SET");
        assert_eq!(count(client), "2");
    }
    assert_eq!(count(&mut careless), "2");
    let lost_writes = proxy.metric("causeway_lost_writes_total", "demo");
    assert!((lost_writes - 4.0).abs() < 0.1, "{lost_writes}");
    // Tokens of before: what they stand for is there, or it is said.
    let mut client = connect();
    assert_eq!(tell(&mut client, &format!("/* causeway: after={kept_token} */ {COUNT}")), "2");
    for _ in 0..2 {
        let got = tell(&mut client, &format!("/* causeway: after={token} */ {COUNT}"));
        assert!(is_as_expected(&got, "!40001 lost in a failover|"), "{got}");
    }
    // What was written since hides no loss.
    assert_eq!(tell(&mut client, "INSERT INTO t SELECT 1 WHERE false"), "INSERT 0 0");
    tell(&mut client, POSITION);
    assert_eq!(tell(&mut client, &format!("SET causeway.after = '{token}'")), "SET");
    let got = count(&mut client);
    assert!(is_as_expected(&got, LOST), "{got}");
    assert_eq!(count(&mut client), "2");
}
