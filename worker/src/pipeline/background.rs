//! Stage 2: a background, decoded from the tokens of its source.

use hiresmed_imaging::{Plane, Spacing};
use hiresmed_protocol::outcome::Stage;

use super::{Pipeline, Source};
use crate::jobs::Failure;

/// A background, on the host.
#[derive(Debug)]
pub struct Background {
    /// Shape of the request, nominally in [-1, 1] (a decoder may overshoot; stored values are clamped).
    pub plane: Plane,
    /// Distance of pixel centres.
    pub spacing: Spacing,
}

impl Background {
    /// Geometric mean of row and column spacing, in millimetres: what a diameter is measured with.
    pub fn spacing_mm(&self) -> f64 {
        (self.spacing.row_mm * self.spacing.column_mm).sqrt()
    }
}

impl Pipeline {
    /// Encodes, quantises and decodes a source image.
    ///
    /// # Errors
    /// Permanent where the networks refuse the image.
    pub fn background(&self, source: &Source) -> Result<Background, Failure> {
        let fail = |error: anyhow::Error| Failure::permanent(Stage::Background, error);
        let images = std::slice::from_ref(&source.plane);
        let device = self.autoencoder.reconstruct_on_device(images).map_err(|error| fail(error.into()))?;
        let plane = match device {
            Some(device) => {
                let (_, data) = device
                    .to_host()
                    .map_err(anyhow::Error::from)
                    .and_then(|tensor| Ok(tensor.into_f32()?))
                    .map_err(fail)?;
                Plane::new(source.plane.width(), source.plane.height(), data)
            }
            // A site's own model that only reconstructs, or a size that its stride does not divide.
            None => {
                let mut planes = self.autoencoder.reconstruct(images).map_err(|error| fail(error.into()))?;
                planes.pop().ok_or_else(|| fail(anyhow::anyhow!("the model returned no image")))?
            }
        };
        if !plane.is_finite() {
            return Err(fail(anyhow::anyhow!(
                "the model returned pixels that are not finite numbers; check its package"
            )));
        }
        Ok(Background { plane: plane.with_spacing(Some(source.spacing)), spacing: source.spacing })
    }
}
