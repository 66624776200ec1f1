//! The places of words in a text of one statement, which tokens do not keep.

use super::lexer::{Kind, Tokens, is_word, line_end, scan};
use super::statement::Statement;

/// The tokens of the only statement of a text.
pub(super) fn only_statement<'a>(text: &'a [u8], scanned: &'a mut Tokens) -> Option<Statement<'a>> {
    scan(text, true, scanned).ok()?;
    let mut statements = scanned.list.split(|t| t.kind == Kind::Semicolon).filter(|tokens| !tokens.is_empty());
    let tokens = statements.next()?;
    if statements.next().is_some() {
        return None;
    }
    Some(Statement { tokens, scanned, text })
}

/// Moves over the begin of a text that the scanner has accepted.
pub(super) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// White space, comments, and the semicolons of empty statements.
    pub(super) fn skip_blank(&mut self) {
        loop {
            self.at += match self.rest() {
                [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | b';', ..] => 1,
                [b'-', b'-', ..] => line_end(self.rest(), 0),
                [b'/', b'*', ..] => comment_length(self.rest()),
                _ => return,
            };
        }
    }

    /// The next word or quoted name, as written.
    pub(super) fn word(&mut self) -> &'a [u8] {
        self.skip_blank();
        let rest = self.rest();
        let length = match rest {
            [b'"', ..] => quoted_length(rest),
            _ => rest.iter().position(|&b| !is_word(b)).unwrap_or(rest.len()),
        };
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    /// `(…)`, if that is next.
    pub(super) fn skip_parentheses(&mut self) {
        self.skip_blank();
        let mut depth = 0_usize;
        while let Some(byte) = self.rest().first() {
            match byte {
                b'(' => depth += 1,
                b')' => depth = depth.saturating_sub(1),
                _ if depth == 0 => return,
                b'"' => self.at += quoted_length(self.rest()) - 1,
                _ => {}
            }
            self.at += 1;
            self.skip_blank();
        }
    }
}

/// Of a quoted name at the begin, with its quotes.
fn quoted_length(rest: &[u8]) -> usize {
    let mut length = 1;
    while let Some(quote) = rest.get(length..).and_then(|inside| memchr::memchr(b'"', inside)) {
        length += quote + 1;
        if rest.get(length) != Some(&b'"') {
            return length;
        }
        length += 1;
    }
    rest.len()
}

/// Of a nested comment at the begin.
fn comment_length(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(pair) = rest.get(at..at + 2) {
        match pair {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}
