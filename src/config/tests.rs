//! Files that are right, and every mistake with its message.

use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::document::Document;
use super::urls::from_urls_and_password;
use super::validate::validate;
use super::{
    Address, AuthType, ClientTls, Config, ConfigErrors, Credential, Fallback, LogFormat, SslMode, check_level, load,
    raw,
};
use crate::types::{Consistency, Level, PoolMode, Secret};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(text: &str) -> Result<Config, ConfigErrors> {
    let (document, file, errors) = Document::parse("c.toml", text);
    validate(&file, &document, Path::new(ROOT), errors)
}

/// Nine lines; `SECRET` is what no error may show.
const GOOD: &str = r#"[[listeners]]
address = "127.0.0.1:6432"
[clusters.main]
control = { user = "causeway", password = "SECRET" }
[[clusters.main.nodes]]
name = "a"
host = "10.0.0.1"
[users.app]
password = "SECRET"
"#;
const MD5: &str = "md50123456789abcdef0123456789abcdef";
const SCRAM: &str = "SCRAM-SHA-256$4096:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:\
                     AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// What is appended to `GOOD`, so that its first line is line 10, and what each of its errors contains, in order.
type Mistake<'a> = (&'a str, &'a [&'a [&'a str]]);

const MISTAKES: &[Mistake<'_>] = &[
    // Keys.
    (
        "[pool]\npol_mode = \"session\"",
        &[&["c.toml:11: pool.pol_mode: ", "did you mean \"pool_mode\"?", "default_pool_size"]],
    ),
    ("[users.bob]\npasword = \"SECRET\"", &[&["c.toml:11: users.bob.pasword: ", "did you mean \"password\"?"]]),
    ("[zzz]\nx = 1", &[&["c.toml:10: zzz: unknown setting", "Allowed: workers, auth_type"]]),
    ("[pool]\n[pool]", &[&["c.toml:11: pool: duplicate key"]]),
    ("password = \"SECRET\"", &[&["c.toml:10: password: duplicate key"]]),
    ("password SECRET", &[&["c.toml:10: ", "expected `=`"]]),
    // Units and types.
    ("[probe]\ninterval = 250", &[&["c.toml:11: probe.interval: 250 has no unit", "\"250ms\""]]),
    ("[probe]\ninterval = \"250\"", &[&["c.toml:11: probe.interval: \"250\" has no unit", "\"250ms\""]]),
    ("[probe]\ninterval = 0.5", &[&["c.toml:11: probe.interval: 0.5 has no unit", "\"250ms\""]]),
    ("[probe]\ninterval = \"5 min\"", &[&["c.toml:11: probe.interval: \"5 min\" is not a duration", "ms, s, m"]]),
    ("[probe]\ninterval = \"-5s\"", &[&["c.toml:11: probe.interval: \"-5s\" is not a duration"]]),
    ("[probe]\ninterval = \"99999999999999999999d\"", &[&["c.toml:11: probe.interval: ", "is not a duration"]]),
    ("[limits]\nmemo_size = 5", &[&["c.toml:11: limits.memo_size: 5 has no unit", "\"16MiB\""]]),
    ("[limits]\nmemo_size = \"5MB\"", &[&["c.toml:11: limits.memo_size: \"5MB\" is not a size", "MiB"]]),
    ("[limits]\nmemo_size = \"99999999999999999999GiB\"", &[&["c.toml:11: limits.memo_size: ", "1MiB to 64GiB"]]),
    ("[pool]\ndefault_pool_size = \"x\"", &[&["c.toml:11: pool.default_pool_size: must be a whole number"]]),
    ("[pool]\ndefault_pool_size = -3", &[&["c.toml:11: pool.default_pool_size: must be a whole number, 0 or more"]]),
    ("[pool]\ndefault_pool_size = 1e3", &[&["c.toml:11: pool.default_pool_size: must be a whole number"]]),
    ("[pool]\ndefault_pool_size = 99999999999999999999", &[&["c.toml:11: pool.default_pool_size: must be"]]),
    ("[routing]\nsplit = \"yes\"", &[&["c.toml:11: routing.split: must be true or false"]]),
    ("[routing]\nfallback = 1", &[&["c.toml:11: routing.fallback: must be a string"]]),
    ("[users.bob]\npassword = 12345", &[&["c.toml:11: users.bob.password: must be a string"]]),
    ("[users]\nbob = \"SECRET\"", &[&["c.toml:11: users.bob: must be a table"]]),
    ("[clusters.b]\ndatabases = \"x\"", &[&["c.toml:11: clusters.b.databases: must be a list"]]),
    // Words and ranges.
    ("[pool]\npool_mode = \"statement\"", &[&["c.toml:11: pool.pool_mode: ", "Allowed: transaction, session"]]),
    ("[routing]\nfallback = \"eror\"", &[&["c.toml:11: routing.fallback: ", "\"error\"?", "primary, error"]]),
    ("[log]\nformat = \"xml\"", &[&["c.toml:11: log.format: ", "Allowed: text, json"]]),
    ("[log]\nlevel = \"inof\"", &[&["c.toml:11: log.level: \"inof\"", "off, error, warn, info"]]),
    ("[log]\nlevel = \"info,a b=debug\"", &[&["c.toml:11: log.level: \"a b=debug\""]]),
    ("[probe]\ninterval = \"1ms\"", &[&["c.toml:11: probe.interval: 1ms is out of range: 10ms to 1m"]]),
    ("[limits]\nmax_message_size = \"1KiB\"", &[&["c.toml:11: limits.max_message_size: 1KiB", "64KiB to 1GiB"]]),
    ("[limits]\nmax_client_conn = 0", &[&["c.toml:11: limits.max_client_conn: 0 is out of range: 1 to 1000000"]]),
    ("[pool]\nmin_pool_size = 30", &[&["c.toml:11: pool.min_pool_size: 30 is more than default_pool_size", "20"]]),
    (
        "pool_size = 3\n[pool]\nmin_pool_size = 4",
        &[&["c.toml:10: users.app.pool_size: 3 is less than pool.min_pool_size", "4"]],
    ),
    // What is promised to reads.
    (
        "[routing]\nconsistency = \"stong\"",
        &[&[
            "c.toml:11: routing.consistency: ",
            "did you mean \"strong\"?",
            "eventual, bounded, session, strong, primary",
        ]],
    ),
    ("[routing]\nmax_staleness = \"0s\"", &[&["c.toml:11: routing.max_staleness: 0s is out of range: 1ms to 1day"]]),
    ("[routing]\ncausal_wait = \"2h\"", &[&["c.toml:11: routing.causal_wait: 2h is out of range: 0s to 1h"]]),
    (
        "[routing]\nmax_spilled_reads = 1000001",
        &[&["c.toml:11: routing.max_spilled_reads: 1000001 is out of range: 0 "]],
    ),
    ("[routing]\nspill_wait = \"2days\"", &[&["c.toml:11: routing.spill_wait: \"2days\" is not a duration"]]),
    (
        "[routing]\nmax_staleness = \"200ms\"",
        &[&["c.toml:11: routing.max_staleness: 200ms is less than probe.interval, which is 250ms"]],
    ),
    (
        "[probe]\ninterval = \"2s\"",
        &[&["c.toml:11: probe.interval: 2s is more than routing.max_staleness, which is 1s"]],
    ),
    (
        "consistency = \"any\"\nmax_staleness = \"1ms\"\ncausal_wait = 5",
        &[
            &["c.toml:10: users.app.consistency: unknown value \"any\""],
            &["c.toml:12: users.app.causal_wait: 5 has no unit"],
        ],
    ),
    (
        "max_staleness = \"1ms\"\n[databases.shop]\nmax_staleness = \"2ms\"\nconsistency = \"none\"\n[databases.\"\"]",
        &[
            &["c.toml:10: users.app.max_staleness: 1ms is less than probe.interval"],
            &["c.toml:12: databases.shop.max_staleness: 2ms is less than probe.interval"],
            &["c.toml:13: databases.shop.consistency: unknown value \"none\""],
            &["c.toml:14: databases.: a name must have"],
        ],
    ),
    (
        "[databases.shop]\nsplit = true",
        &[&["c.toml:11: databases.shop.split: unknown setting", "Allowed: consistency"]],
    ),
    // Users and secrets.
    ("[users.bob]", &[&["c.toml:10: users.bob.password: is missing", "\"scram-sha-256\"", "password_env", "trust"]]),
    ("password_file = \"x\"", &[&["c.toml:10: users.app.password_file: only one of password, password_file"]]),
    ("[users.bob]\npassword = \"\"", &[&["c.toml:11: users.bob.password: the secret is empty"]]),
    ("[users.bob]\npassword_file = \"no/such\"", &[&["c.toml:11: users.bob.password_file: cannot read ", "no/such"]]),
    ("[users.bob]\npassword_file = \"src/lib.rs\"", &[&["c.toml:11: users.bob.password_file: ", "line end"]]),
    (
        "[users.bob]\npassword_env = \"CAUSEWAY_NOT_SET\"",
        &[&["c.toml:11: users.bob.password_env: ", "\"CAUSEWAY_NOT_SET\" is not set"]],
    ),
    ("server_password_file = \"no/such\"", &[&["c.toml:10: users.app.server_password_file: cannot read "]]),
    // Listeners.
    ("[[listeners]]", &[&["c.toml:10: listeners[1].address: is missing", "\"127.0.0.1:6432\""]]),
    ("[[listeners]]\naddress = \"x y\"", &[&["c.toml:11: listeners[1].address: \"x y\"", "\"[::]:6432\""]]),
    (
        "[[listeners]]\naddress = \"127.0.0.1:6432\"",
        &[&["c.toml:11: listeners[1].address: 127.0.0.1:6432 is taken by listeners[0].address (line 2)"]],
    ),
    ("[[listeners]]\naddress = \"*:6432\"", &[&["c.toml:11: listeners[1].address: *:6432 is taken by "]]),
    (
        "[metrics]\naddress = \"127.0.0.1:6432\"",
        &[&["c.toml:11: metrics.address: ", "taken by listeners[0]", "line 2"]],
    ),
    ("[metrics]\naddress = \"localhost:1\"", &[&["c.toml:11: metrics.address: ", "\"127.0.0.1:9187\""]]),
    (
        "[[listeners]]\naddress = \"127.0.0.1:1\"\nclient_tls_sslmode = \"require\"",
        &[
            &["c.toml:10: listeners[1].client_tls_cert_file: is missing", "\"require\" needs"],
            &["c.toml:10: listeners[1].client_tls_key_file: is missing", "\"require\" needs"],
        ],
    ),
    (
        "[[listeners]]\naddress = \"127.0.0.1:1\"\nclient_tls_sslmode = \"prefer\"",
        &[&["c.toml:12: listeners[1].client_tls_sslmode: ", "Allowed: disable, allow, require"]],
    ),
    (
        "[[listeners]]\naddress = \"127.0.0.1:1\"\nclient_tls_sslmode = \"allow\"\nclient_tls_cert_file = \
             \"src\"\nclient_tls_key_file = \"no/such\"",
        &[
            &["c.toml:13: listeners[1].client_tls_cert_file: ", "is not a file"],
            &["c.toml:14: listeners[1].client_tls_key_file: cannot read ", "no/such"],
        ],
    ),
    (
        "[[listeners]]\naddress = \"/run\"\nclient_tls_sslmode = \"require\"\nclient_tls_cert_file = \
             \"Cargo.toml\"\nclient_tls_key_file = \"Cargo.toml\"",
        &[&["c.toml:12: listeners[1].client_tls_sslmode: ", "Unix socket", "allowed for it: disable, allow"]],
    ),
    // Clusters and nodes.
    (
        "[[clusters.main.nodes]]\nname = \"b\"\nhost = \"10.0.0.1\"",
        &[&[
            "c.toml:12: clusters.main.nodes[1].host: 10.0.0.1:5432 is the address of clusters.main.nodes[0].host (line 7)",
        ]],
    ),
    (
        "[[clusters.main.nodes]]\nname = \"a\"\nhost = \"10.0.0.2\"",
        &[&["c.toml:11: clusters.main.nodes[1].name: \"a\" is the name of clusters.main.nodes[0].name (line 6) too"]],
    ),
    (
        "[[clusters.main.nodes]]",
        &[
            &["c.toml:10: clusters.main.nodes[1].name: is missing", "name = \"a\""],
            &["c.toml:10: clusters.main.nodes[1].host: is missing", "host = "],
        ],
    ),
    (
        "[[clusters.main.nodes]]\nname = \"b\"\nhost = \"10.0.0.2:5432\"\nport = 0",
        &[
            &["c.toml:12: clusters.main.nodes[1].host: ", "allowed are a name, an IP address"],
            &["c.toml:13: clusters.main.nodes[1].port: 0 is out of range: 1 to 65535"],
        ],
    ),
    (
        "[clusters.b]\ndatabases = [\"x\"]",
        &[
            &["c.toml:10: clusters.b.nodes: there is none", "[[clusters.b.nodes]]"],
            &["c.toml:10: clusters.b.control: is missing", "control = {"],
            &["c.toml:11: clusters.b.databases[0]: database \"x\" is served already by clusters.main", "\"*\""],
        ],
    ),
    (
        "[clusters.b]\nserver_tls_sslmode = \"verify\"\nserver_tls_ca_file = \"no/such\"\ndatabases = []\ncontrol = \
             {}\nnodes = [{ name = \"x\", host = \"h\" }]",
        &[
            &["c.toml:10: clusters.b.databases: is empty"],
            &["c.toml:11: clusters.b.server_tls_sslmode: ", "verify-ca, verify-full"],
            &["c.toml:12: clusters.b.server_tls_ca_file: cannot read "],
            &["c.toml:14: clusters.b.control.user: is missing"],
        ],
    ),
    // All of them, and nothing that only follows from another.
    (
        "[pool]\npool_mode = 1\nx = 2\n[probe]\nrise = \"3\"\n[[clusters.main.nodes]]\nhst = \"h\"",
        &[
            &["c.toml:11: pool.pool_mode: "],
            &["c.toml:12: pool.x: "],
            &["c.toml:14: probe.rise: "],
            &["c.toml:16: clusters.main.nodes[1].hst: ", "did you mean \"host\"?"],
        ],
    ),
];

#[test]
fn mistakes_are_named_with_file_line_key_and_what_is_allowed() {
    for (piece, expected) in MISTAKES {
        let Err(errors) = read(&format!("{GOOD}{piece}")) else { panic!("no error: {piece}") };
        let shown: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(shown.len(), expected.len(), "{piece}\n{errors}");
        for (error, parts) in shown.iter().zip(*expected) {
            assert!(error.starts_with(parts[0]), "{error}\ndoes not start with {}", parts[0]);
            assert!(parts.iter().all(|part| error.contains(part)), "{error}\nhas not all of {parts:?}");
        }
        for secret in ["SECRET", "12345"] {
            assert!(!errors.to_string().contains(secret) && !format!("{errors:?}").contains(secret), "{errors}");
        }
    }
}

/// Unless a cluster serves all databases, those with a table must be among them.
#[test]
fn databases_that_nobody_serves() {
    let text = GOOD.replace("control = {", "databases = [\"shop\", \"hr\"]\nconsistency = \"weak\"\ncontrol = {");
    let errors = read(&format!("{text}[databases.hr]\n[databases.shp]")).unwrap_err().to_string();
    let expected = "c.toml:5: clusters.main.consistency: unknown value \"weak\"; Allowed: eventual, bounded, session, \
                    strong, primary\nc.toml:13: databases.shp: no cluster serves it: unknown database \"shp\"; did you \
                    mean \"shop\"? Allowed: shop, hr";
    assert_eq!(errors, expected);
}

#[test]
fn what_is_promised_is_said_by_the_user_then_the_database_then_the_cluster() {
    let text = GOOD.replace(
        "[[clusters.main.nodes]]",
        "consistency = \"bounded\"\nmax_staleness = \"2s\"\n[[clusters.main.nodes]]",
    ) + "consistency = \"strong\"\n[users.other]\npassword = \"SECRET\"\n[databases.shop]\nmax_staleness = \
           \"3s\"\nconsistency = \"eventual\"\n[databases.hr]\ncausal_wait = \"0s\"\n[routing]\nmax_staleness = \"4s\"";
    let config = read(&text).unwrap();
    for (database, user, level, staleness_s, wait_ms) in [
        ("x", "nobody", Level::Bounded, 2, 50),
        ("x", "other", Level::Bounded, 2, 50),
        ("x", "app", Level::Strong, 2, 50),
        ("shop", "other", Level::Eventual, 3, 50),
        ("shop", "app", Level::Strong, 3, 50),
        ("hr", "other", Level::Bounded, 2, 0),
    ] {
        let expected = Consistency {
            level,
            max_staleness: Duration::from_secs(staleness_s),
            causal_wait: Duration::from_millis(wait_ms),
        };
        assert_eq!(config.consistency(&config.clusters[0], database, user), expected, "{database} {user}");
    }
    let defaults = read(GOOD).unwrap();
    let expected = Consistency {
        level: Level::Session,
        max_staleness: Duration::from_secs(1),
        causal_wait: Duration::from_millis(50),
    };
    assert_eq!(defaults.consistency(&defaults.clusters[0], "x", "app"), expected);
    assert_eq!((defaults.routing.max_spilled_reads, defaults.routing.spill_wait), (0, Duration::from_secs(1)));
}

#[test]
fn nothing_at_all() {
    let errors = read("").unwrap_err().to_string();
    for part in ["c.toml: listeners: there is none", "c.toml: clusters: there is none", "c.toml: users: there is none"]
    {
        assert!(errors.contains(part), "{errors}");
    }
    let errors = load(Path::new("no/such.toml")).unwrap_err().to_string();
    assert!(errors.starts_with("no/such.toml: cannot be read: "), "{errors}");
}

/// Which kinds of password serve which kinds of login.
#[test]
fn credentials() {
    let scram_damaged = "SCRAM-SHA-256$4096:c2FsdA==$AAAA:AAAA";
    for (auth_type, password, error) in [
        ("scram-sha-256", "plain", None),
        ("scram-sha-256", SCRAM, None),
        ("scram-sha-256", MD5, Some("an md5 hash cannot serve auth_type \"scram-sha-256\"; allowed are")),
        ("scram-sha-256", scram_damaged, Some("is no SCRAM verifier; allowed is")),
        ("md5", "plain", None),
        ("md5", MD5, None),
        ("md5", SCRAM, None),
        ("password", "plain", None),
        ("password", MD5, None),
        ("password", SCRAM, None),
        ("trust", "plain", None),
    ] {
        let text = format!("auth_type = {auth_type:?}\n{}", GOOD.replace("\"SECRET\"\n", &format!("{password:?}\n")));
        match (read(&text), error) {
            (Ok(config), None) => {
                let app = &config.users["app"];
                match &app.credential {
                    Credential::Plain(secret) => {
                        assert_eq!(secret.expose(), "plain");
                        assert_eq!(app.server_password.as_ref(), Some(secret), "the nodes get it too");
                    }
                    Credential::Md5(secret) => assert_eq!((secret.expose(), &app.server_password), (MD5, &None)),
                    Credential::Scram(secret) => assert_eq!((secret.expose(), &app.server_password), (SCRAM, &None)),
                    Credential::None => panic!("{text}"),
                }
            }
            (Err(errors), Some(part)) => {
                let shown = errors.to_string();
                assert!(shown.starts_with("c.toml:10: users.app.password: ") && shown.contains(part), "{shown}");
                assert!(!shown.contains(password), "{shown}");
            }
            (result, _) => panic!("{text}\n{result:?}"),
        }
    }
}

#[test]
fn secrets_come_from_files_and_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("causeway.toml");
    for (content, password) in
        [("s3cret", "s3cret"), ("s3cret\n", "s3cret"), ("s3cret\r\n", "s3cret"), (" a b ", " a b ")]
    {
        fs::write(directory.path().join("app.password"), content).unwrap();
        let text = GOOD.replace(
            "password = \"SECRET\"\n",
            "password_file = \"app.password\"\nserver_password_env = \"CARGO_PKG_NAME\"\n",
        );
        fs::write(&file, text).unwrap();
        let config = load(&file).unwrap();
        let app = &config.users["app"];
        assert!(matches!(&app.credential, Credential::Plain(secret) if secret.expose() == password), "{content:?}");
        assert_eq!(app.server_password, Some(Secret::new("causeway")));
        assert!(!format!("{config:?}").contains("s3cret"));
        assert_eq!(config.listeners[0].origin, format!("{}:2", file.display()));
    }
}

