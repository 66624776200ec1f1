//! Who is here: clients in all, of each user and of each database, and those that are still logging in.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::Config;
use crate::error::{Error, Fault, Result, sqlstate};
use crate::types::WorkerId;

/// Counts clients for the whole process.
#[derive(Debug)]
pub struct Census {
    max_clients: usize,
    /// By worker: clients that are connected, logged in or not.
    clients: Box<[AtomicUsize]>,
    /// Clients that are logged in. Nobody's count is not there.
    named: Mutex<HashMap<Name, usize>>,
}

/// What clients are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Name {
    User(Box<str>),
    Database(Box<str>),
}

/// So many clients more than `max_client_conn` may be connected, to be told that there are too many, or to cancel.
const ROOM_TO_REFUSE: usize = 128;

impl Census {
    pub fn new(max_clients: usize, workers: usize) -> Arc<Self> {
        let clients = (0..workers).map(|_| AtomicUsize::default()).collect();
        Arc::new(Self { max_clients, clients, named: Mutex::default() })
    }

    /// The worker with the fewest clients.
    pub fn least_loaded(&self) -> WorkerId {
        let loads = self.clients.iter().enumerate().map(|(id, clients)| (clients.load(Relaxed), id));
        WorkerId(loads.min().map_or(0, |(_, id)| id))
    }

    fn clients(&self) -> usize {
        self.clients.iter().map(|clients| clients.load(Relaxed)).sum()
    }

    /// Counts one more, if that is not more than `most`.
    fn add(&self, name: &Name, most: Option<usize>) -> bool {
        let mut named = self.named.lock();
        let clients = named.get(name).copied().unwrap_or_default();
        let has_room = most.is_none_or(|most| clients < most);
        if has_room {
            named.insert(name.clone(), clients + 1);
        }
        has_room
    }

    fn remove(&self, name: &Name) {
        let mut named = self.named.lock();
        match named.get_mut(name) {
            Some(clients) if *clients > 1 => *clients -= 1,
            _ => drop(named.remove(name)),
        }
    }
}

/// A client counts from the moment it connects until the guard is dropped; once it is logged in, for its user and its
/// database, too.
#[derive(Debug)]
pub struct ClientCount {
    census: Arc<Census>,
    worker: WorkerId,
    names: Option<Box<[Name; 2]>>,
}

impl ClientCount {
    pub fn new(census: &Arc<Census>, worker: WorkerId) -> Self {
        census.clients[worker.0].fetch_add(1, Relaxed);
        Self { census: Arc::clone(census), worker, names: None }
    }

    /// There are no more than `max_client_conn`, this one among them.
    pub fn is_within_limit(&self) -> bool {
        self.census.clients() <= self.census.max_clients
    }

    /// There is not even room to tell it.
    pub fn is_one_too_many(&self) -> bool {
        self.census.clients() > self.census.max_clients + ROOM_TO_REFUSE
    }

    /// The client has proved to be `user`.
    ///
    /// # Errors
    /// 53300: the user or the database has as many clients as it may.
    pub fn admit(&mut self, config: &Config, user: &str, database: &str) -> Result<()> {
        let of_user = (Name::User(user.into()), config.user_clients(user));
        let of_database = (Name::Database(database.into()), config.database_clients(database));
        if !self.census.add(&of_user.0, of_user.1) {
            return Err(too_many("user", user, "max_user_client_connections", of_user.1));
        }
        if !self.census.add(&of_database.0, of_database.1) {
            self.census.remove(&of_user.0);
            return Err(too_many("database", database, "max_db_client_connections", of_database.1));
        }
        self.names = Some(Box::new([of_user.0, of_database.0]));
        Ok(())
    }
}

fn too_many(what: &str, name: &str, setting: &str, most: Option<usize>) -> Error {
    let message = format!("sorry, too many clients of {what} \"{name}\" already ({setting} = {})", most.unwrap_or(0));
    Error::new(Fault::Limit, sqlstate::TOO_MANY_CONNECTIONS, message)
}

impl Drop for ClientCount {
    fn drop(&mut self) {
        self.census.clients[self.worker.0].fetch_sub(1, Relaxed);
        self.names.iter().flat_map(|names| names.iter()).for_each(|name| self.census.remove(name));
    }
}

/// The clients of one worker that are logging in and have a place among `max_client_conn`, by when they came.
#[derive(Debug, Default)]
pub struct Logins {
    begun: Cell<u64>,
    pending: RefCell<BTreeMap<u64, Rc<Pending>>>,
}

