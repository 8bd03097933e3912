//! Who reads an unbounded request, as its dispatcher knows it.
//!
//! A reader says again and again how far it has come. That it is alive is told by its record's change, on the dispatcher's own
//! clock: those of the coordinators may differ.

use std::{
    collections::BTreeMap,
    ops::Range,
    time::{Duration, Instant},
};

use crate::ledger::Reading;

/// A reader whose record has not changed for so long does not count, until it changes again. Several times the interval at which
/// readers say that they are there.
const SILENCE: Duration = Duration::from_secs(25);

/// The readers of a request.
#[derive(Debug, Default)]
pub(super) struct Readers {
    known: BTreeMap<String, (Reading, Instant)>,
}

/// What follows from the readers' records.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Observed {
    /// The next image of the slowest reader; none where nobody reads.
    pub(super) slowest: Option<u64>,
    /// Readers that fell silent: their records are of no more use.
    pub(super) silent: Vec<String>,
}

impl Readers {
    /// Takes in the records that there are at `now`.
    pub(super) fn observe(&mut self, readings: BTreeMap<String, Reading>, now: Instant) -> Observed {
        let mut known = BTreeMap::new();
        let mut observed = Observed { slowest: None, silent: Vec::new() };
        for (reader, reading) in readings {
            let since = match self.known.remove(&reader) {
                Some((before, since)) if before == reading => since,
                _ => now,
            };
            if now.saturating_duration_since(since) < SILENCE {
                let next = reading.next.0;
                observed.slowest = Some(observed.slowest.map_or(next, |slowest| slowest.min(next)));
            } else {
                observed.silent.push(reader.clone());
            }
            known.insert(reader, (reading, since));
        }
        self.known = known;
        observed
    }
}

/// The jobs, by number, that make at most `ahead` images from image `next` on; at least the one that makes that image.
pub(super) fn window(next: u64, ahead: u64, chunk: u64) -> Range<u64> {
    let chunk = chunk.max(1);
    let first = next / chunk;
    first..first.saturating_add(1).max(next.saturating_add(ahead) / chunk)
}

#[cfg(test)]
mod tests {
    use hiresmed_protocol::{ImageIndex, VERSION};

    use super::*;

    fn records(records: &[(&str, u64, &str)]) -> BTreeMap<String, Reading> {
        let record = |(reader, next, at): &(&str, u64, &str)| {
            ((*reader).to_owned(), Reading { version: VERSION, next: ImageIndex(*next), at: (*at).to_owned() })
        };
        records.iter().map(record).collect()
    }

    #[test]
    fn the_slowest_reader_counts_while_its_record_changes() {
        let (mut readers, begin) = (Readers::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let observed = |slowest, silent: &[&str]| Observed {
            slowest,
            silent: silent.iter().map(|reader| (*reader).to_owned()).collect(),
        };
        assert_eq!(readers.observe(records(&[]), at(0)), observed(None, &[]));
        assert_eq!(readers.observe(records(&[("a", 7, "0"), ("b", 90, "0")]), at(0)), observed(Some(7), &[]));
        assert_eq!(readers.observe(records(&[("a", 7, "0"), ("b", 91, "20")]), at(20)), observed(Some(7), &[]));
        // One that waits says so without having come further; one that says nothing has died.
        assert_eq!(readers.observe(records(&[("a", 7, "0"), ("b", 91, "25")]), at(25)), observed(Some(91), &["a"]));
        assert_eq!(readers.observe(records(&[("a", 7, "30"), ("b", 91, "30")]), at(30)), observed(Some(7), &[]));
        assert_eq!(readers.observe(records(&[("b", 91, "30")]), at(55)), observed(None, &["b"]));
    }

    #[test]
    fn jobs_lie_within_what_may_be_made_ahead_and_the_next_image_is_always_made() {
        assert_eq!(window(0, 64, 8), 0..8);
        assert_eq!(window(7, 64, 8), 0..8);
        assert_eq!(window(8, 64, 8), 1..9);
        assert_eq!(window(5, 64, 100), 0..1);
        assert_eq!(window(99, 64, 100), 0..1);
        assert_eq!(window(3, 0, 1), 3..4);
        assert_eq!(window(3, 1, 0), 3..4, "a damaged plan");
        assert!(window(u64::MAX, u64::MAX, 1).is_empty());
    }
}
