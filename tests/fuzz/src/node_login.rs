//! What a node says while we log in to it. A place in its words stands for the nonce that we made up, which no node can
//! know before.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use causeway::auth::server::authenticate;
use causeway::net::login::LoginIo;
use causeway::types::Secret;

use super::wire::{block_on, frames, pair, written};

const NONCE: &[u8] = b"%NONCE%";

pub fn survive(data: &[u8]) {
    // Up to its first request a node knows nothing of us.
    let mut up_to_request = 0;
    for (message, frame) in frames(data) {
        up_to_request += frame.len();
        if message == b'R' {
            break;
        }
    }
    let is_asked = frames(data).any(|(message, _)| message == b'R');
    let (first, rest) = data.split_at(if is_asked { up_to_request } else { data.len() });
    let (accepted, said) = log_in(first, rest);
    let asks = frames(data).filter(|(message, _)| *message != b'N').map(|(_, frame)| frame.get(8).copied());
    let asks: Vec<_> = asks.take(2).collect();
    let may_accept = matches!(asks.as_slice(), [Some(0), ..] | [Some(3 | 5), Some(0)]);
    assert!(!accepted || may_accept, "a node without the password has proved that it has it");
    assert!(said.len() < 4096 + data.len() && frames(&said).all(|(message, _)| message == b'p'));
}

/// Whether the node is taken for one that has let us in, and what we said to it.
fn log_in(first: &[u8], rest: &[u8]) -> (bool, Vec<u8>) {
    block_on(async {
        let (stream, theirs) = pair();
        let mut io = LoginIo::to_node(stream, "a");
        let secret = Secret::new("secret");
        let node = async {
            let theirs = &theirs;
            let _ = (&mut &*theirs).write(first);
            if rest.is_empty() {
                let _ = theirs.shutdown(Shutdown::Write);
                return Vec::new();
            }
            let said = hear(theirs).await;
            let _ = (&mut &*theirs).write(&with_nonce(rest, &said));
            let _ = theirs.shutdown(Shutdown::Write);
            said
        };
        let ours = async {
            let accepted = authenticate(&mut io, "app", Some(&secret)).await;
            drop(io);
            accepted.is_ok()
        };
        let (mut said, accepted) = tokio::join!(node, ours);
        said.extend(written(theirs));
        (accepted, said)
    })
}

/// What we say to its first request, if anything, before we close.
async fn hear(mut theirs: &UnixStream) -> Vec<u8> {
    let mut said = vec![0; 1024];
    loop {
        match theirs.read(&mut said) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => tokio::task::yield_now().await,
            read => {
                said.truncate(read.unwrap_or(0));
                return said;
            }
        }
    }
}

fn with_nonce(words: &[u8], said: &[u8]) -> Vec<u8> {
    let nonce = said.windows(2).position(|window| window == b"r=").map_or(&[][..], |at| &said[at + 2..]);
    let Some(at) = words.windows(NONCE.len()).position(|window| window == NONCE) else { return words.to_vec() };
    [&words[..at], nonce, &words[at + NONCE.len()..]].concat()
}
