//! One session of a run: it says what it wants to see, writes, reads in all the ways that applications do, and hands
//! tokens on.

use std::fmt::Debug;
use std::str::FromStr;
use std::time::Duration;

use causeway::types::Level;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, SimpleQueryMessage, SimpleQueryRow, Statement};

use super::history::{MILLISECOND, Nanos, Node, Promise, Read, Register, Value, What};
use super::recorder::{Journal, Recorder};
use super::writing::UPDATE;
use crate::target::Target;

/// What the sessions under `bounded` ask for.
pub const MAX_STALENESS: Nanos = 500 * MILLISECOND;

/// What a session is like.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    pub level: Level,
    pub way: Way,
    /// Of 100 operations.
    pub writes: u8,
    /// `synchronous_commit = off`.
    pub asynchronous: bool,
    /// Gives and takes tokens.
    pub tokens: bool,
    /// On average, between two operations.
    pub pause: Duration,
    pub registers: Register,
    /// Of replicas, as the proxy is configured.
    pub max_lag: Nanos,
}

/// How it says what it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Startup,
    Set,
    Hint,
}

impl Profile {
    pub fn promise(&self) -> Promise {
        let staleness = match self.level {
            Level::Eventual => Some(self.max_lag),
            Level::Bounded => Some(MAX_STALENESS),
            _ => None,
        };
        Promise { level: self.level, staleness }
    }

    /// Names and values of settings.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![("consistency", self.level.as_str().to_owned())];
        if self.level == Level::Bounded {
            settings.push(("max_staleness", format!("{}ms", MAX_STALENESS / MILLISECOND)));
        }
        settings
    }

    fn options(&self, token: Option<&str>) -> String {
        let mut settings = if self.way == Way::Startup { self.settings() } else { Vec::new() };
        settings.extend(token.map(|token| ("after", token.to_owned())));
        let ours = settings.iter().map(|(name, value)| format!("-c causeway.{name}={value}"));
        let all = ours.chain(self.asynchronous.then(|| "-c synchronous_commit=off".to_owned()));
        all.collect::<Vec<_>>().join(" ")
    }

    /// What goes before a statement.
    fn hint(&self, token: Option<&str>) -> String {
        let mut settings = if self.way == Way::Hint { self.settings() } else { Vec::new() };
        settings.extend(token.map(|token| ("after", token.to_owned())));
        let settings: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if settings.is_empty() { String::new() } else { format!("/* causeway: {} */ ", settings.join(", ")) }
    }
}

/// A function that says where it runs, in a way that does not keep a read on the primary.
pub const WHERE_AM_I: &str = "CREATE FUNCTION node() RETURNS text STABLE LANGUAGE plpgsql AS \
                              $$BEGIN RETURN current_setting('cluster_name'); END$$";

const COLUMNS: &str = "SELECT key, version, writer, node() FROM register WHERE key";

/// How a session reads.
#[derive(Clone, Copy, Debug)]
enum Reading {
    Simple,
    Prepared,
    Unprepared,
    Pipelined,
    ReadOnly,
    RepeatableRead,
}

const READINGS: [Reading; 10] = {
    use Reading::{Pipelined, Prepared, ReadOnly, RepeatableRead, Simple, Unprepared};
    [Simple, Simple, Prepared, Prepared, Prepared, Prepared, Unprepared, Pipelined, ReadOnly, RepeatableRead]
};

