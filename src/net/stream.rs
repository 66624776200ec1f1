//! A byte stream to a client or a node: TCP, a Unix socket, or TLS over TCP.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use futures_util::FutureExt as _;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncBufRead as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

use super::tls;
use crate::config::{Keepalive, Network};

/// Who is at the other end, for logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerInfo {
    Tcp(SocketAddr),
    /// The process, where the kernel tells.
    Unix {
        process_id: Option<i32>,
    },
}

impl fmt::Display for PeerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { process_id: Some(id) } => write!(f, "unix(pid {id})"),
            Self::Unix { process_id: None } => f.write_str("unix"),
        }
    }
}

/// Its `poll_*` functions remember one waker for reading and one for writing, the last ones given.
#[derive(Debug)]
pub struct Stream {
    io: Io,
    peer: PeerInfo,
    /// Our own certificates as PEM, where we are the TLS server.
    certificate_pem: Option<Arc<[u8]>>,
}

#[derive(Debug)]
enum Io {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A stream on its way to another worker. See [`Stream::detach`].
#[derive(Debug)]
pub struct Detached {
    io: DetachedIo,
    peer: PeerInfo,
    certificate_pem: Option<Arc<[u8]>>,
}

#[derive(Debug)]
enum DetachedIo {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Wraps a connected socket and sets its options.
    pub fn tcp(socket: TcpStream, network: &Network) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        let options = SockRef::from(&socket);
        if let Some(Keepalive { idle, interval, probes }) = network.keepalive {
            let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(probes);
            options.set_tcp_keepalive(&keepalive)?;
        }
        if !network.user_timeout.is_zero() {
            options.set_tcp_user_timeout(Some(network.user_timeout))?;
        }
        let peer = PeerInfo::Tcp(socket.peer_addr()?);
        Ok(Self { io: Io::Tcp(socket), peer, certificate_pem: None })
    }

    /// Wraps a connected socket.
    pub fn unix(socket: UnixStream) -> Self {
        let process_id = socket.peer_cred().ok().and_then(|credentials| credentials.pid());
        Self { io: Io::Unix(socket), peer: PeerInfo::Unix { process_id }, certificate_pem: None }
    }

    pub(super) fn tls(socket: TlsStream<TcpStream>, peer: PeerInfo, certificate_pem: Option<Arc<[u8]>>) -> Self {
        Self { io: Io::Tls(Box::new(socket)), peer, certificate_pem }
    }

    /// The TCP socket below, when there is no TLS on it yet.
    pub(super) fn into_tcp(self) -> Option<(TcpStream, PeerInfo)> {
        match self.io {
            Io::Tcp(socket) => Some((socket, self.peer)),
            Io::Unix(_) | Io::Tls(_) => None,
        }
    }

