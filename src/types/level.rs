//! What a read may see, and how a wish for it is laid over another.

use std::time::Duration;

/// What a read may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Any replica within `routing.max_lag`.
    Eventual,
    /// Nothing older than `max_staleness`.
    Bounded,
    /// The session's own writes, and never back in time.
    Session,
    /// All that was committed before the read began, whoever wrote it.
    Strong,
    /// Reads go to the primary.
    Primary,
}

impl Level {
    pub const ALL: [Self; 5] = [Self::Eventual, Self::Bounded, Self::Session, Self::Strong, Self::Primary];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Eventual => "eventual",
            Self::Bounded => "bounded",
            Self::Session => "session",
            Self::Strong => "strong",
            Self::Primary => "primary",
        }
    }

    /// Whatever its case; `None`: there is no such level.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str().eq_ignore_ascii_case(name))
    }
}

/// What is promised to a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Consistency {
    pub level: Level,
    /// For [`Level::Bounded`]: how old what is read may be.
    pub max_staleness: Duration,
    /// How long a read waits for a replica to reach the position that it needs, before it goes elsewhere.
    pub causal_wait: Duration,
}

/// The parts of a [`Consistency`] that somebody has chosen; the others stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Overrides {
    pub level: Option<Level>,
    pub max_staleness: Option<Duration>,
    pub causal_wait: Option<Duration>,
}

impl Overrides {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What was chosen here, and the rest of `base`.
    #[must_use]
    pub fn over(self, base: Consistency) -> Consistency {
        Consistency {
            level: self.level.unwrap_or(base.level),
            max_staleness: self.max_staleness.unwrap_or(base.max_staleness),
            causal_wait: self.causal_wait.unwrap_or(base.causal_wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_names_in_any_case() {
        for level in Level::ALL {
            assert_eq!(Level::named(level.as_str()), Some(level));
            assert_eq!(Level::named(&level.as_str().to_uppercase()), Some(level));
        }
        for bad in ["", "stong", "strong ", "strongest"] {
            assert_eq!(Level::named(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_chosen_lies_over_the_rest() {
        let time = Duration::from_millis;
        let base = Consistency { level: Level::Session, max_staleness: time(1), causal_wait: time(2) };
        let none = Overrides::default();
        for (over, expected) in [
            (none, base),
            (Overrides { level: Some(Level::Strong), ..none }, Consistency { level: Level::Strong, ..base }),
            (Overrides { max_staleness: Some(time(9)), ..none }, Consistency { max_staleness: time(9), ..base }),
            (Overrides { causal_wait: Some(time(9)), ..none }, Consistency { causal_wait: time(9), ..base }),
        ] {
            assert_eq!(over.over(base), expected);
            assert_eq!(over.is_empty(), over == none);
        }
    }
}
