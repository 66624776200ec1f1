//! Causeway's settings are set, shown, rolled back and refused as PostgreSQL's own are.

use crate::harness::{Database, Env, USER};
use crate::proxy::Proxy;
use crate::raw::{RawClient, field, tags};
use crate::speech::query;

use super::stage::{NODE, Step, WHERE, is_as_expected, play_all, said, tell};

/// What the scripts call.
const SETUP: &str = "
    CREATE FUNCTION f_set(text, text) RETURNS void LANGUAGE plpgsql AS
        $$BEGIN PERFORM set_config($1, $2, false); END$$;
    CREATE FUNCTION f_own() RETURNS text LANGUAGE sql STABLE SET causeway.consistency = 'strong' AS
        $$SELECT current_setting('causeway.consistency')$$;
    CREATE PROCEDURE p_set(text, text) LANGUAGE plpgsql AS
        $$BEGIN PERFORM set_config($1, $2, false); COMMIT; END$$;
    CREATE TABLE t (n int); GRANT ALL ON t TO app";

const LEVEL: &str = "SHOW causeway.consistency";
const CURRENT: &str = "SELECT current_setting('causeway.consistency')";
const AS_CONFIGURED: [Step; 3] = [(LEVEL, "session"), (CURRENT, "session"), (WHERE, "replica")];

