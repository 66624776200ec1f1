//! What a session learns while a batch runs: errors, the transaction's state, whether the client has seen anything yet.

use super::relay::Observer;
use super::rescue::Cause;
use crate::backend::params::Reported;
use crate::error::{Error, Fault};
use crate::wire::backend::{ErrorFields, TransactionStatus};
use crate::wire::frontend::tag;

#[derive(Debug, Default)]
pub struct Watch {
    /// The batch is a read outside a transaction, and its bytes are still here: it may run on another node.
    rerunnable: bool,
    /// The client has seen a part of the answer.
    committed: bool,
    /// Why the batch must run elsewhere.
    pub refused: Option<Cause>,
    /// The client may send more that belongs to this batch.
    pub open: bool,
    pub copying: bool,
    simple_copy: bool,
    /// The SQLSTATE of the first error that the client was told.
    pub error: Option<[u8; 5]>,
    /// The server has said farewell, or was closed.
    pub server_gone: bool,
    /// Bringing the server to the session's parameters failed: it must not be used.
    pub sync_error: Option<Error>,
    /// All prepared statements are gone, whatever came after.
    pub deallocated_all: bool,
    /// A parameter that classification depends on may have changed.
    pub parameters_changed: bool,
    pub received_bytes: u64,
}

impl Watch {
    /// `open`: the batch has no end yet.
    pub fn new(rerunnable: bool, open: bool) -> Self {
        Self { rerunnable: rerunnable && !open, open, ..Self::default() }
    }

    pub fn may_rerun(&self) -> bool {
        self.rerunnable && !self.committed
    }

    /// Too much waits to be shown to be held back any longer.
    pub fn commit(&mut self) {
        self.committed = true;
    }

    pub fn server_is_gone(&mut self) {
        self.server_gone = true;
    }

    pub fn refuse_as_lost(&mut self) {
        self.refused.get_or_insert(Cause::Lost);
    }

    /// Notes a message of the client's in an open batch. True: it ends the batch.
    pub fn client_sent(&mut self, message: u8) -> bool {
        match message {
            tag::COPY_DONE | tag::COPY_FAIL => std::mem::take(&mut self.copying) && self.simple_copy,
            tag::SYNC => !self.copying,
            tag::QUERY | tag::FUNCTION_CALL => true,
            _ => false,
        }
    }

    pub fn observe<'a>(
        &'a mut self,
        reported: &'a mut Reported,
        status: &'a mut TransactionStatus,
    ) -> impl Observer + 'a {
        Observed { watch: self, reported, status }
    }
}

struct Observed<'a> {
    watch: &'a mut Watch,
    reported: &'a mut Reported,
    status: &'a mut TransactionStatus,
}

impl Observer for Observed<'_> {
    fn ready(&mut self, status: TransactionStatus) {
        *self.status = status;
    }

    fn parameter(&mut self, name: &[u8], value: &[u8]) {
        self.reported.set(name, value);
        self.watch.parameters_changed = true;
    }

    fn error(&mut self, fields: &ErrorFields<'_>) -> bool {
        let watch = &mut *self.watch;
        watch.server_gone |= fields.is_fatal();
        if watch.may_rerun() {
            watch.refused = watch.refused.or(Cause::of(fields));
        }
        if std::mem::take(&mut watch.copying) && watch.simple_copy {
            watch.open = false;
        }
        if watch.refused.is_none() {
            watch.error.get_or_insert(fields.sqlstate);
        }
        watch.refused.is_some()
    }

    fn hidden_error(&mut self, fields: &ErrorFields<'_>) {
        self.watch.server_gone = true;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let message = format!("a session parameter could not be set on the server: {}", text(fields.message));
        self.watch.sync_error = Some(Error::new(Fault::Client, text(&fields.sqlstate), message));
    }

    fn copy_in(&mut self, simple: bool) {
        let watch = &mut *self.watch;
        (watch.open, watch.copying, watch.simple_copy) = (true, true, simple);
    }

    fn completed(&mut self, tag: &[u8]) {
        self.watch.deallocated_all |= matches!(tag, b"DEALLOCATE ALL" | b"DISCARD ALL");
    }

    fn committed(&mut self) {
        self.watch.committed = true;
    }
}
