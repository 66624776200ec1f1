//! Session state: it follows its client, keeps it at one server while it must, and never reaches another client.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::frames::parse;
use crate::harness::{Env, Test, wait_for};
use crate::proxy::Proxy;
use crate::raw::{Message, RawClient, tags};
use crate::speech::{ask, bind, close_statement, execute, extended, query, run, seen, sqlstate, sync};
use crate::target::Target;

pub const TESTS: &[Test] = &[
    ("state::what_cannot_move_pins_and_unpins", what_cannot_move_pins_and_unpins),
    ("state::nothing_leaks_to_the_next_client", nothing_leaks_to_the_next_client),
    ("state::login_parameters_hold_on_every_node", login_parameters_hold_on_every_node),
    ("state::notifications_come_while_idle", notifications_come_while_idle),
    ("state::sequences_stay_with_their_sessions", sequences_stay_with_their_sessions),
    ("state::a_database_can_be_dropped", a_database_can_be_dropped),
    ("state::any_interleaving_is_as_good_as_own_connections", any_interleaving_is_as_good_as_own_connections),
];

const LIMIT: Duration = Duration::from_secs(10);

/// What pins, what the state shows, and what unpins.
const PINS: &[(&str, &str, &str, &[&str])] = &[
    ("set", "SELECT set_config('my.' || 'x', '1', false)", "SELECT current_setting('my.x')", &["DISCARD ALL"]),
    (
        "temp_table",
        "CREATE TEMP TABLE tmp AS SELECT 42 AS n",
        "SELECT * FROM tmp",
        &["DROP TABLE tmp", "DISCARD TEMP", "DISCARD ALL"],
    ),
    ("prepare", "PREPARE U&\"p\" AS SELECT 42", "EXECUTE p", &["DEALLOCATE p", "DEALLOCATE ALL", "DISCARD ALL"]),
    (
        "hold_cursor",
        "DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT 42",
        "FETCH FIRST FROM c",
        &["CLOSE c", "CLOSE ALL", "DISCARD ALL"],
    ),
    (
        "advisory_lock",
        "SELECT pg_advisory_lock(1)",
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
        &["SELECT pg_advisory_unlock(1)", "SELECT pg_advisory_unlock_all()", "DISCARD ALL"],
    ),
    ("listen", "LISTEN channel", "SELECT pg_listening_channels()", &["UNLISTEN channel", "UNLISTEN *", "DISCARD ALL"]),
];

/// There is one server, so another client waits exactly as long as this one is pinned.
fn what_cannot_move_pins_and_unpins(env: &Env) {
    let (database, own) = (env.database("pins"), env.database("pins"));
    let proxy = Proxy::start(&env.shared().cluster, "[pool]\ndefault_pool_size = 1\n");
    let target = proxy.target(&database.name);
    let (mut direct, mut rival) = (own.node(0).raw(), target.raw());
    for (reason, set, show, clears) in PINS {
        for (clear, frames) in clears.iter().zip([query as fn(&str) -> Vec<u8>, extended].iter().cycle()) {
            let mut client = target.raw();
            let label = format!("reason=\"{reason}\"");
            let counted = proxy.metric("causeway_pins_total", &label);
            for sql in [set, show] {
                assert_eq!(seen(&ask(&mut client, &frames(sql))), seen(&ask(&mut direct, &frames(sql))), "{sql}");
            }
            assert!(proxy.metric("causeway_pins_total", &label) > counted, "{set}");
            rival.query("SELECT pg_backend_pid()");
            wait_for(LIMIT, "the rival waits", || {
                proxy.metric("causeway_pool_waiting_clients", "node=\"primary\"") > 0.5
            });
            for sql in [show, clear] {
                assert_eq!(
                    seen(&ask(&mut client, &frames(sql))),
                    seen(&ask(&mut direct, &frames(sql))),
                    "{set}: {sql}"
                );
            }
            wait_for(LIMIT, &format!("{set} is over after {clear}"), || {
                proxy.metric("causeway_pool_waiting_clients", "node=\"primary\"") < 0.5
            });
            assert_eq!(tags(&rival.read_to('Z')), "T D C Z");
            assert_eq!(
                seen(&ask(&mut client, &frames(show))),
                seen(&ask(&mut direct, &frames(show))),
                "{set}, {clear}"
            );
            ask(&mut direct, &query("DISCARD ALL"));
        }
    }
}

