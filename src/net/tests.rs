//! Real sockets on the loopback.

use std::future::poll_fn;
use std::io::IoSlice;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use sha2::{Digest as _, Sha256, Sha384};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::dial::Attempt;
use super::listen::{Local, bind};
use super::login::LoginIo;
use super::stream::Stream;
use super::testing::{Certificates, TIMEOUT, connector, dial, network, tcp_pair, tls_pair, unix_pair};
use super::tls::{Acceptor, Opening, client_config};
use crate::config::{Address, ServerTls, SslMode};
use crate::error::{Result, Retry};
use crate::wire::startup::SSL_REQUEST;

/// Every kind of stream, both ways round.
async fn pairs() -> Vec<(&'static str, Stream, Stream)> {
    let certificates = Certificates::new(&PKCS_ECDSA_P256_SHA256);
    let unix = unix_pair();
    let tcp = tcp_pair().await;
    let to_client = tls_pair(&certificates).await;
    let (accepted, dialled) = tls_pair(&certificates).await;
    let pairs =
        [("unix", unix), ("tcp", tcp), ("tls, to the client", to_client), ("tls, to the node", (dialled, accepted))];
    pairs.into_iter().map(|(kind, (far, near))| (kind, far, near)).collect()
}

async fn readable(stream: &mut Stream) {
    while stream.is_quiet() {
        tokio::task::yield_now().await;
    }
}

async fn read(stream: &mut Stream, capacity: usize) -> BytesMut {
    let mut buf = BytesMut::with_capacity(capacity);
    poll_fn(|cx| stream.poll_read(cx, &mut buf)).await.unwrap();
    buf
}

async fn read_exactly(stream: &mut Stream, length: usize) -> BytesMut {
    let mut buf = BytesMut::new();
    while buf.len() < length {
        let part = read(stream, length - buf.len()).await;
        assert!(!part.is_empty(), "early end");
        buf.extend_from_slice(&part);
    }
    buf
}

#[tokio::test]
async fn streams_carry_bytes_and_know_when_they_are_quiet() {
    for (kind, mut a, mut b) in pairs().await {
        assert!(b.is_quiet(), "{kind}");

        a.write_all(b"hello").await.unwrap();
        readable(&mut b).await;
        assert_eq!(read(&mut b, 2).await, "he", "{kind}: no more than there is room for");
        assert!(!b.is_quiet(), "{kind}");
        // A read that ends exactly with the data leaves the runtime in doubt.
        assert_eq!(read(&mut b, 3).await, "llo", "{kind}");
        assert!(b.is_quiet(), "{kind}");

        let slices = [IoSlice::new(b"one "), IoSlice::new(b"two")];
        let written = poll_fn(|cx| a.poll_write_vectored(cx, &slices)).await.unwrap();
        poll_fn(|cx| a.poll_flush(cx)).await.unwrap();
        assert_eq!(read_exactly(&mut b, written).await, b"one two"[..written], "{kind}");

        a.shutdown().await;
        readable(&mut b).await;
        assert!(read(&mut b, 10).await.is_empty(), "{kind}");
        b.write_all(b"still").await.unwrap();
        assert_eq!(read_exactly(&mut a, 5).await, "still", "{kind}: only half closed");
    }
}

#[tokio::test]
async fn more_than_every_buffer_holds_goes_through() {
    for (kind, mut a, mut b) in pairs().await {
        let sent: Vec<u8> = (0..4 << 20).map(|i: u32| i.to_le_bytes()[1]).collect();
        let (written, received) = tokio::join!(a.write_all(&sent), read_exactly(&mut b, sent.len()));
        written.unwrap();
        assert!(received == sent, "{kind}");
    }
}

#[tokio::test]
async fn a_peer_that_vanishes_without_close_notify_is_an_end() {
    let (mut accepted, dialled) = tls_pair(&Certificates::new(&PKCS_ECDSA_P256_SHA256)).await;
    drop(dialled);
    readable(&mut accepted).await;
    assert!(read(&mut accepted, 10).await.is_empty());
}

#[tokio::test]
async fn streams_move_between_runtimes() {
    for (kind, mut a, b) in pairs().await {
        let peer = b.peer().clone();
        let detached = b.detach().unwrap();
        let far = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let mut b = detached.attach().unwrap();
                let request = read_exactly(&mut b, 4).await;
                b.write_all(b"pong").await.unwrap();
                (request, b.peer().clone(), b.is_tls())
            })
        });
        a.write_all(b"ping").await.unwrap();
        assert_eq!(read_exactly(&mut a, 4).await, "pong", "{kind}");
        let (request, peer_there, is_tls) = far.join().unwrap();
        assert_eq!((request, peer_there, is_tls), (BytesMut::from("ping"), peer, kind.starts_with("tls")), "{kind}");
    }
}

