//! Scans to samples (ISO/IEC 14495-1 annexes A, B and F).

use super::bits::BitReader;
use super::model::{Lines, Model, Neighbours, Parameters, RUN_BITS, Regions, context, signed};

/// How components share a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interleave {
    /// One component a scan.
    None,
    Line,
    Sample,
}

/// One scan of `components` components of `width x height`, each of which goes into its plane.
pub(super) struct Scan<'a> {
    pub reader: BitReader<'a>,
    pub parameters: &'a Parameters,
    pub interleave: Interleave,
    pub size: (usize, usize),
    pub planes: &'a mut [Vec<u32>],
}

impl Scan<'_> {
    /// Decodes it; says whether a lossless coder with these parameters writes the same bits for the same samples. No other is told so.
    pub(super) fn decode(self) -> Result<bool, &'static str> {
        // With what the processor has for shifts and counting zeros, found at run time; the samples are the same.
        pulp::Arch::new().dispatch(self)
    }

    #[inline(always)]
    fn lines<const PLAIN: bool>(self) -> Result<bool, &'static str> {
        let Self { reader, parameters, interleave, size: (width, height), planes } = self;
        let (model, regions) = (Model::new(parameters), Regions::new(parameters));
        let mut decoder = Decoder::<PLAIN> { reader, parameters, model, regions, as_coded: true };
        let mut lines = vec![Lines::new(width); planes.len()];
        for _ in 0..height {
            lines.iter_mut().for_each(Lines::advance);
            if interleave == Interleave::Sample && planes.len() > 1 {
                decoder.line_by_sample(&mut lines, width)?;
            } else {
                for lines in &mut lines {
                    decoder.line(lines, width)?;
                }
            }
            for (plane, lines) in planes.iter_mut().zip(&lines) {
                plane.extend(lines.current[1..=width].iter().map(|&value| value as u32));
            }
        }
        Ok(PLAIN && planes.len() == 1 && decoder.as_coded && decoder.reader.is_as_written())
    }
}

impl pulp::WithSimd for Scan<'_> {
    type Output = Result<bool, &'static str>;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> Self::Output {
        if self.parameters.is_plain() { self.lines::<true>() } else { self.lines::<false>() }
    }
}

/// A decoder; `PLAIN` where the parameters are, which spares much.
struct Decoder<'a, const PLAIN: bool> {
    reader: BitReader<'a>,
    parameters: &'a Parameters,
    model: Model,
    regions: Regions,
    /// Whether errors and runs so far are those that a coder writes, not others that give the same samples.
    as_coded: bool,
}

