//! The loop: a delivery is taken, its job run on a thread of its own, the outcome made durable, the delivery settled.
//!
//! Order matters and is the same for every end: outputs, then `done.json` (or the attempt's record), then the event,
//! then the acknowledgement. A worker that dies between two of them leaves nothing that another run does not put right.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use futures::future::select_all;
use hiresmed_protocol::{Job, Verdict, outcome::Success};
use hiresmed_services::queue::{self, Consumer, Delivery, Queue};
use hiresmed_telemetry::traces;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span, warn};

use crate::{
    cancellations::Cancellations,
    disk,
    environment::Environment,
    execute,
    jobs::{Context, Failure, Stop},
    record::{self, Record},
};

/// A job in which so many workers died is not started again: its message becomes a dead letter, and the coordinator gives it up.
const CRASHES: u32 = 3;

/// The header of a message with its W3C trace context.
const TRACE_HEADER: &str = "traceparent";

/// Of so many deliveries one is looked for in the queues in reverse order, so that work nobody waits for goes on as well.
const PATIENCE: usize = 5;

/// Wait before a lost connection is tried again.
const RECONNECT: Duration = Duration::from_secs(1);

/// How often a disk that could not be written is tried again.
const DISK: Duration = Duration::from_secs(5);

/// What runs a job: [`crate::jobs::run`], or a test's own.
pub type Runner = dyn Fn(&Environment, &Context) -> Result<Success, Failure> + Send + Sync;

