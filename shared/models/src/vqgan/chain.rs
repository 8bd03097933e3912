//! A network as a chain of segments, whose activations are kept for the backward pass or made again in it.
//!
//! Made again (gradient checkpointing, Chen et al. 2016, arXiv:1604.06174): of each segment only the input is kept. The backward pass
//! goes from the last segment to the first, runs each once more, and a few images at a time: nothing here averages over a batch, so
//! that an image's gradient does not depend on the others. What is drawn at random is drawn when the segments are made, and is
//! therefore the same both times.

use tch::{Kind, Tensor, no_grad};

use crate::training::Error;

/// A segment that is run again takes so many images at once that they have as many pixels in all, at its finest resolution; one at least.
pub(super) const PIXELS_AT_ONCE: usize = 1 << 20;

/// Images `start` to `start + count` of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub start: i64,
    pub count: i64,
}

impl Part {
    /// The parts of a batch of `batch` images of `pixels` that have `at_once` pixels at most, or are one image; all in one without.
    pub(super) fn all(batch: usize, pixels: usize, at_once: Option<usize>) -> impl Iterator<Item = Self> {
        let most = at_once.map_or(batch, |at_once| at_once / pixels.max(1)).max(1);
        (0..batch).step_by(most).map(move |start| Self { start: start as i64, count: most.min(batch - start) as i64 })
    }

    /// These images of `[N, ..]`, without a copy.
    pub(crate) fn of(self, batch: &Tensor) -> Tensor {
        batch.narrow(0, self.start, self.count)
    }
}

type Forward<'a> = Box<dyn Fn(&Tensor, Part) -> Tensor + 'a>;

/// A part of a network.
pub(crate) struct Segment<'a> {
    /// What the names of its parameters begin with.
    prefixes: Vec<String>,
    /// Pixels of an image at its finest resolution.
    pixels: usize,
    /// `[n, ..]` of the part's images to what the next segment takes.
    forward: Forward<'a>,
}

impl<'a> Segment<'a> {
    pub(crate) fn new(prefixes: &[&str], pixels: usize, forward: impl Fn(&Tensor, Part) -> Tensor + 'a) -> Self {
        let prefixes = prefixes.iter().map(|prefix| format!("{prefix}.")).collect();
        Self { prefixes, pixels, forward: Box::new(forward) }
    }

    /// All of them as one.
    fn joined(segments: Vec<Self>) -> Self {
        let prefixes = segments.iter().flat_map(|segment| segment.prefixes.iter().cloned()).collect();
        let pixels = segments.iter().map(|segment| segment.pixels).max().unwrap_or(1);
        let forward = move |x: &Tensor, part: Part| {
            segments.iter().fold(x.shallow_clone(), |h, segment| (segment.forward)(&h, part))
        };
        Self { prefixes, pixels, forward: Box::new(forward) }
    }

    /// The parameters that are this segment's, with their places.
    fn own<'p>(&self, parameters: &'p [(String, Tensor)]) -> Vec<(usize, &'p Tensor)> {
        let own = |name: &str| self.prefixes.iter().any(|prefix| name.starts_with(prefix));
        let named = parameters.iter().enumerate();
        named.filter(|(_, (name, _))| own(name)).map(|(index, (_, tensor))| (index, tensor)).collect()
    }
}

/// The gradient of each parameter, as far as it is known.
#[derive(Debug)]
pub(crate) struct Gradients(Vec<Option<Tensor>>);

impl Gradients {
    /// None known, of so many.
    pub(crate) fn new(count: usize) -> Self {
        Self((0..count).map(|_| None).collect())
    }

    /// Adds to the gradient at `index`.
    pub(crate) fn add(&mut self, index: usize, gradient: Tensor) {
        match &mut self.0[index] {
            Some(sum) => no_grad(|| drop(sum.g_add_(&gradient))),
            none => *none = Some(gradient),
        }
    }

    /// All of them; zero for a parameter that nothing depended on.
    pub(crate) fn finish(self, parameters: &[(String, Tensor)]) -> Vec<Tensor> {
        let known = self.0.into_iter().zip(parameters);
        known.map(|(gradient, (_, parameter))| gradient.unwrap_or_else(|| parameter.zeros_like())).collect()
    }
}

/// A segment that has been run.
struct Kept<'a> {
    segment: Segment<'a>,
    input: Tensor,
    /// With its graph, where the segment is not run again.
    output: Option<Tensor>,
}

/// A chain that has been run, and waits for the gradient of what it gave.
pub(crate) struct Chain<'a> {
    kept: Vec<Kept<'a>>,
    /// Pixels that a segment takes at once when it is run again.
    at_once: Option<usize>,
    /// Whether the gradient of the chain's input is wanted.
    inwards: bool,
}

