//! What a batch is about, all its statements together. Pure but for the classifier's memo.

use std::sync::Arc;

use hashbrown::HashMap;

use super::batch::End;
use super::statements::ClientStatements;
use crate::backend::prepared::Statement;
use crate::error::Result;
use crate::sql::{Begin, ByName, Class, Classified, Effects, Hint, Own, Sole, Verb, is_custom_setting, prepared_text};
use crate::wire::frame::{HEADER_BYTES, header};
use crate::wire::frontend::{Bind, Parse, Target, query, tag};

/// Gives the class of a text.
pub trait Classify {
    fn classify(&mut self, text: &[u8]) -> Arc<Classified>;
}

#[expect(clippy::struct_excessive_bools, reason = "they are facts about one batch")]
#[derive(Clone, Debug)]
pub struct Survey {
    pub class: Class,
    pub effects: Effects,
    pub hint: Option<Hint>,
    /// The batch runs one BEGIN and nothing else.
    pub begins: Option<Begin>,
    /// The batch runs one such statement and nothing else.
    pub sole: Option<Sole>,
    /// All that it runs are INSERT, UPDATE, DELETE, MERGE, each on its own, and what reads.
    pub only_dml: bool,
    /// The shape of the only statement; `None` when there are several.
    pub fingerprint: Option<u64>,
    /// It ends or begins transactions itself: an error does not undo what it did before.
    pub transaction_control: bool,
    pub work: Work,
    /// The client learns, or has just said, what a statement is.
    pub describes: bool,
    /// The parameters that it may set or reset.
    pub settings: Vec<Box<str>>,
    /// Some text is one PREPARE, EXECUTE or DEALLOCATE, or some statement was made so.
    pub in_sql: Option<Box<InSql>>,
    /// What it says to Causeway itself.
    pub own: Option<Box<Own>>,
    /// Its answer may depend on what its server has for Causeway's settings.
    pub mentions_own: bool,
    pub explain_route: ExplainRoute,
    texts: u32,
    /// Texts that it prepares, describes or runs, and those of them that are EXPLAIN ROUTE.
    mentioned: u32,
    explained: u32,
    /// What this batch makes of statements: it defines them, or closes them (`None`).
    named: HashMap<Box<[u8]>, Option<Arc<Classified>>>,
    /// And of the unnamed one, which most drivers use.
    unnamed: Unnamed,
}

/// What a batch has made of the unnamed statement so far.
#[derive(Clone, Debug, Default)]
enum Unnamed {
    #[default]
    AsBefore,
    Defined(Arc<Classified>),
    Closed,
}

/// What a server is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    Nothing,
    /// To define and describe statements.
    Prepare,
    Run,
}

/// Whether EXPLAIN ROUTE is in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExplainRoute {
    None,
    /// Some text is one, and is to be replaced by the answer.
    Asked,
    /// It is about such answers only: the session sees no node's state by them.
    Answered,
}

/// What a batch says in SQL of prepared statements that the client has.
#[derive(Clone, Debug, Default)]
pub struct InSql {
    /// Those that the server must have.
    pub needed: Vec<Box<[u8]>>,
    /// Of them, those that it deallocates.
    pub deallocated: Vec<Box<[u8]>>,
    /// Those that the server must have under the client's own names, because they may stand anywhere in the text.
    pub mentioned: Vec<Box<[u8]>>,
}

impl Default for Survey {
    fn default() -> Self {
        Self {
            class: Class::Read,
            effects: Effects::NONE,
            hint: None,
            begins: None,
            sole: None,
            only_dml: true,
            fingerprint: None,
            transaction_control: false,
            work: Work::Nothing,
            describes: false,
            settings: Vec::new(),
            in_sql: None,
            own: None,
            mentions_own: false,
            explain_route: ExplainRoute::None,
            texts: 0,
            mentioned: 0,
            explained: 0,
            named: HashMap::new(),
            unnamed: Unnamed::AsBefore,
        }
    }
}

