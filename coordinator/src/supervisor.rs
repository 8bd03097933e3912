//! Keeps every open request of every site dispatched.
//!
//! One task for each open request. The marks `fleet/open/{site}/{request}` say which those are: made when a request is
//! accepted, taken away when nothing is left to dispatch, read when a coordinator starts.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hiresmed_protocol::{RequestId, SiteId, keys};
use hiresmed_services::queue::{Queue, backoff};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{Dispatcher, Ending, Error, Ledger, dispatcher, status};

/// Wait before a request's dispatcher that failed is started again; doubles up to [`LONGEST_WAIT`].
const WAIT: Duration = Duration::from_secs(1);

/// Longest such wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Dispatches all open requests. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor {
    shared: Arc<Shared>,
}

struct Shared {
    ledger: Ledger,
    queue: Arc<dyn Queue>,
    options: dispatcher::Options,
    running: Mutex<BTreeSet<RequestId>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Supervisor {
    /// A supervisor without requests; it ends with `stop`.
    pub fn new(ledger: Ledger, queue: Arc<dyn Queue>, options: dispatcher::Options, stop: CancellationToken) -> Self {
        let running = Mutex::default();
        Self { shared: Arc::new(Shared { ledger, queue, options, running, tasks: TaskTracker::new(), stop }) }
    }

    /// Declares the queues and takes up what the store says is open.
    ///
    /// # Errors
    /// The queue's and the store's.
    pub async fn start(&self) -> Result<(), Error> {
        self.shared.dispatcher(&SiteId::local()).declare().await?;
        let open = self.shared.ledger.open_requests(None).await?;
        info!(requests = open.len(), "taking up open requests");
        for (site, request) in open {
            self.run(site, request);
        }
        Ok(())
    }

    /// Marks a request as open and dispatches it from now on.
    ///
    /// # Errors
    /// The store's.
    pub async fn submit(&self, site: &SiteId, request: &RequestId) -> Result<(), Error> {
        self.shared.ledger.open(site, request).await?;
        self.run(site.clone(), request.clone());
        Ok(())
    }

    /// Cancels a request.
    ///
    /// # Errors
    /// As [`Dispatcher::cancel`].
    pub async fn cancel(&self, site: &SiteId, request: &RequestId, reason: &str) -> Result<(), Error> {
        self.shared.dispatcher(site).cancel(request, reason).await
    }

    /// Waits until every dispatcher has stopped. The token given to [`Supervisor::new`] must be cancelled.
    pub async fn stopped(&self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    fn run(&self, site: SiteId, request: RequestId) {
        let shared = self.shared.clone();
        if !shared.running().insert(request.clone()) || shared.stop.is_cancelled() {
            return;
        }
        self.shared.tasks.spawn(async move {
            loop {
                shared.finish(&site, &request).await;
                shared.running().remove(&request);
                // Opened again while this task ended: whoever did so saw it still running.
                let again = shared.is_marked(&site, &request).await && !shared.stop.is_cancelled();
                if !again || !shared.running().insert(request.clone()) {
                    return;
                }
            }
        });
    }
}

impl Shared {
    fn dispatcher(&self, site: &SiteId) -> Dispatcher {
        Dispatcher::new(self.ledger.clone(), self.queue.clone(), site.clone(), self.options)
    }

    fn running(&self) -> std::sync::MutexGuard<'_, BTreeSet<RequestId>> {
        // A set is whole after every call, also where a thread panicked in between.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn is_marked(&self, site: &SiteId, request: &RequestId) -> bool {
        matches!(self.ledger.store().head(&keys::open(site, request)).await, Ok(Some(_)))
    }

    /// Dispatches a request until it is over or this process stops.
    async fn finish(&self, site: &SiteId, request: &RequestId) {
        let mut failures = 0;
        loop {
            match self.dispatch(site, request).await {
                Ok(true) => return,
                Ok(false) => failures = 0,
                Err(error) => {
                    warn!(%site, %request, %error, "dispatching failed, trying again");
                    let wait = backoff(failures, WAIT, LONGEST_WAIT);
                    failures += 1;
                    tokio::select! {
                        () = self.stop.cancelled() => return,
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
        }
    }

    /// True where nothing is left to do here.
    async fn dispatch(&self, site: &SiteId, request: &RequestId) -> Result<bool, Error> {
        match self.dispatcher(site).run(request, &self.stop).await {
            Ok(Ending::Stopped) => return Ok(true),
            Ok(ending) => info!(%site, %request, ?ending, "request ended"),
            Err(Error::UnknownRequest(_)) => {
                warn!(%site, %request, "the store has no such request, forgetting it");
                self.ledger.close(site, request).await?;
                return Ok(true);
            }
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
}
