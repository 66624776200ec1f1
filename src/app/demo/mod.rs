//! `causeway demo`: real nodes, Causeway in front, an application, and where its statements went.

pub mod cluster;
mod report;
mod workload;

use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::pin_mut;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, interval, sleep};

use cluster::{ClusterError, ClusterOptions, LocalCluster, free_port};
use report::{Tally, highest_lags, lag_table, reasons, samples};
pub use workload::Login;

/// How long the replicas may take until the proxy gives them reads.
const READY_LIMIT: Duration = Duration::from_secs(20);
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// The command line of `causeway demo`.
#[derive(Clone, Debug)]
pub struct Options {
    /// End after the report instead of staying up until a signal.
    pub once: bool,
    pub replicas: usize,
    /// How long the application runs.
    pub traffic: Duration,
}

/// A proxy that runs in this process.
pub struct Proxy {
    /// Where clients connect.
    pub address: SocketAddr,
    /// What `/metrics` would say now.
    pub metrics_text: Box<dyn Fn() -> String + Send + Sync>,
    /// Ends it; done when its last session has ended.
    pub shutdown: BoxFuture<'static, ()>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Why the demo failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Proxy(#[from] crate::error::Error),
    #[error("no password could be made")]
    Random(#[source] getrandom::Error),
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    #[error(
        "after {READY_LIMIT:?} only {eligible} of {replicas} replicas get reads; see causeway_node_* in the metrics:\n{metrics}"
    )]
    NotReady { eligible: usize, replicas: usize, metrics: String },
    #[error("the application saw an error")]
    Application(#[source] tokio_postgres::Error),
    #[error("the statements did not go where they belong:\n  {}", .0.join("\n  "))]
    Faults(Vec<String>),
}

/// Runs the demo to its end: after the report with `once`, else at SIGINT or SIGTERM. All that it started is gone then.
///
/// `start` starts the proxy with the configuration file that it is given.
///
/// # Errors
/// Something did not work: no PostgreSQL, an error that the application saw, a write on a replica, no read on one.
pub async fn run(
    options: Options,
    start: impl AsyncFnOnce(&Path) -> Result<Proxy, crate::error::Error>,
) -> Result<(), DemoError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DemoError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(DemoError::Signals)?;
    println!("Starting a PostgreSQL primary and {} streaming replicas …", options.replicas);
    let stage = Stage::build(options.replicas)?;
    let proxy = start(&stage.configuration_file()?).await?;
    let outcome = tokio::select! {
        outcome = stage.show(&proxy, &options) => outcome,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    println!("Stopping and removing everything.");
    proxy.shutdown.await;
    outcome
}

/// What the proxy and the application find when they start.
struct Stage {
    cluster: LocalCluster,
    app: Login,
    control: Login,
    listen_port: u16,
    metrics_port: u16,
}

impl Stage {
    fn build(replicas: usize) -> Result<Self, DemoError> {
        let cluster = LocalCluster::start(&ClusterOptions { replicas, ..ClusterOptions::default() })?;
        let app = Login { user: "app", password: password()?, database: "shop" };
        let control = Login { user: "causeway", password: password()?, database: "postgres" };
        cluster.create_role(app.user, &app.password, "")?;
        cluster.create_role(control.user, &control.password, "IN ROLE pg_monitor")?;
        cluster.create_database(app.database, app.user)?;
        cluster.primary().sql(app.database, &workload::schema(app.user))?;
        cluster.catch_up()?;
        for node in cluster.nodes() {
            println!("  {:<9} 127.0.0.1:{}", node.name(), node.port());
        }
        println!("  in {}, gone when the demo ends", cluster.directory().display());
        Ok(Self { cluster, app, control, listen_port: port_like(6432)?, metrics_port: port_like(9187)? })
    }

    /// Writes what an operator would write.
    fn configuration_file(&self) -> Result<PathBuf, DemoError> {
        let path = self.cluster.directory().join("causeway.toml");
        let text = configuration(&self.cluster, &self.app, &self.control, self.listen_port)
            + &format!("\n[metrics]\naddress = \"127.0.0.1:{}\"\n", self.metrics_port);
        fs::write(&path, text).map_err(|source| DemoError::Write { path: path.clone(), source })?;
        Ok(path)
    }

