//! Finds a server for a batch and runs the batch there, on another one when a replica turns out not to do.

use std::sync::Arc;
use std::time::Instant;

use bytes::Buf;

use super::batch::End;
use super::exchange::Outcome;
use super::lost::Lost;
use super::meet::{Fit, Place, Quest};
use super::rescue::Cause;
use super::settle::Written;
use super::survey::{ExplainRoute, Survey, Work, databases};
use super::watch::{Reruns, Watch};
use super::{Ended, Held, Session};
use crate::backend::Server;
use crate::backend::prepared::Statement;
use crate::config::Fallback;
use crate::error::{Error, Fault, Result, Retry, sqlstate};
use crate::pool::{Attempt, Lease};
use crate::route::{NodeSet, Proof, Reason, Refusal, Request, Route, Stay, route};
use crate::sql::{Class, Effects};
use crate::types::{Level, NodeId, PoolMode};
use crate::wire::backend::TransactionStatus;

/// A batch to be run: the first `bytes` of the client's input.
pub struct Task {
    pub bytes: usize,
    pub end: End,
    pub survey: Survey,
    reruns: Reruns,
}

impl Task {
    pub fn new(bytes: usize, end: End, survey: Survey) -> Self {
        let is_here = matches!(end, End::Query | End::Sync);
        let reruns = Reruns {
            elsewhere: is_here && survey.class != Class::Write,
            anew: matches!(end, End::Sync | End::Flush) && survey.describes && !survey.transaction_control,
            after_loss: is_here
                && (survey.class == Class::Read && !survey.transaction_control || survey.begins.is_some()),
            moved: is_here && survey.class != Class::Read,
        };
        Self { bytes, end, survey, reruns }
    }

    /// More of it is to come.
    pub fn is_open(&self) -> bool {
        matches!(self.end, End::Overflow | End::Interrupted)
    }
}

/// What earlier tries of a batch have shown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tried {
    pub(super) avoid: NodeSet,
    pub(super) rescued: bool,
    /// Its statements have been prepared anew.
    pub(super) renewed: bool,
    /// Its primary was asked, and is one.
    pub(super) confirmed: bool,
    server: Leased,
}

/// What for the session has its server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Leased {
    /// It keeps it from before.
    #[default]
    Before,
    /// For this batch; nothing else of the session's is on it.
    Now,
    /// The same, and as a replica.
    NowAsReplica,
}

/// How one try of a batch ended.
enum Try {
    Done,
    Again,
}

