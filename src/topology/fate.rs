//! What became of a transaction whose COMMIT was not answered.
//!
//! A transaction id alone does not tell: one that was lost in a crash or a failover is given out again. So it is learned
//! together with a position of the primary, asked in the transaction itself behind its first write and before its commit.
//! If the history that is accepted now holds that position, its primary has seen the id in use, so what it says of
//! the id is about this transaction; if not, the commit, which lies further on, is lost with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;

use super::control::{Control, ControlError};
use super::history::Holds;
use super::{Shared, View};
use crate::types::Position;

/// A transaction that has written, as its own server told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xact {
    /// With its epoch, as `txid_current()` gives it.
    pub id: u64,
    /// Behind what it had written, and before its commit.
    pub position: Position,
    /// When that was.
    pub told_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Committed,
    /// It did not commit, and will not.
    Aborted,
    /// Why it cannot be known in time.
    Unknown(&'static str),
}

/// Between two tries to ask.
const PAUSE: Duration = Duration::from_millis(20);
/// A checkpoint's time is in whole seconds, and of its beginning.
const CHECKPOINT_SLACK_SECONDS: f64 = 2.0;

/// A crash is followed by a checkpoint that is its own redo point, before anybody can connect; others are followed by
/// what was running meanwhile, in which the redo point lies before them.
const ASK_SQL: &str = "\
SELECT txid_status($1) AS status,
       split_part(next_xid, ':', 1)::int8 << 32 | split_part(next_xid, ':', 2)::int8 AS next_id,
       redo_lsn = checkpoint_lsn AS ends_recovery,
       extract(epoch FROM clock_timestamp() - checkpoint_time)::float8 AS age
  FROM pg_control_checkpoint()";

/// What the primary says of a transaction id.
#[derive(Clone, Debug, PartialEq)]
struct Answer {
    /// `None`: it is forgotten.
    status: Option<String>,
    /// The next id at the last checkpoint.
    next_id: u64,
    ends_recovery: bool,
    /// Of the last checkpoint, in seconds.
    age: f64,
}

/// Asks the primary, or the next one, until it is known what became of the transaction.
pub(super) async fn find(state: Arc<Shared>, controls: Arc<[Control]>, xact: Xact, until: Instant) -> Fate {
    let looking = async {
        loop {
            let view = state.wait_for(|view| view.primary.is_some()).await;
            if let Some(fate) = by_history(&view, &xact) {
                return fate;
            }
            match view.primary.and_then(|primary| controls.get(primary.index())) {
                Some(control) => match ask(control, xact.id).await {
                    Ok(answer) => {
                        let since = xact.told_at.elapsed().as_secs_f64();
                        let same_timeline = view.epoch.is_some_and(|epoch| epoch.timeline == xact.position.timeline);
                        if let Some(fate) = by_answer(&answer, &xact, same_timeline, since) {
                            return fate;
                        }
                    }
                    Err(error) => tracing::debug!(cluster = state.cluster, %error, "a transaction's fate is not told"),
                },
                None => return Fate::Unknown("there is no connection to ask on"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    let in_time = tokio::time::timeout_at(until.into(), looking).await;
    in_time.unwrap_or(Fate::Unknown("no primary could tell it within routing.hold_timeout"))
}

/// What the accepted history says; `None`: its primary knows more.
fn by_history(view: &View, xact: &Xact) -> Option<Fate> {
    match view.history.holds(xact.position) {
        Holds::Lost { .. } => Some(Fate::Aborted),
        Holds::OtherSystem => Some(Fate::Unknown("the primary is of another system")),
        Holds::Unknown => Some(Fate::Unknown("where the new primary left the old timeline is not known")),
        Holds::Yes | Holds::Future => None,
    }
}

/// `since`: seconds since the transaction told its id. `None`: ask again.
fn by_answer(answer: &Answer, xact: &Xact, same_timeline: bool, since: f64) -> Option<Fate> {
    match answer.status.as_deref() {
        Some("in progress") => None,
        // Whoever has the id now, if it is another one, ours is gone.
        Some("aborted") => Some(Fate::Aborted),
        Some("committed") if !same_timeline => Some(Fate::Committed),
        Some("committed") => Some(if answer.age > since + CHECKPOINT_SLACK_SECONDS {
            // Without a crash since then, the id is still its own.
            Fate::Committed
        } else if !answer.ends_recovery {
            Fate::Unknown("the primary may have crashed, and given the transaction's id to another one")
        } else if xact.id < answer.next_id {
            Fate::Committed
        } else if answer.age + CHECKPOINT_SLACK_SECONDS < since {
            Fate::Aborted
        } else {
            Fate::Unknown("the primary may have crashed a moment before or after")
        }),
        Some(_) | None => Some(Fate::Unknown("the primary does not remember the transaction")),
    }
}

async fn ask(control: &Control, id: u64) -> Result<Answer, ControlError> {
    let id = i64::try_from(id).map_err(|_| ControlError::Answer("no such transaction id"))?;
    let asked = control.with(async |client| {
        let row = client.query_one(ASK_SQL, &[&id]).await?;
        let next_id: i64 = row.try_get("next_id")?;
        Ok(Answer {
            status: row.try_get("status")?,
            next_id: next_id.unsigned_abs(),
            ends_recovery: row.try_get("ends_recovery")?,
            age: row.try_get("age")?,
        })
    });
    match asked.await {
        // It lies in the future, because a crash took back that it was ever given out.
        Err(error) if error.sqlstate() == Some(&SqlState::INVALID_PARAMETER_VALUE) => {
            Ok(Answer { status: Some("aborted".to_owned()), next_id: 0, ends_recovery: true, age: 0.0 })
        }
        asked => asked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Lsn;

    #[test]
    fn an_answer_is_believed_where_the_id_is_surely_its_own() {
        use Fate::{Aborted, Committed, Unknown};
        let position = Position { system: 1, timeline: 1, lsn: Lsn(100) };
        let xact = Xact { id: 50, position, told_at: Instant::now() };
        let unknown = Some(Unknown(""));
        // Status, next id at the last checkpoint, whether that ended recovery, its age; same timeline, seconds since.
        let cases = [
            (Some("in progress"), 10, false, 500.0, true, 1.0, None),
            (Some("aborted"), 10, true, 0.5, true, 1.0, Some(Aborted)),
            (None, 10, true, 0.5, true, 1.0, unknown),
            // No crash since.
            (Some("committed"), 10, false, 500.0, true, 1.0, Some(Committed)),
            (Some("committed"), 10, true, 500.0, true, 1.0, Some(Committed)),
            // A crash behind which it was still known, and one that took it back.
            (Some("committed"), 51, true, 0.5, true, 1.0, Some(Committed)),
            (Some("committed"), 50, true, 0.5, true, 5.0, Some(Aborted)),
            (Some("committed"), 50, true, 0.5, true, 1.0, unknown),
            // Some checkpoint, perhaps behind a crash and its own one.
            (Some("committed"), 51, false, 0.5, true, 1.0, unknown),
            // Promoted behind its position.
            (Some("committed"), 10, false, 0.5, false, 1.0, Some(Committed)),
        ];
        for (status, next_id, ends_recovery, age, same_timeline, since, fate) in cases {
            let answer = Answer { status: status.map(str::to_owned), next_id, ends_recovery, age };
            let found = by_answer(&answer, &xact, same_timeline, since);
            let found = found.map(|found| if let Unknown(_) = found { Unknown("") } else { found });
            assert_eq!(found, fate, "{answer:?}, same timeline {same_timeline}, {since} s");
        }
    }
}
