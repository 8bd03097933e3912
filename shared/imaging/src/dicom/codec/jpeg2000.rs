//! JPEG 2000 (ISO/IEC 15444-1) and its high-throughput form (15444-15).

use jpeg2k::{DecodeParameters, Image};

use super::{Colour, Decoded, Layout, same_size};

pub(super) fn decode(bytes: &[u8], layout: &Layout) -> Result<Decoded<'static>, String> {
    let stream = code_stream(bytes)?;
    let size = Size::read(stream)?;
    same_size(size.width as usize, size.height as usize, size.components as usize, layout)?;
    // Not strict, a truncated code stream would silently become a blurred image.
    let parameters = DecodeParameters::new().strict(true);
    let image = Image::from_bytes_with(stream, parameters).map_err(|error| error.to_string())?;
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
    Ok(Decoded { raw, colour, scan: None })
}

/// The code stream in `bytes`: all of it, or what the first box of that kind in a JP2 file holds (15444-1 annex I). The decoder is given nothing
/// else: it must not find another stream than the one whose size was held against the object's.
fn code_stream(bytes: &[u8]) -> Result<&[u8], String> {
    const NONE: &str = "no code stream was found";
    let mut rest = bytes;
    if rest.starts_with(START) {
        return Ok(rest);
    }
    while let Some((head, content)) = rest.split_first_chunk::<8>() {
        let [a, b, c, d, kind @ ..] = *head;
        let (length, content) = match (u32::from_be_bytes([a, b, c, d]), content.split_first_chunk::<8>()) {
            (0, _) => (content.len() as u64, content),
            (1, Some((long, content))) => (u64::from_be_bytes(*long).saturating_sub(16), content),
            (length, _) => (u64::from(length).saturating_sub(8), content),
        };
        let Some((content, behind)) = content.split_at_checked(usize::try_from(length).unwrap_or(usize::MAX)) else {
            break;
        };
        if kind == *b"jp2c" && content.starts_with(START) {
            return Ok(content);
        }
        rest = behind;
    }
    Err(NONE.into())
}

/// SOC and SIZ, with which every code stream starts.
const START: &[u8] = &[0xFF, 0x4F, 0xFF, 0x51];

/// The SIZ segment (15444-1 A.5.1).
struct Size {
    width: u32,
    height: u32,
    components: u64,
    /// Of a tile, cut to the image.
    tile: (u64, u64),
    tiles: u64,
    /// Where the next segment begins.
    end: usize,
}

impl Size {
    fn read(stream: &[u8]) -> Result<Self, String> {
        let segment = stream.get(6..42).ok_or("the SIZ segment is cut short")?;
        let number = |at: usize| u32::from_be_bytes([segment[at], segment[at + 1], segment[at + 2], segment[at + 3]]);
        let side = |end: usize, offset: usize| number(end).checked_sub(number(offset));
        let outside = "the image lies outside its grid";
        let (width, height) = (side(2, 10).ok_or(outside)?, side(6, 14).ok_or(outside)?);
        let tiles = |end: usize, tile: usize, offset: usize| match u64::from(number(tile)) {
            0 => Err("tiles without a size"),
            tile => Ok(side(end, offset).map(u64::from).ok_or(outside)?.div_ceil(tile)),
        };
        Ok(Self {
            width,
            height,
            components: u16::from_be_bytes([segment[34], segment[35]]).into(),
            tile: (number(18).min(width).into(), number(22).min(height).into()),
            tiles: tiles(2, 18, 26)?.saturating_mul(tiles(6, 22, 30)?),
            end: 4 + usize::from(u16::from_be_bytes([stream[4], stream[5]])),
        })
    }
}