#[tokio::test]
async fn channel_binding_follows_the_certificates_signature() {
    for (algorithm, hash) in [
        (&PKCS_ECDSA_P256_SHA256, (|der: &[u8]| Some(Sha256::digest(der).to_vec())) as fn(&[u8]) -> _),
        (&PKCS_ECDSA_P384_SHA384, |der| Some(Sha384::digest(der).to_vec())),
        (&PKCS_ED25519, |_| None),
    ] {
        let certificates = Certificates::new(algorithm);
        let (accepted, dialled) = tls_pair(&certificates).await;
        let der = CertificateDer::from_pem_file(certificates.cert()).unwrap();
        assert_eq!(dialled.tls_server_end_point(), hash(&der), "{algorithm:?}");
        assert_eq!(CertificateDer::from_pem_slice(accepted.certificate_pem().unwrap()).unwrap(), der);
        assert_eq!((accepted.tls_server_end_point(), dialled.certificate_pem()), (None, None));
    }
}

fn tcp(host: &str, port: u16) -> Address {
    Address::Tcp { host: host.into(), port }
}

fn port(local: &Local) -> u16 {
    match local {
        Local::Tcp(address) => address.port(),
        Local::Unix(path) => panic!("{}", path.display()),
    }
}

#[tokio::test]
async fn tcp_listeners_serve_the_families_they_stand_for() {
    let plain = connector(SslMode::Disable, None);
    for (host, reached_from) in
        [("127.0.0.1", vec!["127.0.0.1"]), ("::1", vec!["::1"]), ("*", vec!["127.0.0.1", "::1"])]
    {
        let free = TcpListener::bind("[::]:0").await.unwrap().local_addr().unwrap().port();
        let listeners = bind(&tcp(host, free), &network()).await.unwrap();
        assert_eq!(listeners.len(), reached_from.len(), "{host}");
        for (listener, from) in listeners.iter().zip(reached_from) {
            assert_eq!(port(listener.local()), free);
            let address = tcp(from, free);
            let (accepted, dialled) = tokio::join!(listener.accept(), dial(&address, &plain, Attempt::Plain, TIMEOUT));
            let (mut stream, peer) = accepted;
            assert_eq!(stream.peer(), &peer);
            dialled.unwrap().write_all(b"x").await.unwrap();
            assert_eq!(read(&mut stream, 10).await, "x", "{host} from {from}");
        }
    }
}

#[tokio::test]
async fn a_taken_port_is_named_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp("127.0.0.1", taken.local_addr().unwrap().port());
    let error = bind(&address, &network()).await.unwrap_err();
    let name = super::describe(&address);
    assert!(error.message().starts_with(&format!("cannot listen on {name}: ")), "{error}");
    assert!(error.hint_text().unwrap().starts_with(&format!("Another process listens on {name}")));
}

