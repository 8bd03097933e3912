//! Bits of a JPEG-LS scan: after a byte 0xFF the next one starts with a stuffed zero bit (ISO/IEC 14495-1 A.1, C.1).

/// Reads bits, most significant first, up to the next marker.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    position: usize,
    buffer: u64,
    available: u32,
    after_ff: bool,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0, buffer: 0, available: 0, after_ff: false }
    }

    fn refill(&mut self) {
        while self.available <= 48 {
            let Some(&byte) = self.bytes.get(self.position) else { return };
            if self.after_ff && byte & 0x80 != 0 {
                return;
            }
            let bits = if self.after_ff { 7 } else { 8 };
            self.buffer = (self.buffer << bits) | u64::from(byte);
            self.available += bits;
            self.after_ff = byte == 0xFF;
            self.position += 1;
        }
    }

    /// The next `count` bits, at most 32.
    pub(super) fn bits(&mut self, count: u32) -> Result<u32, String> {
        if self.available < count {
            self.refill();
            if self.available < count {
                return Err("the code stream ends early".into());
            }
        }
        self.available -= count;
        Ok(((self.buffer >> self.available) & ((1u64 << count) - 1)) as u32)
    }

    /// Zero bits before the next one bit, which is taken too; more than `most` of them are an error.
    pub(super) fn zeros(&mut self, most: u32) -> Result<u32, String> {
        let mut zeros = 0;
        while self.bits(1)? == 0 {
            zeros += 1;
            if zeros > most {
                return Err("a code word is too long".into());
            }
        }
        Ok(zeros)
    }

    /// Bytes from the first marker behind what was read.
    pub(super) fn rest(&self) -> &'a [u8] {
        // The byte before the marker's second one is the 0xFF that was taken for data.
        let from = self.position.saturating_sub(1);
        let marker = self.bytes[from..].windows(2).position(|pair| pair[0] == 0xFF && pair[1] & 0x80 != 0);
        marker.map_or(&[], |at| &self.bytes[from + at..])
    }
}

/// Writes bits, most significant first.
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    current: u8,
    free: u32,
}

impl BitWriter {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, current: 0, free: 8 }
    }

    /// The `count` lowest bits of `value`, at most 64; those beyond 32 are zero.
    pub(super) fn bits(&mut self, value: u32, count: u32) {
        for bit in (0..count).rev() {
            self.free -= 1;
            self.current |= ((u64::from(value) >> bit & 1) as u8) << self.free;
            if self.free == 0 {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        self.bytes.push(self.current);
        self.free = if self.current == 0xFF { 7 } else { 8 };
        self.current = 0;
    }

    /// The bytes, the last one padded with zeros.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.free < 8 {
            self.flush();
            if self.free == 7 {
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
        let mut reader = BitReader::new(&bytes);
        for &(value, count) in &values {
            assert_eq!(reader.bits(count).unwrap(), value & ((1 << count) - 1));
        }
        assert_eq!(reader.rest(), [0xFF, 0xD9]);
        assert!(reader.bits(16).is_err());
    }
}
