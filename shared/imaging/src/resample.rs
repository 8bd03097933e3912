//! Resizing planes and masks. Pixel centres are at half-integers of the image's extent and edges are repeated, as in
//! PyTorch's `align_corners=False`.

use crate::measures::Bounds;
use crate::{Mask, Plane, Spacing};

/// How new pixels come from old ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Linear between the two nearest pixels; aliases when shrinking by more than 2.
    Bilinear,
    /// Cubic convolution with a = -0.5 (Keys, 1981); may overshoot; aliases when shrinking by more than 2.
    Bicubic,
    /// Mean over the area that a new pixel covers, for shrinking; an axis that grows is interpolated linearly.
    Area,
    /// Cubic B-spline: a weighted mean that smooths a little (variance of 1/3 px²) and never overshoots; aliases when shrinking.
    BSpline,
}

/// Why a plane cannot be brought to a spacing.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum Error {
    /// The plane's own spacing is unknown.
    #[error("the image has no pixel spacing; declare one, or give the size in pixels")]
    NoSpacing,
    /// The spacing asked for is not a positive number.
    #[error("a pixel spacing of {row_mm} x {column_mm} mm; both must be positive")]
    BadSpacing {
        /// Asked for between rows.
        row_mm: f64,
        /// Asked for between columns.
        column_mm: f64,
    },
}

/// `plane` at `width x height` pixels over the same extent; its spacing follows. A size of 0 becomes 1.
pub fn resize(plane: &Plane, width: usize, height: usize, filter: Filter) -> Plane {
    let (width, height) = (width.max(1), height.max(1));
    if plane.data().is_empty() {
        return Plane::filled(width, height, 0.0);
    }
    let columns = taps(plane.width(), width, filter);
    let rows = taps(plane.height(), height, filter);
    let mut narrowed = Vec::with_capacity(width * plane.height());
    for row in plane.data().chunks_exact(plane.width()) {
        narrowed.extend(columns.iter().map(|taps| match taps[..] {
            // The usual case by itself.
            [(a, first), (b, second)] => row[a] * first + row[b] * second,
            ref taps => taps.iter().map(|&(at, weight)| row[at] * weight).sum::<f32>(),
        }));
    }
    let mut data = vec![0f32; width * height];
    for (target, taps) in data.chunks_exact_mut(width).zip(&rows) {
        for &(at, weight) in taps {
            let source = &narrowed[at * width..(at + 1) * width];
            target.iter_mut().zip(source).for_each(|(value, source)| *value += source * weight);
        }
    }
    let spacing = plane.spacing.map(|spacing| Spacing {
        row_mm: spacing.row_mm * plane.height() as f64 / height as f64,
        column_mm: spacing.column_mm * plane.width() as f64 / width as f64,
    });
    Plane::new(width, height, data).with_spacing(spacing)
}

/// `plane` at the size that brings its spacing nearest to `target`.
///
/// # Errors
/// [`Error::NoSpacing`] when the plane's own is unknown, [`Error::BadSpacing`] when the target is not positive.
pub fn to_spacing(plane: &Plane, target: Spacing, filter: Filter) -> Result<Plane, Error> {
    let spacing = plane.spacing.ok_or(Error::NoSpacing)?;
    if !(target.row_mm > 0.0 && target.column_mm > 0.0) {
        return Err(Error::BadSpacing { row_mm: target.row_mm, column_mm: target.column_mm });
    }
    let side = |length: usize, from: f64, to: f64| (length as f64 * from / to).round().clamp(1.0, 65_535.0) as usize;
    let width = side(plane.width(), spacing.column_mm, target.column_mm);
    let height = side(plane.height(), spacing.row_mm, target.row_mm);
    Ok(resize(plane, width, height, filter))
}

/// `mask` at `width x height` pixels: each new pixel takes the old one under its centre. A size of 0 becomes 1.
pub fn resize_mask(mask: &Mask, width: usize, height: usize) -> Mask {
    let (width, height) = (width.max(1), height.max(1));
    if mask.data().is_empty() {
        return Mask::empty(width, height);
    }
    let source = |at: usize, from: usize, to: usize| ((2 * at + 1) * from / (2 * to)).min(from - 1);
    Mask::from_fn(width, height, |x, y| mask.get(source(x, mask.width(), width), source(y, mask.height(), height)))
}

