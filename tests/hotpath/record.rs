//! The values that a query's cost is held against, in `recorded.toml`.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::Test;
use crate::measure::Figures;

pub const TESTS: &[Test] = &[("record::forms", a_record_is_read_as_it_was_written)];

const HEADER: &str = "# What a query may cost, written by `make record-hotpath`: instructions and allocations per query on the hot path.\n\
    # `make test` fails when one has grown by more than 10 %.\n\n";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What `rustc --version` said, and the architecture.
    pub rustc: String,
    /// By the kind of query.
    pub queries: BTreeMap<String, Recorded>,
}

/// Per query.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    pub instructions: f64,
    pub allocations: f64,
}

impl Record {
    pub fn new(figures: &[Figures]) -> Self {
        let hundredths = |value: f64| (value * 100.0).round() / 100.0;
        let queries = figures.iter().map(|figures| {
            let allocations = hundredths(figures.work.allocations);
            (figures.kind.name().to_owned(), Recorded { instructions: figures.work.instructions.round(), allocations })
        });
        Self { rustc: rustc(), queries: queries.collect() }
    }

    pub fn read() -> Self {
        let text = fs::read_to_string(path()).unwrap_or_else(|error| panic!("{}: {error}", path().display()));
        Self::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path().display()))
    }

    pub fn write(&self) {
        fs::write(path(), self.text()).unwrap();
        println!("Recorded in {}.", path().display());
    }

    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    fn text(&self) -> String {
        HEADER.to_owned() + &toml::to_string(self).unwrap()
    }
}

/// The compiler that builds here, and for which machines.
pub fn rustc() -> String {
    let output = Command::new("rustc").arg("--version").output().unwrap();
    format!("{} for {}", String::from_utf8(output.stdout).unwrap().trim_end(), ARCH)
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hotpath/recorded.toml")
}

fn a_record_is_read_as_it_was_written() {
    let queries = [("simple".to_owned(), Recorded { instructions: 9000.0, allocations: 0.25 })].into();
    let record = Record { rustc: "rustc 1.90.0".to_owned(), queries };
    assert_eq!(Record::parse(&record.text()).unwrap(), record);
    for wrong in ["", "rustc = \"1\"", "rustc = \"1\"\n[queries.simple]\ninstructions = 1.0\n"] {
        assert!(Record::parse(wrong).is_err(), "{wrong}");
    }
}
