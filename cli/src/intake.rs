//! A folder of the user's, brought into the store as a source that requests can name.
//!
//! Names of files and folders often hold a patient's name or number, and what is in the store travels: into plans, messages,
//! records and deliveries. So the store gets content alone, under names made of its digests. Which file of the user's that
//! was stays in [`Names`], for this machine's messages to a person.

mod names;
pub mod training;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, anyhow};
use hiresmed_protocol::{Digest, SiteId, keys};
use hiresmed_services::store::Store;
use hiresmed_worker::shipped;

pub use names::Names;

use crate::failure::refused;

/// Hexadecimal digits of a file's digest that name it within its source, and of a source's that name that.
const DIGITS: usize = 16;

/// Endings of files that may hold an image. A DICOM file may also have none, or a UID for its name.
const IMAGE_ENDINGS: [&str; 8] = ["dcm", "dicom", "ima", "png", "jpg", "jpeg", "nii", "gz"];

/// Brings the images below `folder` into the store and gives the name by which a request calls them: a digest of what they
/// hold. The same images again, however they are called, are the same source and are not copied.
///
/// # Errors
/// The folder cannot be read or has no image, or the store cannot be written.
pub async fn images(store: &Arc<dyn Store>, site: &SiteId, names: &Names, folder: &Path) -> Result<String> {
    let root = root(folder)?;
    let mut files = Vec::new();
    for path in shipped::files(&root).with_context(|| format!("the folder {} cannot be read", root.display()))? {
        let within = path.strip_prefix(&root).unwrap_or(&path);
        let hidden = within.components().any(|part| part.as_os_str().to_string_lossy().starts_with('.'));
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let (false, Some(ending)) = (hidden, ending(&name)) {
            files.push((format!("{}{ending}", stem(&[&path])?), path));
        }
    }
    if files.is_empty() {
        let text = format!("the folder {} has no images; name the folder that they lie in", root.display());
        return Err(refused(anyhow!(text)));
    }
    put(store, site, names, &files).await
}

/// The folder itself, where it is one.
fn root(folder: &Path) -> Result<PathBuf> {
    let root = folder
        .canonicalize()
        .with_context(|| format!("the folder {} cannot be read; name one that exists", folder.display()))
        .map_err(refused)?;
    if !root.is_dir() {
        let text = format!("{} is not a folder; name the folder that the images lie in", folder.display());
        return Err(refused(anyhow!(text)));
    }
    Ok(root)
}

/// The name of what `paths` hold together.
fn stem(paths: &[&Path]) -> Result<String> {
    let mut digests = String::new();
    for path in paths {
        let bytes = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        digests.push_str(&Digest::of(&bytes).to_string());
    }
    // One file is named by its own digest, which the manifest gives for every image.
    let digest = if paths.len() == 1 { digests } else { Digest::of(digests.as_bytes()).to_string() };
    Ok(digest[..DIGITS].to_owned())
}

/// Puts files into the store under the names that are given with them, and gives their source.
async fn put(store: &Arc<dyn Store>, site: &SiteId, names: &Names, files: &[(String, PathBuf)]) -> Result<String> {
    let mut distinct = BTreeMap::new();
    for (name, path) in files {
        distinct.entry(name.clone()).or_insert(path);
    }
    let listing: Vec<&str> = distinct.keys().map(String::as_str).collect();
    let source = Digest::of(listing.join("\n").as_bytes()).to_string()[..DIGITS].to_owned();
    // Before the files: what fails must have a name.
    names.keep(&source, &distinct)?;
    for (name, path) in distinct {
        // Read again rather than kept: a data set may be larger than the memory.
        let bytes = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        store.put_if_absent(&format!("{}{source}/{name}", keys::inputs(site)), bytes.into()).await?;
    }
    Ok(source)
}

/// The ending, with its dot, under which a file is stored; none for what is no image by its name.
fn ending(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let Some((_, ending)) = name.rsplit_once('.') else {
        return (!matches!(&*name, "dicomdir" | "license")).then(String::new);
    };
    if name.ends_with(".nii.gz") {
        return Some(".nii.gz".to_owned());
    }
    // Instances are often named by their UID: `1.2.840.113619`.
    let uid = ending.bytes().all(|digit| digit.is_ascii_digit());
    if uid { Some(String::new()) } else { IMAGE_ENDINGS.contains(&ending).then(|| format!(".{ending}")) }
}

#[cfg(test)]
mod tests {
    use hiresmed_services::store::Directory;

    use super::*;
    use crate::state::StateFolder;

    #[tokio::test]
    async fn a_source_is_what_it_holds_and_not_how_that_is_called() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(Some(&folder.path().join("state"))).unwrap();
        let store: Arc<dyn Store> = Arc::new(Directory::open(state.store()).unwrap());
        let site = SiteId::local();
        let mut sources = Vec::new();
        for (name, first, second) in [("pin", "DOE_JANE_MRN4711/ZZ_1.dcm", "1.2.840.9"), ("other", "b", "a.DCM")] {
            let pin = folder.path().join(name);
            for (file, bytes) in [(first, "one"), (second, "two"), ("README.md", name), (".hidden/x.dcm", name)] {
                fs::create_dir_all(pin.join(file).parent().unwrap()).unwrap();
                fs::write(pin.join(file), bytes).unwrap();
            }
            sources.push(images(&store, &site, &Names::read(&state), &pin).await.unwrap());
        }
        let listed = store.list("sites/").await.unwrap();
        let text = listed.join(" ");
        for name in ["DOE", "MRN4711", "ZZ", "pin", "hidden", "README"] {
            assert!(!text.contains(name), "{name} in {text}");
        }
        // Endings belong to the content: they tell the planner what may be an image.
        assert_ne!(sources[0], sources[1]);
        assert_eq!(listed.len(), 4);
        let again = images(&store, &site, &Names::read(&state), &folder.path().join("pin")).await.unwrap();
        assert_eq!(again, sources[0]);
        assert_eq!(store.list("sites/").await.unwrap().len(), 4);

        let stored = listed.iter().find(|key| key.ends_with(".dcm") && key.contains(&*sources[0])).unwrap();
        let said =
            Names::read(&state).restore(&format!("{stored}: truncated; and {}: 3.", &stored[stored.len() - 20..]));
        assert_eq!(said.matches("pin/DOE_JANE_MRN4711/ZZ_1.dcm").count(), 2, "{said}");
    }

    #[tokio::test]
    async fn a_folder_without_images_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(Some(&folder.path().join("state"))).unwrap();
        let store: Arc<dyn Store> = Arc::new(Directory::open(state.store()).unwrap());
        fs::write(folder.path().join("DICOMDIR"), "").unwrap();
        fs::write(folder.path().join("notes.txt"), "").unwrap();
        fs::create_dir_all(folder.path().join("state/store")).unwrap();
        let attempt = |path: PathBuf| {
            let (store, names) = (store.clone(), Names::read(&state));
            async move { images(&store, &SiteId::local(), &names, &path).await.unwrap_err().to_string() }
        };
        assert!(attempt(folder.path().join("none")).await.contains("cannot be read"));
        assert!(attempt(folder.path().join("notes.txt")).await.contains("is not a folder"));
        fs::create_dir(folder.path().join("empty")).unwrap();
        fs::write(folder.path().join("empty/notes.txt"), "").unwrap();
        assert!(attempt(folder.path().join("empty")).await.contains("has no images"));
    }
}
