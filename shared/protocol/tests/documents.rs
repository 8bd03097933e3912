//! The documents that programs write: they come back as they were, and the schemas accept them.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::BTreeMap;

use hiresmed_protocol::{
    Digest, Event, Happening, ImageIndex, Job, JobId, Manifest, Outcome, Plan, Request, RequestId, SiteId, Verdict,
    Work,
    attempt::Attempt,
    event::Control,
    job::{Class, DataFiles, DataSet, FindCandidates, ImageRange, Models, Object, SynthesiseImages, TrainRound},
    manifest::{Execution, File, Image, Lesion},
    noise, outcome, parse,
    plan::Recipe,
    request::ImageCount,
    schema,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

fn synthesise() -> hiresmed_protocol::request::Synthesise {
    match parse::toml("version = 1\nkind = \"synthesise\"\ncount = 12").unwrap() {
        Request::Synthesise(request) => request,
        _ => panic!("a synthesis request"),
    }
}

fn id() -> RequestId {
    RequestId::derive(&Request::Synthesise(synthesise()), &SiteId::local(), None)
}

fn object(key: &str) -> Object {
    Object { key: key.to_owned(), sha256: Digest::of(key.as_bytes()) }
}

fn jobs() -> Vec<Job> {
    let models = Models {
        vqgan: Digest::of(b"v"),
        singan: vec![Digest::of(b"s")],
        unet: Digest::of(b"u"),
        density: Some(Digest::of(b"d")),
        yolo: None,
        prior: Some(Digest::of(b"p")),
    };
    let images = SynthesiseImages {
        images: ImageRange { first: ImageIndex(8), count: 4 },
        request: synthesise(),
        models,
        inputs: vec![object("sites/local/inputs/a.dcm")],
    };
    let train =
        "version = 1\nkind = \"train\"\nname = \"n\"\nmodel = \"unet\"\npreset = \"tiny\"\ndata = [\"a\"]\nsteps = 9";
    let Ok(Request::Train(train)) = parse::toml(train) else { panic!("a training request") };
    let round = TrainRound {
        round: 3,
        request: train,
        parent: Some(object("c")),
        first_step: 6,
        steps: 3,
        autoencoder: Some(Digest::of(b"v")),
        perceptual: Some(DataSet { listing: object("p"), files: 2 }),
        score_on: Some(DataSet { listing: object("s"), files: 9 }),
        data: DataSet { listing: object("l"), files: 100 },
    };
    let wanted = r#"{"version": 1, "input": "a.dcm", "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}"#;
    let find = FindCandidates {
        request: parse::candidates(wanted).unwrap(),
        input: object("sites/local/inputs/a.dcm"),
        unet: Digest::of(b"u"),
        density: Some(Digest::of(b"d")),
        yolo: None,
    };
    let job = |work, job_id| Job {
        version: 1,
        id: job_id,
        request: id(),
        site: SiteId::local(),
        attempt: 1,
        class: Class::Batch,
        work,
    };
    vec![
        job(Work::Synthesise(images), JobId::synthesise(&id(), 2)),
        job(Work::TrainRound(round), JobId::train_round(&id(), 3)),
        Job { class: Class::Interactive, ..job(Work::Candidates(find), JobId::candidates(&id())) },
    ]
}

fn image() -> Image {
    let file = |file: &str| Some(File { file: file.to_owned(), sha256: Digest::of(file.as_bytes()) });
    Image {
        file: "images/image-00008.dcm".to_owned(),
        sha256: Digest::of(b"i"),
        index: ImageIndex(8),
        seed: 7,
        dimensions: Some([3292, 3141]),
        models: BTreeMap::from([("vqgan".to_owned(), Digest::of(b"v"))]),
        lesions: vec![Lesion {
            centre: [100.5, 0.1 + 0.2],
            size_px: 11.25,
            exemplar: Digest::of(b"s"),
            diameter_mm: 7.5,
            requested_diameter_mm: 7.4,
            bbox: [95, 40, 11, 10],
            area_px: 87,
            pinned: false,
        }],
        mask: file("masks/image-00008.png"),
        background: file("backgrounds/image-00008.dcm"),
        yolo: None,
        seg: file("labels-seg/image-00008.dcm"),
        sr: None,
        candidates: None,
        danger_zones: file("report/image-00008.png"),
        input_sha256: Some(Digest::of(b"in")),
        mode: Default::default(),
        blend: Default::default(),
        spacing_mm: [0.703125, 0.703125],
        execution: Execution {
            provider: "CPUExecutionProvider".to_owned(),
            runtime_version: "1.31.1".to_owned(),
            batch_size: 2,
        },
    }
}

fn outcomes() -> Vec<Outcome> {
    let failure = || outcome::Failure { stage: Some(outcome::Stage::Placement), reason: "no room".to_owned() };
    let success = outcome::Success {
        outputs: vec![outcome::Output { file: "a".to_owned(), sha256: Digest::of(b"a"), size_bytes: 1 }],
        images: vec![image()],
        failures: vec![outcome::ImageFailure {
            index: ImageIndex(9),
            stage: outcome::Stage::Inputs,
            reason: "truncated".to_owned(),
        }],
        round: Some(outcome::RoundResult {
            checkpoint: object("c"),
            step: 9,
            step_ms: 123.4,
            losses: BTreeMap::from([("l1".to_owned(), 0.08)]),
            package: None,
        }),
        candidates: Some(outcome::FoundCandidates {
            width: 512,
            height: 256,
            spacing_mm: [0.7, 0.75],
            diameter_mm: 8.0,
            allowed_px: 1000,
            candidates: vec![outcome::Candidate { x: 100, y: 200, weight: 0.001 }],
        }),
        stages: vec![outcome::StageTiming {
            stage: outcome::Stage::Background,
            duration_ms: 1.5,
            runtime_ms: 1.25,
            count: 4,
        }],
    };
    let verdicts = [
        Verdict::Succeeded(success),
        Verdict::Failed(failure()),
        Verdict::Transient(failure()),
        Verdict::Interrupted,
        Verdict::Cancelled,
    ];
    let outcome = |verdict| Outcome {
        version: 1,
        job: JobId::synthesise(&id(), 2),
        request: id(),
        site: SiteId::local(),
        attempt: 0,
        worker: "host-42".to_owned(),
        started_at: "2026-01-31T12:00:00Z".to_owned(),
        duration_ms: 1234,
        verdict,
    };
    verdicts.map(outcome).into()
}

/// Checks that each document comes back equal, and that the stored schema `name` accepts it.
fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(name: &str, documents: &[T]) {
    let (_, schema) = schema::all().into_iter().find(|(found, _)| *found == name).expect("a schema");
    let validator = jsonschema::validator_for(schema.as_value()).unwrap();
    for document in documents {
        let text = serde_json::to_string(document).unwrap();
        assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), document);
        let value: Value = serde_json::from_str(&text).unwrap();
        let faults: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(faults.is_empty(), "{name}: {faults:?} in {text}");
    }
}

