//! TLS material: certificates and keys from files, and what each mode verifies.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::der::oid::db::rfc5912;
use x509_cert::der::pem::{self, LineEnding};

use super::stream::Stream;
use crate::config::{ServerTls, SslMode};
use crate::error::{Error, Fault, Result, sqlstate};

/// The [ALPN](https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL) protocol name.
const ALPN: &[u8] = b"postgresql";

/// How a client came to TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// It sent an `SSLRequest`.
    Request,
    /// It began with the handshake; then ALPN must name the protocol, so that no other protocol is spoken to us.
    Direct,
}

/// The TLS server that clients meet.
#[derive(Clone, Debug)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    certificate_pem: Arc<[u8]>,
}

impl Acceptor {
    /// Reads a certificate chain (ours first) and its key.
    ///
    /// # Errors
    /// Name the file and its setting.
    pub fn load(cert_file: &Path, key_file: &Path) -> Result<Self> {
        let chain = certificates("cert_file", cert_file)?;
        let bad_cert = |error: &str| unusable("cert_file", cert_file, error);
        let leaf = chain.first().ok_or_else(|| bad_cert("no certificate in it"))?;
        let certificate_pem =
            pem::encode_string("CERTIFICATE", LineEnding::LF, leaf).map_err(|error| bad_cert(&error.to_string()))?;
        let key = PrivateKeyDer::from_pem_file(key_file)
            .map_err(|error| unusable("key_file", key_file, &error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|error| unusable("key_file", key_file, &error.to_string()))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // PostgreSQL's clients do not resume sessions.
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), certificate_pem: certificate_pem.into_bytes().into() })
    }

    /// Shakes hands with a client.
    ///
    /// # Errors
    /// The client can't be told: it does not speak TLS with us.
    pub async fn accept(&self, stream: Stream, opening: Opening) -> Result<Stream> {
        let failed = |message: &str| Error::new(Fault::Client, sqlstate::CONNECTION_FAILURE, message);
        let (socket, peer) =
            stream.into_tcp().ok_or_else(|| Error::protocol("TLS is for plain TCP connections only"))?;
        let socket = tokio_rustls::TlsAcceptor::from(self.config.clone())
            .accept(socket)
            .await
            .map_err(|error| failed("the TLS handshake with the client failed").source(error))?;
        if opening == Opening::Direct && socket.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(failed("a direct TLS connection came without ALPN protocol \"postgresql\""));
        }
        Ok(Stream::tls(socket.into(), peer, Some(self.certificate_pem.clone())))
    }
}

/// The TLS client towards nodes; `None` where TLS is off. Verification is libpq's: `verify-full` checks chain and
/// host name, `verify-ca` the chain, the modes below nothing, or the chain once a root file is given.
///
/// # Errors
/// Name the file and its setting.
pub fn client_config(tls: &ServerTls) -> Result<Option<ClientConfig>> {
    let roots = match (tls.mode, &tls.root_cert_file) {
        (SslMode::Disable, _) => return Ok(None),
        (_, Some(file)) => Some(roots_from_file(file)?),
        (SslMode::VerifyCa | SslMode::VerifyFull, None) => Some(roots_of_system()?),
        (SslMode::Allow | SslMode::Prefer | SslMode::Require, None) => None,
    };
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(Fault::Proxy, sqlstate::INTERNAL_ERROR, "TLS can't be set up").source(error))?;
    let verifier = NodeVerifier { roots, host_name: tls.mode == SslMode::VerifyFull, algorithms };
    let mut config = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Some(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificates that a node's may descend from, or be.
#[derive(Debug)]
struct Roots {
    store: RootCertStore,
    certificates: Vec<CertificateDer<'static>>,
}

/// Verifies what the mode asks for. rustls's own verifier always wants the host name, and refuses a self-signed
/// certificate even where the root file holds that very certificate, a usual set-up that libpq takes.
#[derive(Debug)]
struct NodeVerifier {
    /// `None`: any certificate will do.
    roots: Option<Roots>,
    host_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(roots) = &self.roots else { return Ok(ServerCertVerified::assertion()) };
        let certificate = ParsedCertificate::try_from(end_entity)?;
        if roots.certificates.contains(end_entity) {
            verify_validity(end_entity, now)?;
        } else {
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, &roots.store, intermediates, now, algorithms)?;
        }
        if self.host_name {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn verify_validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let parsed = Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let validity = parsed.tbs_certificate.validity;
    if now.as_secs() < validity.not_before.to_unix_duration().as_secs() {
        Err(CertificateError::NotValidYet.into())
    } else if now.as_secs() > validity.not_after.to_unix_duration().as_secs() {
        Err(CertificateError::Expired.into())
    } else {
        Ok(())
    }
}

fn roots_from_file(file: &Path) -> Result<Roots> {
    let certificates = certificates("root_cert_file", file)?;
    let mut store = RootCertStore::empty();
    for certificate in &certificates {
        store.add(certificate.clone()).map_err(|error| unusable("root_cert_file", file, &error.to_string()))?;
    }
    if store.is_empty() {
        return Err(unusable("root_cert_file", file, "no certificate in it"));
    }
    Ok(Roots { store, certificates })
}

fn roots_of_system() -> Result<Roots> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        let message = "the system's trust store has no certificates";
        return Err(Error::new(Fault::Limit, sqlstate::CANNOT_CONNECT, message)
            .hint("Set root_cert_file, or install the package ca-certificates."));
    }
    Ok(Roots { store, certificates: Vec::new() })
}

fn certificates(setting: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(setting, file, &error.to_string()))
}

fn unusable(setting: &str, file: &Path, error: &str) -> Error {
    Error::new(Fault::Limit, sqlstate::CANNOT_CONNECT, format!("{setting} {}: {error}", file.display()))
        .hint("It must be a readable PEM file; the key must belong to the first certificate.")
}

/// Channel binding data of a certificate: its hash, with the hash function that its signature uses, or SHA-256 in
/// place of MD5 and SHA-1 ([RFC 5929 section 4.1](https://www.rfc-editor.org/rfc/rfc5929#section-4.1)).
pub(super) fn server_end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    match Certificate::from_der(certificate).ok()?.signature_algorithm.oid {
        rfc5912::MD_5_WITH_RSA_ENCRYPTION
        | rfc5912::SHA_1_WITH_RSA_ENCRYPTION
        | rfc5912::SHA_256_WITH_RSA_ENCRYPTION
        | rfc5912::ECDSA_WITH_SHA_256 => Some(Sha256::digest(certificate).to_vec()),
        rfc5912::SHA_384_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_384 => {
            Some(Sha384::digest(certificate).to_vec())
        }
        rfc5912::SHA_512_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_512 => {
            Some(Sha512::digest(certificate).to_vec())
        }
        _ => None,
    }
}