/// A part of an image's mask where the image is brought to another size: the pixels of `mask`, the first of which lies at column and
/// row `at` of an image of `from` (width, height), in the same image at `to`, and the column and row of the first of them there. What
/// lies outside of the image is left out; none where nothing lies inside.
///
/// Outlines come back smooth, not as blocks of pixels: the mask is smoothed by a [`Filter::BSpline`] (averaged over the area of a new
/// pixel where the image shrinks) and cut at one half, or at half of its greatest value where it is nowhere so large, so that what is
/// small is never lost. The outline of a round mask of radius r pixels moves inwards by about 1/(6 r) px. Of what a cut parts, only the
/// largest piece is kept where the mask was one 8-connected piece. At the same size the mask is what it was.
pub fn resize_mask_part(
    mask: &Mask,
    at: (i64, i64),
    from: (usize, usize),
    to: (usize, usize),
) -> Option<(Mask, (usize, usize))> {
    let bounds = inside(mask, at, from)?;
    let part = mask.cropped(&bounds);
    let (left, top) = ((at.0 + bounds.left as i64) as usize, (at.1 + bounds.top as i64) as usize);
    if from == to {
        return Some((part, (left, top)));
    }
    let axis = |from, to| taps(from, to, if to < from { Filter::Area } else { Filter::BSpline });
    let (columns, first_x) = reached(&axis(from.0, to.0), left, part.width());
    let (rows, first_y) = reached(&axis(from.1, to.1), top, part.height());
    let mut values = Vec::with_capacity(columns.len() * rows.len());
    let mut line = vec![0f32; part.width()];
    for taps in &rows {
        line.fill(0.0);
        for &(y, weight) in taps {
            let row = &part.data()[y * part.width()..(y + 1) * part.width()];
            line.iter_mut().zip(row).for_each(|(sum, &set)| *sum += f32::from(set) * weight);
        }
        values.extend(columns.iter().map(|taps| taps.iter().map(|&(x, weight)| line[x] * weight).sum::<f32>()));
    }
    let cut = 0.5f32.min(values.iter().copied().fold(0.0, f32::max) / 2.0);
    let data = values.iter().map(|&value| u8::from(value > cut)).collect();
    let mut resized = Mask::new(columns.len(), rows.len(), data);
    if part.components().len() == 1 {
        resized = resized.largest_component();
    }
    Some((resized, (first_x, first_y)))
}

/// The box of what is set in `mask` and lies within an image of `size`, where its first pixel lies at `at`.
fn inside(mask: &Mask, at: (i64, i64), size: (usize, usize)) -> Option<Bounds> {
    let bounds = mask.bounds()?;
    let clipped = |start: i64, first: usize, length: usize, size: usize| {
        let end = (first + length).min(usize::try_from(size as i64 - start).ok()?);
        let first = first.max(usize::try_from(-start).unwrap_or(0));
        (first < end).then(|| (first, end - first))
    };
    let (left, width) = clipped(at.0, bounds.left, bounds.width, size.0)?;
    let (top, height) = clipped(at.1, bounds.top, bounds.height, size.1)?;
    Some(Bounds { left, top, width, height })
}

/// Of the taps of an axis, those that read one of `length` pixels from `start` on, with these pixels counted from 0; and the first new
/// pixel that does.
fn reached(taps: &[Vec<(usize, f32)>], start: usize, length: usize) -> (Vec<Vec<(usize, f32)>>, usize) {
    let read = |taps: &Vec<(usize, f32)>| -> Vec<(usize, f32)> {
        let inside = taps.iter().filter(|(at, _)| (start..start + length).contains(at));
        inside.map(|&(at, weight)| (at - start, weight)).collect()
    };
    let first = taps.iter().position(|taps| !read(taps).is_empty()).unwrap_or(0);
    (taps[first..].iter().map(read).take_while(|taps| !taps.is_empty()).collect(), first)
}

/// For each new pixel along an axis, the old ones and their weights, which sum to 1.
fn taps(from: usize, to: usize, filter: Filter) -> Vec<Vec<(usize, f32)>> {
    let scale = from as f64 / to as f64;
    (0..to)
        .map(|at| match filter {
            Filter::Area if scale > 1.0 => covered(at as f64 * scale, (at + 1) as f64 * scale, from),
            Filter::Bicubic => kernel((at as f64 + 0.5) * scale - 0.5, from, 2, cubic),
            Filter::BSpline => kernel((at as f64 + 0.5) * scale - 0.5, from, 2, b_spline),
            Filter::Bilinear | Filter::Area => kernel((at as f64 + 0.5) * scale - 0.5, from, 1, |t| (1.0 - t).max(0.0)),
        })
        .collect()
}

