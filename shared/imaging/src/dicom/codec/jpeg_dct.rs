//! JPEG of 12 bits, lossy: extended sequential and progressive Huffman coding (ISO/IEC 10918-1, SOF1 and SOF2; DICOM's processes 2 and 4, 6
//! and 8, 10 and 12). One grey component. Written here since no maintained decoder of the language reads 12 bits.

use super::jpeg::MOST_SCANS;

/// Coefficients of a block, in raster order.
type Block = [i32; 64];

/// Raster position of the k-th coefficient of a zigzag (ISO/IEC 10918-1, figure A.6).
const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// Samples of the code stream's one component, `width` x `height`, 0 to 2^`precision` - 1. The caller has read the frame header and holds the
/// size against the object's.
///
/// # Errors
/// A sentence without a full stop: what the stream contradicts, or what it uses that is not read.
pub(super) fn decode(bytes: &[u8], (width, height): (usize, usize), precision: usize) -> Result<Vec<u32>, String> {
    let mut decoder = Decoder {
        bytes,
        position: 2,
        quantisation: [None; 4],
        dc_tables: Default::default(),
        ac_tables: Default::default(),
        restart_interval: 0,
        frame: None,
        blocks: vec![[0; 64]; width.div_ceil(8) * height.div_ceil(8)],
    };
    decoder.read()?;
    decoder.samples((width, height), precision)
}

/// What the frame header says of the component.
#[derive(Debug, Clone, Copy)]
struct Frame {
    progressive: bool,
    component: u8,
    table: usize,
}

/// A canonical Huffman code (annex C), decoded length by length.
#[derive(Debug, Clone, Default)]
struct Huffman {
    /// Of each length 1 to 16: the first code, one past the last, and where its symbols begin.
    lengths: [(u32, u32, usize); 16],
    symbols: Vec<u8>,
}

impl Huffman {
    fn new(counts: &[u8], symbols: &[u8]) -> Result<Self, String> {
        let (mut code, mut at, mut lengths) = (0u32, 0usize, [(0, 0, 0); 16]);
        for (length, &count) in lengths.iter_mut().zip(counts) {
            *length = (code, code + u32::from(count), at);
            at += usize::from(count);
            code = (code + u32::from(count)) << 1;
        }
        let fits = lengths.iter().enumerate().all(|(at, (_, end, _))| *end <= 1 << (at + 1));
        match symbols.get(..at) {
            Some(symbols) if fits => Ok(Self { lengths, symbols: symbols.to_vec() }),
            _ => Err("a Huffman table is impossible".into()),
        }
    }
}

/// Parameters of a scan (B.2.3).
#[derive(Debug, Clone, Copy)]
struct Scan {
    dc: usize,
    ac: usize,
    /// First and last coefficient of the zigzag.
    band: (usize, usize),
    /// Bit position of the approximation before, 0 for none, and after this scan.
    high: u32,
    low: u32,
}

struct Decoder<'a> {
    bytes: &'a [u8],
    position: usize,
    /// By destination, in zigzag order.
    quantisation: [Option<[u16; 64]>; 4],
    dc_tables: [Huffman; 4],
    ac_tables: [Huffman; 4],
    /// Blocks between restart markers; 0 for none.
    restart_interval: usize,
    frame: Option<Frame>,
    blocks: Vec<Block>,
}

