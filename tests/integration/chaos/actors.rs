//! Clients in the states of the matrix: each is brought into its state, and knows how it goes on once all was struck.

use std::sync::Arc;
use std::time::Duration;

use crate::frames::{COPY_DONE, SYNC, bind, copy_data, describe, execute, parse, query};

use super::cell::{Cell, State, Target};
use super::errors::{Role, role};
use super::ledger::{Ledger, TOTAL};
use super::relay::{Point, Trap};
use super::session::{Outcome, Session, insert};
use super::stage::{NARROW, Stage};

const LIMIT: Duration = Duration::from_secs(60);
const COPIED_ROWS: usize = 1_000;

type GoOn = Box<dyn FnOnce(&mut Session) + Send>;

/// A client that was brought into its state.
pub struct Actor {
    pub session: Session,
    pub go_on: GoOn,
}

/// Brings the clients of a cell into their states.
pub struct Casting<'a> {
    stage: &'a Stage,
    cell: Cell,
    ledger: &'a Arc<Ledger>,
    pub actors: Vec<Actor>,
    pub traps: Vec<Arc<Trap>>,
}

impl<'a> Casting<'a> {
    pub fn new(stage: &'a Stage, cell: Cell, ledger: &'a Arc<Ledger>) -> Self {
        let mut casting = Self { stage, cell, ledger, actors: Vec::new(), traps: Vec::new() };
        match (cell.state, cell.target == Target::Replica) {
            (State::Idle, reads) => casting.idle(reads),
            (State::Transaction, false) => casting.transaction(),
            (State::Transaction, true) => casting.snapshot(),
            (State::Commit, reads) => casting.commit(reads),
            (State::Copy, false) => casting.copy_in(),
            (State::Copy, true) => casting.copy_out(),
            (State::Pipeline, reads) => casting.pipeline(reads),
            (State::Prepared, reads) => casting.prepared(reads),
            (State::Queue, reads) => casting.queue(reads),
        }
        casting
    }

    fn session(&self, what: &str, user: &str, role: Role) -> Session {
        let name = format!("{} {what}", self.cell);
        let session = Session::open(&self.stage.door(self.ledger), user, &name, role);
        session.unwrap_or_else(|| panic!("{name} cannot log in while all is well: {}", self.ledger.errors()))
    }

    fn app(&self, what: &str) -> Session {
        self.session(what, "app", role(self.cell.state))
    }

    fn add(&mut self, session: Session, go_on: impl FnOnce(&mut Session) + Send + 'static) {
        self.actors.push(Actor { session, go_on: Box::new(go_on) });
    }

    /// Sends, and returns when the relay holds the message.
    fn send_into(&mut self, session: &mut Session, bytes: &[u8], point: Point) {
        let trap = self.stage.relay(self.cell.target).arm(point);
        session.send(bytes);
        trap.wait(LIMIT);
        self.traps.push(trap);
    }

    fn idle(&mut self, reads: bool) {
        let mut session = self.app("idle");
        ready(session.read_total());
        if !reads {
            ready(session.write());
        }
        self.add(session, move |session| {
            session.check_identity();
            session.read_total();
            if !reads {
                session.write();
            }
        });
        if !reads {
            let mut session = self.session("pinned", "app", Role::Pinned);
            let sql = format!("CREATE TEMP TABLE mine AS SELECT '{}' AS name", session.name());
            ready(session.run(&sql));
            self.add(session, |session| {
                if let Some(name) = session.run("SELECT name FROM mine") {
                    session.check(&name, session.name());
                }
            });
        }
    }

    fn transaction(&mut self) {
        let mut session = self.app("transaction");
        let ids: [String; 2] = session.new_ids();
        ready(session.begin_transfer(&ids[..1], 1, 2));
        self.add(session, move |session| {
            if session.run(&insert(&ids[1])).is_none() {
                return session.abandon(&ids);
            }
            let (messages, outcome) = session.ask(&query("COMMIT"));
            session.committed(&ids, &messages, &outcome);
        });
    }