/// Why a session ends before the run does.
enum End {
    /// It reconnects, perhaps with a token.
    Leaves,
    Failed(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

pub struct Session<'a> {
    pub(super) recorder: &'a Recorder,
    profile: Profile,
    pub(super) client: Client,
    pub(super) prepared_read: Statement,
    pub(super) prepared_write: Statement,
    pub(super) journal: Journal<'a>,
    pub(super) rng: fastrand::Rng,
}

/// One session after the other until the run is over.
pub async fn sessions(target: &Target, recorder: &Recorder, profile: Profile, mut rng: fastrand::Rng) {
    while !recorder.is_over() {
        let token = if profile.tokens { recorder.take() } else { None };
        let options = profile.options(token.as_ref().map(|(_, text)| text.as_str()));
        let mut journal = Journal::new(recorder, profile);
        if let Some((token, _)) = &token {
            journal.note(recorder.now(), What::Take(*token));
        }
        let session = Session::start(target, recorder, profile, &options, journal, rng.fork()).await;
        let outcome = match session {
            Ok(session) => session.live().await,
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            recorder.fail(profile.level, &error);
            pause(&mut rng, Duration::from_millis(20)).await;
        }
    }
}

async fn pause(rng: &mut fastrand::Rng, mean: Duration) {
    if !mean.is_zero() {
        tokio::time::sleep(mean.mul_f64(rng.f64() * 2.0)).await;
    }
}

impl<'a> Session<'a> {
    async fn start(
        target: &Target,
        recorder: &'a Recorder,
        profile: Profile,
        options: &str,
        journal: Journal<'a>,
        rng: fastrand::Rng,
    ) -> Result<Self> {
        let client = target.try_connect_with(options).await?;
        if profile.way == Way::Set {
            for (name, value) in profile.settings() {
                client.batch_execute(&format!("SET causeway.{name} = '{value}'")).await?;
            }
        }
        let prepared_read = client.prepare(&format!("{}{COLUMNS} = ANY($1)", profile.hint(None))).await?;
        let prepared_write = client.prepare(&format!("{UPDATE} $2 WHERE key = $1 RETURNING version")).await?;
        Ok(Self { recorder, profile, client, prepared_read, prepared_write, journal, rng })
    }

    async fn live(mut self) -> Result<()> {
        // So that it has a position, and has honoured the token that it may have come with.
        let registers = self.some_registers();
        self.read(&registers).await?;
        while !self.recorder.is_over() {
            match self.step().await {
                Ok(()) => {}
                Err(End::Leaves) => return Ok(()),
                // It goes on after an error, as far as that goes.
                Err(End::Failed(error)) if self.client.is_closed() => return Err(error),
                Err(End::Failed(error)) => {
                    self.recorder.fail(self.profile.level, &error);
                    self.client.batch_execute("ROLLBACK").await?;
                }
            }
            pause(&mut self.rng, self.profile.pause).await;
        }
        Ok(())
    }

    async fn step(&mut self) -> Result<(), End> {
        if self.rng.u8(..100) < self.profile.writes {
            let registers = self.some_registers();
            self.write(&registers).await?;
            // What it has just written is what an application looks at.
            if self.rng.u8(..4) > 0 {
                self.read(&registers).await?;
            }
            return Ok(());
        }
        let registers = self.some_registers();
        match self.rng.u8(..100) {
            0..6 if self.profile.tokens => Ok(self.give().await?),
            6..10 if self.profile.tokens => self.take(&registers).await,
            10 if self.profile.tokens => Err(End::Leaves),
            _ => Ok(self.read(&registers).await?),
        }
    }

    /// One, two or three different ones, in their order.
    fn some_registers(&mut self) -> Vec<Register> {
        let all = 0..self.profile.registers;
        let mut registers: Vec<Register> = (0..=self.rng.u8(..3)).map(|_| self.rng.u32(all.clone())).collect();
        registers.sort_unstable();
        registers.dedup();
        registers
    }

    // Reading.

    async fn read(&mut self, registers: &[Register]) -> Result<()> {
        let invoked = self.recorder.now();
        let some: Vec<i32> = registers.iter().map(|key| key.cast_signed()).collect();
        match READINGS[self.rng.usize(..READINGS.len())] {
            Reading::Simple => self.read_simply(invoked, None, registers, None).await?,
            Reading::Prepared => {
                let rows = self.client.query(&self.prepared_read, &[&some]).await?;
                self.note_read(invoked, None, some.len(), rows.iter().map(shown).collect());
            }
            Reading::Unprepared => {
                let sql = format!("{}{COLUMNS} = ANY($1)", self.profile.hint(None));
                let rows = self.client.query(&sql, &[&some]).await?;
                self.note_read(invoked, None, some.len(), rows.iter().map(shown).collect());
            }
            Reading::Pipelined => {
                let parameters: [&(dyn ToSql + Sync); 1] = [&some];
                let read = || self.client.query(&self.prepared_read, &parameters);
                let (first, second) = futures_util::future::join(read(), read()).await;
                self.note_read(invoked, None, some.len(), first?.iter().map(shown).collect());
                self.note_read(invoked, None, some.len(), second?.iter().map(shown).collect());
            }
            Reading::ReadOnly => self.read_in_transaction("BEGIN READ ONLY", None, registers).await?,
            Reading::RepeatableRead => {
                let snapshot = Some(self.recorder.snapshot());
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                self.read_in_transaction(begin, snapshot, registers).await?;
            }
        }
        Ok(())
    }