/// Why a worker stops working.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Outcomes cannot be made durable: the jobs are somebody else's.
    #[error("the worker cannot record what it does")]
    Record(#[from] record::Error),
    /// The queue is out of order.
    #[error(transparent)]
    Queue(#[from] queue::Error),
    /// The worker's disk cannot be written. It takes no jobs until it can.
    #[error("the worker's disk cannot be written")]
    Disk(#[source] io::Error),
}

/// A worker.
#[derive(Clone)]
pub struct Worker {
    /// Host and process, for records and events.
    pub name: String,
    /// Where jobs come from.
    pub queue: Arc<dyn Queue>,
    /// What jobs use.
    pub environment: Arc<Environment>,
    /// What runs them.
    pub runner: Arc<Runner>,
    /// Jobs at a time; as many deliveries are taken at most from each queue.
    pub permits: u16,
    /// Whether there is no other worker: it goes on when its disk is full, so that somebody hears of it. One of many stops until the
    /// disk can be written again, as it would fail one job after the other that others could do.
    pub alone: bool,
}

impl Worker {
    /// Works until `drain` is cancelled: then it takes nothing more, hands back what runs and waits for that.
    ///
    /// `queues` are named in the order of their precedence; where all have work, the last is not left without any.
    ///
    /// # Errors
    /// [`Error::Record`] when outcomes cannot be made durable, [`Error::Queue`] when the queues are missing.
    pub async fn run(&self, queues: &[String], drain: &CancellationToken) -> Result<(), Error> {
        let permits = Arc::new(Semaphore::new(self.permits.max(1).into()));
        let cancellations = Cancellations::start(self.queue.clone(), self.environment.store.inner().clone());
        let mut running = JoinSet::new();
        let mut begun = false;
        while !drain.is_cancelled() {
            let mut consumers = match self.consume(queues).await {
                Ok(consumers) => consumers,
                // What was there once comes back: a broker restarts, or is set up anew.
                Err(Error::Queue(error)) if begun => {
                    pause(drain, &error).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            begun = true;
            let lost = self.take(&mut consumers, &permits, &cancellations, &mut running, drain).await;
            // What runs is finished or handed back before its consumer closes: its delivery is settled through it.
            while let Some(ended) = running.join_next().await {
                match settled(ended) {
                    Err(Error::Queue(error)) => warn!(%error, "a delivery could not be settled; it comes again"),
                    Err(Error::Disk(error)) => warn!(%error, "another job found the disk full as well"),
                    result => result?,
                }
            }
            for consumer in consumers {
                if let Err(error) = consumer.close().await {
                    warn!(%error, "a consumer could not be closed; its deliveries come again");
                }
            }
            match lost {
                Ok(()) => {}
                Err(Error::Queue(error)) => pause(drain, &error).await,
                Err(Error::Disk(error)) => self.until_writable(drain, error).await,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until the disk can be written.
    async fn until_writable(&self, drain: &CancellationToken, mut error: io::Error) {
        loop {
            let scratch = self.environment.scratch();
            warn!(%error, folder = %scratch.display(), "the disk cannot be written; free space: no job is taken until then");
            tokio::select! {
                () = drain.cancelled() => return,
                () = tokio::time::sleep(DISK) => {}
            }
            match disk::probe(scratch.to_path_buf()).await {
                Ok(()) => return,
                Err(again) => error = again,
            }
        }
    }

    async fn consume(&self, queues: &[String]) -> Result<VecDeque<Box<dyn Consumer>>, Error> {
        let mut consumers = VecDeque::new();
        for queue in queues {
            consumers.push_back(self.queue.consume(queue, self.permits.max(1)).await?);
        }
        Ok(consumers)
    }

    async fn take(
        &self,
        consumers: &mut VecDeque<Box<dyn Consumer>>,
        permits: &Arc<Semaphore>,
        cancellations: &Cancellations,
        running: &mut JoinSet<Result<(), Error>>,
        drain: &CancellationToken,
    ) -> Result<(), Error> {
        let mut turn = 0;
        loop {
            tokio::select! {
                biased;
                () = drain.cancelled() => return Ok(()),
                Some(ended) = running.join_next() => settled(ended)?,
                taken = next(consumers, permits, turn) => {
                    let (delivery, permit) = taken?;
                    turn += 1;
                    let (worker, cancellations, drain) = (self.clone(), cancellations.clone(), drain.clone());
                    running.spawn(async move {
                        let result = worker.handle(delivery, &cancellations, drain).await;
                        // Moved here so that it lasts as long as the job.
                        drop(permit);
                        result
                    });
                }
            }
        }
    }

    async fn handle(
        &self,
        delivery: Delivery,
        cancellations: &Cancellations,
        drain: CancellationToken,
    ) -> Result<(), Error> {
        let Ok(job) = serde_json::from_slice::<Job>(&delivery.message.payload) else {
            warn!(message = %delivery.message.id, "message is no job, rejecting it");
            return settle(delivery.reject().await);
        };
        let trace = &*delivery.message.headers.get(TRACE_HEADER).cloned().unwrap_or_default();
        let span = info_span!(
            "job", id = %job.id, kind = %job.work.kind(), attempt = job.attempt, request = %job.request, site = %job.site, trace
        );
        traces::follow(&span, trace);
        self.work(job, delivery, cancellations, drain).instrument(span).await
    }

    async fn work(
        &self,
        job: Job,
        delivery: Delivery,
        cancellations: &Cancellations,
        drain: CancellationToken,
    ) -> Result<(), Error> {
        let store = self.environment.store.inner();
        let settled = patiently(&drain, || record::is_settled(store, &job)).await?;
        if settled || cancellations.is_cancelled(&job.request).await {
            return settle(delivery.acknowledge().await);
        }
        // Looked up only for what came back so often: a job that merely waited in workers that died has left no start.
        let often = delivery.delivery_count >= CRASHES;
        if often && patiently(&drain, || record::crashes(store, &job)).await? >= CRASHES {
            warn!("the job has killed its workers; it is not tried again");
            return settle(delivery.reject().await);
        }
        let record = Record::of(store.clone(), &job, &self.name)?;
        patiently(&drain, || record.start()).await?;
        let stop = Stop { drain: drain.clone(), cancel: cancellations.watch(&job.request) };
        let verdict = execute::execute(self, job.clone(), stop).await;
        let outcome = record.outcome(&job, verdict);
        patiently(&drain, || record.end(&outcome)).await?;
        self.environment.observe(|metrics| {
            let seconds = outcome.duration_ms as f64 / 1000.0;
            metrics.job_ended(job.work.kind().as_str(), outcome.verdict.label(), seconds);
        });
        let failed_for_a_while = matches!(outcome.verdict, Verdict::Transient(_));
        if outcome.verdict == Verdict::Interrupted {
            // A fresh copy, so that the broker's delivery count speaks of crashes only.
            self.queue.publish(&job.queue(), delivery.message.clone()).await?;
        }
        execute::announce_end(self, &job, outcome).await;
        settle(delivery.acknowledge().await)?;
        if failed_for_a_while && !self.alone {
            disk::probe(self.environment.scratch().to_path_buf()).await.map_err(Error::Disk)?;
        }
        Ok(())
    }
}

/// What `ask` gets from the store, asked again until the store answers: what was made is not thrown away because the store is
/// restarted. A worker that is to stop asks once; the delivery goes back.
async fn patiently<T, F>(drain: &CancellationToken, ask: impl Fn() -> F) -> Result<T, record::Error>
where
    F: Future<Output = Result<T, record::Error>>,
{
    loop {
        match ask().await {
            Err(error) if error.may_pass() && !drain.is_cancelled() => {
                warn!(%error, "the store is away, asking again");
                tokio::select! {
                    () = drain.cancelled() => {}
                    () = tokio::time::sleep(RECONNECT) => {}
                }
            }
            answer => return answer,
        }
    }
}

/// Waits before a lost connection is tried again.
async fn pause(drain: &CancellationToken, error: &queue::Error) {
    warn!(%error, "connection lost, trying again");
    tokio::select! {
        () = drain.cancelled() => {}
        () = tokio::time::sleep(RECONNECT) => {}
    }
}

/// The next delivery, from the first queue that has one, once there is room for its job; in the last of some turns from the
/// last queue that has one.
async fn next(
    consumers: &mut VecDeque<Box<dyn Consumer>>,
    permits: &Arc<Semaphore>,
    turn: usize,
) -> Result<(Delivery, OwnedSemaphorePermit), Error> {
    let Ok(permit) = permits.clone().acquire_owned().await else {
        // Nobody closes the semaphore.
        return std::future::pending().await;
    };
    if consumers.is_empty() {
        return std::future::pending().await;
    }
    let mut deliveries: Vec<_> = consumers.iter_mut().map(|consumer| consumer.next()).collect();
    if turn % PATIENCE == PATIENCE - 1 {
        deliveries.reverse();
    }
    let (delivery, _, _) = select_all(deliveries).await;
    Ok((delivery?, permit))
}

/// A delivery that is no longer ours comes again, and its job is found settled: nothing is lost.
fn settle(result: queue::Result<()>) -> Result<(), Error> {
    match result {
        Err(queue::Error::Settled(id)) => {
            warn!(message = %id, "delivery was no longer ours to settle");
            Ok(())
        }
        result => Ok(result?),
    }
}

fn settled(ended: Result<Result<(), Error>, tokio::task::JoinError>) -> Result<(), Error> {
    match ended {
        Ok(result) => result,
        // The job's own panics are caught; the loop's would be a fault here, and the delivery comes again.
        Err(error) => {
            warn!(%error, "handling a delivery ended unexpectedly");
            Ok(())
        }
    }
}
