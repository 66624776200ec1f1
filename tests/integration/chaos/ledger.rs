//! What the clients of a cell were told, held against what the nodes have.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use causeway::app::demo::cluster::{LocalCluster, LocalNode};
use parking_lot::Mutex;

use crate::harness::wait_for;

use super::cell::Cell;
use super::errors::{Role, documented};

pub const DATABASE: &str = "chaos";
/// Of all accounts, whatever is transferred.
pub const TOTAL: &str = "2000";
const LIMIT: Duration = Duration::from_secs(60);

/// What a client knows of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Acknowledged,
    /// It was told, or knows, that it is not there.
    Denied,
    Unknown,
}

/// A write, and when what commits it was sent and answered.
#[derive(Clone, Debug)]
pub struct Write {
    pub id: String,
    pub fate: Fate,
    pub asked: Instant,
    pub answered: Instant,
}

/// How often each id is there.
pub type Found = HashMap<String, u32>;

/// Shared by the clients of a cell.
#[derive(Default)]
pub struct Ledger {
    writes: Mutex<Vec<Write>>,
    /// By what the client was at and what it saw: how often, and the first text.
    errors: Mutex<BTreeMap<(Role, String), (u32, String)>>,
    wrong: Mutex<Vec<String>>,
    longest: Mutex<Duration>,
}

impl Ledger {
    pub fn wrote(&self, ids: &[String], fate: Fate, asked: Instant) {
        let answered = Instant::now();
        self.writes.lock().extend(ids.iter().map(|id| Write { id: id.clone(), fate, asked, answered }));
    }

    pub fn writes(&self) -> Vec<Write> {
        self.writes.lock().clone()
    }

    pub fn failed(&self, role: Role, what: String, text: &str) {
        self.errors.lock().entry((role, what)).or_insert_with(|| (0, text.to_owned())).0 += 1;
    }

    pub fn wrong(&self, what: String) {
        self.wrong.lock().push(what);
    }

    pub fn waited(&self, time: Duration) {
        let mut longest = self.longest.lock();
        *longest = longest.max(time);
    }

    /// The longest that a client has waited for an answer.
    pub fn longest(&self) -> Duration {
        *self.longest.lock()
    }

    /// How many writes there are of each fate.
    pub fn count(&self, fate: Fate) -> usize {
        self.writes.lock().iter().filter(|write| write.fate == fate).count()
    }

    /// `idle: 2 × 40001; …`
    pub fn errors(&self) -> String {
        let errors = self.errors.lock();
        let lines = errors.iter().map(|((role, what), (count, _))| format!("{role:?}: {count} × {what}"));
        lines.collect::<Vec<_>>().join("; ").to_lowercase()
    }

    /// Errors that are not documented for the cell.
    pub fn judge_errors(&self, cell: Cell) {
        for ((role, what), (count, text)) in &*self.errors.lock() {
            if !documented(cell, *role).contains(&what.as_str()) {
                self.wrong(format!("{role:?} saw {count} × {what}, which is not documented: {text}"));
            }
        }
    }

    /// Writes that are lost, doubled, or there although they were denied; money that came or went; transactions that
    /// nobody will end.
    pub fn judge_data(&self, cluster: &LocalCluster) {
        let found = found(cluster.primary());
        for write in self.writes() {
            self.judge_write(&write, &found);
        }
        self.judge_total(cluster.primary());
        let open = "SELECT count(*) FROM pg_stat_activity WHERE usename <> 'postgres' AND state LIKE 'idle in tr%'";
        for node in cluster.nodes() {
            wait_for(LIMIT, "no transaction is left open", || node.sql("postgres", open).is_ok_and(|n| n == "0"));
        }
    }

    pub fn judge_write(&self, Write { id, fate, .. }: &Write, found: &Found) {
        let count = found.get(id).copied().unwrap_or_default();
        let is_right = match fate {
            Fate::Acknowledged => count == 1,
            Fate::Denied => count == 0,
            Fate::Unknown => count <= 1,
        };
        if !is_right {
            self.wrong(format!("{id} is there {count} times, and was {fate:?}"));
        }
    }

    pub fn judge_total(&self, primary: &LocalNode) {
        let total = primary.sql(DATABASE, "SELECT sum(balance) FROM account").unwrap();
        if total != TOTAL {
            self.wrong(format!("the accounts hold {total}, not {TOTAL}"));
        }
    }

    pub fn take_wrong(&self) -> Vec<String> {
        std::mem::take(&mut *self.wrong.lock())
    }
}

/// What a node has of all writes.
pub fn found(node: &LocalNode) -> Found {
    let rows = node.sql(DATABASE, "SELECT id, count(*) FROM journal GROUP BY id").unwrap();
    let pairs = rows.lines().filter_map(|line| line.rsplit_once('|'));
    pairs.map(|(id, count)| (id.to_owned(), count.parse().unwrap())).collect()
}
