//! Data sets as slices of the file: every declared length is checked against the bytes that are there before anything is
//! allocated (PS3.5 chapter 7, PS3.10 chapter 7). What was read before a fault stays readable, so that a refusal can
//! still say what the file is.

use std::collections::BTreeMap;

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use crate::Fault;

const UNDEFINED: u32 = u32::MAX;
const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);
/// Nested sequences deeper than this are refused: no image object needs them, and a hostile file could exhaust the stack.
const DEPTH: usize = 24;

/// Byte order and VR encoding of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Implicit,
    Explicit,
    BigEndian,
}

/// An element's value, borrowed from the file.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Bytes(&'a [u8]),
    Items(Vec<Dataset<'a>>),
    /// Encapsulated Pixel Data: the basic offset table first (PS3.5 A.4).
    Fragments(Vec<&'a [u8]>),
}

/// Elements by tag.
#[derive(Debug, Clone)]
pub(super) struct Dataset<'a> {
    encoding: Encoding,
    elements: BTreeMap<Tag, ([u8; 2], Value<'a>)>,
}

impl<'a> Dataset<'a> {
    fn new(encoding: Encoding) -> Self {
        Self { encoding, elements: BTreeMap::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    pub(super) fn encoding(&self) -> Encoding {
        self.encoding
    }

    pub(super) fn is_big_endian(&self) -> bool {
        self.encoding == Encoding::BigEndian
    }

    /// All elements of this level, by tag.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Tag, &Value<'a>)> {
        self.elements.iter().map(|(tag, (_, value))| (*tag, value))
    }

    pub(super) fn get(&self, tag: Tag) -> Option<&Value<'a>> {
        self.elements.get(&tag).map(|(_, value)| value)
    }

    /// The value representation as written; two zero bytes in implicit encoding.
    pub(super) fn vr(&self, tag: Tag) -> Option<[u8; 2]> {
        self.elements.get(&tag).map(|(vr, _)| *vr)
    }

    pub(super) fn bytes(&self, tag: Tag) -> Option<&'a [u8]> {
        match self.get(tag) {
            Some(Value::Bytes(bytes)) => Some(bytes),
            _ => None,
        }
    }

    /// The first item of a sequence.
    pub(super) fn item(&self, tag: Tag) -> Option<&Dataset<'a>> {
        match self.get(tag) {
            Some(Value::Items(items)) => items.first(),
            _ => None,
        }
    }

    /// Text without padding; `None` when absent or empty.
    pub(super) fn text(&self, tag: Tag) -> Option<String> {
        let text = String::from_utf8_lossy(self.bytes(tag)?);
        let text = text.trim_matches(['\0', ' ']).trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// The first 16-bit value of a US element.
    pub(super) fn unsigned16(&self, tag: Tag) -> Option<u16> {
        let bytes = self.bytes(tag)?.first_chunk::<2>()?;
        Some(if self.encoding == Encoding::BigEndian { u16::from_be_bytes(*bytes) } else { u16::from_le_bytes(*bytes) })
    }

    /// All 16-bit values of an element; `None` when absent, empty or of odd length.
    pub(super) fn unsigned16s(&self, tag: Tag) -> Option<Vec<u16>> {
        let (pairs, rest) = self.bytes(tag)?.as_chunks::<2>();
        let value =
            |pair: &[u8; 2]| if self.is_big_endian() { u16::from_be_bytes(*pair) } else { u16::from_le_bytes(*pair) };
        (rest.is_empty() && !pairs.is_empty()).then(|| pairs.iter().map(value).collect())
    }

    /// All 32-bit floating point values of an element; `None` when absent, empty or of another length.
    pub(super) fn floats(&self, tag: Tag) -> Option<Vec<f64>> {
        let (words, rest) = self.bytes(tag)?.as_chunks::<4>();
        let value =
            |word: &[u8; 4]| if self.is_big_endian() { f32::from_be_bytes(*word) } else { f32::from_le_bytes(*word) };
        (rest.is_empty() && !words.is_empty()).then(|| words.iter().map(|word| value(word).into()).collect())
    }

    /// All 64-bit floating point values of an element; `None` when absent, empty or of another length.
    pub(super) fn doubles(&self, tag: Tag) -> Option<Vec<f64>> {
        let (words, rest) = self.bytes(tag)?.as_chunks::<8>();
        let value =
            |word: &[u8; 8]| if self.is_big_endian() { f64::from_be_bytes(*word) } else { f64::from_le_bytes(*word) };
        (rest.is_empty() && !words.is_empty()).then(|| words.iter().map(value).collect())
    }

    /// All numbers of a DS element; `None` when absent, empty or not numbers.
    pub(super) fn decimals(&self, tag: Tag) -> Option<Vec<f64>> {
        let text = self.text(tag)?;
        let values: Option<Vec<f64>> =
            text.split('\\').map(|part| part.trim().parse::<f64>().ok().filter(|value| value.is_finite())).collect();
        values.filter(|values| !values.is_empty())
    }
}

