//! Reads the file.

use std::fs;
use std::path::Path;

use super::Config;
use super::document::Document;
use super::error::{ConfigError, ConfigErrors};
use super::validate::validate;

/// Reads and checks a configuration file. Relative paths in it start from the directory it is in.
///
/// # Errors
/// Everything that is wrong, each with file, line and key, and what is allowed.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| {
        let problem = format!("cannot be read: {error}");
        ConfigErrors(vec![ConfigError { file: name.clone(), line: None, key: String::new(), problem }])
    })?;
    read(&name, &text, path.parent().unwrap_or(Path::new("")))
}

/// Reads and checks the text of a configuration file that errors call `name`. Relative paths in it start from
/// `directory`.
///
/// # Errors
/// As [`load`].
pub fn read(name: &str, text: &str, directory: &Path) -> Result<Config, ConfigErrors> {
    let (document, file, errors) = Document::parse(name, text);
    validate(&file, &document, directory, errors)
}
