//! Where a footprint fits: erosion of the free area by the footprint, row run by row run.

use hiresmed_imaging::Mask;

/// A run of mask pixels relative to the mask's centre: rows down, columns to the right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    row: i64,
    column: i64,
    length: u32,
}

/// A lesion's mask as runs around its centre.
#[derive(Debug, Clone)]
pub(super) struct Footprint {
    runs: Vec<Run>,
    /// Extent around the centre: first and last column, first and last row.
    pub(super) left: i64,
    pub(super) right: i64,
    pub(super) top: i64,
    pub(super) bottom: i64,
    pub(super) area: usize,
}

impl Footprint {
    /// The runs of `mask` around its pixel `centre`; `None` for an empty mask.
    pub(super) fn new(mask: &Mask, centre: (usize, usize)) -> Option<Self> {
        let mut runs = Vec::new();
        for y in 0..mask.height() {
            let mut x = 0;
            while x < mask.width() {
                let length = (x..mask.width()).take_while(|&column| mask.get(column, y)).count();
                if length > 0 {
                    let row = y as i64 - centre.1 as i64;
                    runs.push(Run { row, column: x as i64 - centre.0 as i64, length: length as u32 });
                }
                x += length.max(1);
            }
        }
        let end = |run: &Run| run.column + i64::from(run.length) - 1;
        Some(Self {
            left: runs.iter().map(|run| run.column).min()?,
            right: runs.iter().map(end).max()?,
            top: runs.iter().map(|run| run.row).min()?,
            bottom: runs.iter().map(|run| run.row).max()?,
            area: mask.area(),
            runs,
        })
    }

    /// The positions at which every pixel of the footprint is set in `free` (pixels outside the image are not).
    pub(super) fn erode(&self, free: &Mask) -> Mask {
        let width = free.width().max(1);
        let ahead: Vec<Option<Vec<u16>>> = free.data().chunks_exact(width).map(runs_ahead).collect();
        let mut fits = vec![0u8; free.data().len()];
        for (y, row) in fits.chunks_exact_mut(width).enumerate() {
            let source = |run: &Run| ahead.get(usize::try_from(y as i64 + run.row).ok()?)?.as_deref();
            // Most rows of an image are not free at all, at the top or the bottom of the footprint already.
            if self.runs.iter().any(|run| source(run).is_none()) {
                continue;
            }
            row.fill(1);
            for run in &self.runs {
                if let Some(ahead) = source(run) {
                    clear_where_short(row, ahead, run);
                }
            }
        }
        Mask::new(free.width(), free.height(), fits)
    }

    /// How many of the footprint's pixels at `(x, y)` are set in `mask`; pixels outside the image are not.
    pub(super) fn count(&self, mask: &Mask, (x, y): (usize, usize)) -> usize {
        self.pixels((x, y)).filter(|&(x, y)| inside(mask, x, y).is_some_and(|(x, y)| mask.get(x, y))).count()
    }

    /// The footprint grown by `gap` steps, diagonals counting as one, in a frame of its own; with the column and the row of
    /// that frame's first pixel relative to the footprint's centre.
    pub(super) fn grown(&self, gap: usize) -> (Mask, i64, i64) {
        let (left, top) = (self.left - gap as i64, self.top - gap as i64);
        let (width, height) = ((self.right - left) as usize + 1 + gap, (self.bottom - top) as usize + 1 + gap);
        let mut own = Mask::empty(width, height);
        for run in &self.runs {
            for step in 0..i64::from(run.length) {
                own.set((run.column + step - left) as usize, (run.row - top) as usize, true);
            }
        }
        (own.dilated(gap), left, top)
    }

    fn pixels(&self, (x, y): (usize, usize)) -> impl Iterator<Item = (i64, i64)> {
        let (x, y) = (x as i64, y as i64);
        self.runs
            .iter()
            .flat_map(move |run| (0..i64::from(run.length)).map(move |step| (x + run.column + step, y + run.row)))
    }
}

fn inside(mask: &Mask, x: i64, y: i64) -> Option<(usize, usize)> {
    let (x, y) = (usize::try_from(x).ok()?, usize::try_from(y).ok()?);
    (x < mask.width() && y < mask.height()).then_some((x, y))
}

/// For each pixel of a row, how many set pixels follow from it on, at most as many as 16 bits hold; `None` where none is set.
fn runs_ahead(row: &[u8]) -> Option<Vec<u16>> {
    row.contains(&1).then(|| {
        let mut ahead = vec![0u16; row.len()];
        let mut length = 0u16;
        for (ahead, &value) in ahead.iter_mut().zip(row).rev() {
            length = if value != 0 { length.saturating_add(1) } else { 0 };
            *ahead = length;
        }
        ahead
    })
}

/// Clears the positions of `row` from which the run would start beyond the row or meet a pixel that is not free.
fn clear_where_short(row: &mut [u8], ahead: &[u16], run: &Run) {
    let width = row.len();
    // Position x starts its run at x + column; only starts inside the row can fit.
    let first = usize::try_from(-run.column).unwrap_or(0).min(width);
    let end = usize::try_from((width as i64 - run.column).clamp(0, width as i64)).unwrap_or(0).max(first);
    row[..first].fill(0);
    row[end..].fill(0);
    let start = (first as i64 + run.column).clamp(0, width as i64) as usize;
    let wanted = u16::try_from(run.length).unwrap_or(u16::MAX);
    for (fits, &length) in row[first..end].iter_mut().zip(&ahead[start..]) {
        *fits &= u8::from(length >= wanted);
    }
}
