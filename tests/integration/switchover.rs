//! A planned switchover and back under an application that must not notice, with the old primary rewound each time; and
//! switchovers that come to nothing.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use causeway::app::demo::cluster::{ClusterOptions, LocalCluster, LocalNode, Stop};
use parking_lot::Mutex;
use tokio_postgres::{Client, Error};

use crate::console::{ask, value, with_console};
use crate::faults::PROBE;
use crate::forks::follow;
use crate::harness::{CONTROL_USER, Env, PASSWORD, Test, USER, block_on, cluster, wait_for};
use crate::proxy::Proxy;
use crate::target::Target;

pub const TESTS: &[Test] = &[
    ("switchover::there_and_back_is_not_seen", there_and_back_is_not_seen),
    ("switchover::what_comes_to_nothing_is_undone", what_comes_to_nothing_is_undone),
];

const DATABASE: &str = "shop";
const CLIENTS: i32 = 50;
const LIMIT: Duration = Duration::from_secs(120);
/// Between two pieces of work of a client: two cores have other work as well.
const PAUSE: Duration = Duration::from_millis(10);

/// What a client does again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Read,
    Write,
    Transaction,
    /// Prepared statements: a write, and a read that must see it.
    Prepared,
}

const KINDS: [Kind; 4] = [Kind::Read, Kind::Write, Kind::Transaction, Kind::Prepared];

#[derive(Debug, Default)]
struct Record {
    stop: AtomicBool,
    /// By client: numbers up to this one were acknowledged.
    written: Vec<AtomicU64>,
    /// By client: pieces of work.
    done: Vec<AtomicU64>,
    slowest: Mutex<BTreeMap<Kind, Duration>>,
    failures: Mutex<Vec<String>>,
}

impl Record {
    fn note_took(&self, kind: Kind, took: Duration) {
        let mut slowest = self.slowest.lock();
        let known = slowest.entry(kind).or_default();
        *known = took.max(*known);
    }
}

struct Application {
    record: Arc<Record>,
    thread: Option<JoinHandle<()>>,
}

impl Application {
    fn start(target: &Target) -> Self {
        let counters = || (0..CLIENTS).map(|_| AtomicU64::new(0)).collect();
        let record = Arc::new(Record { written: counters(), done: counters(), ..Record::default() });
        let thread = thread::spawn({
            let (record, target) = (Arc::clone(&record), target.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let clients = (0..CLIENTS).map(|id| run(id, &target, &record));
                runtime.block_on(futures_util::future::join_all(clients));
            }
        });
        Self { record, thread: Some(thread) }
    }

    /// Waits until every client has done as many more pieces of work.
    fn await_done(&self, more: u64) {
        let before: Vec<u64> = self.record.done.iter().map(|done| done.load(Relaxed)).collect();
        wait_for(LIMIT, "all clients go on", || {
            let failures = self.record.failures.lock();
            assert!(failures.is_empty(), "{} clients failed: {:?}", failures.len(), &failures[..failures.len().min(5)]);
            self.record.done.iter().zip(&before).all(|(done, before)| done.load(Relaxed) >= before + more)
        });
    }

    fn take_slowest(&self) -> BTreeMap<Kind, Duration> {
        std::mem::take(&mut *self.record.slowest.lock())
    }

    /// Ends it, and gives by client what was acknowledged.
    fn end(mut self) -> Vec<u64> {
        self.record.stop.store(true, Relaxed);
        self.thread.take().unwrap().join().unwrap();
        let failures = self.record.failures.lock();
        assert!(failures.is_empty(), "{} clients failed: {failures:?}", failures.len());
        self.record.written.iter().map(|written| written.load(Relaxed)).collect()
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.record.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || thread::panicking(), "the application panicked");
        }
    }
}

