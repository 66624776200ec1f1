//! Makes a read see what its level promises: asks for positions, waits for replicas, and says what could not be met.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use super::Session;
use super::causality::Seen;
use super::lead::Task;
use super::own::{Wishes, foreign};
use super::survey::Survey;
use crate::error::{Error, Fault, Result, sqlstate};
use crate::route::explain::node_in_words;
use crate::route::{Needs, Patience, Proof, Route, Standing};
use crate::sql::{Class, Hints};
use crate::topology::{Holds, NodeView, PositionSample, View};
use crate::types::{Consistency, Level, Lsn, Mutant, NodeId, OwnValue, Position, Role, show_duration};
use crate::wire::backend::TransactionStatus;

/// What a batch may see, and what was done so far to find a replica that shows it.
#[expect(clippy::struct_excessive_bools, reason = "each is a thing that was tried, and any of them may have been")]
#[derive(Clone, Copy, Debug)]
pub(super) struct Quest {
    pub(super) consistency: Consistency,
    /// The client's wish for this batch alone.
    after: Option<Position>,
    arrived: Instant,
    /// What a strong read has asked for.
    asked: Option<Position>,
    /// The session's own replica has only servers that are too young to prove anything.
    not_own: bool,
    pub(super) guard_failed: bool,
    /// The replica that the session has read on has been asked where it is since the primary was replaced.
    has_heard: bool,
    /// Nothing is to be waited for any more.
    gave_up: bool,
    /// Until when a place on the primary is waited for.
    place_until: Option<tokio::time::Instant>,
}

impl Quest {
    pub(super) fn new(consistency: Consistency, after: Option<Position>, arrived: Instant) -> Self {
        Self {
            consistency,
            after,
            arrived,
            asked: None,
            not_own: false,
            guard_failed: false,
            has_heard: false,
            gave_up: false,
            place_until: None,
        }
    }

    /// A transaction on a replica can become stricter, and never less strict than where it began.
    fn raised(mut self, raised: &Hints) -> Self {
        let (ours, theirs) = (&mut self.consistency, &raised.overrides);
        ours.level = ours.level.max(theirs.level.unwrap_or(ours.level));
        ours.max_staleness = ours.max_staleness.min(theirs.max_staleness.unwrap_or(ours.max_staleness));
        ours.causal_wait = theirs.causal_wait.unwrap_or(ours.causal_wait);
        self.after = self.after.max(raised.after);
        self
    }

    pub(super) fn arrived(&self) -> Instant {
        self.arrived
    }

    fn deadline(&self) -> Instant {
        self.arrived + self.consistency.causal_wait
    }

    /// The cluster has changed: what did not help before may help now.
    pub(super) fn take_heart(&mut self) {
        (self.not_own, self.guard_failed, self.has_heard, self.gave_up) = (false, false, false, false);
    }

    pub(super) fn patience(&self, now: Instant) -> Patience {
        let wait = if self.gave_up { Duration::ZERO } else { self.deadline().saturating_duration_since(now) };
        Patience { guard: !self.guard_failed, wait }
    }
}

/// How long at least is waited where nobody else can serve.
const UNMOVABLE_WAIT: Duration = Duration::from_secs(1);

/// A replica that answers probes tells where it is much sooner.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

/// Whoever waits for a replica decides again so often.
const RECONSIDERED: Duration = Duration::from_millis(20);

/// A read is held up for so long at most, so that its session can move.
const WORTH_MOVING: Duration = Duration::from_millis(100);

/// How long sessions that stay on their replicas choose again, once in each of the worker's ticks.
const SPREADING: Duration = Duration::from_secs(10);

/// Whether a server of a replica can serve a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Fits,
    /// It tells by itself whether it has replayed this much.
    Guarded(Lsn),
    /// It was connected after what proves something of its node.
    TooYoung,
    /// It was connected after all that is known of its node: that may have restarted, and be further back than it was.
    Untried,
}

/// What a spilled read holds while it runs.
#[derive(Debug)]
pub(super) enum Place {
    Unlimited,
    Limited(OwnedSemaphorePermit),
}

