//! The packages under one or several roots, by name or digest.

use std::fs;
use std::path::PathBuf;

use super::{Description, Error, Kind, Package};

/// A package that a catalogue found; its files are verified when it is opened.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The package's digest, hex.
    pub digest: String,
    /// The package's folder.
    pub directory: PathBuf,
    /// All of `model.json`.
    pub description: Description,
    root: usize,
}

impl Entry {
    /// The model card's path, where there is one.
    pub fn card(&self) -> Option<PathBuf> {
        Some(self.directory.join(super::CARD_FILE)).filter(|path| path.is_file())
    }

    fn label(&self) -> String {
        format!("{} ({})", self.description.name, &self.digest[..12.min(self.digest.len())])
    }
}

/// The packages under several roots; where two roots have the same name, the earlier root's package is meant.
#[derive(Debug, Default)]
pub struct Catalogue {
    entries: Vec<Entry>,
    faults: Vec<Error>,
}

impl Catalogue {
    /// Lists the packages under `roots`. A root that is not there has no packages; a package that cannot be read is kept
    /// aside in [`faults`](Self::faults), so that one bad package does not hide the others.
    pub fn open(roots: &[PathBuf]) -> Result<Self, Error> {
        let mut catalogue = Self::default();
        for (root, path) in roots.iter().enumerate() {
            for kind in Kind::ALL {
                catalogue.read_kind(root, path.join(kind.name()), kind)?;
            }
        }
        catalogue.entries.sort_by(|a, b| {
            let key = |entry: &Entry| (entry.root, entry.description.kind);
            let names = || a.description.name.cmp(&b.description.name).then_with(|| a.digest.cmp(&b.digest));
            key(a).cmp(&key(b)).then_with(names)
        });
        Ok(catalogue)
    }

    /// Every package: by root, kind, name.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The packages of one kind.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.description.kind == kind)
    }

    /// Why some packages are not listed.
    pub fn faults(&self) -> &[Error] {
        &self.faults
    }

    /// The package of `kind` whose name is `reference`, or whose digest begins with it (six digits at least).
    pub fn find(&self, kind: Kind, reference: &str) -> Result<&Entry, Error> {
        let by_name = self.of_kind(kind).filter(|entry| entry.description.name == reference).collect::<Vec<_>>();
        let fitting = if by_name.is_empty() && reference.len() >= 6 {
            self.of_kind(kind).filter(|entry| entry.digest.starts_with(&reference.to_ascii_lowercase())).collect()
        } else {
            by_name
        };
        let Some(first) = fitting.first() else {
            let present: Vec<String> = self.of_kind(kind).map(Entry::label).collect();
            let present = if present.is_empty() { "none".into() } else { present.join(", ") };
            return Err(Error::Unknown { kind, reference: reference.to_owned(), present });
        };
        let same_root: Vec<&Entry> = fitting.iter().copied().filter(|entry| entry.root == first.root).collect();
        if same_root.iter().any(|entry| entry.digest != first.digest) {
            let candidates = same_root.iter().map(|entry| entry.label()).collect::<Vec<_>>().join(", ");
            return Err(Error::Ambiguous { kind, reference: reference.to_owned(), candidates });
        }
        Ok(first)
    }

    /// Opens what [`find`](Self::find) finds, every file verified.
    pub fn package(&self, kind: Kind, reference: &str) -> Result<Package, Error> {
        Package::open(&self.find(kind, reference)?.directory)
    }

    fn read_kind(&mut self, root: usize, folder: PathBuf, kind: Kind) -> Result<(), Error> {
        let listing = match fs::read_dir(&folder) {
            Ok(listing) => listing,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(Error::File { action: "read", path: folder, source }),
        };
        for entry in listing {
            let entry = entry.map_err(|source| Error::File { action: "read", path: folder.clone(), source })?;
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            if hidden || !entry.path().is_dir() {
                continue;
            }
            match Package::open_unverified(&entry.path()) {
                Ok(package) if package.kind() == kind => self.entries.push(Entry {
                    digest: package.digest().to_owned(),
                    directory: entry.path(),
                    description: package.description().clone(),
                    root,
                }),
                Ok(package) => self.faults.push(Error::Description {
                    path: entry.path(),
                    cause: format!("it is a {} model in the folder of {kind} models", package.kind()),
                }),
                Err(error) => self.faults.push(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Draft;
    use super::*;

    fn write(root: &std::path::Path, name: &str, bytes: &[u8]) -> String {
        let draft = Draft::new(Kind::Density, name, "MIT");
        Package::write(root, draft, &[("density.json", bytes)]).unwrap().digest().to_owned()
    }

    #[test]
    fn names_and_digests_resolve_and_the_first_root_wins() {
        let (own, shipped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = write(own.path(), "lidc", b"1");
        let second = write(shipped.path(), "lidc", b"2");
        let roots = [own.path().to_owned(), shipped.path().to_owned(), "/nowhere/at/all".into()];
        let catalogue = Catalogue::open(&roots).unwrap();
        assert_eq!(catalogue.entries().len(), 2);
        assert_eq!(catalogue.find(Kind::Density, "lidc").unwrap().digest, first);
        assert_eq!(catalogue.find(Kind::Density, &second[..8]).unwrap().digest, second);
        assert_eq!(catalogue.package(Kind::Density, &second).unwrap().file("density.json").unwrap(), b"2");
        let text = catalogue.find(Kind::Density, "kub").unwrap_err().to_string();
        assert!(text.contains("\"kub\"") && text.contains("lidc"), "{text}");
        assert!(catalogue.find(Kind::Unet, "lidc").unwrap_err().to_string().contains("none"));
    }

    #[test]
    fn one_name_twice_in_a_root_is_ambiguous() {
        let root = tempfile::tempdir().unwrap();
        let digests = [write(root.path(), "lidc", b"1"), write(root.path(), "lidc", b"2")];
        let catalogue = Catalogue::open(&[root.path().to_owned()]).unwrap();
        let text = catalogue.find(Kind::Density, "lidc").unwrap_err().to_string();
        assert!(digests.iter().all(|digest| text.contains(&digest[..12])), "{text}");
    }

    #[test]
    fn a_bad_package_is_set_aside_and_the_others_are_listed() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "good", b"1");
        let bad = root.path().join("density").join("b".repeat(64));
        fs::create_dir(&bad).unwrap();
        fs::write(bad.join("model.json"), b"{}").unwrap();
        let catalogue = Catalogue::open(&[root.path().to_owned()]).unwrap();
        assert_eq!(catalogue.entries().len(), 1);
        assert!(catalogue.faults()[0].to_string().contains("model.json"));
    }
}
