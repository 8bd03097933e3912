//! Pictures as data URIs, so that the page needs no file beside it.

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use hiresmed_imaging::{
    Mask, Plane,
    resample::{Filter, resize},
};
use image::{GrayImage, ImageFormat, RgbaImage, codecs::jpeg::JpegEncoder};

/// A transparent picture of one pixel.
pub const NOTHING: &str = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==";

/// 8-bit JPEG at a quality at which no block shows at twice the size.
const QUALITY: u8 = 92;

const MARK: [u8; 4] = [255, 180, 84, 255];
const DANGER: [u8; 4] = [229, 72, 77, 80];
const ALLOWED: [u8; 3] = [61, 214, 140];

/// Width and height of `size` within `most`, with its proportions.
fn within((width, height): (usize, usize), most: (usize, usize)) -> (usize, usize) {
    let scale = (most.0 as f64 / width as f64).min(most.1 as f64 / height as f64).min(1.0);
    let side = |length: usize| ((length as f64 * scale).round() as usize).max(1);
    (side(width), side(height))
}

/// A plane, shrunk to fit into `most` where it is larger.
pub fn fitted(plane: Plane, most: (usize, usize)) -> Plane {
    let size = (plane.width(), plane.height());
    let (width, height) = within(size, most);
    if (width, height) == size { plane } else { resize(&plane, width, height, Filter::Area) }
}

/// A plane in [-1, 1] as a grey picture.
pub fn grey(plane: &Plane) -> Result<String> {
    let pixels = plane.data().iter().map(|value| ((value + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8).collect();
    let picture = GrayImage::from_raw(plane.width() as u32, plane.height() as u32, pixels).context("an empty image")?;
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, QUALITY).encode_image(&picture)?;
    Ok(format!("data:image/jpeg;base64,{}", BASE64_STANDARD.encode(bytes)))
}

/// The pixels just outside a mask (PNG, not 0 inside), which hide nothing of the lesion.
pub fn outline(png: &[u8], most: (usize, usize)) -> Result<String> {
    let picture = load(png, most)?;
    let mask = Mask::new(picture.width() as usize, picture.height() as usize, picture.as_raw().clone());
    // Two pixels away, so that the lesion's edge can be judged.
    let ring = mask.dilated(2).without(&mask.dilated(1));
    paint(&picture, |x, y, _| if ring.get(x as usize, y as usize) { MARK } else { [0; 4] })
}

/// Danger zones (PNG, not 0 where forbidden) as a veil.
pub fn danger(png: &[u8], most: (usize, usize)) -> Result<String> {
    paint(&load(png, most)?, |_, _, value| if value == 0 { [0; 4] } else { DANGER })
}

/// Candidates (PNG, brighter is likelier) as a glow.
pub fn heat(png: &[u8], most: (usize, usize)) -> Result<String> {
    // Sixteen levels are enough for the eye and compress well.
    paint(&load(png, most)?, |_, _, value| {
        let level = if value == 0 { 0 } else { 24 + u32::from(value) * 160 / 255 / 10 * 10 };
        [ALLOWED[0], ALLOWED[1], ALLOWED[2], level as u8]
    })
}

/// The mean of planes of one size; others are left out.
#[derive(Default)]
pub struct Mean {
    sum: Option<Plane>,
    count: usize,
}

impl Mean {
    /// Adds a plane.
    pub fn add(&mut self, plane: &Plane) {
        match &mut self.sum {
            None => self.sum = Some(plane.clone()),
            Some(sum) if (sum.width(), sum.height()) == (plane.width(), plane.height()) => {
                sum.data_mut().iter_mut().zip(plane.data()).for_each(|(sum, value)| *sum += value);
            }
            Some(_) => return,
        }
        self.count += 1;
    }

    /// The mean as a grey picture; nothing where there was no plane.
    pub fn picture(self) -> Result<String> {
        let Some(mut sum) = self.sum else { return Ok(NOTHING.to_owned()) };
        let scale = 1.0 / self.count as f32;
        sum.data_mut().iter_mut().for_each(|value| *value *= scale);
        grey(&sum)
    }
}

/// A map, shrunk to fit into `most` where it is larger: levels mean something, so that none is mixed from others.
fn load(png: &[u8], most: (usize, usize)) -> Result<GrayImage> {
    let map = image::load_from_memory_with_format(png, ImageFormat::Png)?.into_luma8();
    let size = (map.width() as usize, map.height() as usize);
    let (width, height) = within(size, most);
    if (width, height) == size {
        return Ok(map);
    }
    Ok(image::imageops::resize(&map, width as u32, height as u32, image::imageops::FilterType::Nearest))
}

fn paint(mask: &GrayImage, colour: impl Fn(u32, u32, u8) -> [u8; 4]) -> Result<String> {
    let picture =
        RgbaImage::from_fn(mask.width(), mask.height(), |x, y| image::Rgba(colour(x, y, mask.get_pixel(x, y)[0])));
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png)?;
    Ok(format!("data:image/png;base64,{}", BASE64_STANDARD.encode(bytes.into_inner())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: (usize, usize) = (64, 64);

    #[test]
    fn large_pictures_are_shrunk_and_others_are_not() {
        let shrunk = fitted(Plane::filled(640, 320, 0.5), MOST);
        assert_eq!((shrunk.width(), shrunk.height()), (64, 32));
        assert!(shrunk.data().iter().all(|value| (value - 0.5).abs() < 1e-6));
        assert_eq!(fitted(Plane::filled(20, 64, 0.5), MOST), Plane::filled(20, 64, 0.5));
        let map = GrayImage::from_fn(128, 200, |x, _| image::Luma([if x < 64 { 255 } else { 0 }]));
        let shown = decode(&danger(&png(&map), MOST).unwrap()).into_rgba8();
        assert_eq!((shown.width(), shown.height()), (41, 64));
        assert!(shown.pixels().all(|pixel| pixel.0 == DANGER || pixel.0 == [0; 4]));
    }

    fn decode(uri: &str) -> image::DynamicImage {
        let bytes = BASE64_STANDARD.decode(uri.split_once(',').unwrap().1).unwrap();
        image::load_from_memory(&bytes).unwrap()
    }

    fn png(mask: &GrayImage) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        mask.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn an_outline_surrounds_its_mask_and_leaves_it_clear() {
        let mask = GrayImage::from_fn(16, 16, |x, y| image::Luma([if x == 8 && y == 8 { 255 } else { 0 }]));
        let outline = decode(&outline(&png(&mask), MOST).unwrap()).into_rgba8();
        assert_eq!(outline.get_pixel(8, 8)[3], 0);
        assert_eq!(outline.get_pixel(9, 8)[3], 0);
        assert_eq!(outline.get_pixel(10, 8).0, MARK);
        assert_eq!(outline.pixels().filter(|pixel| pixel[3] != 0).count(), 16);
    }

    #[test]
    fn a_mean_is_the_mean() {
        let mut mean = Mean::default();
        mean.add(&Plane::filled(8, 8, -1.0));
        mean.add(&Plane::filled(8, 8, 1.0));
        mean.add(&Plane::filled(4, 4, 1.0));
        let picture = decode(&mean.picture().unwrap()).into_luma8();
        assert!(picture.pixels().all(|pixel| (126..=129).contains(&pixel[0])));
    }

    #[test]
    fn damaged_masks_are_refused() {
        assert!(danger(b"not a picture", MOST).is_err());
    }
}
