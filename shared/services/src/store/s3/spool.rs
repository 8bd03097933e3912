//! A stream's content, kept until its digest is known.

use std::{fs::File, io::Write, os::unix::fs::FileExt, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use super::write::{Content, PART_BYTES, Place};
use crate::store::{ByteStream, Error, Result};

/// Reads the stream to its end: into memory up to [`PART_BYTES`], beyond that into a temporary file that has no name and so
/// vanishes with the process.
pub(super) async fn collect(endpoint: &str, key: &str, mut content: ByteStream) -> Result<Content> {
    let full = |error: std::io::Error| Error::Backend {
        key: key.to_owned(),
        endpoint: endpoint.to_owned(),
        cause: format!(
            "its content does not fit into the temporary folder {}: {error}; free some space there or set TMPDIR",
            std::env::temp_dir().display()
        ),
    };
    let mut hasher = Sha256::new();
    let mut size_bytes = 0;
    let mut waiting = BytesMut::new();
    let mut file: Option<File> = None;
    while let Some(piece) = content.next().await {
        let piece = piece.map_err(|error| Error::Source { key: key.to_owned(), cause: error.to_string() })?;
        hasher.update(&piece);
        size_bytes += piece.len() as u64;
        waiting.extend_from_slice(&piece);
        if waiting.len() > PART_BYTES {
            file = Some(append(file, waiting.split().freeze()).await.map_err(full)?);
        }
    }
    let sha256 = hasher.finalize().into();
    let place = match file {
        None => Place::Memory(waiting.freeze()),
        Some(file) => Place::File(Arc::new(append(Some(file), waiting.freeze()).await.map_err(full)?)),
    };
    Ok(Content { place, size_bytes, sha256 })
}

async fn append(file: Option<File>, piece: Bytes) -> std::io::Result<File> {
    spawn_blocking(move || {
        let mut file = match file {
            Some(file) => file,
            None => tempfile::tempfile()?,
        };
        file.write_all(&piece)?;
        Ok(file)
    })
    .await
    .unwrap_or_else(|stopped| Err(std::io::Error::other(stopped)))
}

/// A part of the file.
pub(super) async fn read(file: Arc<File>, offset: u64, length: usize) -> std::io::Result<Bytes> {
    spawn_blocking(move || {
        let mut part = vec![0; length];
        file.read_exact_at(&mut part, offset)?;
        Ok(Bytes::from(part))
    })
    .await
    .unwrap_or_else(|stopped| Err(std::io::Error::other(stopped)))
}
