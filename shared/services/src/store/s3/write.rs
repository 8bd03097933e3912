//! Writing: in one piece, in parts, and only if absent.

use std::{fs::File, sync::Arc};

use aws_sdk_s3::{
    error::ProvideErrorMetadata,
    types::{CompletedMultipartUpload, CompletedPart},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::{
    Shared, WRITER, body,
    error::{Doing, status},
    metadata, spool,
};
use crate::store::{Error, Head, Put, Result, check_key};

/// Objects up to this size are put in one piece, larger ones in parts of it. S3 wants 5 MiB at least.
pub(super) const PART_BYTES: usize = 8 << 20;

/// Parts that travel at once; as many are in memory.
const PARTS_AT_ONCE: usize = 3;

/// S3 allows 10,000 parts.
const MOST_PARTS: u64 = 10_000;

/// How often a creation is tried while the server says that another is under way (409).
const CONFLICTS: usize = 10;

/// What is to be stored.
pub(super) struct Content {
    pub(super) place: Place,
    pub(super) size_bytes: u64,
    pub(super) sha256: [u8; 32],
}

/// Where it is.
pub(super) enum Place {
    Memory(Bytes),
    File(Arc<File>),
}

impl Content {
    pub(super) fn memory(content: Bytes) -> Self {
        Self { size_bytes: content.len() as u64, sha256: crate::sha256(&content), place: Place::Memory(content) }
    }

    async fn part(&self, offset: u64, length: usize) -> std::io::Result<Bytes> {
        match &self.place {
            Place::Memory(content) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
                Ok(content.slice(start..start.saturating_add(length).min(content.len())))
            }
            Place::File(file) => spool::read(file.clone(), offset, length).await,
        }
    }
}

/// Makes or replaces the object.
pub(super) async fn put(shared: &Arc<Shared>, key: &str, content: Content) -> Result<Head> {
    check_key(key)?;
    let head = Head { key: key.to_owned(), size_bytes: content.size_bytes, sha256: content.sha256 };
    if content.size_bytes > PART_BYTES as u64 {
        in_parts(shared, key, content).await?;
        return Ok(head);
    }
    let piece = content.part(0, PART_BYTES.min(content.size_bytes as usize)).await;
    let piece = piece.map_err(|error| shared.backend(key, error.to_string()))?;
    let request = shared.client.put_object().bucket(&shared.bucket).key(shared.name(key)?);
    let request = request.set_metadata(Some(metadata(&content.sha256, None))).body(body(piece));
    request.send().await.map_err(|error| shared.failed(Doing::Write, key, error))?;
    Ok(head)
}

/// Makes the object unless one is there.
pub(super) async fn put_if_absent(shared: &Arc<Shared>, key: &str, content: Bytes) -> Result<Put> {
    let name = shared.name(key)?;
    let writer = crate::nonce();
    let metadata = metadata(&crate::sha256(&content), Some(&writer));
    for _ in 0..CONFLICTS {
        let request = shared.client.put_object().bucket(&shared.bucket).key(&name).if_none_match("*");
        let error = match request.set_metadata(Some(metadata.clone())).body(body(content.clone())).send().await {
            Ok(_) => return Ok(Put::Created),
            Err(error) => error,
        };
        match status(&error) {
            // Also where an answer to us was lost and the SDK has sent the request again: then the object is ours.
            Some(412) => {
                let found = shared.client.head_object().bucket(&shared.bucket).key(&name).send().await;
                match found.map_err(|error| shared.failed(Doing::Read, key, error)) {
                    Ok(found) => {
                        let ours = found.metadata().and_then(|metadata| metadata.get(WRITER)) == Some(&writer);
                        return Ok(if ours { Put::Created } else { Put::Exists });
                    }
                    // It was deleted in between.
                    Err(Error::NotFound(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            Some(409) if error.code() == Some("ConditionalRequestConflict") => {}
            _ => return Err(shared.failed(Doing::Write, key, error)),
        }
    }
    Err(shared.backend(key, format!("{CONFLICTS} creations in a row met others; try again")))
}

/// Uploads in parts. Where that fails or is given up, the parts are removed.
async fn in_parts(shared: &Arc<Shared>, key: &str, content: Content) -> Result<()> {
    let name = shared.name(key)?;
    let begun = shared.client.create_multipart_upload().bucket(&shared.bucket).key(&name);
    let begun = begun.set_metadata(Some(metadata(&content.sha256, None))).send().await;
    let begun = begun.map_err(|error| shared.failed(Doing::Write, key, error))?;
    let Some(id) = begun.upload_id else {
        return Err(shared.backend(key, "the server began an upload without an id".to_owned()));
    };
    let mut upload = Upload { shared: shared.clone(), name, id, done: false };
    let part_bytes = (PART_BYTES as u64).max(content.size_bytes.div_ceil(MOST_PARTS));
    let numbers = 0..content.size_bytes.div_ceil(part_bytes);
    let (parts, content) = (&upload, &content);
    let sent = stream::iter(numbers).map(async |number| {
        let offset = number * part_bytes;
        let length = part_bytes.min(content.size_bytes - offset) as usize;
        let part = content.part(offset, length).await.map_err(|error| shared.backend(key, error.to_string()))?;
        parts.send(key, number as i32 + 1, part).await
    });
    let sent: Vec<CompletedPart> = sent.buffered(PARTS_AT_ONCE).try_collect().await?;
    let all = CompletedMultipartUpload::builder().set_parts(Some(sent)).build();
    let complete = shared.client.complete_multipart_upload().bucket(&shared.bucket).key(&upload.name);
    let complete = complete.upload_id(&upload.id).multipart_upload(all).send().await;
    if let Err(error) = complete {
        // A completion whose answer was lost is unknown to the server when it is sent again: the object tells.
        let lost = status(&error) == Some(404);
        let error = shared.failed(Doing::Write, key, error);
        return match lost && is_there(shared, &upload.name, &content.sha256).await {
            true => {
                upload.done = true;
                Ok(())
            }
            false => match error {
                Error::NotFound(_) => {
                    Err(shared.backend(key, "the server has forgotten the upload; put it again".to_owned()))
                }
                error => Err(error),
            },
        };
    }
    upload.done = true;
    Ok(())
}

async fn is_there(shared: &Shared, name: &str, sha256: &[u8; 32]) -> bool {
    let found = shared.client.head_object().bucket(&shared.bucket).key(name).send().await;
    found.is_ok_and(|found| super::read::digest(name, found.metadata()).is_ok_and(|digest| digest == *sha256))
}

/// An upload in parts, which is aborted unless it is done.
struct Upload {
    shared: Arc<Shared>,
    name: String,
    id: String,
    done: bool,
}

impl Upload {
    async fn send(&self, key: &str, number: i32, part: Bytes) -> Result<CompletedPart> {
        let request = self.shared.client.upload_part().bucket(&self.shared.bucket).key(&self.name).upload_id(&self.id);
        let sent = request.part_number(number).body(body(part)).send().await;
        let sent = sent.map_err(|error| self.shared.failed(Doing::Write, key, error))?;
        Ok(CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).build())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.done {
            return;
        }
        let (shared, name, id) = (self.shared.clone(), std::mem::take(&mut self.name), std::mem::take(&mut self.id));
        runtime.spawn(async move {
            let abort = shared.client.abort_multipart_upload().bucket(&shared.bucket).key(name).upload_id(id);
            // Where this fails too, the bucket's lifecycle rule removes the parts.
            let _ = abort.send().await;
        });
    }
}
