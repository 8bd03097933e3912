//! A request without a last image: made as far as its streams are read.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, channel},
    },
    time::{Duration, Instant},
};

use hiresmed_protocol::Digest;
use hiresmed_tests::imitation::imitate_pixels;
use hiresmed_worker::jobs::Failure;
use serde_json::{Value, json};
use ureq::http::Method;

use crate::{
    harness::Site,
    process::{Coordinator, key, python, script},
};

/// Images that are made ahead of the slowest reader where nothing else is set.
const AHEAD: u64 = 64;

/// Bytes of an image: about half of a real one's.
const IMAGE_BYTES: usize = 256 << 10;

/// Images at most that the system's buffers hold between the coordinator and a reader that takes nothing: they grow to the system's greatest
/// sizes where a reader is slow.
fn buffered() -> u64 {
    let greatest = |buffer: &str| -> u64 {
        let sizes = std::fs::read_to_string(Path::new("/proc/sys/net/ipv4").join(buffer)).unwrap();
        sizes.split_whitespace().last().unwrap().parse().unwrap()
    };
    (greatest("tcp_rmem") + greatest("tcp_wmem")).div_ceil(IMAGE_BYTES as u64)
}

/// Images at most that the client holds back until more comes: it knows a sample's end by the next one's beginning.
const HELD: u64 = 3;

/// Images of a job: those of one background.
const CHUNK: u64 = 8;

