//! A TCP relay that does to a connection what networks do: delay, throttle, tear, reset, fall silent, close one half.
//!
//! It follows the messages of PostgreSQL's protocol, so that a fault can be at a message: see [`Trap`].

mod link;
mod splitter;
mod trap;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use causeway::app::demo::cluster::free_port;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub use link::Link;
pub use splitter::Splitter;
pub use trap::{Point, Trap, Verdict};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Of each message, without holding up the next ones.
    pub latency: Duration,
    /// Added to the latency: from nothing to this much, by the seed. Messages stay in order.
    pub jitter: Duration,
    /// In bytes per second.
    pub bandwidth: Option<u32>,
    /// Nothing is read and nothing is written, and nothing closes.
    pub frozen: bool,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides read an end of file.
    Close,
    /// Both sides get an RST.
    Reset,
}

/// What all connections share.
struct Shared {
    target: Mutex<SocketAddr>,
    listening: watch::Sender<bool>,
    /// Of connections to come.
    weather: Mutex<[Weather; 2]>,
    links: Mutex<BTreeMap<u64, Arc<Link>>>,
    traps: Mutex<Vec<Arc<Trap>>>,
    seed: u64,
}

/// Listens until the value goes, which also ends its connections.
pub struct Relay {
    port: u16,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl Relay {
    /// A relay to a port of 127.0.0.1; jitter comes from the seed and the number of the connection.
    pub fn start(target: u16, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            target: Mutex::new((Ipv4Addr::LOCALHOST, target).into()),
            listening: watch::Sender::new(true),
            weather: Mutex::default(),
            links: Mutex::default(),
            traps: Mutex::default(),
            seed,
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (port, listener) = loop {
            let port = free_port().unwrap();
            // Somebody else may have taken it since.
            if let Ok(listener) = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, port))) {
                break (port, listener);
            }
        };
        runtime.spawn(accept(Arc::clone(&shared), port, listener));
        Self { port, shared, runtime: Some(runtime) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where connections go from now on.
    pub fn retarget(&self, port: u16) {
        *self.shared.target.lock() = (Ipv4Addr::LOCALHOST, port).into();
    }

    /// Whether connections are taken, or refused as where nobody listens. Returns when it is so.
    pub fn listen(&self, wanted: bool) {
        self.shared.listening.send_replace(wanted);
        let reached = || std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() == wanted;
        crate::harness::wait_for(Duration::from_secs(20), "the relay's port is as it should be", reached);
    }

    /// Of all connections, those to come as well.
    pub fn weather(&self, direction: Direction, weather: Weather) {
        self.shared.weather.lock()[direction as usize] = weather;
        self.links().iter().for_each(|link| link.weather(direction, weather));
    }

    /// The same in both directions.
    pub fn weather_all(&self, weather: Weather) {
        self.weather(Direction::ToServer, weather);
        self.weather(Direction::ToClient, weather);
    }

    /// The open connections, oldest first.
    pub fn links(&self) -> Vec<Arc<Link>> {
        self.shared.links.lock().values().cloned().collect()
    }

    /// Ends all open connections, wherever they are in a message.
    pub fn end_all(&self, how: End) {
        self.links().iter().for_each(|link| link.end(how));
    }

    /// Waits at a point for the first connection that comes there. Each trap catches once.
    pub fn arm(&self, point: Point) -> Arc<Trap> {
        let trap = Arc::new(Trap::new(point));
        self.shared.traps.lock().push(Arc::clone(&trap));
        trap
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

async fn accept(shared: Arc<Shared>, port: u16, first: TcpListener) {
    let mut listening = shared.listening.subscribe();
    let mut listener = Some(first);
    for number in 0.. {
        let accepted = loop {
            if !*listening.borrow_and_update() {
                listener = None;
                if listening.wait_for(|wanted| *wanted).await.is_err() {
                    return;
                }
            }
            let socket = match listener.take() {
                Some(socket) => socket,
                None => bind(port).await,
            };
            let outcome = tokio::select! {
                accepted = socket.accept() => Some(accepted),
                _ = listening.changed() => None,
            };
            listener = Some(socket);
            if let Some(Ok((stream, _))) = outcome {
                break stream;
            }
        };
        let link = Arc::new(Link::new(number, *shared.weather.lock()));
        shared.links.lock().insert(number, Arc::clone(&link));
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            link.run(accepted, &shared).await;
            shared.links.lock().remove(&number);
        });
    }
}

/// The port was ours, and nobody is given it who asks for any.
async fn bind(port: u16) -> TcpListener {
    loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(listener) => return listener,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("port {port}: {error}"),
        }
    }
}
