//! Files of a tar stream in the format `ustar` (POSIX.1-2017, pax), the same bytes every time.

use bytes::{BufMut, Bytes, BytesMut};

/// Everything in a tar stream comes in blocks of so many bytes.
const BLOCK: usize = 512;

/// A file: its header, content and padding. None where the name is longer than 100 bytes or the content than 8 GiB.
pub fn file(name: &str, content: &[u8]) -> Option<Bytes> {
    let mut header = [0_u8; BLOCK];
    header.get_mut(..100)?.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    // Owner and time are 0: the stream depends on nothing but the images.
    for (at, text) in [(100, "0000644\0"), (108, "0000000\0"), (116, "0000000\0"), (136, "00000000000\0")] {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    }
    let size = format!("{:011o}\0", content.len());
    header.get_mut(124..124 + 12).filter(|_| size.len() == 12)?.copy_from_slice(size.as_bytes());
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    // The sum is over the header with spaces in the sum's place.
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let padded = content.len().next_multiple_of(BLOCK);
    let mut bytes = BytesMut::with_capacity(BLOCK + padded);
    bytes.put_slice(&header);
    bytes.put_slice(content);
    bytes.put_bytes(0, padded - content.len());
    Some(bytes.freeze())
}

/// The end of a tar stream: two empty blocks.
pub fn end() -> Bytes {
    Bytes::from_static(&[0; 2 * BLOCK])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_the_standard_has_them() {
        let bytes = file("a/image-00000.mask.png", b"abc").unwrap();
        assert_eq!(bytes.len(), 1024);
        assert_eq!(&bytes[124..136], b"00000000003\0");
        assert_eq!(&bytes[512..516], b"abc\0");
        let sum: u32 = bytes[..512]
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
            .sum();
        assert_eq!(&bytes[148..154], format!("{sum:06o}").as_bytes());
        assert_eq!(file("x", &[]).unwrap().len(), 512);
        assert_eq!(file("x", &[1; 512]).unwrap().len(), 1024);
        assert!(file(&"x".repeat(101), b"").is_none());
    }
}