    /// Returns after the report with `once`, else only if something did not work.
    async fn show(&self, proxy: &Proxy, options: &Options) -> Result<(), DemoError> {
        await_replicas(proxy, options.replicas).await?;
        println!("Causeway listens on {}. An application uses it for {:?} …", proxy.address, options.traffic);
        self.observe(proxy, options.traffic).await?;
        if options.once {
            return Ok(());
        }
        println!(
            "\nStill up. Try:\n  PGPASSWORD={} psql -h {} -p {} -U {} {}\n  curl http://127.0.0.1:{}/metrics\n\
             Ctrl-C ends it and removes everything.",
            self.app.password,
            proxy.address.ip(),
            proxy.address.port(),
            self.app.user,
            self.app.database,
            self.metrics_port
        );
        std::future::pending().await
    }

    /// Lets the application run, and shows what the nodes and the proxy say about it.
    async fn observe(&self, proxy: &Proxy, traffic: Duration) -> Result<(), DemoError> {
        let mut lags = Vec::new();
        let mut ticks = interval(SAMPLE_EVERY);
        let application = workload::run(proxy.address, &self.app, traffic);
        pin_mut!(application);
        let statements = loop {
            tokio::select! {
                result = &mut application => break result.map_err(DemoError::Application)?,
                _ = ticks.tick() => highest_lags(&mut lags, &(proxy.metrics_text)()),
            }
        };
        let mut logs = Vec::new();
        for node in self.cluster.nodes() {
            logs.push((node.name(), node.log()?));
        }
        let login = format!("{}@{}", self.app.user, self.app.database);
        let tally = Tally::count(logs.iter().map(|(name, log)| (*name, log.as_slice())), &login);
        println!("\n{statements} statements. Where they ran, by the nodes' own logs:\n\n{}", tally.table());
        println!("Why, by causeway_routed_total:\n\n{}", reasons(&(proxy.metrics_text)()));
        println!("Lag of the replicas:\n\n{}", lag_table(&lags));
        match tally.faults() {
            faults if faults.is_empty() => {
                println!("All writes ran on the primary, and all replicas served reads.");
                Ok(())
            }
            faults => Err(DemoError::Faults(faults)),
        }
    }
}

/// A configuration of Causeway in front of `cluster`: one listener, the defaults, `app` as its user. The control login
/// is a member of `pg_monitor`.
pub fn configuration(cluster: &LocalCluster, app: &Login, control: &Login, listen_port: u16) -> String {
    let text = |text: &str| toml::Value::from(text).to_string();
    let nodes = cluster.nodes().iter().map(|node| {
        format!("[[clusters.demo.nodes]]\nname = \"{}\"\nhost = \"127.0.0.1\"\nport = {}\n", node.name(), node.port())
    });
    format!(
        "[[listeners]]\n\
         address = \"127.0.0.1:{listen_port}\"\n\n\
         [clusters.demo]\n\
         databases = [\"*\"]\n\
         control = {{ user = {}, password = {}, database = {} }}\n\
         {}\n\
         [users.{}]\n\
         password = {}\n",
        text(control.user),
        text(&control.password),
        text(control.database),
        nodes.collect::<String>(),
        text(app.user),
        text(&app.password),
    )
}

/// Waits until the proxy gives reads to all replicas, so that the traffic shows the split and not the start.
async fn await_replicas(proxy: &Proxy, replicas: usize) -> Result<(), DemoError> {
    let deadline = Instant::now() + READY_LIMIT;
    loop {
        let metrics = (proxy.metrics_text)();
        let eligible = samples(&metrics, "causeway_node_eligible").iter().filter(|sample| sample.holds()).count();
        if eligible >= replicas {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(DemoError::NotReady { eligible, replicas, metrics });
        }
        sleep(SAMPLE_EVERY).await;
    }
}

fn password() -> Result<String, DemoError> {
    getrandom::u64().map(|number| format!("{number:016x}")).map_err(DemoError::Random)
}

/// The port that users know, or any when it is taken.
fn port_like(known: u16) -> Result<u16, ClusterError> {
    if TcpListener::bind((Ipv4Addr::LOCALHOST, known)).is_ok() { Ok(known) } else { free_port() }
}
