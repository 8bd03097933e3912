//! PNG and JPEG: grey images in, masks and 8-bit previews out.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageEncoder, ImageFormat, ImageReader};

use crate::dicom::{ReadOptions, read_bounded};
use crate::{Error, Fault, Mask, Plane, Window};

/// Channels of a grey image that was stored as colour may differ by this much on average: JPEG's chroma is lossy.
const GREY_TOLERANCE: f64 = 2.0;

/// A grey image of display values.
#[derive(Debug, Clone, PartialEq)]
pub struct Grey {
    /// Values from 0 to `max`.
    pub plane: Plane,
    /// 255 for 8-bit files, 65,535 for 16-bit ones.
    pub max: f32,
}

/// Size and depth of a grey image, from the head of its file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Head {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// 255 for 8-bit files, 65,535 for 16-bit ones.
    pub max: f32,
}

/// Reads the head of a PNG or JPEG, no pixels: its size is known cheaply, whether it decodes is not.
///
/// # Errors
/// [`Fault::Io`], [`Fault::Malformed`], [`Fault::TooLarge`].
pub fn read_head(path: impl AsRef<Path>, options: ReadOptions) -> Result<Head, Error> {
    let path = path.as_ref();
    let bytes = read_bounded(path, options).map_err(|fault| Error::new(path, fault))?;
    head_from_bytes(&bytes, path, options)
}

/// As [`read_head`], of `bytes`; `name` stands for the file in errors.
///
/// # Errors
/// As [`read_head`].
pub fn head_from_bytes(bytes: &[u8], name: impl AsRef<Path>, options: ReadOptions) -> Result<Head, Error> {
    let head = || {
        let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
        reader.limits(limits(options));
        let decoder = reader.into_decoder().map_err(fault)?;
        let ((width, height), colour) = (decoder.dimensions(), decoder.color_type());
        let max = if colour.bytes_per_pixel() == colour.channel_count() { 255.0 } else { 65_535.0 };
        Ok(Head { width: width as usize, height: height as usize, max })
    };
    head().map_err(|fault: Fault| Error::new(name, fault))
}

/// Reads a PNG or JPEG, told apart by content. Grey stored as colour counts as grey.
///
/// # Errors
/// [`Fault::Io`], [`Fault::Malformed`] when the file is damaged or truncated, [`Fault::Colour`] for true colour,
/// [`Fault::TooLarge`].
pub fn read_grey(path: impl AsRef<Path>, options: ReadOptions) -> Result<Grey, Error> {
    let path = path.as_ref();
    let bytes = read_bounded(path, options).map_err(|fault| Error::new(path, fault))?;
    grey_from_bytes(&bytes, path, options)
}

/// As [`read_grey`], of `bytes`; `name` stands for the file in errors.
///
/// # Errors
/// As [`read_grey`].
pub fn grey_from_bytes(bytes: &[u8], name: impl AsRef<Path>, options: ReadOptions) -> Result<Grey, Error> {
    grey(bytes, options).map_err(|fault| Error::new(name, fault))
}

fn grey(bytes: &[u8], options: ReadOptions) -> Result<Grey, Fault> {
    match decode(bytes, options)? {
        DynamicImage::ImageLuma8(image) => {
            let (width, height) = image.dimensions();
            Ok(grey_plane(width, height, image.iter().map(|&value| f32::from(value)).collect(), 255.0))
        }
        DynamicImage::ImageLuma16(image) => {
            let (width, height) = image.dimensions();
            Ok(grey_plane(width, height, image.iter().map(|&value| f32::from(value)).collect(), 65_535.0))
        }
        other => {
            let (max, rgb) = match other.color().bytes_per_pixel() / other.color().channel_count() {
                1 => (255.0, other.to_rgb8().into_raw().into_iter().map(f32::from).collect::<Vec<_>>()),
                _ => (65_535.0, other.to_rgb16().into_raw().into_iter().map(f32::from).collect()),
            };
            let spread = |c: &[f32]| f64::from(c[0].max(c[1]).max(c[2]) - c[0].min(c[1]).min(c[2]));
            let mean = rgb.chunks_exact(3).map(spread).sum::<f64>() / (rgb.len() as f64 / 3.0).max(1.0);
            if mean > GREY_TOLERANCE * f64::from(max) / 255.0 {
                return Err(Fault::Colour("RGB".into()));
            }
            let values = rgb.chunks_exact(3).map(|c| (c[0] + c[1] + c[2]) / 3.0).collect();
            Ok(grey_plane(other.width(), other.height(), values, max))
        }
    }
}

