//! Keeps the catalog facts of every database in use: loaded over a control connection, reloaded when they changed.

use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use deadpool_postgres::Client;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::catalog::{change, load};
use super::control::{Control, ControlError, Timeouts};
use super::probe::Backoff;
use super::{Topology, View};
use crate::config;
use crate::sql::CatalogFacts;

/// Databases whose facts are kept; those beyond it are routed as if nothing were known, so more goes to the primary.
pub(super) const MAX_DATABASES: usize = 1000;
/// Loads at a time: each costs a node some 100 ms of work.
const MAX_LOADS: usize = 4;
const TIMEOUTS: Timeouts = Timeouts { connect: Duration::from_secs(5), statement: Duration::from_secs(30) };
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// A migration is many statements; one look at the catalog after the last of them is enough.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Facts that no session has held for this long are forgotten.
const UNUSED: Duration = Duration::from_secs(60 * 60);

/// The facts of one database. A session holds it and reads it with every statement that the memo does not know.
#[derive(Debug)]
pub struct Facts {
    database: String,
    loaded: ArcSwap<Loaded>,
    /// Some session has asked for a value that a sequence gave it before. Those who use sequences then keep their servers.
    pub uses_currval: AtomicBool,
    /// When the primary was asked last whether they are still true.
    looked_at: Mutex<Option<Instant>>,
    refresh: Notify,
    stored: Notify,
}

/// One state of the catalog.
#[derive(Debug)]
pub struct Loaded {
    /// 0 until something is loaded; no two loads of the process have the same.
    pub version: u64,
    pub facts: CatalogFacts,
}

impl Facts {
    fn new(database: &str) -> Arc<Self> {
        Arc::new(Self {
            database: database.to_owned(),
            loaded: ArcSwap::from_pointee(Loaded { version: 0, facts: CatalogFacts::unloaded() }),
            uses_currval: AtomicBool::new(false),
            looked_at: Mutex::default(),
            refresh: Notify::new(),
            stored: Notify::new(),
        })
    }

    /// The facts as they are known now. No lock, no wait.
    pub fn load(&self) -> Guard<Arc<Loaded>> {
        self.loaded.load()
    }

    /// Ready when something is loaded.
    pub async fn known(&self) {
        loop {
            let mut stored = pin!(self.stored.notified());
            stored.as_mut().enable();
            if self.load().version > 0 {
                return;
            }
            stored.await;
        }
    }

    /// The primary was asked for them after this instant.
    pub fn are_newer_than(&self, at: std::time::Instant) -> bool {
        self.looked_at.lock().is_some_and(|looked_at| looked_at.into_std() > at)
    }

    /// A session saw DDL commit: look for changes soon. Many requests make one look.
    pub fn request_refresh(&self) {
        self.refresh.notify_one();
    }

    fn store(&self, facts: CatalogFacts, version: u64) {
        self.loaded.store(Arc::new(Loaded { version, facts }));
        self.stored.notify_waiters();
    }
}

/// The facts of all databases of one cluster that are in use.
pub struct FactsStore {
    source: Arc<Source>,
    control_plane: Handle,
    loaders: Mutex<JoinSet<()>>,
}

/// What a loader needs.
struct Source {
    cluster: config::Cluster,
    topology: Arc<Topology>,
    tls: Option<MakeRustlsConnect>,
    versions: Arc<AtomicU64>,
    /// How often to look for changes.
    interval: Duration,
    databases: Mutex<HashMap<String, Arc<Facts>>>,
    loads: Semaphore,
}

impl FactsStore {
    /// Loads nothing yet. `versions` is shared by all stores of the process.
    pub fn new(
        cluster: &config::Cluster,
        routing: &config::Routing,
        topology: &Arc<Topology>,
        versions: &Arc<AtomicU64>,
        control_plane: &Handle,
    ) -> Self {
        let source = Source {
            cluster: cluster.clone(),
            topology: Arc::clone(topology),
            tls: topology.tls.clone(),
            versions: Arc::clone(versions),
            interval: routing.catalog_refresh,
            databases: Mutex::default(),
            loads: Semaphore::new(MAX_LOADS),
        };
        Self { source: Arc::new(source), control_plane: control_plane.clone(), loaders: Mutex::default() }
    }

