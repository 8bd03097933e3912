//! Coordinator and worker together, in one process, with a stand-in for the work.

#![allow(clippy::unwrap_used, reason = "a test fails where an expectation does")]

mod harness;
mod traces;

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use harness::{Site, imitate};
use hiresmed_coordinator::{Ending, status};
use hiresmed_protocol::{
    Attempt, Event, Happening, Job, Outcome, VERSION, Verdict, Work,
    job::Object,
    keys,
    outcome::{RoundResult, Success},
};
use hiresmed_services::queue::{Declaration, Queue, Sqlite};
use hiresmed_worker::{
    Environment,
    jobs::{Context, Failure},
};
use tokio_util::sync::CancellationToken;

const TEN: &str = "kind = \"synthesise\"\ncount = 10\nchunk = 2";

#[tokio::test(flavor = "multi_thread")]
async fn every_image_of_a_request_is_made_once() {
    let site = Site::open().await;
    let plan = site.submit(TEN).await;
    assert_eq!(site.submit(TEN).await, plan, "the same request is the same plan");
    let ending = site.complete(&plan.request, imitate).await;
    assert_eq!(ending, Ending::Completed { images: 10, failures: 0 });
    assert_eq!(site.images(&plan.request).await, (0..10).collect::<Vec<_>>());
    let status = status::of(&site.ledger, &plan.request).await.unwrap();
    assert_eq!((status.word(), status.done), ("complete", 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_for_a_while_is_tried_again() {
    let site = Site::open().await;
    let plan = site.submit(TEN).await;
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let ending = site
        .complete(&plan.request, move |environment, context| {
            counted.fetch_add(1, Ordering::Relaxed);
            if context.job().attempt < 2 {
                return Err(Failure::Transient { stage: None, reason: "the store is away".to_owned() });
            }
            imitate(environment, context)
        })
        .await;
    assert_eq!(ending, Ending::Completed { images: 10, failures: 0 });
    assert_eq!(runs.load(Ordering::Relaxed), 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_for_too_long_is_a_dead_letter_until_it_is_retried() {
    let site = Site::open().await;
    let plan = site.submit(TEN).await;
    let away = |_: &Environment, _: &Context| Err(Failure::Transient { stage: None, reason: "away".to_owned() });
    assert_eq!(site.complete(&plan.request, away).await, Ending::Completed { images: 0, failures: 10 });
    let letters = status::dead_letters(&site.ledger, &plan.request).await.unwrap();
    assert_eq!(letters.len(), 5);
    assert_eq!(letters[0].reason, "failed 3 times, the last time: away");
    assert_eq!(letters[0].starts, 3);
    for letter in &letters {
        site.ledger.reopen(&plan.request, &letter.job).await.unwrap();
    }
    assert_eq!(site.complete(&plan.request, imitate).await, Ending::Completed { images: 10, failures: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_fails_its_job_and_no_other() {
    let site = Site::open().await;
    let plan = site.submit(TEN).await;
    let bad = plan.jobs[2].id.clone();
    let ending = site
        .complete(&plan.request, move |environment, context| {
            assert!(context.job().id != bad, "a fault in job 2");
            imitate(environment, context)
        })
        .await;
    assert_eq!(ending, Ending::Completed { images: 8, failures: 2 });
    assert_eq!(site.images(&plan.request).await, [0, 1, 2, 3, 6, 7, 8, 9]);
    let letters = status::dead_letters(&site.ledger, &plan.request).await.unwrap();
    assert!(letters[0].reason.contains("a fault in job 2"), "{}", letters[0].reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_may_stop_at_the_first_failure() {
    let site = Site::open().await;
    let plan = site.submit(&format!("{TEN}\non_failure = \"stop\"")).await;
    let bad =
        |_: &Environment, _: &Context| Err(Failure::Permanent { stage: None, reason: "bad.dcm is cut".to_owned() });
    let Ending::Aborted { reason } = site.complete(&plan.request, bad).await else { panic!() };
    assert!(reason.contains("bad.dcm is cut"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_request_stops_between_images() {
    let site = Site::open().await;
    let plan = site.submit(TEN).await;
    let dispatcher = site.dispatcher(&site.queue);
    dispatcher.declare().await.unwrap();
    let mut events = site.queue.subscribe(&Event::topics_of(&plan.request)).await.unwrap();
    let (drain, worker) = site.worker(1, |_, context| {
        context.report(Happening::ImageDone { index: hiresmed_protocol::ImageIndex(0) });
        while !context.stopped() {
            std::thread::yield_now();
        }
        Err(context.check().unwrap_err())
    });
    let id = plan.request.clone();
    let canceller = site.dispatcher(&site.queue);
    let cancel = tokio::spawn(async move {
        loop {
            let notice = events.next().await.unwrap();
            if notice.topic.ends_with("image_done") {
                return canceller.cancel(&id, "enough").await.unwrap();
            }
        }
    });
    let ending = dispatcher.run(&plan.request, &CancellationToken::new()).await.unwrap();
    assert_eq!(ending, Ending::Cancelled { reason: "enough".to_owned() });
    cancel.await.unwrap();
    // The job sees the request's end, not the worker's.
    let record = loop {
        let attempts = site.ledger.attempts(&plan.request, &plan.jobs[0].id).await.unwrap();
        if let Some(Attempt { ended: Some(outcome), .. }) = attempts.into_iter().next() {
            break outcome;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(record.verdict, Verdict::Cancelled);
    drain.cancel();
    worker.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_worker_hands_its_job_to_the_next() {
    let site = Site::open().await;
    let plan = site.submit(TEN).await;
    let dispatcher = site.dispatcher(&site.queue);
    dispatcher.declare().await.unwrap();
    let (started, mut starts) = tokio::sync::mpsc::unbounded_channel();
    let (drain, first) = site.worker(1, move |_, context| {
        started.send(()).unwrap();
        while !context.stopped() {
            std::thread::yield_now();
        }
        Err(context.check().unwrap_err())
    });
    let id = plan.request.clone();
    let run = tokio::spawn(async move { dispatcher.run(&id, &CancellationToken::new()).await.unwrap() });
    starts.recv().await.unwrap();
    drain.cancel();
    first.await.unwrap().unwrap();
    let (drain, second) = site.worker(2, imitate);
    assert_eq!(run.await.unwrap(), Ending::Completed { images: 10, failures: 0 });
    drain.cancel();
    second.await.unwrap().unwrap();
    let attempts = site.ledger.attempts(&plan.request, &plan.jobs[0].id).await.unwrap();
    assert!(matches!(&attempts[0].ended, Some(Outcome { verdict: Verdict::Interrupted, .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_broker_is_refilled_from_the_store() {
    let site = Site::open().await;
    let plan = site.submit(TEN).await;
    let first = site.dispatcher(&site.queue);
    first.declare().await.unwrap();
    let (drain, worker) = site.worker(1, imitate);
    let mut events = site.queue.subscribe(&Event::topics_of(&plan.request)).await.unwrap();
    let stop = CancellationToken::new();
    let stopper = stop.clone();
    tokio::spawn(async move {
        while !events.next().await.unwrap().topic.ends_with("ended") {}
        stopper.cancel();
    });
    assert_eq!(first.run(&plan.request, &stop).await.unwrap(), Ending::Stopped);
    drain.cancel();
    worker.await.unwrap().unwrap();
    let other: Arc<dyn Queue> = Arc::new(Sqlite::open(site.path().join("another.sqlite")).unwrap());
    let site = Site { queue: other, ..site };
    assert_eq!(site.complete(&plan.request, imitate).await, Ending::Completed { images: 10, failures: 0 });
    assert_eq!(site.images(&plan.request).await, (0..10).collect::<Vec<_>>());
}

/// Lets a job's message die in the queue as if `deaths` workers had died with it.
async fn die(site: &Site, job: &Job, deaths: u32) {
    let mut consumer = site.queue.consume(&job.queue(), 1).await.unwrap();
    // As often as the queue's limit allows: the last return makes it a dead letter there.
    for death in 0..=Declaration::new("").delivery_limit {
        let delivery = consumer.next().await.unwrap();
        if death < deaths {
            let attempt = Attempt {
                version: VERSION,
                attempt: job.attempt,
                worker: format!("host/{death}"),
                started_at: "2026-01-01T00:00:00Z".to_owned(),
                ended: None,
            };
            let key = keys::attempt(&job.request, &job.id, job.attempt, &death.to_string());
            site.store.put(&key, serde_json::to_vec(&attempt).unwrap().into()).await.unwrap();
        }
        delivery.requeue().await.unwrap();
    }
    consumer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kills_its_workers_is_a_dead_letter_and_one_that_waited_is_not() {
    for (deaths, images) in [(3, 0), (2, 1)] {
        let site = Site::open().await;
        let plan = site.submit("kind = \"synthesise\"\ncount = 1").await;
        let dispatcher = site.dispatcher(&site.queue);
        dispatcher.declare().await.unwrap();
        let id = plan.request.clone();
        let run = tokio::spawn(async move { dispatcher.run(&id, &CancellationToken::new()).await.unwrap() });
        die(&site, &plan.jobs[0], deaths).await;
        let (drain, worker) = site.worker(1, imitate);
        assert_eq!(run.await.unwrap(), Ending::Completed { images, failures: 1 - images }, "{deaths} deaths");
        drain.cancel();
        worker.await.unwrap().unwrap();
        let letters = status::dead_letters(&site.ledger, &plan.request).await.unwrap();
        if deaths == 3 {
            assert!(letters[0].reason.starts_with("3 workers died while they ran this job (attempt 0 on host/0"));
        }
        assert!(site.queue.dead_letters(9).await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn training_rounds_follow_each_other_until_the_package_is_registered() {
    let site = Site::open().await;
    let request =
        "kind = \"train\"\nname = \"mine\"\nmodel = \"vqgan\"\npreset = \"tiny\"\ndata = [\"sample\"]\nsteps = 100";
    let plan = site.submit(request).await;
    let train = |environment: &Environment, context: &Context| {
        let Work::TrainRound(round) = &context.job().work else { panic!() };
        assert_eq!(round.parent.is_some(), round.round > 0);
        let step = round.first_step + round.steps;
        let output = context.output(environment, "checkpoint", format!("step {step}").into_bytes())?;
        let object = Object { key: keys::object(&context.job().site, &output.sha256), sha256: output.sha256 };
        // By its blocks a vqgan is one of two kinds, and the name is registered among its own.
        let key = format!("{}model.json", keys::model("vqgan-residual", &object.sha256));
        let package = (step == round.request.steps).then(|| Object { key, ..object.clone() });
        let round = RoundResult { checkpoint: object, step, step_ms: 10_000.0, losses: Default::default(), package };
        Ok(Success { outputs: vec![output], round: Some(round), ..Success::default() })
    };
    assert_eq!(site.complete(&plan.request, train).await, Ending::Completed { images: 0, failures: 0 });
    let outcomes = site.ledger.outcomes(&plan.request).await.unwrap();
    assert_eq!(outcomes.len(), 4, "20 steps, then 30 at a time until 100");
    let registered = site.store.get(&keys::alias("vqgan-residual", "mine")).await.unwrap();
    assert_eq!(registered.len(), 64);
    let status = status::of(&site.ledger, &plan.request).await.unwrap();
    assert_eq!((status.done, status.word()), (100, "complete"));
    site.store.put(&keys::alias("vqgan-residual", "mine"), "newer".into()).await.unwrap();
    site.complete(&plan.request, train).await;
    assert_eq!(site.store.get(&keys::alias("vqgan-residual", "mine")).await.unwrap(), "newer");
}
