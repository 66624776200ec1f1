//! See ../src/startup.rs.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| causeway_fuzz::startup::survive(data));
