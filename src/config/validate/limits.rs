//! What clients can take, and how long.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::report::Report;
use super::{DAY, GIB, HOUR, KIB, MIB, MILLISECOND};
use crate::config::{Limits, Timeouts, raw};

/// Zero is none.
pub const CLIENTS: RangeInclusive<u64> = 0..=1_000_000;
/// Zero is none.
pub const SERVERS: RangeInclusive<u64> = 0..=100_000;
const TIMEOUTS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(365 * DAY.as_secs());

pub fn limits(raw: &raw::Limits, report: &mut Report<'_>) -> Limits {
    let limits = Limits {
        max_client_conn: report.count(&raw.max_client_conn, &(1..=*CLIENTS.end())),
        max_user_client_connections: report.count(&raw.max_user_client_connections, &CLIENTS),
        max_db_client_connections: report.count(&raw.max_db_client_connections, &CLIENTS),
        client_login_timeout: report.time(&raw.client_login_timeout, &(100 * MILLISECOND..=HOUR)),
        login_during_outage: *raw.login_during_outage.get_ref(),
        timeouts: Timeouts {
            query: report.time(&raw.query_timeout, &TIMEOUTS),
            idle_transaction: report.time(&raw.idle_transaction_timeout, &TIMEOUTS),
            transaction: report.time(&raw.transaction_timeout, &TIMEOUTS),
            client_idle: report.time(&raw.client_idle_timeout, &TIMEOUTS),
        },
        memory_bytes: report.size(&raw.max_memory, &(MIB..=1024 * GIB)),
        // PostgreSQL takes no message of a gibibyte or more.
        max_message_bytes: report.size(&raw.max_message_size, &(64 * KIB..=GIB)),
        max_batch_bytes: report.size(&raw.max_batch_size, &(64 * KIB..=GIB)),
        memo_bytes: report.size(&raw.memo_size, &(MIB..=64 * GIB)),
        max_client_statements: report.count(&raw.max_client_statements, &(1..=1_000_000)),
    };
    let (memory, batch) = (*raw.max_memory.get_ref(), *raw.max_batch_size.get_ref());
    // What is held of a batch can take twice its size, because buffers grow by doubling.
    if limits.memory_bytes / 2 < limits.max_batch_bytes {
        let blamed = if raw.max_memory.span().is_empty() { &raw.max_batch_size } else { &raw.max_memory };
        let problem = format!("max_memory, which is {memory}, must be twice max_batch_size, which is {batch}");
        report.at(&blamed.span(), problem);
    }
    limits
}

/// Those of a user that chooses some.
pub fn timeouts(user: &raw::User, all: &raw::Limits, report: &mut Report<'_>) -> Timeouts {
    let mut choose = |own: &Option<_>, of_all: &toml::Spanned<raw::Time>| match own {
        Some(own) => report.time(own, &TIMEOUTS),
        None => of_all.get_ref().0,
    };
    Timeouts {
        query: choose(&user.query_timeout, &all.query_timeout),
        idle_transaction: choose(&user.idle_transaction_timeout, &all.idle_transaction_timeout),
        transaction: choose(&user.transaction_timeout, &all.transaction_timeout),
        client_idle: choose(&user.client_idle_timeout, &all.client_idle_timeout),
    }
}
