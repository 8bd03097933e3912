//! JPEG 2000 (ISO/IEC 15444-1) and its high-throughput form (15444-15).

use jpeg2k::{DecodeParameters, Image};

use super::{Colour, Decoded, Layout, same_size};

pub(super) fn decode(bytes: &[u8], layout: &Layout) -> Result<Decoded, String> {
    let (width, height, components) = size(bytes)?;
    same_size(width, height, components, layout)?;
    // Not strict, a truncated code stream would silently become a blurred image.
    let parameters = DecodeParameters::new().strict(true);
    let image = Image::from_bytes_with(bytes, parameters).map_err(|error| error.to_string())?;
    let mut raw = vec![0u32; layout.pixels() * layout.samples];
    for (index, component) in image.components().iter().enumerate() {
        if (component.width() as usize, component.height() as usize) != (layout.columns, layout.rows) {
            return Err("subsampled components are not supported".into());
        }
        if component.precision() as usize > layout.bits_allocated.max(8) {
            return Err(format!("{} bits a sample, {} are allocated", component.precision(), layout.bits_allocated));
        }
        for (at, &value) in component.data().iter().enumerate() {
            // Two's complement bits: the object's Pixel Representation decides on the sign, as it does for every codec.
            raw[at * layout.samples + index] = value as u32;
        }
    }
    // The decoder has undone the multiple component transform (YBR_RCT, YBR_ICT).
    let colour = if layout.photometric.starts_with("YBR_FULL") { Colour::Ybr } else { Colour::AsIs };
    Ok(Decoded { raw, colour })
}

/// Width, height and components from the SIZ segment (15444-1 A.5.1), wherever the code stream starts.
fn size(bytes: &[u8]) -> Result<(usize, usize, usize), String> {
    let start =
        bytes.windows(4).position(|window| window == [0xFF, 0x4F, 0xFF, 0x51]).ok_or("no code stream was found")?;
    let segment = bytes.get(start + 6..start + 42).ok_or("the SIZ segment is cut short")?;
    let number = |at: usize| u32::from_be_bytes([segment[at], segment[at + 1], segment[at + 2], segment[at + 3]]);
    let side = |end: usize, offset: usize| {
        number(end).checked_sub(number(offset)).map(|side| side as usize).ok_or("the image lies outside its grid")
    };
    Ok((side(2, 10)?, side(6, 14)?, usize::from(u16::from_be_bytes([segment[34], segment[35]]))))
}
