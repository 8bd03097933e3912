//! `delivery.jsonl`: a record a file, of what became of it. While files are sent it is a journal, in which the last line of a
//! file counts, so that a run that was killed goes on; at the end it is written anew with one line a file.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, Permissions},
    io::{BufRead, BufReader, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};
use hiresmed_imaging::files::write_atomically;
use serde::{Deserialize, Serialize};

use crate::{failure, stamp::Stamp};

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    /// The root of the archive's services.
    destination: String,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Stored, and found there afterwards.
    Verified,
    /// The same object is in another file.
    Duplicate,
    /// Stored as the archive says; whether it is found there has not been seen yet.
    Stored,
    /// Stored as the archive said, and not found there afterwards.
    Missing,
    /// The archive does not take it.
    Refused,
    /// The archive gave no answer that says either.
    Failed,
    /// It does not say that it is synthetic, so it stays.
    LeftOut,
    /// It cannot be read, or is no whole DICOM file.
    Unreadable,
    /// Its turn has not come: the run ended before.
    Unsent,
}

/// A file and what became of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    /// The file's whole path.
    pub path: String,
    #[serde(flatten)]
    pub stamp: Stamp,
    /// SOP Instance UID, where the file has one.
    pub sop_instance: Option<String>,
    /// Study Instance UID.
    pub study: Option<String>,
    pub outcome: Outcome,
    /// Why, and with which code of the archive's.
    pub reason: Option<String>,
    /// How often it was sent, over all runs.
    pub attempts: u32,
}

/// The record.
pub struct Record {
    path: PathBuf,
    destination: String,
    file: File,
    lines: BTreeMap<String, Line>,
}

impl Record {
    /// Opens a record, with what earlier runs left in it.
    ///
    /// # Errors
    /// It cannot be written, was begun for another archive, or another run writes it.
    pub fn open(path: &Path, destination: &str) -> Result<Self> {
        let unwritable = || format!("{} cannot be written; name another place with --report FILE", path.display());
        let file = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path);
        let file = file.with_context(unwritable)?;
        // It goes with the process.
        file.try_lock().map_err(|_| {
            failure::refused(anyhow!("another run writes {}; wait for it, or name another --report", path.display()))
        })?;
        let mut record =
            Self { path: path.to_path_buf(), destination: destination.to_owned(), file, lines: BTreeMap::new() };
        let (mut whole, mut begun) = (true, false);
        for text in BufReader::new(File::open(path)?).split(b'\n') {
            let text = text.with_context(|| format!("{} cannot be read", path.display()))?;
            if let Ok(head) = serde_json::from_slice::<Head>(&text) {
                begun = true;
                if head.destination != destination {
                    let text = format!(
                        "{} is of deliveries to {}; name another place with --report FILE",
                        path.display(),
                        head.destination
                    );
                    return Err(failure::refused(anyhow!(text)));
                }
                continue;
            }
            // A run that was cut off may leave half a line at the end: its file is looked at again.
            match serde_json::from_slice::<Line>(&text) {
                Ok(line) => {
                    record.lines.insert(line.path.clone(), line);
                    whole = true;
                }
                Err(_) => whole = text.is_empty(),
            }
        }
        if !whole {
            record.file.write_all(b"\n").with_context(unwritable)?;
        }
        if !begun {
            let head = record.head()?;
            record.file.write_all(&head).with_context(unwritable)?;
        }
        Ok(record)
    }

    fn head(&self) -> Result<Vec<u8>> {
        let mut head = serde_json::to_vec(&Head { destination: self.destination.clone() })?;
        head.push(b'\n');
        Ok(head)
    }

    /// What is known of a file, if it is still the one that it was.
    pub fn known(&self, path: &str, stamp: Stamp) -> Option<&Line> {
        self.lines.get(path).filter(|line| line.stamp == stamp)
    }

    /// Writes what became of a file.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn put(&mut self, line: Line) -> Result<()> {
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        self.lines.insert(line.path.clone(), line);
        self.file.write_all(&text).with_context(|| format!("{} cannot be written", self.path.display()))
    }

    /// Writes one line a file, in the order of their paths.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn finish(&self) -> Result<()> {
        let mut text = self.head()?;
        for line in self.lines.values() {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        let unwritable = || format!("{} cannot be written", self.path.display());
        write_atomically(&self.path, &text).with_context(unwritable)?;
        // Paths may name somebody where `--any` was given.
        fs::set_permissions(&self.path, Permissions::from_mode(0o600)).with_context(unwritable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(path: &str, outcome: Outcome) -> Line {
        let stamp = Stamp { size_bytes: 7, changed_ns: 9 };
        let (sop_instance, study) = (Some("1.2".to_owned()), Some("1".to_owned()));
        Line { path: path.to_owned(), stamp, sop_instance, study, outcome, reason: None, attempts: 1 }
    }

    #[test]
    fn the_last_line_of_a_file_counts_and_half_a_line_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("delivery.jsonl");
        let mut record = Record::open(&path, "https://a").unwrap();
        assert!(Record::open(&path, "https://a").is_err(), "two runs at once");
        record.put(line("x", Outcome::Failed)).unwrap();
        record.put(line("x", Outcome::Stored)).unwrap();
        drop(record);
        let mut text = std::fs::read(&path).unwrap();
        text.extend(br#"{"path":"y","size_by"#);
        std::fs::write(&path, text).unwrap();

        let mut record = Record::open(&path, "https://a").unwrap();
        let stamp = Stamp { size_bytes: 7, changed_ns: 9 };
        assert_eq!(record.known("x", stamp).unwrap().outcome, Outcome::Stored);
        assert!(record.known("x", Stamp { size_bytes: 8, ..stamp }).is_none() && record.known("y", stamp).is_none());
        record.put(line("y", Outcome::Verified)).unwrap();
        record.finish().unwrap();
        drop(record);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(text.contains(r#""outcome":"verified","reason":null,"attempts":1"#), "{text}");
        assert!(Record::open(&path, "https://a").unwrap().known("y", stamp).is_some());
        let error = Record::open(&path, "https://b").err().unwrap().to_string();
        assert!(error.contains("https://a"), "{error}");
    }
}
