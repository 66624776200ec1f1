//! Read buffers of one worker, lent while bytes are in flight: an idle connection holds none.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll};

use bytes::BytesMut;

use crate::net::stream::Stream;

/// Buffers of one size.
#[derive(Debug)]
pub struct Buffers {
    capacity: usize,
    free: RefCell<Vec<BytesMut>>,
}

/// More than this many free buffers are given back to the allocator.
const KEPT: usize = 64;

impl Buffers {
    pub fn new(capacity: usize) -> Self {
        Self { capacity, free: RefCell::default() }
    }

    fn lend(&self) -> BytesMut {
        self.free.borrow_mut().pop().unwrap_or_else(|| BytesMut::with_capacity(self.capacity))
    }

    /// Takes the memory of an empty buffer back. One that has grown is not worth keeping.
    pub fn take_back(&self, buffer: &mut BytesMut) {
        if !buffer.is_empty() {
            return;
        }
        let mut buffer = std::mem::take(buffer);
        let mut free = self.free.borrow_mut();
        // `reserve` moves the start back over what was consumed: no allocation unless the buffer was cut up.
        buffer.clear();
        buffer.reserve(self.capacity);
        if free.len() < KEPT && buffer.capacity() < 2 * self.capacity {
            free.push(buffer);
        }
    }

    /// Appends what the stream has to `buffer`, lending it memory only if there is something to read. Ready(0): the end.
    pub fn poll_fill(
        &self,
        stream: &mut Stream,
        buffer: &mut BytesMut,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if buffer.capacity() == 0 {
            *buffer = self.lend();
        } else if buffer.len() == buffer.capacity() {
            buffer.reserve(buffer.len().max(self.capacity));
        }
        let read = stream.poll_read(cx, buffer);
        if read.is_pending() {
            self.take_back(buffer);
        }
        read
    }
}
