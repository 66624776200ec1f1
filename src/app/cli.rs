//! The command line: what can be said, not what is done.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Config, ConfigErrors, Log, LogFormat, check_level, from_urls, load};
use crate::types::parse_duration;

const EXAMPLES: &str = "\
Examples:
  See the split on a throw-away cluster:
    causeway demo
  Without a file, in front of a primary and two replicas:
    causeway run --primary postgres://app:secret@10.0.0.1/shop --replica postgres://10.0.0.2 --replica postgres://10.0.0.3
    psql -h 127.0.0.1 -p 6432 -U app shop
  With a file, checked first:
    causeway check causeway.toml && causeway run --config causeway.toml
  Where would this go?
    causeway explain \"SELECT nextval('orders_id_seq')\"";

const RUN_USAGE: &str = "\
causeway run [OPTIONS] --config <FILE>
       causeway run [OPTIONS] --primary <URL> [--replica <URL>]... [--listen <ADDRESS>] [--metrics <ADDRESS>]";

/// A PostgreSQL proxy that sends writes to the primary and reads to replicas that are not behind.
#[derive(Clone, Debug, Parser)]
#[command(name = "causeway", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub log: LogOptions,
    #[command(subcommand)]
    pub command: Command,
}

/// In place of the configuration's `[log]`.
#[derive(Clone, Debug, Default, Args)]
pub struct LogOptions {
    /// How log lines look [default: as configured, or text]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<Format>,
    /// off, error, warn, info, debug or trace; also for single modules, as `info,causeway::topology=debug`
    /// [default: as configured, or warn]
    #[arg(long, global = true, value_name = "LEVEL", value_parser = level)]
    pub log_level: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Start the proxy
    #[command(override_usage = RUN_USAGE)]
    Run(RunOptions),
    /// Say everything that is wrong with a configuration file, or sum it up
    Check {
        /// The configuration file
        file: PathBuf,
    },
    /// Say where a statement would go, and why
    Explain {
        /// Asks the nodes that this file names, and reads the catalog; without it only what is built in is known
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The database that it is for [default: the control login's]
        #[arg(long, value_name = "NAME", requires = "config")]
        database: Option<String>,
        /// The user whose it is: what its reads are promised may be set for each
        #[arg(long, value_name = "NAME", requires = "config")]
        user: Option<String>,
        /// One or more statements
        sql: String,
    },
    /// Make a replica the primary without an error for any client of a running proxy
    Switchover(SwitchoverOptions),
    /// Start a throw-away primary with replicas and the proxy, and show where mixed traffic goes
    Demo(DemoOptions),
}

#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    /// The configuration file; config/causeway.toml describes every setting
    #[arg(long, value_name = "FILE", required_unless_present = "primary", conflicts_with = "primary")]
    pub config: Option<PathBuf>,
    /// Without a file: a node, as postgres://user:password@host:port/database?sslmode=…; clients log in as this
    /// user. The password may be in PGPASSWORD
    #[arg(long, value_name = "URL")]
    pub primary: Option<String>,
    /// One more node; may be given many times. What its URL leaves out is that of --primary
    #[arg(long, value_name = "URL", requires = "primary", conflicts_with = "config")]
    pub replica: Vec<String>,
    /// Where clients connect: an address, or the directory of a Unix socket [default: 127.0.0.1:6432]
    #[arg(long, value_name = "ADDRESS", requires = "primary", conflicts_with = "config")]
    pub listen: Option<String>,
    /// Serve /metrics, /healthz and /readyz at this address
    #[arg(long, value_name = "ADDRESS", requires = "primary", conflicts_with = "config")]
    pub metrics: Option<String>,
}

/// The password is in PGPASSWORD; PGSSLMODE and PGSSLROOTCERT are as for psql.
#[derive(Clone, Debug, Args)]
pub struct SwitchoverOptions {
    /// The cluster, by its name in the proxy's configuration
    #[arg(long, value_name = "NAME")]
    pub cluster: String,
    /// The replica that is to be the primary
    #[arg(long, value_name = "NODE")]
    pub to: String,
    /// Let the operator promote it once it has everything, instead of having it promoted
    #[arg(long)]
    pub wait: bool,
    /// How long writes may be paused until it is promoted; after that they go on where they went before
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Where the proxy listens: a host, or the directory of a Unix socket [default: PGHOST, or 127.0.0.1]
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// [default: PGPORT, or 6432]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// One whom its configuration makes an admin user [default: PGUSER]
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct DemoOptions {
    /// End after the traffic instead of staying up until Ctrl-C
    #[arg(long)]
    pub once: bool,
    /// Streaming replicas to start
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=8))]
    pub replicas: u16,
    /// How long the traffic runs
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| "write for example 30s, 500ms or 2min".to_owned())
}

