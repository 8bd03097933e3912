//! Candidates of a background: what the command shows and what a worker of a fleet finds is the same, and can be pinned.

use std::{fs, path::Path, sync::Arc};

use hiresmed_coordinator::{Ledger, Planner};
use hiresmed_imaging::raster;
use hiresmed_protocol::{Request, SiteId, outcome::Success, parse};
use hiresmed_services::{
    cache::Memory,
    store::{Directory, Store},
};
use hiresmed_worker::{
    Environment,
    jobs::{self, Context, Failure, Stop},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::harness::{Bench, pack, slice};

/// A worker on the store that a command has furnished with the models that come with the project.
struct Fleet {
    store: Arc<dyn Store>,
    environment: Arc<Environment>,
}

impl Fleet {
    fn open(bench: &Bench) -> Self {
        let store: Arc<dyn Store> = Arc::new(Directory::open(bench.state().join("store")).unwrap());
        let cache = Arc::new(Memory::new(1 << 20));
        let environment = Arc::new(Environment::new(store.clone(), cache, bench.path("scratch"), 1));
        Self { store, environment }
    }

    /// Puts a file among the site's inputs.
    async fn upload(&self, name: &str, bytes: Vec<u8>) {
        self.store.put(&format!("sites/local/inputs/mine/{name}"), bytes.into()).await.unwrap();
    }

    /// Plans a request and does its first job.
    async fn work(&self, request: Request) -> Result<Success, Failure> {
        let plan = Planner::new(Ledger::new(self.store.clone()), SiteId::local()).submit(&request).await.unwrap();
        let (job, environment) = (plan.jobs.into_iter().next().unwrap(), self.environment.clone());
        let work = move || jobs::run(&environment, &Context::new(job, Stop::default(), mpsc::channel(1).0));
        tokio::task::spawn_blocking(work).await.unwrap()
    }

    async fn candidates(&self, wanted: Value) -> Result<Value, Failure> {
        let request = Request::Candidates(parse::candidates(&wanted.to_string()).unwrap());
        let found = self.work(request).await?.candidates.unwrap();
        Ok(serde_json::to_value(found).unwrap())
    }
}

/// What `hiresmed candidates` prints, and its exit code.
fn shown(bench: &Bench, background: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let arguments = [&["candidates", "--json", "--background", background.to_str().unwrap()], more].concat();
    let output = bench.command(&arguments).env("HIRESMED_PACK", pack()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_finds_what_the_command_finds_and_it_can_be_pinned() {
    let bench = Bench::new();
    let background = slice(8);
    let (code, out, errors) = shown(&bench, &background, &["--diameter-mm", "6", "--count", "7"]);
    assert_eq!(code, Some(0), "{errors}");
    let mut shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(shown.as_object_mut().unwrap().remove("background").unwrap(), background.to_str().unwrap());

    let fleet = Fleet::open(&bench);
    fleet.upload("a.dcm", fs::read(&background).unwrap()).await;
    let wanted = json!({ "version": 1, "input": "mine/a.dcm", "diameter_mm": 6.0, "count": 7 });
    let found = fleet.candidates(wanted).await.unwrap();
    assert_eq!(found, shown);
    assert_eq!((found["width"].as_u64(), found["candidates"].as_array().unwrap().len()), (Some(512), 7));

    // At another size, the positions are in that size's pixels, and a lesion that is no larger can be pinned to them.
    let size = json!({ "width": 256, "height": 256 });
    let wanted = json!({ "version": 1, "input": "mine/a.dcm", "diameter_mm": 12.0, "count": 3, "size": size });
    let found = fleet.candidates(wanted).await.unwrap();
    assert_eq!((found["width"].as_u64(), found["height"].as_u64()), (Some(256), Some(256)));
    let first = &found["candidates"][0];
    let pinned = json!({ "version": 1, "kind": "synthesise", "count": 1, "inputs": "mine", "size": size,
        "lesions": { "count": { "min": 1, "max": 1 }, "diameter_mm": { "min": 6.0, "max": 7.0 } },
        "placement": { "positions": [[first["x"], first["y"]]] } });
    let made = fleet.work(parse::json(&pinned.to_string()).unwrap()).await.unwrap();
    assert!(made.failures.is_empty(), "{:?}", made.failures);
    let lesion = &made.images[0].lesions[0];
    assert!(lesion.pinned);
    for (centre, position) in lesion.centre.iter().zip([&first["x"], &first["y"]]) {
        assert!((centre - position.as_f64().unwrap()).abs() <= 1.0, "{:?} {first}", lesion.centre);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn candidates_in_an_images_own_pixels_can_be_pinned_in_its_geometry() {
    let bench = Bench::new();
    // Furnishes the store.
    assert_eq!(shown(&bench, &slice(8), &[]).0, Some(0));
    let fleet = Fleet::open(&bench);
    fleet.upload("a.dcm", fs::read(slice(8)).unwrap()).await;
    // Pixels of the source are the smaller ones, then the larger ones.
    for side in [256, 768] {
        let size = json!({ "width": side, "height": side });
        let wanted = json!({ "version": 1, "input": "mine/a.dcm", "diameter_mm": 12.0, "count": 3, "size": size,
            "geometry": "source" });
        let found = fleet.candidates(wanted.clone()).await.unwrap();
        assert_eq!((found["width"].as_u64(), found["height"].as_u64()), (Some(512), Some(512)));
        let positions = found["candidates"].as_array().unwrap();
        assert!((1..=3).contains(&positions.len()), "{found}");
        // Those of the plane in which lesions are placed, in other pixels: the spacing as well.
        let mut of_plane = wanted;
        of_plane.as_object_mut().unwrap().remove("geometry");
        let of_plane = fleet.candidates(of_plane).await.unwrap();
        let scale = 512.0 / f64::from(side);
        let spacing = |found: &Value| found["spacing_mm"][0].as_f64().unwrap();
        assert!((spacing(&found) * scale - spacing(&of_plane)).abs() < 1e-9, "{found} {of_plane}");
        let share = found["allowed_px"].as_f64().unwrap() / of_plane["allowed_px"].as_f64().unwrap() / (scale * scale);
        assert!((0.97..1.03).contains(&share), "{share}");
        for position in positions {
            let pinned = json!({ "version": 1, "kind": "synthesise", "count": 1, "inputs": "mine", "size": size,
                "lesions": { "count": { "min": 1, "max": 1 }, "diameter_mm": { "min": 6.0, "max": 7.0 } },
                "placement": { "positions": [[position["x"], position["y"]]] }, "output": { "geometry": "source" } });
            let made = fleet.work(parse::json(&pinned.to_string()).unwrap()).await.unwrap();
            assert!(made.failures.is_empty(), "{:?}", made.failures);
            let lesion = &made.images[0].lesions[0];
            assert!(lesion.pinned);
            for (centre, position) in lesion.centre.iter().zip([&position["x"], &position["y"]]) {
                assert!((centre - position.as_f64().unwrap()).abs() <= 2.0 * scale.max(1.0), "{:?}", lesion.centre);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detector_proposes_candidates_and_is_named() {
    let bench = Bench::new();
    let found = |more: &[&str]| {
        let (code, out, errors) = shown(&bench, &slice(8), more);
        assert_eq!(code, Some(0), "{errors}");
        serde_json::from_str::<Value>(&out).unwrap()
    };
    let likeliest = |more: &[&str]| {
        let found = found(more);
        (found["allowed_px"].clone(), found["candidates"][0].clone())
    };
    // It knows kidneys, and what it proposes in a lung means nothing; but it is asked, and where a lesion is allowed stays the same.
    let named = ["--yolo", "kidney-stones", "--location"];
    let prior = likeliest(&[]);
    let detector = likeliest(&[&named[..], &["detector"]].concat());
    let both = likeliest(&[&named[..], &["both"]].concat());
    assert_eq!((&prior.0, &prior.0), (&detector.0, &both.0));
    assert!(prior.1 != detector.1 && detector.1 != both.1, "{prior:?} {detector:?} {both:?}");
    let (code, _, errors) = shown(&bench, &slice(8), &["--location", "detector"]);
    assert!(code != Some(0) && errors.contains("there is no yolo model `default`"), "{errors}");

    let fleet = Fleet::open(&bench);
    fleet.upload("a.dcm", fs::read(slice(8)).unwrap()).await;
    for location in ["detector", "both"] {
        let wanted =
            json!({ "version": 1, "input": "mine/a.dcm", "location": location, "models": { "yolo": "kidney-stones" } });
        let mut shown = found(&[&named[..], &[location]].concat());
        shown.as_object_mut().unwrap().remove("background");
        assert_eq!(fleet.candidates(wanted).await.unwrap(), shown, "{location}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_room_for_a_lesion_is_refused_with_the_reason() {
    let bench = Bench::new();
    let (air, path) = (raster::grey_png(512, 512, &vec![0; 512 * 512]), bench.path("air.png"));
    fs::write(&path, &air).unwrap();
    let (code, _, errors) = shown(&bench, &path, &["--spacing-mm", "0.7"]);
    assert!(code == Some(2) && errors.contains("no body was found in the image"), "{errors}");
    let (code, _, errors) = shown(&bench, &path, &[]);
    assert!(code == Some(2) && errors.contains("give --spacing-mm"), "{errors}");

    let fleet = Fleet::open(&bench);
    fleet.upload("air.png", air).await;
    fleet.upload("a.dcm", fs::read(slice(8)).unwrap()).await;
    for (more, reason) in [
        (json!({ "input": "mine/air.png", "size": { "spacing_mm": 0.7 } }), "no body was found in the image"),
        (json!({ "input": "mine/air.png" }), "give size.spacing_mm in the request"),
        (json!({ "input": "mine/a.dcm", "diameter_mm": 150.0 }), "a lesion of 150 mm"),
        (json!({ "input": "mine/a.dcm", "size": { "width": 256 } }), "do not have the proportions of 256 x 512"),
    ] {
        let mut wanted = json!({ "version": 1 });
        wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let Err(Failure::Permanent { reason: said, .. }) = fleet.candidates(wanted).await else { panic!("{more}") };
        assert!(said.contains(reason), "{said}");
    }
}
