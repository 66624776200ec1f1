//! Host names of nodes: looked up anew after a while, because a name can move to another machine.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::net::lookup_host;

use super::stream::PeerInfo;
use crate::config::Address;

/// What a node's host name stands for.
#[derive(Debug)]
pub struct Name {
    /// `None`: an address, or a Unix socket; nothing to look up.
    host: Option<String>,
    max_ttl: Duration,
    known: Mutex<Known>,
    /// How often the name has left an address.
    moves: AtomicU64,
    /// Held by whoever looks it up; the others wait for what it finds.
    lookup: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    addresses: Arc<[IpAddr]>,
    at: Option<Instant>,
}

impl Name {
    /// An answer serves for `max_ttl`.
    pub fn of(address: &Address, max_ttl: Duration) -> Self {
        let (host, addresses) = match address {
            Address::Unix { .. } => (None, Vec::new()),
            Address::Tcp { host, .. } => match host.parse() {
                Ok(address) => (None, vec![address]),
                Err(_) => (Some(host.clone()), Vec::new()),
            },
        };
        let known = Mutex::new(Known { addresses: addresses.into(), at: None });
        Self { host, max_ttl, known, moves: AtomicU64::new(0), lookup: tokio::sync::Mutex::default() }
    }

    /// Can what it stands for change?
    pub fn is_looked_up(&self) -> bool {
        self.host.is_some()
    }

    /// What it stands for now; from memory if that is young enough. When nobody answers, what it stood for before is
    /// better than nothing. Cancel safe.
    ///
    /// # Errors
    /// The name is not known, or nobody answers and nobody ever has.
    pub async fn addresses(&self) -> io::Result<Arc<[IpAddr]>> {
        let Some(host) = &self.host else { return Ok(self.known.lock().addresses.clone()) };
        if let Some(young) = self.young() {
            return Ok(young);
        }
        let _alone = self.lookup.lock().await;
        if let Some(young) = self.young() {
            return Ok(young);
        }
        let looked_up = lookup_host((host.as_str(), 0)).await.map(|found| found.map(|found| found.ip()).collect());
        let mut known = self.known.lock();
        match looked_up {
            Ok(addresses) => {
                let addresses: Arc<[IpAddr]> = addresses;
                if known.addresses.iter().any(|address| !addresses.contains(address)) {
                    tracing::info!(host, before = ?known.addresses, now = ?addresses, "a host name has moved");
                    self.moves.fetch_add(1, Relaxed);
                }
                *known = Known { addresses, at: Some(Instant::now()) };
            }
            Err(error) if known.addresses.is_empty() => return Err(error),
            Err(error) => tracing::debug!(host, %error, "a host name could not be looked up"),
        }
        Ok(known.addresses.clone())
    }

    fn young(&self) -> Option<Arc<[IpAddr]>> {
        let known = self.known.lock();
        known.at.filter(|at| at.elapsed() < self.max_ttl).map(|_| known.addresses.clone())
    }

    /// How often the name has left an address so far. What was connected before may be another machine.
    pub fn moves(&self) -> u64 {
        self.moves.load(Relaxed)
    }

    /// None of the addresses would do: they are looked up anew next time.
    pub fn doubt(&self) {
        self.known.lock().at = None;
    }

    /// Has the name left the address of this connection?
    pub fn has_left(&self, peer: &PeerInfo) -> bool {
        let PeerInfo::Tcp(peer) = peer else { return false };
        let addresses = &self.known.lock().addresses;
        self.is_looked_up() && !addresses.is_empty() && !addresses.contains(&peer.ip())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn name(host: &str, max_ttl: Duration) -> Name {
        Name::of(&Address::Tcp { host: host.to_owned(), port: 5432 }, max_ttl)
    }

    fn peer(ip: &str) -> PeerInfo {
        PeerInfo::Tcp((ip.parse::<IpAddr>().unwrap(), 5432).into())
    }

    #[tokio::test]
    async fn an_address_is_what_it_is_and_a_name_is_looked_up() {
        let address = name("::1", LONG);
        assert_eq!(*address.addresses().await.unwrap(), ["::1".parse::<IpAddr>().unwrap()]);
        assert!(!address.is_looked_up() && !address.has_left(&peer("10.0.0.1")));
        let localhost = name("localhost", LONG);
        assert!(!localhost.has_left(&peer("10.0.0.1")), "nobody knows yet");
        assert!(localhost.addresses().await.unwrap().iter().all(IpAddr::is_loopback));
        assert!(localhost.has_left(&peer("10.0.0.1")));
        assert!(!localhost.has_left(&PeerInfo::Unix { process_id: None }));
        let known = localhost.known.lock().addresses.clone();
        assert!(known.iter().all(|ip| !localhost.has_left(&peer(&ip.to_string()))));
        assert!(name("no-such-host.invalid", LONG).addresses().await.is_err());
    }

    #[tokio::test]
    async fn an_answer_serves_until_it_is_old_or_in_doubt() {
        let other: Arc<[IpAddr]> = Arc::new(["10.9.9.9".parse().unwrap()]);
        let remember = |name: &Name| *name.known.lock() = Known { addresses: other.clone(), at: Some(Instant::now()) };
        let lasting = name("localhost", LONG);
        remember(&lasting);
        assert_eq!(lasting.addresses().await.unwrap(), other, "from memory");
        assert_eq!(lasting.moves(), 0);
        lasting.doubt();
        assert_ne!(lasting.addresses().await.unwrap(), other);
        assert_eq!(lasting.moves(), 1);
        lasting.doubt();
        lasting.addresses().await.unwrap();
        assert_eq!(lasting.moves(), 1, "it is where it was");
        let fleeting = name("localhost", Duration::ZERO);
        remember(&fleeting);
        assert_ne!(fleeting.addresses().await.unwrap(), other);
        let gone = name("no-such-host.invalid", Duration::ZERO);
        remember(&gone);
        assert_eq!(gone.addresses().await.unwrap(), other, "better than nothing");
    }
}