impl Survey {
    /// # Errors
    /// A message is malformed.
    pub fn of(batch: &[u8], end: End, statements: &ClientStatements, classify: &mut impl Classify) -> Result<Self> {
        let mut survey = Self::default();
        let mut rest = batch;
        while let Some(header) = header(rest)?.filter(|header| header.frame_bytes <= rest.len()) {
            let (frame, after) = rest.split_at(header.frame_bytes);
            survey.add(header.tag, &frame[HEADER_BYTES..], statements, classify)?;
            rest = after;
        }
        // What follows belongs to the same transaction, and may write.
        if matches!(end, End::Overflow | End::Interrupted) || end == End::Flush && survey.texts > 0 {
            survey.write();
        }
        // The message that is too long may be the first: what it is about, only a server can answer.
        if end == End::Overflow {
            survey.work = Work::Run;
        }
        Ok(survey)
    }

    /// It reads what other sessions, or other nodes, may see otherwise.
    pub fn reads_data(&self) -> bool {
        self.work == Work::Run && self.class == Class::Read && !self.transaction_control
    }

    /// It is about EXPLAIN ROUTE, and nothing else.
    pub fn only_explains(&self) -> bool {
        self.class == Class::Read && self.explained > 0 && self.explained == self.mentioned
    }

    /// Takes one more message in.
    ///
    /// # Errors
    /// It is malformed.
    pub fn add(
        &mut self,
        message: u8,
        body: &[u8],
        statements: &ClientStatements,
        classify: &mut impl Classify,
    ) -> Result<()> {
        self.describes |= matches!(message, tag::PARSE | tag::DESCRIBE);
        self.work = self.work.max(match message {
            tag::SYNC | tag::FLUSH | tag::CLOSE => Work::Nothing,
            tag::PARSE | tag::DESCRIBE => Work::Prepare,
            _ => Work::Run,
        });
        match message {
            tag::QUERY => {
                let text = query(body)?;
                let classified = classify.classify(text);
                if let Some(named) = &classified.by_name {
                    self.run_by_name(text, &classified, named, statements, classify);
                } else {
                    self.mention_names(text, statements);
                    self.run(&classified);
                }
            }
            tag::FUNCTION_CALL => self.write(),
            tag::PARSE => {
                let parse = Parse::read(body)?;
                let classified = classify.classify(parse.text);
                self.mention(&classified);
                match &classified.by_name {
                    Some(named) => self.name_in_sql(named, statements),
                    None => self.mention_names(parse.text, statements),
                }
                self.name(parse.name, Some(classified));
            }
            tag::BIND => self.bind(Bind::read(body)?, statements, classify),
            tag::DESCRIBE => match Target::read(body)? {
                Target::Portal(_) => self.work = Work::Run,
                Target::Statement(name) => self.describe(name, statements, classify),
            },
            tag::CLOSE => match Target::read(body)? {
                Target::Portal(_) => self.work = Work::Run,
                Target::Statement(name) => self.name(name, None),
            },
            _ => {}
        }
        Ok(())
    }

    /// The client's statements are now what the messages so far have made of them.
    pub fn names_are_applied(&mut self) {
        self.named.clear();
        self.unnamed = Unnamed::AsBefore;
    }

    fn name(&mut self, name: &[u8], statement: Option<Arc<Classified>>) {
        if name.is_empty() {
            self.unnamed = statement.map_or(Unnamed::Closed, Unnamed::Defined);
        } else {
            self.named.insert(name.into(), statement);
        }
    }

    /// A Query that is one PREPARE, EXECUTE or DEALLOCATE.
    fn run_by_name(
        &mut self,
        text: &[u8],
        own: &Classified,
        named: &ByName,
        statements: &ClientStatements,
        classify: &mut impl Classify,
    ) {
        let had = self.effects;
        self.name_in_sql(named, statements);
        let executed = statements.get(&named.name).filter(|_| named.verb == Verb::Execute);
        match executed.and_then(|statement| classified(statement, classify)) {
            // Its arguments are simple: nothing in them is called.
            Some(inner) if memchr::memchr_iter(b'(', text).count() <= 1 => self.run(&inner),
            Some(inner) => {
                self.run(own);
                self.effects = self.effects.union(inner.effects);
            }
            None => self.run(own),
        }
        self.follows(had);
    }