impl<const PLAIN: bool> Decoder<'_, PLAIN> {
    #[inline(always)]
    fn line(&mut self, lines: &mut Lines, width: usize) -> Result<(), &'static str> {
        let mut x = 0;
        while x < width {
            x = self.regular_samples(lines, x, width)?;
            if x == width {
                break;
            }
            let neighbours = lines.neighbours(x);
            let run = self.run(&mut lines.run_index, width - x)?;
            let value = neighbours.a;
            lines.current[x + 1..x + 1 + run].fill(value);
            x += run;
            if x < width {
                let neighbours = lines.neighbours(x);
                let kind = usize::from((neighbours.a - neighbours.b).abs() <= self.parameters.near);
                lines.current[x + 1] = self.run_end(kind, neighbours, lines.run_index)?;
                // Else it would have been of the run.
                self.as_coded &= lines.current[x + 1] != value;
                lines.run_index = lines.run_index.saturating_sub(1);
                x += 1;
            }
        }
        Ok(())
    }

    /// Decodes from column `x` on until the line's end, or the first sample that begins a run; returns its column.
    ///
    /// Nearly all samples are decoded here: each neighbour is read once.
    #[inline(always)]
    fn regular_samples(&mut self, lines: &mut Lines, x: usize, width: usize) -> Result<usize, &'static str> {
        let mut n = lines.neighbours(x);
        let mut left = self.regions.of(n.b - n.c);
        let above = &lines.previous[x + 2..];
        let samples = lines.current[x + 1..=width].iter_mut().zip(above);
        for (at, (sample, &d)) in samples.enumerate() {
            n.d = d;
            let right = self.regions.of(d - n.b);
            let context = context(right, left, self.regions.of(n.c - n.a));
            if context == 0 {
                return Ok(x + at);
            }
            *sample = self.regular(context, n)?;
            n = Neighbours { a: *sample, b: d, c: n.b, d };
            left = right;
        }
        Ok(width)
    }

    fn context(&self, n: Neighbours) -> i32 {
        context(self.regions.of(n.d - n.b), self.regions.of(n.b - n.c), self.regions.of(n.c - n.a))
    }

    /// All components of a pixel together: a run is one where every component is flat.
    fn line_by_sample(&mut self, lines: &mut [Lines], width: usize) -> Result<(), &'static str> {
        let mut x = 0;
        while x < width {
            let contexts: Vec<_> = lines.iter().map(|lines| self.context(lines.neighbours(x))).collect();
            if contexts.iter().any(|context| *context != 0) {
                for (lines, &context) in lines.iter_mut().zip(&contexts) {
                    lines.current[x + 1] = self.regular(context, lines.neighbours(x))?;
                }
                x += 1;
                continue;
            }
            let mut run_index = lines[0].run_index;
            let run = self.run(&mut run_index, width - x)?;
            for lines in lines.iter_mut() {
                let value = lines.current[x];
                lines.current[x + 1..x + 1 + run].fill(value);
            }
            x += run;
            if x < width {
                for lines in lines.iter_mut() {
                    lines.current[x + 1] = self.run_end(0, lines.neighbours(x), run_index)?;
                }
                run_index = run_index.saturating_sub(1);
                x += 1;
            }
            lines[0].run_index = run_index;
        }
        Ok(())
    }

    #[inline(always)]
    fn golomb(&mut self, k: u32, limit: u32) -> Result<i32, &'static str> {
        let escape_bits = self.parameters.error_bits;
        Ok(self.reader.golomb(k, limit.saturating_sub(escape_bits + 1), escape_bits)? as i32)
    }

    #[inline(always)]
    fn regular(&mut self, context: i32, neighbours: Neighbours) -> Result<i32, &'static str> {
        let &Parameters { maximum, near, reset, limit, .. } = self.parameters;
        let near = if PLAIN { 0 } else { near };
        let sign = context >> 31;
        let statistics = self.model.contexts[signed(context, sign) as usize];
        let prediction = (neighbours.predict() + signed(statistics.c.into(), sign)).max(0).min(maximum);
        let mapped = self.golomb(statistics.k.into(), limit)?;
        let error = (mapped >> 1) ^ -(mapped & 1) ^ statistics.inversion(near);
        self.check(error)?;
        self.model.contexts[signed(context, sign) as usize].update(error, near, reset);
        Ok(self.reconstruct(prediction, signed(error, sign)))
    }

    #[inline(always)]
    fn reconstruct(&self, prediction: i32, error: i32) -> i32 {
        // The samples of plain parameters go round a power of two.
        if PLAIN {
            (prediction + error) & self.parameters.maximum
        } else {
            self.parameters.reconstruct(prediction, error)
        }
    }

    #[inline(always)]
    fn check(&mut self, error: i32) -> Result<(), &'static str> {
        let range = self.parameters.range;
        if (error - self.parameters.least_error()) as u32 >= range as u32 {
            self.as_coded = false;
            if error.abs() > range {
                return Err("a prediction error is out of range");
            }
        }
        Ok(())
    }

    /// The length of a run of at most `most` samples (A.7.1).
    fn run(&mut self, run_index: &mut usize, most: usize) -> Result<usize, &'static str> {
        let mut run = 0;
        while self.reader.bits(1)? == 1 {
            let length = 1usize << RUN_BITS[*run_index];
            if run + length <= most {
                *run_index = (*run_index + 1).min(31);
            }
            run = (run + length).min(most);
            if run == most {
                return Ok(run);
            }
        }
        run += self.reader.bits(RUN_BITS[*run_index])? as usize;
        if run >= most { Err("a run leaves its line") } else { Ok(run) }
    }

    fn run_end(&mut self, kind: usize, neighbours: Neighbours, run_index: usize) -> Result<i32, &'static str> {
        let parameters = self.parameters;
        let k = self.model.runs[kind].golomb();
        let mapped = self.golomb(k, parameters.limit - RUN_BITS[run_index] - 1)?;
        let error = self.model.runs[kind].unmap(mapped, k);
        self.check(error)?;
        self.as_coded &= self.model.runs[kind].map(error, k) == mapped;
        self.model.runs[kind].update(error, mapped, parameters);
        let prediction = if kind == 1 { neighbours.a } else { neighbours.b };
        let sign = if kind == 0 && neighbours.a > neighbours.b { -1 } else { 1 };
        Ok(self.reconstruct(prediction, sign * error))
    }
}
