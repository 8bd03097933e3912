//! The one image that a SinGAN learns from: a crop around a lesion and its soft mask.

use super::Error;
use hiresmed_imaging::{Mask, Plane};

/// A lesion crop, `[height, width]`, with its mask as a second channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    /// Name of the model that is trained on it.
    pub name: String,
    /// Image over the window, in [-1, 1].
    pub image: Plane,
    /// Mask in [-1, 1]: 1 inside the lesion, -1 outside, a ramp of some pixels between; 0 is the delivered mask's edge.
    pub mask: Plane,
}

/// How a crop is cut out of a slice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut {
    /// Side of the crop, px.
    pub side_px: usize,
    /// Longest diameter of the delivered mask in the crop, px: the slice is resampled to it.
    pub diameter_px: f64,
    /// Growth of the mask beyond the annotated edge, px of the crop, so that the lesion's rim belongs to it.
    pub margin_px: f64,
    /// Blur (standard deviation, px of the crop) that stands for the scanner's point spread after resampling.
    pub blur_px: f64,
    /// Blur of the mask's edge, px of the crop.
    pub ramp_px: f64,
}

impl Default for Cut {
    /// A 26-pixel lesion in a 44-pixel crop: four scales, and 15 of the coarsest scale's 25 pixels. The networks see 11 pixels, so only
    /// the five nearest to the crop's border know where they are: a lesion that fills what lies inside them keeps its place, a
    /// smaller one dissolves into specks (measured with 17 of 44).
    fn default() -> Self {
        Self { side_px: 44, diameter_px: 26.0, margin_px: 0.8, blur_px: 0.6, ramp_px: 1.0 }
    }
}

impl Exemplar {
    /// Cuts the crop around `mask` out of `slice` (normalised to [-1, 1], same size).
    ///
    /// Tissue that touches the crop's border away from the lesion (chest wall, mediastinum) is replaced by the crop's own lung:
    /// it is no part of the lesion, and a model of one image would otherwise learn to draw it.
    ///
    /// # Errors
    /// When the sizes differ, or when the mask is empty or a speck.
    pub fn cut(name: &str, slice: &Plane, mask: &Mask, cut: &Cut) -> Result<Self, Error> {
        let fault = |cause: String| Error::Exemplar { name: name.to_owned(), cause };
        if (slice.width(), slice.height()) != (mask.width(), mask.height()) {
            return Err(fault(format!(
                "its image is {} x {} and its mask {} x {}",
                slice.width(),
                slice.height(),
                mask.width(),
                mask.height()
            )));
        }
        let diameter = mask.longest_diameter();
        let bounds = mask.bounds().filter(|_| diameter >= 4.0);
        let bounds = bounds.ok_or_else(|| fault("its mask is smaller than 4 px".to_owned()))?;
        let middle = |start: usize, length: usize| start as f64 + (length as f64 - 1.0) / 2.0;
        let centre = (middle(bounds.left, bounds.width), middle(bounds.top, bounds.height));
        // Crop pixels per slice pixel, the margin on both ends included in the diameter.
        let zoom = (cut.diameter_px - 2.0 * cut.margin_px) / diameter;
        let antialias = 0.5 * (1.0 / (zoom * zoom) - 1.0).max(0.0).sqrt();
        let sigma = |blur: f64| (antialias * antialias + (blur / zoom).powi(2)).sqrt();
        let resampler = Resampler { side: cut.side_px, zoom, centre };
        let walls = walls(slice, mask);
        let grown = mask.grown((cut.margin_px / zoom) as f32);
        let mask = resampler.apply(sigma(cut.ramp_px), |x, y| if grown.get(x, y) { 1.0 } else { -1.0 }, slice);
        let clean = replace_walls(slice, &walls);
        let image = resampler.apply(sigma(cut.blur_px), |x, y| clean.at(x, y), slice);
        Ok(Self { name: name.to_owned(), image, mask })
    }

    /// The delivered mask at the crop's own size: where the mask channel is above `threshold`.
    pub fn hard_mask(&self, threshold: f32) -> Mask {
        Mask::from_fn(self.mask.width(), self.mask.height(), |x, y| self.mask.at(x, y) > threshold)
    }
}

/// Samples a slice on the crop's grid through a Gaussian, which is antialiasing and point spread in one.
struct Resampler {
    side: usize,
    /// Crop pixels per slice pixel.
    zoom: f64,
    centre: (f64, f64),
}

impl Resampler {
    /// `sigma` in slice pixels; outside the slice its nearest pixel counts.
    fn apply(&self, sigma: f64, value: impl Fn(usize, usize) -> f32, slice: &Plane) -> Plane {
        let sigma = sigma.max(0.35);
        let reach = (3.0 * sigma).ceil() as isize;
        let middle = (self.side as f64 - 1.0) / 2.0;
        let clamp = |at: isize, size: usize| at.clamp(0, size as isize - 1) as usize;
        let mut crop = Plane::filled(self.side, self.side, 0.0);
        for row in 0..self.side {
            for column in 0..self.side {
                let x = self.centre.0 + (column as f64 - middle) / self.zoom;
                let y = self.centre.1 + (row as f64 - middle) / self.zoom;
                let (mut sum, mut weights) = (0.0, 0.0);
                for at_y in y.round() as isize - reach..=y.round() as isize + reach {
                    for at_x in x.round() as isize - reach..=x.round() as isize + reach {
                        let square = (at_x as f64 - x).powi(2) + (at_y as f64 - y).powi(2);
                        let weight = (-square / (2.0 * sigma * sigma)).exp();
                        sum += weight * f64::from(value(clamp(at_x, slice.width()), clamp(at_y, slice.height())));
                        weights += weight;
                    }
                }
                crop.set(column, row, (sum / weights) as f32);
            }
        }
        crop
    }
}

