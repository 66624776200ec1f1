//! What a session learns while a batch runs: errors, the transaction's state, whether the client has seen anything yet.

use super::commit::Told;
use super::relay::{Observer, shape};
use super::rescue::Cause;
use super::reword::{Shift, reworded};
use super::seat::Seat;
use super::settings::{Setting, Settings};
use super::statements::ClientStatements;
use crate::backend::params::Reported;
use crate::error::{Error, Fault, sqlstate};
use crate::types::{Lsn, Mutant};
use crate::wire::backend::{ErrorFields, Severity, TransactionStatus, data_row, error_fields, put_error, replayed};
use crate::wire::frame::HEADER_BYTES;
use crate::wire::frontend::tag;

/// Whether a batch may run again, while the client has seen nothing of its answer.
#[expect(clippy::struct_excessive_bools, reason = "each may be so without the others")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Reruns {
    /// On another node: it has no effect, and its bytes are here until it is done.
    pub elsewhere: bool,
    /// With its statements prepared anew, if planning them is what failed: nothing was run then.
    pub anew: bool,
    /// On whichever node serves it then, if its server is lost: it does nothing that lasts.
    pub after_loss: bool,
    /// On the new primary, if it was sent to one that is none any more: nothing was run before it.
    pub moved: bool,
}

/// What has become of the answer so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Answer {
    /// The client sees it as it comes.
    #[default]
    Shown,
    /// The batch's bytes are still here, and the client has seen nothing: it may still run again.
    HeldBack,
    /// The same, but there is a part of it that the client should see soon.
    Showable,
    /// The client will see nothing of it.
    Refused(Cause),
}

/// What the client may send that belongs to this batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Intake {
    #[default]
    Closed,
    UntilSync,
    /// Data, for a Query (which then ends by itself) or up to a Sync.
    CopyIn {
        simple: bool,
    },
}

/// State that a command has removed: the wider, the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cleared {
    /// One parameter, or all.
    Parameters,
    /// All prepared statements, whatever came after.
    Statements,
    /// All that a session has.
    Everything,
}

/// What the server says of the session's state there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The widest that was done.
    pub cleared: Option<Cleared>,
    /// A PREPARE was done.
    pub prepared: bool,
    /// A parameter that classification depends on may have changed.
    pub parameters: bool,
}

#[expect(clippy::struct_excessive_bools, reason = "they are facts that have nothing to do with each other")]
#[derive(Debug, Default)]
pub struct Watch {
    answer: Answer,
    reruns: Reruns,
    intake: Intake,
    /// The server ignored the batch: an earlier one failed, and no Sync had come yet.
    pub skipped: bool,
    /// The SQLSTATE of the first error that the client was told.
    pub error: Option<[u8; 5]>,
    /// The server has said farewell, or was closed.
    pub server_gone: bool,
    /// What it said, when that was no answer to anything.
    pub farewell: Option<Error>,
    /// The batch is a question of ours.
    asked: Option<Box<Asked>>,
    pub changes: Changes,
    /// Before the client goes on it must hear of parameters that the batch alone does not tell.
    pub withholds_ready: bool,
    /// What the replica must have replayed before the batch reads there.
    pub guard: Option<Lsn>,
    /// How the batch's text was changed on its way.
    pub shift: Option<Shift>,
    pub received_bytes: u64,
    /// The server's last words are not the session's.
    pub survives: bool,
    /// It has ended the session by its own choice.
    pub dismissed: bool,
    /// What the server told of the transaction before its commit.
    pub told: Option<Box<Told>>,
}

/// What a server answered to a question of ours.
#[derive(Debug, Default)]
pub struct Asked {
    pub rows: Vec<Setting>,
    /// Of the last statement that was described.
    pub shape: Option<u64>,
    pub error: Option<Error>,
}

impl Watch {
    /// For a question of ours, of which the client sees nothing; on a replica it may be given up, if that goes away.
    pub fn asking(on_replica: bool) -> Self {
        let answer = if on_replica { Answer::HeldBack } else { Answer::Shown };
        let reruns = Reruns { elsewhere: on_replica, ..Reruns::default() };
        Self { asked: Some(Box::default()), answer, reruns, ..Self::default() }
    }

    pub fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    pub fn take_asked(&mut self) -> Asked {
        self.asked.take().map(|asked| *asked).unwrap_or_default()
    }

