//! Prepared statements of the protocol, across servers: what a client gets is frame by frame what it gets from a server
//! of its own.

use crate::frames::parse;
use crate::harness::{Env, Test};
use crate::proxy::Proxy;
use crate::raw::{Message, RawClient};
use crate::speech::{
    ask, bind, close_statement, describe_portal, describe_statement, execute, extended, flush, query, run, seen,
    sqlstate, sync,
};

pub const TESTS: &[Test] = &[
    ("prepared::every_frame_is_as_on_a_connection_of_ones_own", every_frame_is_as_on_a_connection_of_ones_own),
    ("prepared::many_clients_share_few_servers", many_clients_share_few_servers),
    ("prepared::a_changed_table_does_not_haunt_new_clients", a_changed_table_does_not_haunt_new_clients),
    ("prepared::statements_go_where_their_text_must", statements_go_where_their_text_must),
];

/// A server of their own for few statements, so that they come and go.
const SETTINGS: &str = "[pool]\ndefault_pool_size = 2\nmax_prepared_statements = 3\n";

const SETUP: &str =
    "SET ROLE app; CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (1, 'x'), (2, 'y');
    CREATE TABLE w (n int); CREATE SEQUENCE s;
    CREATE FUNCTION liar() RETURNS bigint LANGUAGE plpgsql STABLE AS $$BEGIN RETURN nextval('s'); END$$;
    CREATE SCHEMA other; CREATE TABLE other.t (id text, b int); INSERT INTO other.t VALUES ('other', 5)";

/// Which of the clients sends what.
type Step = (usize, Vec<u8>);

fn at_once(frames: &[Vec<u8>]) -> Vec<u8> {
    [&frames.concat()[..], &sync()].concat()
}

/// Clients by number: 0 and 1 have no parameters, 2 and 3 these.
const LOGINS: [&[(&str, &str)]; 4] =
    [&[], &[], &[("options", "-c search_path=other")], &[("TimeZone", "Asia/Tokyo"), ("DateStyle", "SQL, DMY")]];

const MIDNIGHT: &str = "SELECT timestamptz '2020-03-02 00:00', date '01/02/2003'";

fn cases() -> Vec<(&'static str, Vec<Step>)> {
    [naming(), errors(), unnamed(), sharing(), state()].concat()
}

fn naming() -> Vec<(&'static str, Vec<Step>)> {
    vec![
        (
            "a name is defined, described, run, closed and defined again",
            vec![
                (0, at_once(&[parse("a", "SELECT $1::int + 1 AS n"), describe_statement("a")])),
                (1, at_once(&[parse("a", "SELECT 'another'")])),
                (0, at_once(&[run("a", &["41"])])),
                (1, at_once(&[run("a", &[])])),
                (0, at_once(&[close_statement("a"), describe_statement("a")])),
                (0, at_once(&[parse("a", "SELECT 'new'"), run("a", &[])])),
                (0, at_once(&[close_statement("a"), parse("a", "SELECT 'newer'"), run("a", &[])])),
                (0, at_once(&[run("a", &[]), close_statement("a"), parse("a", "SELECT 'newest'"), run("a", &[])])),
            ],
        ),
        (
            "a name in use is refused, and stays what it was",
            vec![
                (0, at_once(&[parse("a", "SELECT 1")])),
                (0, at_once(&[parse("a", "SELECT 2")])),
                (0, at_once(&[run("a", &[])])),
                (0, at_once(&[parse("b", "SELECT 3"), parse("a", "SELECT 4"), run("b", &[])])),
                (0, at_once(&[run("b", &[])])),
                (0, at_once(&[parse("b", "SELECT 5"), run("b", &[])])),
                (0, at_once(&[close_statement("a"), close_statement("nobody's"), close_statement("")])),
                (0, at_once(&[run("a", &[])])),
            ],
        ),
        (
            "unknown names",
            vec![
                (0, at_once(&[run("nobody's", &[])])),
                (0, at_once(&[describe_statement("nobody's")])),
                (0, at_once(&[describe_statement("")])),
                (0, at_once(&[describe_portal()])),
                (0, at_once(&[execute()])),
                (1, at_once(&[parse("a", "SELECT 1")])),
                (0, at_once(&[run("a", &[])])),
            ],
        ),
        (
            "all statements are dropped by SQL",
            vec![
                (0, at_once(&[parse("a", "SELECT 1"), parse("b", "SELECT 2")])),
                (1, at_once(&[parse("a", "SELECT 1")])),
                (0, query("DEALLOCATE ALL")),
                (0, at_once(&[run("a", &[])])),
                (1, at_once(&[run("a", &[])])),
                (0, at_once(&[parse("a", "SELECT 3"), run("a", &[])])),
                (0, extended("DISCARD ALL")),
                (0, at_once(&[run("a", &[])])),
                (1, query("DEALLOCATE ALL; SELECT 1/0")),
                (0, at_once(&[parse("a", "SELECT 1"), run("a", &[])])),
                (0, query("SELECT 1/0; DEALLOCATE ALL")),
                (0, at_once(&[run("a", &[])])),
            ],
        ),
    ]
}

