//! Prepared statements of the protocol that work on every server: one server-side name per (text, parameter types, login
//! parameters), for the same text means something else under another `search_path` or time zone;
//! prepared on a server when it first needs them, bounded per server.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};

use hashbrown::HashMap;
use hashlink::LinkedHashMap;
use parking_lot::Mutex;

use super::params::Params;
use crate::sql::rename;
use crate::wire::frontend::{Parse, Target, put_query, tag};

/// A statement as clients prepared it; the same text and types are the same statement.
#[derive(Debug)]
pub struct Statement {
    id: u64,
    name: Box<[u8]>,
    text: Box<[u8]>,
    /// `None`: the text is a PREPARE.
    types: Option<Box<[u8]>>,
    /// What clients were told of its columns: a hash.
    shape: OnceLock<u64>,
    /// The parameters under which its text was read first; `None`: it is one session's own.
    meaning: Option<Arc<Params>>,
}

impl Statement {
    /// Its name on every server.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// `None`: no client has asked.
    pub fn shape(&self) -> Option<u64> {
        self.shape.get().copied()
    }

    /// The parameters under which its text must be read, if they are others than these.
    pub fn other_meaning(&self, meaning: &Arc<Params>) -> Option<&Arc<Params>> {
        self.meaning.as_ref().filter(|own| !Arc::ptr_eq(own, meaning) && *own != meaning)
    }

    /// A client was told so; the first one counts.
    pub fn learn_shape(&self, shape: u64) {
        let _ = self.shape.set(shape);
    }

    /// It was made with SQL's PREPARE, and is prepared again by running its text.
    pub fn is_sql(&self) -> bool {
        self.types.is_none()
    }

    /// Writes what prepares it on a server: a Parse, or a Query if it was made with SQL.
    pub fn put_prepare(&self, out: &mut Vec<u8>) {
        self.put_prepare_as(&self.name, out);
    }

    /// The same under another name.
    pub fn put_prepare_as(&self, name: &[u8], out: &mut Vec<u8>) {
        match &self.types {
            Some(types) => Parse { name, text: &self.text, types }.write(out),
            None => put_query(out, &rename(&self.text, name).unwrap_or_default()),
        }
    }
}

/// Text, types, parameters, and which catalog resolved the names of types.
type Key = (Box<[u8]>, Box<[u8]>, Arc<Params>, u64);

/// All statements that some client or server of this process holds.
#[derive(Debug)]
pub struct Statements {
    /// Random per process, so that no client can name another's statement by chance or on purpose.
    prefix: String,
    next_id: AtomicU64,
    known: Mutex<HashMap<Key, Weak<Statement>>>,
    /// Asks for the id of a transaction that has written, and for a position behind what it wrote.
    pub xact: Arc<Statement>,
}

const XACT_SQL: &[u8] = b"SELECT pg_catalog.txid_current_if_assigned(), pg_catalog.pg_current_wal_insert_lsn()";

/// The map is swept of statements that nobody holds whenever it has grown this much.
const SWEEP_AT_LEAST: usize = 1024;

impl Statements {
    pub fn new(random: u64) -> Self {
        let prefix = format!("causeway_{random:016x}_");
        let xact = Arc::new(Statement {
            id: 0,
            name: format!("{prefix}0").into_bytes().into(),
            text: XACT_SQL.into(),
            types: Some([0, 0].into()),
            shape: OnceLock::new(),
            meaning: None,
        });
        Self { prefix, next_id: AtomicU64::new(1), known: Mutex::default(), xact }
    }

    /// The one statement of this text and these types, for clients with these parameters, while the catalog stays as it
    /// was in this `version`.
    pub fn intern(&self, parse: &Parse<'_>, params: &Arc<Params>, version: u64) -> Arc<Statement> {
        let key: Key = (parse.text.into(), parse.types.into(), Arc::clone(params), version);
        let mut known = self.known.lock();
        if let Some(statement) = known.get(&key).and_then(Weak::upgrade) {
            return statement;
        }
        if known.len() >= SWEEP_AT_LEAST && known.len() == known.capacity() {
            known.retain(|_, statement| statement.strong_count() > 0);
        }
        let statement = self.make(parse, Some(Arc::clone(params)));
        known.insert(key, Arc::downgrade(&statement));
        statement
    }

    /// Nobody gets it any more who does not have it.
    pub fn retire(&self, statement: &Arc<Statement>) {
        self.known.lock().retain(|_, known| known.as_ptr() != Arc::as_ptr(statement));
    }

    /// The statement that takes the place of one that has become useless.
    pub fn renew(&self, statement: &Arc<Statement>, params: &Arc<Params>, version: u64) -> Arc<Statement> {
        self.retire(statement);
        let types = statement.types.as_deref().unwrap_or_default();
        self.intern(&Parse { name: b"", text: &statement.text, types }, params, version)
    }

    /// A statement that nobody else gets.
    pub fn own(&self, parse: &Parse<'_>) -> Arc<Statement> {
        self.make(parse, None)
    }

