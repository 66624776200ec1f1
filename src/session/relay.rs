//! Passes a server's frames to the client: whole stretches of bytes at once, looking only at what changes state.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};

use super::ledger::{Ledger, Verdict};
use super::outbound::trim;
use crate::backend::prepared::Statement;
use crate::error::{Error, Result};
use crate::net::stream::Stream;
use crate::wire::backend::{
    ErrorFields, TransactionStatus, command_tag, error_fields, parameter_status, ready_status, row_shape,
};
use crate::wire::frame::{HEADER_BYTES, Header, header, put};

/// Frames that we look into are whole in memory, or at least this much of them: what matters stands in front.
const LOOKED_AT_BYTES: usize = 64 << 10;

/// What the relay tells the session about frames that change its state.
pub trait Observer {
    /// ReadyForQuery, for the client or not.
    fn ready(&mut self, status: TransactionStatus, visible: bool);
    /// The client gets its ReadyForQuery later.
    fn withholds_ready(&self) -> bool;
    /// `visible`: the client reads it too.
    fn parameter(&mut self, name: &[u8], value: &[u8], visible: bool);
    /// An ErrorResponse to something of the client's. True: it is kept from the client, with all that follows.
    fn error(&mut self, fields: &ErrorFields<'_>) -> bool;
    /// The body of an error as the client should read it; `None`: as it is.
    fn reworded(&self, body: &[u8]) -> Option<Vec<u8>>;
    /// A guard's answer. False: what follows it must be kept from the client.
    fn guard(&mut self, body: &[u8]) -> bool;
    /// An ErrorResponse to something of ours.
    fn hidden_error(&mut self, fields: &ErrorFields<'_>);
    /// A `DataRow` of something of ours.
    fn hidden_row(&mut self, body: &[u8]);
    /// A `RowDescription` (`None`: there are no rows) of something of ours.
    fn hidden_description(&mut self, body: Option<&[u8]>);
    /// The client speaks next: to a Query, or up to a Sync.
    fn copy_in(&mut self, simple: bool);
    /// A command of the client's is complete; its tag.
    fn completed(&mut self, tag: &[u8]);
    /// An ErrorResponse to nothing: the server ends.
    fn farewell(&mut self, fields: &ErrorFields<'_>);
    /// There is something for the client that cannot be taken back once it has seen it.
    fn showable(&mut self);
    /// Something that says nothing of the answer, but should not wait for it.
    fn aside(&mut self);
}

/// Where the relay stands in the server's input.
#[derive(Debug, Default)]
pub struct Relay {
    /// Bytes for the client that are not a stretch of the input: answers of ours, and what stood before a gap.
    staged: Vec<u8>,
    staged_sent: usize,
    /// Of the input, what follows `staged`.
    stretch: Range<usize>,
    /// Of the frame under way, the bytes that have not come yet.
    passing: usize,
    passing_visible: bool,
    /// Nothing more of this batch is for the client.
    muted: bool,
    /// What the client sees in front of its ReadyForQuery, if no error comes before.
    late: Option<Box<[u8]>>,
    /// What the client has got may end in the middle of a frame.
    cut: bool,
    shown_bytes: u64,
}

impl Relay {
    /// A new batch begins.
    pub fn reset(&mut self) {
        self.muted = false;
        self.late = None;
    }

    /// Gives memory back that only a large answer needed.
    pub fn trim(&mut self) {
        trim(&mut self.staged);
    }

    /// Bytes that clients have got since this was asked last.
    pub fn take_shown_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.shown_bytes)
    }

    /// Forgets what the client has not seen, when it is to see another server's answer instead.
    pub fn discard(&mut self, input: &mut BytesMut) {
        input.advance(self.stretch.end);
        self.stretch = 0..0;
        self.staged.clear();
        self.staged_sent = 0;
        self.passing = 0;
    }

    /// Ready when the client's kernel has all that is for it; gives back the input's memory as far as possible.
    pub fn poll_show(
        &mut self,
        client: &mut Stream,
        input: &mut BytesMut,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.pending_bytes() > 0 {
            let (staged, stretch) = (&self.staged[self.staged_sent..], &input[self.stretch.clone()]);
            let written = if staged.is_empty() {
                ready!(client.poll_write(cx, stretch))?
            } else {
                ready!(client.poll_write_vectored(cx, &[IoSlice::new(staged), IoSlice::new(stretch)]))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written(written);
        }
        input.advance(self.stretch.end);
        self.stretch = 0..0;
        client.poll_flush(cx)
    }

    fn written(&mut self, bytes: usize) {
        self.shown_bytes += bytes as u64;
        let of_staged = bytes.min(self.staged.len() - self.staged_sent);
        self.staged_sent += of_staged;
        if self.staged_sent == self.staged.len() {
            self.staged.clear();
            self.staged_sent = 0;
        }
        self.stretch.start += bytes - of_staged;
        self.cut = self.pending_bytes() > 0 || self.passing > 0 && self.passing_visible;
    }

    /// Whatever the client got now it might take for the rest of something else.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// What the client was to see in front of a ReadyForQuery that will not come.
    pub fn take_late(&mut self) -> Vec<u8> {
        self.late.take().map(Vec::from).unwrap_or_default()
    }

    pub fn pending_bytes(&self) -> usize {
        self.staged.len() - self.staged_sent + self.stretch.len()
    }

    /// Judges all frames that have come.
    ///
    /// # Errors
    /// The server broke the protocol: it must be closed.
    pub fn walk(&mut self, input: &[u8], ledger: &mut Ledger, observer: &mut impl Observer) -> Result<()> {
        loop {
            if self.passing > 0 {
                let here = self.passing.min(input.len() - self.stretch.end);
                self.take(here, self.passing_visible, input);
                self.passing -= here;
                if self.passing > 0 {
                    return Ok(());
                }
            }
            while let Some(answer) = ledger.local_answer() {
                self.answer(answer, input);
            }
            let rest = &input[self.stretch.end..];
            let Some(header) = header(rest).map_err(|_| broken(rest))? else {
                return Ok(());
            };
            let looked_into = looks_into(header.tag)
                || header.tag == b'D' && ledger.is_hidden()
                || header.tag == b'V' && ledger.is_guard()
                || header.tag == b'T' && ledger.describes();
            if looked_into && rest.len() < header.frame_bytes.min(LOOKED_AT_BYTES) {
                return Ok(());
            }
            self.passing_visible = self.frame(header, rest, ledger, observer)? && !self.muted;
            self.passing = header.frame_bytes;
            if header.tag == b'E' && self.passing_visible {
                self.late = None;
            }
            if header.tag == b'Z'
                && self.passing_visible
                && let Some(late) = self.late.take()
            {
                self.stage_stretch(input);
                self.staged.extend_from_slice(&late);
            }
            if self.passing_visible
                && header.tag == b'E'
                && let Some(body) = rest.get(HEADER_BYTES..header.frame_bytes)
                && let Some(body) = observer.reworded(body)
            {
                self.stage_stretch(input);
                put(&mut self.staged, b'E', |staged| staged.extend_from_slice(&body));
                self.passing_visible = false;
            }
        }
    }

    /// Judges one frame; false: the client must not see it.
    fn frame(
        &mut self,
        header: Header,
        rest: &[u8],
        ledger: &mut Ledger,
        observer: &mut impl Observer,
    ) -> Result<bool> {
        let body = || rest.get(HEADER_BYTES..header.frame_bytes.min(rest.len())).unwrap_or_default();
        let verdict = ledger.judge(header.tag);
        match (header.tag, verdict) {
            (_, Verdict::Violation) => return Err(broken(rest)),
            (b'S', _) => {
                let (name, value) = parameter_status(body()).ok_or_else(|| broken(rest))?;
                observer.parameter(name, value, verdict == Verdict::Pass && !self.muted);
            }
            (b'D', Verdict::Drop) => observer.hidden_row(body()),
            (b'T' | b'n', Verdict::Drop) => observer.hidden_description((header.tag == b'T').then(body)),
            (b'T' | b'n', Verdict::Pass) => {
                if let Some(statement) = ledger.take_described() {
                    learn_shape(&statement, (header.tag == b'T').then(body));
                }
            }
            (b'C', Verdict::Late) => self.late = rest.get(..header.frame_bytes).map(Box::from),
            (b'C', Verdict::Pass) => observer.completed(command_tag(body()).unwrap_or_default()),
            (b'Z', _) => {
                observer.ready(ready_status(body()).ok_or_else(|| broken(rest))?, verdict == Verdict::Ready);
            }
            (b'E', Verdict::Drop) => {}
            (b'E', Verdict::HiddenError) => {
                self.muted = true;
                observer.hidden_error(&error_fields(body()));
            }
            (_, Verdict::Guard) => self.muted |= !observer.guard(body()),
            (_, Verdict::Farewell) => observer.farewell(&error_fields(body())),
            (b'E', _) => self.muted |= observer.error(&error_fields(body())),
            (_, Verdict::CopyIn { simple }) => observer.copy_in(simple),
            _ => {}
        }
        let visible = match verdict {
            Verdict::Drop | Verdict::Late | Verdict::HiddenError | Verdict::Guard | Verdict::Farewell => false,
            Verdict::Ready => !observer.withholds_ready(),
            _ => true,
        };
        match header.tag {
            _ if !visible || self.muted => {}
            b'1' | b'2' | b'3' | b'T' | b't' | b'n' => {}
            b'N' | b'S' => observer.aside(),
            _ => observer.showable(),
        }
        Ok(visible)
    }

    /// Takes bytes of the input, for the client or not.
    fn take(&mut self, bytes: usize, visible: bool, input: &[u8]) {
        let end = self.stretch.end + bytes;
        if visible {
            self.stretch.end = end;
        } else {
            self.stage_stretch(input);
            self.stretch = end..end;
        }
    }

    fn answer(&mut self, answer: &[u8], input: &[u8]) {
        if !self.muted {
            self.stage_stretch(input);
            self.staged.extend_from_slice(answer);
        }
    }

    /// Copies the stretch behind what is staged, because something else follows it.
    fn stage_stretch(&mut self, input: &[u8]) {
        self.staged.extend_from_slice(&input[self.stretch.clone()]);
        self.stretch.start = self.stretch.end;
    }
}

/// Frames whose content matters, so that they must be whole.
fn looks_into(tag: u8) -> bool {
    matches!(tag, b'C' | b'Z' | b'S' | b'E')
}

/// A statement without rows has a shape too.
pub fn shape(description: Option<&[u8]>) -> Option<u64> {
    description.map_or(Some(0), row_shape)
}

fn learn_shape(statement: &Statement, description: Option<&[u8]>) {
    if let Some(shape) = shape(description) {
        statement.learn_shape(shape);
    }
}

fn broken(frame: &[u8]) -> Error {
    let tag = frame.first().copied().unwrap_or_default();
    Error::node(format!("a server sent message {:?} where the protocol has no place for it", char::from(tag)))
}
