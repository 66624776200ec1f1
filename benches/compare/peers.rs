//! What is compared: Causeway and the proxies of the distribution, each in front of the same nodes.

mod settings;

use std::env;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use causeway::app::demo::cluster::free_port;
use clap::ValueEnum;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::Result;
use crate::cluster::Stage;
use crate::procfs;

const START_LIMIT: Duration = Duration::from_secs(15);
const STOP_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

/// Raises the limit of open files, and ends the program with us whatever ends us: `$0` is the signal for that.
const LAUNCH: &str = r#"ulimit -n "$(ulimit -Hn)"; exec setpriv --pdeathsig "$0" -- "$@""#;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The primary, with no proxy.
    Direct,
    /// A TCP relay to the primary.
    Haproxy,
    /// A pool in front of the primary.
    Pgbouncer,
    /// Splits reads from writes, a process per client.
    Pgpool,
    Causeway,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Haproxy => "HAProxy",
            Self::Pgbouncer => "PgBouncer",
            Self::Pgpool => "pgpool-II",
            Self::Causeway => "Causeway",
        }
    }

    fn program(self) -> Option<PathBuf> {
        let name = match self {
            Self::Direct => return None,
            Self::Causeway => return Some(causeway()),
            Self::Haproxy => "haproxy",
            Self::Pgbouncer => "pgbouncer",
            Self::Pgpool => "pgpool",
        };
        let path = env::var_os("PATH").unwrap_or_default();
        // An ordinary user's PATH may be without the places where daemons are.
        let folders = env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
        folders.map(|folder| folder.join(name)).find(|program| program.exists())
    }

    /// Ends it at once, with its children.
    fn stop_signal(self) -> Signal {
        match self {
            Self::Pgpool => Signal::SIGINT,
            Self::Pgbouncer => Signal::SIGQUIT,
            Self::Direct | Self::Haproxy | Self::Causeway => Signal::SIGTERM,
        }
    }

    /// The first line of what `--version` says.
    pub fn version(self) -> Option<String> {
        let flag = if self == Self::Haproxy { "-v" } else { "--version" };
        let output = Command::new(self.program()?).arg(flag).output().ok()?;
        let said = [output.stdout, output.stderr].concat();
        Some(String::from_utf8_lossy(&said).lines().next()?.trim().to_owned())
    }

    /// Whether it passes named prepared statements; PgBouncer does from 1.21 on.
    pub fn knows_prepared(self) -> bool {
        self != Self::Pgbouncer || pgbouncer_minor() >= 21
    }
}

/// The one that is named, or the one that cargo has built for this bench.
fn causeway() -> PathBuf {
    let built = || PathBuf::from(env!("CARGO_BIN_EXE_causeway"));
    env::var_os("CAUSEWAY_BINARY").map_or_else(built, PathBuf::from)
}

/// 18 of "PgBouncer 1.18.0".
fn pgbouncer_minor() -> u32 {
    let version = Kind::Pgbouncer.version().unwrap_or_default();
    version.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0)
}

/// What differs from measurement to measurement.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How many clients pgpool-II can have at a time, as it starts that many processes.
    pub clients: usize,
    /// How many replicas Causeway has; beyond those of the cluster they are stand-ins, the same replicas again.
    pub replicas: usize,
}

/// One that runs. Dropping it stops it.
#[derive(Debug)]
pub struct Peer {
    pub kind: Kind,
    pub port: u16,
    process: Option<Child>,
    directory: Option<TempDir>,
    /// Where Causeway's metrics are.
    metrics: Option<u16>,
}

