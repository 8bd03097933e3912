//! Blends against their promises, and the graphs against the reference.

use hiresmed_imaging::{Mask, Plane, Spacing};
use hiresmed_inference::{Runtime, SessionOptions};

use super::*;
use crate::layer::{Layer, Patch};

const ALL: [Blend; 4] = [Blend::Paper, Blend::Feather, Blend::Poisson, Blend::Attenuation];
/// One step of 16 bit over [-1, 1].
const STEP: f32 = 2.0 / 65_535.0;

/// Reproducible values in [-1, 1).
struct Noise(u32);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as f32 / 8_388_608.0 - 1.0
    }
}

/// Lung-like: dark with grain, a bright vessel across, a bright wall at the left.
fn lung(width: usize, height: usize) -> Plane {
    let mut noise = Noise(7);
    let mut plane = Plane::filled(width, height, 0.0);
    for y in 0..height {
        for x in 0..width {
            let vessel = 0.9 * (-((y as f32 - 20.0 - 0.2 * x as f32) / 2.0).powi(2)).exp();
            let wall = if x < 8 { 1.2 } else { 0.0 };
            plane.set(x, y, (-0.8 + vessel + wall + 0.06 * noise.next()).clamp(-1.0, 1.0));
        }
    }
    plane
}

/// A round lesion with a soft edge of its own, on surroundings at `level`.
fn nodule(radius: f32, level: f32, top: i64, left: i64) -> Patch {
    let side = 2 * radius.ceil() as usize + 9;
    let centre = side as f32 / 2.0 - 0.5;
    let mut noise = Noise(11);
    let distance = |x: usize, y: usize| ((x as f32 - centre).powi(2) + (y as f32 - centre).powi(2)).sqrt();
    let mut image = Plane::filled(side, side, 0.0);
    for y in 0..side {
        for x in 0..side {
            let body = 1.0 / (1.0 + ((distance(x, y) - radius + 1.0) * 2.0).exp());
            image.set(x, y, (level + (0.45 - level) * body + 0.04 * noise.next()).clamp(-1.0, 1.0));
        }
    }
    Patch { image, mask: Mask::from_fn(side, side, |x, y| distance(x, y) <= radius + 0.5), top, left }
}

fn random(width: usize, height: usize) -> (Plane, Layer) {
    let mut noise = Noise(3);
    let mut plane = || Plane::new(width, height, (0..width * height).map(|_| noise.next()).collect());
    let (background, lesion) = (plane(), plane());
    let mut choice = Noise(5);
    // Ragged masks, single pixels, and masks at the border.
    let mask = Mask::from_fn(width, height, |x, y| (x / 6 + y / 5) % 3 == 0 && choice.next() > -0.4);
    (background, Layer::over(lesion, mask))
}

fn realistic() -> (Plane, Layer) {
    let patches = [nodule(8.0, -0.75, 30, 20), nodule(3.0, -0.9, 8, 60), nodule(5.0, -0.6, 60, 70)];
    (lung(112, 96), Layer::new(112, 96, &patches).unwrap())
}

fn compositor(blend: Blend) -> Compositor {
    let options = SessionOptions { threads: 1, ..Default::default() };
    Compositor::open(&Runtime::load().unwrap(), blend, &options).unwrap()
}

#[test]
fn the_graph_equals_the_reference_within_one_step() {
    for (background, layer) in [random(53, 41), realistic()] {
        for blend in ALL {
            let expected = reference(blend, &background, &layer).unwrap();
            let found = compositor(blend).composite(&background, &layer).unwrap();
            let differ = |(a, b): (&f32, &f32)| (a - b).abs();
            let worst = found.data().iter().zip(expected.data()).map(differ).fold(0.0, f32::max);
            assert!(worst <= STEP, "{blend:?}: {worst}");
        }
    }
}