#[test]
fn documents_come_back_as_they_were() {
    check("job", &jobs());
    check("outcome", &outcomes());
    let attempt = |ended| Attempt {
        version: 1,
        attempt: 2,
        worker: "host-42".to_owned(),
        started_at: "2026-01-31T12:00:00Z".to_owned(),
        ended,
    };
    check("attempt", &[attempt(None), attempt(outcomes().pop())]);
    let plan = Plan { version: 1, request: id(), site: SiteId::local(), models: None, jobs: jobs(), recipe: None };
    assert_eq!(plan.images(), 4);
    let mut request = synthesise();
    request.count = ImageCount::Unbounded;
    let recipe = Recipe { request, sources: vec![object("sites/local/inputs/a.dcm")], chunk: 8, draws: 8 };
    let unbounded = Plan { jobs: Vec::new(), recipe: Some(recipe), ..plan.clone() };
    assert_eq!(unbounded.images(), 0);
    check("plan", &[plan, unbounded]);
    let manifest = Manifest {
        version: 1,
        request: id(),
        site: SiteId::local(),
        name: None,
        generator: "hiresmed 0.1.0".to_owned(),
        seed: 7,
        modality: Default::default(),
        size: Default::default(),
        synthetic: true,
        images: vec![image()],
        failures: Vec::new(),
        stages: Vec::new(),
    };
    check("manifest", &[manifest]);
    check("control", &[Control::Cancel { request: id() }, Control::Drain { worker: None }]);
    check("data-files", &[DataFiles { version: 1, files: BTreeMap::from([("a/b.dcm".to_owned(), object("k"))]) }]);
}

#[test]
fn events_come_back_as_they_were() {
    let mut happenings = vec![
        Happening::Planned { jobs: 3, images: 12 },
        Happening::Started { worker: "host-42".to_owned() },
        Happening::Progress { stage: outcome::Stage::Lesions, done: 1, of: 4 },
        Happening::ImageDone { index: ImageIndex(1) },
        Happening::Read { next: ImageIndex(64) },
        Happening::TrainingLoss { step: 1, of: 9, terms: BTreeMap::from([("l1".to_owned(), 0.5)]) },
        Happening::Completed { images: 12, failures: 0 },
        Happening::Aborted { reason: "cancelled".to_owned() },
    ];
    happenings.extend(outcomes().into_iter().map(|outcome| Happening::Ended { outcome: Box::new(outcome) }));
    let events: Vec<Event> = happenings
        .into_iter()
        .map(|happening| Event { version: 1, request: id(), site: SiteId::local(), job: None, happening })
        .collect();
    check("event", &events);
    assert_eq!(events[3].topic(), format!("local.{}.image_done", id()));
}

#[test]
fn the_manifest_has_the_keys_that_others_rely_on() {
    let image = serde_json::to_value(image()).unwrap();
    assert_eq!(image["file"], "images/image-00008.dcm");
    assert_eq!(image["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(image["seed"], 7);
    assert!(image["models"]["vqgan"].is_string());
    let lesion = &image["lesions"][0];
    assert_eq!(lesion["centre"][0], 100.5);
    assert_eq!(lesion["size_px"], 11.25);
    assert!(lesion["exemplar"].is_string());
}

#[test]
fn jobs_name_their_queue_and_their_images() {
    let [synthesis, training, candidates] = &jobs()[..] else { panic!("a job of each kind") };
    assert_eq!((synthesis.queue().as_str(), training.queue().as_str()), ("synthesis.batch", "training.batch"));
    assert_eq!(
        (candidates.queue().as_str(), candidates.work.kind().as_str()),
        ("candidates.interactive", "candidates")
    );
    let Work::Synthesise(images) = &synthesis.work else { panic!("images") };
    let tasks: Vec<_> = images.tasks().collect();
    assert_eq!(tasks.iter().map(|(index, _)| index.0).collect::<Vec<_>>(), [8, 9, 10, 11]);
    assert!(tasks[0].1.is_some() && tasks[1].1.is_none());
    // An image's noise is the same in whatever job it is made.
    let seeds = |first| noise::seed(7, ImageIndex(first), noise::Purpose::LesionCount);
    assert_eq!(seeds(8), seeds(8));
}
