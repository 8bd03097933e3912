//! Text that is burned into an image's pixels, as scanners, film digitisers and screenshots leave it: a patient's name in the corner.
//!
//! Looked for are lines of characters: pieces brighter or darker than a level, as tall as letters, of thin strokes with crisp edges, side by
//! side on one baseline; at several levels, since not all text is white. Letters that touch, soft ones, and single marks (a side marker)
//! are not found.

use crate::{
    Mask,
    measures::Bounds,
    regions::{Regions, Run},
};

/// Characters of a line at least: side markers and scale bars have fewer.
const LEAST_CHARACTERS: usize = 5;
/// Height of a character at least, px.
const LEAST_HEIGHT: usize = 5;
/// A character is at most this share of the image's height, or as many pixels where that is more.
const MOST_HEIGHT: (f64, usize) = (1.0 / 12.0, 16);
/// Levels, as shares of the range: what is brighter than the first is looked at, then what is darker than the second.
const LEVELS: [f32; 5] = [0.97, 0.8, 0.65, 0.5, 0.35];
/// What surrounds a character differs by this share of the range at least.
const CONTRAST: f32 = 0.25;
/// Noise of one grey, in which nothing can be told from letters, has more pieces than this.
const MOST_PIECES: usize = 20_000;

/// Text lines in an image of `width x height`, whose greys from `low` to `high` are looked at: the rectangle around each, in pixels.
///
/// Colour is to be averaged first. An image of one grey has none.
pub fn text_lines(values: impl Iterator<Item = f32>, size: (usize, usize), low: f32, high: f32) -> Vec<Bounds> {
    let range = high - low;
    if range <= 0.0 || !range.is_finite() {
        return Vec::new();
    }
    let scale = 255.0 / range;
    // By way of i32, which the processor has a vector instruction for.
    let mut grey: Vec<u8> = values.map(|value| ((value - low) * scale).clamp(0.0, 255.0) as i32 as u8).collect();
    let mut found: Vec<Bounds> = Vec::new();
    // Dark on bright is bright on dark in the negative.
    for _ in 0..2 {
        for line in LEVELS.into_iter().flat_map(|level| lines_from(&grey, size, level)) {
            if !found.iter().any(|other| overlap(other, &line)) {
                found.push(line);
            }
        }
        grey.iter_mut().for_each(|value| *value = 255 - *value);
    }
    found
}

fn overlap(a: &Bounds, b: &Bounds) -> bool {
    let along = |start: usize, length: usize, other: usize, other_length: usize| {
        start < other + other_length && other < start + length
    };
    along(a.left, a.width, b.left, b.width) && along(a.top, a.height, b.top, b.height)
}

/// Where a piece that may be a character lies: columns `left..right`, rows `top..bottom`.
#[derive(Debug, Clone, Copy)]
struct Extent {
    left: usize,
    right: usize,
    top: usize,
    bottom: usize,
}

impl Extent {
    const NONE: Self = Self { left: usize::MAX, right: 0, top: usize::MAX, bottom: 0 };

    fn add(&mut self, run: &Run) {
        (self.left, self.right) = (self.left.min(run.start), self.right.max(run.end));
        (self.top, self.bottom) = (self.top.min(run.row), self.bottom.max(run.row + 1));
    }

    fn height(&self) -> usize {
        self.bottom - self.top
    }

    /// Whether a character may have it, and `area` pixels in it.
    fn is_shaped(&self, area: usize, most_height: usize) -> bool {
        let (w, h) = (self.right - self.left, self.height());
        let share = area as f64 / (w * h) as f64;
        let shaped = (LEAST_HEIGHT..=most_height).contains(&h) && 2 * w <= 3 * h;
        // A full rectangle is a tick unless it is as thin as an I.
        shaped && share >= 0.15 && (share <= 0.95 || 5 * w <= 2 * h)
    }
}

