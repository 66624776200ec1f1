//! Listening sockets.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::stream::{PeerInfo, Stream};
use super::{describe, socket_path};
use crate::config::{Address, Network};
use crate::error::{Error, Fault, Result, sqlstate};

/// The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// How long to leave accepting alone when the process or the machine is out of descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(100);

/// One bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: ListenSocket,
    local: Local,
    /// Of the clients that it accepts.
    network: Network,
}

#[derive(Debug)]
enum ListenSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Where a listener is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Binds an address on the calling runtime: one listener for each address that its host stands for, both families
/// for `*`. A Unix socket file is open to all, as PostgreSQL's is, and goes away with its listener.
///
/// # Errors
/// Names the address, and says what to do where it is taken.
pub async fn bind(address: &Address, network: &Network) -> Result<Vec<Listener>> {
    // A client that reads slowly owes acknowledgements for long, and is there all the same.
    let network = Network { user_timeout: Duration::ZERO, ..*network };
    let failed = |error: io::Error| cannot_listen(address, &error);
    match address {
        Address::Unix { directory, port } => {
            Ok(vec![Listener::unix(socket_path(directory, *port), network).map_err(failed)?])
        }
        Address::Tcp { host, port } if host == "*" => {
            let v4 = Listener::tcp((Ipv4Addr::UNSPECIFIED, *port).into(), network).map_err(failed)?;
            match Listener::tcp((Ipv6Addr::UNSPECIFIED, *port).into(), network) {
                Ok(v6) => Ok(vec![v4, v6]),
                Err(error) if no_ipv6(&error) => Ok(vec![v4]),
                Err(error) => Err(failed(error)),
            }
        }
        Address::Tcp { host, port } => {
            let resolved = tokio::net::lookup_host((host.as_str(), *port)).await.map_err(failed)?;
            resolved.map(|address| Listener::tcp(address, network).map_err(failed)).collect()
        }
    }
}

/// `EAFNOSUPPORT` or `EADDRNOTAVAIL`: a machine without IPv6.
fn no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32)
}

fn cannot_listen(address: &Address, error: &io::Error) -> Error {
    let name = describe(address);
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("Another process listens on {name}: stop it, or choose another port for the listener.")
        }
        io::ErrorKind::PermissionDenied => {
            "Choose a port from 1024 on, or a directory that this user may write.".to_owned()
        }
        _ => "Check the listener's address.".to_owned(),
    };
    Error::new(Fault::Limit, sqlstate::CANNOT_CONNECT, format!("cannot listen on {name}: {error}")).hint(hint)
}

impl Listener {
    fn tcp(address: SocketAddr, network: Network) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket.into())?;
        let local = Local::Tcp(listener.local_addr()?);
        Ok(Self { socket: ListenSocket::Tcp(listener), local, network })
    }

    fn unix(path: PathBuf, network: Network) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        remove_stale(&path)?;
        socket.bind(&SockAddr::unix(&path)?)?;
        fs::set_permissions(&path, Permissions::from_mode(0o777))?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener = UnixListener::from_std(socket.into())?;
        Ok(Self { socket: ListenSocket::Unix(listener), local: Local::Unix(path), network })
    }

    /// Where it is bound; the port is the real one when the configured one was 0.
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// The next client. Errors are not for the caller: one that concerns a single connection is passed over, one
    /// that concerns us (out of descriptors or memory) is logged and waited out. Cancel safe.
    pub async fn accept(&self) -> (Stream, PeerInfo) {
        let mut complained = false;
        loop {
            match self.accept_one().await {
                Ok(stream) => {
                    let peer = stream.peer().clone();
                    return (stream, peer);
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    if !complained {
                        tracing::warn!(listener = %self.local, %error, "cannot accept clients, trying on");
                        complained = true;
                    }
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    }

    async fn accept_one(&self) -> io::Result<Stream> {
        match &self.socket {
            ListenSocket::Tcp(listener) => Stream::tcp(listener.accept().await?.0, &self.network),
            ListenSocket::Unix(listener) => Ok(Stream::unix(listener.accept().await?.0)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Local::Unix(path) = &self.local {
            let _ = fs::remove_file(path);
        }
    }
}

/// The client went away between connecting and being accepted; everything else of ours or the machine's.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | InvalidInput | NotConnected)
}

/// Removes a socket file that nobody listens on; anything else at that place is left and stands in the way.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file of that name that is no socket"))
        }
        Ok(_) => {
            let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            // A listener whose backlog is full would make a blocking connect wait.
            probe.set_nonblocking(true)?;
            match probe.connect(&SockAddr::unix(path)?) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
                _ => Err(io::ErrorKind::AddrInUse.into()),
            }
        }
    }
}
