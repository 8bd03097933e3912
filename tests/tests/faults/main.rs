//! A fleet of processes under faults, on real servers. After each: every request ends, the images equal the plan, each exactly once,
//! each with the bytes of an undisturbed run; the time lost is printed (`--nocapture`).

#![allow(clippy::unwrap_used, reason = "a test fails where an expectation does")]

mod training;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hiresmed_protocol::{Digest, Job, Plan, RequestId, Verdict};
use hiresmed_services::{Settings, queue::Message};
use hiresmed_tests::{
    fleet::{Conditions, Fleet},
    proxy::{Fault, Proxy},
    servers::{Process, Rabbitmq, Redis, Seaweed, fresh},
};
use rustix::process::{Pid, Signal, kill_process};

const IMAGES: u64 = 48;
/// Milliseconds that an image takes.
const IMAGE_MS: u64 = 60;
const REQUEST: &str = "count = 48\nchunk = 2\nclass = \"batch\"";
/// What an undisturbed run takes: two workers, one job at a time each.
const UNDISTURBED: Duration = Duration::from_millis(IMAGES * IMAGE_MS / 2);
/// A run that takes longer has hung.
const MOST: Duration = Duration::from_secs(150);

async fn open(settings: Settings) -> Fleet {
    Fleet::open(settings, env!("CARGO_BIN_EXE_fleet-part"), &["north", "south"]).await
}

fn expected() -> BTreeMap<u64, Digest> {
    (0..IMAGES).map(|index| (index, Digest::of(format!("image {index}").as_bytes()))).collect()
}

/// A coordinator and two workers.
fn parts(fleet: &Fleet) -> [Process; 3] {
    [
        fleet.start("coordinator", "coordinator", 0),
        fleet.start("first", "worker", IMAGE_MS),
        fleet.start("second", "worker", IMAGE_MS),
    ]
}

