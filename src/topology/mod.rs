//! What the nodes are doing: probes and lag, published as one immutable view.
//!
//! Every node has a task that probes it over a control connection. What it finds goes into the tracker, a state
//! machine without I/O that judges all nodes and gives a new [`View`]. Workers read the view without waiting; a
//! session that finds a node dead says so with [`Topology::report_failure`], which counts at once.
//!
//! What probes find is too old for a session that has just written. So there is a cheaper question, for the position
//! alone: the primary is asked whenever a session wants to know ([`Topology::ask_primary`]), replicas while one waits
//! for them ([`Topology::wait_for_replay`]); all who want to know share the questions. The answers are in the node's
//! [`Progress`] at once, and count in the next view.

mod catalog;
mod control;
mod election;
mod facts;
mod fate;
mod follower;
mod history;
mod journal;
mod lineage;
mod load;
mod nudge;
mod oracle;
mod poller;
mod probe;
mod progress;
mod promote;
mod question;
mod samples;
mod tracker;
mod view;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_postgres_rustls::MakeRustlsConnect;

pub use facts::{Facts, FactsStore, Loaded};
pub use fate::{Fate, Xact};
pub use follower::{Follower, ViewHere};
pub use history::{Fork, History, Holds, Lineage};
pub use load::{InFlight, NodeLoad};
pub use oracle::PositionError;
pub use progress::{PositionSample, Progress};
pub use promote::PromoteError;
pub use view::{Alarm, Claimant, Dispute, Epoch, Ineligible, NodeView, View};

use crate::config;
use crate::error::{Error, Fault, sqlstate};
use crate::metrics::{Metrics, NodeStatus, PositionMetrics};
use crate::net::dial::{Dialer, TlsConnector};
use crate::net::fence::Fence;
use crate::net::timers::Timers;
use crate::types::{Mutant, NodeId, Position, Role};
use control::{Control, ControlError, Timeouts};
use journal::log_changes;
use lineage::Genealogist;
use nudge::Nudger;
use oracle::Oracle;
use poller::Poller;
use probe::{Backoff, MAX_BACKOFF, Probed, Prober};
use question::Line;
use tracker::{Limits, Tracker};

/// Names are not looked up more often than so for their own sake.
const LOOK_UP_PAUSE: Duration = Duration::from_secs(1);

/// Watches the nodes of one cluster for as long as it lives.
pub struct Topology {
    state: Arc<Shared>,
    tls: Option<MakeRustlsConnect>,
    control_plane: Handle,
    tasks: Mutex<JoinSet<()>>,
    /// On which the fate of transactions is asked for.
    fates: Arc<[Control]>,
}

impl Topology {
    /// Starts to probe. A first view, in which no node is known yet, is there at once.
    ///
    /// # Errors
    /// TLS material of the cluster that cannot be used.
    pub fn start(
        cluster: &config::Cluster,
        probe: &config::Probe,
        routing: &config::Routing,
        network: &config::Network,
        metrics: &Arc<Metrics>,
        control_plane: &Handle,
    ) -> Result<Arc<Self>, Error> {
        let timeouts = Timeouts { connect: probe.timeout, statement: probe.timeout };
        let tls = crate::net::tls::client_config(&cluster.server_tls)?.map(MakeRustlsConnect::new);
        let timers = Timers::of(control_plane);
        let connector = TlsConnector::new(&cluster.server_tls)?;
        let dialer = |node: &config::Node| Arc::new(Dialer::new(&node.address, &connector, network, &timers));
        let dialers: Box<[Arc<Dialer>]> = cluster.nodes.iter().map(dialer).collect();
        // A connection for each purpose, made when it is needed: nobody waits for what somebody else asks.
        let controls = || {
            let control = |(node, dialer): (&config::Node, &Arc<Dialer>)| {
                let control = Control::new(cluster, node, &cluster.control.database, timeouts, tls.clone());
                let control = control.map_err(|e| {
                    let message = format!("control connections to node {} cannot be set up", node.name);
                    Error::new(Fault::Proxy, sqlstate::INTERNAL_ERROR, message).source(e)
                })?;
                Ok(control.following(dialer))
            };
            cluster.nodes.iter().zip(&dialers).map(control).collect::<Result<Box<[Control]>, Error>>()
        };
        let state = Arc::new(Shared::new(cluster, probe, routing, metrics, timers.clone(), dialers.clone()));
        let mut tasks = JoinSet::new();
        for ((id, control), dialer) in (0_u16..).map(NodeId).zip(controls()?).zip(&dialers) {
            let node = cluster.nodes.get(id.index()).map_or("?", |node| &node.name);
            let genealogist = Genealogist::new(cluster, node, dialer, probe.timeout, &timers);
            let prober = Prober::new(control, genealogist);
            if dialer.name().is_looked_up() {
                tasks.spawn_on(look_up(Arc::clone(&state), id, network.dns_max_ttl), control_plane);
            }
            tasks.spawn_on(probe_node(Arc::clone(&state), id, prober, probe.interval), control_plane);
        }
        for (id, control) in (0_u16..).map(NodeId).zip(controls()?) {
            tasks.spawn_on(poller::keep_polling(Arc::clone(&state), id, Line::new(control)), control_plane);
        }
        let lines = controls()?.into_iter().map(Line::new).collect();
        tasks.spawn_on(oracle::keep_answering(Arc::clone(&state), lines), control_plane);
        tasks.spawn_on(oracle::keep_fresh(Arc::clone(&state)), control_plane);
        tasks.spawn_on(nudge::keep_nudging(Arc::clone(&state), controls()?), control_plane);
        tasks.spawn_on(judge_regularly(Arc::clone(&state), probe.interval), control_plane);
        let fates = Arc::from(controls()?);
        let (control_plane, tasks) = (control_plane.clone(), Mutex::new(tasks));
        Ok(Arc::new(Self { state, tls, control_plane, tasks, fates }))
    }

