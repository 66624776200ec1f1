//! Replication connections: passed to the primary as they are, each on a server of its own
//! (<https://www.postgresql.org/docs/current/protocol-replication.html>).
//!
//! Bytes go both ways without being looked at, but for where the server's frames end: there Causeway can say good-bye.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::FutureExt as _;

use super::cancel::{Registration, Who};
use super::cluster::Cluster;
use super::seat::{Leave, SeatGuard};
use super::worker::{Shared, Worker};
use super::{Client, FAREWELL_LIMIT};
use crate::backend::Server;
use crate::backend::connect::{ServerLogin, connect_with};
use crate::backend::params::Reported;
use crate::config::User;
use crate::error::{Error, Fault, Result, sqlstate};
use crate::metrics::{GaugeGuard, Origin};
use crate::wire::backend::{Severity, put_error};
use crate::wire::frame::header;
use crate::wire::startup::{CancelKey, Replication, Startup};

/// A server that takes replication commands, before the client is told.
#[derive(Debug)]
pub struct Opened {
    cluster: Arc<Cluster>,
    server: Server,
    registration: Registration,
}

impl Opened {
    /// Connects to the primary with the start-up parameters of the client, who is logged in.
    ///
    /// # Errors
    /// The user may not, nobody knows which cluster is meant, there is no primary, or it refuses.
    pub async fn open(
        shared: &Shared,
        who: Who,
        startup: &Startup,
        login: &ServerLogin,
        settings: &User,
    ) -> Result<Self> {
        if !settings.replication {
            let user = &login.user;
            let message = format!("user \"{user}\" may not make replication connections");
            return Err(Error::new(Fault::Limit, sqlstate::INSUFFICIENT_PRIVILEGE, message)
                .hint(format!("Set users.{user}.replication = true, or connect to the node itself.")));
        }
        let cluster = cluster(shared, who.replication, login)?;
        let view = cluster.topology.view();
        let primary = view.primary.ok_or_else(|| {
            let message = format!("cluster {:?} has no primary to replicate from", cluster.config.name);
            Error::new(Fault::Node, sqlstate::CANNOT_CONNECT_NOW, message)
        })?;
        let ours = |name: &str| matches!(name, "user" | "database");
        let parameters: Vec<(String, Bytes)> =
            startup.parameters.iter().filter(|(name, _)| !ours(name)).cloned().collect();
        let endpoint = &cluster.pools.endpoints()[primary.index()];
        let server = connect_with(endpoint, login, &parameters).await?;
        let registration = shared.cancels.register(startup.minor() >= 2, who)?;
        registration.slot.runs(server.cancel_target());
        Ok(Self { cluster: Arc::clone(cluster), server, registration })
    }

    /// What the client is told: what the server said of itself, and how to cancel.
    pub fn greeting(&self) -> (&Reported, &CancelKey) {
        (&self.server.reported, &self.registration.key)
    }

    pub fn into_link(self, worker: &Rc<Worker>, client: Client, seat: SeatGuard) -> Link {
        Link {
            _counted: worker.shared.metrics.replication_client(),
            worker: Rc::clone(worker),
            seat,
            client,
            client_ended: false,
            cluster: self.cluster,
            server: self.server,
            showable: 0,
            passing: 0,
            _registration: self.registration,
        }
    }
}

/// A physical replication connection is to no database, so what it names may be nobody's.
fn cluster<'a>(shared: &'a Shared, kind: Replication, login: &ServerLogin) -> Result<&'a Arc<Cluster>> {
    let named = shared.cluster_of(&login.database);
    if kind == Replication::Logical {
        return named;
    }
    let only = match &*shared.clusters {
        [only] => Some(only),
        _ => None,
    };
    named.ok().or(only).or_else(|| shared.cluster_of(&login.user).ok()).ok_or_else(|| {
        let message = "a replication connection must say which cluster it is for";
        Error::new(Fault::Client, sqlstate::INVALID_CATALOG_NAME, message)
            .hint("Set dbname to a database that the cluster serves.")
    })
}

/// A client's replication connection and its server.
#[derive(Debug)]
pub struct Link {
    worker: Rc<Worker>,
    seat: SeatGuard,
    cluster: Arc<Cluster>,
    client: Client,
    /// It sends nothing more; the server knows.
    client_ended: bool,
    server: Server,
    /// Of the server's input, the bytes in front that the client may see.
    showable: usize,
    /// Of the server's frame under way, the bytes that have not come yet.
    passing: usize,
    // While they live the client can cancel, and is counted.
    _registration: Registration,
    _counted: GaugeGuard,
}

