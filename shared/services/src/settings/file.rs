//! A program's settings out of a TOML file.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Why a settings file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("the settings in {path} cannot be read: {cause}; name another file with --config", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// The file's text is wrong.
    #[error("the settings in {path} are wrong: {cause}", path = path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        cause: String,
    },
}

/// The settings in a file; the defaults where none is named.
///
/// # Errors
/// [`FileError`]: the file cannot be read, is no TOML, or `T` does not know a key or a value.
pub fn read<T: DeserializeOwned + Default>(file: Option<&Path>) -> Result<T, FileError> {
    let Some(path) = file else { return Ok(T::default()) };
    let path = path.to_owned();
    match std::fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text).map_err(|error| FileError::Text { path, cause: error.to_string() }),
        Err(error) => Err(FileError::Unreadable { path, cause: error.to_string() }),
    }
}
