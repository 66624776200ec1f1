//! What a session has left on its server: asked, not guessed, when a batch may have changed it and no transaction runs.
//!
//! The server knows what a SET, a rollback, a function or a DO block came to; so parameters follow the client exactly,
//! and a pin is over when its reason is. A session that only reads and writes is never asked about.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::pins::{Pin, Pins};
use super::settings::{Setting, Settings};
use super::{Ended, Session};
use crate::backend::params::{Params, put_literal};
use crate::sql::Effects;
use crate::types::{OwnSetting, PoolMode};
use crate::wire::backend::TransactionStatus;

/// What an audit asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Plan {
    settings: About,
    pins: Pins,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum About {
    #[default]
    Nothing,
    Named,
    All,
}

impl Plan {
    fn of(effects: Effects, are_named: bool, pins: Pins) -> Self {
        // What goes back to a default is no longer set, which only the list of all tells.
        const ALL: Effects =
            Effects::HIDDEN.union(Effects::SET_UNNAMED).union(Effects::CLEAR_SET).union(Effects::RESET);
        let settings = match effects {
            _ if effects.intersects(ALL) => About::All,
            _ if !effects.intersects(Effects::SET) => About::Nothing,
            _ if are_named => About::Named,
            _ => About::All,
        };
        Self { settings, pins: pins.doubtful(effects) }
    }

    fn asks(self) -> bool {
        self.settings != About::Nothing || !self.pins.is_empty()
    }
}

/// A cancel request of the client's may hit a question of ours.
const TRIES: usize = 2;

impl Session {
    /// Takes in what the batches since the last audit have left on the server, once no transaction runs.
    pub(super) async fn audit(&mut self) -> Result<(), Ended> {
        let is_idle = self.held.as_ref().is_some_and(|held| held.lease.status == TransactionStatus::Idle);
        if self.unaudited.is_empty() || !is_idle || self.pipeline_open {
            return Ok(());
        }
        let effects = self.unaudited.effects;
        // Before its transaction has committed, a change could not be found.
        if effects.intersects(Effects::DDL) {
            self.facts.request_refresh();
            self.ddl_at = Some(Instant::now());
        }
        let plan = Plan::of(effects, !self.unaudited.names().is_empty(), self.pins);
        if self.mode == PoolMode::Session {
            // It keeps its server anyway; what there is need not be known, only that there may be something.
            let has_own = plan.asks() || effects.intersects(Effects::LASTING);
            self.pins = if has_own { self.pins.with(Pin::Set) } else { self.pins };
            if effects.intersects(Effects::CLEAR_SET) || self.unaudited.names().iter().any(|name| is_own(name)) {
                Box::pin(self.audit_own()).await?;
            }
            self.unaudited.clear();
            return Ok(());
        }
        self.drop_own_names().await?;
        self.pin(Pins::untold(effects));
        if effects.intersects(Effects::SEQUENCE) && self.facts.uses_currval.load(Relaxed) {
            self.pin(Pins::default().with(Pin::Sequence));
        }
        if plan.asks() {
            // On the heap, as all questions are: an idle session should be small.
            Box::pin(self.carry_out(plan)).await?;
        }
        self.unaudited.clear();
        Ok(())
    }

    async fn carry_out(&mut self, plan: Plan) -> Result<(), Ended> {
        // A cancel request that is still under way may reach this server any time.
        let cancelled = self.registration.slot.is_done();
        self.held.iter_mut().for_each(|held| held.cancelled |= cancelled);
        let question = self.question(plan);
        for _ in 0..TRIES {
            match self.ask(&question, 1).await? {
                Ok(asked) => return self.take_answers(plan, &asked.rows).await,
                // It is gone, or its answer may still come: with it goes what the session may have there.
                Err(error) if self.held.as_ref().is_none_or(|held| held.owes) => return Err(Ended::Farewell(error)),
                Err(error) => tracing::debug!(%error, "a server did not say what a session has left there"),
            }
        }
        let unknown = if plan.settings == About::Nothing { Pins::default() } else { Pins::default().with(Pin::Set) };
        self.pin(plan.pins.union(unknown));
        Ok(())
    }

    /// Where a server is the session's alone, only Causeway's settings are to be known: SHOW answers what they are.
    async fn audit_own(&mut self) -> Result<(), Ended> {
        let mut question = Vec::new();
        put_named(&mut question, &OwnSetting::ALL.map(OwnSetting::name));
        let Ok(asked) = self.ask(&question, 1).await? else { return Ok(()) };
        self.take_own_answers(&asked.rows);
        if let Some(held) = &mut self.held {
            let found = Settings::found(Params::clone(held.lease.applied()), &asked.rows, &self.pools.login.user);
            held.lease.has_parameters(Arc::new(found));
        }
        Ok(())
    }

    fn question(&self, plan: Plan) -> Vec<u8> {
        let mut sql = Vec::new();
        let mut part = |text: &str| {
            if !sql.is_empty() {
                sql.extend_from_slice(b" UNION ALL ");
            }
            sql.extend_from_slice(text.as_bytes());
        };
        if plan.settings == About::All {
            part(
                "SELECT name, pg_catalog.current_setting(name, true) FROM pg_catalog.pg_show_all_settings() \
                 WHERE source OPERATOR(pg_catalog.=) 'session' \
                 AND NOT pg_catalog.starts_with(name, 'transaction_')",
            );
        }
        for pin in plan.pins.iter() {
            if let Some(holds) = pin.holds() {
                part(&format!("SELECT '{PIN}{}', '' WHERE {holds}", pin.as_str()));
            }
        }
        if plan.settings != About::Nothing {
            part("");
            put_named(&mut sql, &self.names_to_ask(plan.settings));
        }
        sql
    }

