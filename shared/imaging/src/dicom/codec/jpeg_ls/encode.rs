//! Grey samples to a lossless code stream (ISO/IEC 14495-1 annexes A and C).

use super::bits::BitWriter;
use super::model::{Lines, Model, Neighbours, Parameters, RUN_BITS, context, region};

/// `samples`, row-major, `width x height`, each below `2^bits`, as a complete lossless JPEG-LS code stream.
///
/// `bits` is 2 to 16; sides are 1 to 65,535.
pub(in crate::dicom) fn encode(samples: &[u16], width: u16, height: u16, bits: u32) -> Vec<u8> {
    // With what the processor has for vectors, shifts and counting zeros, found at run time; the bits are the same.
    let writer = pulp::Arch::new().dispatch(Samples { samples, width: usize::from(width), bits });
    stream(width, height, bits, &writer.finish())
}

/// The code stream of a scan as [`encode`] writes it: these markers and no others.
pub(in crate::dicom) fn stream(width: u16, height: u16, bits: u32, scan: &[u8]) -> Vec<u8> {
    let mut stream = Vec::with_capacity(scan.len() + 32);
    stream.extend([0xFF, 0xD8, 0xFF, 0xF7, 0, 11, bits as u8]);
    stream.extend(height.to_be_bytes());
    stream.extend(width.to_be_bytes());
    stream.extend([1, 1, 0x11, 0, 0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 0, 0]);
    stream.extend(scan);
    stream.extend([0xFF, 0xD9]);
    stream
}

/// Samples to be coded.
struct Samples<'a> {
    samples: &'a [u16],
    width: usize,
    bits: u32,
}

impl pulp::WithSimd for Samples<'_> {
    type Output = BitWriter;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> BitWriter {
        let parameters = Parameters::new((1i32 << self.bits) - 1, 0);
        let (model, foretold) = (Model::new(&parameters), Foretold::new(self.width));
        let mut encoder = Encoder { writer: BitWriter::new(), model, parameters, bits: self.bits, foretold };
        let mut lines = Lines::new(self.width);
        for row in self.samples.chunks_exact(self.width.max(1)) {
            lines.advance();
            lines.current[1..=row.len()].iter_mut().zip(row).for_each(|(to, &from)| *to = i32::from(from));
            encoder.foretold.line(&lines, &encoder.parameters);
            encoder.line(&mut lines);
        }
        encoder.writer
    }
}

/// A line's samples as their neighbours alone foretell them: all are known before the first one is coded. Where a context is another one's
/// mirror image, so are prediction and sample.
#[derive(Debug, Default)]
struct Foretold {
    contexts: Vec<i32>,
    predictions: Vec<i32>,
    samples: Vec<i32>,
}

impl Foretold {
    fn new(width: usize) -> Self {
        Self { contexts: vec![0; width], predictions: vec![0; width], samples: vec![0; width] }
    }

    #[inline(always)]
    fn line(&mut self, lines: &Lines, parameters: &Parameters) {
        let &Parameters { maximum, thresholds, .. } = parameters;
        let width = self.contexts.len();
        let (above, current) = (&lines.previous[..width + 2], &lines.current[..width + 1]);
        let (contexts, predictions) = (&mut self.contexts[..width], &mut self.predictions[..width]);
        let samples = &mut self.samples[..width];
        for x in 0..width {
            let n = Neighbours { a: current[x], b: above[x + 1], c: above[x], d: above[x + 2] };
            let (right, left) = (region(n.d - n.b, 0, thresholds), region(n.b - n.c, 0, thresholds));
            let context = context(right, left, region(n.c - n.a, 0, thresholds));
            let mirror = |value: i32| if context < 0 { maximum - value } else { value };
            contexts[x] = context.abs();
            predictions[x] = mirror(n.predict());
            samples[x] = mirror(current[x + 1]);
        }
    }
}

struct Encoder {
    writer: BitWriter,
    parameters: Parameters,
    model: Model,
    /// Of a sample.
    bits: u32,
    /// Of the current line.
    foretold: Foretold,
}

impl Encoder {
    #[inline(always)]
    fn line(&mut self, lines: &mut Lines) {
        let width = self.foretold.contexts.len();
        // No code word is longer than the limit, and a run has a bit for each of its samples and a few more at most.
        self.writer.reserve((width + 1) * (self.parameters.limit as usize + 1));
        let mut x = 0;
        while x < width {
            x = self.regular_samples(x);
            if x == width {
                break;
            }
            let value = lines.current[x];
            let run = lines.current[x + 1..=width].iter().take_while(|&&next| next == value).count();
            x += run;
            self.run(&mut lines.run_index, run, x == width);
            if x < width {
                self.run_end(lines.neighbours(x), lines.current[x + 1], lines.run_index);
                lines.run_index = lines.run_index.saturating_sub(1);
                x += 1;
            }
        }
    }

    /// Codes from column `x` on until the line's end, or the first sample that begins a run; returns its column.
    #[inline(always)]
    fn regular_samples(&mut self, x: usize) -> usize {
        let &mut Self { ref mut writer, ref mut model, ref parameters, bits, ref foretold } = self;
        let &Parameters { maximum, reset, limit, error_bits, .. } = parameters;
        let (bytes, end) = writer.parts();
        let (mut at, mut column) = (*end, x);
        let samples = foretold.contexts[x..].iter().zip(&foretold.predictions[x..]).zip(&foretold.samples[x..]);
        for ((&context, &prediction), &sample) in samples {
            if context == 0 {
                break;
            }
            let statistics = &mut model.contexts[context as usize];
            let prediction = (prediction + i32::from(statistics.c)).max(0).min(maximum);
            // Errors are counted modulo 2^bits (A.4.5).
            let error = (sample - prediction) << (32 - bits) >> (32 - bits);
            let coded = error ^ statistics.inversion(0);
            let mapped = (coded << 1) ^ (coded >> 31);
            at = at.golomb(bytes, mapped as u32, statistics.k.into(), limit, error_bits);
            statistics.update(error, 0, reset);
            column += 1;
        }
        *end = at;
        column
    }

    fn run(&mut self, run_index: &mut usize, mut run: usize, to_line_end: bool) {
        while run >= 1 << RUN_BITS[*run_index] {
            self.writer.bits(1, 1);
            run -= 1 << RUN_BITS[*run_index];
            *run_index = (*run_index + 1).min(31);
        }
        if !to_line_end {
            self.writer.bits(0, 1);
            self.writer.bits(run as u64, RUN_BITS[*run_index]);
        } else if run > 0 {
            self.writer.bits(1, 1);
        }
    }

    fn run_end(&mut self, neighbours: Neighbours, value: i32, run_index: usize) {
        let kind = usize::from(neighbours.a == neighbours.b);
        let prediction = if kind == 1 { neighbours.a } else { neighbours.b };
        let sign = if kind == 0 && neighbours.a > neighbours.b { -1 } else { 1 };
        let error = (sign * (value - prediction)) << (32 - self.bits) >> (32 - self.bits);
        let k = self.model.runs[kind].golomb();
        let mapped = self.model.runs[kind].map(error, k);
        let (limit, error_bits) = (self.parameters.limit - RUN_BITS[run_index] - 1, self.parameters.error_bits);
        let (bytes, end) = self.writer.parts();
        *end = end.golomb(bytes, mapped as u32, k, limit, error_bits);
        self.model.runs[kind].update(error, mapped, &self.parameters);
    }
}
