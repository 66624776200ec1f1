//! What went wrong, and the three questions about it: whose fault is it, may the client read it, may we retry.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// Who has to act for the error to go away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The application, its driver, or what it sent.
    Client,
    /// A node: unreachable, refusing, or answering out of protocol.
    Node,
    /// A limit or a setting of ours; the operator can change it.
    Limit,
    /// A bug of ours.
    Proxy,
}

/// May the same work be tried again somewhere else?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    Never,
    /// Nothing was sent: any other server will do.
    Elsewhere,
}

/// SQLSTATE codes that Causeway itself raises
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
pub mod sqlstate {
    pub const PROTOCOL_VIOLATION: &str = "08P01";
    pub const CONNECTION_FAILURE: &str = "08006";
    pub const CANNOT_CONNECT: &str = "08001";
    pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
    pub const INVALID_AUTHORIZATION: &str = "28000";
    pub const INVALID_PASSWORD: &str = "28P01";
    pub const INVALID_PARAMETER_VALUE: &str = "22023";
    pub const CANT_CHANGE_RUNTIME_PARAM: &str = "55P02";
    pub const UNDEFINED_OBJECT: &str = "42704";
    pub const INVALID_STATEMENT_NAME: &str = "26000";
    pub const DUPLICATE_STATEMENT: &str = "42P05";
    pub const INVALID_CATALOG_NAME: &str = "3D000";
    pub const READ_ONLY_TRANSACTION: &str = "25006";
    pub const IDLE_IN_TRANSACTION_TIMEOUT: &str = "25P03";
    pub const TRANSACTION_TIMEOUT: &str = "25P04";
    pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
    pub const OUT_OF_MEMORY: &str = "53200";
    pub const TOO_MANY_CONNECTIONS: &str = "53300";
    pub const PROGRAM_LIMIT_EXCEEDED: &str = "54000";
    pub const SYNTAX_ERROR: &str = "42601";
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: &str = "55000";
    pub const QUERY_CANCELED: &str = "57014";
    pub const ADMIN_SHUTDOWN: &str = "57P01";
    pub const IN_FAILED_TRANSACTION: &str = "25P02";
    pub const TRANSACTION_RESOLUTION_UNKNOWN: &str = "08007";
    pub const SERIALIZATION_FAILURE: &str = "40001";
    pub const CANNOT_CONNECT_NOW: &str = "57P03";
    pub const IDLE_SESSION_TIMEOUT: &str = "57P05";
    pub const INTERNAL_ERROR: &str = "XX000";
}

/// An error of ours, or one we pass on. The client reads `sqlstate`, `message`, `detail` and `hint`, never the source.
///
/// In a box, because results with it are passed on at every step of a query, and it is seldom there.
#[derive(Debug)]
pub struct Error(Box<Parts>);

#[derive(Debug)]
struct Parts {
    fault: Fault,
    retry: Retry,
    sqlstate: Cow<'static, str>,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(fault: Fault, sqlstate: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            fault,
            retry: Retry::Never,
            sqlstate: sqlstate.into(),
            message: message.into(),
            detail: None,
            hint: None,
            source: None,
        }))
    }

    /// The peer broke the protocol; the connection cannot go on.
    pub fn protocol(message: impl Into<String>) -> Self {
        Self::new(Fault::Client, sqlstate::PROTOCOL_VIOLATION, message)
    }

    /// A node did what no PostgreSQL server does, or is not there.
    pub fn node(message: impl Into<String>) -> Self {
        Self::new(Fault::Node, sqlstate::CONNECTION_FAILURE, message)
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// More than the message says, for who wants to know why.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Keeps the cause for the log; the client never reads it.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says where the setting is that led to it: `causeway.toml:12`.
    #[must_use]
    pub fn at(mut self, origin: &str) -> Self {
        self.0.message = format!("{origin}: {}", self.0.message);
        self
    }

    /// Nothing was sent: any other server will do.
    #[must_use]
    pub fn retry_elsewhere(mut self) -> Self {
        self.0.retry = Retry::Elsewhere;
        self
    }

    pub fn fault(&self) -> Fault {
        self.0.fault
    }

    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    pub fn sqlstate(&self) -> &str {
        &self.0.sqlstate
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub fn detail_text(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.0.message, self.0.sqlstate)?;
        let mut cause = self.0.source.as_deref().map(|e| e as &dyn StdError);
        while let Some(e) = cause {
            write!(f, ": {e}")?;
            cause = e.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|e| e as &(dyn StdError + 'static))
    }
}
