//! Statements that name a prepared statement of SQL's: PREPARE, EXECUTE, DEALLOCATE.

use super::cursor::{Cursor, only_statement};
use super::facts::as_stored;
use super::keyword::Keyword as K;
use super::lexer::{Kind, Tokens};
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

/// The text with the name replaced by `to` in quotes; all else stays byte for byte. `None` unless the text is exactly
/// one PREPARE, EXECUTE or DEALLOCATE with a name that is not in Unicode escapes.
pub fn rename(text: &[u8], to: &[u8]) -> Option<Vec<u8>> {
    let mut scanned = Tokens::default();
    let (_, at) = find(&only_statement(text, &mut scanned)?)?;
    let mut cursor = Cursor::new(text);
    for _ in 0..at {
        cursor.word();
    }
    cursor.skip_blank();
    let start = cursor.position();
    cursor.word();
    let mut renamed = text.get(..start)?.to_vec();
    renamed.push(b'"');
    for &byte in to {
        renamed.extend(std::iter::repeat_n(byte, if byte == b'"' { 2 } else { 1 }));
    }
    renamed.push(b'"');
    if cursor.rest().first() == Some(&b'"') {
        // Two quotes would be one in the name.
        renamed.push(b' ');
    }
    renamed.extend_from_slice(cursor.rest());
    Some(renamed)
}

/// What a text that is exactly one PREPARE prepares: what follows AS.
pub fn prepared_text(text: &[u8]) -> Option<&[u8]> {
    let mut scanned = Tokens::default();
    let (verb, _) = find(&only_statement(text, &mut scanned)?)?;
    if verb != Verb::Prepare {
        return None;
    }
    let mut cursor = Cursor::new(text);
    cursor.word();
    cursor.word();
    cursor.skip_parentheses();
    cursor.word().eq_ignore_ascii_case(b"as").then(|| cursor.rest())
}
