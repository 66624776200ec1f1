//! What a text says to Causeway itself: hints, SET of our own settings, SHOW of them, EXPLAIN ROUTE.

use super::change::{is_parameter, plain_string};
use super::cursor::{Cursor, only_statement};
use super::hint::Hints;
use super::keyword::Keyword as K;
use super::lexer::{Kind, MAX_TEXT_BYTES, Tokens};
use super::setting;
use super::statement::Statement;
use crate::types::{BadSetting, OwnSetting, OwnValue};

/// Most texts have none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// For this text only.
    pub hints: Hints,
    /// What its statements SET: of each setting the last. What came of it, only the server knows.
    pub sets: Vec<OwnSet>,
    /// Why the text must not run: the first thing in it that cannot be read.
    pub refusal: Option<BadSetting>,
}

/// `SET [LOCAL] causeway.x = value`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnSet {
    pub setting: OwnSetting,
    pub to: Assigned,
    /// Until the end of the transaction.
    pub local: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assigned {
    Value(OwnValue),
    Default,
    /// Only the server can tell.
    Unread,
}

impl Own {
    /// Takes in what the next statement says; of two wishes the stricter one counts for both.
    pub fn join(&mut self, next: Self) {
        self.hints.join(next.hints);
        for set in next.sets {
            self.sets.retain(|known| (known.setting, known.local) != (set.setting, set.local));
            self.sets.push(set);
        }
        self.refusal = self.refusal.take().or(next.refusal);
    }
}

/// What a SET says to us; `None` for any other statement, and for settings that are not ours.
pub(super) fn set(statement: &Statement<'_>) -> Option<Box<Own>> {
    if statement.keyword(0) != K::Set {
        return None;
    }
    let local = statement.keyword(1) == K::Local;
    let has_scope = local || statement.keyword(1) == K::Session;
    let words = statement.from(if has_scope { 2 } else { 1 });
    let (name, value) = setting::full_name(&words);
    let name = String::from_utf8(name?).ok().filter(|name| OwnSetting::is_own_name(name))?;
    let mut own = Own::default();
    match read(&words, value, &name) {
        Ok((setting, to)) => own.sets.push(OwnSet { setting, to, local }),
        Err(bad) => own.refusal = Some(bad),
    }
    Some(Box::new(own))
}

/// What is set, and to what. An assignment in `words` begins at `at`.
fn read(words: &Statement<'_>, at: usize, name: &str) -> Result<(OwnSetting, Assigned), BadSetting> {
    let setting = OwnSetting::find(name)?;
    setting.may_be_set()?;
    if !setting::is_assignment(words, at) {
        return Ok((setting, Assigned::Unread));
    }
    let assigned = words.from(at + 1);
    if assigned.is_word(0, b"default") && assigned.tokens.len() == 1 {
        return Ok((setting, Assigned::Default));
    }
    let to = match text(&assigned) {
        Some(text) => Assigned::Value(setting.parse(&text)?),
        None => Assigned::Unread,
    };
    Ok((setting, to))
}

/// One value, which the server takes as it stands here.
fn text(assigned: &Statement<'_>) -> Option<String> {
    let (sign, at) = if assigned.name(0) == b"-" { ("-", 1) } else { ("", 0) };
    if assigned.tokens.len() != at + 1 {
        return None;
    }
    let value = match assigned.kind(at)? {
        Kind::Word | Kind::Quoted if sign.is_empty() => assigned.name(at),
        Kind::Literal => {
            let literal = assigned.literal(at).filter(|literal| !is_parameter(literal))?;
            let is_number = literal.iter().all(|b| b.is_ascii_digit() || *b == b'.');
            if is_number { literal } else { plain_string(literal).filter(|_| sign.is_empty())? }
        }
        _ => return None,
    };
    Some(format!("{sign}{}", str::from_utf8(value).ok()?))
}

/// `causeway.` as a name or in a literal; it may say so of other texts too, as of those that are too long to look at.
pub(super) fn is_mentioned(text: &[u8]) -> bool {
    // The rarest letter of it.
    const LETTER_AT: usize = 5;
    if text.len() > MAX_TEXT_BYTES {
        return true;
    }
    memchr::memchr2_iter(b'w', b'W', text).any(|letter| {
        let start = letter.checked_sub(LETTER_AT).filter(|&start| matches!(text.get(start), Some(b'c' | b'C')));
        let named = start.and_then(|start| text.get(start..));
        let Some((class, rest)) = named.and_then(|text| text.split_at_checked(OwnSetting::CLASS.len())) else {
            return false;
        };
        let behind = rest.iter().find(|b| !b.is_ascii_whitespace() && **b != b'"');
        class.eq_ignore_ascii_case(OwnSetting::CLASS.as_bytes()) && behind == Some(&b'.')
    })
}

/// A name of a setting of ours, if there is such a setting.
pub(super) fn is_own_name(name: &[u8]) -> bool {
    str::from_utf8(name).is_ok_and(OwnSetting::is_own_name)
}

/// `EXPLAIN ROUTE statement`
pub(super) fn explains_route(statement: &Statement<'_>) -> bool {
    statement.keyword(0) == K::Explain && statement.is_word(1, b"route") && statement.tokens.len() > 2
}

/// What a text that is exactly one EXPLAIN ROUTE asks about: all that follows ROUTE.
pub fn explained(text: &[u8]) -> Option<&[u8]> {
    let mut scanned = Tokens::default();
    if !explains_route(&only_statement(text, &mut scanned)?) {
        return None;
    }
    let mut cursor = Cursor::new(text);
    cursor.word();
    cursor.word();
    Some(cursor.rest())
}
