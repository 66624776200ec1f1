//! One batch with one server: sends it, relays the answer, and copies in what a COPY asks for, all in one task.
//!
//! Back-pressure is the order of the steps: nothing is read from the server while the client has not taken what was
//! read before, and nothing from the client while the server has not.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use super::batch::{Bounds, check};
use super::cluster::Cluster;
use super::ledger::{Ledger, Owed};
use super::outbound::Outbound;
use super::relay::Relay;
use super::rescue::Cause;
use super::seat::Seat;
use super::settings::Settings;
use super::statements::ClientStatements;
use super::survey::Survey;
use super::translate::Translator;
use super::watch::Watch;
use super::{Classify, Client, Held};
use std::sync::Arc;

use crate::backend::prepared::Statement;
use crate::error::{Error, Result};
use crate::sql::Class;
use crate::wire::frame::{HEADER_BYTES, Header, header};
use crate::wire::frontend::{SYNC, Target, is_well_formed, tag};

/// How an exchange ended.
#[derive(Debug)]
pub enum Outcome {
    /// All answers are with the client.
    Settled,
    /// A replica refused or went away before the client saw anything: the batch may run elsewhere.
    Refused,
    /// The same, and the server goes on with what nobody wants.
    Unwanted,
    /// The server is gone or broke the protocol.
    ServerLost(Error),
    ClientLost,
    /// The client broke the protocol.
    ClientFault(Error),
}

/// How far the client's messages are passed on.
#[derive(Clone, Copy, Debug)]
pub struct Feed {
    /// The client's input up to here is translated.
    pub cursor: usize,
    /// Of a message too long to hold, the bytes that have not come yet.
    pub passing: usize,
}

impl Feed {
    /// The first `bytes` of the input are written already.
    pub fn at(bytes: usize) -> Self {
        Self { cursor: bytes, passing: 0 }
    }
}

/// Everything that an exchange works on.
pub struct Exchange<'a> {
    pub seat: &'a Seat,
    pub bounds: Bounds,
    /// The server is the client's alone.
    pub verbatim: bool,
    pub settings: &'a mut Settings,
    /// What is prepared now means what it does to nobody else.
    pub apart: bool,
    pub classify: Classify<'a>,
    /// Learns what an open batch goes on to do.
    pub survey: &'a mut Survey,
    pub client: &'a mut Client,
    pub statements: &'a mut ClientStatements,
    pub ledger: &'a mut Ledger,
    pub held: &'a mut Held,
    pub out: &'a mut Outbound,
    pub relay: &'a mut Relay,
    pub watch: &'a mut Watch,
    pub cluster: &'a Cluster,
    pub feed: Feed,
    /// In an open batch there is no way to prove one.
    pub unproven: Option<Arc<Statement>>,
    /// What a refused batch is still given to come to its end.
    pub respite: Option<Pin<Box<Sleep>>>,
}

/// What the client has not seen yet is held back no longer than this.
const HELD_BACK_BYTES: usize = 64 << 10;

/// A read that nobody wants any more is mostly over at once. If not, it is cheaper to connect anew than to wait for it.
const RESPITE: Duration = Duration::from_millis(20);

/// What is read of a client's next messages while it waits for an answer.
const AHEAD_BYTES: usize = 8 << 10;

