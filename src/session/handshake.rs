//! From a new connection to a session: TLS, cancel requests, start-up, login, and what a client is told then.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Instant, SystemTime};

use super::batch::{Bounds, Collector};
use super::cancel::{CancelSlot, Registration, Who};
use super::census::ClientCount;
use super::cluster::Cluster;
use super::replication::{Link, Opened};
use super::seat::SeatGuard;
use super::statements::ClientStatements;
use super::visit::{Visit, Visitor, is_console};
use super::worker::{Shared, Worker};
use super::{Causality, Client, Ledger, Outbound, Own, Pins, Relay, Session, Settings, Share, Unaudited};
use crate::backend::Server;
use crate::backend::connect::ServerLogin;
use crate::backend::params::{Params, Reported};
use crate::config::{Config, Timeouts};
use crate::error::{Error, Fault, Result, Retry, sqlstate};
use crate::metrics::{CancelOutcome, LoginOutcome, Origin};
use crate::net::login::LoginIo;
use crate::net::stream::Stream;
use crate::net::tls::{Acceptor, Opening};
use crate::pool::set::PoolSet;
use crate::pool::{Lease, Limits};
use crate::topology::{NodeView, View};
use crate::types::PoolMode;
use crate::wire::backend::{
    Authentication, Severity, TransactionStatus, put_authentication, put_backend_key, put_error, put_parameter_status,
    put_ready,
};
use crate::wire::startup::{CancelKey, First, Replication, Startup, parse};

/// What a listener allows.
#[derive(Clone, Debug)]
pub struct Door {
    pub acceptor: Option<Acceptor>,
    pub tls_required: bool,
}

/// Serves one connection from its first byte to its last. One that wants the admin console is given back for it.
pub async fn accept(
    worker: Rc<Worker>,
    stream: Stream,
    door: Arc<Door>,
    mut count: ClientCount,
) -> Option<Box<Visitor>> {
    if count.is_one_too_many() {
        worker.shared.metrics.login(LoginOutcome::TooMany);
        return None;
    }
    let connected = worker.shared.metrics.client();
    // On the heap, so that it goes when the session begins: an idle session should be small.
    match Box::pin(come_in(&worker, stream, &door, &mut count)).await {
        Some(Life::Session(mut session)) => session.run().await,
        Some(Life::Replication(link)) => Box::pin(link.run()).await,
        Some(Life::Console(visit)) => return Some(Visitor::new(&worker.shared, *visit, (connected, count))),
        None => {}
    }
    drop((connected, count));
    None
}

/// Logs a client in, as long as it takes no more than its share of time.
async fn come_in(worker: &Rc<Worker>, stream: Stream, door: &Door, count: &mut ClientCount) -> Option<Life> {
    let shared = &worker.shared;
    let now = Instant::now();
    let room = count.is_within_limit() || worker.logins.make_room(now);
    let login = room.then(|| worker.logins.begin(now));
    let entering = enter(worker, LoginIo::new(stream), door, count, room);
    let entering = shared.timers.timeout(shared.config.limits.client_login_timeout, entering);
    let makes_room = async {
        match &login {
            Some(login) => login.must_make_room().await,
            None => pending().await,
        }
    };
    let outcome = tokio::select! {
        biased;
        entered = entering => {
            if let Ok(life) = entered {
                return life;
            }
            tracing::info!("a client did not log in within limits.client_login_timeout");
            LoginOutcome::TimedOut
        }
        () = makes_room => {
            tracing::info!("a client that was slow to log in made room for another: limits.max_client_conn is reached");
            LoginOutcome::MadeRoom
        }
    };
    shared.metrics.login(outcome);
    None
}

/// What a connection becomes once its client is logged in.
enum Life {
    Session(Box<Session>),
    Replication(Box<Link>),
    Console(Box<(Visit, LoginIo)>),
}

async fn enter(worker: &Rc<Worker>, io: LoginIo, door: &Door, count: &mut ClientCount, room: bool) -> Option<Life> {
    let (mut io, first) = open(worker, io, door).await?;
    let startup = match first {
        First::Startup(startup) => startup,
        First::Cancel(key) => {
            cancel(&worker.shared, &key).await;
            return None;
        }
        First::Ssl | First::GssEnc => return None,
    };
    let admitted = match log_in(worker, &mut io, door, (count, room), &startup).await {
        Ok(admitted) => admitted,
        Err(error) => {
            turn_away(worker, io, &error).await;
            return None;
        }
    };
    worker.shared.metrics.login(LoginOutcome::Ok);
    if io.write(&admitted.welcome()).await.is_err() {
        return None;
    }
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let (timeouts, slot) = admitted.limits();
    let seated = |io: LoginIo| {
        let (stream, input) = io.into_parts();
        let client = Client { stream, input, discard: 0, received_bytes: 0, share: Share::default() };
        (client, worker.seat(waker, timeouts, slot))
    };
    Some(match admitted {
        Admitted::Session(guest) => {
            let (client, seat) = seated(io);
            Life::Session(Box::new(guest.into_session(worker, client, seat)))
        }
        Admitted::Replication(opened) => {
            let (client, seat) = seated(io);
            Life::Replication(Box::new((*opened).into_link(worker, client, seat)))
        }
        Admitted::Console(visit) => Life::Console(Box::new((*visit, io))),
    })
}

