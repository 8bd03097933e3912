//! Uncompressed pixel data (PS3.5 8.1, 8.2, annex D).

use super::{Colour, Decoded, Layout};
use crate::Fault;

/// Bytes of all frames, unpadded. YBR_FULL_422 keeps one pair of chroma samples for two pixels; 1-bit frames are packed
/// without padding between them.
pub(in crate::dicom) fn frame_bytes(layout: &Layout, frames: usize) -> u64 {
    let (pixels, frames) = (layout.pixels() as u64, frames as u64);
    // The number of frames is what the file says: the product may be more than there can be.
    match layout.bits_allocated {
        1 => (pixels * layout.samples as u64).saturating_mul(frames).div_ceil(8),
        bits => (pixels * samples_in_file(layout) as u64 * (bits as u64 / 8)).saturating_mul(frames),
    }
}

fn subsampled(layout: &Layout) -> bool {
    layout.photometric == "YBR_FULL_422"
}

fn samples_in_file(layout: &Layout) -> usize {
    if subsampled(layout) { 2 } else { layout.samples }
}

pub(super) fn decode(bytes: &[u8], index: usize, layout: &Layout) -> Result<Decoded<'static>, Fault> {
    let needed = frame_bytes(layout, index + 1);
    if needed > bytes.len() as u64 {
        let what = format!("the pixel data up to frame {index}");
        return Err(Fault::Truncated { what, declared: needed, available: bytes.len() as u64 });
    }
    let colour = if layout.photometric.starts_with("YBR") { Colour::Ybr } else { Colour::AsIs };
    if layout.bits_allocated == 1 {
        return Ok(Decoded { raw: unpack_bits(bytes, index, layout), colour, scan: None });
    }
    let width = layout.bits_allocated / 8;
    let count = layout.pixels() * samples_in_file(layout);
    let frame = &bytes[index * count * width..(index + 1) * count * width];
    let raw: Vec<u32> = match (width, layout.big_endian) {
        // Bytes of a frame of odd length are swapped with their neighbour in the whole pixel data, not in the frame.
        (1, true) if layout.words => (index * count..(index + 1) * count)
            .map(|at| u32::from(bytes.get(at ^ 1).copied().unwrap_or_default()))
            .collect(),
        (1, _) => frame.iter().map(|&byte| u32::from(byte)).collect(),
        (2, false) => frame.chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]]))).collect(),
        (2, true) => frame.chunks_exact(2).map(|b| u32::from(u16::from_be_bytes([b[0], b[1]]))).collect(),
        (_, false) => frame.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        (_, true) => frame.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]])).collect(),
    };
    let raw = match () {
        () if subsampled(layout) => upsample(&raw),
        () if layout.planar && layout.samples > 1 => interleave(&raw, layout),
        () => raw,
    };
    Ok(Decoded { raw, colour, scan: None })
}

/// One bit a pixel, least significant bit first (PS3.5 8.1.1).
fn unpack_bits(bytes: &[u8], index: usize, layout: &Layout) -> Vec<u32> {
    let count = layout.pixels() * layout.samples;
    let byte = |at: usize| {
        let at = if layout.big_endian && layout.words { at ^ 1 } else { at };
        bytes.get(at).copied().unwrap_or_default()
    };
    (index * count..(index + 1) * count).map(|bit| u32::from(byte(bit / 8) >> (bit % 8) & 1)).collect()
}

/// Y1 Y2 Cb Cr to Y Cb Cr for each of the two pixels (PS3.3 C.7.6.3.1.2).
fn upsample(raw: &[u32]) -> Vec<u32> {
    raw.chunks_exact(4).flat_map(|c| [c[0], c[2], c[3], c[1], c[2], c[3]]).collect()
}

/// Colour by plane to colour by pixel.
fn interleave(raw: &[u32], layout: &Layout) -> Vec<u32> {
    let pixels = layout.pixels();
    (0..pixels * layout.samples).map(|at| raw[at % layout.samples * pixels + at / layout.samples]).collect()
}
