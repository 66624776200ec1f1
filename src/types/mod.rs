//! Vocabulary without I/O: node ids, roles, secrets, positions in a cluster's history and their tokens, consistency
//! levels and the settings that are about them.

mod duration;
mod level;
mod mutant;
mod position;
mod setting;
mod token;

use std::fmt;

pub use duration::{parse_duration, show_duration};
pub use level::{Consistency, Level, Overrides};
pub use mutant::Mutant;
pub use position::{BadLsn, Lsn, Position};
pub use setting::{BadSetting, OwnSetting, OwnValue};
pub use token::BadToken;

/// A node of a cluster: its index in the cluster's list of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u16);

impl NodeId {
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A data-plane thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WorkerId(pub usize);

/// Observed, never only configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Primary,
    Replica,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

/// How long a session keeps its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolMode {
    Transaction,
    Session,
}

/// A password or a verifier. Neither `Debug` nor `Display` shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself: only for the code that logs in.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(***)");
    }
}
