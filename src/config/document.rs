//! From text to `raw::File`, with every mistake of form, and back from a value to its place in the text.

use std::mem;
use std::ops::Range;

use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer};

use super::error::ConfigError;
use super::raw;

type Span = Range<usize>;

/// The parser's words for the second of two; the place is then the key's, which is no secret.
const DUPLICATE: &str = "duplicate key";

/// Where the values came from: a file, or the options of the command line.
#[derive(Debug)]
pub struct Document {
    /// Empty for the command line.
    name: String,
    text: String,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    path: String,
    key: Span,
    value: Span,
}

impl Document {
    /// Reads `text`. An entry that is wrong is reported and then left out, so that one mistake does not hide the
    /// next; without errors, the file holds all that the text says.
    pub fn parse(name: &str, text: &str) -> (Self, raw::File, Vec<ConfigError>) {
        let (mut table, syntax) = DeTable::parse_recoverable(text);
        let mut document = Self { name: name.to_owned(), text: text.to_owned(), entries: Vec::new() };
        document.add_table("", table.get_ref());
        let errors: Vec<_> = syntax.iter().map(|error| document.error(error, str::to_owned)).collect();
        if !errors.is_empty() {
            // What could be recovered of broken text would only give rise to more errors.
            return (document, raw::File::default(), errors);
        }
        let mut errors = Vec::new();
        loop {
            match raw::File::deserialize(Deserializer::from(table.clone())) {
                Ok(file) => return (document, file, errors),
                Err(error) => {
                    errors.push(document.error(&error, explain));
                    if !error.span().is_some_and(|span| cut(table.get_mut(), &span)) {
                        return (document, raw::File::default(), errors);
                    }
                }
            }
        }
    }

    /// Options stand for entries: the one at `index` has the span of [`option_span`].
    pub fn command_line(options: Vec<String>) -> Self {
        let entry = |(index, path)| Entry { path, key: option_span(index), value: option_span(index) };
        let entries = options.into_iter().enumerate().map(entry).collect();
        Self { name: String::new(), text: String::new(), entries }
    }

    /// `causeway.toml:12`; for the command line, the option.
    pub fn origin(&self, span: &Span) -> String {
        match self.line(span) {
            Some(line) => format!("{}:{line}", self.name),
            None => self.path(span).to_owned(),
        }
    }

    /// Where a value is, or the table it should be in.
    pub fn error_at(&self, span: &Span, missing_key: Option<&str>, problem: String) -> ConfigError {
        let path = self.path(span);
        let key = match missing_key {
            Some(key) if path.is_empty() => key.to_owned(),
            Some(key) => format!("{path}.{key}"),
            None => path.to_owned(),
        };
        ConfigError { file: self.name.clone(), line: self.line(span), key, problem }
    }

    /// How another setting is called in a message.
    pub fn mention(&self, span: &Span) -> String {
        let path = self.path(span);
        self.line(span).map_or_else(|| path.to_owned(), |line| format!("{path} (line {line})"))
    }

    fn path(&self, span: &Span) -> &str {
        self.entry(span).map_or("", |entry| entry.path.as_str())
    }

    fn entry(&self, span: &Span) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.value == *span || entry.key == *span)
    }

    /// `None` for what is not in the text.
    fn line(&self, span: &Span) -> Option<usize> {
        self.entry(span)?;
        self.line_at(span.start)
    }

    fn line_at(&self, offset: usize) -> Option<usize> {
        let before = self.text.get(..offset)?;
        Some(before.matches('\n').count() + 1).filter(|_| !self.name.is_empty())
    }

    /// Never shows the text itself, as the crate's own message does: there may be a secret in it.
    fn error(&self, error: &toml::de::Error, explain: impl Fn(&str) -> String) -> ConfigError {
        let span = error.span().unwrap_or_default();
        let key = match self.path(&span) {
            "" if error.message() == DUPLICATE => self.text.get(span.clone()).unwrap_or_default(),
            path => path,
        };
        ConfigError {
            file: self.name.clone(),
            line: self.line_at(span.start),
            key: key.to_owned(),
            problem: explain(error.message()),
        }
    }

    fn add_table(&mut self, path: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = key.get_ref();
            let path = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
            self.add(path, key.span(), value);
        }
    }

    fn add(&mut self, path: String, key: Span, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => self.add_table(&path, table),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.add(format!("{path}[{index}]"), item.span(), item);
                }
            }
            _ => {}
        }
        self.entries.push(Entry { path, key, value: value.span() });
    }
}

/// Spans are how values are told apart; these start at 1 because 0 is that of defaults.
pub fn option_span(index: usize) -> Span {
    index + 1..index + 2
}

/// Removes the innermost entry or element at `span`.
fn cut(table: &mut DeTable<'_>, span: &Span) -> bool {
    if table.iter_mut().any(|(_, value)| cut_inside(value, span)) {
        return true;
    }
    let found = table.iter().find(|(key, value)| key.span() == *span || value.span() == *span);
    let key = found.map(|(key, _)| key.clone());
    key.is_some_and(|key| table.remove(&key).is_some())
}

fn cut_inside(value: &mut Spanned<DeValue<'_>>, span: &Span) -> bool {
    match value.get_mut() {
        DeValue::Table(table) => cut(table, span),
        DeValue::Array(items) => {
            if items.iter_mut().any(|item| cut_inside(item, span)) {
                return true;
            }
            let before = items.len();
            *items = mem::replace(items, DeArray::new()).into_iter().filter(|item| item.span() != *span).collect();
            items.len() < before
        }
        _ => false,
    }
}

/// Serde's words in ours, without the value.
fn explain(message: &str) -> String {
    if message.starts_with("unknown field") {
        let mut names = message.split('`').skip(1).step_by(2);
        let found = names.next().unwrap_or_default();
        return unknown("setting", found, &names.collect::<Vec<_>>());
    }
    match message.split_once(", expected ") {
        Some((_, expected)) => format!("must be {}", plain(expected)),
        None => message.to_owned(),
    }
}

fn plain(expected: &str) -> &str {
    match expected {
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "a table",
        "a string" => "a string in quotes",
        "u64" => "a whole number, 0 or more",
        other => other,
    }
}

/// Names what is allowed, and the word that was probably meant.
pub fn unknown(what: &str, found: &str, allowed: &[&str]) -> String {
    const CLOSE: f64 = 0.6;
    let nearest = allowed
        .iter()
        .map(|name| (strsim::normalized_damerau_levenshtein(found, name), *name))
        .filter(|(similarity, _)| *similarity >= CLOSE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    let guess = nearest.map(|(_, name)| format!("did you mean {name:?}? ")).unwrap_or_default();
    format!("unknown {what} {found:?}; {guess}Allowed: {}", allowed.join(", "))
}
