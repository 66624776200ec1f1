//! What must hold for any bytes whatever, by where they come from: one function of bytes for each, which panics when it
//! does not hold. The fuzzer looks for such bytes (`make fuzz`), and `tests/corpus.rs` tries those that it found of use.

pub mod client;
pub mod config;
pub mod history;
pub mod login;
pub mod node_login;
pub mod scanner;
pub mod server;
pub mod startup;
pub mod token;

mod input;
mod wire;

/// Panics if something that must hold does not hold for these bytes.
pub type Survive = fn(&[u8]);
