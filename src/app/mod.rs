//! Puts the parts together: builds them from a [`Config`], runs them, and takes them down again.
//!
//! The control plane (probes, catalog facts, listeners, admin HTTP) has a runtime of its own; every worker is a thread
//! with a current-thread runtime. A new client goes to the worker with the fewest clients and stays there.

pub mod check;
pub mod cli;
pub mod commands;
pub mod demo;
mod descriptors;
pub mod explain;
mod janitor;
pub mod logging;
mod plane;
#[cfg(test)]
mod simulation;
pub mod switchover;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot, watch};

use crate::admin::{self, Readiness};
use crate::auth::client::Authenticator;
use crate::backend::connect::Endpoint;
use crate::backend::prepared::Statements;
use crate::config::{ClientTls, Config, Listener};
use crate::error::{Error, Fault, Result, sqlstate};
use crate::metrics::Metrics;
use crate::net::listen::{self, Local};
use crate::net::timers::Timers;
use crate::net::tls::Acceptor;
use crate::pool::set::Pools;
use crate::session::Door;
use crate::session::cancel::Cancels;
use crate::session::census::Census;
use crate::session::cluster::Cluster;
use crate::session::memory::Memory;
use crate::session::worker::Shared;
use crate::topology::{FactsStore, Topology, View};
use crate::types::{NodeId, WorkerId};

use self::plane::{Newcomer, Phase};

/// A running proxy. Dropping it ends it at once; [`Running::shutdown`] lets transactions finish.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    addresses: Vec<Local>,
    metrics_address: Option<SocketAddr>,
    phase: watch::Sender<Phase>,
    workers: Vec<oneshot::Receiver<()>>,
    _control_plane: Arc<ControlPlane>,
}

/// The control plane's runtime. The workers hold it too, because it keeps their timers. A runtime may not wait for its
/// tasks where another one runs, so it ends in the background.
#[derive(Debug)]
struct ControlPlane(Option<Runtime>);

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Running {
    /// Where clients connect, in the order of the listeners.
    pub fn addresses(&self) -> &[Local] {
        &self.addresses
    }

    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    pub fn clusters(&self) -> &[Arc<Cluster>] {
        &self.shared.clusters
    }

    /// No new clients; idle ones leave; running transactions get `shutdown_timeout` to end.
    pub async fn shutdown(mut self) {
        self.phase.send_replace(Phase::Draining);
        let workers = std::mem::take(&mut self.workers);
        let all_ended = async {
            for worker in workers {
                let _ = worker.await;
            }
        };
        // The workers keep the limit themselves; this one is for a worker that hangs.
        let limit = self.shared.config.shutdown_timeout + Duration::from_secs(5);
        if tokio::time::timeout(limit, all_ended).await.is_err() {
            tracing::error!("a worker did not end in time");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Ended);
    }
}

/// Starts everything, and returns when clients can connect.
///
/// # Errors
/// An address that is in use, TLS material or credentials that cannot be used, no threads.
pub async fn start(config: Config) -> Result<Running> {
    let control_plane = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("causeway-control")
        .enable_all()
        .build()
        .map_err(|error| internal("the control plane cannot start").source(error))?;
    let handle = control_plane.handle().clone();
    let control_plane = Arc::new(ControlPlane(Some(control_plane)));
    let config = Arc::new(config);
    let shared = {
        let (config, handle) = (Arc::clone(&config), handle.clone());
        on(&handle.clone(), async move { build(config, &handle) }).await?
    };
    let (phase, phases) = watch::channel(Phase::Serving);
    let (workers, newcomers) = start_workers(&shared, &phases, &control_plane)?;
    let (addresses, metrics_address) = {
        let (shared, phases) = (Arc::clone(&shared), phases.clone());
        on(&handle, async move { open_doors(&shared, &newcomers, &phases).await }).await?
    };
    Ok(Running { shared, addresses, metrics_address, phase, workers, _control_plane: control_plane })
}

/// Runs a part of the start on the control plane, so that its sockets and tasks live there.
async fn on<T: Send + 'static>(
    control_plane: &tokio::runtime::Handle,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    control_plane.spawn(work).await.map_err(|error| internal("the start was interrupted").source(error))?
}

fn build(config: Arc<Config>, control_plane: &tokio::runtime::Handle) -> Result<Arc<Shared>> {
    let metrics = Metrics::new(config.workers)?;
    let timers = Timers::of(control_plane);
    let versions = Arc::new(AtomicU64::new(0));
    let clusters = config.clusters.iter().enumerate().map(|(index, cluster)| {
        let topology =
            Topology::start(cluster, &config.probe, &config.routing, &config.network, &metrics, control_plane)?;
        let facts = FactsStore::new(cluster, &config.routing, &topology, &versions, control_plane);
        let endpoints = endpoints(cluster, &config, &topology, &timers);
        let pools = Pools::new(cluster.name.clone(), config.workers, endpoints, Arc::clone(&metrics));
        metrics.set_paused(&cluster.name, false);
        Ok(Arc::new(Cluster::new(index, cluster.clone(), &config.routing, topology, pools, facts)))
    });
    let clusters = clusters.collect::<Result<_>>()?;
    let random = getrandom::u64().map_err(|error| internal("no random bytes").source(std::io::Error::from(error)))?;
    Ok(Arc::new(Shared {
        clusters,
        users: Authenticator::new(config.auth_type, &config.users)?,
        statements: Statements::new(random),
        cancels: Arc::new(Cancels::default()),
        census: Census::new(config.limits.max_client_conn, config.workers),
        memory: Memory::new(config.limits.memory_bytes, &metrics.batch_bytes),
        metrics,
        timers,
        config,
    }))
}

