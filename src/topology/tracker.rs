//! From what probes found to the view: who is the primary, who may serve reads. No I/O, and time is passed in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::election::{self, Claim};
use super::history::{Fork, History, Lineage};
use super::load::NodeLoad;
use super::progress::{PositionSample, Progress};
use super::samples::PrimarySamples;
use super::view::{Alarm, Epoch, Ineligible, NodeView, View};
use crate::types::{Lsn, Mutant, NodeId, Position, Role};

/// What one probe of a node found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// When the question was sent: what it says is true of a later instant.
    pub(super) sent_at: Instant,
    /// The connection that asked is this old.
    pub(super) connected_at: Instant,
    pub(super) system: u64,
    pub(super) timeline: u32,
    /// As `server_version_num`.
    pub(super) version: u32,
    pub(super) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// `insert` is normalised.
    Primary {
        insert: Lsn,
        flush: Lsn,
        /// Where it left which timeline when it was promoted, if that is certain.
        fork: Option<Fork>,
    },
    Replica {
        replay: Lsn,
        paused: bool,
    },
}

impl Sample {
    fn role(&self) -> Role {
        match self.state {
            State::Primary { .. } => Role::Primary,
            State::Replica { .. } => Role::Replica,
        }
    }

    fn position(&self) -> Position {
        let lsn = match self.state {
            State::Primary { insert, .. } => insert,
            State::Replica { replay, .. } => replay,
        };
        Position { system: self.system, timeline: self.timeline, lsn }
    }

    fn position_sample(&self) -> PositionSample {
        let (flush, paused) = match self.state {
            State::Primary { flush, .. } => (Some(flush), false),
            State::Replica { paused, .. } => (None, paused),
        };
        PositionSample {
            sent_at: self.sent_at,
            connected_at: self.connected_at,
            position: self.position(),
            flush,
            paused,
        }
    }

    fn overtook(&self, other: &Self) -> bool {
        self.sent_at > other.sent_at && self.is_as(other.role(), other.system, other.timeline)
    }

    fn is_as(&self, role: Role, system: u64, timeline: u32) -> bool {
        (self.role(), self.system, self.timeline) == (role, system, timeline)
    }

    /// What a later question for the position alone adds; nothing, if the node has changed its role or history: the
    /// next probe tells.
    fn update(&mut self, news: &PositionSample) {
        let same = self.is_as(news.role(), news.position.system, news.position.timeline);
        if !same || news.sent_at <= self.sent_at {
            return;
        }
        (self.sent_at, self.connected_at) = (news.sent_at, news.connected_at);
        match (&mut self.state, news.flush) {
            (State::Primary { insert, flush, .. }, Some(flushed)) => (*insert, *flush) = (news.position.lsn, flushed),
            (State::Replica { replay, paused }, _) => (*replay, *paused) = (news.position.lsn, news.paused),
            (State::Primary { .. }, None) => {}
        }
    }
}

/// A node that fails within this time after it has returned is likely to fail again.
const CALM_AFTER: Duration = Duration::from_secs(60);
/// With each such failure it needs twice as many good probes to return; not more often than so.
const MAX_RELAPSES: u32 = 4;

/// When a node may serve.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_lag: Duration,
    pub(super) max_lag_bytes: u64,
    /// Good probes in a row before a node that was down serves reads again, if it does not fail again and again.
    pub(super) rise: u32,
    /// A node whose last good probe was sent longer ago than this counts as unreachable.
    pub(super) max_sample_age: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    NotProbed,
    /// Probes sent before this instant prove nothing about now.
    Down {
        since: Instant,
    },
    Returning {
        good_probes: u32,
    },
    Up,
}

#[derive(Debug)]
struct Node {
    name: Arc<str>,
    load: Arc<NodeLoad>,
    progress: Arc<Progress>,
    health: Health,
    /// When it was up again after a failure.
    returned_at: Option<Instant>,
    /// Failures in a row, each of them soon after it had returned.
    relapses: u32,
    /// The last good probe.
    sample: Option<Sample>,
    /// What it has said of the timeline that it writes on.
    lineage: Option<Lineage>,
    /// See [`NodeView::fenced`].
    fenced: bool,
    /// When it became one that serves reads; `None`: it does not.
    serves_since: Option<Instant>,
    /// Hysteresis: a node that left because of lag returns only when it is well within the limits.
    within_lag: bool,
}

impl Node {
    /// The last sample, if it still says something about now.
    fn current(&self, now: Instant, limits: &Limits) -> Option<&Sample> {
        let answers = matches!(self.health, Health::Up | Health::Returning { .. });
        self.sample
            .as_ref()
            .filter(|sample| answers && now.saturating_duration_since(sample.sent_at) <= limits.max_sample_age)
    }

