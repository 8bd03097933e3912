//! Work in flight: named queues with confirmed publishing, at-least-once delivery and dead letters; events by topic;
//! control messages to everybody.
//!
//! The trait says what RabbitMQ's quorum queues do, and no more. What an experiment with RabbitMQ 3.10 and `lapin` 4.12
//! taught, and where it shows here:
//!
//! - Confirmations awaited one by one gave 0.9 thousand messages a second, in a window of 512 more than 5 thousand: hence
//!   [`Queue::publish_batch`].
//! - Publishing to a queue that does not exist is *confirmed*; only with the flag `mandatory` does the message come back
//!   beside the confirmation. A backend must set it and give [`Error::UnknownQueue`].
//! - Declaring again with another delivery limit closes the channel with 406: [`Error::Mismatch`]. So does every passive
//!   declaration of a missing queue: ask on a channel of its own.
//! - The count of a delivery (`x-delivery-count`, absent at first) grows by every return: a lost channel, a closed consumer
//!   and a negative acknowledgement alike, and also for messages that were only prefetched and that nobody looked at. So it
//!   does not say who is guilty, and attempts are judged by the records that workers write.
//! - With `x-delivery-limit` 3 there were four deliveries, with counts 0 to 3; the next return made a dead letter with
//!   `x-first-death-reason: delivery_limit` (`rejected` after a reject), its `message-id` and `x-first-death-queue` kept.
//! - Returned messages come first again, in their old order, before those that were never delivered.
//! - An acknowledgement is sent and not answered. On a closed channel, or a second time, `lapin` gives `Ok(false)`:
//!   [`Error::Settled`]. A connection that breaks just after may still deliver again: receivers tolerate it.
//! - A broker tells how many messages are ready; how many are unacknowledged only its management interface knows:
//!   [`Depth::unacknowledged`] is optional. Purging takes the ready ones only.
//! - Reading dead letters without taking them is get and return, which counts as a delivery: the dead queue needs to be
//!   without a limit (RabbitMQ 4 sets 20 by default). `x-delivery-limit` -1, which says so to RabbitMQ 4, is taken by 3.10
//!   too, and makes it drop a message at its first return: a limit that nobody reaches is safe on both.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(feature = "fleet")]
mod rabbitmq;
mod sqlite;
pub mod topic;

use std::{collections::BTreeMap, time::Duration};

#[cfg(feature = "fleet")]
pub use self::rabbitmq::{Address, Patience, Rabbitmq};
pub use self::sqlite::Sqlite;

use async_trait::async_trait;
use bytes::Bytes;

/// Why a queue did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker cannot be reached, or the connection was lost. What was not acknowledged is delivered again.
    #[error("the queue at {endpoint} is unreachable: {cause}; see that it runs, then try again")]
    Unreachable {
        /// The broker's address or file.
        endpoint: String,
        /// What the connection said.
        cause: String,
    },
    /// The queue was never declared.
    #[error("queue `{0}` does not exist; declare it before publishing to it or consuming from it")]
    UnknownQueue(String),
    /// The queue exists with other properties.
    #[error("queue `{queue}` exists with {existing}, not {wanted}; delete it or use its properties")]
    Mismatch {
        /// The queue.
        queue: String,
        /// Its properties.
        existing: String,
        /// The properties asked for.
        wanted: String,
    },
    /// The broker did not take responsibility for the message.
    #[error("the message `{id}` was not confirmed: {cause}; publish it again")]
    NotConfirmed {
        /// The message's id.
        id: String,
        /// Why.
        cause: String,
    },
    /// The delivery is no longer this consumer's: its connection was lost, or it was settled already.
    #[error("the delivery of `{0}` is no longer ours to settle; it is delivered again")]
    Settled(String),
    /// No dead letter has that id.
    #[error("no dead letter `{0}`; list them again")]
    UnknownDeadLetter(String),
    /// The backend failed.
    #[error("the queue at {endpoint} failed: {cause}")]
    Backend {
        /// The broker's address or file.
        endpoint: String,
        /// What it said.
        cause: String,
    },
}

