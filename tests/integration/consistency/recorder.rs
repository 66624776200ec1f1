//! What the sessions of a run share: a clock, numbers, tokens, and what went wrong.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use causeway::types::Level;
use parking_lot::Mutex;
use tokio_postgres::Error;

use super::history::{Nanos, Op, Read, Token, What, WriteId};
use super::session::Profile;

/// Tokens that wait for somebody to take them.
const MAILBOX: usize = 8;

/// What clients were told, by level: an SQLSTATE, or what the driver says, and how often.
pub type Errors = BTreeMap<(Level, String), usize>;

#[derive(Debug)]
pub struct Recorder {
    began: Instant,
    stop: AtomicBool,
    /// What each session is like.
    sessions: Mutex<Vec<Profile>>,
    writes: AtomicU64,
    snapshots: AtomicU32,
    tokens: AtomicU32,
    /// By level.
    reads: [AtomicU64; Level::ALL.len()],
    mailbox: Mutex<VecDeque<(Token, String)>>,
    errors: Mutex<Errors>,
    ops: Mutex<Vec<Op>>,
}

impl Recorder {
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            stop: AtomicBool::new(false),
            sessions: Mutex::default(),
            // 0 made the registers.
            writes: AtomicU64::new(1),
            snapshots: AtomicU32::new(0),
            tokens: AtomicU32::new(0),
            reads: Default::default(),
            mailbox: Mutex::default(),
            errors: Mutex::default(),
            ops: Mutex::default(),
        }
    }

    pub fn now(&self) -> Nanos {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap()
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    pub fn is_over(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// The number of a new session.
    fn session(&self, profile: Profile) -> u32 {
        let mut sessions = self.sessions.lock();
        sessions.push(profile);
        u32::try_from(sessions.len() - 1).unwrap()
    }

    pub fn write(&self) -> WriteId {
        self.writes.fetch_add(1, Relaxed)
    }

    pub fn snapshot(&self) -> u32 {
        self.snapshots.fetch_add(1, Relaxed)
    }

    /// Keeps a token for others, and gives it a name.
    pub fn give(&self, text: String) -> Token {
        let token = self.tokens.fetch_add(1, Relaxed);
        let mut mailbox = self.mailbox.lock();
        mailbox.push_back((token, text));
        if mailbox.len() > MAILBOX {
            mailbox.pop_front();
        }
        token
    }

    /// The last one that was given.
    pub fn take(&self) -> Option<(Token, String)> {
        self.mailbox.lock().pop_back()
    }

    /// Reads done under a level.
    pub fn reads(&self, level: Level) -> u64 {
        self.reads[level as usize].load(Relaxed)
    }

    pub fn count(&self, read: &Read) {
        self.reads[read.promise.level as usize].fetch_add(1, Relaxed);
    }

    pub fn fail(&self, level: Level, error: &Error) {
        let text = match error.as_db_error() {
            // What follows is a figure.
            Some(error) => {
                let message = error.message().split(" now: ").next().unwrap_or_default();
                format!("{} {message}", error.code().code())
            }
            None => error.to_string(),
        };
        self.complain(level, text);
    }

    pub fn complain(&self, level: Level, text: String) {
        *self.errors.lock().entry((level, text)).or_default() += 1;
    }

    pub fn file(&self, ops: Vec<Op>) {
        self.ops.lock().extend(ops);
    }

    pub fn finish(self) -> (Vec<Op>, Errors, Vec<Profile>) {
        (self.ops.into_inner(), self.errors.into_inner(), self.sessions.into_inner())
    }
}

/// The operations of one session, in its order.
#[derive(Debug)]
pub struct Journal<'a> {
    recorder: &'a Recorder,
    session: u32,
    ops: Vec<Op>,
}

impl<'a> Journal<'a> {
    pub fn new(recorder: &'a Recorder, profile: Profile) -> Self {
        Self { recorder, session: recorder.session(profile), ops: Vec::new() }
    }

    /// An operation that has just returned.
    pub fn note(&mut self, invoked: Nanos, what: What) {
        self.record(invoked, self.recorder.now(), what);
    }

    pub fn record(&mut self, invoked: Nanos, returned: Nanos, what: What) {
        if let What::Read(read) = &what {
            self.recorder.count(read);
        }
        self.ops.push(Op { session: self.session, invoked, returned, what });
    }
}

impl Drop for Journal<'_> {
    fn drop(&mut self) {
        self.recorder.file(std::mem::take(&mut self.ops));
    }
}
