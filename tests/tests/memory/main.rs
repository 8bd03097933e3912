//! A worker whose memory is short. A process of its own: a process has one ONNX Runtime, and that has one limit.

#![allow(clippy::unwrap_used, reason = "a test fails where an expectation does")]

use std::sync::Arc;

use hiresmed_coordinator::{Ledger, Planner};
use hiresmed_inference::{Provider, Runtime};
use hiresmed_protocol::{Job, SiteId, outcome::Success, parse};
use hiresmed_services::{
    cache::Memory,
    store::{Directory, Store},
};
use hiresmed_worker::{
    Environment,
    jobs::{self, Context, Failure, Stop},
    shipped,
};

/// Enough for the shipped networks on one image of 512 x 512, which take 90 to 105 MiB, and for little beside it.
const ENOUGH_FOR_ONE: usize = 115 << 20;

/// Runs a job on a worker with so many threads, and says how many images at a time were possible in the end.
async fn run(store: &Arc<dyn Store>, job: &Job, threads: usize) -> (Result<Success, Failure>, usize) {
    let scratch = tempfile::tempdir().unwrap();
    let environment = Environment::new(store.clone(), Arc::new(Memory::new(1 << 20)), scratch.path(), threads);
    let (events, _heard) = tokio::sync::mpsc::channel(64);
    let context = Context::new(job.clone(), Stop::default(), events);
    tokio::task::spawn_blocking(move || (jobs::run(&environment, &context), environment.room.of(usize::MAX)))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_do_not_fit_beside_each_other_are_made_one_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Directory::open(folder.path().join("store")).unwrap());
    shipped::register(&store, &SiteId::local()).await.unwrap();
    let planner = Planner::new(Ledger::new(store.clone()), SiteId::local());
    let submit = async |text: &str| {
        let request =
            parse::toml(&format!("version = 1\nkind = \"synthesise\"\nchunk = 6\ncount = 6\n{text}")).unwrap();
        planner.submit(&request).await.unwrap().jobs.swap_remove(0)
    };
    Runtime::load_within(Provider::Cpu, Some(ENOUGH_FOR_ONE)).unwrap();

    let job = submit("").await;
    let (made, room) = run(&store, &job, 2).await;
    let made = made.unwrap();
    assert_eq!((made.images.len(), made.failures.len()), (6, 0));
    assert_eq!(room, 2, "short with two, it went well with one, and two will be tried again");
    let (one_by_one, _) = run(&store, &job, 1).await;
    assert_eq!(one_by_one.unwrap().images, made.images, "the bytes do not depend on it");

    // Nobody's fault but the machine's: another worker may have the memory.
    let (result, _) = run(&store, &submit("size = { width = 2048, height = 2048 }").await, 2).await;
    let failure = result.unwrap_err();
    assert!(matches!(&failure, Failure::Memory { .. }), "{failure:?}");
    println!("{failure}");
}