fn level(text: &str) -> Result<String, String> {
    check_level(text).map(|()| text.to_owned())
}

impl RunOptions {
    /// Reads the file, or makes the configuration of the URLs.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn config(&self) -> Result<Config, ConfigErrors> {
        match (&self.config, &self.primary) {
            (Some(file), _) => load(file),
            (None, primary) => from_urls(
                primary.as_deref().unwrap_or_default(),
                &self.replica,
                self.listen.as_deref(),
                self.metrics.as_deref(),
            ),
        }
    }
}

impl LogOptions {
    /// What was said here goes before `log`.
    pub fn over(&self, log: &mut Log) {
        match self.log_format {
            Some(Format::Text) => log.format = LogFormat::Text,
            Some(Format::Json) => log.format = LogFormat::Json,
            None => {}
        }
        if let Some(level) = &self.log_level {
            log.level.clone_from(level);
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound_and_the_help_has_examples() {
        let mut command = Cli::command();
        command.clone().debug_assert();
        let help = command.render_help().to_string();
        for part in ["Examples:", "run", "check", "explain", "demo", "--log-level"] {
            assert!(help.contains(part), "{help}");
        }
    }

    #[test]
    fn what_is_said_arrives() {
        let Command::Run(run) = parse("causeway run --config c.toml").unwrap().command else { panic!() };
        assert_eq!(run.config.as_deref(), Some("c.toml".as_ref()));
        let line = "causeway run --primary postgres://u:p@a --replica postgres://b --replica postgres://c --listen *:1";
        let Command::Run(run) = parse(line).unwrap().command else { panic!() };
        let config = run.config().unwrap();
        assert_eq!((config.clusters[0].nodes.len(), config.listeners[0].address.to_string()), (3, "*:1".to_owned()));
        let Command::Demo(demo) = parse("causeway demo --once --seconds 3").unwrap().command else { panic!() };
        assert_eq!(demo, DemoOptions { once: true, replicas: 2, seconds: 3 });
        let line = "causeway switchover --cluster a --to b --wait --timeout 2min";
        let Command::Switchover(order) = parse(line).unwrap().command else { panic!() };
        assert_eq!((order.wait, order.timeout, order.port), (true, Duration::from_secs(120), None));
        let Command::Explain { config, sql, .. } = parse("causeway explain SELECT").unwrap().command else { panic!() };
        assert_eq!((config, sql.as_str()), (None, "SELECT"));
    }

    #[test]
    fn the_command_lines_log_options_win() {
        let config = || Log { format: LogFormat::Json, level: "warn".to_owned() };
        let mut log = config();
        parse("causeway demo").unwrap().log.over(&mut log);
        assert_eq!((log.format, log.level.as_str()), (LogFormat::Json, "warn"));
        parse("causeway demo --log-format text --log-level debug").unwrap().log.over(&mut log);
        assert_eq!((log.format, log.level.as_str()), (LogFormat::Text, "debug"));
    }

    #[test]
    fn mistakes_are_refused() {
        for (line, kind) in [
            ("causeway", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            ("causeway run", ErrorKind::MissingRequiredArgument),
            ("causeway run --replica postgres://b", ErrorKind::MissingRequiredArgument),
            ("causeway run --config c --primary postgres://u@a", ErrorKind::ArgumentConflict),
            ("causeway run --config c --replica postgres://b", ErrorKind::ArgumentConflict),
            ("causeway run --config c --listen *:1", ErrorKind::ArgumentConflict),
            ("causeway check", ErrorKind::MissingRequiredArgument),
            ("causeway demo --replicas 0", ErrorKind::ValueValidation),
            ("causeway demo --log-level inof", ErrorKind::ValueValidation),
            ("causeway demo --log-format xml", ErrorKind::InvalidValue),
            ("causeway explain --user u SELECT", ErrorKind::MissingRequiredArgument),
            ("causeway switchover --to b", ErrorKind::MissingRequiredArgument),
            ("causeway switchover --cluster a --to b --timeout soon", ErrorKind::ValueValidation),
            ("causeway start", ErrorKind::InvalidSubcommand),
        ] {
            assert_eq!(parse(line).unwrap_err().kind(), kind, "{line}");
        }
    }
}
