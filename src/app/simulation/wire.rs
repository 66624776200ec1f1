//! A socket whose bytes come and go in pieces, late, and perhaps not all of them, by seed.

use std::io::{self, ErrorKind};

use fastrand::Rng;
use tokio::net::UnixStream;
use tokio::task::yield_now;

/// One end of a connection.
#[derive(Debug)]
pub(super) struct Wire {
    socket: UnixStream,
    random: Rng,
    largest_piece: usize,
    /// So many bytes more, of both directions, and the connection breaks.
    left: usize,
}

/// The connection is broken, or the other side has ended it.
#[derive(Debug)]
pub(super) struct Broken;

impl Wire {
    pub(super) fn new(socket: UnixStream, mut random: Rng, cut_after: Option<usize>) -> Self {
        let largest_piece = [1, 7, 100, 5000, 100_000][random.usize(..5)];
        Self { socket, random, largest_piece, left: cut_after.unwrap_or(usize::MAX) }
    }

    /// How much goes now, after a while.
    async fn next_piece(&mut self) -> Result<usize, Broken> {
        // A piece of one byte at a time would take its time for long answers.
        let delays = if self.random.u8(..8) == 0 { self.random.usize(..40) } else { 0 };
        for _ in 0..delays {
            yield_now().await;
        }
        if self.left == 0 {
            return Err(Broken);
        }
        let most = if self.random.u8(..16) == 0 { self.largest_piece * 64 } else { self.largest_piece };
        Ok(self.random.usize(1..=most).min(self.left))
    }

    fn passed(&mut self, result: io::Result<usize>) -> Result<usize, Broken> {
        match result {
            Ok(0) => Err(Broken),
            Ok(bytes) => {
                self.left -= bytes;
                Ok(bytes)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(_) => Err(Broken),
        }
    }

    /// Appends what has come, waiting for something.
    pub(super) async fn read(&mut self, input: &mut Vec<u8>) -> Result<(), Broken> {
        loop {
            let piece = self.next_piece().await?;
            self.socket.readable().await.map_err(|_| Broken)?;
            if self.try_read(piece, input)? > 0 {
                return Ok(());
            }
        }
    }

    fn try_read(&mut self, piece: usize, input: &mut Vec<u8>) -> Result<usize, Broken> {
        let mut buffer = vec![0; piece.min(1 << 20)];
        let read = self.socket.try_read(&mut buffer);
        let bytes = self.passed(read)?;
        input.extend_from_slice(&buffer[..bytes]);
        Ok(bytes)
    }

    /// Sends all of it, and takes in what comes meanwhile: the other side may wait for that.
    pub(super) async fn write(&mut self, mut output: &[u8], input: &mut Vec<u8>) -> Result<(), Broken> {
        while !output.is_empty() {
            let piece = self.next_piece().await?.min(output.len());
            let ready = self.socket.ready(tokio::io::Interest::READABLE | tokio::io::Interest::WRITABLE);
            let ready = ready.await.map_err(|_| Broken)?;
            if ready.is_readable() {
                self.try_read(piece, input)?;
            }
            if ready.is_writable() && self.left > 0 {
                let written = self.socket.try_write(&output[..piece.min(self.left)]);
                output = &output[self.passed(written)?..];
            }
        }
        Ok(())
    }
}
