//! Log lines on standard error.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};
use crate::error::{Error, Fault, Result, sqlstate};

/// Starts logging, once in the life of the process. Colours only on a terminal.
///
/// # Errors
/// A level that is no filter, or logging that was started before.
pub fn init(log: &Log) -> Result<()> {
    let filter = EnvFilter::try_new(&log.level).map_err(|error| cannot("log.level is no filter", error))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match log.format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
    };
    started.map_err(|error| cannot("logging was started before", error))
}

fn cannot(what: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(Fault::Proxy, sqlstate::INTERNAL_ERROR, format!("cannot start logging: {what}")).source(error)
}
