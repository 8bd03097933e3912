//! A store in an S3 bucket, for a fleet: AWS or any server that speaks the same, with atomic `If-None-Match`.
//!
//! Every object carries its SHA-256 as metadata, `x-amz-meta-sha256`, and is checked against it on every read. Metadata
//! can be given only when an object is begun, so a stream is first written to a temporary file, without a name, while its
//! digest is computed; what is small stays in memory. The alternative, uploading first and copying the object onto itself
//! with its digest, would show readers an object without one, or leave copies behind when a process dies. A file also
//! makes a failed part repeatable. It needs room for the object in the system's temporary folder (`TMPDIR`).
//!
//! Objects above [`write::PART_BYTES`] are uploaded in parts and appear whole when the last step completes. A process that
//! dies in between leaves parts that nobody sees; give the bucket a lifecycle rule that aborts incomplete uploads.

mod client;
mod clock;
mod error;
mod foreign;
mod read;
mod spool;
mod write;

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_sdk_s3::{
    Client,
    error::ProvideErrorMetadata,
    presigning::PresigningConfig,
    primitives,
    types::{BucketLocationConstraint, CreateBucketConfiguration},
};
use bytes::Bytes;
use secrecy::SecretString;

pub use self::foreign::{Bucket, Object};
use self::{clock::ServerClock, error::Doing, write::Content};
use super::{ByteStream, Error, Head, Put, Result, Store, check_key, check_prefix};

/// Metadata with the SHA-256 in hexadecimal.
const DIGEST: &str = "sha256";

/// Metadata with a name of the call that created an object: tells whether a creation whose answer was lost is ours.
const WRITER: &str = "writer";

/// The longest time that a link may be valid (signature version 4).
const LONGEST_LINK: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where a bucket is and who we are to it.
#[derive(Clone, Default)]
pub struct Address {
    /// The bucket. Where it does not exist, [`Store::create`] makes it.
    pub bucket: String,
    /// What comes before every key: empty, or ending with `/`.
    pub prefix: String,
    /// The server, where it is not AWS.
    pub url: Option<String>,
    /// The server as others reach it, for links.
    pub public_url: Option<String>,
    /// The region. Where it is not given: with `url` the environment's or `us-east-1`, else by the usual chain.
    pub region: Option<String>,
    /// Whether the bucket is a part of the path.
    pub path_style: bool,
    /// Key and secret; by the usual chain where they are not given.
    pub credentials: Option<(String, SecretString)>,
}

/// A store in an S3 bucket. Clones share its connections.
#[derive(Clone)]
pub struct S3 {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    /// Signs links, for the public address.
    signer: Client,
    bucket: String,
    prefix: String,
    endpoint: String,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3").field("endpoint", &self.shared.endpoint).finish_non_exhaustive()
    }
}

impl S3 {
    /// The store at `address`. Does not connect: the first use does.
    pub async fn open(address: &Address) -> Self {
        let clock = ServerClock::default();
        let client = client::new(address, address.url.as_deref(), &clock).await;
        let signer = match &address.public_url {
            Some(url) => client::new(address, Some(url), &clock).await,
            None => client.clone(),
        };
        let mut endpoint = format!("s3://{}/{}", address.bucket, address.prefix);
        if let Some(url) = &address.url {
            endpoint = format!("{endpoint} at {url}");
        }
        let (bucket, prefix) = (address.bucket.clone(), address.prefix.clone());
        Self { shared: Arc::new(Shared { client, signer, bucket, prefix, endpoint }) }
    }
}

impl Shared {
    /// The object's name in the bucket.
    fn name(&self, key: &str) -> Result<String> {
        check_key(key)?;
        Ok(format!("{}{key}", self.prefix))
    }
}

fn metadata(sha256: &[u8; 32], writer: Option<&str>) -> HashMap<String, String> {
    let mut metadata = HashMap::from([(DIGEST.to_owned(), hex::encode(sha256))]);
    if let Some(writer) = writer {
        metadata.insert(WRITER.to_owned(), writer.to_owned());
    }
    metadata
}

