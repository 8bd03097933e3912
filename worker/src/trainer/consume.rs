//! `hiresmed-trainer consume`: works on the training jobs of one machine's queue.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use hiresmed_protocol::job::Kind;
use hiresmed_services::{
    cache::Memory,
    queue::{Queue, Sqlite},
    store::{Directory, Store},
};
use tokio_util::sync::CancellationToken;

use crate::{Environment, Worker, jobs, program, settings::queues};

/// How often it is checked that the program that started this one lives.
const LOOK: Duration = Duration::from_secs(1);

/// Bytes of the embedded cache.
const CACHE_BYTES: usize = 64 << 20;

/// Where jobs come from and results go.
#[derive(Debug, clap::Args)]
pub struct ConsumeOptions {
    /// Folder of the object store.
    #[arg(long)]
    store: PathBuf,
    /// The queue's database.
    #[arg(long)]
    queue: PathBuf,
    /// Folder for data sets by digest; may be deleted at any time.
    #[arg(long)]
    cache: PathBuf,
    /// Process whose end is the end of this one too.
    #[arg(long)]
    parent: Option<u32>,
}

/// Works until SIGTERM, Ctrl-C or the parent's end; the step under way is finished and its checkpoint kept.
///
/// # Errors
/// For services that cannot be opened, and outcomes that cannot be recorded.
pub fn consume(options: &ConsumeOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let store: Arc<dyn Store> = Arc::new(Directory::open(&options.store)?);
        let queue_file: Arc<dyn Queue> = Arc::new(Sqlite::open(&options.queue)?);
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let cache = Arc::new(Memory::new(CACHE_BYTES));
        let worker = Worker {
            name: format!("trainer/{}", std::process::id()),
            queue: queue_file,
            environment: Arc::new(Environment::new(store, cache, &options.cache, threads)),
            runner: Arc::new(jobs::run),
            permits: 1,
            alone: true,
        };
        let drain = CancellationToken::new();
        program::drain_on_signals(drain.clone())?;
        if let Some(parent) = options.parent {
            drain_with(parent, drain.clone());
        }
        worker.run(&queues(Kind::TrainRound), &drain).await.context("the trainer cannot go on")
    })
}

/// A process whose parent was killed is given another one.
fn drain_with(parent: u32, drain: CancellationToken) {
    tokio::spawn(async move {
        while std::os::unix::process::parent_id() == parent {
            tokio::time::sleep(LOOK).await;
        }
        drain.cancel();
    });
}
