//! Stage 5: lesions blended into their background.

use hiresmed_compositing::{Layer, Patch};
use hiresmed_imaging::{Mask, Plane};
use hiresmed_protocol::outcome::Stage;

use super::{Background, Pipeline, Placed, Sampled};
use crate::jobs::Failure;

/// An image with its lesions.
#[derive(Debug)]
pub struct Composite {
    /// Shape of the background, nominally in [-1, 1]; bit-equal to the background outside the blended region.
    pub plane: Plane,
    /// Union of the lesions' masks, an 8-connected component a lesion.
    pub mask: Mask,
}

impl Pipeline {
    /// Blends the lesions in at their places.
    ///
    /// # Errors
    /// Permanent where the blend refuses them.
    pub fn composite(
        &self,
        background: &Background,
        lesions: &[Sampled],
        places: &Placed,
    ) -> Result<Composite, Failure> {
        self.blended(background, lesions, places).map_err(|error| Failure::permanent(Stage::Composite, error))
    }

    fn blended(&self, background: &Background, lesions: &[Sampled], places: &Placed) -> anyhow::Result<Composite> {
        let patches: Vec<Patch> = lesions
            .iter()
            .zip(&places.lesions)
            .map(|(lesion, place)| Patch {
                image: lesion.image.clone(),
                mask: lesion.mask.clone(),
                top: place.top,
                left: place.left,
            })
            .collect();
        let (width, height) = (background.plane.width(), background.plane.height());
        let layer = Layer::new(width, height, &patches)?;
        let plane = self.compositor.composite(&background.plane, &layer)?;
        Ok(Composite { plane, mask: layer.mask })
    }
}
