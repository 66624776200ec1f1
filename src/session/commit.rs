//! What writes tells its transaction's id on its way to the commit, so that the commit's fate can be found out if its
//! answer is lost with the server.
//!
//! The question goes out with the batch, in the same packets. In front of a COMMIT it ends with a Sync of its own. Outside
//! a transaction block it runs in the statement's own implicit transaction: behind the statement, with a Flush that makes
//! the server say all this before it commits at the Sync. A Query is sent as extended messages for that, which mean the
//! same for one INSERT, UPDATE, DELETE or MERGE without parameters.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::Session;
use super::batch::End;
use super::lead::Task;
use super::ledger::Owed;
use super::translate::Translator;
use crate::error::Result;
use crate::sql::{Class, Sole};
use crate::types::{Lsn, PoolMode};
use crate::wire::backend::{TransactionStatus, data_row};
use crate::wire::frame::HEADER_BYTES;
use crate::wire::frontend::{Bind, FLUSH, Parse, SYNC, Target, put_execute, query, tag};

/// Where a batch asks for its transaction's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Nowhere,
    BeforeCommit,
    BeforeSync,
    /// The same, in a Query that is sent as extended messages.
    InQuery,
}

/// What the server answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// `None`: nothing was written that a commit would keep.
    pub id: Option<u64>,
    pub lsn: Lsn,
    pub at: Instant,
}

impl Told {
    /// From the `DataRow` that answers the question.
    pub fn read(body: &[u8]) -> Option<Self> {
        let row = data_row(body)?;
        let [id, Some(lsn)] = row.as_slice() else { return None };
        let text = |bytes| std::str::from_utf8(bytes).ok();
        let id = match id {
            Some(id) => Some(text(id)?.parse().ok()?),
            None => None,
        };
        Some(Self { id, lsn: text(lsn)?.parse().ok()?, at: Instant::now() })
    }
}

/// A portal of ours, beside whichever the client has.
const PORTAL: &[u8] = b"causeway_xact";

impl Session {
    pub(super) fn commit_question(&self, task: &Task) -> Question {
        let Some(held) = &self.held else { return Question::Nowhere };
        let survey = &task.survey;
        let is_usual = !held.on_replica && !self.pipeline_open && !self.ledger.is_skipping();
        if survey.class == Class::Read && survey.sole != Some(Sole::Commit)
            || !is_usual
            || self.mode == PoolMode::Session
            || !self.worker.shared.config.routing.resolve_commits
        {
            return Question::Nowhere;
        }
        match (held.lease.status, survey.sole, task.end) {
            (TransactionStatus::InTransaction, Some(Sole::Commit), _) if held.wrote => Question::BeforeCommit,
            (TransactionStatus::Idle, _, End::Sync) if survey.only_dml => Question::BeforeSync,
            (TransactionStatus::Idle, Some(Sole::Dml), End::Query) if survey.in_sql.is_none() => {
                let text = self.client.input.get(HEADER_BYTES..task.bytes).unwrap_or_default();
                // A Query has no parameters, which its error says in other words.
                if memchr::memchr(b'$', text).is_none() { Question::InQuery } else { Question::Nowhere }
            }
            _ => Question::Nowhere,
        }
    }
}

impl Translator<'_> {
    /// In front of a COMMIT.
    pub fn ask_before_commit(&mut self) {
        self.ask_for_xact();
        self.out.stage(self.input).extend_from_slice(SYNC);
        self.ledger.push(Owed::XactReady);
    }

    /// Behind what runs in an implicit transaction, in front of its Sync.
    pub fn ask_before_sync(&mut self) {
        self.ask_for_xact();
        self.out.stage(self.input).extend_from_slice(FLUSH);
    }

    /// One Query, as extended messages.
    ///
    /// # Errors
    /// It is malformed.
    pub fn wrapped_query(&mut self, range: Range<usize>) -> Result<()> {
        self.statements.forget_unnamed();
        *self.unnamed_here = false;
        let text = query(self.input.get(range.start + HEADER_BYTES..range.end).unwrap_or_default())?;
        let staged = self.out.stage(self.input);
        Parse { name: b"", text, types: &[0, 0] }.write(staged);
        Bind { portal: b"", statement: b"", rest: &[0; 6] }.write(staged);
        Target::Portal(b"").write(tag::DESCRIBE, staged);
        put_execute(staged, b"");
        self.ledger.push(Owed::Wrapped);
        self.ask_before_sync();
        self.out.stage(self.input).extend_from_slice(SYNC);
        self.ledger.push(Owed::Ready);
        Ok(())
    }

    fn ask_for_xact(&mut self) {
        let statement = Arc::clone(&self.interner.xact);
        if !self.prepared.touch(&statement) {
            self.prepare(&statement);
            let statement = Some(Arc::clone(&statement));
            self.ledger.push(Owed::Parse { visible: false, statement, undo: None });
        }
        let staged = self.out.stage(self.input);
        Bind { portal: PORTAL, statement: statement.name(), rest: &[0; 6] }.write(staged);
        put_execute(staged, PORTAL);
        self.ledger.push(Owed::Xact);
    }
}