    /// What is prepared by its name follows the client: a pin is for those that were prepared otherwise.
    fn follows(&mut self, had: Effects) {
        if !had.intersects(Effects::PREPARE) {
            self.effects = self.effects.without(Effects::PREPARE);
        }
    }

    /// EXPLAIN EXECUTE, CREATE TABLE AS EXECUTE, or an EXECUTE among other statements.
    fn mention_names(&mut self, text: &[u8], statements: &ClientStatements) {
        if statements.is_empty() {
            return;
        }
        let names: Vec<_> = executed(text).filter(|name| statements.get(name).is_some()).collect();
        if !names.is_empty() {
            self.in_sql.get_or_insert_default().mentioned.extend(names);
        }
    }

    fn name_in_sql(&mut self, named: &ByName, statements: &ClientStatements) {
        let in_sql = self.in_sql.get_or_insert_default();
        if statements.get(&named.name).is_none() {
            return;
        }
        match named.verb {
            Verb::Prepare => return,
            Verb::Execute => {}
            Verb::Deallocate => in_sql.deallocated.push(named.name.clone()),
        }
        in_sql.needed.push(named.name.clone());
    }

    fn bind(&mut self, bind: Bind<'_>, statements: &ClientStatements, classify: &mut impl Classify) {
        self.note_sql(bind.statement, statements);
        match self.find(bind.statement, statements, classify) {
            Some(classified) => {
                let had = self.effects;
                self.run(&classified);
                if let Some(named) = classified.by_name.as_ref().filter(|_| bind.statement.is_empty()) {
                    self.name_in_sql(named, statements);
                    self.follows(had);
                }
                if classified.effects.contains(Effects::SET.union(Effects::HIDDEN)) {
                    let names = bind.parameters().filter(|value| is_custom_setting(value));
                    self.settings.extend(names.map(|name| String::from_utf8_lossy(name).to_ascii_lowercase().into()));
                }
            }
            // Perhaps one of SQL's PREPARE: only a pinned server knows.
            None => self.write(),
        }
    }

    /// A message that names a statement made with SQL.
    fn note_sql(&mut self, name: &[u8], statements: &ClientStatements) {
        if statements.get(name).is_some_and(|statement| statement.is_sql()) {
            self.in_sql.get_or_insert_default().needed.push(name.into());
        }
    }

    fn describe(&mut self, name: &[u8], statements: &ClientStatements, classify: &mut impl Classify) {
        self.note_sql(name, statements);
        match self.find(name, statements, classify) {
            Some(classified) => {
                self.mention(&classified);
                if let Some(named) = classified.by_name.as_ref().filter(|_| name.is_empty()) {
                    self.name_in_sql(named, statements);
                }
            }
            None => self.write(),
        }
    }

    fn find(
        &self,
        name: &[u8],
        statements: &ClientStatements,
        classify: &mut impl Classify,
    ) -> Option<Arc<Classified>> {
        if name.is_empty() {
            return match &self.unnamed {
                Unnamed::AsBefore => statements.unnamed().map(|parse| classify.classify(parse.text)),
                Unnamed::Defined(classified) => Some(Arc::clone(classified)),
                Unnamed::Closed => None,
            };
        }
        match self.named.get(name) {
            Some(here) => here.clone(),
            None => statements.get(name).and_then(|statement| classified(statement, classify)),
        }
    }

    /// A text that is prepared or described: it has no effects yet.
    fn mention(&mut self, classified: &Classified) {
        self.class = self.class.max(classified.class);
        self.hint = self.hint.or(classified.hint);
        self.mentioned += 1;
        if classified.explains_route {
            self.explain_route = ExplainRoute::Asked;
            self.explained += 1;
        }
        if let Some(refusal) = classified.refusal() {
            self.own.get_or_insert_default().refusal.get_or_insert_with(|| refusal.clone());
        }
    }