#[test]
fn everything_that_can_be_said_arrives() {
    let config = read(&format!(
        "workers = 3\nauth_type = \"md5\"\nshutdown_timeout = \"1.5s\"\n{GOOD}{}",
        r#"pool_mode = "session"
pool_size = 7
replication = true
[[listeners]]
address = "/run/causeway"
port = 7000
[[listeners]]
address = "[::1]"
client_tls_sslmode = "require"
client_tls_cert_file = "Cargo.toml"
client_tls_key_file = "Cargo.lock"
[[clusters.main.nodes]]
name = "b"
host = "/var/run/postgresql"
port = 5433
[routing]
split = false
max_lag_bytes = "64KiB"
fallback = "error"
max_spilled_reads = 20
spill_wait = "0s"
[log]
format = "json"
level = "warn,causeway::topology=debug"
[metrics]
address = "[::1]:0"
"#
    ))
    .unwrap();
    assert_eq!((config.workers, config.auth_type), (3, AuthType::Md5));
    assert_eq!(config.shutdown_timeout, Duration::from_millis(1500));
    assert_eq!(config.listeners[1].address, Address::Unix { directory: "/run/causeway".into(), port: 7000 });
    assert_eq!(config.listeners[2].address, Address::Tcp { host: "::1".into(), port: 6432 });
    let ClientTls::Require { cert_file, key_file } = &config.listeners[2].tls else { panic!("no TLS") };
    assert_eq!((cert_file, key_file), (&Path::new(ROOT).join("Cargo.toml"), &Path::new(ROOT).join("Cargo.lock")));
    let cluster = &config.clusters[0];
    assert!(cluster.databases.is_empty(), "all");
    assert_eq!((cluster.name.as_str(), cluster.server_tls.mode), ("main", SslMode::Prefer));
    assert_eq!(cluster.nodes[0].address, Address::Tcp { host: "10.0.0.1".into(), port: 5432 });
    assert_eq!(cluster.nodes[1].address, Address::Unix { directory: "/var/run/postgresql".into(), port: 5433 });
    assert_eq!((cluster.control.user.as_str(), cluster.control.database.as_str()), ("causeway", "postgres"));
    let app = &config.users["app"];
    assert_eq!((app.pool_mode, app.pool_size, app.replication), (Some(PoolMode::Session), Some(7), true));
    assert_eq!(config.routing.fallback, Fallback::Error);
    assert_eq!((config.routing.split, config.routing.max_lag_bytes), (false, 65_536));
    assert_eq!((config.routing.max_spilled_reads, config.routing.spill_wait), (20, Duration::ZERO));
    assert_eq!((config.log.format, config.log.level.as_str()), (LogFormat::Json, "warn,causeway::topology=debug"));
    let metrics = config.metrics.unwrap();
    assert_eq!((metrics.address.to_string().as_str(), metrics.origin.as_str()), ("[::1]:0", "c.toml:38"));
}