fn errors() -> Vec<(&'static str, Vec<Step>)> {
    let texts = ["SELECT 1", "SELECT 2", "SELECT 3", "SELECT 4", "SELECT 5"];
    let five = texts.map(|text| parse(text, text));
    let run_five: Vec<Step> = texts.iter().map(|text| (0, at_once(&[run(text, &[])]))).collect();
    vec![
        (
            "a text that fails is not prepared, and neither is what follows it",
            vec![
                (0, at_once(&[parse("a", "SELEC 1"), parse("b", "SELECT 2")])),
                (0, at_once(&[run("b", &[])])),
                (0, at_once(&[parse("a", "SELECT 1"), run("a", &[])])),
                (0, at_once(&[parse("b", "SELECT nope"), run("b", &[])])),
                (0, at_once(&[parse("b", "SELECT 2"), parse("c", "SELECT 1/0"), run("b", &[]), run("c", &[])])),
                (0, at_once(&[run("b", &[]), run("c", &[]), close_statement("b")])),
                (0, at_once(&[run("b", &[])])),
            ],
        ),
        (
            "an error between statements that must make room for each other",
            [
                vec![(0, at_once(&five[..3]))],
                vec![(0, at_once(&[parse("bad", "nonsense"), five[3].clone(), five[4].clone()]))],
                vec![(0, at_once(&five[3..]))],
                run_five.clone(),
                vec![(
                    0,
                    at_once(&[vec![parse("bad", "nonsense")], texts.map(|text| run(text, &[])).to_vec()].concat()),
                )],
                run_five,
            ]
            .concat(),
        ),
        (
            "parameters that do not fit",
            vec![
                (0, at_once(&[parse("", "SELECT $1::int"), run("", &["x"])])),
                (0, at_once(&[parse("", "SELECT $1::int"), run("", &[])])),
                (0, at_once(&[parse("", "SELECT $1::int"), run("", &["5"])])),
            ],
        ),
        (
            "an error in a transaction",
            vec![
                (0, query("BEGIN")),
                (0, at_once(&[parse("a", "SELECT 1"), parse("end", "ROLLBACK")])),
                (0, query("SELECT 1/0")),
                (0, at_once(&[run("a", &[])])),
                (0, at_once(&[parse("b", "SELECT 2")])),
                (0, at_once(&[run("end", &[])])),
                (0, at_once(&[run("a", &[])])),
                (0, at_once(&[run("b", &[])])),
            ],
        ),
    ]
}

