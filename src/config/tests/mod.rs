//! Files that are right, and those that are wrong.

mod consistency;
mod mistakes;
mod urls;

use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::document::Document;
use super::validate::validate;
use super::{
    Address, AuthType, ClientTls, Config, ConfigErrors, Credential, Fallback, LogFormat, SslMode, Timeouts,
    check_level, load, raw,
};
use crate::types::{PoolMode, Secret};

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

/// Behind `[users.app]`.
const EVERYTHING: &str = r#"pool_mode = "session"
pool_size = 7
replication = true
max_user_client_connections = 5
query_timeout = "9s"
[databases.shop]
max_db_client_connections = 0
[limits]
max_user_client_connections = 6
max_db_client_connections = 7
query_timeout = "30s"
idle_transaction_timeout = "10s"
max_batch_size = "1MiB"
max_memory = "2MiB"
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
hold_timeout = "5s"
max_held_statements = 7
resolve_commits = false
[log]
format = "json"
level = "warn,causeway::topology=debug"
[metrics]
address = "[::1]:0"
"#;

#[test]
fn everything_that_can_be_said_arrives() {
    let config = read(&format!(
        "workers = 3\nauth_type = \"md5\"\nshutdown_timeout = \"1.5s\"\nadmin_users = [\"app\"]\nstats_users = [\"app\"]\n{GOOD}{EVERYTHING}"
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
    assert_eq!((&config.admin_users, &config.stats_users), (&vec!["app".to_owned()], &vec!["app".to_owned()]));
    let clients = ["app", "other"].map(|user| config.user_clients(user));
    assert_eq!(clients, [Some(5), Some(6)]);
    let clients = ["shop", "other"].map(|database| config.database_clients(database));
    assert_eq!(clients, [None, Some(7)]);
    assert_eq!(config.shortest_timeout(), Some(Duration::from_secs(9)));
    let [query, idle_transaction] = [9, 10].map(Duration::from_secs);
    assert_eq!(*app.timeouts, Timeouts { query, idle_transaction, ..Timeouts::default() });
    assert_eq!(config.limits.memory_bytes, 2 << 20);
    assert_eq!(config.routing.fallback, Fallback::Error);
    assert_eq!((config.routing.split, config.routing.max_lag_bytes), (false, 65_536));
    assert_eq!((config.routing.max_spilled_reads, config.routing.spill_wait), (20, Duration::ZERO));
    assert_eq!(
        (config.routing.hold_timeout, config.routing.max_held_statements, config.routing.resolve_commits),
        (Duration::from_secs(5), 7, false)
    );
    assert_eq!((config.log.format, config.log.level.as_str()), (LogFormat::Json, "warn,causeway::topology=debug"));
    let metrics = config.metrics.unwrap();
    assert_eq!((metrics.address.to_string().as_str(), metrics.origin.as_str()), ("[::1]:0", "c.toml:54"));
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

#[test]
fn the_console_is_for_users_that_there_are() {
    for key in ["admin_users", "stats_users"] {
        let errors = read(&format!("{key} = [\"app\", \"nobody\"]\n{GOOD}")).unwrap_err().to_string();
        assert!(errors.starts_with(&format!("c.toml:1: {key}[1]: there is no user \"nobody\"")), "{errors}");
    }
}
