//! Causeway's own settings, as a session has them: PostgreSQL keeps them like any custom parameter, we act on them.

use std::cell::RefCell;
use std::sync::Arc;

use super::batch::End;
use super::lead::Task;
use super::meet::Quest;
use super::survey::Survey;
use super::{Ended, Session};
use crate::backend::params::Params;
use crate::error::{Error, Fault, Result, sqlstate};
use crate::route::Route;
use crate::sql::{self, Assigned, Effects, Hints, OwnSet};
use crate::topology::Holds;
use crate::types::{BadSetting, Consistency, Level, Overrides, OwnSetting, OwnValue, Position};
use crate::wire::backend::TransactionStatus;
use crate::wire::frame::HEADER_BYTES;
use crate::wire::frontend::query;

/// What a session says that its reads may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    consistency: Consistency,
    after: Option<Position>,
}

/// What a transaction on a replica has said about its reads.
#[derive(Debug, Default)]
pub struct Wishes {
    /// With its BEGIN.
    pub begun: Hints,
    /// By SET since then.
    pub raised: Hints,
}

/// Causeway's own settings of one session.
#[derive(Debug)]
pub struct Own {
    /// What RESET goes back to: as configured, and as the client asked for at login.
    login: Arc<Promise>,
    /// The same one, mostly.
    current: Arc<Promise>,
    /// Values that cannot be, by the names that they were given in a way that nobody could refuse.
    bad: Box<[(Box<str>, BadSetting)]>,
}

impl Own {
    /// Takes what is the session's own out of the parameters that the client asked for at login. `last`: what the session
    /// before was promised, which is mostly the same.
    ///
    /// # Errors
    /// There is no such setting, or it cannot have that value.
    pub fn new(configured: Consistency, login: &mut Params, last: &RefCell<Option<Arc<Promise>>>) -> Result<Self> {
        let mut overrides = Overrides::default();
        let mut after = None;
        for (name, value) in take_own(login) {
            match OwnSetting::find(&name)?.parse(&String::from_utf8_lossy(&value))? {
                OwnValue::After(position) => after = position,
                value => overrides.choose(value),
            }
        }
        let promise = Promise { consistency: overrides.over(configured), after };
        let mut last = last.borrow_mut();
        let login = match &*last {
            Some(last) if **last == promise => Arc::clone(last),
            _ => Arc::clone(last.insert(Arc::new(promise))),
        };
        Ok(Self { current: Arc::clone(&login), login, bad: Box::default() })
    }

    /// What was promised to a statement that says nothing of its own.
    ///
    /// # Errors
    /// It was set to what cannot be.
    pub fn consistency(&self) -> Result<Consistency> {
        self.bad.first().map_or(Ok(self.current.consistency), |(_, bad)| Err(Error::from(bad.clone())))
    }

    /// The same, whatever it was set to since.
    pub fn last_consistency(&self) -> Consistency {
        self.current.consistency
    }

    /// Since login.
    pub fn level_is_set(&self) -> bool {
        self.current.consistency.level != self.login.consistency.level
    }

    pub fn after(&self) -> Option<Position> {
        self.current.after
    }

    /// The session's settings are what they were at login.
    pub fn reset(&mut self) {
        self.current = Arc::clone(&self.login);
        self.bad = Box::default();
    }

    /// It was given a value that cannot be.
    pub fn is_bad(&self, name: &str) -> bool {
        self.bad.iter().any(|(bad, _)| **bad == *name)
    }

    /// RESET would change something.
    pub fn is_set(&self) -> bool {
        self.current != self.login || !self.bad.is_empty()
    }

