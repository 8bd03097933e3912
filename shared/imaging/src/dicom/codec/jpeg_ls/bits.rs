//! Bits of a JPEG-LS scan: after a byte 0xFF the next one starts with a stuffed zero bit (ISO/IEC 14495-1 A.1, C.1).

use memchr::memchr_iter;

/// The bits of a scan, most significant first, without those that were stuffed.
pub(super) struct BitReader {
    /// With zeros behind, so that eight bytes can be taken anywhere.
    bytes: Vec<u8>,
    /// Bits taken.
    position: usize,
    /// Bits that there are.
    length: usize,
}

impl BitReader {
    /// The scan at the start of `bytes`, up to the next marker; and what follows from that marker on.
    pub(super) fn new(bytes: &[u8]) -> (Self, &[u8]) {
        let end = memchr_iter(0xFF, bytes).find(|&at| bytes.get(at + 1).is_none_or(|next| next & 0x80 != 0));
        let (scan, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        let mut joined = Joined { bytes: Vec::with_capacity(scan.len() + PADDING), buffer: 0, pending: 0 };
        let mut start = 0;
        for at in memchr_iter(0xFF, scan) {
            joined.append(&scan[start..=at]);
            // Its first bit was stuffed. There is one: a last byte would be a marker's.
            joined.push(u64::from(scan[at + 1]), 7);
            start = at + 2;
        }
        joined.append(&scan[start.min(scan.len())..]);
        let (bytes, length) = joined.finish();
        (Self { bytes, position: 0, length }, rest)
    }

    /// The next 64 bits, at least 57 of them there; zeros behind the end.
    #[inline]
    fn window(&self) -> u64 {
        let next = self.bytes.get(self.position / 8..).and_then(<[u8]>::first_chunk::<8>);
        u64::from_be_bytes(next.copied().unwrap_or_default()) << (self.position % 8)
    }

    /// Takes `count` bits.
    #[inline]
    fn take(&mut self, count: u32) -> Result<(), &'static str> {
        self.position += count as usize;
        if self.position > self.length { Err("the code stream ends early") } else { Ok(()) }
    }

    /// The next `count` bits, at most 32.
    #[inline]
    pub(super) fn bits(&mut self, count: u32) -> Result<u32, &'static str> {
        let window = self.window();
        self.take(count)?;
        // Twice, as a shift by 64 is none.
        Ok((window >> 1 >> (63 - count)) as u32)
    }

    /// A number in the limited Golomb code with parameter `k`, at most 24: fewer than `most` zero bits before a one, and `k`
    /// bits; or `most` zero bits before a one, and the number less 1 in `escape_bits` (A.5.3).
    #[inline]
    pub(super) fn golomb(&mut self, k: u32, most: u32, escape_bits: u32) -> Result<u32, &'static str> {
        let window = self.window();
        let zeros = window.leading_zeros();
        // Nearly always all of it is in the window.
        if zeros < most && zeros + k < 57 {
            self.take(zeros + 1 + k)?;
            return Ok((zeros << k) | ((window << zeros << 1) >> 1 >> (63 - k)) as u32);
        }
        self.long_golomb(k, most, escape_bits)
    }

    #[cold]
    fn long_golomb(&mut self, k: u32, most: u32, escape_bits: u32) -> Result<u32, &'static str> {
        let mut zeros = 0;
        while self.bits(1)? == 0 {
            zeros += 1;
            if zeros > most {
                return Err("a code word is too long");
            }
        }
        if zeros < most { Ok((zeros << k) | self.bits(k)?) } else { Ok(self.bits(escape_bits)? + 1) }
    }
}

/// Zeros behind the bits.
const PADDING: usize = 16;

/// Bits that are joined.
struct Joined {
    bytes: Vec<u8>,
    /// The lowest `pending` bits wait, fewer than 8.
    buffer: u64,
    pending: u32,
}

impl Joined {
    /// Appends the lowest `count` bits of `value`, at most 56; those above are cut off.
    fn push(&mut self, value: u64, count: u32) {
        self.buffer = (self.buffer << count) | (value & ((1 << count) - 1));
        self.pending += count;
        while self.pending >= 8 {
            self.pending -= 8;
            self.bytes.push((self.buffer >> self.pending) as u8);
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        let (words, last) = bytes.as_chunks::<4>();
        for word in words {
            self.buffer = (self.buffer << 32) | u64::from(u32::from_be_bytes(*word));
            self.bytes.extend_from_slice(&((self.buffer >> self.pending) as u32).to_be_bytes());
        }
        last.iter().for_each(|&byte| self.push(u64::from(byte), 8));
    }

    /// The bytes with padding, and the number of bits.
    fn finish(mut self) -> (Vec<u8>, usize) {
        let length = 8 * self.bytes.len() + self.pending as usize;
        self.bytes.push(((self.buffer << 8) >> self.pending) as u8);
        self.bytes.extend([0; PADDING]);
        (self.bytes, length)
    }
}

/// Writes bits, most significant first.
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// The lowest `pending` bits wait, fewer than 8.
    buffer: u64,
    pending: u32,
    /// Bits of the next byte: 7 behind 0xFF, else 8.
    room: u32,
}

impl BitWriter {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, buffer: 0, pending: 0, room: 8 }
    }

    /// The `count` lowest bits of `value`, at most 32.
    #[inline]
    pub(super) fn bits(&mut self, value: u32, count: u32) {
        self.buffer = self.buffer << count | u64::from(value) & ((1 << count) - 1);
        self.pending += count;
        while self.pending >= self.room {
            self.pending -= self.room;
            self.flush((self.buffer >> self.pending) as u8);
        }
    }

    /// `zeros` zero bits and a one.
    #[inline]
    pub(super) fn unary(&mut self, mut zeros: u32) {
        while zeros >= 32 {
            self.bits(0, 32);
            zeros -= 32;
        }
        self.bits(1, zeros + 1);
    }

    fn flush(&mut self, bits: u8) {
        let byte = bits & (0xFF >> (8 - self.room));
        self.bytes.push(byte);
        self.room = if byte == 0xFF { 7 } else { 8 };
    }

    /// The bytes, the last one padded with zeros.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.pending > 0 || self.room == 7 {
            let missing = self.room - self.pending;
            self.flush((self.buffer << missing) as u8);
            if self.room == 7 {
                self.bytes.push(0);
            }
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_survive_stuffing() {
        let mut writer = BitWriter::new(Vec::new());
        let values: Vec<(u32, u32)> = (0..2000u32).map(|i| (if i % 3 == 0 { 0x7FFF } else { i }, 1 + i % 15)).collect();
        values.iter().for_each(|&(value, count)| writer.bits(value, count));
        let mut bytes = writer.finish();
        assert!(!bytes.windows(2).any(|pair| pair[0] == 0xFF && pair[1] >= 0x80));
        bytes.extend([0xFF, 0xD9]);
        let (mut reader, rest) = BitReader::new(&bytes);
        for &(value, count) in &values {
            assert_eq!(reader.bits(count).unwrap(), value & ((1 << count) - 1));
        }
        assert_eq!(rest, [0xFF, 0xD9]);
        assert!(reader.bits(16).is_err());
    }
}
