//! A batch written to its server, exchanged, and its outcome taken back into the session.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::commit::Question;
use super::exchange::{Exchange, Feed, Outcome};
use super::lead::Task;
use super::ledger::{Missed, Owed};
use super::pins::Pin;
use super::reword::Shift;
use super::survey::Survey;
use super::translate::Translator;
use super::watch::{Changes, Cleared, Watch};
use super::{Classify, Ended, Held, Lexis, Session};
use crate::backend::params::{Params, Reported, gives_meaning};
use crate::backend::prepared::Statement;
use crate::error::{Error, Result};
use crate::metrics::Origin;
use crate::pool::Close;
use crate::route::Reason;
use crate::sql::Effects;
use crate::types::PoolMode;
use crate::wire::backend::{TransactionStatus, put_ready};
use crate::wire::frame::header;
use crate::wire::frontend::{ASK_REPLAYED, put_query, tag};

impl Session {
    /// Writes what the held server must get for the batch, after what brings it to the session's parameters.
    ///
    /// # Errors
    /// A limit of ours; nothing was sent.
    pub(super) fn write_batch(&mut self, task: &Task) -> Result<Written> {
        let apart = self.is_apart();
        let question = self.commit_question(task);
        let Some(held) = &mut self.held else { return Ok(Written::default()) };
        let server = &mut *held.lease;
        let mut written = Written {
            unproven: None,
            shift: None,
            parameters_before: Arc::clone(server.applied()),
            sequences_before: server.sequences_of,
            skipping_before: self.ledger.is_skipping(),
        };
        self.out.clear();
        self.relay.reset();
        if held.guard.is_some() {
            self.out.stage(&self.client.input).extend_from_slice(ASK_REPLAYED);
            self.ledger.push(Owed::Guard);
        }
        if server.status == TransactionStatus::Idle && !self.pipeline_open {
            let queries = server.put_sync(self.settings.current(), self.out.stage(&self.client.input));
            for _ in 0..queries {
                self.ledger.push(Owed::Hidden);
                held.unnamed_here = false;
            }
        }
        let uses_sequences = task.survey.effects.intersects(Effects::SEQUENCE | Effects::CURRVAL);
        if uses_sequences && server.status != TransactionStatus::Failed && !self.pipeline_open {
            let owner = std::mem::replace(&mut server.sequences_of, self.registration.session);
            if owner != 0 && owner != self.registration.session {
                // An error, where PostgreSQL would give one, rather than another session's value.
                put_query(self.out.stage(&self.client.input), b"DISCARD SEQUENCES");
                self.ledger.push(Owed::Hidden);
                held.unnamed_here = false;
            }
        }
        let mut translator = Translator {
            verbatim: self.mode == PoolMode::Session,
            names_in_sql: task.survey.in_sql.is_some(),
            facts: &self.facts,
            unproven: &mut written.unproven,
            shift: &mut written.shift,
            interner: &self.worker.shared.statements,
            meaning: self.settings.meaning(),
            apart,
            statements: &mut self.statements,
            prepared: &mut server.prepared,
            unnamed_here: &mut held.unnamed_here,
            tainted: &mut server.tainted,
            ledger: &mut self.ledger,
            out: &mut self.out,
            input: &self.client.input,
        };
        if question == Question::BeforeCommit {
            translator.ask_before_commit();
        }
        let mut start = 0;
        while start < task.bytes {
            let Some(header) = header(&translator.input[start..])? else { break };
            let range = start..start + header.frame_bytes;
            match (header.tag, question) {
                (tag::FLUSH, _) if self.ends_at_flush => translator.sync_unseen(),
                (tag::QUERY, Question::InQuery) => translator.wrapped_query(range)?,
                (tag::SYNC, Question::BeforeSync) => {
                    translator.ask_before_sync();
                    translator.frame(range)?;
                }
                _ => translator.frame(range)?,
            }
            start += header.frame_bytes;
        }
        Ok(written)
    }

    /// Takes back what was written of a batch, of which the server has seen nothing.
    pub(super) fn unwrite(&mut self, written: Written) {
        self.ledger.take_back(written.skipping_before);
        self.undo_failed();
        self.out.clear();
        if let Some(held) = &mut self.held {
            held.lease.has_parameters(written.parameters_before);
            held.lease.sequences_of = written.sequences_before;
            held.unnamed_here = false;
        }
    }

    /// A batch was refused by ourselves while it was written: the server has seen nothing of it.
    pub(super) fn take_back_unsent(&mut self, skipping: bool) {
        self.ledger.take_back(skipping);
        self.undo_failed();
        self.out.clear();
        if let Some(held) = &mut self.held {
            // What would have brought it to the session's parameters was not sent either.
            held.lease.tainted = true;
        }
        self.release_if_free();
    }

