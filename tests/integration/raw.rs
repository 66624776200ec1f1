//! A client that sends what it is told, byte by byte: for exact answers and for hostile frames.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use causeway::wire::frame;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};

/// An answer that takes longer is none.
const READ_LIMIT: Duration = Duration::from_secs(20);

const PROTOCOL_3_0: [u8; 4] = [0, 3, 0, 0];

pub trait Pipe: Read + Write + Send {}
impl<T: Read + Write + Send> Pipe for T {}

/// The second is a message that was read before its time.
pub struct RawClient(Box<dyn Pipe>, Option<Message>);

/// A message: its tag and its body.
pub type Message = (char, Vec<u8>);

impl RawClient {
    /// Connects and sends nothing; `host` may be a socket directory.
    pub fn connect(host: &str, port: u16) -> Self {
        if host.starts_with('/') {
            let stream = UnixStream::connect(Path::new(host).join(format!(".s.PGSQL.{port}"))).unwrap();
            stream.set_read_timeout(Some(READ_LIMIT)).unwrap();
            return Self(Box::new(stream), None);
        }
        let stream = TcpStream::connect((host, port)).unwrap();
        stream.set_read_timeout(Some(READ_LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(Box::new(stream), None)
    }

    /// Sends as much as the other side takes: it may have closed, which the test sees when it reads.
    pub fn send(&mut self, bytes: &[u8]) {
        match self.0.write_all(bytes) {
            Err(error) if ![ErrorKind::BrokenPipe, ErrorKind::ConnectionReset].contains(&error.kind()) => {
                panic!("send: {error}")
            }
            _ => {}
        }
    }

    /// Sends a well-formed message.
    pub fn message(&mut self, tag: u8, body: &[u8]) {
        let mut bytes = Vec::new();
        frame::put(&mut bytes, tag, |out| out.extend_from_slice(body));
        self.send(&bytes);
    }

    /// Sends a simple Query.
    pub fn query(&mut self, sql: &str) {
        self.message(b'Q', &[sql.as_bytes(), b"\0"].concat());
    }

    /// Sends `StartupMessage` 3.0 with these parameters.
    pub fn startup(&mut self, parameters: &[(&str, &str)]) {
        self.startup_of(PROTOCOL_3_0, parameters);
    }

    /// The same of any protocol version.
    pub fn startup_of(&mut self, version: [u8; 4], parameters: &[(&str, &str)]) {
        let mut body = version.to_vec();
        for (name, value) in parameters {
            body.extend_from_slice(&[name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
        }
        body.push(0);
        let length = u32::try_from(body.len() + 4).unwrap();
        self.send(&[&length.to_be_bytes(), &body[..]].concat());
    }

    /// The next message; `None` when the other side has closed.
    pub fn read(&mut self) -> Option<Message> {
        if let Some(message) = self.1.take() {
            return Some(message);
        }
        let mut header = [0; frame::HEADER_BYTES];
        self.read_exact(&mut header)?;
        let header = frame::header(&header).unwrap().unwrap();
        let mut body = vec![0; header.frame_bytes - frame::HEADER_BYTES];
        self.read_exact(&mut body)?;
        Some((char::from(header.tag), body))
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Option<()> {
        match self.0.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(error) if [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset].contains(&error.kind()) => None,
            Err(error) => panic!("read: {error}"),
        }
    }

    /// Whatever has come, which need not be messages, is thrown away; 0 when the other side has closed.
    pub fn read_some(&mut self) -> usize {
        match self.0.read(&mut [0; 4096]) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("read: {error}"),
        }
    }

    /// All messages up to the first with `tag`, or to the end.
    pub fn read_to(&mut self, tag: char) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = self.read() {
            let last = message.0 == tag;
            messages.push(message);
            if last {
                break;
            }
        }
        messages
    }

    /// Logs in with a cleartext password or scram-sha-256, whichever is asked for, and reads to ReadyForQuery.
    pub fn login(&mut self, user: &str, password: &str, database: &str) {
        self.startup(&[("user", user), ("database", database)]);
        self.prove(password);
    }

    /// Answers what is asked after the start-up message; gives what comes then, to ReadyForQuery.
    pub fn prove(&mut self, password: &str) -> Vec<Message> {
        let greeting = self.try_prove(password);
        assert_eq!(greeting.last(), Some(&('Z', b"I".to_vec())), "{greeting:?}");
        greeting
    }

    /// The same, but it may also end with an error.
    pub fn try_prove(&mut self, password: &str) -> Vec<Message> {
        let (tag, body) = self.authenticate(password);
        if tag == 'E' {
            return vec![(tag, body)];
        }
        assert_eq!(tag, 'R', "{}", String::from_utf8_lossy(&body));
        self.read_to('Z')
    }

    /// The same where the login must fail; gives the body of the error.
    pub fn prove_or_refusal(&mut self, password: &str) -> Vec<u8> {
        let mut messages = vec![self.authenticate(password)];
        messages.extend(self.read_to('E'));
        let (tag, body) = messages.pop().unwrap();
        assert_eq!(tag, 'E', "the login went well");
        body
    }

    /// `NegotiateProtocolVersion`, if that comes first.
    pub fn negotiation(&mut self) -> Option<Message> {
        let message = self.read().expect("login");
        if message.0 == 'v' {
            return Some(message);
        }
        self.1 = Some(message);
        None
    }

    /// The answer to a request for encryption.
    pub fn read_byte(&mut self) -> u8 {
        let mut byte = [0];
        self.read_exact(&mut byte).unwrap();
        byte[0]
    }

    /// Runs the exchange up to `AuthenticationOk` or an error.
    fn authenticate(&mut self, password: &str) -> Message {
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        loop {
            let (tag, body) = self.read().expect("login");
            if tag != 'R' {
                return (tag, body);
            }
            let (kind, data) = body.split_first_chunk().unwrap();
            match i32::from_be_bytes(*kind) {
                0 => return (tag, body),
                3 => self.message(b'p', &[password.as_bytes(), b"\0"].concat()),
                10 => {
                    let first = scram.message();
                    let length = i32::try_from(first.len()).unwrap().to_be_bytes();
                    let body = [SCRAM_SHA_256.as_bytes(), b"\0", &length, first].concat();
                    self.message(b'p', &body);
                }
                11 => {
                    scram.update(data).unwrap();
                    self.message(b'p', scram.message());
                }
                12 => scram.finish(data).unwrap(),
                other => panic!("authentication request {other}"),
            }
        }
    }
}

/// The tags of messages, in order: `"1 2 T D C Z"` is a prepared SELECT of one row.
pub fn tags(messages: &[Message]) -> String {
    messages.iter().map(|(tag, _)| tag.to_string()).collect::<Vec<_>>().join(" ")
}

/// A field of an `ErrorResponse` or `NoticeResponse`
/// (<https://www.postgresql.org/docs/current/protocol-error-fields.html>); empty when it is not there.
pub fn field(body: &[u8], code: u8) -> String {
    let field = body.split(|&byte| byte == 0).find(|field| field.first() == Some(&code));
    String::from_utf8_lossy(field.map_or(&[][..], |field| &field[1..])).into_owned()
}
