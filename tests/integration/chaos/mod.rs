//! Faults over real nodes: a relay that tears connections, and a matrix of what is struck, how, and in which state.

mod actors;
mod cell;
mod errors;
mod failover;
mod ledger;
mod matrix;
mod relay;
mod relay_check;
mod session;
mod stage;

use crate::harness::{Env, Test};

use cell::Target;

pub const TESTS: &[Test] = &[
    ("chaos::the_relay_passes_bytes", relay_check::bytes_pass),
    ("chaos::the_relay_delays", relay_check::weather_delays),
    ("chaos::the_relay_ends_connections", relay_check::links_end),
    ("chaos::the_relay_holds_messages", relay_check::traps_hold),
    ("chaos::the_relay_counts_bytes", relay_check::traps_count),
    ("chaos::the_relay_follows_the_start", relay_check::the_start_is_followed),
    ("chaos::the_primary_is_struck", the_primary_is_struck),
    ("chaos::a_replica_is_struck", a_replica_is_struck),
    ("chaos::the_proxy_is_struck", the_proxy_is_struck),
    ("chaos::a_failover_loses_nothing", failover::loses_nothing),
    ("chaos::a_failover_loses_only_what_was_not_replicated", failover::loses_what_was_not_replicated),
];

fn the_primary_is_struck(_: &Env) {
    matrix::run(Target::Primary);
}

fn a_replica_is_struck(_: &Env) {
    matrix::run(Target::Replica);
}

fn the_proxy_is_struck(_: &Env) {
    matrix::run(Target::Proxy);
}
