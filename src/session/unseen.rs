//! Exchanges with the held server of which the client sees nothing but, where it matters to it, their consequences.

use std::sync::Arc;

use super::exchange::Outcome;
use super::ledger::Owed;
use super::survey::{InSql, Survey};
use super::watch::{Asked, Watch};
use super::{Ended, Session};
use crate::backend::prepared::Statement;
use crate::error::{Error, Fault, Result, sqlstate};
use crate::pool::Close;
use crate::sql::Effects;
use crate::types::PoolMode;
use crate::wire::backend::TransactionStatus;
use crate::wire::frontend::{SYNC, Target, put_query, tag};

/// PostgreSQL's own words.
const RESULT_CHANGED: &str = "cached plan must not change result type";

impl Session {
    /// The same unless a transaction runs, in which the server keeps what it has.
    pub(super) async fn bring_up_to_date_if_idle(&mut self) -> Result<Result<()>, Ended> {
        if self.status() == TransactionStatus::Idle && !self.pipeline_open {
            self.bring_up_to_date().await
        } else {
            Ok(Ok(()))
        }
    }

    /// Brings the held server to the session's parameters. The inner error: it does not take them, and will be cleaned.
    pub(super) async fn bring_up_to_date(&mut self) -> Result<Result<()>, Ended> {
        let Some(held) = &mut self.held else { return Ok(Ok(())) };
        let mut change = Vec::new();
        let queries = held.lease.put_sync(self.settings.current(), &mut change);
        if queries == 0 {
            return Ok(Ok(()));
        }
        let answer = Box::pin(self.exchange_unseen(&change, queries)).await?;
        Ok(answer.map(drop).map_err(|error| {
            self.held.iter_mut().for_each(|held| held.lease.tainted = true);
            let message = format!("a session parameter could not be set on the server: {}", error.message());
            Error::new(Fault::Client, error.sqlstate().to_owned(), message)
        }))
    }

    /// Makes sure that the server has the statements that the batch names in SQL. The inner error: it cannot have one.
    pub(super) async fn bring_named_in_sql(&mut self, in_sql: &InSql) -> Result<Result<()>, Ended> {
        for name in &in_sql.needed {
            let Some(statement) = self.statements.get(name).cloned() else { continue };
            let Some(held) = &mut self.held else { return Ok(Ok(())) };
            let cannot = held.lease.status == TransactionStatus::Failed || self.pipeline_open;
            if cannot || held.lease.prepared.touch(&statement) {
                continue;
            }
            let mut prepare = Vec::new();
            statement.put_prepare(&mut prepare);
            if !statement.is_sql() {
                prepare.extend_from_slice(SYNC);
            }
            if let Err(error) = Box::pin(self.exchange_unseen(&prepare, 1)).await? {
                return Ok(Err(error));
            }
            self.held.iter_mut().for_each(|held| held.lease.prepared.insert(&statement));
        }
        if in_sql.mentioned.is_empty() { Ok(Ok(())) } else { self.bring_by_own_names(&in_sql.mentioned).await }
    }

    /// Prepares a statement under the parameters under which it was first read, and compares what its columns are with
    /// what clients were told, before it is run. If they are others now, that is an error, as on a server that had it before; or no harm if the client `describes` it anyway.
    pub(super) async fn prove(&mut self, statement: &Arc<Statement>, describes: bool) -> Result<Result<()>, Ended> {
        if let Err(error) = self.bring_up_to_date_if_idle().await? {
            return Ok(Err(error));
        }
        let mut messages = Vec::new();
        let mut answers = 1;
        let current = self.settings.current();
        // In a transaction with parameters of its own nobody could bring those back.
        let meaning = statement.other_meaning(self.settings.meaning()).filter(|_| self.unaudited.is_empty());
        let other = meaning.map(|meaning| current.with_meaning(meaning));
        if let Some(other) = &other {
            answers += current.put_change(other, &mut messages);
        }
        statement.put_prepare(&mut messages);
        Target::Statement(statement.name()).write(tag::DESCRIBE, &mut messages);
        messages.extend_from_slice(SYNC);
        if let Some(other) = &other {
            answers += other.put_change(current, &mut messages);
        }
        let asked = match Box::pin(self.exchange_unseen(&messages, answers)).await? {
            Ok(asked) => asked,
            Err(error) => return Ok(Err(error)),
        };
        let Some(held) = &mut self.held else { return Ok(Ok(())) };
        held.lease.prepared.insert(statement);
        if statement.shape().is_none_or(|shape| asked.shape == Some(shape)) {
            return Ok(Ok(()));
        }
        // Under this name it has what it should not.
        held.lease.tainted = true;
        let version = self.facts.load().version;
        let renewed = self.worker.shared.statements.renew(statement, self.settings.meaning(), version);
        if describes {
            self.statements.replace(statement, &renewed);
            return Ok(Ok(()));
        }
        Ok(Err(Error::new(Fault::Client, sqlstate::FEATURE_NOT_SUPPORTED, RESULT_CHANGED)))
    }

