//! Statements that no node can take now wait for one: a failover is a delay for most sessions, not an error.

use std::time::Instant;

use tokio::sync::Notify;

use super::Session;
use super::meet::Quest;
use crate::config::Fallback;
use crate::error::{Error, Fault, Result, sqlstate};
use crate::route::Refusal;
use crate::topology::View;

/// The sessions of a worker that wait for a cluster to change. They go on in the order in which they came.
#[derive(Debug, Default)]
pub struct Hold {
    /// For a primary.
    primary: Notify,
    /// For a node that can serve a read, whichever.
    any: Notify,
}

impl Hold {
    /// There is a new view.
    pub fn changed(&self, view: &View) {
        if view.primary.is_some() {
            self.primary.notify_waiters();
        }
        self.any.notify_waiters();
    }
}

impl Session {
    /// Waits until it can be decided again where the batch goes, because the cluster has changed.
    ///
    /// # Errors
    /// Waiting would not help, `routing.hold_timeout` is over, too many wait already, or the client has cancelled.
    pub(super) async fn hold(&self, refusal: Refusal, quest: &mut Quest) -> Result<()> {
        let routing = &self.worker.shared.config.routing;
        let deadline = quest.arrived() + routing.hold_timeout;
        // Of two primaries that dispute each other no time makes one.
        let may_wait =
            (refusal == Refusal::NoPrimary || routing.fallback == Fallback::Primary) && self.view().alarm.is_none();
        if !may_wait || Instant::now() >= deadline {
            return Err(self.refusal(refusal, quest));
        }
        let cluster = &self.cluster.config.name;
        let metrics = &self.worker.shared.metrics;
        let Ok(_place) = self.cluster.holding.try_acquire() else {
            metrics.refused("held_statements").inc();
            let message = format!(
                "cluster {cluster:?} has no primary, and as many statements as routing.max_held_statements allows ({}) \
                 wait for one",
                routing.max_held_statements
            );
            return Err(Error::new(Fault::Limit, sqlstate::TOO_MANY_CONNECTIONS, message)
                .hint("Try again later, or raise routing.max_held_statements."));
        };
        let _counted = metrics.held_statement(cluster);
        let hold = self.worker.hold(&self.cluster);
        let news = if refusal == Refusal::NoPrimary { &hold.primary } else { &hold.any };
        if self.patiently(news.notified(), tokio::time::Instant::from_std(deadline)).await?.is_none() {
            metrics.refused("hold_timeout").inc();
            return Err(self.refusal(refusal, quest));
        }
        quest.take_heart();
        Ok(())
    }
}
