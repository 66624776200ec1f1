//! Many clients, few servers: everybody gets its turn, also beside a flood of clients that only take up room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use causeway::app::demo::cluster::ClusterOptions;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Barrier, Semaphore};

use crate::frames::query;
use crate::harness::{Env, USER, cluster};
use crate::proxy::Proxy;
use crate::target::Target;

/// So many clients, and then for seconds instead of answers, to measure: `make overload`.
const CLIENTS: &str = "CAUSEWAY_TEST_CLIENTS";
const SECONDS: Duration = Duration::from_secs(30);

/// What one run is made of.
#[derive(Clone, Copy, Debug)]
struct Crowd {
    clients: usize,
    servers: usize,
    /// Connections that say nothing, and clients that send a byte now and then.
    flood: usize,
    /// `None`: until there are so many answers for each client.
    duration: Option<Duration>,
}

const ANSWERS_EACH: usize = 20;
/// A simple answer ends so, outside of a transaction.
const READY: &[u8] = b"Z\0\0\0\x05I";
const LOGINS_AT_A_TIME: usize = 64;

pub fn few_servers_serve_a_crowd_fairly(_: &Env) {
    let many = std::env::var(CLIENTS).ok().map(|text| text.parse::<usize>().unwrap());
    let small = Crowd { clients: 300, servers: 4, flood: 100, duration: None };
    let crowd =
        many.map_or(small, |clients| Crowd { clients, servers: 20, flood: clients / 10, duration: Some(SECONDS) });
    let (_, most_files) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most_files, most_files).unwrap();
    let cluster = cluster(&ClusterOptions {
        replicas: 0,
        extra_conf: "log_statement = 'none'\n".to_owned(),
        ..ClusterOptions::default()
    });
    for flood in [0, crowd.flood] {
        let crowd = Crowd { flood, ..crowd };
        let settings = format!(
            "[routing]\nsplit = false\n[pool]\nquery_wait_timeout = \"1h\"\ndefault_pool_size = {}\n[limits]\nmax_client_conn = {}\n",
            crowd.servers,
            crowd.clients + 2 * crowd.flood
        );
        let proxy = Proxy::start_as(&cluster, |text| format!("auth_type = \"trust\"\n{text}{settings}"));
        let before = proxy.memory_mib();
        let waits = crowd.gather(&proxy.target("postgres"));
        let report = Report::of(&waits);
        println!("{crowd:?}\n{}\nproxy: {before} MiB before, {} MiB after", report.text(), proxy.memory_mib());
        report.assert_fair();
        if crowd.duration.is_some() {
            let [p50, _, p99, _] = report.waits();
            assert!(p99 <= 3 * p50, "{p99:?} is more than three times {p50:?}");
        }
    }
}

/// What all clients of a crowd share.
struct Scene {
    target: Target,
    crowd: Crowd,
    logins: Semaphore,
    all_are_here: Barrier,
    answers: AtomicUsize,
    over: AtomicBool,
}

impl Crowd {
    /// How long each client waited for each of its answers.
    fn gather(self, target: &Target) -> Vec<Vec<Duration>> {
        let scene = Arc::new(Scene {
            target: target.clone(),
            crowd: self,
            logins: Semaphore::new(LOGINS_AT_A_TIME),
            all_are_here: Barrier::new(self.clients + 1),
            answers: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for nth in 0..self.flood {
                tokio::spawn(Arc::clone(&scene).take_up_room(nth % 2 == 0));
            }
            let clients: Vec<_> = (0..self.clients).map(|_| tokio::spawn(Arc::clone(&scene).ask_on_and_on())).collect();
            scene.all_are_here.wait().await;
            if let Some(duration) = self.duration {
                tokio::time::sleep(duration).await;
                scene.over.store(true, Relaxed);
            }
            let mut waits = Vec::new();
            for client in clients {
                waits.push(client.await.unwrap());
            }
            waits
        })
    }
}

