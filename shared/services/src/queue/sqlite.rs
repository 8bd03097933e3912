//! A broker in one SQLite file, for one machine.
//!
//! Any number of processes may use the file at once. Messages, deliveries and dead letters are rows; a publish has
//! returned when its transaction is on the disk (write-ahead log, `synchronous = FULL`). Events and control messages are
//! rows too, on a connection that does not wait for the disk, and are dropped after a while.
//!
//! Each consumer holds a lock on a file of its own in the folder `{file}.consumers`, which the system releases when its
//! process dies, however it dies. Whoever waits for messages looks for consumers whose lock is free and returns their
//! deliveries; so a message of a killed process comes back within a fraction of a second, and one of a process that is
//! merely slow, stopped or asleep never does.

mod connection;
mod consumer;
mod lease;
mod notices;
mod rows;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use self::connection::{Connection, Durability};
use super::{Consumer, DeadLetter, Declaration, Depth, Error, Message, Queue, Result, Subscription};

/// How long a wait lasts until the file is looked at again for what other processes wrote. Within a process a wait ends
/// at once.
const POLL: Duration = Duration::from_millis(40);

/// A broker in one SQLite file. Clones share its connections.
#[derive(Clone)]
pub struct Sqlite {
    shared: Arc<Shared>,
}

struct Shared {
    /// For messages.
    durable: Connection,
    /// For events and control messages.
    volatile: Connection,
    /// Folder of the consumers' lock files.
    leases: PathBuf,
    /// Wakes whoever waits for messages or for room in this process.
    messages: Notify,
    /// Wakes whoever waits for events in this process.
    notices: Notify,
}

impl Sqlite {
    /// Opens the broker in `file`, creating it and its folder.
    ///
    /// # Errors
    /// [`Error::Backend`] where the file cannot be opened, is not a broker's, or is of a later version.
    pub fn open(file: impl AsRef<Path>) -> Result<Self> {
        let file = file.as_ref();
        let mut leases = file.as_os_str().to_owned();
        leases.push(".consumers");
        let leases = PathBuf::from(leases);
        std::fs::create_dir_all(&leases).map_err(|error| Error::Backend {
            endpoint: file.display().to_string(),
            cause: format!("cannot create the folder {}: {error}", leases.display()),
        })?;
        let durable = Connection::open(file, Durability::Full)?;
        let volatile = Connection::open(file, Durability::Normal)?;
        let shared = Shared { durable, volatile, leases, messages: Notify::new(), notices: Notify::new() };
        Ok(Self { shared: Arc::new(shared) })
    }

    async fn notify(&self, topic: Option<&str>, payload: Bytes) -> Result<()> {
        let topic = topic.map(str::to_owned);
        self.shared.volatile.call(move |db| notices::publish(db, topic.as_deref(), &payload)).await?;
        self.shared.notices.notify_waiters();
        Ok(())
    }

    async fn receive(&self, pattern: Option<&str>) -> Result<Box<dyn Subscription>> {
        let subscription = notices::Subscriber::start(self.shared.clone(), pattern.map(str::to_owned)).await?;
        Ok(Box::new(subscription))
    }
}

#[async_trait]
impl Queue for Sqlite {
    async fn declare(&self, declaration: &Declaration) -> Result<()> {
        let declaration = declaration.clone();
        self.shared.durable.call(move |db| rows::declare(db, &declaration)).await
    }

    async fn publish(&self, queue: &str, message: Message) -> Result<()> {
        self.publish_batch(queue, vec![message]).await?.into_iter().collect()
    }

    async fn publish_batch(&self, queue: &str, messages: Vec<Message>) -> Result<Vec<Result<()>>> {
        let queue = queue.to_owned();
        let published = self.shared.durable.call(move |db| rows::publish(db, &queue, &messages)).await?;
        self.shared.messages.notify_waiters();
        Ok(published)
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>> {
        let consumer = consumer::Leaseholder::start(self.shared.clone(), queue.to_owned(), prefetch.max(1)).await?;
        Ok(Box::new(consumer))
    }

    async fn depth(&self, queue: &str) -> Result<Depth> {
        lease::return_abandoned(&self.shared).await?;
        let queue = queue.to_owned();
        self.shared.durable.call(move |db| rows::depth(db, &queue)).await
    }

    async fn purge(&self, queue: &str) -> Result<u64> {
        let queue = queue.to_owned();
        self.shared.durable.call(move |db| rows::purge(db, &queue)).await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>> {
        lease::return_abandoned(&self.shared).await?;
        self.shared.durable.call(move |db| rows::dead_letters(db, limit)).await
    }

    async fn retry_dead_letter(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.shared.durable.call(move |db| rows::retry_dead_letter(db, &id)).await?;
        self.shared.messages.notify_waiters();
        Ok(())
    }

    async fn discard_dead_letter(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.shared.durable.call(move |db| rows::discard_dead_letter(db, &id)).await
    }

    async fn publish_event(&self, topic: &str, payload: Bytes) -> Result<()> {
        self.notify(Some(topic), payload).await
    }

    async fn subscribe(&self, pattern: &str) -> Result<Box<dyn Subscription>> {
        self.receive(Some(pattern)).await
    }

    async fn broadcast(&self, payload: Bytes) -> Result<()> {
        self.notify(None, payload).await
    }

    async fn listen(&self) -> Result<Box<dyn Subscription>> {
        self.receive(None).await
    }
}

#[cfg(test)]
mod tests;
