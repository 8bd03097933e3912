//! Synthetic images go into an archive, whatever it does in between: against one that misbehaves as it is told.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use hiresmed_imaging::{
    Plane, Spacing, Window,
    dicom::{
        ReadOptions, identify,
        write::{Identity, PatientSlice, Syntax, Synthetic},
    },
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;

use crate::{
    archive::{Archive, Behaviour, Reaction, gate},
    harness::{Bench, Said},
};

const SIDE: usize = 32;
/// The name of a patient, in what is not synthetic.
const NAME: &str = "DOE_JANE";

fn plane(number: u64) -> Plane {
    let pixels = (0..(SIDE * SIDE) as u64).map(|at| ((at * 31 + number * 7) % 200) as f32 / 100.0 - 1.0);
    Plane::new(SIDE, SIDE, pixels.collect()).with_spacing(Some(Spacing::square(0.8)))
}

/// An image of this project's, and its SOP Instance UID.
pub fn synthetic(number: u64) -> (String, Vec<u8>) {
    let plane = plane(number);
    let image = Synthetic {
        plane: &plane,
        window: Window { low: -1000.0, high: 1000.0 },
        identity: Identity { request: "a delivery", image: number, object: "composite" },
        modality: "CT",
        description: "Synthetic lung CT with nodules",
        body_part: "CHEST",
        software_version: "1",
        syntax: Syntax::Explicit,
    };
    (image.sop_instance_uid(), image.to_bytes().unwrap())
}

/// Writes images into a folder as an export has them, with files that are no images, and gives their UIDs.
pub fn export(folder: &Path, count: u64) -> Vec<String> {
    for below in ["images", "masks", ".state"] {
        fs::create_dir_all(folder.join(below)).unwrap();
    }
    fs::write(folder.join("manifest.json"), "{}").unwrap();
    fs::write(folder.join("masks/0.png"), b"\x89PNG").unwrap();
    // Inputs, which a demo keeps in a hidden folder.
    fs::write(folder.join(".state/input.dcm"), patients()).unwrap();
    let write = |number| {
        let (uid, bytes) = synthetic(number);
        fs::write(folder.join(format!("images/{number:04}.dcm")), bytes).unwrap();
        uid
    };
    (0..count).map(write).collect()
}

fn patients() -> Vec<u8> {
    let plane = Plane::new(SIDE, SIDE, vec![0.0; SIDE * SIDE]);
    let slice = PatientSlice {
        plane: &plane,
        patient_id: NAME,
        derivation: "none",
        number: 1,
        z_mm: 0.0,
        thickness_mm: 1.0,
        syntax: Syntax::Explicit,
    };
    slice.to_bytes().unwrap()
}

/// An image of 2 MiB.
fn large(number: u32) -> Vec<u8> {
    let plane = Plane::new(1024, 1024, vec![0.0; 1 << 20]);
    let slice = PatientSlice {
        plane: &plane,
        patient_id: NAME,
        derivation: "none",
        number,
        z_mm: f64::from(number),
        thickness_mm: 1.0,
        syntax: Syntax::Explicit,
    };
    slice.to_bytes().unwrap()
}

/// The command, impatient unless it is told otherwise.
fn deliver(bench: &Bench, archive: &Archive, more: &[&str]) -> Command {
    let (out, url) = (bench.path("out"), archive.url());
    let arguments = ["deliver", out.to_str().unwrap(), "--to", &url, "--check-for", "1"];
    let impatient: &[&str] = if more.contains(&"--first-wait") { &[] } else { &["--first-wait", "0.02"] };
    bench.command(&[&arguments[..], impatient, more].concat())
}

fn run(bench: &Bench, archive: &Archive, more: &[&str]) -> Said {
    Said::of(deliver(bench, archive, more).output().unwrap())
}