impl<'a> Decoder<'a> {
    fn read(&mut self) -> Result<(), String> {
        let mut scans = 0;
        loop {
            let Some(&[prefix, marker]) = self.bytes.get(self.position..).and_then(|rest| rest.first_chunk::<2>())
            else {
                return Err("the code stream is truncated between its segments".into());
            };
            if prefix != 0xFF {
                return Err("a marker segment has the wrong length".into());
            }
            if marker == 0xFF {
                self.position += 1;
                continue;
            }
            self.position += 2;
            match marker {
                0xD9 if scans > 0 => return Ok(()),
                0xD9 => return Err("there is no scan".into()),
                0xD0..=0xD7 => continue,
                _ => {}
            }
            let segment = self.segment()?;
            match marker {
                0xC1 | 0xC2 => self.frame_header(segment, marker == 0xC2)?,
                0xC4 => self.huffman_tables(segment)?,
                0xDB => self.quantisation_tables(segment)?,
                0xDD => match *segment {
                    [high, low] => self.restart_interval = usize::from(u16::from_be_bytes([high, low])),
                    _ => return Err("the restart interval has the wrong length".into()),
                },
                0xDA => {
                    let scan = self.scan_header(segment)?;
                    self.scan(scan)?;
                    scans += 1;
                    // A stream of more scans than bits in a coefficient is made to keep somebody busy.
                    if scans > MOST_SCANS {
                        return Err(format!("there are more than {MOST_SCANS} scans"));
                    }
                }
                0xC0..=0xCF => return Err(format!("12-bit frames of type {marker:02X} are not supported")),
                _ => {}
            }
        }
    }

    /// The content of the segment whose marker was just read.
    fn segment(&mut self) -> Result<&'a [u8], String> {
        let cut = || "a marker segment is cut short".to_owned();
        let head = self.bytes.get(self.position..self.position + 2).ok_or_else(cut)?;
        let length = usize::from(u16::from_be_bytes([head[0], head[1]]));
        let segment = self.bytes.get(self.position + 2..self.position + length).ok_or_else(cut)?;
        self.position += length;
        Ok(segment)
    }

    fn frame_header(&mut self, segment: &[u8], progressive: bool) -> Result<(), String> {
        match *segment {
            [_, _, _, _, _, 1, component, _, table] if table < 4 && self.frame.is_none() => {
                self.frame = Some(Frame { progressive, component, table: usize::from(table) });
                Ok(())
            }
            [_, _, _, _, _, components, ..] if components != 1 => {
                Err(format!("12-bit lossy JPEG of {components} components is not supported"))
            }
            _ => Err("the frame header is impossible".into()),
        }
    }

    fn quantisation_tables(&mut self, mut segment: &[u8]) -> Result<(), String> {
        while let [head, rest @ ..] = segment {
            let (bytes, to) = (usize::from(head >> 4) + 1, usize::from(head & 15));
            let (Some(values), true) = (rest.get(..64 * bytes), bytes <= 2 && to < 4) else {
                return Err("a quantisation table is impossible".into());
            };
            let mut table = [0; 64];
            for (entry, value) in table.iter_mut().zip(values.chunks_exact(bytes)) {
                *entry = value.iter().fold(0, |sum, &byte| sum << 8 | u16::from(byte));
            }
            self.quantisation[to] = Some(table);
            segment = &rest[64 * bytes..];
        }
        Ok(())
    }

    fn huffman_tables(&mut self, mut segment: &[u8]) -> Result<(), String> {
        while let [head, rest @ ..] = segment {
            let (class, to) = (head >> 4, usize::from(head & 15));
            let (Some(counts), true) = (rest.get(..16), class < 2 && to < 4) else {
                return Err("a Huffman table is impossible".into());
            };
            let table = Huffman::new(counts, &rest[16..])?;
            segment = &rest[16 + table.symbols.len()..];
            let tables = if class == 0 { &mut self.dc_tables } else { &mut self.ac_tables };
            tables[to] = table;
        }
        Ok(())
    }

    fn scan_header(&self, segment: &[u8]) -> Result<Scan, String> {
        let frame = self.frame.ok_or("there is a scan before the frame header")?;
        let &[1, component, tables, first, last, approximation] = segment else {
            return Err("a scan header is impossible".into());
        };
        let scan = Scan {
            dc: usize::from(tables >> 4),
            ac: usize::from(tables & 15),
            band: (usize::from(first), usize::from(last)),
            high: u32::from(approximation >> 4),
            low: u32::from(approximation & 15),
        };
        let (first, last) = scan.band;
        // DC and AC coefficients come in scans of their own (G.1.1.1.1), bit by bit after the first. In a sequential frame band and
        // approximation mean nothing, and some writers leave anything there.
        let right = !frame.progressive
            || (first <= last
                && last < 64
                && (first > 0) == (last > 0)
                && scan.low <= 13
                && (scan.high == 0 || scan.high == scan.low + 1));
        if component != frame.component || scan.dc >= 4 || scan.ac >= 4 || !right {
            return Err("a scan header is impossible".into());
        }
        Ok(scan)
    }

    fn scan(&mut self, scan: Scan) -> Result<(), String> {
        let progressive = self.frame.is_some_and(|frame| frame.progressive);
        let mut bits = Bits { bytes: self.bytes, position: self.position, held: 0, count: 0 };
        let (dc, ac) = (&self.dc_tables[scan.dc], &self.ac_tables[scan.ac]);
        let (mut before, mut end_of_band) = (0, 0u32);
        for (index, block) in self.blocks.iter_mut().enumerate() {
            if self.restart_interval > 0 && index > 0 && index % self.restart_interval == 0 {
                bits.restart()?;
                (before, end_of_band) = (0, 0);
            }
            match (progressive, scan.band.0, scan.high) {
                (false, ..) => sequential(&mut bits, block, dc, ac, &mut before)?,
                (true, 0, 0) => {
                    before = i32::wrapping_add(before, bits.difference(dc)?);
                    block[0] = before << scan.low;
                }
                (true, 0, _) => block[0] |= (bits.take(1)? as i32) << scan.low,
                (true, _, 0) => first_band(&mut bits, block, ac, scan, &mut end_of_band)?,
                (true, ..) => refined_band(&mut bits, block, ac, scan, &mut end_of_band)?,
            }
        }
        self.position = bits.end();
        Ok(())
    }

    /// Dequantised, transformed back, brought to the range of the samples (A.3.3), cut to the image.
    fn samples(&self, (width, height): (usize, usize), precision: usize) -> Result<Vec<u32>, String> {
        let table =
            self.frame.and_then(|frame| self.quantisation[frame.table]).ok_or("it has no quantisation table")?;
        let (middle, most) = ((1i64 << (precision - 1)) as f64, ((1i64 << precision) - 1) as f64);
        let basis = basis();
        let across = width.div_ceil(8);
        let mut samples = vec![0; width * height];
        for (index, block) in self.blocks.iter().enumerate() {
            let mut coefficients = [0.0; 64];
            for (k, &place) in ZIGZAG.iter().enumerate() {
                coefficients[place] = f64::from(block[place]) * f64::from(table[k]);
            }
            let pixels = inverse(&coefficients, &basis);
            let (left, top) = (index % across * 8, index / across * 8);
            for y in 0..8.min(height - top) {
                for x in 0..8.min(width - left) {
                    let value = (pixels[y * 8 + x] + middle).round().clamp(0.0, most);
                    samples[(top + y) * width + left + x] = value as u32;
                }
            }
        }
        Ok(samples)
    }
}

