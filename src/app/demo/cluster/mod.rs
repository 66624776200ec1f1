//! A throw-away PostgreSQL primary with streaming replicas, for the demo and for tests.

mod install;
mod node;
mod watchdog;

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use tempfile::TempDir;

pub use install::Install;
pub use node::{LocalNode, Stop, free_port};
use watchdog::Watchdog;

/// Why a local cluster could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(
        "PostgreSQL's programs (initdb, postgres, pg_basebackup, psql) were not found in $PGBIN, by $PG_CONFIG, in \
         /usr/lib/postgresql/*/bin or in $PATH: install the distribution's package `postgresql`"
    )]
    NoPostgres,
    #[error("{0} holds no initdb: check $PGBIN and $PG_CONFIG, or install the distribution's package `postgresql`")]
    NoInitdb(PathBuf),
    #[error("PostgreSQL refuses to run as root, and there is neither a user `postgres` nor a user `nobody`")]
    NoUser,
    #[error("nobody gave a free port between {} and {}", .0.start, .0.end)]
    NoPort(Range<u16>),
    #[error("{program} failed: {output}")]
    Failed { program: String, output: String },
    #[error("{node} ended while it started; its log says:\n{log}")]
    Ended { node: String, log: String },
    #[error("{node} did not {what} within {limit:?}")]
    Slow { node: String, what: &'static str, limit: Duration },
    #[error("cannot send {signal} to process {pid}: {errno}")]
    Signal { pid: i32, signal: Signal, errno: nix::errno::Errno },
    #[error("cannot {what} {path}: {cause}")]
    Io { what: &'static str, path: PathBuf, cause: io::Error },
}

impl ClusterError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Io { what, path: path.to_owned(), cause }
    }
}

pub type Result<T, E = ClusterError> = std::result::Result<T, E>;

/// What the cluster is made of. `Default`: two replicas, 100 connections, no TLS.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    pub replicas: usize,
    pub max_connections: u32,
    /// Lines of `postgresql.conf` for all nodes; they win over ours.
    pub extra_conf: String,
    /// Lines of `pg_hba.conf` for all nodes; they win over ours.
    pub extra_hba: String,
    pub tls: Option<TlsIdentity>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { replicas: 2, max_connections: 100, extra_conf: String::new(), extra_hba: String::new(), tls: None }
    }
}

/// What the nodes prove with who they are.
#[derive(Clone, Debug)]
pub struct TlsIdentity {
    pub cert_pem: String,
    pub key_pem: String,
}

/// A primary and its replicas in a temporary directory. Roles log in with scram-sha-256; the superuser `postgres`
/// needs no password, over the Unix socket only. Every statement is in the log of the node that ran it.
///
/// Dropping it stops what it started and removes the directory; if the process is killed, a watchdog does.
#[derive(Debug)]
pub struct LocalCluster {
    // In the order in which they have to go.
    nodes: Vec<LocalNode>,
    _watchdog: Watchdog,
    root: TempDir,
}

