//! Asks a node what it is and where it stands: one round trip, over and over.

use std::time::Duration;

use deadpool_postgres::Client;
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::PgLsn;

use super::control::{Control, ControlError};
use super::history::{Fork, Lineage};
use super::lineage::Genealogist;
use super::question::{connected_at, lsn, shown};
use super::tracker::{Sample, State};
use crate::types::Lsn;

/// One row. The timeline of a primary is that of the WAL it writes, because the control file lags behind a
/// promotion; that of a replica is what it receives, or else where it was at its last restartpoint.
const PROBE_SQL: &str = "\
WITH node AS MATERIALIZED (SELECT pg_is_in_recovery() AS standby)
SELECT standby,
       (SELECT system_identifier FROM pg_control_system()) AS system,
       (SELECT bytes_per_wal_segment FROM pg_control_init()) AS segment_bytes,
       current_setting('server_version_num')::int4 AS version,
       CASE WHEN standby THEN coalesce(
              (SELECT received_tli FROM pg_stat_wal_receiver),
              (SELECT greatest(c.timeline_id, r.min_recovery_end_timeline)
                 FROM pg_control_checkpoint() c, pg_control_recovery() r))
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int4 END AS timeline,
       CASE WHEN NOT standby THEN pg_current_wal_insert_lsn() END AS insert,
       CASE WHEN NOT standby THEN pg_current_wal_flush_lsn() END AS flush,
       pg_last_wal_replay_lsn() AS replay,
       CASE WHEN standby THEN pg_is_wal_replay_paused() ELSE false END AS paused
  FROM node";

/// Makes the primary flush all that it has inserted.
const NUDGE_SQL: &str = "SELECT pg_logical_emit_message(true, 'causeway', '')";

/// The longest pause between two attempts to reach a node that is down.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(3);

/// Probes one node over its own control connection.
#[derive(Debug)]
pub(super) struct Prober {
    control: Control,
    genealogist: Genealogist,
    /// The primary's insert position when it had not been flushed at the last probe.
    unflushed: Option<Lsn>,
    past: Option<Past>,
}

/// What one probe found.
#[derive(Debug)]
pub(super) struct Probed {
    pub(super) sample: Sample,
    /// Of a node that can write, once for each timeline.
    pub(super) lineage: Option<Lineage>,
}

/// What one connection has seen of the node while it was a replica. Connections survive a promotion; and one that was
/// there before knows that what the node has replayed is where its timeline begins. After a restart it could as well
/// be what it replayed of its own.
#[derive(Clone, Copy, Debug)]
struct Past {
    connected_at: std::time::Instant,
    /// The latest that it was seen to follow.
    timeline: u32,
}

impl Prober {
    pub(super) fn new(control: Control, genealogist: Genealogist) -> Self {
        Self { control, genealogist, unflushed: None, past: None }
    }

    /// One probe: one round trip once the connection is there, and a few more when the node has been promoted.
    pub(super) async fn probe(&mut self) -> Result<Probed, ControlError> {
        let unflushed = self.unflushed.take();
        let mut sample = self.control.with(async |client| ask(client, unflushed).await).await?;
        let past = self.past.filter(|past| past.connected_at == sample.connected_at);
        match &mut sample.state {
            State::Primary { insert, flush, fork } => {
                self.unflushed = Some(*insert).filter(|insert| insert > flush);
                *fork = past.and_then(|past| Some(Fork { timeline: past.timeline, at: fork.take()?.at }));
            }
            State::Replica { .. } => {
                let timeline = past.map_or(0, |past| past.timeline).max(sample.timeline);
                self.past = Some(Past { connected_at: sample.connected_at, timeline });
            }
        }
        let lineage = match sample.state {
            State::Primary { .. } => self.genealogist.trace(sample.system, sample.timeline).await,
            State::Replica { .. } => None,
        };
        Ok(Probed { sample, lineage })
    }
}

async fn ask(client: &Client, unflushed: Option<Lsn>) -> Result<Sample, ControlError> {
    let statement = client.prepare_cached(PROBE_SQL).await?;
    // Taken after connecting and preparing, just before the question goes out.
    let sent_at = Instant::now().into_std();
    let sample = read(&client.query_one(&statement, &[]).await?, sent_at, connected_at(client))?;
    if let State::Primary { insert, .. } = sample.state
        && unflushed == Some(insert)
    {
        // Nothing was written since the last probe, and the end of the WAL is still not flushed: left by something
        // that commits nothing, such as pruning. No replica gets it before the next commit, so without a nudge all
        // of them would look older and older beside an idle primary.
        client.batch_execute(NUDGE_SQL).await?;
    }
    Ok(sample)
}

fn read(row: &Row, sent_at: std::time::Instant, connected_at: std::time::Instant) -> Result<Sample, ControlError> {
    let unsigned = |value: i32| u32::try_from(value).map_err(|_| ControlError::Answer("a negative number"));
    let replay: Option<PgLsn> = row.try_get("replay")?;
    let segment_bytes = u64::from(unsigned(row.try_get("segment_bytes")?)?);
    let state = if row.try_get("standby")? {
        State::Replica { replay: lsn(replay)?, paused: row.try_get("paused")? }
    } else {
        let flush = lsn(row.try_get("flush")?)?;
        let insert = shown(lsn(row.try_get("insert")?)?.normalised(segment_bytes), flush);
        // Which timeline it was, only the connection's past can tell.
        let fork = replay.map(|at| Fork { timeline: 0, at: Lsn(at.into()) });
        State::Primary { insert, flush, fork }
    };
    Ok(Sample {
        sent_at,
        connected_at,
        // The identifier is unsigned in PostgreSQL; SQL shows its bits as a signed number.
        system: row.try_get::<_, i64>("system")?.cast_unsigned(),
        timeline: row.try_get::<_, i32>("timeline")?.cast_unsigned(),
        version: unsigned(row.try_get("version")?)?,
        state,
    })
}

/// How long to wait before a node that is down is tried again: doubling, with jitter, up to a limit.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    next: Duration,
    longest: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, next: first, longest: longest.max(first) }
    }

    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }

    /// Between half of the pause and all of it, so that nodes that fell together are not tried together.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_start_again_after_success() {
        let first = Duration::from_millis(250);
        let mut backoff = Backoff::new(first, MAX_BACKOFF);
        for longest in [250, 500, 1000, 2000, 3000, 3000] {
            let pause = backoff.pause();
            let longest = Duration::from_millis(longest);
            assert!(pause >= longest / 2 && pause <= longest, "{pause:?} of {longest:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= first);
    }
}