#[test]
fn outside_the_mask_grown_by_two_pixels_the_background_is_bit_equal() {
    for (mut background, layer) in [random(53, 41), realistic()] {
        // Values whose bits a careless selection would change.
        for (at, value) in [(0, -0.0), (1, f32::MIN_POSITIVE / 4.0), (2, 1.5)] {
            background.set(at, 40, value);
        }
        let region = layer.mask.dilated(2);
        for blend in ALL {
            for composite in [
                reference(blend, &background, &layer).unwrap(),
                compositor(blend).composite(&background, &layer).unwrap(),
            ] {
                for (at, &in_region) in region.data().iter().enumerate() {
                    let (before, after) = (background.data()[at], composite.data()[at]);
                    assert!(in_region != 0 || before.to_bits() == after.to_bits(), "{blend:?} changes pixel {at}");
                }
            }
        }
    }
}

#[test]
fn most_pixels_of_every_lesion_change() {
    let (background, layer) = realistic();
    let components = layer.mask.components();
    assert_eq!(components.len(), 3);
    for blend in ALL {
        let composite = reference(blend, &background, &layer).unwrap();
        for index in 0..components.len() {
            let lesion = components.mask(index);
            let changed = |at: &usize| (composite.data()[*at] - background.data()[*at]).abs() > STEP;
            let count = (0..lesion.data().len()).filter(|at| lesion.data()[*at] != 0).filter(changed).count();
            assert!(count * 10 > lesion.area() * 9, "{blend:?}: {count} of {}", lesion.area());
        }
    }
}

#[test]
fn values_stay_in_the_unit_range() {
    let mut layer = random(53, 41).1;
    layer.lesion.data_mut().iter_mut().for_each(|value| *value *= 3.0);
    let background = Plane::filled(53, 41, 0.9);
    for blend in ALL {
        let composite = reference(blend, &background, &layer).unwrap();
        assert!(composite.data().iter().all(|value| (-1.0..=1.0).contains(value)), "{blend:?}");
    }
}

#[test]
fn a_lesion_keeps_its_density_and_loses_its_seam() {
    // The lesion comes with surroundings that are 0.3 brighter than the background it is put on.
    let background = Plane::filled(64, 64, -0.9);
    let patch = nodule(9.0, -0.6, 18, 18);
    let layer = Layer::new(64, 64, &[patch]).unwrap();
    let seam = |composite: &Plane| {
        let inside = |x: usize, y: usize| layer.mask.get(x, y);
        let edges =
            (1..63).flat_map(|y| (1..63).map(move |x| (x, y))).filter(|&(x, y)| inside(x, y) != inside(x + 1, y));
        let steps: Vec<f32> = edges.map(|(x, y)| (composite.at(x, y) - composite.at(x + 1, y)).abs()).collect();
        steps.iter().sum::<f32>() / steps.len() as f32
    };
    let pasted = {
        let mut pasted = background.clone();
        for (at, _) in layer.mask.data().iter().enumerate().filter(|(_, value)| **value != 0) {
            pasted.data_mut()[at] = layer.lesion.data()[at];
        }
        seam(&pasted)
    };
    for blend in [Blend::Feather, Blend::Poisson] {
        let composite = reference(blend, &background, &layer).unwrap();
        assert!((composite.at(31, 31) - layer.lesion.at(31, 31)).abs() < 0.06, "{blend:?} washes the lesion out");
        assert!(seam(&composite) < 0.5 * pasted, "{blend:?}: seam {} of {pasted}", seam(&composite));
    }
}

#[test]
fn poisson_meets_the_background_at_the_edge_and_repeats_an_equal_lesion() {
    // A lesion whose surroundings are the background's already is put in unchanged.
    let (background, mut layer) = realistic();
    let offset = |value: &f32| value + 0.1;
    layer.lesion = Plane::new(112, 96, background.data().iter().map(offset).collect());
    let composite = reference(Blend::Poisson, &background, &layer).unwrap();
    let shift = |at: usize| composite.data()[at] - layer.lesion.data()[at];
    let distance = layer.mask.distance_to_edge();
    for (at, &depth) in distance.data().iter().enumerate().filter(|(_, depth)| **depth > 0.0) {
        // The offset at the edge is -0.1; inside it fades and never overshoots (maximum principle).
        assert!((-0.101..=0.001).contains(&shift(at)), "depth {depth}: {}", shift(at));
    }
    layer.lesion = background.clone();
    let unchanged = reference(Blend::Poisson, &background, &layer).unwrap();
    let worst = unchanged.data().iter().zip(background.data()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-6, "{worst}");
}

