//! Turns a client's messages into what its server must get: names of prepared statements become the server's, what the
//! server lacks is prepared first, and the ledger learns which answers will come.

use std::ops::Range;
use std::sync::Arc;

use super::ledger::{Ledger, Owed};
use super::outbound::Outbound;
use super::reword::Shift;
use super::statements::{ClientStatements, Undo};
use crate::backend::params::Params;
use crate::backend::prepared::{Prepared, Statement, Statements};
use crate::error::{Error, Fault, Result, sqlstate};
use crate::sql::{ByName, Verb, named, rename};
use crate::topology::Facts;
use crate::wire::backend::{CLOSE_COMPLETE, PARSE_COMPLETE};
use crate::wire::frame::{HEADER_BYTES, take_cstr};
use crate::wire::frontend::{Bind, Parse, SYNC, Target, put_query, query, tag};

/// The parts of a session and its server that translation touches.
#[derive(Debug)]
pub struct Translator<'a> {
    /// The server is the client's alone: its statements have the client's names.
    pub verbatim: bool,
    /// Some text is a PREPARE, EXECUTE or DEALLOCATE.
    pub names_in_sql: bool,
    pub interner: &'a Statements,
    /// The login parameters that a statement's meaning may depend on.
    pub meaning: &'a Arc<Params>,
    pub facts: &'a Facts,
    /// A statement which this server does not have yet, and of which clients were told what its columns are, or which
    /// was read first under other parameters.
    pub unproven: &'a mut Option<Arc<Statement>>,
    /// How a text was changed, if one was.
    pub shift: &'a mut Option<Shift>,
    /// The session has settings that others do not have: what is prepared now means what it does to nobody else.
    pub apart: bool,
    pub statements: &'a mut ClientStatements,
    pub prepared: &'a mut Prepared,
    /// The server's unnamed statement is the client's.
    pub unnamed_here: &'a mut bool,
    /// The server got a statement under a client's own name: it must be cleaned before it is lent again.
    pub tainted: &'a mut bool,
    pub ledger: &'a mut Ledger,
    pub out: &'a mut Outbound,
    pub input: &'a [u8],
}