/// What a client does before it goes; the next one has the same server.
const LEFT_BEHIND: &[&[&str]] = &[
    &["SET TimeZone = 'Europe/Rome'"],
    &["SET search_path = other", "SELECT 1"],
    &["SELECT set_config('my.x', '1', false)"],
    &["SET DateStyle = 'SQL, DMY'; SET work_mem = '1MB'"],
    &["SET ROLE other"],
    &["SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"],
    &["SET client_encoding = 'LATIN1'", "SET standard_conforming_strings = off"],
    &["SET application_name = 'left'", "SET statement_timeout = 777"],
    &["CREATE TEMP TABLE t (secret int)", "INSERT INTO t VALUES (7)"],
    &["PREPARE p AS SELECT 'secret'"],
    &["PREPARE p AS SELECT 'secret'; SELECT 1/0"],
    &["DECLARE c CURSOR WITH HOLD FOR SELECT 'secret'"],
    &["SELECT pg_advisory_lock(1)", "SELECT pg_advisory_lock_shared(2)"],
    &["SELECT pg_advisory_lock(1) UNION ALL SELECT 1/0"],
    &["LISTEN channel"],
    &["BEGIN", "SET LOCAL TimeZone = 'Europe/Rome'", "INSERT INTO t VALUES (7)"],
    &["BEGIN", "SET search_path = other", "SELECT 1/0"],
    &["BEGIN", "SET search_path = other", "ROLLBACK"],
    &["BEGIN; SET search_path = other; COMMIT; SELECT 1/0"],
    &["SET search_path = other; SELECT 1/0"],
    &["BEGIN READ ONLY", "SET LOCAL search_path = other", "TABLE t"],
    &["BEGIN READ ONLY", "SELECT 1/0"],
    &["BEGIN", "RESET ALL", "ROLLBACK"],
    &["BEGIN", "DISCARD ALL", "ROLLBACK"],
    &["DEALLOCATE ALL; SELECT 1/0"],
    &["DO $$BEGIN PERFORM set_config('my.x', '1', false); END$$"],
    &["DO $$BEGIN EXECUTE 'SET search_path = other'; END$$"],
    &["DO $$BEGIN CREATE TEMP TABLE t (secret int); END$$"],
    &["SELECT setseed(0.5)"],
];

/// What a client looks at.
const LOOKS: &[&str] = &[
    "SHOW TimeZone",
    "SHOW DateStyle",
    "SHOW IntervalStyle",
    "SHOW search_path",
    "SHOW application_name",
    "SHOW client_encoding",
    "SHOW standard_conforming_strings",
    "SHOW work_mem",
    "SHOW statement_timeout",
    "SHOW default_transaction_read_only",
    "SELECT current_user, nullif(current_setting('my.x', true), '')",
    "SELECT timestamptz '2020-02-03 12:00+00'",
    "TABLE t",
    "EXECUTE p",
    "FETCH 1 FROM c",
    "SELECT pg_try_advisory_xact_lock(1)",
    "SELECT pg_listening_channels()",
];

const TWO_SCHEMAS: &str = "SET ROLE app; CREATE TABLE t (id int); INSERT INTO t VALUES (1); \
                           CREATE SCHEMA other; CREATE TABLE other.t (a text); INSERT INTO other.t VALUES ('other');
    CREATE FUNCTION set_x(text) RETURNS text LANGUAGE sql AS $$SELECT set_config('my.x', $1, false)$$;
    CREATE FUNCTION set_any(text, text) RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN set_config($1, $2, false); END$$;
    CREATE FUNCTION make_temp() RETURNS void LANGUAGE plpgsql AS $$BEGIN CREATE TEMP TABLE t AS SELECT 'hidden'; END$$;
    CREATE FUNCTION on_insert() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM set_x(NEW.x); RETURN NULL; END$$;
    CREATE TABLE setting (x text);
    CREATE TRIGGER sets BEFORE INSERT ON setting FOR EACH ROW EXECUTE FUNCTION on_insert()";

