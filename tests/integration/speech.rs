//! The messages of the extended protocol as tests of routing and state need them, and answers in a form that two connections can share
//! (<https://www.postgresql.org/docs/current/protocol-message-formats.html>).

use crate::frames;
use crate::raw::{Message, RawClient, field};

pub fn query(sql: &str) -> Vec<u8> {
    frames::query(sql)
}

/// To the unnamed portal; parameters and results in text.
pub fn bind(statement: &str, parameters: &[&str]) -> Vec<u8> {
    let parameters: Vec<_> = parameters.iter().map(|parameter| parameter.as_bytes()).collect();
    frames::bind("", statement, &parameters, 0)
}

pub fn describe_statement(name: &str) -> Vec<u8> {
    frames::describe(b'S', name)
}

/// The unnamed portal.
pub fn describe_portal() -> Vec<u8> {
    frames::describe(b'P', "")
}

/// The unnamed portal, to its end.
pub fn execute() -> Vec<u8> {
    frames::execute("", 0)
}

pub fn close_statement(name: &str) -> Vec<u8> {
    frames::close(b'S', name)
}

pub fn sync() -> Vec<u8> {
    frames::SYNC.to_vec()
}

pub fn flush() -> Vec<u8> {
    frames::FLUSH.to_vec()
}

/// Binds and runs a prepared statement.
pub fn run(statement: &str, parameters: &[&str]) -> Vec<u8> {
    [bind(statement, parameters), describe_portal(), execute()].concat()
}

/// A statement without parameters through the extended protocol, with its Sync.
pub fn extended(sql: &str) -> Vec<u8> {
    [frames::parse("", sql), run("", &[]), sync()].concat()
}

/// Sends messages that end with a Query or a Sync, and gives the answer. A COPY from the client gets one row, `7`.
pub fn ask(client: &mut RawClient, messages: &[u8]) -> Vec<Message> {
    client.send(messages);
    let mut answer = Vec::new();
    while let Some(message) = client.read() {
        let tag = message.0;
        answer.push(message);
        if tag == 'Z' {
            break;
        }
        if tag == 'G' {
            client.message(b'd', b"7\n");
            client.message(b'c', b"");
            if messages.first() != Some(&b'Q') {
                client.message(b'S', b"");
            }
        }
    }
    answer
}

/// An answer as text, a line for each message: everything that must be the same on every server, so no oids of tables
/// and no lines of PostgreSQL's source.
pub fn seen(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|(tag, body)| format!("{tag} {}", content(*tag, body))).collect()
}

fn content(tag: char, body: &[u8]) -> String {
    match tag {
        'E' | 'N' => unnamed(&[b'S', b'C', b'M', b'D', b'H', b'P'].map(|code| field(body, code)).join("|")),
        'T' => columns(body),
        'D' => text(body.get(2..).unwrap_or_default()),
        // The process that notifies.
        'A' => text(body.get(4..).unwrap_or_default()),
        'K' => String::new(),
        _ => text(body),
    }
}

/// PostgreSQL's message about parameters that do not fit names the statement, which has another name on our servers.
fn unnamed(error: &str) -> String {
    match error.split_once(", but prepared statement \"") {
        Some((before, rest)) => format!("{before}, but {}", rest.split_once('"').map_or(rest, |(_, after)| after)),
        None => error.to_owned(),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', "·")
}

/// Name, type, length, modifier and format of each column.
fn columns(body: &[u8]) -> String {
    let mut columns = Vec::new();
    let mut rest = body.get(2..).unwrap_or_default();
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        let Some(fixed) = rest.get(end + 1..end + 19) else { break };
        columns.push(format!("{}:{:?}", text(&rest[..end]), &fixed[6..]));
        rest = &rest[end + 19..];
    }
    columns.join(" ")
}

/// The value in the first row's first column.
pub fn value(messages: &[Message]) -> Option<String> {
    let (_, row) = messages.iter().find(|(tag, _)| *tag == 'D')?;
    let length = u32::from_be_bytes(row.get(2..6)?.try_into().ok()?);
    let bytes = row.get(6..6 + usize::try_from(length).ok()?)?;
    Some(text(bytes))
}

/// The SQLSTATE of the first error; empty when there is none.
pub fn sqlstate(messages: &[Message]) -> String {
    messages.iter().find(|(tag, _)| *tag == 'E').map(|(_, body)| field(body, b'C')).unwrap_or_default()
}
