//! The prepared statements of one client: its names, and the shared statements behind them.

use std::sync::Arc;

use hashbrown::HashMap;

use super::outbound::trim;
use super::reword::Shift;
use crate::backend::prepared::Statement;
use crate::error::{Error, Fault, Result, sqlstate};
use crate::wire::frontend::Parse;

/// Puts a name back to what it meant before a message that failed.
#[derive(Debug)]
pub struct Undo {
    /// Empty: the unnamed statement, of which nothing is left.
    name: Box<[u8]>,
    before: Option<Arc<Statement>>,
}

impl Undo {
    pub fn unnamed() -> Self {
        Self { name: Box::default(), before: None }
    }
}

#[derive(Debug)]
pub struct ClientStatements {
    limit: usize,
    named: HashMap<Box<[u8]>, Arc<Statement>>,
    /// The unnamed statement, as last parsed: its Parse message's body. Empty: there is none.
    unnamed: Vec<u8>,
    /// The unnamed statement is a PREPARE: the name that it defines when it is run.
    prepares: Option<(Box<[u8]>, Arc<Statement>)>,
    /// How the unnamed statement's text was changed for the server, if it was.
    pub unnamed_shift: Option<Shift>,
}

impl ClientStatements {
    pub fn new(limit: usize) -> Self {
        Self { limit, named: HashMap::new(), unnamed: Vec::new(), prepares: None, unnamed_shift: None }
    }

    pub fn get(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        self.named.get(name)
    }

    /// The client's name for the statement that servers know by this one.
    pub fn name_of(&self, server_name: &[u8]) -> Option<&[u8]> {
        self.named.iter().find(|(_, statement)| statement.name() == server_name).map(|(name, _)| &**name)
    }

    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// # Errors
    /// The client has `max_client_statements` already.
    pub fn define(&mut self, name: &[u8], statement: Arc<Statement>) -> Result<Undo> {
        if self.named.len() >= self.limit && !self.named.contains_key(name) {
            let message = format!("too many prepared statements: limits.max_client_statements is {}", self.limit);
            return Err(Error::new(Fault::Limit, sqlstate::PROGRAM_LIMIT_EXCEEDED, message)
                .hint("Close statements that are no longer needed, or raise the limit."));
        }
        Ok(Undo { name: name.into(), before: self.named.insert(name.into(), statement) })
    }

    /// The client's names of a statement are those of another one from now on.
    pub fn replace(&mut self, old: &Arc<Statement>, new: &Arc<Statement>) {
        for statement in self.named.values_mut().filter(|statement| Arc::ptr_eq(statement, old)) {
            *statement = Arc::clone(new);
        }
    }

    /// `None`: there was no such statement.
    pub fn close(&mut self, name: &[u8]) -> Option<Undo> {
        if name.is_empty() {
            self.forget_unnamed();
        }
        let before = self.named.remove(name)?;
        Some(Undo { name: name.into(), before: Some(before) })
    }

    pub fn undo(&mut self, undo: Undo) {
        if undo.name.is_empty() {
            return self.forget_unnamed();
        }
        match undo.before {
            Some(statement) => self.named.insert(undo.name, statement),
            None => self.named.remove(&undo.name),
        };
    }

    /// DEALLOCATE ALL and DISCARD ALL, which leave the unnamed statement.
    pub fn clear(&mut self) {
        self.named.clear();
    }

    /// Remembers the unnamed statement, so that a later batch can bind it on whichever server it gets.
    pub fn set_unnamed(&mut self, parse_body: &[u8]) {
        self.unnamed.clear();
        trim(&mut self.unnamed);
        self.unnamed.extend_from_slice(parse_body);
        self.prepares = None;
        self.unnamed_shift = None;
    }

    /// The unnamed statement defines `name` when it is run.
    pub fn unnamed_prepares(&mut self, name: Box<[u8]>, statement: Arc<Statement>) {
        self.prepares = Some((name, statement));
    }

    /// The unnamed statement was run, and what it prepares is there. Limits have no say: the server has it.
    pub fn define_prepared(&mut self) -> Option<&Arc<Statement>> {
        let (name, statement) = self.prepares.take()?;
        Some(self.named.entry(name).insert(statement).into_mut())
    }

    pub fn forget_unnamed(&mut self) {
        self.prepares = None;
        self.unnamed_shift = None;
        self.unnamed.clear();
        trim(&mut self.unnamed);
    }

    /// The body of the Parse that made the unnamed statement.
    pub fn unnamed_body(&self) -> &[u8] {
        &self.unnamed
    }

    pub fn unnamed(&self) -> Option<Parse<'_>> {
        Parse::read(&self.unnamed).ok()
    }
}