fn unnamed() -> Vec<(&'static str, Vec<Step>)> {
    vec![
        (
            "the unnamed statement lives until the next one or a Query",
            vec![
                (0, at_once(&[parse("", "SELECT 'unnamed'"), describe_statement("")])),
                (1, at_once(&[parse("", "SELECT 'secret'")])),
                (0, at_once(&[run("", &[])])),
                (0, at_once(&[run("", &[])])),
                (1, at_once(&[run("", &[])])),
                (0, query("SELECT 1")),
                (0, at_once(&[run("", &[])])),
                (1, at_once(&[run("", &[])])),
            ],
        ),
        (
            "nobody has another's unnamed statement",
            vec![
                (1, at_once(&[parse("", "INSERT INTO w VALUES (0) RETURNING 'secret'"), run("", &[])])),
                (0, at_once(&[describe_statement("")])),
                (0, at_once(&[run("", &[])])),
            ],
        ),
        (
            "an unnamed text that fails leaves none",
            vec![
                (0, at_once(&[parse("", "SELECT 1")])),
                (0, at_once(&[parse("", "nonsense")])),
                (0, at_once(&[run("", &[])])),
                (0, at_once(&[parse("", "SELECT 2")])),
                (0, at_once(&[close_statement("")])),
                (0, at_once(&[run("", &[])])),
            ],
        ),
    ]
}

fn sharing() -> Vec<(&'static str, Vec<Step>)> {
    vec![
        (
            "one text means what each client's parameters say",
            vec![
                (0, at_once(&[parse("m", MIDNIGHT), describe_statement("m"), run("m", &[])])),
                (3, at_once(&[parse("m", MIDNIGHT), describe_statement("m"), run("m", &[])])),
                (0, at_once(&[run("m", &[])])),
                (3, at_once(&[run("m", &[])])),
                (0, at_once(&[parse("t", "SELECT * FROM t WHERE id = $1"), describe_statement("t")])),
                (2, at_once(&[parse("t", "SELECT * FROM t WHERE id = $1"), describe_statement("t")])),
                (0, at_once(&[run("t", &["1"])])),
                (2, at_once(&[run("t", &["other"])])),
                (0, at_once(&[run("t", &["2"])])),
            ],
        ),
        (
            "a text that was prepared before a SET is read again after it",
            vec![
                (0, at_once(&[parse("m", MIDNIGHT), run("m", &[])])),
                (1, query("SET TimeZone = 'Europe/Rome'")),
                (1, at_once(&[parse("m", MIDNIGHT), run("m", &[])])),
                (1, query("SET DateStyle = 'SQL, DMY'")),
                (1, at_once(&[parse("n", MIDNIGHT), run("n", &[])])),
                (1, query("DISCARD ALL")),
                (1, at_once(&[parse("m", MIDNIGHT), run("m", &[])])),
                (0, at_once(&[run("m", &[])])),
            ],
        ),
        (
            "what a transaction sets for itself stays in it",
            vec![
                (0, query("BEGIN")),
                (0, query("SET LOCAL TimeZone = 'Europe/Rome'")),
                (0, at_once(&[parse("m", MIDNIGHT), run("m", &[])])),
                (0, query("COMMIT")),
                (1, at_once(&[parse("m", MIDNIGHT), run("m", &[])])),
                (1, query("BEGIN")),
                (1, at_once(&[parse("t", "SELECT * FROM t WHERE id = $1"), describe_statement("t")])),
                (1, extended("SET LOCAL search_path = other")),
                (1, at_once(&[parse("u", "SELECT * FROM t WHERE id = $1"), describe_statement("u")])),
                (1, query("COMMIT")),
            ],
        ),
    ]
}

fn state() -> Vec<(&'static str, Vec<Step>)> {
    let set =
        |name| vec![parse(name, "SELECT set_config('my.x', $1, false)"), describe_statement(name), run(name, &["1"])];
    let get = query("SELECT nullif(current_setting('my.x', true), '')");
    vec![
        (
            "set_config has its row description and keeps its value, whatever the statement's name",
            vec![
                (0, at_once(&set(""))),
                (0, get.clone()),
                (1, get.clone()),
                (0, query("DISCARD ALL")),
                (0, at_once(&set("a"))),
                (0, get.clone()),
                (1, get.clone()),
                (0, query("DISCARD ALL")),
                (0, at_once(&[parse("a", "SELECT 1"), run("a", &[])])),
                (0, at_once(&[vec![close_statement("a")], set("a")].concat())),
                (0, get.clone()),
                (1, get),
            ],
        ),
        (
            "a text with its own COMMIT keeps what it set when it fails later",
            vec![
                (0, query("BEGIN; SET TimeZone = 'Europe/Rome'; COMMIT; SELECT 1/0")),
                (0, query("SHOW TimeZone")),
                (1, query("SHOW TimeZone")),
            ],
        ),
        (
            "writes and rescued reads in one batch with their name",
            vec![
                (
                    0,
                    at_once(&[parse("w", "INSERT INTO w VALUES ($1) RETURNING n"), run("w", &["1"]), run("w", &["2"])]),
                ),
                (0, at_once(&[parse("r", "SELECT * FROM t ORDER BY id"), run("r", &[])])),
                (0, at_once(&[close_statement("r"), parse("r", "INSERT INTO w VALUES (3)"), run("r", &[])])),
                (0, at_once(&[parse("liar", "SELECT liar() > 0"), run("liar", &[])])),
                (0, at_once(&[run("liar", &[])])),
                (0, at_once(&[close_statement("liar"), parse("liar", "SELECT liar() > 1"), run("liar", &[])])),
            ],
        ),
    ]
}

