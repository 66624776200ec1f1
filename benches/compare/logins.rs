//! How many clients can log in with SCRAM in a second, and what a login costs.

use std::process;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use crate::client::Client;
use crate::peers::{self, Peer, Shape};
use crate::procfs;
use crate::table::{Table, number};
use crate::{Result, Run};

const WORKLOAD: &str = "Logins";

const AT_A_TIME: usize = 32;

pub fn measure(run: &mut Run) {
    let peers = peers::start_all(&run.stage, &run.options.peers, Shape { clients: 2 * AT_A_TIME, replicas: 2 });
    for round in 0..run.options.rounds {
        for peer in peers::in_turn(&peers, round) {
            match log_in(run, peer) {
                Ok(values) => run.figures.add(WORKLOAD, peer.kind.name(), round, &values),
                Err(error) => run.figures.fail(WORKLOAD, peer.kind.name(), &error),
            }
        }
    }
    let head = ["", "logins/s", "each round", "CPU ms/login", "PostgreSQL CPU ms/login", "CPU of the client, cores"];
    let mut table = Table::new(&head);
    for peer in &peers {
        let name = peer.kind.name();
        let median = |figure| run.figures.median(WORKLOAD, name, figure);
        table.row(vec![
            name.to_owned(),
            number(median("logins_per_s"), 0),
            run.figures.each(WORKLOAD, name, "logins_per_s", 0),
            number(median("cpu_ms"), 3),
            number(median("postgres_cpu_ms"), 3),
            number(median("client_cores"), 2),
        ]);
    }
    table.print(
        &format!("Logins with SCRAM, {AT_A_TIME} at a time, no query, by a client that keeps the salted password"),
        &run.figures.failures(WORKLOAD),
    );
}

fn log_in(run: &Run, peer: &Peer) -> Result<[(&'static str, f64); 4]> {
    let Run { stage, runtime, keys, options, .. } = run;
    // PBKDF2 is done once, before.
    runtime.block_on(Client::login(peer.port, &stage.app, keys))?;
    let cpu = || {
        let groups = [peer.pids(), stage.postgres_pids(), vec![process::id()]];
        groups.map(|pids| procfs::cpu_seconds(&pids))
    };
    let (begin, before) = (Instant::now(), cpu());
    let end = begin + Duration::from_secs(options.secs);
    let logins = runtime.block_on(try_join_all((0..AT_A_TIME).map(|_| one_after_the_other(run, peer, end))))?;
    let (secs, after, logins) = (begin.elapsed().as_secs_f64(), cpu(), logins.into_iter().sum::<f64>());
    let [proxy, postgres, client] = [0, 1, 2].map(|group| after[group] - before[group]);
    Ok([
        ("logins_per_s", logins / secs),
        ("cpu_ms", proxy / logins * 1e3),
        ("postgres_cpu_ms", postgres / logins * 1e3),
        ("client_cores", client / secs),
    ])
}

/// Gives the number of logins.
async fn one_after_the_other(run: &Run, peer: &Peer, end: Instant) -> Result<f64> {
    let mut logins = 0.0;
    while Instant::now() < end {
        Client::login(peer.port, &run.stage.app, &run.keys).await?.close().await?;
        logins += 1.0;
    }
    Ok(logins)
}
