//! Grey samples to a lossless code stream (ISO/IEC 14495-1 annexes A and C).

use super::bits::BitWriter;
use super::model::{Lines, Model, Neighbours, Parameters, RUN_BITS};

/// `samples`, row-major, `width x height`, each below `2^bits`, as a complete lossless JPEG-LS code stream.
///
/// `bits` is 2 to 16; sides are 1 to 65,535.
pub(in crate::dicom) fn encode(samples: &[u16], width: u16, height: u16, bits: u32) -> Vec<u8> {
    let parameters = Parameters::new((1i32 << bits) - 1, 0);
    let mut header = vec![0xFF, 0xD8, 0xFF, 0xF7, 0, 11, bits as u8];
    header.extend(height.to_be_bytes());
    header.extend(width.to_be_bytes());
    header.extend([1, 1, 0x11, 0, 0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 0, 0]);
    let mut encoder = Encoder { writer: BitWriter::new(header), model: Model::new(&parameters), parameters };
    let mut lines = Lines::new(usize::from(width));
    for row in samples.chunks_exact(usize::from(width).max(1)) {
        lines.advance();
        lines.current[1..=row.len()].iter_mut().zip(row).for_each(|(to, &from)| *to = i32::from(from));
        encoder.line(&mut lines, row.len());
    }
    let mut bytes = encoder.writer.finish();
    bytes.extend([0xFF, 0xD9]);
    bytes
}

struct Encoder {
    writer: BitWriter,
    parameters: Parameters,
    model: Model,
}

impl Encoder {
    fn line(&mut self, lines: &mut Lines, width: usize) {
        let mut x = 0;
        while x < width {
            let neighbours = lines.neighbours(x);
            let (context, sign) = self.model.regions.context(neighbours);
            if context != 0 {
                self.regular(context, sign, neighbours, lines.current[x + 1]);
                x += 1;
                continue;
            }
            let run = lines.current[x + 1..=width].iter().take_while(|&&value| value == neighbours.a).count();
            x += run;
            self.run(&mut lines.run_index, run, x == width);
            if x < width {
                self.run_end(lines.neighbours(x), lines.current[x + 1], lines.run_index);
                lines.run_index = lines.run_index.saturating_sub(1);
                x += 1;
            }
        }
    }

    fn golomb(&mut self, mapped: i32, k: u32, limit: u32) {
        let (mapped, most) = (mapped as u32, limit - self.parameters.error_bits - 1);
        let high = mapped >> k;
        // Nearly always the zeros, the one and the bits behind it fit into one word.
        if high < most && high + 1 + k <= 32 {
            self.writer.bits(1 << k | mapped & ((1 << k) - 1), high + 1 + k);
        } else if high < most {
            self.writer.unary(high);
            self.writer.bits(mapped, k);
        } else {
            self.writer.unary(most);
            self.writer.bits(mapped - 1, self.parameters.error_bits);
        }
    }

    fn regular(&mut self, context: usize, sign: i32, neighbours: Neighbours, value: i32) {
        let statistics = &self.model.contexts[context];
        let prediction = (neighbours.predict() + sign * statistics.c).clamp(0, self.parameters.maximum);
        let error = self.parameters.reduce(sign * (value - prediction));
        let k = statistics.k;
        let signed = if statistics.inverts(&self.parameters) { !error } else { error };
        let mapped = if signed >= 0 { 2 * signed } else { -2 * signed - 1 };
        self.golomb(mapped, k, self.parameters.limit);
        self.model.contexts[context].update(error, &self.parameters);
    }

    fn run(&mut self, run_index: &mut usize, mut run: usize, to_line_end: bool) {
        while run >= 1 << RUN_BITS[*run_index] {
            self.writer.bits(1, 1);
            run -= 1 << RUN_BITS[*run_index];
            *run_index = (*run_index + 1).min(31);
        }
        if !to_line_end {
            self.writer.bits(0, 1);
            self.writer.bits(run as u32, RUN_BITS[*run_index]);
        } else if run > 0 {
            self.writer.bits(1, 1);
        }
    }

    fn run_end(&mut self, neighbours: Neighbours, value: i32, run_index: usize) {
        let kind = usize::from(neighbours.a == neighbours.b);
        let prediction = if kind == 1 { neighbours.a } else { neighbours.b };
        let sign = if kind == 0 && neighbours.a > neighbours.b { -1 } else { 1 };
        let error = self.parameters.reduce(sign * (value - prediction));
        let k = self.model.runs[kind].golomb();
        let mapped = self.model.runs[kind].map(error, k);
        self.golomb(mapped, k, self.parameters.limit - RUN_BITS[run_index] - 1);
        self.model.runs[kind].update(error, mapped, &self.parameters);
    }
}
