//! One request under way: what the store says of its jobs, and what follows from it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hiresmed_protocol::{
    Attempt, Digest, Happening, Job, JobId, Outcome, Plan, Request, RequestId, VERSION, Verdict, Work,
    job::ImageRange,
    keys,
    outcome::{Failure, Success},
    request::OnFailure,
};
use hiresmed_services::queue::{DeadLetter, Message, Notice};
use hiresmed_telemetry::traces;
use tracing::{Instrument, info, info_span, warn};

mod ahead;

use self::ahead::Ahead;
use super::{Dispatcher, Ending, after, event, happened, shares::Ticket};
use crate::{Error, course::Course, judge, rounds};

/// Dead letters looked at in one go.
const DEAD_LETTERS: usize = 256;

/// Where messages are ready, a job is taken to be lost only after so many times the usual wait: it may stand behind them.
const BUSY: u32 = 20;

/// What a broker holds.
enum Broker {
    /// Nothing, neither ready nor with workers.
    Empty,
    /// Nothing ready; what is with workers it does not tell.
    NothingReady,
    /// Something.
    Busy,
}

/// One request under way.
pub(super) struct Run<'a> {
    dispatcher: &'a Dispatcher,
    id: RequestId,
    request: Request,
    course: Course,
    /// For an unbounded request: who reads it.
    ahead: Option<Ahead<'a>>,
    images: u64,
    failures: u64,
    /// Why a job failed that all depends on, as a training round: no other follows.
    broken: Option<String>,
    /// Worker-seconds of the attempts that ended since the last [`Run::publish`].
    ended: Vec<f64>,
}

impl<'a> Run<'a> {
    /// Rebuilds a request's state from the store: what is settled counts, the rest is to be published. Of an unbounded request
    /// nothing is to be published until [`Run::follow`] has looked who reads it.
    pub(super) async fn reconcile(dispatcher: &'a Dispatcher, request: Request, plan: &'a Plan) -> Result<Self, Error> {
        let id = plan.request.clone();
        let ahead = Ahead::of(plan);
        let outcomes = match ahead {
            Some(_) => BTreeMap::new(),
            None => dispatcher.ledger.outcomes(&id).await?,
        };
        let mut run = Self {
            dispatcher,
            id,
            request,
            course: Course::default(),
            ahead,
            images: 0,
            failures: 0,
            broken: None,
            ended: Vec::new(),
        };
        for job in &plan.jobs {
            let mut next = Some(job.clone());
            while let Some(job) = next.take() {
                next = match outcomes.get(&job.id) {
                    Some(outcome) => run.count(&job, outcome).await?,
                    None => {
                        run.add(job).await?;
                        None
                    }
                };
            }
        }
        Ok(run)
    }

    pub(super) fn id(&self) -> &RequestId {
        &self.id
    }

    pub(super) fn request(&self) -> &Request {
        &self.request
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.course.due()
    }

    /// How the request ended, if it did.
    pub(super) async fn ending(&self) -> Result<Option<Ending>, Error> {
        if let Some(reason) = &self.broken {
            self.announce(Happening::Aborted { reason: reason.clone() }).await;
            return Ok(Some(Ending::Failed { reason: reason.clone() }));
        }
        if self.ahead.is_some() || !self.course.is_over() {
            return Ok(None);
        }
        let (images, failures) = (self.images, self.failures);
        self.announce(Happening::Completed { images, failures }).await;
        Ok(Some(Ending::Completed { images, failures }))
    }

