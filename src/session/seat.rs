//! A session as its worker sees it: what it does, since when, and whether that has taken too long.
//!
//! Sessions note what they do as it changes; the worker looks at all of them once a tick, and counts time from the first
//! tick that sees it. So a query costs some stores and neither a timer nor a look at the clock, and nothing is ended
//! before its time, nor more than two ticks after it.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::cancel::CancelSlot;
use super::worker::Worker;
use crate::backend::cancel::CancelTarget;
use crate::config::Timeouts;
use crate::error::{Error, Fault, sqlstate};

/// What a session does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// It waits for its client, outside of a transaction.
    Idle,
    /// The same in a transaction, or in a pipeline that no Sync has ended.
    IdleInTransaction,
    /// It serves a batch.
    Running,
}

/// When something began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    /// After the last tick.
    LastTick,
    Tick(Instant),
}

/// Why a session must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    Shutdown,
    ClientIdle,
    IdleTransaction,
    Transaction,
    /// A batch took too long, and could not be cancelled.
    Query,
}

/// What is asked of a session that has taken too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// To stop what it runs, and go on.
    Stop,
    Leave(Leave),
}

/// How long a batch that was cancelled may take to come to its end. PostgreSQL looks for cancel requests all the time;
/// a client that does not take its answer never lets it end.
const STOP_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Seat {
    waker: Waker,
    timeouts: Arc<Timeouts>,
    /// `None` for what cannot be cancelled in the middle.
    slot: Option<Arc<CancelSlot>>,
    doing: Cell<Doing>,
    since: Cell<Since>,
    /// Of the first batch of the transaction, or the last batch outside of one.
    transaction_since: Cell<Since>,
    leave: Cell<Option<Leave>>,
    /// The batch was cancelled for its length.
    stopped: Cell<bool>,
}

impl Seat {
    pub fn new(waker: Waker, timeouts: Arc<Timeouts>, slot: Option<Arc<CancelSlot>>) -> Self {
        Self {
            waker,
            timeouts,
            slot,
            doing: Cell::new(Doing::Running),
            since: Cell::new(Since::LastTick),
            transaction_since: Cell::new(Since::LastTick),
            leave: Cell::new(None),
            stopped: Cell::new(false),
        }
    }

    pub fn wake(&self) {
        self.waker.wake_by_ref();
    }

    /// It has to go when it is idle.
    pub fn dismiss(&self) {
        if self.doing.get() == Doing::Idle {
            self.leave.set(Some(Leave::Shutdown));
            self.wake();
        }
    }

    /// Looks for what has taken too long; gives the server that must be cancelled for that.
    pub fn tick(&self, now: Instant) -> Option<Arc<CancelTarget>> {
        let (age, transaction_age) = (age(&self.since, now), age(&self.transaction_since, now));
        match judge(self.doing.get(), age, transaction_age, self.stopped.get(), &self.timeouts)? {
            Ask::Leave(leave) => {
                // One that is shutting down keeps its reason.
                self.leave.set(self.leave.get().or(Some(leave)));
                self.wake();
                None
            }
            Ask::Stop => {
                self.stopped.set(true);
                self.wake();
                self.slot.as_ref()?.take_aim()
            }
        }
    }

    fn begin(&self, doing: Doing) {
        self.doing.set(doing);
        self.since.set(Since::LastTick);
        // What was asked of it before is over: it has gone on since.
        self.leave.set(None);
    }

    /// Why the session must end in the middle of what it does.
    pub fn must_end(&self) -> Option<Leave> {
        self.leave.get().filter(|_| self.doing.get() == Doing::Running)
    }

    /// What the client reads instead of "due to user request", if the batch was cancelled because it took too long.
    pub fn overdue(&self) -> Option<Error> {
        self.stopped.get().then(|| {
            let message =
                format!("canceling statement: it took longer than query_timeout ({})", self.limit(Leave::Query));
            Error::new(Fault::Limit, sqlstate::QUERY_CANCELED, message)
        })
    }

    fn limit(&self, leave: Leave) -> humantime::FormattedDuration {
        humantime::format_duration(match leave {
            Leave::Shutdown => Duration::ZERO,
            Leave::ClientIdle => self.timeouts.client_idle,
            Leave::IdleTransaction => self.timeouts.idle_transaction,
            Leave::Transaction => self.timeouts.transaction,
            Leave::Query => self.timeouts.query,
        })
    }