    /// One is set; `None` or nothing: reset.
    pub fn set(&mut self, name: &str, value: Option<&[u8]>) {
        self.mend(name);
        let text = String::from_utf8_lossy(value.unwrap_or_default());
        let value = if text.is_empty() {
            Ok(OwnSetting::named(name).and_then(|setting| self.at_login(setting)))
        } else {
            OwnSetting::find(name).and_then(|setting| setting.parse(&text)).map(Some)
        };
        match value {
            Ok(value) => value.into_iter().for_each(|value| self.choose(value)),
            Err(bad) => self.bad = std::mem::take(&mut self.bad).into_iter().chain([(name.into(), bad)]).collect(),
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
        self.mend(value.setting().name());
    }

    fn mend(&mut self, name: &str) {
        if self.is_bad(name) {
            self.bad = std::mem::take(&mut self.bad).into_iter().filter(|(bad, _)| **bad != *name).collect();
        }
    }

    /// What RESET ALL gives.
    pub fn all_at_login(&self) -> Params {
        let mut params = Params::default();
        self.login.put(&mut params);
        params
    }

    /// The parameters with what a server must answer about these settings.
    pub fn shown(&self, params: &Params, position: Option<Position>) -> Params {
        let mut shown = params.clone();
        self.current.put(&mut shown);
        let position = position.map(Position::to_token).unwrap_or_default();
        shown.set(OwnSetting::Position.name(), position.as_bytes());
        shown
    }
}

impl Promise {
    fn put(&self, params: &mut Params) {
        let Consistency { level, max_staleness, causal_wait } = self.consistency;
        let values = [
            OwnValue::Consistency(level),
            OwnValue::MaxStaleness(max_staleness),
            OwnValue::CausalWait(causal_wait),
            OwnValue::After(self.after),
        ];
        for value in values {
            params.set(value.setting().name(), value.to_string().as_bytes());
        }
    }
}

/// Removes and returns all whose names are Causeway's.
pub fn take_own(params: &mut Params) -> Vec<(Box<str>, Box<[u8]>)> {
    let own: Vec<(Box<str>, Box<[u8]>)> = params
        .iter()
        .filter(|(name, _)| OwnSetting::is_own_name(name))
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    for (name, _) in &own {
        params.remove(name);
    }
    own
}

impl Session {
    /// SET of one of Causeway's settings, alone, needs no server. Gives the whole answer, or `None`: it is more than that.
    pub(super) fn set_own(&mut self, survey: &Survey, bytes: usize, end: End) -> Option<Result<()>> {
        let own =
            survey.own.as_ref().filter(|own| own.refusal.is_none() && self.held.is_none() && end == End::Query)?;
        let text = query(self.client.input.get(HEADER_BYTES..bytes)?).ok()?.trim_ascii_end();
        let is_alone = !text.strip_suffix(b";").unwrap_or(text).contains(&b';');
        let [OwnSet { setting, to, local: false }] = *own.sets else { return None };
        if !is_alone || !own.hints.is_empty() || survey.effects.without(Effects::SET | Effects::RESET) != Effects::NONE
        {
            return None;
        }
        if let Err(error) = self.check_wishes(survey) {
            return Some(Err(error));
        }
        let value = match to {
            Assigned::Value(value) => value,
            Assigned::Default => self.settings.own.at_login(setting)?,
            Assigned::Unread => return None,
        };
        self.settings.own.choose(value);
        self.causality.set_after(self.settings.own.after());
        Some(Ok(()))
    }

    /// What a batch says to Causeway must be possible, and for where it runs.
    ///
    /// # Errors
    /// What is wrong with it; nothing of it must run.
    pub(super) fn check_wishes(&self, survey: &Survey) -> Result<()> {
        let Some(own) = survey.own.as_ref().filter(|_| self.status() != TransactionStatus::Failed) else {
            return self.check_hidden_wish(survey);
        };
        if let Some(refusal) = &own.refusal {
            return Err(refusal.clone().into());
        }
        let set = own.sets.iter().filter_map(|set| match set.to {
            Assigned::Value(OwnValue::After(after)) => after,
            _ => None,
        });
        let view = self.view();
        for position in own.hints.after.into_iter().chain(set) {
            if view.history.holds(position) == Holds::OtherSystem {
                return Err(foreign(&self.cluster.config.name));
            }
        }
        let wants_primary = |set: &OwnSet| set.to == Assigned::Value(OwnValue::Consistency(Level::Primary));
        if self.is_on_replica() && own.sets.iter().any(wants_primary) {
            return Err(Error::new(Fault::Client, sqlstate::FEATURE_NOT_SUPPORTED, NOT_IN_TRANSACTION)
                .hint("Begin it with /* causeway: primary */ BEGIN READ ONLY."));
        }
        if own.sets.is_empty() || own.sets.iter().any(|set| set.to == Assigned::Unread) {
            return self.check_hidden_wish(survey);
        }
        Ok(())
    }

    /// In a transaction on a replica, what `set_config` does to a setting of Causeway's would go unnoticed.
    fn check_hidden_wish(&self, survey: &Survey) -> Result<()> {
        let sets = survey.settings.iter().any(|name| OwnSetting::is_own_name(name));
        if !sets || !self.is_on_replica() || self.status() == TransactionStatus::Failed {
            return Ok(());
        }
        let message =
            "in a READ ONLY transaction on a replica, Causeway's settings can be set by SET LOCAL with a literal only";
        Err(Error::new(Fault::Client, sqlstate::FEATURE_NOT_SUPPORTED, message)
            .hint("Use SET LOCAL, or begin with /* causeway: primary */ BEGIN READ ONLY."))
    }

    fn is_on_replica(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.on_replica)
    }

