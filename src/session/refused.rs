//! A node refused a batch, or went away before the client had seen anything: what that says of the statement and of the
//! node.

use std::time::{Duration, Instant};

use super::Session;
use super::lead::Tried;
use super::rescue::Cause;
use super::survey::Survey;
use super::watch::Watch;
use crate::error::Result;
use crate::wire::frame::{HEADER_BYTES, header};
use crate::wire::frontend::{Bind, Target, tag};

/// A node that refused to write is asked for so long at most whether it is the primary still.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(2);

impl Session {
    /// A replica refused the batch or went away: what that says of the statement and of the node.
    pub(super) fn learn_from_refusal(&mut self, survey: &Survey, watch: &Watch, tried: &mut Tried, unwanted: bool) {
        // A server that is gone will not answer the rest.
        self.ledger.abandon();
        self.undo_failed();
        for undo in self.ledger.take_done() {
            self.statements.undo(undo);
        }
        let Some(mut held) = self.held.take() else { return };
        self.relay.discard(&mut held.lease.input);
        let cause = watch.refused().unwrap_or(Cause::Lost);
        tracing::debug!(cause = cause.as_str(), node = held.node.index(), "a node refused a batch");
        self.worker.shared.metrics.rescues(cause.as_str()).inc();
        tried.renewed |= cause == Cause::StalePlan;
        if !held.on_replica {
            // It says nothing of the statement.
            self.cluster.topology.probe_now(held.node);
            return if unwanted { self.abandon(held) } else { self.give_back(held, watch.server_gone) };
        }
        if let Some(fingerprint) = survey.fingerprint.filter(|_| cause.is_the_statements()) {
            let memory = self.worker.shared.config.routing.rescue_memory;
            self.worker.classifier.borrow_mut().learn_write(fingerprint, Instant::now(), memory);
        }
        tried.rescued |= cause.needs_primary();
        if !matches!(cause, Cause::StalePlan | Cause::Behind) {
            tried.avoid = tried.avoid.with(held.node);
        }
        match cause {
            Cause::Lost => self.cluster.topology.report_failure(held.node),
            Cause::Shutdown => self.cluster.topology.probe_now(held.node),
            Cause::ReadOnly
            | Cause::Conflict
            | Cause::Parameters
            | Cause::Missing
            | Cause::StalePlan
            | Cause::Behind => {}
        }
        if unwanted { self.abandon(held) } else { self.give_back(held, watch.server_gone) }
    }

    /// A server of the primary refused to write: either the client wanted that, or another node is the primary by now.
    pub(super) async fn confirm_primary(&mut self, tried: &mut Tried) -> Result<()> {
        tried.confirmed = true;
        let since = Instant::now();
        let asked = self.cluster.topology.ask_primary(since);
        let until = tokio::time::Instant::from_std(since + CONFIRMED_WITHIN);
        if !matches!(self.patiently(asked, until).await?, Some(Ok(_))) {
            // Whoever is to be the primary, the view knows soon.
            self.view().nodes.iter().for_each(|node| self.cluster.topology.probe_now(node.id));
            let probed = self.cluster.topology.wait_for(|view| match view.primary.and_then(|id| view.node(id)) {
                Some(primary) => primary.sampled_at >= Some(since),
                None => true,
            });
            self.patiently(probed, until).await?;
        }
        Ok(())
    }

    /// The plan of some statement that the batch names no longer fits its tables. Whoever prepares it from now on gets
    /// a new one; so does this client at once if it is `renewed`, because it is told what the new one is.
    pub(super) fn retire_statements(&mut self, bytes: usize, renewed: bool) {
        let (statements, interner) = (&mut self.statements, &self.worker.shared.statements);
        for_each_named(&self.client.input[..bytes.min(self.client.input.len())], |name| {
            let Some(statement) = statements.get(name).filter(|statement| !statement.is_sql()) else { return };
            if renewed {
                let statement = interner.renew(statement, self.settings.meaning(), self.facts.load().version);
                // It has this name already, so no limit is in the way.
                let _ = statements.define(name, statement);
            } else {
                interner.retire(statement);
            }
        });
    }
}

/// The names of statements that a batch binds or describes.
fn for_each_named(mut rest: &[u8], mut visit: impl FnMut(&[u8])) {
    while let Some(header) = header(rest).ok().flatten().filter(|header| header.frame_bytes <= rest.len()) {
        let (frame, after) = rest.split_at(header.frame_bytes);
        let body = frame.get(HEADER_BYTES..).unwrap_or_default();
        match (header.tag, Bind::read(body), Target::read(body)) {
            (tag::BIND, Ok(bind), _) => visit(bind.statement),
            (tag::DESCRIBE, _, Ok(Target::Statement(name))) => visit(name),
            _ => {}
        }
        rest = after;
    }
}