    /// `open`: the batch has no end yet. `skipped`: the server will ignore it.
    pub fn new(reruns: Reruns, open: bool, skipped: bool) -> Self {
        let may_rerun = reruns.elsewhere || reruns.anew || reruns.after_loss || reruns.moved;
        let (answer, intake) = match (may_rerun, open) {
            (_, true) => (Answer::Shown, Intake::UntilSync),
            (true, false) => (Answer::HeldBack, Intake::Closed),
            (false, false) => (Answer::Shown, Intake::Closed),
        };
        Self { answer, reruns, intake, skipped, ..Self::default() }
    }

    /// The client must see nothing yet.
    pub fn holds_back(&self) -> bool {
        self.answer != Answer::Shown
    }

    /// Why the batch must run elsewhere.
    pub fn refused(&self) -> Option<Cause> {
        match self.answer {
            Answer::Refused(cause) => Some(cause),
            Answer::Shown | Answer::HeldBack | Answer::Showable => None,
        }
    }

    /// The batch may still run on another node.
    pub fn may_rerun(&self) -> bool {
        (self.reruns.elsewhere || self.reruns.after_loss) && matches!(self.answer, Answer::HeldBack | Answer::Showable)
    }

    fn refuse(&mut self, cause: Option<Cause>) {
        let Some(cause) = cause else { return };
        let may = match cause {
            Cause::StalePlan => self.reruns.anew,
            Cause::ReadOnly => self.reruns.elsewhere || self.reruns.moved,
            Cause::Lost | Cause::Shutdown => self.reruns.elsewhere || self.reruns.after_loss,
            Cause::Conflict | Cause::Parameters | Cause::Missing | Cause::Behind => self.reruns.elsewhere,
        };
        if may && matches!(self.answer, Answer::HeldBack | Answer::Showable) {
            self.answer = Answer::Refused(cause);
        }
    }

    /// The client is about to see what has come, if there is a reason to show it.
    pub fn show(&mut self, has_waited_enough: bool) {
        if self.answer == Answer::Showable || (self.answer == Answer::HeldBack && has_waited_enough) {
            self.answer = Answer::Shown;
        }
    }

    /// The connection is gone. True: the batch may run elsewhere.
    pub fn lose_server(&mut self) -> bool {
        self.server_gone = true;
        self.refuse(Some(Cause::Lost));
        self.refused().is_some()
    }

    /// The client may send more that belongs to this batch.
    pub fn is_open(&self) -> bool {
        self.intake != Intake::Closed
    }

    /// The server copies in, and takes no notice of this message, whatever it holds.
    pub fn is_ignored(&self, message: u8) -> bool {
        match self.intake {
            // A Sync of an extended COPY counts if the COPY has failed by then.
            Intake::CopyIn { simple } => message == tag::FLUSH || message == tag::SYNC && simple,
            Intake::Closed | Intake::UntilSync => false,
        }
    }

    /// Notes a message of the client's in an open batch.
    pub fn client_sent(&mut self, message: u8) {
        self.intake = match (self.intake, message) {
            (Intake::CopyIn { .. }, tag::COPY_DONE | tag::COPY_FAIL) => self.after_copy(),
            (Intake::UntilSync, tag::SYNC | tag::QUERY | tag::FUNCTION_CALL) => Intake::Closed,
            (intake, _) => intake,
        };
    }

    fn after_copy(&self) -> Intake {
        match self.intake {
            Intake::CopyIn { simple: true } => Intake::Closed,
            Intake::CopyIn { simple: false } => Intake::UntilSync,
            intake => intake,
        }
    }

    pub fn observe<'a>(
        &'a mut self,
        reported: &'a mut Reported,
        status: &'a mut TransactionStatus,
        settings: &'a mut Settings,
        statements: &'a ClientStatements,
        seat: &'a Seat,
    ) -> impl Observer + 'a {
        Observed { watch: self, reported, status, settings, statements, seat }
    }
}

/// The server ends because its node does, or because an administrator has ended it; else the session is to blame.
fn is_outage(fields: &ErrorFields<'_>) -> bool {
    Cause::of(fields) == Some(Cause::Shutdown)
}

/// Why a server ends, in its own words.
fn last_words(fields: &ErrorFields<'_>) -> Error {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Error::new(Fault::Node, text(&fields.sqlstate), text(fields.message))
}

