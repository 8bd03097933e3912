//! Which files are sent: DICOM files that say that they are synthetic, each object once, and none that is there already.

use std::{
    collections::{HashMap, VecDeque},
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};
use hiresmed_imaging::dicom::{ReadOptions, identify};
use hiresmed_protocol::Digest;
use hiresmed_worker::shipped;

use super::record::{Line, Outcome, Record};
use crate::{failure, stamp::Stamp};

/// A file to be sent.
#[derive(Debug, Clone)]
pub struct Item {
    pub path: PathBuf,
    pub stamp: Stamp,
    pub sop_instance: String,
    pub study: String,
    pub attempts: u32,
}

impl Item {
    /// Its name in the record.
    pub fn name(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    pub fn line(&self, outcome: Outcome, reason: Option<String>) -> Line {
        Line {
            path: self.name(),
            stamp: self.stamp,
            sop_instance: Some(self.sop_instance.clone()),
            study: Some(self.study.clone()),
            outcome,
            reason,
            attempts: self.attempts,
        }
    }
}

/// What there is to do.
#[derive(Debug, Default)]
pub struct Plan {
    /// To be sent.
    pub send: VecDeque<Item>,
    /// Stored by an earlier run, which did not see them there.
    pub check: Vec<Item>,
    /// Lines of all files of this run, but of those to be sent and checked.
    pub settled: Vec<Line>,
    /// Files that are no DICOM: masks, manifests.
    pub others: usize,
}

/// A file of the sources; `named` where it was named itself rather than its folder.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    path: PathBuf,
    named: bool,
}

/// The files at and below `paths`, but hidden ones: those are nobody's results (`.state` of a demo holds its inputs).
///
/// # Errors
/// A path cannot be read, or there is nothing.
pub fn sources(paths: &[PathBuf]) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    for given in paths {
        let path =
            given.canonicalize().with_context(|| format!("{} cannot be read; name what exists", given.display()));
        let path = path.map_err(failure::refused)?;
        if path.is_file() {
            found.push(Source { path, named: true });
            continue;
        }
        let files = shipped::files(&path).with_context(|| format!("{} cannot be listed", given.display()))?;
        let shown = |file: &PathBuf| {
            let below = file.strip_prefix(&path).unwrap_or(file);
            !below.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."))
        };
        found.extend(files.into_iter().filter(shown).map(|path| Source { path, named: false }));
    }
    found.sort();
    found.dedup_by(|second, first| second.path == first.path);
    if found.is_empty() {
        return Err(failure::refused(anyhow!("there are no files in what was named")));
    }
    Ok(found)
}

/// Looks at every file that is not known to be there.
pub fn plan(sources: &[Source], record: &Record, any: bool, options: ReadOptions, mut seen: impl FnMut(usize)) -> Plan {
    let mut planner = Planner { plan: Plan::default(), first: HashMap::new(), record, any, options };
    for (number, source) in sources.iter().enumerate() {
        planner.one(source);
        seen(number + 1);
    }
    planner.plan
}

struct Planner<'a> {
    plan: Plan,
    /// By SOP Instance UID: the first file that has it, and the digest of its bytes where it was read.
    first: HashMap<String, (String, Option<Digest>)>,
    record: &'a Record,
    any: bool,
    options: ReadOptions,
}

impl Planner<'_> {
    fn one(&mut self, source: &Source) {
        let path = &source.path;
        let name = path.to_string_lossy().into_owned();
        let stamp = std::fs::metadata(path).map_or(Stamp { size_bytes: 0, changed_ns: 0 }, |found| Stamp::of(&found));
        let known = self.record.known(&name, stamp);
        if let Some(line) = known
            && line.outcome == Outcome::Verified
            && let Some(uid) = &line.sop_instance
        {
            self.first.entry(uid.clone()).or_insert((name, None));
            self.plan.settled.push(line.clone());
            return;
        }
        let attempts = known.map_or(0, |line| line.attempts);
        let was_stored = known.is_some_and(|line| matches!(line.outcome, Outcome::Stored | Outcome::Missing));
        let settle = |outcome, reason: &str, uids: Option<(String, String)>| {
            let (sop_instance, study) = uids.unzip();
            Line { path: name.clone(), stamp, sop_instance, study, outcome, reason: Some(reason.to_owned()), attempts }
        };
        if !source.named && !is_dicom(path) {
            self.plan.others += 1;
            return;
        }
        let (found, bytes) = match identify(path, self.options) {
            Ok(found) => found,
            Err(fault) => return self.plan.settled.push(settle(Outcome::Unreadable, &fault.to_string(), None)),
        };
        let uids = Some((found.sop_instance.clone(), found.study.clone()));
        if !found.is_ours && !self.any {
            let reason = "it does not say that it is synthetic and made by hiresmed; --any sends it nevertheless";
            return self.plan.settled.push(settle(Outcome::LeftOut, reason, uids));
        }
        let digest = Digest::of(&bytes);
        if let Some((first, other)) = self.first.get(&found.sop_instance) {
            // Of one that an earlier run delivered the bytes were not read again.
            let other = (*other).or_else(|| std::fs::read(first).ok().map(|bytes| Digest::of(&bytes)));
            let line = if other == Some(digest) {
                settle(Outcome::Duplicate, &format!("the same as {first}"), uids)
            } else {
                settle(Outcome::Unreadable, &format!("another object has its SOP Instance UID: {first}"), uids)
            };
            return self.plan.settled.push(line);
        }
        self.first.insert(found.sop_instance.clone(), (name, Some(digest)));
        let item = Item { path: path.clone(), stamp, sop_instance: found.sop_instance, study: found.study, attempts };
        if was_stored { self.plan.check.push(item) } else { self.plan.send.push_back(item) }
    }
}

/// Whether a file is, or should be, DICOM: by its preamble, and by an ending that says so where the preamble is damaged.
fn is_dicom(path: &Path) -> bool {
    let mut head = [0; 132];
    let marked = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok();
    (marked && head.ends_with(b"DICM")) || path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("dcm"))
}
