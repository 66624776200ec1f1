//! A client's life: accept, handshake, then batch after batch until it leaves.
//!
//! One task per session, on one worker. `Session::run` is the loop of design steps 1 to 8: `batch` collects, `survey`
//! classifies, `lead` routes and leases (`causality` knows what the session has seen, `meet` finds or waits for a replica
//! that has it, `own` are the settings that say what is wanted, `hold` and `gate` let wait for a primary), `translate` and
//! `outbound` write to the server, `exchange` and `relay` pass the answer on, `settle` takes the outcome back and keeps
//! or releases the lease.
//!
//! When a server is lost, `loss` finds out what became of the batch (`commit` has asked for what it takes to know), `lost`
//! answers for a transaction that is gone, and `begin` begins one anew that had done nothing. `refused` learns from nodes
//! that refuse a batch.

mod audit;
pub mod batch;
mod begin;
mod buffers;
pub mod cancel;
mod causality;
pub mod census;
pub mod cluster;
mod commit;
mod exchange;
mod explain;
pub mod gate;
mod handshake;
mod hold;
mod lead;
pub mod ledger;
#[cfg(test)]
mod ledger_tests;
mod loss;
mod lost;
mod meet;
pub mod memory;
mod outbound;
mod own;
mod pins;
mod refused;
pub mod relay;
mod replication;
mod rescue;
mod reword;
mod seat;
mod settings;
mod settle;
mod statements;
mod survey;
mod translate;
mod unseen;
mod visit;
mod wait;
mod watch;
pub mod worker;

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use futures_util::future::LocalBoxFuture;
use tokio::sync::OwnedSemaphorePermit;

use self::batch::{Bounds, Collector, End};
use self::buffers::Buffers;
use self::cancel::Registration;
use self::causality::Causality;
use self::cluster::Cluster;
use self::lead::Task;
use self::ledger::Ledger;
use self::lost::Lost;
use self::memory::Share;
use self::outbound::Outbound;
use self::own::{Own, Wishes};
use self::pins::Pins;
use self::relay::Relay;
use self::seat::SeatGuard;
use self::settings::{Settings, Unaudited};
use self::statements::ClientStatements;
use self::survey::{ExplainRoute, Survey, Work};
use self::wait::Arrival;
use self::worker::Worker;
use crate::backend::Server;
use crate::error::{Error, Result};
use crate::metrics::Origin;
use crate::net::stream::Stream;
use crate::pool::Lease;
use crate::pool::set::PoolSet;
use crate::sql::{self, Classified};
use crate::topology::{Facts, ViewHere};
use crate::types::{Lsn, NodeId, PoolMode};
use crate::wire::backend::{CLOSE_COMPLETE, Severity, TransactionStatus, put_command_complete, put_error, put_ready};
use crate::wire::frame::{HEADER_BYTES, header};
use crate::wire::frontend::{Target, tag};

pub use self::explain::first_request;
pub use self::handshake::{Door, accept};
pub use self::pins::Pin;
pub use self::rescue::Cause;
pub use self::visit::{Rights, Visitor};

/// The client's side of a session.
#[derive(Debug)]
struct Client {
    stream: Stream,
    /// Bytes that have come and are not consumed.
    input: BytesMut,
    /// Bytes to come that mean nothing any more.
    discard: usize,
    /// Not counted in the metrics yet.
    received_bytes: u64,
    /// Of the memory that is limited.
    share: Share,
}

impl Client {
    /// Ready(0): the client is gone.
    fn poll_fill(&mut self, buffers: &Buffers, cx: &mut Context<'_>) -> Poll<usize> {
        let filled = ready!(buffers.poll_fill(&mut self.stream, &mut self.input, cx));
        let bytes = filled.unwrap_or(0);
        self.received_bytes += bytes as u64;
        Poll::Ready(bytes)
    }
}