    /// Publishes as many jobs as are given places.
    pub(super) async fn publish(&mut self, ticket: &Ticket) -> Result<(), Error> {
        let (now, ended) = (Instant::now(), std::mem::take(&mut self.ended));
        let (in_flight, ready) = (self.course.in_flight().count(), self.course.ready(now));
        let jobs = self.course.take(ticket.update(in_flight, ready, &ended), now);
        let mut batches: BTreeMap<String, Vec<Job>> = BTreeMap::new();
        for job in jobs {
            batches.entry(job.queue()).or_default().push(job);
        }
        for (queue, jobs) in batches {
            let messages = jobs.iter().map(message).collect::<Result<_, _>>()?;
            let span =
                info_span!("publish", request = %self.id, site = %self.dispatcher.site, queue, jobs = jobs.len());
            traces::follow(&span, &trace_parent(&self.id, self.id.as_str()));
            let results = self.dispatcher.queue.publish_batch(&queue, messages).instrument(span).await?;
            for (job, result) in jobs.iter().zip(results) {
                if let Err(error) = result {
                    warn!(job = %job.id, %error, "publish not confirmed, trying again");
                    self.course.delay(&job.id, job.attempt, after(self.dispatcher.wait(1)));
                }
            }
        }
        Ok(())
    }

    /// Takes notice of an event: the end of an attempt, or where readers are, is looked up in the store, which alone counts.
    pub(super) async fn heard(&mut self, notice: &Notice) -> Result<(), Error> {
        match event(notice).map(|event| event.happening) {
            Some(Happening::Ended { outcome }) if self.course.get(&outcome.job).is_some() => {
                self.examine(&outcome.job).await
            }
            Some(Happening::Read { .. }) => self.follow().await,
            _ => Ok(()),
        }
    }

    /// Looks at the store and the queues without having been told anything.
    pub(super) async fn look(&mut self) -> Result<(), Error> {
        // Read before the store: a message that is gone by now was settled there before.
        let broker = self.broker().await?;
        let in_flight: Vec<JobId> = self.course.in_flight().map(|job| job.id.clone()).collect();
        for id in &in_flight {
            self.examine(id).await?;
        }
        for letter in self.dispatcher.queue.dead_letters(DEAD_LETTERS).await? {
            self.judge(&letter).await?;
        }
        let lost: Vec<(JobId, u32)> = match broker {
            Broker::Empty => {
                let gone = self.course.in_flight().filter(|job| in_flight.contains(&job.id));
                gone.map(|job| (job.id.clone(), job.attempt)).collect()
            }
            Broker::NothingReady => self.unstarted(self.dispatcher.options.lost).await?,
            Broker::Busy => self.unstarted(self.dispatcher.options.lost * BUSY).await?,
        };
        for (id, attempt) in lost {
            info!(job = %id, "job is neither settled nor in the queue, publishing it again");
            self.course.delay(&id, attempt, Instant::now());
        }
        Ok(())
    }

    /// Jobs in flight for longer than `lost` that no worker has started, or that one has started and left long ago.
    async fn unstarted(&self, lost: Duration) -> Result<Vec<(JobId, u32)>, Error> {
        let Some(then) = Instant::now().checked_sub(lost) else { return Ok(Vec::new()) };
        let mut unstarted = Vec::new();
        for job in self.course.published_before(then) {
            let attempts = self.dispatcher.ledger.attempts(&self.id, &job.id).await?;
            let running = |attempt: &Attempt| {
                attempt.attempt == job.attempt && attempt.ended.is_none() && !judge::is_stale(attempt)
            };
            if !attempts.iter().any(running) {
                unstarted.push((job.id.clone(), job.attempt));
            }
        }
        Ok(unstarted)
    }

    /// Tells whoever listens; nothing depends on it.
    pub(super) async fn announce(&self, happening: Happening) {
        let event = happened(&self.id, &self.dispatcher.site, happening);
        if let Ok(payload) = serde_json::to_vec(&event) {
            let _ = self.dispatcher.queue.publish_event(&event.topic(), payload.into()).await;
        }
    }

    /// What the queues of the jobs in flight hold.
    async fn broker(&self) -> Result<Broker, Error> {
        let queues: std::collections::BTreeSet<String> = self.course.in_flight().map(Job::queue).collect();
        let mut broker = Broker::Empty;
        for queue in queues {
            let depth = self.dispatcher.queue.depth(&queue).await?;
            match (depth.ready, depth.unacknowledged) {
                (0, Some(0)) => {}
                // A broker that does not tell what is with workers may have something there.
                (0, None) => broker = Broker::NothingReady,
                _ => return Ok(Broker::Busy),
            }
        }
        Ok(broker)
    }

