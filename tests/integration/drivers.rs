//! Drivers and tools, unchanged, over TLS with the server's certificate verified and scram-sha-256: every feature of
//! theirs that a program in `tests/drivers` tries gives through the proxy, in session mode and in transaction mode
//! with splitting, what it gives without it.
//!
//! A program prints `== FEATURE` and then what the driver saw. In these databases a commit waits for the replicas
//! (`synchronous_commit = remote_apply`), so that a read on a replica is as new as one on the primary.

mod dump;
mod programs;
mod rust;
mod sqlx;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use self::programs::compare;
use crate::harness::{Database, Env, Test, USER, identity, wait_for};
use crate::proxy::Proxy;
use crate::target::Target;

pub const TESTS: &[Test] = &[
    ("drivers::psql", |env| compare(env, "psql", PSQL)),
    ("drivers::psycopg2", |env| compare(env, "psycopg2", &[PYTHON, "tests/drivers/psycopg2_driver.py"])),
    ("drivers::psycopg3", |env| compare(env, "psycopg3", &[PYTHON, "tests/drivers/psycopg3_driver.py"])),
    ("drivers::asyncpg", |env| compare(env, "asyncpg", &[PYTHON, "tests/drivers/asyncpg_driver.py"])),
    ("drivers::sqlalchemy", |env| compare(env, "sqlalchemy", &[PYTHON, "tests/drivers/sqlalchemy_driver.py"])),
    ("drivers::django", |env| compare(env, "django", &[PYTHON, "tests/drivers/django_driver.py"])),
    ("drivers::node_postgres", |env| compare(env, "node_postgres", &["node", "tests/drivers/node_postgres_driver.js"])),
    ("drivers::postgres_js", |env| compare(env, "postgres_js", &["node", "tests/drivers/postgres_js_driver.js"])),
    ("drivers::jdbc", |env| compare(env, "jdbc", JDBC)),
    ("drivers::tokio_postgres", rust::tokio_postgres),
    ("drivers::sqlx", sqlx::sqlx),
    ("drivers::pg_dump", dump::pg_dump_and_pg_restore),
    ("drivers::psql_cancels", psql_cancels),
];

/// What `make install-test-deps` installs Python's drivers for.
const PYTHON: &str = "target/drivers/python/bin/python";

const PSQL: &[&str] = &["psql", "-Xq", "-v", "VERBOSITY=verbose", "-f", "tests/drivers/psql.sql"];

/// A JVM for a program that is over in a few seconds.
const JDBC: &[&str] =
    &["java", "-XX:TieredStopAtLevel=1", "-cp", "/usr/share/java/postgresql.jar", "tests/drivers/Driver.java"];

const LIMIT: Duration = Duration::from_secs(20);

/// How a client gets to the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Direct,
    Session,
    Transaction,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Direct, Self::Session, Self::Transaction];
}

/// A proxy for each mode whose clients must use TLS, and how they know it.
pub struct Proxies {
    session: Proxy,
    transaction: Proxy,
    directory: TempDir,
}

impl Proxies {
    pub fn start(env: &Env) -> Self {
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
        let start = |mode: &str| {
            Proxy::start_as(&env.shared().cluster, |text| {
                text.replacen("[clusters.demo]", &tls, 1) + &format!("[pool]\npool_mode = \"{mode}\"\n")
            })
        };
        Self { session: start("session"), transaction: start("transaction"), directory }
    }

    fn proxy(&self, mode: Mode) -> Option<&Proxy> {
        match mode {
            Mode::Direct => None,
            Mode::Session => Some(&self.session),
            Mode::Transaction => Some(&self.transaction),
        }
    }
}

