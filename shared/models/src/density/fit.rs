//! Fitting the density to a table of annotations.

use super::{Density, Error};

/// Half sizes of the grid in millimetres: larger than any chest's field of view that counts.
const HALF_WIDTH_MM: f64 = 200.0;
const HALF_HEIGHT_MM: f64 = 160.0;
/// Side of a grid cell in millimetres.
const STEP_MM: f64 = 4.0;
/// Two annotations of a scan nearer than this in the plane, with slices in common, are one nodule read twice.
const SAME_NODULE_MM: f64 = 12.0;

/// A reader's annotation of one nodule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Annotation {
    /// The scan: annotations of different scans are different nodules.
    pub scan: u64,
    /// First and last slice index.
    pub slices: (i64, i64),
    /// Centre in millimetres from the image's centre, to the right of the image.
    pub x_mm: f64,
    /// Centre in millimetres from the image's centre, downwards.
    pub y_mm: f64,
}

/// How a density is fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// Standard deviation of the Gaussian kernel in millimetres.
    pub sigma_mm: f64,
    /// Share of the weight that is spread evenly: where nobody was annotated a lesion is rare, not impossible.
    pub floor: f64,
    /// Width and height of the reference body in millimetres.
    pub body_mm: [f64; 2],
}

impl Default for Fit {
    /// The reference body is near the mean of the bodies that [`hiresmed_imaging::body`] finds on axial chest CT: 360 x 239 mm over
    /// 43 slices of nine patients.
    fn default() -> Self {
        Self { sigma_mm: 10.0, floor: 0.02, body_mm: [360.0, 240.0] }
    }
}

/// A kernel density over the nodules' centres. A nodule counts once, however many readers marked it.
///
/// # Errors
/// [`Error::NoAnnotations`] when there is none within the grid.
pub fn fit(annotations: &[Annotation], how: &Fit) -> Result<Density, Error> {
    let columns = (2.0 * HALF_WIDTH_MM / STEP_MM) as usize + 1;
    let rows = (2.0 * HALF_HEIGHT_MM / STEP_MM) as usize + 1;
    let mut sums = vec![0.0f64; columns * rows];
    let mut nodules = 0.0;
    let reach = 4.0 * how.sigma_mm;
    for annotation in annotations {
        let &Annotation { x_mm, y_mm, .. } = annotation;
        if !(x_mm.abs() <= HALF_WIDTH_MM && y_mm.abs() <= HALF_HEIGHT_MM) {
            continue;
        }
        let weight = 1.0 / readings(annotation, annotations) as f64;
        nodules += weight;
        let cell = |mm: f64, half: f64| ((mm + half) / STEP_MM).round().max(0.0) as usize;
        for row in cell(y_mm - reach, HALF_HEIGHT_MM)..=cell(y_mm + reach, HALF_HEIGHT_MM).min(rows - 1) {
            for column in cell(x_mm - reach, HALF_WIDTH_MM)..=cell(x_mm + reach, HALF_WIDTH_MM).min(columns - 1) {
                let dx = column as f64 * STEP_MM - HALF_WIDTH_MM - x_mm;
                let dy = row as f64 * STEP_MM - HALF_HEIGHT_MM - y_mm;
                sums[row * columns + column] +=
                    weight * (-(dx * dx + dy * dy) / (2.0 * how.sigma_mm * how.sigma_mm)).exp();
            }
        }
    }
    let greatest = sums.iter().copied().fold(0.0, f64::max);
    if greatest <= 0.0 {
        return Err(Error::NoAnnotations {
            cause: format!("{} rows, none with a centre in the image", annotations.len()),
        });
    }
    let level = |sum: &f64| ((how.floor + (1.0 - how.floor) * sum / greatest) * 65_535.0).round() as u16;
    Ok(Density {
        columns,
        rows,
        step_mm: STEP_MM,
        body_mm: how.body_mm,
        sigma_mm: how.sigma_mm,
        nodules: nodules.round() as u64,
        weights: sums.iter().map(level).collect(),
    })
}

/// How many annotations, this one included, are of the same nodule.
fn readings(annotation: &Annotation, all: &[Annotation]) -> usize {
    let same = |other: &&Annotation| {
        other.scan == annotation.scan
            && other.slices.0 <= annotation.slices.1
            && annotation.slices.0 <= other.slices.1
            && (other.x_mm - annotation.x_mm).hypot(other.y_mm - annotation.y_mm) < SAME_NODULE_MM
    };
    all.iter().filter(same).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(scan: u64, x_mm: f64, y_mm: f64) -> Annotation {
        Annotation { scan, slices: (3, 5), x_mm, y_mm }
    }

    #[test]
    fn the_density_peaks_where_the_nodules_are_and_never_vanishes() {
        let density = fit(&[at(1, 80.0, -20.0), at(2, 84.0, -20.0), at(3, -80.0, 40.0)], &Fit::default()).unwrap();
        let peak = density.weights.iter().position(|&weight| weight == 65_535).unwrap();
        let (column, row) = (peak % density.columns, peak / density.columns);
        assert!((column as f64 * STEP_MM - HALF_WIDTH_MM - 82.0).abs() <= STEP_MM);
        assert!((row as f64 * STEP_MM - HALF_HEIGHT_MM + 20.0).abs() <= STEP_MM);
        assert!(density.weights.iter().all(|&weight| weight > 0));
        assert_eq!(density.nodules, 3);
    }

    #[test]
    fn four_readers_of_one_nodule_count_once() {
        let four = [at(1, 60.0, 0.0), at(1, 61.0, 1.0), at(1, 60.5, 0.0), at(1, 60.0, 1.0), at(2, -60.0, 0.0)];
        let density = fit(&four, &Fit::default()).unwrap();
        assert_eq!(density.nodules, 2);
        let value = |x_mm: f64| {
            let column = ((x_mm + HALF_WIDTH_MM) / STEP_MM) as usize;
            density.weights[(HALF_HEIGHT_MM / STEP_MM) as usize * density.columns + column]
        };
        assert!((f64::from(value(60.0)) / f64::from(value(-60.0)) - 1.0).abs() < 0.02);
    }

    #[test]
    fn nothing_to_fit_is_refused() {
        assert!(matches!(fit(&[], &Fit::default()), Err(Error::NoAnnotations { .. })));
        assert!(matches!(
            fit(&[at(1, f64::NAN, 0.0), at(1, 900.0, 0.0)], &Fit::default()),
            Err(Error::NoAnnotations { .. })
        ));
    }
}
