//! The rules of the protocol, from a server's side, without I/O: a client's message in, the answer out. What a statement
//! answers depends on its text alone, so that two servers answer alike.
//!
//! `FROM rows_3_100` gives three rows of 100 bytes and the whole text, in which its client names itself.

use std::collections::HashMap;

use crate::error::{Error, Fault};
use crate::wire::backend::{Severity, TransactionStatus, put_command_complete, put_error, put_ready};
use crate::wire::frame::put;
use crate::wire::frontend::{Bind, Parse, Target, query, tag};

#[derive(Debug)]
pub(super) struct Server {
    is_replica: bool,
    /// The transaction under way may only read.
    read_only: bool,
    status: TransactionStatus,
    statements: HashMap<Vec<u8>, String>,
    portals: HashMap<Vec<u8>, Portal>,
    /// An error stands for all messages up to a Sync.
    skipping: bool,
    copying_in: Option<CopyIn>,
}

#[derive(Debug, Default)]
struct Portal {
    text: String,
    rows_sent: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CopyIn {
    Query,
    Extended,
}

/// A replica has replayed all that there is.
pub(super) const LSN: u64 = 0x300_0000;

type Outcome = Result<(), Error>;

impl Server {
    pub(super) fn new(is_replica: bool) -> Self {
        Self {
            is_replica,
            read_only: false,
            status: TransactionStatus::Idle,
            statements: HashMap::new(),
            portals: HashMap::new(),
            skipping: false,
            copying_in: None,
        }
    }

    /// Answers one message.
    pub(super) fn answer(&mut self, message: u8, body: &[u8], out: &mut Vec<u8>) {
        if let Some(copy) = self.copying_in {
            return self.copy_in(copy, message, out);
        }
        match message {
            tag::SYNC => {
                self.skipping = false;
                self.end_implicit_transaction();
                put_ready(out, self.status);
            }
            _ if self.skipping => {}
            tag::QUERY => self.query(&text_of(query(body).unwrap_or_default()), out),
            tag::FUNCTION_CALL => {
                put(out, b'V', |out| out.extend([8_u32.to_be_bytes().as_slice(), &LSN.to_be_bytes()].concat()));
                put_ready(out, self.status);
            }
            _ => {
                if let Err(error) = self.extended(message, body, out) {
                    self.fail(&error, out);
                    self.skipping = true;
                }
            }
        }
    }

    fn fail(&mut self, error: &Error, out: &mut Vec<u8>) {
        put_error(out, Severity::Error, error);
        if self.status == TransactionStatus::InTransaction {
            self.status = TransactionStatus::Failed;
        }
    }

    fn end_implicit_transaction(&mut self) {
        if self.status == TransactionStatus::Idle {
            self.portals.clear();
        }
    }

    fn copy_in(&mut self, copy: CopyIn, message: u8, out: &mut Vec<u8>) {
        match message {
            tag::COPY_DONE => put_command_complete(out, "COPY 1"),
            tag::COPY_FAIL => {
                self.fail(&error("57014", "COPY from stdin failed"), out);
                self.skipping = copy == CopyIn::Extended;
            }
            tag::COPY_DATA | tag::FLUSH | tag::SYNC => return,
            _ => {
                self.fail(&error("08P01", "unexpected message type during COPY from stdin"), out);
                self.skipping = copy == CopyIn::Extended;
            }
        }
        self.copying_in = None;
        if copy == CopyIn::Query {
            put_ready(out, self.status);
        }
    }

    fn query(&mut self, text: &str, out: &mut Vec<u8>) {
        self.statements.remove(&b""[..]);
        self.portals.remove(&b""[..]);
        for statement in text.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
            let ran = self.permit(statement).and_then(|()| {
                if Rows::of(statement).is_some() {
                    put_description(out);
                }
                self.run(statement, &mut 0, 0, CopyIn::Query, out)
            });
            if let Err(error) = ran {
                self.fail(&error, out);
                break;
            }
            if self.copying_in.is_some() {
                return;
            }
        }
        if text.trim().is_empty() {
            put(out, b'I', |_| ());
        }
        self.end_implicit_transaction();
        put_ready(out, self.status);
    }

    /// A failed transaction takes nothing but its end.
    fn permit(&self, text: &str) -> Outcome {
        if text.starts_with("SELEKT") {
            return Err(error("42601", format!("syntax error in {text}")));
        }
        if self.status == TransactionStatus::Failed && !["COMMIT", "ROLLBACK"].contains(&text) {
            return Err(error("25P02", "current transaction is aborted"));
        }
        Ok(())
    }

