//! Reading, checked against the digest, and resumed where a connection breaks.

use std::{collections::HashMap, sync::Arc};

use aws_sdk_s3::{operation::get_object::GetObjectOutput, primitives::ByteStream as Body};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};

use super::{
    DIGEST, Shared,
    error::{Doing, status},
};
use crate::store::{ByteStream, Error, Result};

/// How often a broken download is resumed, where each time brings at least one byte more this counts anew.
const RESUMPTIONS: u32 = 4;

/// Memory that is set aside for an object before its bytes have come: its length is only what a server says.
const MOST_RESERVED: u64 = 64 << 20;

/// The recorded digest.
pub(super) fn digest(key: &str, metadata: Option<&HashMap<String, String>>) -> Result<[u8; 32]> {
    let recorded = metadata.and_then(|metadata| metadata.get(DIGEST)).map_or("", String::as_str);
    let mut digest = [0; 32];
    match hex::decode_to_slice(recorded, &mut digest) {
        Ok(()) => Ok(digest),
        Err(_) => Err(Error::Damaged {
            key: key.to_owned(),
            expected: format!("recorded (metadata `{DIGEST}` is `{recorded}`)"),
            found: "unknown".to_owned(),
        }),
    }
}

/// The object's bytes.
pub(super) async fn whole(shared: &Arc<Shared>, key: &str) -> Result<Bytes> {
    collected(Download::start(shared.clone(), key).await?).await
}

/// The bytes of an object that somebody else put there, as the server gives them.
pub(super) async fn foreign(shared: &Arc<Shared>, key: &str) -> Result<Bytes> {
    let name = format!("{}{key}", shared.prefix);
    collected(Download::of(shared.clone(), key, name, false).await?).await
}

async fn collected(mut download: Download) -> Result<Bytes> {
    let mut content = BytesMut::with_capacity(download.size_bytes.min(MOST_RESERVED) as usize);
    while let Some(piece) = download.next().await? {
        content.extend_from_slice(&piece);
    }
    Ok(content.freeze())
}

/// The object's bytes in pieces.
pub(super) async fn stream(shared: Arc<Shared>, key: &str) -> Result<ByteStream> {
    let download = Download::start(shared, key).await?;
    let pieces = stream::try_unfold(Some(download), async |download| {
        let Some(mut download) = download else { return Ok(None) };
        let piece = download.next().await.map_err(std::io::Error::other)?;
        Ok(piece.map(|piece| (piece, Some(download))))
    });
    Ok(pieces.into_stream().boxed())
}

/// A download under way.
struct Download {
    shared: Arc<Shared>,
    key: String,
    name: String,
    /// Says that a resumed download is of the same object.
    tag: Option<String>,
    size_bytes: u64,
    /// None where it is an object of others.
    expected: Option<[u8; 32]>,
    body: Body,
    /// Digest of the `read_bytes` so far.
    hasher: Sha256,
    read_bytes: u64,
    resumptions: u32,
}

impl Download {
    async fn start(shared: Arc<Shared>, key: &str) -> Result<Self> {
        let name = shared.name(key)?;
        Self::of(shared, key, name, true).await
    }

    async fn of(shared: Arc<Shared>, key: &str, name: String, ours: bool) -> Result<Self> {
        let found = shared.client.get_object().bucket(&shared.bucket).key(&name).send().await;
        let found = found.map_err(|error| shared.failed(Doing::Read, key, error))?;
        let GetObjectOutput { body, metadata, content_length, e_tag, .. } = found;
        let expected = ours.then(|| digest(key, metadata.as_ref())).transpose()?;
        Ok(Self {
            key: key.to_owned(),
            name,
            tag: e_tag,
            size_bytes: content_length.and_then(|length| u64::try_from(length).ok()).unwrap_or_default(),
            expected,
            body,
            hasher: Sha256::new(),
            read_bytes: 0,
            resumptions: 0,
            shared,
        })
    }

    /// The next piece, not empty; `None` at the end, when the digest is right.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let cause = match self.body.next().await {
                Some(Ok(piece)) if piece.is_empty() => continue,
                Some(Ok(piece)) => {
                    self.hasher.update(&piece);
                    self.read_bytes += piece.len() as u64;
                    self.resumptions = 0;
                    return Ok(Some(piece));
                }
                None if self.read_bytes >= self.size_bytes => return self.verify().map(|()| None),
                None => "the connection ended early".to_owned(),
                Some(Err(error)) => error.to_string(),
            };
            self.resume(cause).await?;
        }
    }

    fn verify(&mut self) -> Result<()> {
        let found: [u8; 32] = std::mem::take(&mut self.hasher).finalize().into();
        let Some(expected) = self.expected.filter(|expected| *expected != found) else { return Ok(()) };
        let (expected, found) = (hex::encode(expected), hex::encode(found));
        Err(Error::Damaged { key: self.key.clone(), expected, found })
    }

    /// Asks for the rest of the object after the connection broke.
    async fn resume(&mut self, cause: String) -> Result<()> {
        let failed = |cause: String| {
            let read = format!("after {} of {} bytes: {cause}", self.read_bytes, self.size_bytes);
            self.shared.backend(&self.key, read)
        };
        if self.resumptions == RESUMPTIONS {
            return Err(failed(cause));
        }
        self.resumptions += 1;
        let request = self.shared.client.get_object().bucket(&self.shared.bucket).key(&self.name);
        let request = request.range(format!("bytes={}-", self.read_bytes)).set_if_match(self.tag.clone());
        match request.send().await {
            Ok(found) => {
                let starts = found.content_range().and_then(|range| range.strip_prefix("bytes ")?.split('-').next());
                if starts.and_then(|start| start.parse().ok()) != Some(self.read_bytes) && self.read_bytes > 0 {
                    return Err(failed("the server does not resume downloads".to_owned()));
                }
                self.body = found.body;
                Ok(())
            }
            Err(error) if status(&error) == Some(412) => {
                Err(failed("the object was replaced while it was read; read it again".to_owned()))
            }
            Err(error) => Err(self.shared.failed(Doing::Read, &self.key, error)),
        }
    }
}
