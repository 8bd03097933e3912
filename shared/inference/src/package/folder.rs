//! A package as a folder: opened with every digest verified, written in one step.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::description::is_digest;
use super::{CARD_FILE, DESCRIPTION_FILE, Description, Draft, Error, Kind, digest, read};
use crate::onnx;
use crate::runtime::Runtime;
use crate::session::{Session, SessionOptions};

/// A verified package.
#[derive(Debug, Clone)]
pub struct Package {
    directory: PathBuf,
    digest: String,
    description: Description,
}

impl Package {
    /// Opens the package in `directory` and verifies every file that its description lists.
    ///
    /// A folder that is called by a digest must be that package. Errors name the file, what was expected and found.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let package = Self::open_unverified(directory)?;
        for name in package.description.files.keys() {
            package.file(name)?;
        }
        Ok(package)
    }

    /// Opens the description alone; its files are verified when they are read.
    pub(super) fn open_unverified(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(DESCRIPTION_FILE);
        let bytes = read(&path)?;
        let found = digest(&bytes);
        let expected = directory.file_name().and_then(|name| name.to_str()).filter(|name| is_digest(name));
        if let Some(expected) = expected.filter(|&expected| expected != found) {
            return Err(Error::Digest { path, expected: expected.to_owned(), found });
        }
        let description = parse(&path, &bytes)?;
        let faults = description.faults();
        if !faults.is_empty() {
            return Err(Error::Description { path, cause: faults.join("; ") });
        }
        Ok(Self { directory: directory.to_owned(), digest: found, description })
    }

    /// Writes a package under `root` as `{kind}/{digest}/` and opens it.
    ///
    /// `files` are the graphs that the draft names and any others (`card.md`, a checkpoint). The folder appears complete
    /// or not at all; writing the same package again returns the one that is there.
    pub fn write(root: &Path, draft: Draft, files: &[(&str, &[u8])]) -> Result<Self, Error> {
        let digests: BTreeMap<String, String> =
            files.iter().map(|(name, bytes)| ((*name).to_owned(), digest(bytes))).collect();
        let description = Description::from_draft(draft, digests);
        let mut faults = description.faults();
        if description.files.len() != files.len() {
            faults.push("two files have the same name".into());
        }
        if !faults.is_empty() {
            return Err(Error::Faults { kind: description.kind, name: description.name, faults });
        }
        let path = root.join(DESCRIPTION_FILE);
        let mut json = serde_json::to_vec_pretty(&description)
            .map_err(|error| Error::Description { path, cause: error.to_string() })?;
        json.push(b'\n');
        let folder = root.join(description.kind.name());
        let target = folder.join(digest(&json));
        if target.is_dir() {
            return Self::open(&target);
        }
        let temporary = Temporary::create(&folder)?;
        for (name, bytes) in files.iter().copied().chain([(DESCRIPTION_FILE, json.as_slice())]) {
            write_durably(&temporary.0.join(name), bytes)?;
        }
        match fs::rename(&temporary.0, &target) {
            Ok(()) => {}
            // Another process wrote the same bytes first.
            Err(_) if target.is_dir() => {}
            Err(source) => return Err(Error::File { action: "write", path: target, source }),
        }
        if let Ok(folder) = fs::File::open(&folder) {
            // Makes the rename itself durable; a file system that cannot do it for folders is no reason to fail.
            let _ = folder.sync_all();
        }
        Self::open(&target)
    }

    /// What the model is for.
    pub fn kind(&self) -> Kind {
        self.description.kind
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.description.name
    }

    /// SHA-256 of `model.json`, hex: the package's identity.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// All of `model.json`.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The package's folder.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The model card's path, where there is one.
    pub fn card(&self) -> Option<PathBuf> {
        Some(self.directory.join(CARD_FILE)).filter(|path| path.is_file())
    }

    /// The bytes of a file of the package, verified.
    pub fn file(&self, name: &str) -> Result<Vec<u8>, Error> {
        let expected = self.description.files.get(name).ok_or_else(|| self.missing("file", name))?;
        let path = self.directory.join(name);
        let bytes = read(&path)?;
        let found = digest(&bytes);
        if found == *expected { Ok(bytes) } else { Err(Error::Digest { path, expected: expected.clone(), found }) }
    }

    /// The ONNX bytes of the graph with this role, verified.
    pub fn graph(&self, role: &str) -> Result<Vec<u8>, Error> {
        let file = self.description.graphs.get(role).ok_or_else(|| self.missing("graph", role))?;
        self.file(file)
    }

    /// Whether the package has a graph with this role.
    pub fn has_graph(&self, role: &str) -> bool {
        self.description.graphs.contains_key(role)
    }

    /// What the graph with this role declares, with its initialisers (for warm starts).
    pub fn model(&self, role: &str) -> Result<onnx::Model, Error> {
        let bytes = self.graph(role)?;
        let path = self.directory.join(&self.description.graphs[role]);
        onnx::Model::parse(&bytes).map_err(|error| Error::Description { path, cause: error.to_string() })
    }

    /// A session of the graph with this role.
    pub fn session(&self, role: &str, runtime: &Runtime, options: &SessionOptions) -> Result<Session, Error> {
        let bytes = self.graph(role)?;
        let path = self.directory.join(&self.description.graphs[role]);
        Session::open(runtime, &bytes, options).map_err(|source| Error::Session { path, source })
    }

    fn missing(&self, what: &str, name: &str) -> Error {
        let present: Vec<&str> = match what {
            "graph" => self.description.graphs.keys().map(String::as_str).collect(),
            _ => self.description.files.keys().map(String::as_str).collect(),
        };
        Error::Missing {
            kind: self.description.kind,
            name: self.description.name.clone(),
            digest: self.digest.clone(),
            what: format!("{what} {name:?}"),
            present: if present.is_empty() { "none".into() } else { present.join(", ") },
        }
    }
}

