//! What the commands of the command line do.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::cli::{DemoOptions, SwitchoverOptions};
use super::demo::{self, Proxy};
use super::descriptors;
use super::explain::{self, Client};
use super::switchover::{Order, Place, switch_over};
use super::{Running, internal, start};
use crate::config::{self, Config};
use crate::error::Result;
use crate::net::listen::Local;

/// Runs the proxy until it is told to stop: SIGTERM or SIGINT lets transactions finish, a second one ends at once.
///
/// # Errors
/// It could not start.
pub fn run(config: Config) -> Result<()> {
    descriptors::raise(&config);
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

/// What `sql` is taken for, and with a configuration where it would go now.
///
/// # Errors
/// The configuration has no such database or user; no node of the cluster could be asked in time.
pub fn explain(config: Option<&Config>, client: Client<'_>, sql: &str) -> Result<String> {
    match config {
        None => Ok(explain::without_nodes(sql)),
        Some(config) => runtime()?.block_on(explain::with_nodes(config, client, sql)),
    }
}

/// Makes a replica the primary, behind a running proxy. `say` gets what happens on the way.
///
/// # Errors
/// The proxy's console cannot be used, or it came to nothing, and writes go on where they went before.
pub fn switchover(options: &SwitchoverOptions, say: impl FnMut(&str)) -> Result<()> {
    let SwitchoverOptions { cluster, to, wait, timeout, host, port, user } = options.clone();
    let order = Order { cluster, node: to, waits: wait, limit: timeout };
    runtime()?.block_on(switch_over(&order, &Place { host, port, user }, say))
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