    /// Adds an open job with the attempt that its records lead to.
    async fn add(&mut self, mut job: Job) -> Result<(), Error> {
        let attempts = self.dispatcher.ledger.attempts(&self.id, &job.id).await?;
        let first = self.dispatcher.ledger.first_attempt(&self.id, &job.id).await?;
        let failed = attempts.iter().filter(|attempt| failed_for_a_while(attempt).is_some());
        job.attempt = failed.map(|attempt| attempt.attempt + 1).max().unwrap_or(0).max(first);
        self.course.add(job);
        Ok(())
    }

    /// Reads what became of a job in flight.
    async fn examine(&mut self, id: &JobId) -> Result<(), Error> {
        if let Some(outcome) = self.dispatcher.ledger.outcome(&self.id, id).await? {
            return self.settled(&outcome).await;
        }
        let Some(job) = self.course.in_flight().find(|job| job.id == *id).cloned() else { return Ok(()) };
        let attempts = self.dispatcher.ledger.attempts(&self.id, id).await?;
        let current = attempts.iter().filter(|attempt| attempt.attempt == job.attempt);
        let Some((reason, outcome)) = current.filter_map(failed_for_a_while).next_back() else { return Ok(()) };
        self.ended.push(outcome.0.duration_ms as f64 / 1000.0);
        let tried = job.attempt + 1 - self.dispatcher.ledger.first_attempt(&self.id, id).await?.min(job.attempt);
        if tried < self.dispatcher.options.attempts {
            // The reason may name a site's files: it stays in the store.
            warn!(job = %id, attempt = job.attempt, "job failed for a while, trying again later");
            self.course.delay(id, job.attempt + 1, after(self.dispatcher.wait(tried)));
            return Ok(());
        }
        let failure = Failure { reason: format!("failed {tried} times, the last time: {reason}"), ..outcome.1 };
        self.give_up(Outcome { verdict: Verdict::Failed(failure), ..outcome.0 }).await
    }

    /// Decides about a message that the broker does not deliver any more.
    async fn judge(&mut self, letter: &DeadLetter) -> Result<(), Error> {
        let Ok(job) = serde_json::from_slice::<Job>(&letter.message.payload) else { return Ok(()) };
        if job.request != self.id {
            return Ok(());
        }
        if self.course.get(&job.id).is_some() {
            let attempts = self.dispatcher.ledger.attempts(&self.id, &job.id).await?;
            let first = self.dispatcher.ledger.first_attempt(&self.id, &job.id).await?;
            let since = self.dispatcher.options.alone.then_some(self.dispatcher.started);
            let crashes = judge::crashes(&attempts, first, since);
            if crashes >= self.dispatcher.options.crashes {
                self.give_up(crashed(&job, crashes, &attempts)).await?;
            } else {
                info!(job = %job.id, crashes, "job waited in workers that died, dispatching it again");
                self.course.delay(&job.id, job.attempt, Instant::now());
            }
        }
        Ok(self.dispatcher.queue.discard_dead_letter(&letter.id).await?)
    }

    /// Settles a job as failed, unless a late worker was faster.
    async fn give_up(&mut self, outcome: Outcome) -> Result<(), Error> {
        if self.dispatcher.ledger.settle(&outcome).await? {
            return self.settled(&outcome).await;
        }
        match self.dispatcher.ledger.outcome(&self.id, &outcome.job).await? {
            Some(settled) => self.settled(&settled).await,
            None => Ok(()),
        }
    }

    async fn settled(&mut self, outcome: &Outcome) -> Result<(), Error> {
        let Some(job) = self.course.settle(&outcome.job) else { return Ok(()) };
        self.ended.push(outcome.duration_ms as f64 / 1000.0);
        self.despair(&outcome.verdict).await?;
        if let Some(next) = self.count(&job, outcome).await? {
            self.add(next).await?;
        }
        Ok(())
    }

