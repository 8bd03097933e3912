//! Files that appear complete under their final name, or not at all.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::{Error, Fault};

/// Writes `bytes` to `path`: a temporary file in the same folder, flushed to the disk, then renamed. An existing file is
/// replaced. A temporary file that a crash leaves behind is hidden (`.NAME.PID-N.partial`).
///
/// # Errors
/// [`Fault::Io`] naming the path: no such folder, no permission, a full disk. Nothing is left behind then.
pub fn write_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), Error> {
    write_all_atomically(&[(path.as_ref(), bytes)])
}

/// Files that are flushed at a time: the disk takes hardly longer for them than for one.
const FLUSHED_TOGETHER: usize = 16;

/// Writes each of `files`, path and bytes, as [`write_atomically`] does, in less time: several at once, and what the folders hold is flushed
/// behind them all.
///
/// # Errors
/// As there, naming the first file that failed; others may be written.
pub fn write_all_atomically(files: &[(&Path, &[u8])]) -> Result<(), Error> {
    let write = |(path, bytes): (&Path, &[u8])| write(path, bytes).map_err(|error| Error::new(path, Fault::Io(error)));
    for files in files.chunks(FLUSHED_TOGETHER) {
        thread::scope(|scope| {
            let (last, others) = files.split_last().map_or((None, files), |(last, others)| (Some(last), others));
            // Where the machine has no thread left, one behind the other.
            let begin = |file| thread::Builder::new().spawn_scoped(scope, move || write(file)).map_err(|_| write(file));
            let others: Vec<_> = others.iter().copied().map(begin).collect();
            let last = last.map_or(Ok(()), |&file| write(file));
            let others = others.into_iter().map(|other| match other {
                Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
                Err(written) => written,
            });
            others.chain([last]).collect::<Result<(), Error>>()
        })?;
    }
    // Names lie in the folder. Where folders cannot be opened for this, the files' content is safe still.
    let parents = files.iter().filter_map(|(path, _)| path.parent());
    let folders: BTreeSet<&Path> =
        parents.map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent }).collect();
    for folder in folders.into_iter().filter_map(|folder| File::open(folder).ok()) {
        let _ = folder.sync_all();
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let (mut file, temporary) = create_beside(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one that counts; what cannot be removed stays hidden.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// A new file that nobody else writes: process id and a counter make its name.
fn create_beside(path: &Path) -> std::io::Result<(File, PathBuf)> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or(std::io::ErrorKind::InvalidFilename)?.to_string_lossy();
    loop {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_file_name(format!(".{name}.{}-{number}.partial", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            // Left by a dead process that had our id.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            opened => return opened.map(|file| (file, temporary)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_files_each_is_written_or_the_first_that_cannot_be_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<PathBuf> = (0..40).map(|number| folder.path().join(number.to_string())).collect();
        let files: Vec<(&Path, &[u8])> =
            names.iter().map(|path| (path.as_path(), path.as_os_str().as_encoded_bytes())).collect();
        write_all_atomically(&files).unwrap();
        assert!(files.iter().all(|(path, bytes)| fs::read(path).unwrap() == *bytes));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 40);
        let nowhere = folder.path().join("none/1");
        let error = write_all_atomically(&[files[0], (&nowhere, b""), files[1]]).unwrap_err();
        assert!(error.to_string().contains("none/1"), "{error}");
        write_all_atomically(&[]).unwrap();
    }

    #[test]
    fn files_appear_complete_and_replace_older_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.dcm");
        write_atomically(&path, b"first").unwrap();
        write_atomically(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_names_the_file_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("no-such-folder/image.dcm");
        let error = write_atomically(&missing, b"x").unwrap_err();
        assert!(error.to_string().contains("no-such-folder"));
        // A folder stands where the file should be: the rename fails and the temporary file goes.
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        assert!(write_atomically(&taken, b"x").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
