//! JPEG (ISO/IEC 10918-1): baseline and other lossy processes of 8 bits, lossless; those of 12 bits are in [`jpeg_dct`].

use jpeg_decoder::{ColorTransform, Decoder, PixelFormat};

use memchr::memmem;

use super::{Colour, Decoded, Layout, jpeg_dct, same_size};

/// Scans of a stream at most: one for each coefficient and one for each of its bits would be enough, and each goes over the whole image.
pub(super) const MOST_SCANS: usize = 1000;

pub(super) fn decode(bytes: &[u8], layout: &Layout) -> Result<Decoded<'static>, String> {
    let frame = Frame::read(bytes)?;
    same_size(frame.width, frame.height, frame.components, layout)?;
    if !frame.lossless && ![8, 12].contains(&frame.precision) {
        return Err(format!("{} bits a sample, lossy JPEG has 8 or 12", frame.precision));
    }
    if frame.precision > layout.bits_allocated {
        return Err(format!("{} bits a sample, {} are allocated", frame.precision, layout.bits_allocated));
    }
    if !ends_with_eoi(bytes) {
        return Err("the code stream is truncated (no end-of-image marker)".into());
    }
    if !frame.lossless && frame.precision == 12 {
        let raw = jpeg_dct::decode(bytes, (frame.width, frame.height), frame.precision)?;
        return Ok(Decoded { raw, colour: Colour::AsIs, scan: None });
    }
    if memmem::find_iter(bytes, &[0xFF, 0xDA]).nth(MOST_SCANS).is_some() {
        return Err(format!("there are more than {MOST_SCANS} scans"));
    }
    let mut decoder = Decoder::new(bytes);
    // It passes over what it does not know in its own way, and may find another frame header than we did.
    decoder.read_info().map_err(|error| error.to_string())?;
    if let Some(info) = decoder.info() {
        same_size(info.width.into(), info.height.into(), frame.components, layout)?;
    }
    if frame.components == 3 {
        // The decoder would guess from application segments; the samples are wanted as coded.
        decoder.set_color_transform(ColorTransform::RGB);
    }
    let samples = decoder.decode().map_err(|error| error.to_string())?;
    let raw = match decoder.info().map(|info| info.pixel_format) {
        Some(PixelFormat::L16) => {
            samples.chunks_exact(2).map(|b| u32::from(u16::from_ne_bytes([b[0], b[1]]))).collect()
        }
        Some(PixelFormat::L8 | PixelFormat::RGB24) => samples.iter().map(|&byte| u32::from(byte)).collect(),
        other => return Err(format!("pixel format {other:?} is not supported")),
    };
    let colour = if frame.components == 3 && frame.is_ybr(layout) { Colour::Ybr } else { Colour::AsIs };
    Ok(Decoded { raw, colour, scan: None })
}

/// What the marker segments before the first scan say.
struct Frame {
    width: usize,
    height: usize,
    components: usize,
    component_ids: Vec<u8>,
    precision: usize,
    lossless: bool,
    jfif: bool,
    adobe_transform: Option<u8>,
}

impl Frame {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        if !bytes.starts_with(&[0xFF, 0xD8]) {
            return Err("no start-of-image marker".into());
        }
        let (mut jfif, mut adobe_transform) = (false, None);
        let mut position = 2;
        loop {
            let head = bytes.get(position..position + 4).ok_or("no frame header was found")?;
            if head[0] != 0xFF {
                return Err("a marker segment has the wrong length".into());
            }
            if head[1] == 0xFF {
                position += 1;
                continue;
            }
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let segment = bytes.get(position + 4..position + 2 + length).ok_or("a marker segment is cut short")?;
            match head[1] {
                0xE0 => jfif |= segment.starts_with(b"JFIF\0"),
                0xEE if segment.starts_with(b"Adobe") => adobe_transform = segment.get(11).copied(),
                0xC4 | 0xC8 | 0xCC => {}
                marker @ 0xC0..=0xCF => {
                    let &[precision, h1, h0, w1, w0, components, ref rest @ ..] = segment else {
                        return Err("the frame header is cut short".into());
                    };
                    return Ok(Self {
                        width: usize::from(u16::from_be_bytes([w1, w0])),
                        height: usize::from(u16::from_be_bytes([h1, h0])),
                        components: usize::from(components),
                        component_ids: rest.chunks_exact(3).map(|component| component[0]).collect(),
                        precision: usize::from(precision),
                        lossless: matches!(marker, 0xC3 | 0xC7 | 0xCB | 0xCF),
                        jfif,
                        adobe_transform,
                    });
                }
                0xDA | 0xD9 => return Err("no frame header before the first scan".into()),
                _ => {}
            }
            position += 2 + length;
        }
    }

    /// Whether three components are YCbCr: the object says so, unless the code stream itself contradicts it.
    fn is_ybr(&self, layout: &Layout) -> bool {
        match self.adobe_transform {
            Some(0) => false,
            Some(1) => true,
            _ if self.jfif => true,
            _ if self.component_ids == *b"RGB" => false,
            _ => layout.photometric.starts_with("YBR"),
        }
    }
}

/// Whether the code stream is complete but for padding.
fn ends_with_eoi(bytes: &[u8]) -> bool {
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
    bytes[..end].ends_with(&[0xFF, 0xD9]) || bytes[..end.saturating_sub(1)].ends_with(&[0xFF, 0xD9])
}
