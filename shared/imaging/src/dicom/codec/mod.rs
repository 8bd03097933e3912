//! One frame's bytes to its samples, per transfer syntax (PS3.5 chapter 8, annexes A and G).
//!
//! Every codec first holds the code stream's own size against the object's, so that a lie costs no memory, and
//! delivers the samples' bits as the object stores them: sign and high bit are applied afterwards, in one place.

mod jpeg;
mod jpeg2000;
mod jpeg_dct;
pub(super) mod jpeg_ls;
mod jpeg_xl;
mod native;
mod rle;

use crate::Fault;

pub(super) use native::frame_bytes as native_frame_bytes;

/// Sizes and formats of a frame, checked to be consistent.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub rows: usize,
    pub columns: usize,
    pub samples: usize,
    pub bits_allocated: usize,
    pub bits_stored: usize,
    pub high_bit: usize,
    pub signed: bool,
    pub planar: bool,
    pub big_endian: bool,
    /// 16-bit words of 8-bit pixels, which big endian swaps.
    pub words: bool,
    pub photometric: String,
    /// Bytes that a decoder may take beside the frame.
    pub limit_bytes: u64,
}

impl Layout {
    pub(super) fn pixels(&self) -> usize {
        self.rows * self.columns
    }

    /// A stored value from its allocated bits: shifted down from the high bit, bits beyond Bits Stored dropped, sign
    /// extended.
    pub(super) fn stored(&self, raw: u32) -> i64 {
        let shifted = u64::from(raw) >> (self.high_bit + 1 - self.bits_stored);
        let value = (shifted & ((1u64 << self.bits_stored) - 1)) as i64;
        // Without a sign nothing is flipped; with one, flipping its bit and taking it away extends it.
        let sign = i64::from(self.signed) << (self.bits_stored - 1);
        (value ^ sign) - sign
    }

    /// As [`stored`](Self::stored), the lowest 32 bits, which are all where fewer are stored; of many samples, several at a time.
    pub(super) fn word(&self) -> impl Fn(u32) -> u32 + use<> {
        let (shift, mask) = (self.high_bit + 1 - self.bits_stored, u32::MAX >> (32 - self.bits_stored));
        let sign = u32::from(self.signed) << (self.bits_stored - 1);
        move |raw| (((raw >> shift) & mask) ^ sign).wrapping_sub(sign)
    }
}

/// Colour model of decoded samples, interleaved by pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    /// Grey, palette indices, or RGB.
    AsIs,
    /// Full-range YCbCr (PS3.3 C.7.6.3.1.2, YBR_FULL), to be converted.
    Ybr,
}

/// Samples of a frame before sign and high bit.
pub(super) struct Decoded<'a> {
    pub raw: Vec<u32>,
    pub colour: Colour,
    /// Where that was read, the scan that [`jpeg_ls::encode`] makes of them.
    pub scan: Option<jpeg_ls::Scan<'a>>,
}

/// A family of transfer syntaxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Native,
    Rle,
    Jpeg,
    JpegLs,
    Jpeg2000,
    JpegXl,
}

impl Codec {
    pub(super) fn of(transfer_syntax: Option<&str>) -> Result<Self, Fault> {
        match transfer_syntax {
            None
            | Some("1.2.840.10008.1.2" | "1.2.840.10008.1.2.1" | "1.2.840.10008.1.2.1.99" | "1.2.840.10008.1.2.2") => {
                Ok(Self::Native)
            }
            Some("1.2.840.10008.1.2.5") => Ok(Self::Rle),
            Some(
                "1.2.840.10008.1.2.4.50"
                | "1.2.840.10008.1.2.4.51"
                | "1.2.840.10008.1.2.4.53"
                | "1.2.840.10008.1.2.4.55"
                | "1.2.840.10008.1.2.4.57"
                | "1.2.840.10008.1.2.4.70",
            ) => Ok(Self::Jpeg),
            Some("1.2.840.10008.1.2.4.80" | "1.2.840.10008.1.2.4.81") => Ok(Self::JpegLs),
            // Parts 1 and 15 (high throughput) of JPEG 2000: one decoder reads both.
            Some(
                "1.2.840.10008.1.2.4.90"
                | "1.2.840.10008.1.2.4.91"
                | "1.2.840.10008.1.2.4.201"
                | "1.2.840.10008.1.2.4.202"
                | "1.2.840.10008.1.2.4.203",
            ) => Ok(Self::Jpeg2000),
            // Lossless, a JPEG coded again, and any.
            Some("1.2.840.10008.1.2.4.110" | "1.2.840.10008.1.2.4.111" | "1.2.840.10008.1.2.4.112") => Ok(Self::JpegXl),
            Some(other) => Err(Fault::Unsupported(format!("transfer syntax {other}"))),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Native => "uncompressed",
            Self::Rle => "RLE lossless",
            Self::Jpeg => "JPEG",
            Self::JpegLs => "JPEG-LS",
            Self::Jpeg2000 => "JPEG 2000",
            Self::JpegXl => "JPEG XL",
        }
    }

    /// Frame `index` out of `bytes`: the code stream of that frame, or all native Pixel Data.
    pub(super) fn decode<'a>(self, bytes: &'a [u8], index: usize, layout: &Layout) -> Result<Decoded<'a>, Fault> {
        if self == Self::Jpeg2000
            && let Ok(needed) = jpeg2000::structure_bytes(bytes)
            && needed > layout.limit_bytes
        {
            let what = "the tiles, precincts and blocks of a JPEG 2000 code stream";
            return Err(Fault::TooLarge { what, needed, limit: layout.limit_bytes });
        }
        let reason = match self {
            Self::Native => return native::decode(bytes, index, layout),
            Self::Rle => rle::decode(bytes, layout),
            Self::Jpeg => jpeg::decode(bytes, layout),
            Self::JpegLs => jpeg_ls::decode(bytes, layout),
            Self::Jpeg2000 => jpeg2000::decode(bytes, layout),
            Self::JpegXl => jpeg_xl::decode(bytes, layout),
        };
        let decoded = reason.map_err(|reason| Fault::Decode { frame: index, codec: self.name(), reason })?;
        let expected = layout.pixels() * layout.samples;
        if decoded.raw.len() != expected {
            let reason = format!("{} samples came out, {expected} are needed", decoded.raw.len());
            return Err(Fault::Decode { frame: index, codec: self.name(), reason });
        }
        Ok(decoded)
    }
}

/// The code stream's size against the object's.
fn same_size(width: usize, height: usize, components: usize, layout: &Layout) -> Result<(), String> {
    if (width, height, components) == (layout.columns, layout.rows, layout.samples) {
        return Ok(());
    }
    Err(format!(
        "the code stream holds {width} x {height} pixels of {components} samples, the object declares {} x {} of {}",
        layout.columns, layout.rows, layout.samples
    ))
}