/// Result of a queue's operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A message as it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The sender's name for it, for logs and dead letters. Publishing twice makes two messages.
    pub id: String,
    /// Content. At most 1 MiB.
    pub payload: Bytes,
    /// Further properties: short texts.
    pub headers: BTreeMap<String, String>,
}

impl Message {
    /// A message without headers.
    pub fn new(id: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self { id: id.into(), payload: payload.into(), headers: BTreeMap::new() }
    }
}

/// A queue's properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// The queue's name.
    pub queue: String,
    /// How often a message may come back unacknowledged and still be delivered again: with a limit of 3 there are at most 4
    /// deliveries, and the next return makes it a dead letter.
    pub delivery_limit: u32,
}

impl Declaration {
    /// A queue with the delivery limit 3.
    pub fn new(queue: impl Into<String>) -> Self {
        Self { queue: queue.into(), delivery_limit: 3 }
    }
}

/// How many messages a queue holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Waiting for a consumer.
    pub ready: u64,
    /// Delivered and not yet settled; `None` where the broker does not tell.
    pub unacknowledged: Option<u64>,
}

/// Why a message became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeathReason {
    /// A consumer rejected it.
    Rejected,
    /// It came back more often than the queue's delivery limit.
    DeliveryLimit,
}

/// A message that is not delivered any more until somebody decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its own id, by which it is retried or discarded: one message may die more than once.
    pub id: String,
    /// The queue it died in.
    pub queue: String,
    /// The message.
    pub message: Message,
    /// Why it died.
    pub reason: DeathReason,
}

/// A message in the hands of a consumer. Settle it by one of its methods; dropped unsettled, it stays the consumer's until
/// that is closed, and then is delivered again.
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// How often it came back from earlier deliveries: 0 at first.
    pub delivery_count: u32,
    /// Whether it was delivered before.
    pub redelivered: bool,
    settlement: Box<dyn Settlement>,
}

/// A backend's way to settle one delivery.
#[async_trait]
pub trait Settlement: Send + Sync {
    /// Settles the delivery as `verdict` says.
    async fn settle(self: Box<Self>, verdict: Verdict) -> Result<()>;
}

/// What becomes of a delivered message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Done: forget it.
    Acknowledge,
    /// Deliver it again; counts towards the delivery limit.
    Requeue,
    /// Make it a dead letter.
    Reject,
}

impl Delivery {
    /// A delivery, for backends.
    pub fn new(message: Message, delivery_count: u32, redelivered: bool, settlement: Box<dyn Settlement>) -> Self {
        Self { message, delivery_count, redelivered, settlement }
    }

    /// Acknowledges: the queue forgets the message.
    ///
    /// # Errors
    /// [`Error::Settled`] where the lease was lost: another consumer gets, or got, the message too.
    pub async fn acknowledge(self) -> Result<()> {
        self.settlement.settle(Verdict::Acknowledge).await
    }

    /// Returns the message to the queue's front. Counts towards the delivery limit.
    ///
    /// # Errors
    /// As [`Delivery::acknowledge`].
    pub async fn requeue(self) -> Result<()> {
        self.settlement.settle(Verdict::Requeue).await
    }

    /// Makes the message a dead letter.
    ///
    /// # Errors
    /// As [`Delivery::acknowledge`].
    pub async fn reject(self) -> Result<()> {
        self.settlement.settle(Verdict::Reject).await
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("message", &self.message.id)
            .field("delivery_count", &self.delivery_count)
            .field("redelivered", &self.redelivered)
            .finish_non_exhaustive()
    }
}

/// Takes messages from one queue. Dropping it, or the death of its process, returns what it did not settle.
#[async_trait]
pub trait Consumer: Send {
    /// The next message, waiting as long as it takes; at most `prefetch` deliveries are unsettled at a time.
    ///
    /// Cancellation-safe: a message is not lost when the future is dropped, it comes with the next call.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when the connection is lost: consume again.
    async fn next(&mut self) -> Result<Delivery>;

