//! Asks a node to cancel what one of its servers runs
//! (<https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-CANCELING-REQUESTS>).

use std::sync::Arc;
use std::time::Duration;

use super::connect::Endpoint;
use crate::error::{Error, Result};
use crate::net::timers::Timers;
use crate::wire::startup::{CancelKey, put_cancel};

/// Which server of which node.
#[derive(Debug)]
pub struct CancelTarget {
    endpoint: Arc<Endpoint>,
    key: CancelKey,
}

/// A node that does not close the connection by then has had its chance.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

impl CancelTarget {
    pub fn new(endpoint: Arc<Endpoint>, key: CancelKey) -> Self {
        Self { endpoint, key }
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Those of its node.
    pub fn timers(&self) -> &Timers {
        &self.endpoint.timers
    }

    /// Returns when the node has signalled its server, which it shows by closing the connection.
    ///
    /// # Errors
    /// The node could not be reached in time.
    pub async fn send(&self) -> Result<()> {
        let asking = async {
            let mut io = self.endpoint.dial().await?;
            let mut request = Vec::new();
            put_cancel(&mut request, &self.key);
            io.write(&request).await?;
            io.read_to_end().await;
            Ok(())
        };
        self.endpoint.timers.timeout(CANCEL_TIMEOUT, asking).await.unwrap_or_else(|_| {
            Err(Error::node(format!("node {:?} did not take a cancel request in time", self.endpoint.name)))
        })
    }
}
