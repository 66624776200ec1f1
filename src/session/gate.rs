//! Holds up what needs the primary while its cluster is paused.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Session;
use super::meet::Quest;
use crate::error::{Error, Fault, Result, sqlstate};
use crate::types::show_duration;

/// What sessions pass that have got a server of the primary, before they use it.
///
/// They look after they have taken the server, so whoever closes the gate and then finds none lent
/// ([`Pool::census`](crate::pool::Pool::census)) knows that none is used from then on.
#[derive(Debug, Default)]
pub struct Gate {
    /// Whether `books` has a closure. Of its own, because every batch for the primary looks.
    closed: AtomicBool,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    closure: Option<Closure>,
    line: VecDeque<oneshot::Sender<()>>,
}

/// Who closed the gate, and so who opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closure {
    /// PAUSE, until RESUME.
    Pause,
    /// SWITCHOVER, until it ends.
    Switchover,
}

impl Gate {
    /// Sessions that hold no server of the primary get none from now on.
    ///
    /// # Errors
    /// It is closed, by this.
    pub fn close(&self, closure: Closure) -> Result<(), Closure> {
        let mut books = self.books.lock();
        if let Some(closed_by) = books.closure {
            return Err(closed_by);
        }
        books.closure = Some(closure);
        self.closed.store(true, Relaxed);
        Ok(())
    }

    /// Lets all go on who wait, in the order in which they came. False: it was not closed by `closure`.
    pub fn open(&self, closure: Closure) -> bool {
        let mut books = self.books.lock();
        if books.closure != Some(closure) {
            return false;
        }
        books.closure = None;
        self.closed.store(false, Relaxed);
        let line = std::mem::take(&mut books.line);
        drop(books);
        for waiter in line {
            // Whoever has left needs no answer.
            let _ = waiter.send(());
        }
        true
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    pub fn closure(&self) -> Option<Closure> {
        self.books.lock().closure
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.books.lock().line.iter().filter(|waiter| !waiter.is_closed()).count()
    }

    /// Ready when the gate is open, or has been since. Cancel safe.
    async fn pass(&self) {
        let (turn, come) = oneshot::channel();
        {
            let mut books = self.books.lock();
            if books.closure.is_none() {
                return;
            }
            // Those who gave up would else stay for as long as the gate is closed.
            if books.line.len() == books.line.capacity() {
                books.line.retain(|waiter| !waiter.is_closed());
            }
            books.line.push_back(turn);
        }
        // The sender is dropped with the gate only, and nobody waits then.
        let _ = come.await;
    }
}

impl Session {
    /// Waits until the cluster is resumed.
    ///
    /// # Errors
    /// It is not within `query_wait_timeout` of the batch's arrival, or the client cancels.
    pub(super) async fn wait_at_gate(&self, quest: &Quest) -> Result<()> {
        let limit = self.worker.shared.config.pool.query_wait_timeout;
        let deadline = tokio::time::Instant::from_std(quest.arrived() + limit);
        self.patiently(self.cluster.gate.pass(), deadline).await?.ok_or_else(|| {
            let message = format!(
                "cluster {:?} is paused, and was not resumed within pool.query_wait_timeout ({})",
                self.cluster.config.name,
                show_duration(limit)
            );
            Error::new(Fault::Limit, sqlstate::CANNOT_CONNECT_NOW, message).hint(
                "RESUME in the admin console lets statements for the primary go on; reads on replicas go on anyway.",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn those_who_wait_go_on_in_their_order_when_who_closed_it_opens_it() {
        let gate = Arc::new(Gate::default());
        gate.pass().await;
        assert!(!gate.open(Closure::Pause));
        gate.close(Closure::Pause).unwrap();
        assert_eq!(gate.close(Closure::Switchover), Err(Closure::Pause));
        assert!(gate.is_closed());
        let passed = Arc::new(Mutex::new(Vec::new()));
        let sessions: Vec<_> = (0..20)
            .map(|id| {
                let (gate, passed) = (Arc::clone(&gate), Arc::clone(&passed));
                tokio::spawn(async move {
                    gate.pass().await;
                    passed.lock().push(id);
                })
            })
            .collect();
        while gate.waiting() < sessions.len() {
            tokio::task::yield_now().await;
        }
        sessions[3].abort();
        while gate.waiting() == sessions.len() {
            tokio::task::yield_now().await;
        }
        assert!(!gate.open(Closure::Switchover) && passed.lock().is_empty());
        assert!(gate.open(Closure::Pause) && !gate.is_closed());
        for session in sessions {
            // One was aborted.
            let _ = session.await;
        }
        assert_eq!(*passed.lock(), (0..20).filter(|id| *id != 3).collect::<Vec<_>>());
    }
}