    /// Reads what is there into the spare capacity of `buf`, which the caller reserves. 0 is the end of the stream,
    /// with or without a TLS `close_notify`: the protocol on top knows whether it is complete.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Tcp(socket) => poll_read_spare(socket, cx, buf),
            Io::Unix(socket) => poll_read_spare(socket, cx, buf),
            Io::Tls(socket) => poll_read_spare(socket, cx, buf).map(or_end),
        }
    }

    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writer().poll_write(cx, bytes)
    }

    pub fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.writer().poll_write_vectored(cx, bufs)
    }

    /// TLS needs it after writes; elsewhere it does nothing.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer().poll_flush(cx)
    }

    /// Writes and flushes. Not cancel safe: a dropped future may have written a part.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut writer = self.writer();
        writer.write_all(bytes).await?;
        writer.flush().await
    }

    /// Half closes. Best effort: it never waits for the peer.
    pub async fn shutdown(&mut self) {
        poll_fn(|cx| {
            // Pending means that the peer does not read; then there is nobody to say goodbye to.
            let _ = self.writer().poll_shutdown(cx);
            Poll::Ready(())
        })
        .await;
    }

    fn writer(&mut self) -> Pin<&mut (dyn AsyncWrite + Send + Unpin)> {
        Pin::new(match &mut self.io {
            Io::Tcp(socket) => socket,
            Io::Unix(socket) => socket,
            Io::Tls(socket) => &mut **socket,
        })
    }

    /// True when nothing has arrived and the peer has not closed, as far as the runtime knows: for a plain stream
    /// mostly without a system call, and without touching a registered waker; a TLS stream decrypts what has come.
    pub fn is_quiet(&mut self) -> bool {
        match &mut self.io {
            Io::Tcp(socket) => would_block(&socket.try_io(Interest::READABLE, || peek(&*socket))),
            Io::Unix(socket) => would_block(&socket.try_io(Interest::READABLE, || peek(&*socket))),
            Io::Tls(socket) => {
                // Session tickets make the socket readable and are not for us, so only TLS can tell. Unconstrained:
                // an exhausted budget would pass for silence.
                let fill = poll_fn(|cx| Pin::new(&mut **socket).poll_fill_buf(cx).map(drop));
                tokio::task::unconstrained(fill).now_or_never().is_none()
            }
        }
    }

    /// Takes the stream off this thread's reactor, so that another worker can take it over. TLS streams can't be
    /// taken apart: they stay registered where they began, work from any thread, and end with that runtime.
    pub fn detach(self) -> io::Result<Detached> {
        let io = match self.io {
            Io::Tcp(socket) => DetachedIo::Tcp(socket.into_std()?),
            Io::Unix(socket) => DetachedIo::Unix(socket.into_std()?),
            Io::Tls(socket) => DetachedIo::Tls(socket),
        };
        Ok(Detached { io, peer: self.peer, certificate_pem: self.certificate_pem })
    }

    /// Another descriptor of the same connection.
    pub(super) fn duplicate(&self) -> io::Result<socket2::Socket> {
        match &self.io {
            Io::Tcp(socket) => SockRef::from(socket).try_clone(),
            Io::Unix(socket) => SockRef::from(socket).try_clone(),
            Io::Tls(socket) => SockRef::from(socket.get_ref().0).try_clone(),
        }
    }

    pub fn is_tls(&self) -> bool {
        matches!(self.io, Io::Tls(_))
    }

    pub fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    /// Channel binding data of the node's certificate ([RFC 5929](https://www.rfc-editor.org/rfc/rfc5929#section-4)),
    /// where we are the TLS client. `None` for certificates whose signature names no hash, such as Ed25519.
    pub fn tls_server_end_point(&self) -> Option<Vec<u8>> {
        match &self.io {
            Io::Tls(socket) if self.certificate_pem.is_none() => {
                tls::server_end_point(socket.get_ref().1.peer_certificates()?.first()?)
            }
            _ => None,
        }
    }

    /// Our own certificates as PEM, where we are the TLS server: what channel binding binds to.
    pub fn certificate_pem(&self) -> Option<&[u8]> {
        self.certificate_pem.as_deref()
    }

    /// True when the peer opens with a TLS handshake instead of a request for one. Waits for the first byte and
    /// leaves it there; for the very start of a connection.
    pub(super) async fn opens_with_tls(&self) -> io::Result<bool> {
        const HANDSHAKE_RECORD: u8 = 0x16;
        match &self.io {
            Io::Tcp(socket) => {
                let mut first = [0];
                Ok(socket.peek(&mut first).await? == 1 && first == [HANDSHAKE_RECORD])
            }
            Io::Unix(_) | Io::Tls(_) => Ok(false),
        }
    }
}

impl Detached {
    /// Registers with the reactor of the runtime that runs this.
    pub fn attach(self) -> io::Result<Stream> {
        let io = match self.io {
            DetachedIo::Tcp(socket) => Io::Tcp(TcpStream::from_std(socket)?),
            DetachedIo::Unix(socket) => Io::Unix(UnixStream::from_std(socket)?),
            DetachedIo::Tls(socket) => Io::Tls(socket),
        };
        Ok(Stream { io, peer: self.peer, certificate_pem: self.certificate_pem })
    }
}

fn poll_read_spare(
    socket: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    buf: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    pin!(socket.read_buf(buf)).poll(cx)
}

/// The runtime's readiness outlives the data when the last read ended exactly with it: look, and leave the data there.
fn peek<'a>(socket: impl Into<SockRef<'a>>) -> io::Result<usize> {
    socket.into().peek(&mut [MaybeUninit::uninit()])
}

fn would_block(result: &io::Result<usize>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// A peer that closes TLS without saying so has closed all the same.
fn or_end<T: Default>(read: io::Result<T>) -> io::Result<T> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(T::default()),
        other => other,
    }
}