    /// If it can write.
    fn claim(&self, id: NodeId, system: u64, now: Instant, limits: &Limits) -> Option<Claim<'_>> {
        let sample = self.current(now, limits).filter(|sample| sample.system == system)?;
        let State::Primary { fork, .. } = sample.state else { return None };
        let lineage = self.lineage.as_ref().filter(|lineage| lineage.timeline() == sample.timeline);
        Some(Claim { node: id, timeline: sample.timeline, lineage, seen: fork })
    }
}

/// Everything known about the nodes of a cluster.
#[derive(Debug)]
pub(super) struct Tracker {
    nodes: Vec<Node>,
    limits: Limits,
    epoch: Option<Epoch>,
    history: Arc<History>,
    /// Of the primary of `epoch`.
    samples: PrimarySamples,
    judged_at: Option<Instant>,
}

impl Tracker {
    pub(super) fn new(nodes: impl IntoIterator<Item = (Arc<str>, Arc<NodeLoad>)>, limits: Limits) -> Self {
        let nodes = nodes
            .into_iter()
            .map(|(name, load)| Node {
                name,
                load,
                progress: Arc::default(),
                health: Health::NotProbed,
                returned_at: None,
                relapses: 0,
                sample: None,
                lineage: None,
                fenced: false,
                serves_since: None,
                within_lag: true,
            })
            .collect();
        Self {
            nodes,
            limits,
            epoch: None,
            history: Arc::default(),
            samples: PrimarySamples::default(),
            judged_at: None,
        }
    }

    /// A probe answered.
    pub(super) fn record(&mut self, id: NodeId, mut sample: Sample) {
        let Some(node) = self.nodes.get_mut(id.index()) else { return };
        let rise = self.limits.rise << node.relapses;
        let good_probes = match node.health {
            Health::Down { since } if sample.sent_at < since => return,
            Health::Down { .. } => 1,
            Health::Returning { good_probes } => good_probes + 1,
            Health::NotProbed | Health::Up => rise,
        };
        let unbroken = node.health == Health::Up;
        let was_away = matches!(node.health, Health::Down { .. } | Health::Returning { .. });
        node.health = if good_probes >= rise { Health::Up } else { Health::Returning { good_probes } };
        if node.health == Health::Up && was_away {
            node.returned_at = Some(sample.sent_at);
        }
        // Without a WAL receiver a replica shows the timeline of its last restartpoint, which may lie before the one
        // that it has been seen to follow.
        if let Some(last) = node.sample.filter(|last| unbroken && last.role() == Role::Replica)
            && sample.role() == Role::Replica
            && sample.system == last.system
            && sample.position().lsn >= last.position().lsn
        {
            sample.timeline = sample.timeline.max(last.timeline);
        }
        // A question for the position alone may have overtaken the probe.
        node.sample = Some(node.sample.filter(|last| last.overtook(&sample)).unwrap_or(sample));
        let news = sample.position_sample();
        node.progress.record(news);
        self.learn(id, &news);
    }

    /// A node that can write has told its timeline's history.
    pub(super) fn tell_lineage(&mut self, id: NodeId, lineage: Lineage) {
        let Some(node) = self.nodes.get_mut(id.index()) else { return };
        let accepted = self.epoch.filter(|epoch| epoch.primary == id && epoch.timeline == lineage.timeline());
        if let Some(epoch) = accepted {
            Arc::make_mut(&mut self.history).accept_lineage(epoch.system, &lineage);
        }
        node.lineage = Some(lineage);
    }

    /// The node told its position between two probes. Gives the sample as it is to be understood.
    pub(super) fn observe(&mut self, id: NodeId, mut news: PositionSample) -> PositionSample {
        let Some(node) = self.nodes.get_mut(id.index()) else { return news };
        if let Health::Down { since } = node.health
            && news.sent_at < since
        {
            return news;
        }
        if let Some(last) = &mut node.sample {
            // As in a probe: without a WAL receiver it shows an older timeline than it has been seen to follow.
            let unbroken = news.connected_at <= last.sent_at && news.position.lsn >= last.position().lsn;
            if unbroken && news.role() == Role::Replica && last.role() == Role::Replica {
                news.position.timeline = news.position.timeline.max(last.timeline);
            }
            last.update(&news);
        }
        node.progress.record(news);
        self.learn(id, &news);
        news
    }