    pub(super) async fn exchange(&mut self, bytes: usize, watch: &mut Watch, survey: &mut Survey) -> (Outcome, Feed) {
        let (apart, lexis) = (self.is_apart(), self.settings.lexis());
        let Some(held) = &mut self.held else {
            return (Outcome::ServerLost(Error::node("the session holds no server")), Feed::at(0));
        };
        if !watch.is_asking() {
            self.registration.slot.runs(held.lease.cancel_target());
        }
        let in_flight = self.cluster.load(held.node).begin(self.worker.id, self.now.get());
        let mut exchange = Exchange {
            seat: self.seat.seat(),
            bounds: self.bounds,
            verbatim: self.mode == PoolMode::Session,
            settings: &mut self.settings,
            apart,
            classify: Classify { worker: &self.worker, facts: &self.facts, lexis },
            survey,
            client: &mut self.client,
            statements: &mut self.statements,
            ledger: &mut self.ledger,
            held,
            out: &mut self.out,
            relay: &mut self.relay,
            watch,
            unproven: None,
            respite: None,
            cluster: &self.cluster,
            feed: Feed::at(bytes),
        };
        let outcome = exchange.run().await;
        let feed = exchange.feed;
        self.now.set(Instant::now());
        if matches!(outcome, Outcome::Settled) {
            in_flight.answered(self.now.get());
        }
        (outcome, feed)
    }

    /// Names and statements that failed messages had defined are as they were before.
    pub(super) fn undo_failed(&mut self) {
        let mut undone = false;
        for undo in self.ledger.take_undone() {
            self.statements.undo(undo);
            undone = true;
        }
        // Of a server that is gone, it is nobody's.
        let missed = self.ledger.take_missed();
        if let Some(held) = &mut self.held {
            for missed in missed {
                match missed {
                    Missed::Parse(statement) => held.lease.prepared.forget(&statement),
                    Missed::Close(statement) => held.lease.prepared.restore(statement),
                }
            }
            held.unnamed_here &= !undone;
        }
    }

    /// All answers are with the client. True: the batch may have left something behind, which is to be
    /// [settled](Self::settle); else all is done.
    pub(super) fn is_unsettled(&mut self, survey: &Survey, watch: &Watch, reason: Reason) -> bool {
        self.undo_failed();
        self.ledger.keep_done();
        self.count(watch, reason);
        let said_more = watch.changes != Changes::default() || watch.server_gone || watch.withholds_ready;
        let did_more = !survey.effects.is_empty() || survey.in_sql.is_some() || !self.unaudited.is_empty();
        let is_unsettled = self.held.is_some() && (said_more || did_more);
        if !is_unsettled {
            self.release_if_free();
        }
        is_unsettled
    }

    /// What a batch leaves behind that does more than read and write.
    pub(super) async fn settle(&mut self, survey: &Survey, watch: &mut Watch) -> Result<(), Ended> {
        let ending = Ending::of(self.status(), survey, watch);
        // No rollback and no error behind it brings statements back.
        if watch.changes.cleared >= Some(Cleared::Statements) {
            self.held.iter_mut().for_each(|held| held.lease.prepared.clear());
            self.statements.clear();
        }
        self.forget_deallocated(survey, watch);
        if watch.changes.prepared
            && let (Some(held), Some(statement)) = (&mut self.held, self.statements.define_prepared())
        {
            held.lease.prepared.insert(statement);
            held.unnamed_here = false;
        }
        let status = self.status();
        if watch.server_gone {
            self.tell_ready(watch, status).await?;
            return self.part_from_server(survey, watch);
        }
        self.tell_news(watch).await?;
        self.restore_login(survey).await?;
        if ending != Ending::Failed && survey.effects.intersects(Effects::TEMP) {
            self.forget_plans().await?;
        }
        if watch.error.is_none() {
            self.spell_out_resets(survey).await?;
        }
        self.take_effects(survey, ending, watch).await?;
        self.tell_ready(watch, status).await?;
        self.release_if_free();
        Ok(())
    }

    /// The ReadyForQuery that was withheld.
    async fn tell_ready(&mut self, watch: &Watch, status: TransactionStatus) -> Result<(), Ended> {
        if !watch.withholds_ready {
            return Ok(());
        }
        let mut ready = Vec::new();
        put_ready(&mut ready, status);
        self.tell(&ready).await
    }