    /// Statements under the client's own names would look like some that cannot follow it.
    pub(super) async fn drop_own_names(&mut self) -> Result<(), Ended> {
        let Some(held) = &mut self.held else { return Ok(()) };
        for name in std::mem::take(&mut held.own_names) {
            let name = String::from_utf8_lossy(&name).replace('"', "\"\"");
            // The client may have done it itself.
            let _ = self.ask(format!("DEALLOCATE \"{name}\"").as_bytes(), 1).await?;
        }
        Ok(())
    }

    /// The server gets statements under the client's own names, until it is cleaned.
    async fn bring_by_own_names(&mut self, names: &[Box<[u8]>]) -> Result<Result<()>, Ended> {
        for name in names {
            let Some(statement) = self.statements.get(name).cloned() else { continue };
            let Some(held) = &mut self.held else { break };
            let cannot = held.lease.status == TransactionStatus::Failed || self.pipeline_open;
            if cannot || held.own_names.contains(name) {
                continue;
            }
            held.own_names.push(name.clone());
            held.lease.tainted = true;
            let mut prepare = Vec::new();
            statement.put_prepare_as(name, &mut prepare);
            if !statement.is_sql() {
                prepare.extend_from_slice(SYNC);
            }
            if let Err(error) = Box::pin(self.exchange_unseen(&prepare, 1)).await? {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    /// Parameters of the login that a RESET took away, where no audit brings them back: in a transaction, and for a
    /// session with a server of its own.
    pub(super) async fn restore_login(&mut self, survey: &Survey) -> Result<(), Ended> {
        let status = self.status();
        let audited = self.mode != PoolMode::Session && status == TransactionStatus::Idle;
        if audited || status == TransactionStatus::Failed || !survey.effects.intersects(Effects::RESET) {
            return Ok(());
        }
        let all = survey.effects.intersects(Effects::CLEAR_SET.union(Effects::CLEAR_ALL));
        let sql = self.settings.login().set_sql(|name| all || survey.settings.iter().any(|reset| **reset == *name));
        if !sql.is_empty()
            && let Err(error) = self.ask(&sql, 1).await?
        {
            tracing::warn!(%error, "a server did not take the parameters of the login again");
        }
        Ok(())
    }

    pub(super) async fn ask(&mut self, sql: &[u8], answers: usize) -> Result<Result<Asked>, Ended> {
        let mut query = Vec::new();
        put_query(&mut query, sql);
        Box::pin(self.exchange_unseen(&query, answers)).await
    }

    /// Takes back what has run since the last Sync, and ends the pipeline with an error.
    async fn end_pipeline(&mut self) -> Result<Result<Asked>, Ended> {
        let mut messages = Vec::new();
        if self.ledger.is_skipping() {
            self.ledger.push(Owed::HiddenReady);
            messages.extend_from_slice(SYNC);
            return self.exchange_unseen(&messages, 0).await;
        }
        // There is none, which is an error.
        Target::Portal(b"refused by Causeway").write(tag::DESCRIBE, &mut messages);
        messages.extend_from_slice(SYNC);
        self.exchange_unseen(&messages, 1).await
    }

    /// A transaction fails with its statement, also where the error is ours.
    pub(super) async fn fail_transaction(&mut self) -> Result<(), Ended> {
        if std::mem::take(&mut self.pipeline_open) {
            let _ = Box::pin(self.end_pipeline()).await?;
            self.release_if_free();
        } else if self.status() == TransactionStatus::InTransaction {
            let _ = self.ask(b"DO 'BEGIN RAISE EXCEPTION $$refused by Causeway$$; END'", 1).await?;
        }
        Ok(())
    }

    /// A temporary table may hide one that a statement was planned for. A server notices when it makes its first one,
    /// but this server may have made others before, for other sessions.
    pub(super) async fn forget_plans(&mut self) -> Result<(), Ended> {
        if self.mode != PoolMode::Session && self.status() != TransactionStatus::Failed && !self.pipeline_open {
            let _ = self.ask(b"DISCARD PLANS", 1).await?;
        }
        Ok(())
    }

    /// Sends Queries that the client does not see. The inner error is the server's answer to one of them.
    async fn exchange_unseen(&mut self, queries: &[u8], answers: usize) -> Result<Result<Asked>, Ended> {
        // A session that keeps its server ends with it.
        let may_give_up = !self.must_keep();
        let Some(held) = &mut self.held else { return Ok(Ok(Asked::default())) };
        // A Query takes the unnamed statement with it.
        held.unnamed_here = false;
        self.out.clear();
        self.relay.reset();
        self.out.stage(&self.client.input).extend_from_slice(queries);
        for _ in 0..answers {
            self.ledger.push(Owed::Hidden);
        }
        let on_replica = held.on_replica && may_give_up;
        let mut watch = Watch::asking(on_replica);
        let (outcome, _) = self.exchange(0, &mut watch, &mut Survey::default()).await;
        match outcome {
            Outcome::Settled if !watch.server_gone => {}
            Outcome::Settled | Outcome::Refused | Outcome::Unwanted | Outcome::ServerLost(_) if on_replica => {
                return Ok(Err(self.give_up_question()));
            }
            Outcome::ServerLost(error) => return Err(self.question_lost(error)),
            Outcome::Settled | Outcome::Refused | Outcome::Unwanted => {
                let error = watch.farewell.take().unwrap_or_else(|| Error::node("the server closed the connection"));
                return Err(self.question_lost(error));
            }
            Outcome::ClientLost | Outcome::ClientFault(_) => {
                self.abandon_held();
                return Err(Ended::ByClient);
            }
        }
        self.tell_news(&watch).await?;
        let mut asked = watch.take_asked();
        Ok(asked.error.take().map_or(Ok(asked), Err))
    }

    /// The server went away with a question of ours, and with the session's transaction, if there was one.
    fn question_lost(&mut self, error: Error) -> Ended {
        let keeps_more = self.has_more_than_a_transaction();
        let in_transaction = self.status() != TransactionStatus::Idle;
        self.ledger.abandon();
        self.undo_failed();
        if let Some(mut held) = self.held.take() {
            self.relay.discard(&mut held.lease.input);
            self.cluster.topology.probe_now(held.node);
            held.lease.close(Close::Lost);
        }
        self.registration.slot.is_done();
        if keeps_more {
            return Ended::Farewell(error);
        }
        if in_transaction && self.begun.is_none() {
            self.lose_transaction();
        }
        Ended::Unsent(error)
    }

    /// The replica went away, or does not answer.
    fn give_up_question(&mut self) -> Error {
        self.ledger.abandon();
        if let Some(held) = &mut self.held {
            self.relay.discard(&mut held.lease.input);
            held.owes = true;
            self.cluster.topology.report_failure(held.node);
        }
        Error::node("the replica closed the connection, or stopped answering")
    }

    /// Tells the client of parameters that changed where it could not see it.
    pub(super) async fn tell_news(&mut self, watch: &Watch) -> Result<(), Ended> {
        let Some(held) = self.held.as_ref().filter(|_| watch.changes.parameters) else { return Ok(()) };
        let mut news = Vec::new();
        self.settings.put_news(&held.lease.reported, &mut news);
        if news.is_empty() { Ok(()) } else { self.tell(&news).await }
    }
}