#[tokio::test]
async fn unix_sockets_replace_only_what_is_stale() {
    let directory = TempDir::new().unwrap();
    let address = Address::Unix { directory: directory.path().into(), port: 6432 };
    let path = directory.path().join(".s.PGSQL.6432");

    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "left behind by a process that died");
    let listener = bind(&address, &network()).await.unwrap().remove(0);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);

    let plain = connector(SslMode::Disable, None);
    let (accepted, dialled) = tokio::join!(listener.accept(), dial(&address, &plain, Attempt::Plain, TIMEOUT));
    let (mut stream, peer) = accepted;
    dialled.unwrap().write_all(b"x").await.unwrap();
    assert_eq!(read(&mut stream, 10).await, "x");
    assert_eq!(peer.to_string(), format!("unix(pid {})", std::process::id()));

    let error = bind(&address, &network()).await.unwrap_err();
    assert!(error.hint_text().unwrap().starts_with("Another process listens on "), "{error}");
    assert!(path.exists(), "the living one keeps its socket");
    drop(listener);
    assert!(!path.exists(), "gone with its listener");

    std::fs::write(&path, "precious").unwrap();
    assert!(bind(&address, &network()).await.is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

/// What a listener at the other end does with the first request.
#[derive(Clone, Copy, Debug)]
enum Node {
    /// Speaks TLS.
    Tls,
    /// Sends this, and then nothing.
    Says(&'static [u8]),
    Closes,
    Silent,
}

/// Dials a node that behaves so; true for TLS.
async fn dialled(
    node: Node,
    host: &str,
    mode: SslMode,
    attempt: Attempt,
    ca: Option<&Certificates>,
    its: &Certificates,
) -> Result<bool> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp(host, listener.local_addr().unwrap().port());
    let root = ca.map(Certificates::root);
    let connector = connector(mode, root.as_deref());
    let serve = async {
        let mut socket = listener.accept().await.unwrap().0;
        if attempt != Attempt::Plain {
            let mut request = [0; 8];
            socket.read_exact(&mut request).await.unwrap();
            assert_eq!(request, SSL_REQUEST);
        }
        match node {
            Node::Tls => {
                socket.write_all(b"S").await.unwrap();
                let stream = Stream::tcp(socket, &network()).unwrap();
                // The client's verdict is what counts here.
                drop(its.acceptor().accept(stream, Opening::Request).await);
            }
            Node::Says(bytes) => socket.write_all(bytes).await.unwrap(),
            Node::Closes => drop(socket),
            Node::Silent => std::future::pending().await,
        }
        std::future::pending::<()>().await;
    };
    let timeout = if matches!(node, Node::Silent) { TIMEOUT / 100 } else { TIMEOUT };
    tokio::select! {
        () = serve => unreachable!("it never ends"),
        result = dial(&address, &connector, attempt, timeout) => result.map(|stream| stream.is_tls()),
    }
}

#[tokio::test]
async fn sslmode_means_what_it_means_to_libpq() {
    use Attempt::{Plain, Tls, TlsIfOffered};
    use SslMode::{Allow, Disable, Prefer, Require, VerifyCa, VerifyFull};
    let ours = Certificates::new(&PKCS_ECDSA_P256_SHA256);
    let foreign = Certificates::new(&PKCS_ECDSA_P256_SHA256);
    let elsewhere = Certificates::for_host("elsewhere.example", &PKCS_ECDSA_P256_SHA256);
    let own_root = Certificates::self_signed(2000..4000);
    let expired = Certificates::self_signed(2000..2001);
    let future = Certificates::self_signed(3000..4000);
    let good = Ok::<bool, &str>(true);
    let plain = Ok(false);
    for (mode, attempt, node, root, its, expected) in [
        (Disable, Plain, Node::Says(b""), None, &ours, plain),
        (Allow, Plain, Node::Says(b""), None, &ours, plain),
        (Allow, Tls, Node::Tls, None, &ours, good),
        (Prefer, TlsIfOffered, Node::Tls, None, &ours, good),
        (Prefer, TlsIfOffered, Node::Says(b"N"), None, &ours, plain),
        (Prefer, Plain, Node::Says(b""), None, &ours, plain),
        (Require, Tls, Node::Tls, None, &ours, good),
        (Require, Tls, Node::Tls, None, &elsewhere, good),
        (Require, Tls, Node::Tls, Some(&ours), &ours, good),
        (Require, Tls, Node::Tls, Some(&foreign), &ours, Err("invalid peer certificate: BadSignature")),
        (Require, Tls, Node::Says(b"N"), None, &ours, Err("does not support TLS, but TLS was required")),
        (VerifyCa, Tls, Node::Tls, Some(&ours), &ours, good),
        (VerifyCa, Tls, Node::Tls, Some(&elsewhere), &elsewhere, good),
        (VerifyCa, Tls, Node::Tls, Some(&foreign), &ours, Err("invalid peer certificate: BadSignature")),
        (VerifyFull, Tls, Node::Tls, Some(&ours), &ours, good),
        (VerifyFull, Tls, Node::Tls, Some(&foreign), &ours, Err("invalid peer certificate: BadSignature")),
        (VerifyFull, Tls, Node::Tls, Some(&elsewhere), &elsewhere, Err("not valid for name \"localhost\"")),
        (VerifyFull, Tls, Node::Tls, Some(&ours), &elsewhere, Err("invalid peer certificate: BadSignature")),
        (Require, Tls, Node::Tls, Some(&own_root), &own_root, good),
        (VerifyCa, Tls, Node::Tls, Some(&own_root), &own_root, good),
        (VerifyFull, Tls, Node::Tls, Some(&own_root), &own_root, good),
        (VerifyCa, Tls, Node::Tls, Some(&ours), &own_root, Err("invalid peer certificate: ")),
        (VerifyCa, Tls, Node::Tls, Some(&expired), &expired, Err("Expired")),
        (VerifyCa, Tls, Node::Tls, Some(&future), &future, Err("NotValidYet")),
        (Require, Tls, Node::Says(b"SR\0\0\0\x08\0\0\0\0"), None, &ours, Err("unencrypted data")),
        (Prefer, TlsIfOffered, Node::Says(b"NR\0\0\0\x08\0\0\0\0"), None, &ours, Err("unencrypted data")),
        (Prefer, TlsIfOffered, Node::Says(b"E\0\0\0\x05x"), None, &ours, Err("answered with an error")),
        (Require, Tls, Node::Says(b"HTTP/1.1 400"), None, &ours, Err("is no PostgreSQL server")),
        (Require, Tls, Node::Closes, None, &ours, Err("closed the connection")),
        (Require, Tls, Node::Silent, None, &ours, Err("timed out")),
    ] {
        let case = format!("{mode:?} {attempt:?} {node:?}");
        match (dialled(node, "localhost", mode, attempt, root, its).await, expected) {
            (Ok(tls), Ok(expected)) => assert_eq!(tls, expected, "{case}"),
            (Err(error), Err(expected)) => {
                assert!(error.message().contains(expected), "{case}: {error}");
                assert!(error.message().contains("localhost:"), "{case}: {error}");
                assert_eq!((error.sqlstate(), error.retry()), ("08001", Retry::Elsewhere), "{case}");
            }
            (result, _) => panic!("{case}: {result:?}"),
        }
    }
}

#[tokio::test]
async fn a_host_that_can_be_in_no_certificate_is_reached_by_its_address() {
    let ours = Certificates::for_host("127.0.0.1", &PKCS_ECDSA_P256_SHA256);
    let result = dialled(Node::Tls, "127.0.0.1", SslMode::VerifyFull, Attempt::Tls, Some(&ours), &ours).await;
    assert!(result.unwrap());
    let ours = Certificates::self_signed(2000..4000);
    let result = dialled(Node::Tls, "127.0.0.1", SslMode::VerifyFull, Attempt::Tls, Some(&ours), &ours).await;
    assert!(result.unwrap_err().message().contains("not valid for name \"127.0.0.1\""));
}

#[test]
fn attempts_are_libpqs() {
    use Attempt::{Plain, Tls, TlsIfOffered};
    let host = tcp("h", 1);
    let unix = Address::Unix { directory: "/tmp".into(), port: 1 };
    for (mode, attempts) in [
        (SslMode::Disable, &[Plain][..]),
        (SslMode::Allow, &[Plain, Tls]),
        (SslMode::Prefer, &[TlsIfOffered, Plain]),
        (SslMode::Require, &[Tls]),
    ] {
        assert_eq!(connector(mode, None).attempts(&host), attempts);
        assert_eq!(connector(mode, None).attempts(&unix), [Plain]);
    }
}

#[tokio::test]
async fn a_node_that_is_not_there_is_named() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let missing = Address::Unix { directory: "/nonexistent".into(), port: 5432 };
    let plain = connector(SslMode::Disable, None);
    for (address, message) in [
        (tcp("127.0.0.1", free), format!("cannot connect to the node at 127.0.0.1:{free}: Connection refused")),
        (missing, "cannot connect to the node at /nonexistent/.s.PGSQL.5432: No such file".to_owned()),
    ] {
        let error = dial(&address, &plain, Attempt::Plain, TIMEOUT).await.unwrap_err();
        assert!(error.message().starts_with(&message), "{error}");
        assert_eq!(error.retry(), Retry::Elsewhere);
    }
}

