//! What the clients of a cell were told, held against what the nodes have.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use causeway::app::demo::cluster::LocalCluster;
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

/// Shared by the clients of a cell.
#[derive(Default)]
pub struct Ledger {
    writes: Mutex<Vec<(String, Fate)>>,
    /// By what the client was at and what it saw: how often, and the first text.
    errors: Mutex<BTreeMap<(Role, String), (u32, String)>>,
    wrong: Mutex<Vec<String>>,
    longest: Mutex<Duration>,
}

impl Ledger {
    pub fn wrote(&self, ids: &[String], fate: Fate) {
        self.writes.lock().extend(ids.iter().map(|id| (id.clone(), fate)));
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
        self.writes.lock().iter().filter(|(_, of)| *of == fate).count()
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

    /// Writes that are lost, doubled, or there although they were denied; money that came or went.
    pub fn judge_data(&self, cluster: &LocalCluster) {
        self.judge_data_on(cluster.primary());
        let open = "SELECT count(*) FROM pg_stat_activity WHERE usename <> 'postgres' AND state LIKE 'idle in tr%'";
        for node in cluster.nodes() {
            wait_for(LIMIT, "no transaction is left open", || node.sql("postgres", open).is_ok_and(|n| n == "0"));
        }
    }

    /// The same of a node that is the primary now. Gives the acknowledged writes that are not there.
    pub fn judge_data_on(&self, node: &causeway::app::demo::cluster::LocalNode) -> usize {
        let rows = node.sql(DATABASE, "SELECT id, count(*) FROM journal GROUP BY id").unwrap();
        let found: HashMap<&str, u32> =
            rows.lines().filter_map(|line| line.split_once('|')).map(|(id, n)| (id, n.parse().unwrap())).collect();
        let mut lost = 0;
        for (id, fate) in &*self.writes.lock() {
            let count = found.get(id.as_str()).copied().unwrap_or_default();
            let is_right = match fate {
                Fate::Acknowledged => count == 1,
                Fate::Denied => count == 0,
                Fate::Unknown => count <= 1,
            };
            if !is_right {
                lost += usize::from(count == 0);
                self.wrong(format!("{id} is there {count} times, and was {fate:?}"));
            }
        }
        let total = node.sql(DATABASE, "SELECT sum(balance) FROM account").unwrap();
        if total != TOTAL {
            self.wrong(format!("the accounts hold {total}, not {TOTAL}"));
        }
        lost
    }

    pub fn take_wrong(&self) -> Vec<String> {
        std::mem::take(&mut *self.wrong.lock())
    }
}
