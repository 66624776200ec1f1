//! Sessions, pools and the control plane as they are, between clients and nodes whose bytes come late, in any pieces, or
//! not at all: all on one thread, by seed. The nodes are the rules of the protocol; real ones are in `tests/`.
//!
//! `SIMULATION_SEEDS=300..10000` tries others.

mod client;
mod control;
mod node;
mod script;
mod server;
mod wire;

use std::future::poll_fn;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use socket2::SockRef;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Handle, LocalOptions};
use tokio::task::{JoinHandle, spawn_local};

use self::client::{Heard, run};
use self::node::{Connections, Fate};
use self::wire::Wire;
use super::build;
use super::plane::follow_views;
use crate::backend::Server;
use crate::config;
use crate::net::stream::Stream;
use crate::session::census::ClientCount;
use crate::session::cluster::Cluster;
use crate::session::worker::{Shared, Worker};
use crate::session::{Door, accept};
use crate::types::{Role, WorkerId};
use crate::wire::backend::TransactionStatus;
use crate::wire::frame::HEADER_BYTES;
use crate::wire::frontend::{put_query, tag};

const SEEDS: Range<u64> = 0..300;
/// Others that have found something.
const KEPT: [u64; 1] = [1429];
/// Of real time; a simulation takes some milliseconds of it.
const LONGEST: Duration = Duration::from_secs(120);

/// Side by side, because most of the time all wait for some timer.
const LANES: usize = 4;

#[test]
fn clients_hear_what_they_would_hear_alone() {
    std::thread::scope(|scope| {
        for lane in 0..LANES {
            scope.spawn(move || seeds().into_iter().skip(lane).step_by(LANES).for_each(check));
        }
    });
}

fn check(seed: u64) {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    let played = runtime.block_on(async { tokio::time::timeout(LONGEST, play(seed)).await });
    let played = played.unwrap_or_else(|_| Err("somebody waits for ever".to_owned()));
    played.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
}

fn seeds() -> Vec<u64> {
    let Ok(text) = std::env::var("SIMULATION_SEEDS") else { return SEEDS.chain(KEPT).collect() };
    let (start, end) = text.split_once("..").unwrap();
    (start.parse().unwrap()..end.parse().unwrap()).collect()
}

/// What is different from seed to seed besides the times and pieces.
struct Scene {
    clients: usize,
    pool_size: usize,
    consistency: &'static str,
    /// Clients leave in the middle of anything.
    clients_break: bool,
    nodes: Fate,
}

impl Scene {
    fn of(random: &mut Rng) -> Self {
        Self {
            clients: random.usize(1..6),
            pool_size: random.usize(1..4),
            consistency: ["eventual", "session", "strong", "primary"][random.usize(..4)],
            clients_break: random.bool(),
            nodes: Fate { breaks_one_in: [0, 0, 2, 4][random.usize(..4)] },
        }
    }

    fn configuration(&self, directory: &Path) -> String {
        let Self { pool_size, consistency, .. } = self;
        let node = |name: &str| {
            let host = directory.join(name);
            format!("[[clusters.main.nodes]]\nname = {name:?}\nhost = {host:?}\n")
        };
        format!(
            "workers = 1\nauth_type = \"trust\"\n[[listeners]]\naddress = \"127.0.0.1:0\"\n\
             [clusters.main]\ncontrol = {{ user = \"control\" }}\n{}{}\
             [users.app]\n[pool]\ndefault_pool_size = {pool_size}\nmax_prepared_statements = 3\n\
             [routing]\nmax_lag = \"1h\"\nmax_staleness = \"1h\"\nconsistency = {consistency:?}\n[probe]\ninterval = \"1m\"\ntimeout = \"1m\"\nrise = 1\n",
            node("a"),
            node("b")
        )
    }
}