    fn begin_snapshot(session: &mut Session) {
        ready(session.run("BEGIN READ ONLY"));
        ready(session.read_total());
        let recovering = session.run("SELECT pg_is_in_recovery()").unwrap_or_default();
        session.check(&recovering, "t");
    }

    fn snapshot(&mut self) {
        let mut session = self.app("snapshot");
        Self::begin_snapshot(&mut session);
        self.add(session, |session| {
            session.read_total();
            end_snapshot(session);
        });
    }

    /// One COMMIT that does not arrive, and one whose answer does not.
    fn commit(&mut self, reads: bool) {
        for (what, accounts) in [("request", [1, 2]), ("answer", [3, 4])] {
            let mut session = self.app(what);
            let ids = [session.new_id()];
            if reads {
                Self::begin_snapshot(&mut session);
            } else {
                ready(session.begin_transfer(&ids, accounts[0], accounts[1]));
            }
            let marker = format!("of {}", session.name());
            let point =
                if what == "request" { Point::Request(marker.clone()) } else { Point::Answer(marker.clone(), b'C') };
            self.send_into(&mut session, &query(format!("COMMIT /* {marker} */")), point);
            self.add(session, move |session| {
                let (messages, outcome) = session.answer();
                if reads {
                    leave(session, &outcome);
                } else {
                    session.committed(&ids, &messages, &outcome);
                }
            });
        }
    }

    fn copy_in(&mut self) {
        let mut session = self.app("copy in");
        let ids: [String; 2] = session.new_ids();
        let row = |id: &str| copy_data(format!("{id}\n").as_bytes());
        session.send(&query("COPY journal FROM STDIN"));
        assert!(matches!(session.read(), Some((b'G', _))), "COPY begins");
        session.send(&row(&ids[0]));
        let rest = [&row(&ids[1])[..], COPY_DONE].concat();
        self.add(session, move |session| {
            let (_, outcome) = session.ask(&rest);
            session.settle(&ids, &outcome);
        });
    }

    /// One that is caught before its first row, and one before its end.
    fn copy_out(&mut self) {
        for tag in [b'd', b'c'] {
            let mut session = self.app(&format!("copy out {}", char::from(tag)));
            let marker = format!("of {}", session.name());
            let sql = format!("COPY (SELECT id FROM generate_series(1, {COPIED_ROWS}) id /* {marker} */) TO STDOUT");
            self.send_into(&mut session, &query(sql), Point::Answer(marker, tag));
            self.add(session, |session| {
                let (messages, outcome) = session.answer();
                let rows = messages.iter().filter(|(tag, _)| *tag == 'd').count();
                if outcome == Outcome::Done {
                    session.check(&rows.to_string(), &COPIED_ROWS.to_string());
                }
            });
        }
    }

    /// Statements that commit each by itself and together, caught where the second or the last is answered.
    fn pipeline(&mut self, reads: bool) {
        let sql = if reads { "SELECT sum(balance), $1::text FROM account" } else { "INSERT INTO journal VALUES ($1)" };
        let statement =
            |id: &str| [parse("", sql), bind("", "", &[id.as_bytes()], 0), describe(b'P', ""), execute("", 0)].concat();
        let tag = if reads { b'2' } else { b'C' };
        let mut session = self.app("pipeline");
        let ids: [String; 4] = session.new_ids();
        let frames: Vec<u8> = ids.iter().flat_map(|id| [&statement(id)[..], SYNC].concat()).collect();
        self.send_into(&mut session, &frames, Point::Answer(ids[1].clone(), tag));
        self.add(session, move |session| {
            for id in ids {
                if session.is_gone() {
                    // Nothing was heard of it; nobody waits for what a read did.
                    session.settle(&[id], &Outcome::Gone);
                    continue;
                }
                let (messages, outcome) = session.answer();
                if !reads {
                    session.settle(&[id], &outcome);
                } else if outcome == Outcome::Done {
                    session.check(&crate::speech::value(&messages).unwrap_or_default(), TOTAL);
                }
            }
        });
        if !reads {
            let mut session = self.app("batch");
            let ids: [String; 3] = session.new_ids();
            let frames: Vec<u8> = ids.iter().flat_map(|id| statement(id)).chain(SYNC.iter().copied()).collect();
            self.send_into(&mut session, &frames, Point::Answer(ids[2].clone(), b'C'));
            self.add(session, move |session| {
                let (_, outcome) = session.answer();
                session.settle(&ids, &outcome);
            });
        }
    }

