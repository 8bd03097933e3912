//! JPEG-LS, lossless and near-lossless (ISO/IEC 14495-1, ITU-T T.87): all interleave modes in, grey lossless out.
//!
//! Our own, since the reference library needs a C++ tool chain that a fresh machine does not have.

mod bits;
mod decode;
mod encode;
mod model;

use bits::Unstuffed;
use decode::Interleave;
pub(in crate::dicom) use encode::{encode, stream};
use model::Parameters;

use super::{Colour, Decoded, Layout, same_size};

pub(super) fn decode<'a>(bytes: &'a [u8], layout: &Layout) -> Result<Decoded<'a>, String> {
    let mut stream = Stream { rest: bytes, frame: None, preset: [0; 5], planes: Vec::new(), scan: None };
    stream.read(layout)?;
    let mut planes = stream.planes;
    let pixels = layout.pixels();
    if planes.len() != layout.samples || planes.iter().any(|plane| plane.len() != pixels) {
        return Err("the code stream ends before its last component".into());
    }
    let raw = match &mut planes[..] {
        [grey] => std::mem::take(grey),
        planes => (0..pixels).flat_map(|at| planes.iter().map(move |plane| plane[at])).collect(),
    };
    let colour = if layout.photometric.starts_with("YBR") { Colour::Ybr } else { Colour::AsIs };
    Ok(Decoded { raw, colour, scan: stream.scan })
}

/// Marker segments, one after another (C.2).
struct Stream<'a> {
    rest: &'a [u8],
    /// Bits a sample.
    frame: Option<u32>,
    /// MAXVAL, T1, T2, T3, RESET; 0 is the default.
    preset: [i32; 5],
    planes: Vec<Vec<u32>>,
    scan: Option<Scan<'a>>,
}

/// The one scan of a grey code stream, where it is bit for bit the one that [`encode`] makes of the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dicom) struct Scan<'a> {
    pub bytes: &'a [u8],
    /// Bits a sample.
    pub bits: u32,
}

impl<'a> Stream<'a> {
    fn read(&mut self, layout: &Layout) -> Result<(), String> {
        if !self.rest.starts_with(&[0xFF, 0xD8]) {
            return Err("no start-of-image marker".into());
        }
        self.rest = &self.rest[2..];
        loop {
            let marker = match *self.rest {
                [0xFF, 0xFF, ..] => {
                    self.rest = &self.rest[1..];
                    continue;
                }
                [0xFF, 0xD9, ..] => return Ok(()),
                [0xFF, marker, ..] => marker,
                [] => return Err("the code stream is truncated (no end-of-image marker)".into()),
                _ => return Err("a marker segment has the wrong length".into()),
            };
            self.rest = &self.rest[2..];
            let segment = self.segment()?;
            match marker {
                0xF7 => self.frame_header(segment, layout)?,
                0xF8 => self.preset(segment)?,
                0xDA => self.scan(segment, layout)?,
                0xDD => return Err("restart intervals are not supported".into()),
                0xE8 if segment.starts_with(b"mrfx") && segment.get(4) != Some(&0) => {
                    return Err("HP colour transforms are not supported".into());
                }
                0xE0..=0xEF | 0xFE => {}
                other => return Err(format!("unexpected marker FF{other:02X}")),
            }
        }
    }

