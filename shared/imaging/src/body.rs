//! The body's outline on an axial or coronal CT slice.

use crate::{Mask, Plane};

/// Tissue is denser than this, in HU; the same value is 0 when normalised over [`Window::LUNG_CT`](crate::Window::LUNG_CT).
pub const THRESHOLD_HU: f32 = -300.0;

/// [`THRESHOLD_HU`] in a plane normalised over the lung window, and the middle of the range of display values.
pub const THRESHOLD_NORMALISED: f32 = 0.0;

/// What is brighter than this in a radiograph, normalised to [-1, 1], has passed through the body.
pub const THRESHOLD_RADIOGRAPH: f32 = -0.85;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Spacing, Window};

    fn inside(x: usize, y: usize, centre: (f64, f64), radii: (f64, f64)) -> bool {
        ((x as f64 - centre.0) / radii.0).powi(2) + ((y as f64 - centre.1) / radii.1).powi(2) <= 1.0
    }

    fn trunk(x: usize, y: usize) -> bool {
        inside(x, y, (128.0, 120.0), (90.0, 60.0))
    }

    /// A chest: soft tissue, two lungs with a vessel each, a table below that touches the back, and an arm at the side.
    fn chest() -> Plane {
        let value = |x: usize, y: usize| match () {
            () if inside(x, y, (90.0, 115.0), (4.0, 4.0)) || inside(x, y, (165.0, 115.0), (3.0, 3.0)) => 50.0,
            () if inside(x, y, (88.0, 118.0), (28.0, 38.0)) || inside(x, y, (168.0, 118.0), (28.0, 38.0)) => -850.0,
            () if trunk(x, y) => 40.0,
            // The mattress is thin where it meets the back.
            () if (180..183).contains(&y) && (40..216).contains(&x) => 100.0,
            () if inside(x, y, (235.0, 120.0), (10.0, 20.0)) => 40.0,
            // Outside the scanner's circle.
            () if !inside(x, y, (128.0, 128.0), (128.0, 128.0)) => -3024.0,
            () => -1000.0,
        };
        let data = (0..256 * 256).map(|at| value(at % 256, at / 256)).collect();
        Plane::new(256, 256, data).with_spacing(Some(Spacing::square(1.4)))
    }

    #[test]
    fn the_trunk_is_found_with_its_lungs_and_without_table_and_arm() {
        let expected = Mask::from_fn(256, 256, trunk);
        for (plane, mask) in [(chest(), body(&chest())), (chest(), normalised(&chest()))] {
            assert_eq!((mask.width(), mask.height()), (plane.width(), plane.height()));
            let wrong = mask.without(&expected).area() + expected.without(&mask).area();
            assert!(wrong * 50 < expected.area(), "{wrong} of {} pixels differ", expected.area());
            assert!(mask.get(88, 118) && mask.get(90, 115), "lungs and vessels belong to the body");
            assert!(!mask.get(60, 181) && !mask.get(235, 120));
        }
    }

    fn normalised(plane: &Plane) -> Mask {
        let data = plane.data().iter().map(|&hu| Window::LUNG_CT.normalise(hu)).collect();
        let plane = Plane::new(plane.width(), plane.height(), data).with_spacing(plane.spacing);
        body_above(&plane, THRESHOLD_NORMALISED)
    }

    #[test]
    fn air_and_tiny_images_have_no_body() {
        assert_eq!(body(&Plane::filled(64, 64, -1000.0)).area(), 0);
        assert_eq!(body(&Plane::filled(1, 1, f32::NAN)).area(), 0);
        assert_eq!(body(&Plane::filled(0, 0, 0.0)).area(), 0);
    }
}
