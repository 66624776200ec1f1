//! The names of the settings that SET, RESET and `set_config` are about.

use super::change::{Change, is_custom_setting, is_parameter, plain_string};
use super::keyword::Keyword as K;
use super::lexer::Kind;
use super::statement::Statement;
use super::{Effects, own};

/// SET that outlives the transaction; `statement` begins with SET.
pub(super) fn set(statement: &Statement<'_>, change: &mut Change) {
    let is_scope = statement.keyword(1) == K::Session && !is_assignment(statement, 2);
    let words = statement.from(if is_scope { 2 } else { 1 });
    if is_scope && words.is_word(0, b"characteristics") {
        change.add(Effects::SET);
        for name in ["default_transaction_isolation", "default_transaction_read_only", "default_transaction_deferrable"]
        {
            change.name_setting(name.as_bytes());
        }
        return;
    }
    let value = named(&words, is_scope, change);
    if change.effects.contains(Effects::SESSION) {
        return;
    }
    let value = if is_assignment(&words, value) { value + 1 } else { value };
    let is_default = words.is_word(value, b"default")
        || words.is_word(0, b"time") && words.keyword(value) == K::Local
        || words.is_word(0, b"names") && words.kind(value).is_none();
    change.add(if is_default { Effects::SET | Effects::RESET } else { Effects::SET });
}

/// SET LOCAL, which `statement` begins with.
pub(super) fn local(statement: &Statement<'_>, change: &mut Change) {
    named(&statement.from(2), false, change);
}

/// RESET of one setting; `statement` begins with RESET.
pub(super) fn reset(statement: &Statement<'_>, change: &mut Change) {
    let is_scope = statement.keyword(1) == K::Session && statement.keyword(2) == K::Authorization;
    named(&statement.from(if is_scope { 2 } else { 1 }), is_scope, change);
    change.add(Effects::SET | Effects::RESET);
}

pub(super) fn is_assignment(statement: &Statement<'_>, at: usize) -> bool {
    statement.keyword(at) == K::To || statement.is(at, Kind::Operator) && statement.name(at) == b"="
}

/// Takes the name at the begin of `words`, a phrase of SQL's or a name of PostgreSQL's. Returns what comes behind it.
fn named(words: &Statement<'_>, of_session: bool, change: &mut Change) -> usize {
    let second = |word: &[u8]| words.is_word(1, word);
    let is_plain = words.is(0, Kind::Word) && !is_assignment(words, 1) && !words.is(1, Kind::Dot);
    let (phrase, length): (&[&[u8]], usize) = match words.name(0) {
        b"time" if is_plain && second(b"zone") => (&[b"timezone"], 2),
        b"names" if is_plain => (&[b"client_encoding"], 1),
        b"schema" if is_plain => (&[b"search_path"], 1),
        b"role" if is_plain => (&[b"role"], 1),
        b"xml" if is_plain && second(b"option") => (&[b"xmloption"], 2),
        b"authorization" if is_plain && of_session => (&[b"session_authorization", b"role"], 1),
        b"session_authorization" => (&[b"session_authorization", b"role"], 1),
        b"seed" if !words.is(1, Kind::Dot) => {
            change.add(Effects::SESSION);
            return 1;
        }
        _ => return name(words, change),
    };
    for setting in phrase {
        change.name_setting(setting);
    }
    length
}

fn name(words: &Statement<'_>, change: &mut Change) -> usize {
    let (name, length) = full_name(words);
    change.name_setting(&name.unwrap_or_default());
    length
}

/// `a`, `a.b`, `"A"."b"` at the begin of `words`, in any case, unless it is in Unicode escapes; and what comes behind it.
pub(super) fn full_name(words: &Statement<'_>) -> (Option<Vec<u8>>, usize) {
    let mut name = words.name(0).to_vec();
    let mut at = 1;
    while words.is(at, Kind::Dot) {
        name.push(b'.');
        name.extend_from_slice(words.name(at + 1));
        at += 2;
    }
    let is_whole = (0..at).step_by(2).all(|part| matches!(words.kind(part), Some(Kind::Word | Kind::Quoted)));
    (is_whole.then_some(name), at)
}

/// The call of `set_config` at `at`.
pub(super) fn set_config(statement: &Statement<'_>, at: usize, change: &mut Change) {
    let literal = statement.literal(at + 2).filter(|_| is_whole_argument(statement, at + 3));
    if is_local(statement, at) {
        literal.and_then(plain_string).into_iter().for_each(|name| change.name_setting(name));
        return change.add(Effects::LOCAL);
    }
    change.add(Effects::SET);
    match literal {
        Some(literal) if is_parameter(literal) => return change.add(Effects::HIDDEN),
        Some(literal) if let Some(name) = plain_string(literal) => return change.name_setting(name),
        _ => {}
    }
    change.add(Effects::SET_UNNAMED);
    harvest(statement, change);
}

/// The call of `current_setting` at `at` asks for what is the node's own, or how the transaction stands there.
pub(super) fn is_of_node(statement: &Statement<'_>, at: usize) -> bool {
    let name = statement.literal(at + 2).and_then(plain_string).unwrap_or_default();
    [&b"transaction_read_only"[..], b"in_hot_standby"].iter().any(|of_node| name.eq_ignore_ascii_case(of_node))
}

/// The same, for one of Causeway's own settings.
pub(super) fn is_of_ours(statement: &Statement<'_>, at: usize) -> bool {
    let named = statement.literal(at + 2).and_then(plain_string).is_some_and(own::is_own_name);
    named
        && statement.name(at) == b"current_setting"
        && matches!(statement.kind(at + 3), Some(Kind::Close | Kind::Comma))
}

/// After a first argument: a comma, maybe behind a cast to a type of one word.
fn is_whole_argument(statement: &Statement<'_>, at: usize) -> bool {
    let behind = if statement.is(at, Kind::Typecast) && statement.is(at + 1, Kind::Word) { at + 2 } else { at };
    statement.is(behind, Kind::Comma)
}

/// Names whatever a string of the statement may name.
pub(super) fn harvest(statement: &Statement<'_>, change: &mut Change) {
    if std::mem::replace(&mut change.by_literals, true) {
        return;
    }
    for at in 0..statement.tokens.len() {
        let name = statement.literal(at).and_then(plain_string).filter(|name| is_custom_setting(name));
        if let Some(name) = name {
            change.name_setting(name);
        }
    }
}

/// `set_config(name, value, true)` with the keyword, at most as a cast could not make it anything else.
fn is_local(statement: &Statement<'_>, at: usize) -> bool {
    let Some(close) = statement.closing_nearby(at + 1) else {
        return false;
    };
    let mut depth = 0_usize;
    let mut commas = 0_usize;
    for at in at + 2..close {
        match statement.kind(at) {
            Some(Kind::Open | Kind::OpenBracket) => depth += 1,
            Some(Kind::Close | Kind::CloseBracket) => depth = depth.saturating_sub(1),
            Some(Kind::Comma) if depth == 0 => commas += 1,
            _ => {}
        }
    }
    commas == 2 && statement.keyword(close - 1) == K::True && statement.is(close - 2, Kind::Comma)
}
