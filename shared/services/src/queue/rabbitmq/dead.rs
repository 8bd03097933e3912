//! Dead letters: looked at, published again or forgotten.
//!
//! AMQP has no way to look at a message without taking it, so they are taken, and go back when the channel closes. While
//! one process does that another would find a queue that seems empty: hence a lock on the broker, an exclusive queue, which
//! the broker frees when its holder's connection ends.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use lapin::{
    Channel,
    message::BasicGetMessage,
    options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::time::{Instant, sleep};

use super::{Shared, line, message, publish, topology::DEAD};
use crate::queue::{DeadLetter, DeathReason, Error, Result};

/// The lock.
const LOCK: &str = "hiresmed.dead.reader";

/// How long others may look at the dead letters before we give up.
const LOCK_PATIENCE: Duration = Duration::from_secs(20);

/// The broker frees a lock that its holder left behind on a living connection after this time.
const LOCK_EXPIRES_MS: i64 = 60_000;

/// How long taken letters may need to be back in their queue.
const RETURN_PATIENCE: Duration = Duration::from_secs(2);

const POLL: Duration = Duration::from_millis(20);

/// What becomes of a dead letter.
#[derive(Clone, Copy)]
pub(super) enum Fate {
    Retry,
    Discard,
}

/// The oldest dead letters.
pub(super) async fn list(shared: &Arc<Shared>, limit: usize) -> Result<Vec<DeadLetter>> {
    let look: Work<_> = Box::new(move |shared, channel| look(shared, channel, limit).boxed());
    detached(shared, look).await
}

async fn look(shared: &Shared, channel: &Channel, limit: usize) -> Result<(Vec<DeadLetter>, usize)> {
    let mut letters = Vec::new();
    while letters.len() < limit {
        let Some(taken) = take(shared, channel).await? else { break };
        letters.push(letter(&taken));
    }
    let taken = letters.len();
    Ok((letters, taken))
}

/// Publishes the letter `id` again, or forgets it.
pub(super) async fn settle(shared: &Arc<Shared>, id: &str, fate: Fate) -> Result<()> {
    let id = id.to_owned();
    let find: Work<_> = Box::new(move |shared, channel| find(shared, channel, id, fate).boxed());
    detached(shared, find).await?
}

async fn find(shared: &Shared, channel: &Channel, id: String, fate: Fate) -> Result<(Result<()>, usize)> {
    let mut others = 0;
    loop {
        let Some(taken) = take(shared, channel).await? else { return Ok((Err(Error::UnknownDeadLetter(id)), others)) };
        if message::publication_name(&taken.properties, &taken.data) != id {
            others += 1;
            continue;
        }
        if let Fate::Retry = fate {
            let letter = letter(&taken);
            // First there, then gone from here: a crash between makes two of it, which receivers tolerate.
            let published = publish::batch(shared, &letter.queue, vec![letter.message]).await;
            if let Err(error) = published.and_then(|results| results.into_iter().collect::<Result<()>>()) {
                return Ok((Err(error), others + 1));
            }
        }
        return match taken.acker.ack(BasicAckOptions::default()).await {
            Ok(true) => Ok((Ok(()), others)),
            Ok(false) => Err(line::unreachable(&shared.endpoint, "the connection was lost before it was settled")),
            Err(error) => Err(line::unreachable(&shared.endpoint, error)),
        };
    }
}

/// What is done under the lock; gives its result and how many letters it has taken and not settled.
type Work<T> = Box<dyn for<'a> FnOnce(&'a Shared, &'a Channel) -> BoxFuture<'a, Result<(T, usize)>> + Send>;

/// Runs `work` under the lock, on a channel of its own, and returns what it has taken. It runs to its end also when the caller
/// goes away: a lock that nobody releases would keep others out.
async fn detached<T: Send + 'static>(shared: &Arc<Shared>, work: Work<T>) -> Result<T> {
    let shared = shared.clone();
    let endpoint = shared.endpoint.clone();
    let finished = tokio::spawn(async move {
        let _alone = shared.dead_letters.lock().await;
        let lock = lock(&shared).await?;
        let channel = shared.consuming.channel(shared.patience.connect).await?;
        let worked = work(&shared, &channel).await;
        // Together and before the closing: what a closing channel gives back comes in no order. Tag 0 means all.
        let all = BasicNackOptions { multiple: true, requeue: true };
        let _ = channel.basic_nack(0, all).await;
        let _ = channel.close(200, "looked".into()).await;
        let result = match worked {
            Ok((result, taken)) => {
                wait_until_returned(&lock, taken).await;
                Ok(result)
            }
            Err(error) => Err(error),
        };
        let _ = lock.queue_delete(LOCK.into(), QueueDeleteOptions::default()).await;
        result
    });
    finished.await.unwrap_or_else(|stopped| Err(Error::Backend { endpoint, cause: stopped.to_string() }))
}

/// Takes the lock and gives the channel that holds it.
async fn lock(shared: &Shared) -> Result<Channel> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        let channel = shared.consuming.channel(shared.patience.connect).await?;
        let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        arguments.insert("x-expires".into(), AMQPValue::LongLongInt(LOCK_EXPIRES_MS));
        match channel.queue_declare(LOCK.into(), options, arguments).await {
            Ok(_) => return Ok(channel),
            // 405 RESOURCE_LOCKED: it is another connection's.
            Err(error) if line::reply(&error) == Some(405) && Instant::now() < deadline => sleep(POLL).await,
            Err(error) if line::reply(&error) == Some(405) => {
                return Err(Error::Backend {
                    endpoint: shared.endpoint.clone(),
                    cause: format!(
                        "another process has been reading the dead letters for {} s; try again",
                        LOCK_PATIENCE.as_secs()
                    ),
                });
            }
            Err(error) => return Err(line::of_queue(&shared.endpoint, LOCK, &error)),
        }
    }
}

async fn take(shared: &Shared, channel: &Channel) -> Result<Option<BasicGetMessage>> {
    let taken = channel.basic_get(DEAD.into(), BasicGetOptions { no_ack: false }).await;
    taken.map_err(|error| line::of_queue(&shared.endpoint, DEAD, &error))
}

/// A closed channel's messages go back a moment later. Only holders of the lock take any, so the count cannot stay below.
async fn wait_until_returned(channel: &Channel, taken: usize) {
    let deadline = Instant::now() + RETURN_PATIENCE;
    while taken > 0 && Instant::now() < deadline {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        match channel.queue_declare(DEAD.into(), passive, FieldTable::default()).await {
            Ok(queue) if (queue.message_count() as usize) < taken => sleep(POLL).await,
            _ => return,
        }
    }
}

fn letter(taken: &BasicGetMessage) -> DeadLetter {
    let properties = &taken.properties;
    let reason = match message::header(properties, "x-first-death-reason").as_deref() {
        Some("delivery_limit") => DeathReason::DeliveryLimit,
        _ => DeathReason::Rejected,
    };
    DeadLetter {
        id: message::publication_name(properties, &taken.data),
        queue: message::header(properties, "x-first-death-queue").unwrap_or_else(|| taken.routing_key.to_string()),
        message: message::received(properties, taken.data.clone()),
        reason,
    }
}
