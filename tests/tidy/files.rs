//! The files of the repository, and what their paths say.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// Texts by their paths, which start at the root of the repository.
pub type Files = BTreeMap<String, String>;

pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

pub fn read_tree() -> io::Result<Files> {
    let mut files = Files::new();
    for folder in ["src", "tests", "benches", "config", "grafana", "docs"] {
        if Path::new(ROOT).join(folder).exists() {
            read_folder(folder, &mut files)?;
        }
    }
    for entry in fs::read_dir(ROOT)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if has_extension(&name, "md") {
            let text = fs::read_to_string(Path::new(ROOT).join(&name))?;
            files.insert(name, text);
        }
    }
    Ok(files)
}

fn read_folder(folder: &str, files: &mut Files) -> io::Result<()> {
    for entry in fs::read_dir(Path::new(ROOT).join(folder))? {
        let entry = entry?;
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            read_folder(&path, files)?;
        } else {
            // What is no text has no style.
            if let Ok(text) = String::from_utf8(fs::read(entry.path())?) {
                files.insert(path, text);
            }
        }
    }
    Ok(())
}

pub fn sources(files: &Files) -> impl Iterator<Item = (&String, &String)> {
    files.iter().filter(|(path, _)| is_source(path))
}

pub fn is_source(path: &str) -> bool {
    has_extension(path, "rs")
}

pub fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

pub fn is_within(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        || path.strip_prefix(place) == Some(".rs")
}

/// `pool` of `src/pool/lease.rs`; none for the roots of the crates.
pub fn module(path: &str) -> Option<&str> {
    let name = path.strip_prefix("src/")?.split('/').next()?;
    let name = name.strip_suffix(".rs").unwrap_or(name);
    (!["lib", "main"].contains(&name)).then_some(name)
}

/// The modules as the map of `src/lib.rs` lists them, lowest first.
pub fn layers(files: &Files) -> Vec<String> {
    let lib = files.get("src/lib.rs").map_or("", String::as_str);
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | ")?.split_once("| [`"));
    rows.filter_map(|(_, rest)| Some(rest.split_once('`')?.0.to_owned())).collect()
}
