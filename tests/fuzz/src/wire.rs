//! Frames and sockets that several targets need.

use std::io::Read as _;
use std::os::unix::net::UnixStream;

use causeway::net::stream::Stream;
use causeway::wire::frame::header;
use tokio::runtime::{Builder, Runtime};

/// The frames at the front of `bytes` that are whole and possible, with their tags.
pub fn frames(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let header = header(bytes).ok()??;
        let (frame, rest) = bytes.split_at_checked(header.frame_bytes)?;
        bytes = rest;
        Some((header.tag, frame))
    })
}

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_io().build().unwrap();
}

/// Runs `work` to its end on a runtime with sockets and without timers, as workers have.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    RUNTIME.with(|runtime| runtime.block_on(work))
}

/// Two ends of a socket; within [`block_on`].
pub fn pair() -> (Stream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    (Stream::unix(tokio::net::UnixStream::from_std(ours).unwrap()), theirs)
}

/// Everything that has been written to the other end.
pub fn written(mut theirs: UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What is there is kept in `bytes` when the rest would block.
    let _ = theirs.read_to_end(&mut bytes);
    bytes
}