/// `config/causeway.toml` with its comments taken off wherever they hide a setting.
fn reference(with_examples: bool) -> String {
    let text = fs::read_to_string(Path::new(ROOT).join("config/causeway.toml")).unwrap();
    let setting = |line: &str| {
        let hidden =
            line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()));
        match hidden {
            Some(example) if example.contains("# no default") && !with_examples => String::new(),
            Some(setting) => setting.to_owned(),
            None => line.to_owned(),
        }
    };
    text.lines().map(setting).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_reference_shows_the_real_defaults() {
    let (_, _, errors) = Document::parse("causeway.toml", &reference(true));
    assert_eq!(errors, []);
    let (_, mut shown, errors) = Document::parse("causeway.toml", &reference(false));
    assert_eq!(errors, []);

    // What one must choose is not a default: it stands on both sides.
    let raw::Listener { address, .. } = shown.listeners.remove(0).into_inner();
    let listener = raw::Listener { address, ..Default::default() };
    let (name, cluster) = shown.clusters.pop_first().unwrap();
    let control = cluster.get_ref().control.clone().unwrap().into_inner();
    let control = raw::Control { user: control.user, ..Default::default() };
    let nodes = cluster.get_ref().nodes.iter().map(|node| {
        let raw::Node { name, host, .. } = node.get_ref().clone();
        raw::unset(raw::Node { name, host, ..Default::default() })
    });
    let nodes = nodes.collect();
    let defaults = raw::Cluster { control: Some(raw::unset(control)), nodes, ..Default::default() };

    let expected = raw::File {
        listeners: vec![raw::unset(listener)],
        clusters: [(name, raw::unset(defaults))].into(),
        users: shown.users,
        ..Default::default()
    };
    let (_, whole, _) = Document::parse("causeway.toml", &reference(false));
    assert_eq!(whole, expected);
}

