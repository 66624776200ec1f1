//! Statements that name a prepared statement of SQL's: PREPARE, EXECUTE, DEALLOCATE.

use super::facts::as_stored;
use super::keyword::Keyword as K;
use super::lexer::{Kind, Tokens, is_word, line_end, scan};
use super::statement::Statement;
use super::{ByName, Verb};

/// The verb and the position of the name; `None` for any other statement and for names in Unicode escapes.
fn find(statement: &Statement<'_>) -> Option<(Verb, usize)> {
    let (verb, at) = match (statement.keyword(0), statement.keyword(1)) {
        (K::Prepare, K::Transaction) => return None,
        (K::Prepare, _) => (Verb::Prepare, 1),
        (K::Execute, _) => (Verb::Execute, 1),
        (K::Deallocate, K::Prepare) if statement.kind(2).is_some() => (Verb::Deallocate, 2),
        (K::Deallocate, _) => (Verb::Deallocate, 1),
        _ => return None,
    };
    let is_named =
        statement.is(at, Kind::Quoted) || statement.is(at, Kind::Word) && !statement.keyword(at).is_reserved();
    is_named.then_some((verb, at))
}

pub(super) fn by_name(statement: &Statement<'_>) -> Option<ByName> {
    let (verb, at) = find(statement)?;
    Some(ByName { verb, name: as_stored(statement.name(at)).into() })
}

/// What a text that is exactly one PREPARE, EXECUTE or DEALLOCATE names.
pub fn named(text: &[u8]) -> Option<ByName> {
    let mut scanned = Tokens::default();
    by_name(&only_statement(text, &mut scanned)?)
}

/// The tokens of the only statement of a text.
fn only_statement<'a>(text: &'a [u8], scanned: &'a mut Tokens) -> Option<Statement<'a>> {
    scan(text, true, scanned).ok()?;
    let mut statements = scanned.list.split(|t| t.kind == Kind::Semicolon).filter(|tokens| !tokens.is_empty());
    let tokens = statements.next()?;
    if statements.next().is_some() {
        return None;
    }
    Some(Statement { tokens, scanned, text })
}

/// The text with the name replaced by `to` in quotes; all else stays byte for byte. `None` unless the text is exactly
/// one PREPARE, EXECUTE or DEALLOCATE with a name that is not in Unicode escapes.
pub fn rename(text: &[u8], to: &[u8]) -> Option<Vec<u8>> {
    let mut scanned = Tokens::default();
    let (_, at) = find(&only_statement(text, &mut scanned)?)?;
    let mut cursor = Cursor { text, at: 0 };
    for _ in 0..at {
        cursor.word();
    }
    cursor.skip_blank();
    let start = cursor.at;
    cursor.word();
    let mut renamed = text.get(..start)?.to_vec();
    renamed.push(b'"');
    for &byte in to {
        renamed.extend(std::iter::repeat_n(byte, if byte == b'"' { 2 } else { 1 }));
    }
    renamed.push(b'"');
    renamed.extend_from_slice(text.get(cursor.at..)?);
    Some(renamed)
}

/// What a text that is exactly one PREPARE prepares: what follows AS.
pub fn prepared_text(text: &[u8]) -> Option<&[u8]> {
    let mut scanned = Tokens::default();
    let (verb, _) = find(&only_statement(text, &mut scanned)?)?;
    if verb != Verb::Prepare {
        return None;
    }
    let mut cursor = Cursor { text, at: 0 };
    cursor.word();
    cursor.word();
    cursor.skip_parentheses();
    cursor.word().eq_ignore_ascii_case(b"as").then(|| text.get(cursor.at..))?
}

/// Moves over the begin of a text that the scanner has accepted.
struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// White space, comments, and the semicolons of empty statements.
    fn skip_blank(&mut self) {
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
    fn word(&mut self) -> &'a [u8] {
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
    fn skip_parentheses(&mut self) {
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
