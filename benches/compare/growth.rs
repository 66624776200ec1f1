//! How Causeway's cost per query grows with what there is of everything: clients, replicas, statements, text.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::future::try_join_all;
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;

use crate::client::Client;
use crate::peers::{Kind, Peer, Shape};
use crate::pgbench::{self, Load, Script};
use crate::procfs;
use crate::table::{Table, number};
use crate::{Result, Run};

const CLIENTS: [usize; 5] = [1, 16, 100, 1000, 5000];
const REPLICAS: [usize; 4] = [1, 2, 4, 8];
const STATEMENTS: [usize; 4] = [10, 1000, 10_000, 100_000];
const TEXT_BYTES: [usize; 4] = [100, 10_000, 100_000, 1_000_000];

/// Clients that are not idle.
const ACTIVE: usize = 16;

const OURS: &str = Kind::Causeway.name();

/// A kind of growth, and its steps.
type Steps = (&'static str, Vec<String>);

pub fn measure(run: &mut Run) -> Result<()> {
    let labels = |name: &str, steps: &[usize]| steps.iter().map(|step| format!("{step} {name}")).collect::<Vec<_>>();
    let growths: [Steps; 5] = [
        ("Connected clients, 16 of them active (SELECT, prepared)", labels("clients", &CLIENTS)),
        (
            "Replicas; beyond two they are stand-ins, the same two again (SELECT, prepared)",
            labels("replicas", &REPLICAS),
        ),
        ("Distinct texts of simple queries", labels("texts", &STATEMENTS)),
        ("Distinct prepared statements", labels("statements", &STATEMENTS)),
        ("Length of the text, a list of numbers (simple protocol)", labels("bytes", &TEXT_BYTES)),
    ];
    for round in 0..run.options.rounds {
        by_clients(run, round, &growths[0].1)?;
        by_replicas(run, round, &growths[1].1)?;
        let peer = start(run, 2)?;
        for (&count, label) in STATEMENTS.iter().zip(&growths[2].1) {
            let texts: Vec<Work> = share_out(count, |number| simple(&format!("SELECT {number} AS c{number}")));
            drive(run, &peer, label, round, &texts);
        }
        for (&count, label) in STATEMENTS.iter().zip(&growths[3].1) {
            drive(run, &peer, label, round, &share_out(count, prepared));
        }
        for (&bytes, label) in TEXT_BYTES.iter().zip(&growths[4].1) {
            drive(run, &peer, label, round, &share_out(1, |_| simple(&list(bytes))));
        }
    }
    for (title, steps) in &growths {
        print(run, title, steps);
    }
    Ok(())
}

fn start(run: &Run, replicas: usize) -> Result<Peer> {
    Peer::start(&run.stage, Kind::Causeway, Shape { clients: 0, replicas })
}

fn by_clients(run: &mut Run, round: usize, labels: &[String]) -> Result<()> {
    let peer = start(run, 2)?;
    let mut idle = Vec::new();
    for (&count, label) in CLIENTS.iter().zip(labels) {
        let active = count.min(ACTIVE);
        while idle.len() < count - active {
            let more = (count - active - idle.len()).min(ACTIVE);
            let logins = (0..more).map(|_| Client::login(peer.port, &run.stage.app, &run.keys));
            idle.extend(run.runtime.block_on(try_join_all(logins))?);
        }
        pgbench(run, &peer, label, round, active);
    }
    Ok(())
}

fn by_replicas(run: &mut Run, round: usize, labels: &[String]) -> Result<()> {
    for (&replicas, label) in REPLICAS.iter().zip(labels) {
        let peer = start(run, replicas)?;
        pgbench(run, &peer, label, round, ACTIVE);
    }
    Ok(())
}

fn pgbench(run: &mut Run, peer: &Peer, label: &str, round: usize, clients: usize) {
    let load = Load { script: Script::Select, protocol: "prepared", clients, secs: run.options.secs };
    match pgbench::run(&run.stage, peer, load) {
        Ok(outcome) => run.figures.add(label, OURS, round, &[("cpu", outcome.cpu), ("tps", outcome.tps)]),
        Err(error) => run.figures.fail(label, OURS, &error),
    }
}

/// What one client sends: once, and then again and again, one after the other.
#[derive(Clone, Debug, Default)]
struct Work {
    first: Vec<Bytes>,
    cycle: Vec<Bytes>,
}

/// One of `count` different requests: what prepares it, if anything does, and what runs it.
type Request = (Option<Bytes>, Bytes);

/// Each active client gets its part of the requests, and at least one.
fn share_out(count: usize, request: impl Fn(usize) -> Request) -> Vec<Work> {
    let share = (count / ACTIVE).max(1);
    let part = |client: usize| {
        let requests = (client * share..(client + 1) * share).map(|number| request(number % count));
        let (first, cycle): (Vec<_>, Vec<_>) = requests.unzip();
        Work { first: first.into_iter().flatten().collect(), cycle }
    };
    (0..ACTIVE).map(part).collect()
}

fn simple(sql: &str) -> Request {
    let mut out = BytesMut::new();
    // Our texts have no zero byte, the only thing that can be wrong with them.
    let _ = frontend::query(sql, &mut out);
    (None, out.freeze())
}

fn prepared(number: usize) -> Request {
    let (name, sql) = (format!("s{number}"), format!("SELECT {number} AS s{number}"));
    let (mut parse, mut run) = (BytesMut::new(), BytesMut::new());
    let _ = frontend::parse(&name, &sql, [], &mut parse);
    frontend::sync(&mut parse);
    let _ = frontend::bind("", &name, [], [], |(), _| Ok(IsNull::Yes), [], &mut run);
    let _ = frontend::execute("", 0, &mut run);
    frontend::sync(&mut run);
    (Some(parse.freeze()), run.freeze())
}

/// A SELECT of about this length.
fn list(bytes: usize) -> String {
    const ITEM: &str = ", 1234567";
    format!("SELECT 1 WHERE 7 IN (7{})", ITEM.repeat(bytes.saturating_sub(24) / ITEM.len()))
}

/// Lets each client send all of its requests once, and then counts for the time of a run.
fn drive(run: &mut Run, peer: &Peer, label: &str, round: usize, work: &[Work]) {
    match run.runtime.block_on(count(run, peer, work)) {
        Ok(values) => run.figures.add(label, OURS, round, &values),
        Err(error) => run.figures.fail(label, OURS, &error),
    }
}

async fn count(run: &Run, peer: &Peer, work: &[Work]) -> Result<[(&'static str, f64); 2]> {
    let logins = work.iter().map(|_| Client::login(peer.port, &run.stage.app, &run.keys));
    let mut clients = try_join_all(logins).await?;
    try_join_all(clients.iter_mut().zip(work).map(|(client, work)| send_once(client, work))).await?;
    let (begin, before) = (Instant::now(), procfs::cpu_seconds(&peer.pids()));
    let end = begin + Duration::from_secs(run.options.secs);
    let turns = clients.iter_mut().zip(work).map(|(client, work)| send_until(end, client, work));
    let answers: f64 = try_join_all(turns).await?.into_iter().sum();
    let cpu = procfs::cpu_seconds(&peer.pids()) - before;
    Ok([("cpu", cpu / answers * 1e4), ("tps", answers / begin.elapsed().as_secs_f64())])
}

async fn send_once(client: &mut Client, work: &Work) -> Result<()> {
    for request in work.first.iter().chain(&work.cycle) {
        client.send(request).await?;
        client.ready().await?;
    }
    Ok(())
}

/// Gives the number of answers, one at least.
async fn send_until(end: Instant, client: &mut Client, work: &Work) -> Result<f64> {
    let mut answers = 0.0;
    for request in work.cycle.iter().cycle() {
        client.send(request).await?;
        client.ready().await?;
        answers += 1.0;
        if Instant::now() >= end {
            break;
        }
    }
    Ok(answers)
}

fn print(run: &Run, title: &str, labels: &[String]) {
    let mut table = Table::new(&["", "CPU s/10k", "× the first", "each round", "queries/s"]);
    let median = |label: &str, name| run.figures.median(label, OURS, name);
    let first = labels.first().and_then(|label| median(label, "cpu"));
    for label in labels {
        let cpu = median(label, "cpu");
        table.row(vec![
            label.clone(),
            number(cpu, 3),
            number(cpu.zip(first).map(|(cpu, first)| cpu / first), 2),
            run.figures.each(label, OURS, "cpu", 3),
            number(median(label, "tps"), 0),
        ]);
    }
    let failures: Vec<_> = labels.iter().flat_map(|label| run.figures.failures(label)).collect();
    table.print(&format!("Growth of Causeway's cost: {title}"), &failures);
}
