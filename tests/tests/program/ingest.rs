//! A thousand files of a site, some of them bad, become a folder without identities.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hiresmed_imaging::{
    Plane, Spacing,
    dicom::{
        read,
        write::{PatientSlice, Syntax},
    },
};
use serde_json::Value;

use hiresmed_tests::servers::Seaweed;
use secrecy::ExposeSecret;

use crate::harness::{Bench, Said};

/// Identity in names of files, and in the files.
const NAME: &str = "DOE_JANE";
const NUMBER: &str = "MRN4711";

fn plane(number: u32) -> Plane {
    let pixels = (0..48 * 40).map(|at| ((at * 31 + number * 7) % 900) as f32 - 500.0);
    Plane::new(48, 40, pixels.collect()).with_spacing(Some(Spacing::square(0.8)))
}

fn bytes(number: u32) -> Vec<u8> {
    let plane = plane(number);
    let slice = PatientSlice {
        plane: &plane,
        patient_id: NUMBER,
        derivation: NAME,
        number,
        z_mm: f64::from(number),
        thickness_mm: 1.0,
        syntax: Syntax::Explicit,
    };
    slice.to_bytes().unwrap()
}

/// Writes file `number`: every twentieth is bad, in one way or another.
fn write(folder: &Path, number: u32) {
    let mut content = bytes(number);
    if number % 20 == 7 {
        match number / 20 % 4 {
            0 => content.truncate(content.len() / 2),
            1 => content = b"not an image at all".to_vec(),
            2 => content.clear(),
            _ => content.splice(..132, *b"DICX").for_each(drop),
        }
    }
    let study = folder.join(format!("{NAME}/study-{}", number % 3));
    fs::create_dir_all(&study).unwrap();
    fs::write(study.join(format!("IM{number:04}.dcm")), content).unwrap();
}

fn ingest(bench: &Bench, source: &Path, out: &Path, more: &[&str]) -> Said {
    let arguments = [&["ingest", source.to_str().unwrap(), "--out", out.to_str().unwrap()], more].concat();
    Said::of(bench.command(&arguments).output().unwrap())
}

/// The record's lines by end.
fn record(out: &Path) -> BTreeMap<String, Vec<Value>> {
    let mut ends: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in fs::read_to_string(out.join("ingest.jsonl")).unwrap().lines().filter(|line| !line.is_empty()) {
        // The first line says with what it was begun; one may be cut off.
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        let Some(end) = line["end"].as_str() else { continue };
        ends.entry(end.to_owned()).or_default().push(line.clone());
    }
    ends
}

/// Files of the output by name.
fn files(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(out.join("images")).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())).collect()
}

#[test]
fn of_a_thousand_files_the_bad_ones_are_reported_and_none_is_lost() {
    let bench = Bench::new();
    let (source, out) = (bench.path("pacs"), bench.path("clean"));
    (0..1000).for_each(|number| write(&source, number));
    let said = ingest(&bench, &source, &out, &[]);
    said.complains(
        2,
        &["950 images taken, 0 duplicates left out, 50 files refused", "a secret for this site was made"],
    );
    assert_eq!(said.out.trim(), out.join("index.csv").to_str().unwrap());
    let ends = record(&out);
    assert_eq!((ends["taken"].len(), ends["refused"].len()), (950, 50));
    let causes: Vec<&str> = ends["refused"].iter().map(|line| line["error"].as_str().unwrap()).collect();
    for part in ["truncated", "not a DICOM file"] {
        assert!(causes.iter().any(|cause| cause.contains(part)), "{part} in {causes:?}");
    }
    let written = files(&out);
    let index = fs::read_to_string(out.join("index.csv")).unwrap();
    assert_eq!((written.len(), index.lines().count()), (950, 951));
    // What can travel names nobody, and its pixels are those of the source.
    for text in [NAME, NUMBER] {
        assert!(!index.contains(text));
        let holds = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(!written.values().any(|bytes| holds(bytes)), "{text}");
    }
    for line in ends["taken"].iter().step_by(97) {
        let (from, to) = (line["source"].as_str().unwrap(), line["file"].as_str().unwrap());
        let planes = [source.join(from), out.join(to)].map(|path| read(path).unwrap().to_plane(0).unwrap());
        assert_eq!(planes[0], planes[1], "{from}");
    }

    // Again, nothing is to be done; what is new is taken, and what is the same image under another name is not.
    let changed = |out: &Path| files(out).keys().cloned().collect::<Vec<_>>();
    let before = changed(&out);
    write(&source, 1001);
    fs::copy(source.join(format!("{NAME}/study-0/IM0003.dcm")), source.join("copy of 3.dcm")).unwrap();
    ingest(&bench, &source, &out, &[]).complains(2, &["951 images taken, 1 duplicates left out, 50 files refused"]);
    assert_eq!(changed(&out).len(), before.len() + 1);

    // A run that was cut off in the middle of a line goes on.
    let path = out.join("ingest.jsonl");
    let text = fs::read(&path).unwrap();
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    ingest(&bench, &source, &out, &[]).complains(2, &["50 files refused"]);
    let ends = record(&out);
    let sources: std::collections::BTreeSet<&str> =
        ends.values().flatten().map(|line| line["source"].as_str().unwrap()).collect();
    assert_eq!(sources.len(), 1002, "every file has an end");
    assert_eq!(files(&out).len(), 951);
    assert_eq!(fs::read_to_string(out.join("index.csv")).unwrap().lines().count(), 952);
}