    /// The server went away right behind its answer: with it goes a transaction, but not a session, unless the server
    /// had, or may have had, more of it.
    fn part_from_server(&mut self, survey: &Survey, watch: &mut Watch) -> Result<(), Ended> {
        const UNKNOWN: Effects = Effects::LASTING.union(Effects::SET).union(Effects::HIDDEN);
        let in_transaction = self.status() != TransactionStatus::Idle;
        let may_have_set = self.unaudited.effects.union(survey.effects).intersects(UNKNOWN) && !in_transaction;
        let keeps_more = self.has_more_than_a_transaction() || may_have_set;
        if let Some(held) = self.held.take() {
            self.give_back(held, true);
        }
        if keeps_more || watch.dismissed && in_transaction {
            return Err(watch.farewell.take().map_or(Ended::ByServer, Ended::Farewell));
        }
        if in_transaction {
            self.worker.shared.metrics.lost_server(&self.cluster.config.name, "transaction_lost");
            self.lose_transaction();
        }
        Ok(())
    }

    /// What the client has deallocated by SQL.
    fn forget_deallocated(&mut self, survey: &Survey, watch: &Watch) {
        let Some(held) = &mut self.held else { return };
        for name in survey.in_sql.iter().flat_map(|in_sql| &in_sql.deallocated) {
            let Some(statement) = self.statements.get(name) else { continue };
            held.lease.prepared.forget(statement);
            if held.lease.tainted {
                // It may know the name itself, from a duplicate.
                held.own_names.push(name.clone());
            }
            // Behind an error nobody knows whether the server has it still, and under which name it is safe to prepare.
            held.lease.tainted |= watch.error.is_some();
            if watch.error.is_none() {
                self.statements.close(name);
            }
        }
    }

    async fn take_effects(&mut self, survey: &Survey, ending: Ending, watch: &Watch) -> Result<(), Ended> {
        if survey.effects.intersects(Effects::CURRVAL) {
            self.facts.uses_currval.store(true, Relaxed);
        }
        let effects = ending.leaves(survey.effects);
        let nothing_else = Effects::LASTING | Effects::SET | Effects::HIDDEN;
        let alone = self.unaudited.is_empty() && !survey.transaction_control && !effects.intersects(nothing_else);
        let resets = match watch.changes.cleared {
            Some(Cleared::Everything) => true,
            Some(Cleared::Parameters) => effects.intersects(Effects::CLEAR_SET),
            Some(Cleared::Statements) | None => false,
        };
        if resets && alone && ending == Ending::Done && self.mode != PoolMode::Session {
            self.all_was_reset(watch.changes.cleared == Some(Cleared::Everything)).await?;
            self.unaudited.note(effects.without(Effects::CLEAR_SET | Effects::CLEAR_ALL | Effects::RESET), &[]);
        } else {
            self.unaudited.note(effects, &survey.settings);
        }
        self.audit().await
    }

    /// The session has, or may have, something that no other has and that changes what a text means: what it prepares
    /// is nobody else's. In a failed transaction it is nothing at all, and the server's to refuse.
    fn is_apart(&self) -> bool {
        const UNKNOWN: Effects =
            Effects::HIDDEN.union(Effects::SET_UNNAMED).union(Effects::RESET).union(Effects::CLEAR_SET);
        let effects = self.unaudited.effects;
        let names = self.unaudited.names();
        effects.intersects(UNKNOWN)
            || effects.intersects(Effects::SET | Effects::LOCAL)
                && (names.is_empty() || names.iter().any(|name| gives_meaning(name)))
            || self.status() == TransactionStatus::Failed
            || self.pins.contains(Pin::Set)
            || self.pins.contains(Pin::Temp)
    }

    fn count(&mut self, watch: &Watch, reason: Reason) {
        let Some(held) = &self.held else { return };
        let lane = self.cluster.load(held.node).lane(self.worker.id);
        lane.routed[reason as usize].add(1);
        lane.received_bytes.add(watch.received_bytes);
        lane.sent_bytes.add(self.out.take_sent_bytes());
        let bytes = self.worker.shared.metrics.client_bytes.of(self.worker.id);
        bytes.sent.add(self.relay.take_shown_bytes());
        bytes.received.add(std::mem::take(&mut self.client.received_bytes));
        if let Some(sqlstate) = watch.error {
            self.worker.shared.metrics.error(Origin::Node, &String::from_utf8_lossy(&sqlstate));
        }
    }

    /// The session holds a server that has something of its own.
    pub(super) fn must_keep(&self) -> bool {
        let in_transaction = |held: &Held| held.lease.status != TransactionStatus::Idle;
        self.held.as_ref().is_some_and(|held| self.has_more_than_a_transaction() || in_transaction(held))
    }