    fn segment(&mut self) -> Result<&'a [u8], String> {
        let rest = self.rest;
        let length = rest.first_chunk().map_or(0, |bytes| usize::from(u16::from_be_bytes(*bytes)));
        if length < 2 || length > rest.len() {
            return Err("a marker segment is cut short".into());
        }
        self.rest = &rest[length..];
        Ok(&rest[2..length])
    }

    fn frame_header(&mut self, segment: &[u8], layout: &Layout) -> Result<(), String> {
        let &[bits, h1, h0, w1, w0, components, ..] = segment else {
            return Err("the frame header is cut short".into());
        };
        let side = |high, low| usize::from(u16::from_be_bytes([high, low]));
        same_size(side(w1, w0), side(h1, h0), usize::from(components), layout)?;
        if !(2..=16).contains(&bits) || usize::from(bits) > layout.bits_allocated {
            return Err(format!("{bits} bits a sample, {} are allocated", layout.bits_allocated));
        }
        self.frame = Some(u32::from(bits));
        Ok(())
    }

    fn preset(&mut self, segment: &[u8]) -> Result<(), String> {
        if segment.first() != Some(&1) || segment.len() != 11 {
            return Err("mapping tables and oversize images are not supported".into());
        }
        for (value, bytes) in self.preset.iter_mut().zip(segment[1..].chunks_exact(2)) {
            *value = i32::from(u16::from_be_bytes([bytes[0], bytes[1]]));
        }
        Ok(())
    }

    fn scan(&mut self, segment: &[u8], layout: &Layout) -> Result<(), String> {
        let bits = self.frame.ok_or("a scan before the frame header")?;
        let components = usize::from(*segment.first().ok_or("the scan header is cut short")?);
        let &[near, mode, transform] = segment.get(1 + 2 * components..).unwrap_or_default() else {
            return Err("the scan header is cut short".into());
        };
        let interleave = match mode {
            0 if components == 1 => Interleave::None,
            1 => Interleave::Line,
            2 => Interleave::Sample,
            _ => return Err(format!("interleave mode {mode} of {components} components")),
        };
        if components == 0 || self.planes.len() + components > layout.samples || transform != 0 {
            return Err("more components than the object has, or a point transform".into());
        }
        let tables = segment[1..1 + 2 * components].chunks_exact(2).any(|component| component[1] != 0);
        if tables {
            return Err("mapping tables are not supported".into());
        }
        let parameters = self.parameters(bits, i32::from(near))?;
        let mut planes = vec![Vec::with_capacity(layout.pixels()); components];
        let (unstuffed, length) = Unstuffed::new(self.rest);
        let (bytes, rest) = self.rest.split_at(length);
        let (size, reader) = ((layout.columns, layout.rows), unstuffed.reader());
        let scan = decode::Scan { reader, parameters: &parameters, interleave, size, planes: &mut planes };
        let as_encoded = scan.decode()? && layout.samples == 1 && parameters == Parameters::new((1i32 << bits) - 1, 0);
        self.scan = as_encoded.then_some(Scan { bytes, bits });
        self.rest = rest;
        self.planes.append(&mut planes);
        Ok(())
    }

    /// Defaults with what a preset segment overrides, held to the ranges of C.2.4.1.1.
    fn parameters(&self, bits: u32, near: i32) -> Result<Parameters, String> {
        let [maximum, t1, t2, t3, reset] = self.preset;
        let full = (1i32 << bits) - 1;
        let maximum = if maximum == 0 { full } else { maximum };
        if maximum > full || near > (maximum / 2).min(255) {
            return Err("coding parameters are out of range".into());
        }
        let mut parameters = Parameters::new(maximum, near);
        for (threshold, preset) in parameters.thresholds.iter_mut().zip([t1, t2, t3]) {
            if preset != 0 {
                *threshold = preset;
            }
        }
        if reset != 0 {
            parameters.reset = reset;
        }
        let [t1, t2, t3] = parameters.thresholds;
        let ordered = near < t1 && t1 <= t2 && t2 <= t3 && t3 <= maximum;
        if !ordered || parameters.reset < 3 {
            return Err("coding parameters are out of range".into());
        }
        Ok(parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::{bits::BitWriter, *};
    use proptest::prelude::*;

    fn layout(width: usize, height: usize, bits: usize) -> Layout {
        Layout {
            rows: height,
            columns: width,
            samples: 1,
            bits_allocated: 16,
            bits_stored: bits,
            high_bit: bits - 1,
            signed: false,
            planar: false,
            big_endian: false,
            words: true,
            photometric: "MONOCHROME2".into(),
            limit_bytes: 1 << 30,
        }
    }

    /// The worked example of ISO/IEC 14495-1 H.3: 4 x 4 samples of 8 bits.
    #[test]
    fn the_example_of_the_standard_is_coded_as_printed() {
        let samples = [0, 0, 90, 74, 68, 50, 43, 205, 64, 145, 145, 145, 100, 145, 145, 145];
        let coded = encode(&samples, 4, 4, 8);
        let printed = [
            0xFF, 0xD8, 0xFF, 0xF7, 0x00, 0x0B, 0x08, 0x00, 0x04, 0x00, 0x04, 0x01, 0x01, 0x11, 0x00, 0xFF, 0xDA, 0x00,
            0x08, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0xC0, 0x00, 0x00, 0x6C, 0x80, 0x20, 0x8E, 0x01, 0xC0, 0x00, 0x00,
            0x57, 0x40, 0x00, 0x00, 0x6E, 0xE6, 0x00, 0x00, 0x01, 0xBC, 0x18, 0x00, 0x00, 0x05, 0xD8, 0x00, 0x00, 0x91,
            0x60, 0xFF, 0xD9,
        ];
        assert_eq!(coded, printed);
        let decoded = decode(&coded, &layout(4, 4, 8)).unwrap();
        assert_eq!(decoded.raw, samples.map(u32::from));
    }

    #[test]
    fn a_shipped_slice_is_written_as_it_was() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../infra/pack/sample/series/slice-078.dcm");
        let bytes = std::fs::read(path).unwrap();
        let image = crate::dicom::from_bytes(&bytes, path, crate::dicom::ReadOptions::default()).unwrap();
        let values: Vec<u16> = image.frame(0).unwrap().values.into_iter().map(|value| value as u16).collect();
        let stream = encode(&values, image.width() as u16, image.height() as u16, 12);
        let start = bytes.windows(4).position(|four| four == [0xFF, 0xD8, 0xFF, 0xF7]).unwrap();
        assert!(bytes[start..].starts_with(&stream));
    }

    /// What `decode` says of a scan is held against the coder.
    fn is_as_encoded(coded: &[u8], layout: &Layout) -> Option<bool> {
        let decoded = decode(coded, layout).ok()?;
        let (width, height, bits) = (layout.columns as u16, layout.rows as u16, layout.bits_stored as u32);
        let samples: Vec<u16> = decoded.raw.iter().map(|&sample| sample as u16).collect();
        if let Some(scan) = decoded.scan {
            assert_eq!(stream(width, height, scan.bits, scan.bytes), encode(&samples, width, height, bits));
        }
        Some(decoded.scan.is_some())
    }

    #[test]
    fn scans_that_hide_something_are_not_as_encoded() {
        // One sample: a run of none, and what ends it.
        let one = |write: fn(&mut BitWriter)| {
            let mut writer = BitWriter::new();
            writer.reserve(64);
            writer.bits(0, 1);
            write(&mut writer);
            stream(1, 1, 8, &writer.finish())
        };
        fn golomb(writer: &mut BitWriter, number: u32) {
            let (bytes, end) = writer.parts();
            *end = end.golomb(bytes, number, 2, 31, 8);
        }
        let layout = layout(1, 1, 8);
        let canonical = one(|writer| golomb(writer, 6));
        assert_eq!(
            (decode(&canonical, &layout).unwrap().raw[0], is_as_encoded(&canonical, &layout)),
            (252, Some(true))
        );
        // -129 for 127; a short number in the long form; bits set in the padding; a byte too many.
        let wrapped = one(|writer| golomb(writer, 256));
        let long = one(|writer| {
            writer.bits(1, 23);
            writer.bits(6 - 1, 8);
        });
        let [mut padding, mut byte] = [canonical.clone(), canonical.clone()];
        let last = canonical.len() - 3;
        padding[last] |= 1;
        byte.insert(last + 1, 0);
        for (coded, sample) in [(wrapped, 127), (long, 252), (padding, 252), (byte, 252)] {
            assert_eq!(
                (decode(&coded, &layout).unwrap().raw[0], is_as_encoded(&coded, &layout)),
                (sample, Some(false))
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn every_image_comes_back(
            width in 1u16..40, height in 1u16..24, bits in 2u32..=16, flat in 0u16..4, seed in any::<u64>(),
        ) {
            let mut state = seed | 1;
            let samples: Vec<u16> = (0..usize::from(width) * usize::from(height)).map(|at| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let noise = (state >> 48) as u16;
                // From constant over ramps with few outliers to pure noise.
                let value = match flat { 0 => 7, 1 => at as u16, 2 if noise > 60_000 => noise, 2 => 3, _ => noise };
                value & ((1u32 << bits) - 1) as u16
            }).collect();
            let coded = encode(&samples, width, height, bits);
            let decoded = decode(&coded, &layout(width.into(), height.into(), bits as usize)).unwrap();
            prop_assert_eq!(decoded.raw, samples.iter().map(|&v| u32::from(v)).collect::<Vec<_>>());
            prop_assert_eq!(is_as_encoded(&coded, &layout(width.into(), height.into(), bits as usize)), Some(true));
            // Whatever else a stream holds, it is not taken for one of the coder's.
            for _ in 0..8 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let (mut changed, bit) = (coded.clone(), (state >> 33) as usize % (8 * (coded.len() - 27)));
                changed[25 + bit / 8] ^= 1 << (bit % 8);
                is_as_encoded(&changed, &layout(width.into(), height.into(), bits as usize));
            }
        }
    }
}
