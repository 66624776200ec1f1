//! How addresses are written, and when two of them are one.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use super::Address;

/// All addresses of the machine, of both families.
const EVERYWHERE: &str = "*";

impl Address {
    /// A host as in libpq: a name, an IP address, or the directory of a Unix socket, which starts with `/`.
    pub(super) fn of_host(host: &str, port: u16) -> Option<Self> {
        if host.starts_with('/') {
            return Some(Self::Unix { directory: PathBuf::from(host), port });
        }
        let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        is_host(host).then(|| Self::Tcp { host: host.to_owned(), port })
    }

    /// `127.0.0.1:6432`, `[::]:6432`, `*:6432`, each also without its port, or a directory.
    pub(super) fn of_listener(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !text.starts_with('/') && (!host.contains(':') || host.ends_with(']')) => {
                (host, port.parse().ok()?)
            }
            _ => (text, default_port),
        };
        if host == EVERYWHERE {
            return Some(Self::Tcp { host: host.to_owned(), port });
        }
        Self::of_host(host, port)
    }

    /// Could not both be listened on. Port 0 is a new port each time.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp { host: a, port: p }, Self::Tcp { host: b, port: q }) => {
                p == q && *p != 0 && (canonical(a) == canonical(b) || covers(a, b) || covers(b, a))
            }
            _ => self.same_as(other),
        }
    }

    /// Two ways to write one address; names are not resolved.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp { host: a, port: p }, Self::Tcp { host: b, port: q }) => p == q && canonical(a) == canonical(b),
            _ => self == other,
        }
    }
}

/// `host:port`, or the path of the socket.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { directory, port } => write!(f, "{}", directory.join(format!(".s.PGSQL.{port}")).display()),
        }
    }
}

/// A plausible name, or an IP address, which for IPv6 may have a zone.
fn is_host(host: &str) -> bool {
    let ip = host.split('%').next().unwrap_or(host);
    let name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    ip.parse::<IpAddr>().is_ok() || (!host.is_empty() && host.chars().all(name))
}

fn canonical(host: &str) -> String {
    host.parse::<IpAddr>().map_or_else(|_| host.to_lowercase(), |ip| ip.to_string())
}

/// A wildcard covers its family; a name may be of either.
fn covers(wildcard: &str, host: &str) -> bool {
    if wildcard == EVERYWHERE {
        return true;
    }
    let host = host.parse::<IpAddr>();
    match wildcard.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => host.map_or(true, |host| host.is_ipv4() == ip.is_ipv4()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listener_addresses() {
        for (text, shown) in [
            ("127.0.0.1:6432", "127.0.0.1:6432"),
            ("127.0.0.1", "127.0.0.1:7"),
            ("[::]:6432", "[::]:6432"),
            ("[::1]", "[::1]:7"),
            ("::1", "[::1]:7"),
            ("*:6432", "*:6432"),
            ("*", "*:7"),
            ("db.example:0", "db.example:0"),
            ("/run/causeway", "/run/causeway/.s.PGSQL.7"),
            ("/run/a:b", "/run/a:b/.s.PGSQL.7"),
        ] {
            assert_eq!(Address::of_listener(text, 7).map(|a| a.to_string()).as_deref(), Some(shown), "{text}");
        }
        for bad in
            ["", ":6432", "host:", "host:65536", "host:-1", "ho st:1", "user@host:1", "[::1]6432", "[]:1", "run/x"]
        {
            assert_eq!(Address::of_listener(bad, 7), None, "{bad}");
        }
    }

    #[test]
    fn two_addresses_that_cannot_both_be_listened_on() {
        let overlap = |a: &str, b: &str| {
            let [a, b] = [a, b].map(|text| Address::of_listener(text, 7).unwrap());
            assert_eq!(a.overlaps(&b), b.overlaps(&a), "{a} {b}");
            a.overlaps(&b)
        };
        for (a, b) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("*:1", "127.0.0.1:1"),
            ("*:1", "[::1]:1"),
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("0.0.0.0:1", "localhost:1"),
            ("[::1]:1", "[0:0::1]:1"),
            ("Localhost:1", "localhost:1"),
            ("/run/x", "/run/x/"),
        ] {
            assert!(overlap(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("127.0.0.1:1", "127.0.0.1:2"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("127.0.0.1:1", "127.0.0.2:1"),
            ("0.0.0.0:1", "[::1]:1"),
            ("/run/x", "*:7"),
        ] {
            assert!(!overlap(a, b), "{a} {b}");
        }
    }
}
