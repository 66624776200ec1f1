//! Control connections: ours to the nodes, for probes and the catalog, through deadpool-postgres.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use deadpool_postgres::{Client, Connect, Manager, ManagerConfig, Object, Pool, PoolError, Runtime};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode as Negotiation;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client as PgClient, Config as PgConfig, Error as PgError, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{Address, Cluster, Node, SslMode};
use crate::net::dial::Dialer;

/// How long the connections to a node live and may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    pub(super) connect: Duration,
    /// Both our patience and the server's `statement_timeout`.
    pub(super) statement: Duration,
}

/// Why a node did not answer; for the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum ControlError {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("{}", describe(.0))]
    Postgres(#[from] PgError),
    #[error("{0}")]
    Answer(&'static str),
    #[error("control pool: {0}")]
    Pool(String),
}

impl ControlError {
    /// What the node itself said.
    pub(super) fn sqlstate(&self) -> Option<&SqlState> {
        match self {
            Self::Postgres(error) => error.code(),
            Self::Timeout(_) | Self::Answer(_) | Self::Pool(_) => None,
        }
    }
}

/// tokio-postgres says "db error" and keeps the message in the source.
fn describe(error: &PgError) -> String {
    error.as_db_error().map_or_else(
        || {
            let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
            format!("{error}{cause}")
        },
        |db| format!("{} (SQLSTATE {})", db.message(), db.code().code()),
    )
}

/// Control connections to one database of one node; at most one, and none while nobody asks.
#[derive(Clone, Debug)]
pub(super) struct Control {
    pool: Pool,
    timeouts: Timeouts,
    followed: Option<Followed>,
}

/// A host name, and how often it had moved when the connection was made.
#[derive(Clone, Debug)]
struct Followed {
    dialer: Arc<Dialer>,
    moves: Arc<AtomicU64>,
}

impl Control {
    /// Connects to nothing yet.
    pub(super) fn new(
        cluster: &Cluster,
        node: &Node,
        database: &str,
        timeouts: Timeouts,
        tls: Option<MakeRustlsConnect>,
    ) -> Result<Self, ControlError> {
        let mut config = PgConfig::new();
        config
            .user(&cluster.control.user)
            .dbname(database)
            .application_name("causeway-control")
            .connect_timeout(timeouts.connect)
            .tcp_user_timeout(timeouts.connect + timeouts.statement)
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            // A search path of the user's could put other functions in the place of those that we call; a commit
            // that waits for a synchronous standby would look like a dead node.
            .options(format!(
                "-c statement_timeout={} -c search_path=pg_catalog -c synchronous_commit=local",
                timeouts.statement.as_millis().max(1)
            ));
        if let Some(password) = &cluster.control.password {
            config.password(password.expose());
        }
        let mode = match &node.address {
            Address::Tcp { host, port } => {
                config.host(host).port(*port);
                cluster.server_tls.mode
            }
            Address::Unix { directory, port } => {
                config.host_path(directory).port(*port);
                SslMode::Disable
            }
        };
        let manager = Manager::from_connect(config, Connector { mode, tls }, ManagerConfig::default());
        let pool = Pool::builder(manager)
            .max_size(1)
            .runtime(Runtime::Tokio1)
            .create_timeout(Some(timeouts.connect))
            .build()
            .map_err(|e| ControlError::Pool(e.to_string()))?;
        Ok(Self { pool, timeouts, followed: None })
    }

    /// Goes where the node's host name goes.
    pub(super) fn following(self, dialer: &Arc<Dialer>) -> Self {
        let followed = Followed { dialer: Arc::clone(dialer), moves: Arc::default() };
        Self { followed: Some(followed), ..self }
    }

    async fn get(&self) -> Result<Client, ControlError> {
        self.pool.get().await.map_err(|e| match e {
            PoolError::Backend(e) => ControlError::Postgres(e),
            PoolError::Timeout(_) => ControlError::Timeout(self.timeouts.connect),
            e => ControlError::Pool(e.to_string()),
        })
    }

    fn has_moved(&self) -> bool {
        self.followed.as_ref().is_some_and(|followed| {
            let moves = followed.dialer.name().moves();
            followed.moves.swap(moves, Relaxed) != moves
        })
    }

    /// Lends the connection to `work`, within the time limit. A connection that `work` could not finish on is closed.
    pub(super) async fn with<T>(
        &self,
        work: impl AsyncFnOnce(&Client) -> Result<T, ControlError>,
    ) -> Result<T, ControlError> {
        let mut client = self.get().await?;
        if self.has_moved() {
            drop(Object::take(client));
            client = self.get().await?;
        }
        let limit = self.timeouts.statement;
        match tokio::time::timeout(limit, work(&client)).await {
            Ok(Ok(answer)) => Ok(answer),
            failure => {
                // It may be in the middle of an answer, so it must not be used again; deadpool would.
                drop(Object::take(client));
                failure.unwrap_or(Err(ControlError::Timeout(limit)))
            }
        }
    }
}

/// Dials with or without TLS in the order that libpq's `sslmode` asks for.
struct Connector {
    mode: SslMode,
    /// `None` where TLS is off.
    tls: Option<MakeRustlsConnect>,
}

impl Connector {
    /// What is tried first, and what when that fails.
    fn attempts(&self) -> (Negotiation, Option<Negotiation>) {
        match self.mode {
            SslMode::Disable => (Negotiation::Disable, None),
            SslMode::Allow => (Negotiation::Disable, Some(Negotiation::Require)),
            SslMode::Prefer => (Negotiation::Prefer, Some(Negotiation::Disable)),
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (Negotiation::Require, None),
        }
    }

    async fn dial(&self, config: &mut PgConfig, negotiation: Negotiation) -> Result<Dialled, PgError> {
        config.ssl_mode(negotiation);
        match self.tls.clone() {
            Some(tls) => config.connect(tls).await.map(|(client, connection)| (client, drive(connection))),
            None => config.connect(NoTls).await.map(|(client, connection)| (client, drive(connection))),
        }
    }
}

/// A client, and the task that moves its bytes.
type Dialled = (PgClient, JoinHandle<()>);

/// The task ends with the connection; whoever uses the client gets the error too.
fn drive<E: fmt::Display>(connection: impl Future<Output = Result<(), E>> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "control connection ended");
        }
    })
}

impl Connect for Connector {
    fn connect(&self, config: &PgConfig) -> Pin<Box<dyn Future<Output = Result<Dialled, PgError>> + Send + '_>> {
        let mut config = config.clone();
        Box::pin(async move {
            let (first, second) = self.attempts();
            match (self.dial(&mut config, first).await, second) {
                // When both fail, the first says more: the second is often just a TLS that is not there.
                (Err(error), Some(second)) => self.dial(&mut config, second).await.map_err(|_| error),
                (dialled, _) => dialled,
            }
        })
    }
}
