//! What a pool remembers of a node that has refused a login, so that not every client has to be refused by it.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Error, Fault, sqlstate};

/// The last refusal, until it is over.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Option<Refusal>>);

#[derive(Debug)]
struct Refusal {
    until: Instant,
    fault: Fault,
    sqlstate: String,
    message: String,
    hint: Option<String>,
}

/// The node has answered, and does not want us. One that is not there, starts or ends is the topology's to judge, and one
/// that is fenced is refused by ourselves.
fn is_refusal(error: &Error) -> bool {
    let sqlstate = error.sqlstate();
    !sqlstate.starts_with("08")
        && !sqlstate.starts_with("57P")
        && sqlstate != sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE
}

/// The node has no place for one more.
pub(super) fn is_full(error: &Error) -> bool {
    error.fault() == Fault::Node && error.sqlstate() == sqlstate::TOO_MANY_CONNECTIONS
}

impl Refusals {
    /// Remembers an error for `retry` if it is a refusal.
    pub(super) fn note(&self, error: &Error, now: Instant, retry: Duration) {
        if retry.is_zero() || !is_refusal(error) {
            return;
        }
        *self.0.lock() = Some(Refusal {
            until: now + retry,
            fault: error.fault(),
            sqlstate: error.sqlstate().to_owned(),
            message: error.message().to_owned(),
            hint: error.hint_text().map(str::to_owned),
        });
    }

    /// The same again, while it is remembered.
    pub(super) fn repeat(&self, now: Instant) -> Option<Error> {
        let refusal = self.0.lock();
        let refusal = refusal.as_ref().filter(|refusal| now < refusal.until)?;
        let error = Error::new(refusal.fault, refusal.sqlstate.clone(), refusal.message.clone()).retry_elsewhere();
        Some(match &refusal.hint {
            Some(hint) => error.hint(hint.clone()),
            None => error,
        })
    }

    /// Forgets one that is over; says whether nothing is remembered any more.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let mut refusal = self.0.lock();
        if refusal.as_ref().is_some_and(|refusal| refusal.until <= now) {
            *refusal = None;
        }
        refusal.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_repeated_for_a_while_and_an_outage_is_not() {
        let start = Instant::now();
        let retry = Duration::from_secs(1);
        for (sqlstate, repeated) in
            [("28P01", true), ("53300", true), ("3D000", true), ("08006", false), ("57P03", false), ("55000", false)]
        {
            let refusals = Refusals::default();
            let error = Error::new(Fault::Node, sqlstate, "go away").hint("please");
            refusals.note(&error, start, Duration::ZERO);
            assert!(refusals.repeat(start).is_none(), "nothing is to be remembered");
            refusals.note(&error, start, retry);
            let again = refusals.repeat(start + retry / 2);
            let shown = again.map(|error| (error.to_string(), error.hint_text().map(str::to_owned)));
            assert_eq!(shown, repeated.then(|| (error.to_string(), Some("please".to_owned()))));
            assert_eq!(refusals.is_over(start + retry / 2), !repeated);
            assert!(refusals.repeat(start + retry).is_none());
            assert!(refusals.is_over(start + retry));
        }
    }
}
