//! Connections to nodes, as libpq makes them.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use super::names::Name;
use super::stream::{PeerInfo, Stream};
use super::timers::Timers;
use super::{describe, socket_path, tls};
use crate::config::{Address, Network, ServerTls, SslMode};
use crate::error::{Error, Fault, Result, sqlstate};
use crate::wire::startup::SSL_REQUEST;

/// One way to reach a node. libpq's `allow` and `prefer` have a second one, for when the node refuses the login that
/// the first one leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    Plain,
    /// Goes on without TLS where the node does not offer it.
    TlsIfOffered,
    Tls,
}

/// The TLS side of reaching the nodes of a cluster.
#[derive(Clone)]
pub struct TlsConnector {
    mode: SslMode,
    connector: Option<tokio_rustls::TlsConnector>,
}

impl std::fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsConnector").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl TlsConnector {
    /// # Errors
    /// Name the file and its setting, as [`tls::client_config`].
    pub fn new(tls: &ServerTls) -> Result<Self> {
        let connector = tls::client_config(tls)?.map(|config| Arc::new(config).into());
        Ok(Self { mode: tls.mode, connector })
    }

    /// What to try, in this order, until a login succeeds. An attempt that fails before the login (the node is not
    /// there) need not be followed by the next one. There is no TLS over Unix sockets.
    pub fn attempts(&self, address: &Address) -> &'static [Attempt] {
        match (self.mode, address) {
            (SslMode::Disable, _) | (_, Address::Unix { .. }) => &[Attempt::Plain],
            (SslMode::Allow, _) => &[Attempt::Plain, Attempt::Tls],
            (SslMode::Prefer, _) => &[Attempt::TlsIfOffered, Attempt::Plain],
            (SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull, _) => &[Attempt::Tls],
        }
    }
}

/// Connects to one node.
#[derive(Debug)]
pub struct Dialer {
    address: Address,
    name: Name,
    tls: TlsConnector,
    network: Network,
    timers: Timers,
}

impl Dialer {
    pub fn new(address: &Address, tls: &TlsConnector, network: &Network, timers: &Timers) -> Self {
        let name = Name::of(address, network.dns_max_ttl);
        Self { address: address.clone(), name, tls: tls.clone(), network: *network, timers: timers.clone() }
    }

    /// What the node's host name stands for.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// As [`TlsConnector::attempts`]; there is at least one.
    pub fn attempts(&self) -> &'static [Attempt] {
        self.tls.attempts(&self.address)
    }

    /// Connects up to the point where the start-up message goes out. All of it takes at most `timeout`; the addresses
    /// of a host name are tried one after the other, each with its share of what is left.
    ///
    /// # Errors
    /// Name the address. Nothing was sent that matters: another node will do.
    pub async fn dial(&self, attempt: Attempt, timeout: Duration) -> Result<Stream> {
        let address = &self.address;
        let by = By { deadline: Instant::now() + timeout, timers: &self.timers };
        let (stream, connector) = match (address, attempt, &self.tls.connector) {
            (Address::Unix { directory, port }, ..) => {
                let connecting = UnixStream::connect(socket_path(directory, *port));
                let socket = by.limit(connecting).await.map_err(|error| cannot_connect(address, &error))?;
                return Ok(Stream::unix(socket));
            }
            (Address::Tcp { port, .. }, attempt, connector) => {
                let socket = self.connect(*port, by).await.map_err(|error| cannot_connect(address, &error))?;
                match connector {
                    Some(connector) if attempt != Attempt::Plain => (socket, connector),
                    _ => return Ok(socket),
                }
            }
        };
        match self.timers.timeout_at(by.deadline, negotiate(stream, address, connector, attempt)).await {
            Ok(result) => result,
            Err(_) => Err(cannot_connect(address, &io::ErrorKind::TimedOut.into())),
        }
    }

    async fn connect(&self, port: u16, by: By<'_>) -> io::Result<Stream> {
        let addresses = by.limit(self.name.addresses()).await?;
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
        for (index, address) in addresses.iter().enumerate() {
            let left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            let now = Instant::now();
            let share = By { deadline: now + by.deadline.saturating_duration_since(now) / left, ..by };
            let connecting = share.limit(TcpStream::connect((*address, port))).await;
            match connecting.and_then(|socket| Stream::tcp(socket, &self.network)) {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        self.name.doubt();
        Err(failure)
    }
}

/// By when something must be done.
#[derive(Clone, Copy)]
struct By<'a> {
    deadline: Instant,
    timers: &'a Timers,
}

