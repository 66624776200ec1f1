//! The figures for people: one table, a line for each subject and kind.

use crate::measure::{Figures, Waiting};

/// System calls by name that are rarer per query are left out.
const RARE: f64 = 0.05;

pub fn print(measured: &[(&str, Vec<Figures>)]) {
    println!(
        "\nPer query, that is per round trip; 1 is one client, m is {} at the same time. instructions, \
         allocations and system calls are those of the thread that serves the clients; beside: instructions of all \
         others. wakes: system calls that wake threads. waits: voluntary context switches.\n",
        many(measured)
    );
    println!(
        "{:<10} {:<12} {:>12} {:>8} {:>11} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8}",
        "",
        "",
        "instructions",
        "beside",
        "allocations",
        "socket 1",
        "socket m",
        "system 1",
        "system m",
        "wakes 1",
        "wakes m",
        "waits 1",
        "waits m"
    );
    for (name, kinds) in measured {
        for figures in kinds {
            let (alone, together) = (&figures.alone, &figures.together);
            println!(
                "{name:<10} {:<12} {:>12.0} {:>8.0} {:>11.2} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>8.2} {:>8.2} {:>8.2} {:>8.2}",
                figures.kind.name(),
                figures.work.instructions,
                figures.work.beside,
                figures.work.allocations,
                alone.transfers,
                together.transfers,
                all(alone),
                all(together),
                alone.wakes,
                together.wakes,
                alone.switches,
                together.switches,
            );
        }
    }
    println!("\nSystem calls by name:\n");
    for (name, kinds) in measured {
        for figures in kinds {
            for waiting in [&figures.alone, &figures.together] {
                let kind = figures.kind.name();
                println!("{name:<10} {kind:<12} {:>2} clients: {}", waiting.clients, by_name(waiting));
            }
        }
    }
}

fn many(measured: &[(&str, Vec<Figures>)]) -> usize {
    measured.iter().flat_map(|(_, kinds)| kinds).map(|figures| figures.together.clients).max().unwrap_or_default()
}

fn all(waiting: &Waiting) -> f64 {
    waiting.calls.values().sum()
}

fn by_name(waiting: &Waiting) -> String {
    let common = waiting.calls.iter().filter(|(_, times)| **times >= RARE);
    common.map(|(name, times)| format!("{name} {times:.2}")).collect::<Vec<_>>().join(", ")
}
