//! What the commands of the command line do.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::cli::DemoOptions;
use super::demo::{self, Proxy};
use super::{Running, internal, start};
use crate::config::{self, Config};
use crate::error::{Error, Fault, Result, sqlstate};
use crate::metrics::Metrics;
use crate::net::listen::Local;
use crate::sql::{CatalogFacts, explain as explain_text};
use crate::topology::{FactsStore, Topology};

/// How long `explain` may take to reach a node and read its catalog.
const EXPLAIN_LIMIT: Duration = Duration::from_secs(15);

/// Runs the proxy until it is told to stop: SIGTERM or SIGINT lets transactions finish, a second one ends at once.
///
/// # Errors
/// It could not start.
pub fn run(config: Config) -> Result<()> {
    runtime()?.block_on(async {
        let mut stop = Stop::new()?;
        let running = start(config).await?;
        announce(&running);
        stop.asked().await;
        tracing::info!("shutting down: idle clients leave, running transactions may finish");
        tokio::select! {
            () = running.shutdown() => tracing::info!("shut down"),
            () = stop.asked() => tracing::warn!("asked again: ending at once"),
        }
        Ok(())
    })
}

fn announce(running: &Running) {
    for address in running.addresses() {
        tracing::info!(%address, "clients can connect");
    }
    if let Some(address) = running.metrics_address() {
        tracing::info!(%address, "metrics, /healthz and /readyz");
    }
}

/// SIGTERM and SIGINT.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|error| internal("signals cannot be received").source(error));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What the classifier says of `sql`, with the catalog facts of `database` when there is a configuration.
///
/// # Errors
/// No node of the cluster that serves the database could be asked in time.
pub fn explain(config: Option<&Config>, database: Option<&str>, sql: &str) -> Result<String> {
    let lines = match config {
        None => {
            let mut lines = explain_text(sql.as_bytes(), &CatalogFacts::unloaded());
            lines.push("facts:       only what is built in; --config takes the rest from the primary".to_owned());
            lines
        }
        Some(config) => runtime()?.block_on(async {
            let limit = tokio::time::timeout(EXPLAIN_LIMIT, explain_with_facts(config, database, sql));
            limit.await.unwrap_or_else(|_| {
                let limit = humantime::format_duration(EXPLAIN_LIMIT);
                let message = format!("no node gave its catalog facts within {limit}");
                Err(Error::new(Fault::Node, sqlstate::CANNOT_CONNECT, message)
                    .hint("Is the primary up, and may clusters.<name>.control log in to the database?"))
            })
        })?,
    };
    Ok(lines.join("\n") + "\n")
}

async fn explain_with_facts(config: &Config, database: Option<&str>, sql: &str) -> Result<Vec<String>> {
    let cluster = match database {
        None => config.clusters.first(),
        Some(name) => config.clusters.iter().find(|cluster| cluster.serves(name)),
    };
    let cluster = cluster.ok_or_else(|| {
        let message = format!("no cluster of the configuration serves database {:?}", database.unwrap_or_default());
        Error::new(Fault::Client, sqlstate::INVALID_CATALOG_NAME, message)
    })?;
    let handle = Handle::current();
    let topology = Topology::start(cluster, &config.probe, &config.routing, &Metrics::new()?, &handle)?;
    let store = FactsStore::new(cluster, &config.routing, &topology, &Arc::default(), &handle);
    let facts = store.facts(database.unwrap_or(&cluster.control.database));
    facts.known().await;
    let loaded = facts.load();
    Ok(explain_text(sql.as_bytes(), &loaded.facts))
}

/// Starts a throw-away cluster with the proxy in front of it, and shows where an application's statements go.
///
/// # Errors
/// Something did not work, or a statement went where it must not.
pub fn demo(options: DemoOptions) -> Result<(), demo::DemoError> {
    let options = demo::Options {
        once: options.once,
        replicas: usize::from(options.replicas),
        traffic: Duration::from_secs(options.seconds),
    };
    runtime()?.block_on(demo::run(options, start_proxy))
}

async fn start_proxy(file: &Path) -> Result<Proxy> {
    let config = config::load(file).map_err(|error| internal("the demo's configuration is wrong").source(error))?;
    let running = start(config).await?;
    let address = running.addresses().iter().find_map(|address| match address {
        Local::Tcp(address) => Some(*address),
        Local::Unix(_) => None,
    });
    let metrics = Arc::clone(running.metrics());
    Ok(Proxy {
        address: address.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        metrics_text: Box::new(move || metrics.render()),
        shutdown: Box::pin(running.shutdown()),
    })
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().map_err(|error| internal("no runtime").source(error))
}
