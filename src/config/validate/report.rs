//! The checks that all settings share, and the list of what failed.

use std::env;
use std::fmt;
use std::fs::{self, File};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use toml::Spanned;

use crate::config::document::{Document, unknown};
use crate::config::error::ConfigError;
use crate::config::raw::{Password, Size, Time};
use crate::types::Secret;

/// Collects errors; a check that fails still gives a value, which nobody will use.
#[derive(Debug)]
pub struct Report<'a> {
    pub document: &'a Document,
    /// What relative paths start from.
    pub directory: &'a Path,
    /// Errors of form were found and their entries left out: what is missing may only have been wrong.
    pub incomplete: bool,
    pub errors: Vec<ConfigError>,
}

/// A secret can be written in three ways, of which one may be used.
#[derive(Clone, Copy, Debug)]
pub struct SecretSource<'a> {
    /// `password` or `server_password`; the others have `_file` and `_env` behind it.
    pub key: &'static str,
    pub text: Option<&'a Spanned<Password>>,
    pub file: Option<&'a Spanned<String>>,
    pub env: Option<&'a Spanned<String>>,
}

/// Where a secret was found, and what it is; `None` when it could not be read.
#[derive(Debug)]
pub struct FoundSecret {
    pub span: Range<usize>,
    pub secret: Option<Secret>,
}

impl Report<'_> {
    pub fn at(&mut self, span: &Range<usize>, problem: impl Into<String>) {
        self.errors.push(self.document.error_at(span, None, problem.into()));
    }

    /// `parent` is the table that should have the setting.
    pub fn missing(&mut self, parent: &Range<usize>, key: &str, problem: impl Into<String>) {
        if !self.incomplete {
            self.errors.push(self.document.error_at(parent, Some(key), problem.into()));
        }
    }

    pub fn required<'v, T>(
        &mut self,
        parent: &Range<usize>,
        key: &str,
        value: Option<&'v Spanned<T>>,
        example: &str,
    ) -> Option<&'v Spanned<T>> {
        if value.is_none() {
            self.missing(parent, key, format!("is missing; write for example {key} = {example}"));
        }
        value
    }

    fn in_range<T: PartialOrd + fmt::Display>(&mut self, value: &Spanned<T>, range: &RangeInclusive<T>) {
        if !range.contains(value.get_ref()) {
            let problem = format!("{value} is out of range: {} to {}", range.start(), range.end());
            self.at(&value.span(), problem);
        }
    }

    pub fn count<T: TryFrom<u64> + Default>(&mut self, value: &Spanned<u64>, range: &RangeInclusive<u64>) -> T {
        self.in_range(value, range);
        T::try_from(*value.get_ref()).unwrap_or_default()
    }

    pub fn time(&mut self, value: &Spanned<Time>, range: &RangeInclusive<Duration>) -> Duration {
        self.in_range(value, &(Time(*range.start())..=Time(*range.end())));
        value.get_ref().0
    }

    pub fn size<T: TryFrom<u64> + Default>(&mut self, value: &Spanned<Size>, range: &RangeInclusive<u64>) -> T {
        self.in_range(value, &(Size(ByteSize(*range.start()))..=Size(ByteSize(*range.end()))));
        T::try_from(value.get_ref().0.as_u64()).unwrap_or_default()
    }

    /// The first of `words` stands in for one that is not among them.
    pub fn word<T: Copy, const N: usize>(&mut self, value: &Spanned<String>, words: &[(&str, T); N]) -> T {
        const { assert!(N > 0) };
        if let Some((_, meaning)) = words.iter().find(|(word, _)| word == value.get_ref()) {
            return *meaning;
        }
        let allowed: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        self.at(&value.span(), unknown("value", value.get_ref(), &allowed));
        words[0].1
    }

    /// Names of clusters, nodes, users and databases.
    pub fn name(&mut self, name: &Spanned<String>) -> String {
        const MAX_NAME_BYTES: usize = 255;
        let text = name.get_ref();
        if text.is_empty() || text.len() > MAX_NAME_BYTES || text.contains(char::is_control) {
            let problem = format!("a name must have 1 to {MAX_NAME_BYTES} bytes and no control characters");
            self.at(&name.span(), problem);
        }
        text.clone()
    }

    /// A file that must be there and readable.
    pub fn file(&mut self, path: &Spanned<String>) -> PathBuf {
        let full = self.directory.join(path.get_ref());
        // Opening a directory works, reading it does not.
        let readable = File::open(&full).and_then(|file| file.metadata());
        match readable {
            Ok(found) if found.is_file() => {}
            Ok(_) => self.at(&path.span(), format!("{} is not a file", full.display())),
            Err(error) => self.at(&path.span(), format!("cannot read {}: {error}", full.display())),
        }
        full
    }

    /// `None` when no source is given.
    pub fn secret(&mut self, source: SecretSource<'_>) -> Option<FoundSecret> {
        let key = source.key;
        let text = source.text.map(toml::Spanned::span);
        let places = [text, source.file.map(toml::Spanned::span), source.env.map(toml::Spanned::span)];
        let mut given = places.into_iter().flatten();
        let span = given.next()?;
        if let Some(second) = given.next() {
            let problem = format!("only one of {key}, {key}_file and {key}_env is allowed");
            self.at(&second, problem);
        }
        let read = match source {
            SecretSource { text: Some(text), .. } => Ok(text.get_ref().0.expose().to_owned()),
            SecretSource { file: Some(path), .. } => self.line_of(path.get_ref()),
            SecretSource { env, .. } => variable(env.map_or("", |name| name.get_ref())),
        };
        match read {
            Ok(text) if text.is_empty() => self.at(&span, "the secret is empty"),
            Ok(text) if text.contains(['\0', '\n']) => self.at(&span, "the secret has a line end or a zero byte in it"),
            Ok(text) => return Some(FoundSecret { span, secret: Some(Secret::new(text)) }),
            Err(problem) => self.at(&span, problem),
        }
        Some(FoundSecret { span, secret: None })
    }

    /// A file's text without the end of its one line.
    fn line_of(&self, path: &str) -> Result<String, String> {
        let full = self.directory.join(path);
        let text = fs::read_to_string(&full).map_err(|error| format!("cannot read {}: {error}", full.display()))?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
    }
}

fn variable(name: &str) -> Result<String, String> {
    if name.is_empty() {
        return Err("must be the name of an environment variable".to_owned());
    }
    // The error's own text for a value that is not Unicode would show the value.
    env::var(name).map_err(|error| match error {
        env::VarError::NotPresent => format!("the environment variable {name:?} is not set"),
        env::VarError::NotUnicode(_) => format!("the environment variable {name:?} is not UTF-8"),
    })
}