#[test]
fn two_machines_of_a_site_give_the_same_bytes_and_another_site_others() {
    let bench = Bench::new();
    let source = bench.path("pacs");
    (0..6).for_each(|number| write(&source, number));
    let secret = |text: &str| {
        let path = bench.path(text);
        fs::write(&path, text.repeat(16)).unwrap();
        path
    };
    let run = |out: &str, secret: &PathBuf, threads: &str| {
        let out = bench.path(out);
        let said = ingest(&bench, &source, &out, &["--secret-file", secret.to_str().unwrap(), "--threads", threads]);
        said.expect(0);
        files(&out)
    };
    let (ours, theirs) = (secret("ours"), secret("theirs"));
    assert_eq!(run("a", &ours, "1"), run("b", &ours, "4"));
    assert!(run("c", &theirs, "2").keys().all(|name| !bench.path("a/images").join(name).exists()));
    // What an output was begun with, it is gone on with; what was refused is tried again.
    let begun = |more: &[&str]| {
        let secret = ["--secret-file", ours.to_str().unwrap()];
        ingest(&bench, &source, &bench.path("a"), &[&secret[..], more].concat())
    };
    begun(&["--retain", "device"]).complains(2, &["begun with another secret, or other attributes were kept"]);
    fs::write(source.join("large.dcm"), vec![0; 2 << 20]).unwrap();
    begun(&["--limit-mib", "1"]).complains(2, &["6 images taken", "1 files refused"]);
    fs::write(source.join("large.dcm"), bytes(77)).unwrap();
    begun(&["--limit-mib", "1"]).complains(0, &["7 images taken", "0 files refused"]);
    let out = source.join("out");
    ingest(&bench, &bench.path("pacs"), &out, &[]).complains(2, &["lies in the source"]);
    assert!(!out.exists());
    ingest(&bench, &source, &bench.path("d"), &["--secret-file", "/nowhere"])
        .complains(2, &["/nowhere cannot be read"]);
    ingest(&bench, &bench.path("none"), &bench.path("e"), &[]).complains(2, &["name one that exists"]);
}

#[test]
fn a_bucket_of_others_is_taken_as_a_folder_is() {
    let bench = Bench::new();
    let (source, server) = (bench.path("pacs"), Seaweed::start());
    (0..30).for_each(|number| write(&source, number));
    for study in fs::read_dir(source.join(NAME)).unwrap() {
        for file in fs::read_dir(study.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let key = path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
            server.put_foreign(&format!("exports/{key}"), &fs::read(&path).unwrap());
        }
    }
    server.put_foreign("exports/series%20of%20one/IM+1.dcm", &bytes(50));
    server.put_foreign("others/IM0.dcm", &bytes(60));
    let settings = server.settings("exports");
    let secret = settings.secret_access_key.as_ref().unwrap().expose_secret().to_owned();
    let run = |source: &str, out: &str, key: &str| {
        let mut command = bench.command(&["ingest", source, "--out", bench.path(out).to_str().unwrap()]);
        command.env("AWS_ENDPOINT_URL_S3", settings.url.as_ref().unwrap());
        command.env("AWS_ACCESS_KEY_ID", settings.access_key_id.as_ref().unwrap()).env("AWS_SECRET_ACCESS_KEY", key);
        Said::of(command.output().unwrap())
    };
    let from_bucket = |out: &str| run(&settings.endpoint, out, &secret);
    from_bucket("clean").complains(2, &["29 images taken", "2 files refused"]);
    assert!(record(&bench.path("clean"))["taken"].iter().any(|line| line["source"] == "series of one/IM+1.dcm"));
    fs::create_dir(source.join("one more")).unwrap();
    fs::write(source.join("one more/file.dcm"), bytes(50)).unwrap();
    ingest(&bench, &source, &bench.path("folder"), &[]).complains(2, &["29 images taken"]);
    assert_eq!(files(&bench.path("clean")), files(&bench.path("folder")), "the same bytes from either");
    // Again: only what is new is read.
    server.put_foreign("exports/new.dcm", &bytes(70));
    from_bucket("clean").complains(2, &["30 images taken, 0 duplicates left out, 2 files refused"]);

    let said = run(&settings.endpoint, "wrong", "another secret");
    said.complains(1, &["the bucket cannot be listed", "SignatureDoesNotMatch"]);
    assert!(!said.errors.contains("another secret"));
    run("s3://", "none", &secret).complains(2, &["names no bucket"]);
    // A server that dies: what was taken stays, and the same command goes on.
    server.put_foreign("exports/last.dcm", &bytes(80));
    server.kill();
    from_bucket("clean").complains(1, &["the bucket cannot be listed"]);
    server.restart();
    // The server lists its objects a little before it can read them.
    let deadline = Instant::now() + Duration::from_secs(60);
    let said = loop {
        let said = from_bucket("clean");
        if said.code != Some(1) || Instant::now() > deadline {
            break said;
        }
        said.complains(1, &["the same command goes on where it stopped"]);
    };
    said.complains(2, &["31 images taken"]);
}
