//! Writes a request's result into a folder: every file whole or not at all, the manifest last.

use std::{
    fs,
    io::Write,
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

/// Writes the result of request `id` into `out`: `images/`, `masks/`, `backgrounds/`, labels, and `manifest.json` at the
/// end. Files that are there already with the right bytes are left as they are.
///
/// # Errors
/// The request has no images, or a file cannot be written: no file is left half-written, and another call goes on.
pub fn export(fleet: &Fleet, id: &RequestId, out: &Path) -> Result<Manifest> {
    let Some(delivery) = fleet.wait(delivery::assemble(fleet.ledger(), id))? else {
        bail!("request {id} trains a model; its result is listed by `hiresmed model list`");
    };
    write(fleet, id, &delivery, out).and_then(|()| report::write(out, &delivery.manifest).map(|_| ())).with_context(
        || {
            format!(
                "the result could not be written into {}; `hiresmed export {id} --out DIR` tries again",
                out.display()
            )
        },
    )?;
    Ok(delivery.manifest)
}

fn write(fleet: &Fleet, id: &RequestId, delivery: &Delivery, out: &Path) -> Result<()> {
    check(out)?;
    // While files are replaced, nothing claims that the folder is complete.
    match fs::remove_file(out.join(MANIFEST)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("{} cannot be replaced", out.join(MANIFEST).display()));
        }
        _ => {}
    }
    for (file, sha256) in &delivery.files {
        let path = inside(out, file)?;
        if fs::read(&path).is_ok_and(|bytes| Digest::of(&bytes) == *sha256) {
            continue;
        }
        let bytes = fleet.wait(fleet.store().get(&keys::object(fleet.site(), sha256)))?;
        write_whole(&path, &bytes)?;
    }
    if let Request::Synthesise(request) = fleet.wait(fleet.ledger().request(id))?
        && request.output.coco
    {
        write_whole(&out.join("annotations.coco.json"), &labels::coco(&delivery.manifest, out)?)?;
    }
    let mut manifest = serde_json::to_vec_pretty(&delivery.manifest)?;
    manifest.push(b'\n');
    write_whole(&out.join(MANIFEST), &manifest)
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
    fn a_folder_under_a_file_is_refused_by_name() {
        let out = tempfile::tempdir().unwrap();
        fs::write(out.path().join("file"), b"").unwrap();
        let error = check(&out.path().join("file/out")).unwrap_err();
        assert!(format!("{error:#}").contains("file/out cannot be written; choose another one with --out DIR"));
    }
}
