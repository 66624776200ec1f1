//! Where clients and monitoring connect.

use std::net::SocketAddr;
use std::ops::Range;

use toml::Spanned;

use super::report::Report;
use crate::config::{Address, ClientTls, Listener, Metrics, raw};

/// What TLS on a listener can be, before its files are known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Disable,
    Allow,
    Require,
}

const MODES: [(&str, Mode); 3] = [("disable", Mode::Disable), ("allow", Mode::Allow), ("require", Mode::Require)];

pub fn listeners_and_metrics(file: &raw::File, report: &mut Report<'_>) -> (Vec<Listener>, Option<Metrics>) {
    if file.listeners.is_empty() {
        let problem = "there is none; add [[listeners]] with address = \"127.0.0.1:6432\"";
        report.missing(&(0..0), "listeners", problem);
    }
    let mut taken: Vec<(Range<usize>, Address)> = Vec::new();
    let mut listeners = Vec::new();
    for raw in &file.listeners {
        let tls = client_tls(raw, report);
        let Some((span, address)) = address(raw, report) else {
            continue;
        };
        if matches!((&address, &tls), (Address::Unix { .. }, ClientTls::Require { .. })) {
            report.at(
                &raw.get_ref().client_tls_sslmode.span(),
                "clients use no TLS on a Unix socket; allowed for it: disable, allow",
            );
        }
        claim(&span, &address, &mut taken, report);
        listeners.push(Listener { address, tls, origin: report.document.origin(&span) });
    }
    let metrics = file.metrics.address.as_ref().and_then(|address| metrics(address, &mut taken, report));
    (listeners, metrics)
}

fn address(raw: &Spanned<raw::Listener>, report: &mut Report<'_>) -> Option<(Range<usize>, Address)> {
    let listener = raw.get_ref();
    let text = report.required(&raw.span(), "address", listener.address.as_ref(), "\"127.0.0.1:6432\"")?;
    let port = report.count(&listener.port, &(0..=65_535));
    let address = Address::of_listener(text.get_ref(), port);
    if address.is_none() {
        let problem = format!(
            "{text:?} is no address to listen on; allowed are \"127.0.0.1:6432\", \"[::]:6432\", \"*:6432\", and for a \
             Unix socket its directory, such as \"/run/causeway\"",
            text = text.get_ref()
        );
        report.at(&text.span(), problem);
    }
    Some((text.span(), address?))
}

fn metrics(
    text: &Spanned<String>,
    taken: &mut Vec<(Range<usize>, Address)>,
    report: &mut Report<'_>,
) -> Option<Metrics> {
    let Ok(address) = text.get_ref().parse::<SocketAddr>() else {
        let problem = format!(
            "{:?} is no address to listen on; allowed are an IP address and a port, such as \"127.0.0.1:9187\" or \
             \"[::]:9187\"",
            text.get_ref()
        );
        report.at(&text.span(), problem);
        return None;
    };
    let tcp = Address::Tcp { host: address.ip().to_string(), port: address.port() };
    claim(&text.span(), &tcp, taken, report);
    Some(Metrics { address, origin: report.document.origin(&text.span()) })
}

fn claim(span: &Range<usize>, address: &Address, taken: &mut Vec<(Range<usize>, Address)>, report: &mut Report<'_>) {
    if let Some((other, clash)) = taken.iter().find(|(_, other)| other.overlaps(address)) {
        let problem = format!("{address} is taken by {}, which is {clash}", report.document.mention(other));
        report.at(span, problem);
    }
    taken.push((span.clone(), address.clone()));
}

fn client_tls(raw: &Spanned<raw::Listener>, report: &mut Report<'_>) -> ClientTls {
    let listener = raw.get_ref();
    let mode = report.word(&listener.client_tls_sslmode, &MODES);
    if mode == Mode::Disable {
        return ClientTls::Disable;
    }
    let mut file = |key: &str, path: Option<&Spanned<String>>| {
        let Some(path) = path else {
            let mode = listener.client_tls_sslmode.get_ref();
            let needs = "client_tls_cert_file and client_tls_key_file (PEM)";
            report.missing(&raw.span(), key, format!("is missing: client_tls_sslmode {mode:?} needs {needs}"));
            return None;
        };
        Some(report.file(path))
    };
    let cert_file = file("client_tls_cert_file", listener.client_tls_cert_file.as_ref());
    let key_file = file("client_tls_key_file", listener.client_tls_key_file.as_ref());
    match (cert_file, key_file) {
        (Some(cert_file), Some(key_file)) if mode == Mode::Allow => ClientTls::Allow { cert_file, key_file },
        (Some(cert_file), Some(key_file)) => ClientTls::Require { cert_file, key_file },
        _ => ClientTls::Disable,
    }
}
