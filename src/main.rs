//! The `causeway` command. Exit codes: 0, 1 for an error, 2 for a command line that cannot be understood.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use causeway::app::cli::{Cli, Command};
use causeway::app::explain::Client;
use causeway::app::{self, check, logging};
use causeway::config::{self, ConfigErrors, Log, LogFormat};
use causeway::error::Error;
use clap::Parser as _;

fn main() -> ExitCode {
    match execute(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("causeway: {error}");
            if let Some(detail) = error.downcast_ref::<Error>().and_then(Error::detail_text) {
                eprintln!("detail: {detail}");
            }
            if let Some(hint) = error.downcast_ref::<Error>().and_then(Error::hint_text) {
                eprintln!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

fn execute(cli: &Cli) -> Result<()> {
    match &cli.command {
        Command::Run(options) => {
            let mut config = options.config().map_err(|errors| broken(&errors))?;
            cli.log.over(&mut config.log);
            logging::init(&config.log)?;
            app::commands::run(config)?;
        }
        Command::Check { file } => {
            let config = config::load(file).map_err(|errors| broken(&errors))?;
            show(&format!("ok\n{}", check::summary(&config)))?;
        }
        Command::Explain { config, database, user, sql } => {
            start_logging(cli)?;
            let config = config.as_deref().map(config::load).transpose().map_err(|errors| broken(&errors))?;
            let client = Client { database: database.as_deref(), user: user.as_deref() };
            show(&app::commands::explain(config.as_ref(), client, sql)?)?;
        }
        Command::Switchover(options) => {
            start_logging(cli)?;
            // A reader that has gone away does not stop it.
            app::commands::switchover(options, |text| drop(show(&format!("{text}\n"))))?;
        }
        Command::Demo(options) => {
            start_logging(cli)?;
            app::commands::demo(*options)?;
        }
    }
    Ok(())
}

/// For commands that have no configuration of their own.
fn start_logging(cli: &Cli) -> Result<()> {
    let mut log = Log { format: LogFormat::Text, level: "warn".to_owned() };
    cli.log.over(&mut log);
    Ok(logging::init(&log)?)
}

fn broken(errors: &ConfigErrors) -> anyhow::Error {
    anyhow!("the configuration has errors\n{errors}")
}

/// A reader that goes away early is an error, not a panic.
fn show(text: &str) -> io::Result<()> {
    io::stdout().write_all(text.as_bytes())
}
