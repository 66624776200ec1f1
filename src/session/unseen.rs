//! Exchanges with the held server of which the client sees nothing but, where it matters to it, their consequences.

use super::exchange::Outcome;
use super::ledger::Owed;
use super::settings::Setting;
use super::survey::Survey;
use super::watch::{Asked, Watch};
use super::{Ended, Session};
use crate::error::{Error, Fault, Result};
use crate::sql::Effects;
use crate::types::PoolMode;
use crate::wire::backend::TransactionStatus;
use crate::wire::frontend::{SYNC, put_query};

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
    pub(super) async fn bring_named_in_sql(&mut self, survey: &Survey) -> Result<Result<()>, Ended> {
        for name in survey.in_sql.iter().flat_map(|in_sql| &in_sql.needed) {
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

    pub(super) async fn ask(&mut self, sql: &[u8], answers: usize) -> Result<Result<Vec<Setting>>, Ended> {
        let mut query = Vec::new();
        put_query(&mut query, sql);
        Box::pin(self.exchange_unseen(&query, answers)).await
    }

    /// Sends Queries that the client does not see. The inner error is the server's answer to one of them.
    async fn exchange_unseen(&mut self, queries: &[u8], answers: usize) -> Result<Result<Vec<Setting>>, Ended> {
        let Some(held) = &mut self.held else { return Ok(Ok(Vec::new())) };
        // A Query takes the unnamed statement with it.
        held.unnamed_here = false;
        self.out.clear();
        self.relay.reset();
        self.out.stage(&self.client.input).extend_from_slice(queries);
        for _ in 0..answers {
            self.ledger.push(Owed::Hidden);
        }
        let (outcome, mut watch, _) = self.exchange(0, Watch::asking(), &mut Survey::default()).await;
        match outcome {
            Outcome::Settled if !watch.server_gone => {}
            Outcome::ServerLost(error) => return Err(self.server_lost(&watch, error)),
            Outcome::Settled | Outcome::Refused => {
                let error = watch.farewell.take().unwrap_or_else(|| Error::node("the server closed the connection"));
                return Err(self.server_lost(&watch, error));
            }
            Outcome::ClientLost | Outcome::ClientFault(_) => {
                self.abandon_held();
                return Err(Ended::ByClient);
            }
        }
        self.tell_news(&watch).await?;
        Ok(match watch.take_asked() {
            Asked { error: Some(error), .. } => Err(error),
            Asked { rows, .. } => Ok(rows),
        })
    }

    /// Tells the client of parameters that changed where it could not see it.
    pub(super) async fn tell_news(&mut self, watch: &Watch) -> Result<(), Ended> {
        let Some(held) = self.held.as_ref().filter(|_| watch.changes.parameters) else { return Ok(()) };
        let mut news = Vec::new();
        self.settings.put_news(&held.lease.reported, &mut news);
        if news.is_empty() { Ok(()) } else { self.tell(&news).await }
    }
}
