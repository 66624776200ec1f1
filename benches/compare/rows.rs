//! What much data costs: results of many rows, and COPY both ways.

use std::time::Instant;

use crate::client::Client;
use crate::cluster::ROWS;
use crate::peers::{self, Kind, Peer, Shape};
use crate::procfs;
use crate::table::{Table, number, spread};
use crate::{Result, Run};

const WORKLOAD: &str = "Rows";

/// A result of the million rows costs some 30 ms at best, and the kernel counts CPU in steps of 10 ms.
const RESULTS: u32 = 5;

/// Each way.
const COPIES: usize = 2;

/// 8, 64 and 24 characters and what separates them: 99 bytes a row, which makes 99 MB.
const COPY_OUT: &str = "COPY (SELECT a, b, a || a || a FROM rows) TO STDOUT";
const COPY_IN: &str = "COPY copied FROM STDIN";

/// What psql puts into a frame.
const FRAME_BYTES: usize = 8192;

pub fn measure(run: &mut Run) -> Result<()> {
    run.stage.add_rows()?;
    let row = format!("12345678\t{}\t123456781234567812345678\n", "x".repeat(64));
    let data = row.repeat(usize::try_from(ROWS)?);
    let peers = peers::start_all(&run.stage, &run.options.peers, Shape { clients: 16, replicas: 2 });
    for round in 0..run.options.rounds {
        for peer in peers::in_turn(&peers, round) {
            match pass(run, peer, data.as_bytes()) {
                Ok(values) => run.figures.add(WORKLOAD, peer.kind.name(), round, &values),
                Err(error) => run.figures.fail(WORKLOAD, peer.kind.name(), &error),
            }
        }
    }
    let mut table = Table::new(&[
        "",
        "Mrows/s",
        "CPU ns/row",
        "each round",
        "of it in user mode",
        "COPY out MB/s",
        "× direct",
        "COPY in MB/s",
        "× direct",
    ]);
    for peer in &peers {
        let name = peer.kind.name();
        let median = |figure| run.figures.median(WORKLOAD, name, figure);
        let to_direct = |figure| spread(run.figures.ratios(WORKLOAD, name, Kind::Direct.name(), figure));
        table.row(vec![
            name.to_owned(),
            number(median("mrows_per_s"), 2),
            number(median("cpu_ns"), 0),
            run.figures.each(WORKLOAD, name, "cpu_ns", 0),
            number(median("user_ns"), 0),
            number(median("copy_out"), 0),
            to_direct("copy_out"),
            number(median("copy_in"), 0),
            to_direct("copy_in"),
        ]);
    }
    table.print("Rows of 87 bytes, and COPY of 99 MB", &run.figures.failures(WORKLOAD));
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn pass(run: &Run, peer: &Peer, data: &[u8]) -> Result<Vec<(&'static str, f64)>> {
    let Run { stage, runtime, keys, .. } = run;
    runtime.block_on(async {
        let mut client = Client::login(peer.port, &stage.app, keys).await?;
        // The first one brings the table into memory.
        expect(client.query("SELECT a, b FROM rows").await?.rows)?;
        let pids = peer.pids();
        let (begin, cpu, user) = (Instant::now(), procfs::cpu_seconds(&pids), procfs::user_seconds(&pids));
        for _ in 0..RESULTS {
            expect(client.query("SELECT a, b FROM rows").await?.rows)?;
        }
        let rows = f64::from(ROWS * RESULTS);
        let mut values = vec![("mrows_per_s", rows / begin.elapsed().as_secs_f64() / 1e6)];
        values.push(("cpu_ns", (procfs::cpu_seconds(&pids) - cpu) / rows * 1e9));
        values.push(("user_ns", (procfs::user_seconds(&pids) - user) / rows * 1e9));
        let (begin, mut copied) = (Instant::now(), 0);
        for _ in 0..COPIES {
            copied += client.query(COPY_OUT).await?.copied_bytes;
        }
        values.push(("copy_out", copied as f64 / begin.elapsed().as_secs_f64() / 1e6));
        client.query("TRUNCATE copied").await?;
        let begin = Instant::now();
        for _ in 0..COPIES {
            client.copy_in(COPY_IN, data, FRAME_BYTES).await?;
        }
        values.push(("copy_in", (COPIES * data.len()) as f64 / begin.elapsed().as_secs_f64() / 1e6));
        Ok(values)
    })
}

fn expect(rows: u64) -> Result<()> {
    if rows == u64::from(ROWS) { Ok(()) } else { Err(format!("{rows} rows came instead of {ROWS}").into()) }
}