    /// One whose request does not arrive, and one whose answer does not; both are run again afterwards.
    fn prepared(&mut self, reads: bool) {
        let sql = if reads {
            "SELECT sum(balance) FROM account WHERE $1::text IS NOT NULL"
        } else {
            "INSERT INTO journal VALUES ($1)"
        };
        let run = |id: &str| [&bind("", "mine", &[id.as_bytes()], 0)[..], &execute("", 0), SYNC].concat();
        for what in ["request", "answer"] {
            let mut session = self.app(what);
            let ids: [String; 3] = session.new_ids();
            let (_, outcome) = session.ask(&[&parse("mine", sql)[..], &run(&ids[0])].concat());
            assert_eq!(outcome, Outcome::Done);
            if !reads {
                session.settle(&ids[..1], &outcome);
            }
            let marker = ids[1].clone();
            let point = if what == "request" { Point::Request(marker) } else { Point::Answer(marker, b'2') };
            self.send_into(&mut session, &run(&ids[1]), point);
            let again = run(&ids[2]);
            self.add(session, move |session| {
                let answers = [session.answer(), session.ask(&again)];
                for (id, (messages, outcome)) in ids[1..].iter().zip(answers) {
                    if !reads {
                        session.settle(std::slice::from_ref(id), &outcome);
                    } else if outcome == Outcome::Done {
                        session.check(&crate::speech::value(&messages).unwrap_or_default(), TOTAL);
                    }
                }
            });
        }
    }

    /// One that holds the only server, and one that waits for it.
    fn queue(&mut self, reads: bool) {
        let mut waiter = self.session("waiter", NARROW, Role::Waiter);
        let mut holder = self.session("holder", NARROW, Role::Transaction);
        let ids = [holder.new_id()];
        let waiting = [waiter.new_id()];
        if reads {
            Self::begin_snapshot(&mut holder);
            waiter.send(&query("SELECT sum(balance) FROM account"));
        } else {
            ready(holder.begin_transfer(&ids, 1, 2));
            waiter.send(&query(insert(&waiting[0])));
        }
        self.stage.await_waiter();
        self.add(holder, move |session| {
            if reads {
                session.read_total();
                return end_snapshot(session);
            }
            // So that it is known before COMMIT whether the server is still there.
            if session.read_total().is_none() {
                return session.abandon(&ids);
            }
            let (messages, outcome) = session.ask(&query("COMMIT"));
            session.committed(&ids, &messages, &outcome);
        });
        self.add(waiter, move |session| {
            let (messages, outcome) = session.answer();
            if !reads {
                session.settle(&waiting, &outcome);
            } else if outcome == Outcome::Done {
                session.check(&crate::speech::value(&messages).unwrap_or_default(), TOTAL);
            }
        });
    }
}

/// While all is well, all works.
fn ready<T>(outcome: Option<T>) -> T {
    outcome.expect("all is well yet")
}

fn end_snapshot(session: &mut Session) {
    let (_, outcome) = session.ask(&query("COMMIT"));
    leave(session, &outcome);
}

/// Leaves a transaction that has failed.
fn leave(session: &mut Session, outcome: &Outcome) {
    if *outcome != Outcome::Done && !session.is_gone() {
        session.run("ROLLBACK");
    }
}
