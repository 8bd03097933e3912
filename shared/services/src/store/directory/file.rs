//! An object's file: its footer, how it is written, how it is read in pieces.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::store::{Error, Head, Put, Result};

/// The folder of files that are being written, below the store's root. No key starts with a dot.
pub(super) const PARTIAL: &str = ".partial";

/// Length in bytes of the line after an object's content.
const FOOTER_BYTES: usize = "\nhiresmed-object sha256= size_bytes=\n".len() + 64 + 20;

/// What the last line of an object's file says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Footer {
    sha256: [u8; 32],
    size_bytes: u64,
}

impl Footer {
    fn to_line(self) -> String {
        format!("\nhiresmed-object sha256={} size_bytes={:020}\n", hex::encode(self.sha256), self.size_bytes)
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let (sha256, size) =
            line.strip_prefix("\nhiresmed-object sha256=")?.strip_suffix('\n')?.split_once(" size_bytes=")?;
        let mut digest = [0; 32];
        hex::decode_to_slice(sha256, &mut digest).ok()?;
        Some(Self { sha256: digest, size_bytes: size.parse().ok()? })
    }

    fn checked(key: &str, line: &[u8], size_bytes: u64) -> Result<Self> {
        Self::parse(line).filter(|footer| footer.size_bytes == size_bytes).ok_or_else(|| Error::Damaged {
            key: key.to_owned(),
            expected: "what the file's last line would say".to_owned(),
            found: "of a file that was cut short or changed".to_owned(),
        })
    }

    /// Takes a whole file apart: its footer, and the length of its content.
    pub(super) fn split(key: &str, file: &[u8]) -> Result<(Self, usize)> {
        let length = file.len().saturating_sub(FOOTER_BYTES);
        Ok((Self::checked(key, &file[length..], length as u64)?, length))
    }

    /// Reads the footer of the file at `path`. The outer error is the system's, the inner one the footer's.
    pub(super) fn read(key: &str, path: &Path) -> io::Result<Result<Self>> {
        Reading::open(key, path).map(|reading| reading.map(|reading| reading.footer))
    }

    pub(super) fn verify(&self, key: &str, found: [u8; 32]) -> Result<()> {
        if found == self.sha256 {
            return Ok(());
        }
        Err(Error::Damaged { key: key.to_owned(), expected: hex::encode(self.sha256), found: hex::encode(found) })
    }

    pub(super) fn head(&self, key: &str) -> Head {
        Head { key: key.to_owned(), size_bytes: self.size_bytes, sha256: self.sha256 }
    }
}

/// An object that is read in pieces.
pub(super) struct Reading {
    key: String,
    file: File,
    footer: Footer,
    left_bytes: u64,
    hash: Option<Sha256>,
}

impl Reading {
    /// Opens the file at `path`. The outer error is the system's, the inner one the footer's.
    pub(super) fn open(key: &str, path: &Path) -> io::Result<Result<Self>> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            // `File::open` opens a folder: there are only keys below this one.
            return Err(io::ErrorKind::NotFound.into());
        }
        let left_bytes = metadata.len().saturating_sub(FOOTER_BYTES as u64);
        let mut line = Vec::with_capacity(FOOTER_BYTES);
        file.seek(SeekFrom::Start(left_bytes))?;
        (&file).take(FOOTER_BYTES as u64).read_to_end(&mut line)?;
        file.rewind()?;
        let footer = Footer::checked(key, &line, left_bytes);
        Ok(footer.map(|footer| Self { key: key.to_owned(), file, footer, left_bytes, hash: Some(Sha256::new()) }))
    }

    /// The next piece of at most `most` bytes; `None` after the last, once the digest was right.
    pub(super) fn next(&mut self, most: usize) -> io::Result<Option<Bytes>> {
        if self.left_bytes == 0 {
            return match self.hash.take() {
                Some(hash) => self
                    .footer
                    .verify(&self.key, hash.finalize().into())
                    .map(|()| None)
                    .map_err(|damaged| io::Error::new(io::ErrorKind::InvalidData, damaged)),
                None => Ok(None),
            };
        }
        let mut piece = vec![0; self.left_bytes.min(most as u64) as usize];
        self.file.read_exact(&mut piece)?;
        self.left_bytes -= piece.len() as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(&piece);
        }
        Ok(Some(piece.into()))
    }
}

/// A file that is being written. Dropped before it got its name, it is removed.
pub(super) struct Partial {
    path: PathBuf,
    file: File,
    hash: Sha256,
    size_bytes: u64,
}

impl Partial {
    /// Creates an empty file in `folder` and locks it.
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{}-{number}-{}", std::process::id(), crate::nonce()));
            let file = File::create_new(&path)?;
            file.lock()?;
            // Between creation and lock, somebody who opened the store may have taken it for abandoned.
            if file.metadata()?.nlink() > 0 {
                return Ok(Self { path, file, hash: Sha256::new(), size_bytes: 0 });
            }
        }
    }

    pub(super) fn append(&mut self, piece: &[u8]) -> io::Result<()> {
        self.file.write_all(piece)?;
        self.hash.update(piece);
        self.size_bytes += piece.len() as u64;
        Ok(())
    }

    /// Writes the footer and flushes all to the disk.
    pub(super) fn finish(&mut self, key: &str) -> io::Result<Head> {
        let footer = Footer { sha256: self.hash.clone().finalize().into(), size_bytes: self.size_bytes };
        self.file.write_all(footer.to_line().as_bytes())?;
        self.file.sync_all()?;
        Ok(footer.head(key))
    }

    /// Gives the file its final name in place of whatever has it.
    pub(super) fn replace(self, root: &Path, key: &str) -> io::Result<()> {
        let (path, folder) = make_folder(root, key)?;
        fs::rename(&self.path, path)?;
        File::open(folder)?.sync_all()
    }

    /// Gives the file its final name unless something has it.
    pub(super) fn link(self, root: &Path, key: &str) -> io::Result<Put> {
        let (path, folder) = make_folder(root, key)?;
        let put = match fs::hard_link(&self.path, path) {
            Ok(()) => Put::Created,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Put::Exists,
            Err(error) => return Err(error),
        };
        File::open(folder)?.sync_all()?;
        Ok(put)
    }
}

/// Makes the name of an existing object durable: whoever made it may not have come that far yet.
pub(super) fn sync_folder(root: &Path, key: &str) -> io::Result<()> {
    File::open(root.join(key).parent().unwrap_or(root))?.sync_all()
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After a rename there is nothing under this name, after a link a second name; either way nothing is lost.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the folders above `key` durable, and gives the object's path and folder.
fn make_folder(root: &Path, key: &str) -> io::Result<(PathBuf, PathBuf)> {
    let path = root.join(key);
    let folder = path.parent().unwrap_or(root).to_owned();
    let mut missing: Vec<&Path> = folder.ancestors().take_while(|folder| folder.starts_with(root)).collect();
    missing.retain(|folder| !folder.is_dir());
    for folder in missing.into_iter().rev() {
        match fs::create_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            made => made?,
        }
        if let Some(above) = folder.parent() {
            File::open(above)?.sync_all()?;
        }
    }
    Ok((path, folder))
}

/// Removes the files in `folder` whose writers are dead.
pub(super) fn remove_abandoned(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // A writer may finish at any moment, and its file be gone.
        let Ok(file) = File::options().write(true).open(&path) else { continue };
        match file.try_lock() {
            Ok(()) => match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            },
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(())
}
