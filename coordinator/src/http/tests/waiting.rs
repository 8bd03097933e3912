//! Requests whose lesion models are trained first.

use std::time::Duration;

use super::*;

/// Uploads nothing: puts an exemplar's pictures where the upload does, and gives its digest.
async fn exemplar(fleet: &Fleet, site: &str, content: &str) -> Digest {
    let digest = Digest::of(content.as_bytes());
    let prefix = keys::exemplar(&site.parse().unwrap(), &digest);
    for name in ["exemplar.png", "exemplar.mask.png"] {
        fleet.api.ledger.store().put(&format!("{prefix}{name}"), content.to_owned().into()).await.unwrap();
    }
    digest
}

fn with(exemplar: &Digest, seed: u64) -> Value {
    let mut request = request(seed);
    request["models"] = json!({ "singan": ["default", format!("exemplars/{exemplar}")] });
    request
}

/// Waits until a request's state is no longer `waiting`, and gives what it is then.
async fn after_waiting(fleet: &Fleet, key: &str, path: &str) -> Value {
    for _ in 0..100 {
        let status = fleet.get(key, path).await.body["status"].clone();
        if status["state"] != "waiting" {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{path} waits for ever");
}

#[tokio::test]
async fn requests_wait_for_the_model_of_an_exemplar_that_is_trained_once() {
    let fleet = Fleet::open().await;
    let key = fleet.key("a", ALL).await;
    let exemplar = exemplar(&fleet, "a", "a lesion").await;
    let first = fleet.post(&key, "/v1/requests", &[], with(&exemplar, 1)).await;
    assert_eq!((first.status, &first.body["state"]), (StatusCode::CREATED, &json!("waiting")), "{}", first.body);
    let second = fleet.post(&key, "/v1/requests", &[], with(&exemplar, 2)).await;
    assert_eq!(second.status, StatusCode::CREATED);
    assert_eq!(fleet.post(&key, "/v1/requests", &[], with(&exemplar, 1)).await.status, StatusCode::OK, "known");
    let listed = fleet.get(&key, "/v1/requests").await.body["items"].as_array().unwrap().clone();
    let trainings: Vec<_> = listed.iter().filter(|status| status["kind"] == "train").collect();
    assert_eq!((listed.len(), trainings.len()), (3, 1), "{listed:?}");
    let path = first.body["links"]["self"].as_str().unwrap();
    for part in ["results", "stream"] {
        assert_eq!(fleet.get(&key, &format!("{path}/{part}")).await.status, StatusCode::CONFLICT, "{part}");
    }

    let name = trainings[0]["name"].as_str().unwrap();
    let store = fleet.api.ledger.store();
    store.put(&format!("{}model.json", keys::model("singan", &exemplar)), "{}".into()).await.unwrap();
    store.put(&keys::alias("singan", name), exemplar.to_string().into()).await.unwrap();
    for answer in [&first, &second] {
        let status = after_waiting(&fleet, &key, answer.body["links"]["self"].as_str().unwrap()).await;
        assert_eq!(status["state"], "open");
        let id = answer.body["id"].as_str().unwrap().parse().unwrap();
        let plan = fleet.api.ledger.plan(&id).await.unwrap().unwrap();
        assert!(plan.models.unwrap().singan.contains(&exemplar));
    }
    assert_eq!(fleet.get(&key, &format!("{path}/results")).await.status, StatusCode::OK);
    let third = fleet.post(&key, "/v1/requests", &[], with(&exemplar, 3)).await;
    assert_eq!(third.body["state"], "open", "its model is there already");
}

#[tokio::test]
async fn a_request_ends_with_the_training_that_it_waits_for() {
    let fleet = Fleet::open().await;
    let key = fleet.key("a", ALL).await;
    let exemplar = exemplar(&fleet, "a", "a lesion").await;
    let waiting = fleet.post(&key, "/v1/requests", &[], with(&exemplar, 1)).await;
    let listed = fleet.get(&key, "/v1/requests").await.body["items"].as_array().unwrap().clone();
    let training = listed.iter().find(|status| status["kind"] == "train").unwrap()["links"]["self"].as_str().unwrap();
    let cancelled = fleet.post(&key, &format!("{training}/cancel"), &[], json!({})).await;
    assert_eq!(cancelled.body["state"], "cancelled");
    let status = after_waiting(&fleet, &key, waiting.body["links"]["self"].as_str().unwrap()).await;
    assert_eq!(status["state"], "cancelled");
    assert!(status["reason"].as_str().unwrap().contains("a lesion model could not be trained"), "{status}");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_before_anything_is_trained() {
    let fleet = Fleet::open().await;
    let key = fleet.key("a", ALL).await;
    let exemplar = exemplar(&fleet, "b", "another site's").await;
    let foreign = fleet.post(&key, "/v1/requests", &[], with(&exemplar, 1)).await;
    assert_eq!(
        (foreign.status, &foreign.body["faults"][0]["path"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("models.singan"))
    );
    let mut wrong = with(&exemplar, 1);
    wrong["models"]["unet"] = "nobody".into();
    let refused = fleet.post(&key, "/v1/requests", &[], wrong).await;
    assert_eq!(refused.body["faults"][0]["path"], "models.unet", "{}", refused.body);
    assert_eq!(fleet.get(&key, "/v1/requests").await.body["items"], json!([]));
    let train = json!({ "version": 1, "kind": "train", "name": "exemplar-0123-r1", "model": "singan", "preset": "tiny",
        "data": ["sample"], "steps": 1 });
    assert_eq!(fleet.post(&key, "/v1/requests", &[], train).await.status, StatusCode::FORBIDDEN);
}
