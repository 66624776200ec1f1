//! Drivers over TLS, with the server's certificate verified, and scram-sha-256: queries, COPY both ways, transactions,
//! prepared statements and a cancel give through the proxy what they give without it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::harness::{Database, Env, Test, identity, wait_for};
use crate::proxy::Proxy;
use crate::target::Target;

pub const TESTS: &[Test] = &[
    ("drivers::psql", |env| compare(env, "psql", "psql", &["-Xq", "-f", "tests/drivers/psql.sql"])),
    ("drivers::psycopg2", |env| compare(env, "psycopg2", SYSTEM_PYTHON, &["tests/drivers/psycopg2_driver.py"])),
    ("drivers::psycopg3", |env| compare(env, "psycopg3", PYTHON, &["tests/drivers/psycopg3_driver.py"])),
    ("drivers::asyncpg", |env| compare(env, "asyncpg", PYTHON, &["tests/drivers/asyncpg_driver.py"])),
    ("drivers::node_postgres", |env| compare(env, "node", "node", &["tests/drivers/node_driver.js"])),
    ("drivers::psql_cancels", psql_cancels),
];

/// Debian's own, which has the distribution's psycopg2.
const SYSTEM_PYTHON: &str = "/usr/bin/python3";

/// What `make install-test-deps` installs the drivers for.
const PYTHON: &str = "target/drivers/python/bin/python";
const NODE_MODULES: &str = "target/drivers/node/node_modules";
const LIMIT: Duration = Duration::from_secs(20);

fn program(name: &str, arguments: &[&str]) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let name = if name.starts_with("target/") { root.join(name) } else { PathBuf::from(name) };
    assert!(
        name.components().count() == 1 || name.exists(),
        "{} is not there: run `make install-test-deps`",
        name.display()
    );
    let mut command = Command::new(name);
    command.args(arguments).current_dir(root).env("NODE_PATH", root.join(NODE_MODULES));
    command
}

/// A proxy whose clients must use TLS, and how they know it.
struct Secure {
    proxy: Proxy,
    directory: TempDir,
}

impl Secure {
    fn start(env: &Env) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (ca_pem, identity) = identity();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write("node-ca.crt", &env.shared().ca_pem);
        write("proxy-ca.crt", &ca_pem);
        write("proxy.crt", &identity.cert_pem);
        write("proxy.key", &identity.key_pem);
        let tls = format!(
            "client_tls_sslmode = \"require\"\nclient_tls_cert_file = \"{0}/proxy.crt\"\n\
             client_tls_key_file = \"{0}/proxy.key\"\n\n[clusters.demo]",
            directory.path().display()
        );
        let proxy = Proxy::start_as(&env.shared().cluster, |text| text.replacen("[clusters.demo]", &tls, 1));
        Self { proxy, directory }
    }

    /// Makes a program of libpq's family, or of one that knows its environment, believe in this certificate only.
    fn secure<'a>(&self, command: &'a mut Command, ca: &str) -> &'a mut Command {
        command.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", self.directory.path().join(ca))
    }
}

fn database<'a>(env: &'a Env, name: &str) -> Database<'a> {
    let database = env.database(&format!("driver_{name}"));
    database.prepare(
        "CREATE TABLE driver_seed (id int PRIMARY KEY, line text); \
         INSERT INTO driver_seed SELECT n, 'line ' || n FROM generate_series(0, 1999) n; \
         CREATE TABLE driver_test (LIKE driver_seed INCLUDING ALL); \
         ALTER TABLE driver_seed OWNER TO app; ALTER TABLE driver_test OWNER TO app",
    );
    database
}

/// Runs the driver's script against the primary and through the proxy.
fn compare(env: &Env, name: &str, interpreter: &str, script: &[&str]) {
    let database = database(env, name);
    let secure = Secure::start(env);
    let run = |target: &Target, ca: &str| {
        let mut command = program(interpreter, script);
        secure.secure(&mut command, ca);
        target.run(command)
    };
    let direct = run(&database.node(0), "node-ca.crt");
    database.prepare("TRUNCATE driver_test");
    let through = run(&secure.proxy.target(&database.name), "proxy-ca.crt");
    assert!(direct.lines().count() > 8 && !direct.contains("False") && !direct.contains("false"), "{direct}");
    assert_eq!(through, direct);
}

fn psql_cancels(env: &Env) {
    let database = database(env, "psql_cancels");
    let secure = Secure::start(env);
    let target = secure.proxy.target(&database.name);
    let marker = format!("a long sleep in {}", database.name);
    let sleep = format!("SELECT pg_sleep(60) -- {marker}");
    let mut command = program("psql", &["-Xq", "-c", &sleep]);
    secure.secure(&mut command, "proxy-ca.crt");
    target.lead(&mut command);
    let psql = command.stderr(Stdio::piped()).spawn().unwrap();
    let cluster = &env.shared().cluster;
    wait_for(LIMIT, "the statement runs", || !cluster.ran_on(&marker).unwrap().is_empty());
    kill(Pid::from_raw(i32::try_from(psql.id()).unwrap()), Signal::SIGINT).unwrap();
    let output = psql.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("canceling statement due to user request"), "{text}");
}
