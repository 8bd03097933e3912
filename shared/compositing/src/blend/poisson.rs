//! Gradient-domain blending (Pérez, Gangnet and Blake, 2003), screened so that a lesion keeps its own density.
//!
//! Inside the mask we look for f with the lesion's gradients and the background's values along the edge. Plain Poisson blending
//! lets the edge's offset fill the whole lesion and washes its density out, so f is also held to the lesion g by a weight λ:
//! minimise Σ |∇f − ∇g|² + λ Σ (f − g)². With e = f − g that is (L + λ) e = boundary terms, where e is the background minus
//! the lesion outside the mask: the offset at the edge fades within 1/√λ pixels towards the inside.

use std::collections::HashMap;

use hiresmed_imaging::Plane;

use super::Error;
use crate::layer::Layer;

/// Pull towards the lesion's own values, per pixel²; the edge's offset falls to 1/e in 2 pixels.
const SCREENING: f64 = 0.25;
/// Relative residual at which the solver stops: far below one step of 16 bit.
const TOLERANCE: f64 = 1e-8;
/// Most steps; a well-posed system of n pixels needs far fewer than n.
const MAX_ITERATIONS: usize = 2_000;

/// The composite; the blended region is the mask itself.
pub(super) fn composite(background: &Plane, layer: &Layer) -> Result<Plane, Error> {
    let system = System::new(background, layer);
    let offset = system.solve()?;
    let mut composite = background.clone();
    for (&at, offset) in system.pixels.iter().zip(offset) {
        let value = f64::from(layer.lesion.data()[at]) + offset;
        composite.data_mut()[at] = value.clamp(-1.0, 1.0) as f32;
    }
    Ok(composite)
}

/// (L + λ) e = b over the mask's pixels: symmetric and positive definite.
struct System {
    pixels: Vec<usize>,
    /// Unknowns beside each unknown.
    neighbours: Vec<Vec<usize>>,
    /// Number of neighbours inside the image plus λ.
    diagonal: Vec<f64>,
    right: Vec<f64>,
}

impl System {
    fn new(background: &Plane, layer: &Layer) -> Self {
        let (width, height) = (background.width(), background.height());
        let pixels: Vec<usize> = (0..width * height).filter(|&at| layer.mask.data()[at] != 0).collect();
        let unknowns: HashMap<usize, usize> = pixels.iter().enumerate().map(|(index, &at)| (at, index)).collect();
        let mut system = Self { neighbours: Vec::new(), diagonal: Vec::new(), right: Vec::new(), pixels: Vec::new() };
        for &at in &pixels {
            let (x, y) = (at % width, at / width);
            // Beyond the image's border nothing is known: those neighbours take no part.
            let around = [
                (x > 0).then(|| at - 1),
                (x + 1 < width).then(|| at + 1),
                (y > 0).then(|| at - width),
                (y + 1 < height).then(|| at + width),
            ];
            let mut neighbours = Vec::with_capacity(4);
            let (mut count, mut right) = (0.0, 0.0);
            for near in around.into_iter().flatten() {
                count += 1.0;
                match unknowns.get(&near) {
                    Some(&index) => neighbours.push(index),
                    None => right += f64::from(background.data()[near]) - f64::from(layer.lesion.data()[near]),
                }
            }
            system.neighbours.push(neighbours);
            system.diagonal.push(count + SCREENING);
            system.right.push(right);
        }
        system.pixels = pixels;
        system
    }

    fn apply(&self, x: &[f64]) -> Vec<f64> {
        let row = |index: usize| {
            let around: f64 = self.neighbours[index].iter().map(|&near| x[near]).sum();
            self.diagonal[index] * x[index] - around
        };
        (0..x.len()).map(row).collect()
    }

    /// Conjugate gradients from zero.
    fn solve(&self) -> Result<Vec<f64>, Error> {
        let mut solution = vec![0.0; self.pixels.len()];
        let mut residual = self.right.clone();
        let mut direction = residual.clone();
        let mut square = dot(&residual, &residual);
        let target = square * TOLERANCE * TOLERANCE;
        let scale = square.sqrt();
        for _ in 0..MAX_ITERATIONS {
            if square <= target {
                return Ok(solution);
            }
            let image = self.apply(&direction);
            let step = square / dot(&direction, &image);
            for index in 0..solution.len() {
                solution[index] += step * direction[index];
                residual[index] -= step * image[index];
            }
            let next = dot(&residual, &residual);
            for index in 0..solution.len() {
                direction[index] = residual[index] + next / square * direction[index];
            }
            square = next;
        }
        Err(Error::Diverged { residual: square.sqrt() / scale, iterations: MAX_ITERATIONS })
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
