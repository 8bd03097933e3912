//! The models, the sample series and the phantoms that come with the project, brought into the store on first use.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use hiresmed_inference::package::{self, Catalogue, Entry, Package};
use hiresmed_protocol::{Digest, SiteId, keys, request::Modality};
use hiresmed_services::store::{self, Store};

/// Folder and name among a site's inputs of the radiographs of phantoms.
pub const PHANTOM: &str = "phantom";

/// Names the folder with `models/` and `sample/`, where it does not lie in `infra/pack` above the program.
const VARIABLE: &str = "HIRESMED_PACK";

/// Kinds of which a request needs one, and so has a default. A detector is no such kind: the one that comes with the project finds
/// stones in coronal slices, and the series that come with it are of lungs.
const WITH_DEFAULT: [&str; 4] = ["vqgan", "unet", "density", "prior"];

/// The folder of what comes with the project, if it is there.
pub fn folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        return Some(PathBuf::from(folder));
    }
    let program = std::env::current_exe().ok()?;
    program.ancestors().map(|folder| folder.join("infra/pack")).find(|folder| folder.is_dir())
}

/// Registers what comes with the project, where the store does not have it yet.
///
/// # Errors
/// The store cannot be written, or a package is damaged.
pub async fn register(store: &Arc<dyn Store>, site: &SiteId) -> Result<()> {
    let Some(folder) = folder() else { return Ok(()) };
    if !folder.is_dir() {
        bail!(
            "{VARIABLE}: the folder {} does not exist; name the project's infra/pack, or unset the variable",
            folder.display()
        );
    }
    let catalogue = Catalogue::open(&[folder.join("models")])?;
    for fault in catalogue.faults() {
        tracing::warn!(%fault, "a shipped model is left out");
    }
    let mut defaults: BTreeMap<(&str, &str), &Entry> = BTreeMap::new();
    for entry in catalogue.entries() {
        package(store, &entry.directory, entry.description.kind.name(), &entry.digest).await?;
        alias(store, entry.description.kind.name(), &entry.description.name, &entry.digest).await?;
        // Sorted by name: the first of a kind, unless one is called so.
        let default = defaults.entry((entry.description.kind.name(), entry.description.modality())).or_insert(entry);
        if entry.description.name == "default" {
            *default = entry;
        }
    }
    for ((kind, modality), entry) in defaults {
        let modality = Modality::ALL.into_iter().find(|known| known.as_str() == modality);
        if let Some(modality) = modality.filter(|_| WITH_DEFAULT.contains(&kind)) {
            alias(store, kind, modality.default_alias(), &entry.digest).await?;
        }
    }
    sample(store, site, &folder.join("sample")).await?;
    inputs(store, site, &folder.join(PHANTOM), PHANTOM, |_| true).await
}

/// Puts a package's files into the store where they are absent or damaged there, `model.json` last: a package that has it
/// is whole.
///
/// # Errors
/// The package is damaged, or the store cannot be written.
pub async fn package(store: &Arc<dyn Store>, folder: &Path, kind: &str, digest: &str) -> Result<()> {
    let digest: Digest = digest.parse()?;
    let prefix = keys::model(kind, &digest);
    let description = package::DESCRIPTION_FILE;
    let listed: package::Description = {
        let path = folder.join(description);
        let text = fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} describes no model", path.display()))?
    };
    let mut missing = Vec::new();
    for (name, expected) in listed.files.iter().chain([(&description.to_owned(), &digest.to_string())]) {
        if !is_whole(store, &format!("{prefix}{name}"), expected).await? {
            missing.push(name.clone());
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Package::open(folder)?;
    for name in missing {
        let path = folder.join(&name);
        let bytes = fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        store.put(&format!("{prefix}{name}"), bytes.into()).await?;
    }
    Ok(())
}

/// Whether the store has these very bytes, every one of them read.
async fn is_whole(store: &Arc<dyn Store>, key: &str, sha256: &str) -> Result<bool> {
    match store.get(key).await {
        Ok(bytes) => Ok(package::digest(&bytes) == sha256),
        Err(store::Error::NotFound(_) | store::Error::Damaged { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Makes `name` stand for a package.
///
/// # Errors
/// The store cannot be written.
pub async fn alias(store: &Arc<dyn Store>, kind: &str, name: &str, digest: &str) -> Result<()> {
    let key = keys::alias(kind, name);
    if store.head(&key).await?.is_some_and(|head| head.sha256 == *Digest::of(digest.as_bytes()).as_bytes()) {
        return Ok(());
    }
    store.put(&key, digest.to_owned().into()).await?;
    Ok(())
}

/// The sample series, without the slices on which a nodule was outlined: in a background it would be a lesion without a label.
async fn sample(store: &Arc<dyn Store>, site: &SiteId, folder: &Path) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let outlined = outlined(&folder.join("contours.json"))?;
    let usable = |path: &Path| !path.file_stem().is_some_and(|stem| outlined.contains(&*stem.to_string_lossy()));
    inputs(store, site, folder, "sample", usable).await
}

/// The DICOM files of a folder that are `usable`, under `name` among the site's inputs.
async fn inputs(
    store: &Arc<dyn Store>,
    site: &SiteId,
    folder: &Path,
    name: &str,
    usable: impl Fn(&Path) -> bool,
) -> Result<()> {
    let paths = match files(folder) {
        Ok(paths) => paths,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", folder.display())),
    };
    let image = |path: &&PathBuf| path.extension().is_some_and(|ending| ending == "dcm") && usable(path);
    let images: Vec<_> = paths.iter().filter(image).collect();
    let prefix = format!("{}{name}/", keys::inputs(site));
    if store.list(&prefix).await?.len() == images.len() {
        return Ok(());
    }
    for path in images {
        let name = path.strip_prefix(folder).unwrap_or(path).to_string_lossy().replace('\\', "/");
        put(store, &format!("{prefix}{name}"), path).await?;
    }
    Ok(())
}

/// The slices that a reader drew a contour on.
fn outlined(contours: &Path) -> Result<BTreeSet<String>> {
    #[derive(serde::Deserialize)]
    struct File {
        annotations: Vec<Annotation>,
    }
    #[derive(serde::Deserialize)]
    struct Annotation {
        contours: Vec<Contour>,
    }
    #[derive(serde::Deserialize)]
    struct Contour {
        slice: String,
    }
    let text = fs::read(contours).with_context(|| format!("{} cannot be read", contours.display()))?;
    let file: File =
        serde_json::from_slice(&text).with_context(|| format!("{} lists no contours", contours.display()))?;
    Ok(file.annotations.into_iter().flat_map(|annotation| annotation.contours).map(|contour| contour.slice).collect())
}

async fn put(store: &Arc<dyn Store>, key: &str, path: &Path) -> Result<()> {
    let bytes = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    store.put_if_absent(key, bytes.into()).await?;
    Ok(())
}

/// The files below `folder`, sorted.
pub fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            // Links are followed for files and not for folders, which could lead in a circle.
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.path().is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}