impl Scene {
    async fn connect(&self) -> TcpStream {
        let _one_of_few = self.logins.acquire().await.unwrap();
        let stream = TcpStream::connect((self.target.host.as_str(), self.target.port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    async fn log_in(&self) -> TcpStream {
        let _one_of_few = self.logins.acquire().await.unwrap();
        let mut stream = TcpStream::connect((self.target.host.as_str(), self.target.port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let body =
            [b"\0\x03\0\0user\0", USER.as_bytes(), b"\0database\0", self.target.database.as_bytes(), b"\0\0"].concat();
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        stream.write_all(&[&length, &body[..]].concat()).await.unwrap();
        read_ready(&mut stream).await;
        stream
    }

    /// Logs in, and when all are here asks again as soon as it has its answer.
    async fn ask_on_and_on(self: Arc<Self>) -> Vec<Duration> {
        let mut stream = self.log_in().await;
        let question = query("SELECT 1");
        let mut waits = Vec::new();
        self.all_are_here.wait().await;
        while !self.over.load(Relaxed) {
            let begin = Instant::now();
            stream.write_all(&question).await.unwrap();
            read_ready(&mut stream).await;
            waits.push(begin.elapsed());
            let answers = self.answers.fetch_add(1, Relaxed) + 1;
            if self.crowd.duration.is_none() && answers >= ANSWERS_EACH * self.crowd.clients {
                self.over.store(true, Relaxed);
            }
        }
        waits
    }

    /// Half a login, or a session with a statement that never comes to its end.
    async fn take_up_room(self: Arc<Self>, logs_in: bool) {
        let mut stream = if logs_in { self.log_in().await } else { self.connect().await };
        let announced: &[u8] = if logs_in { b"Q\0\x01\0\0SELECT " } else { b"\0\0\x01\0\0\x03\0\0user\0" };
        for byte in announced.iter().chain(b" ".iter().cycle()) {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Reads up to `ReadyForQuery`; whatever else comes ends the test.
async fn read_ready(stream: &mut TcpStream) {
    let mut end = Vec::new();
    let mut buffer = [0; 1024];
    while !end.ends_with(READY) {
        let bytes = stream.read(&mut buffer).await.unwrap();
        assert!(bytes > 0 && buffer[0] != b'E', "refused: {}", buffer[..bytes].escape_ascii());
        end.extend_from_slice(&buffer[..bytes]);
    }
}

/// How a crowd was served.
struct Report {
    /// Answers of each client, sorted.
    counts: Vec<usize>,
    /// All waits, sorted.
    waits: Vec<Duration>,
}

impl Report {
    fn of(waits: &[Vec<Duration>]) -> Self {
        let mut counts: Vec<_> = waits.iter().map(Vec::len).collect();
        let mut waits = waits.concat();
        counts.sort_unstable();
        waits.sort_unstable();
        Self { counts, waits }
    }

    /// The 50th, 90th and 99th percentile, and the longest.
    fn waits(&self) -> [Duration; 4] {
        [50, 90, 99, 100].map(|percent| self.waits[(self.waits.len() * percent / 100).min(self.waits.len() - 1)])
    }

    fn median(&self) -> usize {
        self.counts[self.counts.len() / 2]
    }

    fn text(&self) -> String {
        let [p50, p90, p99, longest] = self.waits();
        let (least, most) = (self.counts[0], self.counts[self.counts.len() - 1]);
        format!(
            "{} answers; waits: p50 {p50:.1?}, p90 {p90:.1?}, p99 {p99:.1?}, longest {longest:.1?}; answers of a client: \
             least {least}, median {}, most {most}",
            self.waits.len(),
            self.median()
        )
    }

    /// However busy the machine is, the clients share what there is.
    fn assert_fair(&self) {
        assert!(self.counts[0] > 0 && 2 * self.counts[0] >= self.median(), "somebody starves: {}", self.text());
        assert!(self.counts[self.counts.len() - 1] <= 2 * self.median(), "somebody gets too much: {}", self.text());
    }
}