    /// The view as it is now. Cheap: no lock, no wait.
    pub fn view(&self) -> Guard<Arc<View>> {
        self.state.view.load()
    }

    /// For a thread that looks at every query.
    pub fn follow(&self) -> Follower {
        Follower::new(Arc::clone(&self.state.view))
    }

    /// By node, the way to it, and the fence that every server of it must pass. That is raised before a view is
    /// published in which the node is fenced, and lowered before one in which it is not any more.
    pub fn ways(&self) -> impl Iterator<Item = (Arc<Dialer>, Arc<Fence>)> + '_ {
        self.state.dialers.iter().cloned().zip(self.state.fences.iter().cloned())
    }

    /// Waits until a view satisfies `wanted`, and returns it. Cancel safe.
    pub async fn wait_for(&self, wanted: impl Fn(&View) -> bool) -> Arc<View> {
        self.state.wait_for(wanted).await
    }

    /// Becomes ready with every new view.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.state.published.subscribe()
    }

    /// A session found that the node refuses connections, broke one or let one time out: it leaves the view before
    /// this returns, and is probed at once. An error that the node sent is no such failure. Callable from any thread.
    pub fn report_failure(&self, id: NodeId) {
        if !self.view().is_unreachable(id) {
            self.state.fail(id, &ControlError::Answer("a session found it dead"));
            self.probe_now(id);
        }
    }

    /// A session lost a server in a way that says nothing sure of its node: an administrator may have ended that one
    /// alone. The node stays in the view, and is probed at once. Callable from any thread.
    pub fn probe_now(&self, id: NodeId) {
        self.state.probe_now(id);
    }

    /// A position of the accepted primary that is known already, from a question sent at or after `since`. No wait.
    pub fn primary_position(&self, since: std::time::Instant) -> Option<PositionSample> {
        let view = self.view();
        let known = view.node(view.primary?)?.progress.latest()?;
        let fits = view.history.is_of(known.position.system, known.position.timeline) && known.role() == Role::Primary;
        Some(known).filter(|known| fits && (known.sent_at >= since || Mutant::OldPosition.is_on()))
    }

    /// A position of the accepted primary from a question sent at or after `since`, with proof that it is still the
    /// primary: it writes, on the accepted timeline. All who wait share one question in flight; whoever comes too
    /// late for it waits for the next. Cancel safe, and callable from any runtime.
    ///
    /// # Errors
    /// There is no primary, or it did not answer within `probe.timeout`.
    pub async fn ask_primary(&self, since: std::time::Instant) -> Result<PositionSample, PositionError> {
        match self.primary_position(since) {
            Some(known) => Ok(known),
            None => self.state.oracle.ask(since, self.state.patience, &self.state.timers).await,
        }
    }

    /// The first of `nodes` that says, from now on, that it has replayed `wanted`; its sample is then in
    /// [`NodeView::progress`]. `None`: not `until` then, or none of them answers. All who wait for a node share its
    /// polls. What the primary has not flushed is made to flow. Cancel safe, and callable from any runtime.
    pub async fn wait_for_replay(
        &self,
        wanted: Position,
        nodes: &[NodeId],
        until: tokio::time::Instant,
    ) -> Option<NodeId> {
        self.state.wait_for_replay(wanted, nodes, until).await
    }

    /// A position that covers all that the node had shown by `since`, even if it was a primary that has been replaced
    /// meanwhile. `None`: nobody asked it in time, or it may have restarted in between.
    pub fn sample_of(&self, id: NodeId, since: std::time::Instant) -> Option<PositionSample> {
        self.view().node(id)?.progress.covering(since)
    }

    /// Measures all replicas now: asks the primary, then each replica once, and publishes what each says as it comes.
    /// Returns when all have answered, or at `until`. Whoever calls it meanwhile shares the questions. Cancel safe.
    pub async fn refresh_staleness(&self, until: tokio::time::Instant) {
        let since = std::time::Instant::now();
        // Without an answer the replicas are measured by the positions that are known.
        let _ = self.state.timers.timeout_at(until, self.ask_primary(since)).await;
        let view = self.state.view.load_full();
        let replicas = view.nodes.iter().filter(|node| node.role == Some(Role::Replica) && !node.is_unreachable());
        let replicas: Vec<NodeId> = replicas.map(|node| node.id).collect();
        self.state.poll_once(&replicas, until).await;
    }

    /// What became of a transaction whose commit was not answered. Returns by `until`. Callable from any runtime.
    pub async fn fate_of(&self, xact: Xact, until: std::time::Instant) -> Fate {
        let finding = fate::find(Arc::clone(&self.state), Arc::clone(&self.fates), xact, until);
        // Workers have no timers. The task ends by itself, at `until` at the latest.
        self.control_plane.spawn(finding).await.unwrap_or(Fate::Unknown("Causeway is shutting down"))
    }

    /// A session has seen what the primary shows now.
    pub fn note_use_of_primary(&self) {
        self.state.oracle.note_use();
    }

    /// Stops probing. The last view stays.
    pub fn shutdown(&self) {
        self.tasks.lock().abort_all();
    }
}

