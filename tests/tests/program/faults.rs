//! Bad input and bad surroundings: each a clear error that names file, cause and next step.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::harness::{Bench, Delivered, Said, binary, slice};

const ONE: &str = "count = 1";

#[test]
fn impossible_requests_are_refused_with_every_fault() {
    let bench = Bench::new();
    let request = bench.path("impossible.toml");
    let text = "count = 0\nlesions.diameter_mm = { min = 20.0, max = 10.0 }\nsize = { width = 513 }";
    fs::write(&request, format!("version = 1\nkind = \"synthesise\"\n{text}")).unwrap();
    let request = request.to_str().unwrap();
    let texts =
        ["`count` = 0: must be 1 to 1000000", "`lesions.diameter_mm.min` = 20", "`size.width` = 513", "3 faults"];
    bench.run(&["submit", request]).complains(2, &texts);
    let request = bench.request("count = 1\ncuont = 2");
    bench.run(&["submit", &request]).complains(2, &["cuont"]);
    let request = bench.request("count = \"unbounded\"");
    bench.run(&["submit", &request]).complains(2, &["`count` = \"unbounded\"", "POST /v1/requests"]);
    bench.run(&["submit", "/no/such/request.toml"]).complains(2, &["/no/such/request.toml", "No such file"]);
    let request = bench.request("count = 1\nmodels.vqgan = \"nobody\"");
    bench.run(&["submit", &request]).complains(2, &["there is no vqgan model `nobody`", "known are default"]);
    let request = bench.request("count = 1\ninputs = \"nowhere\"");
    bench.run(&["submit", &request]).complains(2, &["`nowhere` has no images"]);
    assert!(bench.run(&["status"]).expect(0).is_empty(), "nothing refused is recorded");
}

/// A folder with one good slice and whatever is added to it.
fn inputs(bench: &Bench, good: usize) -> PathBuf {
    let folder = bench.path("inputs");
    fs::create_dir_all(&folder).unwrap();
    for number in 0..good {
        fs::copy(slice(8 + number), folder.join(format!("good-{number}.dcm"))).unwrap();
    }
    folder
}

/// A file, or the files below a folder.
fn below(root: &Path) -> Vec<PathBuf> {
    match fs::read_dir(root) {
        Ok(entries) => entries.flat_map(|entry| below(&entry.unwrap().path())).collect(),
        Err(_) => vec![root.to_path_buf()],
    }
}

/// A PNG of one row with colour, as small as it can be written by hand is still long: encoded by the image library.
fn colour_png(path: &Path) {
    image::RgbImage::from_fn(512, 512, |x, y| image::Rgb([x as u8, y as u8, 90])).save(path).unwrap();
}

#[test]
fn other_images_go_on_where_one_input_is_bad() {
    let bench = Bench::new();
    let folder = inputs(&bench, 1);
    let whole = fs::read(slice(9)).unwrap();
    fs::write(folder.join("truncated.dcm"), &whole[..whole.len() / 2]).unwrap();
    colour_png(&folder.join("colour.png"));
    let text = "count = 3\nchunk = 1";
    let request = bench.request(text);
    let out = bench.path("out");
    let arguments =
        ["submit", &request, "--inputs", folder.to_str().unwrap(), "--wait", "--out", out.to_str().unwrap()];
    let said = bench.run(&arguments);
    said.complains(0, &["warning: 2 images could not be made", "truncated.dcm", "colour.png"]);
    let delivered = Delivered::read(&out);
    assert_eq!((delivered.manifest.images.len(), delivered.manifest.failures.len()), (1, 2));
    // What the user's files are called is said on this machine, and is nowhere that travels.
    for failure in &delivered.manifest.failures {
        let reason = &failure.reason;
        assert!(reason.contains(".dcm: truncated") || reason.contains(".png: a grey image is needed"), "{reason}");
    }
    for name in ["truncated.dcm", "colour.png", "good-0"] {
        let holds = |path: &PathBuf| {
            let bytes = fs::read(path).unwrap();
            bytes.windows(name.len()).any(|part| part == name.as_bytes()) || path.to_string_lossy().contains(name)
        };
        let places = [out.clone(), bench.state().join("store"), bench.state().join("queue.sqlite")];
        let found: Vec<_> = places.iter().flat_map(|root| below(root)).filter(holds).collect();
        assert!(found.is_empty(), "`{name}` is in {found:?}");
    }

    let request = bench.request(&format!("{text}\non_failure = \"stop\""));
    let stopped = bench.run(&["submit", &request, "--inputs", folder.to_str().unwrap(), "--wait"]);
    stopped.complains(1, &["on_failure = \"stop\"", "submit it again: that is another request", "dead-letters retry"]);
}

#[test]
fn a_request_of_which_nothing_can_be_made_fails() {
    let bench = Bench::new();
    let folder = inputs(&bench, 0);
    colour_png(&folder.join("colour.png"));
    let request = bench.request(ONE);
    let out = bench.path("out");
    let said = bench.run(&[
        "submit",
        &request,
        "--inputs",
        folder.to_str().unwrap(),
        "--wait",
        "--out",
        out.to_str().unwrap(),
    ]);
    said.complains(1, &["made no image", "colour.png"]);
    assert!(!out.join("manifest.json").exists());
}

