//! Reading and checking requests.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use hiresmed_protocol::{
    JobId, Request, RequestId, SiteId,
    parse::{self, Error},
    request::{Blend, Geometry, ImageCount, Location, OnFailure, TransferSyntax},
};

const SMALLEST: &str = "version = 1\nkind = \"synthesise\"\ncount = 12\n";

const FULL: &str = r#"
version = 1
kind = "synthesise"
name = "nodules for the reader study"
count = 2000
seed = 42
modality = "ct"
inputs = "ct/trial-7/"
blend = "poisson"
on_failure = "stop"
class = "batch"
chunk = 25

[size]
width = 256
height = 512
spacing_mm = 0.7

[models]
vqgan = "ct512"
singan = ["a", "b"]
unet = "0123456789abcdef"
density = "lidc"
yolo = "site-detector"

[lesions]
count = { min = 1, max = 3 }
diameter_mm = { min = 4, max = 12.5 }

[background]
mode = "reconstruct"

[placement]
rule = "centre"
positions = [[100, 200.5], [30.25, 40]]
gap_mm = 3
override_danger = true
location = "both"

[output]
geometry = "source"
transfer_syntax = "jpeg-ls"
masks = false
coco = false
yolo = false
seg = true
sr = true
backgrounds = false
"#;

fn faults(text: &str) -> Vec<(String, String)> {
    match parse::toml(text).unwrap_err() {
        Error::Faults(faults) => faults.iter().map(|fault| (fault.path.clone(), fault.to_string())).collect(),
        other => panic!("expected faults, got {other}"),
    }
}

fn paths(text: &str) -> Vec<String> {
    faults(text).into_iter().map(|(path, _)| path).collect()
}

fn synthesise(request: Request) -> hiresmed_protocol::request::Synthesise {
    match request {
        Request::Synthesise(synthesise) => synthesise,
        _ => panic!("a synthesis request"),
    }
}

#[test]
fn the_smallest_request_has_the_documented_defaults() {
    let request = synthesise(parse::toml(SMALLEST).unwrap());
    assert_eq!((request.count, request.seed, request.inputs.as_str()), (ImageCount::Bounded(12), 0, "sample"));
    assert_eq!((request.size.width, request.size.height, request.size.spacing_mm), (512, 512, None));
    assert_eq!((request.lesions.count.min, request.lesions.count.max), (1, 3));
    assert_eq!((request.lesions.diameter_mm.min, request.lesions.diameter_mm.max), (4.0, 12.0));
    assert_eq!((request.blend, request.on_failure), (Blend::Feather, OnFailure::Continue));
    assert!(request.output.masks && request.output.coco && request.output.yolo && request.output.backgrounds);
    assert!(!request.output.seg && !request.output.sr);
}

#[test]
fn every_key_is_read_and_survives_a_round_through_json() {
    let request = parse::toml(FULL).unwrap();
    let read = synthesise(request.clone());
    assert_eq!(read.placement.positions, [[100.0, 200.5], [30.25, 40.0]]);
    assert_eq!(read.placement.location, Location::Both);
    assert_eq!(read.output.transfer_syntax, TransferSyntax::JpegLs);
    assert!(read.output.seg && read.output.sr && read.output.geometry == Geometry::Source);
    assert_eq!(parse::json(&request.to_canonical_json()).unwrap(), request);
    assert_eq!(serde_json::from_str::<Request>(&request.to_canonical_json()).unwrap(), request);
}

#[test]
fn a_count_is_a_number_or_unbounded() {
    let unbounded = SMALLEST.replace("12", "\"unbounded\"");
    let request = parse::toml(&unbounded).unwrap();
    assert_eq!(synthesise(request.clone()).count, ImageCount::Unbounded);
    assert!(request.to_canonical_json().contains("\"count\":\"unbounded\""));
    assert_eq!(parse::json(&request.to_canonical_json()).unwrap(), request);
    assert_eq!(serde_json::from_str::<Request>(&request.to_canonical_json()).unwrap(), request);
    for wrong in ["\"many\"", "\"12\"", "-1", "1.5", "true", "[]"] {
        let found = faults(&SMALLEST.replace("12", wrong));
        let text = format!("`count` = {wrong}: must be a whole number, 1 to 1000000, or \"unbounded\" for a stream");
        assert_eq!(found, [("count".to_owned(), text)]);
        assert!(serde_json::from_str::<ImageCount>(wrong).is_err());
    }
    assert_eq!(paths(&SMALLEST.replace("12", "1000001")), ["count"]);
}