/// A leased server, and what the session knows of it.
#[expect(clippy::struct_excessive_bools, reason = "they are facts that have nothing to do with each other")]
#[derive(Debug)]
struct Held {
    lease: Lease<Server>,
    node: NodeId,
    /// It was leased as a replica: nothing that outlives a transaction may be done on it.
    on_replica: bool,
    /// It had all that the session had seen when it was leased.
    proven: bool,
    /// What it must have replayed: to be asked in front of the batch.
    guard: Option<Lsn>,
    /// It is the primary's only because no replica would do.
    spill: Option<OwnedSemaphorePermit>,
    /// Its unnamed statement is the client's; it has none if the client has none.
    unnamed_here: bool,
    /// A cancel request may still be under way to it.
    cancelled: bool,
    /// Something was written in the transaction that it runs.
    wrote: bool,
    /// It owes an answer that nobody waits for: whoever got it next would take that for its own.
    owes: bool,
    /// Statements that it has under the client's own names.
    own_names: Vec<Box<[u8]>>,
}

const FAREWELL_LIMIT: Duration = Duration::from_secs(5);

/// How a batch is served.
enum Way {
    /// On a server.
    Lead(Task),
    /// The same, when its EXPLAIN ROUTE has been answered.
    Explain(Survey),
    /// No server is needed.
    Alone,
    /// It was a SET of Causeway's own.
    Set(Result<()>),
}

/// How the client's texts are to be read.
#[derive(Clone, Copy, Debug)]
struct Lexis {
    standard_conforming_strings: bool,
    /// No byte of a multi-byte character can look like a backslash or a quote.
    safe_encoding: bool,
}

/// A logged-in client.
struct Session {
    worker: Rc<Worker>,
    seat: SeatGuard,
    cluster: Arc<Cluster>,
    pools: Arc<PoolSet>,
    facts: Arc<Facts>,
    registration: Registration,
    bounds: Bounds,
    mode: PoolMode,
    settings: Settings,
    /// When something that it waited for last came: a batch, a server, an answer. One look at the clock serves many.
    now: Cell<Instant>,
    client: Client,
    collector: Collector,
    statements: ClientStatements,
    ledger: Ledger,
    out: Outbound,
    relay: Relay,
    held: Option<Held>,
    pins: Pins,
    unaudited: Unaudited,
    /// When the client had the answer to the last statement that may have changed the catalog.
    ddl_at: Option<Instant>,
    /// Messages were sent that no Sync has ended yet.
    pipeline_open: bool,
    /// An error of ours stands for the rest of the client's messages, up to its Sync.
    skip_to_sync: bool,
    /// The batch under way ends with a Flush, but all that it does is done then: the server gets a Sync.
    ends_at_flush: bool,
    /// Of the transaction that the client believes to be in.
    lost: Lost,
    /// The BEGIN of a transaction on the primary that has done nothing else: it may begin anew elsewhere.
    begun: Option<Box<[u8]>>,
    last_replica: Option<NodeId>,
    /// Of the replicas that have come back since, none is tried any more.
    settled_at: Instant,
    chose_at: Instant,
    causality: Causality,
    /// What a transaction on a replica has said about its reads.
    in_transaction: Option<Box<Wishes>>,
}

/// Why a session ends.
#[derive(Debug)]
enum Ended {
    /// The client said good-bye or is gone.
    ByClient,
    /// What the client is told in parting.
    Farewell(Error),
    /// The server has told the client already.
    ByServer,
    /// The server was lost with a question of ours, and had nothing else of the session's but its transaction. Where that
    /// was asked in front of a batch, the session goes on.
    Unsent(Error),
}

impl Session {
    async fn run(&mut self) {
        let seat = Rc::clone(self.seat.seat());
        let ended = loop {
            let stepped = {
                let mut step = pin!(self.step());
                poll_fn(|cx| match seat.must_end() {
                    None => step.as_mut().poll(cx).map(Some),
                    Some(_) => Poll::Ready(None),
                })
                .await
            };
            match stepped {
                Some(Ok(())) => {}
                Some(Err(ended)) => break ended,
                None => break self.cut_short(),
            }
        };
        self.end(ended).await;
    }

    /// What the session does has taken too long: the server is told to stop.
    fn cut_short(&mut self) -> Ended {
        self.abandon_held();
        match self.seat.must_leave() {
            // In the middle of a message the client would take it for a part of that.
            Some(leave) if !self.relay.is_cut() => Ended::Farewell(self.seat.seat().farewell(leave)),
            _ => Ended::ByServer,
        }
    }

