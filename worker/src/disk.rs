//! Whether the worker's own disk can be used.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Bytes that have to fit.
static PROBE: [u8; 64 << 10] = [0; 64 << 10];

/// Writes a little into the folder `scratch`, and removes it again.
///
/// # Errors
/// The system's: a full disk, a permission, a file system that has become read-only.
pub(crate) async fn probe(scratch: PathBuf) -> io::Result<()> {
    tokio::task::spawn_blocking(move || write(&scratch)).await.unwrap_or_else(|stopped| Err(io::Error::other(stopped)))
}

fn write(scratch: &Path) -> io::Result<()> {
    std::fs::create_dir_all(scratch)?;
    // Without a name: nothing is left where the process dies.
    let mut file = tempfile::tempfile_in(scratch)?;
    file.write_all(&PROBE)?;
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_disk_that_can_be_written_passes_and_a_file_is_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        probe(folder.path().join("new")).await.unwrap();
        assert_eq!(std::fs::read_dir(folder.path().join("new")).unwrap().count(), 0);
        std::fs::write(folder.path().join("file"), b"").unwrap();
        assert!(probe(folder.path().join("file")).await.is_err());
    }
}
