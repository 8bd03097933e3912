//! Lesions of a wanted diameter from noise alone, through ONNX Runtime.

use super::Error;
use super::config::{CHANNELS, Config, WHOLE_CHANNELS};
use crate::noise;
use hiresmed_imaging::{Mask, Plane, resample};
use hiresmed_inference::package::{Kind, Package};
use hiresmed_inference::{Runtime, Session, SessionOptions, Tensor};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Coarse samples that are drawn before a request is refused.
const TRIES: u32 = 24;
/// Times that one coarse sample is refined again at a corrected size.
const CORRECTIONS: u32 = 3;
/// Largest relative error of the delivered diameter.
const TOLERANCE: f64 = 0.1;
/// Largest factor of the last resample, which is to correct the size and not to make it.
const LAST_RESAMPLE: f64 = 1.3;
/// The fine scales refine at no less than this share of the size that they learned: the padding of smaller maps, which they see
/// whole, would be all that they know of a lesion. A smaller lesion is this one seen by a coarser scanner: averaged over pixels.
const LEAST_ZOOM: f64 = 0.7;
/// Mask areas outside this range, relative to the exemplar's at the same diameter, are no lesions.
const AREA_RANGE: std::ops::RangeInclusive<f64> = 0.3..=1.8;
/// Pixels around the mask that a patch keeps, for blending.
const MARGIN_PX: usize = 4;
/// Diameters that can be asked for, px: under 3 px a mask has no shape; the upper bound keeps memory bounded.
const DIAMETER_RANGE: std::ops::RangeInclusive<f32> = 3.0..=256.0;

/// A sampled lesion: a patch of image around it, and its mask.
#[derive(Debug, Clone, PartialEq)]
pub struct Lesion {
    /// The patch, normalised to [-1, 1]: the lesion and at least 4 px of what surrounds it.
    pub image: Plane,
    /// The lesion: one 8-connected component without holes, same size as the patch, clear of its border.
    pub mask: Mask,
    /// Longest in-plane diameter of the mask, px.
    pub diameter_px: f32,
}

impl Lesion {
    /// The lesion turned by `orientation % 4` quarter turns and, from 4 on, mirrored: no value changes.
    fn oriented(self, orientation: u32) -> Self {
        let (width, height) = (self.mask.width(), self.mask.height());
        let size = if orientation.is_multiple_of(2) { (width, height) } else { (height, width) };
        let source = |x: usize, y: usize| {
            let x = if orientation >= 4 { size.0 - 1 - x } else { x };
            match orientation % 4 {
                0 => (x, y),
                1 => (y, height - 1 - x),
                2 => (width - 1 - x, height - 1 - y),
                _ => (width - 1 - y, x),
            }
        };
        let pixels = (0..size.1).flat_map(|y| (0..size.0).map(move |x| source(x, y)));
        let data = pixels.map(|(x, y)| self.image.at(x, y)).collect();
        let mask = Mask::from_fn(size.0, size.1, |x, y| {
            let (x, y) = source(x, y);
            self.mask.get(x, y)
        });
        Self { image: Plane::new(size.0, size.1, data), mask, diameter_px: self.diameter_px }
    }
}

/// A SinGAN package, opened.
#[derive(Debug)]
pub struct Generator {
    name: String,
    config: Config,
    session: Session,
    inputs: Vec<String>,
}

/// A session of a graph with one noise input for each of `config`'s scales, and its inputs' names.
fn checked(name: &str, config: &Config, channels: usize, session: &Session) -> Result<Vec<String>, Error> {
    let mut faults = config.faults();
    let inputs: Vec<String> = session.inputs().iter().map(|input| input.name.clone()).collect();
    if inputs.len() != config.scales() {
        faults.push(format!("the graph has {} inputs for {} scales", inputs.len(), config.scales()));
    }
    if config.channels != channels {
        faults.push(format!("channels is {}, not {channels}", config.channels));
    }
    if faults.is_empty() { Ok(inputs) } else { Err(Error::Configuration { name: name.to_owned(), faults }) }
}

/// Name, configuration and session of a package of `kind`.
fn opened(
    package: &Package,
    kind: Kind,
    runtime: &Runtime,
    options: &SessionOptions,
) -> Result<(String, Config, Session), Error> {
    let name = package.name().to_owned();
    let fault = |fault: String| Error::Configuration { name: name.clone(), faults: vec![fault] };
    if package.kind() != kind {
        return Err(fault(format!("the package is a {}, not a {kind}", package.kind())));
    }
    let config = serde_json::from_value(package.description().configuration.clone())
        .map_err(|error| fault(format!("configuration: {error}")))?;
    let session = package.session("generate", runtime, options)?;
    Ok((name, config, session))
}

