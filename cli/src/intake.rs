//! A folder of the user's, brought into the store as a source that requests can name.

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context, Result, bail};
use hiresmed_protocol::{Digest, SiteId, keys};
use hiresmed_services::store::{self, Store};

use crate::shipped;

/// Brings the files below `folder` into the store and gives the name by which a request calls them: the digest of what
/// is in the folder, and the folder's own name. The same content again is the same source and is not copied.
///
/// # Errors
/// The folder is empty or cannot be read, a file's name cannot be a key, or the store cannot be written.
pub async fn take(store: &Arc<dyn Store>, site: &SiteId, folder: &Path) -> Result<String> {
    let root = folder
        .canonicalize()
        .with_context(|| format!("the folder {} cannot be read; name one that exists", folder.display()))?;
    if !root.is_dir() {
        bail!("{} is not a folder; name the folder that the images lie in", folder.display());
    }
    let mut files = Vec::new();
    let mut listing = String::new();
    for path in shipped::files(&root).with_context(|| format!("the folder {} cannot be read", root.display()))? {
        let name = path.strip_prefix(&root).unwrap_or(&path).to_string_lossy().into_owned();
        if name.split('/').any(|part| part.starts_with('.')) {
            continue;
        }
        let bytes = fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        listing.push_str(&format!("{} {name}\n", Digest::of(&bytes)));
        files.push((name, path));
    }
    if files.is_empty() {
        bail!("the folder {} has no files; name the folder that the images lie in", root.display());
    }
    let own_name = root.file_name().unwrap_or_default().to_string_lossy();
    let source = format!("{}/{own_name}", &Digest::of(listing.as_bytes()).to_string()[..16]);
    for (name, path) in files {
        let key = format!("{}{source}/{name}", keys::inputs(site));
        store::check_key(&key).with_context(|| format!("{} cannot be stored; rename it", path.display()))?;
        // Read again rather than kept: a data set may be larger than the memory.
        let bytes = fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        store.put_if_absent(&key, bytes.into()).await?;
    }
    Ok(source)
}