/// All top-level elements, and the fault that ended the reading early, if one did.
pub(super) fn parse(data: &[u8], encoding: Encoding) -> (Dataset<'_>, Option<Fault>) {
    let mut dataset = Dataset::new(encoding);
    let mut reader = Reader { bytes: data, position: 0, encoding };
    while reader.remaining() > 0 {
        // Zero padding behind the last element is common and harmless.
        if reader.remaining() < 8 || reader.bytes[reader.position..].iter().take(8).all(|&byte| byte == 0) {
            break;
        }
        if let Err(fault) = reader.element(&mut dataset, 0) {
            return (dataset, Some(fault));
        }
    }
    (dataset, None)
}

/// The elements of group 0002 at the start of `bytes`, and how many bytes they take.
pub(super) fn parse_meta(bytes: &[u8]) -> Result<(Dataset<'_>, usize), Fault> {
    let mut meta = Dataset::new(Encoding::Explicit);
    let mut reader = Reader { bytes, position: 0, encoding: Encoding::Explicit };
    while reader.group() == Some(2) {
        reader.element(&mut meta, 0)?;
    }
    Ok((meta, reader.position))
}

struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    encoding: Encoding,
}

impl<'a> Reader<'a> {
    fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// The next tag's group, without advancing.
    fn group(&self) -> Option<u16> {
        let bytes = self.bytes.get(self.position..self.position + 2)?;
        Some(self.u16([bytes[0], bytes[1]]))
    }

