//! Asks a node for the history of the timeline that it writes on, over a replication connection of its own
//! ([`TIMELINE_HISTORY`](https://www.postgresql.org/docs/current/protocol-replication.html)).

use std::sync::Arc;
use std::time::Duration;

use super::history::Lineage;
use crate::auth::server::{authenticate, refusal};
use crate::config::{Cluster, Control};
use crate::error::{Error, Result, sqlstate};
use crate::net::dial::{Attempt, Dialer};
use crate::net::login::LoginIo;
use crate::net::timers::Timers;
use crate::wire::backend::data_row;
use crate::wire::frontend::put_query;
use crate::wire::startup::put_startup;

/// What PostgreSQL writes of a fork is about 50 bytes, so this is a thousand of them.
const MAX_FILE_BYTES: usize = 64 << 10;

/// Knows what it has asked one node already.
#[derive(Debug)]
pub(super) struct Genealogist {
    cluster: String,
    node: String,
    dialer: Arc<Dialer>,
    login: Control,
    timers: Timers,
    patience: Duration,
    /// System identifier and timeline: told, or refused for good.
    settled: Option<(u64, u32)>,
}

impl Genealogist {
    pub(super) fn new(
        cluster: &Cluster,
        node: &str,
        dialer: &Arc<Dialer>,
        patience: Duration,
        timers: &Timers,
    ) -> Self {
        Self {
            cluster: cluster.name.clone(),
            node: node.to_owned(),
            dialer: Arc::clone(dialer),
            login: cluster.control.clone(),
            timers: timers.clone(),
            patience,
            settled: None,
        }
    }

    /// The lineage of a timeline, the first time that it is asked for; `None` later, and when the node does not tell.
    pub(super) async fn trace(&mut self, system: u64, timeline: u32) -> Option<Lineage> {
        if self.settled == Some((system, timeline)) {
            return None;
        }
        if timeline <= 1 {
            self.settled = Some((system, timeline));
            return Lineage::parse(timeline, b"");
        }
        let asked = self.timers.timeout(self.patience, self.ask(timeline)).await;
        let asked = asked.unwrap_or_else(|_| Err(Error::node("no answer within probe.timeout")));
        let (cluster, node) = (&self.cluster, &self.node);
        match asked {
            Ok(lineage) => {
                self.settled = Some((system, timeline));
                tracing::debug!(cluster, node, ?lineage, "timeline history read");
                Some(lineage)
            }
            Err(error) if error.sqlstate() == sqlstate::INSUFFICIENT_PRIVILEGE => {
                self.settled = Some((system, timeline));
                tracing::info!(
                    cluster,
                    node,
                    timeline,
                    "the timeline history may not be read, so where a timeline comes from is known only of promotions \
                     that are seen; ALTER ROLE {} REPLICATION lets it be read",
                    self.login.user
                );
                None
            }
            Err(error) => {
                tracing::debug!(cluster, node, timeline, %error, "the timeline history could not be read");
                None
            }
        }
    }

    async fn ask(&self, timeline: u32) -> Result<Lineage> {
        let mut refused = None;
        for attempt in self.dialer.attempts() {
            match self.ask_by(*attempt, timeline).await {
                Ok(lineage) => return Ok(lineage),
                Err(error) => {
                    refused.get_or_insert(error);
                }
            }
        }
        Err(refused.unwrap_or_else(|| Error::node("the node cannot be reached in any way")))
    }

    async fn ask_by(&self, attempt: Attempt, timeline: u32) -> Result<Lineage> {
        let stream = self.dialer.dial(attempt, self.patience).await?;
        let mut io = LoginIo::to_node(stream, self.node.clone());
        let mut startup = Vec::new();
        let parameters = [
            ("user", self.login.user.as_str()),
            // A connection to a database, so that pg_hba.conf judges it as it judges the others.
            ("database", self.login.database.as_str()),
            ("replication", "database"),
            ("application_name", "causeway-control"),
        ];
        put_startup(&mut startup, parameters.map(|(name, value)| (name, value.as_bytes())));
        io.write(&startup).await?;
        authenticate(&mut io, &self.login.user, self.login.password.as_ref()).await?;
        self.read_to_ready(&mut io).await?;
        let mut query = Vec::new();
        put_query(&mut query, format!("TIMELINE_HISTORY {timeline}").as_bytes());
        io.write(&query).await?;
        let row = self.read_to_ready(&mut io).await?.ok_or_else(|| io.protocol("no timeline history".to_owned()))?;
        let told = data_row(&row).as_deref().and_then(|row| match row {
            [_name, Some(content)] => Lineage::parse(timeline, content),
            _ => None,
        });
        told.ok_or_else(|| io.protocol("malformed timeline history".to_owned()))
    }

    /// Reads up to `ReadyForQuery`; gives the row that came on the way, if one did.
    async fn read_to_ready(&self, io: &mut LoginIo) -> Result<Option<bytes::Bytes>> {
        let mut row = None;
        loop {
            let frame = io.read_frame(MAX_FILE_BYTES).await?;
            match frame.tag {
                b'Z' => return Ok(row),
                b'D' => row = Some(frame.body),
                b'E' => return Err(refusal(&self.node, &frame.body)),
                _ => {}
            }
        }
    }
}
