//! What the tests of sockets and logins share: certificates, and connected pairs of streams.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, SignatureAlgorithm,
    date_time_ymd,
};
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixStream};

use super::dial::{Attempt, Dialer, TlsConnector};
use super::login::LoginIo;
use super::stream::Stream;
use super::timers::Timers;
use super::tls::{Acceptor, Opening};
use crate::config::{Address, Keepalive, Network, ServerTls, SslMode};
use crate::wire::startup::SSL_REQUEST;

pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// A certificate authority, and a certificate of its for `localhost`, in files.
pub(crate) struct Certificates {
    pub(crate) directory: TempDir,
}

impl Certificates {
    pub(crate) fn new(algorithm: &'static SignatureAlgorithm) -> Self {
        Self::for_host("localhost", algorithm)
    }

    /// A certificate that signs itself and is its own root, valid in these years.
    pub(crate) fn self_signed(years: std::ops::Range<i32>) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = date_time_ymd(years.start, 1, 1);
        params.not_after = date_time_ymd(years.end, 1, 1);
        let certificate = params.self_signed(&key).unwrap().pem();
        Self::write(&certificate, &certificate, &key)
    }

    pub(crate) fn for_host(host: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        let authority_key = KeyPair::generate_for(algorithm).unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = authority.self_signed(&authority_key).unwrap();
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = CertificateParams::new(vec![host.to_owned()])
            .unwrap()
            .signed_by(&key, &Issuer::new(authority, authority_key))
            .unwrap();
        Self::write(&root.pem(), &certificate.pem(), &key)
    }

    fn write(root: &str, certificate: &str, key: &KeyPair) -> Self {
        let certificates = Self { directory: TempDir::new().unwrap() };
        std::fs::write(certificates.root(), root).unwrap();
        std::fs::write(certificates.cert(), certificate).unwrap();
        std::fs::write(certificates.key(), key.serialize_pem()).unwrap();
        certificates
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("root.crt")
    }

    pub(crate) fn cert(&self) -> PathBuf {
        self.directory.path().join("server.crt")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.directory.path().join("server.key")
    }

    pub(crate) fn acceptor(&self) -> Acceptor {
        Acceptor::load(&self.cert(), &self.key()).unwrap()
    }
}

pub(crate) fn connector(mode: SslMode, root: Option<&Path>) -> TlsConnector {
    TlsConnector::new(&ServerTls { mode, root_cert_file: root.map(Path::to_path_buf) }).unwrap()
}

pub(crate) fn network() -> Network {
    let keepalive = Keepalive { idle: TIMEOUT, interval: TIMEOUT, probes: 3 };
    Network { keepalive: Some(keepalive), user_timeout: TIMEOUT, dns_max_ttl: TIMEOUT }
}

/// Two ends of a Unix socket.
pub(crate) fn unix_pair() -> (Stream, Stream) {
    let (a, b) = UnixStream::pair().unwrap();
    (Stream::unix(a), Stream::unix(b))
}

/// The accepted and the dialled end of a TCP connection.
pub(crate) async fn tcp_pair() -> (Stream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
    let plain = connector(SslMode::Disable, None);
    let (accepted, dialled) = tokio::join!(listener.accept(), dial(&address, &plain, Attempt::Plain, TIMEOUT));
    (Stream::tcp(accepted.unwrap().0, &network()).unwrap(), dialled.unwrap())
}

/// The accepted and the dialled end of a TLS connection.
pub(crate) async fn tls_pair(certificates: &Certificates) -> (Stream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp { host: "localhost".into(), port: listener.local_addr().unwrap().port() };
    let connector = connector(SslMode::VerifyFull, Some(&certificates.root()));
    let accept = async {
        let socket = listener.accept().await.unwrap().0;
        let mut io = LoginIo::new(Stream::tcp(socket, &network()).unwrap());
        assert!(!io.opens_with_tls().await.unwrap());
        assert_eq!(io.read_startup().await.unwrap().unwrap(), SSL_REQUEST[4..]);
        io.accept_tls(&certificates.acceptor(), Opening::Request).await.unwrap().into_parts().0
    };
    let (accepted, dialled) = tokio::join!(accept, dial(&address, &connector, Attempt::Tls, TIMEOUT));
    (accepted, dialled.unwrap())
}

/// With the timers of the test's own runtime.
pub(super) async fn dial(
    address: &Address,
    tls: &TlsConnector,
    attempt: Attempt,
    timeout: Duration,
) -> crate::error::Result<Stream> {
    Dialer::new(address, tls, &network(), &Timers::current()).dial(attempt, timeout).await
}