fn grey_plane(width: u32, height: u32, values: Vec<f32>, max: f32) -> Grey {
    Grey { plane: Plane::new(width as usize, height as usize, values), max }
}

fn decode(bytes: &[u8], options: ReadOptions) -> Result<DynamicImage, Fault> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    reader.limits(limits(options));
    if reader.format() == Some(ImageFormat::Jpeg) && !bytes.windows(2).rev().take(1024).any(|pair| pair == [0xFF, 0xD9])
    {
        return Err(Fault::Malformed("the JPEG has no end: it is truncated".into()));
    }
    let decoder = reader.into_decoder().map_err(fault)?;
    // As `f32`, which they become.
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    let needed = pixels.saturating_mul(4 * u64::from(decoder.color_type().channel_count()));
    if needed > options.limit_bytes {
        return Err(Fault::TooLarge { what: "the decoded image", needed, limit: options.limit_bytes });
    }
    DynamicImage::from_decoder(decoder).map_err(fault)
}

fn limits(options: ReadOptions) -> image::Limits {
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(options.limit_bytes);
    limits
}

fn fault(error: image::ImageError) -> Fault {
    match error {
        image::ImageError::IoError(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => Fault::Io(error),
        error => Fault::Malformed(error.to_string()),
    }
}

/// Reads a mask: every non-zero pixel of a PNG is set.
///
/// # Errors
/// As [`read_grey`].
pub fn read_mask(path: impl AsRef<Path>) -> Result<Mask, Error> {
    let (path, options) = (path.as_ref(), ReadOptions::default());
    let bytes = read_bounded(path, options).map_err(|fault| Error::new(path, fault))?;
    mask_from_bytes(&bytes, path, options)
}

/// As [`read_mask`], of `bytes`; `name` stands for the file in errors.
///
/// # Errors
/// As [`read_grey`].
pub fn mask_from_bytes(bytes: &[u8], name: impl AsRef<Path>, options: ReadOptions) -> Result<Mask, Error> {
    let grey = grey_from_bytes(bytes, name, options)?.plane;
    let data = grey.data().iter().map(|&value| u8::from(value > 0.0)).collect();
    Ok(Mask::new(grey.width(), grey.height(), data))
}

/// A mask as an 8-bit grey PNG of 0 and 255.
pub fn mask_png(mask: &Mask) -> Vec<u8> {
    grey_png(mask.width(), mask.height(), &mask.data().iter().map(|&value| value * 255).collect::<Vec<_>>())
}

/// A plane as an 8-bit grey PNG, `low` black and `high` white.
pub fn preview_png(plane: &Plane, low: f32, high: f32) -> Vec<u8> {
    grey_png(plane.width(), plane.height(), &to_8_bit(plane, low, high))
}

/// Pixels of a plane in 8 bits, `low` at 0 and `high` at 255, clamped; NaN becomes 0.
pub fn to_8_bit(plane: &Plane, low: f32, high: f32) -> Vec<u8> {
    let scale = 255.0 / (high - low);
    // The sum is exact in f64, so this rounds half up.
    plane.data().iter().map(|&value| (f64::from(((value - low) * scale).clamp(0.0, 255.0)) + 0.5) as u8).collect()
}

/// 8-bit grey pixels as a PNG.
///
/// # Panics
/// When `pixels` is not `width * height` long.
pub fn grey_png(width: usize, height: usize, pixels: &[u8]) -> Vec<u8> {
    png(width, height, pixels, image::ExtendedColorType::L8)
}

/// A plane in [-1, 1] as a 16-bit grey PNG, -1 black and 1 white, clamped.
pub fn deep_png(plane: &Plane) -> Vec<u8> {
    let stored = plane.data().iter().map(|&value| Window::RADIOGRAPH.to_stored(value));
    // The encoder takes words as the machine has them.
    let bytes: Vec<u8> = stored.flat_map(u16::to_ne_bytes).collect();
    png(plane.width(), plane.height(), &bytes, image::ExtendedColorType::L16)
}

/// 8-bit RGB pixels as a PNG.
///
/// # Panics
/// When `pixels` is not `3 * width * height` long.
pub fn rgb_png(width: usize, height: usize, pixels: &[u8]) -> Vec<u8> {
    png(width, height, pixels, image::ExtendedColorType::Rgb8)
}

fn png(width: usize, height: usize, pixels: &[u8], colour: image::ExtendedColorType) -> Vec<u8> {
    let mut bytes = Vec::new();
    image::codecs::png::PngEncoder::new(&mut bytes)
        .write_image(pixels, width as u32, height as u32, colour)
        .expect("writing a PNG of the right size to memory cannot fail");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::write_atomically;

    #[test]
    fn sixteen_bits_come_back_as_they_went() {
        let plane = Plane::new(256, 256, (0..=u16::MAX).map(|stored| Window::RADIOGRAPH.from_stored(stored)).collect());
        let grey = grey_from_bytes(&deep_png(&plane), "deep.png", ReadOptions::default()).unwrap();
        assert_eq!(grey.max, 65_535.0);
        assert!(grey.plane.data().iter().copied().eq((0..=u16::MAX).map(f32::from)));
    }

    #[test]
    fn masks_come_back_and_are_black_and_white() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mask.png");
        let mask = Mask::from_fn(13, 7, |x, y| (x + y) % 3 == 0);
        write_atomically(&path, &mask_png(&mask)).unwrap();
        assert_eq!(read_mask(&path).unwrap(), mask);
        let grey = read_grey(&path, ReadOptions::default()).unwrap();
        assert!(grey.plane.data().iter().all(|&value| value == 0.0 || value == 255.0));
    }

    #[test]
    fn grey_stored_as_colour_is_grey_and_colour_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.png");
        let grey: Vec<u8> = (0..48u8).flat_map(|value| [value * 5, value * 5 + 1, value * 5]).collect();
        write_atomically(&path, &rgb_png(8, 6, &grey)).unwrap();
        let read = read_grey(&path, ReadOptions::default()).unwrap();
        assert!((read.plane.at(1, 0) - 5.333).abs() < 0.01 && read.max == 255.0);
        let colour: Vec<u8> = (0..48u8).flat_map(|value| [value * 5, 0, 255]).collect();
        write_atomically(&path, &rgb_png(8, 6, &colour)).unwrap();
        let head = read_head(&path, ReadOptions::default()).unwrap();
        assert_eq!(head, Head { width: 8, height: 6, max: 255.0 });
        let error = read_grey(&path, ReadOptions::default()).unwrap_err();
        assert!(matches!(error.fault, Fault::Colour(_)) && error.to_string().contains("image.png"));
    }

    #[test]
    fn truncated_images_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let plane = Plane::new(64, 64, (0..4096).map(|at| (at % 64) as f32 / 32.0 - 1.0).collect());
        let png = preview_png(&plane, -1.0, 1.0);
        let mut jpeg = Vec::new();
        let grey = to_8_bit(&plane, -1.0, 1.0);
        image::codecs::jpeg::JpegEncoder::new(&mut jpeg).encode(&grey, 64, 64, image::ExtendedColorType::L8).unwrap();
        for (name, bytes) in [("a.png", png), ("a.jpg", jpeg)] {
            let path = folder.path().join(name);
            std::fs::write(&path, &bytes).unwrap();
            assert!(read_grey(&path, ReadOptions::default()).is_ok());
            std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            assert!(read_grey(&path, ReadOptions::default()).is_err(), "{name}");
        }
    }
}