/// Runs all scales on their noise: `channels` planes.
fn run(
    name: &str,
    session: &Session,
    inputs: &[String],
    noises: Vec<Tensor>,
    channels: usize,
) -> Result<Vec<Plane>, Error> {
    let inputs: Vec<(&str, Tensor)> = inputs.iter().map(String::as_str).zip(noises).collect();
    let (shape, data) = session.run_single(&inputs)?.into_f32()?;
    let (height, width) = match shape[..] {
        [1, found, height, width] if found == channels => (height, width),
        _ => {
            let fault = format!("the graph gave shape {shape:?}, expected [1, {channels}, h, w]");
            return Err(Error::Configuration { name: name.to_owned(), faults: vec![fault] });
        }
    };
    if data.iter().any(|value| !value.is_finite()) {
        return Err(Error::NotFinite { name: name.to_owned() });
    }
    Ok(data.chunks_exact(width * height).map(|plane| Plane::new(width, height, plane.to_vec())).collect())
}

/// A package of a whole image's SinGAN, opened: the baseline of table 2.
#[derive(Debug)]
pub struct WholeImage {
    name: String,
    config: Config,
    session: Session,
    inputs: Vec<String>,
}

impl WholeImage {
    /// Opens a package's `generate` graph.
    ///
    /// # Errors
    /// For a package of another kind, without a usable configuration, or whose graph does not open.
    pub fn open(package: &Package, runtime: &Runtime, options: &SessionOptions) -> Result<Self, Error> {
        let (name, config, session) = opened(package, Kind::SinganWhole, runtime, options)?;
        let inputs = checked(&name, &config, WHOLE_CHANNELS, &session)?;
        Ok(Self { name, config, session, inputs })
    }

    /// Sample `index` of `seed`, in [-1, 1] over the package's window, as large as the exemplar was learned. The same seed and index give
    /// the same bytes on the same device and runtime, whatever else was sampled.
    ///
    /// # Errors
    /// [`Error::Configuration`] where the graph gives another shape, [`Error::NotFinite`], [`Error::Session`].
    pub fn sample(&self, seed: u64, index: u64) -> Result<Plane, Error> {
        let mut rng = noise::generator(seed, index, "singan whole");
        let sizes = self.config.sizes.iter().enumerate();
        let noises =
            sizes.map(|(scale, &size)| noise_map(&mut rng, scale, WHOLE_CHANNELS, size)).collect::<Result<_, _>>()?;
        let mut planes = run(&self.name, &self.session, &self.inputs, noises, WHOLE_CHANNELS)?;
        let mut image = planes.swap_remove(0);
        image.data_mut().iter_mut().for_each(|value| *value = value.clamp(-1.0, 1.0));
        Ok(image)
    }
}

impl Generator {
    /// Opens a package's `generate` graph.
    ///
    /// # Errors
    /// For a package of another kind, without a usable configuration, or whose graph does not open.
    pub fn open(package: &Package, runtime: &Runtime, options: &SessionOptions) -> Result<Self, Error> {
        let (name, config, session) = opened(package, Kind::Singan, runtime, options)?;
        Self::new(&name, config, session)
    }

    /// A generator over an open session of a graph as [`export`](super::export()) writes it.
    ///
    /// # Errors
    /// [`Error::Configuration`] with every fault.
    pub fn new(name: &str, config: Config, session: Session) -> Result<Self, Error> {
        let inputs = checked(name, &config, CHANNELS, &session)?;
        Ok(Self { name: name.to_owned(), config, session, inputs })
    }

