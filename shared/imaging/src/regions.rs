//! Connected regions of a mask, found run by run: a row of a mask has few runs and many pixels.

use std::ops::Range;

use memchr::memchr;

use crate::Mask;

/// Neighbouring pixels of one row: columns `start..end` of `row`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub row: usize,
    pub start: usize,
    pub end: usize,
    /// Number of its region.
    pub region: usize,
}

/// The regions of a mask, numbered from 0 in the order of their first pixel, row by row.
#[derive(Debug)]
pub(crate) struct Regions {
    /// In the order of their first pixel, row by row.
    pub runs: Vec<Run>,
    /// Pixels of each region.
    pub areas: Vec<usize>,
}

impl Regions {
    /// Regions of the pixels that are set (or of those that are not), joined over corners too where `diagonal`.
    pub(crate) fn of(mask: &Mask, set: bool, diagonal: bool) -> Self {
        let (width, reach) = (mask.width(), usize::from(diagonal));
        let mut found: Vec<Run> = Vec::new();
        // An earlier run of the same region, or the run itself.
        let mut parents: Vec<usize> = Vec::new();
        let mut above = 0;
        for (row, pixels) in mask.data().chunks_exact(width.max(1)).enumerate() {
            let (first, mut next) = (found.len(), above);
            for Range { start, end } in runs(pixels, set) {
                parents.push(found.len());
                while next < first && found[next].end + reach <= start {
                    next += 1;
                }
                let touching = found[next..first].iter().take_while(|run| run.start < end + reach).count();
                for other in next..next + touching {
                    join(&mut parents, other, found.len());
                }
                found.push(Run { row, start, end, region: 0 });
            }
            above = first;
        }
        let mut areas = Vec::new();
        for index in 0..found.len() {
            // The root is the region's first run, so that its number is known before.
            let root = root(&mut parents, index);
            let region = if root == index { areas.len() } else { found[root].region };
            if root == index {
                areas.push(0);
            }
            found[index].region = region;
            areas[region] += found[index].end - found[index].start;
        }
        Self { runs: found, areas }
    }

    /// The region with the most pixels; the first of equals.
    pub(crate) fn largest(&self) -> Option<usize> {
        (0..self.areas.len()).max_by_key(|&index| (self.areas[index], usize::MAX - index))
    }
}

/// The runs of a row of 0 and 1: columns whose pixels are set, or those whose are not.
pub(crate) fn runs(row: &[u8], set: bool) -> impl Iterator<Item = Range<usize>> {
    let mut x = 0;
    std::iter::from_fn(move || {
        let start = x + memchr(u8::from(set), &row[x..])?;
        x = memchr(u8::from(!set), &row[start..]).map_or(row.len(), |length| start + length);
        Some(start..x)
    })
}

fn root(parents: &mut [usize], mut at: usize) -> usize {
    while parents[at] != at {
        parents[at] = parents[parents[at]];
        at = parents[at];
    }
    at
}

fn join(parents: &mut [usize], a: usize, b: usize) {
    let (a, b) = (root(parents, a), root(parents, b));
    parents[a.max(b)] = a.min(b);
}