#[test]
fn a_training_request_is_read() {
    let text = "version = 1\nkind = \"train\"\nname = \"my-ct\"\nmodel = \"vqgan\"\npreset = \"tiny\"\n\
                data = [\"a\", \"b/\"]\nsteps = 100\nhold_out = [\"patient-3\"]";
    let request = parse::toml(text).unwrap();
    assert_eq!(parse::json(&request.to_canonical_json()).unwrap(), request);
    let wrong = text.replace("[\"a\", \"b/\"]", "[]").replace("= 100", "= 0").replace("patient-3", "a/b");
    assert_eq!(paths(&wrong), ["data", "steps", "hold_out[0]"]);
    let scored = format!("{text}\nscore_on = [\"c\"]");
    assert_eq!(parse::json(&parse::toml(&scored).unwrap().to_canonical_json()).unwrap(), parse::toml(&scored).unwrap());
    assert_eq!(paths(&scored.replace("[\"c\"]", "[\"c\", \"a\"]")), ["score_on[1]"]);
    assert!(parse::toml(&scored.replace("vqgan", "ddpm")).is_ok());
    assert_eq!(paths(&scored.replace("vqgan", "singan")), ["score_on[0]"]);
}

#[test]
fn a_request_for_candidates_is_read_with_and_without_its_kind() {
    let text = r#"{"version": 1, "input": "study-7/a.dcm"}"#;
    let candidates = parse::candidates(text).unwrap();
    assert_eq!((candidates.diameter_mm, candidates.count, candidates.size.width), (8.0, 20, 512));
    assert_eq!((&*candidates.models.unet, &candidates.models.density), ("default", &None));
    assert_eq!((candidates.location, &candidates.models.yolo), (Location::Density, &None));
    // Not written, so that the ids of requests are what they were before there was a choice.
    assert_eq!(candidates.geometry, Geometry::Request);
    assert!(!serde_json::to_string(&candidates).unwrap().contains("geometry"));
    let request = Request::Candidates(candidates);
    assert_eq!((request.name(), request.seed()), (None, 0));
    assert_eq!(parse::json(&request.to_canonical_json()).unwrap(), request);
    assert_eq!(parse::toml("version = 1\nkind = \"candidates\"\ninput = \"study-7/a.dcm\"").unwrap(), request);
    // However its hexadecimal digits are written, a digest is the same.
    let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let with = |digest: &str| parse::candidates(&text.replace('}', &format!(r#", "sha256": "{digest}"}}"#)));
    assert_eq!(with(digest).unwrap(), with(&digest.to_uppercase()).unwrap());
    assert!(matches!(with("ba78").unwrap_err(), Error::Text { cause, .. } if cause.contains("64 hexadecimal digits")));
}

#[test]
fn every_fault_of_a_request_for_candidates_is_named() {
    let Error::Faults(found) = parse::candidates(
        r#"{"version": 1, "input": "../b/a.dcm", "sha256": 7, "diameter_mm": 0.5, "count": 201, "seed": 1,
            "size": {"width": 63}, "location": "yolo", "models": {"unet": "a/b", "density": "", "yolo": "-"}}"#,
    )
    .unwrap_err() else {
        panic!()
    };
    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
    let expected = [
        "`sha256` = 7: must be text",
        "`seed` = 1: unknown key; known here: version, input, modality, sha256, size, geometry, diameter_mm, count, location, models",
        "`location` = \"yolo\": must be \"density\", \"detector\" or \"both\"",
        "`input` = \"../b/a.dcm\": must be the key of an image below the site's inputs: 1 to 512 characters",
        "`size.width` = 63: must be a multiple of 8, 64 to 4096 pixels",
        "`diameter_mm` = 0.5: must be 1 to 200 mm",
        "`count` = 201: must be 1 to 200",
        "`models.unet` = \"a/b\": must have 1 to 64 letters",
        "`models.density` = \"\": must have 1 to 64 letters",
        "`models.yolo` = \"-\": must have 1 to 64 letters",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, beginning) in found.iter().zip(expected) {
        assert!(found.starts_with(beginning), "{found}\nshould begin with\n{beginning}");
    }
    let kind = parse::candidates(r#"{"version": 1, "kind": "candidates", "input": "a"}"#).unwrap_err();
    assert!(kind.to_string().contains("`kind` = given: unknown key"), "{kind}");
    assert_eq!(paths("version = 1\ninput = \"/a\""), ["kind", "input"]);
    let large = "version = 1\nkind = \"candidates\"\ninput = \"a\"\ndiameter_mm = 64\nsize = { width = 64 }";
    assert_eq!(paths(large), ["diameter_mm"]);
    assert!(parse::candidates("[]").is_err() && parse::candidates("{").is_err());
}

#[test]
fn all_faults_are_reported_at_once_with_value_and_range() {
    let text = r#"
        version = 2
        kind = "synthesise"
        count = 0
        seed = 9007199254740992
        inputs = "../other-site"
        chunk = 0
        [size]
        width = 100
        height = 8192
        [models]
        vqgan = "a/b"
        singan = ["fine", "", "exemplars/0123"]
        [lesions]
        count = { min = 4, max = 2 }
        diameter_mm = { min = 0.5, max = nan }
        [placement]
        gap_mm = -1
        positions = [[5, 5], [600, 5], [nan, 5]]
    "#;
    // Whether a position or a lesion lies inside an image of no possible size cannot be told.
    let found = faults(text);
    let expected = [
        ("lesions.diameter_mm.max", "`lesions.diameter_mm.max` = \"NaN\": must be a number, 1 to 200 mm"),
        ("placement.positions[2][0]", "`placement.positions[2][0]` = \"NaN\": must be a number"),
        ("version", "`version` = 2: must be 1, the version that this program speaks"),
        ("count", "`count` = 0: must be 1 to 1000000, or \"unbounded\" for a stream"),
        ("seed", "`seed` = 9007199254740992: must be 0 to 9007199254740991"),
        ("size.width", "`size.width` = 100: must be a multiple of 8, 64 to 4096 pixels"),
        ("size.height", "`size.height` = 8192: must be a multiple of 8, 64 to 4096 pixels"),
        ("inputs", "`inputs` = \"../other-site\": must be `sample`, a folder alias or a prefix"),
        ("models.vqgan", "`models.vqgan` = \"a/b\": must have 1 to 64 letters"),
        ("models.singan[1]", "`models.singan[1]` = \"\": must have 1 to 64 letters"),
        (
            "models.singan[2]",
            "`models.singan[2]` = \"exemplars/0123\": must go on after `exemplars/` with the 64 digits",
        ),
        ("lesions.count.min", "`lesions.count.min` = 4: must be at most lesions.count.max (2)"),
        ("lesions.diameter_mm.min", "`lesions.diameter_mm.min` = 0.5: must be 1 to 200 mm"),
        ("placement.gap_mm", "`placement.gap_mm` = -1: must be 0 to 100 mm"),
        ("placement.positions", "`placement.positions` = 3 positions: must be at most lesions.count.max (2)"),
        ("chunk", "`chunk` = 0: must be 1 to 1000"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((path, text), (expected_path, beginning)) in found.iter().zip(expected) {
        assert_eq!(path, expected_path);
        assert!(text.starts_with(beginning), "{text}\nshould begin with\n{beginning}");
    }
}

#[test]
fn wrong_types_hide_nothing_and_are_told_with_the_range() {
    let text = r#"{"kind": "synthesise", "version": "one", "count": 0, "seed": -3, "blend": "soft", "chunk": 2.5, "name": 7,
        "lesions": {"count": {"min": 5, "max": 1}, "diameter_mm": {"min": 300}, "colour": "red"},
        "size": {"width": -8, "height": 100}, "placement": [], "models": {"singan": ["fine", 3], "unet": "a/b"}}"#;
    let Error::Faults(found) = parse::json(text).unwrap_err() else { panic!() };
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    let expected = [
        "`version` = \"one\": must be a whole number, 1, the version that this program speaks",
        "`seed` = -3: must be a whole number, 0 to 9007199254740991",
        "`blend` = \"soft\": must be \"paper\", \"feather\", \"poisson\" or \"attenuation\"",
        "`chunk` = 2.5: must be a whole number, 1 to 1000",
        "`name` = 7: must be text",
        "`lesions.diameter_mm.max` = missing: is required, 1 to 200 mm",
        "`lesions.colour` = \"red\": unknown key; known here: count, diameter_mm",
        "`size.width` = -8: must be a whole number, a multiple of 8, 64 to 4096 pixels",
        "`placement` = []: must be a table",
        "`models.singan[1]` = 3: must be text",
        "`count` = 0: must be 1 to 1000000, or \"unbounded\" for a stream",
        "`size.height` = 100: must be a multiple of 8, 64 to 4096 pixels",
        "`models.unet` = \"a/b\": must have 1 to 64 letters, digits, `-`, `_` or `.`, and begin with a letter or digit",
        "`lesions.count.min` = 5: must be at most lesions.count.max (1)",
        "`lesions.diameter_mm.min` = 300: must be 1 to 200 mm",
    ];
    for text in expected {
        assert!(found.iter().any(|fault| fault == text), "{text}\nis not in {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn a_bound_that_follows_from_a_wrong_value_is_not_told() {
    assert_eq!(paths(&format!("{SMALLEST}size.spacing_mm = 0\n")), ["size.spacing_mm"]);
    let text = format!("{SMALLEST}lesions.count = {{ min = 1, max = 0 }}\nplacement.positions = [[5, 5], [6, 600]]\n");
    assert_eq!(paths(&text), ["lesions.count.max", "placement.positions[1]"]);
}

#[test]
fn a_sampled_background_has_one_image() {
    let sampled = format!("{SMALLEST}background.mode = \"sample\"\n");
    assert_eq!(parse::toml(&sampled).map(|_| ()), Ok(()));
    // A sampled background is one image's.
    assert_eq!(
        paths(&format!("{sampled}background.draws = 2\nmodels.prior = \"a/b\"\n")),
        ["models.prior", "background.draws"]
    );
    assert_eq!(
        parse::toml(&format!("{sampled}background.temperature = 0.9\nbackground.top_k = 100\n")).map(|_| ()),
        Ok(())
    );
    let text = "background.temperature = 0\nbackground.top_k = 0\n";
    assert_eq!(paths(&format!("{sampled}{text}")), ["background.temperature", "background.top_k"]);
    let text = "background.temperature = 1\nbackground.top_k = 9\n";
    assert_eq!(paths(&format!("{SMALLEST}{text}")), ["background.temperature", "background.top_k"]);
}

#[test]
fn only_a_prior_and_a_perceptual_term_need_an_autoencoder() {
    let text = |model: &str| {
        format!(
            "version = 1\nkind = \"train\"\nname = \"n\"\nmodel = \"{model}\"\npreset = \"tiny\"\ndata = [\"a\"]\nsteps = 9\n\
             autoencoder = \"default\""
        )
    };
    for model in ["prior", "vqgan"] {
        assert_eq!(parse::toml(&text(model)).map(|_| ()), Ok(()));
    }
    assert_eq!(paths(&text("unet")), ["autoencoder"]);
    let perceptual = |model: &str| text(model).replace("autoencoder = \"default\"", "perceptual = \"backbones\"");
    assert_eq!(parse::toml(&perceptual("vqgan")).map(|_| ()), Ok(()));
    assert_eq!(paths(&perceptual("prior")), ["perceptual"]);
    assert_eq!(paths(&perceptual("vqgan").replace("backbones", "../b")), ["perceptual"]);
}

#[test]
fn measurements_without_segments_are_refused() {
    let sr = format!("{SMALLEST}output.sr = true\n");
    let said = "`output.sr` = true: must be false unless output.seg is true: a report's measurements are of segments";
    assert_eq!(faults(&sr), [("output.sr".to_owned(), said.to_owned())]);
    assert!(parse::toml(&format!("{sr}output.seg = true\n")).is_ok());
    // A request that asks for neither is the one that it was before there were any.
    let plain = parse::toml(SMALLEST).unwrap().to_canonical_json();
    assert!(!plain.contains("seg") && !plain.contains("\"sr\""), "{plain}");
    let names = "known here: geometry, transfer_syntax, masks, coco, yolo, seg, sr, backgrounds, evidence";
    assert!(faults(&format!("{SMALLEST}output.segs = true\n"))[0].1.contains(names));
}

#[test]
fn a_source_geometry_needs_a_source_and_its_positions_are_the_sources() {
    let source = format!("{SMALLEST}output.geometry = \"source\"\n");
    assert_eq!(parse::toml(&source).map(|_| ()), Ok(()));
    let said = "`output.geometry` = \"source\": must be \"request\" where background.mode is \"sample\": such a background has no \
                source image";
    assert_eq!(
        faults(&format!("{source}background.mode = \"sample\"\n")),
        [("output.geometry".to_owned(), said.to_owned())]
    );
    // The default is not written: a request that does not ask for it is the one that it was before it could be asked for.
    let asked = format!("{SMALLEST}output.geometry = \"request\"\n");
    assert_eq!(parse::toml(&asked), parse::toml(SMALLEST));
    assert!(!parse::toml(&asked).unwrap().to_canonical_json().contains("geometry"));
    let positions = |text: &str| format!("{text}placement.positions = [[1646, 2900.5]]\n");
    assert_eq!(paths(&positions(SMALLEST)), ["placement.positions[0]"]);
    assert_eq!(parse::toml(&positions(&source)).map(|_| ()), Ok(()));
    assert_eq!(paths(&positions(&source).replace("1646", "-1")), ["placement.positions[0]"]);
    assert!(faults(&format!("{SMALLEST}output.geometry = \"frame\"\n"))[0].1.contains("\"request\" or \"source\""));
}

#[test]
fn a_lesion_over_the_image_is_refused() {
    let text = format!("{SMALLEST}size = {{ width = 64, height = 128, spacing_mm = 0.5 }}\n");
    assert_eq!(parse::toml(&text).map(|_| ()), Ok(()));
    let text = format!("{text}lesions = {{ diameter_mm = {{ min = 4, max = 32 }} }}\n");
    let found = faults(&text);
    assert_eq!(found[0].0, "lesions.diameter_mm.max");
    assert!(found[0].1.contains("less than the image's shorter side, 32 mm (64 px of 0.5 mm)"), "{}", found[0].1);
}

#[test]
fn min_over_max_is_refused() {
    let text = format!("{SMALLEST}[lesions]\ndiameter_mm = {{ min = 14, max = 12 }}\n");
    let found = faults(&text);
    assert_eq!(found[0].1, "`lesions.diameter_mm.min` = 14: must be at most lesions.diameter_mm.max (12 mm)");
}

#[test]
fn unknown_and_missing_keys_are_named_all_at_once_with_the_known_ones() {
    let text = r#"
        version = 1
        kind = "synthesise"
        cuont = 3
        [lesions]
        diametre_mm = { min = 4, max = 12 }
        count = { min = 1, most = 3 }
    "#;
    let found = faults(text);
    let of = |path: &str| &found.iter().find(|(found, _)| found == path).unwrap_or_else(|| panic!("{found:#?}")).1;
    assert!(of("cuont").contains("`cuont` = 3: unknown key; known here: version, name, count, seed"), "{found:#?}");
    assert!(of("lesions.diametre_mm").contains("unknown key; known here: count, diameter_mm"));
    assert!(of("lesions.count.most").contains("known here: min, max"));
    assert_eq!(of("lesions.count.max"), "`lesions.count.max` = missing: is required, 1 to 16");
    assert_eq!(of("count"), "`count` = missing: is required, 1 to 1000000, or \"unbounded\" for a stream");
    assert_eq!(found.len(), 5);
}

#[test]
fn unknown_keys_do_not_hide_wrong_values() {
    assert_eq!(paths("version = 1\nkind = \"synthesise\"\ncount = 0\nextra = true"), ["extra", "count"]);
    assert_eq!(paths("version = 1\nkind = \"paint\"\ncount = 3"), ["kind"]);
    assert_eq!(paths("version = 2\ncount = 0\nextra = 1"), ["kind", "extra", "version", "count"]);
    let text = "version = 1\nname = \"a\"\nmodel = \"vae\"\npreset = \"tiny\"\ndata = [\"a\"]\nsteps = 0";
    assert_eq!(paths(text), ["kind", "model", "steps"]);
}

#[test]
fn syntax_errors_say_where() {
    let at = |result: Result<Request, Error>| match result.unwrap_err() {
        Error::Text { line, column, cause } => (line, column, cause),
        other => panic!("expected a place, got {other}"),
    };
    let (line, column, _) = at(parse::toml("version = 1\nkind = \"synthesise\ncount = 3"));
    assert_eq!(line, 2, "column {column}");
    let (line, column, cause) = at(parse::json("{\n  \"version\": 1,\n  \"kind\" \"synthesise\"\n}"));
    assert_eq!((line, column), (3, 10), "{cause}");
    assert!(!cause.contains(" at line "), "{cause}");
    let (.., cause) = at(parse::json("{\"version\": 1, \"kind\": \"synthesise\", \"count\": 3, \"count\": 4}"));
    assert!(cause.contains("duplicate field `count`"), "{cause}");
    let (.., cause) = at(parse::json("[]"));
    assert!(cause.contains("a table"), "{cause}");
}

#[test]
fn nothing_in_a_text_makes_reading_panic() {
    for end in 0..FULL.len() {
        if let Some(text) = FULL.get(..end) {
            let _ = parse::toml(text);
        }
    }
    for text in ["", "[]", "null", "3", "\"x\"", "{}", "{\"kind\":[]}", "[[kind]]", "kind = 1979-05-27", "\u{feff}x"] {
        let _ = parse::toml(text);
        let _ = parse::json(text);
    }
    let deep = "[".repeat(100_000);
    assert!(parse::json(&deep).is_err());
    assert!(parse::toml(&format!("a = {deep}")).is_err());
}

#[test]
fn the_same_request_has_the_same_id_however_it_was_written() {
    let site = SiteId::local();
    let id = |text: &str| RequestId::derive(&parse::toml(text).unwrap(), &site, None);
    let written_out = "count = 12\nseed = 0\nkind = \"synthesise\"\nversion = 1\n[size]\nheight = 512";
    assert_eq!(id(SMALLEST), id(written_out));
    assert_ne!(id(SMALLEST), id(&SMALLEST.replace("12", "13")));
    let request = parse::toml(SMALLEST).unwrap();
    let other: SiteId = "elsewhere".parse().unwrap();
    assert_ne!(id(SMALLEST), RequestId::derive(&request, &other, None));
    let keyed = |key: &str| RequestId::derive(&request, &site, Some(key));
    assert_eq!(keyed("a"), RequestId::derive(&parse::toml(FULL).unwrap(), &site, Some("a")));
    assert!(keyed("a") != keyed("b") && keyed("a") != id(SMALLEST));
    let job = JobId::synthesise(&id(SMALLEST), 7);
    assert_eq!(job.to_string().parse::<JobId>().unwrap(), job);
    assert!(job.as_str().ends_with("-s00007"));
    assert_eq!(job.synthesis_number(), Some(7));
    assert_eq!(JobId::train_round(&id(SMALLEST), 7).synthesis_number(), None);
    assert_eq!("-s".parse::<JobId>().map_or(None, |job| job.synthesis_number()), None);
}