/// Lines of text in the pieces from `level` up.
fn lines_from(grey: &[u8], (width, height): (usize, usize), level: f32) -> Vec<Bounds> {
    let least = (level * 255.0).ceil() as u8;
    let Regions { mut runs, areas } = Regions::within(grey, width, |value| value >= least, true);
    if areas.len() > MOST_PIECES {
        return Vec::new();
    }
    let most_height = ((height as f64 * MOST_HEIGHT.0) as usize).max(MOST_HEIGHT.1);
    // Nearly all pieces are told by their extent to be none, and mostly too few are left to look further.
    let mut extents = vec![Extent::NONE; areas.len()];
    runs.iter().for_each(|run| extents[run.region].add(run));
    let shaped: Vec<bool> =
        extents.iter().zip(&areas).map(|(extent, &area)| extent.is_shaped(area, most_height)).collect();
    if shaped.iter().filter(|shaped| **shaped).count() < LEAST_CHARACTERS {
        return Vec::new();
    }
    // The runs of a piece side by side.
    runs.retain(|run| shaped[run.region]);
    runs.sort_by_key(|run| run.region);
    let pieces = runs.chunk_by(|a, b| a.region == b.region).map(|piece| (extents[piece[0].region], piece));
    let mut characters: Vec<(Extent, &[Run])> = pieces
        .filter(|(extent, piece)| f64::from(thickness(piece, extent)) <= 0.22 * extent.height() as f64 + 1.0)
        .collect();
    characters.sort_by_key(|(extent, _)| (extent.left, extent.top));
    let extents: Vec<Extent> = characters.iter().map(|(extent, _)| *extent).collect();
    lines(&extents, |at| is_clear(grey, width, &characters[at].0, characters[at].1))
}

/// Half of the thickest stroke's width, px, of the piece of these runs: how often it can lose its outline.
fn thickness(piece: &[Run], extent: &Extent) -> u32 {
    // The side of the largest square of set pixels that ends at each pixel of a row; in front of the row there is none.
    let mut above = vec![0u32; extent.right - extent.left + 1];
    let mut largest = 0;
    // Runs come row by row.
    for runs in piece.chunk_by(|a, b| a.row == b.row) {
        let mut sides = vec![0; above.len()];
        for at in runs.iter().flat_map(|run| run.start - extent.left..run.end - extent.left) {
            sides[at + 1] = 1 + sides[at].min(above[at]).min(above[at + 1]);
            largest = largest.max(sides[at + 1]);
        }
        above = sides;
    }
    largest.div_ceil(2)
}

/// Whether what surrounds a piece is of another grey.
fn is_clear(grey: &[u8], width: usize, extent: &Extent, piece: &[Run]) -> bool {
    let &Extent { left, right, top, bottom } = extent;
    // The piece with room around it for two outlines; beyond the image there is nothing to compare with.
    let mut own = Mask::empty(right - left + 4, bottom - top + 4);
    for run in piece {
        (run.start..run.end).for_each(|x| own.set(x - left + 2, run.row - top + 2, true));
    }
    let ring = own.dilated(2).without(&own.dilated(1));
    let at = |x: usize, y: usize| {
        let (x, y) = ((left + x).checked_sub(2)?, (top + y).checked_sub(2)?);
        (x < width).then(|| grey.get(y * width + x).copied())?
    };
    let places = (0..ring.height()).flat_map(|y| (0..ring.width()).map(move |x| (x, y)));
    let mut around: Vec<u8> = places.filter(|&(x, y)| ring.get(x, y)).filter_map(|(x, y)| at(x, y)).collect();
    around.sort_unstable();
    let Some(&middle) = around.get(around.len() / 2) else { return false };
    let ink = piece.iter().flat_map(|run| &grey[run.row * width..][run.start..run.end]);
    let (ink, area) = ink.fold((0u64, 0u64), |(ink, area), &value| (ink + u64::from(value), area + 1));
    ink as f32 / area as f32 - f32::from(middle) > CONTRAST * 255.0
}

