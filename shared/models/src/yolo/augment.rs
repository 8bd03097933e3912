//! Random geometry and intensity that anatomy allows: a square out of an image, turned and zoomed a little, mirrored only where
//! sides mean nothing, never upside down and never several patients in one picture.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use super::config::{PADDING, Training};
use crate::data::{Label, Region};
use crate::noise;

/// An image `f32 [1, 1, h, w]` in [0, 1] with its lesions in its pixels.
#[derive(Debug)]
pub(super) struct Sample {
    pub image: Tensor,
    pub labels: Vec<Label>,
}

/// How pixels of the cut-out come from the image: `image = centre + matrix (cut - side / 2)`.
#[derive(Debug, Clone, Copy)]
struct Geometry {
    centre: (f64, f64),
    /// Sine and cosine of the rotation.
    turn: (f64, f64),
    /// Pixels of the cut-out for a pixel of the image.
    zoom: f64,
    /// -1 where left and right change places, else 1.
    mirror: f64,
    /// Side of the cut-out, px.
    side: f64,
}

/// A random cut-out `f32 [1, 1, crop, crop]` of a sample, as large as it is in the network's letterbox but for the zoom, and the
/// lesions whose middle lies in it.
pub(super) fn augment(sample: &Sample, training: &Training, rng: &mut ChaCha8Rng) -> (Tensor, Vec<Label>) {
    let size = sample.image.size();
    let (height, width) = (size[2] as f64, size[3] as f64);
    let mut either = |limit: f64| limit * (2.0 * rng.random::<f64>() - 1.0);
    let fitted = training.config.side as f64 / width.max(height);
    let zoom = fitted * training.zoom.powf(either(1.0));
    let (sine, cosine) = either(training.rotation_degrees).to_radians().sin_cos();
    let mirror = if training.mirror { either(1.0).signum() } else { 1.0 };
    // The cut-out lies in the image where it can, else the image in the cut-out.
    let side = training.crop as f64;
    let mut middle = |length: f64| length / 2.0 + either((length - side / zoom).abs() / 2.0);
    let centre = (middle(width), middle(height));
    let geometry = Geometry { centre, turn: (sine, cosine), zoom, mirror, side };
    let (contrast, brightness) = (1.0 + either(training.intensity), either(training.intensity / 2.0));
    let deviation = either(training.noise).abs();

    let grid = geometry.grid(width, height, training.crop as i64);
    // Bilinear (0), zeros outside (0): shifted, zero is the letterbox's grey.
    let cut = (&sample.image - f64::from(PADDING)).grid_sampler(&grid, 0, 0, false) + f64::from(PADDING);
    let grain = Tensor::from_slice(&noise::normal(rng, training.crop * training.crop)).reshape(cut.size());
    let cut = (cut * contrast + brightness + grain * deviation).clamp(0.0, 1.0);
    let labels = sample.labels.iter().filter_map(|label| geometry.label(label)).collect();
    (cut, labels)
}

impl Geometry {
    /// The cut-out's pixel to the image's: `[[a, b], [c, d]]`.
    fn matrix(&self) -> [f64; 4] {
        let (sine, cosine) = self.turn;
        [cosine * self.mirror, -sine, sine * self.mirror, cosine].map(|value| value / self.zoom)
    }

    /// The sampling grid of an image of `width x height`, both in [-1, 1] as libtorch has them.
    fn grid(&self, width: f64, height: f64, side: i64) -> Tensor {
        let [a, b, c, d] = self.matrix().map(|value| value * self.side);
        let (x, y) = self.centre;
        let rows = [a / width, b / width, 2.0 * x / width - 1.0, c / height, d / height, 2.0 * y / height - 1.0];
        let rows = Tensor::from_slice(&rows.map(|value| value as f32)).reshape([1, 2, 3]);
        Tensor::affine_grid_generator(&rows, [1, 1, side, side], false)
    }

    /// A lesion in the cut-out, cut off at its edge; none where its middle lies outside. Its box is that of the turned ellipse in
    /// the box before: a turned box would grow at its corners, where no lesion is.
    fn label(&self, label: &Label) -> Option<Label> {
        let (sine, cosine) = self.turn;
        let (x, y) = label.region.centre();
        let (x, y) = (f64::from(x) - self.centre.0, f64::from(y) - self.centre.1);
        let column = self.zoom * self.mirror * (cosine * x + sine * y) + self.side / 2.0;
        let row = self.zoom * (cosine * y - sine * x) + self.side / 2.0;
        let (width, height) = (f64::from(label.region.width()), f64::from(label.region.height()));
        let columns = self.zoom * (cosine * width).hypot(sine * height);
        let rows = self.zoom * (sine * width).hypot(cosine * height);
        let frame = Region { left: 0.0, top: 0.0, right: self.side as f32, bottom: self.side as f32 };
        let centre = (column as f32, row as f32);
        let region = Region::about(centre, columns as f32, rows as f32).overlap(&frame);
        (frame.holds(centre) && region.area() > 0.0).then_some(Label { class: label.class, region })
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;
    use tch::Kind;

    use super::*;

    #[test]
    fn a_lesion_stays_in_its_box() {
        // A bright ellipse on black, off the middle of an image that is wider than high.
        let (width, height) = (120usize, 80usize);
        let region = Region { left: 60.0, top: 30.0, right: 84.0, bottom: 42.0 };
        let inside = |at: usize| {
            let (x, y) = ((at % width) as f32 + 0.5, (at / width) as f32 + 0.5);
            let (cx, cy) = region.centre();
            ((x - cx) / 12.0).powi(2) + ((y - cy) / 6.0).powi(2) < 1.0
        };
        let data: Vec<f32> = (0..width * height).map(|at| if inside(at) { 1.0 } else { 0.0 }).collect();
        let image = Tensor::from_slice(&data).reshape([1, 1, height as i64, width as i64]);
        let sample = Sample { image, labels: vec![Label { class: 0, region }] };
        let tiny = Training::preset("tiny").unwrap();
        let config = super::super::Config { side: 128, ..tiny.config.clone() };
        let training = Training {
            config,
            crop: 96,
            mirror: true,
            rotation_degrees: 30.0,
            zoom: 1.3,
            intensity: 0.0,
            noise: 0.0,
            ..tiny
        };
        let mut seen = 0;
        for seed in 0..20 {
            let (cut, labels) = augment(&sample, &training, &mut ChaCha8Rng::from_seed([seed; 32]));
            assert_eq!(cut.size(), [1, 1, 96, 96]);
            // Brighter than the grey outside.
            let bright = cut.gt(0.7);
            let Some(label) = labels.first() else { continue };
            seen += 1;
            let extent = |axis: i64| {
                let line = bright.any_dim(if axis == 3 { 2 } else { 3 }, true).to_kind(Kind::Float).flatten(0, -1);
                let places: Vec<usize> = (0..96).filter(|&at| line.double_value(&[at as i64]) > 0.0).collect();
                (places[0] as f32, *places.last().unwrap() as f32 + 1.0)
            };
            let ((left, right), (top, bottom)) = (extent(3), extent(2));
            let found = [left, top, right, bottom];
            let expected = [label.region.left, label.region.top, label.region.right, label.region.bottom];
            let close = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 2.0);
            assert!(close, "{found:?}, expected {expected:?}");
        }
        assert!(seen >= 10, "{seen}");
    }
}