    fn names_to_ask(&self, about: About) -> Vec<&str> {
        let named = self.unaudited.names().iter().map(|name| &**name);
        let mut names: Vec<&str> = if about == About::All {
            let shown = self.held.iter().flat_map(|held| held.lease.applied().iter()).map(|(name, _)| name);
            let shown = shown.filter(|name| is_own(name));
            named.filter(|name| name.contains('.')).chain(self.settings.unlisted()).chain(shown).collect()
        } else {
            named.collect()
        };
        names.sort_unstable();
        names.dedup();
        names
    }

    async fn take_answers(&mut self, plan: Plan, rows: &[Setting]) -> Result<(), Ended> {
        let is_pin =
            |name: &str| name.strip_prefix(PIN).and_then(|name| Pin::ALL.into_iter().find(|p| p.as_str() == name));
        let found = rows.iter().filter_map(|(name, _)| is_pin(name)).fold(Pins::default(), Pins::with);
        self.pin(found);
        self.pins = self.pins.without(plan.pins.without(found));
        if plan.settings == About::Nothing {
            return Ok(());
        }
        let settings: Vec<Setting> = rows.iter().filter(|(name, _)| is_pin(name).is_none()).cloned().collect();
        self.take_own_answers(&settings);
        let Some(held) = &mut self.held else { return Ok(()) };
        let before = if plan.settings == About::All { Params::default() } else { Params::clone(held.lease.applied()) };
        let found = Settings::found(before, &settings, &self.pools.login.user);
        self.server_has(Arc::new(found)).await
    }

    /// Causeway's own settings: what the server was shown is nothing new, and where it was shown nothing, nothing is;
    /// but it takes the place of what cannot be.
    fn take_own_answers(&mut self, answers: &[Setting]) {
        let Some(held) = &mut self.held else { return };
        let applied = Arc::clone(held.lease.applied());
        for (name, value) in answers.iter().filter(|(name, _)| is_own(name)) {
            let shown = applied.get(name);
            let is_news = value.as_deref().unwrap_or_default() != shown.unwrap_or_default();
            if is_news || self.settings.own.is_bad(name) {
                self.settings.own.set(name, value.as_deref());
            }
        }
        self.causality.set_after(self.settings.own.after());
    }

    /// The server has these parameters now, because the client changed them; what it asked for at login is there again.
    async fn server_has(&mut self, found: Arc<Params>) -> Result<(), Ended> {
        let Some(held) = &mut self.held else { return Ok(()) };
        self.settings.take(&found);
        held.lease.has_parameters(found);
        if self.settings.has_all_but_own(held.lease.applied()) {
            return Ok(());
        }
        // At once, so that the client reads of it in order.
        match self.bring_up_to_date().await? {
            Ok(()) => Ok(()),
            Err(error) => Err(Ended::Farewell(error)),
        }
    }

    /// RESET ALL or DISCARD ALL is done, and nothing else was.
    pub(super) async fn all_was_reset(&mut self, discarded: bool) -> Result<(), Ended> {
        self.settings.own.reset();
        self.causality.set_after(self.settings.own.after());
        let Some(held) = &mut self.held else { return Ok(()) };
        if discarded {
            self.pins = Pins::default();
            held.lease.tainted = false;
        }
        let left = if discarded { Params::default() } else { Settings::identity_in(held.lease.applied()) };
        self.server_has(Arc::new(left)).await
    }

    fn pin(&mut self, pins: Pins) {
        let new = pins.without(self.pins);
        for pin in new.iter() {
            self.worker.shared.metrics.pins(pin.as_str()).inc();
            tracing::debug!(pin = pin.as_str(), user = self.pools.login.user, "the session is pinned");
        }
        self.pins = self.pins.union(new);
    }
}

fn is_own(name: &str) -> bool {
    OwnSetting::is_own_name(name)
}

/// Asks for these parameters by their names.
fn put_named(sql: &mut Vec<u8>, names: &[&str]) {
    sql.extend_from_slice(b"SELECT name, pg_catalog.current_setting(name, true) FROM pg_catalog.unnest(ARRAY[");
    for (n, name) in names.iter().enumerate() {
        if n > 0 {
            sql.push(b',');
        }
        put_literal(sql, name.as_bytes());
    }
    sql.extend_from_slice(b"]::pg_catalog.text[]) name");
}

/// No parameter's name begins so.
const PIN: &str = "pin: ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_have_changed_is_asked() {
        use Effects as E;
        let temp = Pins::default().with(Pin::Temp);
        for (effects, pins, settings, asked) in [
            (E::LOCAL, Pins::default(), About::Nothing, Pins::default()),
            (E::SET, Pins::default(), About::Named, Pins::default()),
            (E::SET | E::RESET, Pins::default(), About::All, Pins::default()),
            (E::TEMP, Pins::default(), About::Nothing, temp),
            (E::CLEAR_TEMP, Pins::default(), About::Nothing, Pins::default()),
            (E::CLEAR_TEMP | E::SET, temp, About::Named, temp),
        ] {
            assert_eq!(Plan::of(effects, true, pins), Plan { settings, pins: asked }, "{effects}");
        }
    }
}