/// The record's lines but the first.
pub fn lines(out: &Path) -> Vec<Value> {
    let text = fs::read_to_string(out.join("delivery.jsonl")).unwrap();
    text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The record's lines by the file's name.
pub fn record(out: &Path) -> BTreeMap<String, Value> {
    let lines = lines(out);
    let name =
        |line: &Value| PathBuf::from(line["path"].as_str().unwrap()).file_name().unwrap().to_str().unwrap().to_owned();
    let by_name: BTreeMap<String, Value> = lines.iter().map(|line| (name(line), line.clone())).collect();
    assert_eq!(by_name.len(), lines.len(), "a record a file: {lines:?}");
    by_name
}

/// Outcome and reason of a line.
pub fn end(line: &Value) -> (&str, &str) {
    (line["outcome"].as_str().unwrap(), line["reason"].as_str().unwrap_or_default())
}

#[test]
fn everything_arrives_through_an_archive_that_is_busy_ends_connections_and_breaks_off() {
    let bench = Bench::new();
    let out = bench.path("out");
    let uids = export(&out, 20);
    let script = [
        Reaction::Status(503, None),
        Reaction::Status(429, Some("1")),
        Reaction::Truncated,
        Reaction::Status(408, None),
        Reaction::Status(500, None),
    ];
    let archive = Archive::start(Behaviour { script: script.into(), page: 7, ..Behaviour::default() });
    let mut command = deliver(&bench, &archive, &["--connections", "1"]);
    command.env("HIRESMED_ARCHIVE_USER", "me").env("HIRESMED_ARCHIVE_PASSWORD", "s3cret").env("HIRESMED_LOG", "trace");
    let said = Said::of(command.output().unwrap());
    said.complains(0, &["20 files stored and found in the archive, 0 of them by earlier runs; 2 that are no DICOM"]);
    assert_eq!(said.out.trim(), out.join("delivery.jsonl").to_str().unwrap());
    for secret in ["s3cret", "bWU6czNjcmV0"] {
        assert!(!said.errors.contains(secret), "{}", said.errors);
    }
    {
        let behaviour = archive.behaviour();
        assert!(uids.iter().all(|uid| behaviour.instances.contains_key(uid)) && behaviour.instances.len() == 20);
        assert!(behaviour.stores.iter().all(|store| store.authorization.as_deref() == Some("Basic bWU6czNjcmV0")));
        let waited = behaviour.stores[2].at - behaviour.stores[1].at;
        assert!(waited >= Duration::from_secs(1), "Retry-After: 1 and {waited:?}");
        assert_eq!(behaviour.searches, 3, "pages of seven");
    }
    let lines = record(&out);
    assert_eq!(lines.len(), 20);
    for (line, uid) in lines.values().zip(&uids) {
        assert_eq!((end(line).0, line["sop_instance"].as_str().unwrap()), ("verified", uid.as_str()));
        assert_eq!(line["attempts"], 6);
    }
    let sent = archive.behaviour().stores.len();
    run(&bench, &archive, &[]).complains(0, &["20 files stored and found in the archive, 20 of them by earlier runs"]);
    assert_eq!(archive.behaviour().stores.len(), sent, "the second run sends nothing");
    // Another image is; and so is one that was changed.
    let (uid, bytes) = synthetic(99);
    fs::write(out.join("images/0099.dcm"), bytes).unwrap();
    run(&bench, &archive, &[]).complains(0, &["21 files", "20 of them by earlier runs"]);
    assert!(archive.behaviour().instances.contains_key(&uid));
    assert_eq!(archive.behaviour().stores.last().unwrap().parts, 1);
}

#[test]
fn what_is_too_large_together_is_sent_apart() {
    let bench = Bench::new();
    let out = bench.path("out");
    let uids = export(&out, 40);
    let size = fs::metadata(out.join("images/0000.dcm")).unwrap().len() as usize;
    let large = {
        let plane = Plane::new(128, 128, vec![0.0; 128 * 128]);
        PatientSlice {
            plane: &plane,
            patient_id: "x",
            derivation: "none",
            number: 1,
            z_mm: 0.0,
            thickness_mm: 1.0,
            syntax: Syntax::Explicit,
        }
        .to_bytes()
        .unwrap()
    };
    fs::write(out.join("images/large.dcm"), large).unwrap();
    let archive = Archive::start(Behaviour { limit_bytes: Some(size * 7), ..Behaviour::default() });
    let said = run(&bench, &archive, &["--any", "--connections", "1"]);
    said.complains(2, &["40 files stored", "1 refused by the archive", "says why"]);
    assert_eq!(end(&record(&out)["large.dcm"]), ("refused", "HTTP 413 Payload Too Large"));
    let behaviour = archive.behaviour();
    assert!(uids.iter().all(|uid| behaviour.instances.contains_key(uid)));
    let refused = behaviour.stores.iter().filter(|store| store.bytes > size * 7).count();
    assert!(refused <= 5, "{refused} of {} were too large", behaviour.stores.len());
}

#[test]
fn a_body_that_is_refused_before_it_was_sent_is_known_to_be_too_large() {
    let bench = Bench::new();
    let out = bench.path("out");
    export(&out, 0);
    // More than what lies in buffers between us and the archive.
    (0..16).for_each(|number| fs::write(out.join(format!("{number}.dcm")), large(number)).unwrap());
    let archive = Archive::start(Behaviour::default());
    let url = gate(&archive, 7 << 20);
    let out = out.to_str().unwrap();
    let arguments = ["deliver", out, "--to", &url, "--any", "--retries", "0", "--check-for", "1", "--connections", "1"];
    bench.run(&arguments).complains(0, &["16 files stored and found"]);
    let parts: Vec<usize> = archive.behaviour().stores.iter().map(|store| store.parts).collect();
    assert_eq!(parts, [3, 3, 3, 3, 3, 1], "15 files fit in 32 MiB, 7 in half of these, 3 in half of those");
}

#[test]
fn a_run_that_was_killed_is_gone_on_with() {
    let bench = Bench::new();
    let out = bench.path("out");
    export(&out, 700);
    let archive = Archive::start(Behaviour::default());
    archive.behaviour().script = [Reaction::Body("{}"), Reaction::Body("{}"), Reaction::Silence].into();
    let mut child = deliver(&bench, &archive, &["--batch-mib", "1", "--connections", "1"]).spawn().unwrap();
    let began = Instant::now();
    while archive.behaviour().stores.len() < 3 {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let stored = archive.behaviour().instances.len();
    assert!(stored > 300 && stored < 700, "{stored}");
    // What was stored is searched for first; what was under way is sent again, in silence once more.
    archive.behaviour().script = [Reaction::Silence].into();
    let said = run(&bench, &archive, &["--silence", "1"]);
    said.complains(0, &["700 files stored and found in the archive, 0 of them by earlier runs"]);
    let parts: Vec<usize> = archive.behaviour().stores.iter().skip(3).map(|store| store.parts).collect();
    assert_eq!(parts, [700 - stored; 2], "the archive was silent, and then it was not");
}

#[test]
fn each_instance_has_its_own_end_and_the_offender_of_a_batch_is_found() {
    let bench = Bench::new();
    let out = bench.path("out");
    let uids = export(&out, 32);
    let failures = [(3, 0x0122), (4, 0xC122), (5, 0x0111), (6, 0xA700), (7, 0x0110), (8, 0xA901)];
    let archive = Archive::start(Behaviour {
        poison: Some(uids[20].clone()),
        failures: failures.map(|(number, reason)| (uids[number].clone(), reason)).into(),
        warnings: [(uids[9].clone(), 0xB000)].into(),
        // One that another has brought.
        instances: [(uids[5].clone(), study(&out.join("images/0005.dcm")))].into(),
        ..Behaviour::default()
    });
    run(&bench, &archive, &[]).complains(2, &["26 files stored and found", "6 refused by the archive"]);
    let lines = record(&out);
    for (number, outcome, reason) in [
        (0, "verified", ""),
        (3, "refused", "0122: the SOP class is not supported"),
        (4, "refused", "C122: the transfer syntax is not supported"),
        (5, "verified", "0111: an instance with this UID is there already"),
        (6, "refused", "A700: the archive is out of resources"),
        (7, "refused", "0110: the archive failed in processing it"),
        (8, "refused", "A901: the data set does not match its SOP class"),
        (9, "verified", "B000: data elements were coerced"),
        (20, "refused", "HTTP 400 Bad Request"),
        (31, "verified", ""),
    ] {
        assert_eq!(end(&lines[&format!("{number:04}.dcm")]), (outcome, reason), "{number}");
    }
    let stores = archive.behaviour().stores.len();
    assert!(stores <= 12, "{stores} requests for one offender among 32");
    // What was refused is tried again, and nothing else.
    archive.behaviour().failures.clear();
    archive.behaviour().poison = None;
    run(&bench, &archive, &[]).complains(0, &["32 files stored and found in the archive, 26 of them by earlier runs"]);
    assert_eq!(archive.behaviour().stores.last().unwrap().parts, 6);
}

fn study(file: &Path) -> String {
    identify(file, ReadOptions::default()).unwrap().0.study
}

#[test]
fn an_answer_that_says_nothing_is_made_up_for_by_the_search_and_a_late_index_is_waited_for() {
    for text in ["{", "<html>thanks</html>", "", "{}", "[]", "{\"00081199\": 5}"] {
        let bench = Bench::new();
        export(&bench.path("out"), 3);
        let script = [Reaction::Body(text)].into();
        let archive = Archive::start(Behaviour { script, blind_searches: 2, ..Behaviour::default() });
        run(&bench, &archive, &[]).complains(0, &["3 files stored and found"]);
        assert_eq!(archive.behaviour().stores.len(), 1, "{text}");
    }
}

#[test]
fn what_is_not_found_is_reported_and_searched_for_before_it_is_sent_again() {
    let bench = Bench::new();
    let out = bench.path("out");
    let uids = export(&out, 5);
    let archive = Archive::start(Behaviour { blind_searches: usize::MAX, ..Behaviour::default() });
    run(&bench, &archive, &[])
        .complains(1, &["0 files stored and found", "5 stored as the archive said and not found"]);
    assert_eq!(end(&record(&out)["0004.dcm"]), ("missing", "stored as the archive said, and not found by QIDO-RS"));
    archive.behaviour().blind_searches = 0;
    archive.behaviour().instances.remove(&uids[4]);
    run(&bench, &archive, &[]).complains(0, &["5 files stored and found in the archive, 0 of them by earlier runs"]);
    let parts: Vec<usize> = archive.behaviour().stores.iter().map(|store| store.parts).collect();
    assert_eq!(parts, [5, 1]);
    assert_eq!(record(&out)["0004.dcm"]["attempts"], 2);
}

#[test]
fn an_archive_that_takes_nothing_ends_the_run_with_the_next_step() {
    let cases = [
        (401, 1, "it does not take the credentials"),
        (302, 1, "another address"),
        (404, 1, "check --to"),
        (503, 3, "503 Service Unavailable, after 3 attempts"),
    ];
    for (status, stores, text) in cases {
        let bench = Bench::new();
        export(&bench.path("out"), 4);
        let always = Some(Reaction::Status(status, None));
        let archive = Archive::start(Behaviour { always, ..Behaviour::default() });
        let said = run(&bench, &archive, &["--retries", "2"]);
        said.complains(1, &[text, "the delivery ended early; the same command goes on", "0 files stored and found"]);
        assert_eq!(archive.behaviour().stores.len(), stores, "{status}");
        archive.behaviour().always = None;
        run(&bench, &archive, &[]).complains(0, &["4 files stored and found"]);
    }
    // Nobody listens.
    let bench = Bench::new();
    export(&bench.path("out"), 4);
    let archive = Archive::start(Behaviour::default());
    let url = archive.url();
    drop(archive);
    let out = bench.path("out");
    let arguments = ["deliver", out.to_str().unwrap(), "--to", &url, "--first-wait", "0.02", "--retries", "1"];
    bench.run(&arguments).complains(1, &["the archive cannot be reached", "refused", "after 2 attempts"]);
    // Every batch breaks off: files are not tried one by one for ever.
    let bench = Bench::new();
    export(&bench.path("out"), 4);
    let archive = Archive::start(Behaviour { always: Some(Reaction::Status(500, None)), ..Behaviour::default() });
    run(&bench, &archive, &["--retries", "1", "--connections", "1"]).complains(1, &["500 Internal Server Error"]);
    let stores = archive.behaviour().stores.len();
    assert!(stores <= 16, "{stores}");
}

#[test]
fn what_does_not_say_that_it_is_synthetic_stays_unless_it_is_asked_for() {
    let bench = Bench::new();
    let out = bench.path("out");
    export(&out, 3);
    let whole = fs::read(out.join("images/0000.dcm")).unwrap();
    fs::write(out.join("images/patient.dcm"), patients()).unwrap();
    fs::write(out.join("images/cut.dcm"), &whole[..whole.len() - 100]).unwrap();
    fs::write(out.join("images/empty.dcm"), b"").unwrap();
    fs::write(out.join("same.dcm"), &whole).unwrap();
    let mut other = whole;
    *other.last_mut().unwrap() ^= 1;
    fs::write(out.join("zother.dcm"), other).unwrap();
    let archive = Archive::start(Behaviour::default());
    let said = run(&bench, &archive, &[]);
    said.complains(2, &["3 files stored", "1 left out: they do not say", "3 unreadable", "1 the same as others"]);
    assert!(!said.errors.contains(NAME));
    assert_eq!(archive.behaviour().instances.len(), 3);
    let lines = record(&out);
    assert_eq!(lines.len(), 8, "the hidden one is not looked at");
    assert_eq!(end(&lines["patient.dcm"]).0, "left_out");
    assert!(end(&lines["cut.dcm"]).1.contains("truncated"), "{}", lines["cut.dcm"]);
    assert_eq!(end(&lines["same.dcm"]).0, "duplicate");
    assert!(end(&lines["zother.dcm"]).1.contains("another object has its SOP Instance UID"), "{}", lines["zother.dcm"]);
    run(&bench, &archive, &["--any"]).complains(2, &["4 files stored and found in the archive, 3 of them"]);
    assert_eq!(archive.behaviour().instances.len(), 4);
    // A report is of one archive.
    let elsewhere = Archive::start(Behaviour::default());
    run(&bench, &elsewhere, &[]).complains(2, &["is of deliveries to", "--report FILE"]);
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_sent() {
    let bench = Bench::new();
    let out = bench.path("out");
    export(&out, 1);
    let refused = |to: &str, more: &[&str], texts: &[&str]| {
        let said = bench.run(&[&["deliver", out.to_str().unwrap(), "--to", to], more].concat());
        said.complains(2, texts);
        assert!(!said.errors.contains("s3cret"), "{}", said.errors);
    };
    refused("http://pacs.example/dicom-web", &[], &["plain HTTP", "--insecure-http"]);
    refused("https://me:s3cret@pacs.example/", &[], &["credentials"]);
    refused("pacs.example", &[], &["https://pacs.example/dicom-web"]);
    refused("https://pacs.example", &["--ca", "/no/such/file"], &["--ca /no/such/file"]);
    refused("https://pacs.example", &["--token-file", "/no/such/file"], &["/no/such/file cannot be read"]);
    let said = bench.run(&["deliver", "/no/such/folder", "--to", "https://pacs.example"]);
    said.complains(2, &["/no/such/folder cannot be read"]);
    let empty = bench.path("empty");
    fs::create_dir(&empty).unwrap();
    bench
        .run(&["deliver", empty.to_str().unwrap(), "--to", "https://pacs.example"])
        .complains(2, &["there are no files"]);
    assert!(!out.join("delivery.jsonl").exists());
}

#[test]
fn tls_is_checked_against_the_authority_that_is_named() {
    let bench = Bench::new();
    export(&bench.path("out"), 2);
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let write = |name: &str, text: String| {
        let path = bench.path(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (certificate, key) = (write("pacs.pem", certificate.pem()), write("pacs.key", key.serialize_pem()));
    let (ca, token) = (write("ca.pem", issuer.pem()), write("token", "t0ken\n".to_owned()));
    let archive = Archive::start_tls(Behaviour::default(), &certificate, &key);
    let began = Instant::now();
    run(&bench, &archive, &["--first-wait", "20", "--retries", "1"])
        .complains(1, &["certificate is not trusted", "--ca"]);
    assert!(began.elapsed() < Duration::from_secs(10), "time does not mend it");
    let trusted = ["--ca", ca.to_str().unwrap(), "--token-file", token.to_str().unwrap()];
    run(&bench, &archive, &trusted).complains(0, &["2 files stored and found"]);
    assert_eq!(archive.behaviour().stores[0].authorization.as_deref(), Some("Bearer t0ken"));
}

#[test]
fn an_interrupt_ends_it_in_order_and_the_next_run_goes_on() {
    let bench = Bench::new();
    export(&bench.path("out"), 4);
    let always = Some(Reaction::Status(503, None));
    let archive = Archive::start(Behaviour { always, ..Behaviour::default() });
    let child = deliver(&bench, &archive, &["--first-wait", "60"]).spawn().unwrap();
    let began = Instant::now();
    while archive.behaviour().stores.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    let said = Said::of(child.wait_with_output().unwrap());
    said.complains(130, &["stopped; the same command goes on", "4 not sent yet"]);
    assert_eq!(end(&record(&bench.path("out"))["0000.dcm"]).0, "unsent");
    archive.behaviour().always = None;
    run(&bench, &archive, &[]).complains(0, &["4 files stored and found"]);
}
