//! Keeps every open request of every site dispatched, by one coordinator at a time.
//!
//! One task for each open request. The marks `fleet/open/{site}/{request}` say which those are: made when a request is
//! accepted, taken away when nothing is left to dispatch, looked at by whoever leads. To lead is to hold a lock in the cache; it
//! spares the workers what two coordinators would publish twice, and nothing depends on it: where the cache is away, each
//! coordinator leads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hiresmed_protocol::{RequestId, SiteId, job::Kind};
use hiresmed_services::{
    Services,
    cache::{Cache, Token},
    queue::{Queue, backoff},
};
use hiresmed_telemetry::Metrics;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{Dispatcher, Ending, Error, Ledger, Sites, dispatcher, dispatcher::Shares, status};

/// Wait before a request's dispatcher that failed is started again; doubles up to [`LONGEST_WAIT`].
const WAIT: Duration = Duration::from_secs(1);

/// Longest such wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The lock of the coordinator that dispatches.
const LEADER: &str = "coordinator";

/// How long a leader that died is still taken to lead.
const TERM: Duration = Duration::from_secs(10);

/// How often the lock is renewed or tried, and open requests are looked for that another coordinator accepted.
const LOOK: Duration = Duration::from_secs(1);

/// Dispatches all open requests. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor {
    shared: Arc<Shared>,
}

struct Shared {
    ledger: Ledger,
    queue: Arc<dyn Queue>,
    cache: Arc<dyn Cache>,
    options: dispatcher::Options,
    shares: Arc<Shares>,
    running: Mutex<BTreeSet<RequestId>>,
    tasks: TaskTracker,
    submitted: Notify,
    /// Jobs in flight and waiting, as last shown.
    shown: Mutex<BTreeMap<(Kind, SiteId), (usize, usize)>>,
    stop: CancellationToken,
}

impl Supervisor {
    /// A supervisor without requests; it ends with `stop`.
    pub fn new(services: &Services, options: dispatcher::Options, stop: CancellationToken) -> Self {
        let (ledger, shares) = (Ledger::new(services.store.clone()), Shares::new(options.window));
        let (queue, cache) = (services.queue.clone(), services.cache.clone());
        let (running, tasks, submitted, shown) =
            (Mutex::default(), TaskTracker::new(), Notify::new(), Mutex::default());
        let shared = Shared { ledger, queue, cache, options, shares, running, tasks, submitted, shown, stop };
        Self { shared: Arc::new(shared) }
    }

    /// Declares the queues and takes up what the store says is open, whenever this coordinator leads.
    ///
    /// # Errors
    /// The queue's.
    pub async fn start(&self) -> Result<(), Error> {
        self.shared.dispatcher(&SiteId::local(), 1.0).declare().await?;
        let shared = self.shared.clone();
        self.shared.tasks.spawn(async move { shared.lead_when_possible().await });
        Ok(())
    }

    /// Marks a request as open: it is dispatched from now on.
    ///
    /// # Errors
    /// The store's.
    pub async fn submit(&self, site: &SiteId, request: &RequestId) -> Result<(), Error> {
        self.shared.ledger.open(site, request).await?;
        self.shared.submitted.notify_one();
        Ok(())
    }

    /// At most so many images of an unbounded request are made ahead of its slowest reader.
    pub fn ahead(&self) -> u64 {
        self.shared.options.ahead
    }

    /// Brings the metrics of jobs in flight and waiting up to date, as far as this coordinator dispatches them.
    pub fn observe(&self, metrics: &Metrics) {
        // A series that was shown goes to zero; it does not stay at its last value.
        let mut shown = self.shared.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for value in shown.values_mut() {
            *value = (0, 0);
        }
        for held in self.shared.shares.holdings() {
            let (in_flight, backlog) = shown.entry((held.kind, held.site)).or_default();
            (*in_flight, *backlog) = (*in_flight + held.in_flight, *backlog + held.backlog);
        }
        let mut by_kind = BTreeMap::new();
        for ((kind, site), (in_flight, backlog)) in shown.iter() {
            metrics.set_backlog(kind.as_str(), site.as_str(), *backlog as u64);
            *by_kind.entry(*kind).or_default() += *in_flight;
        }
        by_kind
            .into_iter()
            .for_each(|(kind, jobs): (Kind, usize)| metrics.set_jobs_in_flight(kind.as_str(), jobs as u64));
    }

    /// Cancels a request.
    ///
    /// # Errors
    /// As [`Dispatcher::cancel`].
    pub async fn cancel(&self, site: &SiteId, request: &RequestId, reason: &str) -> Result<(), Error> {
        self.shared.dispatcher(site, 1.0).cancel(request, reason).await
    }