/// Answers requests for encryption until the client says what it wants. `None`: it is gone, or was turned away.
async fn open(worker: &Worker, mut io: LoginIo, door: &Door) -> Option<(LoginIo, First)> {
    if let Some(acceptor) = &door.acceptor
        && io.opens_with_tls().await.ok()?
    {
        io = shake_hands(io, acceptor, Opening::Direct).await?;
    }
    loop {
        match (next_request(&mut io).await, &door.acceptor) {
            (Ok(None), _) => return None,
            (Ok(Some(First::Ssl)), Some(acceptor)) if !io.stream().is_tls() => {
                io = shake_hands(io, acceptor, Opening::Request).await?;
            }
            (Ok(Some(First::Ssl | First::GssEnc)), _) => io.write(b"N").await.ok()?,
            (Ok(Some(first)), _) => return Some((io, first)),
            (Err(error), _) => {
                turn_away(worker, io, &error).await;
                return None;
            }
        }
    }
}

async fn next_request(io: &mut LoginIo) -> Result<Option<First>> {
    io.read_startup().await?.map(|packet| parse(&packet)).transpose()
}

async fn shake_hands(io: LoginIo, acceptor: &Acceptor, opening: Opening) -> Option<LoginIo> {
    match io.accept_tls(acceptor, opening).await {
        Ok(io) => Some(io),
        Err(error) => {
            tracing::info!(%error, "a TLS handshake with a client failed");
            None
        }
    }
}

async fn cancel(shared: &Shared, key: &CancelKey) {
    let outcome = match shared.cancels.cancel(key).await {
        Ok(true) => CancelOutcome::Forwarded,
        Ok(false) => CancelOutcome::UnknownKey,
        Err(error) => {
            tracing::warn!(%error, "a cancel request could not be passed on");
            CancelOutcome::Failed
        }
    };
    shared.metrics.cancel(outcome);
}

async fn turn_away(worker: &Worker, mut io: LoginIo, error: &Error) {
    tracing::info!(%error, peer = %io.stream().peer(), "a client was turned away");
    let metrics = &worker.shared.metrics;
    metrics.error(Origin::Causeway, error.sqlstate());
    metrics.login(match (error.sqlstate(), error.fault()) {
        (sqlstate::INVALID_PASSWORD | sqlstate::INVALID_AUTHORIZATION, _) => LoginOutcome::Refused,
        (sqlstate::TOO_MANY_CONNECTIONS, Fault::Limit) => LoginOutcome::TooMany,
        (_, Fault::Node) => LoginOutcome::NoServer,
        _ => LoginOutcome::Broken,
    });
    let mut farewell = Vec::new();
    put_error(&mut farewell, Severity::Fatal, error);
    let _ = io.write(&farewell).await;
    let (mut stream, _) = io.into_parts();
    stream.shutdown().await;
}

/// A client that has proved who it is.
enum Admitted {
    Session(Guest),
    Replication(Box<Opened>),
    Console(Box<Visit>),
}

/// All that a session starts with.
struct Guest {
    cluster: Arc<Cluster>,
    pools: Arc<PoolSet>,
    registration: Registration,
    mode: PoolMode,
    timeouts: Arc<Timeouts>,
    params: Arc<Params>,
    reported: Arc<Reported>,
    own: Own,
}