    /// The facts of a database. The first call for it starts to load them; until then nothing is known.
    pub fn facts(&self, database: &str) -> Arc<Facts> {
        let mut databases = self.source.databases.lock();
        if let Some(facts) = databases.get(database) {
            return Arc::clone(facts);
        }
        let facts = Facts::new(database);
        if databases.len() >= MAX_DATABASES {
            tracing::warn!(cluster = self.source.cluster.name, database, "too many databases to keep facts of");
            return facts;
        }
        databases.insert(database.to_owned(), Arc::clone(&facts));
        drop(databases);
        let mut loaders = self.loaders.lock();
        while loaders.try_join_next().is_some() {}
        loaders.spawn_on(keep_loaded(Arc::clone(&self.source), Arc::clone(&facts)), &self.control_plane);
        facts
    }

    /// Stops loading. What is loaded stays.
    pub fn shutdown(&self) {
        self.loaders.lock().abort_all();
    }
}

impl fmt::Debug for FactsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let databases = self.source.databases.lock().len();
        f.debug_struct("FactsStore").field("databases", &databases).finish_non_exhaustive()
    }
}

/// The life of a loader.
async fn keep_loaded(source: Arc<Source>, facts: Arc<Facts>) {
    let mut backoff = Backoff::new(FIRST_RETRY, source.interval);
    let mut seen = None;
    let mut last_used = Instant::now();
    loop {
        let pause = match source.refresh(&facts, &mut seen).await {
            Ok(()) => {
                backoff.reset();
                source.interval
            }
            Err(error) => {
                tracing::warn!(
                    cluster = source.cluster.name,
                    database = facts.database,
                    %error,
                    "catalog facts cannot be loaded; what is not known to be a read goes to the primary"
                );
                if error.sqlstate() == Some(&SqlState::INVALID_CATALOG_NAME) {
                    source.forget(&facts);
                    return;
                }
                backoff.pause()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = facts.refresh.notified() => tokio::time::sleep(DEBOUNCE).await,
        }
        if Source::in_use(&facts) {
            last_used = Instant::now();
        } else if last_used.elapsed() >= UNUSED && source.forget_unused(&facts) {
            return;
        }
    }
}

impl Source {
    /// Loads if the catalog is not as it was `seen` last.
    async fn refresh(&self, facts: &Facts, seen: &mut Option<String>) -> Result<(), ControlError> {
        let view = self.topology.wait_for(View::serves).await;
        let Some(node) = view
            .primary
            .or_else(|| view.eligible().next().map(|node| node.id))
            .and_then(|id| self.cluster.nodes.get(id.index()))
        else {
            return Err(ControlError::Answer("no node serves"));
        };
        let Ok(_turn) = self.loads.acquire().await else { return Ok(()) };
        // A connection for each look: one that idles in every database would take slots that clients need.
        let control = Control::new(&self.cluster, node, &facts.database, TIMEOUTS, self.tls.clone())?;
        let before = seen.as_deref();
        let begun = Instant::now();
        let news = control.with(async |client| look(client, before).await).await?;
        let of_primary = view.primary.is_some();
        if let Some((state, catalog)) = news {
            facts.store(catalog, self.versions.fetch_add(1, Relaxed) + 1);
            *seen = Some(state);
            tracing::info!(
                cluster = self.cluster.name,
                database = facts.database,
                node = node.name,
                version = facts.load().version,
                "catalog facts loaded"
            );
        }
        if of_primary {
            *facts.looked_at.lock() = Some(begun);
        }
        Ok(())
    }

    /// Does anybody hold the facts but the map and the loader?
    fn in_use(facts: &Arc<Facts>) -> bool {
        Arc::strong_count(facts) > 2
    }

    fn forget(&self, facts: &Facts) {
        self.databases.lock().remove(&facts.database);
    }

    /// Under the lock nobody can take them out of the map, so unused is certain.
    fn forget_unused(&self, facts: &Arc<Facts>) -> bool {
        let mut databases = self.databases.lock();
        let unused = !Self::in_use(facts);
        if unused {
            databases.remove(&facts.database);
        }
        unused
    }
}

/// The state of the catalog and the facts in it, if it is not what was seen before.
async fn look(client: &Client, before: Option<&str>) -> Result<Option<(String, CatalogFacts)>, ControlError> {
    // Asked before the rows are read: a change in between is then found by the next look.
    let state = change(client).await?;
    if before == Some(state.as_str()) {
        return Ok(None);
    }
    Ok(Some((state, load(client).await?)))
}
