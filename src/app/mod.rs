//! Puts the parts together: what each command of the command line does.

pub mod check;
pub mod cli;
pub mod logging;

use self::cli::DemoOptions;
use crate::config::Config;
use crate::error::{Error, Fault, Result, sqlstate};

/// Runs the proxy until it is told to stop.
pub fn run(_config: Config) -> Result<()> {
    Err(not_yet("run"))
}

/// What the classifier says of `sql`, with the catalog facts of the primary when there is a configuration.
pub fn explain(_config: Option<&Config>, _sql: &str) -> Result<String> {
    Err(not_yet("explain"))
}

/// Starts a throw-away cluster with the proxy in front of it.
pub fn demo(_options: DemoOptions) -> Result<()> {
    Err(not_yet("demo"))
}

fn not_yet(command: &str) -> Error {
    Error::new(Fault::Proxy, sqlstate::FEATURE_NOT_SUPPORTED, format!("this build has no {command:?} yet"))
}
