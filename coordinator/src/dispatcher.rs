//! Keeps a bounded number of a request's jobs in flight until all are settled.
//!
//! Events make it prompt, but nothing depends on them: the dispatcher looks into the store itself from time to time,
//! and one that starts rebuilds everything from there.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hiresmed_protocol::{
    Class, Event, Happening, Request, RequestId, SiteId, VERSION,
    event::Control,
    job::{Kind, queue as queue_name},
};
use hiresmed_services::queue::{Declaration, Notice, Queue, backoff};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::{Error, Ledger, Planner, ledger::Cancellation, status};

mod readers;
mod run;
mod shares;

use run::Run;
pub use shares::{Holding, Shares};

/// How a dispatcher behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// At most so many jobs of a queue are in flight. Enough that no worker waits for the coordinator; a request that comes later
    /// waits behind so many.
    pub window: usize,
    /// How often a job is tried that fails for a while, before it is given up.
    pub attempts: u32,
    /// How many workers may die while they run a job, before it is given up.
    pub crashes: u32,
    /// Wait after the first failure of this kind; doubles with each, with up to half of it added by chance.
    pub backoff: Duration,
    /// Longest such wait.
    pub longest_backoff: Duration,
    /// How often the store is looked at without any event.
    pub poll: Duration,
    /// A job that was published so long ago to a queue that is empty now, and that no worker has started, is taken to be lost with
    /// the broker's data, and published again. A worker that merely holds it for later finds it settled then.
    pub lost: Duration,
    /// At most so many images of an unbounded request are made from the next image of its slowest reader on, rounded down to whole
    /// jobs; one job at least.
    pub ahead: u64,
    /// Whether this process is the only one that publishes to the queues, as on a single machine. It then drops what an
    /// earlier one left there, and does not count workers that died before it started: somebody chose to try again.
    pub alone: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            window: 64,
            attempts: 4,
            crashes: 3,
            backoff: Duration::from_secs(1),
            longest_backoff: Duration::from_secs(60),
            poll: Duration::from_secs(1),
            lost: Duration::from_secs(30),
            ahead: 64,
            alone: false,
        }
    }
}

/// How the work for a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Every job is settled, and what could be made is there.
    Completed {
        /// Images made.
        images: u64,
        /// Images that could not be made.
        failures: u64,
    },
    /// The one job failed that all depends on, as a training round: the request has no result.
    Failed {
        /// The cause, for people.
        reason: String,
    },
    /// Images failed, and the request says `on_failure = "stop"`.
    Aborted {
        /// The cause, for people.
        reason: String,
    },
    /// The request was cancelled by a person.
    Cancelled {
        /// The cause, for people.
        reason: String,
    },
    /// The dispatcher was asked to stop; the request goes on when another starts.
    Stopped,
}

/// Dispatches the jobs of requests.
pub struct Dispatcher {
    ledger: Ledger,
    planner: Planner,
    queue: Arc<dyn Queue>,
    site: SiteId,
    options: Options,
    shares: Arc<Shares>,
    weight: f64,
    started: OffsetDateTime,
}

impl Dispatcher {
    /// A dispatcher for the requests of `site`.
    pub fn new(ledger: Ledger, queue: Arc<dyn Queue>, site: SiteId, options: Options) -> Self {
        let planner = Planner::new(ledger.clone(), site.clone());
        let (shares, started) = (Shares::new(options.window), OffsetDateTime::now_utc());
        Self { ledger, planner, queue, site, options, shares, weight: 1.0, started }
    }

    /// The same dispatcher with the workers shared with those of other requests; its site counts with `weight`.
    pub fn sharing(self, shares: Arc<Shares>, weight: f64) -> Self {
        Self { shares, weight, ..self }
    }

    /// Declares the queues of all kinds and classes. Done early: workers consume from them.
    ///
    /// # Errors
    /// The queue's.
    pub async fn declare(&self) -> Result<(), Error> {
        for queue in queues() {
            self.queue.declare(&Declaration::new(&queue)).await?;
            if self.options.alone {
                self.queue.purge(&queue).await?;
            }
        }
        Ok(())
    }

    /// How a request ended, if it did: asked before any worker is started for it.
    ///
    /// # Errors
    /// As [`Dispatcher::run`].
    pub async fn ended(&self, id: &RequestId) -> Result<Option<Ending>, Error> {
        let request = self.ledger.request(id).await?;
        if let Some(cancellation) = self.ledger.cancellation(id).await? {
            return Ok(Some(early(cancellation)));
        }
        let plan = self.planner.recorded(id).await?;
        Run::reconcile(self, request, &plan).await?.ending().await
    }

