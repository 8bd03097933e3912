//! Resizing planes and masks. Pixel centres are at half-integers of the image's extent and edges are repeated, as in
//! PyTorch's `align_corners=False`.

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

/// For each new pixel along an axis, the old ones and their weights, which sum to 1.
fn taps(from: usize, to: usize, filter: Filter) -> Vec<Vec<(usize, f32)>> {
    let scale = from as f64 / to as f64;
    (0..to)
        .map(|at| match filter {
            Filter::Area if scale > 1.0 => covered(at as f64 * scale, (at + 1) as f64 * scale, from),
            Filter::Bicubic => kernel((at as f64 + 0.5) * scale - 0.5, from, 2, cubic),
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
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Area] {
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
}