impl Exchange<'_> {
    pub async fn run(&mut self) -> Outcome {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        match self.poll_steps(cx) {
            Ok(Poll::Pending) if self.waits_in_vain() => {
                self.watch.lose_server();
                Poll::Ready(Outcome::Refused)
            }
            Ok(Poll::Pending) if self.watch.refused() == Some(Cause::Behind) => {
                let respite =
                    self.respite.get_or_insert_with(|| Box::pin(self.classify.worker.shared.timers.sleep(RESPITE)));
                respite.as_mut().poll(cx).map(|()| Outcome::Unwanted)
            }
            Ok(Poll::Pending) if self.is_replaced() => {
                Poll::Ready(Outcome::ServerLost(Error::node("another node has become the primary")))
            }
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) if self.watch.refused().is_some() => Poll::Ready(Outcome::Refused),
            Ok(Poll::Ready(())) => Poll::Ready(Outcome::Settled),
            Err(outcome) => Poll::Ready(outcome),
        }
    }

    fn poll_steps(&mut self, cx: &mut Context<'_>) -> std::result::Result<Poll<()>, Outcome> {
        self.walk()?;
        loop {
            let sent = self.poll_send(cx);
            if sent && self.client_speaks() && self.translate()? {
                continue;
            }
            if self.poll_show(cx)?.is_pending() {
                return Ok(Poll::Pending);
            }
            if sent && self.is_settled() && (self.watch.refused().is_some() || self.relay.pending_bytes() == 0) {
                if self.ledger.needs_probe() {
                    self.probe();
                    continue;
                }
                return Ok(Poll::Ready(()));
            }
            if self.poll_server(cx)? {
                continue;
            }
            if !self.client_speaks() {
                self.poll_ahead(cx)?;
            } else if sent && self.poll_client(cx)? {
                continue;
            }
            return Ok(Poll::Pending);
        }
    }

    /// The server is a primary's, and another node has taken its place: what it goes on to say counts no more.
    fn is_replaced(&self) -> bool {
        let view = self.classify.worker.view(self.cluster);
        !self.held.on_replica && view.primary.is_some_and(|primary| primary != self.held.node)
    }

    /// More of the client's bytes are the server's: of an open batch, or of a message that it has the head of.
    fn client_speaks(&self) -> bool {
        self.watch.is_open() || self.feed.passing > 0
    }

    /// The node has stopped answering probes, and another one can give the answer. The worker wakes its sessions when
    /// a node becomes unreachable.
    fn waits_in_vain(&self) -> bool {
        self.watch.may_rerun() && self.classify.worker.view(self.cluster).is_unreachable(self.held.node)
    }

    fn is_settled(&self) -> bool {
        !self.client_speaks() && self.ledger.is_settled()
    }

    fn probe(&mut self) {
        let staged = self.out.stage(&self.client.input);
        Target::Portal(b"causeway_probe").write(tag::CLOSE, staged);
        staged.extend_from_slice(SYNC);
        self.ledger.push(Owed::Probe { closed: false });
    }

    /// True: everything is with the server's kernel.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> bool {
        let sent = match self.out.poll_send(&mut self.held.lease.stream, &self.client.input, cx) {
            Poll::Pending => return false,
            Poll::Ready(sent) => sent,
        };
        if sent.is_err() {
            // A server that was ended has often said why: that is read before its end counts.
            self.out.clear();
        }
        if !self.watch.holds_back() {
            bytes::Buf::advance(&mut self.client.input, self.feed.cursor);
            self.feed.cursor = 0;
        }
        true
    }

    /// Shows the client what the relay has for it, unless that may still be taken back.
    fn poll_show(&mut self, cx: &mut Context<'_>) -> std::result::Result<Poll<()>, Outcome> {
        self.watch.show(self.is_settled() || self.relay.pending_bytes() > HELD_BACK_BYTES);
        if self.watch.holds_back() {
            return Ok(Poll::Ready(()));
        }
        match self.relay.poll_show(&mut self.client.stream, &mut self.held.lease.input, cx) {
            Poll::Ready(Err(_)) => Err(Outcome::ClientLost),
            Poll::Ready(Ok(())) => Ok(Poll::Ready(())),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    /// True: something was read.
    fn poll_server(&mut self, cx: &mut Context<'_>) -> std::result::Result<bool, Outcome> {
        let server = &mut *self.held.lease;
        match self.classify.worker.server_buffers.poll_fill(&mut server.stream, &mut server.input, cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(bytes)) if bytes > 0 => {
                self.watch.received_bytes += bytes as u64;
                self.walk().map(|()| true)
            }
            Poll::Ready(end) => Err(self.server_ended(end)),
        }
    }

    fn server_ended(&mut self, end: io::Result<usize>) -> Outcome {
        if self.watch.lose_server() {
            return Outcome::Refused;
        }
        let error = Error::node("the server closed the connection while it ran the statement");
        Outcome::ServerLost(match end {
            Err(cause) => error.source(cause),
            Ok(_) => error,
        })
    }

    fn walk(&mut self) -> std::result::Result<(), Outcome> {
        let server = &mut *self.held.lease;
        let mut observer =
            self.watch.observe(&mut server.reported, &mut server.status, self.settings, self.statements, self.seat);
        let walked = self.relay.walk(&server.input, self.ledger, &mut observer);
        drop(observer);
        if !self.watch.holds_back() {
            self.ledger.keep_done();
        }
        walked.map_err(|error| {
            self.watch.lose_server();
            Outcome::ServerLost(error)
        })
    }

    /// True: something was read.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> std::result::Result<bool, Outcome> {
        match self.client.poll_fill(&self.classify.worker.client_buffers, cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(0) => Err(Outcome::ClientLost),
            Poll::Ready(_) => Ok(true),
        }
    }

    /// Notices a client that leaves while its batch runs. What it sends ahead waits here, as far as there is room.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> std::result::Result<(), Outcome> {
        loop {
            let ahead = self.client.input.len().saturating_sub(self.feed.cursor);
            if ahead >= AHEAD_BYTES {
                return Ok(());
            }
            match self.client.poll_fill(&self.classify.worker.client_buffers, cx) {
                Poll::Pending => return Ok(()),
                // A client that said good-bye, or anything else, meant its write to be done.
                Poll::Ready(0) if ahead > 0 && self.survey.class != Class::Read => return Ok(()),
                Poll::Ready(0) => return Err(Outcome::ClientLost),
                Poll::Ready(_) => {}
            }
        }
    }

    /// Passes on what the client has sent of an open batch or a COPY. True: there is something to send.
    fn translate(&mut self) -> std::result::Result<bool, Outcome> {
        let before = self.feed.cursor;
        while self.client_speaks() {
            let start = self.feed.cursor;
            let here = self.client.input.len() - start;
            if self.feed.passing > 0 {
                let bytes = here.min(self.feed.passing);
                self.feed.passing -= bytes;
                self.pass_on(bytes);
                if self.feed.passing > 0 {
                    break;
                }
                continue;
            }
            let Some(header) = header(&self.client.input[start..]).map_err(Outcome::ClientFault)? else { break };
            if header.tag == tag::TERMINATE {
                return Err(Outcome::ClientLost);
            }
            if !self.translate_frame(header, start, here).map_err(Outcome::ClientFault)? {
                break;
            }
        }
        Ok(self.feed.cursor > before)
    }

    /// The frame that starts at `start`, of which `here` bytes have come. False: too few.
    fn translate_frame(&mut self, header: Header, start: usize, here: usize) -> Result<bool> {
        check(header.tag, header.frame_bytes, &self.bounds)?;
        if header.frame_bytes <= here {
            let body = &self.client.input[start + HEADER_BYTES..start + header.frame_bytes];
            if self.watch.is_ignored(header.tag) {
                self.pass_on(header.frame_bytes);
            } else if is_well_formed(header.tag, body) {
                self.frame(header.tag, start, header.frame_bytes)?;
            } else {
                self.malformed(header.tag, header.frame_bytes);
            }
            Ok(true)
        } else if header.tag == tag::COPY_DATA {
            self.feed.passing = header.frame_bytes;
            Ok(true)
        } else if header.frame_bytes > self.bounds.max_batch_bytes {
            self.long_frame(header.tag, header.frame_bytes)
        } else {
            Ok(false)
        }
    }

    fn pass_on(&mut self, bytes: usize) {
        let start = self.feed.cursor;
        self.out.pass(start..start + bytes, &self.client.input);
        self.feed.cursor = start + bytes;
    }

    /// A whole message of an open batch.
    fn frame(&mut self, message: u8, start: usize, bytes: usize) -> Result<()> {
        let body = &self.client.input[start + HEADER_BYTES..start + bytes];
        self.survey.add(message, body, self.statements, &mut self.classify)?;
        self.translator().frame(start..start + bytes)?;
        self.survey.names_are_applied();
        self.feed.cursor = start + bytes;
        self.watch.client_sent(message);
        Ok(())
    }

    /// What is wrong with it, the server says. It runs nothing.
    fn malformed(&mut self, message: u8, bytes: usize) {
        self.ledger.push(match message {
            tag::PARSE => Owed::Parse { visible: true, statement: None, undo: None },
            tag::DESCRIBE => Owed::Describe,
            tag::CLOSE => Owed::Close { visible: true, evicted: None },
            tag::QUERY => Owed::Query,
            tag::SYNC => Owed::Ready,
            _ => Owed::Bind,
        });
        // Should it take the message all the same, nobody else has what is left of it.
        self.held.lease.tainted = true;
        self.pass_on(bytes);
        self.watch.client_sent(message);
    }

    /// A message that is too long to be held: it goes as it comes. False: its head is not here yet.
    fn long_frame(&mut self, message: u8, bytes: usize) -> Result<bool> {
        let start = self.feed.cursor;
        let Some(rewritten) = self.translator().long_frame(start, bytes)? else { return Ok(false) };
        self.feed.cursor += rewritten;
        self.feed.passing = bytes - rewritten;
        self.watch.client_sent(message);
        Ok(true)
    }

    fn translator(&mut self) -> Translator<'_> {
        let server = &mut *self.held.lease;
        Translator {
            verbatim: self.verbatim,
            names_in_sql: self.survey.in_sql.is_some(),
            interner: &self.classify.worker.shared.statements,
            meaning: self.settings.meaning(),
            facts: self.classify.facts,
            unproven: &mut self.unproven,
            shift: &mut self.watch.shift,
            apart: self.apart,
            statements: self.statements,
            prepared: &mut server.prepared,
            unnamed_here: &mut self.held.unnamed_here,
            tainted: &mut server.tainted,
            ledger: self.ledger,
            out: self.out,
            input: &self.client.input,
        }
    }
}
