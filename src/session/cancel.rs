//! Cancel requests of clients: from the key that a session was given to the server that works for it right now.
//!
//! A cancel request can reach a node at any time after it was asked for. So a server that a request is under way to is
//! never given to another session: it is closed when its session is done with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::backend::cancel::CancelTarget;
use crate::error::{Error, Fault, Result, sqlstate};
use crate::net::stream::PeerInfo;
use crate::wire::startup::{CancelKey, Replication};

/// What a session is doing, as far as cancelling is concerned.
#[derive(Debug, Default)]
enum Doing {
    #[default]
    Nothing,
    /// It waits for a server.
    Waiting {
        /// It need not any more.
        cancelled: bool,
    },
    Running {
        server: Arc<CancelTarget>,
        /// A request to that server is under way, or was.
        cancelled: bool,
    },
}

/// Whose session it is.
#[derive(Clone, Debug)]
pub struct Who {
    pub user: String,
    pub database: String,
    pub replication: Replication,
    pub peer: PeerInfo,
    pub tls: bool,
    pub connected_at: SystemTime,
}

/// What a session is doing now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Nothing of it is running; it may be in a transaction all the same.
    Idle,
    /// For a server, or for what a read needs.
    Waiting,
    Active,
}

/// One session's entry.
#[derive(Debug)]
pub struct CancelSlot {
    /// Not zero; no two sessions of the process have the same.
    pub session: u64,
    pub who: Who,
    secret: Bytes,
    doing: Mutex<Doing>,
    give_up_waiting: Notify,
}

impl CancelSlot {
    pub fn waits(&self) {
        *self.doing.lock() = Doing::Waiting { cancelled: false };
    }

    pub fn runs(&self, server: &Arc<CancelTarget>) {
        *self.doing.lock() = Doing::Running { server: Arc::clone(server), cancelled: false };
    }

    pub fn activity(&self) -> Activity {
        match *self.doing.lock() {
            Doing::Nothing => Activity::Idle,
            Doing::Waiting { .. } => Activity::Waiting,
            Doing::Running { .. } => Activity::Active,
        }
    }

    /// True: a cancel request may still reach the server that the session ran on.
    pub fn is_done(&self) -> bool {
        matches!(std::mem::take(&mut *self.doing.lock()), Doing::Running { cancelled: true, .. })
    }

    /// Ready when the session is to stop waiting for a server.
    pub async fn cancelled_while_waiting(&self) -> Error {
        // Hears of a request from here on; of an earlier one the state tells.
        let notified = self.give_up_waiting.notified();
        if !matches!(*self.doing.lock(), Doing::Waiting { cancelled: true }) {
            notified.await;
        }
        Error::new(Fault::Client, sqlstate::QUERY_CANCELED, "canceling statement due to user request")
    }

    /// The server to ask, if there is one. The session learns that it was asked before the request is sent.
    pub fn take_aim(&self) -> Option<Arc<CancelTarget>> {
        match &mut *self.doing.lock() {
            Doing::Nothing => None,
            Doing::Waiting { cancelled } => {
                *cancelled = true;
                self.give_up_waiting.notify_waiters();
                None
            }
            Doing::Running { server, cancelled } => {
                *cancelled = true;
                Some(Arc::clone(server))
            }
        }
    }
}

/// All sessions that can be cancelled, by the process id that they were given.
#[derive(Debug, Default)]
pub struct Cancels {
    sessions: Mutex<HashMap<i32, Arc<CancelSlot>>>,
    registered: AtomicU64,
}

/// Protocol 3.0 has room for no more.
const SHORT_SECRET_BYTES: usize = 4;
const LONG_SECRET_BYTES: usize = 32;

