//! JPEG XL (ISO/IEC 18181), bare code streams and in their container.

use jxl_oxide::{AllocTracker, JxlImage, JxlThreadPool, image::BitDepth};

use super::{Colour, Decoded, Layout, same_size};

/// Bits of a sample at most: the decoder computes in 32-bit floating point numbers, which hold them exactly.
const MOST_BITS: u32 = 16;

pub(super) fn decode(bytes: &[u8], layout: &Layout) -> Result<Decoded<'static>, String> {
    let limit = usize::try_from(layout.limit_bytes).unwrap_or(usize::MAX);
    let image = JxlImage::builder()
        .pool(JxlThreadPool::none())
        .alloc_tracker(AllocTracker::with_limit(limit))
        .read(bytes)
        .map_err(|error| error.to_string())?;
    let depth = image.image_header().metadata.bit_depth;
    // Alpha is a sample like another here, and no object has one.
    same_size(image.width() as usize, image.height() as usize, image.pixel_format().channels(), layout)?;
    let BitDepth::IntegerSample { bits_per_sample: bits @ 1..=MOST_BITS } = depth else {
        return Err(format!("{depth:?} is not supported, whole numbers of up to {MOST_BITS} bits are"));
    };
    if bits as usize > layout.bits_allocated {
        return Err(format!("{bits} bits a sample, {} are allocated", layout.bits_allocated));
    }
    if !image.is_loading_done() {
        return Err("the code stream is truncated".into());
    }
    if image.num_loaded_keyframes() != 1 {
        return Err(format!("{} frames in one code stream", image.num_loaded_keyframes()));
    }
    let rendered = image.render_frame(0).map_err(|error| error.to_string())?;
    let most = ((1u32 << bits) - 1) as f32;
    let samples = rendered.image_all_channels();
    // Lossy samples may be a little beyond either end.
    let raw = samples.buf().iter().map(|&share| (share * most).round().clamp(0.0, most) as u32).collect();
    // Whatever a colour was coded as, the decoder gives it as RGB.
    Ok(Decoded { raw, colour: Colour::AsIs, scan: None })
}
