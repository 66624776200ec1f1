//! One relayed connection: a reader and a writer for each direction, with a queue of delayed messages between them.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Direction, End, Shared, Splitter, Verdict, Weather};

const READ_BYTES: usize = 16 * 1024;
/// Messages between a reader and its writer.
const QUEUE: usize = 256;
/// Where bandwidth is limited, what is sent at once.
const SLICES_PER_SECOND: u32 = 50;

pub struct Link {
    number: u64,
    weather: [watch::Sender<Weather>; 2],
    passed: [AtomicU64; 2],
    end: watch::Sender<Option<End>>,
}

/// A message, or what is left of one.
struct Delayed {
    due: Instant,
    bytes: Vec<u8>,
    /// What happens to the connection behind it.
    then: Option<End>,
}

impl Link {
    pub(super) fn new(number: u64, weather: [Weather; 2]) -> Self {
        Self {
            number,
            weather: weather.map(watch::Sender::new),
            passed: Default::default(),
            end: watch::Sender::new(None),
        }
    }

    pub fn weather(&self, direction: Direction, weather: Weather) {
        self.weather[direction as usize].send_replace(weather);
    }

    pub fn end(&self, how: End) {
        self.end.send_replace(Some(how));
    }

    /// Connections count from 0.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// In bytes.
    fn passed(&self, direction: Direction) -> u64 {
        self.passed[direction as usize].load(Relaxed)
    }

    pub(super) async fn run(&self, mut client: TcpStream, shared: &Shared) {
        let target = *shared.target.lock();
        let connected = tokio::select! {
            connected = TcpStream::connect(target) => connected,
            _ = self.ended() => return,
        };
        let Ok(mut server) = connected else {
            reset(&client);
            return;
        };
        for stream in [&client, &server] {
            // It may be closed already.
            let _ = stream.set_nodelay(true);
        }
        let end = {
            let (from_client, to_client) = client.split();
            let (from_server, to_server) = server.split();
            let both = async {
                tokio::try_join!(
                    self.pump(from_client, to_server, Direction::ToServer, shared),
                    self.pump(from_server, to_client, Direction::ToClient, shared)
                )
            };
            tokio::select! {
                outcome = both => if outcome.is_ok() { End::Close } else { End::Reset },
                end = self.ended() => end,
            }
        };
        if end == End::Reset {
            reset(&client);
            reset(&server);
        }
    }

    async fn ended(&self) -> End {
        let mut end = self.end.subscribe();
        let given = end.wait_for(Option::is_some).await;
        // The sender is ours.
        given.ok().and_then(|end| *end).unwrap_or(End::Close)
    }

    async fn pump(
        &self,
        from: ReadHalf<'_>,
        to: WriteHalf<'_>,
        direction: Direction,
        shared: &Shared,
    ) -> io::Result<()> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::try_join!(self.read(from, sender, direction, shared), self.write(to, receiver, direction, shared))?;
        Ok(())
    }

    /// Ends at the end of the stream, or when this direction was closed.
    async fn read(
        &self,
        mut from: ReadHalf<'_>,
        queue: mpsc::Sender<Delayed>,
        direction: Direction,
        shared: &Shared,
    ) -> io::Result<()> {
        let mut rng = fastrand::Rng::with_seed(shared.seed ^ (self.number << 1) ^ direction as u64);
        let mut splitter = Splitter::new(direction);
        let mut buffer = vec![0; READ_BYTES];
        let mut latest = Instant::now();
        let mut delayed = |bytes, then| {
            let weather = *self.weather[direction as usize].borrow();
            // They stay in order.
            latest = latest.max(Instant::now() + weather.latency + weather.jitter.mul_f64(rng.f64()));
            Delayed { due: latest, bytes, then }
        };
        loop {
            self.thawed(direction).await;
            let count = from.read(&mut buffer).await?;
            self.thawed(direction).await;
            splitter.push(&buffer[..count]);
            while let Some(mut message) = splitter.next() {
                let traps = shared.traps.lock().clone();
                let mut then = None;
                if let Some(trap) = traps.iter().find(|trap| trap.catches(self.number, direction, &message)) {
                    match trap.verdict().await {
                        Verdict::Pass => {}
                        Verdict::Tear(bytes, end) => {
                            message.truncate(bytes);
                            then = Some(end);
                        }
                        Verdict::HalfClose => return Ok(()),
                        Verdict::Freeze => std::future::pending().await,
                    }
                }
                // Its receiver goes only with us.
                let _ = queue.send(delayed(message, then)).await;
            }
            if count == 0 {
                let _ = queue.send(delayed(splitter.rest(), None)).await;
                return Ok(());
            }
        }
    }

    async fn write(
        &self,
        mut to: WriteHalf<'_>,
        mut queue: mpsc::Receiver<Delayed>,
        direction: Direction,
        shared: &Shared,
    ) -> io::Result<()> {
        while let Some(Delayed { due, bytes, then }) = queue.recv().await {
            sleep_until(due).await;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                self.thawed(direction).await;
                let slice = self.slice(direction).min(rest.len());
                let traps = shared.traps.lock().clone();
                let passed = self.passed(direction);
                let caught = traps.iter().find_map(|trap| Some((trap, trap.catches_at(direction, passed, slice)?)));
                let (now, later) = rest.split_at(caught.map_or(slice, |(_, bytes)| bytes));
                to.write_all(now).await?;
                self.passed[direction as usize].fetch_add(now.len() as u64, Relaxed);
                rest = later;
                match caught {
                    Some((trap, _)) => match trap.verdict().await {
                        Verdict::Pass => {}
                        Verdict::Tear(_, end) => self.finish(end).await,
                        Verdict::HalfClose => return to.shutdown().await,
                        Verdict::Freeze => std::future::pending().await,
                    },
                    None if self.weather[direction as usize].borrow().bandwidth.is_some() => {
                        sleep(Duration::from_secs(1) / SLICES_PER_SECOND).await;
                    }
                    None => {}
                }
            }
            if let Some(end) = then {
                self.finish(end).await;
            }
        }
        match to.shutdown().await {
            // It has gone already.
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
            outcome => outcome,
        }
    }

    /// Ends the connection, which drops who asks for it.
    async fn finish(&self, how: End) {
        self.end(how);
        std::future::pending::<()>().await;
    }

    /// In bytes: how much may be sent at once.
    fn slice(&self, direction: Direction) -> usize {
        let bandwidth = self.weather[direction as usize].borrow().bandwidth;
        bandwidth.map_or(usize::MAX, |rate| (rate / SLICES_PER_SECOND).max(1) as usize)
    }

    async fn thawed(&self, direction: Direction) {
        let mut weather = self.weather[direction as usize].subscribe();
        // The sender is ours.
        let _ = weather.wait_for(|weather| !weather.frozen).await;
    }
}

/// What is closed afterwards is closed with an RST.
fn reset(stream: &TcpStream) {
    // It may have gone already.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