const SCRIPTS: &[(&str, &[Step])] = &[
    (
        "all five are there from the start",
        &[
            (LEVEL, "session"),
            ("SHOW causeway.max_staleness", "1s"),
            ("SHOW causeway.causal_wait", "5s"),
            ("SHOW causeway.after", ""),
            ("SHOW causeway.position", ""),
            ("SELECT current_setting('causeway.max_staleness')", "1s"),
            ("SELECT current_setting('CAUSEWAY.Causal_Wait', true)", "5s"),
            ("SHOW \"causeway\".\"consistency\"", "session"),
            (WHERE, "replica"),
        ],
    ),
    (
        "SET and RESET",
        &[
            ("SET causeway.consistency = 'primary'", "SET"),
            (LEVEL, "primary"),
            (CURRENT, "primary"),
            (WHERE, "primary"),
            ("SET SESSION causeway.consistency TO strong", "SET"),
            (LEVEL, "strong"),
            (WHERE, "replica"),
            ("set CAUSEWAY.CONSISTENCY to 'PRIMARY'", "SET"),
            (WHERE, "primary"),
            ("RESET causeway.consistency", "RESET"),
            (LEVEL, "session"),
            (WHERE, "replica"),
            ("SET causeway.consistency = 'primary'", "SET"),
            ("SET causeway.consistency TO DEFAULT", "SET"),
            (CURRENT, "session"),
            (WHERE, "replica"),
        ],
    ),
    (
        "durations",
        &[
            ("SET causeway.max_staleness = '500ms'", "SET"),
            ("SHOW causeway.max_staleness", "500ms"),
            ("SET causeway.max_staleness = 1500", "SET"),
            ("SHOW causeway.max_staleness", "1500ms"),
            ("SET causeway.max_staleness TO '2min'", "SET"),
            ("SHOW causeway.max_staleness", "2min"),
            ("SET causeway.causal_wait = 0", "SET"),
            ("SHOW causeway.causal_wait", "0"),
            ("RESET causeway.max_staleness", "RESET"),
            ("SHOW causeway.max_staleness", "1s"),
            ("SHOW causeway.causal_wait", "0"),
        ],
    ),
    (
        "RESET ALL",
        &[
            ("SET causeway.consistency = 'primary'", "SET"),
            ("SET causeway.causal_wait = '1s'", "SET"),
            ("RESET ALL", "RESET"),
            (LEVEL, "session"),
            ("SHOW causeway.causal_wait", "5s"),
            (WHERE, "replica"),
        ],
    ),
    (
        "DISCARD ALL",
        &[
            ("SET causeway.consistency = 'primary'", "SET"),
            (LEVEL, "primary"),
            ("DISCARD ALL", "DISCARD ALL"),
            (LEVEL, "session"),
            (WHERE, "replica"),
        ],
    ),
    (
        "SET LOCAL",
        &[
            ("BEGIN", "BEGIN"),
            ("SET LOCAL causeway.consistency = 'strong'", "SET"),
            (LEVEL, "strong"),
            ("COMMIT", "COMMIT"),
            (LEVEL, "session"),
            ("BEGIN", "BEGIN"),
            ("SET LOCAL causeway.consistency = 'primary'", "SET"),
            ("ROLLBACK", "ROLLBACK"),
            (WHERE, "replica"),
        ],
    ),
    (
        "a transaction that is rolled back",
        &[
            ("BEGIN", "BEGIN"),
            ("SET causeway.consistency = 'primary'", "SET"),
            (LEVEL, "primary"),
            ("ROLLBACK", "ROLLBACK"),
            (LEVEL, "session"),
            (WHERE, "replica"),
            ("SET causeway.consistency = 'strong'", "SET"),
            ("BEGIN", "BEGIN"),
            ("SET causeway.consistency = 'primary'", "SET"),
            ("ROLLBACK", "ROLLBACK"),
            (LEVEL, "strong"),
            (WHERE, "replica"),
            ("BEGIN", "BEGIN"),
            ("RESET causeway.consistency", "RESET"),
            (LEVEL, "session"),
            ("ROLLBACK", "ROLLBACK"),
            (LEVEL, "strong"),
        ],
    ),
    (
        "a transaction that commits",
        &[
            ("BEGIN", "BEGIN"),
            ("SET causeway.consistency = 'primary'", "SET"),
            ("COMMIT", "COMMIT"),
            (WHERE, "primary"),
            (LEVEL, "primary"),
        ],
    ),
    (
        "savepoints",
        &[
            ("BEGIN", "BEGIN"),
            ("SET causeway.consistency = 'strong'", "SET"),
            ("SAVEPOINT s", "SAVEPOINT"),
            ("SET causeway.consistency = 'primary'", "SET"),
            ("ROLLBACK TO s", "ROLLBACK"),
            (LEVEL, "strong"),
            ("SAVEPOINT s", "SAVEPOINT"),
            ("SET causeway.causal_wait = '3s'", "SET"),
            ("RELEASE s", "RELEASE"),
            ("COMMIT", "COMMIT"),
            (LEVEL, "strong"),
            ("SHOW causeway.causal_wait", "3s"),
        ],
    ),
    (
        "set_config",
        &[
            ("SELECT set_config('causeway.consistency', 'primary', false)", "primary"),
            (WHERE, "primary"),
            (LEVEL, "primary"),
            ("SELECT set_config('causeway.' || 'consistency', 'strong', false)", "strong"),
            (LEVEL, "strong"),
            ("BEGIN", "BEGIN"),
            ("SELECT set_config('causeway.consistency', 'primary', true)", "primary"),
            ("COMMIT", "COMMIT"),
            (LEVEL, "strong"),
        ],
    ),
    (
        "in functions",
        &[
            ("SELECT f_set('causeway.consistency', 'primary')", ""),
            (WHERE, "primary"),
            (LEVEL, "primary"),
            ("DO $$BEGIN SET causeway.consistency = 'strong'; END$$", "DO"),
            (LEVEL, "strong"),
            ("CALL p_set('causeway.consistency', 'primary')", "CALL"),
            (LEVEL, "primary"),
            ("DO $$BEGIN RESET causeway.consistency; END$$", "DO"),
            (LEVEL, "session"),
            ("SELECT f_own()", "strong"),
            (LEVEL, "session"),
        ],
    ),
    (
        "a value that cannot be",
        &[
            ("SET causeway.consistency = 'stong'", "!22023 \"causeway.consistency\": \"stong\"|eventual, bounded"),
            ("SET causeway.max_staleness = 'soon'", "!22023 \"causeway.max_staleness\"|Valid units"),
            ("SET causeway.causal_wait = -1", "!22023 \"causeway.causal_wait\"|"),
            ("SET causeway.after = 'x'", "!22023 \"causeway.after\"|SHOW causeway.position"),
            ("SET causeway.position = ''", "!55P02 \"causeway.position\" cannot be changed|causeway.after"),
            ("SET causeway.foo = 1", "!42704 \"causeway.foo\"|causeway.consistency"),
            ("BEGIN", "BEGIN"),
            ("SET LOCAL causeway.consistency = 'stong'", "!22023 \"causeway.consistency\"|eventual"),
            ("SELECT 1", "!25P02"),
            ("ROLLBACK", "ROLLBACK"),
            (LEVEL, "session"),
            (WHERE, "replica"),
        ],
    ),
    (
        "a value that cannot be, set where nobody could refuse it",
        &[
            ("SELECT f_set('causeway.consistency', 'stong')", ""),
            ("SELECT count(*) FROM t", "!22023 \"causeway.consistency\": \"stong\"|eventual, bounded"),
            // Another setting does not mend it.
            ("SET causeway.causal_wait = '1s'", "SET"),
            ("SELECT count(*) FROM t", "!22023 \"causeway.consistency\": \"stong\"|eventual, bounded"),
            ("INSERT INTO t SELECT 1 WHERE false", "INSERT 0 0"),
            ("SET causeway.consistency = 'strong'", "SET"),
            ("SELECT count(*) FROM t", "0"),
            (
                "DO $$BEGIN PERFORM set_config('causeway.consistency', 'x', false), \
              set_config('causeway.max_staleness', '1s', false); END$$",
                "DO",
            ),
            (WHERE, "!22023 \"causeway.consistency\": \"x\"|eventual, bounded"),
            ("RESET causeway.consistency", "RESET"),
            ("SELECT count(*) FROM t", "0"),
            ("SELECT set_config('causeway.causal_wait', 'soon', false)", ""),
            (WHERE, "!22023 \"causeway.causal_wait\": \"soon\"|Valid units"),
            ("RESET ALL", "RESET"),
            ("SELECT count(*) FROM t", "0"),
            (LEVEL, "session"),
        ],
    ),
    (
        "RESET ALL among others",
        &[
            ("SET causeway.consistency = 'primary'", "SET"),
            ("BEGIN", "BEGIN"),
            ("RESET ALL", "RESET"),
            (LEVEL, "session"),
            ("ROLLBACK", "ROLLBACK"),
            (LEVEL, "primary"),
            ("BEGIN", "BEGIN"),
            ("RESET ALL", "RESET"),
            ("COMMIT", "COMMIT"),
            (LEVEL, "session"),
            (WHERE, "replica"),
        ],
    ),
    (
        "a transaction that resets",
        &[
            ("SET causeway.consistency = 'primary'", "SET"),
            ("BEGIN", "BEGIN"),
            ("SET causeway.consistency TO DEFAULT", "SET"),
            (LEVEL, "session"),
            ("SAVEPOINT s", "SAVEPOINT"),
            ("SET causeway.consistency = 'strong'", "SET"),
            ("RESET causeway.consistency", "RESET"),
            ("ROLLBACK TO s", "ROLLBACK"),
            (LEVEL, "session"),
            ("COMMIT", "COMMIT"),
            (LEVEL, "session"),
            (WHERE, "replica"),
        ],
    ),
    (
        "comments",
        &[
            ("/* causeway: primary */ SELECT node()", "primary"),
            ("/* causeway: consistency=primary */ SELECT node()", "primary"),
            ("/* Causeway: CONSISTENCY=Strong */ SELECT node()", "replica"),
            ("/* causeway: consistency=stong */ SELECT 1", "!22023 \"causeway.consistency\": \"stong\"|eventual"),
            ("/* causeway: strong */ SELECT 1", "!22023 hint \"strong\"|consistency=LEVEL"),
            ("/* causeway: max_staleness=soon */ SELECT 1", "!22023 \"causeway.max_staleness\"|Valid units"),
            ("/* causeway: after=cw1_00 */ SELECT 1", "!22023 \"causeway.after\"|damaged"),
            ("/* causeway: position=cw1_00 */ SELECT 1", "!22023 hint \"position\"|"),
            ("/* causeway: consistency=stong */ INSERT INTO t VALUES (1)", "!22023 \"causeway.consistency\"|"),
            ("/* another: comment */ SELECT count(*) FROM t", "0"),
            (LEVEL, "session"),
        ],
    ),
    (
        "a text that may change a setting and mentions the position",
        &[
            ("INSERT INTO t SELECT 1 WHERE false", "INSERT 0 0"),
            ("SHOW causeway.position", "cw1_…"),
            ("DO $$BEGIN PERFORM set_config('causeway.consistency', 'strong', false), 'position'; END$$", "DO"),
            ("SELECT count(*) FROM t", "0"),
            (LEVEL, "strong"),
            ("SHOW causeway.position", "cw1_…"),
        ],
    ),
    (
        "the position is shown",
        &[
            ("INSERT INTO t SELECT 1 WHERE false", "INSERT 0 0"),
            ("SHOW causeway.position", "cw1_…"),
            ("SELECT current_setting('causeway.position')", "cw1_…"),
            ("BEGIN", "BEGIN"),
            ("SHOW causeway.position", "cw1_…"),
            ("COMMIT", "COMMIT"),
            ("BEGIN READ ONLY", "BEGIN"),
            ("SHOW causeway.position", "cw1_…"),
            (LEVEL, "session"),
            ("SHOW causeway.max_staleness", "1s"),
            ("COMMIT", "COMMIT"),
        ],
    ),
];

