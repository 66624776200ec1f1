//! The session's parameters: what the client asked for at login, what it has set since, and what it was told.

use std::sync::Arc;

use super::Lexis;
use super::own::{Own, take_own};
use crate::backend::params::{Params, ROLE, Reported, SESSION_AUTHORIZATION};
use crate::sql::Effects;
use crate::types::{OwnSetting, Position};
use crate::wire::backend::put_parameter_status;

/// What a server answered about one parameter; `None`: it has no such parameter.
pub type Setting = (Box<str>, Option<Box<[u8]>>);

#[derive(Debug)]
pub struct Settings {
    login: Arc<Params>,
    /// They follow the client from server to server.
    current: Arc<Params>,
    /// Those of them that a statement's meaning may depend on.
    meaning: Arc<Params>,
    /// What the client knows from ParameterStatus.
    told: Arc<Reported>,
    lexis: Lexis,
    /// Causeway's own: servers have them only for a batch that may look at them, which is then `shown` all.
    pub own: Own,
    shown: Option<Arc<Params>>,
}

impl Settings {
    pub fn new(login: Arc<Params>, told: Arc<Reported>, own: Own) -> Self {
        let lexis = Lexis::of(&told);
        Self { current: Arc::clone(&login), meaning: login.for_meaning(), login, told, lexis, own, shown: None }
    }

    pub fn login(&self) -> &Arc<Params> {
        &self.login
    }

    /// What a server must have for the session's next batch.
    pub fn current(&self) -> &Arc<Params> {
        self.shown.as_ref().unwrap_or(&self.current)
    }

    /// The next batch may look at Causeway's own settings.
    pub fn show_own(&mut self, position: Option<Position>) {
        self.shown = Some(Arc::new(self.own.shown(&self.current, position)));
    }

    pub fn hide_own(&mut self) {
        self.shown = None;
    }

    pub fn meaning(&self) -> &Arc<Params> {
        &self.meaning
    }

    pub fn lexis(&self) -> Lexis {
        self.lexis
    }

    /// What the client is sent may be any text in UTF-8.
    pub fn speaks_utf8(&self) -> bool {
        self.told.get("client_encoding") == Some(b"UTF8")
    }

    /// Every transaction is serializable, which a standby refuses.
    pub fn is_serializable(&self) -> bool {
        self.current.get("default_transaction_isolation") == Some(b"serializable")
    }

    /// Names that only a question by name finds: PostgreSQL lists no custom parameters, and not the role.
    pub fn unlisted(&self) -> impl Iterator<Item = &str> {
        let custom = self.current.iter().map(|(name, _)| name).filter(|name| name.contains('.'));
        custom.chain([SESSION_AUTHORIZATION, ROLE])
    }

    /// What a server has that had `before` and answers so of some of its parameters, to a session of `user`.
    pub fn found(mut before: Params, answers: &[Setting], user: &str) -> Params {
        let found = &mut before;
        for (name, value) in answers {
            let is_default = match &**name {
                ROLE => value.as_deref() == Some(b"none"),
                SESSION_AUTHORIZATION => value.as_deref() == Some(user.as_bytes()),
                _ => false,
            };
            match value {
                Some(value) if !is_default => found.set(name, value),
                _ => found.remove(name),
            }
        }
        before
    }

    /// The session has what its server has, and what it asked for at login where the server has nothing.
    pub fn take(&mut self, found: &Arc<Params>) {
        let missing = self.login.iter().any(|(name, _)| found.get(name).is_none());
        let mut wanted = Arc::clone(found);
        if wanted.iter().any(|(name, _)| OwnSetting::is_own_name(name)) {
            take_own(Arc::make_mut(&mut wanted));
        }
        if missing {
            let wanted = Arc::make_mut(&mut wanted);
            for (name, value) in self.login.iter() {
                if wanted.get(name).is_none() {
                    wanted.set(name, value);
                }
            }
        }
        self.current = if *wanted == *self.login { Arc::clone(&self.login) } else { wanted };
        let meaning = self.current.for_meaning();
        if *meaning != *self.meaning {
            self.meaning = meaning;
        }
    }

    /// A server with these parameters lacks nothing, and has nothing that others do not expect but Causeway's own.
    pub fn has_all_but_own(&self, applied: &Params) -> bool {
        applied.iter().filter(|(name, _)| !OwnSetting::is_own_name(name)).eq(self.current.iter())
    }

    /// What RESET ALL leaves: who the session is.
    pub fn identity_in(params: &Params) -> Params {
        let mut identity = Params::default();
        for name in [SESSION_AUTHORIZATION, ROLE] {
            if let Some(value) = params.get(name) {
                identity.set(name, value);
            }
        }
        identity
    }

    /// The client reads this ParameterStatus.
    pub fn told(&mut self, name: &[u8], value: &[u8]) {
        if self.told.get_bytes(name) != Some(value) {
            Arc::make_mut(&mut self.told).set(name, value);
            self.lexis = Lexis::of(&self.told);
        }
    }

    /// What the client must be told of a server that reports other values than it knows.
    pub fn put_news(&mut self, reported: &Reported, out: &mut Vec<u8>) {
        // Through Causeway a session can write, whichever node it reads from.
        for (name, value) in reported.iter().filter(|(name, _)| *name != b"in_hot_standby") {
            if self.told.get_bytes(name) != Some(value) {
                put_parameter_status(out, name, value);
                self.told(name, value);
            }
        }
    }
}

/// What the batches since the last audit may have done to the session.
#[derive(Debug, Default)]
pub struct Unaudited {
    pub effects: Effects,
    names: Vec<Box<str>>,
}

/// A text that names more is taken to set a parameter that nobody knows.
const MAX_NAMES: usize = 64;

impl Unaudited {
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }

    pub fn names(&self) -> &[Box<str>] {
        &self.names
    }

    pub fn note(&mut self, effects: Effects, names: &[Box<str>]) {
        self.effects = self.effects.union(effects);
        for name in names {
            if self.names.len() >= MAX_NAMES {
                self.effects = self.effects.union(Effects::SET_UNNAMED);
                return;
            }
            if !self.names.contains(name) {
                self.names.push(name.clone());
            }
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
