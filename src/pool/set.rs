//! The pools of one (database, user), one per node, and what is known of their servers at login.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;
use hashlink::LruCache;
use parking_lot::Mutex;

use super::{Attempt, Ceiling, Close, Lease, Limits, Place, Pool, Pooled};
use crate::backend::Server;
use crate::backend::connect::{Endpoint, ServerLogin, connect};
use crate::backend::params::{Params, Reported};
use crate::error::Result;
use crate::metrics::Metrics;
use crate::types::{NodeId, WorkerId};

impl Pooled for Server {
    fn is_quiet(&mut self) -> bool {
        self.stream.is_quiet()
    }

    fn rehome(self) -> io::Result<Self> {
        Self::rehome(self)
    }

    fn connected_at(&self) -> Instant {
        Self::connected_at(self)
    }

    fn is_stray(&self) -> bool {
        self.cancel_target().endpoint().dialer.name().has_left(self.stream.peer())
    }
}

/// Login parameters that some server of this set has taken, and what it reported then.
#[derive(Debug)]
pub struct Proven {
    pub params: Arc<Params>,
    pub reported: Arc<Reported>,
}

/// How many different sets of login parameters are remembered per (database, user).
const PROVEN_KEPT: usize = 256;

/// The pools of one (database, user) of a cluster.
#[derive(Debug)]
pub struct PoolSet {
    pub login: ServerLogin,
    endpoints: Arc<[Arc<Endpoint>]>,
    pools: Box<[Arc<Pool<Server>>]>,
    /// What a server without any parameters reports.
    greeting: Mutex<Option<Arc<Reported>>>,
    proven: Mutex<LruCache<Arc<Params>, Arc<Proven>>>,
}

impl PoolSet {
    pub fn pools(&self) -> &[Arc<Pool<Server>>] {
        &self.pools
    }

    /// A server of the node: an idle one, a new one, or one for which the session waits its turn.
    ///
    /// # Errors
    /// `query_wait_timeout` is over, `max_waiting_clients` wait already, or the node cannot be connected to (`Retry::Elsewhere`).
    pub async fn lease(&self, node: NodeId, worker: WorkerId) -> Result<Lease<Server>> {
        self.finish(node, worker, self.pools[node.index()].attempt(worker)).await
    }

    /// Carries an attempt at this node's pool to its end.
    ///
    /// # Errors
    /// As [`Self::lease`].
    pub async fn finish(&self, node: NodeId, worker: WorkerId, mut attempt: Attempt<Server>) -> Result<Lease<Server>> {
        let pool = &self.pools[node.index()];
        loop {
            attempt = match attempt {
                Attempt::Server(lease) => return Ok(lease),
                Attempt::Connect(place) => match self.connect(node, place).await {
                    Err(error) if pool.should_wait(&error, Instant::now()) => pool.attempt(worker),
                    connected => return connected,
                },
                Attempt::Full => return Err(pool.too_many_wait()),
                Attempt::Wait(waiting) => waiting.turn(worker, &self.endpoints[node.index()].timers).await?,
            }
        }
    }

    /// A new server in a place of this node's pool.
    ///
    /// # Errors
    /// The node cannot be connected to (`Retry::Elsewhere`).
    pub async fn connect(&self, node: NodeId, place: Place<Server>) -> Result<Lease<Server>> {
        let pool = &self.pools[node.index()];
        if let Some(refused) = pool.core.refusals.repeat(Instant::now()) {
            return Err(refused);
        }
        let server = connect(&self.endpoints[node.index()], &self.login).await;
        let server = server.inspect_err(|error| {
            pool.metrics().failed_connects.inc();
            pool.note_refusal(error, Instant::now());
        })?;
        pool.metrics().connects.inc();
        self.learn_greeting(&server.reported);
        Ok(place.fill(server))
    }

    pub fn greeting(&self) -> Option<Arc<Reported>> {
        self.greeting.lock().clone()
    }

    /// The newest server without parameters of its own knows best.
    pub fn learn_greeting(&self, reported: &Reported) -> Arc<Reported> {
        let mut greeting = self.greeting.lock();
        match &*greeting {
            Some(known) if **known == *reported => Arc::clone(known),
            _ => Arc::clone(greeting.insert(Arc::new(reported.clone()))),
        }
    }

    pub fn proven(&self, params: &Params) -> Option<Arc<Proven>> {
        self.proven.lock().get(params).cloned()
    }

    pub fn learn_proven(&self, params: Arc<Params>, reported: &Reported) -> Arc<Proven> {
        let proven = Arc::new(Proven { params: Arc::clone(&params), reported: Arc::new(reported.clone()) });
        self.proven.lock().insert(params, Arc::clone(&proven));
        proven
    }
}