/// A database of `driver`'s own.
pub fn database<'a>(env: &'a Env, driver: &str) -> Database<'a> {
    let database = env.database(&format!("driver_{driver}"));
    database.prepare(&format!(
        "ALTER DATABASE {} SET synchronous_commit = remote_apply; \
         CREATE TABLE driver_seed (id int PRIMARY KEY, line text); \
         INSERT INTO driver_seed SELECT n, 'line ' || n FROM generate_series(0, 1999) n; \
         CREATE TABLE driver_test (LIKE driver_seed INCLUDING ALL); \
         CREATE SEQUENCE driver_sequence; ALTER SEQUENCE driver_sequence OWNER TO app; \
         ALTER TABLE driver_seed OWNER TO app; ALTER TABLE driver_test OWNER TO app; \
         GRANT CREATE ON SCHEMA public TO app",
        database.name
    ));
    database
}

/// A database, and a way there.
pub struct Place<'a> {
    env: &'a Env,
    pub mode: Mode,
    pub database: &'a Database<'a>,
    pub target: Target,
}

impl<'a> Place<'a> {
    pub fn new(env: &'a Env, database: &'a Database<'a>, mode: Mode) -> Self {
        let proxy = env.drivers().proxy(mode);
        let target = proxy.map_or_else(|| database.node(0), |proxy| proxy.target(&database.name));
        let place = Self { env, mode, database, target };
        if let (Mode::Transaction, Some(proxy)) = (mode, proxy) {
            // Without what the catalog says of functions and operators most reads would go to the primary.
            place.run(&["psql", "-Xqo", "/dev/null", "-c", "SELECT"]);
            proxy.facts_loaded(&database.name, 1);
        }
        place
    }

    /// A program that is led here by libpq's environment, and believes in this certificate only.
    pub fn command(&self, line: &[&str]) -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (name, arguments) = line.split_first().unwrap();
        let name = if name.starts_with("target/") { root.join(name) } else { PathBuf::from(name) };
        assert!(
            name.components().count() == 1 || name.exists(),
            "{} is not there: run `make install-test-deps`",
            name.display()
        );
        let mut command = Command::new(name);
        command.args(arguments).current_dir(root);
        self.target.lead(&mut command);
        let (_, file) = self.ca();
        command.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", file);
        command
    }

    /// The certificates to believe in, as text and as a file.
    pub fn ca(&self) -> (String, PathBuf) {
        let name = if self.mode == Mode::Direct { "node-ca.crt" } else { "proxy-ca.crt" };
        let file = self.env.drivers().directory.path().join(name);
        (fs::read_to_string(&file).unwrap(), file)
    }

    /// What a program prints; it must succeed.
    pub fn run(&self, line: &[&str]) -> String {
        self.target.run(self.command(line))
    }

    /// The nodes that ran something of this database's user.
    pub fn nodes_used(&self) -> Vec<&str> {
        self.env.shared().cluster.ran_on(&format!("{USER}@{} ", self.database.name)).unwrap()
    }
}

/// What `run` gives in each mode, at the same time.
pub fn in_all_modes<T: Send>(run: impl Fn(Mode) -> T + Sync) -> [T; 3] {
    thread::scope(|scope| {
        let run = &run;
        Mode::ALL.map(|mode| scope.spawn(move || run(mode))).map(|thread| thread.join().unwrap())
    })
}

fn psql_cancels(env: &Env) {
    let database = database(env, "psql_cancels");
    let place = Place::new(env, &database, Mode::Transaction);
    let marker = format!("a long sleep in {}", database.name);
    let mut command = place.command(&["psql", "-Xq", "-c", &format!("SELECT pg_sleep(60) -- {marker}")]);
    let psql = command.stderr(Stdio::piped()).spawn().unwrap();
    let cluster = &env.shared().cluster;
    wait_for(LIMIT, "the statement runs", || !cluster.ran_on(&marker).unwrap().is_empty());
    kill(Pid::from_raw(i32::try_from(psql.id()).unwrap()), Signal::SIGINT).unwrap();
    let output = psql.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("canceling statement due to user request"), "{text}");
}
