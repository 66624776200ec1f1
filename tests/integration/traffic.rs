//! An application that never stops: reads by both protocols, writes, transactions; it records every error that it sees.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use causeway::app::demo::cluster::LocalCluster;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use crate::harness::{USER, wait_for};
use crate::target::Target;

/// In the text of every read.
pub const MARKER: &str = "steady read";

/// Between two statements of a client: two cores have other work as well.
const PAUSE: Duration = Duration::from_millis(3);
const LIMIT: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    SimpleRead,
    ExtendedRead,
    Write,
    Transaction,
}

const CLIENTS: [Kind; 8] = {
    use Kind::{ExtendedRead, SimpleRead, Transaction, Write};
    [SimpleRead, ExtendedRead, Write, Transaction, SimpleRead, ExtendedRead, Write, Transaction]
};

impl Kind {
    pub fn is_read(self) -> bool {
        matches!(self, Self::SimpleRead | Self::ExtendedRead)
    }
}

/// An error that a client saw.
#[derive(Debug)]
pub struct Failure {
    pub kind: Kind,
    pub code: Option<SqlState>,
    /// Message and hint.
    pub text: String,
}

#[derive(Debug, Default)]
struct Record {
    stop: Notify,
    /// By client.
    done: [AtomicU64; CLIENTS.len()],
    slowest_read: Mutex<Duration>,
    failures: Mutex<Vec<Failure>>,
}

/// Ends with the value.
pub struct Traffic {
    record: Arc<Record>,
    thread: Option<JoinHandle<()>>,
}

/// The database that the traffic works in.
pub const DATABASE: &str = "shop";

/// Makes the database on all nodes.
pub fn prepare(cluster: &LocalCluster) {
    cluster.create_database(DATABASE, USER).unwrap();
    let tables = "CREATE TABLE item (id int PRIMARY KEY, value int NOT NULL); \
                  INSERT INTO item SELECT id, 0 FROM generate_series(1, 100) id; \
                  CREATE TABLE journal (at timestamptz DEFAULT now()); \
                  ALTER TABLE item OWNER TO app; ALTER TABLE journal OWNER TO app";
    cluster.primary().sql(DATABASE, tables).unwrap();
    cluster.catch_up().unwrap();
}

impl Traffic {
    pub fn start(target: &Target) -> Self {
        let record = Arc::new(Record::default());
        let thread = thread::spawn({
            let (record, target) = (Arc::clone(&record), target.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let clients = (0..CLIENTS.len()).map(|id| client(id, &target, &record));
                    tokio::select! {
                        _ = futures_util::future::join_all(clients) => {}
                        () = record.stop.notified() => {}
                    }
                });
            }
        });
        Self { record, thread: Some(thread) }
    }

    /// Waits until every reading client has done as many more reads.
    pub fn await_reads(&self, more: u64) {
        self.await_done(more, Kind::is_read, "all readers go on");
    }

    /// Waits until every writing client has done as many more writes or transactions.
    pub fn await_writes(&self, more: u64) {
        self.await_done(more, |kind| !kind.is_read(), "all writers go on");
    }

    fn await_done(&self, more: u64, wanted: impl Fn(Kind) -> bool, what: &str) {
        let before = self.record.done.each_ref().map(|done| done.load(Relaxed));
        let goes_on = |id: usize| self.record.done[id].load(Relaxed) >= before[id] + more;
        wait_for(LIMIT, what, || (0..CLIENTS.len()).all(|id| !wanted(CLIENTS[id]) || goes_on(id)));
    }

    /// The longest that a read has taken since this was asked last.
    pub fn take_slowest_read(&self) -> Duration {
        std::mem::take(&mut *self.record.slowest_read.lock())
    }

    /// What clients have seen since this was asked last.
    pub fn take_failures(&self) -> Vec<Failure> {
        std::mem::take(&mut *self.record.failures.lock())
    }

    /// No client has seen an error since this was asked last.
    pub fn assert_no_failure(&self, when: &str) {
        let failures = self.take_failures();
        assert!(
            failures.is_empty(),
            "{when}: {} errors, first {:?}",
            failures.len(),
            &failures[..failures.len().min(5)]
        );
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        if thread::panicking() {
            let failures = self.take_failures();
            eprintln!("{} errors of clients, first {:?}", failures.len(), failures.iter().take(5).collect::<Vec<_>>());
            eprintln!("done by client: {:?}", self.record.done);
        }
        self.record.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || thread::panicking(), "the traffic panicked");
        }
    }
}

async fn client(id: usize, target: &Target, record: &Record) {
    let kind = CLIENTS[id];
    let mut connection = None;
    loop {
        let outcome = match connection.take() {
            Some(client) => record.time(id, once(kind, &client)).await.map(|()| client),
            None => target.try_connect().await,
        };
        match outcome {
            Ok(client) => connection = Some(client),
            Err(error) => record.failures.lock().push(Failure::new(kind, &error)),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Record {
    async fn time(&self, id: usize, work: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
        let started = Instant::now();
        work.await?;
        self.done[id].fetch_add(1, Relaxed);
        if CLIENTS[id].is_read() {
            let mut slowest = self.slowest_read.lock();
            *slowest = slowest.max(started.elapsed());
        }
        Ok(())
    }
}

async fn once(kind: Kind, client: &Client) -> Result<(), Error> {
    match kind {
        Kind::SimpleRead => client.simple_query(&format!("SELECT sum(value) FROM item -- {MARKER}")).await.map(drop),
        Kind::ExtendedRead => {
            let sql = format!("SELECT value FROM item WHERE id = $1 -- {MARKER}");
            client.query_one(&sql, &[&fastrand::i32(1..=100)]).await.map(drop)
        }
        Kind::Write => client.execute("INSERT INTO journal DEFAULT VALUES", &[]).await.map(drop),
        Kind::Transaction => {
            let id = fastrand::i32(1..=100);
            let sql = format!("BEGIN; UPDATE item SET value = value + 1 WHERE id = {id}");
            client.batch_execute(&sql).await?;
            client.query_one("SELECT value FROM item WHERE id = $1", &[&id]).await?;
            client.batch_execute("COMMIT").await
        }
    }
}

impl Failure {
    fn new(kind: Kind, error: &Error) -> Self {
        let text = match error.as_db_error() {
            Some(error) => format!("{}; {}", error.message(), error.hint().unwrap_or("no hint")),
            None => error.to_string(),
        };
        Self { kind, code: error.code().cloned(), text }
    }
}
