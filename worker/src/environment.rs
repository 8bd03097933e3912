//! What all jobs of a worker share: the store, the disk cache of packages and data, and what stays loaded between jobs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use hiresmed_inference::Provider;
use hiresmed_protocol::Digest;
use hiresmed_services::{
    cache::Cache,
    store::{self, Head, Put, Store},
};
use hiresmed_telemetry::Metrics;
use tokio::{runtime::Handle, task::JoinSet};

use crate::{jobs::Failure, packages, resident::Residents, room::Room};

/// What all jobs of a worker share.
pub struct Environment {
    /// The object store, for the threads that jobs run on.
    pub store: BlockingStore,
    /// Values that may vanish: lesion checkpoints, locks.
    pub cache: Arc<dyn Cache>,
    /// What stays loaded from one job to the next: sessions, models, priors.
    pub residents: Residents,
    /// Images at a time that memory allows.
    pub room: Room,
    /// Threads that a computation may use.
    pub threads: usize,
    /// Where networks run.
    pub provider: Provider,
    metrics: Option<Metrics>,
    scratch: PathBuf,
}

impl Environment {
    /// An environment over `store`, with its disk cache in `scratch`. Called within the async runtime that the store's
    /// and the cache's work is to run on.
    ///
    /// Losing `scratch` costs a download and nothing else.
    pub fn new(store: Arc<dyn Store>, cache: Arc<dyn Cache>, scratch: impl Into<PathBuf>, threads: usize) -> Self {
        Self {
            store: BlockingStore { store, handle: Handle::current() },
            cache,
            residents: Residents::default(),
            room: Room::default(),
            threads: threads.max(1),
            provider: Provider::Cpu,
            metrics: None,
            scratch: scratch.into(),
        }
    }

    /// The same environment with networks on `provider`; the CPU without.
    pub fn on(self, provider: Provider) -> Self {
        Self { provider, ..self }
    }

    /// The same environment with its work counted in `metrics`.
    pub fn observed(self, metrics: Metrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Counts something, where anything is counted.
    pub(crate) fn observe(&self, count: impl FnOnce(&Metrics)) {
        if let Some(metrics) = &self.metrics {
            count(metrics);
        }
    }

    /// The worker's disk cache.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// The folder of a model package, brought from the store on first use, and again where its copy here is damaged.
    ///
    /// # Errors
    /// Permanent where the store has no such package or it is damaged; transient where it cannot be fetched now.
    pub fn package_folder(&self, kind: &str, digest: &Digest) -> Result<PathBuf, Failure> {
        packages::folder(self, kind, digest)
    }
}

/// The object store for threads that may block. Never called from an async task.
#[derive(Clone)]
pub struct BlockingStore {
    store: Arc<dyn Store>,
    handle: Handle,
}

impl BlockingStore {
    /// As [`Store::get`].
    ///
    /// # Errors
    /// The store's.
    pub fn get(&self, key: &str) -> store::Result<Bytes> {
        self.handle.block_on(self.store.get(key))
    }

    /// As [`Store::put`].
    ///
    /// # Errors
    /// The store's.
    pub fn put(&self, key: &str, content: impl Into<Bytes>) -> store::Result<Head> {
        self.handle.block_on(self.store.put(key, content.into()))
    }

    /// As [`Store::put_if_absent`].
    ///
    /// # Errors
    /// The store's.
    pub fn put_if_absent(&self, key: &str, content: impl Into<Bytes>) -> store::Result<Put> {
        self.handle.block_on(self.store.put_if_absent(key, content.into()))
    }

    /// As [`Store::head`].
    ///
    /// # Errors
    /// The store's.
    pub fn head(&self, key: &str) -> store::Result<Option<Head>> {
        self.handle.block_on(self.store.head(key))
    }

    /// As [`Store::list`].
    ///
    /// # Errors
    /// The store's.
    pub fn list(&self, prefix: &str) -> store::Result<Vec<String>> {
        self.handle.block_on(self.store.list(prefix))
    }

    /// As [`Store::delete`].
    ///
    /// # Errors
    /// The store's.
    pub fn delete(&self, key: &str) -> store::Result<()> {
        self.handle.block_on(self.store.delete(key))
    }

    /// Waits for asynchronous work of another service.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.handle.block_on(work)
    }

    /// Starts asynchronous work as one of `tasks`.
    pub(crate) fn spawn_in<T: Send + 'static>(
        &self,
        tasks: &mut JoinSet<T>,
        work: impl Future<Output = T> + Send + 'static,
    ) {
        tasks.spawn_on(work, &self.handle);
    }

    /// The store itself, for async tasks.
    pub fn inner(&self) -> &Arc<dyn Store> {
        &self.store
    }
}