/// Waits until some of a request's images are made, so that a fault strikes in its middle.
async fn under_way(fleet: &Fleet, plan: &Plan) {
    let deadline = Instant::now() + MOST;
    while fleet.ledger.outcomes(&plan.request).await.map_or(0, |outcomes| outcomes.len()) < 3 {
        assert!(Instant::now() < deadline, "no image was made");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits for the end and holds the images against the plan.
async fn complete(fleet: &Fleet, id: &RequestId, fault: &str) {
    let started = Instant::now();
    let images = fleet.finish(id, MOST).await;
    assert_eq!(images, expected(), "{fault}");
    let lost = started.elapsed().saturating_sub(UNDISTURBED);
    println!("{fault}: about {:.1} s lost", lost.as_secs_f64());
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_killed_again_and_again() {
    let fleet = open(fresh()).await;
    let [coordinator, first, second] = parts(&fleet);
    let plan = fleet.submit("north", REQUEST).await;
    under_way(&fleet, &plan).await;
    let mut workers = [("first", first), ("second", second)];
    for round in 0..4 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let (name, worker) = &mut workers[round % 2];
        worker.kill();
        *worker = fleet.start(name, "worker", IMAGE_MS);
    }
    complete(&fleet, &plan.request, "workers killed four times").await;
    drop(coordinator);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_coordinator_is_killed() {
    let fleet = open(fresh()).await;
    let [mut coordinator, _first, _second] = parts(&fleet);
    let other = fleet.start("other", "coordinator", 0);
    let plan = fleet.submit("north", REQUEST).await;
    under_way(&fleet, &plan).await;
    coordinator.kill();
    drop(other);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _successor = fleet.start("coordinator", "coordinator", 0);
    complete(&fleet, &plan.request, "both coordinators killed, one started").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_is_killed_and_then_loses_everything() {
    let broker = Rabbitmq::start();
    broker.make_virtual_host("faults");
    let settings =
        Settings { queue: broker.settings("faults"), store: Seaweed::shared().fresh(), cache: Redis::shared().fresh() };
    let fleet = open(settings).await;
    let _parts = parts(&fleet);
    let plan = fleet.submit("north", REQUEST).await;
    under_way(&fleet, &plan).await;
    broker.kill();
    broker.restart();
    complete(&fleet, &plan.request, "RabbitMQ killed and restarted").await;
    let plan = fleet.submit("south", REQUEST).await;
    under_way(&fleet, &plan).await;
    broker.kill();
    broker.delete_data();
    broker.restart();
    broker.make_virtual_host("faults");
    complete(&fleet, &plan.request, "RabbitMQ lost its data").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_is_flushed_and_stopped() {
    let redis = Redis::start();
    let settings =
        Settings { queue: Rabbitmq::shared().fresh(), store: Seaweed::shared().fresh(), cache: redis.settings(0) };
    let fleet = open(settings).await;
    let _parts = parts(&fleet);
    let plan = fleet.submit("north", REQUEST).await;
    under_way(&fleet, &plan).await;
    redis.flush();
    redis.kill();
    complete(&fleet, &plan.request, "Redis flushed and stopped").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_refuses_is_slow_fails_and_is_cut_off() {
    let seaweed = Seaweed::shared();
    let proxy = Proxy::start(seaweed.address().trim_start_matches("http://"));
    let mut settings = fresh();
    let direct = open(settings.clone()).await;
    settings.store.url = Some(format!("http://{}", proxy.address()));
    let fleet = Fleet::open(settings, env!("CARGO_BIN_EXE_fleet-part"), &[]).await;
    let _parts = parts(&fleet);
    let failure = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
    // For longer than the client's own attempts go on, where it tries at all.
    let faults = [
        ("refusing", 10, Fault::Refuse),
        ("slow by 300 ms a piece", 4, Fault::Latency(Duration::from_millis(300))),
        ("answering 503", 10, Fault::Answer(failure)),
        ("cut off after 300 bytes", 4, Fault::CutAfter(300)),
    ];
    for (number, (name, seconds, fault)) in faults.into_iter().enumerate() {
        let plan = direct.submit("north", &format!("{REQUEST}\nseed = {number}")).await;
        under_way(&direct, &plan).await;
        proxy.set(fault);
        proxy.cut();
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        proxy.set(Fault::Pass);
        complete(&direct, &plan.request, &format!("store {name} for {seconds} s")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workers_disk_is_full() {
    let fleet = open(fresh()).await;
    let _coordinator = fleet.start("coordinator", "coordinator", 0);
    let _healthy = fleet.start("healthy", "worker", IMAGE_MS);
    let _full =
        fleet.start_under(&Conditions { small_disk: true, ..Conditions::default() }, "full", "worker", IMAGE_MS);
    let plan = fleet.submit("north", REQUEST).await;
    complete(&fleet, &plan.request, "one of two workers with a full disk").await;
    let log = std::fs::read_to_string(fleet.log("full")).unwrap_or_default();
    let attempts = fleet.attempts(&plan.request).await;
    let failed = attempts.iter().filter(|attempt| {
        matches!(&attempt.ended, Some(outcome) if matches!(&outcome.verdict, Verdict::Transient(failure)
            if failure.reason.contains("No space left on device")))
    });
    assert!(failed.count() > 0, "its disk was not full: {attempts:?}\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_differ_by_an_hour() {
    let fleet = open(fresh()).await;
    let by = |skew| Conditions { skew: Some(skew), ..Conditions::default() };
    let _coordinator = fleet.start_under(&by("-3600"), "coordinator", "coordinator", 0);
    let mut workers = [("+3600", "early"), ("-3600", "late")]
        .map(|(skew, name)| fleet.start_under(&by(skew), name, "worker", IMAGE_MS));
    let plan = fleet.submit("north", REQUEST).await;
    under_way(&fleet, &plan).await;
    // A death is judged by the times in the records as well.
    workers[0].kill();
    workers[0] = fleet.start_under(&by("+3600"), "early", "worker", IMAGE_MS);
    complete(&fleet, &plan.request, "clocks an hour early and an hour late, one worker killed").await;
    let attempts = fleet.attempts(&plan.request).await;
    let hours: std::collections::BTreeSet<_> =
        attempts.iter().map(|attempt| attempt.started_at[..13].to_owned()).collect();
    assert!(hours.len() > 1, "no clock was wrong: {hours:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_job_is_delivered_twice() {
    let fleet = open(fresh()).await;
    let _parts = parts(&fleet);
    let plan = fleet.submit("north", REQUEST).await;
    under_way(&fleet, &plan).await;
    for job in &plan.jobs {
        let message = Message::new(job.id.as_str(), serde_json::to_vec::<Job>(job).unwrap());
        fleet.services.queue.publish(&job.queue(), message).await.unwrap();
    }
    complete(&fleet, &plan.request, "every job published twice").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kills_its_workers_is_given_up_and_no_other_with_it() {
    for name in ["poison", "hungry"] {
        let fleet = open(fresh()).await;
        let coordinator = fleet.start("coordinator", "coordinator", 0);
        let innocent = fleet.submit("north", REQUEST).await;
        let guilty =
            fleet.submit("south", &format!("name = \"{name}\"\ncount = 4\nchunk = 1\nclass = \"batch\"")).await;
        // As an orchestrator does: a worker that died is started again.
        let mut workers = BTreeMap::new();
        let small = Conditions { memory_kib: Some(2 << 20), ..Conditions::default() };
        let started = Instant::now();
        let over = |status: hiresmed_coordinator::status::Status| status.is_over();
        loop {
            for worker in ["first", "second"] {
                let gone = workers.get_mut(worker).is_none_or(Process::ended);
                if gone {
                    workers.insert(worker, fleet.start_under(&small, worker, "worker", IMAGE_MS / 3));
                }
            }
            let mut all = true;
            for id in [&innocent.request, &guilty.request] {
                all &= hiresmed_coordinator::status::of(&fleet.ledger, id).await.is_ok_and(over);
            }
            if all {
                break;
            }
            assert!(started.elapsed() < MOST, "{name}: the requests do not end");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(fleet.images(&innocent.request).await, expected(), "{name}");
        assert_eq!(fleet.images(&guilty.request).await.into_keys().collect::<Vec<_>>(), [1, 2, 3], "{name}");
        let outcomes = fleet.ledger.outcomes(&guilty.request).await.unwrap();
        let failed: Vec<_> =
            outcomes.values().filter(|outcome| matches!(outcome.verdict, Verdict::Failed(_))).collect();
        let [outcome] = failed[..] else { panic!("{name}: {failed:?}") };
        let Verdict::Failed(failure) = &outcome.verdict else { unreachable!() };
        assert!(failure.reason.contains("3 workers died while they ran this job"), "{}", failure.reason);
        println!("{name}: given up after {:.1} s: {}", started.elapsed().as_secs_f64(), failure.reason);
        drop(coordinator);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_drain_when_they_are_asked_to_stop() {
    let fleet = open(fresh()).await;
    let [_coordinator, first, second] = parts(&fleet);
    let plan = fleet.submit("north", REQUEST).await;
    under_way(&fleet, &plan).await;
    let mut workers = [("first", first), ("second", second)];
    for round in 0..6 {
        // At different moments of a job.
        tokio::time::sleep(Duration::from_millis(37 + 61 * round)).await;
        let (name, worker) = &mut workers[(round % 2) as usize];
        let asked = Instant::now();
        kill_process(Pid::from_raw(worker.id() as i32).unwrap(), Signal::TERM).unwrap();
        while !worker.ended() {
            assert!(asked.elapsed() < Duration::from_secs(20), "{name} does not drain");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        println!("{name} drained in {:.2} s", asked.elapsed().as_secs_f64());
        *worker = fleet.start(name, "worker", IMAGE_MS);
    }
    complete(&fleet, &plan.request, "workers asked to stop six times").await;
    let letters = fleet.services.queue.dead_letters(10).await.unwrap();
    assert!(letters.is_empty(), "draining made dead letters: {letters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_request_stops_within_a_second() {
    let fleet = open(fresh()).await;
    let [_coordinator, first, second] = parts(&fleet);
    let plan = fleet.submit("north", &REQUEST.replace("chunk = 2", "chunk = 24")).await;
    let deadline = Instant::now() + MOST;
    while fleet.store().list(&format!("requests/{}/jobs/", plan.request)).await.unwrap().is_empty() {
        assert!(Instant::now() < deadline, "no job was started");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let options = hiresmed_coordinator::dispatcher::Options::default();
    let (queue, site) = (fleet.services.queue.clone(), "north".parse().unwrap());
    let dispatcher = hiresmed_coordinator::Dispatcher::new(fleet.ledger.clone(), queue, site, options);
    let asked = Instant::now();
    dispatcher.cancel(&plan.request, "a test").await.unwrap();
    for job in &plan.jobs {
        loop {
            let attempts = fleet.ledger.attempts(&plan.request, &job.id).await.unwrap();
            if attempts.iter().all(|attempt| attempt.ended.is_some()) {
                break;
            }
            assert!(asked.elapsed() < Duration::from_secs(5), "{attempts:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    println!("cancelled in {:.2} s", asked.elapsed().as_secs_f64());
    drop((first, second));
}

#[test]
fn a_short_soak_loses_nothing_and_repeats_nothing() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_soak")).arg("400").output().unwrap();
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{error}");
    let figures: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((figures["jobs"].as_u64(), figures["lost"].as_u64()), (Some(400), Some(0)), "{figures}");
    assert_eq!(figures["visible_twice"].as_u64(), Some(0), "{figures}");
    assert!(figures["faults"].as_u64().unwrap() > 0, "nothing was disturbed: {figures}");
}
