//! Bytes on their way to a server: what we wrote, then a stretch of the client's own bytes that need no copy.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::task::{Context, Poll, ready};

use crate::net::stream::Stream;

#[derive(Debug, Default)]
pub struct Outbound {
    staged: Vec<u8>,
    staged_sent: usize,
    /// A range of the client's input.
    raw: Range<usize>,
    sent_bytes: u64,
}

impl Outbound {
    pub fn is_empty(&self) -> bool {
        self.staged.is_empty() && self.raw.is_empty()
    }

    pub fn clear(&mut self) {
        self.staged.clear();
        self.staged_sent = 0;
        self.raw = 0..0;
    }

    /// Gives memory back that only a large batch needed.
    pub fn trim(&mut self) {
        trim(&mut self.staged);
    }

    /// Sends a part of the client's input as it is.
    pub fn pass(&mut self, range: Range<usize>, input: &[u8]) {
        if self.raw.is_empty() {
            self.raw = range;
        } else if self.raw.end == range.start {
            self.raw.end = range.end;
        } else {
            self.stage(input);
            self.raw = range;
        }
    }

    /// Where messages of ours are written, behind all that was passed before.
    pub fn stage(&mut self, input: &[u8]) -> &mut Vec<u8> {
        self.staged.extend_from_slice(input.get(self.raw.clone()).unwrap_or_default());
        self.raw = 0..0;
        &mut self.staged
    }

    /// Ready when everything is with the kernel; Pending with the server's waker registered.
    pub fn poll_send(&mut self, server: &mut Stream, input: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let staged = &self.staged[self.staged_sent..];
            let raw = input.get(self.raw.clone()).unwrap_or_default();
            let sent = match (staged.is_empty(), raw.is_empty()) {
                (false, false) => ready!(server.poll_write_vectored(cx, &[IoSlice::new(staged), IoSlice::new(raw)]))?,
                (false, true) => ready!(server.poll_write(cx, staged))?,
                (true, _) => ready!(server.poll_write(cx, raw))?,
            };
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent(sent);
        }
        server.poll_flush(cx)
    }

    /// Bytes that servers have got since this was asked last.
    pub fn take_sent_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.sent_bytes)
    }

    fn sent(&mut self, bytes: usize) {
        self.sent_bytes += bytes as u64;
        let of_staged = bytes.min(self.staged.len() - self.staged_sent);
        self.staged_sent += of_staged;
        self.raw.start += bytes - of_staged;
        if self.staged_sent == self.staged.len() {
            self.staged.clear();
            self.staged_sent = 0;
        }
    }
}

/// What an idle session may keep of a buffer of its own.
const KEPT_BYTES: usize = 4096;

/// Frees an empty buffer that has grown large.
pub fn trim(buffer: &mut Vec<u8>) {
    if buffer.capacity() > KEPT_BYTES && buffer.is_empty() {
        *buffer = Vec::new();
    }
}
