//! What a text changes in the session, as far as its words tell.

use super::Effects;

/// Effects, and the names of the settings that they are about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) effects: Effects,
    /// In lower case, each once.
    pub(super) settings: Vec<Box<str>>,
    /// The names come from literals that are not in the text's shape.
    pub(super) by_literals: bool,
}

impl Change {
    /// More names than anybody sets in one text; those beyond it count as unnamed.
    const MAX_SETTINGS: usize = 64;

    pub(super) fn add(&mut self, effects: Effects) {
        self.effects = self.effects | effects;
    }

    /// Names a setting, `a` or `a.b`, in any case.
    pub(super) fn name_setting(&mut self, name: &[u8]) {
        match str::from_utf8(name) {
            Ok(name) if !name.is_empty() && name.len() <= MAX_NAME_BYTES => self.insert(name),
            _ => self.add(Effects::SET_UNNAMED),
        }
    }

    fn insert(&mut self, name: &str) {
        if self.settings.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return;
        }
        if self.settings.len() < Self::MAX_SETTINGS {
            self.settings.push(name.to_ascii_lowercase().into());
        } else {
            self.add(Effects::SET_UNNAMED);
        }
    }

    /// Takes over what the other changes; says whether that is any news.
    pub(super) fn join(&mut self, other: &Self) -> bool {
        let before = (self.effects, self.settings.len());
        self.add(other.effects);
        self.by_literals |= other.by_literals;
        if self.settings.len() >= Self::MAX_SETTINGS && !other.settings.is_empty() {
            self.add(Effects::SET_UNNAMED);
        } else {
            other.settings.iter().for_each(|name| self.insert(name));
        }
        before != (self.effects, self.settings.len())
    }
}

const MAX_NAME_BYTES: usize = 200;

/// `a.b`: what a setting that PostgreSQL does not know itself is called.
pub(super) fn is_custom_setting(name: &[u8]) -> bool {
    let is_part = |part: &[u8]| {
        part.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_' || *b >= 0x80)
            && part.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$') || *b >= 0x80)
    };
    name.len() <= MAX_NAME_BYTES && name.contains(&b'.') && name.split(|&b| b == b'.').all(is_part)
}

/// What a string literal says, if it says so byte for byte: without doubled quotes, escapes or a second part.
pub(super) fn plain_string(literal: &[u8]) -> Option<&[u8]> {
    let inside = match literal {
        [b'\'', rest @ ..] | [b'e' | b'E' | b'n' | b'N', b'\'', rest @ ..] => rest.strip_suffix(b"'")?,
        [b'$', rest @ ..] => {
            let tag = rest.iter().position(|&b| b == b'$')? + 2;
            return literal.get(tag..literal.len().checked_sub(tag)?);
        }
        _ => return None,
    };
    (memchr::memchr2(b'\'', b'\\', inside).is_none()).then_some(inside)
}

/// `$1`
pub(super) fn is_parameter(literal: &[u8]) -> bool {
    matches!(literal, [b'$', b'0'..=b'9', ..])
}
