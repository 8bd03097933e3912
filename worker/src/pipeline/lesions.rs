//! Stage 3: lesions and their masks, sampled from noise alone.

use hiresmed_imaging::{Mask, Plane};
use hiresmed_models::singan;
use hiresmed_protocol::{Digest, ImageIndex, noise::Purpose, outcome::Stage};
use rand::RngExt;

use super::{Pipeline, generator};
use crate::jobs::Failure;

/// Why a lesion was not made, in the request's millimetres where it speaks of a size.
fn refused(error: &singan::Error, requested_mm: f64, spacing_mm: f64) -> Failure {
    let (low, high) = match error {
        singan::Error::Range { low_px, high_px, .. } => (f64::from(*low_px), f64::from(*high_px)),
        other => {
            let at = format!("a lesion of {requested_mm:.2} mm, with pixels of {spacing_mm:.3} mm: {other}");
            return Failure::permanent(Stage::Lesions, anyhow::anyhow!(at));
        }
    };
    // Rounded inwards, so that what is named can be asked for.
    let (low_mm, high_mm) = ((low * spacing_mm * 100.0).ceil() / 100.0, (high * spacing_mm * 100.0).floor() / 100.0);
    Failure::permanent(
        Stage::Lesions,
        anyhow::anyhow!(
            "a lesion of {requested_mm:.2} mm cannot be made: with pixels of {spacing_mm:.3} mm that is {:.1} px, and {low} to \
             {high} px can be made; set lesions.diameter_mm to {low_mm:.2} to {high_mm:.2} mm",
            requested_mm / spacing_mm
        ),
    )
}

/// A lesion that has no place yet.
#[derive(Debug, Clone)]
pub struct Sampled {
    /// The lesion and its surroundings in [-1, 1].
    pub image: Plane,
    /// The lesion within `image`.
    pub mask: Mask,
    /// Digest of the lesion model.
    pub exemplar: Digest,
    /// Longest diameter that was drawn, in millimetres.
    pub requested_mm: f64,
}

impl Pipeline {
    /// Samples an image's lesions: number, exemplars and diameters are drawn uniformly from what the request allows.
    /// Pinned positions beyond that number add lesions.
    ///
    /// # Errors
    /// Permanent where a model cannot reach a diameter.
    pub fn lesions(&self, index: ImageIndex, spacing_mm: f64) -> Result<Vec<Sampled>, Failure> {
        let (count, diameter) = (self.request.lesions.count, self.request.lesions.diameter_mm);
        let drawn = generator(&self.request, index, Purpose::LesionCount).random_range(count.min..=count.max);
        let number = drawn.max(self.request.placement.positions.len() as u32);
        (0..number)
            .map(|n| {
                let which =
                    generator(&self.request, index, Purpose::LesionExemplar(n)).random_range(0..self.lesions.len());
                let share: f64 = generator(&self.request, index, Purpose::LesionSize(n)).random();
                let requested_mm = diameter.min + share * (diameter.max - diameter.min);
                let (exemplar, model) = &self.lesions[which];
                let mut noise = generator(&self.request, index, Purpose::LesionNoise(n));
                let lesion = model
                    .sample(&mut noise, (requested_mm / spacing_mm) as f32)
                    .map_err(|error| refused(&error, requested_mm, spacing_mm))?;
                Ok(Sampled { image: lesion.image, mask: lesion.mask, exemplar: *exemplar, requested_mm })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_cannot_be_made_is_said_in_the_requests_millimetres() {
        let error = singan::Error::Range { wanted_px: 277.39, low_px: 3.0, high_px: 256.0 };
        let text = refused(&error, 195.03, 0.703_125).to_string();
        assert!(text.contains("a lesion of 195.03 mm cannot be made"), "{text}");
        assert!(text.contains("set lesions.diameter_mm to 2.11 to 180.00 mm"), "{text}");
    }
}
