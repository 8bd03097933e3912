//! What is refused, by the archive or before anything is sent, is said; the rest arrives.

use std::{fs, path::Path};

use hiresmed_imaging::{
    Plane,
    dicom::{
        ReadOptions, identify,
        write::{PatientSlice, Syntax},
    },
};

use super::{
    NAME,
    archive::{Archive, Behaviour, Reaction, gate},
    end, export, large, patients, record, run,
};
use crate::harness::Bench;

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

fn study(file: &Path) -> String {
    identify(file, ReadOptions::default()).unwrap().0.study
}