#[test]
fn tls_files_that_do_not_serve_are_named_with_their_setting() {
    let ours = Certificates::new(&PKCS_ECDSA_P256_SHA256);
    let other = Certificates::new(&PKCS_ECDSA_P256_SHA256);
    let missing = Path::new("/nonexistent.pem");
    let empty = ours.directory.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    for (cert, key, setting, file) in [
        (missing, ours.key().as_path(), "cert_file", missing),
        (empty.as_path(), &ours.key(), "cert_file", &empty),
        (&ours.cert(), missing, "key_file", missing),
        (&ours.cert(), &empty, "key_file", &empty),
        (&ours.cert(), &ours.cert(), "key_file", &ours.cert()),
        (&ours.cert(), &other.key(), "key_file", &other.key()),
    ] {
        let error = Acceptor::load(cert, key).unwrap_err();
        let start = format!("{setting} {}: ", file.display());
        assert!(error.message().starts_with(&start), "{start}: {error}");
    }
    for file in [missing, &empty] {
        let tls = ServerTls { mode: SslMode::VerifyCa, root_cert_file: Some(file.into()) };
        let error = client_config(&tls).unwrap_err();
        assert!(error.message().starts_with(&format!("root_cert_file {}: ", file.display())), "{error}");
    }
}

/// What a client that sends these bytes and half closes gets from `read`.
async fn after<T>(sent: &[u8], read: impl AsyncFnOnce(&mut LoginIo) -> Result<T>) -> (Result<T>, LoginIo) {
    let (ours, mut theirs) = unix_pair();
    theirs.write_all(sent).await.unwrap();
    theirs.shutdown().await;
    let mut io = LoginIo::new(ours);
    let result = read(&mut io).await;
    (result, io)
}

