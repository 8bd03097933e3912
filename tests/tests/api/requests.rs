//! A request's way, from its submission to its images.

use std::{
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use hiresmed_protocol::Digest;
use hiresmed_worker::jobs::Failure;
use serde_json::{Value, json};
use ureq::http::Method;

use crate::{
    harness::{Site, imitate},
    process::{Coordinator, key, python, say, script},
};

const ALL: &[&str] = &["submit", "read"];

/// Uploads a source image and submits a request for `count` images made from it; gives the request's path.
fn submit(coordinator: &Coordinator, key: &str, count: u64) -> String {
    let input = b"a slice";
    let path = format!("/v1/inputs/mine/{}", Digest::of(input));
    coordinator.call(key, Method::PUT, &path, &[("content-type", "application/dicom")], input);
    let request = json!({ "version": 1, "kind": "synthesise", "count": count, "chunk": 2, "inputs": "mine",
        "output": { "seg": true, "sr": true } });
    let submitted = coordinator.post(key, "/v1/requests", &[], request).expect(201);
    submitted["links"]["self"].as_str().unwrap().to_owned()
}

/// Events as (name, data), to the end of the stream.
fn events(lines: impl Iterator<Item = String>) -> Vec<(String, Value)> {
    let (mut events, mut name) = (Vec::new(), String::new());
    for line in lines {
        if let Some(text) = line.strip_prefix("event: ") {
            name = text.to_owned();
        } else if let Some(text) = line.strip_prefix("data: ") {
            events.push((name.clone(), serde_json::from_str(text).unwrap()));
        }
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_from_submission_to_images() {
    let site = Site::open().await;
    let ours = key(site.path(), "charite", ALL);
    let coordinator = Coordinator::start(site.path());
    let path = submit(&coordinator, &ours, 6);
    let url = format!("{}{path}/stream", coordinator.url);
    // Both begin before any image is there.
    let mut reader = Command::new(python());
    reader.arg(script("read_stream.py")).args([&url, &ours]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let reader = reader.spawn().unwrap();
    let lines = coordinator.lines(&ours, &format!("{path}/events"));
    let (events, reader, worker) = (
        tokio::task::spawn_blocking(move || events(lines)),
        tokio::task::spawn_blocking(move || reader.wait_with_output()),
        site.worker(1, imitate),
    );
    let events = events.await.unwrap();
    let (first, last) = (&events[0], &events[events.len() - 2]);
    assert_eq!((first.0.as_str(), &first.1["state"]), ("status", &json!("open")));
    assert_eq!((last.0.as_str(), &last.1["state"]), ("status", &json!("complete")));
    assert_eq!(events.last().unwrap().0, "end");
    assert!(events.iter().any(|(name, _)| name == "completed"));

    let reader = reader.await.unwrap().unwrap();
    assert!(reader.status.success(), "{}", String::from_utf8_lossy(&reader.stderr));
    let id = path.rsplit('/').next().unwrap();
    let samples: Vec<Value> =
        String::from_utf8(reader.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(samples.len(), 6);
    for (index, sample) in samples.iter().enumerate() {
        assert_eq!(sample["key"], format!("{id}/image-{index:05}"));
        assert_eq!(sample["image.dcm"], format!("image {index}"));
        assert_eq!(sample["mask.png"], format!("mask {index}"));
        assert_eq!(
            (&sample["seg.dcm"], &sample["sr.dcm"]),
            (&json!(format!("seg {index}")), &json!(format!("sr {index}")))
        );
        assert_eq!(sample["boxes.json"], "[]");
        let entry: Value = serde_json::from_str(sample["entry.json"].as_str().unwrap()).unwrap();
        assert_eq!(entry["index"], index);
    }

    let status = coordinator.get(&ours, &path).expect(200);
    assert_eq!((&status["status"]["state"], &status["status"]["done"]), (&json!("complete"), &json!(6)));
    let page = coordinator.get(&ours, &format!("{path}/results?limit=4")).expect(200);
    assert_eq!(page["items"].as_array().unwrap().len(), 4);
    let page =
        coordinator.get(&ours, &format!("{path}/results?limit=4&cursor={}", page["next_cursor"].as_str().unwrap()));
    let page = page.expect(200);
    assert_eq!((page["items"].as_array().unwrap().len(), page["next_cursor"].is_null()), (2, true));
    for link in page["items"][1]["files"].as_array().unwrap() {
        let file = coordinator.get(&ours, link["url"].as_str().unwrap());
        assert_eq!(file.status, 200);
        assert_eq!(Digest::of(&file.bytes).to_string(), link["sha256"].as_str().unwrap());
        assert_eq!(file.head.headers()["etag"], format!("\"{}\"", link["sha256"].as_str().unwrap()));
    }
    // Resumed, the stream is the rest of the whole one.
    let whole = coordinator.get(&ours, &format!("{path}/stream")).bytes;
    let rest = coordinator.get(&ours, &format!("{path}/stream?from=4")).bytes;
    assert!(whole.ends_with(&rest) && rest.len() < whole.len() / 2);
    let past = coordinator.get(&ours, &format!("{path}/stream?from=99")).bytes;
    assert_eq!(past, vec![0; 1024]);

    assert_eq!(coordinator.post(&ours, &format!("{path}/cancel"), &[], json!({})).status, 409);
    let (drain, worker) = worker;
    drain.cancel();
    worker.await.unwrap().unwrap();
    assert_eq!(coordinator.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn sites_do_not_see_each_other_and_revoked_keys_are_refused() {
    let site = Site::open().await;
    let (ours, theirs) = (key(site.path(), "charite", ALL), key(site.path(), "leiden", ALL));
    let coordinator = Coordinator::start(site.path());
    let path = submit(&coordinator, &ours, 2);
    for part in ["", "/results", "/stream", "/events"] {
        let answer = coordinator.get(&theirs, &format!("{path}{part}"));
        assert_eq!(answer.status, 404, "{part}");
        assert!(!String::from_utf8_lossy(&answer.bytes).contains("charite"));
    }
    assert_eq!(coordinator.get(&theirs, "/v1/requests").expect(200)["items"], json!([]));
    let elsewhere = json!({ "version": 1, "kind": "synthesise", "count": 1, "inputs": "sites/charite/inputs/mine" });
    coordinator.post(&theirs, "/v1/requests", &[], elsewhere).expect(422);
    let (code, said) = say(site.path(), &["site", "revoke-key", "charite", ours.split('_').nth(1).unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(coordinator.get(&ours, &path).status, 401);
    let (code, said) = say(site.path(), &["site", "create-key", "nobody", "--role", "read"]);
    assert!(code == Some(1) && said.contains("site create nobody"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_request_ends_its_streams_and_stays_cancelled() {
    let site = Site::open().await;
    let ours = key(site.path(), "charite", ALL);
    let coordinator = Coordinator::start(site.path());
    let path = submit(&coordinator, &ours, 4);
    let lines = coordinator.lines(&ours, &format!("{path}/events"));
    let following = tokio::task::spawn_blocking(move || events(lines));
    let cancelled = coordinator.post(&ours, &format!("{path}/cancel"), &[], json!({})).expect(200);
    assert_eq!(cancelled["state"], "cancelled");
    coordinator.post(&ours, &format!("{path}/cancel"), &[], json!({})).expect(200);
    let events = following.await.unwrap();
    assert_eq!(events[events.len() - 2].1["state"], "cancelled");
    assert_eq!(coordinator.get(&ours, &format!("{path}/stream")).bytes, vec![0; 1024]);
    assert_eq!(coordinator.get(&ours, "/v1/site").expect(200)["used"]["open_requests"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_coordinator_goes_on_with_what_is_open() {
    let site = Site::open().await;
    let ours = key(site.path(), "charite", ALL);
    let coordinator = Coordinator::start(site.path());
    let path = submit(&coordinator, &ours, 6);
    drop(coordinator);
    let coordinator = Coordinator::start(site.path());
    let (drain, worker) = site.worker(1, imitate);
    let lines = coordinator.lines(&ours, &format!("{path}/events"));
    let events = tokio::task::spawn_blocking(move || events(lines)).await.unwrap();
    assert_eq!(events[events.len() - 2].1["state"], "complete");
    drain.cancel();
    worker.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn termination_ends_open_streams() {
    let site = Site::open().await;
    let ours = key(site.path(), "charite", ALL);
    let coordinator = Coordinator::start(site.path());
    let path = submit(&coordinator, &ours, 2);
    let mut lines = coordinator.lines(&ours, &format!("{path}/events"));
    assert_eq!(lines.next().unwrap(), "event: status");
    let begun = std::time::Instant::now();
    assert_eq!(coordinator.terminate(), Some(0));
    assert!(begun.elapsed().as_secs() < 10);
    assert!(lines.all(|line| !line.contains("event: end")), "the request has not ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_dead_letter_is_made_after_its_request_had_ended() {
    let site = Site::open().await;
    let (ours, operator) = (key(site.path(), "charite", ALL), key(site.path(), "fleet", &["operate"]));
    let coordinator = Coordinator::start(site.path());
    let path = submit(&coordinator, &ours, 4);
    let bad = Arc::new(AtomicBool::new(true));
    let fails = bad.clone();
    let (drain, worker) = site.worker(1, move |environment, context| {
        if fails.load(Ordering::Relaxed) {
            return Err(Failure::Permanent { stage: None, reason: "bad package".to_owned() });
        }
        imitate(environment, context)
    });
    let follow = async || {
        let lines = coordinator.lines(&ours, &format!("{path}/events"));
        let events = tokio::task::spawn_blocking(move || events(lines)).await.unwrap();
        events[events.len() - 2].1["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(follow().await, "failures");
    bad.store(false, Ordering::Relaxed);
    let letters = coordinator.get(&operator, "/v1/dead-letters").expect(200);
    let letters = letters["items"].as_array().unwrap();
    assert_eq!((letters.len(), &letters[0]["reason"]), (2, &json!("bad package")));
    for letter in letters {
        let retry = format!("/v1/dead-letters/{}/retry", letter["job"].as_str().unwrap());
        coordinator.post(&operator, &retry, &[], json!({})).expect(204);
    }
    assert_eq!(follow().await, "complete");
    drain.cancel();
    worker.await.unwrap().unwrap();
}
