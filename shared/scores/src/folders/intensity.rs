//! The data range: given, or chosen from what the files say.

use super::Error;
use super::files::{Image, Values};
use crate::Intensity;

/// The values that scores and networks take as the images' range, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    /// Data range and low end.
    pub intensity: Intensity,
    /// Where it comes from, for a person.
    pub reason: String,
}

impl Scale {
    /// `given`, or by rule: for PNG and JPEG 255 or 65,535, by bit depth; for DICOM from the lowest to the highest value of
    /// the real images' first windows, or of their stored range where a file has no window, in rescaled units. The low end
    /// matters to networks only; where the files do not tell it, it is 0.
    ///
    /// # Errors
    /// A range that is no positive number; files of different kinds or depths, without a range given.
    pub(super) fn choose(real: &[&Image], synthetic: &[&Image], given: Option<f64>) -> Result<Self, Error> {
        let by_rule = rule(real, synthetic);
        match given {
            Some(range) if range.is_finite() && range > 0.0 => {
                let low = by_rule.map_or(0.0, |scale| scale.intensity.low);
                Ok(Self { intensity: Intensity { low, range }, reason: "as given".to_owned() })
            }
            Some(range) => Err(Error::NoRange(range)),
            None => by_rule.map_err(|cause| Error::Range { cause }),
        }
    }
}

fn rule(real: &[&Image], synthetic: &[&Image]) -> Result<Scale, String> {
    let Some(first) = real.first().or(synthetic.first()) else { return Err("there are no images".to_owned()) };
    for image in real.iter().chain(synthetic) {
        if kind(image) != kind(first) {
            let (path, other) = (image.path.display(), first.path.display());
            return Err(format!("{path} has {}, {other} has {}", kind(image), kind(first)));
        }
    }
    if let Values::Display { max } = first.values {
        return Ok(Scale { intensity: Intensity { low: 0.0, range: max }, reason: kind(first).to_owned() });
    }
    let reference = if real.is_empty() { synthetic } else { real };
    let (mut lowest, mut highest, mut all_windowed) = (f64::INFINITY, f64::NEG_INFINITY, true);
    for image in reference {
        if let Values::Rescaled { low, high, windowed } = image.values {
            (lowest, highest, all_windowed) = (lowest.min(low), highest.max(high), all_windowed && windowed);
        }
    }
    let range = highest - lowest;
    if !(range.is_finite() && range > 0.0) {
        return Err(format!("the DICOM files say that their values go from {lowest} to {highest}"));
    }
    let source = if all_windowed { "windows" } else { "windows and stored ranges" };
    let reason = format!("from {lowest} to {highest}, by the DICOM files' {source}");
    Ok(Scale { intensity: Intensity { low: lowest, range }, reason })
}

fn kind(image: &Image) -> &'static str {
    match image.values {
        Values::Display { max } if max > 255.0 => "16-bit display values",
        Values::Display { .. } => "8-bit display values",
        Values::Rescaled { .. } => "rescaled DICOM values",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(values: Values) -> Image {
        Image { path: "a".into(), width: 8, height: 8, values }
    }

    #[test]
    fn bit_depth_or_the_real_images_windows_decide() {
        let (eight, sixteen) = (image(Values::Display { max: 255.0 }), image(Values::Display { max: 65_535.0 }));
        let range = |real: &[&Image], synthetic: &[&Image]| {
            Scale::choose(real, synthetic, None).map(|scale| (scale.intensity.low, scale.intensity.range))
        };
        assert_eq!(range(&[&eight], &[&eight]).unwrap(), (0.0, 255.0));
        assert_eq!(range(&[&sixteen], &[]).unwrap(), (0.0, 65_535.0));
        assert!(matches!(range(&[&eight], &[&sixteen]), Err(Error::Range { .. })));
        let window = |low, high| image(Values::Rescaled { low, high, windowed: true });
        let (a, b, c) = (window(-1000.0, 400.0), window(-1350.0, 150.0), window(-5000.0, 5000.0));
        assert_eq!(range(&[&a, &b], &[&c]).unwrap(), (-1350.0, 1750.0));
        assert!(matches!(range(&[&a], &[&eight]), Err(Error::Range { .. })));
        assert!(matches!(range(&[], &[]), Err(Error::Range { .. })));
    }

    #[test]
    fn a_given_range_settles_it_and_must_be_positive() {
        let (eight, sixteen) = (image(Values::Display { max: 255.0 }), image(Values::Display { max: 65_535.0 }));
        let scale = Scale::choose(&[&eight], &[&sixteen], Some(255.0)).unwrap();
        assert_eq!(scale.intensity, Intensity { low: 0.0, range: 255.0 });
        for range in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(Scale::choose(&[&eight], &[], Some(range)), Err(Error::NoRange(_))), "{range}");
        }
    }
}
