//! See ../src/scanner.rs.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| causeway_fuzz::scanner::survive(data));
