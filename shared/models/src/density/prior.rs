//! The density at work: weights over an image's pixels.

use hiresmed_imaging::{Mask, Plane, Spacing};
use hiresmed_inference::package::{Kind, Package};
use serde::{Deserialize, Serialize};

use super::Error;

/// The file of a density package.
pub(crate) const FILE: &str = "density.json";
/// A body that is cut off by the field of view is stretched at most so much against the reference.
const STRETCH: (f64, f64) = (0.7, 1.4);

/// A density over a reference body. The grid's middle is the body's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Density {
    /// Cells along a row.
    pub columns: usize,
    /// Rows of cells.
    pub rows: usize,
    /// Side of a cell in millimetres.
    pub step_mm: f64,
    /// Width and height of the reference body in millimetres.
    pub body_mm: [f64; 2],
    /// Standard deviation of the kernel in millimetres.
    pub sigma_mm: f64,
    /// Nodules that it was fitted to.
    pub nodules: u64,
    /// Relative likelihood of each cell, row-major from the top left, 65,535 at the greatest.
    pub weights: Vec<u16>,
}

impl Density {
    fn fault(&self) -> Option<&'static str> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if self.columns < 2 || self.rows < 2 || self.columns.checked_mul(self.rows) != Some(self.weights.len()) {
            return Some("its weights do not fill columns x rows");
        }
        if !(positive(self.step_mm) && self.body_mm.into_iter().all(positive)) {
            return Some("step_mm and body_mm must be positive");
        }
        if self.weights.iter().all(|&weight| weight == 0) {
            return Some("all its weights are 0");
        }
        None
    }

    /// The files of a density package: its one JSON document.
    ///
    /// # Errors
    /// Never for a density that [`fit`](super::fit) made.
    pub fn to_file(&self) -> Result<(&'static str, Vec<u8>), serde_json::Error> {
        Ok((FILE, serde_json::to_vec(self)?))
    }

    /// The cell before `mm` from the middle along an axis of `count` cells, and the next one's share; none outside the grid.
    fn cell(&self, mm: f64, count: usize) -> Option<(usize, f64)> {
        let at = mm / self.step_mm + (count as f64 - 1.0) / 2.0;
        let cell = (at as usize).min(count - 2);
        (at >= 0.0 && at <= count as f64 - 1.0).then_some((cell, at - cell as f64))
    }

    /// A row of weights between two rows of cells, linear.
    fn between(&self, (top, bottom_share): (usize, f64)) -> Vec<f32> {
        let cells = |row: usize| &self.weights[row * self.columns..(row + 1) * self.columns];
        let weight = |(&upper, &lower): (&u16, &u16)| {
            ((f64::from(upper) * (1.0 - bottom_share) + f64::from(lower) * bottom_share) / 65_535.0) as f32
        };
        cells(top).iter().zip(cells(top + 1)).map(weight).collect()
    }
}

/// A density package, opened.
#[derive(Debug, Clone, PartialEq)]
pub struct Prior {
    density: Density,
}

impl Prior {
    /// Opens a package.
    ///
    /// # Errors
    /// For a package of another kind, or whose density is damaged.
    pub fn open(package: &Package) -> Result<Self, Error> {
        let name = package.name().to_owned();
        if package.kind() != Kind::Density {
            return Err(Error::Kind { name, kind: package.kind() });
        }
        let density: Density = match serde_json::from_slice(&package.file(FILE)?) {
            Ok(density) => density,
            Err(error) => return Err(Error::Content { name, cause: error.to_string() }),
        };
        Self::new(density).map_err(|cause| Error::Content { name, cause: cause.to_owned() })
    }

