//! A coordinator and a worker on services in a folder of their own, with a stand-in for the work.

use std::{path::Path, sync::Arc, time::Duration};

use hiresmed_coordinator::{Dispatcher, Ending, Ledger, Planner, dispatcher};
use hiresmed_protocol::{Plan, RequestId, SiteId, keys, outcome::Success, parse};
use hiresmed_services::{
    cache::Memory,
    queue::{Queue, Sqlite},
    store::{Directory, Store},
};
use hiresmed_tests::imitation::furnish;
pub use hiresmed_tests::imitation::imitate;
use hiresmed_worker::{
    Environment, Worker,
    consumer::{Error, Runner},
    jobs::{Context, Failure},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Services in a folder, with the models and inputs that a small request needs.
pub struct Site {
    pub store: Arc<dyn Store>,
    pub queue: Arc<dyn Queue>,
    pub ledger: Ledger,
    pub folder: tempfile::TempDir,
}

impl Site {
    pub async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(Directory::open(folder.path().join("store")).unwrap());
        let queue: Arc<dyn Queue> = Arc::new(Sqlite::open(folder.path().join("queue.sqlite")).unwrap());
        furnish(&*store, &SiteId::local()).await.unwrap();
        Self { ledger: Ledger::new(store.clone()), store, queue, folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Records a request; `text` is TOML without version.
    pub async fn submit(&self, text: &str) -> Plan {
        let request = parse::toml(&format!("version = 1\n{text}")).unwrap();
        Planner::new(self.ledger.clone(), SiteId::local()).submit(&request).await.unwrap()
    }

    pub fn dispatcher(&self, queue: &Arc<dyn Queue>) -> Dispatcher {
        let options = dispatcher::Options {
            window: 3,
            attempts: 3,
            backoff: Duration::from_millis(5),
            poll: Duration::from_millis(50),
            ..dispatcher::Options::default()
        };
        Dispatcher::new(self.ledger.clone(), queue.clone(), SiteId::local(), options)
    }

    /// Starts a worker. It works until the token is cancelled.
    pub fn worker(
        &self,
        permits: u16,
        runner: impl Fn(&Environment, &Context) -> Result<Success, Failure> + Send + Sync + 'static,
    ) -> (CancellationToken, JoinHandle<Result<(), Error>>) {
        let cache = Arc::new(Memory::new(1 << 20));
        let worker = Worker {
            name: format!("test/{}", std::process::id()),
            queue: self.queue.clone(),
            environment: Arc::new(Environment::new(self.store.clone(), cache, self.path().join("cache"), 1)),
            runner: Arc::new(runner) as Arc<Runner>,
            permits,
            alone: true,
        };
        let drain = CancellationToken::new();
        let token = drain.clone();
        (drain, tokio::spawn(async move { worker.run(&dispatcher::queues(), &token).await }))
    }

    /// Dispatches a request to its end with one worker.
    pub async fn complete(
        &self,
        id: &RequestId,
        runner: impl Fn(&Environment, &Context) -> Result<Success, Failure> + Send + Sync + 'static,
    ) -> Ending {
        let dispatcher = self.dispatcher(&self.queue);
        dispatcher.declare().await.unwrap();
        let (drain, worker) = self.worker(1, runner);
        let ending = dispatcher.run(id, &CancellationToken::new()).await.unwrap();
        drain.cancel();
        worker.await.unwrap().unwrap();
        ending
    }

    /// The indices of the images that count, in the order of the manifest.
    pub async fn images(&self, id: &RequestId) -> Vec<u64> {
        let delivery = hiresmed_coordinator::delivery::assemble(&self.ledger, id).await.unwrap().unwrap();
        for sha256 in delivery.files.values() {
            self.store.get(&keys::object(&SiteId::local(), sha256)).await.unwrap();
        }
        delivery.manifest.images.iter().map(|image| image.index.0).collect()
    }
}