#[derive(Debug)]
struct Pending {
    since: Instant,
    makes_room: Notify,
}

/// Who takes this long to log in makes room for others. A client in good faith takes some milliseconds.
const COURTESY: Duration = Duration::from_secs(5);

impl Logins {
    /// A client has come for which there is room.
    pub fn begin(self: &Rc<Self>, now: Instant) -> Login {
        let number = self.begun.get() + 1;
        self.begun.set(number);
        let pending = Rc::new(Pending { since: now, makes_room: Notify::new() });
        self.pending.borrow_mut().insert(number, Rc::clone(&pending));
        Login { logins: Rc::clone(self), number, pending }
    }

    /// True: the one that has been logging in for longest has been sent away, and another one may have its place.
    pub fn make_room(&self, now: Instant) -> bool {
        let mut pending = self.pending.borrow_mut();
        let Some(oldest) = pending.first_entry() else { return false };
        let is_slow = now.saturating_duration_since(oldest.get().since) >= COURTESY;
        if is_slow {
            oldest.remove().makes_room.notify_one();
        }
        is_slow
    }
}

/// A client that is logging in, until this is dropped.
#[derive(Debug)]
pub struct Login {
    logins: Rc<Logins>,
    number: u64,
    pending: Rc<Pending>,
}

impl Login {
    /// Ready when it has to go.
    pub async fn must_make_room(&self) {
        self.pending.makes_room.notified().await;
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        self.logins.pending.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::config::{Database, from_urls};

    fn config() -> Config {
        let mut config = from_urls("postgres://app:x@db1/shop", &[], None, None).unwrap();
        config.limits.max_user_client_connections = 3;
        config.limits.max_db_client_connections = 2;
        let database = |most| Database { max_client_connections: Some(most), ..Database::default() };
        config.databases = [("one".to_owned(), database(1)), ("any".to_owned(), database(0))].into();
        config
    }

    #[test]
    fn users_and_databases_have_as_many_clients_as_they_may() {
        let (config, census) = (config(), Census::new(100, 1));
        let mut here = Vec::new();
        for (user, database, refused_by) in [
            ("app", "shop", None),
            ("app", "shop", None),
            ("app", "shop", Some("database \"shop\" already (max_db_client_connections = 2)")),
            ("app", "one", None),
            ("other", "one", Some("database \"one\" already (max_db_client_connections = 1)")),
            ("app", "any", Some("user \"app\" already (max_user_client_connections = 3)")),
            ("other", "any", None),
            ("other", "any", None),
            ("other", "any", None),
        ] {
            let mut count = ClientCount::new(&census, WorkerId(0));
            let admitted = count.admit(&config, user, database);
            match (&admitted, refused_by) {
                (Ok(()), None) => here.push(count),
                (Err(error), Some(part)) => {
                    assert_eq!(error.sqlstate(), sqlstate::TOO_MANY_CONNECTIONS);
                    assert!(error.message().contains(part), "{error}");
                }
                _ => panic!("{user} in {database}: {admitted:?}"),
            }
        }
        drop(here);
        assert!(census.named.lock().is_empty(), "nothing is left of clients that have gone");
        assert_eq!(census.clients(), 0);
    }

    #[test]
    fn beyond_the_limit_there_is_room_to_say_so_and_no_more() {
        let census = Census::new(2, 2);
        let here: Vec<_> = (0..2 + ROOM_TO_REFUSE).map(|_| ClientCount::new(&census, census.least_loaded())).collect();
        assert!(!here[0].is_within_limit() && !here[0].is_one_too_many());
        assert!(ClientCount::new(&census, WorkerId(0)).is_one_too_many());
        drop(here);
        assert!(ClientCount::new(&census, WorkerId(1)).is_within_limit());
    }

    #[test]
    fn the_slowest_login_makes_room_for_a_new_one() {
        let (logins, begin) = (Rc::new(Logins::default()), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let (slowest, slow, done) = (logins.begin(at(0)), logins.begin(at(1)), logins.begin(at(0)));
        drop(done);
        assert!(!logins.make_room(at(4)), "all are still in time");
        assert!(logins.make_room(at(5)));
        assert!(slowest.must_make_room().now_or_never().is_some() && slow.must_make_room().now_or_never().is_none());
        assert!(!logins.make_room(at(5)), "the other one is still in time");
        drop(slowest);
        assert!(logins.make_room(at(6)) && !logins.make_room(at(60)), "nobody is left");
    }
}