impl LocalCluster {
    /// Makes and starts the nodes, and waits until all replicas stream.
    pub fn start(options: &ClusterOptions) -> Result<Self> {
        let install = Arc::new(Install::find()?);
        let root = tempfile::Builder::new().prefix("causeway-").tempdir();
        let root = root.map_err(ClusterError::io("make a directory in", &std::env::temp_dir()))?;
        install.own(root.path())?;
        let watchdog = Watchdog::start(root.path())?;
        initdb(&install, root.path(), options)?;
        let primary = LocalNode::launch(&install, root.path(), "primary")?;
        let mut nodes = vec![primary];
        let replicas: Vec<Result<LocalNode>> = thread::scope(|scope| {
            let (install, primary) = (&install, &nodes[0]);
            let root = root.path();
            let threads: Vec<_> = (1..=options.replicas)
                .map(|number| scope.spawn(move || add_replica(install, root, primary, &format!("replica{number}"))))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        for replica in replicas {
            nodes.push(replica?);
        }
        let cluster = Self { nodes, _watchdog: watchdog, root };
        cluster.catch_up()?;
        Ok(cluster)
    }

    /// The node that began as the primary.
    pub fn primary(&self) -> &LocalNode {
        &self.nodes[0]
    }

    /// The nodes that began as replicas.
    pub fn replicas(&self) -> &[LocalNode] {
        &self.nodes[1..]
    }

    /// The primary, then the replicas.
    pub fn nodes(&self) -> &[LocalNode] {
        &self.nodes
    }

    /// The directory that goes when the cluster goes.
    pub fn directory(&self) -> &Path {
        self.root.path()
    }

    /// Makes a role that may log in; `attributes` as in `CREATE ROLE` (`SUPERUSER`, `IN ROLE pg_monitor`).
    pub fn create_role(&self, name: &str, password: &str, attributes: &str) -> Result<()> {
        let (name, password) = (escape_identifier(name), escape_literal(password));
        self.primary().sql("postgres", &format!("CREATE ROLE {name} LOGIN PASSWORD {password} {attributes}"))?;
        Ok(())
    }

    /// Makes a database that belongs to `owner`.
    pub fn create_database(&self, name: &str, owner: &str) -> Result<()> {
        let (name, owner) = (escape_identifier(name), escape_identifier(owner));
        // Nobody can be connected to template0, and so be in the way.
        self.primary().sql("postgres", &format!("CREATE DATABASE {name} OWNER {owner} TEMPLATE template0"))?;
        Ok(())
    }

    /// Waits until all replicas show what is committed on the primary now.
    pub fn catch_up(&self) -> Result<()> {
        let position = self.primary().sql("postgres", "SELECT pg_current_wal_flush_lsn()")?;
        // A query on a replica may hold replay up for max_standby_streaming_delay, 30 s.
        let wait = format!(
            "SET statement_timeout = '90s'; DO $$ BEGIN WHILE pg_last_wal_replay_lsn() < '{position}' LOOP \
             PERFORM pg_sleep(0.002); END LOOP; END $$"
        );
        // Replay itself may cancel the question.
        self.replicas().iter().try_for_each(|replica| {
            replica.sql("postgres", &wait).or_else(|_| replica.sql("postgres", &wait)).map(drop)
        })
    }

    /// The names of the nodes that were given a statement with `marker` in it, whether or not it went well. A node
    /// logs a statement before it runs it, so what has been answered is there.
    pub fn ran_on(&self, marker: &str) -> Result<Vec<&str>> {
        let mut names = Vec::new();
        for node in &self.nodes {
            if memchr::memmem::find(&node.log()?, marker.as_bytes()).is_some() {
                names.push(node.name());
            }
        }
        Ok(names)
    }
}

fn initdb(install: &Install, root: &Path, options: &ClusterOptions) -> Result<()> {
    let data = root.join("primary");
    let mut command = install.command("initdb");
    command.args(["-N", "--no-instructions", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-D"]);
    command.arg(&data);
    run(command)?;
    if let Some(tls) = &options.tls {
        for (name, text) in [("server.crt", &tls.cert_pem), ("server.key", &tls.key_pem)] {
            let path = data.join(name);
            write(&path, text)?;
            // PostgreSQL takes no key that others could read.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
                .map_err(ClusterError::io("protect", &path))?;
            install.own(&path)?;
        }
    }
    write(&data.join("postgresql.conf"), &settings(root, options))?;
    let hba = [
        &options.extra_hba,
        "local all postgres trust",
        "local replication postgres trust",
        "local all all scram-sha-256",
        "host all all 127.0.0.1/32 scram-sha-256",
        "host replication all 127.0.0.1/32 scram-sha-256",
        "",
    ];
    write(&data.join("pg_hba.conf"), &hba.join("\n"))
}

fn settings(root: &Path, options: &ClusterOptions) -> String {
    format!(
        "listen_addresses = '127.0.0.1'\n\
         unix_socket_directories = '{sockets}'\n\
         max_connections = {max_connections}\n\
         ssl = {ssl}\n\
         shared_buffers = '32MB'\n\
         fsync = off\n\
         full_page_writes = off\n\
         wal_level = logical\n\
         wal_keep_size = '256MB'\n\
         max_wal_senders = {senders}\n\
         max_replication_slots = {senders}\n\
         max_prepared_transactions = 20\n\
         hot_standby = on\n\
         password_encryption = 'scram-sha-256'\n\
         timezone = 'UTC'\n\
         log_timezone = 'UTC'\n\
         log_statement = 'all'\n\
         log_line_prefix = '%m [%p] %u@%d %a '\n\
         {extra}\n",
        sockets = root.display(),
        max_connections = options.max_connections,
        // A base backup takes two, and all are taken at once; the rest is for whoever else replicates.
        senders = 10 + 2 * options.replicas,
        ssl = if options.tls.is_some() { "on" } else { "off" },
        extra = options.extra_conf,
    )
}

fn add_replica(install: &Arc<Install>, root: &Path, primary: &LocalNode, name: &str) -> Result<LocalNode> {
    let mut command = install.command("pg_basebackup");
    // The connection string goes into the replica's settings as it is (-R): there it names the replica to the primary.
    let source = format!("host={} port={} user=postgres application_name={name}", root.display(), primary.port());
    command.args(["-R", "-C", "-X", "stream", "-c", "fast", "-N", "-S", name, "-d", &source, "-D"]);
    command.arg(root.join(name));
    run(command)?;
    LocalNode::launch(install, root, name)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(ClusterError::io("write", path))
}

/// Runs a program to its end and gives what it printed.
fn run(mut command: Command) -> Result<String> {
    let program = command.get_program().to_owned();
    let output = command.output().map_err(ClusterError::io("run", Path::new(&program)))?;
    if !output.status.success() {
        let output = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
        return Err(ClusterError::Failed { program: program.to_string_lossy().into_owned(), output });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