impl Session {
    /// Runs a batch. The inner error is one that the client is told and that the session survives; nothing was sent
    /// then.
    pub(super) async fn lead(&mut self, task: &mut Task) -> Result<Result<()>, Ended> {
        let mut tried = Tried::default();
        let mut quest = match self.check_wishes(&task.survey).and_then(|()| self.quest(&task.survey)) {
            Ok(quest) => quest,
            Err(error) => return Ok(Err(error)),
        };
        match self.check_history(task.survey.class, &quest) {
            Ok(None) => {}
            Ok(Some(replica)) => {
                if let Err(error) = Box::pin(self.hear(replica, task.survey.class, &mut quest)).await {
                    return Ok(Err(error));
                }
            }
            Err(error) => return Ok(Err(error)),
        }
        if self.held.is_none()
            && quest.consistency.level == Level::Session
            && let Some(other) = self.may_move()
            && let Err(error) = Box::pin(self.move_to(other, &quest)).await
        {
            return Ok(Err(error));
        }
        if (task.survey.mentions_own || self.resets_own_among_others(&task.survey))
            && let Err(error) = Box::pin(self.show_own(task, &mut quest)).await?
        {
            return Ok(Err(error));
        }
        loop {
            if self.lost != Lost::Nothing {
                return Box::pin(self.answer_in_lost(task.bytes, task.end)).await.map(Ok);
            }
            let reason = match self.find_server(task, &mut tried, &mut quest).await {
                Ok(Some(reason)) => reason,
                Ok(None) => continue,
                Err(error) => return Ok(Err(error)),
            };
            if self.begun.is_some() && self.status() == TransactionStatus::Idle {
                match Box::pin(self.begin_anew()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Ok(Err(error)),
                    Err(Ended::Unsent(_)) => continue,
                    Err(ended) => return Err(ended),
                }
            }
            match self.try_once(task, reason, &mut tried, &mut quest).await? {
                Ok(Try::Done) => return Ok(Ok(())),
                Ok(Try::Again) => {}
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// Routes the batch and makes sure that the session holds the server. `None`: decide again, with what is known now.
    async fn find_server(&mut self, task: &Task, tried: &mut Tried, quest: &mut Quest) -> Result<Option<Reason>> {
        let route = self.route(&task.survey, *tried, quest);
        let (node, reason, proof) = match route {
            // The primary may be away because of what it is paused for.
            Route::Refuse(_) if self.cluster.gate.is_closed() && self.view().primary.is_none() => {
                Box::pin(self.wait_at_gate(quest)).await?;
                return Ok(None);
            }
            Route::Refuse(refusal) => {
                Box::pin(self.hold(refusal, quest)).await?;
                if let Some(replica) = self.check_history(task.survey.class, quest)? {
                    Box::pin(self.hear(replica, task.survey.class, quest)).await?;
                }
                tried.avoid = NodeSet::default();
                return Ok(None);
            }
            Route::Stay(reason) => {
                tried.server = Leased::Before;
                self.check_lasting_effects(&task.survey)?;
                self.prove_held(task, quest).await?;
                return Ok(Some(reason));
            }
            Route::Ask | Route::Wait(_) | Route::Measure => {
                Box::pin(self.pursue(route, quest)).await?;
                return Ok(None);
            }
            Route::To(node, reason @ (Reason::Behind | Reason::NoReplica)) => {
                let Some(place) = Box::pin(self.spill(quest)).await? else { return Ok(None) };
                match self.obtain(node, None, task.survey.effects).await {
                    Ok(true) => {}
                    Ok(false) => {
                        drop(place);
                        Box::pin(self.wait_at_gate(quest)).await?;
                        return Ok(None);
                    }
                    Err(error) => return self.may_go_elsewhere(node, error),
                }
                tried.server = Leased::Now;
                if let (Some(held), Place::Limited(permit)) = (&mut self.held, place) {
                    held.spill = Some(permit);
                }
                return Ok(Some(reason));
            }
            Route::To(node, reason) => (node, reason, None),
            Route::Replica(node, reason, proof) => (node, reason, Some(proof)),
        };
        match (self.obtain(node, proof, task.survey.effects).await, proof) {
            (Ok(false), _) => {
                Box::pin(self.wait_at_gate(quest)).await?;
                return Ok(None);
            }
            (Ok(true), None) => tried.server = Leased::Now,
            (Ok(true), Some(proof)) => {
                tried.server = Leased::NowAsReplica;
                return Ok(self.take_proof(proof, tried, quest).await?.then_some(reason));
            }
            (Err(error), Some(_)) if error.retry() == Retry::Elsewhere => {
                tried.avoid = tried.avoid.with(node);
                return Ok(None);
            }
            (Err(error), _) => return self.may_go_elsewhere(node, error),
        }
        Ok(Some(reason))
    }

    /// Nothing was sent, so a batch whose primary turned out not to be there waits for the next one.
    fn may_go_elsewhere<T>(&self, node: NodeId, error: Error) -> Result<Option<T>> {
        let gone = error.retry() == Retry::Elsewhere && self.view().primary != Some(node);
        if gone { Ok(None) } else { Err(error) }
    }

    /// False: the server of the replica just leased is too young for the proof.
    async fn take_proof(&mut self, proof: Proof, tried: &mut Tried, quest: &mut Quest) -> Result<bool> {
        let Some((node, connected_at)) = self.held.as_ref().map(|held| (held.node, held.lease.connected_at())) else {
            return Ok(false);
        };
        let fit = self.fit(proof, node, connected_at, quest);
        if let (Ok(fit @ (Fit::Fits | Fit::Guarded(_))), Some(held)) = (&fit, &mut self.held) {
            held.guard = if let Fit::Guarded(floor) = fit { Some(*floor) } else { None };
            held.proven = quest.consistency.level >= Level::Session || self.causality.needs_nothing();
            return Ok(true);
        }
        self.release_if_free();
        if fit? == Fit::Untried && !Box::pin(self.try_node(node, connected_at)).await? {
            tried.avoid = tried.avoid.with(node);
        }
        Ok(false)
    }

    pub(super) fn route(&mut self, survey: &Survey, tried: Tried, quest: &Quest) -> Route {
        let (request, now) = self.request(survey, tried, quest);
        route(&request, &self.view(), now, |below| fastrand::usize(..below))
    }

    /// What the route is decided by, and when.
    pub(super) fn request(&mut self, survey: &Survey, tried: Tried, quest: &Quest) -> (Request, Instant) {
        if quest.consistency.level == Level::Session && self.held.is_none() {
            self.resolve_for_nothing();
        }
        let settings = &self.worker.shared.config.routing;
        let serializable = self.settings.is_serializable();
        let needs = self.needs(quest);
        let now = self.now.get();
        let request = Request {
            class: if serializable || self.catalog_is_unsure() || self.begun.is_some() {
                Class::Write
            } else {
                survey.class
            },
            hint: survey.hint,
            begins_read_only: !serializable && survey.begins.is_some_and(|begin| begin.read_only),
            stay: self.stay(),
            split: settings.split && self.mode == PoolMode::Transaction,
            rescued: tried.rescued,
            fallback: settings.fallback,
            last_replica: self.last_replica,
            avoid: tried.avoid,
            level: quest.consistency.level,
            needs,
            patience: quest.patience(now),
        };
        (request, now)
    }

    /// Of what it has just made, the session's reads must know what it is.
    pub(super) fn catalog_is_unsure(&self) -> bool {
        self.ddl_at.is_some_and(|at| !self.facts.are_newer_than(at))
    }

    fn stay(&self) -> Option<Stay> {
        let held = self.held.as_ref()?;
        Some(if held.lease.status != TransactionStatus::Idle {
            Stay::Transaction
        } else if self.pipeline_open {
            Stay::Pipeline
        } else if self.mode == PoolMode::Session {
            Stay::SessionMode
        } else {
            Stay::Pinned
        })
    }

    pub(super) fn refusal(&self, refusal: Refusal, quest: &Quest) -> Error {
        let cluster = &self.cluster.config.name;
        let view = self.view();
        if let Some(alarm) = view.alarm.filter(|_| refusal != Refusal::Behind) {
            let message = format!("cluster {cluster:?} has no primary: {}", alarm.message(&view));
            return Error::new(Fault::Node, sqlstate::CANNOT_CONNECT_NOW, message);
        }
        let (message, hint) = match refusal {
            Refusal::Behind => return self.unmet(&view, &self.needs(quest), quest),
            Refusal::NoPrimary => (
                format!("cluster {cluster:?} has no primary to write to"),
                "The server log and causeway_node_up say which nodes are reachable and what they are.",
            ),
            Refusal::NoReplica if self.worker.shared.config.routing.fallback == Fallback::Primary => (
                format!("cluster {cluster:?} has no replica within routing.max_lag, and no primary to read from"),
                "While no primary answers nobody knows what replicas lack: a longer routing.max_lag keeps them readable.",
            ),
            Refusal::NoReplica => (
                format!(
                    "cluster {cluster:?} has no replica within routing.max_lag, and routing.fallback allows no other"
                ),
                "Set routing.fallback = \"primary\", or raise routing.max_lag and routing.max_lag_bytes.",
            ),
        };
        Error::new(Fault::Node, sqlstate::CANNOT_CONNECT_NOW, message).hint(hint)
    }

    /// What outlives a transaction must not be left on a replica, where later writes could not follow.
    fn check_lasting_effects(&self, survey: &Survey) -> Result<()> {
        let on_replica = self.held.as_ref().is_some_and(|held| held.on_replica);
        // A failed transaction takes nothing but its end: the server says so.
        let refused_anyway = self.status() == TransactionStatus::Failed && !survey.transaction_control;
        if !on_replica || refused_anyway || !survey.effects.intersects(Effects::LASTING) {
            return Ok(());
        }
        let message = "a READ ONLY transaction on a replica cannot change what outlives it in the session";
        Err(Error::new(Fault::Client, sqlstate::FEATURE_NOT_SUPPORTED, message).hint(
            "Use SET LOCAL, do it outside the transaction, or begin with /* causeway: primary */ BEGIN READ ONLY.",
        ))
    }

    /// `proof`: it is leased as a replica. False: the cluster is paused, and the gate has to be passed first.
    async fn obtain(&mut self, node: NodeId, proof: Option<Proof>, effects: Effects) -> Result<bool> {
        let on_replica = proof.is_some();
        let lease = match self.attempt(node, proof, effects) {
            Attempt::Server(lease) => lease,
            _ if !on_replica && self.cluster.gate.is_closed() => return Ok(false),
            // On the heap, because connecting needs much more state than an idle session should carry.
            attempt => match Box::pin(self.obtain_slowly(node, attempt)).await {
                // Who pauses may be about to stop the node.
                Err(error) if error.retry() == Retry::Elsewhere && !on_replica && self.cluster.gate.is_closed() => {
                    return Ok(false);
                }
                leased => leased?,
            },
        };
        // Only now, so that nobody who has looked before the gate was closed uses a server after it.
        if !on_replica && self.cluster.gate.is_closed() {
            lease.release(self.now.get());
            return Ok(false);
        }
        if on_replica {
            self.last_replica = Some(node);
        }
        self.held = Some(Held {
            lease,
            node,
            on_replica,
            proven: false,
            guard: None,
            spill: None,
            unnamed_here: false,
            cancelled: false,
            wrote: false,
            owes: false,
            own_names: Vec::new(),
        });
        Ok(true)
    }

    /// A session finds its sequences where it left them, and leaves those of others alone, as far as servers go.
    fn attempt(&self, node: NodeId, proof: Option<Proof>, effects: Effects) -> Attempt<Server> {
        let (pool, worker, session) = (&self.pools.pools()[node.index()], self.worker.id, self.registration.session);
        if effects.intersects(Effects::CURRVAL) {
            pool.attempt_fitting(worker, false, |server| server.sequences_of == session)
        } else if effects.intersects(Effects::SEQUENCE) {
            pool.attempt_fitting(worker, true, |server| [0, session].contains(&server.sequences_of))
        } else if let Some(Proof::Own(at) | Proof::Sample(at)) = proof {
            // One that the proof holds for.
            pool.attempt_fitting(worker, false, |server| server.connected_at() <= at)
        } else {
            pool.attempt(worker)
        }
    }

    /// Waits for a server to be connected or to become free.
    async fn obtain_slowly(&mut self, node: NodeId, attempt: Attempt<Server>) -> Result<Lease<Server>> {
        // Who waits is load too: without it a long queue would look like a quiet node.
        let _queued = self.cluster.load(node).begin(self.worker.id, Instant::now());
        let slot = &self.registration.slot;
        slot.waits();
        let leased = tokio::select! {
            leased = self.cluster.while_reachable(node, self.pools.finish(node, self.worker.id, attempt)) => leased,
            error = slot.cancelled_while_waiting() => Err(self.seat.seat().overdue().unwrap_or(error)),
        };
        slot.is_done();
        self.now.set(Instant::now());
        leased.inspect_err(|error| {
            // The node is not there, or says that it is starting or ending; other refusals say nothing against it.
            if error.sqlstate().starts_with("08") || error.sqlstate().starts_with("57P") {
                self.cluster.topology.report_failure(node);
            }
        })
    }

    /// One try on the server that is held.
    async fn try_once(
        &mut self,
        task: &mut Task,
        reason: Reason,
        tried: &mut Tried,
        quest: &mut Quest,
    ) -> Result<Result<Try>, Ended> {
        let skipped = self.ledger.is_skipping();
        let began = self.begins_batch();
        // Drivers prepare with a Flush, and what they run next may belong on another node.
        self.ends_at_flush =
            task.end == End::Flush && task.survey.work <= Work::Prepare && !self.pipeline_open && !skipped;
        self.ends_at_flush &= self.mode != PoolMode::Session;
        self.leave_databases(task);
        let written = match self.write_at_once(task, tried) {
            Some(written) => Ok(Some(written.shift)),
            None => match Box::pin(self.write(task, tried)).await {
                Err(Ended::Unsent(_)) => return Ok(Ok(Try::Again)),
                written => written?.map(|written| written.map(|written| written.shift)),
            },
        };
        let shift = match written {
            Ok(Some(shift)) => shift,
            Ok(None) => return Ok(Ok(Try::Again)),
            Err(error) => {
                self.take_back_unsent(skipped);
                return Ok(Err(error));
            }
        };
        let mut watch = self.watch_for(task, tried, skipped);
        watch.shift = shift;
        let (outcome, feed) = self.exchange(task.bytes, &mut watch, &mut task.survey).await;
        match outcome {
            Outcome::Settled => {
                self.note_answered(&task.survey, &watch);
                self.note_begin(&task.survey, feed.cursor);
                if matches!(watch.error.as_ref(), Some(b"0A000" | b"XX000")) {
                    self.retire_statements(task.bytes, false);
                }
                self.client.input.advance(feed.cursor);
                self.pipeline_open = task.end == End::Flush && !self.ends_at_flush || self.ledger.is_skipping();
                self.skip_to_sync = self.ends_at_flush && watch.error.is_some();
                if self.is_unsettled(&task.survey, &watch, reason) {
                    Box::pin(self.settle(&task.survey, &mut watch)).await?;
                }
                Ok(Ok(Try::Done))
            }
            Outcome::Refused | Outcome::Unwanted => {
                if watch.refused() == Some(Cause::StalePlan) {
                    // Before what the batch has defined is taken back.
                    self.retire_statements(task.bytes, true);
                }
                quest.guard_failed |= watch.refused() == Some(Cause::Behind);
                self.learn_from_refusal(&task.survey, &watch, tried, matches!(outcome, Outcome::Unwanted));
                if watch.refused() == Some(Cause::ReadOnly)
                    && tried.server != Leased::NowAsReplica
                    && let Err(error) = Box::pin(self.confirm_primary(tried)).await
                {
                    return Ok(Err(error));
                }
                Ok(Ok(Try::Again))
            }
            Outcome::ServerLost(error) => {
                self.consume(feed.cursor, feed.passing);
                Box::pin(self.survive_loss(task, &mut watch, began, error)).await.map(|()| Ok(Try::Done))
            }
            Outcome::ClientLost => {
                self.abandon_held();
                Err(Ended::ByClient)
            }
            Outcome::ClientFault(error) => {
                self.abandon_held();
                Err(Ended::Farewell(error))
            }
        }
    }

    /// Nobody may be connected to a database that is dropped, renamed or copied.
    fn leave_databases(&self, task: &Task) {
        if task.survey.effects.intersects(Effects::DDL) {
            for name in databases(&self.client.input[..task.bytes]) {
                self.cluster.pools.leave(&String::from_utf8_lossy(&name));
            }
        }
    }

    /// What is to be looked for while the batch runs.
    fn watch_for(&mut self, task: &Task, tried: &Tried, skipped: bool) -> Watch {
        let is_free = tried.server != Leased::Before && self.mode != PoolMode::Session;
        let is_first = self.begun.is_some()
            && matches!(task.end, End::Query | End::Sync)
            && !task.survey.transaction_control
            && !self.pipeline_open;
        let reruns = Reruns {
            elsewhere: task.reruns.elsewhere && tried.server == Leased::NowAsReplica,
            anew: task.reruns.anew && is_free && !tried.renewed && (task.end == End::Sync || self.ends_at_flush),
            after_loss: task.reruns.after_loss && is_free || is_first,
            moved: task.reruns.moved && (tried.server == Leased::Now && is_free || is_first) && !tried.confirmed,
        };
        let mut watch = Watch::new(reruns, task.is_open(), skipped);
        watch.survives = self.pins.is_empty() && self.mode != PoolMode::Session;
        watch.guard = self.held.as_mut().and_then(|held| held.guard.take());
        let resets = task.survey.effects.intersects(Effects::RESET) && !self.settings.login().is_empty();
        watch.withholds_ready = resets && matches!(task.end, End::Query | End::Sync) && !skipped;
        watch
    }

    /// The client has the answer: what it has seen with it, and what it has said.
    fn note_answered(&mut self, survey: &Survey, watch: &Watch) {
        if let Some(held) = self.held.as_mut().filter(|_| survey.begins.is_none()) {
            held.wrote |= survey.class != Class::Read;
        }
        if survey.work == Work::Run && survey.explain_route != ExplainRoute::Answered {
            self.note_seen();
        }
        if let Some(own) = survey.own.as_ref().filter(|_| watch.error.is_none()) {
            self.take_wishes(own, survey.begins.is_some());
        }
        if self.status() == TransactionStatus::Idle {
            self.in_transaction = None;
        }
        self.settings.hide_own();
    }

    /// Writes the batch if its server has all that it needs, as it mostly does.
    fn write_at_once(&mut self, task: &Task, tried: &Tried) -> Option<Written> {
        let held = self.held.as_ref()?;
        let is_harmless = task.reruns.elsewhere && tried.server == Leased::NowAsReplica;
        if task.survey.in_sql.is_some() || !is_harmless && held.lease.needs_sync(self.settings.current()) {
            return None;
        }
        let skipping = self.ledger.is_skipping();
        match self.write_batch(task) {
            Ok(written) if written.unproven.is_none() => return Some(written),
            Ok(written) => self.unwrite(written),
            // It will be said by who writes it again.
            Err(_) => {
                self.ledger.take_back(skipping);
                self.undo_failed();
            }
        }
        None
    }

    /// Writes the batch, after what its server must have or prove before. `None`: this replica does not do.
    async fn write(&mut self, task: &Task, tried: &mut Tried) -> Result<Result<Option<Written>>, Ended> {
        let on_fresh_replica = tried.server == Leased::NowAsReplica;
        // Where a server does not take the session's parameters, nothing must run that cannot run elsewhere instead.
        if !(task.reruns.elsewhere && on_fresh_replica)
            && let Err(error) = self.bring_up_to_date_if_idle().await?
        {
            return Ok(Err(error));
        }
        let mut brought = match &task.survey.in_sql {
            Some(in_sql) => self.bring_named_in_sql(in_sql).await?,
            None => Ok(()),
        };
        let mut proven: Vec<Arc<Statement>> = Vec::new();
        loop {
            match brought {
                Ok(()) => {}
                Err(_) if on_fresh_replica => {
                    tried.avoid = self.held.as_ref().map_or(tried.avoid, |held| tried.avoid.with(held.node));
                    self.take_back_unsent(false);
                    return Ok(Ok(None));
                }
                Err(error) => return Ok(Err(error)),
            }
            let mut written = match self.write_batch(task) {
                Ok(written) => written,
                Err(error) => return Ok(Err(error)),
            };
            let can_be_asked = self.status() != TransactionStatus::Failed && !self.pipeline_open && !task.is_open();
            // A batch that needs more statements than a server keeps would have it evicted again and again.
            let is_new = |statement: &Arc<Statement>| !proven.iter().any(|known| Arc::ptr_eq(known, statement));
            let Some(statement) = written.unproven.take().filter(|one| can_be_asked && is_new(one)) else {
                return Ok(Ok(Some(written)));
            };
            self.unwrite(written);
            // The server has it, if only the batch itself would have evicted it.
            let is_there = self.held.as_mut().is_some_and(|held| held.lease.prepared.touch(&statement));
            brought = if is_there { Ok(()) } else { self.prove(&statement, task.survey.describes).await? };
            proven.push(statement);
        }
    }
}
