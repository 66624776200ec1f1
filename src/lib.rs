//! Causeway is a PostgreSQL proxy that splits reads from writes.
//!
//! # The map
//!
//! A module imports only modules above it in this list; `tests/tidy.rs` checks it.
//!
//! | layer | module | what lives there |
//! |---|---|---|
//! | 1 | [`error`] | whose fault, which SQLSTATE, may we retry, may the client read it |
//! | 2 | [`types`] | ids, `Lsn`, `Position`, `Role`: vocabulary, no I/O |
//! | 3 | [`metrics`] | a struct of handles that is passed in; labels are closed enums |
//! | 4 | [`config`] | raw (serde), then validated once into an immutable `Config` |
//! | 5 | [`wire`] | length-checked frames, frontend and backend messages, startup |
//! | 6 | [`sql`] | classify, effects, hints, catalog facts, bounded memo. Pure |
//! | 7 | [`net`] | listen, dial, stream (plain, TLS, Unix), TLS material |
//! | 8 | [`auth`] | login of clients, login to servers |
//! | 9 | [`topology`] | probes, lag, epoch, discovery into an immutable `View` |
//! | 10 | [`route`] | (class, transaction state, `View`) to a `Route`. Pure |
//! | 11 | [`backend`] | a server: connect, parameters, prepared statements, cancel |
//! | 12 | [`pool`] | leases, limits, waiting, janitor |
//! | 13 | [`session`] | accept, handshake, the session loop, batches, relay |
//! | 14 | [`admin`] | `/metrics`, health |
//! | 15 | [`app`] | build, signals, shutdown; demo. The only composition point |

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
