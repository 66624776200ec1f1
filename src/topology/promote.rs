//! Makes a replica the primary, for a planned switchover.

use super::Topology;
use super::control::{Control, ControlError, Timeouts};
use crate::config;
use crate::types::NodeId;

/// It does not wait: the next probes see what becomes of it.
const PROMOTE_SQL: &str = "SELECT pg_promote(wait => false)";

/// Why a node was not promoted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PromoteError {
    /// Nothing has happened.
    #[error("it refuses pg_promote(): {0}")]
    Refused(String),
    /// It may have been told.
    #[error("{0}")]
    Unknown(String),
}

impl Topology {
    /// Tells a replica to become the primary, and returns when it was told. Callable from any runtime. It is done even
    /// if the caller goes.
    ///
    /// # Errors
    /// The node refuses, as it does when the control user may not; or nobody knows whether it has heard.
    pub async fn promote(&self, cluster: &config::Cluster, id: NodeId) -> Result<(), PromoteError> {
        let unknown = |error: &dyn std::fmt::Display| PromoteError::Unknown(error.to_string());
        let refused = |error: &ControlError| PromoteError::Refused(error.to_string());
        let Some(node) = cluster.nodes.get(id.index()) else {
            return Err(PromoteError::Refused("there is no such node".to_owned()));
        };
        let timeouts = Timeouts { connect: self.state.patience, statement: self.state.patience };
        let control = Control::new(cluster, node, &cluster.control.database, timeouts, self.tls.clone());
        let control = control.map_err(|error| refused(&error))?;
        let told = self.control_plane.spawn(async move {
            control.with(async |client| Ok(client.query_one(PROMOTE_SQL, &[]).await?.try_get::<_, bool>(0)?)).await
        });
        match told.await.map_err(|error| unknown(&error))? {
            Ok(true) => Ok(()),
            Ok(false) => Err(PromoteError::Refused("it could not signal its postmaster".to_owned())),
            Err(error) if error.sqlstate().is_some() => Err(refused(&error)),
            Err(error) => Err(unknown(&error)),
        }
    }
}