/// Normalised value above which a pixel is tissue rather than lung: -500 HU in the lung window.
const TISSUE: f32 = -0.286;
/// Tissue of at least this many pixels in one piece is chest wall or mediastinum, not a vessel.
const WALL_AREA_PX: usize = 600;

/// Large pieces of tissue that are not the lesion, with their blurred edges.
fn walls(slice: &Plane, lesion: &Mask) -> Mask {
    let lesion = lesion.grown(1.5);
    let tissue = Mask::from_fn(slice.width(), slice.height(), |x, y| slice.at(x, y) > TISSUE && !lesion.get(x, y));
    let pieces = tissue.components();
    pieces.select(|piece| pieces.areas()[piece] >= WALL_AREA_PX).grown(3.0).without(&lesion)
}

/// Columns and rows of the pixels that are set.
fn pixels(mask: &Mask) -> Vec<(usize, usize)> {
    let all = (0..mask.height()).flat_map(|y| (0..mask.width()).map(move |x| (x, y)));
    all.filter(|&(x, y)| mask.get(x, y)).collect()
}

/// `slice` with its walls filled by values of the lung that lies beside them.
fn replace_walls(slice: &Plane, walls: &Mask) -> Plane {
    let mut clean = slice.clone();
    let lung: Vec<f32> = pixels(walls)
        .iter()
        .flat_map(|&(x, y)| [(x.wrapping_sub(9), y), (x + 9, y), (x, y.wrapping_sub(9)), (x, y + 9)])
        .filter(|&(x, y)| x < slice.width() && y < slice.height() && !walls.get(x, y))
        .map(|(x, y)| slice.at(x, y))
        .filter(|&value| value < -0.55 && value > -0.97)
        .collect();
    if lung.is_empty() {
        return clean;
    }
    // A fixed stride that shares no factor with common lengths: a texture without a visible pattern, and no generator needed.
    for (at, (x, y)) in pixels(walls).into_iter().enumerate() {
        clean.set(x, y, lung[(at * 7_919 + 104_729) % lung.len()]);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slice of lung with a wall of tissue below row 120 and a round lesion of 30 px that touches it.
    fn slice() -> (Plane, Mask) {
        let lesion = Mask::from_fn(200, 160, |x, y| (x as f64 - 100.0).hypot(y as f64 - 104.5) < 15.0);
        let mut plane = Plane::filled(200, 160, -0.8);
        for y in 0..160 {
            for x in 0..200 {
                if y >= 120 || lesion.get(x, y) {
                    plane.set(x, y, 0.4);
                }
            }
        }
        (plane, lesion)
    }

    #[test]
    fn a_crop_has_the_wanted_size_and_diameter() {
        let (plane, lesion) = slice();
        let cut = Cut::default();
        let exemplar = Exemplar::cut("round", &plane, &lesion, &cut).unwrap();
        assert_eq!((exemplar.image.width(), exemplar.mask.height()), (cut.side_px, cut.side_px));
        let mask = exemplar.hard_mask(0.0);
        assert!((mask.longest_diameter() - cut.diameter_px).abs() <= 1.0, "{}", mask.longest_diameter());
        let (x, y) = mask.centroid().unwrap();
        assert!((x - 21.5).abs() < 0.6 && (y - 21.5).abs() < 0.6, "{x}, {y}");
        // The mask's edge is a ramp, and reaches beyond the lesion's own edge.
        assert!(exemplar.mask.data().iter().filter(|value| value.abs() < 0.9).count() > 60);
        assert!(exemplar.image.at(21, 21) > 0.3);
    }

    #[test]
    fn tissue_that_is_not_the_lesion_becomes_lung() {
        let (plane, lesion) = slice();
        let exemplar = Exemplar::cut("round", &plane, &lesion, &Cut::default()).unwrap();
        let outside = exemplar.mask.data().iter().zip(exemplar.image.data()).filter(|(mask, _)| **mask < -0.99);
        let brightest = outside.map(|(_, value)| *value).fold(-1.0, f32::max);
        assert!(brightest < -0.5, "{brightest}");
    }

    #[test]
    fn masks_of_another_size_and_specks_are_refused() {
        let (plane, _) = slice();
        let cut = |mask: &Mask| Exemplar::cut("speck", &plane, mask, &Cut::default()).unwrap_err().to_string();
        assert!(cut(&Mask::empty(10, 10)).contains("200 x 160"));
        assert!(cut(&Mask::empty(200, 160)).contains("smaller than 4 px"));
        assert!(cut(&Mask::from_fn(200, 160, |x, y| x == 5 && y == 5)).contains("smaller than 4 px"));
    }
}
