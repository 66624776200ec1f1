//! The nodes that everything is measured on: a primary and two replicas, thrown away at the end.

use std::fs;
use std::path::Path;
use std::process::Command;

use causeway::app::demo::Login;
use causeway::app::demo::cluster::{ClusterOptions, Install, LocalCluster};

use crate::Result;
use crate::procfs;

/// Rows of the table `rows`, and of a result that is all of it.
pub const ROWS: u32 = 1_000_000;

/// Statements are not logged, as nobody does in earnest. With four addresses two replicas can stand for eight.
const SETTINGS: &str = "log_statement = 'none'\n\
     listen_addresses = '127.0.0.1,127.0.0.2,127.0.0.3,127.0.0.4'\n\
     shared_buffers = '128MB'\n\
     max_wal_size = '4GB'\n\
     checkpoint_timeout = '30min'\n\
     autovacuum_naptime = '5min'\n\
     max_parallel_workers_per_gather = 0\n";

#[derive(Debug)]
pub struct Stage {
    pub cluster: LocalCluster,
    pub install: Install,
    pub app: Login,
    pub control: Login,
}

impl Stage {
    /// Starts the nodes and fills pgbench's tables, scale 10.
    pub fn build() -> Result<Self> {
        // A client of a relay is a connection, and so is one of pgpool-II, which keeps it, too.
        let options =
            ClusterOptions { max_connections: 600, extra_conf: SETTINGS.to_owned(), ..ClusterOptions::default() };
        let stage = Self {
            cluster: LocalCluster::start(&options)?,
            install: Install::find()?,
            app: Login { user: "app", password: password()?, database: "bench" },
            control: Login { user: "causeway", password: password()?, database: "postgres" },
        };
        stage.cluster.create_role(stage.app.user, &stage.app.password, "")?;
        stage.cluster.create_role(stage.control.user, &stage.control.password, "IN ROLE pg_monitor")?;
        stage.cluster.create_database(stage.app.database, stage.app.user)?;
        let mut pgbench = stage.client("pgbench", stage.cluster.primary().port());
        let output = pgbench.args(["-i", "-q", "-s", "10", stage.app.database]).output()?;
        if !output.status.success() {
            return Err(format!("pgbench -i failed: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        stage.cluster.catch_up()?;
        Ok(stage)
    }

    /// Makes `rows`, whose every row is 87 bytes in a `DataRow` frame: five for the header, two for the number of
    /// columns, four for the length of each, and 8 + 64 of text. `copied` is where COPY puts them: it is unlogged, or
    /// the replicas would replay it while the proxy is measured.
    pub fn add_rows(&self) -> Result<()> {
        let app = self.app.user;
        self.cluster.primary().sql(
            self.app.database,
            &format!(
                "SET ROLE {app}; \
                 CREATE TABLE rows AS SELECT lpad(i::text, 8, '0') AS a, repeat('x', 64) AS b \
                 FROM generate_series(1, {ROWS}) AS i; \
                 CREATE UNLOGGED TABLE copied (a text, b text, c text)"
            ),
        )?;
        self.cluster.primary().sql(self.app.database, "VACUUM ANALYZE rows")?;
        Ok(self.cluster.catch_up()?)
    }

    /// What the nodes hold of `app`'s password.
    pub fn verifier(&self) -> Result<String> {
        let question = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{}'", self.app.user);
        Ok(self.cluster.primary().sql("postgres", &question)?)
    }

    /// A client program that logs in as `app` where its arguments don't say otherwise.
    pub fn client(&self, program: &str, port: u16) -> Command {
        let mut command = self.install.client(program);
        command.env("PGPASSWORD", &self.app.password).env("PGCONNECT_TIMEOUT", "5");
        command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", self.app.user]);
        command
    }

    pub fn directory(&self) -> &Path {
        self.cluster.directory()
    }

    /// The processes of all nodes.
    pub fn postgres_pids(&self) -> Vec<u32> {
        let postmaster = |name: &str| {
            let text = fs::read_to_string(self.directory().join(name).join("postmaster.pid")).ok()?;
            text.lines().next()?.parse().ok()
        };
        self.cluster.nodes().iter().filter_map(|node| postmaster(node.name())).flat_map(procfs::family).collect()
    }
}

fn password() -> Result<String> {
    Ok(format!("{:016x}", getrandom::u64().map_err(std::io::Error::from)?))
}
