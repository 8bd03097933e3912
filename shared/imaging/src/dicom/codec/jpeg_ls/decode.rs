//! Scans to samples (ISO/IEC 14495-1 annexes A, B and F).

use super::bits::BitReader;
use super::model::{Lines, Model, Neighbours, Parameters, RUN_BITS};

/// How components share a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interleave {
    /// One component a scan.
    None,
    Line,
    Sample,
}

/// Decodes one scan of `components` components of `width x height`, each into its plane.
pub(super) fn scan(
    reader: &mut BitReader,
    parameters: &Parameters,
    interleave: Interleave,
    (width, height): (usize, usize),
    planes: &mut [Vec<u32>],
) -> Result<(), &'static str> {
    let mut decoder = Decoder { reader, parameters, model: Model::new(parameters) };
    let mut lines = vec![Lines::new(width); planes.len()];
    for _ in 0..height {
        lines.iter_mut().for_each(Lines::advance);
        if interleave == Interleave::Sample && planes.len() > 1 {
            decoder.line_by_sample(&mut lines, width)?;
        } else {
            lines.iter_mut().try_for_each(|lines| decoder.line(lines, width))?;
        }
        for (plane, lines) in planes.iter_mut().zip(&lines) {
            plane.extend(lines.current[1..=width].iter().map(|&value| value as u32));
        }
    }
    Ok(())
}

struct Decoder<'a> {
    reader: &'a mut BitReader,
    parameters: &'a Parameters,
    model: Model,
}

impl Decoder<'_> {
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
                lines.run_index = lines.run_index.saturating_sub(1);
                x += 1;
            }
        }
        Ok(())
    }

    /// Decodes from column `x` on until the line's end, or the first sample that begins a run; returns its column.
    ///
    /// Nearly all samples are decoded here: each neighbour is read once.
    #[inline(never)]
    fn regular_samples(&mut self, lines: &mut Lines, x: usize, width: usize) -> Result<usize, &'static str> {
        let mut n = lines.neighbours(x);
        let above = &lines.previous[x + 2..];
        let samples = lines.current[x + 1..=width].iter_mut().zip(above);
        for (at, (sample, &d)) in samples.enumerate() {
            n.d = d;
            let (context, sign) = self.model.regions.context(n);
            if context == 0 {
                return Ok(x + at);
            }
            *sample = self.regular(context, sign, n)?;
            n = Neighbours { a: *sample, b: d, c: n.b, d };
        }
        Ok(width)
    }

    /// All components of a pixel together: a run is one where every component is flat.
    fn line_by_sample(&mut self, lines: &mut [Lines], width: usize) -> Result<(), &'static str> {
        let mut x = 0;
        while x < width {
            let contexts: Vec<_> = lines.iter().map(|lines| self.model.regions.context(lines.neighbours(x))).collect();
            if contexts.iter().any(|(context, _)| *context != 0) {
                for (lines, &(context, sign)) in lines.iter_mut().zip(&contexts) {
                    lines.current[x + 1] = self.regular(context, sign, lines.neighbours(x))?;
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
    fn regular(&mut self, context: usize, sign: i32, neighbours: Neighbours) -> Result<i32, &'static str> {
        let parameters = self.parameters;
        let statistics = &self.model.contexts[context];
        let prediction = (neighbours.predict() + sign * statistics.c).clamp(0, parameters.maximum);
        let inverts = statistics.inverts(parameters);
        let mapped = self.golomb(statistics.k, parameters.limit)?;
        let error = (mapped >> 1) ^ -(mapped & 1);
        let error = if inverts { !error } else { error };
        if error.abs() > parameters.range {
            return Err("a prediction error is out of range");
        }
        self.model.contexts[context].update(error, parameters);
        Ok(parameters.reconstruct(prediction, sign * error))
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
        if error.abs() > parameters.range {
            return Err("a prediction error is out of range");
        }
        self.model.runs[kind].update(error, mapped, parameters);
        let prediction = if kind == 1 { neighbours.a } else { neighbours.b };
        let sign = if kind == 0 && neighbours.a > neighbours.b { -1 } else { 1 };
        Ok(parameters.reconstruct(prediction, sign * error))
    }
}
