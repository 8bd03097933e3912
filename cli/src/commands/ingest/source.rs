//! What `hiresmed ingest` reads: a folder, or a bucket.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use hiresmed_worker::shipped;

use crate::{failure, stamp::Stamp};

/// Where the files are.
pub(super) enum Source {
    Folder(PathBuf),
    #[cfg(feature = "s3")]
    Bucket(bucket::Opened),
}

/// A file of the source.
#[derive(Debug)]
pub(super) struct Item {
    /// From the source on.
    pub name: String,
    /// Where the listing says it.
    stamp: Option<Stamp>,
}

impl Source {
    /// A folder, or `s3://BUCKET[/PREFIX]` at the server `url`, else AWS.
    ///
    /// # Errors
    /// A folder that is not there, an address without a bucket.
    pub fn open(source: &Path, url: Option<&str>) -> Result<Self> {
        let text = source.to_string_lossy();
        let Some(place) = text.strip_prefix("s3://") else {
            let folder = source.canonicalize();
            let folder = folder.with_context(|| format!("the folder {text} cannot be read; name one that exists"));
            return Ok(Self::Folder(folder.map_err(failure::refused)?));
        };
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() {
            return Err(failure::refused(anyhow!("{text} names no bucket; write s3://BUCKET or s3://BUCKET/PREFIX")));
        }
        Self::bucket(bucket, prefix, url)
    }

    #[cfg(feature = "s3")]
    fn bucket(bucket: &str, prefix: &str, url: Option<&str>) -> Result<Self> {
        Ok(Self::Bucket(bucket::Opened::new(bucket, prefix, url)?))
    }

    #[cfg(not(feature = "s3"))]
    fn bucket(_: &str, _: &str, _: Option<&str>) -> Result<Self> {
        Err(failure::refused(anyhow!(
            "this hiresmed was built without S3; build it by `make build FEATURES=s3`, or name a folder"
        )))
    }

    /// Whether a path lies in the source.
    pub fn holds(&self, path: &Path) -> bool {
        match self {
            Self::Folder(root) => path.starts_with(root),
            #[cfg(feature = "s3")]
            Self::Bucket(_) => false,
        }
    }

    /// The files, sorted.
    ///
    /// # Errors
    /// The folder or the bucket cannot be listed.
    pub fn list(&self) -> Result<Vec<Item>> {
        match self {
            Self::Folder(root) => {
                let files = shipped::files(root).with_context(|| format!("{} cannot be listed", root.display()))?;
                let name = |path: PathBuf| path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                Ok(files.into_iter().map(|path| Item { name: name(path), stamp: None }).collect())
            }
            #[cfg(feature = "s3")]
            Self::Bucket(bucket) => bucket.list(),
        }
    }

    /// Size and time of the last change; both 0 where the file is gone.
    pub fn stamp(&self, item: &Item) -> Stamp {
        let looked_at = || match self {
            Self::Folder(root) => fs::metadata(root.join(&item.name)).ok().map(|found| Stamp::of(&found)),
            #[cfg(feature = "s3")]
            Self::Bucket(_) => None,
        };
        item.stamp.or_else(looked_at).unwrap_or(Stamp { size_bytes: 0, changed_ns: 0 })
    }

    /// A file's bytes, or what is wrong with this file alone.
    ///
    /// # Errors
    /// The bucket cannot be read any more.
    pub fn read(&self, item: &Item) -> Result<Result<Bytes, String>> {
        match self {
            Self::Folder(root) => {
                let read = fs::read(root.join(&item.name)).map(Bytes::from);
                Ok(read.map_err(|error| format!("it cannot be read ({error})")))
            }
            #[cfg(feature = "s3")]
            Self::Bucket(bucket) => bucket.read(item),
        }
    }
}

#[cfg(feature = "s3")]
mod bucket {
    use hiresmed_services::store::{self, Address, Bucket, Object};
    use tokio::runtime::{self, Runtime};

    use super::{Bytes, Context, Item, Result, Stamp};

    /// A bucket, and what drives its connections.
    pub(in super::super) struct Opened {
        bucket: Bucket,
        runtime: Runtime,
    }

    impl Opened {
        pub fn new(bucket: &str, prefix: &str, url: Option<&str>) -> Result<Self> {
            let slash = if prefix.is_empty() || prefix.ends_with('/') { "" } else { "/" };
            let address = Address {
                bucket: bucket.to_owned(),
                prefix: format!("{prefix}{slash}"),
                url: url.map(str::to_owned),
                // Most servers that are not AWS have no host names for their buckets.
                path_style: url.is_some(),
                ..Address::default()
            };
            let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            Ok(Self { bucket: runtime.block_on(Bucket::open(&address)), runtime })
        }

        pub fn list(&self) -> Result<Vec<Item>> {
            let item = |Object { key, size_bytes, changed_ns }: Object| Item {
                name: key,
                stamp: Some(Stamp { size_bytes, changed_ns }),
            };
            let objects = self.runtime.block_on(self.bucket.list()).context("the bucket cannot be listed")?;
            Ok(objects.into_iter().map(item).collect())
        }

        pub fn read(&self, item: &Item) -> Result<Result<Bytes, String>> {
            match self.runtime.block_on(self.bucket.get(&item.name)) {
                Ok(bytes) => Ok(Ok(bytes)),
                Err(store::Error::NotFound(_)) => Ok(Err("it was removed before it was read".to_owned())),
                Err(error) => {
                    Err(error).context("the bucket cannot be read on; the same command goes on where it stopped")
                }
            }
        }
    }
}
