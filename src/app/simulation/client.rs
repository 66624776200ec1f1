//! A client that follows its script, and what it must hear: what a server would answer to it alone.

use fastrand::Rng;

use super::script::script;
use super::server::Server;
use super::wire::{Broken, Wire};
use crate::wire::backend::error_fields;
use crate::wire::frame::{HEADER_BYTES, header};
use crate::wire::frontend::TERMINATE;
use crate::wire::startup::put_startup;

/// What a client has heard after its login, and what it should have.
#[derive(Debug)]
pub(super) struct Heard {
    client: usize,
    expected: Vec<u8>,
    got: Vec<u8>,
    /// It was there until it had heard the end.
    stayed: bool,
}

/// Runs the script of one client.
pub(super) async fn run(mut wire: Wire, client: usize, mut random: Rng) -> Heard {
    let mut heard = Heard { client, expected: Vec::new(), got: Vec::new(), stayed: false };
    heard.stayed = converse(&mut wire, &mut heard, &mut random).await.is_ok();
    heard
}

async fn converse(wire: &mut Wire, heard: &mut Heard, random: &mut Rng) -> Result<(), Broken> {
    log_in(wire).await?;
    let script = script(random, heard.client);
    let patient = random.bool();
    // What a server with nobody else would say.
    let mut alone = Server::new(false);
    for batch in script {
        for (message, frame) in frames(&batch) {
            alone.answer(message, &frame[HEADER_BYTES..], &mut heard.expected);
        }
        wire.write(&batch, &mut heard.got).await?;
        if patient {
            hear_out(wire, heard).await?;
        }
    }
    hear_out(wire, heard).await?;
    wire.write(TERMINATE, &mut heard.got).await
}

async fn log_in(wire: &mut Wire) -> Result<(), Broken> {
    let (mut startup, mut got) = (Vec::new(), Vec::new());
    put_startup(&mut startup, [("user", b"app".as_slice()), ("database", b"app")]);
    wire.write(&startup, &mut got).await?;
    while count_ready(&got) == 0 {
        wire.read(&mut got).await?;
    }
    Ok(())
}

/// As many ReadyForQuery as there should be.
async fn hear_out(wire: &mut Wire, heard: &mut Heard) -> Result<(), Broken> {
    let wanted = count_ready(&heard.expected);
    while count_ready(&heard.got) < wanted {
        wire.read(&mut heard.got).await?;
    }
    Ok(())
}

fn count_ready(bytes: &[u8]) -> usize {
    frames(bytes).filter(|(message, _)| *message == b'Z').count()
}

/// The whole frames at the front of `bytes`.
fn frames(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let header = header(bytes).ok()??;
        let (frame, rest) = bytes.split_at_checked(header.frame_bytes)?;
        bytes = rest;
        Some((header.tag, frame))
    })
}

impl Heard {
    /// What is wrong with it. `nodes_break`: an error of ours may take the place of an answer.
    pub(super) fn judge(&self, nodes_break: bool) -> Result<(), String> {
        for (_, frame) in frames(&self.got) {
            if let Some(other) = owners(frame).find(|owner| *owner != self.client) {
                let frame = frame.escape_ascii();
                return Err(format!("client {} got what is client {other}'s: {frame}", self.client));
            }
        }
        let same = self.expected.iter().zip(&self.got).take_while(|(one, other)| one == other).count();
        if same == self.got.len() && (same == self.expected.len() || !self.stayed) {
            return Ok(());
        }
        // Up to the message in which they begin to differ.
        let whole: usize = frames(&self.got)
            .map(|(_, frame)| frame.len())
            .scan(0, |sum, bytes| {
                *sum += bytes;
                Some(*sum)
            })
            .take_while(|sum| *sum <= same)
            .last()
            .unwrap_or(0);
        let rest = &self.got[whole..];
        let is_ours = frames(rest).next().map_or(rest.first() == Some(&b'E') && !self.stayed, |(message, frame)| {
            let state = error_fields(&frame[HEADER_BYTES..]).sqlstate;
            message == b'E' && [b"08", b"57", b"40"].iter().any(|class| state.starts_with(*class))
        });
        // A client that was cut off has heard nothing but a part of it.
        if nodes_break && (is_ours || same == self.got.len()) {
            return Ok(());
        }
        let show = |bytes: &[u8]| bytes[..bytes.len().min(200)].escape_ascii().to_string();
        let (got, expected) = (show(&self.got[whole..]), show(&self.expected[whole..]));
        let (client, stayed) = (self.client, self.stayed);
        Err(format!(
            "client {client} (stayed: {stayed}) got, {same} bytes after its login,\n{got}\ninstead of\n{expected}"
        ))
    }
}

/// Those who are named in a frame, as `c3.17`.
fn owners(frame: &[u8]) -> impl Iterator<Item = usize> + '_ {
    frame.windows(3).filter_map(|window| match window {
        [b'c', digit @ b'0'..=b'9', b'.'] => Some(usize::from(digit - b'0')),
        _ => None,
    })
}