    fn make(&self, parse: &Parse<'_>, meaning: Option<Arc<Params>>) -> Arc<Statement> {
        let (id, name) = self.next_name();
        let (text, types) = (parse.text.into(), Some(parse.types.into()));
        Arc::new(Statement { id, name, text, types, shape: OnceLock::new(), meaning })
    }

    /// One that a PREPARE makes, which nobody else gets either; `None` if its text cannot have another name in it.
    pub fn own_sql(&self, prepare: &[u8]) -> Option<Arc<Statement>> {
        let (id, name) = self.next_name();
        let text = rename(prepare, &name)?.into();
        Some(Arc::new(Statement { id, name, text, types: None, shape: OnceLock::new(), meaning: None }))
    }

    fn next_name(&self) -> (u64, Box<[u8]>) {
        let id = self.next_id.fetch_add(1, Relaxed);
        (id, format!("{}{id}", self.prefix).into_bytes().into())
    }
}

/// The statements that one server has prepared, least recently used first.
#[derive(Debug)]
pub struct Prepared {
    limit: usize,
    statements: LinkedHashMap<u64, Arc<Statement>>,
}

impl Prepared {
    pub fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), statements: LinkedHashMap::new() }
    }

    /// Marks it as used; false: the server does not have it.
    pub fn touch(&mut self, statement: &Statement) -> bool {
        self.statements.to_back(&statement.id).is_some()
    }

    /// Notes that the server will have it, and writes a Close for the one that has to go, if one has to.
    pub fn add(&mut self, statement: &Arc<Statement>, out: &mut Vec<u8>) -> Option<Arc<Statement>> {
        let evicted = if self.statements.len() >= self.limit { self.statements.pop_front() } else { None };
        self.statements.insert(statement.id, Arc::clone(statement));
        let (_, evicted) = evicted?;
        Target::Statement(evicted.name()).write(tag::CLOSE, out);
        Some(evicted)
    }

    /// Notes that the server has it, be it one too many for a moment.
    pub fn insert(&mut self, statement: &Arc<Statement>) {
        self.statements.insert(statement.id, Arc::clone(statement));
    }

    /// The server turned out to have it still; it is the next one to go.
    pub fn restore(&mut self, statement: Arc<Statement>) {
        let id = statement.id;
        self.statements.insert(id, statement);
        self.statements.to_front(&id);
    }

    /// The server turned out not to have it.
    pub fn forget(&mut self, statement: &Statement) {
        self.statements.remove(&statement.id);
    }

    pub fn clear(&mut self) {
        self.statements.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &'static [u8], types: &'static [u8]) -> Parse<'static> {
        Parse { name: b"client", text, types }
    }

    #[test]
    fn same_text_and_types_are_the_same_statement() {
        let (statements, none) = (Statements::new(7), Arc::default());
        let one = statements.intern(&parse(b"select $1", b"\0\0"), &none, 0);
        assert!(Arc::ptr_eq(&one, &statements.intern(&parse(b"select $1", b"\0\0"), &none, 0)));
        for other in [parse(b"select $2", b"\0\0"), parse(b"select $1", b"\0\x01\0\0\0\x17")] {
            assert_ne!(statements.intern(&other, &none, 0).name(), one.name());
        }
        let mut rome = Params::default();
        rome.set("TimeZone", b"Europe/Rome");
        let same = parse(b"select $1", b"\0\0");
        assert_ne!(statements.intern(&same, &Arc::new(rome), 0).name(), one.name());
        assert_ne!(statements.own(&same).name(), one.name());
    }

    #[test]
    fn statements_that_nobody_holds_are_swept() {
        let statements = Statements::new(7);
        for n in 0..10 * SWEEP_AT_LEAST {
            let text = format!("select {n}");
            statements.intern(&Parse { name: b"", text: text.as_bytes(), types: b"\0\0" }, &Arc::default(), 0);
        }
        assert!(statements.known.lock().len() < 4 * SWEEP_AT_LEAST);
    }

    #[test]
    fn a_server_keeps_the_statements_used_last() {
        let statements = Statements::new(7);
        let [a, b, c] = [b"select 1", b"select 2", b"select 3"].map(|text| statements.own(&parse(text, b"\0\0")));
        let (mut prepared, mut out) = (Prepared::new(2), Vec::new());
        assert!(prepared.add(&a, &mut out).is_none() && prepared.add(&b, &mut out).is_none());
        assert!(prepared.touch(&a));
        let evicted = prepared.add(&c, &mut out).unwrap();
        let mut close = Vec::new();
        Target::Statement(b.name()).write(tag::CLOSE, &mut close);
        assert_eq!(out, close);
        assert!(prepared.touch(&a) && prepared.touch(&c) && !prepared.touch(&b));
        // An error kept both messages from the server.
        prepared.forget(&c);
        prepared.restore(evicted);
        assert!(!prepared.touch(&c) && prepared.touch(&b));
    }
}