    /// What was asked for, and then what somebody may have changed with it.
    async fn read_in_transaction(&mut self, begin: &str, snapshot: Option<u32>, registers: &[Register]) -> Result<()> {
        let invoked = self.recorder.now();
        self.client.batch_execute(&format!("{}{begin}", self.profile.hint(None))).await?;
        self.read_simply(invoked, snapshot, registers, None).await?;
        let others: Vec<Register> = (0..self.profile.registers).collect();
        self.read_simply(invoked, snapshot, &others, None).await?;
        self.client.batch_execute("COMMIT").await
    }

    async fn read_simply(
        &mut self,
        invoked: Nanos,
        snapshot: Option<u32>,
        registers: &[Register],
        token: Option<&str>,
    ) -> Result<()> {
        let keys: Vec<String> = registers.iter().map(ToString::to_string).collect();
        let sql = format!("{}{COLUMNS} IN ({})", self.profile.hint(token), keys.join(", "));
        let answer = self.client.simple_query(&sql).await?;
        self.note_read(invoked, snapshot, registers.len(), rows(&answer).map(shown_simply).collect());
        Ok(())
    }

    /// A read of so many registers.
    pub(super) fn note_read(
        &mut self,
        invoked: Nanos,
        snapshot: Option<u32>,
        wanted: usize,
        shown: Vec<(Value, Node)>,
    ) {
        let promise = self.profile.promise();
        let Some(&(_, node)) = shown.first().filter(|_| shown.len() == wanted) else {
            let text = format!("{} rows, where there are {wanted}", shown.len());
            return self.recorder.complain(promise.level, text);
        };
        let values = shown.into_iter().map(|(value, _)| value).collect();
        self.journal.note(invoked, What::Read(Read { promise, node, snapshot, values }));
    }

    // Tokens.

    async fn give(&mut self) -> Result<()> {
        let invoked = self.recorder.now();
        let answer = self.client.simple_query("SHOW causeway.position").await?;
        let text = rows(&answer).next().and_then(|row| row.get(0)).unwrap_or_default().to_owned();
        if text.is_empty() {
            // It is asked of sessions that have written or read.
            self.recorder.complain(self.profile.level, "a session without a position".to_owned());
        } else {
            let token = self.recorder.give(text);
            self.journal.note(invoked, What::Give(token));
        }
        Ok(())
    }

    /// A read under a token that comes as a setting or as a hint.
    async fn take(&mut self, registers: &[Register]) -> Result<(), End> {
        let Some((token, text)) = self.recorder.take() else { return Ok(()) };
        let hinted = self.rng.bool();
        if !hinted {
            self.client.batch_execute(&format!("SET causeway.after = '{text}'")).await?;
        }
        let invoked = self.recorder.now();
        self.journal.note(invoked, What::Take(token));
        let read = self.read_simply(invoked, None, registers, hinted.then_some(&text)).await;
        // The next token would take the place of one that nothing was read under.
        read.map_err(|error| {
            self.recorder.fail(self.profile.level, &error);
            End::Leaves
        })
    }
}

pub fn rows(answer: &[SimpleQueryMessage]) -> impl Iterator<Item = &SimpleQueryRow> {
    answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })
}

pub fn shown(row: &Row) -> (Value, Node) {
    let [version, write] = [1, 2].map(|column| row.get::<_, i64>(column).cast_unsigned());
    let node = Node::named(row.get(3)).expect("a node of the cluster");
    (Value { register: row.get::<_, i32>(0).cast_unsigned(), version, write }, node)
}

fn shown_simply(row: &SimpleQueryRow) -> (Value, Node) {
    let node = Node::named(row.get(3).unwrap_or_default()).expect("a node of the cluster");
    (Value { register: number(row, 0), version: number(row, 1), write: number(row, 2) }, node)
}

pub fn number<T: FromStr<Err: Debug>>(row: &SimpleQueryRow, column: usize) -> T {
    row.get(column).expect("no null").parse().expect("a number")
}
