//! The threads of the data plane, and the way of a new client to one of them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot, watch};

use super::janitor;
use crate::admin::console;
use crate::net::listen::Listener;
use crate::net::stream::{Detached, Stream};
use crate::session::census::ClientCount;
use crate::session::cluster::Cluster;
use crate::session::worker::{Shared, Worker};
use crate::session::{Door, accept};
use crate::types::WorkerId;

/// How far the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Serving,
    /// No new clients; sessions end when they are idle.
    Draining,
    Ended,
}

/// A client on its way to its worker.
#[derive(Debug)]
pub struct Newcomer {
    stream: Detached,
    door: Arc<Door>,
    count: ClientCount,
}

/// Accepts clients and hands each to the worker with the fewest.
pub async fn welcome(
    listener: Listener,
    door: Arc<Door>,
    shared: Arc<Shared>,
    newcomers: Vec<mpsc::UnboundedSender<Newcomer>>,
    phases: watch::Receiver<Phase>,
) {
    let serve = async {
        loop {
            let (stream, peer) = listener.accept().await;
            let worker = shared.census.least_loaded();
            let count = ClientCount::new(&shared.census, worker);
            match stream.detach() {
                Ok(stream) => {
                    let newcomer = Newcomer { stream, door: Arc::clone(&door), count };
                    // A worker that has ended takes nobody: the client is disconnected.
                    let _ = newcomers[worker.0].send(newcomer);
                }
                Err(error) => tracing::warn!(%error, %peer, "a new client could not be handed to a worker"),
            }
        }
    };
    tokio::select! {
        () = serve => {}
        () = draining(phases) => {}
    }
}

async fn reached(mut phases: watch::Receiver<Phase>, wanted: impl FnMut(&Phase) -> bool) {
    // An error means that the sender is gone, and the process with it.
    let _ = phases.wait_for(wanted).await;
}

async fn draining(phases: watch::Receiver<Phase>) {
    reached(phases, |phase| *phase != Phase::Serving).await;
}

pub async fn ended(phases: watch::Receiver<Phase>) {
    reached(phases, |phase| *phase == Phase::Ended).await;
}

/// The life of a worker's thread. `done` hears when it has no sessions any more; the thread goes on to the end of all,
/// because sessions elsewhere may use servers whose TLS streams are registered here.
pub fn run_worker(
    id: WorkerId,
    shared: Arc<Shared>,
    newcomers: mpsc::UnboundedReceiver<Newcomer>,
    phases: watch::Receiver<Phase>,
    done: oneshot::Sender<()>,
) {
    let life = async {
        work(Rc::new(Worker::new(id, shared)), newcomers, phases.clone()).await;
        // Nobody hears it when Causeway was ended at once.
        let _ = done.send(());
        ended(phases).await;
    };
    match Builder::new_current_thread().enable_io().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime.block_on(life),
        Err(error) => tracing::error!(%error, worker = id.0, "a worker's runtime cannot start"),
    }
}

async fn work(worker: Rc<Worker>, mut newcomers: mpsc::UnboundedReceiver<Newcomer>, phases: watch::Receiver<Phase>) {
    tokio::task::spawn_local(tick(Rc::clone(&worker)));
    for cluster in &worker.shared.clusters {
        tokio::task::spawn_local(follow_views(Rc::clone(&worker), Arc::clone(cluster)));
    }
    let serve = async {
        while let Some(Newcomer { stream, door, count }) = newcomers.recv().await {
            match stream.attach() {
                Ok(stream) => drop(tokio::task::spawn_local(serve(Rc::clone(&worker), stream, door, count))),
                Err(error) => tracing::warn!(%error, "a new client could not be served"),
            }
        }
    };
    tokio::select! {
        () = serve => {}
        () = draining(phases.clone()) => {}
    }
    worker.drain();
    tokio::select! {
        () = worker.is_empty() => {}
        () = ended(phases) => {}
        () = worker.shared.timers.sleep(worker.shared.config.shutdown_timeout) => {
            tracing::warn!(worker = worker.id.0, "transactions are still running after shutdown_timeout");
        }
    }
}

/// A client's life.
async fn serve(worker: Rc<Worker>, stream: Stream, door: Arc<Door>, count: ClientCount) {
    if let Some(visitor) = accept(worker, stream, door, count).await {
        Box::pin(console::serve(*visitor)).await;
    }
}

/// Sessions that wait for a node which is unreachable from now on must look for another, and those that wait for a node
/// to be there may go on; and pools keep no server of a node that is fenced.
pub async fn follow_views(worker: Rc<Worker>, cluster: Arc<Cluster>) {
    let mut changes = cluster.topology.changed();
    let mut before = Arc::clone(&cluster.topology.view());
    while changes.changed().await.is_ok() {
        let view = Arc::clone(&cluster.topology.view());
        let replaced = view.primary.is_some() && view.primary != before.primary;
        if replaced || view.nodes.iter().any(|node| node.is_unreachable() && !before.is_unreachable(node.id)) {
            worker.rouse();
        }
        if worker.id == WorkerId(0) {
            let fenced = view.nodes.iter().filter(|node| node.fenced && !before.is_fenced(node.id));
            fenced.for_each(|node| cluster.pools.close_node(node.id));
        }
        worker.hold(&cluster).changed(&view);
        before = view;
    }
}

async fn tick(worker: Rc<Worker>) {
    let mut ticks = worker.shared.timers.interval(worker.period());
    loop {
        ticks.tick().await;
        worker.tick(Instant::now());
        janitor::sweep(&worker);
    }
}
