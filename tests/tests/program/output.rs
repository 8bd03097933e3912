//! What becomes of the program when its output has no reader, or a file may grow no further.

use std::{
    io::Read,
    process::{Command, Stdio},
};

use crate::harness::{Bench, binary};

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    let bench = Bench::new();
    let id = bench.submit("count = 1");
    for arguments in [&["status"][..], &["status", "--json"], &["model", "list"], &["model", "list", "--json"]] {
        let mut child = bench.command(arguments);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = child.stdout(writer).spawn().unwrap();
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert_eq!((child.wait().unwrap().code(), errors.as_str()), (Some(141), ""), "{arguments:?}");
    }
    // Nobody hears what goes wrong: it goes wrong all the same, and no worse.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let code = bench.command(&["cancel", "no-such-request"]).stderr(writer).stdout(Stdio::null()).status().unwrap();
    assert_eq!(code.code(), Some(1));
    bench.run(&["status", &id]).expect(0);
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_with_a_message() {
    let bench = Bench::new();
    let id = bench.submit("count = 1");
    bench.run(&["watch", &id]).expect(0);
    let out = bench.path("out");
    let mut command = Command::new("bash");
    let script = "ulimit -f 8; exec \"$HIRESMED\" export \"$ID\" --out \"$OUT\"";
    command.args(["-c", script]).env("HIRESMED", binary()).env("ID", &id).env("OUT", &out);
    bench.surround(&mut command);
    let output = command.output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    // Whichever file grows first: SQLite calls it an I/O error of the disk.
    let cause = errors.contains("File too large") || errors.contains("disk I/O error");
    assert!(errors.contains("error: ") && errors.contains(bench.path("").to_str().unwrap()) && cause, "{errors}");
}
