//! Wishes in comments before a text's first token: `/* causeway: replica, consistency=strong */`.

use super::own::Own;
use crate::error::sqlstate;
use crate::types::{BadSetting, Overrides, OwnSetting, OwnValue, Position};

/// Where a text should run: `/* causeway: primary */` or `/* causeway: replica */`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hint {
    /// The router sends the text to the primary, whatever its class.
    Primary,
    /// Already in the class: an unknown text counts as a read; a write stays a write.
    Replica,
}

impl Hint {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }

    fn named(word: &str) -> Option<Self> {
        [Self::Primary, Self::Replica].into_iter().find(|hint| hint.as_str().eq_ignore_ascii_case(word))
    }
}

/// What a text wishes for its own reads, in place of what the session has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    pub overrides: Overrides,
    pub after: Option<Position>,
}

impl Hints {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn join(&mut self, next: Self) {
        let (ours, theirs) = (&mut self.overrides, next.overrides);
        ours.level = ours.level.max(theirs.level);
        ours.max_staleness = ours.max_staleness.into_iter().chain(theirs.max_staleness).min();
        ours.causal_wait = ours.causal_wait.max(theirs.causal_wait);
        self.after = self.after.max(next.after);
    }

    /// `None`: the text does not say.
    pub fn get(&self, setting: OwnSetting) -> Option<OwnValue> {
        match setting {
            OwnSetting::Consistency => self.overrides.level.map(OwnValue::Consistency),
            OwnSetting::MaxStaleness => self.overrides.max_staleness.map(OwnValue::MaxStaleness),
            OwnSetting::CausalWait => self.overrides.causal_wait.map(OwnValue::CausalWait),
            OwnSetting::After => self.after.map(|position| OwnValue::After(Some(position))),
            OwnSetting::Position => None,
        }
    }
}

/// What the comments before a text's first token say. The first of them that cannot be read counts, for the client
/// must learn of it.
#[derive(Debug, Default)]
pub(super) struct Comments {
    /// `primary` wins over `replica`.
    pub(super) target: Option<Hint>,
    hints: Hints,
    refusal: Option<BadSetting>,
}

impl Comments {
    /// Takes in what stands between `/*` and `*/`.
    pub(super) fn read(&mut self, comment: &[u8]) {
        let Some(wishes) = wishes(comment) else { return };
        let taken = match str::from_utf8(wishes) {
            Ok(wishes) => self.take_all(wishes),
            Err(_) => Err(bad("the hint is not UTF-8".to_owned())),
        };
        if let Err(bad) = taken {
            self.refusal.get_or_insert(bad);
        }
    }

    /// There is nothing for the text's [`Own`].
    pub(super) fn say_nothing(&self) -> bool {
        self.refusal.is_none() && self.hints.is_empty()
    }

    pub(super) fn put_into(&self, own: &mut Own) {
        own.hints = self.hints;
        if self.refusal.is_some() {
            own.refusal.clone_from(&self.refusal);
        }
    }

    fn take_all(&mut self, wishes: &str) -> Result<(), BadSetting> {
        let mut rest = wishes.trim_start_matches(is_separator);
        if rest.is_empty() {
            return Err(unrecognized(""));
        }
        while !rest.is_empty() {
            let (key, behind) = split(rest, |c| is_separator(c) || c == '=');
            rest = if let Some(value) = behind.trim_ascii_start().strip_prefix('=') {
                let (value, behind) = split(value.trim_ascii_start(), is_separator);
                self.take(key, value)?;
                behind
            } else {
                self.aim(key)?;
                behind
            };
            rest = rest.trim_start_matches(is_separator);
        }
        Ok(())
    }

    fn aim(&mut self, word: &str) -> Result<(), BadSetting> {
        match Hint::named(word) {
            Some(hint) if self.target != Some(Hint::Primary) => self.target = Some(hint),
            Some(_) => {}
            None => return Err(unrecognized(word)),
        }
        Ok(())
    }

    fn take(&mut self, key: &str, value: &str) -> Result<(), BadSetting> {
        let is_meant = |setting: &OwnSetting| setting.short_name().eq_ignore_ascii_case(key);
        let setting = OwnSetting::ALL.into_iter().filter(|setting| setting.may_be_set().is_ok()).find(is_meant);
        let setting = setting.ok_or_else(|| unrecognized(key))?;
        let value = setting.parse(value)?;
        if self.hints.get(setting).is_some_and(|before| before != value) {
            let message = format!("the hint \"{}\" is there twice, with different values", setting.short_name());
            return Err(bad(message));
        }
        match value {
            OwnValue::After(position) => self.hints.after = position,
            value => self.hints.overrides.choose(value),
        }
        Ok(())
    }
}

/// What follows `causeway:`; other comments are nobody's business.
fn wishes(comment: &[u8]) -> Option<&[u8]> {
    let (class, rest) = comment.trim_ascii_start().split_at_checked(OwnSetting::CLASS.len())?;
    class.eq_ignore_ascii_case(OwnSetting::CLASS.as_bytes()).then(|| rest.trim_ascii_start().strip_prefix(b":"))?
}

fn is_separator(c: char) -> bool {
    c == ',' || c.is_ascii_whitespace()
}

fn split(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

fn unrecognized(word: &str) -> BadSetting {
    const SHOWN_CHARS: usize = 80;
    bad(format!("unrecognized hint \"{}\"", word.chars().take(SHOWN_CHARS).collect::<String>()))
}

fn bad(message: String) -> BadSetting {
    let hint = "A comment that begins with \"causeway:\" may have in it primary, replica, consistency=LEVEL, \
                max_staleness=TIME, causal_wait=TIME, and after=TOKEN.";
    BadSetting { sqlstate: sqlstate::INVALID_PARAMETER_VALUE, message, hint: hint.to_owned() }
}
