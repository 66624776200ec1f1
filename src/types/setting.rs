//! Causeway's own settings: custom parameters of the session whose names begin with `causeway.`.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{BadToken, Level, Overrides, Position, parse_duration, show_duration};
use crate::error::{Error, Fault, sqlstate};

/// One of Causeway's own settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OwnSetting {
    Consistency,
    MaxStaleness,
    CausalWait,
    /// A token: reads see at least what that names.
    After,
    /// The session's floor as a token; it can only be shown.
    Position,
}

/// What one of them is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnValue {
    Consistency(Level),
    MaxStaleness(Duration),
    CausalWait(Duration),
    /// `None`, the empty text: after nothing.
    After(Option<Position>),
}

/// Why a name or a value cannot be, in PostgreSQL's words where it has some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadSetting {
    pub sqlstate: &'static str,
    pub message: String,
    pub hint: String,
}

/// Of what a client wrote, this much is shown in an error.
const SHOWN_CHARS: usize = 80;

impl OwnSetting {
    pub const ALL: [Self; 5] = [Self::Consistency, Self::MaxStaleness, Self::CausalWait, Self::After, Self::Position];

    /// Before the dot.
    pub const CLASS: &'static str = "causeway";

    pub const MAX_STALENESS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 3600);
    pub const CAUSAL_WAIT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);

    /// As `SHOW` and `SET` take it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Consistency => "causeway.consistency",
            Self::MaxStaleness => "causeway.max_staleness",
            Self::CausalWait => "causeway.causal_wait",
            Self::After => "causeway.after",
            Self::Position => "causeway.position",
        }
    }

    /// Without what all of them begin with, as in hints.
    pub fn short_name(self) -> &'static str {
        match self {
            Self::Consistency => "consistency",
            Self::MaxStaleness => "max_staleness",
            Self::CausalWait => "causal_wait",
            Self::After => "after",
            Self::Position => "position",
        }
    }

    /// Whether or not there is such a setting, nobody else's name begins so. In any case, as PostgreSQL's names are.
    pub fn is_own_name(name: &str) -> bool {
        name.split_once('.').is_some_and(|(class, _)| class.eq_ignore_ascii_case(Self::CLASS))
    }

    /// By its whole name, in any case.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|setting| setting.name().eq_ignore_ascii_case(name))
    }

    /// The same for a client that wants to set it.
    ///
    /// # Errors
    /// 42704: there is none of that name.
    pub fn find(name: &str) -> Result<Self, BadSetting> {
        Self::named(name).ok_or_else(|| BadSetting {
            sqlstate: sqlstate::UNDEFINED_OBJECT,
            message: format!("unrecognized configuration parameter \"{}\"", shown(name)),
            hint: format!("Available parameters: {}.", Self::ALL.map(Self::name).join(", ")),
        })
    }

    /// What a client may set it to; a setting that can only be shown is refused, whatever the value.
    ///
    /// # Errors
    /// 22023: the value is not allowed. 55P02: the setting cannot be set.
    pub fn parse(self, text: &str) -> Result<OwnValue, BadSetting> {
        match self {
            Self::Consistency => match Level::named(text) {
                Some(level) => Ok(OwnValue::Consistency(level)),
                None => Err(self.invalid(text, available_levels())),
            },
            Self::MaxStaleness => self.duration(text, &Self::MAX_STALENESS).map(OwnValue::MaxStaleness),
            Self::CausalWait => self.duration(text, &Self::CAUSAL_WAIT).map(OwnValue::CausalWait),
            Self::After if text.is_empty() => Ok(OwnValue::After(None)),
            Self::After => match Position::from_token(text) {
                Ok(position) => Ok(OwnValue::After(Some(position))),
                Err(error) => Err(self.invalid(text, token_hint(error))),
            },
            Self::Position => Err(self.fixed()),
        }
    }

    /// # Errors
    /// 55P02: it can only be shown.
    pub fn may_be_set(self) -> Result<(), BadSetting> {
        if self == Self::Position { Err(self.fixed()) } else { Ok(()) }
    }

    fn fixed(self) -> BadSetting {
        BadSetting {
            sqlstate: sqlstate::CANT_CHANGE_RUNTIME_PARAM,
            message: format!("parameter \"{}\" cannot be changed", self.name()),
            hint: format!("To read at least what a token names, set {}.", Self::After.name()),
        }
    }

    fn duration(self, text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, BadSetting> {
        let Some(duration) = parse_duration(text) else {
            let hint = "Valid units for this parameter are \"us\", \"ms\", \"s\", \"min\", \"h\", and \"d\"; a number \
                        alone is milliseconds.";
            return Err(self.invalid(text, hint.to_owned()));
        };
        if range.contains(&duration) {
            return Ok(duration);
        }
        let [low, high] = [range.start(), range.end()].map(|end| show_duration(*end));
        Err(self.invalid(text, format!("It must be between {low} and {high}.")))
    }

    fn invalid(self, text: &str, hint: String) -> BadSetting {
        BadSetting {
            sqlstate: sqlstate::INVALID_PARAMETER_VALUE,
            message: format!("invalid value for parameter \"{}\": \"{}\"", self.name(), shown(text)),
            hint,
        }
    }
}

fn available_levels() -> String {
    format!("Available values: {}.", Level::ALL.map(Level::as_str).join(", "))
}

fn token_hint(error: BadToken) -> String {
    let advice = match error {
        BadToken::NotAToken | BadToken::Damaged => "take it from SHOW causeway.position as it is",
        BadToken::UnknownVersion => "take it from a Causeway of this version",
    };
    format!("It is {error}; {advice}.")
}

fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