    /// Dispatches a request's jobs until all are settled, the request is cancelled, or `stop` is. Those of an unbounded request
    /// are dispatched as far as its readers need them.
    ///
    /// # Errors
    /// [`Error::UnknownRequest`], [`Error::Document`], or the store's and the queue's where they stay out of order. What
    /// was done stays done: another run goes on from there.
    pub async fn run(&self, id: &RequestId, stop: &CancellationToken) -> Result<Ending, Error> {
        let request = self.ledger.request(id).await?;
        let plan = self.planner.recorded(id).await?;
        let mut events = self.queue.subscribe(&Event::topics_of(id)).await?;
        let mut run = Run::reconcile(self, request, &plan).await?;
        run.announce(Happening::Planned { jobs: plan.jobs.len() as u64, images: plan.images() }).await;
        let ticket = self.shares.join(id, &self.site, self.weight, work_of(run.request()));
        let mut poll = tokio::time::interval(self.options.poll);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if let Some(cancellation) = self.ledger.cancellation(id).await? {
                return self.end_early(&run, cancellation).await;
            }
            if let Some(ending) = run.ending().await? {
                return Ok(ending);
            }
            run.publish(&ticket).await?;
            let due = run.due().map(tokio::time::Instant::from_std);
            tokio::select! {
                () = stop.cancelled() => return Ok(Ending::Stopped),
                notice = events.next() => match notice {
                    Ok(notice) => run.heard(&notice).await?,
                    Err(_) => events = self.queue.subscribe(&Event::topics_of(id)).await?,
                },
                () = sleep_until(due) => {}
                () = ticket.granted() => {}
                _ = poll.tick() => {
                    run.look().await?;
                    run.follow().await?;
                }
            }
        }
    }

    /// Cancels a request: recorded first, then told to the workers.
    ///
    /// # Errors
    /// [`Error::UnknownRequest`], [`Error::Over`] where it ended before, the store's, the queue's.
    pub async fn cancel(&self, id: &RequestId, reason: &str) -> Result<(), Error> {
        let status = status::of(&self.ledger, id).await?;
        if let Some(reason) = &status.cancelled {
            // Once more: who cancelled it may have died before the workers were told.
            self.tell_cancelled(id).await?;
            return Err(Error::Over { id: id.clone(), state: format!("is cancelled already ({reason})") });
        }
        if status.is_over() {
            let counts = format!("{} of {} {}, {} failed", status.done, status.asked(), status.unit, status.failed);
            return Err(Error::Over { id: id.clone(), state: format!("is complete already ({counts})") });
        }
        self.ledger.cancel(id, reason).await?;
        self.tell_cancelled(id).await
    }

    async fn end_early(&self, run: &Run<'_>, cancellation: Cancellation) -> Result<Ending, Error> {
        self.tell_cancelled(run.id()).await?;
        run.announce(Happening::Aborted { reason: cancellation.reason.clone() }).await;
        Ok(early(cancellation))
    }

    async fn tell_cancelled(&self, id: &RequestId) -> Result<(), Error> {
        let control = Control::Cancel { request: id.clone() };
        let payload = serde_json::to_vec(&control)
            .map_err(|error| Error::Document { key: "control message".to_owned(), cause: error.to_string() })?;
        Ok(self.queue.broadcast(payload.into()).await?)
    }

    /// A wait before attempt `attempt`, with jitter so that jobs that failed together do not come back together.
    fn wait(&self, attempt: u32) -> Duration {
        let base = backoff(attempt.saturating_sub(1), self.options.backoff, self.options.longest_backoff);
        let nanos =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
        base + base.mul_f64(f64::from(nanos % 1000) / 2000.0)
    }
}

/// The names of all job queues, those for which somebody waits first.
pub fn queues() -> Vec<String> {
    let classes = [Class::Interactive, Class::Batch];
    let kinds = |class| Kind::ALL.into_iter().filter(move |kind| kind.classes().contains(&class));
    classes.into_iter().flat_map(|class| kinds(class).map(move |kind| queue_name(kind, class))).collect()
}

/// Kind and class of all jobs of a request.
fn work_of(request: &Request) -> (Kind, Class) {
    match request {
        Request::Synthesise(request) => (Kind::Synthesise, request.class),
        Request::Train(request) => (Kind::TrainRound, request.class),
        Request::Candidates(_) => (Kind::Candidates, Class::Interactive),
    }
}

fn early(cancellation: Cancellation) -> Ending {
    let Cancellation { reason, failed, .. } = cancellation;
    if failed { Ending::Aborted { reason } } else { Ending::Cancelled { reason } }
}

async fn sleep_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// An event's content; nothing for what cannot be read, as from another version.
fn event(notice: &Notice) -> Option<Event> {
    serde_json::from_slice(&notice.payload).ok()
}

/// When a wait that begins now is over.
fn after(wait: Duration) -> Instant {
    Instant::now() + wait
}

fn happened(id: &RequestId, site: &SiteId, happening: Happening) -> Event {
    Event { version: VERSION, request: id.clone(), site: site.clone(), job: None, happening }
}