#[async_trait]
impl Store for S3 {
    async fn get(&self, key: &str) -> Result<Bytes> {
        read::whole(&self.shared, key).await
    }

    async fn get_stream(&self, key: &str) -> Result<ByteStream> {
        read::stream(self.shared.clone(), key).await
    }

    async fn put(&self, key: &str, content: Bytes) -> Result<Head> {
        write::put(&self.shared, key, Content::memory(content)).await
    }

    async fn put_stream(&self, key: &str, content: ByteStream) -> Result<Head> {
        check_key(key)?;
        let content = spool::collect(&self.shared.endpoint, key, content).await?;
        write::put(&self.shared, key, content).await
    }

    async fn put_if_absent(&self, key: &str, content: Bytes) -> Result<Put> {
        write::put_if_absent(&self.shared, key, content).await
    }

    async fn head(&self, key: &str) -> Result<Option<Head>> {
        let found =
            self.shared.client.head_object().bucket(&self.shared.bucket).key(self.shared.name(key)?).send().await;
        match found.map_err(|error| self.shared.failed(Doing::Read, key, error)) {
            Ok(found) => {
                let size_bytes =
                    found.content_length().and_then(|length| u64::try_from(length).ok()).unwrap_or_default();
                let sha256 = read::digest(key, found.metadata())?;
                Ok(Some(Head { key: key.to_owned(), size_bytes, sha256 }))
            }
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>> {
        check_prefix(prefix)?;
        let start = self.shared.prefix.len();
        let request = self.shared.client.list_objects_v2().bucket(&self.shared.bucket);
        let mut pages = request.prefix(format!("{}{prefix}", self.shared.prefix)).into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.shared.failed(Doing::List, prefix, error))?;
            let names = page.contents().iter().filter_map(|object| object.key()?.get(start..));
            // What others put there under names that are no keys is not ours.
            keys.extend(names.filter(|key| check_key(key).is_ok()).map(str::to_owned));
        }
        keys.sort_unstable();
        Ok(keys)
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let request = self.shared.client.delete_object().bucket(&self.shared.bucket).key(self.shared.name(key)?);
        match request.send().await.map_err(|error| self.shared.failed(Doing::Write, key, error)) {
            Ok(_) | Err(Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn create(&self) -> Result<()> {
        let Shared { client, bucket, .. } = &*self.shared;
        // Looked for first: who may use a bucket is often not allowed to make one.
        match client.head_bucket().bucket(bucket).send().await {
            Ok(_) => return Ok(()),
            Err(error) if error::status(&error) == Some(404) => {}
            Err(error) => return Err(self.shared.failed(Doing::Read, "", error)),
        }
        // AWS takes a bucket for its first region unless another is named, which must not be that one.
        let region = client.config().region().map(AsRef::as_ref).filter(|region| *region != "us-east-1");
        let place = region.map(|region: &str| {
            CreateBucketConfiguration::builder().location_constraint(BucketLocationConstraint::from(region)).build()
        });
        match client.create_bucket().bucket(bucket).set_create_bucket_configuration(place).send().await {
            Ok(_) => Ok(()),
            // Another was faster.
            Err(error) if error.code() == Some("BucketAlreadyOwnedByYou") => Ok(()),
            Err(error) => Err(self.shared.failed(Doing::Write, "", error)),
        }
    }

    async fn presign_get(&self, key: &str, valid_for: Duration) -> Result<Option<String>> {
        let name = self.shared.name(key)?;
        let signed = async {
            let config = PresigningConfig::expires_in(valid_for.clamp(Duration::from_secs(1), LONGEST_LINK))
                .map_err(|error| self.shared.backend(key, error.to_string()))?;
            let request = self.shared.signer.get_object().bucket(&self.shared.bucket).key(name);
            request.presigned(config).await.map_err(|error| self.shared.failed(Doing::Read, key, error))
        };
        Ok(Some(signed.await?.uri().to_owned()))
    }
}

/// A body that can be sent again when the first try fails.
fn body(content: Bytes) -> primitives::ByteStream {
    primitives::ByteStream::from(content)
}
