//! Where lesions may go and where they are put (equations 14 to 16; METHOD 4).
//!
//! C_loc is a map of weights (a density, a detector's scores, or both); the danger-zone model says which pixels are
//! permissible. Equation 16 tests a candidate's centre alone; with [`Rule::Footprint`] the lesion's whole mask must be
//! permissible. All is pure: positions are drawn from the caller's generator, so that equal inputs give equal positions.

mod fit;
mod placer;
mod refusal;

pub use placer::{Candidate, Candidates, Placed, Placer};
pub use refusal::Refusal;

use hiresmed_imaging::{Mask, Plane};
use serde::{Deserialize, Serialize};

/// What must be permissible for a lesion to be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// Every pixel of the lesion's mask.
    #[default]
    Footprint,
    /// The lesion's centre alone, as in the paper.
    Centre,
}

/// What is known about the background.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// C_loc: how likely a lesion's centre is at each pixel; finite and not negative, any scale.
    pub weights: &'a Plane,
    /// M_danger of equation 15: 1 where a lesion may be.
    pub permissible: &'a Mask,
    /// The body.
    pub body: &'a Mask,
}

/// The rules of placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// What must be permissible.
    pub rule: Rule,
    /// Clear pixels between two lesions' masks; at least [`MINIMUM_GAP_PX`] is kept.
    pub gap_px: usize,
    /// Clear pixels between a lesion's mask and the image's edge.
    pub border_px: usize,
    /// Whether pinned positions may lie in danger zones. Drawn positions never do.
    pub override_danger: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { rule: Rule::Footprint, gap_px: 8, border_px: 4, override_danger: false }
    }
}

/// Clear pixels that are always kept between two masks: blending reaches two pixels from either, and what is blended
/// must belong to one lesion.
pub const MINIMUM_GAP_PX: usize = 5;

/// The pixel of a lesion's mask that its position speaks of: its centroid, rounded; `(column, row)`. `None` for an empty mask.
pub fn centre(mask: &Mask) -> Option<(usize, usize)> {
    mask.centroid().map(|(x, y)| (x.round() as usize, y.round() as usize))
}

#[cfg(test)]
mod tests;
