//! Causeway is a PostgreSQL proxy that splits reads from writes.
//!
//! # The map
//!
//! A module imports only modules above it in this list; `tests/tidy.rs` checks it.
//!
//! | layer | module | what lives there |
//! |---|---|---|
//! | 1 | [`error`] | whose fault, which SQLSTATE, may we retry, what the client may read |
//! | 2 | [`types`] | ids, `Position` and its token, `Role`, `Level`, our own settings: vocabulary, no I/O |
//! | 3 | [`metrics`] | a struct of handles that is passed in; labels are closed enums |
//! | 4 | [`config`] | raw (serde), then validated once into an immutable `Config` |
//! | 5 | [`wire`] | length-checked frames, and the few messages that we look into |
//! | 6 | [`sql`] | classify, effects, hints, catalog facts, bounded memo. Pure |
//! | 7 | [`net`] | listen, dial, stream (plain, TLS, Unix), TLS material |
//! | 8 | [`auth`] | login of clients, login to nodes |
//! | 9 | [`topology`] | probes, positions, lag, forks and catalog facts; publishes an immutable `View`. The control plane |
//! | 10 | [`route`] | (class, state of the session, `View`) to a `Route`. Pure |
//! | 11 | [`backend`] | a server: connect, parameters, prepared statements, cancel |
//! | 12 | [`pool`] | leases, limits, waiting |
//! | 13 | [`session`] | handshake, the session loop, batches, relay, copy, cancel |
//! | 14 | [`admin`] | `/metrics`, `/healthz`, `/readyz`; the console |
//! | 15 | [`app`] | build, start, shutdown, the commands, the demo. The only composition point |
//!
//! # Threads
//!
//! The control plane ([`topology`], [`admin`], the listeners) has a runtime of its own. Every worker is a thread with a
//! current-thread runtime; a client is handed to the worker with the fewest and stays there, and so do the servers that
//! it uses: the way of a query crosses no thread. Workers read what the control plane publishes (the
//! [`View`](topology::View), the [`CatalogFacts`](sql::CatalogFacts)) without waiting. A [`pool::Pool`] is one for the
//! whole process; an idle server moves to another worker when a client there is next in line. What every query touches
//! is written by its worker alone: the idle servers, the counters ([`metrics::Lanes`]), the expected latencies. Workers
//! have no timers of their own; the control plane keeps them ([`net::timers`]), so that a query need not look at them.
//!
//! # The life of a query
//!
//! 1. [`wire::frame`] gives a tag and a checked length over raw bytes.
//! 2. The session collects a batch: a Query, or all up to Sync or Flush, up to a bound.
//! 3. [`sql::Classifier`] gives its class and effects, mostly from a memo.
//! 4. [`route::route`] decides, always with a [`route::Reason`]: stay with the server that the session holds, go to a
//!    node, or be refused. What the read may see ([`types::Level`]) and what the session has seen make what a replica
//!    must have replayed ([`route::Needs`]); before that is known, or while no replica has it, the answer is to ask the
//!    primary or to wait, and to decide again.
//! 5. The [`pool`] of that node lends a [`backend::Server`], or queues the session, with a limit.
//! 6. What brings the server to the session's state goes out in the same write as the batch.
//! 7. Result frames come back as raw bytes; a ledger knows which answers are owed and which are the client's to see.
//! 8. What the batch leaves behind goes into the session, and the server is kept (pinned) or released.
//!
//! Only steps 2 and 5 to 7 wait. Rows are never decoded, and an idle session holds no buffer.

pub mod admin;
pub mod app;
pub mod auth;
pub mod backend;
pub mod config;
pub mod error;
pub mod metrics;
pub mod net;
pub mod pool;
pub mod route;
pub mod session;
pub mod sql;
pub mod topology;
pub mod types;
pub mod wire;
