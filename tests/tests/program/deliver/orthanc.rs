//! Synthetic images go into a real PACS: Orthanc.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use hiresmed_tests::servers::Orthanc;
use serde_json::Value;

use super::{end, export, lines, record};
use crate::harness::{Bench, Said, binary};

/// The command in the server's namespace.
fn deliver(bench: &Bench, orthanc: &Orthanc, out: &Path, more: &[&str]) -> Command {
    let mut command = orthanc.command(binary());
    command.arg("deliver").arg(out).args(["--to", &orthanc.address()]).args(more);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    bench.surround(&mut command);
    let (user, password) = orthanc.account();
    command.env("HIRESMED_ARCHIVE_USER", user).env("HIRESMED_ARCHIVE_PASSWORD", password);
    command
}

fn run(bench: &Bench, orthanc: &Orthanc, out: &Path, more: &[&str]) -> Said {
    Said::of(deliver(bench, orthanc, out, more).output().unwrap())
}

fn count(orthanc: &Orthanc) -> u64 {
    let statistics: Value = serde_json::from_str(&orthanc.get("/statistics").unwrap()).unwrap();
    statistics["CountInstances"].as_u64().unwrap()
}

/// Takes the Series Instance UID away, by another tag: what is left is a valid file and no valid object.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let series = [0x20, 0, 0x0E, 0, b'U', b'I'];
    let at = bytes.windows(6).position(|window| window == series).unwrap();
    bytes[at + 2] = 0x0F;
    fs::write(path, bytes).unwrap();
}

#[test]
fn all_but_the_damaged_one_arrive_at_orthanc_and_a_second_run_sends_nothing() {
    let bench = Bench::new();
    let orthanc = Orthanc::start();
    let out = bench.path("out");
    export(&out, 24);
    damage(&out.join("images/0010.dcm"));
    let said = run(&bench, &orthanc, &out, &[]);
    said.complains(2, &["23 files stored and found in the archive", "1 refused by the archive"]);
    assert_eq!(count(&orthanc), 23);
    let lines = record(&out);
    assert_eq!(end(&lines["0010.dcm"]), ("refused", "C000: the archive cannot understand the object"));
    assert_eq!(end(&lines["0023.dcm"]), ("verified", ""));
    let attempts = |line: &Value| line["attempts"].as_u64().unwrap();
    run(&bench, &orthanc, &out, &[]).complains(2, &["23 files stored and found in the archive, 23 of them by earlier"]);
    let after = record(&out);
    assert_eq!(attempts(&after["0023.dcm"]), attempts(&lines["0023.dcm"]));
    assert_eq!(attempts(&after["0010.dcm"]), attempts(&lines["0010.dcm"]) + 1);
    // Without the record everything is sent again, and is there once.
    fs::remove_file(out.join("delivery.jsonl")).unwrap();
    run(&bench, &orthanc, &out, &[]).complains(2, &["23 files stored and found in the archive, 0 of them by earlier"]);
    assert_eq!(count(&orthanc), 23);
    // With a wrong password nothing is.
    fs::remove_file(out.join("delivery.jsonl")).unwrap();
    let refused = deliver(&bench, &orthanc, &out, &[]).env("HIRESMED_ARCHIVE_PASSWORD", "another").output().unwrap();
    Said::of(refused).complains(1, &["401 Unauthorized", "credentials"]);
}

#[test]
fn everything_arrives_although_orthanc_is_killed_in_the_middle() {
    let bench = Bench::new();
    let orthanc = Orthanc::start();
    let out = bench.path("out");
    // Files of 3.5 KiB in requests of 1 MiB: several requests.
    let all = export(&out, 900).len() as u64;
    let mut child = deliver(&bench, &orthanc, &out, &["--batch-mib", "1", "--connections", "1"]).spawn().unwrap();
    wait(&mut child, || count(&orthanc) > 50);
    orthanc.kill();
    assert!(child.try_wait().unwrap().is_none(), "it was killed in the middle");
    sleep(Duration::from_secs(1));
    orthanc.restart();
    let there = count(&orthanc);
    assert!(there < all, "it was killed in the middle");
    Said::of(child.wait_with_output().unwrap())
        .complains(0, &[&format!("{all} files stored and found in the archive")]);
    assert_eq!(count(&orthanc), all);
}

#[test]
fn what_a_request_has_made_arrives_whole() {
    let bench = Bench::new();
    let orthanc = Orthanc::start();
    let (out, request) = (bench.path("out"), bench.request("count = 2"));
    bench.run(&["submit", &request, "--wait", "--out", out.to_str().unwrap()]).expect(0);
    // Images and their backgrounds.
    run(&bench, &orthanc, &out, &[]).complains(0, &["4 files stored and found in the archive"]);
    let instances: Vec<String> = serde_json::from_str(&orthanc.get("/instances").unwrap()).unwrap();
    let lines = lines(&out);
    assert_eq!((instances.len(), lines.len()), (4, 4));
    let size = |id: &String| {
        let of_file: Value = serde_json::from_str(&orthanc.get(&format!("/instances/{id}")).unwrap()).unwrap();
        let uid = of_file["MainDicomTags"]["SOPInstanceUID"].as_str().unwrap().to_owned();
        (uid, of_file["FileSize"].as_u64().unwrap())
    };
    let there: BTreeMap<String, u64> = instances.iter().map(size).collect();
    for line in &lines {
        let uid = line["sop_instance"].as_str().unwrap();
        assert_eq!(Some(&line["size_bytes"].as_u64().unwrap()), there.get(uid), "{line}");
    }
}

fn wait(child: &mut Child, ready: impl Fn() -> bool) {
    let began = Instant::now();
    while !ready() {
        assert!(child.try_wait().unwrap().is_none(), "it has ended already");
        assert!(began.elapsed() < Duration::from_secs(120));
        sleep(Duration::from_millis(20));
    }
}