async fn log_in(
    worker: &Worker,
    io: &mut LoginIo,
    door: &Door,
    (count, room): (&mut ClientCount, bool),
    startup: &Startup,
) -> Result<Admitted> {
    let shared = &worker.shared;
    if door.tls_required && !io.stream().is_tls() {
        let message = "this listener takes clients over TLS only (client_tls_sslmode = \"require\")";
        return Err(Error::new(Fault::Client, sqlstate::INVALID_AUTHORIZATION, message));
    }
    check_room(shared, worker, room)?;
    if let Some(negotiation) = startup.negotiation() {
        io.write(&negotiation).await?;
    }
    let (user, database) = (startup.user()?, startup.database()?);
    shared.users.authenticate(io, user).await?;
    let who = Who {
        user: user.to_owned(),
        database: database.to_owned(),
        replication: startup.replication()?,
        peer: io.stream().peer().clone(),
        tls: io.stream().is_tls(),
        connected_at: SystemTime::now(),
    };
    if is_console(database) {
        return Visit::new(shared, who, startup.minor() >= 2).map(|visit| Admitted::Console(Box::new(visit)));
    }
    let settings = shared.config.users.get(user).cloned().ok_or_else(|| {
        Error::new(Fault::Client, sqlstate::INVALID_AUTHORIZATION, format!("role \"{user}\" does not exist"))
    })?;
    count.admit(&shared.config, user, database)?;
    let login = ServerLogin {
        user: user.to_owned(),
        database: database.to_owned(),
        password: settings.server_password.clone(),
    };
    if who.replication != Replication::Off {
        let opened = Opened::open(shared, who, startup, &login, &settings).await?;
        return Ok(Admitted::Replication(Box::new(opened)));
    }
    let cluster = shared.cluster_of(database)?;
    if !shared.config.limits.login_during_outage && cluster.topology.view().is_dark() {
        return Err(nobody_there(cluster, &cluster.topology.view())
            .hint("limits.login_during_outage = true would let clients in meanwhile."));
    }
    let mut asked = Params::default();
    for (name, value) in startup.settings()? {
        asked.set(&name, &value);
    }
    let configured = shared.config.consistency(&cluster.config, database, user);
    let own = Own::new(configured, &mut asked, &worker.last_promise)?;
    let pools = cluster.pools.set(&login, limits(&shared.config, user, database));
    let (params, reported) = greet(worker, cluster, &pools, &asked).await?;
    let registration = shared.cancels.register(startup.minor() >= 2, who)?;
    let mode = settings.pool_mode.unwrap_or(shared.config.pool.mode);
    let cluster = Arc::clone(cluster);
    let timeouts = settings.timeouts;
    Ok(Admitted::Session(Guest { cluster, pools, registration, mode, timeouts, params, reported, own }))
}

fn check_room(shared: &Shared, worker: &Worker, room: bool) -> Result<()> {
    if worker.is_draining() {
        let message = "Causeway is shutting down";
        return Err(Error::new(Fault::Limit, sqlstate::CANNOT_CONNECT_NOW, message));
    }
    if room {
        return Ok(());
    }
    let message =
        format!("sorry, too many clients already (limits.max_client_conn = {})", shared.config.limits.max_client_conn);
    Err(Error::new(Fault::Limit, sqlstate::TOO_MANY_CONNECTIONS, message))
}

fn limits(config: &Config, user: &str, database: &str) -> Limits {
    let (pool, own) = (&config.pool, config.users.get(user));
    let size = own.and_then(|user| user.pool_size).unwrap_or(pool.size);
    let of_database = config.databases.get(database).and_then(|database| database.max_connections);
    Limits {
        size,
        min_size: pool.min_size.min(size),
        idle_timeout: pool.idle_timeout,
        lifetime: pool.lifetime,
        wait_timeout: pool.query_wait_timeout,
        login_retry: pool.login_retry,
        max_waiting: pool.max_waiting_clients,
        most_of_database: of_database.unwrap_or(pool.max_db_connections),
        most_of_user: own.and_then(|user| user.max_connections).unwrap_or(pool.max_user_connections),
    }
}

/// What the cluster answers to the client's parameters: from memory when a server has taken the same ones before.
async fn greet(
    worker: &Worker,
    cluster: &Cluster,
    pools: &PoolSet,
    asked: &Params,
) -> Result<(Arc<Params>, Arc<Reported>)> {
    let greeting = if let Some(greeting) = pools.greeting() {
        greeting
    } else {
        let lease = any_server(worker, cluster, pools).await?;
        let greeting = pools.learn_greeting(&lease.reported);
        lease.release(worker.now());
        greeting
    };
    let mut params = Params::default();
    // What a server without parameters reports already need not be set.
    for (name, value) in asked.iter().filter(|(name, value)| greeting.get(name) != Some(value)) {
        params.set(name, value);
    }
    if params.is_empty() {
        return Ok((Arc::default(), greeting));
    }
    if let Some(proven) = pools.proven(&params) {
        return Ok((Arc::clone(&proven.params), Arc::clone(&proven.reported)));
    }
    let params = Arc::new(params);
    let mut lease = any_server(worker, cluster, pools).await?;
    lease.sync(&params).await?;
    let proven = pools.learn_proven(params, &lease.reported);
    lease.release(worker.now());
    Ok((Arc::clone(&proven.params), Arc::clone(&proven.reported)))
}

