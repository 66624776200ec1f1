//! Tokens: what one session has seen, another one sees at least, in whatever process.

use causeway::app::demo::cluster::LocalCluster;
use causeway::types::{Lsn, Position};

use crate::harness::Env;
use crate::proxy::Proxy;
use crate::raw::RawClient;
use crate::speech::ask;

use super::stage::{DATABASE, PROTOCOLS, WHERE, informed, is_as_expected, pause, resume, said, started, tell};

const SETUP: &str = "CREATE TABLE t (n int)";
/// Without a token, reads go wherever a replica is.
const EVENTUAL: &str = "\n[routing]\nconsistency = \"eventual\"\nmax_lag = \"1h\"\nmax_lag_bytes = \"1GiB\"\n";
const COUNT: &str = "SELECT count(*) FROM t";

type Frames = fn(&str) -> Vec<u8>;
type Read = fn(&Proxy, &str, Frames) -> String;

/// How a session is told the token, and reads then.
const WAYS: &[(&str, Read)] = &[
    ("SET", |proxy, token, frames| after(proxy, &[format!("SET causeway.after = '{token}'")], frames)),
    ("SET TO", |proxy, token, frames| after(proxy, &[format!("SET SESSION causeway.after TO {token}")], frames)),
    ("set_config", |proxy, token, frames| {
        after(proxy, &[format!("SELECT set_config('causeway.after', '{token}', false)")], frames)
    }),
    ("DO", |proxy, token, frames| {
        after(proxy, &[format!("DO $$BEGIN PERFORM set_config('causeway.after', '{token}', false); END$$")], frames)
    }),
    ("comment", |proxy, token, frames| {
        let mut client = proxy.target(DATABASE).raw();
        said(&ask(&mut client, &frames(&format!("/* causeway: after={token} */ {COUNT}"))))
    }),
    ("startup parameter", |proxy, token, frames| {
        let (mut client, _) = proxy.target(DATABASE).raw_with(&[("causeway.after", token)]);
        said(&ask(&mut client, &frames(COUNT)))
    }),
    ("options", |proxy, token, frames| {
        let options = format!("-c causeway.after={token}");
        let (mut client, _) = proxy.target(DATABASE).raw_with(&[("options", &options)]);
        said(&ask(&mut client, &frames(COUNT)))
    }),
    ("SET and then a transaction", |proxy, token, frames| {
        let set = format!("SET causeway.after = '{token}'");
        after(proxy, &[set, "BEGIN READ ONLY".to_owned()], frames)
    }),
    ("a comment before a transaction", |proxy, token, frames| {
        after(proxy, &[format!("/* causeway: after={token} */ BEGIN READ ONLY")], frames)
    }),
];

fn after(proxy: &Proxy, steps: &[String], frames: Frames) -> String {
    let mut client = proxy.target(DATABASE).raw();
    for step in steps {
        let answer = said(&ask(&mut client, &frames(step)));
        assert!(!answer.starts_with('!'), "{step}: {answer}");
    }
    said(&ask(&mut client, &frames(COUNT)))
}

fn write(client: &mut RawClient) -> String {
    assert_eq!(tell(client, "INSERT INTO t VALUES (1)"), "INSERT 0 1");
    tell(client, "SHOW causeway.position")
}

