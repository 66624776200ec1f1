//! pgbench through the proxy, in all its protocols. The nodes' own statistics say where the work was done.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use causeway::app::demo::cluster::LocalNode;

use crate::harness::{Database, Env, Test};
use crate::proxy::Proxy;
use crate::target::Target;

pub const TESTS: &[Test] = &[
    ("pgbench::simple", |env| run(env, "simple")),
    ("pgbench::extended", |env| run(env, "extended")),
    ("pgbench::prepared", |env| run(env, "prepared")),
];

/// A server reports what it did when it ends, at the latest.
const REPORT_LIMIT: Duration = Duration::from_secs(20);

fn run(env: &Env, protocol: &str) {
    let database = env.database(&format!("pgbench_{protocol}"));
    pgbench(&database.node(0), &["-i", "-q", "-s", "1"]);
    env.shared().cluster.catch_up().unwrap();

    let reads = transactions(&load(env, &database, protocol, &["-S", "-n"]));
    let seen = Work { updates: 0, scans: 0, scans_on_replicas: reads };
    await_work(env, &database, seen);

    let writes = transactions(&load(env, &database, protocol, &[]));
    // Each transaction updates one account and reads it, and adds a line to the history.
    await_work(env, &database, Work { updates: writes, scans: 2 * writes, ..seen });
    let history = database.node(0).psql("SELECT count(*) FROM pgbench_history");
    assert_eq!(history, writes.to_string());
}

/// Index scans of the accounts, and updates of them. Updates need no counting on replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Work {
    updates: u64,
    scans: u64,
    scans_on_replicas: u64,
}

fn await_work(env: &Env, database: &Database<'_>, wanted: Work) {
    let deadline = Instant::now() + REPORT_LIMIT;
    loop {
        let work = work(env, database);
        if work == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "the nodes say {work:?}, not {wanted:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn work(env: &Env, database: &Database<'_>) -> Work {
    let count = |node: &LocalNode, column: &str| -> u64 {
        let sql = format!("SELECT sum({column}) FROM pg_stat_user_tables WHERE relname = 'pgbench_accounts'");
        node.sql(&database.name, &sql).unwrap().parse().unwrap()
    };
    let cluster = &env.shared().cluster;
    Work {
        updates: count(cluster.primary(), "n_tup_upd"),
        scans: count(cluster.primary(), "idx_scan"),
        scans_on_replicas: cluster.replicas().iter().map(|node| count(node, "idx_scan")).sum(),
    }
}

/// Runs a script with 16 clients through a proxy of its own, which has ended when this returns.
fn load(env: &Env, database: &Database<'_>, protocol: &str, arguments: &[&str]) -> String {
    let proxy = Proxy::start(&env.shared().cluster, "");
    let common = ["-M", protocol, "-c", "16", "-j", "2", "-T", "2"];
    pgbench(&proxy.target(&database.name), &[&common, arguments].concat())
}

fn pgbench(target: &Target, arguments: &[&str]) -> String {
    let mut command = Command::new("pgbench");
    command.args(arguments);
    target.run(command)
}

/// How many transactions went well; none failed.
fn transactions(report: &str) -> u64 {
    let value = |name: &str| report.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    assert_eq!(value("number of failed transactions: "), Some("0"), "{report}");
    let done = value("number of transactions actually processed: ").unwrap().parse().unwrap();
    assert!(done > 0, "{report}");
    done
}
