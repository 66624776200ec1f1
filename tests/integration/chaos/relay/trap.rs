//! A point in the stream where a connection is caught, and what then happens to it.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Direction, End};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Point {
    /// Before a client's message that contains these bytes reaches the server.
    Request(String),
    /// The request has reached the server; before the server's next message with this tag reaches the client.
    Answer(String, u8),
    /// After so many bytes of a connection in this direction, wherever that is in a message.
    Bytes(Direction, u64),
}

/// What becomes of the message that is held, and of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    /// At most so many bytes of it pass, then the connection ends.
    Tear(usize, End),
    /// That direction ends orderly before it; the other one goes on.
    HalfClose,
    /// Nothing more passes, and nothing closes.
    Freeze,
}

/// Holds the message, and all behind it in its direction, until a verdict is given; that may be before it is caught.
#[derive(Debug)]
pub struct Trap {
    point: Point,
    /// The connection that has sent the request, or was caught.
    owner: Mutex<Option<u64>>,
    caught: watch::Sender<bool>,
    verdict: watch::Sender<Option<Verdict>>,
}

impl Trap {
    pub(super) fn new(point: Point) -> Self {
        let (caught, verdict) = (watch::Sender::new(false), watch::Sender::new(None));
        Self { point, owner: Mutex::new(None), caught, verdict }
    }

    /// A verdict that is there keeps its place: the first one counts.
    pub fn decide(&self, verdict: Verdict) {
        self.verdict.send_if_modified(|slot| {
            let free = slot.is_none();
            slot.get_or_insert(verdict);
            free
        });
    }

    /// Waits until a connection is caught.
    pub fn wait(&self, limit: Duration) {
        crate::harness::wait_for(limit, &format!("caught at {:?}", self.point), || *self.caught.borrow());
    }

    pub fn has_caught(&self) -> bool {
        *self.caught.borrow()
    }

    /// The connection that was caught.
    pub fn owner(&self) -> Option<u64> {
        *self.owner.lock()
    }

    /// Whether this message of this connection is the one to be held.
    pub(super) fn catches(&self, link: u64, direction: Direction, message: &[u8]) -> bool {
        if self.has_caught() {
            return false;
        }
        let contains = |text: &str| memchr::memmem::find(message, text.as_bytes()).is_some();
        let mut owner = self.owner.lock();
        let caught = match (&self.point, direction) {
            (Point::Request(text), Direction::ToServer) => contains(text),
            (Point::Answer(text, _), Direction::ToServer) => {
                if owner.is_none() && contains(text) {
                    *owner = Some(link);
                }
                false
            }
            (Point::Answer(_, tag), Direction::ToClient) => *owner == Some(link) && message.first() == Some(tag),
            _ => false,
        };
        if caught {
            *owner = Some(link);
            self.caught.send_replace(true);
        }
        caught
    }

    /// How many bytes of the next `count` may pass after `passed` before it catches; `None`: all.
    pub(super) fn catches_at(&self, direction: Direction, passed: u64, count: usize) -> Option<usize> {
        let Point::Bytes(wanted, limit) = self.point else { return None };
        if wanted != direction || self.has_caught() {
            return None;
        }
        let may_pass = usize::try_from(limit.saturating_sub(passed)).unwrap_or(usize::MAX);
        (may_pass < count).then(|| {
            self.caught.send_replace(true);
            may_pass
        })
    }

    pub(super) async fn verdict(&self) -> Verdict {
        let mut verdict = self.verdict.subscribe();
        let given = verdict.wait_for(Option::is_some).await;
        // The sender is ours.
        given.ok().and_then(|verdict| *verdict).unwrap_or(Verdict::Pass)
    }
}
