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
    /// A 17-pixel lesion in a 44-pixel crop: four scales of the pyramid, and the size that is asked for most (12 mm at 0.7 mm).
    fn default() -> Self {
        Self { side_px: 44, diameter_px: 17.0, margin_px: 0.8, blur_px: 0.6, ramp_px: 1.0 }
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
        let extent = Extent::of(mask).filter(|extent| extent.diameter >= 4.0);
        let extent = extent.ok_or_else(|| fault("its mask is smaller than 4 px".to_owned()))?;
        // Crop pixels per slice pixel, the margin on both ends included in the diameter.
        let zoom = (cut.diameter_px - 2.0 * cut.margin_px) / extent.diameter;
        let antialias = 0.5 * (1.0 / (zoom * zoom) - 1.0).max(0.0).sqrt();
        let sigma = |blur: f64| (antialias * antialias + (blur / zoom).powi(2)).sqrt();
        let resampler = Resampler { side: cut.side_px, zoom, centre: extent.centre };
        let walls = walls(slice, mask);
        let grown = grow(mask, cut.margin_px / zoom);
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

/// Where a mask lies.
struct Extent {
    /// Middle of the bounding box, (x, y), px.
    centre: (f64, f64),
    /// Longest distance between pixel centres, plus one, px.
    diameter: f64,
}

impl Extent {
    fn of(mask: &Mask) -> Option<Self> {
        let points = pixels(mask);
        let (mut low, mut high) = ((f64::MAX, f64::MAX), (f64::MIN, f64::MIN));
        for &(x, y) in &points {
            low = (low.0.min(x as f64), low.1.min(y as f64));
            high = (high.0.max(x as f64), high.1.max(y as f64));
        }
        let centre = ((low.0 + high.0) / 2.0, (low.1 + high.1) / 2.0);
        (!points.is_empty()).then(|| Self { centre, diameter: longest_diameter(mask) })
    }
}

/// Longest distance between the centres of two pixels of `mask`, plus one pixel; 0 when it is empty.
pub(super) fn longest_diameter(mask: &Mask) -> f64 {
    // The two farthest pixels lie at the ends of their rows.
    let ends: Vec<(f64, f64)> = (0..mask.height())
        .flat_map(|y| {
            let first = (0..mask.width()).find(|&x| mask.get(x, y));
            let last = (0..mask.width()).rev().find(|&x| mask.get(x, y));
            [first, last].into_iter().flatten().map(move |x| (x as f64, y as f64))
        })
        .collect();
    let squares = ends.iter().enumerate().flat_map(|(at, a)| ends[at..].iter().map(move |b| (a.0 - b.0).powi(2) + (a.1 - b.1).powi(2)));
    if ends.is_empty() { 0.0 } else { squares.fold(0.0, f64::max).sqrt() + 1.0 }
}

fn pixels(mask: &Mask) -> Vec<(usize, usize)> {
    let all = (0..mask.height()).flat_map(|y| (0..mask.width()).map(move |x| (x, y)));
    all.filter(|&(x, y)| mask.get(x, y)).collect()
}

/// The pixels within `radius` px of `mask`.
fn grow(mask: &Mask, radius: f64) -> Mask {
    let mut grown = mask.clone();
    let reach = radius.ceil() as isize;
    for (x, y) in pixels(mask) {
        for dy in -reach..=reach {
            for dx in -reach..=reach {
                let (to_x, to_y) = (x as isize + dx, y as isize + dy);
                let inside = to_x >= 0 && to_y >= 0 && to_x < mask.width() as isize && to_y < mask.height() as isize;
                if inside && ((dx * dx + dy * dy) as f64) <= radius * radius {
                    grown.set(to_x as usize, to_y as usize, true);
                }
            }
        }
    }
    grown
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
    let lesion = grow(lesion, 1.5);
    let tissue = Mask::from_fn(slice.width(), slice.height(), |x, y| slice.at(x, y) > TISSUE && !lesion.get(x, y));
    let mut walls = Mask::empty(slice.width(), slice.height());
    for piece in pieces(&tissue).iter().filter(|piece| piece.len() >= WALL_AREA_PX) {
        piece.iter().for_each(|&(x, y)| walls.set(x, y, true));
    }
    let grown = grow(&walls, 3.0);
    Mask::from_fn(slice.width(), slice.height(), |x, y| grown.get(x, y) && !lesion.get(x, y))
}

/// 4-connected pieces of `mask`.
fn pieces(mask: &Mask) -> Vec<Vec<(usize, usize)>> {
    let mut left = mask.clone();
    let mut pieces = Vec::new();
    for start in pixels(mask) {
        if !left.get(start.0, start.1) {
            continue;
        }
        left.set(start.0, start.1, false);
        let mut piece = vec![start];
        let mut at = 0;
        while at < piece.len() {
            let (x, y) = piece[at];
            at += 1;
            for (to_x, to_y) in [(x.wrapping_sub(1), y), (x + 1, y), (x, y.wrapping_sub(1)), (x, y + 1)] {
                if to_x < mask.width() && to_y < mask.height() && left.get(to_x, to_y) {
                    left.set(to_x, to_y, false);
                    piece.push((to_x, to_y));
                }
            }
        }
        pieces.push(piece);
    }
    pieces
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
