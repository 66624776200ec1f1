//! Code that we do not understand, the body of DO and texts too long to scan: words in it tell what it may leave in
//! the session.

use super::Effects;
use super::keyword::Keyword as K;
use super::lexer::{Kind, Tokens, is_word, scan};
use super::query::effects_of_call;
use super::statement::Statement;

/// Strings inside the body may be run by EXECUTE, and hold strings again: so deep we look.
const MAX_DEPTH: u32 = 4;

/// What the body of a DO statement may do to the session.
pub(super) fn effects_of_do(statement: &Statement<'_>) -> Effects {
    let bodies = (1..statement.tokens.len()).filter_map(|at| statement.literal(at));
    let mut pending: Vec<(&[u8], u32)> = bodies.map(|body| (body, 0)).collect();
    let mut effects = Effects::NONE;
    let mut scanned = Tokens::default();
    while let Some((literal, depth)) = pending.pop() {
        let body = unquoted(literal);
        // A body that does not scan, or nests too deep, may do anything to the session.
        if depth > MAX_DEPTH || scan(body, true, &mut scanned).is_err() {
            effects = effects | Effects::SET | Effects::SESSION | Effects::TEMP;
            continue;
        }
        let statement = Statement { tokens: &scanned.list, scanned: &scanned, text: body };
        for (at, token) in statement.tokens.iter().enumerate() {
            effects = effects | effects_at(&statement, at);
            if token.kind == Kind::Literal {
                let literal = body.get(token.start as usize..token.end as usize);
                pending.extend(literal.filter(|l| is_string(l)).map(|literal| (literal, depth + 1)));
            }
        }
    }
    effects
}

fn effects_at(body: &Statement<'_>, at: usize) -> Effects {
    let begins = match at.checked_sub(1) {
        None => true,
        Some(before) => {
            matches!(body.kind(before), Some(Kind::Semicolon | Kind::Operator | Kind::Literal))
                || matches!(body.keyword(before), K::Begin | K::Then | K::Else | K::Loop)
        }
    };
    match body.keyword(at) {
        K::Set if begins && body.keyword(at + 1) == K::Local => Effects::LOCAL,
        K::Set if begins && matches!(body.keyword(at + 1), K::Transaction | K::Constraints) => Effects::NONE,
        K::Set | K::Reset if begins => Effects::SET | Effects::SESSION,
        K::Prepare if begins => Effects::PREPARE,
        K::Listen if begins => Effects::LISTEN,
        K::Load if begins => Effects::SESSION,
        K::Temp => Effects::TEMP,
        _ if body.name(at).starts_with(b"pg_temp") => Effects::TEMP,
        _ if body.is(at + 1, Kind::Open) => effects_of_call(body, at),
        _ => Effects::NONE,
    }
}

fn is_string(literal: &[u8]) -> bool {
    literal.len() > 2 && (literal.ends_with(b"'") || literal.ends_with(b"$"))
}

/// What stands between the quotes of a string or the tags of a dollar-quoted one. Doubled quotes stay doubled.
fn unquoted(literal: &[u8]) -> &[u8] {
    let open = match literal.first() {
        Some(b'$') => literal.iter().skip(1).position(|&b| b == b'$').map(|tag| tag + 2),
        _ => literal.iter().position(|&b| b == b'\'').map(|quote| quote + 1),
    };
    let open = open.unwrap_or_default();
    let close = if literal.starts_with(b"$") { open } else { 1 };
    literal.get(open..literal.len().saturating_sub(close)).unwrap_or_default()
}

/// Any of these words in a text too long to scan, be it in a string, counts as an effect that only DISCARD ALL undoes.
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
    b"do",
    b"u",
];

/// What a text that was not scanned may do to the session.
pub(super) fn effects_of_unscanned(text: &[u8]) -> Effects {
    let mut words = text.split(|&b| !is_word(b));
    let tells = |word: &[u8]| TELLTALE_WORDS.iter().any(|telltale| word.eq_ignore_ascii_case(telltale));
    if words.any(tells) { Effects::LASTING } else { Effects::NONE }
}