    /// The package's name: the exemplar.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Draws a lesion whose longest diameter is within 10 % of `diameter_px`.
    ///
    /// The coarse scales draw its shape at the size they learned; the fine scales refine it at the size asked for, so that texture
    /// and edges keep the width of the scanner's pixels; a lesion far smaller than the exemplar is averaged down from the smallest
    /// size that they can refine. The diameter is measured, and the same coarse sample refined again where it
    /// is off; a small resample takes the rest. What is no lesion (too small or large an area for its diameter, cut by the
    /// patch's border) is drawn again. Its orientation is drawn too: a lung nodule has no side that is up.
    ///
    /// # Errors
    /// [`Error::Range`] for a diameter that cannot be made, [`Error::Diameter`] when no draw succeeds, [`Error::NotFinite`],
    /// [`Error::Session`].
    pub fn sample(&self, rng: &mut ChaCha8Rng, diameter_px: f32) -> Result<Lesion, Error> {
        if !DIAMETER_RANGE.contains(&diameter_px) {
            return Err(Error::Range {
                wanted_px: diameter_px,
                low_px: *DIAMETER_RANGE.start(),
                high_px: *DIAMETER_RANGE.end(),
            });
        }
        let orientation = rng.random_range(0..8);
        let mut last = String::from("no lesion");
        for _ in 0..TRIES {
            match self.attempt(rng, f64::from(diameter_px))? {
                Ok(lesion) => return Ok(lesion.oriented(orientation)),
                Err(reason) => last = reason,
            }
        }
        Err(Error::Diameter { name: self.name.clone(), tries: TRIES, wanted_px: diameter_px, last })
    }

    /// One coarse sample, refined until its size fits; the inner error says why it is no lesion of that size.
    fn attempt(&self, rng: &mut ChaCha8Rng, wanted: f64) -> Result<Result<Lesion, String>, Error> {
        let coarse = self.config.scales().div_ceil(2);
        let coarse_noise: Vec<Tensor> = (0..coarse)
            .map(|scale| noise_map(rng, scale, CHANNELS, self.config.sizes[scale]))
            .collect::<Result<_, _>>()?;
        let mut zoom = (wanted / f64::from(self.config.lesion_diameter_px)).max(LEAST_ZOOM);
        let mut outcome = Err("no lesion".to_owned());
        for _ in 0..CORRECTIONS {
            let mut inputs = coarse_noise.clone();
            for scale in coarse..self.config.scales() {
                inputs.push(noise_map(rng, scale, CHANNELS, self.size(scale, zoom))?);
            }
            let (image, channel) = self.run(inputs)?;
            let Some(found) = Found::in_channel(&channel, self.config.mask_threshold) else {
                return Ok(Err("an empty mask".to_owned()));
            };
            let factor = wanted / found.diameter;
            if (factor.recip() - 1.0).abs() <= TOLERANCE {
                return Ok(self.accept(&image, found));
            }
            outcome = Err(format!("{:.1} px", found.diameter));
            let small = zoom <= LEAST_ZOOM && factor < 1.0;
            if small || (1.0 / LAST_RESAMPLE..=LAST_RESAMPLE).contains(&factor) {
                let lesion = self.resampled(&image, &channel, factor, wanted);
                if lesion.is_ok() {
                    return Ok(lesion);
                }
            }
            // A sample twice too small or large is another shape than the exemplar's: half the way keeps it from running off.
            zoom = (zoom * factor.clamp(0.5, 2.0)).max(LEAST_ZOOM);
        }
        Ok(outcome)
    }

    /// Size of `scale`'s noise at `zoom`: enlarged as a whole, but not reduced twice, since a scale that is smaller than the next
    /// one would only lose detail.
    fn size(&self, scale: usize, zoom: f64) -> [usize; 2] {
        let size = if zoom < 1.0 { self.config.finest() } else { self.config.sizes[scale] };
        size.map(|side| ((side as f64 * zoom).round() as usize).max(4))
    }

    /// Runs all scales: image and mask channel, `[h, w]` each.
    fn run(&self, noises: Vec<Tensor>) -> Result<(Plane, Plane), Error> {
        let mut planes = run(&self.name, &self.session, &self.inputs, noises, CHANNELS)?;
        let (mask, mut image) = (planes.swap_remove(1), planes.swap_remove(0));
        image.data_mut().iter_mut().for_each(|value| *value = value.clamp(-1.0, 1.0));
        Ok((image, mask))
    }

    /// The sample at `factor` times its size, if its diameter then fits.
    fn resampled(&self, image: &Plane, channel: &Plane, factor: f64, wanted: f64) -> Result<Lesion, String> {
        let side = |side: usize| ((side as f64 * factor).round() as usize).max(1);
        let (width, height) = (side(image.width()), side(image.height()));
        let filter = if factor < 1.0 { resample::Filter::Area } else { resample::Filter::Bicubic };
        let (image, channel) =
            (resample::resize(image, width, height, filter), resample::resize(channel, width, height, filter));
        let found = Found::in_channel(&channel, self.config.mask_threshold).ok_or("an empty mask")?;
        if (found.diameter / wanted - 1.0).abs() > TOLERANCE {
            return Err(format!("{:.1} px", found.diameter));
        }
        self.accept(&image, found)
    }

