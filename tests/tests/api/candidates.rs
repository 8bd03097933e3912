//! Candidates over HTTP, found by a worker that imitates the work.

use serde_json::json;

use crate::{
    harness::{Site, imitate},
    process::{Coordinator, key},
};

const ALL: &[&str] = &["submit", "read"];

#[tokio::test(flavor = "multi_thread")]
async fn candidates_are_answered_while_the_caller_waits() {
    let site = Site::open().await;
    let (ours, theirs) = (key(site.path(), "charite", ALL), key(site.path(), "leiden", ALL));
    for name in ["a.dcm", "empty.dcm"] {
        site.store.put(&format!("sites/charite/inputs/mine/{name}"), name.into()).await.unwrap();
    }
    let coordinator = Coordinator::start(site.path());
    let wanted = json!({ "version": 1, "input": "mine/a.dcm", "diameter_mm": 6, "count": 3,
        "size": { "width": 256, "height": 256 } });
    let ask = |key: &str, body: &serde_json::Value| coordinator.post(key, "/v1/candidates", &[], body.clone());

    // Nobody works yet: the answer says where to ask again, and is the same for the same question.
    let accepted = ask(&ours, &wanted);
    let place = accepted.head.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(accepted.expect(202)["state"], "open");
    assert_eq!(coordinator.get(&theirs, &place).status, 404);

    let (drain, worker) = site.worker(1, imitate);
    let found = loop {
        let answer = coordinator.get(&ours, &place);
        if answer.status != 202 {
            break answer.expect(200);
        }
    };
    assert_eq!(found["found"]["width"], 256);
    assert_eq!(found["found"]["candidates"].as_array().unwrap().len(), 3);
    assert_eq!(found["request"]["diameter_mm"], 6.0);
    assert_eq!(ask(&ours, &wanted).expect(200), found);

    // With a worker there, the first answer is the result; here it is that there is none.
    let empty = json!({ "version": 1, "input": "mine/empty.dcm" });
    let refused = ask(&ours, &empty).expect(422);
    assert!(refused["detail"].as_str().unwrap().contains("no body was found in the image"), "{refused}");
    let missing = ask(&theirs, &empty).expect(422);
    assert_eq!(missing["faults"][0]["path"], "input", "the other site's inputs are its own");

    // The positions can be pinned as they are.
    let first = &found["found"]["candidates"][0];
    let pinned = json!({ "version": 1, "kind": "synthesise", "count": 1, "inputs": "mine",
        "size": { "width": 256, "height": 256 }, "placement": { "positions": [[first["x"], first["y"]]] } });
    coordinator.post(&ours, "/v1/requests", &[], pinned).expect(201);
    drain.cancel();
    worker.await.unwrap().unwrap();
}
