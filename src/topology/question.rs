//! Asks a node for its position alone: the cheap question, on a connection that nothing slower shares.

use std::time::Instant;

use deadpool_postgres::{Client, Object};
use tokio_postgres::types::PgLsn;

use super::control::{Control, ControlError};
use super::progress::PositionSample;
use crate::types::{Lsn, Mutant, Position};

/// What no connection sees change: a node has to restart for it.
const IDENTITY_SQL: &str = "\
SELECT (SELECT system_identifier FROM pg_control_system()) AS system,
       (SELECT bytes_per_wal_segment FROM pg_control_init()) AS segment_bytes";

/// An error on a replica, so an answer proves that the node writes, and the file name tells on which timeline.
const PRIMARY_SQL: &str = "\
SELECT pg_current_wal_insert_lsn() AS lsn,
       pg_current_wal_flush_lsn() AS flush,
       ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int4 AS timeline";

/// The timeline is what it receives, or else where it was at its last restartpoint.
const REPLICA_SQL: &str = "\
SELECT pg_is_in_recovery() AS standby,
       pg_last_wal_replay_lsn() AS lsn,
       pg_is_in_recovery() AND pg_is_wal_replay_paused() AS paused,
       coalesce((SELECT received_tli FROM pg_stat_wal_receiver),
                (SELECT greatest(c.timeline_id, r.min_recovery_end_timeline)
                   FROM pg_control_checkpoint() c, pg_control_recovery() r)) AS timeline";

/// A connection for questions to one node, made when the first is asked.
#[derive(Debug)]
pub(super) struct Line {
    control: Control,
    identity: Option<Identity>,
}

#[derive(Clone, Copy, Debug)]
struct Identity {
    connected_at: Instant,
    system: u64,
    segment_bytes: u64,
}

impl Line {
    pub(super) fn new(control: Control) -> Self {
        Self { control, identity: None }
    }

    /// Where a primary is. One round trip once the connection is there; an error if it is no primary.
    pub(super) async fn ask_primary(&mut self) -> Result<PositionSample, ControlError> {
        let identity = &mut self.identity;
        self.control.with(async |client| ask_primary(client, identify(client, identity).await?).await).await
    }

    /// Where a replica is. One round trip once the connection is there; an error if it is no replica.
    pub(super) async fn ask_replica(&mut self) -> Result<PositionSample, ControlError> {
        let identity = &mut self.identity;
        self.control.with(async |client| ask_replica(client, identify(client, identity).await?).await).await
    }
}

/// Since when the connection lives.
pub(super) fn connected_at(client: &Client) -> Instant {
    Object::metrics(client).created
}

async fn identify(client: &Client, known: &mut Option<Identity>) -> Result<Identity, ControlError> {
    let connected_at = connected_at(client);
    if let Some(known) = known.filter(|known| known.connected_at == connected_at) {
        return Ok(known);
    }
    let row = client.query_one(IDENTITY_SQL, &[]).await?;
    let segment_bytes = u64::try_from(row.try_get::<_, i32>("segment_bytes")?);
    let identity = Identity {
        connected_at,
        // The identifier is unsigned in PostgreSQL; SQL shows its bits as a signed number.
        system: row.try_get::<_, i64>("system")?.cast_unsigned(),
        segment_bytes: segment_bytes.map_err(|_| ControlError::Answer("a negative number"))?,
    };
    *known = Some(identity);
    Ok(identity)
}

async fn ask_primary(client: &Client, identity: Identity) -> Result<PositionSample, ControlError> {
    let statement = client.prepare_cached(PRIMARY_SQL).await?;
    // Taken after connecting and preparing, just before the question goes out.
    let sent_at = Instant::now();
    let row = client.query_one(&statement, &[]).await?;
    let flush = lsn(row.try_get("flush")?)?;
    let insert = lsn(row.try_get("lsn")?)?.normalised(identity.segment_bytes);
    Ok(PositionSample {
        sent_at,
        connected_at: identity.connected_at,
        position: Position {
            system: identity.system,
            timeline: row.try_get::<_, i32>("timeline")?.cast_unsigned(),
            lsn: shown(insert, flush),
        },
        flush: Some(flush),
        paused: false,
    })
}

async fn ask_replica(client: &Client, identity: Identity) -> Result<PositionSample, ControlError> {
    let statement = client.prepare_cached(REPLICA_SQL).await?;
    let sent_at = Instant::now();
    let row = client.query_one(&statement, &[]).await?;
    if !row.try_get::<_, bool>("standby")? {
        return Err(ControlError::Answer("it is no replica any more"));
    }
    Ok(PositionSample {
        sent_at,
        connected_at: identity.connected_at,
        position: Position {
            system: identity.system,
            timeline: row.try_get::<_, i32>("timeline")?.cast_unsigned(),
            lsn: lsn(row.try_get("lsn")?)?,
        },
        flush: None,
        paused: row.try_get("paused")?,
    })
}

/// The position of a primary up to which everything lies that a client may have seen.
pub(super) fn shown(insert: Lsn, flush: Lsn) -> Lsn {
    if Mutant::FlushPosition.is_on() { flush } else { insert }
}

pub(super) fn lsn(answer: Option<PgLsn>) -> Result<Lsn, ControlError> {
    answer.map(|lsn| Lsn(lsn.into())).ok_or(ControlError::Answer("no WAL position"))
}
