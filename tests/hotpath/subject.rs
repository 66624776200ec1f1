//! What is measured: Causeway as released, or the distribution's PgBouncer, in front of the same nodes.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use causeway::app::demo::cluster::{LocalCluster, free_port};
use causeway::app::demo::{Login, configuration};
use nix::unistd::{Uid, User};
use tempfile::TempDir;

use crate::binary;
use crate::kind::Kind;
use crate::stage::{CONTROL_USER, DATABASE, PASSWORD, USER};

/// One worker; splitting, session consistency and metrics are on. What goes on in the background is as rare as it can
/// be, and no replica is behind for it.
const QUIET: &str = "
[probe]
interval = \"1m\"
timeout = \"30s\"
rise = 1

[routing]
split = true
consistency = \"session\"
max_staleness = \"1m\"
max_lag = \"1d\"
causal_wait = \"30s\"
catalog_refresh = \"1d\"

[log]
level = \"warn\"
";

/// The database's name at PgBouncer where a client keeps its server.
const DATABASE_BY_SESSION: &str = "hot_by_session";

pub struct Subject {
    pub name: &'static str,
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// Whom it has to run as when we are root.
    owner: Option<User>,
    pub port: u16,
    /// For its configuration, and for what the instruments write.
    pub directory: TempDir,
    metrics_port: Option<u16>,
}

impl Subject {
    pub fn causeway(cluster: &LocalCluster) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (port, metrics_port) = (free_port().unwrap(), free_port().unwrap());
        let app = Login { user: USER, password: PASSWORD.to_owned(), database: DATABASE };
        let control = Login { user: CONTROL_USER, password: PASSWORD.to_owned(), database: "postgres" };
        let nodes = configuration(cluster, &app, &control, port);
        let metrics = format!("[metrics]\naddress = \"127.0.0.1:{metrics_port}\"\n");
        let file = directory.path().join("causeway.toml");
        fs::write(&file, format!("workers = 1\n{nodes}{QUIET}{metrics}")).unwrap();
        Self {
            name: "Causeway",
            program: binary::release(),
            arguments: vec!["run".to_owned(), "--config".to_owned(), text(&file)],
            owner: None,
            port,
            directory,
            metrics_port: Some(metrics_port),
        }
    }

    /// `None` when it is not installed.
    pub fn pgbouncer(cluster: &LocalCluster) -> Option<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
        let program = folders.map(|folder| folder.join("pgbouncer")).find(|program| program.exists())?;
        let directory = tempfile::tempdir().unwrap();
        let port = free_port().unwrap();
        let users = directory.path().join("users.txt");
        fs::write(&users, format!("\"{USER}\" \"{PASSWORD}\"\n")).unwrap();
        let node = format!("host=127.0.0.1 port={} dbname={DATABASE}", cluster.primary().port());
        let file = directory.path().join("pgbouncer.ini");
        let settings = format!(
            "[databases]\n{DATABASE} = {node}\n{DATABASE_BY_SESSION} = {node} pool_mode=session\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = 20\n\
             log_connections = 0\nlog_disconnections = 0\n",
            users.display()
        );
        fs::write(&file, settings).unwrap();
        // It refuses to be root.
        let owner = Uid::effective().is_root().then(|| User::from_name("postgres").unwrap().expect("a user postgres"));
        if let Some(owner) = &owner {
            for path in [directory.path(), &users, &file] {
                chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw())).unwrap();
            }
        }
        let arguments = vec![text(&file)];
        Some(Self { name: "PgBouncer", program, arguments, owner, port, directory, metrics_port: None })
    }

    /// PgBouncer before 1.21 knows no prepared statements unless clients keep their servers.
    pub fn database(&self, kind: Kind) -> &'static str {
        if self.metrics_port.is_none() && kind == Kind::Prepared { DATABASE_BY_SESSION } else { DATABASE }
    }

    /// Lets `command` run as the user that the subject runs as.
    pub fn own(&self, command: &mut Command) {
        if let Some(owner) = &self.owner {
            command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
        }
    }

    /// Whether clients can be served as they will be while it is measured.
    pub fn is_ready(&self) -> bool {
        match self.metrics_port {
            Some(_) => self.metric("causeway_node_eligible{", "node=\"replica1\"") > 0.0,
            None => TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok(),
        }
    }

    /// How many queries have gone to the primary so far; nothing where there is no choice.
    pub fn queries_on_primary(&self) -> f64 {
        self.metric("causeway_routed_total{", "node=\"primary\"")
    }

    /// The sum of the samples that start with `name` and contain `label`; zero while nobody says them.
    fn metric(&self, name: &str, label: &str) -> f64 {
        let metrics = self.metrics();
        let samples = metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
        samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    fn metrics(&self) -> String {
        let mut answer = String::new();
        let Some(port) = self.metrics_port else { return answer };
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return answer };
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a temporary directory with a name of UTF-8").to_owned()
}