impl Session {
    /// What was promised to this batch.
    ///
    /// # Errors
    /// Nothing is, because the session was given a level that there is not.
    pub(super) fn quest(&self, survey: &Survey) -> Result<Quest> {
        let promised = match self.settings.own.consistency() {
            // A write goes to the primary all the same, and it may be what mends the setting.
            Err(_) if survey.class == Class::Write => self.settings.own.last_consistency(),
            promised => promised?,
        };
        let hints = survey.own.as_ref().map(|own| own.hints).unwrap_or_default();
        let wishes = self.in_transaction.as_deref().filter(|_| self.status() != TransactionStatus::Idle);
        Ok(match wishes {
            Some(Wishes { begun, raised }) => {
                let promised = begun.overrides.over(promised);
                Quest::new(hints.overrides.over(promised), hints.after, self.now.get()).raised(raised)
            }
            None => Quest::new(hints.overrides.over(promised), hints.after, self.now.get()),
        })
    }

    pub(super) fn needs(&self, quest: &Quest) -> Needs {
        let Consistency { level, max_staleness, .. } = quest.consistency;
        let mut needs = self.causality.needs(level, max_staleness, quest.arrived, quest.asked);
        needs.position = needs.position.max(quest.after);
        if quest.not_own {
            needs.own = None;
        }
        needs
    }

    /// Replaces what the session has seen on the primary by a position, where one is known already.
    pub(super) fn resolve_for_nothing(&mut self) {
        let sample = match self.causality.seen() {
            Some(Seen::Primary { node, at }) => self.cluster.topology.sample_of(node, at),
            Some(Seen::Unproven { at }) => self.cluster.topology.primary_position(at),
            Some(Seen::Replica { .. }) | None => None,
        };
        if let Some(sample) = sample {
            self.causality.resolve(sample.position);
        }
    }

    /// A session that reads on a replica stays there, because that costs no proof. When another one has come back since
    /// it chose, it is to choose again, now and then until the load is spread. Gives that other one.
    pub(super) fn may_move(&mut self) -> Option<NodeId> {
        let Some(Seen::Replica { node, .. }) = self.causality.seen() else { return None };
        let view = self.view();
        let others = view.eligible().filter(|other| other.id != node);
        let newest = others.max_by_key(|other| other.serves_since)?;
        let come = newest.serves_since.filter(|come| *come > self.settled_at)?;
        let now = self.worker.now();
        if now.saturating_duration_since(come) > SPREADING {
            self.settled_at = come;
        }
        let is_due = std::mem::replace(&mut self.chose_at, now) < now;
        let own = view.node(node).map_or(f64::MAX, |own| own.load.cost(now));
        (is_due && newest.load.cost(now) < own).then_some(newest.id)
    }

    /// Moves to the other replica if that soon has all that the session can have seen; the position of its own would not
    /// do: a replica shows a commit a moment before it says that it has replayed it.
    pub(super) async fn move_to(&mut self, other: NodeId, quest: &Quest) -> Result<()> {
        let Some(seen) = self.causality.seen() else { return Ok(()) };
        let deadline = quest.arrived + quest.consistency.causal_wait.min(WORTH_MOVING);
        let deadline = tokio::time::Instant::from_std(deadline);
        let topology = &self.cluster.topology;
        let arrival = async {
            let sample = topology.ask_primary(seen.at()).await.ok()?;
            topology.wait_for_replay(sample.position, &[other], deadline).await.map(|_| sample.position)
        };
        if let Some(Some(position)) = self.patiently(arrival, deadline).await? {
            self.causality.resolve(position);
            self.last_replica = Some(other);
        }
        Ok(())
    }

    /// Does what a [`Route`] asks for before it can be decided.
    pub(super) async fn pursue(&mut self, route: Route, quest: &mut Quest) -> Result<()> {
        let deadline = tokio::time::Instant::from_std(quest.deadline());
        match route {
            Route::Ask => {
                let mut since = self.needs(quest).unknown_since.unwrap_or(quest.arrived);
                if Mutant::OldStrong.is_on() {
                    since = since.checked_sub(Duration::from_secs(60)).unwrap_or(since);
                }
                match self.patiently(self.cluster.topology.ask_primary(since), deadline).await? {
                    Some(Ok(sample)) => {
                        quest.asked = Some(sample.position);
                        self.causality.resolve(sample.position);
                    }
                    Some(Err(error)) => {
                        tracing::debug!(%error, "the primary's position could not be learned");
                        quest.gave_up = true;
                    }
                    None => quest.gave_up = true,
                }
            }
            Route::Wait(position) => {
                let view = self.view().clone();
                let nodes: Vec<NodeId> = view.eligible().map(|node| node.id).collect();
                // What the polls find may show that it is in vain.
                let until = deadline.min(tokio::time::Instant::now() + RECONSIDERED);
                let arrival = self.cluster.topology.wait_for_replay(position, &nodes, until);
                let came = self.patiently(arrival, until).await?.flatten().is_some();
                // Nobody answers.
                quest.gave_up |= !came && tokio::time::Instant::now() < until;
            }
            Route::Measure => {
                self.patiently(self.cluster.topology.refresh_staleness(deadline), deadline).await?;
                quest.gave_up = true;
            }
            Route::Stay(_) | Route::To(..) | Route::Replica(..) | Route::Refuse(_) => {}
        }
        Ok(())
    }