impl OwnValue {
    pub fn setting(self) -> OwnSetting {
        match self {
            Self::Consistency(_) => OwnSetting::Consistency,
            Self::MaxStaleness(_) => OwnSetting::MaxStaleness,
            Self::CausalWait(_) => OwnSetting::CausalWait,
            Self::After(_) => OwnSetting::After,
        }
    }
}

/// As `SHOW` answers; [`OwnSetting::parse`] reads it.
impl fmt::Display for OwnValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Consistency(level) => f.write_str(level.as_str()),
            Self::MaxStaleness(duration) | Self::CausalWait(duration) => f.write_str(&show_duration(*duration)),
            Self::After(position) => f.write_str(&position.map(Position::to_token).unwrap_or_default()),
        }
    }
}

impl Overrides {
    /// Takes a choice in, in place of an earlier one; `after` is none of these.
    pub fn choose(&mut self, value: OwnValue) {
        match value {
            OwnValue::Consistency(level) => self.level = Some(level),
            OwnValue::MaxStaleness(duration) => self.max_staleness = Some(duration),
            OwnValue::CausalWait(duration) => self.causal_wait = Some(duration),
            OwnValue::After(_) => {}
        }
    }
}

impl From<BadSetting> for Error {
    fn from(bad: BadSetting) -> Self {
        Self::new(Fault::Client, bad.sqlstate, bad.message).hint(bad.hint)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::Lsn;

    #[test]
    fn settings_have_names() {
        for setting in OwnSetting::ALL {
            assert_eq!(setting.name(), format!("{}.{}", OwnSetting::CLASS, setting.short_name()));
            assert_eq!(OwnSetting::find(&setting.name().to_uppercase()), Ok(setting));
            assert!(OwnSetting::is_own_name(setting.name()));
        }
        for (name, own) in [("Causeway.foo", true), ("causeway", false), ("causewayx.after", false), ("a.b", false)] {
            assert_eq!((OwnSetting::named(name), OwnSetting::is_own_name(name)), (None, own), "{name}");
        }
        let error = Error::from(OwnSetting::find("causeway.foo").unwrap_err());
        assert_eq!(error.sqlstate(), "42704");
        assert_eq!(error.message(), "unrecognized configuration parameter \"causeway.foo\"");
        assert!(error.hint_text().unwrap().contains("causeway.consistency, causeway.max_staleness"));
    }

    #[test]
    fn values_are_read() {
        let position = Position { system: 7, timeline: 2, lsn: Lsn(99) };
        for (setting, text, value, shown) in [
            (OwnSetting::Consistency, "STRONG", OwnValue::Consistency(Level::Strong), "strong"),
            (OwnSetting::MaxStaleness, "500", OwnValue::MaxStaleness(Duration::from_millis(500)), "500ms"),
            (OwnSetting::CausalWait, "0", OwnValue::CausalWait(Duration::ZERO), "0"),
            (OwnSetting::CausalWait, "1 min", OwnValue::CausalWait(Duration::from_secs(60)), "1min"),
            (OwnSetting::After, "", OwnValue::After(None), ""),
            (OwnSetting::After, &position.to_token(), OwnValue::After(Some(position)), &position.to_token()),
        ] {
            assert_eq!(setting.parse(text), Ok(value), "{text}");
            assert_eq!((value.setting(), value.to_string().as_str()), (setting, shown));
        }
    }

    #[test]
    fn values_that_cannot_be_are_refused_in_words() {
        let token = Position { system: 7, timeline: 2, lsn: Lsn(99) }.to_token();
        for (setting, text, sqlstate, hint) in [
            (
                OwnSetting::Consistency,
                "stong",
                "22023",
                "Available values: eventual, bounded, session, strong, primary.",
            ),
            (OwnSetting::Consistency, "", "22023", "Available values: "),
            (OwnSetting::MaxStaleness, "soon", "22023", "Valid units for this parameter are \"us\", \"ms\", "),
            (OwnSetting::MaxStaleness, "", "22023", "Valid units"),
            (OwnSetting::MaxStaleness, "-1", "22023", "Valid units"),
            (OwnSetting::MaxStaleness, "0", "22023", "between 1ms and 1d"),
            (OwnSetting::MaxStaleness, "25h", "22023", "between 1ms and 1d"),
            (OwnSetting::CausalWait, "2h", "22023", "between 0 and 1h"),
            (OwnSetting::After, "0/9002000", "22023", "It is not a token; take it from SHOW causeway.position"),
            (OwnSetting::After, &token[..40], "22023", "It is a damaged token; take it"),
            (OwnSetting::After, "cw9_1", "22023", "It is a token of a version that this Causeway does not know; "),
            (OwnSetting::Position, &token, "55P02", "set causeway.after"),
        ] {
            let error = Error::from(setting.parse(text).unwrap_err());
            assert_eq!(error.sqlstate(), sqlstate, "{text}");
            assert!(error.hint_text().unwrap().contains(hint), "{text}: {error:?}");
            let message = match setting {
                OwnSetting::Position => "parameter \"causeway.position\" cannot be changed".to_owned(),
                setting => format!("invalid value for parameter \"{}\": \"{text}\"", setting.name()),
            };
            assert_eq!(error.message(), message);
            assert_eq!(setting.may_be_set().is_err(), setting == OwnSetting::Position);
        }
        let long = OwnSetting::Consistency.parse(&"é\0".repeat(10_000)).unwrap_err();
        assert!(long.message.len() < 250 && !long.message.contains('\0'), "{}", long.message);
    }

    proptest! {
        #[test]
        fn any_value_is_survived_and_shown_as_it_is_read(text in ".{0,60}") {
            for setting in OwnSetting::ALL {
                if let Ok(value) = setting.parse(&text) {
                    prop_assert_eq!(setting.parse(&value.to_string()), Ok(value));
                }
            }
        }
    }
}