#[tokio::test]
async fn startup_packets_have_limits() {
    let longest = [&10_000u32.to_be_bytes()[..], &[7; 9_996]].concat();
    for (sent, expected) in [
        (&b""[..], Ok(None)),
        (b"\0\0\0\x08abcd", Ok(Some(&b"abcd"[..]))),
        (&longest, Ok(Some(&longest[4..]))),
        (b"\0", Err("incomplete startup packet")),
        (b"\0\0\0\x08abc", Err("incomplete startup packet")),
        (b"\0\0\0\x07abc", Err("invalid length of startup packet")),
        (b"\0\0\0\0", Err("invalid length of startup packet")),
        (b"\0\0\x27\x11", Err("invalid length of startup packet")),
        (b"\xff\xff\xff\xff", Err("invalid length of startup packet")),
        (b"GET / HTTP/1.1", Err("invalid length of startup packet")),
    ] {
        let result = after(sent, LoginIo::read_startup).await.0;
        match expected {
            Ok(packet) => assert_eq!(result.unwrap(), packet.map(Bytes::copy_from_slice)),
            Err(message) => assert_eq!(result.unwrap_err().message(), message),
        }
    }
}

#[tokio::test]
async fn frames_have_limits_and_leave_the_rest() {
    for (sent, expected) in [
        (&b"p\0\0\0\x06abX"[..], Ok((b'p', "ab", "X"))),
        (b"p\0\0\0\x04", Ok((b'p', "", ""))),
        (b"p\0\0\0\x0babcdefg", Ok((b'p', "abcdefg", ""))),
        (b"p\0\0\0\x0cabcdefgh", Err("message 'p' of 13 bytes is too long here: at most 12")),
        (b"p\x7f\xff\xff\xff", Err("message 'p' of 2147483648 bytes is too long here: at most 12")),
        (b"p\0\0\0\x03", Err("message 'p' has the impossible length 3")),
        (b"p\0\0\0\x06a", Err("the client closed the connection during login")),
        (b"", Err("the client closed the connection during login")),
    ] {
        let (result, io) = after(sent, async |io: &mut LoginIo| io.read_frame(12).await).await;
        match (result, expected) {
            (Ok(frame), Ok((tag, body, left))) => {
                assert_eq!((frame.tag, &frame.body[..]), (tag, body.as_bytes()));
                assert_eq!(io.into_parts().1, left);
            }
            (Err(error), Err(message)) => assert_eq!(error.message(), message),
            (result, _) => panic!("{sent:?}: {result:?}"),
        }
    }
}

#[tokio::test]
async fn plain_bytes_behind_the_request_for_tls_are_refused() {
    let certificates = Certificates::new(&PKCS_ECDSA_P256_SHA256);
    let (accepted, mut dialled) = tcp_pair().await;
    dialled.write_all(&[&SSL_REQUEST[..], b"Q\0\0\0\x05;"].concat()).await.unwrap();
    let mut io = LoginIo::new(accepted);
    io.read_startup().await.unwrap();
    let error = io.accept_tls(&certificates.acceptor(), Opening::Request).await.unwrap_err();
    assert_eq!(error.message(), "received unencrypted data after SSL request");
    assert!(read(&mut dialled, 10).await.is_empty(), "no S was sent");
}

#[tokio::test]
async fn direct_tls_needs_its_protocol_named() {
    let certificates = Certificates::new(&PKCS_ECDSA_P256_SHA256);
    let acceptor = certificates.acceptor();
    let tls = ServerTls { mode: SslMode::VerifyFull, root_cert_file: Some(certificates.root()) };
    for (alpn, accepted) in [(&["postgresql"][..], true), (&[], false), (&["h2"], false), (&["h2", "postgresql"], true)]
    {
        let mut config = client_config(&tls).unwrap().unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async {
            let io = LoginIo::new(Stream::tcp(listener.accept().await.unwrap().0, &network()).unwrap());
            assert!(io.opens_with_tls().await.unwrap());
            io.accept_tls(&acceptor, Opening::Direct).await
        };
        let client = async {
            let socket = TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, socket).await
        };
        let (result, _client) = tokio::join!(server, client);
        assert_eq!(result.is_ok(), accepted, "{alpn:?}: {result:?}");
    }
}