    /// Stops and returns every unsettled delivery to the queue, before it returns.
    async fn close(self: Box<Self>) -> Result<()>;
}

/// Receives events or control messages from the moment it exists. Not durable: who is away misses them, and who is too
/// slow loses the oldest.
#[async_trait]
pub trait Subscription: Send {
    /// The next message, waiting as long as it takes. Cancellation-safe.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when the connection is lost: subscribe again.
    async fn next(&mut self) -> Result<Notice>;
}

/// An event or control message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The topic; empty for control messages.
    pub topic: String,
    /// Content.
    pub payload: Bytes,
}

/// A broker. Cheap to share behind an `Arc`; every method may be called from many tasks.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Creates a durable queue, or does nothing if it exists with the same properties.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where it exists with others.
    async fn declare(&self, declaration: &Declaration) -> Result<()>;

    /// Publishes and returns when the broker has taken responsibility: the message survives its restart.
    ///
    /// # Errors
    /// [`Error::UnknownQueue`], [`Error::NotConfirmed`], [`Error::Unreachable`]. After an error, or when the future was
    /// dropped, the message may have been published: publish again, receivers tolerate it.
    async fn publish(&self, queue: &str, message: Message) -> Result<()>;

    /// Publishes many with their confirmations in a window: much faster than one by one.
    ///
    /// Gives a result for each message, in order.
    ///
    /// # Errors
    /// Where nothing can be published at all.
    async fn publish_batch(&self, queue: &str, messages: Vec<Message>) -> Result<Vec<Result<()>>>;

    /// Starts to take messages, at most `prefetch` (at least 1) unsettled at a time.
    ///
    /// # Errors
    /// [`Error::UnknownQueue`], [`Error::Unreachable`].
    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>>;

    /// How many messages the queue holds. A snapshot, for people, scaling and reconciliation.
    ///
    /// # Errors
    /// [`Error::UnknownQueue`], [`Error::Unreachable`].
    async fn depth(&self, queue: &str) -> Result<Depth>;

    /// Drops all ready messages and says how many; delivered ones stay.
    ///
    /// # Errors
    /// [`Error::UnknownQueue`], [`Error::Unreachable`].
    async fn purge(&self, queue: &str) -> Result<u64>;

    /// The oldest `limit` dead letters of all queues. They stay.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>>;

    /// Publishes a dead letter to its queue again, its count starting from 0, and removes it from the dead ones.
    ///
    /// # Errors
    /// [`Error::UnknownDeadLetter`].
    async fn retry_dead_letter(&self, id: &str) -> Result<()>;

    /// Forgets a dead letter.
    ///
    /// # Errors
    /// [`Error::UnknownDeadLetter`].
    async fn discard_dead_letter(&self, id: &str) -> Result<()>;

    /// Publishes an event to whoever subscribes now. `topic` is words joined by dots.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    async fn publish_event(&self, topic: &str, payload: Bytes) -> Result<()>;

    /// Subscribes to the events whose topic matches `pattern`: see [`topic::matches`].
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    async fn subscribe(&self, pattern: &str) -> Result<Box<dyn Subscription>>;

    /// Sends a control message to everybody who listens now.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    async fn broadcast(&self, payload: Bytes) -> Result<()>;

    /// Listens to control messages.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    async fn listen(&self) -> Result<Box<dyn Subscription>>;
}

/// Waits before attempt `attempt` (from 0) of something that failed for a while: doubles from `base` up to `most`.
pub fn backoff(attempt: u32, base: Duration, most: Duration) -> Duration {
    base.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let wait = |attempt| backoff(attempt, Duration::from_secs(2), Duration::from_secs(60)).as_secs();
        assert_eq!([0, 1, 2, 4, 5, 31, 32, u32::MAX].map(wait), [2, 4, 8, 32, 60, 60, 60, 60]);
    }
}
