//! The handlers on embedded services, called without a network.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode},
};
use hiresmed_protocol::{
    Digest, JobId, Outcome, VERSION, Verdict, Work, keys,
    outcome::{Failure, Success},
};
use hiresmed_services::{
    Services,
    cache::Memory,
    queue::{Queue, Sqlite},
    store::{Directory, Store},
};
use serde_json::{Value, json};
use tower::ServiceExt;

mod waiting;

use super::*;
use crate::{
    dispatcher,
    sites::{Quotas, Role, SiteSettings, key},
};

struct Fleet {
    api: Api,
    router: Router,
    _folder: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Fleet {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(Directory::open(folder.path().join("store")).unwrap());
        let queue: Arc<dyn Queue> = Arc::new(Sqlite::open(folder.path().join("queue.sqlite")).unwrap());
        for kind in ["vqgan", "singan", "unet", "density"] {
            let digest = Digest::of(kind.as_bytes());
            store.put(&format!("{}model.json", keys::model(kind, &digest)), "{}".into()).await.unwrap();
            store.put(&keys::alias(kind, "default"), digest.to_string().into()).await.unwrap();
        }
        let stop = CancellationToken::new();
        let services = Services { queue: queue.clone(), store: store.clone(), cache: Arc::new(Memory::new(1 << 20)) };
        let supervisor = Supervisor::new(&services, dispatcher::Options::default(), stop.clone());
        supervisor.start().await.unwrap();
        // Whoever waits for a worker waits half of this.
        let limits = Limits { upload_bytes: 1000, answer_s: 2, ..Limits::default() };
        let api = Api::new(store, queue, supervisor, Metrics::new().unwrap(), limits, stop);
        Self { router: router(&api), api, _folder: folder }
    }

    /// A key for a site that has one source image.
    async fn key(&self, site: &str, roles: &[Role]) -> String {
        let site: SiteId = site.parse().unwrap();
        self.api.ledger.store().put(&format!("{}sample/a.dcm", keys::inputs(&site)), "a".into()).await.unwrap();
        self.api.sites.put(&site, SiteSettings::default()).await.unwrap();
        let (record, secret) = self.api.sites.create_key(&site, roles.iter().copied().collect()).await.unwrap();
        key::text(&record.key, &secret)
    }

    async fn call(&self, key: &str, method: Method, path: &str, headers: &[(&str, &str)], body: Body) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {key}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if !parts.status.is_success() {
            assert_eq!(parts.headers["content-type"], problem::CONTENT_TYPE, "{path}: {}", parts.status);
            assert_eq!(body["status"], parts.status.as_u16());
        }
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, key: &str, path: &str) -> Answer {
        self.call(key, Method::GET, path, &[], Body::empty()).await
    }

    async fn post(&self, key: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        let headers = [headers, &[("content-type", "application/json")]].concat();
        self.call(key, Method::POST, path, &headers, Body::from(body.to_string())).await
    }

    async fn submit(&self, key: &str, seed: u64) -> Answer {
        self.post(key, "/v1/requests", &[], request(seed)).await
    }
}

fn request(seed: u64) -> Value {
    json!({ "version": 1, "kind": "synthesise", "count": 2, "seed": seed })
}

const ALL: &[Role] = &[Role::Submit, Role::Read];