async fn run(id: i32, target: &Target, record: &Record) {
    let kind = KINDS[usize::try_from(id).unwrap() % KINDS.len()];
    let outcome = async {
        let client = target.try_connect().await?;
        while !record.stop.load(Relaxed) {
            let started = Instant::now();
            work(id, kind, &client, record).await?;
            record.note_took(kind, started.elapsed());
            record.done[usize::try_from(id).unwrap()].fetch_add(1, Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
        Ok::<_, Error>(())
    };
    if let Err(error) = outcome.await {
        let told = error.as_db_error().map_or_else(|| error.to_string(), |error| format!("{error:?}"));
        record.failures.lock().push(format!("client {id} ({kind:?}): {told}"));
    }
}

async fn work(id: i32, kind: Kind, client: &Client, record: &Record) -> Result<(), Error> {
    let written = &record.written[usize::try_from(id).unwrap()];
    let next = i64::try_from(written.load(Relaxed)).unwrap() + 1;
    match kind {
        Kind::Read => {
            client.simple_query("SELECT sum(balance) FROM account").await?;
            client.query_one("SELECT count(*) FROM account WHERE id = $1", &[&id]).await?;
        }
        Kind::Write => {
            client.simple_query(&format!("INSERT INTO journal VALUES ({id}, {next})")).await?;
            written.fetch_add(1, Relaxed);
        }
        Kind::Transaction => {
            client.batch_execute("BEGIN").await?;
            client.execute("UPDATE account SET balance = balance - 1 WHERE id = $1", &[&(2 * id)]).await?;
            client.execute("UPDATE account SET balance = balance + 1 WHERE id = $1", &[&(2 * id + 1)]).await?;
            client.execute("INSERT INTO journal VALUES ($1, $2)", &[&id, &next]).await?;
            client.batch_execute("COMMIT").await?;
            written.fetch_add(1, Relaxed);
        }
        Kind::Prepared => {
            let (write, read) = tokio::try_join!(
                client.prepare("INSERT INTO journal VALUES ($1, $2)"),
                client.prepare("SELECT max(n) FROM journal WHERE client = $1")
            )?;
            for number in [next, next + 1] {
                client.execute(&write, &[&id, &number]).await?;
                written.fetch_add(1, Relaxed);
                let seen: i64 = client.query_one(&read, &[&id]).await?.get(0);
                if seen != number {
                    record.failures.lock().push(format!("client {id} wrote {number} and read {seen}"));
                }
            }
        }
    }
    Ok(())
}

/// Replicas that can be promoted and primaries that can be rewound; the second replica follows the first.
fn stage() -> LocalCluster {
    let extra_conf = "wal_log_hints = on\nfull_page_writes = on\n".to_owned();
    let cluster = cluster(&ClusterOptions { extra_conf, ..ClusterOptions::default() });
    cluster.create_database(DATABASE, USER).unwrap();
    let accounts = 2 * CLIENTS;
    let tables = format!(
        "SET ROLE {USER}; CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL); \
         INSERT INTO account SELECT id, 100 FROM generate_series(0, {accounts} - 1) id; \
         CREATE TABLE journal (client int, n bigint); CREATE INDEX ON journal (client, n)"
    );
    cluster.primary().sql(DATABASE, &tables).unwrap();
    let may = format!("GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO {CONTROL_USER}");
    cluster.primary().sql("postgres", &may).unwrap();
    let [primary, one, two] = [0, 1, 2].map(|index| &cluster.nodes()[index]);
    follow(one, Some(primary));
    follow(two, Some(one));
    cluster.catch_up().unwrap();
    cluster
}

fn await_eligible(proxy: &Proxy, nodes: [&LocalNode; 2]) {
    wait_for(LIMIT, "both others get reads", || nodes.iter().all(|node| proxy.is_eligible(node.name())));
}

/// Stops a former primary, and brings it back as a replica of the one that has taken over.
fn rejoin(former: &LocalNode, source: &LocalNode) {
    former.stop(Stop::Fast).unwrap();
    former.rewind(source).unwrap();
    former.start().unwrap();
}

/// What an operator runs to promote the node by hand.
fn switch_by_hand(proxy: &Proxy, from: &LocalNode, to: &LocalNode) {
    let port = proxy.target("").port.to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_causeway"))
        .args(["switchover", "--cluster", "demo", "--to", to.name(), "--wait", "--timeout", "100s"])
        .args(["--host", "127.0.0.1", "--port", &port, "--user", USER])
        .env("PGPASSWORD", PASSWORD)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(command.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(told.any(|line| line.contains("promote it now")));
    from.stop(Stop::Fast).unwrap();
    to.promote().unwrap();
    let last = told.last().unwrap_or_default();
    assert!(command.wait().unwrap().success() && last.contains("is the primary"), "{last}");
    println!("by hand: {last}");
}

fn there_and_back_is_not_seen(_: &Env) {
    let cluster = stage();
    let [primary, one, two] = [0, 1, 2].map(|index| &cluster.nodes()[index]);
    let proxy = Proxy::start_as(&cluster, |text| with_console(&text) + "\n[pool]\ndefault_pool_size = 15\n");
    let console = proxy.target("causeway");
    let application = Application::start(&proxy.target(DATABASE));
    proxy.facts_loaded(DATABASE, 1);
    application.await_done(10);
    println!("before: longest {:?}", application.take_slowest());

    let started = Instant::now();
    block_on(async { ask(&console.connect().await, "SWITCHOVER demo TO replica1").await.unwrap() });
    println!("by the console: {:?}", started.elapsed());
    application.await_done(5);
    println!("there: longest {:?}", application.take_slowest());
    rejoin(primary, one);
    await_eligible(&proxy, [primary, two]);
    follow(two, Some(primary));
    await_eligible(&proxy, [primary, two]);
    application.await_done(5);
    println!("between: longest {:?}", application.take_slowest());

    switch_by_hand(&proxy, one, primary);
    application.await_done(5);
    println!("back: longest {:?}", application.take_slowest());
    rejoin(one, primary);
    await_eligible(&proxy, [one, two]);
    application.await_done(5);

    let written = application.end();
    cluster.catch_up().unwrap();
    for node in cluster.nodes() {
        let rows = "SELECT client, count(*), count(DISTINCT n), max(n) FROM journal GROUP BY client ORDER BY client";
        let journal = node.sql(DATABASE, rows).unwrap();
        let expected = written.iter().enumerate().filter(|(_, n)| **n > 0);
        let expected: Vec<String> = expected.map(|(client, n)| format!("{client}|{n}|{n}|{n}")).collect();
        assert_eq!(journal, expected.join("\n"), "{}: what was acknowledged, once", node.name());
        let total = node.sql(DATABASE, "SELECT sum(balance) FROM account").unwrap();
        assert_eq!(total, (100 * 2 * CLIENTS).to_string());
    }
    println!("{} acknowledged writes, none lost", written.iter().sum::<u64>());
}

fn what_comes_to_nothing_is_undone(_: &Env) {
    let cluster = stage();
    let [primary, one] = [0, 1].map(|index| &cluster.nodes()[index]);
    let proxy = Proxy::start_as(&cluster, |text| with_console(&text) + PROBE);
    let target = proxy.target(DATABASE);
    let fails = async |command: &str, why: &str, hint: &str| {
        let console = proxy.target("causeway").connect().await;
        let error = ask(&console, command).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "55000", "{command}: {error:?}");
        assert!(error.message().contains(why) && error.hint().unwrap_or_default().contains(hint), "{error:?}");
        for (column, wanted) in [("paused", "no"), ("primary", "primary"), ("timeline", "1")] {
            let shown = value(&console, "SHOW CLUSTERS", ("name", "demo"), column).await;
            assert_eq!(shown.as_deref(), Some(wanted), "{command}: {column}");
        }
        target.connect().await.simple_query("INSERT INTO journal VALUES (0, 0)").await.unwrap();
    };
    block_on(async {
        let mut client = target.connect().await;
        let transaction = client.transaction().await.unwrap();
        transaction.execute("INSERT INTO journal VALUES (0, 0)", &[]).await.unwrap();
        fails("SWITCHOVER demo TO replica1 TIMEOUT 200ms", "transactions did not end within 200ms", "TIMEOUT").await;
        transaction.commit().await.unwrap();
    });
    one.sql("postgres", "SELECT pg_wal_replay_pause()").unwrap();
    block_on(async {
        target.connect().await.simple_query("INSERT INTO journal VALUES (0, 0)").await.unwrap();
        fails("SWITCHOVER demo TO replica1 TIMEOUT 200ms", "it did not replay", "TIMEOUT").await;
    });
    one.sql("postgres", "SELECT pg_wal_replay_resume()").unwrap();
    block_on(fails("SWITCHOVER demo TO replica1 WAIT TIMEOUT 1s", "it was not promoted within 1s", "Do not promote"));
    let may_not = format!("REVOKE EXECUTE ON FUNCTION pg_promote(boolean, integer) FROM {CONTROL_USER}");
    primary.sql("postgres", &may_not).unwrap();
    cluster.catch_up().unwrap();
    block_on(fails("SWITCHOVER demo TO replica1", "refuses pg_promote(): permission denied", "GRANT EXECUTE"));
    one.stop(Stop::Fast).unwrap();
    wait_for(LIMIT, "the replica is missed", || !proxy.is_eligible(one.name()));
    block_on(fails("SWITCHOVER demo TO replica1", "it is not fit to take over (unreachable)", "SHOW NODES"));
}
