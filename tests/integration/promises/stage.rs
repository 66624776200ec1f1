//! What the tests of promises stand on: scripts of statements and what is answered, and replicas that stand still.

use std::time::Duration;

use causeway::app::demo::cluster::{ClusterOptions, LocalCluster, LocalNode};

use crate::harness::{USER, cluster, wait_for};
use crate::proxy::Proxy;
use crate::raw::{Message, RawClient, field};
use crate::speech::{ask, extended, query, sqlstate, value};

pub const DATABASE: &str = "promises";
pub const LIMIT: Duration = Duration::from_secs(20);

/// Where a read runs: `primary` or `replica`.
pub const WHERE: &str = "SELECT node()";

/// Nothing in its text says that the nodes answer it differently.
pub const NODE: &str = "CREATE FUNCTION node() RETURNS text STABLE LANGUAGE plpgsql AS \
                        $$BEGIN RETURN rtrim(current_setting('cluster_name'), '12'); END$$;";

/// How a text is sent.
pub type Protocol = (&'static str, fn(&str) -> Vec<u8>);
pub const PROTOCOLS: [Protocol; 2] = [("simple", query), ("extended", extended)];

/// A statement, and what must be answered: a value, a tag, or `!SQLSTATE words of the message|words of the hint`; a
/// value may end with `…`. An empty expectation allows any answer.
pub type Step = (&'static str, &'static str);

/// A cluster of its own with a database that the user owns.
pub fn started(setup: &str, extra_conf: &str) -> LocalCluster {
    let options = ClusterOptions { extra_conf: extra_conf.to_owned(), ..ClusterOptions::default() };
    let cluster = cluster(&options);
    cluster.create_database(DATABASE, USER).unwrap();
    cluster.primary().sql(DATABASE, &format!("SET ROLE {USER}; {NODE} {setup}")).unwrap();
    cluster.catch_up().unwrap();
    cluster
}

/// The first value; where there is none, the tag; where there is an error, `!SQLSTATE message|hint`.
pub fn said(answer: &[Message]) -> String {
    if let Some((_, error)) = answer.iter().find(|(tag, _)| *tag == 'E') {
        return format!("!{} {}|{}", sqlstate(answer), field(error, b'M'), field(error, b'H'));
    }
    let tag = || {
        let body = answer.iter().find(|(tag, _)| *tag == 'C').map(|(_, body)| body.as_slice());
        String::from_utf8_lossy(body.unwrap_or_default()).trim_end_matches('\0').to_owned()
    };
    value(answer).unwrap_or_else(tag)
}

/// Runs a statement as a simple Query.
pub fn tell(client: &mut RawClient, sql: &str) -> String {
    said(&ask(client, &query(sql)))
}

/// Runs a script; gives what was not answered as it must be.
pub fn play(client: &mut RawClient, frames: fn(&str) -> Vec<u8>, steps: &[Step]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (sql, want) in steps {
        let got = said(&ask(client, &frames(sql)));
        if !is_as_expected(&got, want) {
            wrong.push(format!("  {sql}\n    want {want}\n    got  {got}"));
        }
    }
    wrong
}

pub fn is_as_expected(got: &str, want: &str) -> bool {
    if let Some(error) = want.strip_prefix('!') {
        let (sqlstate, words) = error.split_once(' ').unwrap_or((error, ""));
        let (message, hint) = words.split_once('|').unwrap_or((words, ""));
        let Some((got_message, got_hint)) = got.strip_prefix('!').and_then(|got| got.split_once('|')) else {
            return false;
        };
        return got_message.starts_with(sqlstate) && got_message.contains(message) && got_hint.contains(hint);
    }
    match want.strip_suffix('…') {
        Some(start) => got.starts_with(start) && got.len() > start.len(),
        None => want.is_empty() || got == want,
    }
}

/// Plays scripts, each in a new session by each protocol; all must be answered as they say.
pub fn play_all(connect: impl Fn() -> RawClient, scripts: &[(&str, &[Step])]) {
    let mut wrong = Vec::new();
    for (name, steps) in scripts {
        for (protocol, frames) in PROTOCOLS {
            let faults = play(&mut connect(), frames, steps);
            if !faults.is_empty() {
                wrong.push(format!("{name} ({protocol}):\n{}", faults.join("\n")));
            }
        }
    }
    assert!(wrong.is_empty(), "{} scripts:\n{}", wrong.len(), wrong.join("\n"));
}

/// A proxy that has the database's catalog facts.
pub fn informed(cluster: &LocalCluster, settings: &str) -> Proxy {
    let proxy = Proxy::start(cluster, settings);
    tell(&mut proxy.target(DATABASE).raw(), WHERE);
    proxy.facts_loaded(DATABASE, 1);
    proxy
}

/// Stops replay, until [`resume`].
pub fn pause(replica: &LocalNode) {
    replica.sql("postgres", "SELECT pg_wal_replay_pause()").unwrap();
    wait_for(LIMIT, "replay is paused", || {
        replica.sql("postgres", "SELECT pg_get_wal_replay_pause_state()").unwrap() == "paused"
    });
}

pub fn resume(replica: &LocalNode) {
    replica.sql("postgres", "SELECT pg_wal_replay_resume()").unwrap();
}
