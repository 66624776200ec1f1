//! All the ways in which a session writes registers.

use bytes::Bytes;
use futures_util::SinkExt;
use futures_util::future::join;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, ToStatement};

use super::history::{Nanos, Outcome, Register, Version, What, Write, WriteId};
use super::session::{Result, Session, number, rows, shown};

/// The registers' table, and what writes to it in ways that a text does not show.
pub fn schema(registers: Register) -> String {
    format!(
        "CREATE TABLE register (key int PRIMARY KEY, version bigint NOT NULL, writer bigint NOT NULL) \
             WITH (fillfactor = 50); \
         INSERT INTO register SELECT key, 0, 0 FROM generate_series(0, {last}) key; \
         CREATE FUNCTION bump(int, bigint) RETURNS bigint LANGUAGE sql AS \
             'UPDATE register SET version = version + 1, writer = $2 WHERE key = $1 RETURNING version'; \
         CREATE PROCEDURE bump_all(registers int[], id bigint) LANGUAGE plpgsql AS \
             $$BEGIN FOR i IN 1..cardinality(registers) LOOP PERFORM bump(registers[i], id); END LOOP; END$$; \
         CREATE TABLE inbox (key int, writer bigint); \
         CREATE FUNCTION deliver() RETURNS trigger LANGUAGE plpgsql AS \
             $$BEGIN PERFORM bump(NEW.key, NEW.writer); RETURN NULL; END$$; \
         CREATE TRIGGER deliver BEFORE INSERT ON inbox FOR EACH ROW EXECUTE FUNCTION deliver(); \
         ALTER TABLE register OWNER TO app; \
         ALTER TABLE inbox OWNER TO app",
        last = registers - 1
    )
}

pub const UPDATE: &str = "UPDATE register SET version = version + 1, writer =";

#[derive(Clone, Copy, Debug)]
enum Writing {
    Simple,
    Prepared,
    Unprepared,
    Function,
    InWith,
    SeveralStatements,
    Do,
    Call,
    Copy,
    /// The read is sent before the write is answered.
    AheadOfRead,
    InSteps(Ending),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Commit,
    CommitAndChain,
    CommitPrepared,
    Rollback,
}

const WRITINGS: [Writing; 14] = {
    use Ending::{Commit, CommitAndChain, CommitPrepared, Rollback};
    use Writing::{
        AheadOfRead, Call, Copy, Do, Function, InSteps, InWith, Prepared, SeveralStatements, Simple, Unprepared,
    };
    [
        Simple,
        Prepared,
        Unprepared,
        Function,
        InWith,
        SeveralStatements,
        Do,
        Call,
        Copy,
        AheadOfRead,
        InSteps(Commit),
        InSteps(CommitAndChain),
        InSteps(CommitPrepared),
        InSteps(Rollback),
    ]
};

/// What one transaction writes, and what it was told.
type Written = Vec<(Register, Option<Version>)>;