    /// Waits no longer than until `deadline` (`None`), or until the client cancels.
    pub(super) async fn patiently<T>(
        &self,
        work: impl Future<Output = T>,
        deadline: tokio::time::Instant,
    ) -> Result<Option<T>> {
        let slot = &self.registration.slot;
        slot.waits();
        let done = tokio::select! {
            done = self.worker.shared.timers.timeout_at(deadline, work) => Ok(done.ok()),
            error = slot.cancelled_while_waiting() => Err(error),
        };
        slot.is_done();
        self.now.set(Instant::now());
        done
    }

    /// A place on the primary for a read that belongs on a replica, or, `None`, a replica that has caught up meanwhile.
    pub(super) async fn spill(&self, quest: &mut Quest) -> Result<Option<Place>> {
        let Some(places) = &self.cluster.spill else { return Ok(Some(Place::Unlimited)) };
        if let Ok(permit) = Arc::clone(places).try_acquire_owned() {
            return Ok(Some(Place::Limited(permit)));
        }
        let routing = &self.worker.shared.config.routing;
        let deadline = *quest.place_until.get_or_insert_with(|| tokio::time::Instant::now() + routing.spill_wait);
        let (needs, guard_failed) = (self.needs(quest), quest.guard_failed);
        let served = self.cluster.topology.wait_for(|view| {
            let now = Instant::now();
            view.eligible().any(|node| match needs.standing(node, &view.history, now) {
                Standing::Serves(Proof::Expected) => !guard_failed,
                standing => matches!(standing, Standing::Serves(_)),
            })
        });
        let place = async {
            tokio::select! {
                permit = Arc::clone(places).acquire_owned() => permit.ok().map(Place::Limited),
                _ = served => None,
            }
        };
        self.patiently(place, deadline).await?.ok_or_else(|| {
            self.worker.shared.metrics.refused("spill").inc();
            let message = format!(
                "no replica of cluster {:?} can serve this read now, and as many reads as routing.max_spilled_reads \
                 allows ({}) run on its primary in their place",
                self.cluster.config.name, routing.max_spilled_reads
            );
            Error::new(Fault::Limit, sqlstate::CANNOT_CONNECT_NOW, message).hint(
                "Raise routing.max_spilled_reads or routing.spill_wait, or lower causeway.consistency for this read.",
            )
        })
    }

    /// Whether the proof holds for the server that was just leased.
    ///
    /// # Errors
    /// What the session has seen may be lost.
    pub(super) fn fit(&mut self, proof: Proof, node: NodeId, connected_at: Instant, quest: &mut Quest) -> Result<Fit> {
        let view = self.view();
        match proof {
            Proof::Needless => {
                let sampled_at = view.node(node).and_then(|node| node.sampled_at);
                Ok(if sampled_at >= Some(connected_at) { Fit::Fits } else { Fit::Untried })
            }
            Proof::Own(at) | Proof::Sample(at) if connected_at <= at => Ok(Fit::Fits),
            // Somebody's connection is old enough, so the node has not restarted since the session read there.
            Proof::Own(at) if let Some(sample) = unbroken(&view, node, at) => {
                Ok(if sample.sent_at >= connected_at { Fit::Fits } else { Fit::Untried })
            }
            Proof::Own(_) => {
                quest.not_own = true;
                let timeline = self.causality.timeline();
                if view.epoch.is_some_and(|epoch| timeline < epoch.timeline) {
                    self.causality.forget();
                    return Err(
                        self.lost(&format!("the replica that it read on timeline {timeline} has restarted since"))
                    );
                }
                Ok(Fit::TooYoung)
            }
            Proof::Sample(_) | Proof::Expected => {
                Ok(self.needs(quest).position.map_or(Fit::Fits, |position| Fit::Guarded(position.lsn)))
            }
        }
    }

