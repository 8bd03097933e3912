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
    reader: &mut BitReader<'_>,
    parameters: &Parameters,
    interleave: Interleave,
    (width, height): (usize, usize),
    planes: &mut [Vec<u32>],
) -> Result<(), String> {
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

struct Decoder<'r, 'b, 'p> {
    reader: &'r mut BitReader<'b>,
    parameters: &'p Parameters,
    model: Model,
}

impl Decoder<'_, '_, '_> {
    fn line(&mut self, lines: &mut Lines, width: usize) -> Result<(), String> {
        let mut x = 0;
        while x < width {
            let neighbours = lines.neighbours(x);
            let (context, sign) = self.parameters.context(neighbours);
            if context != 0 {
                lines.current[x + 1] = self.regular(context, sign, neighbours)?;
                x += 1;
                continue;
            }
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

    /// All components of a pixel together: a run is one where every component is flat.
    fn line_by_sample(&mut self, lines: &mut [Lines], width: usize) -> Result<(), String> {
        let mut x = 0;
        while x < width {
            let contexts: Vec<_> = lines.iter().map(|lines| self.parameters.context(lines.neighbours(x))).collect();
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

    fn golomb(&mut self, k: u32, limit: u32) -> Result<i32, String> {
        let most = limit.saturating_sub(self.parameters.error_bits + 1);
        let zeros = self.reader.zeros(most)?;
        if zeros < most {
            return Ok(((zeros << k) | self.reader.bits(k)?) as i32);
        }
        Ok(self.reader.bits(self.parameters.error_bits)? as i32 + 1)
    }

    fn regular(&mut self, context: usize, sign: i32, neighbours: Neighbours) -> Result<i32, String> {
        let parameters = self.parameters;
        let statistics = &self.model.contexts[context];
        let prediction = (neighbours.predict() + sign * statistics.c).clamp(0, parameters.maximum);
        let k = statistics.golomb();
        let inverts = statistics.inverts(k, parameters);
        let mapped = self.golomb(k, parameters.limit)?;
        let error = if mapped & 1 == 0 { mapped >> 1 } else { -(mapped >> 1) - 1 };
        let error = if inverts { !error } else { error };
        if error.abs() > parameters.range {
            return Err("a prediction error is out of range".into());
        }
        self.model.contexts[context].update(error, parameters);
        Ok(parameters.reconstruct(prediction, sign * error))
    }

    /// The length of a run of at most `most` samples (A.7.1).
    fn run(&mut self, run_index: &mut usize, most: usize) -> Result<usize, String> {
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
        if run >= most { Err("a run leaves its line".into()) } else { Ok(run) }
    }

    fn run_end(&mut self, kind: usize, neighbours: Neighbours, run_index: usize) -> Result<i32, String> {
        let parameters = self.parameters;
        let k = self.model.runs[kind].golomb();
        let mapped = self.golomb(k, parameters.limit - RUN_BITS[run_index] - 1)?;
        let error = self.model.runs[kind].unmap(mapped, k);
        if error.abs() > parameters.range {
            return Err("a prediction error is out of range".into());
        }
        self.model.runs[kind].update(error, mapped, parameters);
        let prediction = if kind == 1 { neighbours.a } else { neighbours.b };
        let sign = if kind == 0 && neighbours.a > neighbours.b { -1 } else { 1 };
        Ok(parameters.reconstruct(prediction, sign * error))
    }
}