impl Session<'_> {
    /// Writes some or all of `registers`.
    pub(super) async fn write(&mut self, registers: &[Register]) -> Result<()> {
        let kind = WRITINGS[self.rng.usize(..WRITINGS.len())];
        let id = self.recorder.write();
        let several = matches!(kind, Writing::Do | Writing::Call | Writing::Copy | Writing::InSteps(_));
        let registers = if several { registers } else { &registers[..1] };
        let mut written: Written = registers.iter().map(|key| (*key, None)).collect();
        if let Writing::InSteps(ending) = kind {
            return self.write_in_steps(ending, id, written).await;
        }
        let sent = self.recorder.now();
        if matches!(kind, Writing::AheadOfRead) {
            return self.write_ahead_of_read(id, registers[0]).await;
        }
        let outcome = self.write_at_once(kind, id, registers).await;
        if let Ok(version) = outcome {
            written[0].1 = version;
        }
        self.note_write(sent, id, outcome.as_ref().err(), written);
        outcome.map(drop)
    }

    /// An autocommit write, or the end of a transaction, that was sent then.
    fn note_write(&mut self, sent: Nanos, id: WriteId, error: Option<&Error>, registers: Written) {
        let outcome = match error {
            None => Outcome::Committed,
            Some(error) if is_refusal(error) => Outcome::RolledBack,
            Some(_) => Outcome::Unknown,
        };
        self.journal.note(sent, What::Write(Write { id, outcome, registers }));
    }

    async fn write_in_steps(&mut self, ending: Ending, id: WriteId, mut written: Written) -> Result<()> {
        let began = self.recorder.now();
        let prepared = self.prepare_to_end(ending, id, &mut written).await;
        if prepared.is_err() || ending == Ending::Rollback {
            // What commits it was never sent.
            self.journal.note(began, What::Write(Write { id, outcome: Outcome::RolledBack, registers: written }));
            prepared?;
            return self.client.batch_execute("ROLLBACK").await;
        }
        let sent = self.recorder.now();
        let end = match ending {
            Ending::CommitAndChain => "COMMIT AND CHAIN",
            Ending::CommitPrepared => &format!("COMMIT PREPARED 'write {id}'"),
            Ending::Commit | Ending::Rollback => "COMMIT",
        };
        let outcome = self.client.batch_execute(end).await;
        self.note_write(sent, id, outcome.as_ref().err(), written);
        outcome?;
        if ending == Ending::CommitAndChain { self.client.batch_execute("ROLLBACK").await } else { Ok(()) }
    }

    async fn prepare_to_end(&self, ending: Ending, id: WriteId, written: &mut Written) -> Result<()> {
        self.client.batch_execute("BEGIN").await?;
        for (register, version) in written {
            *version = self.bump(&self.prepared_write, *register, id).await?;
        }
        match ending {
            Ending::CommitPrepared => self.client.batch_execute(&format!("PREPARE TRANSACTION 'write {id}'")).await,
            _ => Ok(()),
        }
    }

    /// The read runs after the write, in the same session.
    async fn write_ahead_of_read(&mut self, id: WriteId, register: Register) -> Result<()> {
        let sent = self.recorder.now();
        let some = vec![register.cast_signed()];
        let parameters: [&(dyn ToSql + Sync); 1] = [&some];
        let write = self.bump(&self.prepared_write, register, id);
        let read = self.client.query(&self.prepared_read, &parameters);
        let (write, read) = join(write, read).await;
        let version = write.as_ref().ok().copied().flatten();
        self.note_write(sent, id, write.as_ref().err(), vec![(register, version)]);
        self.note_read(sent, None, 1, read?.iter().map(shown).collect());
        write.map(drop)
    }

    async fn bump<T: ToStatement + ?Sized>(
        &self,
        statement: &T,
        register: Register,
        id: WriteId,
    ) -> Result<Option<Version>> {
        let row = self.client.query_one(statement, &[&register.cast_signed(), &id.cast_signed()]).await?;
        Ok(Some(version(&row)))
    }

    /// The version of the first register, where the statement tells it.
    async fn write_at_once(&self, kind: Writing, id: WriteId, registers: &[Register]) -> Result<Option<Version>> {
        let (client, first) = (&self.client, registers[0]);
        let update = format!("{UPDATE} {id} WHERE key = {first} RETURNING version");
        match kind {
            Writing::Prepared | Writing::AheadOfRead => self.bump(&self.prepared_write, first, id).await,
            Writing::Unprepared => self.bump("SELECT bump($1, $2)", first, id).await,
            Writing::Function => first_version(client, &format!("SELECT bump({first}, {id})")).await,
            Writing::InWith => {
                first_version(client, &format!("WITH bumped AS ({update}) SELECT version FROM bumped")).await
            }
            Writing::SeveralStatements => first_version(client, &format!("{update}; SELECT 1")).await,
            Writing::Do => {
                let bumps = registers.iter().map(|key| format!("PERFORM bump({key}, {id});"));
                let bumps = bumps.collect::<Vec<_>>().join(" ");
                client.batch_execute(&format!("DO $$BEGIN {bumps} END$$")).await.map(|()| None)
            }
            Writing::Call => {
                client.batch_execute(&format!("CALL bump_all(ARRAY{registers:?}, {id})")).await.map(|()| None)
            }
            Writing::Copy => {
                let lines: String = registers.iter().map(|key| format!("{key}\t{id}\n")).collect::<Vec<_>>().concat();
                let mut sink = Box::pin(client.copy_in("COPY inbox FROM STDIN").await?);
                sink.send(Bytes::from(lines)).await?;
                sink.as_mut().finish().await.map(|_| None)
            }
            Writing::Simple | Writing::InSteps(_) => first_version(client, &update).await,
        }
    }
}

/// Whether nothing has happened: the server says so, and its session goes on.
fn is_refusal(error: &Error) -> bool {
    let lost = |code: &SqlState| code.code().starts_with("08") || code.code().starts_with("57P");
    error.code().is_some_and(|code| !lost(code))
}

async fn first_version(client: &Client, sql: &str) -> Result<Option<Version>> {
    let answer = client.simple_query(sql).await?;
    Ok(rows(&answer).next().map(|row| number(row, 0)))
}

fn version(row: &Row) -> Version {
    row.get::<_, i64>(0).cast_unsigned()
}