    fn u16(&self, bytes: [u8; 2]) -> u16 {
        if self.encoding == Encoding::BigEndian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn u32(&self, bytes: [u8; 4]) -> u32 {
        if self.encoding == Encoding::BigEndian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn take(&mut self, length: usize, what: impl FnOnce() -> String) -> Result<&'a [u8], Fault> {
        let available = self.remaining();
        if length > available {
            return Err(Fault::Truncated { what: what(), declared: length as u64, available: available as u64 });
        }
        let slice = &self.bytes[self.position..self.position + length];
        self.position += length;
        Ok(slice)
    }

    /// Tag, VR (zero where none is written) and length.
    fn header(&mut self) -> Result<(Tag, [u8; 2], u32), Fault> {
        let position = self.position;
        let what = move || format!("an element header at byte {position} of the data set");
        let head = self.take(8, what)?;
        let tag = Tag(self.u16([head[0], head[1]]), self.u16([head[2], head[3]]));
        let vr = [head[4], head[5]];
        let explicit = self.encoding != Encoding::Implicit
            && tag.group() != 0xFFFE
            // Some writers put implicit elements into explicit data sets; letters tell the two apart.
            && vr.iter().all(u8::is_ascii_uppercase);
        if !explicit {
            return Ok((tag, [0, 0], self.u32([head[4], head[5], head[6], head[7]])));
        }
        match &vr {
            b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"SQ" | b"SV" | b"UC" | b"UN" | b"UR" | b"UT" | b"UV" => {
                let long = self.take(4, what)?;
                Ok((tag, vr, self.u32([long[0], long[1], long[2], long[3]])))
            }
            _ => Ok((tag, vr, u32::from(self.u16([head[6], head[7]])))),
        }
    }

    fn element(&mut self, into: &mut Dataset<'a>, depth: usize) -> Result<Tag, Fault> {
        if depth > DEPTH {
            return Err(Fault::Malformed("sequences are nested too deeply".into()));
        }
        let (tag, vr, length) = self.header()?;
        if length == UNDEFINED {
            if tag == tags::PIXEL_DATA {
                // What was read of the fragments is kept even when the rest is missing.
                let mut fragments = Vec::new();
                let result = self.fragments(&mut fragments);
                into.elements.insert(tag, (vr, Value::Fragments(fragments)));
                return result.map(|()| tag);
            }
            let items = self.items(vr == *b"UN", depth)?;
            into.elements.insert(tag, (vr, Value::Items(items)));
            return Ok(tag);
        }
        let start = self.position;
        let available = self.remaining();
        let value = match self.take(length as usize, || format!("element {tag}")) {
            Ok(value) => value,
            Err(fault) => {
                // Pixel Data that is cut short is reported against the image's size by whoever asked for it.
                if tag == tags::PIXEL_DATA {
                    self.position += available;
                    into.elements.insert(tag, (vr, Value::Bytes(&self.bytes[start..])));
                }
                return Err(fault);
            }
        };
        let mut parsed = Value::Bytes(value);
        if vr == *b"SQ" || (vr == [0, 0] && is_sequence(tag)) {
            let mut inner = Self { bytes: value, position: 0, encoding: self.encoding };
            // A damaged sequence is passed over by its length: few of them matter for the pixels.
            if let Ok(items) = inner.items(false, depth) {
                parsed = Value::Items(items);
            }
        }
        into.elements.insert(tag, (vr, parsed));
        Ok(tag)
    }

    /// Items up to the sequence's delimiter or the end of the bytes. Sequences of VR UN are implicit inside (PS3.5 6.2.2
    /// note 4).
    fn items(&mut self, unknown: bool, depth: usize) -> Result<Vec<Dataset<'a>>, Fault> {
        let outer = self.encoding;
        if unknown {
            self.encoding = Encoding::Implicit;
        }
        let mut items = Vec::new();
        while self.remaining() > 0 {
            let (tag, _, length) = self.header()?;
            if tag == SEQUENCE_END {
                break;
            }
            if tag != ITEM {
                return Err(Fault::Malformed(format!("{tag} where a sequence item should be")));
            }
            let mut item = Dataset::new(self.encoding);
            if length == UNDEFINED {
                while !self.at(ITEM_END) {
                    self.element(&mut item, depth + 1)?;
                }
                self.header()?;
            } else {
                let bytes = self.take(length as usize, || "a sequence item".into())?;
                let mut inner = Self { bytes, position: 0, encoding: self.encoding };
                while inner.remaining() > 0 {
                    inner.element(&mut item, depth + 1)?;
                }
            }
            items.push(item);
        }
        self.encoding = outer;
        Ok(items)
    }

    fn at(&self, tag: Tag) -> bool {
        let bytes = self.bytes.get(self.position..self.position + 4);
        bytes.is_some_and(|b| Tag(self.u16([b[0], b[1]]), self.u16([b[2], b[3]])) == tag)
    }

    fn fragments(&mut self, fragments: &mut Vec<&'a [u8]>) -> Result<(), Fault> {
        loop {
            let (tag, _, length) = self.header().map_err(|_| Fault::Truncated {
                what: "the end of the encapsulated pixel data".into(),
                declared: 8,
                available: self.remaining() as u64,
            })?;
            match tag {
                SEQUENCE_END => return Ok(()),
                ITEM => {
                    let number = fragments.len();
                    fragments.push(self.take(length as usize, || format!("pixel data fragment {number}"))?);
                }
                other => return Err(Fault::Malformed(format!("{other} where a pixel data fragment should be"))),
            }
        }
    }
}

