//! The file around the data set: preamble, file meta information, transfer syntax, deflation (PS3.10 chapter 7).

use std::borrow::Cow;
use std::io::Read;

use dicom_dictionary_std::tags;

use super::dataset::{Encoding, parse_meta};
use crate::Fault;

/// A file split into its transfer syntax and its data set's bytes.
#[derive(Debug)]
pub(super) struct Envelope<'a> {
    /// As the file meta information states it; `None` where that is missing.
    pub transfer_syntax: Option<String>,
    /// Whether there was file meta information at all.
    pub has_meta: bool,
    pub encoding: Encoding,
    /// Inflated where the transfer syntax is deflated.
    pub data: Cow<'a, [u8]>,
}

/// Finds the data set in `bytes`: with or without preamble, with or without file meta information (PS3.10 7.1).
pub(super) fn open(bytes: &[u8], limit: u64) -> Result<Envelope<'_>, Fault> {
    let start = match bytes {
        _ if bytes.get(128..132) == Some(b"DICM".as_slice()) => 132,
        _ if bytes.starts_with(b"DICM") => 4,
        _ => 0,
    };
    let rest = &bytes[start..];
    let (meta, length) = parse_meta(rest)?;
    let has_meta = !meta.is_empty();
    if start == 0 && !has_meta && sniff(rest).is_none() {
        return Err(Fault::NotDicom);
    }
    let transfer_syntax = meta.text(tags::TRANSFER_SYNTAX_UID);
    let data = &rest[length..];
    let encoding = match transfer_syntax.as_deref() {
        Some("1.2.840.10008.1.2") => Encoding::Implicit,
        Some("1.2.840.10008.1.2.2") => Encoding::BigEndian,
        Some(_) => Encoding::Explicit,
        None => sniff(data).unwrap_or(Encoding::Implicit),
    };
    let data = match transfer_syntax.as_deref() {
        Some("1.2.840.10008.1.2.1.99") => Cow::Owned(inflate(data, limit)?),
        _ => Cow::Borrowed(data),
    };
    Ok(Envelope { transfer_syntax, has_meta, encoding, data })
}

/// The encoding that the first element suggests; `None` when nothing fits.
fn sniff(data: &[u8]) -> Option<Encoding> {
    let first: &[u8; 8] = data.first_chunk()?;
    let letters = first[4].is_ascii_uppercase() && first[5].is_ascii_uppercase();
    let (little, big) = (u16::from_le_bytes([first[0], first[1]]), u16::from_be_bytes([first[0], first[1]]));
    match (letters, little, big) {
        (true, 2..=0x40, _) => Some(Encoding::Explicit),
        (true, _, 2..=0x40) => Some(Encoding::BigEndian),
        (false, 2..=0x40, _) => {
            let length = u32::from_le_bytes([first[4], first[5], first[6], first[7]]);
            (length as usize <= data.len()).then_some(Encoding::Implicit)
        }
        _ => None,
    }
}

/// A deflated data set may always grow to this: a large image of one value compresses without bound.
const INFLATED_BYTES: u64 = 64 << 20;

/// Beyond that it may be so many times its deflated length; images hardly reach a tenth of it, hostile zeros a thousand.
const INFLATION: u64 = 64;

fn inflate(data: &[u8], limit: u64) -> Result<Vec<u8>, Fault> {
    let limit = limit.min((data.len() as u64).saturating_mul(INFLATION).max(INFLATED_BYTES));
    let mut inflated = Vec::new();
    let mut decoder = flate2::read::DeflateDecoder::new(data).take(limit + 1);
    decoder.read_to_end(&mut inflated).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Fault::Truncated {
            what: "the deflated data set".into(),
            declared: data.len() as u64 + 1,
            available: data.len() as u64,
        },
        _ => Fault::Malformed(format!("the deflated data set is damaged ({error})")),
    })?;
    if inflated.len() as u64 > limit {
        return Err(Fault::TooLarge { what: "the inflated data set", needed: inflated.len() as u64, limit });
    }
    Ok(inflated)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_data_set_that_inflates_out_of_all_proportion_is_refused_early() {
        let zeros = |length: usize| {
            let mut deflated = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
            deflated.write_all(&vec![0; length]).unwrap();
            deflated.finish().unwrap()
        };
        assert_eq!(inflate(&zeros(1 << 20), 1 << 30).unwrap().len(), 1 << 20);
        let refused = inflate(&zeros(80 << 20), 1 << 30);
        assert!(matches!(refused, Err(Fault::TooLarge { limit: INFLATED_BYTES, .. })), "{refused:?}");
    }
}
