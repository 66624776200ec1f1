//! What a query costs: pgbench through each peer, in turn.

use crate::Run;
use crate::peers::{self, Kind, Peer, Shape};
use crate::pgbench::{self, Load, Script};
use crate::picture::{self, Bar, Group};
use crate::table::{Table, number, spread};

/// Title, what pgbench runs, and its protocol.
const WORKLOADS: [(&str, Script, &str); 4] = [
    ("SELECT, simple protocol", Script::Select, "simple"),
    ("SELECT, extended protocol", Script::Select, "extended"),
    ("SELECT, prepared", Script::Select, "prepared"),
    ("tpcb transaction, simple protocol", Script::Tpcb, "simple"),
];

pub fn measure(run: &mut Run) {
    let most = run.options.clients.iter().copied().max().unwrap_or(1);
    let peers = peers::start_all(&run.stage, &run.options.peers, Shape { clients: most + 10, replicas: 2 });
    for peer in &peers {
        // What is slow only once: caches, the pools' first servers, pgpool's questions to the catalog.
        let warm = Load { script: Script::Select, protocol: "simple", clients: most, secs: 1 };
        if let Err(error) = pgbench::run(&run.stage, peer, warm) {
            println!("{} with {most} clients: {error}", peer.kind.name());
        }
    }
    for round in 0..run.options.rounds {
        for clients in run.options.clients.clone() {
            for workload in WORKLOADS {
                for peer in peers::in_turn(&peers, round) {
                    measure_one(run, peer, workload, clients, round);
                }
            }
        }
    }
    for &clients in &run.options.clients {
        for (title, ..) in WORKLOADS {
            print(run, &peers, &named(title, clients));
        }
    }
}

fn named(title: &str, clients: usize) -> String {
    format!("{title}, {clients} clients")
}

fn measure_one(run: &mut Run, peer: &Peer, workload: (&str, Script, &'static str), clients: usize, round: usize) {
    let (title, script, protocol) = workload;
    let (name, peer_name) = (named(title, clients), peer.kind.name());
    if protocol == "prepared" && !peer.kind.knows_prepared() {
        run.figures.fail(&name, peer_name, &"this version passes no prepared statements in transaction mode");
        return;
    }
    let load = Load { script, protocol, clients, secs: run.options.secs };
    match pgbench::run(&run.stage, peer, load) {
        Ok(outcome) => {
            let values = [
                ("tps", outcome.tps),
                ("p50_ms", outcome.p50_ms),
                ("p99_ms", outcome.p99_ms),
                ("cpu", outcome.cpu),
                ("postgres_cpu", outcome.postgres_cpu),
                ("switches", outcome.switches),
                ("on_replicas", outcome.on_replicas),
            ];
            run.figures.add(&name, peer_name, round, &values);
            eprintln!("round {} {name}: {peer_name} {:.0} tps", round + 1, outcome.tps);
        }
        Err(error) => run.figures.fail(&name, peer_name, &error),
    }
}

fn print(run: &Run, peers: &[Peer], workload: &str) {
    let figures = &run.figures;
    let mut table = Table::new(&[
        "",
        "tps",
        "p50 ms",
        "added",
        "p99 ms",
        "CPU s/10k",
        "× PgBouncer",
        "× HAProxy",
        "PostgreSQL CPU s/10k",
        "switches/query",
        "tps × PgBouncer",
        "on replicas %",
    ]);
    for peer in peers {
        let name = peer.kind.name();
        let median = |figure| figures.median(workload, name, figure);
        let ratio = |base: Kind, figure| spread(figures.ratios(workload, name, base.name(), figure));
        let direct = figures.median(workload, Kind::Direct.name(), "p50_ms");
        table.row(vec![
            name.to_owned(),
            number(median("tps"), 0),
            number(median("p50_ms"), 3),
            number(median("p50_ms").zip(direct).map(|(own, direct)| own - direct), 3),
            number(median("p99_ms"), 3),
            number(median("cpu"), 3),
            ratio(Kind::Pgbouncer, "cpu"),
            ratio(Kind::Haproxy, "cpu"),
            number(median("postgres_cpu"), 3),
            number(median("switches"), 2),
            ratio(Kind::Pgbouncer, "tps"),
            number(median("on_replicas"), 1),
        ]);
    }
    table.print(workload, &figures.failures(workload));
}

/// The proxies' CPU per query as bars, at the least number of clients that was measured.
pub fn picture(run: &Run) -> String {
    let clients = run.options.clients.iter().copied().min().unwrap_or_default();
    let group = |(title, ..): (&'static str, Script, &str)| {
        let workload = named(title, clients);
        let bar = |kind: &Kind| {
            let value = run.figures.median(&workload, kind.name(), "cpu")?;
            let ratio = crate::figures::median(run.figures.ratios(&workload, kind.name(), Kind::Haproxy.name(), "cpu"));
            Some(Bar { name: kind.name(), value, ratio, ours: *kind == Kind::Causeway })
        };
        Group { title, bars: run.options.peers.iter().filter_map(bar).collect() }
    };
    let groups: Vec<_> = WORKLOADS.into_iter().map(group).collect();
    picture::draw(
        &format!("CPU seconds of the proxy per 10,000 queries, {clients} clients"),
        &[
            "less is better; ×: to HAProxy, which only relays; Causeway and pgpool-II split reads from writes",
            &run.machine,
        ],
        &groups,
    )
}
