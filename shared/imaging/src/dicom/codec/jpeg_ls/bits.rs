//! Bits of a JPEG-LS scan: after a byte 0xFF the next one starts with a stuffed zero bit (ISO/IEC 14495-1 A.1, C.1).

use memchr::memchr_iter;

/// The bits of a scan, without those that were stuffed.
pub(super) struct Unstuffed {
    /// With zeros behind, so that eight bytes can be taken anywhere.
    bytes: Vec<u8>,
    /// Bits that there are.
    length: usize,
}

impl Unstuffed {
    /// The scan at the start of `bytes`, up to the next marker; and how many bytes it takes.
    pub(super) fn new(bytes: &[u8]) -> (Self, usize) {
        let end = memchr_iter(0xFF, bytes).find(|&at| bytes.get(at + 1).is_none_or(|next| next & 0x80 != 0));
        let scan = &bytes[..end.unwrap_or(bytes.len())];
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
        (Self { bytes, length }, scan.len())
    }

    pub(super) fn reader(&self) -> BitReader<'_> {
        BitReader { bytes: &self.bytes, position: 0, length: self.length, wasteful: false }
    }
}

/// Reads bits, most significant first.
#[derive(Debug)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Bits taken.
    position: usize,
    length: usize,
    /// Whether a number came in the long code that a shorter one would have held.
    wasteful: bool,
}

impl BitReader<'_> {
    /// Whether each number came in the code word that [`End::golomb`] writes for it, and nothing follows but the last byte's padding with
    /// zeros.
    pub(super) fn is_as_written(&self) -> bool {
        !self.wasteful && self.length - self.position < 8 && window(self.bytes, self.position) == 0
    }

    /// Takes `count` bits.
    #[inline(always)]
    fn take(&mut self, count: u32) -> Result<(), &'static str> {
        self.position += count as usize;
        if self.position > self.length { Err("the code stream ends early") } else { Ok(()) }
    }

    /// The next `count` bits, at most 32.
    #[inline(always)]
    pub(super) fn bits(&mut self, count: u32) -> Result<u32, &'static str> {
        let window = window(self.bytes, self.position);
        self.take(count)?;
        // Twice, as a shift by 64 is none.
        Ok((window >> 1 >> (63 - count)) as u32)
    }

    /// A number in the limited Golomb code with parameter `k`, at most 24: fewer than `most` zero bits before a one, and `k`
    /// bits; or `most` zero bits before a one, and the number less 1 in `escape_bits` (A.5.3).
    #[inline(always)]
    pub(super) fn golomb(&mut self, k: u32, most: u32, escape_bits: u32) -> Result<u32, &'static str> {
        let window = window(self.bytes, self.position);
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
        if zeros < most {
            return Ok((zeros << k) | self.bits(k)?);
        }
        let number = self.bits(escape_bits)? + 1;
        self.wasteful |= number >> k < most;
        Ok(number)
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

/// Writes bits, most significant first; zero bits are stuffed when all are there, so that nothing has to be decided bit by bit.
pub(super) struct BitWriter {
    /// Those up to the end are written, and those behind are free.
    bytes: Vec<u8>,
    end: End,
}

/// Where a writer is: small, so that it can be kept in registers.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    /// Whole bytes.
    length: usize,
    /// The highest `pending` bits wait, fewer than 8; the others are zeros.
    buffer: u64,
    pending: u64,
}

impl End {
    /// Writes the `count` lowest bits of `value`, at most 56, into `bytes`, which have room for 8 more; the bits above must be zero.
    #[inline(always)]
    fn bits(self, bytes: &mut [u8], value: u64, count: u32) -> Self {
        let filled = self.pending + u64::from(count);
        // Twice, as a shift by 64 is none.
        let buffer = self.buffer | value << 1 << (63 - filled);
        bytes[self.length..self.length + 8].copy_from_slice(&buffer.to_be_bytes());
        Self { length: self.length + filled as usize / 8, buffer: buffer << (filled & !7), pending: filled & 7 }
    }