/// Start-up parameters that a client may come with.
const LOGINS: &[&[(&str, &str)]] = &[
    &[],
    &[("TimeZone", "Asia/Tokyo"), ("application_name", "one")],
    &[("options", "-c search_path=other -c DateStyle=SQL,DMY --statement-timeout=5s"), ("application_name", "two")],
    &[("options", "-c my.x=mine -c IntervalStyle=iso_8601"), ("client_encoding", "LATIN1")],
    &[("DateStyle", "German"), ("TimeZone", "UTC"), ("standard_conforming_strings", "off")],
];

/// A statement with a name, in one batch.
fn named(sql: &str) -> Vec<u8> {
    [parse(sql, sql), run(sql, &[]), sync()].concat()
}

fn looks(client: &mut RawClient) -> Vec<Vec<String>> {
    LOOKS.iter().map(|sql| seen(&ask(client, &query(sql)))).collect()
}

fn nothing_leaks_to_the_next_client(env: &Env) {
    let database = env.database("leaks");
    database.prepare(TWO_SCHEMAS);
    let proxy = Proxy::start(&env.shared().cluster, "[pool]\ndefault_pool_size = 1\n");
    let target = proxy.target(&database.name);
    let fresh: Vec<_> = LOGINS.iter().map(|login| looks(&mut database.node(0).raw_with(login).0)).collect();
    let mut nexts: Vec<_> = LOGINS.iter().map(|login| target.raw_with(login).0).collect();
    let mut differing = BTreeSet::new();
    for (turn, left) in LEFT_BEHIND.iter().enumerate() {
        for frames in [query, [extended, named][turn % 2]] {
            let (mut client, _) = target.raw_with(LOGINS[(turn + 1) % LOGINS.len()]);
            for sql in *left {
                ask(&mut client, &frames(sql));
            }
            drop(client);
            let login = turn % LOGINS.len();
            for ((sql, want), got) in LOOKS.iter().zip(&fresh[login]).zip(looks(&mut nexts[login])) {
                if *want != got {
                    differing.insert(format!("after {left:?}, {:?} {sql}: want {want:?}, got {got:?}", LOGINS[login]));
                }
            }
        }
    }
    assert!(differing.is_empty(), "{}", differing.into_iter().collect::<Vec<_>>().join("\n"));
}

/// ParameterStatus at login, and what a replica and the primary show.
fn login_parameters_hold_on_every_node(env: &Env) {
    let database = env.database("logins");
    database.prepare(TWO_SCHEMAS);
    let proxy = Proxy::start(&env.shared().cluster, "[pool]\ndefault_pool_size = 1\n");
    let target = proxy.target(&database.name);
    let mut clients = Vec::new();
    for login in LOGINS {
        let (client, greeting) = target.raw_with(login);
        let (direct, expected) = database.node(0).raw_with(login);
        let sorted = |greeting: &[Message]| seen(greeting).into_iter().collect::<BTreeSet<_>>();
        assert_eq!(sorted(&greeting), sorted(&expected), "{login:?}");
        clients.push((client, direct, login));
    }
    let wrong = [("TimeZone", "Nowhere"), ("options", "-c nonsense=1"), ("client_encoding", "nonsense")];
    for parameter in wrong {
        let [got, want] = [&target, &database.node(0)].map(|target| seen(&target.raw_with(&[parameter]).1));
        assert_eq!(got, want, "{parameter:?}");
    }
    for hint in ["", "/* causeway: primary */ "] {
        for _round in 0..3 {
            for (client, direct, login) in &mut clients {
                for sql in
                    ["TABLE t", "SELECT timestamptz '2020-02-03 12:00+00', interval '1 day'", "SHOW application_name"]
                {
                    let sql = format!("{hint}{sql}");
                    for frames in [query as fn(&str) -> Vec<u8>, extended] {
                        let (got, want) = (ask(client, &frames(&sql)), ask(direct, &frames(&sql)));
                        assert_eq!(seen(&got), seen(&want), "{login:?}: {sql}");
                    }
                }
            }
        }
    }
}

