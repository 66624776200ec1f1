//! The composition point: what builds the rest from a `Config`, and the demo.

pub mod demo;
