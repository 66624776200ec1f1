//! The PostgreSQL wire protocol: length-checked frames and the few messages we look into
//! (<https://www.postgresql.org/docs/current/protocol-message-formats.html>).

pub mod backend;
pub mod frame;
pub mod frontend;
pub mod startup;
