//! Taking a model that was made elsewhere: a `model.json` and its graphs, checked against the kind's contract.

use std::collections::BTreeMap;
use std::path::Path;

use super::description::is_file_name;
use super::folder::parse;
use super::{CARD_FILE, DESCRIPTION_FILE, Description, Error, Package, digest, read};
use crate::contract;
use crate::onnx::Model;
use crate::runtime::Runtime;

/// Checks the model in `directory` and writes it as a package under `root`.
///
/// Its `model.json` may leave out what can be computed (`files`, `parameters`, `created_by`); digests that it does give
/// must hold. Its graphs must fit the contract of its kind ([`contract::check`]); every fault is listed at once.
pub fn import(directory: &Path, root: &Path, runtime: &Runtime) -> Result<Package, Error> {
    let path = directory.join(DESCRIPTION_FILE);
    let description = parse(&path, &read(&path)?)?;
    let files = read_files(directory, &description)?;
    let graphs: BTreeMap<String, Vec<u8>> = description
        .graphs
        .iter()
        .filter_map(|(role, file)| files.get(file).map(|bytes| (role.clone(), bytes.clone())))
        .collect();
    let mut draft = description.to_draft();
    if draft.parameters == 0 {
        draft.parameters =
            graphs.values().filter_map(|bytes| Model::parse(bytes).ok()).map(|m| m.parameter_count()).sum();
    }
    let digests = files.iter().map(|(name, bytes)| (name.clone(), digest(bytes))).collect();
    let mut faults =
        Description { version: description.version, ..Description::from_draft(draft.clone(), digests) }.faults();
    faults.extend(contract::check(&description, &graphs, runtime));
    if !faults.is_empty() {
        return Err(Error::Faults { kind: description.kind, name: description.name, faults });
    }
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    Package::write(root, draft, &files)
}

/// The files that the description lists or its graphs name, and the card.
fn read_files(directory: &Path, description: &Description) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let mut names: Vec<&str> =
        description.files.keys().chain(description.graphs.values()).map(String::as_str).collect();
    if directory.join(CARD_FILE).is_file() {
        names.push(CARD_FILE);
    }
    let mut files = BTreeMap::new();
    for name in names {
        let path = directory.join(name);
        if !is_file_name(name) {
            let cause = format!("it names the file {name:?}; a file's name is plain, without folders");
            return Err(Error::Description { path: directory.join(DESCRIPTION_FILE), cause });
        }
        let bytes = read(&path)?;
        let found = digest(&bytes);
        if let Some(expected) = description.files.get(name).filter(|&expected| *expected != found) {
            return Err(Error::Digest { path, expected: expected.clone(), found });
        }
        files.insert(name.to_owned(), bytes);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::Graph;
    use crate::tensor::ElementType;

    fn unet(classes: i64, rank: usize) -> Vec<u8> {
        let mut graph = Graph::new("unet");
        let x = graph.input("image", ElementType::F32, &["N".into(), 1.into(), "H".into(), "W".into()]);
        let y = if rank == 4 { graph.relu(&x) } else { graph.squeeze(&x, &[1]) };
        let shape = ["N".into(), classes.into(), "H".into(), "W".into()];
        graph.output(&y, "zones", ElementType::F32, &shape[..rank]);
        graph.finish().unwrap()
    }

    fn folder(json: &str, graph: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.json"), json).unwrap();
        std::fs::write(folder.path().join("site.onnx"), graph).unwrap();
        folder
    }

    const SITE: &str = r#"{"version": 1, "kind": "unet", "name": "site-zones", "licence": "in-house",
        "window": {"low": -1000, "high": 400}, "graphs": {"segment": "site.onnx"}}"#;

    #[test]
    fn a_model_made_elsewhere_becomes_a_package() {
        let (source, root) = (folder(SITE, &unet(1, 4)), tempfile::tempdir().unwrap());
        let package = import(source.path(), root.path(), &Runtime::load().unwrap()).unwrap();
        assert_eq!(package.graph("segment").unwrap(), unet(1, 4));
        assert_eq!(Package::open(package.directory()).unwrap().name(), "site-zones");
    }

    #[test]
    fn every_fault_is_listed_and_nothing_is_written() {
        let json = SITE.replace("site-zones", "site zones").replace("400", "-1000").replace("segment", "detect");
        let (source, root) = (folder(&json, &unet(1, 3)), tempfile::tempdir().unwrap());
        let text = import(source.path(), root.path(), &Runtime::load().unwrap()).unwrap_err().to_string();
        for part in ["\"site zones\"", "window", "detect", "segment"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_wrong_digest_and_an_escaping_name_are_refused() {
        let runtime = Runtime::load().unwrap();
        let root = tempfile::tempdir().unwrap();
        let json =
            SITE.replace("\"graphs\"", &format!("\"files\": {{\"site.onnx\": \"{}\"}}, \"graphs\"", "0".repeat(64)));
        let error = import(folder(&json, &unet(1, 4)).path(), root.path(), &runtime).unwrap_err();
        assert!(matches!(error, Error::Digest { .. }), "{error}");
        let json = SITE.replace("site.onnx", "../site.onnx");
        assert!(import(folder(&json, &unet(1, 4)).path(), root.path(), &runtime).is_err());
    }
}
