//! The body's outline on an axial or coronal CT slice.

use crate::{Mask, Plane};

/// Tissue is denser than this, in HU; the same value is 0 when normalised over [`Window::LUNG_CT`](crate::Window::LUNG_CT).
pub const THRESHOLD_HU: f32 = -300.0;

/// [`THRESHOLD_HU`] in a plane normalised over the lung window, and the middle of the range of display values.
pub const THRESHOLD_NORMALISED: f32 = 0.0;

/// Structures thinner than this do not join the body to the table, mm.
const BRIDGE_MM: f64 = 9.0;

/// Pixel spacing that is assumed where none is known, mm.
const USUAL_SPACING_MM: f64 = 0.75;

/// The body in a slice of Hounsfield units, lungs and other gas inside it included, table and clothes left out.
///
/// Tissue above `-300 HU`, thin parts opened away, the largest part of what remains, given back its own surface, holes
/// filled. Empty when the slice holds no tissue. Arms that do not touch the trunk are left out.
pub fn body(plane: &Plane) -> Mask {
    body_above(plane, THRESHOLD_HU)
}

/// [`body`] in a plane of other units, tissue being what exceeds `threshold`: [`THRESHOLD_NORMALISED`] for planes in
/// [-1, 1] over the lung window.
pub fn body_above(plane: &Plane, threshold: f32) -> Mask {
    let tissue = Mask::new(
        plane.width(),
        plane.height(),
        plane.data().iter().map(|&value| u8::from(value > threshold)).collect(),
    );
    let spacing = plane.spacing.map_or(USUAL_SPACING_MM, |spacing| (spacing.row_mm * spacing.column_mm).sqrt());
    let radius = (BRIDGE_MM / 2.0 / spacing) as f32;
    // Lungs are opened to nothing unless they are filled first.
    let solid = tissue.holes_filled();
    let core = solid.opened(radius).largest_component();
    // The opening rounds off corners: what lies on the surface comes back, thin bridges away from it do not.
    core.grown(radius / 2.0).and(&solid).largest_component().holes_filled()
}