impl Translator<'_> {
    /// One whole frame of the input.
    pub fn frame(&mut self, range: Range<usize>) -> Result<()> {
        let Some((&message, rest)) = self.input.get(range.clone()).and_then(<[u8]>::split_first) else {
            return Ok(());
        };
        let body = rest.get(HEADER_BYTES - 1..).unwrap_or_default();
        match message {
            _ if self.verbatim => self.owe(message),
            tag::PARSE => return self.parse(range, body),
            tag::BIND => return self.bind(range, body),
            tag::DESCRIBE => return self.describe(range, body),
            tag::CLOSE => return self.close(range, body),
            tag::QUERY => return self.query(range, body),
            _ => self.owe(message),
        }
        self.out.pass(range, self.input);
        Ok(())
    }

    /// Notes the answer to a message that goes as it is.
    fn owe(&mut self, message: u8) {
        self.ledger.push(match message {
            tag::PARSE => Owed::Parse { visible: true, statement: None, undo: None },
            tag::BIND => Owed::Bind,
            tag::DESCRIBE => Owed::Describe,
            tag::CLOSE => Owed::Close { visible: true, evicted: None },
            tag::QUERY | tag::FUNCTION_CALL => Owed::Query,
            tag::EXECUTE => Owed::Execute,
            tag::SYNC => Owed::Ready,
            tag::COPY_DONE | tag::COPY_FAIL => Owed::CopyEnd,
            _ => return,
        });
    }

    /// A Sync of ours in the place of the client's Flush.
    pub fn sync_unseen(&mut self) {
        self.out.stage(self.input).extend_from_slice(SYNC);
        self.ledger.push(Owed::HiddenReady);
    }

    fn query(&mut self, range: Range<usize>, body: &[u8]) -> Result<()> {
        self.statements.forget_unnamed();
        *self.unnamed_here = false;
        match self.named(query(body).unwrap_or_default()) {
            Some(ByName { verb: Verb::Prepare, name }) => return self.prepare_by_sql(range, body, &name),
            Some(ByName { name, .. }) => self.renamed_query(range, body, &name),
            None => self.out.pass(range, self.input),
        }
        self.ledger.push(Owed::Query);
        Ok(())
    }

    fn named(&self, text: &[u8]) -> Option<ByName> {
        if self.names_in_sql { named(text) } else { None }
    }

    /// EXECUTE and DEALLOCATE of what the client prepared, by whichever means, under the server's name for it.
    fn renamed_query(&mut self, range: Range<usize>, body: &[u8], name: &[u8]) {
        let text = query(body).unwrap_or_default();
        match self.statements.get(name).and_then(|statement| rename(text, statement.name())) {
            Some(renamed) => {
                *self.shift = Some(Shift::between(text, &renamed));
                put_query(self.out.stage(self.input), &renamed);
            }
            None => self.out.pass(range, self.input),
        }
    }

    fn prepare_by_sql(&mut self, range: Range<usize>, body: &[u8], name: &[u8]) -> Result<()> {
        if self.statements.get(name).is_some() {
            self.name_is_taken(name);
        } else if let Some(statement) = self.interner.own_sql(query(body).unwrap_or_default()) {
            let undo = Some(self.statements.define(name, Arc::clone(&statement))?);
            self.prepared.insert(&statement);
            *self.shift = Some(Shift::between(query(body).unwrap_or_default(), statement.text()));
            statement.put_prepare(self.out.stage(self.input));
            self.ledger.push(Owed::Prepare { statement, undo });
            return Ok(());
        }
        self.ledger.push(Owed::Query);
        self.out.pass(range, self.input);
        Ok(())
    }

    fn parse(&mut self, range: Range<usize>, body: &[u8]) -> Result<()> {
        let parse = Parse::read(body)?;
        let Some(named) = self.named(parse.text) else { return self.parse_plain(range, body, &parse) };
        if parse.name.is_empty() {
            self.statements.set_unnamed(body);
            *self.unnamed_here = true;
            self.put_unnamed_by_name(&parse, named);
            self.ledger.push(Owed::Parse { visible: true, statement: None, undo: Some(Undo::unnamed()) });
            return Ok(());
        }
        match self.statements.get(&named.name).and_then(|statement| rename(parse.text, statement.name())) {
            Some(text) if named.verb != Verb::Prepare => self.parse_own(&Parse { text: &text, ..parse }),
            _ => self.parse_plain(range, body, &parse),
        }
    }

    /// An unnamed statement that names another, which has another name on the server.
    fn put_unnamed_by_name(&mut self, parse: &Parse<'_>, named: ByName) {
        let known = self.statements.get(&named.name).map(Arc::clone);
        let text = match (named.verb, known) {
            (Verb::Prepare, Some(_)) => {
                self.name_is_taken(&named.name);
                None
            }
            (Verb::Prepare, None) => self.interner.own_sql(parse.text).map(|statement| {
                let text = statement.text().to_vec();
                self.statements.unnamed_prepares(named.name, statement);
                text
            }),
            (_, known) => known.and_then(|statement| rename(parse.text, statement.name())),
        };
        let text = text.as_deref().unwrap_or(parse.text);
        *self.shift = Some(Shift::between(parse.text, text));
        self.statements.unnamed_shift = *self.shift;
        Parse { text, ..*parse }.write(self.out.stage(self.input));
    }

    fn parse_plain(&mut self, range: Range<usize>, body: &[u8], parse: &Parse<'_>) -> Result<()> {
        if parse.name.is_empty() {
            self.statements.set_unnamed(body);
            *self.unnamed_here = true;
            self.ledger.push(Owed::Parse { visible: true, statement: None, undo: Some(Undo::unnamed()) });
            self.out.pass(range, self.input);
        } else if self.statements.get(parse.name).is_some() {
            self.parse_duplicate(range, parse.name);
        } else {
            let statement = if self.apart {
                self.interner.own(parse)
            } else {
                self.interner.intern(parse, self.meaning, self.facts.load().version)
            };
            let undo = Some(self.statements.define(parse.name, Arc::clone(&statement))?);
            if self.prepared.touch(&statement) {
                self.ledger.push(Owed::Local { answer: PARSE_COMPLETE, undo });
            } else {
                self.prepare(&statement);
                self.ledger.push(Owed::Parse { visible: true, statement: Some(statement), undo });
            }
        }
        Ok(())
    }

    fn parse_own(&mut self, parse: &Parse<'_>) -> Result<()> {
        let statement = self.interner.own(parse);
        let undo = Some(self.statements.define(parse.name, Arc::clone(&statement))?);
        self.prepare(&statement);
        self.ledger.push(Owed::Parse { visible: true, statement: Some(statement), undo });
        Ok(())
    }

    /// The name is in use: the server says so in its own words once it knows the name.
    fn parse_duplicate(&mut self, range: Range<usize>, name: &[u8]) {
        self.name_is_taken(name);
        self.ledger.push(Owed::Parse { visible: true, statement: None, undo: None });
        self.out.pass(range, self.input);
    }

    fn name_is_taken(&mut self, name: &[u8]) {
        let out = self.out.stage(self.input);
        // It knows the name already if this happened before.
        Target::Statement(name).write(tag::CLOSE, out);
        Parse { name, text: b"", types: &[0, 0] }.write(out);
        self.ledger.push(Owed::Close { visible: false, evicted: None });
        self.ledger.push(Owed::Parse { visible: false, statement: None, undo: None });
        *self.tainted = true;
    }

    fn bind(&mut self, range: Range<usize>, body: &[u8]) -> Result<()> {
        let bind = Bind::read(body)?;
        if bind.statement.is_empty() && self.statements.unnamed_shift.is_some() {
            *self.shift = self.statements.unnamed_shift;
        }
        match self.on_server(bind.statement, true) {
            Some(statement) => {
                Bind { statement: statement.name(), ..bind }.write(self.out.stage(self.input));
            }
            None => self.out.pass(range, self.input),
        }
        self.ledger.push(Owed::Bind);
        Ok(())
    }

    fn describe(&mut self, range: Range<usize>, body: &[u8]) -> Result<()> {
        let statement = match Target::read(body)? {
            Target::Statement(name) => self.on_server(name, false),
            Target::Portal(_) => None,
        };
        if let Some(statement) = statement {
            Target::Statement(statement.name()).write(tag::DESCRIBE, self.out.stage(self.input));
            self.ledger.push(Owed::DescribeStatement(statement));
        } else {
            self.out.pass(range, self.input);
            self.ledger.push(Owed::Describe);
        }
        Ok(())
    }

    fn close(&mut self, range: Range<usize>, body: &[u8]) -> Result<()> {
        if let Target::Statement(name) = Target::read(body)? {
            if let Some(undo) = self.statements.close(name) {
                if *self.tainted {
                    // It may know the name itself, from a duplicate.
                    Target::Statement(name).write(tag::CLOSE, self.out.stage(self.input));
                    self.ledger.push(Owed::Close { visible: false, evicted: None });
                }
                self.ledger.push(Owed::Local { answer: CLOSE_COMPLETE, undo: Some(undo) });
                return Ok(());
            }
            if name.is_empty() {
                *self.unnamed_here = false;
            }
        }
        self.ledger.push(Owed::Close { visible: true, evicted: None });
        self.out.pass(range, self.input);
        Ok(())
    }

    /// Makes sure that the server has the statement; `None`: its name on the server is the client's.
    fn on_server(&mut self, name: &[u8], runs: bool) -> Option<Arc<Statement>> {
        if name.is_empty() {
            self.bring_unnamed();
            return None;
        }
        let statement = Arc::clone(self.statements.get(name)?);
        if !self.prepared.touch(&statement) {
            if runs && (statement.shape().is_some() || statement.other_meaning(self.meaning).is_some()) {
                *self.unproven = Some(Arc::clone(&statement));
            }
            self.prepare(&statement);
            *self.tainted |= self.apart;
            let statement = Some(Arc::clone(&statement));
            self.ledger.push(Owed::Parse { visible: false, statement, undo: None });
        }
        Some(statement)
    }

    fn bring_unnamed(&mut self) {
        if std::mem::replace(self.unnamed_here, true) {
            return;
        }
        let body = if self.names_in_sql { self.statements.unnamed_body().to_vec() } else { Vec::new() };
        if let Ok(parse) = Parse::read(&body)
            && let Some(named) = self.named(parse.text)
        {
            self.put_unnamed_by_name(&parse, named);
            self.ledger.push(Owed::Parse { visible: false, statement: None, undo: None });
            return;
        }
        let out = self.out.stage(self.input);
        if let Some(parse) = self.statements.unnamed() {
            parse.write(out);
            self.ledger.push(Owed::Parse { visible: false, statement: None, undo: None });
        } else {
            // The server may have another client's.
            Target::Statement(b"").write(tag::CLOSE, out);
            self.ledger.push(Owed::Close { visible: false, evicted: None });
        }
    }

    pub fn prepare(&mut self, statement: &Arc<Statement>) {
        let staged = self.out.stage(self.input);
        if let Some(evicted) = self.prepared.add(statement, staged) {
            self.ledger.push(Owed::Close { visible: false, evicted: Some(evicted) });
        }
        statement.put_prepare(staged);
    }

    /// The head of a message that is too long to be held, which starts at `start`. Gives how many bytes of the input
    /// were written anew; the rest goes as it is. `None`: the head is not here yet.
    ///
    /// # Errors
    /// The message cannot be passed without holding it.
    pub fn long_frame(&mut self, start: usize, frame_bytes: usize) -> Result<Option<usize>> {
        let head = &self.input[start..];
        let mut names = head.get(HEADER_BYTES..).unwrap_or_default();
        match head.first() {
            Some(&message) if self.verbatim => {
                self.owe(message);
                Ok(Some(0))
            }
            Some(&tag::BIND) => {
                let (Some(portal), Some(name)) = (take_cstr(&mut names), take_cstr(&mut names)) else {
                    return head_is_missing(head);
                };
                Ok(Some(self.long_bind(portal, name, frame_bytes)))
            }
            Some(&tag::PARSE) => match take_cstr(&mut names) {
                None => head_is_missing(head),
                Some(b"") => {
                    self.statements.forget_unnamed();
                    *self.unnamed_here = true;
                    self.ledger.push(Owed::Parse { visible: true, statement: None, undo: None });
                    Ok(Some(0))
                }
                Some(_) => Err(too_long("a named prepared statement's text")),
            },
            Some(&(tag::QUERY | tag::FUNCTION_CALL)) => {
                self.ledger.push(Owed::Query);
                Ok(Some(0))
            }
            _ => Err(too_long("a message of this type")),
        }
    }

    fn long_bind(&mut self, portal: &[u8], name: &[u8], frame_bytes: usize) -> usize {
        let statement = self.on_server(name, false);
        self.ledger.push(Owed::Bind);
        let Some(statement) = statement else { return 0 };
        let length = frame_bytes - 1 - name.len() + statement.name().len();
        let out = self.out.stage(self.input);
        out.push(tag::BIND);
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        for text in [portal, statement.name()] {
            out.extend_from_slice(text);
            out.push(0);
        }
        HEADER_BYTES + portal.len() + 1 + name.len() + 1
    }
}

/// Names longer than this are nobody's.
const LONGEST_HEAD_BYTES: usize = 64 << 10;

fn head_is_missing(head: &[u8]) -> Result<Option<usize>> {
    if head.len() < LONGEST_HEAD_BYTES { Ok(None) } else { Err(too_long("a name")) }
}

fn too_long(what: &str) -> Error {
    let message = format!("{what} is longer than limits.max_batch_size");
    Error::new(Fault::Limit, sqlstate::PROGRAM_LIMIT_EXCEEDED, message).hint("Raise limits.max_batch_size.")
}