fn every_frame_is_as_on_a_connection_of_ones_own(env: &Env) {
    let (database, own) = (env.database("prepared"), env.database("prepared"));
    database.prepare(SETUP);
    own.prepare(SETUP);
    let proxy = Proxy::start(&env.shared().cluster, SETTINGS);
    let mut wrong = Vec::new();
    for (name, steps) in cases() {
        let mut proxied = LOGINS.map(|login| proxy.target(&database.name).raw_with(login).0);
        let mut direct = LOGINS.map(|login| own.node(0).raw_with(login).0);
        for (number, (client, frames)) in steps.iter().enumerate() {
            let (got, want) = (ask(&mut proxied[*client], frames), ask(&mut direct[*client], frames));
            if exact(&got) != exact(&want) {
                let (got, want) = (exact(&got), exact(&want));
                wrong.push(format!("{name}, step {}, client {client}:\n  want {want:?}\n  got  {got:?}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{} answers:\n{}", wrong.len(), wrong.join("\n"));
}

/// All but what a client is told of its own parameters when it drops them.
fn exact(answer: &[Message]) -> Vec<String> {
    seen(answer).into_iter().filter(|message| !message.starts_with('S')).collect()
}

fn many_clients_share_few_servers(env: &Env) {
    let database = env.database("crowd");
    database.prepare(SETUP);
    let proxy = Proxy::start(&env.shared().cluster, SETTINGS);
    let mut random = fastrand::Rng::with_seed(7);
    let mut clients: Vec<RawClient> = (0..12).map(|_| proxy.target(&database.name).raw()).collect();
    // Half of the names mean the same to all clients, the other half something to each.
    let text = |client: usize, name: usize| match name {
        0..3 => format!("SELECT 'all have {name}', $1::text"),
        _ => format!("INSERT INTO w VALUES ({client}) RETURNING '{name}', $1::text"),
    };
    for (client, raw) in clients.iter_mut().enumerate() {
        let frames: Vec<_> = (0..6).map(|name| parse(&name.to_string(), text(client, name))).collect();
        assert_eq!(seen(&ask(raw, &at_once(&frames))), ["1 ", "1 ", "1 ", "1 ", "1 ", "1 ", "Z I"]);
    }
    for round in 0..400 {
        let (client, name) = (random.usize(..clients.len()), random.usize(..6));
        let answer = ask(&mut clients[client], &at_once(&[bind(&name.to_string(), &["p"]), execute()]));
        let said = if name < 3 { format!("all have {name}") } else { name.to_string() };
        let row = exact(&answer).into_iter().find(|message| message.starts_with('D')).unwrap_or_default();
        assert!(row.contains(&said) && row.ends_with('p'), "round {round}, client {client}, {name}: {answer:?}");
    }
    let server = ask(&mut clients[0], &query("SELECT count(*) <= 3 FROM pg_prepared_statements"));
    assert!(seen(&server).contains(&"D ···\u{1}t".to_owned()), "{:?}", seen(&server));
}

/// A client that prepares anew what the servers have with the old columns gets at most one error, not one for ever.
fn a_changed_table_does_not_haunt_new_clients(env: &Env) {
    let database = env.database("changed");
    database.prepare(SETUP);
    let proxy = Proxy::start(&env.shared().cluster, "[pool]\ndefault_pool_size = 1\n[routing]\nsplit = false\n");
    let target = proxy.target(&database.name);
    let frames = at_once(&[parse("a", "TABLE t"), run("a", &[])]);
    let mut early = target.raw();
    assert_eq!(sqlstate(&ask(&mut early, &frames)), "");
    database.prepare("ALTER TABLE t ADD COLUMN b int");
    let answers: Vec<_> = (0..3).map(|_| sqlstate(&ask(&mut target.raw(), &frames))).collect();
    assert_eq!(answers, ["", "", ""]);
    // Who does not ask what the rows are now must not get them.
    let unasked = at_once(&[bind("a", &[]), execute()]);
    assert_eq!(sqlstate(&ask(&mut early, &unasked)), "0A000");
    // Who asks gets what a server of its own would only give after preparing anew.
    assert_eq!(sqlstate(&ask(&mut early, &at_once(&[run("a", &[])]))), "");
}

/// Named reads and writes of one client, and messages that come in several batches.
fn statements_go_where_their_text_must(env: &Env) {
    let database = env.database("where");
    database.prepare(SETUP);
    let mut client = env.proxy().target(&database.name).raw();
    env.proxy().facts_loaded(&database.name, 1);
    let read = |marker: &str| parse("r", format!("SELECT count(*) FROM t /* {marker} */"));
    let write = |marker: &str| parse("w", format!("INSERT INTO w VALUES (1) /* {marker} */"));
    let close = [close_statement("r"), close_statement("w")].concat();
    let cases: Vec<(&str, &str, Vec<Vec<u8>>)> = vec![
        (
            "prepared read",
            "replica",
            vec![at_once(&[read("prepared read"), describe_statement("r")]), at_once(&[run("r", &[])])],
        ),
        ("read at once", "replica", vec![at_once(&[read("read at once"), run("r", &[])])]),
        ("write at once", "primary", vec![at_once(&[write("write at once"), run("w", &[])])]),
        (
            "write after read",
            "primary",
            vec![
                at_once(&[read("other")]),
                at_once(&[run("r", &[])]),
                at_once(&[write("write after read")]),
                at_once(&[run("w", &[])]),
            ],
        ),
        (
            "read beside a write",
            "primary",
            vec![at_once(&[read("read beside a write"), write("other")]), at_once(&[run("r", &[]), run("w", &[])])],
        ),
        (
            "the name means something else now",
            "primary",
            vec![
                at_once(&[read("other")]),
                at_once(&[
                    close.clone(),
                    parse("r", "INSERT INTO w VALUES (2) /* the name means something else now */"),
                    run("r", &[]),
                ]),
            ],
        ),
        (
            "write in a later part of the pipeline",
            "primary",
            vec![
                [read("other"), run("r", &[]), flush()].concat(),
                at_once(&[write("write in a later part of the pipeline"), run("w", &[])]),
            ],
        ),
        (
            "read that was described with Flush",
            "replica",
            vec![
                [read("read that was described with Flush"), describe_statement("r"), flush()].concat(),
                at_once(&[run("r", &[])]),
            ],
        ),
    ];
    for (marker, role, batches) in cases {
        for batch in batches {
            let answer = if batch.ends_with(&sync()) { ask(&mut client, &batch) } else { flushed(&mut client, &batch) };
            assert!(!seen(&answer).iter().any(|message| message.starts_with('E')), "{marker}: {:?}", seen(&answer));
        }
        ask(&mut client, &[close.clone(), sync()].concat());
        let nodes = env.shared().cluster.ran_on(&format!("/* {marker} */")).unwrap();
        assert!(!nodes.is_empty() && nodes.iter().all(|node| node.starts_with(role)), "{marker}: {nodes:?}");
    }
}

/// What comes before the batch has a Sync: up to the end of a run, or of a description.
fn flushed(client: &mut RawClient, batch: &[u8]) -> Vec<Message> {
    client.send(batch);
    let runs = batch.windows(execute().len()).any(|bytes| bytes == execute());
    client.read_to(if runs { 'C' } else { 'T' })
}
