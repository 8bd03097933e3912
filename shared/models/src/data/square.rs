//! Whole slices as squares, for networks that draw whole images.

use hiresmed_imaging::{
    Plane,
    resample::{Filter, resize},
};

/// Air, of which there is more around every image.
const AIR: f32 = -1.0;

/// The whole of `image`, normalised to [-1, 1], averaged down to a square of `side` px; one that is no square lies in the middle, with
/// air around it.
pub fn square(image: &Plane, side: usize) -> Plane {
    let longest = image.width().max(image.height()).max(1);
    let length = |length: usize| ((length * side) as f64 / longest as f64).round() as usize;
    let small = resize(image, length(image.width()).max(1), length(image.height()).max(1), Filter::Area);
    let mut square = Plane::filled(side, side, AIR);
    square.paste(&small, (side - small.width().min(side)) / 2, (side - small.height().min(side)) / 2);
    square
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_averaged_into_the_middle_of_a_square() {
        let image = Plane::new(4, 2, vec![0.0, 0.5, 1.0, 0.0, 0.5, 0.0, 0.0, 1.0]);
        assert_eq!(square(&image, 2).data(), [0.25, 0.5, -1.0, -1.0]);
        assert_eq!(square(&image, 4).data()[..8], [-1.0, -1.0, -1.0, -1.0, 0.0, 0.5, 1.0, 0.0]);
    }
}