    /// Waits until every dispatcher has stopped. The token given to [`Supervisor::new`] must be cancelled.
    pub async fn stopped(&self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Shared {
    fn dispatcher(&self, site: &SiteId, weight: f64) -> Dispatcher {
        Dispatcher::new(self.ledger.clone(), self.queue.clone(), site.clone(), self.options)
            .sharing(self.shares.clone(), weight)
    }

    /// Leads whenever nobody else does, until this process stops.
    async fn lead_when_possible(self: Arc<Self>) {
        while !self.stop.is_cancelled() {
            match self.cache.try_lock(LEADER, TERM).await {
                Ok(Some(token)) => self.lead(Some(token)).await,
                Ok(None) => {}
                Err(error) => {
                    warn!(%error, "without the cache, every coordinator dispatches");
                    self.lead(None).await;
                }
            }
            self.pause().await;
        }
    }

    /// Dispatches what is open until the lock is lost or this process stops; without a lock until the cache is back.
    async fn lead(self: &Arc<Self>, lock: Option<Token>) {
        info!(locked = lock.is_some(), "leading");
        let term = self.stop.child_token();
        let tasks = TaskTracker::new();
        loop {
            match self.ledger.open_requests(None).await {
                Ok(open) => open.into_iter().for_each(|(site, request)| self.take_up(site, request, &term, &tasks)),
                Err(error) => warn!(%error, "the store does not say what is open, looking again"),
            }
            self.pause().await;
            let on = match &lock {
                // A cache that is away takes the lock from nobody.
                Some(token) => self.cache.renew(LEADER, token, TERM).await.unwrap_or(true),
                None => self.cache.get(LEADER).await.is_err(),
            };
            if !on || self.stop.is_cancelled() {
                break;
            }
        }
        term.cancel();
        tasks.close();
        tasks.wait().await;
        if let Some(token) = lock {
            // At worst the next one waits for the lock's end.
            let _ = self.cache.unlock(LEADER, &token).await;
        }
    }

    async fn pause(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.submitted.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }

    fn take_up(self: &Arc<Self>, site: SiteId, request: RequestId, term: &CancellationToken, tasks: &TaskTracker) {
        if term.is_cancelled() || !self.running().insert(request.clone()) {
            return;
        }
        let (shared, term) = (self.clone(), term.clone());
        tasks.spawn(async move {
            shared.finish(&site, &request, &term).await;
            shared.running().remove(&request);
        });
    }

    fn running(&self) -> std::sync::MutexGuard<'_, BTreeSet<RequestId>> {
        // A set is whole after every call, also where a thread panicked in between.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Dispatches a request until it is over or this process stops.
    async fn finish(&self, site: &SiteId, request: &RequestId, term: &CancellationToken) {
        let mut failures = 0;
        loop {
            match self.dispatch(site, request, term).await {
                Ok(true) => return,
                Ok(false) => failures = 0,
                Err(error) => {
                    warn!(%site, %request, %error, "dispatching failed, trying again");
                    let wait = backoff(failures, WAIT, LONGEST_WAIT);
                    failures += 1;
                    tokio::select! {
                        () = term.cancelled() => return,
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
        }
    }

    /// True where nothing is left to do here.
    async fn dispatch(&self, site: &SiteId, request: &RequestId, term: &CancellationToken) -> Result<bool, Error> {
        let weight = Sites::new(self.ledger.clone()).get(site).await?.map_or(1.0, |site| site.weight);
        match self.dispatcher(site, weight).run(request, term).await {
            Ok(Ending::Stopped) => return Ok(true),
            Ok(ending) => info!(%site, %request, ?ending, "request ended"),
            Err(Error::UnknownRequest(_)) => {
                warn!(%site, %request, "the store has no such request, forgetting it");
                self.ledger.close(site, request).await?;
                return Ok(true);
            }
            Err(Error::Waiting { trainings, .. }) => return self.wait_for(site, request, &trainings, term).await,
            Err(error) => return Err(error),
        }
        self.ledger.close(site, request).await?;
        // Asked after the mark is gone: a job may have been opened again while the others ended, and its mark with it.
        if status::of(&self.ledger, request).await?.is_over() {
            return Ok(true);
        }
        self.ledger.open(site, request).await?;
        Ok(false)
    }

    /// Lets a request wait for the trainings of its lesion models; true where it ends instead.
    async fn wait_for(
        &self,
        site: &SiteId,
        request: &RequestId,
        trainings: &[RequestId],
        term: &CancellationToken,
    ) -> Result<bool, Error> {
        for training in trainings {
            let status = status::of(&self.ledger, training).await?;
            if status.is_over() && (status.failed > 0 || status.cancelled.is_some()) {
                let reason = format!("a lesion model could not be trained: request {training} says why");
                self.ledger.abort(request, &reason).await?;
            }
        }
        if self.ledger.cancellation(request).await?.is_some() {
            info!(%site, %request, "request ended while it waited for a training");
            self.ledger.close(site, request).await?;
            return Ok(true);
        }
        tokio::select! {
            () = term.cancelled() => Ok(true),
            () = tokio::time::sleep(LOOK) => Ok(false),
        }
    }
}
