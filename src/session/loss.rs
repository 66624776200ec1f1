//! A server is lost in the middle of a batch: what becomes of the batch, and of its session.
//!
//! A transaction that was not committed is lost, and the session goes on when its client has ended it. What may have
//! been committed is looked up. Only a session that had more than a transaction on the server ends with it.

use std::future::poll_fn;
use std::time::Instant;

use bytes::{Buf, BytesMut};

use super::batch::End;
use super::commit::Told;
use super::lead::Task;
use super::lost::{Lost, transaction_lost};
use super::watch::Watch;
use super::{Ended, Session};
use crate::error::{Error, Fault, sqlstate};
use crate::metrics::Origin;
use crate::pool::Close;
use crate::sql::{Class, Effects, Sole};
use crate::topology::{Fate, Xact};
use crate::types::{NodeId, PoolMode, Position};
use crate::wire::backend::{Severity, TransactionStatus, put_error, put_ready};

/// How the session stood when it sent the batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Began {
    pub(super) status: TransactionStatus,
    /// Earlier messages of the same pipeline have been run.
    pub(super) in_pipeline: bool,
    /// On a replica nothing can have been written.
    pub(super) on_replica: bool,
    /// Of the accepted history.
    pub(super) timeline: u32,
}

/// What is sure of a batch whose server was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// It ran in a transaction block, and nothing of that is committed.
    Transaction,
    /// It did nothing that lasts.
    Statement,
    /// It would have ended the transaction, of which nothing was to stay, as its loss has done.
    End,
    /// It may have been committed.
    Commit,
}

impl Loss {
    fn of(task: &Task, began: Began, watch: &Watch) -> Self {
        let survey = &task.survey;
        let in_block = began.status != TransactionStatus::Idle;
        // Before a Sync, and before the client has ended what it copies in, no server commits.
        let is_whole = matches!(task.end, End::Query | End::FunctionCall | End::Sync) && !watch.is_open();
        match survey.sole {
            Some(Sole::Rollback) if in_block => Self::End,
            Some(Sole::Savepoint) if in_block => Self::Transaction,
            Some(Sole::Commit) if began.on_replica => Self::End,
            Some(Sole::Commit) if began.status == TransactionStatus::InTransaction => Self::Commit,
            _ if in_block && (!survey.transaction_control || began.on_replica) => Self::Transaction,
            _ if in_block => Self::Commit,
            _ if !is_whole => Self::Statement,
            _ if survey.class == Class::Read && !began.in_pipeline => Self::Statement,
            _ => Self::Commit,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Transaction => "transaction_lost",
            Self::Statement => "statement_lost",
            Self::End => "transaction_ended",
            Self::Commit => "commit_in_doubt",
        }
    }
}

impl Session {
    /// How it stands as it sends a batch.
    pub(super) fn begins_batch(&self) -> Began {
        Began {
            status: self.status(),
            in_pipeline: self.pipeline_open,
            on_replica: self.held.as_ref().is_some_and(|held| held.on_replica),
            timeline: self.view().epoch.map_or(0, |epoch| epoch.timeline),
        }
    }

    /// The server that ran the batch is gone: closes it, finds out what became of the batch, and tells the client.
    ///
    /// # Errors
    /// The session ends with its server.
    pub(super) async fn survive_loss(
        &mut self,
        task: &Task,
        watch: &mut Watch,
        began: Began,
        error: Error,
    ) -> Result<(), Ended> {
        let Some(mut held) = self.held.take() else { return Err(Ended::Farewell(error)) };
        let cluster = &self.cluster;
        cluster.topology.probe_now(held.node);
        self.registration.slot.is_done();
        let node = held.node;
        let mut input = std::mem::take(&mut held.lease.input);
        held.lease.close(Close::Lost);
        let loss = Loss::of(task, began, watch);
        let can_go_on = self.show_rest(&mut input).await? && task.end != End::Overflow && !watch.dismissed;
        if !self.pins.is_empty() || self.mode == PoolMode::Session || !can_go_on {
            self.worker.shared.metrics.lost_server(&self.cluster.config.name, "session_ended");
            self.ledger.abandon();
            let is_told = watch.error.is_some();
            return Err(if is_told {
                Ended::ByServer
            } else {
                Ended::Farewell(watch.farewell.take().unwrap_or(error))
            });
        }
        self.worker.shared.metrics.lost_server(&self.cluster.config.name, loss.as_str());
        let why = watch.farewell.as_ref().map_or_else(|| error.message().to_owned(), |said| said.message().to_owned());
        match loss {
            Loss::End => {
                let tag = if task.survey.sole == Some(Sole::Commit) { "COMMIT" } else { "ROLLBACK" };
                let answer = self.ledger.answer_as_done(Some(tag), TransactionStatus::Idle);
                self.forget_transaction();
                self.tell(&answer.unwrap_or_default()).await
            }
            Loss::Transaction => {
                self.forget_transaction();
                self.lost = Lost::Told;
                self.tell_loss(task, watch, &transaction_lost(&why)).await
            }
            Loss::Statement => {
                self.forget_transaction();
                let message = "the server was lost while it ran the statement, and nothing of it was committed";
                let error = Error::new(Fault::Node, sqlstate::SERIALIZATION_FAILURE, message).detail(why);
                self.tell_loss(task, watch, &error.hint("Run it again.")).await
            }
            Loss::Commit => Box::pin(self.settle_doubt(task, watch, began, node, &why)).await,
        }
    }