    /// Writes a number in the limited Golomb code with parameter `k` (A.5.3): see [`BitReader::golomb`].
    #[inline(always)]
    pub(super) fn golomb(self, bytes: &mut [u8], number: u32, k: u32, limit: u32, escape_bits: u32) -> Self {
        let (number, most) = (u64::from(number), limit - escape_bits - 1);
        let (high, low) = (number >> k, number & ((1 << k) - 1));
        // Nearly always the zeros, the one and the bits behind it fit into one word.
        if high < u64::from(most.min(56 - k)) {
            return self.bits(bytes, 1 << k | low, high as u32 + 1 + k);
        }
        let (zeros, rest, count) =
            if high < u64::from(most) { (high as u32, low, k) } else { (most, number - 1, escape_bits) };
        self.bits(bytes, 1, zeros + 1).bits(bytes, rest, count)
    }
}

impl BitWriter {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), end: End { length: 0, buffer: 0, pending: 0 } }
    }

    /// Makes room for `bits` more bits.
    pub(super) fn reserve(&mut self, bits: usize) {
        let needed = self.end.length + bits / 8 + PADDING;
        if self.bytes.len() < needed {
            self.bytes.resize(needed.max(2 * self.bytes.len()), 0);
        }
    }

    /// As [`End::bits`].
    #[inline(always)]
    pub(super) fn bits(&mut self, value: u64, count: u32) {
        self.end = self.end.bits(&mut self.bytes, value, count);
    }

    /// Where bytes go and the end, for as long as there is room.
    #[inline(always)]
    pub(super) fn parts(&mut self) -> (&mut [u8], &mut End) {
        (&mut self.bytes, &mut self.end)
    }

    /// The bytes, stuffed, the last one padded with zeros.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.reserve(0);
        self.bits(0, 0);
        let total = 8 * self.end.length + self.end.pending as usize;
        let mut stuffed = Vec::with_capacity(total / 8 + total / 512 + PADDING);
        // Bits of the next byte: 7 behind 0xFF, else 8.
        let (mut position, mut room) = (0, 8);
        while position < total {
            let next = window(&self.bytes, position);
            let word = (next >> 32) as u32;
            if room == 8 && position + 32 <= total && !has_full_byte(word) {
                stuffed.extend_from_slice(&word.to_be_bytes());
                position += 32;
                continue;
            }
            let byte = (next >> (64 - room)) as u8;
            stuffed.push(byte);
            position += room;
            room = if byte == 0xFF { 7 } else { 8 };
        }
        if room == 7 {
            stuffed.push(0);
        }
        stuffed
    }
}

/// Whether one of the four bytes is 0xFF.
#[inline(always)]
fn has_full_byte(word: u32) -> bool {
    word & ((word & 0x7F7F_7F7F) + 0x0101_0101) & 0x8080_8080 != 0
}

/// The 64 bits from bit `position` on, at least 57 of them there; zeros behind the end.
#[inline(always)]
fn window(bytes: &[u8], position: usize) -> u64 {
    let next = bytes.get(position / 8..).and_then(<[u8]>::first_chunk::<8>);
    u64::from_be_bytes(next.copied().unwrap_or_default()) << (position % 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_survive_stuffing() {
        let mut writer = BitWriter::new();
        let values: Vec<(u32, u32)> = (0..2000u32).map(|i| (if i % 3 == 0 { 0x7FFF } else { i }, 1 + i % 15)).collect();
        for &(value, count) in &values {
            writer.reserve(count as usize);
            writer.bits(u64::from(value & ((1 << count) - 1)), count);
        }
        let mut bytes = writer.finish();
        assert!(!bytes.windows(2).any(|pair| pair[0] == 0xFF && pair[1] >= 0x80));
        bytes.extend([0xFF, 0xD9]);
        let (unstuffed, length) = Unstuffed::new(&bytes);
        let mut reader = unstuffed.reader();
        for &(value, count) in &values {
            assert_eq!(reader.bits(count).unwrap(), value & ((1 << count) - 1));
        }
        assert_eq!(bytes[length..], [0xFF, 0xD9]);
        assert!(reader.is_as_written());
        assert!(reader.bits(16).is_err());
    }
}
