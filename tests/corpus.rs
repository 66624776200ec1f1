//! What must hold for any bytes, tried on the bytes that the fuzzer found of use, on what it found wrong in the past, and
//! on some thousands made of these. `make fuzz` looks for more.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as it should be")]

#[path = "fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fastrand::Rng;

use crate::targets::Survive;

/// Made for each target; another number of them with this in the environment.
const MUTANTS: usize = 4000;
/// Another seed with this.
const SEED: u64 = 1;

fn from_environment<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// A change or several, of the kinds that fuzzers make.
fn mutate(random: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    const TELLING: [u8; 10] = [0, 1, 4, 5, 0x7f, 0x80, 0xff, b'\'', b';', b'"'];
    let any = |random: &mut Rng| corpus[random.usize(..corpus.len())].clone();
    let mut bytes = any(random);
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..=bytes.len());
        match random.u8(..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            1 if at < bytes.len() => bytes[at] = TELLING[random.usize(..TELLING.len())],
            2 => bytes.insert(at, random.u8(..)),
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..(at + random.usize(..8)).min(bytes.len()))),
            5 => {
                let piece = bytes[at..(at + random.usize(..64)).min(bytes.len())].to_vec();
                let to = random.usize(..=bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => {
                let other = any(random);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[random.usize(..=other.len())..]);
            }
        }
    }
    bytes
}

/// Tries one target on its corpus and on mutants of that.
fn try_all(name: &str, survive: Survive) {
    let mutants = from_environment("CAUSEWAY_TEST_MUTANTS", MUTANTS);
    let seed = from_environment("CAUSEWAY_TEST_SEED", SEED);
    let corpus = corpus(name);
    assert!(corpus.len() >= 10, "{name} has {} files", corpus.len());
    let mut random = Rng::with_seed(seed);
    let made = (0..mutants).map(|_| mutate(&mut random, &corpus));
    for bytes in corpus.iter().cloned().chain(made) {
        let survived = catch_unwind(AssertUnwindSafe(|| survive(&bytes)));
        assert!(survived.is_ok(), "{name}, seed {seed}: b\"{}\"", bytes.escape_ascii());
    }
}

macro_rules! tests {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                try_all(stringify!($name), targets::$name::survive);
            }
        )*
    };
}

tests! { client server startup login node_login scanner config token history }
