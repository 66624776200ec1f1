//! Between batches: waits for the client, and hears what a server that the session keeps says by itself.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::Buf;

use super::batch::{Bounds, Collected, End};
use super::seat::Leave;
use super::watch::Watch;
use super::{Ended, Session};
use crate::error::Error;
use crate::pool::Close;
use crate::wire::frontend::tag;

/// A batch has come: the first `bytes` of the client's input.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub bytes: usize,
    pub end: End,
}

impl Session {
    pub(super) async fn next_arrival(&mut self) -> Result<Arrival, Ended> {
        self.client.share.settle(self.client.input.len());
        loop {
            self.drop_discarded();
            let bounds = Bounds { skipping: self.skip_to_sync, ..self.bounds };
            match self.collector.collect(&self.client.input, &bounds).map_err(Ended::Farewell)? {
                Collected::Batch { bytes, end } => return Ok(Arrival { bytes, end }),
                Collected::Discard { bytes } => self.client.discard = bytes,
                Collected::Terminate => return Err(Ended::ByClient),
                Collected::More { whole_at } => {
                    if let Err(error) = self.client.share.cover(&self.worker.shared.memory, self.client.input.len()) {
                        Box::pin(self.shed(whole_at, &error)).await?;
                        continue;
                    }
                    let missing = whole_at.saturating_sub(self.client.input.len());
                    if !self.client.input.is_empty() {
                        self.client.input.reserve(missing.min(MOST_AT_ONCE));
                    }
                    self.read_more().await?;
                }
            }
        }
    }

    fn drop_discarded(&mut self) {
        let here = self.client.discard.min(self.client.input.len());
        self.client.input.advance(here);
        self.client.discard -= here;
    }

    async fn read_more(&mut self) -> Result<(), Ended> {
        self.worker.client_buffers.take_back(&mut self.client.input);
        self.seat.waits(self.is_in_transaction());
        poll_fn(|cx| self.poll_more(cx)).await
    }

    /// The proxy has no memory for what the client is sending, whose message under way is whole at `whole_at`: it is
    /// refused, and the rest is not held.
    async fn shed(&mut self, whole_at: usize, error: &Error) -> Result<(), Ended> {
        tracing::info!(%error, user = self.pools.login.user, "a large batch is refused");
        let whole = self.collector.take_scanned();
        self.client.share.give_back();
        if whole > 0 || !matches!(self.client.input.first(), Some(&(tag::QUERY | tag::FUNCTION_CALL))) {
            return self.refuse(whole, End::Flush, error).await;
        }
        self.client.discard = whole_at;
        self.refuse(0, End::Query, error).await
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        match self.client.poll_fill(&self.worker.client_buffers, cx) {
            Poll::Ready(0) => return Poll::Ready(Err(Ended::ByClient)),
            Poll::Ready(_) => return Poll::Ready(Ok(())),
            Poll::Pending => {}
        }
        if let Poll::Ready(end) = self.poll_held(cx) {
            return Poll::Ready(end);
        }
        match self.seat.must_leave() {
            None => Poll::Pending,
            // A batch that has begun to come is served.
            Some(Leave::Shutdown) if !self.client.input.is_empty() => Poll::Pending,
            Some(leave) => Poll::Ready(Err(Ended::Farewell(self.seat.seat().farewell(leave)))),
        }
    }

    /// Passes notifications, notices and parameter changes on; ready only when the session cannot go on.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        loop {
            ready!(self.poll_show(cx)).map_err(|_| Ended::ByClient)?;
            let Some(held) = &mut self.held else { return Poll::Pending };
            let server = &mut *held.lease;
            let filled = ready!(self.worker.server_buffers.poll_fill(&mut server.stream, &mut server.input, cx));
            if !matches!(filled, Ok(bytes) if bytes > 0) {
                let error = Error::node("the server closed the session's connection");
                if let Err(ended) = self.lose_held(error) {
                    return Poll::Ready(Err(ended));
                }
                continue;
            }
            let mut watch = Watch::default();
            let mut observer = watch.observe(
                &mut server.reported,
                &mut server.status,
                &mut self.settings,
                &self.statements,
                self.seat.seat(),
            );
            let walked = self.relay.walk(&server.input, &mut self.ledger, &mut observer);
            drop(observer);
            if let Some(last_words) = watch.farewell.or(walked.err()) {
                // What came before, if there is still time for it.
                let _ = self.poll_show(cx);
                if let Err(ended) = self.lose_held(last_words) {
                    return Poll::Ready(Err(ended));
                }
            }
        }
    }

    /// The server that the session holds is gone while the client is idle: with it goes a transaction, but not a session,
    /// unless the server had more of it.
    fn lose_held(&mut self, why: Error) -> Result<(), Ended> {
        let Some(mut held) = self.held.take() else { return Ok(()) };
        let is_whole = !self.relay.is_cut();
        self.relay.discard(&mut held.lease.input);
        self.cluster.topology.probe_now(held.node);
        held.lease.close(Close::Lost);
        // Some ends are the client's own wish, as after idle_in_transaction_session_timeout.
        let is_outage = matches!(why.sqlstate(), "57P01" | "57P02" | "57P03") || why.sqlstate().starts_with("08");
        let keeps_more = self.has_more_than_a_transaction();
        let metrics = &self.worker.shared.metrics;
        if keeps_more || !is_outage || !is_whole {
            metrics.lost_server(&self.cluster.config.name, "session_ended");
            return Err(Ended::Farewell(why));
        }
        metrics.lost_server(&self.cluster.config.name, "transaction_lost");
        self.lose_transaction();
        Ok(())
    }

    fn poll_show(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(held) = &mut self.held else { return Poll::Ready(Ok(())) };
        let input = &mut held.lease.input;
        let shown = self.relay.poll_show(&mut self.client.stream, input, cx);
        self.worker.server_buffers.take_back(input);
        shown
    }
}

/// Memory is taken for what has come, not for what a message announces.
const MOST_AT_ONCE: usize = 64 << 10;
