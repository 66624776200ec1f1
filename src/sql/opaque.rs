//! Code that we do not understand, the body of DO or of a function, and texts too long to scan: words in it tell what
//! it may leave in the session.

use std::borrow::Cow;

use super::change::{Change, is_parameter, plain_string};
use super::keyword::Keyword as K;
use super::lexer::{Kind, Tokens, is_word, scan};
use super::query::call_changes;
use super::statement::Statement;
use super::{Effects, setting};

/// Strings inside the code may be run by EXECUTE, and hold strings again: so deep we look.
const MAX_DEPTH: u32 = 4;

/// Any code may do all this to the session.
pub(super) const ANYTHING: Effects = Effects::SET
    .union(Effects::SET_UNNAMED)
    .union(Effects::RESET)
    .union(Effects::SESSION)
    .union(Effects::TEMP)
    .union(Effects::SEQUENCE)
    .union(Effects::CURRVAL)
    .union(Effects::HIDDEN);

/// What code in a language that holds SQL may do to the session. Its strings are SQL only if it runs text.
pub(super) fn code_changes(code: &[u8], change: &mut Change) {
    let mut pending = vec![(Cow::Borrowed(code), 0)];
    let mut scanned = Tokens::default();
    let mut found = Change::default();
    while let Some((code, depth)) = pending.pop() {
        if depth > MAX_DEPTH || scan(&code, true, &mut scanned).is_err() {
            found.add(ANYTHING);
            continue;
        }
        let body = Statement { tokens: &scanned.list, scanned: &scanned, text: &code };
        for at in 0..body.tokens.len() {
            changes_at(&body, at, &mut found);
        }
        if !found.effects.contains(Effects::HIDDEN) {
            continue;
        }
        setting::harvest(&body, &mut found);
        found.by_literals = false;
        let strings = (0..body.tokens.len()).filter_map(|at| body.literal(at)).filter(|literal| is_string(literal));
        let strings: Vec<_> = strings.map(|literal| (Cow::Owned(unquoted(literal).into_owned()), depth + 1)).collect();
        pending.extend(strings);
    }
    // The code as a whole stands for itself: it is in the shape, or behind a name.
    found.by_literals = false;
    change.join(&found);
}

fn changes_at(body: &Statement<'_>, at: usize, change: &mut Change) {
    let before = at.checked_sub(1);
    let begins = before.is_none_or(|before| {
        matches!(body.kind(before), Some(Kind::Semicolon | Kind::Operator))
            || matches!(body.keyword(before), K::Begin | K::Then | K::Else | K::Loop)
    });
    let next = body.keyword(at + 1);
    let effects = match body.keyword(at) {
        // EXECUTE runs text, wherever it stands: `RETURN QUERY EXECUTE`, `FOR r IN EXECUTE`.
        K::Execute => Effects::HIDDEN,
        K::Set if begins && next == K::Local && !matches!(body.keyword(at + 2), K::Transaction) => {
            setting::local(&body.from(at), change);
            Effects::LOCAL
        }
        K::Set if begins && matches!(next, K::Transaction | K::Constraints) => Effects::NONE,
        K::Set if begins => return setting::set(&body.from(at), change),
        K::Reset if begins && next == K::All => Effects::CLEAR_SET | Effects::RESET,
        K::Reset if begins => return setting::reset(&body.from(at), change),
        K::Prepare if begins => Effects::PREPARE,
        K::Deallocate if begins => Effects::CLEAR_PREPARE,
        K::Listen if begins => Effects::LISTEN,
        K::Unlisten if begins => Effects::CLEAR_LISTEN,
        K::Load if begins => Effects::SESSION,
        K::Drop | K::Alter | K::Discard if begins => Effects::CLEAR_TEMP,
        K::With if next == K::Hold => Effects::HOLD_CURSOR,
        K::Temp if before.is_some_and(|before| makes_temporary(body.keyword(before))) => Effects::TEMP,
        _ if body.name(at).starts_with(b"pg_temp") => Effects::TEMP,
        _ if body.is(at, Kind::Encoded) => ANYTHING,
        _ if body.is(at + 1, Kind::Open) => {
            call_changes(body, at, change);
            // A parameter of a function is not one of the client's Bind.
            if body.name(at) == b"set_config" && body.literal(at + 2).is_some_and(is_parameter) {
                change.add(Effects::SET_UNNAMED);
            }
            return;
        }
        _ => Effects::NONE,
    };
    change.add(effects);
}

/// What may stand before TEMP.
fn makes_temporary(before: K) -> bool {
    matches!(before, K::Create | K::Replace | K::Local | K::Global | K::Into)
}

fn is_string(literal: &[u8]) -> bool {
    literal.len() > 2 && (literal.ends_with(b"'") || literal.ends_with(b"$"))
}

/// What a string says; of its escapes only those that are a white space or the character itself are known.
pub(super) fn unquoted(literal: &[u8]) -> Cow<'_, [u8]> {
    if let Some(plain) = plain_string(literal) {
        return Cow::Borrowed(plain);
    }
    let escapes = matches!(literal.first(), Some(b'e' | b'E'));
    let open = literal.iter().position(|&b| b == b'\'').map_or(literal.len(), |quote| quote + 1);
    let inside = literal.get(open..literal.len().saturating_sub(1)).unwrap_or_default();
    let mut said = Vec::with_capacity(inside.len());
    let mut bytes = inside.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\'' => said.extend(bytes.next_if_eq(&b'\'')),
            b'\\' if escapes => match bytes.next() {
                Some(b'n' | b't' | b'r' | b'f' | b'b') => said.push(b' '),
                next => said.extend(next),
            },
            _ => said.push(byte),
        }
    }
    Cow::Owned(said)
}

/// Any of these words in a text too long to scan, be it in a string, counts as every effect.
const TELLTALE_WORDS: &[&[u8]] = &[
    b"set",
    b"reset",
    b"set_config",
    b"set_limit",
    b"setseed",
    b"listen",
    b"prepare",
    b"load",
    b"hold",
    b"temp",
    b"temporary",
    b"pg_temp",
    b"pg_advisory_lock",
    b"pg_advisory_lock_shared",
    b"pg_try_advisory_lock",
    b"pg_try_advisory_lock_shared",
    b"pg_replication_origin_session_setup",
    b"dblink_connect",
    b"dblink_connect_u",
    b"nextval",
    b"setval",
    b"currval",
    b"lastval",
    b"execute",
    b"call",
    b"do",
    b"u",
];

/// What a text that was not scanned may do to the session: be it by the triggers and defaults of a relation.
pub(super) fn effects_of_unscanned(text: &[u8]) -> Effects {
    let mut words = text.split(|&b| !is_word(b));
    let tells = |word: &[u8]| TELLTALE_WORDS.iter().any(|telltale| word.eq_ignore_ascii_case(telltale));
    let unseen = Effects::HIDDEN | Effects::SEQUENCE;
    if words.any(tells) { unseen | ANYTHING | Effects::LASTING } else { unseen }
}
