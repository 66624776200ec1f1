//! Causeway's own settings, as a session has them: PostgreSQL keeps them like any custom parameter, we act on them.

use crate::backend::params::Params;
use crate::error::{Error, Result};
use crate::types::{BadSetting, Consistency, Overrides, OwnSetting, OwnValue, Position};

/// What a session says that its reads may see.
#[derive(Debug)]
pub struct Own {
    /// What RESET goes back to: as configured, and as the client asked for at login.
    defaults: Consistency,
    default_after: Option<Position>,
    consistency: Consistency,
    after: Option<Position>,
    /// A value that cannot be, set in a way that nobody could refuse.
    bad: Option<Box<BadSetting>>,
}

impl Own {
    /// Takes what is the session's own out of the parameters that the client asked for at login.
    ///
    /// # Errors
    /// There is no such setting, or it cannot have that value.
    pub fn new(configured: Consistency, login: &mut Params) -> Result<Self> {
        let mut overrides = Overrides::default();
        let mut after = None;
        for (name, value) in take_own(login) {
            match OwnSetting::find(&name)?.parse(&String::from_utf8_lossy(&value))? {
                OwnValue::After(position) => after = position,
                value => overrides.choose(value),
            }
        }
        let defaults = overrides.over(configured);
        Ok(Self { defaults, default_after: after, consistency: defaults, after, bad: None })
    }

    /// What was promised to a statement that says nothing of its own.
    ///
    /// # Errors
    /// It was set to what cannot be.
    pub fn consistency(&self) -> Result<Consistency> {
        self.bad.as_deref().map_or(Ok(self.consistency), |bad| Err(Error::from(bad.clone())))
    }

    pub fn after(&self) -> Option<Position> {
        self.after
    }

    /// The session's settings are what they were at login.
    pub fn reset(&mut self) {
        (self.consistency, self.after, self.bad) = (self.defaults, self.default_after, None);
    }

    /// One is set; `None` or nothing: reset.
    pub fn set(&mut self, name: &str, value: Option<&[u8]>) {
        let text = String::from_utf8_lossy(value.unwrap_or_default());
        if text.is_empty() {
            self.reset_one(name);
        } else if let Err(bad) = OwnSetting::find(name).and_then(|setting| setting.parse(&text)).map(|v| self.choose(v))
        {
            self.bad = Some(Box::new(bad));
        }
    }

    pub fn choose(&mut self, value: OwnValue) {
        match value {
            OwnValue::After(position) => self.after = position,
            value => {
                let mut one = Overrides::default();
                one.choose(value);
                self.consistency = one.over(self.consistency);
            }
        }
        self.bad = None;
    }

    fn reset_one(&mut self, name: &str) {
        match OwnSetting::named(name) {
            Some(OwnSetting::Consistency) => self.consistency.level = self.defaults.level,
            Some(OwnSetting::MaxStaleness) => self.consistency.max_staleness = self.defaults.max_staleness,
            Some(OwnSetting::CausalWait) => self.consistency.causal_wait = self.defaults.causal_wait,
            Some(OwnSetting::After) => self.after = self.default_after,
            Some(OwnSetting::Position) | None => {}
        }
        self.bad = None;
    }

    /// The parameters with what a server must answer about these settings.
    pub fn shown(&self, params: &Params, position: Option<Position>) -> Params {
        let Consistency { level, max_staleness, causal_wait } = self.consistency;
        let mut shown = params.clone();
        let values = [
            OwnValue::Consistency(level),
            OwnValue::MaxStaleness(max_staleness),
            OwnValue::CausalWait(causal_wait),
            OwnValue::After(self.after),
        ];
        for value in values {
            shown.set(value.setting().name(), value.to_string().as_bytes());
        }
        let position = position.map(Position::to_token).unwrap_or_default();
        shown.set(OwnSetting::Position.name(), position.as_bytes());
        shown
    }
}

/// Removes and returns all whose names are Causeway's.
pub fn take_own(params: &mut Params) -> Vec<(Box<str>, Box<[u8]>)> {
    let own: Vec<_> = params
        .iter()
        .filter(|(name, _)| OwnSetting::is_own_name(name))
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    own.iter().for_each(|(name, _): &(Box<str>, Box<[u8]>)| params.remove(name));
    own
}
