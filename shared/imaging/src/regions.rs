//! Connected regions of a mask, found run by run: a row of a mask has few runs and many pixels.

use std::ops::Range;

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
        let wanted = u8::from(set);
        Self::within(mask.data(), mask.width(), |pixel| pixel == wanted, diagonal)
    }

    /// Regions of the pixels of a row-major image for which `holds` does.
    pub(crate) fn within(pixels: &[u8], width: usize, holds: impl Fn(u8) -> bool + Copy, diagonal: bool) -> Self {
        let reach = usize::from(diagonal);
        let mut found: Vec<Run> = Vec::new();
        // An earlier run of the same region, or the run itself.
        let mut parents: Vec<usize> = Vec::new();
        let mut above = 0;
        for (row, pixels) in pixels.chunks_exact(width.max(1)).enumerate() {
            let (first, mut next) = (found.len(), above);
            for Range { start, end } in runs(pixels, holds) {
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

/// The runs of a row: columns whose pixels `holds` holds for. 64 pixels are looked at together.
pub(crate) fn runs(row: &[u8], holds: impl Fn(u8) -> bool) -> impl Iterator<Item = Range<usize>> {
    // Columns where a run begins or ends, a bit each from column `start` on; `next` is the column behind them.
    let (mut edges, mut start, mut next, mut inside) = (0u64, 0, 0, 0);
    let mut edge = move || {
        while edges == 0 {
            let pixels = row.get(next..).filter(|rest| !rest.is_empty())?;
            let held = match pixels.first_chunk() {
                Some(pixels) => bits(pixels, &holds),
                None => {
                    let mut last = [0; 64];
                    last[..pixels.len()].copy_from_slice(pixels);
                    bits(&last, &holds) & ((1 << pixels.len()) - 1)
                }
            };
            edges = held ^ (held << 1 | inside);
            (start, next, inside) = (next, next + 64, held >> 63);
        }
        let column = start + edges.trailing_zeros() as usize;
        edges &= edges - 1;
        Some(column)
    };
    std::iter::from_fn(move || {
        let start = edge()?;
        Some(start..edge().unwrap_or(row.len()))
    })
}

/// A bit for each pixel, the lowest for the first.
#[inline(always)]
fn bits(pixels: &[u8; 64], holds: impl Fn(u8) -> bool) -> u64 {
    let mut held = [0u8; 64];
    held.iter_mut().zip(pixels).for_each(|(held, &pixel)| *held = u8::from(holds(pixel)));
    // The product's highest byte has the lowest bit of each of eight bytes.
    let eight = |eight: &[u8; 8]| u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    held.as_chunks().0.iter().rev().fold(0, |bits, bytes| bits << 8 | eight(bytes))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_are_found_in_rows_of_any_length(row in proptest::collection::vec(0u8..3, 0..300), stretch in 1usize..90) {
            // Of single pixels, and of long stretches.
            for row in [row.clone(), row.iter().flat_map(|&pixel| std::iter::repeat_n(pixel, stretch)).collect()] {
                let found: Vec<_> = runs(&row, |pixel| pixel == 1).collect();
                prop_assert!(found.iter().all(|run| run.start < run.end) && found.windows(2).all(|two| two[0].end < two[1].start));
                let held: Vec<_> = found.into_iter().flatten().collect();
                let expected: Vec<_> = (0..row.len()).filter(|&column| row[column] == 1).collect();
                prop_assert_eq!(held, expected);
            }
        }
    }
}