    fn extended(&mut self, message: u8, body: &[u8], out: &mut Vec<u8>) -> Outcome {
        match message {
            tag::PARSE => {
                let parse = Parse::read(body)?;
                let text = text_of(parse.text);
                self.permit(&text)?;
                if !parse.name.is_empty() && self.statements.contains_key(parse.name) {
                    return Err(error("42P05", "prepared statement already exists"));
                }
                self.statements.insert(parse.name.to_vec(), text);
                put(out, b'1', |_| ());
            }
            tag::BIND => {
                let bind = Bind::read(body)?;
                let text = self.prepared(bind.statement)?;
                self.permit(&text)?;
                self.portals.insert(bind.portal.to_vec(), Portal { text, rows_sent: 0 });
                put(out, b'2', |_| ());
            }
            tag::DESCRIBE => self.describe(Target::read(body)?, out)?,
            tag::EXECUTE => {
                let (portal, rows) = body.split_at(body.iter().position(|byte| *byte == 0).unwrap_or(0));
                let most = rows.get(1..5).map_or(0, |rows| rows.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)));
                let missing = || error("34000", "portal does not exist");
                let mut portal = self.portals.get_mut(portal).map(std::mem::take).ok_or_else(missing)?;
                self.permit(&portal.text)?;
                self.run(&portal.text, &mut portal.rows_sent, most, CopyIn::Extended, out)?;
                if let Some(place) = self.portals.get_mut(&body[..body.len() - rows.len()]) {
                    *place = portal;
                }
            }
            tag::CLOSE => {
                match Target::read(body)? {
                    Target::Statement(name) => drop(self.statements.remove(name)),
                    Target::Portal(name) => drop(self.portals.remove(name)),
                }
                put(out, b'3', |_| ());
            }
            _ => {}
        }
        Ok(())
    }

    fn prepared(&self, name: &[u8]) -> Result<String, Error> {
        self.statements.get(name).cloned().ok_or_else(|| error("26000", "prepared statement does not exist"))
    }

    fn describe(&self, target: Target<'_>, out: &mut Vec<u8>) -> Outcome {
        let text = match target {
            Target::Statement(name) => {
                let text = self.prepared(name)?;
                put(out, b't', |out| out.extend([0, 0]));
                text
            }
            Target::Portal(name) => {
                self.portals.get(name).ok_or_else(|| error("34000", "portal does not exist"))?.text.clone()
            }
        };
        match Rows::of(&text) {
            Some(_) => put_description(out),
            None => put(out, b'n', |_| ()),
        }
        Ok(())
    }

    /// Rows from `sent` on, at most `most` (0: all), and the end of the statement.
    fn run(&mut self, text: &str, sent: &mut usize, most: usize, copy: CopyIn, out: &mut Vec<u8>) -> Outcome {
        if text.contains("1/0") {
            return Err(error("22012", format!("division by zero in {text}")));
        }
        if text.contains("noisy") {
            put(out, b'N', |out| out.extend_from_slice(format!("SNOTICE\0VNOTICE\0C00000\0M{text}\0\0").as_bytes()));
        }
        let writes = text.contains("risky") || text.starts_with("INSERT") || text.ends_with("FROM STDIN");
        let may_write = !self.is_replica && (self.status == TransactionStatus::Idle || !self.read_only);
        if writes && !may_write {
            return Err(error("25006", "cannot execute it in a read-only transaction"));
        }
        let rows = Rows::of(text);
        match text.split(' ').next().unwrap_or_default() {
            "BEGIN" => {
                self.status = TransactionStatus::InTransaction;
                self.read_only = text.ends_with("READ ONLY");
            }
            "COMMIT" | "ROLLBACK" => {
                let failed = std::mem::replace(&mut self.status, TransactionStatus::Idle) == TransactionStatus::Failed;
                put_command_complete(out, if failed { "ROLLBACK" } else { text });
                return Ok(());
            }
            "DISCARD" => {
                if text == "DISCARD ALL" {
                    self.statements.clear();
                }
                put_command_complete(out, text);
                return Ok(());
            }
            "COPY" if text.ends_with("FROM STDIN") => {
                self.copying_in = Some(copy);
                put(out, b'G', |out| out.extend([0, 0, 0]));
                return Ok(());
            }
            "COPY" => {
                put(out, b'H', |out| out.extend([0, 0, 0]));
                let rows = rows.unwrap_or_default();
                (0..rows.count).for_each(|_| put(out, b'd', |out| out.extend(rows.row(text))));
                put(out, b'c', |_| ());
                put_command_complete(out, &format!("COPY {}", rows.count));
                return Ok(());
            }
            _ => {}
        }
        let Some(rows) = rows else {
            let verb = text.split(' ').next().unwrap_or_default();
            put_command_complete(out, if verb == "INSERT" { "INSERT 0 1" } else { verb });
            return Ok(());
        };
        let until = if most == 0 { rows.count } else { rows.count.min(*sent + most) };
        for _ in *sent..until {
            rows.put_row(text, out);
        }
        *sent = until;
        if most > 0 && until < rows.count {
            put(out, b's', |_| ());
        } else {
            put_command_complete(out, &format!("SELECT {}", rows.count));
        }
        Ok(())
    }
}

/// What a text selects.
#[derive(Clone, Copy, Debug, Default)]
struct Rows {
    count: usize,
    bytes: usize,
}

impl Rows {
    fn of(text: &str) -> Option<Self> {
        let (_, numbers) = text.split_once("rows_")?;
        let mut numbers = numbers.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
        Some(Self { count: numbers.next()?, bytes: numbers.next()? })
    }

    fn row(self, text: &str) -> Vec<u8> {
        [text.as_bytes(), &b"-".repeat(self.bytes)].concat()
    }

    fn put_row(self, text: &str, out: &mut Vec<u8>) {
        let value = self.row(text);
        put(out, b'D', |out| {
            out.extend([0, 1]);
            out.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend(value);
        });
    }
}

/// One column of text.
fn put_description(out: &mut Vec<u8>) {
    put(out, b'T', |out| {
        out.extend_from_slice(b"\0\x01s\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0");
    });
}

fn text_of(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

fn error(sqlstate: &'static str, message: impl Into<String>) -> Error {
    Error::new(Fault::Client, sqlstate, message)
}
