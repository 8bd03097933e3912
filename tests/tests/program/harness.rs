//! The real program, in a state folder of its own.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use hiresmed_protocol::{Digest, Manifest};

use crate::fixture;

/// The program that the tests are about: built beside them, or named by `HIRESMED_BINARY`.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("HIRESMED_BINARY") {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("hiresmed");
    assert!(path.is_file(), "{} is not there: `cargo build -p hiresmed-cli` builds it", path.display());
    path
}

/// The folder of the models and the sample that come with the project.
pub fn pack() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/pack")
}

/// The native libraries, fetched by `make build`.
fn runtimes() -> PathBuf {
    let named = std::env::var_os("HIRESMED_RUNTIMES").map(PathBuf::from);
    named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.runtimes"))
}

/// A slice of the sample series.
pub fn slice(number: usize) -> PathBuf {
    let mut slices: Vec<_> = fs::read_dir(pack().join("sample/series")).unwrap().map(|e| e.unwrap().path()).collect();
    slices.sort();
    slices.swap_remove(number)
}

/// A folder with a state and whatever a test writes beside it.
pub struct Bench {
    folder: tempfile::TempDir,
}

/// What a call of the program gave.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub errors: String,
}

impl Said {
    pub fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), errors: text(output.stderr) }
    }

    /// Asserts an exit code and gives standard output.
    pub fn expect(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "standard output:\n{}\nstandard error:\n{}", self.out, self.errors);
        &self.out
    }

    /// Asserts that standard error says each of `texts`.
    pub fn complains(&self, code: i32, texts: &[&str]) {
        self.expect(code);
        for text in texts {
            assert!(self.errors.contains(text), "`{text}` is not in:\n{}", self.errors);
        }
    }
}

impl Bench {
    /// A folder with the fixture's pack.
    pub fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        fixture::write(&bench.path("pack"));
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// A call of the program, with an environment that names nothing but this folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.surround(&mut command);
        command
    }

    /// Gives a command the environment of this folder.
    pub fn surround(&self, command: &mut Command) {
        command
            .env("HIRESMED_STATE", self.state())
            .env("HIRESMED_PACK", self.path("pack"))
            .env("HIRESMED_RUNTIMES", runtimes())
            .env("HOME", self.folder.path())
            .env_remove("XDG_STATE_HOME");
    }

    pub fn run(&self, arguments: &[&str]) -> Said {
        Said::of(self.command(arguments).output().unwrap())
    }

    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().unwrap()
    }

    /// Writes a request for small images and gives its path. `text` is TOML without version and kind.
    pub fn request(&self, text: &str) -> String {
        let path = self.path(&format!("request-{}.toml", &Digest::of(text.as_bytes()).to_string()[..8]));
        fs::write(&path, format!("version = 1\nkind = \"synthesise\"\n{text}\n{}", fixture::SMALL)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Records a request and gives its id.
    pub fn submit(&self, text: &str) -> String {
        self.run(&["submit", &self.request(text)]).expect(0).trim().to_owned()
    }

    /// Exports a request and reads what was delivered.
    pub fn delivery(&self, id: &str, name: &str) -> Delivered {
        let out = self.path(name);
        self.run(&["export", id, "--out", out.to_str().unwrap()]).expect(0);
        Delivered::read(&out)
    }
}

/// A delivery: its manifest, and the digest of every other file by its path; both without what tells times.
#[derive(Debug, PartialEq)]
pub struct Delivered {
    pub manifest: Manifest,
    pub files: BTreeMap<String, Digest>,
}

impl Delivered {
    /// Reads a delivery and holds the manifest against the files.
    pub fn read(folder: &Path) -> Self {
        let mut manifest: Manifest = serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
        // Times differ from run to run.
        manifest.stages.clear();
        let mut files = BTreeMap::new();
        let mut folders = vec![folder.to_path_buf()];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                    files.insert(name, Digest::of(&fs::read(&path).unwrap()));
                }
            }
        }
        files.remove("manifest.json");
        // Shows times too.
        files.remove("report.html");
        for image in &manifest.images {
            assert_eq!(files[&image.file], image.sha256, "{}", image.file);
        }
        Self { manifest, files }
    }

    /// Asserts that two deliveries are the same, byte by byte.
    pub fn equals(&self, other: &Self, when: &str) {
        assert_eq!(self.indices(), other.indices(), "{when}");
        for (name, sha256) in &self.files {
            assert_eq!(other.files.get(name), Some(sha256), "{name} {when}");
        }
        assert!(self == other, "manifests or sets of files differ {when}");
    }

    /// The indices of the images, in the manifest's order.
    pub fn indices(&self) -> Vec<u64> {
        self.manifest.images.iter().map(|image| image.index.0).collect()
    }

    /// Names of the files in a folder of the delivery.
    pub fn below(&self, folder: &str) -> usize {
        self.files.keys().filter(|name| name.starts_with(folder)).count()
    }
}