/// A proxy with one server per pool: what a session leaves on it, the next one finds.
fn narrow(env: &Env, database: &Database<'_>, settings: &str) -> Proxy {
    database.prepare(&format!("{NODE} {SETUP}"));
    let pool = format!("\n[pool]\ndefault_pool_size = 1\n{settings}");
    let proxy = Proxy::start(&env.shared().cluster, &pool);
    let mut first = proxy.target(&database.name).raw();
    tell(&mut first, WHERE);
    proxy.facts_loaded(&database.name, 1);
    proxy
}

pub fn settings_are_postgresql_s(env: &Env) {
    let database = env.database("own_settings");
    let proxy = narrow(env, &database, "");
    let connect = || proxy.target(&database.name).raw();
    // In between somebody who has set nothing looks at what the others have left.
    let scripts: Vec<(&str, &[Step])> =
        SCRIPTS.iter().flat_map(|script| [*script, ("what others have left", &AS_CONFIGURED[..])]).collect();
    play_all(connect, &scripts);
}

/// A session that is pinned, and one in session mode, where all is on one server.
pub fn settings_of_a_session_that_keeps_its_server(env: &Env) {
    const AGAIN: &[&str] =
        &["SET and RESET", "RESET ALL", "SET LOCAL", "a transaction that is rolled back", "savepoints"];
    let database = env.database("kept_settings");
    let proxy = narrow(env, &database, "");
    let in_session_mode = Proxy::start(&env.shared().cluster, "\n[pool]\npool_mode = \"session\"\n");
    // There all reads go to the primary.
    let on_primary = |(sql, want): &Step| if *sql == WHERE { (*sql, "primary") } else { (*sql, *want) };
    let scripts: Vec<(&str, Vec<Step>)> = SCRIPTS
        .iter()
        .filter(|(name, _)| AGAIN.contains(name))
        .map(|(name, steps)| (*name, steps.iter().map(on_primary).collect()))
        .collect();
    assert_eq!(scripts.len(), AGAIN.len());
    let scripts: Vec<(&str, &[Step])> = scripts.iter().map(|(name, steps)| (*name, &steps[..])).collect();
    play_all(|| in_session_mode.target(&database.name).raw(), &scripts);
    let pinned = || {
        let mut client = proxy.target(&database.name).raw();
        assert_eq!(tell(&mut client, "CREATE TEMP TABLE mine (n int)"), "CREATE TABLE");
        client
    };
    play_all(pinned, &scripts);
}