async fn play(seed: u64) -> Result<(), String> {
    let mut random = Rng::with_seed(seed);
    let scene = Scene::of(&mut random);
    let directory = TempDir::new().unwrap();
    let nodes = [("a", false), ("b", true)].map(|(name, is_replica)| {
        let directory = directory.path().join(name);
        std::fs::create_dir(&directory).unwrap();
        node::start(&directory, is_replica, scene.nodes, random.fork())
    });
    let text = scene.configuration(directory.path());
    let config = config::read("simulation.toml", &text, directory.path()).map_err(|errors| errors.to_string())?;
    let shared = build(Arc::new(config), &Handle::current()).map_err(|error| error.to_string())?;
    let cluster = &shared.clusters[0];
    let is_ready = |role| cluster.topology.wait_for(move |view| view.nodes.iter().any(|node| node.role == Some(role)));
    is_ready(Role::Primary).await;
    is_ready(Role::Replica).await;
    for heard in converse(&shared, &scene, &mut random).await {
        heard.judge(scene.nodes.breaks_one_in > 0)?;
    }
    all_is_given_back(cluster, &nodes).await
}

/// All clients at once, until the last of their sessions has ended.
async fn converse(shared: &Arc<Shared>, scene: &Scene, random: &mut Rng) -> Vec<Heard> {
    let worker = Rc::new(Worker::new(WorkerId(0), Arc::clone(shared)));
    let rouse = spawn_local(follow_views(Rc::clone(&worker), Arc::clone(&shared.clusters[0])));
    let door = Arc::new(Door { acceptor: None, tls_required: false });
    let (mut clients, mut sessions): (Vec<JoinHandle<Heard>>, Vec<JoinHandle<()>>) = Default::default();
    for number in 0..scene.clients {
        let (ours, theirs) = UnixStream::pair().unwrap();
        if random.bool() {
            // As little as the system allows.
            SockRef::from(&ours).set_send_buffer_size(1).unwrap();
        }
        let count = ClientCount::new(&shared.census, WorkerId(0));
        let session = accept(Rc::clone(&worker), Stream::unix(ours), Arc::clone(&door), count);
        sessions.push(spawn_local(async { drop(session.await) }));
        let most = 1 << random.u32(4..16);
        let cut_after = Some(random.usize(..most)).filter(|_| scene.clients_break && random.bool());
        let wire = Wire::new(theirs, random.fork(), cut_after);
        clients.push(spawn_local(run(wire, number, random.fork())));
    }
    let mut heard = Vec::new();
    for client in clients {
        heard.push(client.await.unwrap());
    }
    for session in sessions {
        session.await.unwrap();
    }
    rouse.abort();
    heard
}

/// Every server is closed, or in its pool and as good as a new one.
async fn all_is_given_back(cluster: &Cluster, nodes: &[Rc<Connections>]) -> Result<(), String> {
    let sets = cluster.pools.sweep();
    let pools: Vec<_> = sets.iter().flat_map(|set| set.pools()).collect();
    // Some are still being cleaned.
    while !pools.iter().all(|pool| pool.is_unused()) {
        for mut lease in pools.iter().flat_map(|pool| pool.take_idle()) {
            try_out(&mut lease).await.map_err(|wrong| format!("an idle server {wrong}: {lease:?}"))?;
        }
        tokio::task::yield_now().await;
    }
    while nodes.iter().any(|node| node.open() > 0) {
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn try_out(server: &mut Server) -> Result<(), &'static str> {
    if server.status != TransactionStatus::Idle || !server.input.is_empty() {
        return Err("is in the middle of something");
    }
    let mut question = Vec::new();
    put_query(&mut question, b"SELECT s FROM rows_1_5");
    let mut expected = Vec::new();
    server::Server::new(false).answer(tag::QUERY, &question[HEADER_BYTES..], &mut expected);
    // One whose node has broken the connection may say nothing.
    let _ = server.stream.write_all(&question).await;
    while server.input.len() < expected.len() {
        let (stream, input) = (&mut server.stream, &mut server.input);
        input.reserve(expected.len());
        if poll_fn(|cx| stream.poll_read(cx, input)).await.is_ok_and(|bytes| bytes > 0) {
            continue;
        }
        return Ok(());
    }
    if server.input == expected { Ok(()) } else { Err("answers something else") }
}