/// What `currval` and `lastval` say to two clients that use one sequence in turn: their own values, or, where there is
/// but one server for both, PostgreSQL's error; never the other's.
fn sequences_stay_with_their_sessions(env: &Env) {
    for (servers, expected) in [(2, ["1", "2", "1", "2"]), (1, ["55000"; 4])] {
        let database = env.database("sequences");
        database.prepare("SET ROLE app; CREATE SEQUENCE s; CREATE TABLE t (id int DEFAULT nextval('s'))");
        let proxy = Proxy::start(&env.shared().cluster, &format!("[pool]\ndefault_pool_size = {servers}\n"));
        let target = proxy.target(&database.name);
        let mut clients = [target.raw(), target.raw()];
        proxy.facts_loaded(&database.name, 1);
        for (client, sql) in clients.iter_mut().zip(["INSERT INTO t DEFAULT VALUES", "SELECT nextval('s')"]) {
            assert_eq!(sqlstate(&ask(client, &query(sql))), "");
        }
        let mut said = Vec::new();
        for sql in ["SELECT currval('s')", "SELECT lastval()"] {
            for client in &mut clients {
                let answer = ask(client, &query(sql));
                let value = answer.iter().find(|(tag, _)| *tag == 'D').map(|(_, row)| row[6..].to_vec());
                said.push(value.map_or_else(|| sqlstate(&answer), |value| String::from_utf8(value).unwrap()));
            }
        }
        assert_eq!(said, expected, "{servers} servers");
    }
}

/// Servers of ours that idle in it are in nobody's way.
fn a_database_can_be_dropped(env: &Env) {
    let (dropped, other) = (env.database("dropped"), env.database("other"));
    for sql in ["SELECT 1", "CREATE TABLE t ()"] {
        ask(&mut env.proxy().target(&dropped.name).raw(), &query(sql));
    }
    let mut client = env.proxy().target(&other.name).raw();
    let drop = format!("DROP DATABASE {}", dropped.name);
    assert_eq!(seen(&ask(&mut client, &query(&drop))), ["C DROP DATABASE·", "Z I"]);
}

fn notifications_come_while_idle(env: &Env) {
    let database = env.database("notify");
    let target = env.proxy().target(&database.name);
    let mut listener = target.raw();
    ask(&mut listener, &query("LISTEN channel"));
    for (payload, sql) in [("one", "NOTIFY channel, 'one'"), ("two", "SELECT pg_notify('channel', 'two')")] {
        for mut sender in [target.raw(), database.node(0).raw()] {
            ask(&mut sender, &query(sql));
            let (tag, body) = listener.read().unwrap();
            assert_eq!((tag, &body[4..]), ('A', format!("channel\0{payload}\0").as_bytes()));
        }
    }
    // Its own come with the answer, before ReadyForQuery.
    let own = seen(&ask(&mut listener, &query("NOTIFY channel, 'own'")));
    assert_eq!(own, ["C NOTIFY·", "A channel·own·", "Z I"]);
    ask(&mut listener, &query("UNLISTEN *"));
    ask(&mut target.raw(), &query("NOTIFY channel, 'nobody'"));
    assert_eq!(seen(&ask(&mut listener, &query("SELECT"))).len(), 4);
    wait_for(LIMIT, "the listener's server is free", || {
        env.proxy().metric(
            "causeway_pool_servers",
            &format!("database=\"{}\",node=\"primary\",state=\"active\"", database.name),
        ) < 0.5
    });
}

/// Any will do; more only take longer. `INTERLEAVINGS=0..100` runs others.
fn seeds() -> std::ops::Range<u64> {
    let asked = std::env::var("INTERLEAVINGS").unwrap_or_else(|_| "0..2".to_owned());
    let (first, end) = asked.split_once("..").unwrap();
    first.parse().unwrap()..end.parse().unwrap()
}

/// One step of a client.
#[derive(Clone, Debug)]
enum Step {
    Send(Vec<u8>, String),
    /// Leaves without a word, and comes back with other parameters.
    Leave,
}

/// Two connections that are to see the same.
struct Pair {
    proxied: RawClient,
    direct: RawClient,
    login: usize,
    /// It may hold a server: there are two, and one must be free for the others.
    may_hold: bool,
}

impl Pair {
    fn new(proxied: &Target, direct: &Target, login: usize) -> Self {
        let (client, _) = proxied.raw_with(LOGINS[login]);
        Self { proxied: client, direct: direct.raw_with(LOGINS[login]).0, login, may_hold: false }
    }
}