#[test]
fn the_files_we_ship_load() {
    let directory = Path::new(ROOT).join("config");
    for name in ["causeway.toml", "minimal.toml"] {
        let config = load(&directory.join(name)).unwrap();
        assert_eq!(config.clusters[0].nodes.len(), 2, "{name}");
    }
}

#[test]
fn levels() {
    for good in ["info", "off", "info,causeway=debug", "causeway::topology=trace,hyper=warn"] {
        assert_eq!(check_level(good), Ok(()), "{good}");
        assert!(tracing_subscriber::EnvFilter::try_new(good).is_ok(), "{good}");
    }
    for bad in ["", "INFO ", "inof", "info,", "causeway=", "=debug", "causeway[x]=debug"] {
        assert!(check_level(bad).unwrap_err().contains("Allowed: off, error"), "{bad}");
    }
}

fn urls(
    primary: &str,
    replicas: &[&str],
    listen: Option<&str>,
    password: Option<&str>,
) -> Result<Config, ConfigErrors> {
    let replicas: Vec<_> = replicas.iter().map(ToString::to_string).collect();
    from_urls_and_password(primary, &replicas, listen, Some("127.0.0.1:9187"), password.map(str::to_owned))
}

#[test]
fn urls_make_a_configuration() {
    let config = urls(
        "postgres://app%40x:s%3Acret%2F@db1:5433/shop?sslmode=verify-full&sslrootcert=Cargo%2Etoml",
        &["postgresql://[::1]", "postgres://%2Frun%2Fpg/shop", "postgres://app%40x@db1?port=5434&sslmode=verify-full"],
        Some("*:7000"),
        None,
    )
    .unwrap();
    let cluster = &config.clusters[0];
    let nodes: Vec<_> = cluster.nodes.iter().map(|node| (node.name.clone(), node.address.to_string())).collect();
    for ((name, address), expected) in nodes.iter().zip(["db1:5433", "[::1]:5432", "/run/pg/.s.PGSQL.5432", "db1:5434"])
    {
        assert_eq!((name.as_str(), address.as_str()), (expected, expected));
    }
    assert_eq!(nodes.len(), 4);
    assert_eq!(cluster.server_tls.mode, SslMode::VerifyFull);
    assert_eq!(cluster.server_tls.root_cert_file.as_deref(), Some(Path::new("Cargo.toml")));
    assert_eq!((cluster.control.user.as_str(), cluster.control.database.as_str()), ("app@x", "shop"));
    assert_eq!(cluster.control.password, Some(Secret::new("s:cret/")));
    assert_eq!(config.users["app@x"].server_password, Some(Secret::new("s:cret/")));
    assert_eq!((config.auth_type, config.users.len()), (AuthType::ScramSha256, 1));
    assert_eq!(
        (config.listeners[0].address.to_string(), config.listeners[0].origin.as_str()),
        ("*:7000".into(), "--listen")
    );
    assert_eq!(config.metrics.unwrap().origin, "--metrics");
}