/// A training loop in Python. Killed when dropped.
struct Loop {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Loop {
    /// Reads a request's stream from image `from` on, and takes nothing more after `pause` images.
    fn start(coordinator: &Coordinator, key: &str, path: &str, from: u64, pause: u64) -> Self {
        let url = format!("{}{path}/stream?from={from}", coordinator.url);
        let mut command = Command::new(python());
        command.arg(script("read_unbounded.py")).args([&url, key, &pause.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let input = child.stdin.take();
        Self { child, input, lines }
    }

    /// The next `count` images: index and digest.
    fn take(&self, count: u64) -> Vec<(u64, String)> {
        let line = || self.lines.recv_timeout(Duration::from_secs(60)).expect("an image within a minute");
        let parse = |line: String| {
            let (index, digest) = line.split_once(' ').unwrap();
            (index.parse().unwrap(), digest.to_owned())
        };
        (0..count).map(|_| parse(line())).collect()
    }

    /// The images that come until none has come for two seconds, or the loop ends.
    fn rest(&self) -> Vec<u64> {
        let line = || self.lines.recv_timeout(Duration::from_secs(2)).ok();
        std::iter::from_fn(line).map(|line| line.split_once(' ').unwrap().0.parse().unwrap()).collect()
    }

    /// Goes on after its pause.
    fn go_on(&mut self) {
        writeln!(self.input.as_mut().unwrap()).unwrap();
    }

    /// Ends in its pause, or waits for its end; asserts that it is content.
    fn end(mut self) {
        drop(self.input.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn submit(coordinator: &Coordinator, key: &str, count: Value) -> String {
    for input in ["a slice", "another slice", "a third slice"] {
        let path = format!("/v1/inputs/mine/{}", Digest::of(input.as_bytes()));
        coordinator.call(key, Method::PUT, &path, &[("content-type", "application/dicom")], input.as_bytes());
    }
    let request = json!({ "version": 1, "kind": "synthesise", "count": count, "seed": 7, "inputs": "mine" });
    let submitted = coordinator.post(key, "/v1/requests", &[], request).expect(201);
    submitted["links"]["self"].as_str().unwrap().to_owned()
}

/// Images of the jobs that were started, when no job has been started for two seconds.
async fn started(site: &Site, path: &str) -> u64 {
    let prefix = format!("{}/jobs/", path.trim_start_matches("/v1/"));
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut before, mut since) = (u64::MAX, Instant::now());
    loop {
        let keys = site.store.list(&prefix).await.unwrap();
        let jobs: BTreeSet<_> = keys.iter().map(|key| key[prefix.len()..].split('/').next().unwrap()).collect();
        let now = jobs.len() as u64 * CHUNK;
        if now != before {
            (before, since) = (now, Instant::now());
        } else if since.elapsed() >= Duration::from_secs(2) {
            return now;
        }
        assert!(Instant::now() < deadline, "jobs are started without end");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unbounded_request_is_made_as_far_as_it_is_read() {
    let site = Site::open().await;
    let ours = key(site.path(), "charite", &["submit", "read"]);
    // Each dispatches: their caches are their own.
    let (first, second) = (Coordinator::start(site.path()), Coordinator::start(site.path()));
    let (drain, worker) = site.worker(1, |environment, context| imitate_pixels(environment, context, IMAGE_BYTES));

    let bounded = submit(&first, &ours, json!(40));
    let bounded = Loop::start(&first, &ours, &bounded, 0, 0).take(40);

    let path = submit(&first, &ours, json!("unbounded"));
    let status = first.get(&ours, &path).expect(200);
    assert_eq!((&status["status"]["state"], status["status"]["total"].is_null()), (&json!("open"), true));
    assert_eq!(status["request"]["count"], "unbounded");
    assert_eq!(started(&site, &path).await, 0, "nobody reads");

    // As in a training loop that reads 200 images and then computes.
    let reader = Loop::start(&first, &ours, &path, 0, 200);
    let read = reader.take(200);
    assert_eq!(read.iter().map(|(index, _)| *index).collect::<Vec<_>>(), (0..200).collect::<Vec<_>>());
    assert_eq!(read[..40], bounded, "image i is the same image in both requests");
    let made = started(&site, &path).await;
    assert!(made <= 200 + buffered() + AHEAD, "{made} images for a reader that has taken 200");
    reader.end();
    let readers = format!("{}/readers/", path.trim_start_matches("/v1/"));
    assert_eq!(started(&site, &path).await, made, "nobody reads any more");
    assert_eq!(site.store.list(&readers).await.unwrap(), Vec::<String>::new());
    assert_eq!(first.get(&ours, &path).expect(200)["status"]["done"], made);
    assert_eq!(first.get(&ours, "/v1/site").expect(200)["used"]["images_in_flight"], AHEAD);

    // The pages end where the images do.
    let page = first.get(&ours, &format!("{path}/results?limit=100&cursor={}", made - 10)).expect(200);
    assert_eq!((page["items"].as_array().unwrap().len(), &page["pending"]), (10, &json!(CHUNK)));
    assert!(page["next_cursor"].is_null());

    // One reader goes on where the first ended, at the other coordinator; another begins anew and takes only a little.
    let mut ahead = Loop::start(&second, &ours, &path, 200, 40);
    assert_eq!(ahead.take(40).last().unwrap().0, 239);
    let mut behind = Loop::start(&first, &ours, &path, 0, 10);
    assert_eq!(behind.take(10).last().unwrap().0, 9);
    let made = started(&site, &path).await;
    ahead.go_on();
    let read = ahead.rest();
    let last = read[read.len() - 1];
    assert_eq!(read, (240..=last).collect::<Vec<_>>());
    assert!((made - HELD..made).contains(&last), "{last} is the last of {made} images that are there");
    assert_eq!(started(&site, &path).await, made, "the slower reader holds the faster one up");
    behind.go_on();
    assert_eq!(behind.take(made).last().unwrap().0, made + 9);
    assert_eq!(ahead.take(CHUNK).last().unwrap().0, last + CHUNK);

    let cancelled = first.post(&ours, &format!("{path}/cancel"), &[], json!({})).expect(200);
    assert_eq!(cancelled["state"], "cancelled");
    for reader in [ahead, behind] {
        while !reader.rest().is_empty() {}
        reader.end();
    }
    let made = started(&site, &path).await;
    assert_eq!(first.get(&ours, "/v1/site").expect(200)["used"]["open_requests"], 0);
    let late = Loop::start(&second, &ours, &path, made - CHUNK, 0);
    assert!(late.rest().len() <= CHUNK as usize, "the stream of a cancelled request ends");
    late.end();
    assert_eq!(second.get(&ours, &format!("{path}/stream?from=1000000")).bytes, vec![0; 1024]);
    drain.cancel();
    worker.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_coordinator_goes_on_and_a_dead_reader_counts_no_more_after_a_while() {
    let site = Site::open().await;
    let ours = key(site.path(), "charite", &["submit", "read"]);
    let coordinator = Coordinator::start(site.path());
    let (drain, worker) = site.worker(1, |environment, context| imitate_pixels(environment, context, IMAGE_BYTES));
    let path = submit(&coordinator, &ours, json!("unbounded"));
    let reader = Loop::start(&coordinator, &ours, &path, 0, 30);
    reader.take(30);
    started(&site, &path).await;
    // Killed: the reader's record stays behind.
    drop(coordinator);
    let readers = format!("{}/readers/", path.trim_start_matches("/v1/"));
    assert_eq!(site.store.list(&readers).await.unwrap().len(), 1);
    let coordinator = Coordinator::start(site.path());
    let resumed = Loop::start(&coordinator, &ours, &path, 30, 0);
    let beyond = buffered() + 2 * AHEAD;
    let read: Vec<u64> = resumed.take(beyond).into_iter().map(|(index, _)| index).collect();
    assert_eq!(read, (30..30 + beyond).collect::<Vec<_>>());
    assert_eq!(site.store.list(&readers).await.unwrap().len(), 1, "the dead reader's record is gone");
    drain.cancel();
    worker.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unbounded_request_that_only_fails_ends_and_a_retry_opens_it() {
    let site = Site::open().await;
    let (ours, operator) = (key(site.path(), "charite", &["submit", "read"]), key(site.path(), "fleet", &["operate"]));
    let coordinator = Coordinator::start(site.path());
    let bad = Arc::new(AtomicBool::new(true));
    let fails = bad.clone();
    let (drain, worker) = site.worker(1, move |environment, context| {
        if fails.load(Ordering::Relaxed) {
            return Err(Failure::Permanent { stage: None, reason: "bad package".to_owned() });
        }
        imitate_pixels(environment, context, 1000)
    });
    let path = submit(&coordinator, &ours, json!("unbounded"));
    let reader = Loop::start(&coordinator, &ours, &path, 0, 0);
    while coordinator.get(&ours, &path).expect(200)["status"]["state"] == "open" {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    reader.end();
    let status = coordinator.get(&ours, &path).expect(200)["status"].clone();
    let reason = status["reason"].as_str().unwrap();
    assert!(reason.contains("in a row") && reason.contains("bad package"), "{reason}");
    let tried = started(&site, &path).await;
    assert!(tried <= 3 * AHEAD, "{tried} images were tried");

    bad.store(false, Ordering::Relaxed);
    let retry = format!("/v1/dead-letters/{}-s00000/retry", status["id"].as_str().unwrap());
    coordinator.post(&operator, &retry, &[], json!({})).expect(204);
    let reader = Loop::start(&coordinator, &ours, &path, 0, 0);
    let read: Vec<u64> = reader.take(2 * CHUNK).into_iter().map(|(index, _)| index).collect();
    assert_eq!(read[..CHUNK as usize], (0..CHUNK).collect::<Vec<_>>());
    assert!(read[CHUNK as usize] >= CHUNK, "what failed is left out");
    drain.cancel();
    worker.await.unwrap().unwrap();
}