    /// Brings what a statement may ask of Causeway's settings to where it will run. The inner error: the session's
    /// position cannot be learned.
    pub(super) async fn show_own(&mut self, task: &Task, quest: &mut Quest) -> Result<Result<()>, Ended> {
        let batch = &self.client.input[..task.bytes];
        let position = if memchr::memmem::find(&batch.to_ascii_lowercase(), b"position").is_some() {
            match self.position(quest).await {
                Ok(position) => position,
                Err(error) => return Ok(Err(error)),
            }
        } else {
            None
        };
        match self.status() {
            TransactionStatus::Idle => self.settings.show_own(position),
            TransactionStatus::InTransaction if !self.pipeline_open => {
                // What the transaction has set itself is there.
                let shown = self.settings.own.shown(&Params::default(), position);
                let sql =
                    shown.utility_sql("SET LOCAL", |name| !self.unaudited.names().iter().any(|set| **set == *name));
                if let Err(error) = self.ask(&sql, 1).await? {
                    return Ok(Err(error));
                }
            }
            TransactionStatus::InTransaction | TransactionStatus::Failed => {}
        }
        Ok(Ok(()))
    }

    /// What came of it, only a server tells that was shown what there was before.
    pub(super) fn resets_own_among_others(&self, survey: &Survey) -> bool {
        survey.effects.intersects(Effects::CLEAR_SET) && self.settings.own.is_set()
    }

    /// In a transaction, what RESET gives is said to the server as a SET: a rollback then takes back what is there, and
    /// SHOW answers it. A server knows nothing of what the session had at login.
    pub(super) async fn spell_out_resets(&mut self, survey: &Survey) -> Result<(), Ended> {
        const RESETS: Effects = Effects::RESET.union(Effects::CLEAR_SET);
        if self.status() != TransactionStatus::InTransaction || self.pipeline_open || !survey.effects.intersects(RESETS)
        {
            return Ok(());
        }
        let all = survey.effects.intersects(Effects::CLEAR_SET);
        let at_login = self.settings.own.all_at_login();
        let sets = || survey.own.iter().flat_map(|own| &own.sets).filter(|set| set.to != Assigned::Default);
        let is_set = |name: &str| sets().any(|set| set.setting.name() == name);
        let is_named = |name: &str| survey.settings.iter().any(|setting| **setting == *name);
        let names = OwnSetting::ALL.map(OwnSetting::name).into_iter();
        let names: Vec<Box<str>> = names.filter(|name| all || is_named(name)).map(Into::into).collect();
        let sql = at_login.utility_sql("SET", |name| names.iter().any(|reset| **reset == *name) && !is_set(name));
        if !sql.is_empty() {
            // If it does not work, the transaction has failed, which the client sees.
            let _ = self.ask(&sql, 1).await?;
            self.unaudited.note(Effects::SET, &names);
        }
        Ok(())
    }

    /// What stands for all that the session has seen; `None`: it has seen nothing.
    async fn position(&mut self, quest: &mut Quest) -> Result<Option<Position>> {
        self.resolve_for_nothing();
        if self.causality.seen().is_some() {
            self.pursue(Route::Ask, quest).await?;
        }
        if self.causality.seen().is_none() {
            return Ok(self.causality.position());
        }
        let message = format!(
            "the session's position in cluster {:?} cannot be learned now: its primary did not answer within \
             causeway.causal_wait",
            self.cluster.config.name
        );
        Err(Error::new(Fault::Node, sqlstate::CANNOT_CONNECT_NOW, message))
    }

    /// A batch that said something to Causeway is done: in a transaction on a replica, that counts from now on.
    pub(super) fn take_wishes(&mut self, own: &sql::Own, begins: bool) {
        if !begins && own.sets.is_empty() || self.status() == TransactionStatus::Idle || !self.is_on_replica() {
            return;
        }
        let wishes = self.in_transaction.get_or_insert_default();
        if begins {
            wishes.begun = own.hints;
        }
        let raised = &mut wishes.raised;
        for set in &own.sets {
            match set.to {
                Assigned::Value(OwnValue::After(after)) => raised.after = raised.after.max(after),
                Assigned::Value(value) => raised.overrides.choose(value),
                // Not less strict than it was.
                Assigned::Default | Assigned::Unread => {}
            }
        }
    }
}

const NOT_IN_TRANSACTION: &str = "a READ ONLY transaction on a replica cannot go to the primary";

pub(super) fn foreign(cluster: &str) -> Error {
    let message =
        format!("invalid value for parameter \"causeway.after\": the token is of another cluster than {cluster:?}");
    Error::new(Fault::Client, sqlstate::INVALID_PARAMETER_VALUE, message)
        .hint("Use it with the database that SHOW causeway.position was asked of.")
}