/// What the tasks share with the readers.
struct Shared {
    cluster: String,
    tracker: Mutex<Tracker>,
    view: Arc<ArcSwap<View>>,
    published: watch::Sender<()>,
    /// By node: probe now.
    wake: Box<[Notify]>,
    /// By node.
    fences: Box<[Arc<Fence>]>,
    dialers: Box<[Arc<Dialer>]>,
    oracle: Oracle,
    /// Sessions wait on runtimes that have none.
    timers: Timers,
    poller: Poller,
    nudger: Nudger,
    /// How long somebody waits for the primary's answer.
    patience: Duration,
    metrics: Arc<Metrics>,
    positions: PositionMetrics,
}

impl Shared {
    fn new(
        cluster: &config::Cluster,
        probe: &config::Probe,
        routing: &config::Routing,
        metrics: &Arc<Metrics>,
        timers: Timers,
        dialers: Box<[Arc<Dialer>]>,
    ) -> Self {
        let limits = Limits {
            max_lag: routing.max_lag,
            max_lag_bytes: routing.max_lag_bytes,
            rise: probe.rise,
            // A healthy node is asked every interval and answers within the timeout; one more interval of grace.
            max_sample_age: probe.interval * 2 + probe.timeout,
        };
        let nodes = cluster.nodes.iter().map(|node| {
            let load = NodeLoad::new(metrics.node(&cluster.name, &node.name));
            (Arc::from(node.name.as_str()), Arc::new(load))
        });
        let mut tracker = Tracker::new(nodes, limits);
        let view = tracker.judge(Instant::now().into_std());
        Self {
            cluster: cluster.name.clone(),
            tracker: Mutex::new(tracker),
            view: Arc::new(ArcSwap::from_pointee(view)),
            published: watch::Sender::new(()),
            wake: cluster.nodes.iter().map(|_| Notify::new()).collect(),
            fences: cluster.nodes.iter().map(|_| Arc::default()).collect(),
            dialers,
            oracle: Oracle::default(),
            timers,
            poller: Poller::new(cluster.nodes.len()),
            nudger: Nudger::default(),
            patience: probe.timeout,
            metrics: Arc::clone(metrics),
            positions: metrics.positions(&cluster.name),
        }
    }

    async fn wait_for(&self, wanted: impl Fn(&View) -> bool) -> Arc<View> {
        let mut published = self.published.subscribe();
        loop {
            let view = self.view.load_full();
            // The sender lives in `self`, so it cannot be gone; if it were, the last view would be the answer.
            if wanted(&view) || published.changed().await.is_err() {
                return view;
            }
        }
    }

    fn record(&self, id: NodeId, Probed { sample, lineage }: Probed) {
        let mut tracker = self.tracker.lock();
        if let Some(lineage) = lineage {
            tracker.tell_lineage(id, lineage);
        }
        tracker.record(id, sample);
        self.publish(&mut tracker);
    }

    /// A node told its position, between two probes. The next view counts it; those who look at the node's progress
    /// see it at once.
    fn observe(&self, id: NodeId, sample: PositionSample) -> PositionSample {
        if let Some(flush) = sample.flush {
            self.nudger.note_flushed(Position { lsn: flush, ..sample.position });
        }
        self.tracker.lock().observe(id, sample)
    }

