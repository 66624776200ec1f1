//! Causeway as a process, for tests: in front of a cluster, with the configuration an operator would write.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use causeway::app::demo::cluster::{LocalCluster, free_port};
use causeway::app::demo::{Login, configuration};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::harness::{CONTROL_USER, PASSWORD, USER, wait_for};
use crate::target::Target;

const READY_LIMIT: Duration = Duration::from_secs(60);

/// A process that a test started by itself; killed with the value.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Ends with the value.
pub struct Proxy {
    process: Child,
    port: u16,
    metrics_port: u16,
    directory: TempDir,
}

impl Proxy {
    /// Starts `causeway run` and waits until all replicas get reads; `settings` are tables that `configuration` lacks.
    pub fn start(cluster: &LocalCluster, settings: &str) -> Self {
        Self::start_as(cluster, |text| text + settings)
    }

    /// The same with a configuration that was edited in any way.
    pub fn start_as(cluster: &LocalCluster, edit: impl FnOnce(String) -> String) -> Self {
        let proxy = Self::launch(cluster, edit);
        proxy.await_replicas(cluster);
        proxy
    }

    /// Waits until all replicas get reads.
    pub fn await_replicas(&self, cluster: &LocalCluster) {
        let replicas = cluster.replicas().len();
        wait_for(READY_LIMIT, "all replicas get reads", || {
            let metrics = self.http("/metrics");
            let eligible = |line: &&str| line.starts_with("causeway_node_eligible{") && line.ends_with(" 1");
            metrics.lines().filter(eligible).count() == replicas
        });
    }

    /// The same, and returns as soon as clients can connect, whatever the nodes are doing.
    pub fn launch(cluster: &LocalCluster, edit: impl FnOnce(String) -> String) -> Self {
        Self::launch_in(cluster, &[], edit)
    }

    /// The same with variables in its environment.
    pub fn launch_in(
        cluster: &LocalCluster,
        environment: &[(&str, &str)],
        edit: impl FnOnce(String) -> String,
    ) -> Self {
        // What measures is measured with what is deployed.
        let binary = std::env::var("CAUSEWAY_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_causeway").to_owned());
        let mut command = Command::new(binary);
        command.envs(environment.iter().copied());
        Self::launch_as(cluster, command, edit)
    }

    /// Starts it in a mount namespace of its own, after a command that mounts something there; for root only.
    pub fn start_in_mounts(cluster: &LocalCluster, mount: &str, edit: impl FnOnce(String) -> String) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &format!("{mount} && exec \"$0\" \"$@\"")]);
        command.arg(env!("CARGO_BIN_EXE_causeway"));
        let proxy = Self::launch_as(cluster, command, edit);
        proxy.await_replicas(cluster);
        proxy
    }

    fn launch_as(cluster: &LocalCluster, mut command: Command, edit: impl FnOnce(String) -> String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (port, metrics_port) = (free_port().unwrap(), free_port().unwrap());
        let app = Login { user: USER, password: PASSWORD.to_owned(), database: "" };
        let control = Login { user: CONTROL_USER, password: PASSWORD.to_owned(), database: "postgres" };
        let file = directory.path().join("causeway.toml");
        let metrics = format!("[metrics]\naddress = \"127.0.0.1:{metrics_port}\"\n");
        // Where a read goes must not depend on how busy the machine is.
        let patient = "[clusters.demo]\ncausal_wait = \"5s\"\n";
        let config = configuration(cluster, &app, &control, port).replace("[clusters.demo]\n", patient) + &metrics;
        fs::write(&file, edit(config)).unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let process = command.args(["run", "--config"]).arg(file).stderr(log).spawn().unwrap();
        let proxy = Self { process, port, metrics_port, directory };
        wait_for(READY_LIMIT, "the proxy listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        proxy
    }

    pub fn target(&self, database: &str) -> Target {
        Target::new("127.0.0.1", self.port, database)
    }

    /// The answer with its headers; empty while nobody listens.
    pub fn http(&self, path: &str) -> String {
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.metrics_port)) else { return String::new() };
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// The sum of the samples of a metric whose labels contain `labels`.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let metrics = self.http("/metrics");
        let samples = metrics.lines().filter(|line| line.starts_with(name) && line.contains(labels));
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until the catalog facts of a database that a client has used have been loaded `times` times.
    pub fn facts_loaded(&self, database: &str, times: usize) {
        let line = format!("database=\"{database}\"");
        wait_for(READY_LIMIT, "the catalog facts are loaded", || {
            let log = self.log();
            log.lines().filter(|l| l.contains("catalog facts loaded") && l.contains(&line)).count() >= times
        });
    }

    /// What `/metrics` says of a node; NaN also while it says nothing.
    pub fn node_metric(&self, name: &str, node: &str) -> f64 {
        let series = format!("{name}{{cluster=\"demo\",node=\"{node}\"}} ");
        let metrics = self.http("/metrics");
        metrics.lines().find_map(|line| line.strip_prefix(&series)).map_or(f64::NAN, |value| value.parse().unwrap())
    }

    pub fn is_eligible(&self, node: &str) -> bool {
        self.node_metric("causeway_node_eligible", node) > 0.0
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// Resident memory.
    pub fn memory_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.process.id()).unwrap()), signal).unwrap();
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let metrics = self.http("/metrics");
            let telling =
                |line: &&str| line.starts_with("causeway_") && !line.contains("_bucket{") && !line.ends_with(" 0");
            let metrics: Vec<&str> = metrics.lines().filter(telling).collect();
            eprintln!("the proxy's metrics:\n{}", metrics.join("\n"));
        }
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        if std::thread::panicking() {
            eprintln!("the proxy's log:\n{}", self.log());
        }
    }
}