impl Cancels {
    /// Makes up a key that no other session has; it ends with the registration.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn register(self: &Arc<Self>, long_key: bool, who: Who) -> Result<Registration> {
        let mut random = [0; LONG_SECRET_BYTES + 4];
        loop {
            getrandom::fill(&mut random).map_err(|error| {
                Error::new(Fault::Proxy, sqlstate::INTERNAL_ERROR, "no random bytes for a cancel key")
                    .source(std::io::Error::from(error))
            })?;
            let (id, secret) = random.split_at(4);
            let process_id = i32::from_be_bytes([id[0] & 0x7f, id[1], id[2], id[3]]);
            let secret_bytes = if long_key { LONG_SECRET_BYTES } else { SHORT_SECRET_BYTES };
            let secret = Bytes::copy_from_slice(&secret[..secret_bytes]);
            let mut sessions = self.sessions.lock();
            if process_id == 0 || sessions.contains_key(&process_id) {
                continue;
            }
            let session = self.registered.fetch_add(1, Relaxed) + 1;
            let slot = Arc::new(CancelSlot {
                session,
                who,
                secret: secret.clone(),
                doing: Mutex::default(),
                give_up_waiting: Notify::new(),
            });
            sessions.insert(process_id, Arc::clone(&slot));
            return Ok(Registration {
                session,
                cancels: Arc::clone(self),
                key: CancelKey { process_id, secret },
                slot,
            });
        }
    }

    /// All sessions, in the order in which they came.
    pub fn sessions(&self) -> Vec<Arc<CancelSlot>> {
        let mut sessions: Vec<_> = self.sessions.lock().values().cloned().collect();
        sessions.sort_by_key(|slot| slot.session);
        sessions
    }

    /// Passes a request on. True: somebody was asked to stop.
    pub async fn cancel(&self, key: &CancelKey) -> Result<bool> {
        let slot = self.sessions.lock().get(&key.process_id).cloned();
        let Some(slot) = slot.filter(|slot| is_equal(&slot.secret, &key.secret)) else {
            return Ok(false);
        };
        match slot.take_aim() {
            Some(server) => server.send().await.map(|()| true),
            None => Ok(true),
        }
    }
}

/// Takes as long for any two texts of one length.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// A session's place among those that can be cancelled.
#[derive(Debug)]
pub struct Registration {
    cancels: Arc<Cancels>,
    /// Not zero; no two sessions of the process have the same.
    pub session: u64,
    pub key: CancelKey,
    pub slot: Arc<CancelSlot>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.cancels.sessions.lock().remove(&self.key.process_id);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn who() -> Who {
        Who {
            user: "app".into(),
            database: "shop".into(),
            replication: Replication::Off,
            peer: PeerInfo::Unix { process_id: None },
            tls: false,
            connected_at: SystemTime::now(),
        }
    }

    #[tokio::test]
    async fn only_the_right_key_is_heard_and_only_while_the_session_lives() {
        let cancels = Arc::new(Cancels::default());
        let session = cancels.register(true, who()).unwrap();
        let wrong = CancelKey { secret: Bytes::from_static(&[0; LONG_SECRET_BYTES]), ..session.key.clone() };
        assert!(cancels.cancel(&session.key).await.unwrap());
        assert!(!cancels.cancel(&wrong).await.unwrap());
        let shown: Vec<_> = cancels.sessions().iter().map(|slot| (slot.session, slot.activity())).collect();
        assert_eq!(shown, [(session.session, Activity::Idle)]);
        let key = session.key.clone();
        drop(session);
        assert!(!cancels.cancel(&key).await.unwrap());
    }

    #[tokio::test]
    async fn a_waiting_session_is_told() {
        let cancels = Arc::new(Cancels::default());
        let session = cancels.register(false, who()).unwrap();
        assert_eq!(session.key.secret.len(), SHORT_SECRET_BYTES);
        session.slot.waits();
        assert_eq!(session.slot.activity(), Activity::Waiting);
        let told = session.slot.cancelled_while_waiting();
        let (error, asked) = tokio::join!(biased; told, cancels.cancel(&session.key));
        assert!(asked.unwrap());
        assert_eq!(error.sqlstate(), sqlstate::QUERY_CANCELED);

        // Asked before it listens; and what was asked in an earlier wait is over.
        session.slot.waits();
        assert!(cancels.cancel(&session.key).await.unwrap());
        assert_eq!(session.slot.cancelled_while_waiting().await.sqlstate(), sqlstate::QUERY_CANCELED);
        session.slot.waits();
        assert!(session.slot.cancelled_while_waiting().now_or_never().is_none());
    }
}