fn endpoints(
    cluster: &crate::config::Cluster,
    config: &Config,
    topology: &Topology,
    timers: &Timers,
) -> Arc<[Arc<Endpoint>]> {
    let ways = (0..).map(NodeId).zip(topology.ways());
    let endpoints = cluster.nodes.iter().zip(ways).map(|(node, (id, (dialer, fence)))| {
        Arc::new(Endpoint {
            node: id,
            name: node.name.clone(),
            dialer,
            fence,
            connect_timeout: config.pool.connect_timeout,
            timers: timers.clone(),
            max_prepared_statements: config.pool.max_prepared_statements,
        })
    });
    endpoints.collect()
}

type Workers = (Vec<oneshot::Receiver<()>>, Vec<mpsc::UnboundedSender<Newcomer>>);

fn start_workers(
    shared: &Arc<Shared>,
    phases: &watch::Receiver<Phase>,
    control_plane: &Arc<ControlPlane>,
) -> Result<Workers> {
    let mut ended = Vec::new();
    let mut newcomers = Vec::new();
    for id in 0..shared.config.workers {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (ending, end) = oneshot::channel();
        let (shared, phases, timers_keeper) = (Arc::clone(shared), phases.clone(), Arc::clone(control_plane));
        let spawned = thread::Builder::new().name(format!("causeway-worker-{id}")).spawn(move || {
            plane::run_worker(WorkerId(id), shared, receiver, phases, ending);
            drop(timers_keeper);
        });
        spawned.map_err(|error| internal("a worker thread cannot start").source(error))?;
        ended.push(end);
        newcomers.push(sender);
    }
    Ok((ended, newcomers))
}

async fn open_doors(
    shared: &Arc<Shared>,
    newcomers: &[mpsc::UnboundedSender<Newcomer>],
    phases: &watch::Receiver<Phase>,
) -> Result<(Vec<Local>, Option<SocketAddr>)> {
    let mut sockets = Vec::new();
    for listener in &shared.config.listeners {
        let door = Arc::new(door(listener)?);
        let bound = listen::bind(&listener.address, &shared.config.network).await;
        for socket in bound.map_err(|error| error.at(&listener.origin))? {
            sockets.push((socket, Arc::clone(&door)));
        }
    }
    let metrics_address = open_admin(shared, phases).await?;
    let addresses = sockets.iter().map(|(socket, _)| socket.local().clone()).collect();
    first_probes(shared).await;
    for (socket, door) in sockets {
        tokio::spawn(plane::welcome(socket, door, Arc::clone(shared), newcomers.to_vec(), phases.clone()));
    }
    Ok((addresses, metrics_address))
}

/// Clients that come first are not told that no node is there because nobody has looked yet: they wait, for as long as
/// a probe may take.
async fn first_probes(shared: &Shared) {
    let all_serve = async {
        for cluster in &shared.clusters {
            cluster.topology.wait_for(View::serves).await;
        }
    };
    // A node that is down must not keep us from starting.
    let _ = tokio::time::timeout(shared.config.probe.timeout, all_serve).await;
}

fn door(listener: &Listener) -> Result<Door> {
    Ok(match &listener.tls {
        ClientTls::Disable => Door { acceptor: None, tls_required: false },
        ClientTls::Allow { cert_file, key_file } => {
            Door { acceptor: Some(Acceptor::load(cert_file, key_file)?), tls_required: false }
        }
        ClientTls::Require { cert_file, key_file } => {
            Door { acceptor: Some(Acceptor::load(cert_file, key_file)?), tls_required: true }
        }
    })
}

async fn open_admin(shared: &Arc<Shared>, phases: &watch::Receiver<Phase>) -> Result<Option<SocketAddr>> {
    let Some(settings) = &shared.config.metrics else { return Ok(None) };
    let failed = |error| {
        let message = format!("metrics.address {} cannot be listened on", settings.address);
        Error::new(Fault::Limit, sqlstate::INTERNAL_ERROR, message).source(error).at(&settings.origin)
    };
    let listener = tokio::net::TcpListener::bind(settings.address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (metrics, ready, phases) = (Arc::clone(&shared.metrics), Arc::clone(shared), phases.clone());
    let draining = phases.clone();
    let readiness = move || readiness(&ready, *draining.borrow());
    tokio::spawn(admin::serve(listener, metrics, readiness, plane::ended(phases)));
    Ok(Some(address))
}

fn readiness(shared: &Shared, phase: Phase) -> Readiness {
    if phase != Phase::Serving {
        return Readiness::NotReady("shutting down".into());
    }
    match shared.clusters.iter().find(|cluster| !cluster.topology.view().serves()) {
        Some(cluster) => Readiness::NotReady(format!("no node of cluster {:?} can serve", cluster.config.name)),
        None => Readiness::Ready,
    }
}

fn internal(message: &str) -> Error {
    Error::new(Fault::Proxy, sqlstate::INTERNAL_ERROR, message)
}