impl<'a> Chain<'a> {
    /// Runs `segments` on `x`, `[N, ..]`; the output carries no gradient. `at_once` asks for activations that are made again, for so
    /// many pixels at once; `inwards` for a gradient of `x`.
    pub(crate) fn run(segments: Vec<Segment<'a>>, x: &Tensor, at_once: Option<usize>, inwards: bool) -> (Self, Tensor) {
        let mut h = x.detach();
        if at_once.is_none() {
            let segment = Segment::joined(segments);
            let input = h.set_requires_grad(inwards);
            let output = (segment.forward)(&input, Part { start: 0, count: input.size()[0] });
            let detached = output.detach();
            return (Self { kept: vec![Kept { segment, input, output: Some(output) }], at_once, inwards }, detached);
        }
        let run = |segment: Segment<'a>| {
            let mut whole = Whole::of(&h);
            for part in whole.parts(segment.pixels, at_once) {
                whole.put(part, no_grad(|| (segment.forward)(&part.of(&h), part)));
            }
            let input = std::mem::replace(&mut h, whole.all);
            Kept { segment, input, output: None }
        };
        let kept = segments.into_iter().map(run).collect();
        (Self { kept, at_once, inwards }, h)
    }

    /// From the gradients of the output, `[N, ..]` each, those of `tensor`, a parameter of the last segment.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn of_last<const K: usize>(
        &self,
        tensor: &Tensor,
        outwards: [&Tensor; K],
    ) -> Result<[Tensor; K], Error> {
        let mut sums = [(); K].map(|()| tensor.detach().zeros_like());
        let Some(last) = self.kept.last() else { return Ok(sums) };
        let mut add = |output: &Tensor, outwards: [Tensor; K]| -> Result<(), Error> {
            for (sum, outwards) in sums.iter_mut().zip(outwards) {
                let gradients = Tensor::f_run_backward(&[product(output, &outwards)], &[tensor], true, false)?;
                gradients.iter().for_each(|gradient| drop(sum.g_add_(gradient)));
            }
            Ok(())
        };
        match &last.output {
            Some(output) => add(output, outwards.map(Tensor::shallow_clone))?,
            None => {
                for part in Whole::of(&last.input).parts(last.segment.pixels, self.at_once) {
                    let output = (last.segment.forward)(&part.of(&last.input), part);
                    add(&output, outwards.map(|outwards| part.of(outwards)))?;
                }
            }
        }
        Ok(sums)
    }

    /// From the gradient of the output, `[N, ..]`, those of the parameters, added to `gradients` at their places in `parameters`, and
    /// that of the input where it is wanted.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn backward(
        self,
        outwards: Tensor,
        parameters: &[(String, Tensor)],
        gradients: &mut Gradients,
    ) -> Result<Option<Tensor>, Error> {
        let mut outwards = Some(outwards);
        for (index, kept) in self.kept.into_iter().enumerate().rev() {
            let Some(gradient) = outwards.take() else { break };
            let (own, inwards) = (kept.segment.own(parameters), index > 0 || self.inwards);
            let mut through = |output: &Tensor, input: &Tensor, gradient: &Tensor| -> Result<Option<Tensor>, Error> {
                let mut inputs: Vec<&Tensor> = own.iter().map(|(_, tensor)| *tensor).collect();
                inputs.extend(inwards.then_some(input));
                let mut found = Tensor::f_run_backward(&[product(output, gradient)], &inputs, false, false)?;
                let at_input = if inwards { found.pop() } else { None };
                own.iter().zip(found).for_each(|((place, _), gradient)| gradients.add(*place, gradient));
                Ok(at_input)
            };
            outwards = match &kept.output {
                Some(output) => through(output, &kept.input, &gradient)?,
                None => {
                    let mut whole = Whole::of(&kept.input);
                    for part in whole.parts(kept.segment.pixels, self.at_once) {
                        let input = part.of(&kept.input).detach().set_requires_grad(inwards);
                        let output = (kept.segment.forward)(&input, part);
                        if let Some(found) = through(&output, &input, &part.of(&gradient))? {
                            whole.put(part, found);
                        }
                    }
                    inwards.then_some(whole.all)
                }
            };
        }
        Ok(outwards)
    }
}

/// A scalar whose gradient towards what `output` depends on is that of `output` times `outwards`.
fn product(output: &Tensor, outwards: &Tensor) -> Tensor {
    (output * outwards).sum(Kind::Float)
}

/// A batch that is put together part by part; no more than it and one part is alive at a time.
struct Whole {
    count: i64,
    all: Tensor,
}

impl Whole {
    /// Of as many images as `batch` has.
    fn of(batch: &Tensor) -> Self {
        Self { count: batch.size().first().copied().unwrap_or(0), all: Tensor::new() }
    }

    fn parts(&self, pixels: usize, at_once: Option<usize>) -> impl Iterator<Item = Part> + use<> {
        Part::all(self.count as usize, pixels, at_once)
    }

    fn put(&mut self, part: Part, found: Tensor) {
        if part.count == self.count {
            self.all = found;
            return;
        }
        if part.start == 0 {
            let mut size = found.size();
            size[0] = self.count;
            self.all = found.new_empty(&size, (found.kind(), found.device()));
        }
        no_grad(|| part.of(&self.all).copy_(&found));
    }
}