    /// A prior over `density`; errors say what is wrong with it.
    ///
    /// # Errors
    /// Sizes that do not agree, or no weight at all.
    pub fn new(density: Density) -> Result<Self, &'static str> {
        match density.fault() {
            Some(fault) => Err(fault),
            None => Ok(Self { density }),
        }
    }

    /// C_loc over an image: how likely a lesion's centre is at each pixel of its body, 0 outside. The reference body is laid
    /// over the box around `body`, stretched to it along both axes.
    ///
    /// Axial slices in the usual display are assumed: the patient's right at the image's left, the front at its top. Without a
    /// spacing the body is taken to be as large as the reference.
    ///
    /// # Errors
    /// [`Error::NoBody`] when the mask is empty, [`Error::Spacing`] for a spacing that is not a positive number.
    pub fn weights(&self, body: &Mask, spacing: Option<Spacing>) -> Result<Plane, Error> {
        let positive = |mm: f64| mm.is_finite() && mm > 0.0;
        if let Some(Spacing { row_mm, column_mm }) = spacing.filter(|s| !(positive(s.row_mm) && positive(s.column_mm)))
        {
            return Err(Error::Spacing { row_mm, column_mm });
        }
        let bounds = body.bounds().ok_or(Error::NoBody)?;
        let [reference_width, reference_height] = self.density.body_mm;
        let stretch = |pixels: usize, spacing_mm: Option<f64>, reference_mm: f64| {
            let natural = reference_mm / pixels as f64;
            // Millimetres of the reference body for a pixel of the image.
            spacing_mm.map_or(natural, |mm| natural.clamp(mm * STRETCH.0, mm * STRETCH.1))
        };
        let column_mm = stretch(bounds.width, spacing.map(|s| s.column_mm), reference_width);
        let row_mm = stretch(bounds.height, spacing.map(|s| s.row_mm), reference_height);
        let middle_x = bounds.left as f64 + (bounds.width as f64 - 1.0) / 2.0;
        let middle_y = bounds.top as f64 + (bounds.height as f64 - 1.0) / 2.0;
        let mut weights = Plane::filled(body.width(), body.height(), 0.0).with_spacing(spacing);
        let columns: Vec<_> = (bounds.left..bounds.left + bounds.width)
            .filter_map(|x| {
                let (cell, share) = self.density.cell((x as f64 - middle_x) * column_mm, self.density.columns)?;
                Some((x, cell, share as f32))
            })
            .collect();
        for y in bounds.top..bounds.top + bounds.height {
            let Some(row) = self.density.cell((y as f64 - middle_y) * row_mm, self.density.rows) else { continue };
            let row = self.density.between(row);
            for &(x, cell, share) in &columns {
                if body.get(x, y) {
                    weights.set(x, y, row[cell] * (1.0 - share) + row[cell + 1] * share);
                }
            }
        }
        Ok(weights)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Annotation, Fit, fit};
    use super::*;

    fn prior() -> Prior {
        let nodule = Annotation { scan: 1, slices: (0, 0), x_mm: 100.0, y_mm: -40.0 };
        Prior::new(fit(&[nodule], &Fit { body_mm: [300.0, 200.0], ..Fit::default() }).unwrap()).unwrap()
    }

    fn peak(plane: &Plane) -> (usize, usize) {
        let (at, _) = plane.data().iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
        (at % plane.width(), at / plane.width())
    }

    #[test]
    fn the_reference_body_is_laid_over_the_body_in_the_image() {
        // 150 x 100 pixels of 2 mm: as large as the reference, off the image's middle.
        let body = Mask::from_fn(256, 256, |x, y| (20..170).contains(&x) && (50..150).contains(&y));
        let weights = prior().weights(&body, Some(Spacing::square(2.0))).unwrap();
        let (x, y) = peak(&weights);
        assert!((x as f64 - (94.5 + 50.0)).abs() <= 1.5 && (y as f64 - (99.5 - 20.0)).abs() <= 1.5, "{x} {y}");
        assert_eq!(weights.at(10, 10), 0.0, "outside the body");
        assert!(weights.at(30, 140) > 0.0, "inside it, far from the nodule");
        // The same body at half the resolution, and without a spacing.
        let small = Mask::from_fn(128, 128, |x, y| (10..85).contains(&x) && (25..75).contains(&y));
        assert!(peak(&prior().weights(&small, None).unwrap()).0.abs_diff(x / 2) <= 1);
    }

    #[test]
    fn a_body_that_is_cut_off_is_not_stretched_beyond_reason() {
        let body = Mask::from_fn(64, 256, |_, y| (20..220).contains(&y));
        let weights = prior().weights(&body, Some(Spacing::square(1.0))).unwrap();
        // 64 mm of a body of 300: the peak, 100 mm from the middle, is not pulled into the image's middle.
        assert!(peak(&weights).0 >= 60);
    }

    #[test]
    fn what_is_no_density_is_refused() {
        let good = prior().density;
        assert!(Prior::new(Density { rows: good.rows + 1, ..good.clone() }).is_err());
        assert!(Prior::new(Density { step_mm: f64::NAN, ..good.clone() }).is_err());
        assert!(Prior::new(Density { weights: vec![0; good.weights.len()], ..good }).is_err());
        assert!(matches!(prior().weights(&Mask::empty(8, 8), None), Err(Error::NoBody)));
        let body = Mask::from_fn(8, 8, |_, _| true);
        for mm in [-3.0, 0.0, f64::NAN, f64::INFINITY] {
            let refused = prior().weights(&body, Some(Spacing::square(mm)));
            assert!(matches!(refused, Err(Error::Spacing { .. })), "{mm}");
        }
    }
}