#[test]
fn urls_without_a_password() {
    let config = urls("postgres://app@db", &[], None, Some("from env")).unwrap();
    assert_eq!(config.users["app"].server_password, Some(Secret::new("from env")));
    assert_eq!(config.auth_type, AuthType::ScramSha256);
    assert_eq!(config.listeners[0].address.to_string(), "127.0.0.1:6432");
    assert_eq!(config.clusters[0].control.database, "postgres");
    for private in [None, Some("localhost:1"), Some("[::1]:1"), Some("/run/causeway")] {
        let config = urls("postgres://app@db", &[], private, None).unwrap();
        assert_eq!((config.auth_type, &config.users["app"].server_password), (AuthType::Trust, &None));
    }
}

#[test]
fn mistakes_in_urls() {
    const GOOD: &str = "postgres://app:SECRET@db/shop";
    for (primary, replica, listen, expected) in [
        ("db:5432", GOOD, None, "--primary: is no URL such as postgres://"),
        ("host=db user=app", GOOD, None, "--primary: is no URL such as postgres://"),
        ("postgres://app:SECRET@db:x/shop", GOOD, None, "--primary: is no URL"),
        ("postgres://app:SECRET@", GOOD, None, "--primary: has no host"),
        ("postgres://app:SEC@RET@db", "postgres://x", None, "--primary: has an @ in its password; write %40"),
        ("postgres://app:SECRET@a,b", "postgres://x", None, "--primary: has more than one host"),
        ("postgres://app:SECRET%ff@a", "postgres://x", None, "--primary: has a password that is not UTF-8"),
        ("postgres://db", "postgres://x", None, "--primary: has no user"),
        ("postgres://app:SECRET@a b", "postgres://x", None, "--primary: \"a b\" is no host"),
        (
            "postgres://app:SECRET@a?sslmod=x",
            "postgres://x",
            None,
            "--primary: unknown parameter \"sslmod\"; did you mean",
        ),
        (
            "postgres://app:SECRET@a?sslmode=x",
            "postgres://x",
            None,
            "--primary: unknown sslmode \"x\"; Allowed: disable",
        ),
        ("postgres://app:SECRET@a?connect_timeout=1", "postgres://x", None, "--primary: unknown parameter"),
        (GOOD, "postgres://db", None, "--replica (number 1): db:5432 is the address of --primary too"),
        (GOOD, "postgres://you@x", None, "--replica (number 1): has another user than --primary"),
        (GOOD, "postgres://x?sslmode=require", None, "--replica (number 1): has another sslmode than --primary"),
        (GOOD, "postgres://x", Some("x:y"), "--listen: \"x:y\" is no address to listen on"),
        (GOOD, "postgres://x", Some("*:9187"), "--metrics: 127.0.0.1:9187 is taken by --listen"),
        ("postgres://app@db", "postgres://x", Some("0.0.0.0:1"), "--listen: everyone who can reach this address"),
    ] {
        let errors = urls(primary, &[replica], listen, None).unwrap_err().to_string();
        assert!(errors.lines().count() <= 2 && errors.contains(expected), "{primary} {replica}\n{errors}");
        assert!(!errors.contains("SECRET") && !errors.contains("RET"), "{errors}");
    }
}

proptest! {
    /// Damaged text is refused or read, in finite time.
    #[test]
    fn nothing_panics(start in 0..8000_usize, length in 0..200_usize, put in "[\\[\\]{}=\"'#.,a-z0-9\n ]{0,8}") {
        let mut text = reference(true);
        prop_assert!(text.is_ascii());
        let [start, end] = [start, start + length].map(|at| at.min(text.len()));
        text.replace_range(start..end, &put);
        if let Err(errors) = read(&text) {
            prop_assert!(errors.iter().all(|error| error.file == "c.toml" && !error.problem.is_empty()));
        }
    }
}