#[test]
fn a_package_with_other_bytes_than_its_digest_is_refused() {
    let bench = Bench::new();
    let vqgan = fs::read_dir(bench.path("pack/models/vqgan")).unwrap().next().unwrap().unwrap().path();
    let graph = fs::read_dir(&vqgan).unwrap().map(|entry| entry.unwrap().path());
    let graph = graph.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "onnx")).unwrap();
    let mut bytes = fs::read(&graph).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&graph, bytes).unwrap();
    let request = bench.request(ONE);
    let name = graph.file_name().unwrap().to_str().unwrap();
    bench.run(&["submit", &request, "--wait"]).complains(1, &[name, "SHA-256"]);
}

#[test]
fn an_output_folder_that_cannot_be_written_is_refused_before_any_work() {
    let bench = Bench::new();
    fs::write(bench.path("file"), b"").unwrap();
    let out = bench.path("file").join("out");
    let request = bench.request(ONE);
    let said = bench.run(&["submit", &request, "--wait", "--out", out.to_str().unwrap()]);
    said.complains(1, &["file/out cannot be written; choose another one with --out DIR"]);
    assert!(bench.run(&["status"]).expect(0).is_empty());
}

/// Runs a shell script that may mount, in a namespace of its own.
fn with_mounts(bench: &Bench, script: &str) -> Said {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "bash", "-euc", script]).env("HIRESMED", binary());
    bench.surround(&mut command);
    let output = command.output().expect("`unshare` of util-linux runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), out: text(output.stdout), errors: text(output.stderr) }
}

#[test]
fn a_read_only_or_full_output_folder_leaves_nothing_half_written() {
    let bench = Bench::new();
    let id = bench.submit("count = 2");
    bench.run(&["watch", &id]).expect(0);
    let out = bench.path("mounted");
    fs::create_dir(&out).unwrap();
    let out = out.to_str().unwrap();

    let script = format!("mount -t tmpfs -o ro none {out}; \"$HIRESMED\" export {id} --out {out}");
    with_mounts(&bench, &script).complains(1, &["cannot be written; choose another one", "Read-only file system"]);

    let script = format!(
        "mount -t tmpfs -o size=150k none {out}; \"$HIRESMED\" export {id} --out {out} || echo code $?; \
         cd {out}; find . -type f | sort | xargs -r sha256sum"
    );
    let said = with_mounts(&bench, &script);
    said.complains(0, &["No space left on device", &format!("`hiresmed export {id} --out DIR` tries again")]);
    assert!(said.out.contains("code 1"), "{}", said.out);
    assert!(!said.out.contains("manifest.json"));
    let whole = bench.delivery(&id, "out");
    let there = said.out.lines().filter_map(|line| line.split_once("  ./"));
    // The list of what was to be written is hidden, and for the next attempt.
    let there = there.filter(|(_, name)| !name.starts_with('.'));
    for (sha256, name) in there {
        assert_eq!(whole.files[name].to_string(), sha256, "{name} is there and not whole");
    }
}

#[test]
fn a_full_state_folder_is_said_and_the_request_goes_on_when_there_is_room() {
    let bench = Bench::new();
    let state = bench.path("small");
    fs::create_dir(&state).unwrap();
    let (request, state) = (bench.request("count = 3\nchunk = 1"), state.to_str().unwrap().to_owned());
    let script = format!(
        "mount -t tmpfs -o size=64m none {state}; export HIRESMED_STATE={state}; \
         id=$(\"$HIRESMED\" submit {request}); \
         free=$(df --output=avail -k {state} | tail -1); head -c $(( (free - 600) * 1024 )) /dev/zero > {state}/ballast; \
         \"$HIRESMED\" watch $id && echo unexpected; echo code $?; \
         rm {state}/ballast; \"$HIRESMED\" watch $id || {{ \"$HIRESMED\" dead-letters retry $id; \"$HIRESMED\" watch $id; }}; \
         \"$HIRESMED\" status $id"
    );
    let said = with_mounts(&bench, &script);
    said.complains(0, &["error: "]);
    assert!(said.errors.contains("space") || said.errors.contains("full"), "{}", said.errors);
    assert!(said.out.contains("complete   3/3 images"), "{}\n{}", said.out, said.errors);
}

#[test]
fn a_demo_on_a_full_disk_says_how_it_goes_on() {
    let bench = Bench::new();
    let out = bench.path("small");
    fs::create_dir(&out).unwrap();
    let out = out.to_str().unwrap();
    let demo = format!("\"$HIRESMED\" demo --out {out} --count 1 --seed 3");
    // The state finds room on another file system, the result does not.
    let script = format!(
        "mount -t tmpfs -o size=100k none {out}; mkdir {out}/.state; mount -t tmpfs none {out}/.state; \
         {demo} && echo unexpected; mount -o remount,size=100m {out}; umount {out}/.state; {demo}; ls {out}"
    );
    let said = with_mounts(&bench, &script);
    said.complains(0, &["No space left on device", "free space", "run the same command again"]);
    assert!(!said.errors.contains("hiresmed export"), "{}", said.errors);
    assert!(said.out.contains("report.html") && !said.out.contains("unexpected"), "{}", said.out);
}
