//! Publishing with confirmations in a window.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lapin::{
    BasicProperties, Channel, Confirmation, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    Shared,
    line::{self, Line},
    message::{self, Publication},
    topology,
};
use crate::queue::{Error, Message, Result};

/// Messages under way without a confirmation. A confirmation costs the broker a flush to the disk, which it shares among
/// all that are waiting.
const WINDOW: usize = 512;

/// Channels that are kept for the next publish.
const IDLE: usize = 16;

/// How often messages are published again after the connection was lost.
const ATTEMPTS: usize = 10;

/// The wait before that.
const PAUSE: Duration = Duration::from_millis(100);

/// Channels in confirm mode that nobody uses just now. A batch has its channel for itself: returned messages come on the
/// channel they were published on, and `lapin` gives them to whichever confirmation is next.
#[derive(Default)]
pub(super) struct Publishers {
    idle: Mutex<Vec<Channel>>,
}

impl Publishers {
    async fn take(&self, line: &Line, endpoint: &str, patience: Duration) -> Result<Channel> {
        {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|channel| channel.status().connected());
            if let Some(channel) = idle.pop() {
                return Ok(channel);
            }
        }
        let channel = line.channel(patience).await?;
        let confirmed = line.answer(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        confirmed.map_err(|error| line::unreachable(endpoint, error))?;
        Ok(channel)
    }

    fn give_back(&self, channel: Channel) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE && channel.status().connected() {
            idle.push(channel);
        }
    }
}

/// What became of one publication.
enum Outcome {
    Confirmed,
    /// No queue is bound to its key.
    Returned,
    /// The broker said no, or nothing.
    Refused(String),
    /// The connection was lost before the confirmation.
    Lost(String),
}

/// Publishes to `queue`; see [`crate::queue::Queue::publish_batch`].
pub(super) async fn batch(shared: &Shared, queue: &str, messages: Vec<Message>) -> Result<Vec<Result<()>>> {
    let key = message::short(queue).ok_or_else(|| Error::UnknownQueue(queue.to_owned()))?;
    let publications: Vec<Result<Publication>> = messages.iter().map(message::publication).collect();
    let mut results: Vec<Option<Result<()>>> = Vec::with_capacity(messages.len());
    let mut pending = Vec::with_capacity(messages.len());
    for (index, publication) in publications.iter().enumerate() {
        results.push(None);
        if publication.is_ok() {
            pending.push(index);
        }
    }
    let mut cause = String::new();
    let deadline = Instant::now() + shared.patience.connect;
    for attempt in 0..ATTEMPTS {
        if pending.is_empty() || (attempt > 0 && Instant::now() >= deadline) {
            break;
        }
        if attempt > 0 {
            sleep(PAUSE).await;
        }
        let channel = match shared.publishers.take(&shared.publishing, &shared.endpoint, shared.patience.connect).await
        {
            Ok(channel) => channel,
            // The connection was lost while the channel was made; the wait for a new one has its own bound.
            Err(Error::Unreachable { cause: lost, .. }) if Instant::now() < deadline => {
                cause = lost;
                continue;
            }
            Err(error) if results.iter().all(Option::is_none) => return Err(error),
            Err(error) => {
                cause = error.to_string();
                break;
            }
        };
        let target = Target { channel: &channel, exchange: topology::JOBS.into(), key: &key, mandatory: true };
        let items = pending.iter().filter_map(|&index| {
            let publication = publications[index].as_ref().ok()?;
            Some((index, publication, &messages[index].payload[..]))
        });
        let outcomes = target.publish(items, shared.patience.confirm).await;
        pending.clear();
        for (index, outcome) in outcomes {
            let id = || messages[index].id.clone();
            results[index] = match outcome {
                Outcome::Confirmed => Some(Ok(())),
                Outcome::Returned => Some(Err(Error::UnknownQueue(queue.to_owned()))),
                Outcome::Refused(cause) => Some(Err(Error::NotConfirmed { id: id(), cause })),
                Outcome::Lost(lost) => {
                    cause = lost;
                    pending.push(index);
                    None
                }
            };
        }
        shared.publishers.give_back(channel);
    }
    let unreachable = || Err(line::unreachable(&shared.endpoint, &cause));
    let publications = publications.into_iter();
    Ok(results
        .into_iter()
        .zip(publications)
        .map(|(result, publication)| match publication {
            Err(error) => Err(error),
            Ok(_) => result.unwrap_or_else(unreachable),
        })
        .collect())
}

/// Publishes an event or a control message: confirmed, so that what is published next comes later, but not kept.
pub(super) async fn notice(shared: &Shared, exchange: &str, topic: &str, payload: &[u8]) -> Result<()> {
    let key = message::short(topic).ok_or_else(|| Error::Backend {
        endpoint: shared.endpoint.clone(),
        cause: format!("the topic has {} bytes; it may have 255", topic.len()),
    })?;
    let publication = Publication { name: String::new(), properties: BasicProperties::default().with_delivery_mode(1) };
    let mut cause = String::new();
    // Twice: the first may find that a channel is dead that was well a moment ago.
    for _ in 0..2 {
        let channel = shared.publishers.take(&shared.publishing, &shared.endpoint, shared.patience.notice).await?;
        let target = Target { channel: &channel, exchange: exchange.into(), key: &key, mandatory: false };
        let mut outcomes = target.publish(std::iter::once((0, &publication, payload)), shared.patience.notice).await;
        shared.publishers.give_back(channel);
        match outcomes.pop() {
            Some((_, Outcome::Confirmed | Outcome::Returned)) | None => return Ok(()),
            Some((_, Outcome::Refused(cause))) => {
                return Err(Error::Backend { endpoint: shared.endpoint.clone(), cause });
            }
            Some((_, Outcome::Lost(lost))) => cause = lost,
        }
    }
    Err(line::unreachable(&shared.endpoint, cause))
}