/// The sequences that we look into where implicit encoding does not say that they are sequences.
fn is_sequence(tag: Tag) -> bool {
    [
        tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE,
        tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE,
        tags::PIXEL_MEASURES_SEQUENCE,
        tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE,
        tags::FRAME_VOILUT_SEQUENCE,
        tags::PLANE_POSITION_SEQUENCE,
        tags::PLANE_ORIENTATION_SEQUENCE,
        tags::FRAME_CONTENT_SEQUENCE,
        tags::CT_IMAGE_FRAME_TYPE_SEQUENCE,
        tags::MODALITY_LUT_SEQUENCE,
        tags::VOILUT_SEQUENCE,
    ]
    .contains(&tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Explicit little endian, a long VR where `length` says more than 16 bits.
    fn element(tag: (u16, u16), vr: &[u8; 2], length: u32, value: &[u8]) -> Vec<u8> {
        let mut bytes: Vec<u8> = [tag.0.to_le_bytes(), tag.1.to_le_bytes()].concat();
        bytes.extend(vr);
        match vr {
            b"SQ" | b"UN" | b"OB" => bytes.extend([&[0, 0], length.to_le_bytes().as_slice()].concat()),
            _ => bytes.extend((length as u16).to_le_bytes()),
        }
        bytes.extend(value);
        bytes
    }

    fn item(length: u32, value: &[u8]) -> Vec<u8> {
        [&[0xFE, 0xFF, 0x00, 0xE0], length.to_le_bytes().as_slice(), value].concat()
    }

    fn rows() -> Vec<u8> {
        element((0x28, 0x10), b"US", 2, &[7, 0])
    }

    #[test]
    fn sequences_of_both_kinds_are_entered() {
        let inner = element((0x28, 0x30), b"DS", 4, b"1\\2 ");
        let measures = |length, value: &[u8]| element((0x28, 0x9110), b"SQ", length, value);
        let defined = item(inner.len() as u32, &inner);
        let open =
            [&item(UNDEFINED, &inner), &[0xFE, 0xFF, 0x0D, 0xE0, 0, 0, 0, 0, 0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0][..]]
                .concat();
        for sequence in [measures(defined.len() as u32, &defined), measures(UNDEFINED, &open)] {
            let bytes = [sequence, rows()].concat();
            let (dataset, fault) = parse(&bytes, Encoding::Explicit);
            assert!(fault.is_none());
            let spacing = dataset.item(tags::PIXEL_MEASURES_SEQUENCE).unwrap().decimals(tags::PIXEL_SPACING);
            assert_eq!(spacing, Some(vec![1.0, 2.0]));
            assert_eq!(dataset.unsigned16(tags::ROWS), Some(7));
        }
    }

    #[test]
    fn a_damaged_sequence_of_known_length_is_passed_over() {
        // An item that claims more than its sequence holds, and one whose header is cut.
        for value in [item(900, &[1, 2, 3, 4]), vec![0xFE, 0xFF, 0x00]] {
            let bytes = [element((0x28, 0x9110), b"SQ", value.len() as u32, &value), rows()].concat();
            let (dataset, fault) = parse(&bytes, Encoding::Explicit);
            assert!(fault.is_none() && dataset.unsigned16(tags::ROWS) == Some(7));
        }
    }

    #[test]
    fn lengths_beyond_the_file_keep_what_came_before() {
        let bytes = [rows(), element((0x28, 0x11), b"UN", 4_000_000_000, &[1])].concat();
        let (dataset, fault) = parse(&bytes, Encoding::Explicit);
        assert_eq!(dataset.unsigned16(tags::ROWS), Some(7));
        assert!(matches!(fault, Some(Fault::Truncated { declared: 4_000_000_000, available: 1, .. })));
    }

    #[test]
    fn nesting_is_bounded() {
        let mut bytes = Vec::new();
        for _ in 0..10_000 {
            bytes.extend(element((0x28, 0x9110), b"SQ", UNDEFINED, &[]));
            bytes.extend(item(UNDEFINED, &[]));
        }
        assert!(parse(&bytes, Encoding::Explicit).1.is_some());
    }
}