    /// Waits until the node of an untried server has been asked how far it is. False: it does not say.
    pub(super) async fn try_node(&self, node: NodeId, connected_at: Instant) -> Result<bool> {
        self.cluster.topology.probe_now(node);
        let is_known = |view: &View| view.node(node).is_none_or(|node| node.sampled_at >= Some(connected_at));
        let known = self.cluster.topology.wait_for(|view| is_known(view) || view.is_unreachable(node));
        let deadline = tokio::time::Instant::from_std(connected_at.max(Instant::now()) + UNMOVABLE_WAIT);
        Ok(self.patiently(known, deadline).await?.is_some_and(|view| is_known(&view)))
    }

    /// In a transaction on a replica, a read that needs more than that the session has read there: it waits there.
    pub(super) async fn prove_held(&mut self, task: &Task, quest: &mut Quest) -> Result<()> {
        let Some(held) = self.held.as_ref().filter(|held| held.on_replica) else { return Ok(()) };
        let (node, connected_at) = (held.node, held.lease.connected_at());
        let reads = task.survey.reads_data() && self.status() == TransactionStatus::InTransaction;
        if !reads {
            return Ok(());
        }
        // It cannot go elsewhere, and what it could have instead is an error.
        quest.consistency.causal_wait = quest.consistency.causal_wait.max(UNMOVABLE_WAIT);
        loop {
            let view = self.view().clone();
            let needs = self.needs(quest);
            let now = Instant::now();
            let standing = view.node(node).map(|node| needs.standing(node, &view.history, now));
            let route = match standing {
                Some(Standing::Serves(Proof::Needless | Proof::Own(_))) => return Ok(()),
                Some(Standing::Serves(Proof::Sample(at))) if connected_at <= at => return Ok(()),
                _ if quest.patience(now).wait.is_zero() => return Err(self.unmet(&view, &needs, quest)),
                Some(Standing::Unknown) => Route::Ask,
                Some(Standing::Stale) => Route::Measure,
                _ => match needs.position {
                    Some(position) => Route::Wait(position),
                    None => return Ok(()),
                },
            };
            Box::pin(self.pursue(route, quest)).await?;
        }
    }

    /// Notes whose state the client has seen with a batch that has been answered.
    pub(super) fn note_seen(&mut self) {
        let Some(held) = &self.held else { return };
        let now = self.now.get();
        let timeline = self.view().epoch.map_or(0, |epoch| epoch.timeline);
        if held.on_replica {
            self.causality.read_on_replica(held.node, timeline, held.proven, now);
        } else {
            self.causality.ran_on_primary(held.node, timeline, now);
            self.cluster.topology.note_use_of_primary();
        }
    }

    /// What the session has seen must be in the history of the primary that is accepted now, and what tokens name, too.
    /// It is said once if it is not, or if nobody can know. Gives a replica that has to be heard before that is said.
    pub(super) fn check_history(&mut self, class: Class, quest: &Quest) -> Result<Option<NodeId>> {
        let view = self.view();
        let Some(epoch) = view.epoch else { return Ok(None) };
        let timeline = self.causality.timeline();
        let promised = quest.consistency.level >= Level::Session;
        if let Some(seen) = self.causality.seen().filter(|_| promised && timeline < epoch.timeline) {
            let sample = seen.node().and_then(|node| self.cluster.topology.sample_of(node, seen.at()));
            match sample.map(|sample| sample.position).filter(|position| position.timeline < epoch.timeline) {
                Some(position) => self.causality.resolve(position),
                // It was promoted, or follows the one that was.
                None if seen
                    .node()
                    .and_then(|node| view.node(node))
                    .is_some_and(|n| continues(&view, n, seen.at())) => {}
                None => {
                    if let Seen::Replica { node, .. } = seen
                        && !quest.has_heard
                        && !view.is_unreachable(node)
                    {
                        return Ok(Some(node));
                    }
                    self.causality.forget();
                    return Err(self.lost(&format!(
                        "the primary of timeline {timeline} was replaced before its last position was learned"
                    )));
                }
            }
        }
        if let Some(floor) = self.causality.floor().filter(|_| promised)
            && let Err(error) = self.check_position(floor, epoch.timeline)
        {
            self.causality.forget();
            return Err(error);
        }
        // A write goes to the primary all the same, and it may be what takes the token back.
        if class == Class::Write {
            return Ok(None);
        }
        if let Some(after) = self.causality.after()
            && let Err(error) = self.check_position(after, epoch.timeline)
        {
            if error.sqlstate() == sqlstate::SERIALIZATION_FAILURE {
                self.settings.own.choose(OwnValue::After(None));
                self.causality.set_after(None);
            }
            return Err(error);
        }
        quest.after.map_or(Ok(()), |after| self.check_position(after, epoch.timeline))?;
        Ok(None)
    }