/// Where messages go, and by which channel.
struct Target<'a> {
    channel: &'a Channel,
    exchange: ShortString,
    key: &'a ShortString,
    /// Whether a message without a queue comes back. Its confirmation comes all the same.
    mandatory: bool,
}

impl Target<'_> {
    /// Publishes and gives an outcome for each, in order. A channel on which anything went wrong is not connected afterwards,
    /// or is closed here.
    async fn publish<'i>(
        &self,
        items: impl Iterator<Item = (usize, &'i Publication, &'i [u8])>,
        patience: Duration,
    ) -> Vec<(usize, Outcome)> {
        let options = BasicPublishOptions { mandatory: self.mandatory, ..BasicPublishOptions::default() };
        let mut window: VecDeque<(usize, &str, PublisherConfirm)> = VecDeque::with_capacity(WINDOW);
        let mut returned = HashSet::new();
        let mut done: Vec<(usize, &str, Outcome)> = Vec::new();
        let mut stopped: Option<Stop> = None;
        for (index, publication, payload) in items {
            if let Some(stop) = &stopped {
                done.push((index, "", stop.outcome()));
                continue;
            }
            if window.len() == WINDOW {
                stopped = confirm_first(&mut window, &mut returned, &mut done, patience).await;
            }
            let properties = publication.properties.clone();
            let sent =
                self.channel.basic_publish(self.exchange.clone(), self.key.clone(), options, payload, properties);
            match timeout(patience, sent).await {
                Ok(Ok(confirm)) => window.push_back((index, &publication.name, confirm)),
                Ok(Err(error)) => {
                    stopped = Some(Stop::of(&error));
                    done.push((index, "", Stop::of(&error).outcome()));
                }
                Err(_) => {
                    let stop = Stop::Silent(format!("not sent within {} s", patience.as_secs()));
                    done.push((index, "", stop.outcome()));
                    stopped = Some(stop);
                }
            }
        }
        // Also after an error: confirmations that had come are there, and the others fail at once.
        while !window.is_empty() {
            if let Some(stop @ Stop::Silent(_)) = &stopped {
                done.extend(window.drain(..).map(|(index, _, _)| (index, "", stop.outcome())));
                break;
            }
            let stop = confirm_first(&mut window, &mut returned, &mut done, patience).await;
            stopped = stop.or(stopped);
        }
        if matches!(stopped, Some(Stop::Silent(_))) {
            // Late confirmations must not be taken for those of the next batch.
            let _ = timeout(PAUSE, self.channel.close(200, "no confirmation".into())).await;
        }
        done.sort_by_key(|(index, _, _)| *index);
        let outcome = |(index, name, outcome)| match outcome {
            Outcome::Confirmed if self.mandatory && returned.contains(name) => (index, Outcome::Returned),
            outcome => (index, outcome),
        };
        done.into_iter().map(outcome).collect()
    }
}

/// Why nothing more is published on a channel.
enum Stop {
    Lost(String),
    /// The broker closed the channel for what we did.
    Refused(String),
    Silent(String),
}

impl Stop {
    fn of(error: &lapin::Error) -> Self {
        if error.is_amqp_soft_error() { Stop::Refused(error.to_string()) } else { Stop::Lost(error.to_string()) }
    }

    fn outcome(&self) -> Outcome {
        match self {
            // A broker that has just started may swallow what comes before its queue has a leader: once more.
            Stop::Lost(cause) | Stop::Silent(cause) => Outcome::Lost(cause.clone()),
            Stop::Refused(cause) => Outcome::Refused(cause.clone()),
        }
    }
}

/// Waits for the oldest confirmation in the window.
async fn confirm_first<'a>(
    window: &mut VecDeque<(usize, &'a str, PublisherConfirm)>,
    returned: &mut HashSet<String>,
    done: &mut Vec<(usize, &'a str, Outcome)>,
    patience: Duration,
) -> Option<Stop> {
    let (index, name, confirm) = window.pop_front()?;
    let (outcome, stop) = match timeout(patience, confirm).await {
        Ok(Ok(Confirmation::Ack(back))) => {
            returned.extend(back.map(|back| message::publication_name(&back.properties, &back.data)));
            (Outcome::Confirmed, None)
        }
        Ok(Ok(Confirmation::Nack(_))) => {
            (Outcome::Refused("the broker could not keep it; see the broker's log".to_owned()), None)
        }
        Ok(Ok(Confirmation::NotRequested)) => (Outcome::Refused("the channel confirms nothing".to_owned()), None),
        Ok(Err(error)) => {
            let stop = Stop::of(&error);
            (stop.outcome(), Some(stop))
        }
        Err(_) => {
            let cause = format!(
                "no answer within {} s; the broker may be short of memory or disk: see its alarms",
                patience.as_secs()
            );
            (Outcome::Lost(cause.clone()), Some(Stop::Silent(cause)))
        }
    };
    done.push((index, name, outcome));
    stop
}
