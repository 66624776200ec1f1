//! TLS of control connections, with libpq's `sslmode` semantics.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::config::{ServerTls, SslMode};
use crate::error::{Error, Fault, sqlstate};

/// The configuration of a TLS client towards nodes; `None` where TLS is off.
///
/// # Errors
/// A root certificate file that cannot be read or holds no certificate, or an empty system trust store.
pub(super) fn client_config(tls: &ServerTls) -> Result<Option<ClientConfig>, Error> {
    if tls.mode == SslMode::Disable {
        return Ok(None);
    }
    let verifier = NodeVerifier::new(tls)?;
    let config = ClientConfig::builder_with_provider(Arc::clone(&verifier.provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| bad("TLS is not available").source(e))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Some(config))
}

fn bad(message: impl Into<String>) -> Error {
    Error::new(Fault::Limit, sqlstate::CANNOT_CONNECT, message)
}

fn roots(tls: &ServerTls) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    let Some(file) = &tls.root_cert_file else {
        let found = rustls_native_certs::load_native_certs();
        store.add_parsable_certificates(found.certs);
        if store.is_empty() {
            return Err(bad("the system's trust store holds no certificate").hint("Set server_tls_ca_file."));
        }
        return Ok(store);
    };
    let unusable = || bad(format!("server_tls_ca_file {} holds no usable certificate", file.display()));
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| unusable().source(e))? {
        let certificate = certificate.map_err(|e| unusable().source(e))?;
        store.add(certificate).map_err(|e| unusable().source(e))?;
    }
    if store.is_empty() { Err(unusable()) } else { Ok(store) }
}

#[derive(Debug)]
struct NodeVerifier {
    provider: Arc<CryptoProvider>,
    /// `None`: any certificate will do.
    chain: Option<Arc<WebPkiServerVerifier>>,
    check_name: bool,
}

impl NodeVerifier {
    fn new(tls: &ServerTls) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let check_chain = match tls.mode {
            SslMode::VerifyFull | SslMode::VerifyCa => true,
            // libpq: with a root certificate at hand, the modes below mean `verify-ca` wherever TLS is used.
            SslMode::Require | SslMode::Prefer | SslMode::Allow | SslMode::Disable => tls.root_cert_file.is_some(),
        };
        let chain = if check_chain {
            let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(tls)?), Arc::clone(&provider));
            Some(builder.build().map_err(|e| bad("server_tls_ca_file cannot be used").source(e))?)
        } else {
            None
        };
        Ok(Self { provider, chain, check_name: tls.mode == SslMode::VerifyFull })
    }
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        // The name is checked last, so an error about the name means that the chain is good.
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.check_name => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A certificate authority and a certificate for `node.example` that it signed.
    fn issued() -> (String, CertificateDer<'static>) {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let ca = rcgen::CertifiedIssuer::self_signed(params, ca_key).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let node = rcgen::CertificateParams::new(vec!["node.example".to_owned()]).unwrap();
        let certificate = node.signed_by(&key, &ca).unwrap();
        (ca.pem(), certificate.der().clone())
    }

    #[test]
    fn each_mode_checks_what_libpq_checks() {
        let ((ca, certificate), (other_ca, _)) = (issued(), issued());
        let now = UnixTime::now();
        let check = |mode: SslMode, root: Option<&str>, name: &'static str, accepted: bool| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(root.unwrap_or_default().as_bytes()).unwrap();
            let tls = ServerTls { mode, root_cert_file: root.map(|_| file.path().to_owned()) };
            assert!(client_config(&tls).unwrap().is_some());
            let verifier = NodeVerifier::new(&tls).unwrap();
            let name = ServerName::try_from(name).unwrap();
            let verdict = verifier.verify_server_cert(&certificate, &[], &name, &[], now);
            assert_eq!(verdict.is_ok(), accepted, "{mode:?} {name:?} {verdict:?}");
        };
        for (mode, root, name, accepted) in [
            (SslMode::Prefer, None, "else.example", true),
            (SslMode::Prefer, Some(&other_ca), "node.example", false),
            (SslMode::Require, None, "else.example", true),
            (SslMode::Require, Some(&ca), "else.example", true),
            (SslMode::Require, Some(&other_ca), "node.example", false),
            (SslMode::VerifyCa, Some(&ca), "else.example", true),
            (SslMode::VerifyCa, Some(&other_ca), "node.example", false),
            (SslMode::VerifyFull, Some(&ca), "node.example", true),
            (SslMode::VerifyFull, Some(&ca), "else.example", false),
            (SslMode::VerifyFull, Some(&other_ca), "node.example", false),
        ] {
            check(mode, root.map(String::as_str), name, accepted);
        }
    }

    #[test]
    fn an_unusable_root_file_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for path in [file.path().to_owned(), "/nonexistent/ca.pem".into()] {
            let tls = ServerTls { mode: SslMode::VerifyCa, root_cert_file: Some(path.clone()) };
            let error = client_config(&tls).unwrap_err();
            assert!(error.message().contains("server_tls_ca_file"), "{error}");
            assert!(error.message().contains(path.to_str().unwrap()), "{error}");
        }
    }
}
