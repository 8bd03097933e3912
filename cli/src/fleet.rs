//! The whole fleet in one process: coordinator, worker and the three services on a state folder.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use hiresmed_coordinator::{Dispatcher, Ending, Ledger, Planner, delivery, dispatcher};
use hiresmed_inference::{Provider, Session};
use hiresmed_protocol::{Plan, Request, RequestId, SiteId};
use hiresmed_services::{
    cache::{Cache, Memory},
    queue::{Queue, Sqlite},
    store::{Directory, Store},
};
use hiresmed_worker::{Environment, Worker, jobs, shipped};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::{intake::Names, signals, state::StateFolder, trainer, watcher};

/// Values that the embedded cache keeps at most.
const CACHE_BYTES: usize = 64 << 20;

/// Reasons of failures that an error lists.
const REASONS: usize = 5;

/// How often a process that follows another one looks whether it can take over.
const LOOK: Duration = Duration::from_millis(500);

/// The coordinator, the worker and the services of one machine.
pub struct Fleet {
    state: StateFolder,
    runtime: Runtime,
    site: SiteId,
    store: Arc<dyn Store>,
    queue: Arc<dyn Queue>,
    ledger: Ledger,
    device: Provider,
}

impl Fleet {
    /// Opens the services in `state` and registers the models and the sample that come with the project. Networks run on
    /// `device`.
    ///
    /// # Errors
    /// The folder cannot be used: the error names the file and the cause.
    pub fn open(state: StateFolder, device: Provider) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("the program cannot start its threads")?;
        let store: Arc<dyn Store> = Arc::new(Directory::open(state.store())?);
        let queue: Arc<dyn Queue> = Arc::new(runtime.block_on(async { Sqlite::open(state.queue()) })?);
        let ledger = Ledger::new(store.clone());
        let fleet = Self { state, runtime, site: SiteId::local(), store, queue, ledger, device };
        fleet.runtime.block_on(shipped::register(&fleet.store, &fleet.site))?;
        Ok(fleet)
    }

    /// The state folder.
    pub fn state(&self) -> &StateFolder {
        &self.state
    }

    /// The documents of requests.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The objects.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// What the files that were taken in are called on this machine.
    pub fn names(&self) -> Names {
        Names::read(&self.state)
    }

    /// The site that this machine is.
    pub fn site(&self) -> &SiteId {
        &self.site
    }

    /// Waits for asynchronous work.
    pub fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// What the jobs of this machine's worker share. A command that runs a stage by itself uses it too.
    pub fn environment(&self) -> Environment {
        let _entered = self.runtime.enter();
        let cache: Arc<dyn Cache> = Arc::new(Memory::new(CACHE_BYTES));
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Environment::new(self.store.clone(), cache, self.state.scratch(), threads).on(self.device)
    }

    /// Records a request and gives its plan; the same request again is the same request. A cancelled one goes on.
    ///
    /// # Errors
    /// The request is refused, or the store cannot be written.
    pub fn submit(&self, request: &Request) -> Result<Plan> {
        let planner = Planner::new(self.ledger.clone(), self.site.clone());
        self.wait(async {
            let plan = planner.submit(request).await?;
            self.ledger.resume(&plan.request).await?;
            Ok(plan)
        })
    }

    /// Cancels a request, whichever process works for it.
    ///
    /// # Errors
    /// There is no such request, or the store cannot be written.
    pub fn cancel(&self, id: &RequestId) -> Result<()> {
        Ok(self.wait(self.dispatcher().cancel(id, "cancelled by a person"))?)
    }

    /// Works for a request until it ends, showing its progress; or follows the process that does, and takes over when
    /// that dies.
    ///
    /// # Errors
    /// There is no such request, none of its images could be made, or the machinery fails; what was done stays done.
    pub fn finish(&self, id: &RequestId) -> Result<Ending> {
        let ending = self.follow_or_work(id)?;
        if matches!(ending, Ending::Completed { images: 0, failures } if failures > 0) {
            bail!("request {id} made no image:{}", self.reasons(id)?);
        }
        Ok(match ending {
            Ending::Failed { reason } => Ending::Failed { reason: self.names().restore(&reason) },
            ending => ending,
        })
    }

    /// The different reasons of a request's failures, a line each.
    fn reasons(&self, id: &RequestId) -> Result<String> {
        let delivery = self.wait(delivery::assemble(&self.ledger, id))?;
        let failures = delivery.map(|delivery| delivery.manifest.failures).unwrap_or_default();
        let reasons: BTreeSet<_> =
            failures.iter().map(|failure| format!("\n  {}: {}", failure.stage, failure.reason)).collect();
        let more = reasons.len().saturating_sub(REASONS);
        let mut text: String = reasons.into_iter().take(REASONS).collect();
        if more > 0 {
            text.push_str(&format!("\n  and {more} further reasons"));
        }
        Ok(self.names().restore(&text))
    }

    fn follow_or_work(&self, id: &RequestId) -> Result<Ending> {
        let stop = CancellationToken::new();
        self.wait(async {
            signals::cancel_on_signal(stop.clone());
            let shown = watcher::watch(self.ledger.clone(), self.queue.clone(), self.names(), id).await?;
            let mut told = false;
            loop {
                match self.state.try_lock()? {
                    Ok(_lock) => {
                        let ending = self.work(id, &stop).await;
                        shown.end().await;
                        return ending;
                    }
                    Err(holder) if !told => {
                        told = true;
                        eprintln!("process {holder} works on {}; following it", self.state.root().display());
                    }
                    Err(_) => {}
                }
                tokio::select! {
                    () = stop.cancelled() => {
                        shown.end().await;
                        return Ok(Ending::Stopped);
                    }
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
        })
    }

    fn dispatcher(&self) -> Dispatcher {
        // The worker takes one job at a time; a few more keep it from waiting.
        let options = dispatcher::Options { window: 4, alone: true, ..dispatcher::Options::default() };
        Dispatcher::new(self.ledger.clone(), self.queue.clone(), self.site.clone(), options)
    }

    /// Dispatches and does the work. The caller holds the lock.
    async fn work(&self, id: &RequestId, stop: &CancellationToken) -> Result<Ending> {
        let dispatcher = self.dispatcher();
        dispatcher.declare().await?;
        if let Some(ending) = dispatcher.ended(id).await? {
            return Ok(ending);
        }
        let trains = matches!(self.ledger.request(id).await?, Request::Train(_));
        if !trains {
            // A machine without it cannot work: no fault of the request, which stays open.
            Session::check_provider(&hiresmed_inference::Runtime::load_for(self.device)?, self.device)?;
        }
        let drain = CancellationToken::new();
        let labour = async {
            if trains {
                trainer::keep_running(&self.state, &drain).await
            } else {
                self.worker().run(&synthesis_queues(), &drain).await.map_err(anyhow::Error::from)
            }
        };
        tokio::pin!(labour);
        let ending = tokio::select! {
            ending = dispatcher.run(id, stop) => ending,
            failed = &mut labour => {
                return Err(failed.err().unwrap_or_else(|| anyhow!("the worker stopped before the request was complete")));
            }
        };
        // What runs finishes its image or step and is handed back, whatever the dispatcher's fate.
        drain.cancel();
        labour.await?;
        Ok(ending?)
    }

    fn worker(&self) -> Worker {
        Worker {
            name: format!("local/{}", std::process::id()),
            queue: self.queue.clone(),
            environment: Arc::new(self.environment()),
            runner: Arc::new(jobs::run),
            permits: 1,
            alone: true,
        }
    }
}

fn synthesis_queues() -> Vec<String> {
    dispatcher::queues().into_iter().filter(|queue| queue.starts_with("synthesis")).collect()
}