    /// What the client is told in parting.
    pub fn farewell(&self, leave: Leave) -> Error {
        let limit = self.limit(leave);
        let (sqlstate, reason) = match leave {
            Leave::Shutdown => (sqlstate::ADMIN_SHUTDOWN, "Causeway is shutting down".to_owned()),
            Leave::ClientIdle => {
                (sqlstate::IDLE_SESSION_TIMEOUT, format!("idle for longer than client_idle_timeout ({limit})"))
            }
            Leave::IdleTransaction => (
                sqlstate::IDLE_IN_TRANSACTION_TIMEOUT,
                format!("idle in a transaction for longer than idle_transaction_timeout ({limit})"),
            ),
            Leave::Transaction => {
                (sqlstate::TRANSACTION_TIMEOUT, format!("a transaction took longer than transaction_timeout ({limit})"))
            }
            Leave::Query => (
                sqlstate::QUERY_CANCELED,
                format!("a statement took longer than query_timeout ({limit}) and did not end when it was cancelled"),
            ),
        };
        Error::new(Fault::Limit, sqlstate, format!("terminating connection: {reason}"))
    }
}

/// How long ago it began, as far as ticks can tell.
fn age(since: &Cell<Since>, now: Instant) -> Duration {
    match since.get() {
        Since::LastTick => {
            since.set(Since::Tick(now));
            Duration::ZERO
        }
        Since::Tick(since) => now.saturating_duration_since(since),
    }
}

/// What must be asked of a session that has been doing this for `age`.
fn judge(doing: Doing, age: Duration, transaction_age: Duration, stopped: bool, limits: &Timeouts) -> Option<Ask> {
    let over = |age: Duration, limit: Duration| !limit.is_zero() && age >= limit;
    match doing {
        Doing::Idle => over(age, limits.client_idle).then_some(Ask::Leave(Leave::ClientIdle)),
        Doing::IdleInTransaction if over(age, limits.idle_transaction) => Some(Ask::Leave(Leave::IdleTransaction)),
        Doing::IdleInTransaction | Doing::Running if over(transaction_age, limits.transaction) => {
            Some(Ask::Leave(Leave::Transaction))
        }
        Doing::Running if over(age, limits.query) && !stopped => Some(Ask::Stop),
        Doing::Running if over(age, limits.query) && age >= limits.query + STOP_LIMIT => Some(Ask::Leave(Leave::Query)),
        Doing::IdleInTransaction | Doing::Running => None,
    }
}

/// A session's seat for as long as it lives.
#[derive(Debug)]
pub struct SeatGuard {
    worker: Rc<Worker>,
    seat: Rc<Seat>,
}

impl SeatGuard {
    pub fn new(worker: Rc<Worker>, seat: Rc<Seat>) -> Self {
        Self { worker, seat }
    }

    pub fn seat(&self) -> &Rc<Seat> {
        &self.seat
    }

    /// The session waits for its client, who may take its time only once for a batch: what comes of it piece by piece
    /// changes nothing. Whoever waits must look at [`Self::must_leave`].
    pub fn waits(&self, in_transaction: bool) {
        let doing = if in_transaction { Doing::IdleInTransaction } else { Doing::Idle };
        if self.seat.doing.get() == doing {
            return;
        }
        self.seat.begin(doing);
        if doing == Doing::Idle && self.worker.is_draining() {
            self.seat.leave.set(Some(Leave::Shutdown));
        }
    }

    /// A batch has come.
    pub fn runs(&self, in_transaction: bool) {
        self.seat.begin(Doing::Running);
        self.seat.stopped.set(false);
        if !in_transaction {
            self.seat.transaction_since.set(Since::LastTick);
        }
    }

    /// Why a session that waits for its client must end.
    pub fn must_leave(&self) -> Option<Leave> {
        self.seat.leave.get()
    }
}

impl Drop for SeatGuard {
    fn drop(&mut self) {
        self.worker.leave(&self.seat);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Timeouts = Timeouts {
        query: Duration::from_secs(10),
        idle_transaction: Duration::from_secs(20),
        transaction: Duration::from_secs(40),
        client_idle: Duration::from_secs(30),
    };

    #[test]
    fn what_takes_too_long_is_told_so() {
        let s = Duration::from_secs;
        for (doing, age, transaction_age, stopped, want) in [
            (Doing::Idle, 29, 99, false, None),
            (Doing::Idle, 30, 99, false, Some(Ask::Leave(Leave::ClientIdle))),
            (Doing::IdleInTransaction, 19, 39, false, None),
            (Doing::IdleInTransaction, 20, 39, false, Some(Ask::Leave(Leave::IdleTransaction))),
            (Doing::IdleInTransaction, 19, 40, false, Some(Ask::Leave(Leave::Transaction))),
            (Doing::Running, 9, 39, false, None),
            (Doing::Running, 10, 39, false, Some(Ask::Stop)),
            (Doing::Running, 10, 39, true, None),
            (Doing::Running, 14, 39, true, None),
            (Doing::Running, 15, 39, true, Some(Ask::Leave(Leave::Query))),
            (Doing::Running, 1, 40, false, Some(Ask::Leave(Leave::Transaction))),
        ] {
            let got = judge(doing, s(age), s(transaction_age), stopped, &LIMITS);
            assert_eq!(got, want, "{doing:?} for {age} s, in a transaction for {transaction_age} s");
            assert_eq!(judge(doing, s(age), s(transaction_age), stopped, &Timeouts::default()), None, "without limits");
        }
    }
}