struct Observed<'a> {
    watch: &'a mut Watch,
    reported: &'a mut Reported,
    status: &'a mut TransactionStatus,
    settings: &'a mut Settings,
    statements: &'a ClientStatements,
    seat: &'a Seat,
}

impl Observer for Observed<'_> {
    fn ready(&mut self, status: TransactionStatus, visible: bool) {
        *self.status = status;
        // A server that refused to copy in can be ready before the client has sent all: that is the batch's end.
        if visible {
            self.watch.intake = Intake::Closed;
        }
    }

    fn parameter(&mut self, name: &[u8], value: &[u8], visible: bool) {
        self.reported.set(name, value);
        self.watch.changes.parameters = true;
        if visible {
            self.settings.told(name, value);
        }
    }

    fn error(&mut self, fields: &ErrorFields<'_>) -> bool {
        let watch = &mut *self.watch;
        watch.server_gone |= fields.is_fatal();
        watch.intake = watch.after_copy();
        // What has come with the error is not shown yet, and need not be.
        watch.refuse(Cause::of(fields));
        if fields.is_fatal() && watch.refused().is_none() {
            watch.dismissed = !is_outage(fields);
            if watch.survives && !watch.dismissed {
                watch.farewell = Some(last_words(fields));
                return true;
            }
        }
        if watch.refused().is_none() {
            watch.error.get_or_insert(fields.sqlstate);
        }
        watch.refused().is_some()
    }

    fn guard(&mut self, body: &[u8]) -> bool {
        let Some(floor) = self.watch.guard else { return true };
        if replayed(body) < Some(floor) && !Mutant::BlindGuard.is_on() {
            self.watch.refuse(Some(Cause::Behind));
        }
        self.watch.refused().is_none()
    }

    fn withholds_ready(&self) -> bool {
        self.watch.withholds_ready
    }

    fn reworded(&self, body: &[u8]) -> Option<Vec<u8>> {
        match self.seat.overdue() {
            Some(overdue) if error_fields(body).sqlstate == sqlstate::QUERY_CANCELED.as_bytes() => {
                let mut message = Vec::new();
                put_error(&mut message, Severity::Error, &overdue);
                Some(message.split_off(HEADER_BYTES))
            }
            _ => reworded(body, self.watch.shift, self.statements),
        }
    }

    fn hidden_error(&mut self, fields: &ErrorFields<'_>) {
        let watch = &mut *self.watch;
        watch.server_gone |= fields.is_fatal();
        if let Some(asked) = &mut watch.asked {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            asked.error.get_or_insert(Error::new(Fault::Client, text(&fields.sqlstate), text(fields.message)));
        } else {
            // Without the session's parameters the batch means something else there.
            watch.server_gone = true;
            watch.refuse(Cause::of(fields).or(Some(Cause::Parameters)));
        }
    }

    fn hidden_row(&mut self, body: &[u8]) {
        let Some(asked) = &mut self.watch.asked else {
            self.watch.told = Told::read(body).map(Box::new);
            return;
        };
        if let Some([Some(name), value]) = data_row(body).as_deref() {
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            asked.rows.push((name.into(), value.map(Into::into)));
        }
    }

    fn hidden_description(&mut self, body: Option<&[u8]>) {
        if let Some(asked) = &mut self.watch.asked {
            asked.shape = shape(body);
        }
    }

    fn farewell(&mut self, fields: &ErrorFields<'_>) {
        self.watch.server_gone = true;
        self.watch.dismissed = !is_outage(fields);
        self.watch.farewell = Some(last_words(fields));
    }

    fn copy_in(&mut self, simple: bool) {
        self.watch.intake = Intake::CopyIn { simple };
    }

    fn completed(&mut self, tag: &[u8]) {
        self.watch.changes.prepared |= tag == b"PREPARE";
        let cleared = match tag {
            b"RESET" => Cleared::Parameters,
            b"DEALLOCATE ALL" => Cleared::Statements,
            b"DISCARD ALL" => Cleared::Everything,
            _ => return,
        };
        self.watch.changes.cleared = self.watch.changes.cleared.max(Some(cleared));
    }

    fn aside(&mut self) {
        if self.watch.answer == Answer::HeldBack && !self.watch.reruns.elsewhere {
            self.watch.answer = Answer::Showable;
        }
    }

    fn showable(&mut self) {
        if self.watch.answer == Answer::HeldBack {
            self.watch.answer = Answer::Showable;
        }
    }
}