    async fn step(&mut self) -> Result<(), Ended> {
        let Arrival { bytes, end } = self.next_arrival().await?;
        self.now.set(Instant::now());
        self.seat.runs(self.is_in_transaction());
        self.serve(bytes, end).map_err(Ended::Farewell)?.await
    }

    /// Serves one batch from the survey to the settlement. On the heap: an idle session should not carry what only a
    /// running batch needs.
    fn serve(&mut self, bytes: usize, end: End) -> Result<LocalBoxFuture<'_, Result<(), Ended>>> {
        if self.skip_to_sync {
            return Ok(Box::pin(self.skip(bytes)));
        }
        if self.has_lost_its_primary()? {
            return Ok(Box::pin(self.answer_in_lost(bytes, end)));
        }
        let survey = self.survey(bytes, end)?;
        Ok(match self.way(bytes, end, survey) {
            Way::Lead(task) => Box::pin(self.lead_or_refuse(task)),
            Way::Explain(survey) => Box::pin(self.serve_explained(bytes, end, survey)),
            Way::Alone => Box::pin(self.answer_alone(bytes)),
            Way::Set(Ok(())) => Box::pin(self.answer_set(bytes)),
            Way::Set(Err(error)) => Box::pin(async move { self.refuse(bytes, end, &error).await }),
        })
    }

    fn way(&mut self, bytes: usize, end: End, survey: Survey) -> Way {
        if survey.explain_route == ExplainRoute::Asked {
            return Way::Explain(survey);
        }
        if self.held.is_none() && survey.work == Work::Nothing {
            return Way::Alone;
        }
        let set = if survey.own.is_some() { self.set_own(&survey, bytes, end) } else { None };
        set.map_or_else(|| Way::Lead(Task::new(bytes, end, survey)), Way::Set)
    }

    #[expect(clippy::manual_async_fn, reason = "an async fn would have room for two tasks")]
    fn lead_or_refuse(&mut self, mut task: Task) -> impl Future<Output = Result<(), Ended>> + '_ {
        async move {
            match self.lead(&mut task).await? {
                Ok(()) => Ok(()),
                Err(error) => {
                    self.settings.hide_own();
                    self.refuse(task.bytes, task.end, &error).await
                }
            }
        }
    }

    fn survey(&mut self, bytes: usize, end: End) -> Result<Survey> {
        let mut classify = Classify { worker: &self.worker, facts: &self.facts, lexis: self.settings.lexis() };
        Survey::of(&self.client.input[..bytes], end, &self.statements, &mut classify)
    }

    /// Answers what no server is needed for: Close of statements, Sync, Flush.
    async fn answer_alone(&mut self, bytes: usize) -> Result<(), Ended> {
        let mut answer = Vec::new();
        let mut rest = &self.client.input[..bytes];
        while let Some(header) = header(rest).ok().flatten().filter(|header| header.frame_bytes <= rest.len()) {
            let (frame, after) = rest.split_at(header.frame_bytes);
            match (header.tag, Target::read(&frame[HEADER_BYTES..])) {
                (tag::SYNC, _) => put_ready(&mut answer, TransactionStatus::Idle),
                (tag::CLOSE, Ok(Target::Statement(name))) => {
                    self.statements.close(name);
                    answer.extend_from_slice(CLOSE_COMPLETE);
                }
                _ => {}
            }
            rest = after;
        }
        self.client.input.advance(bytes);
        self.tell(&answer).await
    }

    async fn answer_set(&mut self, bytes: usize) -> Result<(), Ended> {
        let mut answer = Vec::new();
        put_command_complete(&mut answer, "SET");
        put_ready(&mut answer, TransactionStatus::Idle);
        self.client.input.advance(bytes);
        self.tell(&answer).await
    }

    /// Answers a batch that nothing was sent of with an error.
    async fn refuse(&mut self, bytes: usize, end: End, error: &Error) -> Result<(), Ended> {
        tracing::debug!(%error, "a batch was refused");
        self.worker.shared.metrics.error(Origin::Causeway, error.sqlstate());
        if end != End::Overflow {
            self.fail_transaction().await?;
        }
        let mut answer = Vec::new();
        put_error(&mut answer, Severity::Error, error);
        match end {
            End::Query | End::FunctionCall | End::Sync => put_ready(&mut answer, self.status()),
            End::Flush | End::Interrupted => self.skip_to_sync = true,
            End::Overflow => return Err(Ended::Farewell(overflow_refused(error))),
        }
        self.client.input.advance(bytes);
        self.tell(&answer).await
    }

    /// Answers the Sync that ends what the client sent behind an error.
    async fn skip(&mut self, bytes: usize) -> Result<(), Ended> {
        self.client.input.advance(bytes);
        self.skip_to_sync = false;
        let mut answer = Vec::new();
        put_ready(&mut answer, self.status());
        self.tell(&answer).await
    }

    fn view(&self) -> Rc<ViewHere> {
        self.worker.view(&self.cluster)
    }

    /// Its server must come to the end of something before anybody else can have it.
    fn is_in_transaction(&self) -> bool {
        self.pipeline_open || self.status() != TransactionStatus::Idle
    }

    fn status(&self) -> TransactionStatus {
        match self.held.as_ref() {
            Some(held) => held.lease.status,
            None if self.lost == Lost::Nothing => TransactionStatus::Idle,
            None => TransactionStatus::Failed,
        }
    }

    /// Writes something of ours to the client.
    async fn tell(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        self.client.stream.write_all(bytes).await.map_err(|_| Ended::ByClient)
    }

    /// The server back to its pool or closed, and the last words.
    async fn end(&mut self, ended: Ended) {
        self.give_back_held();
        // A client that does not read keeps nobody waiting.
        let timers = self.worker.shared.timers.clone();
        let _ = Box::pin(timers.timeout(FAREWELL_LIMIT, self.say_goodbye(ended))).await;
    }

    async fn say_goodbye(&mut self, ended: Ended) {
        if let Ended::Farewell(error) | Ended::Unsent(error) = &ended {
            tracing::info!(%error, user = self.pools.login.user, "a client's session ends");
            self.worker.shared.metrics.error(Origin::Causeway, error.sqlstate());
            let mut answer = Vec::new();
            put_error(&mut answer, Severity::Fatal, error);
            if !self.relay.is_cut() {
                let _ = self.tell(&answer).await;
            }
        }
        self.client.stream.shutdown().await;
    }
}

