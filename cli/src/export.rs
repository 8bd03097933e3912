//! Writes a request's result into a folder: every file whole or not at all, the manifest last.

use std::{
    collections::BTreeSet,
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use hiresmed_coordinator::delivery::{self, Delivery};
use hiresmed_protocol::{Digest, Manifest, Request, RequestId, keys};

use crate::{fleet::Fleet, labels, report};

/// The name of the file that says that a folder is complete.
pub const MANIFEST: &str = "manifest.json";

/// Checks that `out` can be written, before any work is done for it. Creates it.
///
/// # Errors
/// It cannot: the error names the folder and the cause.
pub fn check(out: &Path) -> Result<()> {
    let blame = || format!("the output folder {} cannot be written; choose another one with --out DIR", out.display());
    fs::create_dir_all(out).with_context(blame)?;
    let mut probe = tempfile::NamedTempFile::new_in(out).with_context(blame)?;
    probe.write_all(b"probe").with_context(blame)
}

/// Lists the files that an export which has not come to its end may have left, so that a later one knows them for its own.
const UNFINISHED: &str = ".unfinished.json";

/// Beside the files that a manifest lists.
const COCO: &str = "annotations.coco.json";

/// Writes the result of request `id` into `out`: `images/`, `masks/`, `backgrounds/`, labels, and `manifest.json` at the
/// end. Files that are there already with the right bytes are left as they are; files of an earlier delivery that are no
/// part of this one are removed. `again` tells a person how to go on after an error.
///
/// # Errors
/// The request has no images, or a file cannot be written: no file is left half-written, and another call goes on.
pub fn export(fleet: &Fleet, id: &RequestId, out: &Path, again: &str) -> Result<Manifest> {
    let Some(delivery) = fleet.wait(delivery::assemble(fleet.ledger(), id))? else {
        bail!("request {id} trains a model; its result is listed by `hiresmed model list`");
    };
    write(fleet, id, &delivery, out)
        .and_then(|()| report::write(out, &delivery.manifest).map(|_| ()))
        .with_context(|| format!("the result could not be written into {}; {again}", out.display()))?;
    Ok(delivery.manifest)
}

fn write(fleet: &Fleet, id: &RequestId, delivery: &Delivery, out: &Path) -> Result<()> {
    check(out)?;
    let request = fleet.wait(fleet.ledger().request(id))?;
    let coco = matches!(&request, Request::Synthesise(request) if request.output.coco);
    let mut wanted: BTreeSet<String> = delivery.files.keys().cloned().collect();
    wanted.extend(coco.then(|| COCO.to_owned()));
    clear(out, &wanted)?;
    for (file, sha256) in &delivery.files {
        let path = inside(out, file)?;
        if fs::read(&path).is_ok_and(|bytes| Digest::of(&bytes) == *sha256) {
            continue;
        }
        let bytes = fleet.wait(fleet.store().get(&keys::object(fleet.site(), sha256)))?;
        write_whole(&path, &bytes)?;
    }
    if coco {
        write_whole(&out.join(COCO), &labels::coco(&delivery.manifest, out)?)?;
    }
    let mut manifest = serde_json::to_vec_pretty(&delivery.manifest)?;
    manifest.push(b'\n');
    write_whole(&out.join(MANIFEST), &manifest)?;
    remove(&out.join(UNFINISHED))
}

/// Removes what an earlier delivery left in `out` and this one, of the files `wanted`, does not have; nothing else.
///
/// First the files of both are listed, then the manifest goes, then the files: wherever this ends, the next call knows them
/// all, and while files are replaced nothing claims that the folder is complete.
fn clear(out: &Path, wanted: &BTreeSet<String>) -> Result<()> {
    let mut earlier: BTreeSet<String> =
        fs::read(out.join(UNFINISHED)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let manifest = fs::read(out.join(MANIFEST)).ok().and_then(|bytes| serde_json::from_slice::<Manifest>(&bytes).ok());
    if let Some(manifest) = manifest {
        earlier.extend(listed(&manifest));
        earlier.insert(COCO.to_owned());
    }
    let all: BTreeSet<&String> = earlier.union(wanted).collect();
    write_whole(&out.join(UNFINISHED), &serde_json::to_vec(&all)?)?;
    remove(&out.join(MANIFEST))?;
    for file in earlier.difference(wanted) {
        // What leads out of the folder is none of ours, whatever a list says.
        if let Ok(path) = inside(out, file) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Every file that a manifest lists.
fn listed(manifest: &Manifest) -> impl Iterator<Item = String> + '_ {
    manifest.images.iter().flat_map(|image| {
        let labels = [&image.mask, &image.yolo, &image.seg, &image.sr];
        let parts = labels.into_iter().chain([&image.background, &image.danger_zones, &image.candidates]);
        let parts = parts.flatten().map(|part| part.file.clone());
        std::iter::once(image.file.clone()).chain(parts)
    })
}

/// Removes a file, if it is there.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(error).with_context(|| format!("{} cannot be removed", path.display()))
        }
        _ => Ok(()),
    }
}

