//! Requests from one and from several processes.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, Stdio},
};

use crate::harness::{Bench, Delivered};

const TWO: &str = "count = 2\nchunk = 1";
const MANY: &str = "count = 200\nchunk = 2";

#[test]
fn a_request_is_recorded_once_and_worked_for_once() {
    let bench = Bench::new();
    let id = bench.submit(TWO);
    assert_eq!(bench.submit(TWO), id);
    assert_ne!(bench.submit(&format!("{TWO}\nseed = 1")), id);
    assert!(bench.run(&["status", &id]).expect(0).contains("open       0/2 images"));

    let out = bench.path("out");
    let said = bench.run(&["watch", &id, "--out", out.to_str().unwrap()]);
    assert!(said.expect(0).trim().ends_with("manifest.json"));
    assert!(said.errors.contains("2/2 images"), "progress without a terminal is lines:\n{}", said.errors);
    let delivered = Delivered::read(&out);
    assert_eq!(delivered.indices(), [0, 1]);
    for (folder, count) in [("images/", 2), ("masks/", 2), ("backgrounds/", 2), ("labels-yolo/", 2), ("annotations", 1)]
    {
        assert_eq!(delivered.below(folder), count, "{folder}");
    }

    let again = bench.path("again");
    let request = bench.request(TWO);
    bench.run(&["submit", &request, "--wait", "--out", again.to_str().unwrap()]).expect(0);
    assert_eq!(Delivered::read(&again), delivered);
    assert!(bench.run(&["status", &id, "--json"]).expect(0).contains("\"done\":2"));
    bench.run(&["cancel", &id]).complains(1, &["is complete already (2 of 2 images, 0 failed)"]);
    assert!(bench.run(&["status", &id]).expect(0).contains("complete"));
}

/// Reads a child's standard error until a line has `text`, and gives what was read.
fn until(child: &mut Child, text: &str) -> String {
    let mut read = String::new();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    while !read.contains(text) {
        assert!(errors.read_line(&mut read).unwrap() > 0, "`{text}` was never said:\n{read}");
    }
    // What follows is read so that the child does not wait for a reader.
    std::thread::spawn(move || errors.read_to_end(&mut Vec::new()));
    read
}

#[test]
fn another_process_cancels_and_the_worker_stops_between_images() {
    let bench = Bench::new();
    let id = bench.submit(MANY);
    let mut child = bench.command(&["watch", &id]).stdout(Stdio::null()).spawn().unwrap();
    until(&mut child, "/200 images");
    bench.run(&["cancel", &id]).expect(0);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(bench.run(&["status", &id]).expect(0).contains("cancelled"));
    bench.run(&["watch", &id]).complains(1, &["ended early: cancelled by a person", "submit it again to go on"]);
    bench.run(&["cancel", &id]).complains(1, &["is cancelled already", "there is nothing to cancel"]);
    bench.run(&["cancel", "no-such-request"]).complains(1, &["there is no request `no-such-request`"]);
}

#[test]
fn a_second_process_follows_and_takes_over_when_the_first_dies() {
    let bench = Bench::new();
    let id = bench.submit(&TWO.replace("count = 2", "count = 4"));
    let mut first = bench.command(&["watch", &id]).stdout(Stdio::null()).spawn().unwrap();
    until(&mut first, "/4 images");
    let out = bench.path("out");
    let mut second =
        bench.command(&["watch", &id, "--out", out.to_str().unwrap()]).stdout(Stdio::null()).spawn().unwrap();
    let said = until(&mut second, "following it");
    assert!(said.contains(&format!("process {} works on", first.id())), "{said}");
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(0));
    assert_eq!(Delivered::read(&out).indices(), [0, 1, 2, 3]);
}

#[test]
fn an_interrupt_stops_after_the_image_and_the_request_goes_on() {
    let bench = Bench::new();
    let id = bench.submit(TWO);
    let mut child = bench.command(&["watch", &id]).stdout(Stdio::null()).spawn().unwrap();
    until(&mut child, "/2 images");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    bench.run(&["watch", &id]).expect(0);
    assert_eq!(bench.delivery(&id, "out").indices(), [0, 1]);
}

#[test]
fn an_exported_folder_is_completed_and_not_written_anew() {
    let bench = Bench::new();
    let id = bench.submit(TWO);
    bench.run(&["watch", &id]).expect(0);
    let expected = bench.delivery(&id, "out");
    let image = bench.path("out").join(&expected.manifest.images[0].file);
    let untouched = bench.path("out").join(&expected.manifest.images[1].file);
    let before = fs::metadata(&untouched).unwrap().modified().unwrap();
    fs::write(&image, b"cut off").unwrap();
    assert_eq!(bench.delivery(&id, "out"), expected);
    assert_eq!(fs::metadata(&untouched).unwrap().modified().unwrap(), before);
}