    /// What the primary has is what replicas will have to have.
    fn learn(&mut self, id: NodeId, news: &PositionSample) {
        let PositionSample { sent_at, position, flush: Some(flush), .. } = *news else { return };
        let accepted = self.epoch.is_some_and(|epoch| {
            (epoch.primary, epoch.system, epoch.timeline) == (id, position.system, position.timeline)
        });
        if accepted {
            self.samples.push(sent_at, position.lsn, flush);
            for (_, node) in (0_u16..).zip(&self.nodes).filter(|&(other, _)| NodeId(other) != id) {
                node.progress.expect(sent_at, position.lsn);
            }
        }
    }

    /// When the last view was made.
    pub(super) fn judged_at(&self) -> Option<Instant> {
        self.judged_at
    }

    /// A probe or a session found the node dead at `at`. Says whether that is news.
    pub(super) fn fail(&mut self, id: NodeId, at: Instant) -> bool {
        let Some(node) = self.nodes.get_mut(id.index()) else { return false };
        let news = !matches!(node.health, Health::Down { .. });
        if node.health == Health::Up {
            let soon = node.returned_at.is_some_and(|since| at.saturating_duration_since(since) < CALM_AFTER);
            node.relapses = if soon { (node.relapses + 1).min(MAX_RELAPSES) } else { 0 };
        }
        node.health = Health::Down { since: at };
        node.progress.forget(at);
        news
    }

    /// Judges every node as of `now`. Called after every piece of news, and now and then without any.
    pub(super) fn judge(&mut self, now: Instant) -> View {
        let (primary, alarm) = self.elect(now);
        self.fence(now, primary, alarm.is_some());
        self.judged_at = Some(now);
        if let Some((id, sample)) = primary.and_then(|id| Some((id, self.nodes.get(id.index())?.sample?))) {
            self.learn(id, &sample.position_sample());
        }
        let judge = Judge { now, primary, alarm, epoch: self.epoch, samples: &self.samples, limits: &self.limits };
        let nodes = (0_u16..).zip(&mut self.nodes).map(|(index, node)| judge.view(NodeId(index), node)).collect();
        View { nodes, primary, epoch: self.epoch, history: Arc::clone(&self.history), alarm }
    }

    /// The one node that may take writes. A new timeline or a first primary becomes the epoch.
    fn elect(&mut self, now: Instant) -> (Option<NodeId>, Option<Alarm>) {
        // At the start nobody is trusted before everybody was asked: a second primary may be among the others.
        if self.epoch.is_none() && self.nodes.iter().any(|node| node.health == Health::NotProbed) {
            return (None, None);
        }
        let Some(system) = self.epoch.map(|epoch| epoch.system).or_else(|| self.majority_system()) else {
            return (None, None);
        };
        let claims: Vec<Claim<'_>> = (0_u16..)
            .zip(&self.nodes)
            .filter_map(|(index, node)| node.claim(NodeId(index), system, now, &self.limits))
            .collect();
        let (primary, alarm) = election::elect(self.epoch, &self.history, &claims);
        let timeline = primary.and_then(|id| Some(claims.iter().find(|claim| claim.node == id)?.timeline));
        if let (Some(primary), Some(timeline)) = (primary, timeline) {
            self.accept(Epoch { system, timeline, primary });
        }
        (primary, alarm)
    }

    fn accept(&mut self, epoch: Epoch) {
        if self.epoch == Some(epoch) {
            return;
        }
        let before = self.epoch.replace(epoch).map(|before| before.primary);
        if let Some(node) = before.filter(|&id| id != epoch.primary).and_then(|id| self.nodes.get_mut(id.index())) {
            node.fenced = true;
        }
        let Some(node) = self.nodes.get(epoch.primary.index()) else { return };
        let history = Arc::make_mut(&mut self.history);
        match (node.lineage.as_ref().filter(|lineage| lineage.timeline() == epoch.timeline), node.sample) {
            (Some(lineage), _) => history.accept_lineage(epoch.system, lineage),
            (None, Some(Sample { state: State::Primary { fork, .. }, .. })) => {
                history.accept(epoch.system, epoch.timeline, fork);
            }
            (None, _) => history.accept(epoch.system, epoch.timeline, None),
        }
        self.samples = PrimarySamples::default();
    }

    /// Whoever can write and is not the primary is fenced. It is a matter of what was heard last: one that does not
    /// answer may well go on writing.
    fn fence(&mut self, now: Instant, primary: Option<NodeId>, disputed: bool) {
        let (epoch, limits) = (self.epoch, self.limits);
        for (id, node) in (0_u16..).map(NodeId).zip(&mut self.nodes) {
            let Some(role) = node.current(now, &limits).map(Sample::role) else { continue };
            match role {
                Role::Primary if primary == Some(id) => node.fenced = false,
                Role::Primary => node.fenced |= epoch.is_some() || disputed,
                Role::Replica => node.fenced &= !node.sample.is_some_and(|sample| follows(&sample, epoch)),
            }
        }
    }

