//! What is sent arrives, through an archive that is busy, breaks off, forgets, or is late; and a run that ended is gone on with.

use std::{
    fs,
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::{
    archive::{Archive, Behaviour, Reaction},
    deliver, end, export, record, run, synthetic,
};
use crate::harness::{Bench, Said};

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
