//! Frontend messages as bytes, and scripts of them that are played to a node and to a proxy.

use causeway::wire::frame;

use crate::raw::{Message, RawClient};

pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put(&mut out, tag, |out| out.extend_from_slice(body));
    out
}

pub fn query(sql: impl AsRef<[u8]>) -> Vec<u8> {
    message(b'Q', &[sql.as_ref(), b"\0"].concat())
}

/// A Parse without parameter types.
pub fn parse(name: &str, sql: impl AsRef<[u8]>) -> Vec<u8> {
    message(b'P', &[name.as_bytes(), b"\0", sql.as_ref(), b"\0\0\0"].concat())
}

/// A Bind with parameters as text and results in `format` (0: text, 1: binary).
pub fn bind(portal: &str, statement: &str, parameters: &[&[u8]], format: u8) -> Vec<u8> {
    let count = u16::try_from(parameters.len()).unwrap().to_be_bytes();
    let mut body = [portal.as_bytes(), b"\0", statement.as_bytes(), b"\0\0\0", &count].concat();
    for parameter in parameters {
        body.extend_from_slice(&u32::try_from(parameter.len()).unwrap().to_be_bytes());
        body.extend_from_slice(parameter);
    }
    body.extend_from_slice(&[0, 1, 0, format]);
    message(b'B', &body)
}

/// `what`: `S` for a statement, `P` for a portal.
pub fn describe(what: u8, name: &str) -> Vec<u8> {
    message(b'D', &[&[what], name.as_bytes(), b"\0"].concat())
}

pub fn close(what: u8, name: &str) -> Vec<u8> {
    message(b'C', &[&[what], name.as_bytes(), b"\0"].concat())
}

/// At most `rows`; 0: all.
pub fn execute(portal: &str, rows: u32) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), b"\0", &rows.to_be_bytes()].concat())
}

pub const SYNC: &[u8] = b"S\0\0\0\x04";
pub const FLUSH: &[u8] = b"H\0\0\0\x04";
pub const TERMINATE: &[u8] = b"X\0\0\0\x04";
pub const COPY_DONE: &[u8] = b"c\0\0\0\x04";

pub fn copy_data(data: &[u8]) -> Vec<u8> {
    message(b'd', data)
}

pub fn copy_fail(why: &str) -> Vec<u8> {
    message(b'f', &[why.as_bytes(), b"\0"].concat())
}

/// Parse, Bind, Describe, Execute and Sync of the unnamed statement.
pub fn extended(sql: &str) -> Vec<u8> {
    [&parse("", sql), &bind("", "", &[], 0), &describe(b'P', ""), &execute("", 0), SYNC].concat()
}

/// What a client sends in one write, and what it then reads: up to a message of each of these tags in turn, `$` is the
/// end of the connection.
#[derive(Clone, Debug)]
pub struct Turn {
    send: Vec<u8>,
    read: &'static str,
}

pub fn turn<B: AsRef<[u8]>>(parts: &[B], read: &'static str) -> Turn {
    Turn { send: parts.iter().flat_map(AsRef::as_ref).copied().collect(), read }
}

impl Turn {
    pub fn ends_session(&self) -> bool {
        self.read.ends_with('$')
    }
}

/// Plays a script, and gives all that was read.
pub fn play(client: &mut RawClient, script: &[Turn]) -> Vec<Message> {
    let mut transcript = Vec::new();
    for turn in script {
        client.send(&turn.send);
        // No message has the tag `$`.
        turn.read.chars().for_each(|tag| transcript.extend(client.read_to(tag)));
    }
    transcript
}

/// For failures: one message a line, bytes that are no letters escaped, long ones cut.
pub fn show(transcript: &[Message]) -> String {
    let line = |(tag, body): &Message| format!("    {tag} {}\n", body[..body.len().min(300)].escape_ascii());
    transcript.iter().map(line).collect()
}
