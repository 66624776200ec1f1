//! A login to the admin console: who may, and what is handed over to it.

use std::sync::Arc;

use super::cancel::{Registration, Who};
use super::census::ClientCount;
use super::worker::Shared;
use crate::backend::params::Reported;
use crate::config::CONSOLE_DATABASES;
use crate::error::{Error, Fault, Result, sqlstate};
use crate::metrics::GaugeGuard;
use crate::net::login::LoginIo;
use crate::wire::startup::CancelKey;

/// What a user may do in the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rights {
    Look,
    Everything,
}

/// A client of the console, logged in and greeted.
#[derive(Debug)]
pub struct Visitor {
    pub shared: Arc<Shared>,
    pub io: LoginIo,
    pub rights: Rights,
    pub registration: Registration,
    /// It counts among the clients until it goes.
    pub counted: (GaugeGuard, ClientCount),
}

/// The same on the way there.
#[derive(Debug)]
pub(super) struct Visit {
    rights: Rights,
    registration: Registration,
    reported: Reported,
}

pub(super) fn is_console(database: &str) -> bool {
    CONSOLE_DATABASES.contains(&database)
}

impl Visit {
    /// # Errors
    /// The user is in neither list.
    pub(super) fn new(shared: &Shared, who: Who, long_key: bool) -> Result<Self> {
        let is_in = |users: &[String]| users.contains(&who.user);
        let rights = if is_in(&shared.config.admin_users) {
            Rights::Everything
        } else if is_in(&shared.config.stats_users) {
            Rights::Look
        } else {
            let message = format!("user \"{}\" may not connect to the admin console", who.user);
            return Err(Error::new(Fault::Client, sqlstate::INVALID_AUTHORIZATION, message)
                .hint("Its users are in admin_users and stats_users."));
        };
        let mut reported = Reported::default();
        for (name, value) in [
            ("server_version", concat!(env!("CARGO_PKG_VERSION"), "/causeway")),
            ("server_encoding", "UTF8"),
            ("client_encoding", "UTF8"),
            ("standard_conforming_strings", "on"),
            ("DateStyle", "ISO"),
            ("TimeZone", "UTC"),
        ] {
            reported.set(name.as_bytes(), value.as_bytes());
        }
        Ok(Self { rights, registration: shared.cancels.register(long_key, who)?, reported })
    }

    /// What the client is told: what the console says of itself, and how to cancel.
    pub(super) fn greeting(&self) -> (&Reported, &CancelKey) {
        (&self.reported, &self.registration.key)
    }
}

impl Visitor {
    pub(super) fn new(
        shared: &Arc<Shared>,
        (visit, io): (Visit, LoginIo),
        counted: (GaugeGuard, ClientCount),
    ) -> Box<Self> {
        let Visit { rights, registration, .. } = visit;
        Box::new(Self { shared: Arc::clone(shared), io, rights, registration, counted })
    }
}