#[test]
fn attenuation_adds_the_same_to_whatever_lies_behind() {
    let (lung, mut layer) = (lung(112, 96), realistic().1);
    let added = |background: &Plane| {
        let composite = reference(Blend::Attenuation, background, &layer).unwrap();
        composite.data().iter().zip(background.data()).map(|(after, before)| after - before).collect::<Vec<_>>()
    };
    let (flat, textured) = (added(&Plane::filled(112, 96, -0.9)), added(&lung));
    let mut compared = 0;
    for (at, (flat, textured)) in flat.iter().zip(&textured).enumerate() {
        // Where neither is limited: the sum of line integrals does not depend on the order of what a ray passes.
        if lung.data()[at] + flat < 1.0 {
            assert!((flat - textured).abs() < 1e-6, "pixel {at}: {flat} {textured}");
            compared += usize::from(*flat > 0.0);
        }
    }
    assert!(compared > 200, "{compared}");
    // The middle of the largest lesion is 0.45 on surroundings of -0.75.
    let middle = (30 + 12) * 112 + 20 + 12;
    assert!((flat[middle] - 1.2).abs() < 0.1, "{}", flat[middle]);
    // What is darker than its surroundings, a gas bubble, takes nothing away.
    layer.lesion.data_mut().iter_mut().for_each(|value| *value = -*value);
    let composite = reference(Blend::Attenuation, &lung, &layer).unwrap();
    assert!(composite.data().iter().zip(lung.data()).all(|(after, before)| after >= before));
}

#[test]
fn a_mask_over_the_whole_image_and_an_empty_one_work() {
    let background = Plane::filled(9, 7, -0.5);
    let lesion = Plane::filled(9, 7, 0.25);
    for blend in ALL {
        let full = Layer::over(lesion.clone(), Mask::from_fn(9, 7, |_, _| true));
        let composite = reference(blend, &background, &full).unwrap();
        // Nothing in an even lesion exceeds anything else.
        let expected = if blend == Blend::Attenuation { -0.5 } else { 0.25 };
        assert!((composite.at(4, 3) - expected).abs() < 1e-5, "{blend:?}");
        let empty = Layer::over(lesion.clone(), Mask::empty(9, 7));
        assert_eq!(reference(blend, &background, &empty).unwrap(), background, "{blend:?}");
        assert_eq!(compositor(blend).composite(&background, &empty).unwrap(), background, "{blend:?}");
    }
}

#[test]
fn lesions_near_each_other_and_at_the_border_are_blended_as_in_the_whole_image() {
    let background = lung(112, 96).with_spacing(Some(Spacing::square(0.7)));
    // Two lesions whose seams see each other, one cut off by its margin at the corner.
    let patches = [nodule(6.0, -0.7, 20, 30), nodule(4.0, -0.6, 22, 44), nodule(3.0, -0.8, -4, 96)];
    let layer = Layer::new(112, 96, &patches).unwrap();
    assert_eq!(layer.windows.len(), 2);
    for blend in ALL {
        let composite = compositor(blend).composite(&background, &layer).unwrap();
        assert_eq!(composite.spacing, background.spacing, "{blend:?}");
        let whole = reference(blend, &background, &layer).unwrap();
        let differ = |(a, b): (&f32, &f32)| (a - b).abs();
        let worst = composite.data().iter().zip(whole.data()).map(differ).fold(0.0, f32::max);
        assert!(worst <= STEP, "{blend:?}: {worst}");
    }
}

#[test]
fn unequal_sizes_and_values_that_are_not_finite_are_errors() {
    let (_, layer) = realistic();
    let small = Plane::filled(10, 10, 0.0);
    for blend in ALL {
        assert!(matches!(reference(blend, &small, &layer), Err(Error::Size { .. })));
        assert!(matches!(compositor(blend).composite(&small, &layer), Err(Error::Size { .. })));
    }
    let text = reference(Blend::Poisson, &Plane::filled(112, 96, f32::NAN), &layer).unwrap_err().to_string();
    assert!(text.contains("did not converge"), "{text}");
}