    /// Counts a settled job, and gives the job that follows from it, if one does.
    async fn count(&mut self, job: &Job, outcome: &Outcome) -> Result<Option<Job>, Error> {
        match (&job.work, &outcome.verdict) {
            (Work::Synthesise(_), Verdict::Succeeded(success)) => {
                self.images += success.images.len() as u64;
                self.failures += success.failures.len() as u64;
                Ok(None)
            }
            (Work::TrainRound(round), Verdict::Succeeded(Success { round: Some(result), .. })) => {
                let next = rounds::next(job, round, result);
                if let Some(parent) = &round.parent {
                    // The chain has moved on; nothing begins there any more, and checkpoints are large.
                    self.dispatcher.ledger.store().delete(&parent.key).await?;
                }
                if let (None, Some(package)) = (&next, &result.package) {
                    let kinds = round.request.model.kinds().iter();
                    let kind = kinds.copied().find(|kind| keys::model_kind(&package.key) == Some(kind));
                    let alias = keys::alias(kind.unwrap_or(round.request.model.as_str()), &round.request.name);
                    self.dispatcher.ledger.register(&self.id, &alias, &package.sha256).await?;
                }
                Ok(next)
            }
            (Work::Synthesise(work), verdict) => {
                self.failures += work.images.count;
                self.fail(job, work.images, &reason(verdict)).await?;
                Ok(None)
            }
            (Work::Candidates(_), Verdict::Succeeded(_)) => Ok(None),
            (Work::Candidates(_), verdict) => {
                self.broken = Some(format!("the candidates could not be found: {}", reason(verdict)));
                Ok(None)
            }
            (Work::TrainRound(round), verdict) => {
                self.broken = Some(format!("training round {} failed: {}", round.round, reason(verdict)));
                Ok(None)
            }
        }
    }

    async fn fail(&self, job: &Job, images: ImageRange, reason: &str) -> Result<(), Error> {
        warn!(job = %job.id, "job failed");
        let Request::Synthesise(request) = &self.request else { return Ok(()) };
        if request.on_failure == OnFailure::Stop {
            let last = images.first.0 + images.count.saturating_sub(1);
            let why = format!(
                "images {} to {last} failed and the request says on_failure = \"stop\": {reason}",
                images.first
            );
            self.dispatcher.ledger.abort(&self.id, &why).await?;
        }
        Ok(())
    }
}

fn message(job: &Job) -> Result<Message, Error> {
    let payload = serde_json::to_vec(job)
        .map_err(|error| Error::Document { key: job.id.to_string(), cause: error.to_string() })?;
    let mut message = Message::new(job.id.as_str(), payload);
    message.headers.insert("traceparent".to_owned(), trace_parent(&job.request, job.id.as_str()));
    Ok(message)
}

/// W3C trace context (Trace Context level 1, 3.2): the trace is the request's, the parent stands for the request or a job, both by
/// digest, so that whoever sees the same job names the same trace.
fn trace_parent(request: &RequestId, parent: &str) -> String {
    let digest = |text: &str| Digest::of(text.as_bytes()).to_string();
    format!("00-{}-{}-01", &digest(request.as_str())[..32], &digest(parent)[..16])
}

/// The reason and the outcome of an attempt that asks for another one.
fn failed_for_a_while(attempt: &Attempt) -> Option<(String, (Outcome, Failure))> {
    match &attempt.ended {
        Some(outcome) => match &outcome.verdict {
            Verdict::Transient(failure) => Some((failure.reason.clone(), (outcome.clone(), failure.clone()))),
            _ => None,
        },
        None => None,
    }
}

fn reason(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Failed(failure) | Verdict::Transient(failure) => failure.reason.clone(),
        other => format!("the job ended as {}", other.label()),
    }
}

fn crashed(job: &Job, crashes: u32, attempts: &[Attempt]) -> Outcome {
    let last = attempts.last();
    let reason = format!("{crashes} workers died while they ran this job ({})", judge::history(attempts));
    Outcome {
        version: VERSION,
        job: job.id.clone(),
        request: job.request.clone(),
        site: job.site.clone(),
        attempt: job.attempt,
        worker: last.map_or_else(String::new, |attempt| attempt.worker.clone()),
        started_at: last.map_or_else(String::new, |attempt| attempt.started_at.clone()),
        duration_ms: 0,
        verdict: Verdict::Failed(Failure { stage: None, reason }),
    }
}
