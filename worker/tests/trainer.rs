//! The trainer as a program.

#![allow(clippy::unwrap_used, reason = "a test fails where an expectation does")]

use std::process::Command;

#[test]
fn a_trainer_says_what_it_cannot_do_before_it_takes_work() {
    let folder = tempfile::tempdir().unwrap();
    let work = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hiresmed-trainer"));
        let output = command.current_dir(&folder).arg("work").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let text = work(&["--device", "cuda", "--listen", "127.0.0.1:0"]);
    assert!(text.contains("setting `device`: this program trains on `cpu` alone, not on `cuda`"), "{text}");
    let text = work(&["--config", "nowhere.toml"]);
    assert!(text.contains("nowhere.toml"), "{text}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hiresmed-trainer"));
    let output =
        command.current_dir(&folder).args(["work", "--listen", "127.0.0.1:0"]).env("HIRESMED_RUNTIMES", "nowhere");
    let text = String::from_utf8(output.output().unwrap().stderr).unwrap();
    assert!(text.contains("nowhere/onnxruntime/lib/libonnxruntime.so"), "{text}");
}
