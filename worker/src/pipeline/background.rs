//! Stage 2: a background, decoded from the tokens of its source or from tokens that are drawn.

use hiresmed_imaging::{Plane, Spacing};
use hiresmed_models::prior::{Condition, Sampling};
use hiresmed_protocol::{ImageIndex, noise::Purpose, outcome::Stage, request::Modality};

use super::{Pipeline, Source, generator, inputs::to_size};
use crate::jobs::Failure;

/// A background, on the host.
#[derive(Debug)]
pub struct Background {
    /// Shape of the request or, once it is the background of a scene that is delivered in its source's geometry, of the source's
    /// content there; nominally in [-1, 1] (a decoder may overshoot; stored values are clamped).
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
        let mut planes = self.autoencoder.reconstruct(images).map_err(|error| fail(error.into()))?;
        let plane = planes.pop().ok_or_else(|| fail(anyhow::anyhow!("the model returned no image")))?;
        check(&plane).map_err(fail)?;
        Ok(Background { plane: plane.with_spacing(Some(source.spacing)), spacing: source.spacing })
    }

    /// Draws tokens from the prior with the image's own noise and decodes them: a patient who never existed. Each `draw` is another.
    ///
    /// # Errors
    /// Permanent where the plan names no prior, the prior was not trained for the request's modality, or nobody says how far the
    /// pixels lie apart.
    pub fn sampled_background(&self, index: ImageIndex, draw: u32) -> Result<Background, Failure> {
        let fail = |error: anyhow::Error| Failure::permanent(Stage::Background, error);
        let prior = self.prior.as_ref().ok_or_else(|| {
            fail(anyhow::anyhow!(
                "the plan names neither a source image nor a prior over tokens; submit the request again, with models.prior \
                 where background.mode is \"sample\""
            ))
        })?;
        let condition = condition(self.request.modality);
        let (own, asked) = (prior.sampling(), self.request.background);
        let sampling = Sampling {
            temperature: asked.temperature.map_or(own.temperature, |temperature| temperature as f32),
            top_k: asked.top_k.map_or(own.top_k, |codes| Some(codes as usize)),
            ..own
        };
        let mut noise = generator(&self.request, index, Purpose::Tokens(draw));
        let tokens = prior.sample(condition, &sampling, &mut noise).map_err(|error| fail(error.into()))?;
        let mut planes = self.autoencoder.decode(&[tokens]).map_err(|error| fail(error.into()))?;
        let plane = planes.pop().ok_or_else(|| fail(anyhow::anyhow!("the model returned no image")))?;
        check(&plane).map_err(fail)?;
        let plane = plane.with_spacing(prior.spacing_mm().map(Spacing::square));
        let plane = to_size(plane, &self.request.size, "the sampled background")?;
        let spacing = plane.spacing.ok_or_else(|| {
            fail(anyhow::anyhow!(
                "the prior does not say how far the pixels of its images lie apart; give size.spacing_mm in the request"
            ))
        })?;
        Ok(Background { plane, spacing })
    }
}

/// What a prior is asked for: the view that danger zones and positions were learned on.
pub(crate) const fn condition(modality: Modality) -> Condition<'static> {
    let (modality, view) = match modality {
        Modality::Ct => ("ct", "axial"),
        Modality::Kub => ("dx", "ap"),
    };
    Condition { modality: Some(modality), view: Some(view) }
}

fn check(plane: &Plane) -> anyhow::Result<()> {
    anyhow::ensure!(plane.is_finite(), "the model returned pixels that are not finite numbers; check its package");
    Ok(())
}
