//! One node of a local cluster: a postmaster that is our child.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;

use super::install::Install;
use super::{ClusterError, Result, run};

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// Below the range the kernel takes the ports of outgoing connections from, so that a node that is stopped finds
/// its port free when it starts again.
const PORTS: Range<u16> = 20_000..32_000;

/// How a node is asked to stop
/// (<https://www.postgresql.org/docs/current/server-shutdown.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended, what they did is rolled back, replicas get the last WAL.
    Fast,
    /// As after a crash: the next start recovers.
    Immediate,
}

/// A primary or a replica. All operations may be called from any thread; the name stays when the role changes.
#[derive(Debug)]
pub struct LocalNode {
    name: String,
    install: Arc<Install>,
    root: PathBuf,
    port: u16,
    postmaster: Mutex<Option<Child>>,
}

impl LocalNode {
    /// Starts the node whose data directory is `root/name` on a port of its own.
    pub(super) fn launch(install: &Arc<Install>, root: &Path, name: &str) -> Result<Self> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let node = Self {
                name: name.to_owned(),
                install: Arc::clone(install),
                root: root.to_owned(),
                port: free_port()?,
                postmaster: Mutex::new(None),
            };
            match node.start() {
                // Somebody else took the port since we looked.
                Err(ClusterError::Ended { log, .. })
                    if log.contains("Address already in use") && Instant::now() < deadline => {}
                result => return result.map(|()| node),
            }
        }
    }

    /// `primary`, `replica1`, …: also its `cluster_name`, so `SHOW cluster_name` tells a client where it is.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// TCP on 127.0.0.1, and the number in the Unix socket's name.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory that holds `.s.PGSQL.<port>`; the same for all nodes of a cluster.
    pub fn socket_dir(&self) -> &Path {
        &self.root
    }

    fn data(&self) -> PathBuf {
        self.root.join(&self.name)
    }

    fn log_path(&self) -> PathBuf {
        self.root.join(format!("{}.log", self.name))
    }

    /// All that the node has logged, from the first start on. A statement is there before its result.
    pub fn log(&self) -> Result<Vec<u8>> {
        let path = self.log_path();
        fs::read(&path).map_err(ClusterError::io("read", &path))
    }

    /// Starts the node and waits until it takes connections; nothing to do while it runs.
    pub fn start(&self) -> Result<()> {
        let mut postmaster = self.postmaster.lock();
        if postmaster.is_some() {
            return Ok(());
        }
        let (log, earlier) = self.open_log()?;
        let err = log.try_clone().map_err(ClusterError::io("open", &self.log_path()))?;
        let child = self
            .install
            .command("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string(), "-c", &format!("cluster_name={}", self.name)])
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(err)
            // Ctrl-C in a terminal is for us; the nodes are stopped in our order.
            .process_group(0)
            .spawn()
            .map_err(ClusterError::io("start", &self.data()))?;
        let child = postmaster.insert(child);
        let outcome = self.await_ready(child, earlier);
        if outcome.is_err() {
            // Nothing is lost that could be saved: a node that did not start.
            let _ = child.kill().and_then(|()| child.wait());
            *postmaster = None;
        }
        outcome
    }

    fn open_log(&self) -> Result<(File, usize)> {
        let path = self.log_path();
        let open = || -> std::io::Result<(File, usize)> {
            let file = OpenOptions::new().create(true).append(true).open(&path)?;
            let length = file.metadata()?.len();
            Ok((file, usize::try_from(length).unwrap_or(usize::MAX)))
        };
        open().map_err(ClusterError::io("open", &path))
    }

    fn await_ready(&self, child: &mut Child, earlier: usize) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while !self.says_ready(child.id()) {
            let ended = child.try_wait().map_err(ClusterError::io("wait for", &self.data()))?;
            if ended.is_some() || Instant::now() >= deadline {
                let log = self.log()?;
                let log = String::from_utf8_lossy(log.get(earlier..).unwrap_or_default()).into_owned();
                return Err(match ended {
                    Some(_) => ClusterError::Ended { node: self.name.clone(), log },
                    None => ClusterError::Slow { node: self.name.clone(), what: "start", limit: START_LIMIT },
                });
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// `postmaster.pid`: the first line is the pid, the eighth the state.
    fn says_ready(&self, pid: u32) -> bool {
        let Ok(text) = fs::read_to_string(self.data().join("postmaster.pid")) else { return false };
        let mut lines = text.lines();
        lines.next() == Some(&pid.to_string()) && lines.nth(6).map(str::trim) == Some("ready")
    }

    /// Stops the node and waits for its end; nothing to do when it does not run.
    pub fn stop(&self, how: Stop) -> Result<()> {
        self.sigcont()?;
        let signal = match how {
            Stop::Fast => Signal::SIGINT,
            Stop::Immediate => Signal::SIGQUIT,
        };
        self.end(|pid| send(pid, signal))
    }

    /// Ends all its processes at once, as the kernel does when it runs out of memory.
    pub fn kill9(&self) -> Result<()> {
        self.end(|postmaster| {
            // A stopped postmaster forks no more, so that none is missed.
            send(postmaster, Signal::SIGSTOP)?;
            let backends = children(postmaster)?;
            for &pid in &backends {
                send(pid, Signal::SIGKILL)?;
            }
            send(postmaster, Signal::SIGKILL)?;
            let deadline = Instant::now() + STOP_LIMIT;
            while backends.iter().any(|&pid| is_alive(pid)) && Instant::now() < deadline {
                thread::sleep(POLL);
            }
            Ok(())
        })
    }

    fn end(&self, signal: impl FnOnce(Pid) -> Result<()>) -> Result<()> {
        let mut postmaster = self.postmaster.lock();
        let Some(child) = postmaster.as_mut() else { return Ok(()) };
        signal(pid_of(child))?;
        let deadline = Instant::now() + STOP_LIMIT;
        while child.try_wait().map_err(ClusterError::io("wait for", &self.data()))?.is_none() {
            if Instant::now() >= deadline {
                return Err(ClusterError::Slow { node: self.name.clone(), what: "stop", limit: STOP_LIMIT });
            }
            thread::sleep(POLL);
        }
        *postmaster = None;
        Ok(())
    }

    /// Freezes all its processes: the kernel still takes connections, nobody answers.
    pub fn sigstop(&self) -> Result<()> {
        self.send_all(Signal::SIGSTOP)
    }

    /// Undoes [`sigstop`](Self::sigstop).
    pub fn sigcont(&self) -> Result<()> {
        self.send_all(Signal::SIGCONT)
    }

    fn send_all(&self, signal: Signal) -> Result<()> {
        let mut guard = self.postmaster.lock();
        let Some(child) = guard.as_mut() else { return Ok(()) };
        // A child that has ended by itself is a zombie until it is waited for: signals to it are harmless.
        let postmaster = pid_of(child);
        send(postmaster, signal)?;
        for pid in children(postmaster)? {
            send(pid, signal)?;
        }
        Ok(())
    }

    /// Makes a replica a primary and waits until it is one.
    pub fn promote(&self) -> Result<()> {
        match self.sql("postgres", "SELECT pg_promote(true, 60)")?.as_str() {
            "t" => Ok(()),
            _ => Err(ClusterError::Slow { node: self.name.clone(), what: "promote", limit: START_LIMIT }),
        }
    }

    /// Makes a former primary a replica of `source`, which has taken over from it, when it starts again; it must have
    /// been stopped cleanly, and its cluster needs `wal_log_hints` and `full_page_writes`.
    pub fn rewind(&self, source: &Self) -> Result<()> {
        // Before its first checkpoint after a promotion, the source's control file still shows the old timeline.
        source.sql("postgres", "CHECKPOINT")?;
        let mut command = self.install.command("pg_rewind");
        let source = format!(
            "host={} port={} user=postgres dbname=postgres application_name={}",
            self.root.display(),
            source.port(),
            self.name
        );
        command.args(["-R", "--source-server", &source, "-D"]).arg(self.data());
        run(command).map(drop)
    }

    /// Runs `sql` as the superuser in `database`, over the Unix socket; gives the rows, columns joined by `|`.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let mut psql = self.install.client("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-c", sql])
            .args(["-p", &self.port.to_string()])
            .arg("-h")
            .arg(&self.root);
        Ok(run(psql)?.trim_end().to_owned())
    }
}

impl Drop for LocalNode {
    fn drop(&mut self) {
        if let Err(error) = self.stop(Stop::Immediate) {
            tracing::warn!(node = self.name, %error, "a local node did not stop, it is killed");
            if let Some(child) = self.postmaster.get_mut() {
                let _ = child.kill().and_then(|()| child.wait());
            }
        }
    }
}

fn pid_of(child: &Child) -> Pid {
    // Linux's pids end at 2^22.
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

fn send(pid: Pid, signal: Signal) -> Result<()> {
    match kill(pid, signal) {
        // It ended in the meantime.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(ClusterError::Signal { pid: pid.as_raw(), signal, errno }),
    }
}

fn children(pid: Pid) -> Result<Vec<Pid>> {
    let path = PathBuf::from(format!("/proc/{pid}/task/{pid}/children"));
    let text = match fs::read_to_string(&path) {
        // It has ended, and perhaps nobody has waited for it.
        Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ESRCH as i32) => {
            String::new()
        }
        result => result.map_err(ClusterError::io("read", &path))?,
    };
    Ok(text.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect())
}

/// A zombie, which waits only for its parent, is not alive.
fn is_alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

/// A port of 127.0.0.1 on which nobody listens now.
pub fn free_port() -> Result<u16> {
    let tries = usize::from(PORTS.end - PORTS.start);
    let mut candidates = std::iter::repeat_with(|| fastrand::u16(PORTS)).take(tries);
    candidates.find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()).ok_or(ClusterError::NoPort(PORTS))
}