    fn run(&mut self, classified: &Classified) {
        self.mention(classified);
        self.effects = self.effects.union(classified.effects);
        self.settings.extend(classified.settings.iter().cloned());
        self.transaction_control |= classified.transaction_control;
        self.mentions_own |= classified.mentions_own;
        if let Some(own) = &classified.own {
            self.own.get_or_insert_default().join(own.as_ref().clone());
        }
        let alone = self.texts == 0;
        self.begins = classified.begins.filter(|_| alone);
        self.sole = classified.sole.filter(|_| alone);
        let reads = classified.class == Class::Read && !classified.transaction_control && classified.by_name.is_none();
        self.only_dml &= reads || classified.sole == Some(Sole::Dml);
        self.fingerprint = Some(classified.fingerprint).filter(|_| alone);
        self.texts += 1;
    }

    fn write(&mut self) {
        self.class = Class::Write;
        self.only_dml = false;
    }
}

/// The names behind any EXECUTE in a text, be it in a comment: they are looked up among the client's.
fn executed(text: &[u8]) -> impl Iterator<Item = Box<[u8]>> {
    behind(text, b"execute").filter_map(|rest| name(rest).map(|(name, _)| name))
}

/// The names behind any DATABASE in a batch of DDL, and all words behind those: they are looked up among the pools'.
pub fn databases(batch: &[u8]) -> impl Iterator<Item = Box<[u8]>> {
    behind(batch, b"database").flat_map(|mut rest| {
        std::iter::from_fn(move || {
            let (name, after) = name(rest)?;
            rest = after;
            Some(name)
        })
    })
}

/// What follows each occurrence of a word, given in lower case.
fn behind<'a>(text: &'a [u8], word: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    let first = word.first().copied().unwrap_or_default();
    memchr::memchr2_iter(first, first.to_ascii_uppercase(), text).filter_map(|at| {
        let (found, rest) = text.get(at..)?.split_at_checked(word.len())?;
        found.eq_ignore_ascii_case(word).then_some(rest)
    })
}

/// The name that a text begins with, in lower case unless quoted, and what follows it.
fn name(text: &[u8]) -> Option<(Box<[u8]>, &[u8])> {
    let text = text.trim_ascii_start();
    if let Some(quoted) = text.strip_prefix(b"\"") {
        let end = memchr::memchr(b'"', quoted)?;
        return Some((quoted.get(..end)?.into(), quoted.get(end + 1..)?));
    }
    let is_in_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..);
    let end = text.iter().position(|byte| !is_in_name(byte)).unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(end).filter(|(name, _)| !name.is_empty())?;
    Some((name.to_ascii_lowercase().into(), rest))
}

/// What running a prepared statement does.
fn classified(statement: &Statement, classify: &mut impl Classify) -> Option<Arc<Classified>> {
    let text = if statement.is_sql() { prepared_text(statement.text())? } else { statement.text() };
    Some(classify.classify(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_behind_their_words() {
        let shown =
            |names: Vec<Box<[u8]>>| names.iter().map(|n| String::from_utf8_lossy(n).into_owned()).collect::<Vec<_>>();
        for (text, names) in
            [("EXPLAIN EXECUTE p; execute \"Q q\"(1)", &["p", "Q q"][..]), ("SELECT 1", &[]), ("EXECUTE", &[])]
        {
            assert_eq!(shown(executed(text.as_bytes()).collect()), names, "{text}");
        }
        for (text, names) in [
            ("DROP DATABASE IF EXISTS \"My\";", &["if", "exists", "My"][..]),
            ("create database a template b", &["a", "template", "b"]),
            ("CREATE TABLE t()", &[]),
        ] {
            assert_eq!(shown(databases(text.as_bytes()).collect()), names, "{text}");
        }
    }
}
