//! What a batch is about, all its statements together. Pure but for the classifier's memo.

use std::sync::Arc;

use super::batch::End;
use super::statements::ClientStatements;
use crate::error::Result;
use crate::sql::{Begin, Class, Classified, Effects, Hint};
use crate::wire::frame::{HEADER_BYTES, header};
use crate::wire::frontend::{Bind, Parse, Target, query, tag};

/// Gives the class of a text.
pub trait Classify {
    fn classify(&mut self, text: &[u8]) -> Arc<Classified>;
}

#[derive(Clone, Debug)]
pub struct Survey {
    pub class: Class,
    pub effects: Effects,
    pub hint: Option<Hint>,
    /// The batch runs one BEGIN and nothing else.
    pub begins: Option<Begin>,
    /// The shape of the only statement; `None` when there are several.
    pub fingerprint: Option<u64>,
    /// Only a server can answer it.
    pub needs_server: bool,
    texts: u32,
    /// The unnamed statement of this batch, once parsed.
    unnamed: Option<Arc<Classified>>,
}

impl Default for Survey {
    fn default() -> Self {
        Self {
            class: Class::Read,
            effects: Effects::NONE,
            hint: None,
            begins: None,
            fingerprint: None,
            needs_server: false,
            texts: 0,
            unnamed: None,
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
        if matches!(end, End::Overflow | End::Interrupted) {
            survey.write();
        }
        // The message that is too long may be the first: what it is about, only a server can answer.
        survey.needs_server |= end == End::Overflow;
        Ok(survey)
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
        self.needs_server |= !matches!(message, tag::SYNC | tag::FLUSH | tag::CLOSE);
        match message {
            tag::QUERY => self.run(&classify.classify(query(body)?)),
            tag::FUNCTION_CALL => self.write(),
            tag::PARSE => {
                let parse = Parse::read(body)?;
                let classified = classify.classify(parse.text);
                self.mention(&classified);
                if parse.name.is_empty() {
                    self.unnamed = Some(classified);
                }
            }
            tag::BIND => self.bind(Bind::read(body)?.statement, statements, classify),
            tag::DESCRIBE => {
                if let Target::Statement(name) = Target::read(body)? {
                    self.describe(name, statements, classify);
                }
            }
            tag::CLOSE => {
                self.needs_server |= matches!(Target::read(body)?, Target::Portal(_));
            }
            _ => {}
        }
        Ok(())
    }

    fn bind(&mut self, name: &[u8], statements: &ClientStatements, classify: &mut impl Classify) {
        match self.find(name, statements, classify) {
            Some(classified) => self.run(&classified),
            // Perhaps one of SQL's PREPARE: only a pinned server knows.
            None => self.write(),
        }
    }

    fn describe(&mut self, name: &[u8], statements: &ClientStatements, classify: &mut impl Classify) {
        match self.find(name, statements, classify) {
            Some(classified) => self.mention(&classified),
            None => self.write(),
        }
    }

    fn find(
        &self,
        name: &[u8],
        statements: &ClientStatements,
        classify: &mut impl Classify,
    ) -> Option<Arc<Classified>> {
        if !name.is_empty() {
            return statements.get(name).map(|statement| classify.classify(statement.text()));
        }
        self.unnamed.clone().or_else(|| statements.unnamed().map(|parse| classify.classify(parse.text)))
    }

    /// A text that is prepared or described: it has no effects yet.
    fn mention(&mut self, classified: &Classified) {
        self.class = self.class.max(classified.class);
        self.hint = self.hint.or(classified.hint);
    }

    fn run(&mut self, classified: &Classified) {
        self.mention(classified);
        self.effects = self.effects.union(classified.effects);
        let alone = self.texts == 0;
        self.begins = classified.begins.filter(|_| alone);
        self.fingerprint = Some(classified.fingerprint).filter(|_| alone);
        self.texts += 1;
    }

    fn write(&mut self) {
        self.class = Class::Write;
    }
}
