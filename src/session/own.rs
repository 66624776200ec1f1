//! Causeway's own settings, as a session has them: PostgreSQL keeps them like any custom parameter, we act on them.

use std::sync::Arc;

use crate::backend::params::Params;
use crate::error::{Error, Result};
use crate::types::{BadSetting, Consistency, Overrides, OwnSetting, OwnValue, Position};

/// What a session says that its reads may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Promise {
    consistency: Consistency,
    after: Option<Position>,
}

/// Causeway's own settings of one session.
#[derive(Debug)]
pub struct Own {
    /// What RESET goes back to: as configured, and as the client asked for at login.
    login: Arc<Promise>,
    /// The same one, mostly.
    current: Arc<Promise>,
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
        let login = Arc::new(Promise { consistency: overrides.over(configured), after });
        Ok(Self { current: Arc::clone(&login), login, bad: None })
    }

    /// What was promised to a statement that says nothing of its own.
    ///
    /// # Errors
    /// It was set to what cannot be.
    pub fn consistency(&self) -> Result<Consistency> {
        self.bad.as_deref().map_or(Ok(self.current.consistency), |bad| Err(Error::from(bad.clone())))
    }

    pub fn after(&self) -> Option<Position> {
        self.current.after
    }

    /// The session's settings are what they were at login.
    pub fn reset(&mut self) {
        self.current = Arc::clone(&self.login);
        self.bad = None;
    }

    /// One is set; `None` or nothing: reset.
    pub fn set(&mut self, name: &str, value: Option<&[u8]>) {
        let text = String::from_utf8_lossy(value.unwrap_or_default());
        let value = OwnSetting::find(name).and_then(|setting| {
            if text.is_empty() { Ok(self.at_login(setting)) } else { setting.parse(&text).map(Some) }
        });
        match value {
            Ok(value) => value.into_iter().for_each(|value| self.choose(value)),
            Err(bad) => self.bad = Some(Box::new(bad)),
        }
    }

    /// What RESET gives it; `None`: it cannot be set.
    pub fn at_login(&self, setting: OwnSetting) -> Option<OwnValue> {
        let Promise { consistency, after } = *self.login;
        Some(match setting {
            OwnSetting::Consistency => OwnValue::Consistency(consistency.level),
            OwnSetting::MaxStaleness => OwnValue::MaxStaleness(consistency.max_staleness),
            OwnSetting::CausalWait => OwnValue::CausalWait(consistency.causal_wait),
            OwnSetting::After => OwnValue::After(after),
            OwnSetting::Position => return None,
        })
    }

    pub fn choose(&mut self, value: OwnValue) {
        let mut promise = *self.current;
        match value {
            OwnValue::After(position) => promise.after = position,
            value => {
                let mut one = Overrides::default();
                one.choose(value);
                promise.consistency = one.over(promise.consistency);
            }
        }
        self.current = if promise == *self.login { Arc::clone(&self.login) } else { Arc::new(promise) };
        self.bad = None;
    }

    /// The parameters with what a server must answer about these settings.
    pub fn shown(&self, params: &Params, position: Option<Position>) -> Params {
        let Promise { consistency: Consistency { level, max_staleness, causal_wait }, after } = *self.current;
        let mut shown = params.clone();
        let values = [
            OwnValue::Consistency(level),
            OwnValue::MaxStaleness(max_staleness),
            OwnValue::CausalWait(causal_wait),
            OwnValue::After(after),
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
