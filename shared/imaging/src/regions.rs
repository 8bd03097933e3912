//! Connected regions of a mask, found run by run: a row of a mask has few runs and many pixels.

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
        let mut runs: Vec<Run> = Vec::new();
        // An earlier run of the same region, or the run itself.
        let mut parents: Vec<usize> = Vec::new();
        let mut above = 0;
        for (row, pixels) in mask.data().chunks_exact(width.max(1)).enumerate() {
            let (first, mut next, mut x) = (runs.len(), above, 0);
            while let Some(gap) = pixels[x..].iter().position(|&value| (value != 0) == set) {
                let start = x + gap;
                let length = pixels[start..].iter().position(|&value| (value != 0) != set);
                let end = length.map_or(width, |length| start + length);
                parents.push(runs.len());
                while next < first && runs[next].end + reach <= start {
                    next += 1;
                }
                let touching = runs[next..first].iter().take_while(|run| run.start < end + reach).count();
                for other in next..next + touching {
                    join(&mut parents, other, runs.len());
                }
                runs.push(Run { row, start, end, region: 0 });
                x = end;
            }
            above = first;
        }
        let mut areas = Vec::new();
        for index in 0..runs.len() {
            // The root is the region's first run, so that its number is known before.
            let root = root(&mut parents, index);
            let region = if root == index { areas.len() } else { runs[root].region };
            if root == index {
                areas.push(0);
            }
            runs[index].region = region;
            areas[region] += runs[index].end - runs[index].start;
        }
        Self { runs, areas }
    }

    /// The region with the most pixels; the first of equals.
    pub(crate) fn largest(&self) -> Option<usize> {
        (0..self.areas.len()).max_by_key(|&index| (self.areas[index], usize::MAX - index))
    }
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