/// Where `file` of a delivery lies; never outside of `out`.
fn inside(out: &Path, file: &str) -> Result<PathBuf> {
    let path = Path::new(file);
    if file.is_empty() || !path.components().all(|part| matches!(part, std::path::Component::Normal(_))) {
        bail!("`{file}` is not a path within a folder");
    }
    Ok(out.join(path))
}

/// Writes a file under another name, makes it durable, and gives it its name.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    let blame = || format!("{} cannot be written", path.display());
    fs::create_dir_all(folder).with_context(blame)?;
    let mut file = tempfile::Builder::new().prefix(".writing-").tempfile_in(folder).with_context(blame)?;
    file.write_all(bytes).with_context(blame)?;
    file.as_file().sync_all().with_context(blame)?;
    // A temporary file is private to its owner; a delivery is read by others too.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).with_context(blame)?;
    }
    file.persist(path).map_err(|error| error.error).with_context(blame)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_stays_in_its_folder() {
        assert_eq!(inside(Path::new("/out"), "images/a.dcm").unwrap(), Path::new("/out/images/a.dcm"));
        for file in ["../a", "/a", "", "images/../../a"] {
            assert!(inside(Path::new("/out"), file).is_err(), "{file}");
        }
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let out = tempfile::tempdir().unwrap();
        let path = out.path().join("images/a.dcm");
        write_whole(&path, b"first").unwrap();
        write_whole(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn of_an_earlier_delivery_only_its_own_files_go() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
        for file in ["masks/0.png", "masks/1.png", "masks/mine.png", "notes.txt", "../outside"] {
            write_whole(&out.join(file), b"x").unwrap();
        }
        // A run that was killed: it had listed what it would write.
        clear(&out, &names(&["masks/0.png", "masks/1.png", "../outside"])).unwrap();
        clear(&out, &names(&["masks/0.png", "masks/2.png"])).unwrap();
        let there = |file: &str| out.join(file).exists();
        assert!(there("masks/0.png") && !there("masks/1.png"));
        assert!(there("masks/mine.png") && there("notes.txt") && there("../outside"));
        // And again, of three runs.
        write_whole(&out.join("masks/2.png"), b"x").unwrap();
        clear(&out, &names(&["masks/3.png"])).unwrap();
        assert!(!there("masks/0.png") && !there("masks/2.png") && there("masks/mine.png"));
    }

    #[test]
    fn a_folder_under_a_file_is_refused_by_name() {
        let out = tempfile::tempdir().unwrap();
        fs::write(out.path().join("file"), b"").unwrap();
        let error = check(&out.path().join("file/out")).unwrap_err();
        assert!(format!("{error:#}").contains("file/out cannot be written; choose another one with --out DIR"));
    }
}