impl By<'_> {
    async fn limit<T>(self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let limited = self.timers.timeout_at(self.deadline, work);
        limited.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Asks for TLS and shakes hands
/// ([SSL session encryption](https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL)).
async fn negotiate(
    mut stream: Stream,
    address: &Address,
    connector: &tokio_rustls::TlsConnector,
    attempt: Attempt,
) -> Result<Stream> {
    let broken = |error: io::Error| cannot_connect(address, &error);
    stream.write_all(&SSL_REQUEST).await.map_err(broken)?;
    // Room for more than the answer, so that bytes which somebody put behind it show (CVE-2021-23222).
    let mut answer = BytesMut::with_capacity(64);
    poll_fn(|cx| stream.poll_read(cx, &mut answer)).await.map_err(broken)?;
    match answer.as_ref() {
        b"S" => shake_hands(stream, address, connector).await,
        b"N" if attempt == Attempt::TlsIfOffered => Ok(stream),
        b"N" => Err(refused(address, "does not support TLS, but TLS was required")
            .hint("Set ssl = on on the node, or choose another sslmode for the cluster.")),
        [] => Err(refused(address, "closed the connection when asked for TLS")),
        [b'S' | b'N', _, ..] => Err(refused(address, "sent unencrypted data after its answer about TLS")
            .hint("This could be either a server bug or evidence of an attempted man-in-the-middle attack.")),
        // What an error says is not to be trusted yet (CVE-2024-10977).
        [b'E', ..] => Err(refused(address, "answered with an error when asked for TLS")),
        _ => Err(refused(address, "is no PostgreSQL server: it does not know the request for TLS")),
    }
}

async fn shake_hands(stream: Stream, address: &Address, connector: &tokio_rustls::TlsConnector) -> Result<Stream> {
    let Some((socket, peer)) = stream.into_tcp() else {
        return Err(refused(address, "can't be reached with TLS over this kind of socket"));
    };
    let name = server_name(address, &peer).ok_or_else(|| refused(address, "has a name that is no host name"))?;
    let socket = connector.connect(name, socket).await.map_err(|error| {
        refused(address, &format!("failed the TLS handshake: {error}"))
            .hint("Check the node's certificate, and sslmode and root_cert_file of the cluster.")
    })?;
    Ok(Stream::tls(socket.into(), peer, None))
}

/// The name to verify and to announce; the IP address where the name can't be in a certificate.
fn server_name(address: &Address, peer: &PeerInfo) -> Option<ServerName<'static>> {
    let Address::Tcp { host, .. } = address else { return None };
    match (ServerName::try_from(host.clone()), peer) {
        (Ok(name), _) => Some(name),
        (Err(_), PeerInfo::Tcp(socket)) => Some(ServerName::IpAddress(socket.ip().into())),
        (Err(_), PeerInfo::Unix { .. }) => None,
    }
}

fn cannot_connect(address: &Address, error: &io::Error) -> Error {
    let reason = match error.kind() {
        io::ErrorKind::TimedOut => "timed out".to_owned(),
        _ => error.to_string(),
    };
    let message = format!("cannot connect to the node at {}: {reason}", describe(address));
    Error::new(Fault::Node, sqlstate::CANNOT_CONNECT, message).retry_elsewhere()
}

fn refused(address: &Address, what: &str) -> Error {
    let message = format!("the node at {} {what}", describe(address));
    Error::new(Fault::Node, sqlstate::CANNOT_CONNECT, message).retry_elsewhere()
}