/// A block of a sequential scan (F.2.2): as the first of a progression, with all AC coefficients in full, and no band that ends for several
/// blocks.
fn sequential(
    bits: &mut Bits<'_>,
    block: &mut Block,
    dc: &Huffman,
    ac: &Huffman,
    before: &mut i32,
) -> Result<(), String> {
    // What overflows is nonsense in any case.
    *before = before.wrapping_add(bits.difference(dc)?);
    block[0] = *before;
    let all = Scan { dc: 0, ac: 0, band: (1, 63), high: 0, low: 0 };
    first_band(bits, block, ac, all, &mut 0)
}

/// Why a run of zeros cannot be.
const BEYOND: &str = "a run of zeros goes beyond its block";

/// The first scan of a band of AC coefficients (G.1.2.2).
fn first_band(
    bits: &mut Bits<'_>,
    block: &mut Block,
    ac: &Huffman,
    scan: Scan,
    end_of_band: &mut u32,
) -> Result<(), String> {
    if *end_of_band > 0 {
        *end_of_band -= 1;
        return Ok(());
    }
    let mut k = scan.band.0;
    while k <= scan.band.1 {
        let symbol = bits.symbol(ac)?;
        let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if size == 0 {
            if run < 15 {
                *end_of_band = (1 << run) - 1 + bits.take(run as u32)?;
                break;
            }
            k += 16;
            continue;
        }
        k += run;
        if k > scan.band.1 {
            return Err(BEYOND.into());
        }
        block[ZIGZAG[k]] = bits.extended(size)? << scan.low;
        k += 1;
    }
    Ok(())
}