/// Bytes that the decoder takes at most for the structure of a stream, before it reads any pixel: tiles, precincts and blocks of a single pixel are
/// allowed, and each costs it as much as a large one.
pub(super) fn structure_bytes(bytes: &[u8]) -> Result<u64, String> {
    let stream = code_stream(bytes)?;
    let size = Size::read(stream)?;
    // Coding styles, and the most layers of any.
    let (mut styles, mut layers) = (Vec::new(), 0u64);
    let (mut position, mut part) = (size.end, None);
    while let Some(&[0xFF, marker]) = stream.get(position..).and_then(|rest| rest.first_chunk::<2>()) {
        // Tile-parts: their headers may have coding styles of their own.
        match (marker, part) {
            (0xD9, _) => break,
            (0x93, Some(end)) if end > position => {
                (position, part) = (end, None);
                continue;
            }
            (0x93, _) => break,
            _ => {}
        }
        let Some(&[high, low]) = stream.get(position + 2..).and_then(|rest| rest.first_chunk::<2>()) else { break };
        let end = position + 2 + usize::from(u16::from_be_bytes([high, low]));
        let Some(segment) = stream.get(position + 4..end) else { break };
        match (marker, segment) {
            (0x90, &[_, _, a, b, c, d, ..]) => part = Some(position + u32::from_be_bytes([a, b, c, d]) as usize),
            (0x52, &[style, _, high, low, _, ref coding @ ..]) => {
                layers = layers.max(u16::from_be_bytes([high, low]).into());
                styles.push((style, coding));
            }
            (0x53, segment) => {
                let head = if size.components < 257 { 1 } else { 2 };
                if let Some((&style, coding)) = segment.get(head..).and_then(<[u8]>::split_first) {
                    styles.push((style, coding));
                }
            }
            _ => {}
        }
        position = end;
    }
    let most = styles.iter().map(|&(style, coding)| size.coding_bytes(style, layers, coding)).max().unwrap_or_default();
    Ok(most.saturating_add(size.tiles.saturating_mul(TILE + size.components * TILE_COMPONENT)))
}

/// Sizes of the decoder's structures with what the allocator adds, rounded up.
const TILE: u64 = 10 << 10;
const TILE_COMPONENT: u64 = 2 << 10;
const PRECINCT: u64 = 384;
const BLOCK: u64 = 1 << 10;

impl Size {
    /// Of one tile under a coding style (A.6.1): levels, block's width and height, two bytes, and a byte a resolution where precincts have sizes.
    fn coding_bytes(&self, style: u8, layers: u64, coding: &[u8]) -> u64 {
        let &[levels, width, height, _, _, ref precincts @ ..] = coding else { return 0 };
        let (levels, block) = (u32::from(levels).min(32), [u32::from(width & 15) + 2, u32::from(height & 15) + 2]);
        let (mut all, mut most) = (0u64, 0u64);
        for resolution in 0..=levels {
            let exponents = match (style & 1, precincts.get(resolution as usize)) {
                (1, Some(&byte)) => [u32::from(byte & 15), u32::from(byte >> 4)],
                _ => [15, 15],
            };
            let reduced = |side: u64| (side >> (levels - resolution)) + 1;
            let sides = [reduced(self.tile.0), reduced(self.tile.1)];
            let count = |at: usize, exponent: u32| (sides[at] >> exponent) + 2;
            let precincts = count(0, exponents[0]).saturating_mul(count(1, exponents[1]));
            // Bands are half as large as their resolution, but for the first. A precinct's blocks are no larger than its part of a band.
            let (half, bands) = if resolution == 0 { (0, 1) } else { (1, 3) };
            let inside = |at: usize| (block[at] + half).min(exponents[at]);
            let blocks = count(0, inside(0)).saturating_mul(count(1, inside(1)));
            let bytes = precincts.saturating_mul(PRECINCT).saturating_add(blocks.max(precincts).saturating_mul(BLOCK));
            all = all.saturating_add(bytes.saturating_mul(bands));
            most = most.max(precincts);
        }
        // Whether a packet was read is noted in two bytes for each layer, resolution, component and precinct.
        let packets = (layers + 1) * 2 * u64::from(levels + 1);
        self.components.saturating_mul(all.saturating_add(packets.saturating_mul(most)))
    }
}