/// The description in `bytes`, which came from `path`.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Description, Error> {
    serde_json::from_slice(bytes).map_err(|error| {
        let cause = missing(bytes).unwrap_or_else(|| error.to_string());
        Error::Description { path: path.to_owned(), cause }
    })
}

/// Which required keys a description lacks, all at once, and the next fault beside them; `None` where it has them all.
fn missing(bytes: &[u8]) -> Option<String> {
    let mut table: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(bytes).ok()?;
    let mut missing = Vec::new();
    for (key, blank) in Description::REQUIRED {
        if !table.contains_key(key) {
            missing.push(key);
            table.insert(key.to_owned(), serde_json::from_str(blank).unwrap_or_default());
        }
    }
    let other = serde_json::from_value::<Description>(table.into()).err().map(|error| format!("; {error}"));
    let text = || format!("it lacks {}{}", missing.join(", "), other.unwrap_or_default());
    (!missing.is_empty()).then(text)
}

/// A folder that is removed when it is dropped under its temporary name.
struct Temporary(PathBuf);

impl Temporary {
    fn create(folder: &Path) -> Result<Self, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!(".{}.{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = folder.join(name);
        let failed = |source| Error::File { action: "write", path: path.clone(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        // What a killed process of the same number left behind.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).map_err(failed)?;
        Ok(Self(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already where the rename succeeded.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let write = || {
        let mut file = fs::File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|source| Error::File { action: "write", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> Draft {
        let mut draft = Draft::new(Kind::Density, "lidc", "CC BY 3.0");
        draft.scores.insert("log_likelihood".into(), -1.25);
        draft
    }

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_written_package_opens_with_the_same_digest_and_twice_is_once() {
        let root = tempfile::tempdir().unwrap();
        let files: [(&str, &[u8]); 2] = [("density.json", b"{}"), ("card.md", b"# card")];
        let package = Package::write(root.path(), draft(), &files).unwrap();
        assert_eq!(package.directory(), root.path().join("density").join(package.digest()));
        assert_eq!(package.file("density.json").unwrap(), b"{}");
        assert!(package.card().is_some());
        assert_eq!(package.description().to_draft(), draft());
        let again = Package::write(root.path(), draft(), &files).unwrap();
        assert_eq!(again.digest(), package.digest());
        assert_eq!(names(&root.path().join("density")), [package.digest()]);
    }

    #[test]
    fn a_changed_file_or_description_is_refused_with_both_digests() {
        let root = tempfile::tempdir().unwrap();
        let package = Package::write(root.path(), draft(), &[("density.json", b"{}")]).unwrap();
        let path = package.directory().join("density.json");
        fs::write(&path, b"[]").unwrap();
        let text = Package::open(package.directory()).unwrap_err().to_string();
        assert!(text.contains("density.json") && text.contains(&digest(b"{}")) && text.contains(&digest(b"[]")));
        fs::remove_file(&path).unwrap();
        assert!(Package::open(package.directory()).unwrap_err().to_string().contains("density.json"));
        fs::write(&path, b"{}").unwrap();
        let description = package.directory().join(DESCRIPTION_FILE);
        let changed = fs::read_to_string(&description).unwrap().replace("-1.25", "-0.25");
        fs::write(&description, changed).unwrap();
        assert!(matches!(Package::open(package.directory()), Err(Error::Digest { .. })));
    }

    #[test]
    fn all_missing_keys_of_a_description_are_named() {
        let cause = |text: &str| parse(Path::new("model.json"), text.as_bytes()).unwrap_err().to_string();
        let text = cause(r#"{"kind": "unet", "name": "a"}"#);
        assert!(text.contains("it lacks version, licence"), "{text}");
        let text = cause(r#"{"colour": 1}"#);
        assert!(text.contains("it lacks version, kind, name, licence; unknown field `colour`"), "{text}");
        assert!(cause("[]").contains("model.json"));
    }

    #[test]
    fn nothing_is_left_behind_when_writing_fails() {
        let root = tempfile::tempdir().unwrap();
        let mut wrong = draft();
        wrong.graphs.insert("encoder".into(), "encoder.onnx".into());
        assert!(Package::write(root.path(), wrong, &[("density.json", b"{}")]).is_err());
        assert!(Package::write(root.path(), draft(), &[("../density.json", b"{}")]).is_err());
        assert!(Package::write(root.path(), draft(), &[("a", b"1"), ("a", b"2")]).is_err());
        assert!(names(root.path()).is_empty());
        let blocked = root.path().join("file");
        fs::write(&blocked, b"").unwrap();
        let text = Package::write(&blocked, draft(), &[("a", b"1")]).unwrap_err().to_string();
        assert!(text.contains("file"), "{text}");
    }

    #[test]
    fn a_missing_role_names_what_there_is() {
        let root = tempfile::tempdir().unwrap();
        let package = Package::write(root.path(), draft(), &[("density.json", b"{}")]).unwrap();
        let text = package.graph("encoder").unwrap_err().to_string();
        assert!(text.contains("graph \"encoder\"") && text.contains("none"), "{text}");
        assert!(package.file("other").unwrap_err().to_string().contains("density.json"));
    }
}