    /// It would lose something with its server that no other one could give it.
    pub(super) fn has_more_than_a_transaction(&self) -> bool {
        self.pipeline_open || !self.pins.is_empty() || self.mode == PoolMode::Session
    }

    /// Lets the server go unless something keeps the session with it.
    pub(super) fn release_if_free(&mut self) {
        if self.must_keep() {
            let cancelled = self.registration.slot.is_done();
            self.held.iter_mut().for_each(|held| held.cancelled |= cancelled);
        } else if let Some(held) = self.held.take() {
            self.give_back(held, false);
        }
        self.out.trim();
        self.relay.trim();
        self.ledger.trim();
    }

    /// Gives a server back to its pool, cleaned if need be, or closes it.
    pub(super) fn give_back(&mut self, mut held: Held, gone: bool) {
        let has_own = !self.pins.is_empty() || !self.unaudited.is_empty();
        held.lease.tainted |= has_own || self.mode == PoolMode::Session;
        let cancelled = held.cancelled | self.registration.slot.is_done();
        let server = &mut *held.lease;
        self.worker.server_buffers.take_back(&mut server.input);
        if gone || held.owes || !server.input.is_empty() {
            return held.lease.close(Close::Lost);
        }
        if cancelled {
            return held.lease.close(Close::Cancelled);
        }
        if server.tainted || server.status != TransactionStatus::Idle {
            tokio::task::spawn_local(async move {
                match held.lease.clean().await {
                    Ok(()) => held.lease.release(Instant::now()),
                    Err(error) => {
                        tracing::debug!(%error, "a server could not be cleaned and is closed");
                        held.lease.close(Close::Unclean);
                    }
                }
            });
        } else {
            held.lease.release(self.worker.now());
        }
    }

    /// The session ends: its server goes back if nothing is under way on it.
    pub(super) fn give_back_held(&mut self) {
        if let Some(held) = self.held.take() {
            let busy = !self.ledger.is_settled() || self.pipeline_open;
            self.give_back(held, busy);
        }
    }

    /// The client is gone in the middle of an exchange: the server is told to stop, and closed.
    pub(super) fn abandon_held(&mut self) {
        if let Some(held) = self.held.take() {
            self.abandon(held);
        }
    }

    /// Nobody wants what the server is doing: it is told to stop, and closed.
    pub(super) fn abandon(&mut self, held: Held) {
        self.registration.slot.is_done();
        let target = Arc::clone(held.lease.cancel_target());
        tokio::task::spawn_local(async move {
            if let Err(error) = target.send().await {
                tracing::debug!(%error, "a statement that nobody wants could not be cancelled");
            }
            held.lease.close(Close::Abandoned);
        });
    }
}

/// What writing a batch has found, and how the server was before.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// A statement that the server would get with the batch, and that would not be proven to be what it was.
    pub(super) unproven: Option<Arc<Statement>>,
    /// How a text was changed, if one was.
    pub(super) shift: Option<Shift>,
    parameters_before: Arc<Params>,
    sequences_before: u64,
    skipping_before: bool,
}

/// How a batch with effects ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Without an error, outside a transaction block: what it did is done.
    Done,
    /// In a transaction that may still be rolled back, or with an error behind a COMMIT of its own.
    Unsettled,
    Failed,
}

impl Ending {
    fn of(status: TransactionStatus, survey: &Survey, watch: &Watch) -> Self {
        match status {
            _ if watch.skipped || watch.error.is_some() && !survey.transaction_control => Self::Failed,
            TransactionStatus::Idle if watch.error.is_none() => Self::Done,
            _ => Self::Unsettled,
        }
    }

    /// Of a batch's effects, those that may have come to something.
    fn leaves(self, effects: Effects) -> Effects {
        const SURVIVE_ERRORS: Effects =
            Effects::PREPARE.union(Effects::ADVISORY_LOCK).union(Effects::SESSION).union(Effects::HIDDEN);
        if self == Self::Failed { effects.intersection(SURVIVE_ERRORS) } else { effects }
    }
}

impl Lexis {
    pub(super) fn of(reported: &Reported) -> Self {
        let off = reported.get("standard_conforming_strings") == Some(b"off");
        let encoding = reported.get("client_encoding").unwrap_or(b"UTF8");
        let unsafe_encodings: [&[u8]; 8] =
            [b"SJIS", b"SHIFT_JIS_2004", b"BIG5", b"GBK", b"UHC", b"GB18030", b"JOHAB", b"MULE_INTERNAL"];
        Self { standard_conforming_strings: !off, safe_encoding: !unsafe_encodings.contains(&encoding) }
    }
}
