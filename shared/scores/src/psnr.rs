//! Peak signal-to-noise ratio (equations 20 and 21).

use hiresmed_imaging::Plane;

use crate::{Error, check};

/// `10 log10(data_range² / mean squared error)` in dB; infinite for equal images. `data_range` is in the planes' units.
///
/// # Errors
/// For unequal sizes, an impossible data range and pixels that are not finite.
pub fn psnr(a: &Plane, b: &Plane, data_range: f64) -> Result<f64, Error> {
    check(a, b, data_range)?;
    let square = |(&a, &b): (&f32, &f32)| (f64::from(a) - f64::from(b)).powi(2);
    // Rows are summed first: fewer roundings pile up, and the sum does not depend on how the work is cut.
    let rows = a.data().chunks_exact(a.width()).zip(b.data().chunks_exact(a.width()));
    let sum: f64 = rows.map(|(a, b)| a.iter().zip(b).map(square).sum::<f64>()).sum();
    Ok(10.0 * (data_range * data_range / (sum / a.data().len() as f64)).log10())
}

/// [`psnr`] on the scale of the paper's tables, dB: `psnr + 20 log10(255)`, 48.13 dB more.
///
/// The values of the paper cannot be equation 20 with any bit depth of its images; they are the mean squared error of
/// images in [0, 1] set against a peak of 255.
pub fn psnr_paper(psnr: f64) -> f64 {
    psnr + 20.0 * 255f64.log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_definition() {
        let a = Plane::new(2, 2, vec![0.0, 1.0, 2.0, 3.0]);
        let b = Plane::new(2, 2, vec![0.0, 1.0, 2.0, 5.0]);
        // Mean squared error 1, range 10: 20 dB.
        assert!((psnr(&a, &b, 10.0).unwrap() - 20.0).abs() < 1e-12);
        assert_eq!(psnr(&a, &a, 10.0).unwrap(), f64::INFINITY);
    }

    #[test]
    fn the_papers_scale_is_that_of_a_peak_of_255_over_images_in_the_unit_range() {
        let (a, b) = (Plane::filled(3, 3, 0.25), Plane::filled(3, 3, 0.75));
        let expected = 10.0 * (255.0f64.powi(2) / 0.25).log10();
        assert!((psnr_paper(psnr(&a, &b, 1.0).unwrap()) - expected).abs() < 1e-12);
        // The paper's 59.03 dB for KUB radiographs.
        assert!((psnr_paper(10.9) - 59.03).abs() < 0.01);
    }

    #[test]
    fn refuses_what_has_no_score() {
        let (a, b) = (Plane::filled(2, 2, 0.0), Plane::filled(2, 3, 0.0));
        assert_eq!(psnr(&a, &b, 1.0), Err(Error::Size { first: (2, 2), second: (2, 3) }));
        assert_eq!(psnr(&a, &a, 0.0), Err(Error::Range(0.0)));
        assert_eq!(psnr(&a, &Plane::filled(2, 2, f32::NAN), 1.0), Err(Error::NotFinite));
        let none = Plane::filled(0, 0, 0.0);
        assert_eq!(psnr(&none, &none, 1.0), Err(Error::Small { width: 0, height: 0, least: 1 }));
    }
}
