//! Model packages and data sets on the worker's disk, brought from the store by digest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hiresmed_inference::Package;
use hiresmed_protocol::{Digest, keys};

use crate::{environment::Environment, jobs::Failure};

/// The disk cache keeps at most so many packages of a kind; a request names few, and a package is some megabytes.
const LIMIT: usize = 64;

/// The kind whose packages are also kept in the cache.
const CACHED_KIND: &str = "singan";

/// How long.
const CACHED_FOR: Duration = Duration::from_secs(24 * 3600);

/// The folder in the disk cache with the files of a package, fetched where it is not there yet.
pub(crate) fn folder(environment: &Environment, kind: &str, digest: &Digest) -> Result<PathBuf, Failure> {
    let store = &environment.store;
    let kind_folder = environment.scratch().join("models").join(kind);
    let folder = kind_folder.join(digest.to_string());
    if Package::open(&folder).is_ok() {
        return Ok(folder);
    }
    // Not there, or damaged on this disk: the store's bytes are checked against their own digests.
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(transient(&folder, &error)),
        _ => {}
    }
    let prefix = keys::model(kind, digest);
    let files = store.list(&prefix)?;
    if !files.iter().any(|key| key[prefix.len()..] == *"model.json") {
        return Err(Failure::Permanent {
            stage: None,
            reason: format!(
                "the store has no {kind} package {digest}; see `hiresmed model list`, or bring it with `hiresmed model import`"
            ),
        });
    }
    fill(&folder, |target| {
        for key in &files {
            let bytes = if kind == CACHED_KIND { cached(environment, key)? } else { store.get(key)? };
            write(target, &key[prefix.len()..], &bytes)?;
        }
        Ok(())
    })?;
    // Only space is at stake: what cannot be removed now is tried again at the next fetch.
    let _ = evict(&kind_folder, LIMIT);
    Ok(folder)
}

/// An object of a lesion's package, by way of the cache: many workers need the same few small ones at the same time. What comes from
/// there is checked against the package's own digests, like everything in its folder.
fn cached(environment: &Environment, key: &str) -> Result<Bytes, Failure> {
    let (store, cache, name) = (&environment.store, &environment.cache, format!("singan:{key}"));
    let found = store.wait(cache.get(&name));
    environment.observe(|metrics| {
        metrics.checkpoint_looked_up(match &found {
            Ok(Some(_)) => "hit",
            Ok(None) => "miss",
            Err(_) => "error",
        });
    });
    if let Ok(Some(bytes)) = found {
        return Ok(bytes);
    }
    let bytes = store.get(key)?;
    // Without the cache the next worker asks the store as well; nothing is lost.
    let _ = store.wait(cache.put(&name, bytes.clone(), CACHED_FOR));
    Ok(bytes)
}

/// Makes `folder` whole or not at all: filled under another name, then renamed.
pub(crate) fn fill(folder: &Path, contents: impl FnOnce(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
    let parent = folder.parent().unwrap_or(folder);
    let cannot = |error: io::Error| transient(folder, &error);
    fs::create_dir_all(parent).map_err(cannot)?;
    let staging = tempfile::Builder::new().prefix(".fetch-").tempdir_in(parent).map_err(cannot)?;
    contents(staging.path())?;
    match fs::rename(staging.path(), folder) {
        Ok(()) => {
            // Renamed away: there is nothing left to remove under the old name.
            let _ = staging.keep();
            Ok(())
        }
        // Somebody else was faster, with the same bytes.
        Err(_) if folder.is_dir() => Ok(()),
        Err(error) => Err(cannot(error)),
    }
}

/// Writes a file of a folder that is being filled. `name` may have folders, but leads nowhere else.
pub(crate) fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    let inside = Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if !inside || name.is_empty() {
        return Err(Failure::Permanent { stage: None, reason: format!("`{name}` is not a path within a folder") });
    }
    let path = folder.join(name);
    let parent = path.parent().unwrap_or(folder);
    fs::create_dir_all(parent).and_then(|()| fs::write(&path, bytes)).map_err(|error| transient(&path, &error))
}

fn transient(path: &Path, error: &io::Error) -> Failure {
    Failure::Transient {
        stage: None,
        reason: format!(
            "the worker's disk cache cannot be written: {}: {error}; free space or fix permissions",
            path.display()
        ),
    }
}

/// Removes the oldest folders beyond `limit`.
pub(crate) fn evict(folder: &Path, limit: usize) -> io::Result<()> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let modified = entry.metadata()?.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        entries.push((modified, entry.path()));
    }
    entries.sort();
    let surplus = entries.len().saturating_sub(limit);
    for (_, path) in entries.into_iter().take(surplus) {
        fs::remove_dir_all(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_fails_to_fill_is_not_there() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a");
        let result = fill(&folder, |target| {
            write(target, "part.bin", b"1")?;
            Err(Failure::Interrupted)
        });
        assert_eq!(result, Err(Failure::Interrupted));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        fill(&folder, |target| write(target, "deep/part.bin", b"1")).unwrap();
        assert_eq!(fs::read(folder.join("deep/part.bin")).unwrap(), b"1");
        fill(&folder, |target| write(target, "other.bin", b"2")).unwrap();
    }

    #[test]
    fn a_path_cannot_leave_its_folder() {
        let root = tempfile::tempdir().unwrap();
        for name in ["../a", "/a", "b/../../a", ""] {
            assert!(matches!(write(root.path(), name, b""), Err(Failure::Permanent { .. })), "{name}");
        }
    }

    #[test]
    fn the_cache_is_bounded() {
        let root = tempfile::tempdir().unwrap();
        for n in 0..4 {
            fs::create_dir(root.path().join(n.to_string())).unwrap();
        }
        evict(root.path(), 3).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 3);
    }
}
