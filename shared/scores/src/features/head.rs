//! The head of a .npy file (NumPy enhancement proposal 1): a length, then a Python dictionary of three entries.
//!
//! Read here because the crates for this format multiply a hostile shape without a check, or parse any Python literal to
//! any depth.

use std::io::Read;

/// Longest head that is read. NumPy writes 128 bytes for a matrix; a longer text is damage, or meant to do harm.
const LONGEST: u64 = 1024;

/// Element types that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element {
    /// 4 or 8.
    pub(super) bytes: usize,
    pub(super) big_endian: bool,
}

/// What the head says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// Element type in NumPy's notation, such as `<f4`.
    pub(super) descr: String,
    pub(super) column_major: bool,
    pub(super) shape: Vec<u64>,
    /// Where the elements begin.
    pub(super) length: u64,
}

impl Head {
    /// The element type, where it is one that is read.
    pub(super) fn element(&self) -> Option<Element> {
        let (bytes, big_endian) = match &*self.descr {
            "<f4" => (4, false),
            ">f4" => (4, true),
            "<f8" => (8, false),
            ">f8" => (8, true),
            _ => return None,
        };
        Some(Element { bytes, big_endian })
    }
}

/// Reads a head from the start of a file; says what is wrong with it otherwise.
pub(super) fn read(file: &mut impl Read) -> Result<Head, String> {
    let mut start = Vec::new();
    file.by_ref().take(12).read_to_end(&mut start).map_err(|error| error.to_string())?;
    let (text_start, length) = match *start {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, a, b, ..] => (10, 10 + u64::from(u16::from_le_bytes([a, b]))),
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _, a, b, c, d] => {
            (12, 12 + u64::from(u32::from_le_bytes([a, b, c, d])))
        }
        _ => return Err("its first bytes are not those of one".to_owned()),
    };
    if length > LONGEST {
        return Err(format!("its head has {length} bytes"));
    }
    file.by_ref().take(length.saturating_sub(12)).read_to_end(&mut start).map_err(|error| error.to_string())?;
    let text = start.get(text_start..length as usize).ok_or("its head is cut off")?;
    let text = std::str::from_utf8(text).map_err(|_| "its head is no text")?;
    parse(text, length).ok_or_else(|| format!("its head is {:?}", text.trim()))
}

fn parse(text: &str, length: u64) -> Option<Head> {
    let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
    let (mut descr, mut column_major, mut shape) = (None, None, None);
    while !rest.is_empty() {
        let (key, value) = quoted(rest)?;
        let value = value.trim_start().strip_prefix(':')?.trim_start();
        rest = match key {
            "descr" => {
                // A structured type is a list; it is kept as text, to be named in the refusal.
                let (text, rest) = quoted(value).or_else(|| enclosed(value, '[', ']'))?;
                descr = Some(text.to_owned());
                rest
            }
            "fortran_order" => {
                let (truth, rest) = value
                    .strip_prefix("True")
                    .map(|rest| (true, rest))
                    .or_else(|| value.strip_prefix("False").map(|rest| (false, rest)))?;
                column_major = Some(truth);
                rest
            }
            "shape" => {
                let (sizes, rest) = enclosed(value, '(', ')')?;
                let sizes = sizes.split(',').map(str::trim).filter(|size| !size.is_empty());
                shape = Some(sizes.map(|size| size.parse().ok()).collect::<Option<Vec<u64>>>()?);
                rest
            }
            _ => return None,
        };
        rest = rest.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    Some(Head { descr: descr?, column_major: column_major?, shape: shape?, length })
}

/// A Python string without escapes, and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    text[1..].split_once(quote)
}

fn enclosed(text: &str, open: char, close: char) -> Option<(&str, &str)> {
    text.strip_prefix(open)?.split_once(close)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_in_any_order_and_spacing() {
        let expected = Head { descr: ">f8".to_owned(), column_major: true, shape: vec![5, 3], length: 128 };
        let texts = [
            "{'descr': '>f8', 'fortran_order': True, 'shape': (5, 3), }   \n",
            "{\"shape\":(5,3,),\"fortran_order\":True,\"descr\":\">f8\"}",
        ];
        for text in texts {
            assert_eq!(parse(text, 128).as_ref(), Some(&expected), "{text}");
        }
        let structured = "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }";
        let head = parse(structured, 128).unwrap();
        assert_eq!((head.element(), &*head.shape), (None, &[2][..]));
    }

    #[test]
    fn other_texts_are_no_heads() {
        let texts = [
            "",
            "{}",
            "{'descr': '<f4'}",
            "{'descr': '<f4', 'fortran_order': 0, 'shape': (2, 2)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2, -2)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 99999999999999999999)}",
            "{'descr': 'é', 'é'}",
            "{é}",
        ];
        for text in texts {
            assert_eq!(parse(text, 0), None, "{text}");
        }
    }
}
