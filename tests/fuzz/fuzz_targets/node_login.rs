//! See ../src/node_login.rs.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| causeway_fuzz::node_login::survive(data));