#[tokio::test]
async fn a_key_is_needed_with_the_right_role() {
    let fleet = Fleet::open().await;
    for bad in ["", "x", "hmk_0000000000000000_00"] {
        let answer = fleet.get(bad, "/v1/requests").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    let reader = fleet.key("a", &[Role::Read]).await;
    assert_eq!(fleet.submit(&reader, 0).await.status, StatusCode::FORBIDDEN);
    assert_eq!(fleet.get(&reader, "/v1/sites").await.status, StatusCode::FORBIDDEN);
    assert_eq!(fleet.get(&reader, "/v1/requests").await.status, StatusCode::OK);
    let (id, _) = key::parse(&reader).unwrap();
    fleet.api.sites.revoke(&"a".parse().unwrap(), &id).await.unwrap();
    assert_eq!(fleet.get(&reader, "/v1/requests").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_same_submission_is_one_request() {
    let fleet = Fleet::open().await;
    let key = fleet.key("a", ALL).await;
    let first = fleet.submit(&key, 1).await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.body);
    let path = first.body["links"]["self"].as_str().unwrap();
    assert_eq!(first.headers["location"], path);
    let again = fleet.submit(&key, 1).await;
    assert_eq!((again.status, &again.body["id"]), (StatusCode::OK, &first.body["id"]));
    let named = [("idempotency-key", "mine")];
    let created = fleet.post(&key, "/v1/requests", &named, request(1)).await;
    assert_eq!(created.status, StatusCode::CREATED);
    assert_ne!(created.body["id"], first.body["id"]);
    assert_eq!(fleet.post(&key, "/v1/requests", &named, request(1)).await.status, StatusCode::OK);
    assert_eq!(fleet.post(&key, "/v1/requests", &named, request(2)).await.status, StatusCode::CONFLICT);
    let detail = fleet.get(&key, path).await;
    assert_eq!(detail.body["request"]["seed"], 1);
    assert_eq!(detail.body["status"]["state"], "open");
}

#[tokio::test]
async fn another_sites_request_does_not_exist() {
    let fleet = Fleet::open().await;
    let (ours, theirs) = (fleet.key("a", ALL).await, fleet.key("b", ALL).await);
    let path = fleet.submit(&ours, 1).await.body["links"]["self"].as_str().unwrap().to_owned();
    assert_ne!(fleet.submit(&theirs, 1).await.body["links"]["self"], path.as_str(), "ids depend on the site");
    for part in ["", "/results", "/events", "/stream", "/files/images%2Fimage-00000.dcm"] {
        let answer = fleet.get(&theirs, &format!("{path}{part}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{part}");
        assert!(!answer.body.to_string().contains("\"a\""));
    }
    assert_eq!(fleet.post(&theirs, &format!("{path}/cancel"), &[], json!({})).await.status, StatusCode::NOT_FOUND);
    assert_eq!(fleet.get(&theirs, "/v1/requests").await.body["items"].as_array().unwrap().len(), 1);
    assert_eq!(fleet.get(&ours, &format!("{path}/results")).await.body["pending"], 2);
}

#[tokio::test]
async fn every_fault_of_a_request_is_named() {
    let fleet = Fleet::open().await;
    let key = fleet.key("a", ALL).await;
    let bad = json!({ "version": 1, "kind": "synthesise", "count": 0, "colour": 1, "size": { "width": 3 } });
    let answer = fleet.post(&key, "/v1/requests", &[], bad).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let paths: Vec<_> = answer.body["faults"].as_array().unwrap().iter().map(|fault| fault["path"].clone()).collect();
    for path in ["count", "colour", "size.width"] {
        assert!(paths.contains(&path.into()), "{path} in {paths:?}");
    }
    let unknown =
        json!({ "version": 1, "kind": "synthesise", "count": 1, "inputs": "none", "models": { "unet": "x" } });
    let answer = fleet.post(&key, "/v1/requests", &[], unknown).await;
    assert_eq!(answer.body["faults"][0]["path"], "models.unet");
    let many = json!({ "version": 1, "kind": "synthesise", "count": 90_000, "chunk": 1 });
    let answer = fleet.post(&key, "/v1/requests", &[], many).await;
    assert_eq!(answer.body["faults"][0]["path"], "chunk", "{}", answer.body);
    let train = json!({ "version": 1, "kind": "train", "name": "default", "model": "unet", "preset": "tiny",
        "data": ["sample"], "steps": 1 });
    assert_eq!(fleet.post(&key, "/v1/requests", &[], train).await.status, StatusCode::FORBIDDEN);
    let json = [("content-type", "application/json")];
    let broken = fleet.call(&key, Method::POST, "/v1/requests", &json, Body::from("{")).await;
    assert_eq!(broken.status, StatusCode::BAD_REQUEST);
    let large = fleet.call(&key, Method::POST, "/v1/requests", &json, Body::from(vec![b' '; 2 << 20])).await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
    let plain = fleet.call(&key, Method::POST, "/v1/requests", &[], Body::from("{}")).await;
    assert_eq!(plain.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn a_site_gives_its_models_no_name_of_anothers() {
    let fleet = Fleet::open().await;
    let (first, second) = (fleet.key("a", ALL).await, fleet.key("b", ALL).await);
    let train = async |key: &str, name: &str, steps: u32| {
        let request = json!({ "version": 1, "kind": "train", "name": name, "model": "unet", "preset": "tiny",
            "data": ["sample"], "steps": steps });
        fleet.post(key, "/v1/requests", &[], request).await.status
    };
    assert_eq!(train(&first, "ours", 1).await, StatusCode::CREATED);
    assert_eq!(train(&first, "ours", 2).await, StatusCode::CREATED, "its own name");
    assert_eq!(train(&second, "ours", 1).await, StatusCode::FORBIDDEN);
    assert_eq!(train(&second, "default", 1).await, StatusCode::FORBIDDEN, "it came with the fleet");
    assert_eq!(train(&second, "theirs", 1).await, StatusCode::CREATED);
}

#[tokio::test]
async fn pages_follow_each_other() {
    let fleet = Fleet::open().await;
    let key = fleet.key("a", ALL).await;
    let mut made = Vec::new();
    for seed in 0..5 {
        made.push(fleet.submit(&key, seed).await.body["id"].as_str().unwrap().to_owned());
    }
    made.sort();
    let (mut listed, mut path) = (Vec::new(), "/v1/requests?limit=2".to_owned());
    loop {
        let page = fleet.get(&key, &path).await.body;
        listed.extend(page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/requests?limit=2&cursor={cursor}");
    }
    assert_eq!(listed, made);
    for bad in ["limit=0", "limit=101", "limit=x", "cursor=%2F", "page=2"] {
        assert_eq!(fleet.get(&key, &format!("/v1/requests?{bad}")).await.status, StatusCode::BAD_REQUEST, "{bad}");
    }
}

#[tokio::test]
async fn quotas_are_kept() {
    let fleet = Fleet::open().await;
    let key = fleet.key("a", ALL).await;
    let site: SiteId = "a".parse().unwrap();
    let set = async |images_in_flight, open_requests, stored_bytes| {
        let quotas = Quotas { images_in_flight, open_requests, stored_bytes };
        fleet.api.sites.put(&site, SiteSettings { weight: 1.0, quotas }).await.unwrap();
    };
    set(3, 10, 1000).await;
    let first = fleet.submit(&key, 0).await;
    assert_eq!(first.status, StatusCode::CREATED);
    let refused = fleet.submit(&key, 1).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(fleet.submit(&key, 0).await.status, StatusCode::OK, "known already");
    set(100, 1, 1000).await;
    assert_eq!(fleet.submit(&key, 1).await.status, StatusCode::TOO_MANY_REQUESTS);
    let own = fleet.get(&key, "/v1/site").await.body;
    assert_eq!(own["used"], json!({ "open_requests": 1, "images_in_flight": 2, "stored_bytes": 1 }));
    set(100, 10, 1).await;
    assert_eq!(fleet.submit(&key, 1).await.status, StatusCode::TOO_MANY_REQUESTS);
    set(100, 10, 3).await;
    let put = async |content: &'static str| {
        let path = format!("/v1/inputs/more/{}", Digest::of(content.as_bytes()));
        fleet.call(&key, Method::PUT, &path, &[("content-type", "image/png")], Body::from(content)).await.status
    };
    assert_eq!(put("abc").await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(put("ab").await, StatusCode::CREATED);
    assert_eq!(put("c").await, StatusCode::TOO_MANY_REQUESTS, "the upload counts at once");
}

#[tokio::test]
async fn an_unbounded_request_is_open_until_it_is_cancelled_and_makes_nothing_unread() {
    let fleet = Fleet::open().await;
    let key = fleet.key("a", ALL).await;
    let site: SiteId = "a".parse().unwrap();
    let unbounded = |chunk: u64| json!({ "version": 1, "kind": "synthesise", "count": "unbounded", "chunk": chunk });
    let set = async |images_in_flight| {
        let quotas = Quotas { images_in_flight, ..Quotas::default() };
        fleet.api.sites.put(&site, SiteSettings { weight: 1.0, quotas }).await.unwrap();
    };
    set(163).await;
    let submitted = fleet.post(&key, "/v1/requests", &[], unbounded(8)).await;
    assert_eq!(submitted.status, StatusCode::CREATED, "{}", submitted.body);
    assert!(submitted.body["total"].is_null());
    assert_eq!(fleet.get(&key, "/v1/site").await.body["used"]["images_in_flight"], 64);
    let refused = fleet.post(&key, "/v1/requests", &[], unbounded(100)).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "one job is made, however long it is");
    let path = submitted.body["links"]["self"].as_str().unwrap();
    let page = fleet.get(&key, &format!("{path}/results")).await.body;
    assert_eq!((&page["items"], &page["pending"], page["next_cursor"].is_null()), (&json!([]), &json!(8), true));
    let missing = fleet.get(&key, &format!("{path}/files/images%2Fimage-18446744073709551615.dcm")).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let far = fleet.get(&key, &format!("{path}/stream?from={}", u64::MAX)).await;
    assert_eq!(far.status, StatusCode::OK, "nothing is there: the stream ends at once");
    let cancelled = fleet.post(&key, &format!("{path}/cancel"), &[], json!({})).await;
    assert_eq!(cancelled.body["state"], "cancelled");
    assert_eq!(fleet.get(&key, &format!("{path}/stream")).await.status, StatusCode::OK);
    let id = submitted.body["id"].as_str().unwrap();
    assert_eq!(fleet.api.ledger.store().list(&format!("requests/{id}/jobs/")).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn an_upload_is_what_its_path_says() {
    let fleet = Fleet::open().await;
    let key = fleet.key("a", ALL).await;
    let (digest, dicom) = (Digest::of(b"abc"), [("content-type", "application/dicom")]);
    let path = format!("/v1/inputs/mine/{digest}");
    let put = async |path: &str, content: &'static str| {
        fleet.call(&key, Method::PUT, path, &dicom, Body::from(content)).await
    };
    assert_eq!(put(&path, "abd").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(fleet.api.ledger.store().list("sites/a/inputs/mine/").await.unwrap(), Vec::<String>::new());
    let stored = put(&path, "abc").await;
    assert_eq!((stored.status, stored.body["size_bytes"].as_u64()), (StatusCode::CREATED, Some(3)));
    assert_eq!(put(&path, "abc").await.status, StatusCode::OK);
    let key_of = format!("sites/a/inputs/mine/{}.dcm", &digest.to_string()[..16]);
    assert_eq!(fleet.api.ledger.store().get(&key_of).await.unwrap(), "abc");
    assert_eq!(put("/v1/inputs/mine/ab", "").await.status, StatusCode::NOT_FOUND);
    assert_eq!(put(&format!("/v1/inputs/..%2Fb/{digest}"), "abc").await.status, StatusCode::NOT_FOUND);
    let large = Body::from(vec![0; 1001]);
    let answer = fleet.call(&key, Method::PUT, &path.replace("mine", "large"), &dicom, large).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let answer = fleet.call(&key, Method::PUT, &path, &[("content-type", "text/html")], Body::empty()).await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn candidates_are_found_once_and_by_a_worker() {
    let fleet = Fleet::open().await;
    let (key, other) = (fleet.key("a", ALL).await, fleet.key("b", ALL).await);
    let wanted = |input: &str| json!({ "version": 1, "input": input, "diameter_mm": 6.0 });
    let ask = async |input: &str| fleet.post(&key, "/v1/candidates", &[], wanted(input)).await;
    // No worker is there.
    let first = ask("sample/a.dcm").await;
    assert_eq!((first.status, &first.body["kind"]), (StatusCode::ACCEPTED, &json!("candidates")), "{}", first.body);
    assert!(first.headers.contains_key("retry-after"));
    let id: RequestId = first.body["id"].as_str().unwrap().parse().unwrap();
    let path = format!("/v1/candidates/{id}");
    assert_eq!(first.headers["location"], path);
    assert_eq!(fleet.get(&key, "/v1/site").await.body["used"]["open_requests"], 1);
    assert_eq!(fleet.get(&key, "/v1/site").await.body["used"]["images_in_flight"], 0);
    let found = json!({ "width": 512, "height": 512, "spacing_mm": [0.7, 0.7], "diameter_mm": 6.0, "allowed_px": 9,
        "candidates": [{ "x": 3, "y": 4, "weight": 0.5 }] });
    let success = Success { candidates: Some(serde_json::from_value(found.clone()).unwrap()), ..Success::default() };
    let settle = async |verdict| {
        let outcome = Outcome {
            version: VERSION,
            job: JobId::candidates(&id),
            request: id.clone(),
            site: "a".parse().unwrap(),
            attempt: 0,
            worker: "w".to_owned(),
            started_at: "2026-01-01T00:00:00Z".to_owned(),
            duration_ms: 1,
            verdict,
        };
        fleet.api.ledger.reopen(&id, &outcome.job).await.unwrap();
        assert!(fleet.api.ledger.settle(&outcome).await.unwrap());
    };
    settle(Verdict::Succeeded(success)).await;
    for answer in [ask("sample/a.dcm").await, fleet.get(&key, &path).await] {
        assert_eq!((answer.status, &answer.body["found"]), (StatusCode::OK, &found), "{}", answer.body);
        assert_eq!((&answer.body["id"], &answer.body["request"]["count"]), (&json!(id), &json!(20)));
    }
    assert_eq!(fleet.get(&key, &format!("/v1/requests/{id}")).await.body["status"]["state"], "complete");
    assert_eq!(fleet.get(&key, &format!("/v1/requests/{id}/results")).await.body["items"], json!([]));
    // Another site has neither this request nor this input.
    assert_eq!(fleet.get(&other, &path).await.status, StatusCode::NOT_FOUND);
    let theirs = fleet.post(&other, "/v1/candidates", &[], wanted("sites/a/inputs/sample/a.dcm")).await;
    assert_eq!((theirs.status, &theirs.body["faults"][0]["path"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("input")));

    settle(Verdict::Failed(Failure { stage: None, reason: "no body was found".to_owned() })).await;
    let failed = ask("sample/a.dcm").await;
    assert_eq!(failed.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(failed.body["detail"].as_str().unwrap().contains("no body was found"));
}

#[tokio::test]
async fn a_request_for_candidates_is_refused_with_its_faults() {
    let fleet = Fleet::open().await;
    let key = fleet.key("a", ALL).await;
    let ask = async |body| fleet.post(&key, "/v1/candidates", &[], body).await;
    let wrong = Digest::of(b"other").to_string();
    for (more, path) in [
        (json!({ "input": "sample" }), "input"),
        (json!({ "input": "sample/" }), "input"),
        (json!({ "input": "sample/a.dcm", "sha256": wrong }), "sha256"),
        (json!({ "input": "sample/a.dcm", "count": 0 }), "count"),
        (json!({ "input": "sample/a.dcm", "kind": "train" }), "kind"),
        (json!({ "input": "sample/a.dcm", "models": { "unet": "none" } }), "models.unet"),
        (json!({ "sha256": wrong }), "input"),
    ] {
        let mut body = json!({ "version": 1 });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = ask(body).await;
        assert_eq!(
            (answer.status, &answer.body["faults"][0]["path"]),
            (StatusCode::UNPROCESSABLE_ENTITY, &json!(path))
        );
    }
    let unreadable = ask(json!({ "version": 1, "input": "sample/a.dcm", "sha256": "ab" })).await;
    assert_eq!(unreadable.status, StatusCode::BAD_REQUEST);
    // What is read back takes a key that may read.
    let submitter = fleet.key("c", &[Role::Submit]).await;
    let body = json!({ "version": 1, "input": "sample/a.dcm" });
    assert_eq!(fleet.post(&submitter, "/v1/candidates", &[], body).await.status, StatusCode::FORBIDDEN);
    // Quotas are those of requests.
    let quotas = Quotas { open_requests: 0, ..Quotas::default() };
    fleet.api.sites.put(&"a".parse().unwrap(), SiteSettings { weight: 1.0, quotas }).await.unwrap();
    let body = json!({ "version": 1, "input": "sample/a.dcm" });
    assert_eq!(ask(body).await.status, StatusCode::TOO_MANY_REQUESTS);
    // The other way to send one; the answer for anything else is none.
    let request = fleet.key("d", ALL).await;
    let id = fleet.submit(&request, 1).await.body["id"].as_str().unwrap().to_owned();
    assert_eq!(fleet.get(&request, &format!("/v1/candidates/{id}")).await.status, StatusCode::NOT_FOUND);
    let body = json!({ "version": 1, "kind": "candidates", "input": "sample/a.dcm" });
    let accepted = fleet.post(&request, "/v1/requests", &[], body).await;
    assert_eq!((accepted.status, &accepted.body["unit"]), (StatusCode::CREATED, &json!("images")));
}

#[tokio::test]
async fn a_mask_lies_beside_its_image_and_is_none() {
    let fleet = Fleet::open().await;
    let key = fleet.key("a", ALL).await;
    let (image, mask) = (Digest::of(b"image"), Digest::of(b"mask"));
    let put = async |path: &str, content: &'static str| {
        fleet.call(&key, Method::PUT, path, &[("content-type", "image/png")], Body::from(content)).await
    };
    assert_eq!(put(&format!("/v1/inputs/mine/{image}"), "image").await.status, StatusCode::CREATED);
    let path = format!("/v1/inputs/mine/{image}/masks/{mask}");
    assert_eq!(
        put(&path, "image").await.status,
        StatusCode::UNPROCESSABLE_ENTITY,
        "another content than the path says"
    );
    let stored = put(&path, "mask").await;
    let file = format!("{}.mask.png", &image.to_string()[..16]);
    assert_eq!((stored.status, &stored.body["file"]), (StatusCode::CREATED, &json!(file)));
    assert_eq!(put(&path, "mask").await.status, StatusCode::OK);
    let other = path.replace(&mask.to_string(), &Digest::of(b"other").to_string());
    assert_eq!(put(&other, "other").await.status, StatusCode::CONFLICT);
    let dicom = fleet.call(&key, Method::PUT, &path, &[("content-type", "application/dicom")], Body::empty()).await;
    assert_eq!(dicom.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);

    // A training takes both, a synthesis the image alone.
    let train = json!({ "version": 1, "kind": "train", "name": "mine", "model": "unet", "preset": "tiny",
        "data": ["mine"], "steps": 1 });
    let made = json!({ "version": 1, "kind": "synthesise", "count": 2, "inputs": "mine" });
    let plan = async |request| {
        let id = fleet.post(&key, "/v1/requests", &[], request).await.body["id"].as_str().unwrap().to_owned();
        fleet.api.ledger.plan(&id.parse().unwrap()).await.unwrap().unwrap().jobs.swap_remove(0).work
    };
    let Work::TrainRound(round) = plan(train).await else { panic!() };
    assert_eq!(round.data.files, 2);
    let Work::Synthesise(work) = plan(made).await else { panic!() };
    assert!(work.inputs.iter().all(|input| input.sha256 == image));
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    bytes.extend([width.to_be_bytes(), height.to_be_bytes()].concat());
    bytes
}

#[tokio::test]
async fn an_exemplar_is_two_pictures_of_one_size() {
    let fleet = Fleet::open().await;
    let key = fleet.key("a", ALL).await;
    let form = |parts: &[(&str, Vec<u8>)]| {
        let mut body = Vec::new();
        for (name, bytes) in parts {
            body.extend(format!("--x\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n").bytes());
            body.extend(bytes);
            body.extend(b"\r\n");
        }
        body.extend(b"--x--\r\n");
        Body::from(body)
    };
    let kind = [("content-type", "multipart/form-data; boundary=x")];
    let post = async |body| fleet.call(&key, Method::POST, "/v1/exemplars", &kind, body).await;
    let good = || form(&[("crop", png(9, 8)), ("mask", png(9, 8))]);
    let stored = post(good()).await;
    assert_eq!((stored.status, &stored.body["size"]), (StatusCode::CREATED, &json!([9, 8])));
    assert_eq!(post(good()).await.status, StatusCode::OK);
    let train = json!({ "version": 1, "kind": "train", "name": "mine", "model": "singan", "preset": "tiny",
        "data": [stored.body["data"]], "steps": 1 });
    assert_eq!(fleet.post(&key, "/v1/requests", &[], train).await.status, StatusCode::CREATED);
    for parts in [
        vec![("crop", png(9, 8)), ("mask", png(8, 8))],
        vec![("crop", png(9, 8))],
        vec![("crop", b"GIF89a".to_vec()), ("mask", png(9, 8))],
        vec![("crop", png(9, 8)), ("mask", png(9, 8)), ("name", b"x".to_vec())],
    ] {
        assert_eq!(post(form(&parts)).await.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", parts.len());
    }
    let answer = fleet.post(&key, "/v1/exemplars", &[], json!({})).await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn dead_letters_are_retried_or_discarded_by_operators() {
    let fleet = Fleet::open().await;
    let key = fleet.key("a", ALL).await;
    let operator = fleet.key("fleet", &[Role::Operate]).await;
    let id: RequestId = fleet.submit(&key, 0).await.body["id"].as_str().unwrap().parse().unwrap();
    let job = JobId::synthesise(&id, 0);
    let fail = async || {
        let failure = Failure { stage: None, reason: "bad package".to_owned() };
        let outcome = Outcome {
            version: VERSION,
            job: job.clone(),
            request: id.clone(),
            site: "a".parse().unwrap(),
            attempt: 0,
            worker: "w".to_owned(),
            started_at: "2026-01-01T00:00:00Z".to_owned(),
            duration_ms: 1,
            verdict: Verdict::Failed(failure),
        };
        assert!(fleet.api.ledger.settle(&outcome).await.unwrap());
    };
    fail().await;
    let listed = fleet.get(&operator, "/v1/dead-letters?site=a").await.body;
    assert_eq!(listed["items"][0]["reason"], "bad package");
    assert_eq!(listed["items"][0]["site"], "a");
    assert_eq!(fleet.get(&key, "/v1/dead-letters").await.status, StatusCode::FORBIDDEN);
    let page = fleet.get(&key, &format!("/v1/requests/{id}/results")).await.body;
    assert_eq!((page["failures"].as_array().unwrap().len(), page["pending"].as_u64()), (2, Some(0)));
    let path = format!("/v1/dead-letters/{job}");
    let retried = fleet.post(&operator, &format!("{path}/retry"), &[], json!({})).await;
    assert_eq!(retried.status, StatusCode::NO_CONTENT);
    assert_eq!(fleet.api.ledger.outcome(&id, &job).await.unwrap(), None);
    assert_eq!(fleet.post(&operator, &format!("{path}/retry"), &[], json!({})).await.status, StatusCode::NOT_FOUND);
    fail().await;
    let discarded = fleet.call(&operator, Method::DELETE, &path, &[], Body::empty()).await;
    assert_eq!(discarded.status, StatusCode::NO_CONTENT);
    assert_eq!(fleet.get(&operator, "/v1/dead-letters").await.body["items"], json!([]));
    assert!(fleet.api.ledger.outcome(&id, &job).await.unwrap().is_some());
}

#[tokio::test]
async fn operators_make_sites_and_rotate_their_keys() {
    let fleet = Fleet::open().await;
    let operator = fleet.key("fleet", &[Role::Operate]).await;
    let json_type = [("content-type", "application/json")];
    let put = async |body: &'static str| {
        fleet.call(&operator, Method::PUT, "/v1/sites/charite", &json_type, Body::from(body)).await
    };
    assert_eq!(put("{}").await.status, StatusCode::CREATED);
    assert_eq!(put(r#"{"weight": 2}"#).await.body["weight"], 2.0);
    assert_eq!(put(r#"{"weight": 0}"#).await.body["faults"][0]["path"], "weight");
    assert_eq!(put(r#"{"wait": 0}"#).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let make = async || fleet.post(&operator, "/v1/sites/charite/keys", &[], json!({ "roles": ["read"] })).await.body;
    let (first, second) = (make().await, make().await);
    let secret = |key: &Value| key["secret"].as_str().unwrap().to_owned();
    assert_eq!(fleet.get(&secret(&first), "/v1/site").await.body["site"], "charite");
    let path = format!("/v1/sites/charite/keys/{}", first["key"]["id"].as_str().unwrap());
    let revoked = fleet.call(&operator, Method::DELETE, &path, &[], Body::empty()).await;
    assert!(revoked.body["revoked_at"].is_string());
    assert_eq!(fleet.get(&secret(&first), "/v1/site").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(fleet.get(&secret(&second), "/v1/site").await.status, StatusCode::OK);
    let listed = fleet.get(&operator, "/v1/sites/charite/keys").await.body;
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    assert!(!listed.to_string().contains("sha256") && !listed.to_string().contains("secret"));
    let none = fleet.post(&operator, "/v1/sites/charite/keys", &[], json!({ "roles": [] })).await;
    assert_eq!(none.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(fleet.get(&operator, "/v1/sites/none/keys").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn everything_is_described() {
    let fleet = Fleet::open().await;
    let document = fleet.get("", "/v1/openapi.json").await.body;
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = format!("{method} {path}");
            assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{name}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{name}");
            let guarded = operation["security"].is_array();
            assert_eq!(guarded, path.starts_with("/v1/"), "{name}");
            assert_eq!(guarded, operation["responses"]["401"].is_object(), "{name}");
            let good = ["200", "201", "204"].iter().any(|code| operation["responses"][code].is_object());
            assert!(good && operation["responses"]["503"].is_object(), "{name}");
        }
    }
    assert!(!document.to_string().contains("crate::"), "a link of the code's documentation");
}
