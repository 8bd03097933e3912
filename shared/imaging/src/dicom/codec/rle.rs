//! RLE lossless: a segment for each byte of each sample, most significant first (PS3.5 annex G).

use super::{Colour, Decoded, Layout};

pub(super) fn decode(bytes: &[u8], layout: &Layout) -> Result<Decoded<'static>, String> {
    let width = layout.bits_allocated / 8;
    if width == 0 {
        return Err("RLE of 1-bit pixels is not supported".into());
    }
    let header: Vec<usize> = bytes
        .get(..64)
        .ok_or("the RLE header is cut short")?
        .chunks_exact(4)
        .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize)
        .collect();
    let segments = layout.samples * width;
    if header[0] != segments || segments > 15 {
        return Err(format!("{} segments, {segments} are needed", header[0]));
    }
    let pixels = layout.pixels();
    let mut raw = vec![0u32; pixels * layout.samples];
    for segment in 0..segments {
        let start = header[1 + segment];
        let end = if segment + 1 < segments { header[2 + segment] } else { bytes.len() };
        let packed = bytes.get(start..end).ok_or_else(|| format!("segment {segment} lies outside the frame"))?;
        let (sample, shift) = (segment / width, 8 * (width - 1 - segment % width));
        let values = unpack(packed, pixels).ok_or_else(|| format!("segment {segment} ends before its last pixel"))?;
        for (at, value) in values.into_iter().enumerate() {
            raw[at * layout.samples + sample] |= u32::from(value) << shift;
        }
    }
    let colour = if layout.photometric.starts_with("YBR") { Colour::Ybr } else { Colour::AsIs };
    Ok(Decoded { raw, colour, scan: None })
}

/// PackBits: `n < 128` copies n + 1 bytes, `n > 128` repeats the next byte 257 - n times. `None` when it ends early.
fn unpack(packed: &[u8], count: usize) -> Option<Vec<u8>> {
    let mut values = Vec::with_capacity(count);
    let mut position = 0;
    while values.len() < count {
        let code = usize::from(*packed.get(position)?);
        position += 1;
        match code {
            0..=127 => {
                values.extend_from_slice(packed.get(position..position + code + 1)?);
                position += code + 1;
            }
            128 => {}
            _ => {
                let value = *packed.get(position)?;
                values.resize(values.len() + 257 - code, value);
                position += 1;
            }
        }
    }
    values.truncate(count);
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packbits_copies_repeats_and_stops_early() {
        assert_eq!(unpack(&[2, 1, 2, 3, 0xFE, 9, 128], 6).unwrap(), [1, 2, 3, 9, 9, 9]);
        assert_eq!(unpack(&[0xFE, 9], 2).unwrap(), [9, 9]);
        assert!(unpack(&[5, 1, 2], 3).is_none());
        assert!(unpack(&[], 1).is_none());
    }
}
