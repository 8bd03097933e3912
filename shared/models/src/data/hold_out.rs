//! What is kept out of a training.

use std::{cell::Cell, path::Path};

/// Names of series and files that are kept out of a training.
///
/// A name is a series' folder (that of a data folder itself, or of any folder in it), or a file's name without its extension
/// (of a pair: `NAME`). It stands for exactly that name; with `*` at its end, for every name that begins so.
#[derive(Debug)]
pub struct HoldOut {
    names: Vec<(String, Cell<bool>)>,
}

impl HoldOut {
    /// The names to hold out.
    pub fn new(names: &[String]) -> Self {
        Self { names: names.iter().map(|name| (name.clone(), Cell::new(false))).collect() }
    }

    /// Whether the file called `stem` at `path` below the data folder `root` is held out. Remembers by which names.
    pub(crate) fn covers(&self, root: &Path, path: &Path, stem: &str) -> bool {
        let inner = path.strip_prefix(root).unwrap_or(path);
        let folders = inner.parent().into_iter().flat_map(Path::components).map(|part| part.as_os_str());
        let folders = folders.chain(root.file_name()).map(|name| name.to_string_lossy().into_owned());
        let own: Vec<String> = folders.chain([stem.to_owned()]).collect();
        let mut covered = false;
        for (name, used) in &self.names {
            let matches = |own: &String| match name.strip_suffix('*') {
                Some(start) => own.starts_with(start),
                None => own == name,
            };
            if own.iter().any(matches) {
                used.set(true);
                covered = true;
            }
        }
        covered
    }

    /// A sentence for every name that held nothing out.
    pub(crate) fn faults(&self) -> Vec<String> {
        let unused = self.names.iter().filter(|(_, used)| !used.get());
        unused
            .map(|(name, _)| {
                format!(
                    "nothing is called `{name}` that could be held out; name a series' folder or a file without its \
                     extension, or the start of such a name with `*` behind it"
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact_or_end_in_a_star() {
        let covers = |name: &str, path: &str, stem: &str| {
            HoldOut::new(&[name.to_owned()]).covers(Path::new("/data/set"), &Path::new("/data/set").join(path), stem)
        };
        assert!(covers("a1", "a1.png", "a1") && covers("a1", "x/a1/7.dcm", "7") && covers("set", "7.dcm", "7"));
        assert!(!covers("a1", "a10.png", "a10") && !covers("data", "7.dcm", "7") && !covers("a1.png", "a1.png", "a1"));
        assert!(covers("a1*", "a10.png", "a10") && covers("a1*", "a1/7.dcm", "7") && !covers("a1*", "ba1.png", "ba1"));
    }

    #[test]
    fn a_name_that_holds_nothing_out_is_a_fault() {
        let hold_out = HoldOut::new(&["a".to_owned(), "nosuch".to_owned()]);
        assert!(hold_out.covers(Path::new("/set"), Path::new("/set/a.png"), "a"));
        let faults = hold_out.faults();
        assert!(faults.len() == 1 && faults[0].contains("`nosuch`"), "{faults:?}");
    }
}