fn covered(start: f64, end: f64, length: usize) -> Vec<(usize, f32)> {
    let last = (end.ceil() as usize).min(length);
    (start.floor() as usize..last)
        .map(|at| (at, ((end.min(at as f64 + 1.0) - start.max(at as f64)) / (end - start)) as f32))
        .filter(|(_, weight)| *weight > 0.0)
        .collect()
}

fn kernel(centre: f64, length: usize, reach: i64, weight: impl Fn(f64) -> f64) -> Vec<(usize, f32)> {
    let floor = centre.floor() as i64;
    (floor - reach + 1..=floor + reach)
        .map(|at| {
            let clamped = at.clamp(0, length as i64 - 1) as usize;
            (clamped, weight((centre - at as f64).abs()) as f32)
        })
        .filter(|(_, weight)| *weight != 0.0)
        .collect()
}

fn cubic(t: f64) -> f64 {
    const A: f64 = -0.5;
    if t <= 1.0 {
        ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0
    } else if t < 2.0 {
        ((A * t - 5.0 * A) * t + 8.0 * A) * t - 4.0 * A
    } else {
        0.0
    }
}

fn b_spline(t: f64) -> f64 {
    if t <= 1.0 {
        2.0 / 3.0 - t * t * (1.0 - t / 2.0)
    } else if t < 2.0 {
        (2.0 - t).powi(3) / 6.0
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(width: usize, height: usize) -> Plane {
        let data = (0..width * height).map(|at| (at % width) as f32 + 10.0 * (at / width) as f32).collect();
        Plane::new(width, height, data).with_spacing(Some(Spacing::square(1.0)))
    }

    #[test]
    fn the_same_size_is_the_same_image() {
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Area] {
            assert_eq!(resize(&ramp(7, 5), 7, 5, filter), ramp(7, 5));
        }
    }

    #[test]
    fn constants_and_means_are_kept() {
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Area, Filter::BSpline] {
            let resized = resize(&Plane::filled(9, 13, -700.0), 31, 4, filter);
            assert!(resized.data().iter().all(|value| (value + 700.0).abs() < 1e-3));
        }
        let mean = |plane: &Plane| plane.data().iter().sum::<f32>() / plane.data().len() as f32;
        assert!((mean(&resize(&ramp(30, 21), 7, 4, Filter::Area)) - mean(&ramp(30, 21))).abs() < 1e-3);
    }

    #[test]
    fn interpolated_values_match_hand_computation() {
        let row = Plane::new(4, 1, vec![0.0, 1.0, 4.0, 9.0]);
        // New centres at -0.25, 0.25, 0.75 ... of the old grid.
        let linear = resize(&row, 8, 1, Filter::Bilinear);
        assert_eq!(&linear.data()[..4], [0.0, 0.25, 0.75, 1.75]);
        // Cubic at 1.25: weights of a = -0.5 at distances 1.25, 0.25, 0.75, 1.75.
        let cubic = resize(&row, 8, 1, Filter::Bicubic);
        let expected = -0.0703125 * 0.0 + 0.8671875 * 1.0 + 0.2265625 * 4.0 - 0.0234375 * 9.0;
        assert!((f64::from(cubic.at(3, 0)) - expected).abs() < 1e-6);
        assert_eq!(resize(&row, 2, 1, Filter::Area).data(), [0.5, 6.5]);
    }

    #[test]
    fn spacing_follows_the_size() {
        let resized = to_spacing(&ramp(100, 60), Spacing { row_mm: 2.0, column_mm: 0.5 }, Filter::Area).unwrap();
        assert_eq!((resized.width(), resized.height()), (200, 30));
        assert_eq!(resized.spacing, Some(Spacing { row_mm: 2.0, column_mm: 0.5 }));
        assert_eq!(to_spacing(&Plane::filled(3, 3, 0.0), Spacing::square(1.0), Filter::Area), Err(Error::NoSpacing));
        assert!(to_spacing(&ramp(3, 3), Spacing::square(0.0), Filter::Area).is_err());
    }

    #[test]
    fn masks_keep_their_shape() {
        let mask = Mask::from_fn(10, 10, |x, y| (2..5).contains(&x) && (4..9).contains(&y));
        assert_eq!(resize_mask(&resize_mask(&mask, 30, 20), 10, 10), mask);
        assert_eq!(resize_mask(&mask, 20, 20).area(), mask.area() * 4);
    }

    fn disc(side: usize, middle: f64, radius: f64) -> Mask {
        Mask::from_fn(side, side, |x, y| (x as f64 - middle).hypot(y as f64 - middle) <= radius)
    }

    #[test]
    fn a_part_of_a_mask_keeps_its_place_and_size() {
        // 33 columns and 29 rows of an image, at a place of its own, to several sizes: odd, even, grown, shrunk, other proportions.
        let (from, at, middle, radius) = ((120, 90), (71, 40), 11.0, 9.3);
        let mask = disc(23, middle, radius);
        for to in [(240, 180), (385, 289), (386, 290), (121, 91), (90, 68), (61, 45), (300, 60)] {
            let (part, (left, top)) = resize_mask_part(&mask, at, from, to).unwrap();
            let scale = [to.0 as f64 / from.0 as f64, to.1 as f64 / from.1 as f64];
            let (x, y) = part.centroid().unwrap();
            let place = |along: f64, start: usize, scale: f64| (along + start as f64 + 0.5) / scale - 0.5;
            let (x, y) = (place(x, left, scale[0]), place(y, top, scale[1]));
            let most = 0.1f64.max(0.15 / scale[0].min(scale[1]));
            assert!((x - 82.0).abs() < most && (y - 51.0).abs() < most, "{to:?}: {x} {y}");
            let area = part.area() as f64 / (scale[0] * scale[1]);
            assert!((area / mask.area() as f64 - 1.0).abs() < 0.06, "{to:?}: {area} of {}", mask.area());
            let whole = resize(&embedded(&mask, at, from), to.0, to.1, Filter::Area);
            let near = |x: usize, y: usize| whole.at(left + x, top + y) > 0.0;
            let set = (0..part.width() * part.height()).map(|at| (at % part.width(), at / part.width()));
            assert!(set.filter(|&(x, y)| part.get(x, y)).all(|(x, y)| near(x, y)), "{to:?}");
        }
        assert_eq!(resize_mask_part(&mask, at, from, from), Some((mask.cropped(&mask.bounds().unwrap()), (73, 42))));
    }

    fn embedded(mask: &Mask, at: (i64, i64), size: (usize, usize)) -> Plane {
        let mut plane = Plane::filled(size.0, size.1, 0.0);
        for y in 0..mask.height() {
            for x in (0..mask.width()).filter(|&x| mask.get(x, y)) {
                plane.set(at.0 as usize + x, at.1 as usize + y, 1.0);
            }
        }
        plane
    }

    #[test]
    fn an_outline_is_smooth_where_it_grows() {
        // How far the outline of a disc is from a circle, in pixels.
        let spread = |mask: &Mask| {
            let (middle, outline) = (mask.centroid().unwrap(), mask.outline());
            let radii = (0..mask.data().len()).filter(|&at| outline.data()[at] != 0).map(|at| {
                let (x, y) = (at % mask.width(), at / mask.width());
                (x as f64 - middle.0).hypot(y as f64 - middle.1)
            });
            let (least, most) = radii.fold((f64::MAX, 0f64), |(least, most), at| (least.min(at), most.max(at)));
            most - least
        };
        let round = disc(23, 11.0, 9.3);
        let (part, _) = resize_mask_part(&round, (40, 40), (100, 100), (400, 400)).unwrap();
        let (smooth, blocks) = (spread(&part), spread(&resize_mask(&round, 92, 92)));
        assert!(smooth < 0.7 * blocks, "{smooth} px, and {blocks} px of blocks");
    }

    #[test]
    fn what_is_small_is_not_lost_and_what_is_outside_is_left_out() {
        let dot = Mask::from_fn(3, 3, |x, y| x == 1 && y == 1);
        for to in [(64, 64), (37, 41), (100, 100), (9, 9), (1, 1)] {
            let (part, (left, top)) = resize_mask_part(&dot, (20, 30), (64, 64), to).unwrap();
            assert!(part.area() > 0 && left + part.width() <= to.0 && top + part.height() <= to.1, "{to:?}");
            assert_eq!(part.components().len(), 1, "{to:?}");
        }
        assert_eq!(resize_mask_part(&dot, (-2, 30), (64, 64), (128, 128)), None);
        assert_eq!(resize_mask_part(&dot, (63, 30), (64, 64), (128, 128)), None);
        assert_eq!(resize_mask_part(&Mask::empty(3, 3), (5, 5), (64, 64), (128, 128)), None);
        let (part, at) = resize_mask_part(&disc(9, 4.0, 4.0), (-4, -4), (64, 64), (64, 64)).unwrap();
        assert_eq!((part.width(), part.height(), at), (5, 5, (0, 0)));
    }
}