/// How many greetings of (database, user) outlive their pools.
const GREETINGS_KEPT: usize = 1024;

/// All pools of a cluster.
#[derive(Debug)]
pub struct Pools {
    cluster: String,
    workers: usize,
    endpoints: Arc<[Arc<Endpoint>]>,
    metrics: Arc<Metrics>,
    sets: Mutex<HashMap<(String, String), Arc<PoolSet>>>,
    /// Of sets that are gone: who comes back is welcome even while no node can be asked.
    greetings: Mutex<LruCache<(String, String), Arc<Reported>>>,
    ceilings: Mutex<Ceilings>,
}

type Ceilings = HashMap<(NodeId, Shared), Arc<Ceiling<Server>>>;

/// What pools of a node have in common, so that they share a limit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Shared {
    Database(String),
    User(String),
}

impl Pools {
    pub fn new(cluster: String, workers: usize, endpoints: Arc<[Arc<Endpoint>]>, metrics: Arc<Metrics>) -> Self {
        let greetings = Mutex::new(LruCache::new(GREETINGS_KEPT));
        Self { cluster, workers, endpoints, metrics, sets: Mutex::default(), greetings, ceilings: Mutex::default() }
    }

    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// The pools of the login's (database, user); made when they are asked for first.
    pub fn set(&self, login: &ServerLogin, limits: Limits) -> Arc<PoolSet> {
        let key = (login.database.clone(), login.user.clone());
        let mut sets = self.sets.lock();
        Arc::clone(sets.entry(key).or_insert_with(|| Arc::new(self.make(login, limits))))
    }

    fn make(&self, login: &ServerLogin, limits: Limits) -> PoolSet {
        let pool = |endpoint: &Arc<Endpoint>| {
            let (node, database, user) = (&endpoint.name, &login.database, &login.user);
            let metrics = self.metrics.pool(&self.cluster, node, database, user);
            let name = format!("node {node:?}, database {database:?}, user {user:?}");
            let ceilings = [
                (Shared::Database(database.clone()), limits.most_of_database),
                (Shared::User(user.clone()), limits.most_of_user),
            ];
            let ceilings = ceilings.into_iter().filter(|(_, most)| *most > 0);
            let ceilings = ceilings.map(|(shared, most)| self.ceiling(endpoint.node, shared, most)).collect();
            Pool::new(name, self.workers, limits, ceilings, metrics)
        };
        PoolSet {
            login: login.clone(),
            pools: self.endpoints.iter().map(pool).collect(),
            endpoints: Arc::clone(&self.endpoints),
            greeting: Mutex::new(self.greetings.lock().remove(&(login.database.clone(), login.user.clone()))),
            proven: Mutex::new(LruCache::new(PROVEN_KEPT)),
        }
    }

    fn ceiling(&self, node: NodeId, shared: Shared, most: usize) -> Arc<Ceiling<Server>> {
        let mut ceilings = self.ceilings.lock();
        Arc::clone(ceilings.entry((node, shared)).or_insert_with(|| Ceiling::new(most)))
    }

    /// Closes the idle servers of a database.
    pub fn leave(&self, database: &str) {
        let sets: Vec<_> = self.sets.lock().values().filter(|set| set.login.database == database).cloned().collect();
        for lease in sets.iter().flat_map(|set| set.pools()).flat_map(Pool::take_idle) {
            lease.close(Close::Database);
        }
    }

    /// All sets, in the order of database and user.
    pub fn sets(&self) -> Vec<Arc<PoolSet>> {
        let mut sets: Vec<_> = self.sets.lock().values().cloned().collect();
        sets.sort_by(|one, other| {
            let key = |set: &PoolSet| (set.login.database.clone(), set.login.user.clone());
            key(one).cmp(&key(other))
        });
        sets
    }

    /// Closes the idle servers of a node that is fenced. Those that are lent are cut by its fence, and close when they
    /// come back.
    pub fn close_node(&self, node: NodeId) {
        let sets: Vec<_> = self.sets.lock().values().cloned().collect();
        for lease in sets.iter().filter_map(|set| set.pools().get(node.index())).flat_map(Pool::take_idle) {
            lease.close(Close::Fenced);
        }
    }

    /// All sets that are in use; forgets the ones that nobody uses any more.
    pub fn sweep(&self) -> Vec<Arc<PoolSet>> {
        let mut sets = self.sets.lock();
        sets.retain(|key, set| {
            let is_used = Arc::strong_count(set) > 1 || set.pools.iter().any(|pool| !pool.is_unused());
            if !is_used && let Some(greeting) = set.greeting() {
                self.greetings.lock().insert(key.clone(), greeting);
            }
            is_used
        });
        self.ceilings.lock().retain(|_, ceiling| Arc::strong_count(ceiling) > 1);
        sets.values().cloned().collect()
    }
}