pub fn tokens_lead_to_other_proxies(_: &Env) {
    let cluster = started(SETUP, "");
    let [here, there] = [(); 2].map(|()| informed(&cluster, EVENTUAL));
    let mut writer = here.target(DATABASE).raw();
    let [one, two] = [0, 1].map(|index| &cluster.replicas()[index]);
    let mut wrong = Vec::new();
    let mut rows = 0;
    for state in ["both stand still", "one stands still", "both move"] {
        match state {
            "both stand still" => [one, two].map(pause).into_iter().collect(),
            "one stands still" => resume(two),
            _ => resume(one),
        }
        for (way, read) in WAYS {
            for (protocol, frames) in PROTOCOLS {
                let token = write(&mut writer);
                rows += 1;
                let got = read(&there, &token, frames);
                if got != rows.to_string() {
                    wrong.push(format!("{state}: {way} ({protocol}): want {rows}, got {got}"));
                }
            }
        }
        if state == "both stand still" {
            assert_eq!(tell(&mut there.target(DATABASE).raw(), COUNT), "0", "without a token");
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    // What is handed on grows on the way.
    let first = write(&mut writer);
    let mut next = there.target(DATABASE).raw();
    tell(&mut next, &format!("SET causeway.after = '{first}'"));
    assert_eq!(tell(&mut next, "SHOW causeway.after"), first);
    tell(&mut next, COUNT);
    let second = Position::from_token(&tell(&mut next, "SHOW causeway.position")).unwrap();
    assert!(second >= Position::from_token(&first).unwrap(), "{second:?} is before {first}");
    // A transaction on a replica takes one in, and waits.
    tell(&mut next, "BEGIN READ ONLY");
    assert_eq!(tell(&mut next, WHERE), "replica");
    let third = write(&mut writer);
    assert_eq!(tell(&mut next, &format!("SET LOCAL causeway.after = '{third}'")), "SET");
    assert_eq!(tell(&mut next, COUNT), (rows + 2).to_string());
    assert_eq!(tell(&mut next, WHERE), "replica");
    tell(&mut next, "COMMIT");
    assert_eq!(tell(&mut next, "SHOW causeway.after"), first);
}

fn position(cluster: &LocalCluster) -> Position {
    let sql = "SELECT system_identifier, pg_current_wal_insert_lsn() FROM pg_control_system()";
    let text = cluster.primary().sql("postgres", sql).unwrap();
    let (system, lsn) = text.split_once('|').unwrap();
    Position { system: system.parse().unwrap(), timeline: 1, lsn: lsn.parse::<Lsn>().unwrap() }
}

/// The last answer to `steps`.
fn last(client: &mut RawClient, frames: Frames, steps: &[String]) -> String {
    steps.iter().map(|step| said(&ask(client, &frames(step)))).last().unwrap()
}

pub fn bad_tokens_are_refused(_: &Env) {
    const FOREIGN: &str = "!22023 \"causeway.after\": the token is of another cluster|SHOW causeway.position";
    const FUTURE: &str = "!57P03 of timeline 7|Try again";
    let cluster = started(SETUP, "");
    let proxy = informed(&cluster, EVENTUAL);
    let here = position(&cluster);
    let good = here.to_token();
    let foreign = [here.system + 1, here.system - 1].map(|system| Position { system, ..here }.to_token());
    let future = Position { timeline: 7, ..here }.to_token();
    let damaged = good.replace("cw1_", "cw1_0");
    let other_version = good.replace("cw1_", "cw2_");
    let mut wrong = Vec::new();
    for (token, want) in [
        (&foreign[0], FOREIGN),
        (&foreign[1], FOREIGN),
        (&future, FUTURE),
        (&damaged, "!22023 \"causeway.after\"|damaged token"),
        (&other_version, "!22023 \"causeway.after\"|of a version that this Causeway does not know"),
        (&"0/15".to_owned(), "!22023 \"causeway.after\"|not a token"),
    ] {
        let is_readable = want == FUTURE;
        let set = format!("SET causeway.after = '{token}'");
        let hidden = format!("DO $$BEGIN PERFORM set_config('causeway.after', '{token}', false); END$$");
        let (count, mend) = (COUNT.to_owned(), "SET causeway.after = ''".to_owned());
        for (protocol, frames) in PROTOCOLS {
            let mut judge = |what: &str, got: String| {
                if !is_as_expected(&got, want) {
                    wrong.push(format!("{token} {what} ({protocol}):\n  want {want}\n  got  {got}"));
                }
            };
            // What the session has seen itself hides nothing.
            for first in [COUNT, "INSERT INTO t SELECT 1 WHERE false"] {
                let mut client = proxy.target(DATABASE).raw();
                tell(&mut client, first);
                let steps = if is_readable { vec![set.clone(), count.clone()] } else { vec![set.clone()] };
                judge("by SET", last(&mut client, frames, &steps));
                let comment = format!("/* causeway: after={token} */ {COUNT}");
                tell(&mut client, "RESET causeway.after");
                judge("by comment", last(&mut client, frames, &[comment]));
                tell(&mut client, "SHOW causeway.position");
                judge("where nobody could refuse it", last(&mut client, frames, &[hidden.clone(), count.clone()]));
                judge("and again", last(&mut client, frames, std::slice::from_ref(&count)));
                assert_eq!(last(&mut client, frames, &["INSERT INTO t SELECT 1 WHERE false".to_owned()]), "INSERT 0 0");
                assert_eq!(last(&mut client, frames, std::slice::from_ref(&mend)), "SET");
                assert_eq!(last(&mut client, frames, std::slice::from_ref(&count)), "0", "{token} ({protocol})");
            }
            let (mut client, greeting) = proxy.target(DATABASE).raw_with(&[("causeway.after", token)]);
            let refused = greeting.iter().any(|(tag, _)| *tag == 'E');
            judge(
                "at login",
                if refused { said(&greeting) } else { last(&mut client, frames, std::slice::from_ref(&count)) },
            );
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(tell(&mut proxy.target(DATABASE).raw(), &format!("SET causeway.after = '{good}'")), "SET");
}
