//! The comparison with other proxies: what a query, an idle client, a login and a row cost, measured in one run, in
//! turn, on nodes that are made for it. `make bench` runs it.

mod client;
mod cluster;
mod figures;
mod growth;
mod idle;
mod logins;
mod peers;
mod pgbench;
mod picture;
mod procfs;
mod queries;
mod rows;
mod table;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};

use client::Keys;
use cluster::Stage;
use figures::Figures;
use peers::Kind;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Section {
    /// pgbench's SELECT in three protocols and its transaction.
    Select,
    /// Memory of clients that do nothing.
    Idle,
    /// SCRAM logins per second.
    Logins,
    /// Results of many rows, and COPY.
    Rows,
    /// How Causeway's cost grows with clients, replicas, statements and their length. Not run unless named.
    Growth,
}

/// Compares Causeway with the proxies that are installed.
#[derive(Debug, Parser)]
struct Options {
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_value = "select,idle,logins,rows")]
    only: Vec<Section>,
    /// Whom to compare
    #[arg(long, value_enum, value_delimiter = ',', default_value = "direct,haproxy,pgbouncer,pgpool,causeway")]
    peers: Vec<Kind>,
    /// Clients of pgbench at a time
    #[arg(long, value_delimiter = ',', default_value = "16,200")]
    clients: Vec<usize>,
    /// Seconds of each run
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    secs: u64,
    /// How often each run is made
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Clients that do nothing; pgpool-II and relays, which need a server for each, get fewer
    #[arg(long, default_value_t = 2000)]
    idle: usize,
    /// Where to write all figures, as CSV
    #[arg(long)]
    csv: Option<PathBuf>,
    /// Where to draw CPU per query at the least number of clients, as SVG, if "select" is measured
    #[arg(long)]
    picture: Option<PathBuf>,
    /// What cargo says when it runs benches and not tests
    #[arg(long, hide = true)]
    bench: bool,
}

/// What all sections use.
struct Run {
    options: Options,
    stage: Stage,
    runtime: Runtime,
    keys: Keys,
    figures: Figures,
    /// What all was measured on.
    machine: String,
}

fn main() -> ExitCode {
    let options = Options::parse();
    // `cargo test --all-targets` runs benches, too, to see that they start.
    if !options.bench {
        return ExitCode::SUCCESS;
    }
    match compare(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("The comparison failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: Options) -> Result<()> {
    let begin = Instant::now();
    let (_, most_files) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most_files, most_files)?;
    let stage = Stage::build()?;
    let machine = introduce(&options, &stage)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut run = Run { options, stage, runtime, keys: Keys::default(), figures: Figures::default(), machine };
    for section in run.options.only.clone() {
        match section {
            Section::Select => queries::measure(&mut run),
            Section::Idle => idle::measure(&mut run),
            Section::Logins => logins::measure(&mut run),
            Section::Rows => rows::measure(&mut run)?,
            Section::Growth => growth::measure(&mut run)?,
        }
    }
    if let Some(path) = &run.options.csv {
        fs::write(path, run.figures.csv())?;
    }
    // What was not measured is no reason to draw over what was.
    if let Some(path) = run.options.picture.as_ref().filter(|_| run.options.only.contains(&Section::Select)) {
        fs::write(path, queries::picture(&run))?;
    }
    println!("\nAll of it took {:.0} s.", begin.elapsed().as_secs_f64());
    Ok(())
}

/// Says what is measured on, and gives the line that goes with every figure.
fn introduce(options: &Options, stage: &Stage) -> Result<String> {
    let postgresql = stage.cluster.primary().sql("postgres", "SHOW server_version")?;
    let machine = format!(
        "{} cores of {}, PostgreSQL {}; rounds: {}, each run {} s",
        thread::available_parallelism()?,
        procfs::processor(),
        postgresql.split(' ').next().unwrap_or_default(),
        options.rounds,
        options.secs
    );
    println!("A primary and two replicas. {machine}; in turn; medians, and in parentheses each round.");
    for version in options.peers.iter().filter_map(|kind| kind.version()) {
        println!("  {version}");
    }
    Ok(machine)
}
