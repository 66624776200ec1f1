//! Where PostgreSQL's messages end in a stream of bytes, start-up included
//! (<https://www.postgresql.org/docs/current/protocol-message-formats.html>).

use super::Direction;

const CANCEL: u32 = 80_877_102;
const REQUESTS_FOR_ENCRYPTION: [u32; 2] = [80_877_103, 80_877_104];
/// PostgreSQL takes no longer start-up message.
const LONGEST_STARTUP: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Messages without a tag from the client; from the server, single bytes that answer requests for encryption.
    Start,
    Messages,
    /// Encrypted, or not PostgreSQL.
    Opaque,
}

/// Bytes go in as they come, messages come out. What is not understood comes out as it came in.
#[derive(Debug)]
pub struct Splitter {
    direction: Direction,
    phase: Phase,
    buffer: Vec<u8>,
}

impl Splitter {
    pub fn new(direction: Direction) -> Self {
        Self { direction, phase: Phase::Start, buffer: Vec::new() }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message.
    pub fn next(&mut self) -> Option<Vec<u8>> {
        let end = match (self.phase, self.direction) {
            (Phase::Start, Direction::ToServer) => self.startup()?,
            (Phase::Start, Direction::ToClient) => self.answer()?,
            (Phase::Messages, _) => self.message()?,
            (Phase::Opaque, _) => self.buffer.len(),
        };
        (end > 0 && end <= self.buffer.len()).then(|| self.buffer.drain(..end).collect())
    }

    /// What is left of a message when the stream ends.
    pub fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    fn startup(&mut self) -> Option<usize> {
        let length = number(&self.buffer, 0)? as usize;
        if !(8..=LONGEST_STARTUP).contains(&length) {
            return Some(self.give_up());
        }
        let code = number(&self.buffer, 4)?;
        if self.buffer.len() >= length && !REQUESTS_FOR_ENCRYPTION.contains(&code) {
            self.phase = if code == CANCEL { Phase::Opaque } else { Phase::Messages };
        }
        Some(length)
    }

    fn answer(&mut self) -> Option<usize> {
        match self.buffer.first()? {
            b'N' => Some(1),
            b'S' | b'G' => Some(self.give_up()),
            _ => {
                self.phase = Phase::Messages;
                self.message()
            }
        }
    }

    fn message(&mut self) -> Option<usize> {
        let length = number(&self.buffer, 1)? as usize;
        Some(if length < 4 { self.give_up() } else { length + 1 })
    }

    fn give_up(&mut self) -> usize {
        self.phase = Phase::Opaque;
        self.buffer.len()
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_be_bytes(*chunk))
}
