//! A client that survives whatever happens to its connection, and writes down what it was told.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway::wire::frame;

use crate::frames::{SYNC, bind, execute, parse, query};
use crate::raw::{Message, field};
use crate::speech::value;

use super::errors::{GONE, Role, leaves_in_doubt};
use super::ledger::{DATABASE, Fate, Ledger, TOTAL};

/// Who has got no answer for so long hangs.
const HANG: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// A SQLSTATE; the session may have ended with it.
    Failed(String),
    Gone,
}

impl Outcome {
    /// Of a write that commits with its answer.
    fn fate(&self) -> Fate {
        match self {
            Self::Done => Fate::Acknowledged,
            Self::Failed(code) if !leaves_in_doubt(code) => Fate::Denied,
            Self::Failed(_) | Self::Gone => Fate::Unknown,
        }
    }
}

/// Where a login leads to, and what is written down.
#[derive(Clone)]
pub struct Door {
    pub port: u16,
    pub ledger: Arc<Ledger>,
}

pub struct Session {
    name: String,
    role: Role,
    stream: Option<TcpStream>,
    ledger: Arc<Ledger>,
    writes: u32,
    has_prepared: bool,
    /// When what was answered last was asked.
    asked: Instant,
}

impl Session {
    /// Logs in without a password, and sets what tells it from others. `None`: it could not, as the ledger knows.
    pub fn open(door: &Door, user: &str, name: &str, role: Role) -> Option<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, door.port)).ok();
        let (name, ledger) = (name.to_owned(), Arc::clone(&door.ledger));
        let mut session = Self { name, role, stream, ledger, writes: 0, has_prepared: false, asked: Instant::now() };
        if let Some(stream) = &session.stream {
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(HANG)).unwrap();
        }
        let mut body = vec![0, 3, 0, 0];
        for text in ["user", user, "database", DATABASE, "application_name", &session.name, ""] {
            body.extend_from_slice(&[text.as_bytes(), b"\0"].concat());
        }
        let length = u32::try_from(body.len() + 4).unwrap();
        let (_, outcome) = session.ask(&[&length.to_be_bytes(), &body[..]].concat());
        let marked = outcome == Outcome::Done && session.run(&format!("SET chaos.me = '{}'", session.name)).is_some();
        marked.then_some(session)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn is_gone(&self) -> bool {
        self.stream.is_none()
    }

    /// What sets a write of this session apart from all others.
    pub fn new_id(&mut self) -> String {
        self.writes += 1;
        format!("{} {}", self.name, self.writes)
    }

    pub fn new_ids<const N: usize>(&mut self) -> [String; N] {
        std::array::from_fn(|_| self.new_id())
    }

    pub fn send(&mut self, bytes: &[u8]) {
        // Whether it arrived is seen when the answer is read.
        if let Some(stream) = &mut self.stream {
            let _ = stream.write_all(bytes);
        }
    }

    /// Up to ReadyForQuery, or to the end.
    pub fn answer(&mut self) -> (Vec<Message>, Outcome) {
        self.asked = Instant::now();
        let mut messages = Vec::new();
        let mut failed: Option<(String, String)> = None;
        let outcome = loop {
            match self.read() {
                Some((b'Z', body)) => {
                    messages.push(('Z', body));
                    break failed.map_or(Outcome::Done, |(code, text)| self.failed(code, &text, ""));
                }
                Some((tag, body)) => {
                    if tag == b'E' {
                        failed.get_or_insert_with(|| (field(&body, b'C'), field(&body, b'M')));
                    }
                    messages.push((char::from(tag), body));
                }
                None => {
                    self.stream = None;
                    if let Some((code, text)) = failed {
                        break self.failed(code, &text, " and gone");
                    }
                    self.ledger.failed(self.role, GONE.to_owned(), "the connection ended");
                    break Outcome::Gone;
                }
            }
        };
        self.ledger.waited(self.asked.elapsed());
        (messages, outcome)
    }

    fn failed(&self, code: String, text: &str, end: &str) -> Outcome {
        self.ledger.failed(self.role, format!("{code}{end}"), text);
        Outcome::Failed(code)
    }

    pub fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; frame::HEADER_BYTES];
        self.read_exact(&mut header)?;
        let header = frame::header(&header).ok()??;
        let mut body = vec![0; header.frame_bytes - frame::HEADER_BYTES];
        self.read_exact(&mut body)?;
        Some((header.tag, body))
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Option<()> {
        let error = match self.stream.as_mut()?.read_exact(buffer) {
            Ok(()) => return Some(()),
            Err(error) => error,
        };
        if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) {
            self.ledger.wrong(format!("{} has hung for {HANG:?}", self.name));
        }
        None
    }

    pub fn ask(&mut self, bytes: &[u8]) -> (Vec<Message>, Outcome) {
        if self.is_gone() {
            return (Vec::new(), Outcome::Gone);
        }
        self.send(bytes);
        self.answer()
    }

    /// Runs a statement; gives its first value or else nothing, and `None` where it failed.
    pub fn run(&mut self, sql: &str) -> Option<String> {
        let (messages, outcome) = self.ask(&query(sql));
        (outcome == Outcome::Done).then(|| value(&messages).unwrap_or_default())
    }

    /// A read that any node answers alike.
    pub fn read_total(&mut self) -> Option<()> {
        let total = self.run("SELECT sum(balance) FROM account")?;
        self.check(&total, TOTAL);
        Some(())
    }

    pub fn check(&self, got: &str, want: &str) {
        if got != want {
            self.ledger.wrong(format!("{} got {got:?} instead of {want:?}", self.name));
        }
    }

    /// A write that commits by itself.
    pub fn write(&mut self) -> Option<()> {
        let id = self.new_id();
        let (_, outcome) = self.ask(&query(insert(&id)));
        self.settle(&[id], &outcome);
        (outcome == Outcome::Done).then_some(())
    }

    /// The same by a statement that is prepared once.
    pub fn write_prepared(&mut self) -> Option<()> {
        let id = self.new_id();
        let parse = if self.has_prepared { Vec::new() } else { parse("write", "INSERT INTO journal VALUES ($1)") };
        let run = [bind("", "write", &[id.as_bytes()], 0), execute("", 0), SYNC.to_vec()].concat();
        let (_, outcome) = self.ask(&[parse, run].concat());
        self.has_prepared |= outcome == Outcome::Done;
        self.settle(&[id], &outcome);
        (outcome == Outcome::Done).then_some(())
    }

    /// Writes down what became of writes by the answer to what commits them.
    pub fn settle(&self, ids: &[String], outcome: &Outcome) {
        self.ledger.wrote(ids, outcome.fate(), self.asked);
    }

    /// COMMIT was answered.
    pub fn committed(&mut self, ids: &[String], messages: &[Message], outcome: &Outcome) {
        let is_commit = messages.iter().any(|(tag, body)| *tag == 'C' && body == b"COMMIT\0");
        if *outcome == Outcome::Done && !is_commit {
            self.ledger.wrong(format!("{}: COMMIT was not answered as one, and without an error", self.name));
        }
        self.settle(ids, outcome);
        if *outcome != Outcome::Done {
            self.roll_back();
        }
    }

    /// COMMIT was not sent, and will not be.
    pub fn abandon(&mut self, ids: &[String]) {
        self.ledger.wrote(ids, Fate::Denied, Instant::now());
        self.roll_back();
    }

    fn roll_back(&mut self) {
        if !self.is_gone() {
            self.run("ROLLBACK");
        }
    }

    /// A transaction that writes and moves money from one account to another.
    pub fn transfer(&mut self, from: u32, to: u32) -> Option<()> {
        let ids = [self.new_id()];
        if self.begin_transfer(&ids, from, to).is_none() {
            self.abandon(&ids);
            return None;
        }
        let (messages, outcome) = self.ask(&query("COMMIT"));
        self.committed(&ids, &messages, &outcome);
        (outcome == Outcome::Done).then_some(())
    }

    /// The same up to its COMMIT.
    pub fn begin_transfer(&mut self, ids: &[String], from: u32, to: u32) -> Option<()> {
        self.run("BEGIN")?;
        for id in ids {
            self.run(&insert(id))?;
        }
        for (account, by) in [(from, "- 1"), (to, "+ 1")] {
            self.run(&format!("UPDATE account SET balance = balance {by} WHERE id = {account}"))?;
        }
        Some(())
    }

    /// Whether its settings are still its own.
    pub fn check_identity(&mut self) -> Option<()> {
        let got = self.run("SELECT current_setting('application_name') || '|' || current_setting('chaos.me')")?;
        self.check(&got, &format!("{0}|{0}", self.name));
        Some(())
    }
}

pub fn insert(id: &str) -> String {
    format!("INSERT INTO journal VALUES ('{id}')")
}
