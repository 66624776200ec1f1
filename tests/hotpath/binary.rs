//! The release binary: where it is, and whether it is made of the sources that are here.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::Test;

pub const TESTS: &[Test] = &[("binary::dependencies", dependencies_are_read)];

/// The release binary of the target directory that this test was built in.
pub fn release() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let binary = target.join("release/causeway");
    let built = modified(&binary).unwrap_or_else(|| {
        panic!("{} is not there: run `cargo build --release` first, or `make test`", binary.display())
    });
    // Cargo writes what the binary was made of beside it.
    let list = binary.with_extension("d");
    let list = fs::read_to_string(&list).unwrap_or_else(|error| panic!("{}: {error}", list.display()));
    let newer: Vec<_> = dependencies(&list).into_iter().filter(|path| modified(path) > Some(built)).collect();
    let removed: Vec<_> = dependencies(&list).into_iter().filter(|path| !path.exists()).collect();
    assert!(
        newer.is_empty() && removed.is_empty(),
        "{} is not made of these sources (newer: {newer:?}; gone: {removed:?}): run `cargo build --release` first",
        binary.display()
    );
    binary
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// The prerequisites in a Makefile's rule of one line; a space in a name has a backslash before it.
fn dependencies(rule: &str) -> Vec<PathBuf> {
    let Some((_, paths)) = rule.split_once(": ") else { return Vec::new() };
    let escaped = paths.trim_end().replace("\\ ", "\0");
    escaped.split(' ').filter(|path| !path.is_empty()).map(|path| path.replace('\0', " ").into()).collect()
}

fn dependencies_are_read() {
    for (rule, want) in [
        ("", &[][..]),
        ("/t/release/causeway:\n", &[]),
        ("/t/release/causeway: /s/main.rs\n", &["/s/main.rs"]),
        ("/t/causeway: /s/a.rs /my\\ s/b.rs\n", &["/s/a.rs", "/my s/b.rs"]),
    ] {
        let want: Vec<PathBuf> = want.iter().map(PathBuf::from).collect();
        assert_eq!(dependencies(rule), want, "{rule}");
    }
}
