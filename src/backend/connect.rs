//! The staircase to a server: dial, start-up message, login, ReadyForQuery
//! (<https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Server;
use super::cancel::CancelTarget;
use super::params::Reported;
use super::prepared::Prepared;
use crate::auth::server::{MAX_MESSAGE_BYTES, authenticate, refusal};
use crate::error::{Error, Fault, Result, sqlstate};
use crate::net::dial::{Attempt, Dialer};
use crate::net::fence::{Admission, Fence};
use crate::net::login::LoginIo;
use crate::net::timers::Timers;
use crate::types::{NodeId, Secret};
use crate::wire::backend::{TransactionStatus, backend_key, parameter_status, ready_status};
use crate::wire::startup::{CancelKey, put_startup};

/// How a node is reached.
#[derive(Debug)]
pub struct Endpoint {
    pub node: NodeId,
    pub name: String,
    pub dialer: Arc<Dialer>,
    /// What keeps servers from a node that must get nothing.
    pub fence: Arc<Fence>,
    /// For everything up to ReadyForQuery.
    pub connect_timeout: Duration,
    pub timers: Timers,
    /// How many prepared statements a server keeps.
    pub max_prepared_statements: usize,
}

impl Endpoint {
    /// A connection on which nothing has been said; the first of the ways to reach the node.
    ///
    /// # Errors
    /// The node is not there. Nothing was sent.
    pub async fn dial(&self) -> Result<LoginIo> {
        let attempt = self.dialer.attempts().first().copied().unwrap_or(Attempt::Plain);
        self.dial_by(attempt).await
    }

    fn admit(&self, io: &LoginIo) -> Result<Admission> {
        let admitted = self.fence.admit(io.stream());
        let no_descriptor =
            |error| Error::node(format!("no descriptor is left for a server of node {:?}", self.name)).source(error);
        admitted.map_err(no_descriptor)?.ok_or_else(|| self.fenced())
    }

    fn fenced(&self) -> Error {
        let message = format!("node {:?} is fenced: it is not the accepted primary, and does not follow it", self.name);
        Error::new(Fault::Node, sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
            .hint("Stop the node, or make it follow the primary; Causeway's log says why it is fenced.")
    }

    async fn dial_by(&self, attempt: Attempt) -> Result<LoginIo> {
        let stream = self.dialer.dial(attempt, self.connect_timeout).await?;
        Ok(LoginIo::to_node(stream, self.name.clone()))
    }
}

/// As whom, and to which database.
#[derive(Clone, Debug)]
pub struct ServerLogin {
    pub user: String,
    pub database: String,
    pub password: Option<Secret>,
}

/// Connects and logs in.
///
/// # Errors
/// Name the node. Nothing but a login was sent, so another node will do (`Retry::Elsewhere`).
pub async fn connect(endpoint: &Arc<Endpoint>, login: &ServerLogin) -> Result<Server> {
    connect_with(endpoint, login, &[]).await
}

/// The same with further start-up parameters.
///
/// # Errors
/// As [`connect`].
pub async fn connect_with(
    endpoint: &Arc<Endpoint>,
    login: &ServerLogin,
    parameters: &[(String, Bytes)],
) -> Result<Server> {
    if endpoint.fence.is_raised() {
        return Err(endpoint.fenced().retry_elsewhere());
    }
    let connecting = connect_by_turns(endpoint, login, parameters);
    let connecting = endpoint.timers.timeout(endpoint.connect_timeout, connecting);
    let connected = connecting.await.unwrap_or_else(|_| {
        let limit = humantime::format_duration(endpoint.connect_timeout);
        let message = format!("node {:?} gave no server within pool.server_connect_timeout ({limit})", endpoint.name);
        Err(Error::node(message))
    });
    connected.map_err(Error::retry_elsewhere)
}

/// libpq's sslmode `allow` and `prefer` try again the other way when the node refuses the login.
async fn connect_by_turns(
    endpoint: &Arc<Endpoint>,
    login: &ServerLogin,
    parameters: &[(String, Bytes)],
) -> Result<Server> {
    let mut refused = None;
    for attempt in endpoint.dialer.attempts() {
        let mut io = endpoint.dial_by(*attempt).await?;
        match log_in(&mut io, login, parameters).await {
            Ok(greeting) => return greeting.into_server(io, endpoint),
            Err(error) => {
                refused.get_or_insert(error);
            }
        }
    }
    Err(refused.unwrap_or_else(|| Error::node(format!("node {:?} cannot be reached in any way", endpoint.name))))
}

/// What a server says of itself between the login and ReadyForQuery.
struct Greeting {
    reported: Reported,
    key: CancelKey,
    status: TransactionStatus,
}

async fn log_in(io: &mut LoginIo, login: &ServerLogin, parameters: &[(String, Bytes)]) -> Result<Greeting> {
    let mut startup = Vec::new();
    let login_parameters = [("user", login.user.as_bytes()), ("database", login.database.as_bytes())];
    let parameters = parameters.iter().map(|(name, value)| (name.as_str(), value.as_ref()));
    put_startup(&mut startup, login_parameters.into_iter().chain(parameters));
    io.write(&startup).await?;
    authenticate(io, &login.user, login.password.as_ref()).await?;
    let mut reported = Reported::default();
    let mut key = CancelKey { process_id: 0, secret: Bytes::new() };
    loop {
        let frame = io.read_frame(MAX_MESSAGE_BYTES).await?;
        let malformed = || io.protocol(format!("malformed message {:?} after the login", char::from(frame.tag)));
        match frame.tag {
            b'S' => {
                let (name, value) = parameter_status(&frame.body).ok_or_else(malformed)?;
                reported.set(name, value);
            }
            b'K' => {
                let (process_id, secret) = backend_key(&frame.body).ok_or_else(malformed)?;
                key = CancelKey { process_id, secret: Bytes::copy_from_slice(secret) };
            }
            b'Z' => {
                let status = ready_status(&frame.body).ok_or_else(malformed)?;
                return Ok(Greeting { reported, key, status });
            }
            b'E' => return Err(refusal(io.node().unwrap_or_default(), &frame.body)),
            b'N' => {}
            _ => return Err(malformed()),
        }
    }
}

impl Greeting {
    fn into_server(self, io: LoginIo, endpoint: &Arc<Endpoint>) -> Result<Server> {
        let admission = endpoint.admit(&io)?;
        let (stream, input) = io.into_parts();
        Ok(Server {
            stream,
            _admission: admission,
            input,
            node: endpoint.node,
            status: self.status,
            reported: self.reported,
            prepared: Prepared::new(endpoint.max_prepared_statements),
            tainted: false,
            sequences_of: 0,
            applied: Arc::default(),
            cancel: Arc::new(CancelTarget::new(Arc::clone(endpoint), self.key)),
            connected_at: Instant::now(),
        })
    }
}
