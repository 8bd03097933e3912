//! Objects that others put into a bucket, read as they are: a hospital's archive has no digests of ours.

use bytes::Bytes;

use super::{Address, S3, error::Doing, read};
use crate::store::{Error, Result};

/// A bucket of others, which is only read.
#[derive(Debug, Clone)]
pub struct Bucket(S3);

/// An object of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name from the prefix on. Not limited to what a [`Store`](super::Store) takes for keys.
    pub key: String,
    /// Its size.
    pub size_bytes: u64,
    /// When it was written last, nanoseconds since 1970.
    pub changed_ns: i64,
}

impl Bucket {
    /// The objects below `address`. Does not connect: the first use does.
    pub async fn open(address: &Address) -> Self {
        Self(S3::open(address).await)
    }

    /// All objects, sorted by name; folders that some tools write as empty objects are none.
    ///
    /// # Errors
    /// [`Error::Backend`] where the server cannot be asked.
    pub async fn list(&self) -> Result<Vec<Object>> {
        let shared = &self.0.shared;
        let request = shared.client.list_objects_v2().bucket(&shared.bucket).prefix(&shared.prefix);
        let mut pages = request.into_paginator().send();
        let mut objects = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| shared.failed(Doing::List, "", error))?;
            objects.extend(page.contents().iter().filter_map(|object| {
                let key = object.key()?.get(shared.prefix.len()..)?.to_owned();
                let size_bytes = object.size().and_then(|size| u64::try_from(size).ok())?;
                let changed = object.last_modified().map_or(0, |time| time.as_nanos());
                let changed_ns = i64::try_from(changed).unwrap_or_default();
                (!key.is_empty() && !key.ends_with('/')).then_some(Object { key, size_bytes, changed_ns })
            }));
        }
        objects.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    /// An object's bytes; a download that breaks is resumed.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an object that is gone, [`Error::Backend`] where the server fails.
    pub async fn get(&self, key: &str) -> Result<Bytes, Error> {
        read::foreign(&self.0.shared, key).await
    }
}