/// Rows of characters on one baseline, of which most are clear.
fn lines(characters: &[Extent], is_clear: impl Fn(usize) -> bool) -> Vec<Bounds> {
    let mut found = Vec::new();
    let mut used = vec![false; characters.len()];
    for first in 0..characters.len() {
        if used[first] {
            continue;
        }
        let begin = characters[first];
        let (mut line, mut last) = (vec![first], begin);
        for (at, next) in characters.iter().enumerate().skip(first + 1) {
            // A space between words is about a character wide.
            if 2 * next.left > 2 * last.right + 3 * last.height().max(begin.height()) {
                break;
            }
            let shared = last.bottom.min(next.bottom).saturating_sub(last.top.max(next.top));
            let alike = 5 * next.height() > 3 * begin.height() && 5 * next.height() < 8 * begin.height();
            let beside = 10 * shared >= 7 * last.height().min(next.height()) && next.left + 1 >= last.right;
            if alike && beside {
                line.push(at);
                last = *next;
            }
        }
        if line.len() < LEAST_CHARACTERS {
            continue;
        }
        line.iter().for_each(|&at| used[at] = true);
        let of = |value: fn(&Extent) -> usize| {
            let mut values: Vec<usize> = line.iter().map(|&at| value(&characters[at])).collect();
            values.sort_unstable();
            values
        };
        let (bottoms, heights) = (of(|c| c.bottom), of(Extent::height));
        let (baseline, height) = (bottoms[bottoms.len() / 2], heights[heights.len() / 2]);
        let level = bottoms.iter().filter(|bottom| bottom.abs_diff(baseline) <= (height / 8).max(1)).count();
        if 10 * level >= 7 * line.len() && 10 * line.iter().filter(|&&at| is_clear(at)).count() >= 8 * line.len() {
            let (left, top) = (of(|c| c.left)[0], of(|c| c.top)[0]);
            let right = line.iter().map(|&at| characters[at].right).max().unwrap_or(left);
            let bottom = bottoms.last().copied().unwrap_or(top);
            found.push(Bounds { left, top, width: right - left, height: bottom - top });
        }
    }
    found
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Plane;

    fn text_lines(plane: &Plane, low: f32, high: f32) -> Vec<Bounds> {
        super::text_lines(plane.data().iter().copied(), (plane.width(), plane.height()), low, high)
    }

    /// Characters of 5 x 7 pixels, rows from the top, the left pixel the fifth bit: enough to burn in a name.
    const FONT: [(char, [u8; 7]); 14] = [
        ('D', [0x1E, 0x11, 0x11, 0x11, 0x11, 0x11, 0x1E]),
        ('O', [0x0E, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0E]),
        ('E', [0x1F, 0x10, 0x10, 0x1E, 0x10, 0x10, 0x1F]),
        ('J', [0x07, 0x02, 0x02, 0x02, 0x02, 0x12, 0x0C]),
        ('A', [0x0E, 0x11, 0x11, 0x1F, 0x11, 0x11, 0x11]),
        ('N', [0x11, 0x19, 0x15, 0x13, 0x11, 0x11, 0x11]),
        ('L', [0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x1F]),
        ('1', [0x04, 0x0C, 0x04, 0x04, 0x04, 0x04, 0x0E]),
        ('9', [0x0E, 0x11, 0x11, 0x0F, 0x01, 0x02, 0x0C]),
        ('5', [0x1F, 0x10, 0x1E, 0x01, 0x01, 0x11, 0x0E]),
        ('4', [0x02, 0x06, 0x0A, 0x12, 0x1F, 0x02, 0x02]),
        ('7', [0x1F, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08]),
        ('-', [0x00, 0x00, 0x00, 0x0E, 0x00, 0x00, 0x00]),
        (' ', [0; 7]),
    ];

    /// Writes `text` at `left`, `top` with characters of 7 `zoom` pixels.
    pub(crate) fn burn(plane: &mut Plane, text: &str, (left, top): (usize, usize), zoom: usize, ink: f32) {
        for (at, letter) in text.chars().enumerate() {
            let rows = FONT.iter().find(|(known, _)| *known == letter).unwrap().1;
            for (y, row) in rows.into_iter().enumerate() {
                for x in (0..5).filter(|x| row >> (4 - x) & 1 == 1) {
                    let (x, y) = (left + (at * 6 + x) * zoom, top + y * zoom);
                    (0..zoom * zoom).for_each(|k| plane.set(x + k % zoom, y + k / zoom, ink));
                }
            }
        }
    }

    /// Something like tissue: smooth, with grain, greys from 75 to 180 of 255.
    pub(crate) fn tissue(width: usize, height: usize) -> Plane {
        let value = |at: usize| {
            let (x, y) = ((at % width) as f32, (at / width) as f32);
            let grain = ((at * 7919 + at / 3) % 13) as f32 - 6.0;
            128.0 + 40.0 * (x / 41.0).sin() * (y / 37.0).cos() + 2.0 * grain
        };
        Plane::new(width, height, (0..width * height).map(value).collect())
    }

    #[test]
    fn a_name_is_found_where_it_stands_in_either_ink_and_size() {
        for (ink, zoom) in [(255.0, 1), (255.0, 3), (0.0, 2)] {
            let mut plane = tissue(320, 280);
            burn(&mut plane, "DOE JANE 1954", (20, 200), zoom, ink);
            let [line] = text_lines(&plane, 0.0, 255.0)[..] else { panic!("{:?}", text_lines(&plane, 0.0, 255.0)) };
            assert!(line.left.abs_diff(20) <= zoom && line.top.abs_diff(200) <= zoom, "{line:?}");
            assert!(line.width >= 60 * zoom && line.height.abs_diff(7 * zoom) <= zoom, "{line:?}");
        }
    }

    #[test]
    fn grey_text_is_found_on_a_darker_ground() {
        let mut plane = tissue(320, 280);
        plane.data_mut().iter_mut().for_each(|value| *value *= 0.4);
        // What is brightest is something else.
        (0..30).for_each(|y| (0..40).for_each(|x| plane.set(250 + x, 20 + y, 255.0)));
        burn(&mut plane, "DOE JANE", (20, 200), 2, 160.0);
        let [line] = text_lines(&plane, 0.0, 255.0)[..] else { panic!("{:?}", text_lines(&plane, 0.0, 255.0)) };
        assert!(line.left.abs_diff(20) <= 2 && line.top.abs_diff(200) <= 2, "{line:?}");
    }

    #[test]
    fn marks_and_anatomy_are_no_text() {
        let mut plane = tissue(320, 280);
        burn(&mut plane, "L", (20, 20), 3, 255.0);
        burn(&mut plane, "LE 4", (200, 20), 2, 255.0);
        // A ruler's ticks, a bone's bright ellipse, and grain of both ends.
        (0..12)
            .for_each(|tick| (0..9).for_each(|y| (0..8).for_each(|x| plane.set(40 + 14 * tick + x, 100 + y, 255.0))));
        for (x, y) in (0..320 * 60).map(|at| (at % 320, 140 + at / 320)) {
            if ((x as f32 - 160.0) / 60.0).hypot((y as f32 - 170.0) / 20.0) < 1.0 {
                plane.set(x, y, 255.0);
            }
        }
        for at in (0..320 * 20).step_by(17) {
            plane.set(at % 320, 215 + at / 320, if at % 2 == 0 { 255.0 } else { 0.0 });
        }
        assert_eq!(text_lines(&plane, 0.0, 255.0), []);
        assert_eq!(text_lines(&Plane::filled(64, 64, 7.0), 7.0, 7.0), []);
    }
}
