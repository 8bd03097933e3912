//! Stage 4: places where anatomy allows a lesion (paper, equations 14 to 16).

use hiresmed_compositing::placement::{self, Candidates, Placer, Refusal, Rules};
use hiresmed_imaging::{Mask, Plane, body};
use hiresmed_protocol::{
    ImageIndex,
    noise::Purpose,
    outcome::Stage,
    request::{Location, Rule},
};

use super::{Background, Locator, Pipeline, Sampled, Scene, generator};
use crate::jobs::Failure;

/// Clear millimetres between a lesion and the image's edge: a lesion that is cut off has no size.
const BORDER_MM: f64 = 3.0;

/// That border in pixels of `spacing_mm`.
pub(super) fn border_px(spacing_mm: f64) -> usize {
    (BORDER_MM / spacing_mm).ceil().max(2.0) as usize
}

/// Where an image's lesions go.
#[derive(Debug)]
pub struct Placed {
    /// The place of each lesion that found one, in order.
    pub lesions: Vec<placement::Placed>,
    /// Which of them the request gave.
    pub pinned: usize,
    /// M_danger: where a lesion may be.
    pub permissible: Mask,
    /// C_final of the first lesion.
    pub candidates: Plane,
}

/// What equation 16 is made of, for one background.
#[derive(Debug)]
pub struct Anatomy {
    /// C_loc.
    pub weights: Plane,
    /// M_danger: where a lesion may be.
    pub permissible: Mask,
    /// The body that was found in the image.
    pub body: Mask,
}

impl Anatomy {
    /// As placement wants it.
    pub fn scene(&self) -> placement::Scene<'_> {
        placement::Scene { weights: &self.weights, permissible: &self.permissible, body: &self.body }
    }
}

impl Locator {
    /// Body, danger zones and candidates of an image in [-1, 1].
    ///
    /// # Errors
    /// Permanent where a model refuses the image, or no body is found in it.
    pub fn anatomy(&self, plane: &Plane) -> Result<Anatomy, Failure> {
        let fail = |error: anyhow::Error| Failure::permanent(Stage::Placement, error);
        let body = body::body_above(plane, body::THRESHOLD_NORMALISED);
        if body.area() == 0 {
            return Err(fail(anyhow::anyhow!(
                "no body was found in the image: nothing in it is denser than {} HU; remove it from the input",
                body::THRESHOLD_HU
            )));
        }
        let permissible = self.danger_zones.permissible_within(plane, &body).map_err(|error| fail(error.into()))?;
        let weights = self.density.weights(&body, plane.spacing).map_err(|error| fail(error.into()))?;
        Ok(Anatomy { weights, permissible, body })
    }
}

impl Pipeline {
    /// What is known of a background before any lesion is placed on it.
    ///
    /// # Errors
    /// As [`Locator::anatomy`].
    pub fn anatomy(&self, background: &Background) -> Result<Anatomy, Failure> {
        if self.request.placement.location != Location::Density {
            return Err(Failure::permanent(
                Stage::Placement,
                anyhow::anyhow!(
                    "lesion detectors cannot propose candidates yet; set placement.location to \"density\""
                ),
            ));
        }
        self.locator.anatomy(&background.plane)
    }

    /// Places the lesions, pinned ones first. A drawn lesion beyond the least number that was asked for is left out where
    /// it has no room; any other without room fails the image.
    ///
    /// # Errors
    /// Permanent, with the reason of the refusal.
    pub fn placement(&self, index: ImageIndex, scene: &Scene, lesions: &[Sampled]) -> Result<Placed, Failure> {
        let Scene { background, anatomy, .. } = scene;
        let refuse = |n: usize, error: Refusal| {
            Failure::permanent(Stage::Placement, anyhow::Error::new(error).context(format!("lesion {}", n + 1)))
        };
        let mut placer =
            Placer::new(anatomy.scene(), self.rules(background.spacing_mm())).map_err(|error| refuse(0, error))?;
        let least = self.request.lesions.count.min as usize;
        let positions = &self.request.placement.positions;
        let mut evidence = lesions.is_empty().then(|| anatomy.weights.clone());
        for (n, lesion) in lesions.iter().enumerate() {
            let candidates = placer.candidates(&lesion.mask);
            let placed = match positions.get(n) {
                Some(&[x, y]) => {
                    placer.place_at(&lesion.mask, (x.round().max(0.0) as usize, y.round().max(0.0) as usize))
                }
                None => candidates.as_ref().map_err(Refusal::clone).and_then(|candidates| {
                    let mut noise = generator(&self.request, index, Purpose::Placement(n as u32));
                    placer.place_among(&lesion.mask, candidates, &mut noise)
                }),
            };
            if n == 0 {
                evidence = candidates.ok().map(|Candidates { map, .. }| map);
            }
            match placed {
                Ok(_) => {}
                Err(Refusal::NoRoom { .. } | Refusal::NoCandidate { .. }) if n >= least.max(positions.len()) => break,
                Err(error) => return Err(refuse(n, error)),
            }
        }
        let places = placer.placed().to_vec();
        Ok(Placed {
            pinned: positions.len().min(places.len()),
            lesions: places,
            // A first lesion that was pinned by force may fit nowhere else.
            candidates: evidence
                .unwrap_or_else(|| Plane::filled(background.plane.width(), background.plane.height(), 0.0)),
            permissible: anatomy.permissible.clone(),
        })
    }

    /// The request's rules in pixels.
    fn rules(&self, spacing_mm: f64) -> Rules {
        let wanted = &self.request.placement;
        Rules {
            rule: match wanted.rule {
                Rule::Footprint => placement::Rule::Footprint,
                Rule::Centre => placement::Rule::Centre,
            },
            gap_px: (wanted.gap_mm / spacing_mm).ceil() as usize,
            border_px: border_px(spacing_mm),
            override_danger: wanted.override_danger,
        }
    }
}
