//! Login, both ways: clients prove to us who they are, and we prove it to the nodes.

pub mod client;
pub mod server;
pub mod verifier;

#[cfg(test)]
mod tests;
