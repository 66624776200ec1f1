//! What a client costs that is logged in and does nothing: before its first query, and after it.

use std::thread;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};

use crate::client::Client;
use crate::peers::{Kind, Peer, Shape};
use crate::procfs;
use crate::table::{Table, number};
use crate::{Result, Run};

const WORKLOAD: &str = "Idle clients";

/// Logins and queries in flight.
const AT_A_TIME: usize = 16;

/// How many clients those get that need a server for each.
const FEW: usize = 200;

/// Until a peer has given back what it was going to give back.
const SETTLE: Duration = Duration::from_secs(1);

pub fn measure(run: &mut Run) {
    let kinds = run.options.peers.clone();
    for kind in &kinds {
        let wanted = match kind {
            Kind::Direct | Kind::Haproxy | Kind::Pgpool => run.options.idle.min(FEW),
            Kind::Pgbouncer | Kind::Causeway => run.options.idle,
        };
        // A peer that has served others has memory to give, and what a client takes of it would not show.
        let peer = match Peer::start(&run.stage, *kind, Shape { clients: wanted + AT_A_TIME, replicas: 2 }) {
            Ok(peer) => peer,
            Err(error) => {
                run.figures.fail(WORKLOAD, kind.name(), &error);
                continue;
            }
        };
        if let Err(error) = hold(run, &peer, wanted) {
            run.figures.fail(WORKLOAD, kind.name(), &error);
        }
    }
    let mut table = Table::new(&["", "wanted", "held", "answered", "base MB", "KB each", "KB each after a query"]);
    for kind in &kinds {
        let median = |name| run.figures.median(WORKLOAD, kind.name(), name);
        table.row(vec![
            kind.name().to_owned(),
            number(median("wanted"), 0),
            number(median("held"), 0),
            number(median("answered"), 0),
            number(median("base_mb"), 1),
            number(median("kb"), 1),
            number(median("kb_after_query"), 1),
        ]);
    }
    table.print("Idle clients (PSS; without a proxy: of PostgreSQL's processes)", &run.figures.failures(WORKLOAD));
}

#[expect(clippy::cast_precision_loss, reason = "clients are few")]
fn hold(run: &mut Run, peer: &Peer, wanted: usize) -> Result<()> {
    let Run { stage, runtime, keys, .. } = &*run;
    let memory = || {
        thread::sleep(SETTLE);
        procfs::pss_kb(&if peer.kind == Kind::Direct { stage.postgres_pids() } else { peer.pids() })
    };
    let login = || Client::login(peer.port, &stage.app, keys);
    // The pool fills before, for what its servers take is not the clients'.
    runtime.block_on(async {
        let mut first = try_join_all((0..AT_A_TIME).map(|_| login())).await?;
        try_join_all(first.iter_mut().map(|client| client.query("SELECT 1"))).await
    })?;
    let base = memory();
    let mut clients = Vec::new();
    let mut refusal = None;
    runtime.block_on(async {
        while clients.len() < wanted && refusal.is_none() {
            for result in join_all((0..AT_A_TIME.min(wanted - clients.len())).map(|_| login())).await {
                match result {
                    Ok(client) => clients.push(client),
                    Err(error) => refusal = Some(error.to_string()),
                }
            }
        }
    });
    let logged_in = memory();
    let answered = runtime.block_on(async {
        let mut answered = 0;
        for some in clients.chunks_mut(AT_A_TIME) {
            let answers = join_all(some.iter_mut().map(|client| client.query("SELECT 1"))).await;
            answered += answers.iter().filter(|answer| answer.is_ok()).count();
        }
        answered
    });
    let after_query = memory();
    let held = clients.len() as f64;
    let name = peer.kind.name();
    let values = [
        ("wanted", wanted as f64),
        ("held", held),
        ("answered", answered as f64),
        ("base_mb", base / 1024.0),
        ("kb", (logged_in - base) / held),
        ("kb_after_query", (after_query - base) / held),
    ];
    run.figures.add(WORKLOAD, name, 0, &values);
    if let Some(why) = refusal {
        run.figures.fail(WORKLOAD, name, &why);
    }
    Ok(())
}
