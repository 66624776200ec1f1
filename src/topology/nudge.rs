//! Makes the primary flush what somebody waits for.
//!
//! An insert position also covers what other sessions have written and not committed; it reaches replicas only when
//! somebody commits. A tiny commit of our own makes all of it flow at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::Client;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_postgres::types::PgLsn;

use super::Shared;
use super::control::{Control, ControlError};
use super::question::lsn;
use crate::types::{Lsn, Position};

/// Writes and commits only if the position is still not flushed; says up to where all is flushed.
const NUDGE_SQL: &str = "\
SELECT CASE WHEN pg_current_wal_flush_lsn() < $1 THEN pg_logical_emit_message(true, 'causeway', '') END AS written,
       pg_current_wal_flush_lsn() AS flush";

const PAGE_BYTES: u64 = 8192;
/// Between two nudges.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(5);
/// Before a position is nudged for again that the last nudge did not get flushed, because there is no primary.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// At most one nudge is on its way, for the furthest position that somebody waits for.
#[derive(Debug, Default)]
pub(super) struct Nudger {
    wish: Mutex<Wish>,
    wanted: Notify,
}

#[derive(Debug, Default)]
struct Wish {
    wanted: Option<Position>,
    /// The last nudge, however it ended, and when it began.
    tried: Option<(Position, Instant)>,
    /// The primary has certainly flushed this.
    flushed: Option<Position>,
}

impl Nudger {
    /// Somebody has been waiting for `position` for too long. Says whether there will be a nudge because of that: not
    /// if the position is known to be flushed, or is nudged for already.
    pub(super) fn ask_for(&self, mut position: Position) -> bool {
        // Full pages are flushed before the record that goes on after them is complete. Only more than that lets
        // replay come to the end of the page.
        if position.lsn.0.is_multiple_of(PAGE_BYTES) {
            position.lsn.0 += 1;
        }
        let mut wish = self.wish.lock();
        let covers = |known: Position| {
            (known.system, known.timeline) == (position.system, position.timeline) && known.lsn >= position.lsn
        };
        let tried = wish.tried.filter(|tried| tried.1.elapsed() < RETRY_AFTER).map(|tried| tried.0);
        let needed = ![wish.flushed, wish.wanted, tried].into_iter().flatten().any(covers);
        if needed {
            wish.wanted = Some(position);
            self.wanted.notify_one();
        }
        needed
    }

    fn take(&self) -> Option<Position> {
        let mut wish = self.wish.lock();
        let wanted = wish.wanted.take()?;
        wish.tried = Some((wanted, Instant::now()));
        Some(wanted)
    }

    /// What a primary says it has flushed.
    pub(super) fn note_flushed(&self, flushed: Position) {
        self.wish.lock().flushed = Some(flushed);
    }
}

pub(super) async fn keep_nudging(state: Arc<Shared>, controls: Box<[Control]>) {
    loop {
        state.nudger.wanted.notified().await;
        let Some(wanted) = state.nudger.take() else { continue };
        let view = state.view.load_full();
        // A position of another history is not flushed by any nudge.
        let Some(id) = view.primary.filter(|_| view.history.is_of(wanted.system, wanted.timeline)) else { continue };
        let Some(control) = controls.get(id.index()) else { continue };
        match control.with(async |client| nudge(client, wanted.lsn).await).await {
            Ok((written, flushed)) => {
                state.nudger.note_flushed(Position { lsn: flushed, ..wanted });
                if written {
                    state.positions.nudged();
                }
            }
            Err(error) => {
                tracing::debug!(cluster = state.cluster, node = id.0, %error, "the primary could not be nudged");
            }
        }
        tokio::time::sleep(SHORTEST_INTERVAL).await;
    }
}

/// Had something to be written, and what is flushed now.
async fn nudge(client: &Client, wanted: Lsn) -> Result<(bool, Lsn), ControlError> {
    let statement = client.prepare_cached(NUDGE_SQL).await?;
    let row = client.query_one(&statement, &[&PgLsn::from(wanted.0)]).await?;
    let written: Option<PgLsn> = row.try_get("written")?;
    // The message lies before the commit that has been flushed when the answer comes.
    let flush = lsn(row.try_get("flush")?)?;
    Ok((written.is_some(), written.map_or(flush, |written| Lsn(written.into()).max(flush))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_nudged_for_once() {
        let at = |timeline, lsn| Position { system: 7, timeline, lsn: Lsn(lsn) };
        let nudger = Nudger::default();
        assert_eq!(nudger.take(), None);
        // (asked for, is there a nudge because of it)
        for (position, expected) in [(at(1, 100), true), (at(1, 100), false), (at(1, 90), false), (at(1, 110), true)] {
            assert_eq!(nudger.ask_for(position), expected, "{position:?}");
        }
        assert_eq!(nudger.take(), Some(at(1, 110)), "the furthest");
        assert!(!nudger.ask_for(at(1, 110)), "it is on its way, or has failed just now");
        assert!(nudger.ask_for(at(1, 120)));
        nudger.note_flushed(at(1, 200));
        assert!(!nudger.ask_for(at(1, 200)));
        assert!(nudger.ask_for(at(2, 150)), "of another history");
        // At the end of a page, a record may have been flushed in part.
        nudger.note_flushed(at(3, 8192));
        assert!(nudger.ask_for(at(3, 8192)));
        assert_eq!(nudger.take(), Some(at(3, 8193)));
    }
}