    /// The system identifier of a primary that most nodes share; the first of several.
    fn majority_system(&self) -> Option<u64> {
        let samples = || self.nodes.iter().filter_map(|node| node.sample);
        let votes = |system: u64| samples().filter(|sample| sample.system == system).count();
        let mut best: Option<(u64, usize)> = None;
        for sample in samples().filter(|sample| sample.role() == Role::Primary) {
            let count = votes(sample.system);
            if best.is_none_or(|(_, most)| count > most) {
                best = Some((sample.system, count));
            }
        }
        best.map(|(system, _)| system)
    }
}

/// What one node is measured against.
struct Judge<'a> {
    now: Instant,
    primary: Option<NodeId>,
    alarm: Option<Alarm>,
    epoch: Option<Epoch>,
    samples: &'a PrimarySamples,
    limits: &'a Limits,
}

impl Judge<'_> {
    fn view(&self, id: NodeId, node: &mut Node) -> NodeView {
        let sample = node.sample;
        // Lag is known as long as the history is, even of a node that no longer answers.
        let followed = sample.filter(|sample| follows(sample, self.epoch)).map(|sample| sample.position().lsn);
        let covered_at = followed.and_then(|lsn| self.samples.covered_at(lsn)).map(|covered_at| match sample {
            Some(sample) if Mutant::FlatteringStaleness.is_on() => sample.sent_at,
            _ => covered_at,
        });
        let lag_bytes = followed.and_then(|lsn| self.samples.lag_bytes(lsn));
        let age = covered_at.map(|covered_at| self.now.saturating_duration_since(covered_at));
        let staleness = if self.primary == Some(id) { Some(Duration::ZERO) } else { age };
        let within_lag = check_lag(lag_bytes, staleness, node.within_lag, self.limits);
        node.within_lag = within_lag.is_ok();
        let eligible = self.eligible(node, within_lag);
        node.serves_since = eligible.is_ok().then(|| node.serves_since.unwrap_or(self.now));
        NodeView {
            id,
            name: Arc::clone(&node.name),
            role: sample.as_ref().map(Sample::role),
            position: sample.as_ref().map(Sample::position),
            sampled_at: sample.map(|sample| sample.sent_at),
            lag_bytes,
            staleness,
            covered_at,
            progress: Arc::clone(&node.progress),
            eligible,
            fenced: node.fenced,
            serves_since: node.serves_since,
            version: sample.map(|sample| sample.version),
            replay_paused: matches!(sample, Some(Sample { state: State::Replica { paused: true, .. }, .. })),
            load: Arc::clone(&node.load),
        }
    }

    fn eligible(&self, node: &Node, within_lag: Result<(), Ineligible>) -> Result<(), Ineligible> {
        let sample = match (node.health, node.current(self.now, self.limits)) {
            (Health::NotProbed, _) => return Err(Ineligible::NotProbed),
            (_, None) => return Err(Ineligible::Unreachable),
            (_, Some(sample)) => sample,
        };
        if self.epoch.is_some_and(|epoch| epoch.system != sample.system) {
            return Err(Ineligible::OtherHistory);
        }
        if sample.role() == Role::Primary {
            return Err(if node.fenced { Ineligible::Fenced } else { Ineligible::Primary });
        }
        if self.epoch.is_some() && !follows(sample, self.epoch) {
            return Err(Ineligible::OtherHistory);
        }
        // While two nodes claim one timeline, nobody knows whose history a replica replays.
        if self.alarm.is_some() {
            return Err(Ineligible::OtherHistory);
        }
        if let Health::Returning { .. } = node.health {
            return Err(Ineligible::Returning);
        }
        within_lag
    }
}

/// Positions compare only within one history.
fn follows(sample: &Sample, epoch: Option<Epoch>) -> bool {
    epoch.is_some_and(|epoch| sample.system == epoch.system && sample.timeline == epoch.timeline)
}

/// A node leaves above a limit and comes back below four fifths of it, so that it does not flap.
fn check_lag(
    bytes: Option<u64>,
    staleness: Option<Duration>,
    was_within: bool,
    limits: &Limits,
) -> Result<(), Ineligible> {
    let (max_lag, max_lag_bytes) = if was_within {
        (limits.max_lag, limits.max_lag_bytes)
    } else {
        (limits.max_lag / 5 * 4, limits.max_lag_bytes / 5 * 4)
    };
    let (Some(bytes), Some(staleness)) = (bytes, staleness) else { return Err(Ineligible::LagUnknown) };
    if bytes > max_lag_bytes {
        Err(Ineligible::LagBytes)
    } else if staleness > max_lag {
        Err(Ineligible::LagTime)
    } else {
        Ok(())
    }
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
