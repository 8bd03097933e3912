//! Peak signal-to-noise ratio (equations 20 and 21).

use hiresmed_imaging::Plane;

use crate::{Error, check};

/// `10 log10(data_range² / mean squared error)` in dB; infinite for equal images.
///
/// # Errors
/// For unequal sizes, an impossible data range and pixels that are not finite.
pub fn psnr(a: &Plane, b: &Plane, data_range: f64) -> Result<f64, Error> {
    check(a, b, data_range)?;
    let squares = a.data().iter().zip(b.data()).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2));
    let mean = squares.sum::<f64>() / a.data().len() as f64;
    Ok(10.0 * (data_range * data_range / mean).log10())
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
    fn refuses_what_has_no_score() {
        let (a, b) = (Plane::filled(2, 2, 0.0), Plane::filled(2, 3, 0.0));
        assert_eq!(psnr(&a, &b, 1.0), Err(Error::Size { first: (2, 2), second: (2, 3) }));
        assert_eq!(psnr(&a, &a, 0.0), Err(Error::Range(0.0)));
        assert_eq!(psnr(&a, &Plane::filled(2, 2, f32::NAN), 1.0), Err(Error::NotFinite));
        let none = Plane::filled(0, 0, 0.0);
        assert_eq!(psnr(&none, &none, 1.0), Err(Error::Small { width: 0, height: 0, least: 1 }));
    }
}