impl Peer {
    /// Starts it on a free port and returns when it answers queries; Causeway, when it gives reads to all replicas.
    ///
    /// # Errors
    /// It is not installed, or does not start: with what it logged.
    pub fn start(stage: &Stage, kind: Kind, shape: Shape) -> Result<Self> {
        if kind == Kind::Direct {
            return Ok(Self {
                kind,
                port: stage.cluster.primary().port(),
                process: None,
                directory: None,
                metrics: None,
            });
        }
        let program = kind.program().ok_or("not installed")?;
        let directory = tempfile::Builder::new().prefix(kind.name()).tempdir_in(stage.directory())?;
        let place = directory.path();
        stage.install.own(place)?;
        let (port, metrics) = (free_port()?, free_port()?);
        let (files, arguments) = match kind {
            Kind::Haproxy => settings::haproxy(stage, port),
            Kind::Pgbouncer => settings::pgbouncer(stage, port, pgbouncer_minor() >= 21)?,
            Kind::Pgpool => settings::pgpool(stage, port, place, shape.clients),
            Kind::Causeway | Kind::Direct => settings::causeway(stage, port, metrics, shape.replicas),
        };
        for (name, text) in files {
            let path = place.join(name);
            fs::write(&path, text)?;
            stage.install.own(&path)?;
        }
        let log = File::create(place.join("log"))?;
        // Causeway may be in a directory that only we can enter; the others don't want to be root.
        let mut command = if kind == Kind::Causeway { stage.install.client("sh") } else { stage.install.command("sh") };
        let signal = kind.stop_signal().as_str().trim_start_matches("SIG");
        command.args(["-c", LAUNCH, signal]).arg(&program).args(arguments).current_dir(place);
        let process = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut peer = Self { kind, port, process: Some(process), directory: Some(directory), metrics: None };
        peer.metrics = (kind == Kind::Causeway).then_some(metrics);
        peer.await_ready(stage, shape.replicas)?;
        Ok(peer)
    }

    fn await_ready(&mut self, stage: &Stage, replicas: usize) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while !(answers(stage, self.port) && (self.metrics.is_none() || self.eligible() == replicas)) {
            let ended = self.process.as_mut().is_some_and(|process| !matches!(process.try_wait(), Ok(None)));
            if ended || Instant::now() >= deadline {
                let log = self.directory.as_ref().map(|directory| fs::read_to_string(directory.path().join("log")));
                let log = log.transpose()?.unwrap_or_default();
                return Err(format!("does not start; its log says: {}", log.trim_end()).into());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// What Causeway says of itself; nothing of the others.
    fn metrics_text(&self) -> Result<String> {
        let Some(port) = self.metrics else { return Ok(String::new()) };
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    /// How many nodes may serve reads as replicas.
    fn eligible(&self) -> usize {
        let text = self.metrics_text().unwrap_or_default();
        text.lines().filter(|line| line.starts_with("causeway_node_eligible{") && line.ends_with(" 1")).count()
    }

    /// How many batches Causeway has sent to replicas, and how many to any node; zeros for the others.
    pub fn routed(&self) -> [f64; 2] {
        let text = self.metrics_text().unwrap_or_default();
        let sum = |node: &str| {
            let samples = text.lines().filter(|line| line.starts_with("causeway_routed_total{") && line.contains(node));
            samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
        };
        [sum("node=\"replica"), sum("")]
    }

    /// The proxy's processes; none without a proxy.
    pub fn pids(&self) -> Vec<u32> {
        self.process.as_ref().map_or_else(Vec::new, |process| procfs::family(process.id()))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let pids = self.pids();
        let Some(process) = &mut self.process else { return };
        // It may have ended by itself: then there is nothing to signal, and nobody else can have its pid before `wait`.
        let _ = signal(process.id(), self.kind.stop_signal());
        let deadline = Instant::now() + STOP_LIMIT;
        while matches!(process.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                for &pid in &pids {
                    let _ = signal(pid, Signal::SIGKILL);
                }
                break;
            }
            thread::sleep(POLL);
        }
        let _ = process.wait();
    }
}

fn signal(pid: u32, signal: Signal) -> Result<(), Errno> {
    kill(Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX)), signal)
}

fn answers(stage: &Stage, port: u16) -> bool {
    let mut psql = stage.client("psql", port);
    psql.args(["-XAtq", "-d", stage.app.database, "-c", "SELECT 1"]).stdout(Stdio::null()).stderr(Stdio::null());
    psql.status().is_ok_and(|status| status.success())
}

/// Starts those that can be started, and says which can't.
pub fn start_all(stage: &Stage, kinds: &[Kind], shape: Shape) -> Vec<Peer> {
    let start = |&kind: &Kind| match Peer::start(stage, kind, shape) {
        Ok(peer) => Some(peer),
        Err(error) => {
            println!("Without {}: {error}", kind.name());
            None
        }
    };
    kinds.iter().filter_map(start).collect()
}

/// The peers, in the other order every second round, so that none is always before the same other.
pub fn in_turn(peers: &[Peer], round: usize) -> Vec<&Peer> {
    if round.is_multiple_of(2) { peers.iter().collect() } else { peers.iter().rev().collect() }
}