impl Link {
    /// Passes bytes until one side ends, another node is the primary, or Causeway shuts down.
    pub async fn run(mut self) {
        // Who is idle is told when Causeway shuts down.
        self.seat.waits(false);
        let (cluster, node) = (Arc::clone(&self.cluster), self.server.node);
        let replaced = || {
            let message = "terminating connection: another node is the primary now";
            Some(Error::new(Fault::Node, sqlstate::ADMIN_SHUTDOWN, message))
        };
        let farewell = tokio::select! {
            biased;
            farewell = poll_fn(|cx| self.poll(cx)) => {
                // The fence cuts the server before anybody is told why.
                let is_fenced = cluster.pools.endpoints()[node.index()].fence.is_raised();
                if is_fenced && !self.client_ended { farewell.or_else(replaced) } else { farewell }
            }
            _ = cluster.topology.wait_for(|view| view.primary.is_some_and(|primary| primary != node)) => replaced(),
        };
        if let Some(error) = farewell {
            // A client that does not read keeps nobody waiting.
            let timers = self.worker.shared.timers.clone();
            let _ = timers.timeout(FAREWELL_LIMIT, self.say_goodbye(&error)).await;
        }
        self.client.stream.shutdown().await;
    }

    /// Ready when it is over; with what the client is to be told, if that is ours to tell.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Error>> {
        if self.worker.is_draining() {
            return Poll::Ready(Some(self.seat.seat().farewell(Leave::Shutdown)));
        }
        let from_client = self.poll_from_client(cx);
        let from_server = self.poll_from_server(cx);
        // The server has the last word.
        match (from_server, from_client) {
            (Poll::Ready(_), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(None),
            (Poll::Pending, _) => Poll::Pending,
        }
    }

    /// Ready when the client has sent its last byte, and the server has it.
    fn poll_from_client(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.client_ended {
            while !self.client.input.is_empty() {
                let sent = ready!(self.server.stream.poll_write(cx, &self.client.input))?;
                self.client.input.advance(sent);
                self.count_sent(sent);
            }
            ready!(self.server.stream.poll_flush(cx))?;
            let buffers = &self.worker.client_buffers;
            buffers.take_back(&mut self.client.input);
            if ready!(self.client.poll_fill(buffers, cx)) == 0 {
                self.client_ended = true;
                // It is done at once.
                let _ = self.server.stream.shutdown().now_or_never();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the server has ended, or the client takes nothing more.
    fn poll_from_server(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.walk()?;
            ready!(self.poll_show(cx))?;
            ready!(self.poll_server(cx))?;
        }
    }

    /// Finds out what the client may see: frames of which at least the head is here.
    fn walk(&mut self) -> io::Result<()> {
        loop {
            self.take_frame();
            if self.passing > 0 {
                return Ok(());
            }
            match header(&self.server.input[self.showable..]).map_err(io::Error::other)? {
                Some(header) => self.passing = header.frame_bytes,
                None => return Ok(()),
            }
        }
    }

    /// What is here of the frame under way is for the client.
    fn take_frame(&mut self) {
        let here = self.passing.min(self.server.input.len() - self.showable);
        self.showable += here;
        self.passing -= here;
    }

    fn poll_show(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.showable > 0 {
            let shown = ready!(self.client.stream.poll_write(cx, &self.server.input[..self.showable]))?;
            self.server.input.advance(shown);
            self.showable -= shown;
            self.worker.shared.metrics.client_bytes.of(self.worker.id).sent.add(shown as u64);
        }
        ready!(self.client.stream.poll_flush(cx))?;
        self.worker.server_buffers.take_back(&mut self.server.input);
        Poll::Ready(Ok(()))
    }

    fn poll_server(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Server { stream, input, .. } = &mut self.server;
        let bytes = ready!(self.worker.server_buffers.poll_fill(stream, input, cx))?;
        if bytes == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.cluster.load(self.server.node).lane(self.worker.id).received_bytes.add(bytes as u64);
        Poll::Ready(Ok(()))
    }

    fn count_sent(&self, bytes: usize) {
        self.cluster.load(self.server.node).lane(self.worker.id).sent_bytes.add(bytes as u64);
        self.worker.shared.metrics.client_bytes.of(self.worker.id).received.add(bytes as u64);
    }

    /// Tells the client why, when the frame under way is with it.
    async fn say_goodbye(&mut self, error: &Error) {
        tracing::info!(%error, "a replication connection ends");
        self.worker.shared.metrics.error(Origin::Causeway, error.sqlstate());
        let passed = poll_fn(|cx| self.poll_frame_end(cx)).await;
        if passed.is_ok() {
            let mut farewell = Vec::new();
            put_error(&mut farewell, Severity::Fatal, error);
            let _ = self.client.stream.write_all(&farewell).await;
        }
    }

    fn poll_frame_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.take_frame();
            ready!(self.poll_show(cx))?;
            if self.passing == 0 {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_server(cx))?;
        }
    }
}