    fn probe_now(&self, id: NodeId) {
        if let Some(wake) = self.wake.get(id.index()) {
            wake.notify_one();
        }
    }

    fn count_poll(&self, id: NodeId) {
        if let Some(node) = self.view.load().node(id) {
            node.load.metrics().polls.inc();
        }
    }

    /// Publishes a view that counts all samples up to `news`, unless there is one.
    fn publish_news(&self, news: std::time::Instant) {
        let mut tracker = self.tracker.lock();
        if tracker.judged_at().is_none_or(|judged_at| judged_at <= news) {
            self.publish(&mut tracker);
        }
    }

    /// Says whether that is news.
    fn fail(&self, id: NodeId, error: &ControlError) -> bool {
        let mut tracker = self.tracker.lock();
        let news = tracker.fail(id, Instant::now().into_std());
        if news {
            let view = self.view.load();
            let node = view.node(id).map_or("?", |node| &node.name);
            tracing::warn!(cluster = self.cluster, node, %error, "node is unreachable");
        } else {
            tracing::debug!(cluster = self.cluster, node = id.0, %error, "node is still unreachable");
        }
        self.publish(&mut tracker);
        news
    }

    /// Judges and publishes; under the tracker's lock, so that views are published in the order of the news.
    fn publish(&self, tracker: &mut Tracker) {
        let view = Arc::new(tracker.judge(Instant::now().into_std()));
        for node in &view.nodes {
            node.load.metrics().show(&NodeStatus {
                up: !matches!(node.eligible, Err(Ineligible::Unreachable | Ineligible::NotProbed)),
                role: node.role,
                eligible: node.eligible.is_ok(),
                fenced: node.fenced,
                lag_bytes: node.lag_bytes,
                lag_seconds: node.staleness.map(|staleness| staleness.as_secs_f64()),
            });
        }
        self.metrics.set_split_brain(&self.cluster, view.alarm.is_some());
        // Before anybody can learn of another primary.
        for (node, fence) in view.nodes.iter().zip(&self.fences) {
            if node.fenced { fence.raise() } else { fence.lower() }
        }
        let before = self.view.swap(Arc::clone(&view));
        let timeline = |view: &View| view.epoch.map(|epoch| (epoch.system, epoch.timeline));
        if timeline(&view) != timeline(&before) && before.epoch.is_some() {
            self.positions.forked(view.history.last_fork().is_some());
        }
        log_changes(&self.cluster, &before, &view);
        self.published.send_replace(());
    }
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cluster, view) = (&self.state.cluster, &self.state.view);
        f.debug_struct("Topology").field("cluster", cluster).field("view", view).finish_non_exhaustive()
    }
}

async fn probe_node(state: Arc<Shared>, id: NodeId, mut prober: Prober, interval: Duration) {
    let mut backoff = Backoff::new(interval, MAX_BACKOFF);
    let mut said = String::new();
    loop {
        let started = Instant::now();
        let next = match prober.probe().await {
            Ok(probed) => {
                backoff.reset();
                said.clear();
                state.record(id, probed);
                started + interval
            }
            Err(error) => {
                let why = error.to_string();
                if !state.fail(id, &error) && said != why {
                    // A node that was down may be starting, or in recovery for long.
                    let (cluster, view) = (&state.cluster, state.view.load());
                    let node = view.node(id).map_or("?", |node| &node.name);
                    tracing::info!(cluster, node, error = why, "node is still unreachable, for another reason");
                }
                said = why;
                Instant::now() + backoff.pause()
            }
        };
        let Some(wake) = state.wake.get(id.index()) else { return };
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = wake.notified() => {}
        }
    }
}

/// Notices that a node's host name stands for other addresses than before.
async fn look_up(state: Arc<Shared>, id: NodeId, max_ttl: Duration) {
    let Some(name) = state.dialers.get(id.index()).map(|dialer| dialer.name()) else { return };
    let mut moves = name.moves();
    loop {
        // Whoever connects meanwhile looks it up, too. If nobody answers, there is no news.
        let _ = name.addresses().await;
        if std::mem::replace(&mut moves, name.moves()) != name.moves() {
            state.fail(id, &ControlError::Answer("its host name has another address"));
            state.probe_now(id);
        }
        tokio::time::sleep(max_ttl.max(LOOK_UP_PAUSE)).await;
    }
}

/// Staleness grows and samples age even when no probe returns.
async fn judge_regularly(state: Arc<Shared>, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        state.publish(&mut state.tracker.lock());
    }
}

#[cfg(test)]
mod tests;