/// One more bit of a band of AC coefficients (G.1.2.3): those that are not zero get it in passing.
fn refined_band(
    bits: &mut Bits<'_>,
    block: &mut Block,
    ac: &Huffman,
    scan: Scan,
    end_of_band: &mut u32,
) -> Result<(), String> {
    let bit = 1 << scan.low;
    let refine = |bits: &mut Bits<'_>, value: &mut i32| -> Result<(), String> {
        if bits.take(1)? == 1 && value.abs() & bit == 0 {
            *value += if *value < 0 { -bit } else { bit };
        }
        Ok(())
    };
    let mut k = scan.band.0;
    if *end_of_band == 0 {
        while k <= scan.band.1 {
            let symbol = bits.symbol(ac)?;
            let (mut run, size) = (symbol >> 4, symbol & 15);
            let new = match size {
                0 if run < 15 => {
                    *end_of_band = (1 << run) + bits.take(u32::from(run))?;
                    break;
                }
                0 => 0,
                1 if bits.take(1)? == 1 => bit,
                1 => -bit,
                _ => return Err("a refined coefficient has more than a bit".into()),
            };
            // `run` zeros are passed over, and the coefficient behind them is new, or for a run of sixteen the last of them.
            while k <= scan.band.1 {
                let value = &mut block[ZIGZAG[k]];
                k += 1;
                if *value != 0 {
                    refine(bits, value)?;
                } else if run == 0 {
                    *value = new;
                    break;
                } else {
                    run -= 1;
                }
            }
        }
    }
    if *end_of_band > 0 {
        for &place in ZIGZAG.get(k..=scan.band.1).unwrap_or_default() {
            if block[place] != 0 {
                refine(bits, &mut block[place])?;
            }
        }
        *end_of_band -= 1;
    }
    Ok(())
}

/// Bits of a scan, without the zeros that are stuffed behind 0xFF (B.1.1.5).
struct Bits<'a> {
    bytes: &'a [u8],
    position: usize,
    held: u32,
    count: u32,
}

impl Bits<'_> {
    fn take(&mut self, count: u32) -> Result<u32, String> {
        while self.count < count {
            let &byte = self.bytes.get(self.position).ok_or(ENDED)?;
            if byte == 0xFF {
                if self.bytes.get(self.position + 1) != Some(&0) {
                    return Err(ENDED.into());
                }
                self.position += 1;
            }
            self.position += 1;
            self.held = self.held << 8 | u32::from(byte);
            self.count += 8;
        }
        self.count -= count;
        Ok(self.held >> self.count & ((1 << count) - 1))
    }

    fn symbol(&mut self, table: &Huffman) -> Result<u8, String> {
        let mut code = 0;
        for &(first, end, at) in &table.lengths {
            code = code << 1 | self.take(1)?;
            if code < end && code >= first {
                return Ok(table.symbols[at + (code - first) as usize]);
            }
        }
        Err("a code is in no Huffman table".into())
    }

    /// A value of `size` bits whose first bit says its sign (F.2.2.1, EXTEND).
    fn extended(&mut self, size: u32) -> Result<i32, String> {
        if size == 0 {
            return Ok(0);
        }
        let value = self.take(size)? as i32;
        Ok(if value < 1 << (size - 1) { value - (1 << size) + 1 } else { value })
    }

    /// The difference to the DC coefficient before.
    fn difference(&mut self, table: &Huffman) -> Result<i32, String> {
        match self.symbol(table)? {
            size @ 0..=15 => self.extended(u32::from(size)),
            size => Err(format!("a difference has {size} bits")),
        }
    }

    /// Passes over a restart marker.
    fn restart(&mut self) -> Result<(), String> {
        (self.held, self.count) = (0, 0);
        while self.bytes.get(self.position) == Some(&0xFF) && self.bytes.get(self.position + 1) == Some(&0xFF) {
            self.position += 1;
        }
        match self.bytes.get(self.position..self.position + 2) {
            Some(&[0xFF, 0xD0..=0xD7]) => self.position += 2,
            _ => return Err("a restart marker is missing".into()),
        }
        Ok(())
    }

    /// Where the scan ends: at the next marker.
    fn end(&self) -> usize {
        self.position
    }
}

