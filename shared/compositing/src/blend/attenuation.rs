//! `attenuation`: a lesion in a radiograph.
//!
//! Along a ray line integrals of attenuation add up (Beer and Lambert), and a radiograph for presentation is linear in the logarithm
//! of the exposure, thus in the line integral. What a stone attenuates beyond the tissue that it takes the place of is therefore
//! added to the grey value, whatever lies in front of it or behind it.

use hiresmed_imaging::{Mask, Plane};

use super::reference::coverage;
use crate::layer::{Layer, MARGIN};

/// The composite of `background` and `layer`, of the same size.
///
/// Each lesion's surroundings are the mean of its own image in a ring of two pixels around its mask; where there is no ring, in a
/// mask that fills the image, its least value. What is below them adds nothing.
pub(super) fn composite(background: &Plane, layer: &Layer) -> Plane {
    let mut composite = background.clone();
    let components = layer.mask.components();
    for index in 0..components.len() {
        let lesion = components.mask(index);
        let surroundings = surroundings(&layer.lesion, &lesion, &layer.mask);
        for (at, share) in coverage(&lesion).into_iter().enumerate().filter(|(_, share)| *share > 0.0) {
            let excess = (layer.lesion.data()[at] - surroundings).max(0.0);
            let below = composite.data()[at];
            if excess > 0.0 {
                composite.data_mut()[at] = (below + share * excess).clamp(-1.0, 1.0);
            }
        }
    }
    composite
}

/// The level of `image` around `lesion`, outside all lesions.
fn surroundings(image: &Plane, lesion: &Mask, all: &Mask) -> f32 {
    let ring = lesion.dilated(MARGIN);
    let (mut sum, mut count, mut least) = (0.0, 0u32, f32::INFINITY);
    for (at, &value) in image.data().iter().enumerate() {
        if lesion.data()[at] != 0 {
            least = least.min(value);
        } else if ring.data()[at] != 0 && all.data()[at] == 0 {
            sum += f64::from(value);
            count += 1;
        }
    }
    if count > 0 { (sum / f64::from(count)) as f32 } else { least }
}