const HOLDING: &[&str] = &[
    "BEGIN",
    "SELECT set_config('my.' || 'x', 'set', false)",
    "SELECT set_any('my.x', 'any')",
    "CREATE TEMP TABLE t AS SELECT 'temp' AS x",
    "SELECT make_temp()",
    "DECLARE c CURSOR WITH HOLD FOR VALUES ('held')",
    "SELECT pg_try_advisory_lock(1)",
    "LISTEN channel",
];

/// What a READ ONLY transaction on a replica cannot do has an error of ours, so these are whole.
const ANYTIME: &[&str] = &[
    "BEGIN READ ONLY; TABLE t; COMMIT",
    "BEGIN READ ONLY; SET LOCAL TimeZone = 'Asia/Kabul'; SELECT timestamptz '2020-02-03 12:00'; ROLLBACK",
    "COMMIT",
    "ROLLBACK",
    "SELECT 1/0",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "SET LOCAL search_path = other",
    "SET LOCAL TimeZone = 'Asia/Kabul'",
    "SELECT set_config('my.x', 'local', true)",
    "DEALLOCATE ALL",
    "UNLISTEN *",
    "CLOSE ALL",
    "DISCARD TEMP",
    "SELECT pg_advisory_unlock_all()",
    "DEALLOCATE ALL; SELECT 1/0",
    "SET TimeZone = 'Europe/Rome'",
    "SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE",
    "SET search_path = other",
    "SET search_path = public, \"other\", pg_catalog",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "SET DateStyle = 'SQL, DMY'; SET work_mem = '1MB'",
    "SET client_encoding = 'LATIN1'",
    "SET standard_conforming_strings = off",
    "SET application_name = 'an application''s'",
    "SET statement_timeout = 77777",
    "SELECT set_config('my.x', 'set', false), set_config('IntervalStyle', 'iso_8601', false)",
    "SELECT set_x('by a function')",
    "DO $$BEGIN PERFORM set_config('my.x', 'by a block', false); SET work_mem = '2MB'; END$$",
    "INSERT INTO setting VALUES ('by a trigger')",
    "SET ROLE other",
    "SET ROLE NONE",
    "RESET ROLE",
    "RESET SESSION AUTHORIZATION",
    "RESET ALL",
    "RESET TimeZone",
    "SET search_path TO DEFAULT",
    "RESET application_name",
    "SET DateStyle = 'SQL'; SET DateStyle = 'nonsense'",
    "BEGIN; SET TimeZone = 'Europe/Rome'; COMMIT; SELECT 1/0",
    "BEGIN; SET search_path = other; SAVEPOINT s; SET TimeZone = 'Asia/Kabul'; ROLLBACK TO s; COMMIT",
    "BEGIN; SET ROLE other; RESET TimeZone; ROLLBACK",
    "BEGIN; SELECT set_x('undone'); ROLLBACK",
    "PREPARE p AS SELECT 'prepared'",
    "PREPARE q(text) AS SELECT $1, t.*::text FROM t",
    "EXECUTE p",
    "EXECUTE q('it''s (here)')",
    "EXECUTE a",
    "EXPLAIN (COSTS OFF) EXECUTE p",
    "EXECUTE p; EXECUTE q('x')",
    "DEALLOCATE p",
    "DEALLOCATE PREPARE \"q\"",
    "DEALLOCATE a",
];

const TEXTS: &[&str] = &[
    "SELECT max(t.*::text) FROM t",
    // Without a zone it means, after a change of TimeZone, what its plan's age says.
    "SELECT timestamptz '2020-02-03 12:00+00'",
    "SELECT $1::text",
    "SELECT set_config($1, 'by a parameter', false)",
    "SELECT 1/0",
    "nonsense",
];