fn overflow_refused(error: &Error) -> Error {
    Error::new(error.fault(), error.sqlstate().to_owned(), error.message())
        .hint("The batch was longer than limits.max_batch_size, so the session cannot go on after its error.")
}

/// A worker's classifier, reading as this session's client writes.
struct Classify<'a> {
    worker: &'a Worker,
    facts: &'a Facts,
    lexis: Lexis,
}

impl survey::Classify for Classify<'_> {
    fn classify(&mut self, text: &[u8]) -> Arc<Classified> {
        let loaded = self.facts.load();
        let context = sql::Context {
            facts: &loaded.facts,
            facts_version: loaded.version,
            standard_conforming_strings: self.lexis.standard_conforming_strings,
            safe_encoding: self.lexis.safe_encoding,
            now: self.worker.now(),
        };
        self.worker.classifier.borrow_mut().classify(text, &context)
    }
}

#[cfg(test)]
mod tests {
    fn future_bytes<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// There may be tens of thousands of them.
    #[test]
    fn an_idle_session_is_small() {
        assert!(size_of::<super::Session>() <= 1088, "{}", size_of::<super::Session>());
        assert!(future_bytes(super::accept) <= 400, "{}", future_bytes(super::accept));
    }

    fn output_bytes<A, B, F>(_: impl FnOnce(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// Larger blocks than these the allocator does not keep at hand, and every batch takes one.
    #[test]
    fn a_running_batch_is_not_large() {
        let bytes = output_bytes(|session: &'static mut super::Session, task| session.lead_or_refuse(task));
        assert!(bytes <= 1024, "{bytes}");
    }
}