pub fn they_come_from_configuration_and_startup(env: &Env) {
    const SHOWN: [&str; 3] = ["consistency", "max_staleness", "causal_wait"];
    let [one, two, other] = ["one", "two", "other"].map(|name| env.database(name));
    let settings = format!(
        "\n[routing]\nconsistency = \"strong\"\nmax_staleness = \"7s\"\n[databases.{}]\nconsistency = \"eventual\"\n\
         [databases.{}]\nconsistency = \"bounded\"\nmax_staleness = \"3s\"\n",
        one.name, two.name
    );
    let proxy = Proxy::start(&env.shared().cluster, &settings);
    let of_user = format!("[users.\"{USER}\"]\nconsistency = \"primary\"\ncausal_wait = \"9ms\"\n");
    let for_user = Proxy::start_as(&env.shared().cluster, |text| {
        text.replace(&format!("[users.\"{USER}\"]\n"), &of_user) + &settings
    });
    let options = "-c causeway.consistency=bounded -c causeway.max_staleness=1500";
    let mut wrong = Vec::new();
    for (proxy, database, startup, expected) in [
        (&proxy, &other, &[][..], ["strong", "7s", "5s"]),
        (&proxy, &one, &[], ["eventual", "7s", "5s"]),
        (&proxy, &two, &[], ["bounded", "3s", "5s"]),
        (&for_user, &other, &[], ["primary", "7s", "9ms"]),
        (&for_user, &two, &[], ["primary", "3s", "9ms"]),
        (&proxy, &one, &[("options", options)], ["bounded", "1500ms", "5s"]),
        (&for_user, &one, &[("causeway.consistency", "session")], ["session", "7s", "9ms"]),
        (&proxy, &two, &[("Causeway.Causal_Wait", "1min"), ("options", options)], ["bounded", "1500ms", "1min"]),
    ] {
        let (mut client, _) = proxy.target(&database.name).raw_with(startup);
        let show = |client: &mut RawClient| SHOWN.map(|name| tell(client, &format!("SHOW causeway.{name}")));
        let at_login = show(&mut client);
        tell(&mut client, "SET causeway.consistency = 'session'");
        tell(&mut client, "SET causeway.max_staleness = '8s'");
        tell(&mut client, "RESET ALL");
        let after_reset = show(&mut client);
        tell(&mut client, "SET causeway.causal_wait = '8s'");
        tell(&mut client, "DISCARD ALL");
        let discarded = show(&mut client);
        for (when, got) in [("at login", at_login), ("after RESET ALL", after_reset), ("after DISCARD ALL", discarded)]
        {
            if got != expected {
                wrong.push(format!("{} {startup:?} {when}: want {expected:?}, got {got:?}", database.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

pub fn what_cannot_be_is_refused_at_login(env: &Env) {
    let database = env.database("own_startup");
    let target = env.proxy().target(&database.name);
    let mut wrong = Vec::new();
    for (name, value, want) in [
        ("causeway.consistency", "stong", "!22023 \"causeway.consistency\": \"stong\"|eventual, bounded"),
        ("options", "-c causeway.consistency=stong", "!22023 \"causeway.consistency\": \"stong\"|eventual, bounded"),
        ("causeway.max_staleness", "0", "!22023 \"causeway.max_staleness\": \"0\"|between 1ms and 1d"),
        ("causeway.causal_wait", "2h", "!22023 \"causeway.causal_wait\"|between 0 and 1h"),
        ("causeway.after", "0/9002000", "!22023 \"causeway.after\"|SHOW causeway.position"),
        ("causeway.position", "", "!55P02 \"causeway.position\"|causeway.after"),
        ("options", "-c causeway.foo=1", "!42704 \"causeway.foo\"|causeway.consistency"),
    ] {
        let (mut client, greeting) = target.raw_with(&[(name, value)]);
        let refused = greeting.iter().find(|(tag, _)| *tag == 'E').map(|(_, error)| field(error, b'S'));
        if !is_as_expected(&said(&greeting), want) || refused.as_deref() != Some("FATAL") {
            wrong.push(format!("{name}={value}: want {want}, got {} {}", tags(&greeting), said(&greeting)));
        }
        client.send(&query("SELECT 1"));
        if refused.is_some() {
            assert_eq!(client.read(), None, "{name}={value}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