    /// The primary was replaced after the session had read on a replica that has not told since where it is: it is asked,
    /// and then the history is checked for good.
    pub(super) async fn hear(&mut self, replica: NodeId, class: Class, quest: &mut Quest) -> Result<()> {
        let Some(at) = self.causality.seen().map(Seen::at) else { return Ok(()) };
        let topology = &self.cluster.topology;
        let has_told = |view: &View| {
            view.is_unreachable(replica)
                || topology.sample_of(replica, at).is_some()
                || view.node(replica).is_some_and(|node| continues(view, node, at))
        };
        topology.probe_now(replica);
        let deadline = tokio::time::Instant::now() + HEARD_WITHIN;
        self.patiently(topology.wait_for(has_told), deadline).await?;
        quest.has_heard = true;
        self.check_history(class, quest).map(drop)
    }

    /// # Errors
    /// The position is not in the history of the primary of `timeline`, which is accepted now.
    fn check_position(&self, position: Position, timeline: u32) -> Result<()> {
        let Position { lsn, timeline: its, .. } = position;
        match self.view().history.holds(position) {
            Holds::Yes => Ok(()),
            Holds::Future => {
                let message = format!(
                    "the token in causeway.after is of timeline {its}, and the primary that is known is of timeline \
                     {timeline}"
                );
                Err(Error::new(Fault::Node, sqlstate::CANNOT_CONNECT_NOW, message)
                    .hint("Try again once the new primary is known."))
            }
            Holds::OtherSystem => Err(foreign(&self.cluster.config.name)),
            Holds::Lost { forked_at } => Err(self
                .lost(&format!("it reached {lsn} on timeline {its}, which timeline {timeline} left at {forked_at}"))),
            Holds::Unknown => Err(self.lost(&format!(
                "it reached {lsn} on timeline {its}, and where timeline {timeline} left that is not known"
            ))),
        }
    }

    fn lost(&self, why: &str) -> Error {
        self.worker.shared.metrics.positions(&self.cluster.config.name).lost_writes.inc();
        let message =
            "what this session wrote or read last, or was told to read after, may have been lost in a failover";
        Error::new(Fault::Node, sqlstate::SERIALIZATION_FAILURE, message)
            .detail(why.to_owned())
            .hint("This is said once: check what you need, and go on.")
    }

    /// Nobody can serve a read as promised.
    pub(super) fn unmet(&self, view: &View, needs: &Needs, quest: &Quest) -> Error {
        let Consistency { level, max_staleness, causal_wait } = quest.consistency;
        let now = Instant::now();
        let needed = match (needs.position, needs.covered_since) {
            (Some(position), _) => format!("position {} of timeline {}", position.lsn, position.timeline),
            (None, Some(_)) => format!("a staleness of at most {}", show_duration(max_staleness)),
            (None, None) => "a position of the primary that could not be learned".to_owned(),
        };
        let nodes: Vec<_> = view
            .nodes
            .iter()
            .map(|node| {
                let standing = node.eligible.is_ok().then(|| needs.standing(node, &view.history, now));
                format!("{}: {}", node.name, node_in_words(node, standing, view, now))
            })
            .collect();
        let message = format!(
            "no node of cluster {:?} can serve a read at level {:?} now: it needs {needed}",
            self.cluster.config.name,
            level.as_str()
        );
        let hint = if self.held.is_some() {
            "A transaction cannot leave its replica: begin it anew, or with /* causeway: primary */.".to_owned()
        } else {
            format!(
                "Raise causeway.causal_wait ({}), lower causeway.consistency for this read, or set routing.fallback = \
                 \"primary\".",
                show_duration(causal_wait)
            )
        };
        Error::new(Fault::Node, sqlstate::CANNOT_CONNECT_NOW, message).detail(nodes.join("; ")).hint(hint)
    }
}

/// What the node said last to a connection that was there at this instant.
fn unbroken(view: &View, node: NodeId, at: Instant) -> Option<PositionSample> {
    view.node(node)?.progress.latest().filter(|sample| sample.connected_at <= at)
}

/// The node leads the accepted history, or replays it: also if it does not serve, as long as it has not restarted since
/// the session read there.
fn continues(view: &View, node: &NodeView, at: Instant) -> bool {
    let follows = || {
        let last = unbroken(view, node.id, at)?;
        let is_of = view.history.is_of(last.position.system, last.position.timeline);
        Some(is_of && last.role() == Role::Replica)
    };
    view.primary == Some(node.id) || node.eligible.is_ok() || follows().unwrap_or(false)
}
