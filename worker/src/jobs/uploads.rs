//! Objects on their way to the store while the next image is made.
//!
//! A store on another machine takes as long for an image's files as a GPU for an image. So the thread that made them hands them
//! over and goes on; only when [`MOST_KIB`] are under way does it wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hiresmed_protocol::outcome::Stage;
use hiresmed_services::store;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{Context, Failure};
use crate::environment::Environment;

/// KiB under way at a time for a job.
const MOST_KIB: u32 = 64 << 10;

/// An object that is to be in the store.
#[derive(Debug)]
pub struct Upload {
    /// Its key.
    pub key: String,
    /// Its content.
    pub bytes: Bytes,
}

/// The uploads of a job. Dropped before [`finish`](Self::finish), it gives up what is under way.
pub(super) struct Uploads<'a> {
    environment: &'a Environment,
    context: &'a Context,
    room: Arc<Semaphore>,
    under_way: Mutex<JoinSet<store::Result<()>>>,
}

impl<'a> Uploads<'a> {
    pub(super) fn new(environment: &'a Environment, context: &'a Context) -> Self {
        let room = Arc::new(Semaphore::new(MOST_KIB as usize));
        Self { environment, context, room, under_way: Mutex::default() }
    }

    /// Hands over `uploads`, which belong together; `then` is called once all of them are in the store. Waits for room.
    ///
    /// # Errors
    /// Of an earlier upload: the store's, as a [`Failure`] of the stage `outputs`; [`Failure::Cancelled`].
    pub(super) fn put(&self, uploads: Vec<Upload>, then: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
        let kib = uploads.iter().map(|upload| upload.bytes.len().div_ceil(1024)).sum::<usize>();
        let kib = u32::try_from(kib).unwrap_or(u32::MAX).min(MOST_KIB);
        let room = self.unless_cancelled(async { Ok(self.room.clone().acquire_many_owned(kib).await) })?;
        let (store, mut tasks) = (self.environment.store.inner().clone(), self.tasks());
        while let Some(ended) = tasks.try_join_next() {
            failed(ended)?;
        }
        let put = async move {
            for Upload { key, bytes } in uploads {
                store.put_if_absent(&key, bytes).await?;
            }
            then();
            drop(room);
            Ok(())
        };
        self.environment.store.spawn_in(&mut tasks, put);
        Ok(())
    }

    /// Waits until everything is in the store.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub(super) fn finish(self) -> Result<(), Failure> {
        let mut tasks = std::mem::take(&mut *self.tasks());
        self.unless_cancelled(async {
            while let Some(ended) = tasks.join_next().await {
                failed(ended)?;
            }
            Ok(())
        })
    }

    fn unless_cancelled<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        self.environment.store.wait(async {
            tokio::select! {
                done = work => done,
                cancelled = self.context.cancelled() => Err(cancelled),
            }
        })
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<store::Result<()>>> {
        // Whole after every call, also where a thread panicked in between.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(ended: Result<store::Result<()>, tokio::task::JoinError>) -> Result<(), Failure> {
    match ended {
        Ok(put) => put.map_err(|error| Failure::from(error).at(Stage::Outputs)),
        Err(stopped) => Err(Failure::transient(Stage::Outputs, stopped)),
    }
}
