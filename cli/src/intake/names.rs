//! What the user's own files are called: known on this machine alone, beside the store and the queue and not in them.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use hiresmed_imaging::files::write_atomically;

use crate::state::StateFolder;

/// The paths of the files that were taken in, by the names under which they are stored: a document for each source.
#[derive(Debug, Clone)]
pub struct Names {
    folder: PathBuf,
    paths: HashMap<String, String>,
}

impl Names {
    /// Reads the names that a state folder keeps. What cannot be read is left out: messages are then less helpful.
    pub fn read(state: &StateFolder) -> Self {
        let folder = state.root().join("names");
        let documents =
            fs::read_dir(&folder).into_iter().flatten().filter_map(|entry| fs::read(entry.ok()?.path()).ok());
        let paths = documents.filter_map(|bytes| serde_json::from_slice::<HashMap<String, String>>(&bytes).ok());
        Self { paths: paths.flatten().collect(), folder }
    }

    /// Keeps the names of a source, readable by nobody but their owner.
    ///
    /// # Errors
    /// The state folder cannot be written.
    pub fn keep(&self, source: &str, names: &BTreeMap<String, impl AsRef<Path>>) -> Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.folder).with_context(|| format!("{} cannot be created", self.folder.display()))?;
        let paths: BTreeMap<_, _> =
            names.iter().map(|(name, path)| (name, path.as_ref().display().to_string())).collect();
        write_atomically(self.folder.join(format!("{source}.json")), &serde_json::to_vec(&paths)?)?;
        Ok(())
    }

    /// `text` with the user's own paths in place of the names under which files are stored.
    pub fn restore(&self, text: &str) -> String {
        let part = |c: char| c.is_ascii_alphanumeric() || c == '.';
        let mut restored = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let length = rest.find(|c| !part(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(length);
            let name = word.trim_end_matches('.');
            match self.paths.get(name) {
                Some(path) => {
                    restored.push_str(path);
                    restored.push_str(&word[name.len()..]);
                }
                None => restored.push_str(word),
            }
            let gap = after.find(part).unwrap_or(after.len());
            restored.push_str(&after[..gap]);
            rest = &after[gap..];
        }
        restored
    }
}
