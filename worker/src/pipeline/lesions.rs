//! Stage 3: lesions and their masks, sampled from noise alone.

use hiresmed_imaging::{Mask, Plane};
use hiresmed_protocol::{Digest, ImageIndex, noise::Purpose, outcome::Stage};
use rand::RngExt;

use super::{Pipeline, generator};
use crate::jobs::Failure;

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
                    .map_err(|error| Failure::permanent(Stage::Lesions, error))?;
                Ok(Sampled { image: lesion.image, mask: lesion.mask, exemplar: *exemplar, requested_mm })
            })
            .collect()
    }
}
