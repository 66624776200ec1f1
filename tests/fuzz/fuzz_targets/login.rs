//! See ../src/login.rs.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| causeway_fuzz::login::survive(data));