/// Why bits run out.
const ENDED: &str = "the code stream is truncated within a scan";

/// c(u) / 2 cos((2 x + 1) u pi / 16) at `[u * 8 + x]` (A.3.3).
fn basis() -> [f64; 64] {
    let value = |u: usize, x: usize| {
        let scale = if u == 0 { 0.5f64.sqrt() } else { 1.0 };
        0.5 * scale * ((2 * x + 1) as f64 * u as f64 * std::f64::consts::PI / 16.0).cos()
    };
    std::array::from_fn(|at| value(at / 8, at % 8))
}

/// The inverse cosine transform, columns and then rows.
fn inverse(coefficients: &[f64; 64], basis: &[f64; 64]) -> [f64; 64] {
    let mut columns = [0.0; 64];
    for v in 0..8 {
        let row = &coefficients[v * 8..v * 8 + 8];
        if row.iter().all(|value| *value == 0.0) {
            continue;
        }
        for y in 0..8 {
            let weight = basis[v * 8 + y];
            for u in 0..8 {
                columns[y * 8 + u] += weight * row[u];
            }
        }
    }
    let mut pixels = [0.0; 64];
    for y in 0..8 {
        for x in 0..8 {
            pixels[y * 8 + x] = (0..8).map(|u| columns[y * 8 + u] * basis[u * 8 + x]).sum();
        }
    }
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: usize = 43;
    const HEIGHT: usize = 29;
    /// One step of quantisation for all coefficients.
    const STEP: i32 = 3;

    fn image() -> Vec<u32> {
        (0..WIDTH * HEIGHT)
            .map(|at| {
                let (x, y) = ((at % WIDTH) as f64, (at / WIDTH) as f64);
                let grain = ((at * 7919) % 101) as f64;
                (2000.0 + 1500.0 * (x / 9.0).sin() * (y / 7.0).cos() + grain) as u32
            })
            .collect()
    }

    /// Quantised coefficients of all blocks; pixels beyond the edge repeat it.
    fn coefficients() -> Vec<Block> {
        let (image, basis) = (image(), basis());
        let mut blocks = Vec::new();
        for top in (0..HEIGHT).step_by(8) {
            for left in (0..WIDTH).step_by(8) {
                let pixel = |x: usize, y: usize| {
                    f64::from(image[(top + y).min(HEIGHT - 1) * WIDTH + (left + x).min(WIDTH - 1)]) - 2048.0
                };
                blocks.push(std::array::from_fn(|at| {
                    let (u, v) = (at % 8, at / 8);
                    let places = (0..64).map(|place| (place % 8, place / 8));
                    let sum: f64 = places.map(|(x, y)| pixel(x, y) * basis[u * 8 + x] * basis[v * 8 + y]).sum();
                    (sum / f64::from(STEP)).round() as i32
                }));
            }
        }
        blocks
    }

    /// A scan's bits: DC symbols in codes of 5, AC symbols in codes of 9 bits.
    #[derive(Default)]
    struct Stream {
        bytes: Vec<u8>,
        held: u64,
        count: u32,
    }

    impl Stream {
        fn put(&mut self, value: u32, count: u32) {
            self.held = self.held << count | u64::from(value) & ((1 << count) - 1);
            self.count += count;
            while self.count >= 8 {
                self.count -= 8;
                let byte = (self.held >> self.count) as u8;
                self.bytes.push(byte);
                if byte == 0xFF {
                    self.bytes.push(0);
                }
            }
        }

        fn align(&mut self) {
            let missing = (8 - self.count % 8) % 8;
            self.put((1 << missing) - 1, missing);
        }

        fn difference(&mut self, value: i32) {
            let size = 32 - value.unsigned_abs().leading_zeros();
            self.put(size, 5);
            self.extended(value, size);
        }

        fn extended(&mut self, value: i32, size: u32) {
            self.put(if value < 0 { value - 1 } else { value } as u32, size);
        }

        /// Coefficients `first` to `last`, each divided by 2^`low` towards zero.
        fn band(&mut self, block: &Block, first: usize, last: usize, low: u32) {
            let mut run = 0;
            for &place in &ZIGZAG[first..=last] {
                let value = block[place].signum() * (block[place].abs() >> low);
                if value == 0 {
                    run += 1;
                    continue;
                }
                while run > 15 {
                    self.put(0xF0, 9);
                    run -= 16;
                }
                let size = 32 - value.unsigned_abs().leading_zeros();
                self.put(run << 4 | size, 9);
                self.extended(value, size);
                run = 0;
            }
            if run > 0 {
                self.put(0, 9);
            }
        }

        /// The last bit of coefficients `first` to `last`.
        fn refined(&mut self, block: &Block, first: usize, last: usize) {
            let new = ZIGZAG[first..=last].iter().rposition(|&place| block[place].abs() == 1).map(|at| first + at);
            let (mut run, mut pending) = (0, Vec::new());
            for (k, &place) in ZIGZAG.iter().enumerate().take(last + 1).skip(first) {
                let value = block[place].abs();
                if value == 0 {
                    run += 1;
                    continue;
                }
                while run > 15 && new.is_some_and(|new| k <= new) {
                    self.put(0xF0, 9);
                    pending.drain(..).for_each(|bit| self.put(bit, 1));
                    run -= 16;
                }
                if value > 1 {
                    pending.push(value as u32 & 1);
                    continue;
                }
                self.put(run << 4 | 1, 9);
                self.put(u32::from(block[place] > 0), 1);
                pending.drain(..).for_each(|bit| self.put(bit, 1));
                run = 0;
            }
            if run > 0 || !pending.is_empty() {
                self.put(0, 9);
                pending.drain(..).for_each(|bit| self.put(bit, 1));
            }
        }
    }

    fn segment(bytes: &mut Vec<u8>, marker: u8, content: &[u8]) {
        bytes.extend([0xFF, marker]);
        bytes.extend((content.len() as u16 + 2).to_be_bytes());
        bytes.extend(content);
    }

    /// Everything before the first scan.
    fn head(frame: u8, interval: u16) -> Vec<u8> {
        let mut bytes = vec![0xFF, 0xD8];
        let table: Vec<u8> = std::iter::once(0x10).chain((0..64).flat_map(|_| (STEP as u16).to_be_bytes())).collect();
        segment(&mut bytes, 0xDB, &table);
        let [h1, h0] = (HEIGHT as u16).to_be_bytes();
        let [w1, w0] = (WIDTH as u16).to_be_bytes();
        segment(&mut bytes, frame, &[12, h1, h0, w1, w0, 1, 1, 0x11, 0]);
        let codes = |class: u8, length: usize, symbols: u16| {
            let mut content = vec![class << 4];
            // 256 codes are too many for a byte: one less, of which no stream makes use.
            content.extend((1..=16).map(|l| if l == length { symbols.min(255) as u8 } else { 0 }));
            content.extend((0..symbols.min(255)).map(|symbol| symbol as u8));
            content
        };
        segment(&mut bytes, 0xC4, &codes(0, 5, 16));
        segment(&mut bytes, 0xC4, &codes(1, 9, 255));
        if interval > 0 {
            segment(&mut bytes, 0xDD, &interval.to_be_bytes());
        }
        bytes
    }

    fn scan(bytes: &mut Vec<u8>, band: (u8, u8), approximation: u8, write: impl FnOnce(&mut Stream)) {
        segment(bytes, 0xDA, &[1, 1, 0, band.0, band.1, approximation]);
        let mut stream = Stream::default();
        write(&mut stream);
        stream.align();
        bytes.extend(stream.bytes);
    }

    fn sequential_file(interval: usize) -> Vec<u8> {
        let mut bytes = head(0xC1, interval as u16);
        scan(&mut bytes, (0, 63), 0, |stream| {
            let mut before = 0;
            for (index, block) in coefficients().iter().enumerate() {
                if interval > 0 && index > 0 && index % interval == 0 {
                    stream.align();
                    stream.bytes.extend([0xFF, 0xD0 + ((index / interval - 1) % 8) as u8]);
                    before = 0;
                }
                stream.difference(block[0] - before);
                before = block[0];
                stream.band(block, 1, 63, 0);
            }
        });
        bytes.extend([0xFF, 0xD9]);
        bytes
    }

    fn progressive_file() -> Vec<u8> {
        let (mut bytes, blocks) = (head(0xC2, 0), coefficients());
        scan(&mut bytes, (0, 0), 0x01, |stream| {
            let mut before = 0;
            for block in &blocks {
                stream.difference((block[0] >> 1) - before);
                before = block[0] >> 1;
            }
        });
        for (first, last) in [(1, 5), (6, 63)] {
            scan(&mut bytes, (first as u8, last as u8), 0x01, |stream| {
                blocks.iter().for_each(|block| stream.band(block, first, last, 1));
            });
        }
        scan(&mut bytes, (0, 0), 0x10, |stream| blocks.iter().for_each(|block| stream.put(block[0] as u32 & 1, 1)));
        scan(&mut bytes, (1, 63), 0x10, |stream| blocks.iter().for_each(|block| stream.refined(block, 1, 63)));
        bytes.extend([0xFF, 0xD9]);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<u32>, String> {
        decode(bytes, (WIDTH, HEIGHT), 12)
    }

    #[test]
    fn twelve_bits_come_back_within_the_step_of_quantisation() {
        let found = read(&sequential_file(0)).unwrap();
        let worst = found.iter().zip(image()).map(|(&a, b)| a.abs_diff(b)).max().unwrap();
        assert!(worst <= 2 * STEP as u32, "{worst}");
        let mean =
            found.iter().zip(image()).map(|(&a, b)| f64::from(a) - f64::from(b)).sum::<f64>() / found.len() as f64;
        assert!(mean.abs() < 0.1, "{mean}");
    }

    #[test]
    fn restarts_and_progression_change_nothing() {
        let plain = read(&sequential_file(0)).unwrap();
        assert_eq!(read(&sequential_file(4)).unwrap(), plain);
        assert_eq!(read(&progressive_file()).unwrap(), plain);
    }

    #[test]
    fn a_stream_that_is_cut_or_damaged_is_refused_or_read_and_never_a_panic() {
        for file in [sequential_file(4), progressive_file()] {
            for end in (2..file.len() - 2).step_by(7) {
                assert!(read(&file[..end]).is_err(), "cut at {end} of {}", file.len());
            }
            for at in (2..file.len()).step_by(3) {
                for bit in [0x01, 0x80, 0xFF] {
                    let mut damaged = file.clone();
                    damaged[at] ^= bit;
                    let _ = read(&damaged);
                }
            }
        }
        assert!(read(&[0xFF, 0xD8, 0xFF, 0xD9]).unwrap_err().contains("no scan"));
    }

    #[test]
    fn the_inverse_of_a_lone_coefficient_is_its_cosine() {
        let basis = basis();
        let mut coefficients = [0.0; 64];
        coefficients[0] = 8.0;
        assert!(inverse(&coefficients, &basis).iter().all(|value| (value - 1.0).abs() < 1e-12));
        (coefficients[0], coefficients[2 * 8 + 3]) = (0.0, 4.0);
        let pixels = inverse(&coefficients, &basis);
        let cosine = |k: f64, at: usize| ((2 * at + 1) as f64 * k * std::f64::consts::PI / 16.0).cos();
        assert!((pixels[5 * 8 + 1] - cosine(3.0, 1) * cosine(2.0, 5)).abs() < 1e-12);
    }
}