/// A server of the primary, or of any node when there is none: their greetings are alike.
async fn any_server(worker: &Worker, cluster: &Cluster, pools: &PoolSet) -> Result<Lease<Server>> {
    let shared = &worker.shared;
    // Nobody answered when they were asked last, and perhaps that was long ago: this process may have been stopped.
    let asked_again = shared.config.probe.timeout + 2 * shared.config.probe.interval;
    let view = cluster.topology.wait_for(|view| !view.is_dark());
    let view = shared.timers.timeout(asked_again, view).await.unwrap_or_else(|_| cluster.topology.view().clone());
    let answering = |node: &&NodeView| node.role.is_some() && !node.is_unreachable() && !node.fenced;
    let others = || view.nodes.iter().filter(answering).map(|node| node.id).filter(|node| view.primary != Some(*node));
    // Who pauses may be about to stop the primary.
    let (first, last) = if cluster.gate.is_closed() { (None, view.primary) } else { (view.primary, None) };
    let candidates = first.into_iter().chain(others()).chain(last);
    let mut failure = None;
    for node in candidates {
        match cluster.while_reachable(node, pools.lease(node, worker.id)).await {
            Ok(lease) => return Ok(lease),
            Err(error) if error.retry() == Retry::Elsewhere => failure = Some(failure.unwrap_or(error)),
            Err(error) => return Err(error),
        }
    }
    Err(failure.unwrap_or_else(|| nobody_there(cluster, &view)))
}

fn nobody_there(cluster: &Cluster, view: &View) -> Error {
    let name = &cluster.config.name;
    let message = match view.alarm {
        Some(alarm) => format!("cluster {name:?} has no primary: {}", alarm.message(view)),
        None => format!("no node of cluster {name:?} can be reached"),
    };
    Error::new(Fault::Node, sqlstate::CANNOT_CONNECT_NOW, message)
}

impl Admitted {
    /// How long what it does may take, and where it can be cancelled. Replication goes on for as long as it likes.
    fn limits(&self) -> (Arc<Timeouts>, Option<Arc<CancelSlot>>) {
        match self {
            Self::Session(guest) => (Arc::clone(&guest.timeouts), Some(Arc::clone(&guest.registration.slot))),
            Self::Replication(_) | Self::Console(_) => (Arc::default(), None),
        }
    }

    /// What the client reads when it is in.
    fn welcome(&self) -> Vec<u8> {
        let (reported, key) = match self {
            Self::Session(guest) => (&*guest.reported, &guest.registration.key),
            Self::Replication(opened) => opened.greeting(),
            Self::Console(visit) => visit.greeting(),
        };
        let mut out = Vec::new();
        put_authentication(&mut out, &Authentication::Ok);
        for (name, value) in reported.iter() {
            // Through Causeway a session can write, whichever node said hello.
            let value = if name == b"in_hot_standby" { b"off" } else { value };
            put_parameter_status(&mut out, name, value);
        }
        put_backend_key(&mut out, key.process_id, &key.secret);
        put_ready(&mut out, TransactionStatus::Idle);
        out
    }
}

impl Guest {
    fn into_session(self, worker: &Rc<Worker>, client: Client, seat: SeatGuard) -> Session {
        let limits = &worker.shared.config.limits;
        let facts = self.cluster.facts.facts(&self.pools.login.database);
        Session {
            seat,
            facts,
            bounds: Bounds {
                max_message_bytes: limits.max_message_bytes,
                max_batch_bytes: limits.max_batch_bytes,
                skipping: false,
            },
            mode: self.mode,
            causality: Causality::new(self.own.after()),
            settings: Settings::new(self.params, self.reported, self.own),
            client,
            collector: Collector::default(),
            statements: ClientStatements::new(limits.max_client_statements),
            ledger: Ledger::default(),
            out: Outbound::default(),
            relay: Relay::default(),
            held: None,
            pins: Pins::default(),
            unaudited: Unaudited::default(),
            ddl_at: None,
            pipeline_open: false,
            skip_to_sync: false,
            ends_at_flush: false,
            lost: super::Lost::default(),
            begun: None,
            last_replica: None,
            now: Cell::new(Instant::now()),
            settled_at: Instant::now(),
            chose_at: worker.now(),
            in_transaction: None,
            cluster: self.cluster,
            pools: self.pools,
            registration: self.registration,
            worker: Rc::clone(worker),
        }
    }
}
