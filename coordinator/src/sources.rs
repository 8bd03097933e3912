//! The files that a request's sources stand for, by digest.

use std::collections::BTreeMap;

use hiresmed_protocol::{
    Digest, SiteId,
    job::{DataFiles, DataSet, Object},
    keys,
    request::EXEMPLARS,
};

use crate::{Error, Ledger};

/// Endings of files that may hold source images. A DICOM file may also have none.
const IMAGE_ENDINGS: [&str; 8] = ["dcm", "dicom", "ima", "png", "jpg", "jpeg", "nii", "gz"];

/// How the name of a training image's mask ends.
const MASK: &str = ".mask.png";

/// The source images below `source`, sorted by key.
pub(crate) async fn images(ledger: &Ledger, site: &SiteId, path: &str, source: &str) -> Result<Vec<Object>, Error> {
    let prefix = prefix(site, source);
    let mut objects = objects(ledger, &prefix).await?;
    objects.retain(|object| may_be_image(&object.key));
    if objects.is_empty() {
        return Err(Error::NoFiles { path: path.to_owned(), source_name: source.to_owned(), what: "images", prefix });
    }
    Ok(objects)
}

/// The files of a training request's sources, which are its field `path`. A file's path begins with its source's last part, so that
/// a folder of slices keeps its name as their series.
pub(crate) async fn data_set(ledger: &Ledger, site: &SiteId, path: &str, sources: &[String]) -> Result<DataSet, Error> {
    let mut files = BTreeMap::new();
    for (index, source) in sources.iter().enumerate() {
        let prefix = prefix(site, source);
        let objects = objects(ledger, &prefix).await?;
        if objects.is_empty() {
            let path = format!("{path}[{index}]");
            return Err(Error::NoFiles { path, source_name: source.clone(), what: "files", prefix });
        }
        let trimmed = source.trim_end_matches('/');
        let folder = trimmed.rsplit('/').next().unwrap_or(trimmed);
        for object in objects {
            let name = format!("{folder}/{}", &object.key[prefix.len()..]);
            files.insert(name, object);
        }
    }
    let count = files.len() as u64;
    let listing = DataFiles { version: hiresmed_protocol::VERSION, files };
    let bytes = serde_json::to_vec(&listing)
        .map_err(|error| Error::Document { key: "data set".to_owned(), cause: error.to_string() })?;
    let sha256 = Digest::of(&bytes);
    let key = keys::object(site, &sha256);
    ledger.store().put_if_absent(&key, bytes.into()).await?;
    Ok(DataSet { listing: Object { key, sha256 }, files: count })
}

/// A source is an alias or a prefix below the site's inputs, or one of its exemplars; the whole key is accepted too.
fn prefix(site: &SiteId, source: &str) -> String {
    if let Some(Ok(digest)) = source.strip_prefix(EXEMPLARS).map(|digest| digest.trim_end_matches('/').parse()) {
        return keys::exemplar(site, &digest);
    }
    let inputs = keys::inputs(site);
    let below = source.strip_prefix(&inputs).unwrap_or(source).trim_end_matches('/');
    format!("{inputs}{below}/")
}

async fn objects(ledger: &Ledger, prefix: &str) -> Result<Vec<Object>, Error> {
    let mut objects = Vec::new();
    for key in ledger.store().list(prefix).await? {
        if let Some(head) = ledger.store().head(&key).await? {
            objects.push(Object { key, sha256: Digest::from_bytes(head.sha256) });
        }
    }
    Ok(objects)
}

fn may_be_image(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or(key);
    if name.ends_with(MASK) {
        return false;
    }
    match name.rsplit_once('.') {
        None => !name.eq_ignore_ascii_case("DICOMDIR") && !name.eq_ignore_ascii_case("LICENSE"),
        Some((_, ending)) => {
            let ending = ending.to_ascii_lowercase();
            // Instances are often named by their UID: `1.2.840.113619`.
            IMAGE_ENDINGS.contains(&&*ending) || ending.bytes().all(|digit| digit.is_ascii_digit())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_told_by_their_names() {
        for name in ["a/1.dcm", "a/IM0001", "a/1.2.840.113619", "volume.nii.gz", "X.PNG"] {
            assert!(may_be_image(name), "{name}");
        }
        for name in ["a/0123.mask.png", "a/contours.json", "README.md", "a/DICOMDIR", "boxes.csv"] {
            assert!(!may_be_image(name), "{name}");
        }
    }

    #[test]
    fn a_source_lies_below_the_sites_inputs() {
        let site = SiteId::local();
        assert_eq!(prefix(&site, "sample"), "sites/local/inputs/sample/");
        assert_eq!(prefix(&site, "a/b/"), "sites/local/inputs/a/b/");
        assert_eq!(prefix(&site, "sites/local/inputs/a"), "sites/local/inputs/a/");
        let digest = Digest::of(b"");
        assert_eq!(prefix(&site, &format!("exemplars/{digest}")), format!("sites/local/exemplars/{digest}/"));
        assert_eq!(prefix(&site, "exemplars/a"), "sites/local/inputs/exemplars/a/");
    }
}