    /// The lesion, cropped to its mask and a margin, unless it is none.
    fn accept(&self, image: &Plane, found: Found) -> Result<Lesion, String> {
        let scale = found.diameter / f64::from(self.config.lesion_diameter_px);
        let area = found.mask.area() as f64 / (scale * scale * f64::from(self.config.lesion_area_px));
        if !AREA_RANGE.contains(&area) {
            return Err(format!("{:.1} px, but {area:.2} times the exemplar's area", found.diameter));
        }
        let bounds = found.mask.bounds().ok_or("an empty mask")?;
        let (right, bottom) = (bounds.left + bounds.width, bounds.top + bounds.height);
        if bounds.left == 0 || bounds.top == 0 || right == image.width() || bottom == image.height() {
            return Err(format!("{:.1} px, cut by the patch's border", found.diameter));
        }
        // Pixels of the margin that lie outside the sample take the nearest one's value.
        let (width, height) = (bounds.width + 2 * MARGIN_PX, bounds.height + 2 * MARGIN_PX);
        let column = |x: usize| (bounds.left + x).saturating_sub(MARGIN_PX).min(image.width() - 1);
        let row = |y: usize| (bounds.top + y).saturating_sub(MARGIN_PX).min(image.height() - 1);
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let data = pixels.map(|(x, y)| image.at(column(x), row(y)).clamp(-1.0, 1.0)).collect();
        let mask = Mask::from_fn(width, height, |x, y| {
            let inside = |at: usize, size: usize| (MARGIN_PX..size - MARGIN_PX).contains(&at);
            inside(x, width) && inside(y, height) && found.mask.get(column(x), row(y))
        });
        Ok(Lesion { image: Plane::new(width, height, data), mask, diameter_px: found.diameter as f32 })
    }
}

/// The lesion in a mask channel.
struct Found {
    mask: Mask,
    diameter: f64,
}

impl Found {
    /// The largest piece above `threshold`, its holes filled.
    fn in_channel(channel: &Plane, threshold: f32) -> Option<Self> {
        let above = Mask::from_fn(channel.width(), channel.height(), |x, y| channel.at(x, y) > threshold);
        let mask = above.largest_component().holes_filled();
        let diameter = mask.longest_diameter();
        (diameter > 0.0).then_some(Self { mask, diameter })
    }
}

/// N(0, 1) noise of a scale, `f32 [1, c, h, w]`: one map for all channels at scale 0, one each above.
fn noise_map(
    rng: &mut ChaCha8Rng,
    scale: usize,
    channels: usize,
    [height, width]: [usize; 2],
) -> Result<Tensor, Error> {
    let channels = if scale == 0 { 1 } else { channels };
    Ok(Tensor::f32([1, channels, height, width], noise::normal(rng, channels * height * width))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orientations_are_the_eight_of_a_rectangle() {
        let corner = Plane::new(3, 2, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let mask = Mask::from_fn(3, 2, |x, y| corner.at(x, y) > 4.0);
        let lesion = Lesion { image: corner, mask, diameter_px: 2.0 };
        let mut seen = Vec::new();
        for orientation in 0..8 {
            let turned = lesion.clone().oriented(orientation);
            let above = turned.image.data().iter().map(|&value| u8::from(value > 4.0));
            assert!(above.eq(turned.mask.data().iter().copied()), "mask and image turn together");
            let rows: Vec<Vec<u8>> = turned
                .image
                .data()
                .chunks(turned.image.width())
                .map(|row| row.iter().map(|&v| v as u8).collect())
                .collect();
            seen.push(rows);
        }
        let expected: [&[&[u8]]; 8] = [
            &[&[1, 2, 3], &[4, 5, 6]],
            &[&[4, 1], &[5, 2], &[6, 3]],
            &[&[6, 5, 4], &[3, 2, 1]],
            &[&[3, 6], &[2, 5], &[1, 4]],
            &[&[3, 2, 1], &[6, 5, 4]],
            &[&[1, 4], &[2, 5], &[3, 6]],
            &[&[4, 5, 6], &[1, 2, 3]],
            &[&[6, 3], &[5, 2], &[4, 1]],
        ];
        assert_eq!(seen, expected);
    }
}