    /// The client gets what has come for it. False: nothing of ours can follow, because a message was cut.
    async fn show_rest(&mut self, input: &mut BytesMut) -> Result<bool, Ended> {
        let (relay, stream) = (&mut self.relay, &mut self.client.stream);
        poll_fn(|cx| relay.poll_show(stream, input, cx)).await.map_err(|_| Ended::ByClient)?;
        let is_whole = !self.relay.is_cut();
        self.relay.discard(input);
        Ok(is_whole)
    }

    /// Finds out whether what the server did was committed.
    async fn settle_doubt(
        &mut self,
        task: &Task,
        watch: &Watch,
        began: Began,
        node: NodeId,
        why: &str,
    ) -> Result<(), Ended> {
        let told = watch.told.as_deref().copied();
        // A server that says farewell in the place of an answer has not committed: in a commit, and while that waits for
        // a standby, it says nothing.
        let is_plain = task.survey.only_dml || task.survey.sole == Some(Sole::Commit);
        let fate = if told.is_none() && is_plain && watch.farewell.is_some() {
            Fate::Aborted
        } else {
            self.fate(told, began).await
        };
        let outcome = match fate {
            Fate::Committed => "committed",
            Fate::Aborted => "aborted",
            Fate::Unknown(_) => "unknown",
        };
        tracing::info!(outcome, node = node.index(), why, "a commit was in doubt");
        self.worker.shared.metrics.doubt(&self.cluster.config.name, outcome);
        let effects = self.unaudited.effects;
        self.forget_transaction();
        // What it has written, if it has, the session must see.
        let view = self.view().clone();
        if let (Some(primary), Some(epoch)) = (view.primary, view.epoch) {
            self.causality.ran_on_primary(primary, epoch.timeline, Instant::now());
        }
        let detail = match fate {
            Fate::Committed if effects.intersects(Effects::LASTING | Effects::SET | Effects::HIDDEN) => {
                let message = "the transaction was committed, but what it has set for the session is lost";
                return Err(Ended::Farewell(Error::node(message).detail(why.to_owned())));
            }
            Fate::Committed => {
                let tag = task.survey.sole.filter(|sole| *sole == Sole::Commit).map(|_| "COMMIT");
                let mut answer = self.relay.take_late();
                if let Some(rest) = self.ledger.answer_as_done(tag, TransactionStatus::Idle) {
                    answer.extend_from_slice(&rest);
                    return self.tell(&answer).await;
                }
                "It was committed, but what it answered is lost.".to_owned()
            }
            Fate::Aborted => {
                let message = "the server was lost before it committed the transaction";
                let error = Error::new(Fault::Node, sqlstate::SERIALIZATION_FAILURE, message).detail(why.to_owned());
                return self.tell_loss(task, watch, &error.hint("Nothing of it was committed: run it again.")).await;
            }
            Fate::Unknown(reason) => format!("{why}; {reason}."),
        };
        let message = "the server was lost while it committed, and whether it did is not known";
        let error = Error::new(Fault::Node, sqlstate::TRANSACTION_RESOLUTION_UNKNOWN, message).detail(detail);
        self.tell_loss(task, watch, &error.hint("Look whether it is there before it is run again.")).await
    }

    async fn fate(&self, told: Option<Told>, began: Began) -> Fate {
        let Some(told) = told else {
            return Fate::Unknown("the transaction's id was not learned in time");
        };
        // Nothing was written.
        let Some(id) = told.id else { return Fate::Committed };
        let Some(epoch) = self.view().epoch else { return Fate::Unknown("there was no primary") };
        let position = Position { system: epoch.system, timeline: began.timeline, lsn: told.lsn };
        let until = Instant::now() + self.worker.shared.config.routing.hold_timeout;
        self.cluster.topology.fate_of(Xact { id, position, told_at: told.at }, until).await
    }

    /// Tells the client an error in the place of what was owed to it.
    async fn tell_loss(&mut self, task: &Task, watch: &Watch, error: &Error) -> Result<(), Ended> {
        tracing::debug!(%error, "a batch lost its server");
        self.ledger.abandon();
        self.undo_failed();
        self.ledger.keep_done();
        self.worker.shared.metrics.error(Origin::Causeway, error.sqlstate());
        let mut answer = Vec::new();
        if watch.error.is_none() {
            put_error(&mut answer, Severity::Error, error);
        }
        match task.end {
            End::Query | End::FunctionCall | End::Sync => put_ready(&mut answer, self.status()),
            End::Flush | End::Interrupted | End::Overflow => self.skip_to_sync = true,
        }
        self.tell(&answer).await
    }

    /// The bytes of a batch that has been answered for good.
    pub(super) fn consume(&mut self, bytes: usize, passing: usize) {
        self.client.input.advance(bytes);
        // Of a message that was under way when its server was lost.
        self.client.discard = passing;
    }
}