fn step(random: &mut fastrand::Rng, may_hold: bool) -> (Step, bool) {
    let name = ["a", "b", "c", ""][random.usize(..4)];
    let frames = [query as fn(&str) -> Vec<u8>, extended][random.usize(..2)];
    let send = |sql: &str| Step::Send(frames(sql), sql.to_owned());
    match random.usize(..100) {
        0..3 => (Step::Leave, false),
        3..18 if may_hold => (send(HOLDING[random.usize(..HOLDING.len())]), true),
        18..33 => (send(ANYTIME[random.usize(..ANYTIME.len())]), false),
        33..37 => (send("DISCARD ALL"), false),
        37..52 => {
            let text = TEXTS[random.usize(..TEXTS.len())];
            (Step::Send([parse(name, text), sync()].concat(), format!("parse {name:?} {text}")), false)
        }
        52..70 => {
            let parameters: &[&str] = [&[][..], &["value"], &["my.x"]][random.usize(..3)];
            let frames = [bind(name, parameters), execute(), sync()].concat();
            (Step::Send(frames, format!("run {name:?} {parameters:?}")), false)
        }
        70..74 => (Step::Send([close_statement(name), sync()].concat(), format!("close {name:?}")), false),
        _ => (send(LOOKS[random.usize(..LOOKS.len())]), false),
    }
}

fn any_interleaving_is_as_good_as_own_connections(env: &Env) {
    let (database, own) = (env.database("interleaved"), env.database("own"));
    database.prepare(TWO_SCHEMAS);
    own.prepare(TWO_SCHEMAS);
    let settings = "[pool]\ndefault_pool_size = 2\nmax_prepared_statements = 3\n";
    let proxy = Proxy::start(&env.shared().cluster, settings);
    let (proxied, direct) = (proxy.target(&database.name), own.node(0));
    for seed in seeds() {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pairs: Vec<_> = (0..10).map(|n| Pair::new(&proxied, &direct, n % LOGINS.len())).collect();
        let mut history: Vec<String> = Vec::new();
        for _ in 0..400 {
            let index = random.usize(..pairs.len());
            let free = pairs.iter().all(|pair| !pair.may_hold) || pairs[index].may_hold;
            let (step, holds) = step(&mut random, free);
            let pair = &mut pairs[index];
            pair.may_hold |= holds;
            match step {
                Step::Leave => {
                    // When a lock of somebody who has gone is free again is a matter of chance, here and there.
                    for client in [&mut pair.proxied, &mut pair.direct] {
                        ask(client, &query("ROLLBACK"));
                        ask(client, &query("SELECT pg_advisory_unlock_all()"));
                    }
                    let login = (pair.login + 1) % LOGINS.len();
                    *pair = Pair::new(&proxied, &direct, login);
                    history.push(format!("{index}: leaves and comes with {:?}", LOGINS[login]));
                }
                Step::Send(frames, shown) => {
                    history.push(format!("{index}: {shown}"));
                    let got = catch_unwind(AssertUnwindSafe(|| ask(&mut pair.proxied, &frames)));
                    let got = got.unwrap_or_else(|_| panic!("seed {seed}: no answer\n{}", history.join("\n")));
                    let want = ask(&mut pair.direct, &frames);
                    let about = history.iter().filter(|line| line.starts_with(&format!("{index}:")));
                    // After RESET ALL and DISCARD ALL it is told more than a direct client.
                    let told = |answer: &[Message]| {
                        seen(answer).into_iter().filter(|message| !message.starts_with('S')).collect::<Vec<_>>()
                    };
                    // In a failed transaction a statement that the server must get first fails before its Bind does.
                    if sqlstate(&got) == "25P02" && sqlstate(&want) == "08P01" {
                        continue;
                    }
                    // What a server must get before an EXECUTE fails before its Parse and Bind are answered.
                    if shown.contains("EXECUTE") && sqlstate(&want) == "42P01" && sqlstate(&got) == "42P01" {
                        continue;
                    }
                    assert_eq!(
                        told(&got),
                        told(&want),
                        "seed {seed}, step {}, login {:?}:\n{}",
                        history.len(),
                        LOGINS[pair.login],
                        about.map(String::as_str).collect::<Vec<_>>().join("\n")
                    );
                    let idle = got.last().is_some_and(|(_, status)| status == b"I");
                    if !idle && !pair.may_hold {
                        // A transaction that failed before its own end.
                        history.push(format!("{index}: ROLLBACK"));
                        for client in [&mut pair.proxied, &mut pair.direct] {
                            ask(client, &query("ROLLBACK"));
                        }
                    }
                    pair.may_hold &= !(idle && shown == "DISCARD ALL");
                }
            }
        }
    }
}
