//! How much noise each step has, and the steps back from noise to an image.

/// The noise levels of a diffusion, by time: 0 is nearly an image, the last one nearly noise.
///
/// At time t an image x is √ᾱ x + √(1 - ᾱ) ε with ε of N(0, 1); ᾱ is the product of 1 - β up to t (Ho et al. 2020, equation 4).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Schedule {
    betas: Vec<f64>,
    /// ᾱ.
    kept: Vec<f64>,
}

impl Schedule {
    /// `times` levels, β linear from the first to the last of `beta`.
    pub fn linear(times: usize, beta: (f64, f64)) -> Self {
        let span = times.saturating_sub(1).max(1) as f64;
        let betas: Vec<f64> = (0..times).map(|time| beta.0 + (beta.1 - beta.0) * time as f64 / span).collect();
        let kept = betas.iter().scan(1.0, |kept, beta| {
            *kept *= 1.0 - beta;
            Some(*kept)
        });
        Self { kept: kept.collect(), betas }
    }

    /// Number of levels.
    pub fn times(&self) -> usize {
        self.betas.len()
    }

    /// ᾱ of a time; 1, an image, before the first.
    fn kept(&self, time: Option<usize>) -> f64 {
        time.and_then(|time| self.kept.get(time)).copied().unwrap_or(1.0)
    }

    /// The shares of image and noise at a time, √ᾱ and √(1 - ᾱ).
    pub fn shares(&self, time: usize) -> (f64, f64) {
        let kept = self.kept(Some(time));
        (kept.sqrt(), (1.0 - kept).sqrt())
    }

    /// The times of a sampling in `steps` equal strides, from the last time down; all times where there are as many steps.
    pub fn descent(&self, steps: usize) -> Vec<usize> {
        let steps = steps.clamp(1, self.times().max(1));
        (1..=steps).rev().map(|step| (step * self.times() / steps).saturating_sub(1)).collect()
    }

    /// The image in `x` at `time`, where `noise` is what the network takes for its noise; limited to [-1, 1].
    fn image(&self, x: f32, noise: f32, time: usize) -> f64 {
        let (of_image, of_noise) = self.shares(time);
        ((f64::from(x) - of_noise * f64::from(noise)) / of_image).clamp(-1.0, 1.0)
    }

    /// `x` at `time` brought to the earlier time `to`, to an image where there is none, without fresh noise (Song et al. 2021,
    /// equation 12 with η = 0). The noise is that which is left when the image is limited.
    pub fn stride(&self, x: &mut [f32], noise: &[f32], time: usize, to: Option<usize>) {
        let (of_image, of_noise) = self.shares(time);
        let kept = self.kept(to);
        for (x, noise) in x.iter_mut().zip(noise) {
            let image = self.image(*x, *noise, time);
            let noise = (f64::from(*x) - of_image * image) / of_noise;
            *x = (kept.sqrt() * image + (1.0 - kept).sqrt() * noise) as f32;
        }
    }

    /// `x` at `time` brought to the time before it, with `fresh` noise of N(0, 1): a draw from the posterior given the image in `x`
    /// (Ho et al. 2020, equations 6 and 7). The first time has no variance left: its result is the image.
    pub fn ancestral(&self, x: &mut [f32], noise: &[f32], fresh: &[f32], time: usize) {
        let (kept, before) = (self.kept(Some(time)), self.kept(time.checked_sub(1)));
        let beta = self.betas.get(time).copied().unwrap_or(0.0);
        let of_image = before.sqrt() * beta / (1.0 - kept);
        let of_x = (1.0 - beta).sqrt() * (1.0 - before) / (1.0 - kept);
        let deviation = ((1.0 - before) / (1.0 - kept) * beta).sqrt();
        for ((x, noise), fresh) in x.iter_mut().zip(noise).zip(fresh) {
            let image = self.image(*x, *noise, time);
            *x = (of_image * image + of_x * f64::from(*x) + deviation * f64::from(*fresh)) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
    }

    #[test]
    fn the_levels_by_hand() {
        // β 0.1, 0.2, 0.3: ᾱ 0.9, 0.72, 0.504.
        let schedule = Schedule::linear(3, (0.1, 0.3));
        for (time, kept) in [0.9, 0.72, 0.504].into_iter().enumerate() {
            near(schedule.kept(Some(time)), kept);
        }
        near(schedule.kept(None), 1.0);
        // The published schedule ends in nearly nothing but noise: exp of the sum of ln(1 - β), about -10.1.
        let published = Schedule::linear(1000, (1e-4, 0.02));
        near(published.kept(Some(0)), 0.9999);
        let last = published.kept(Some(999));
        assert!((4.0e-5..4.1e-5).contains(&last), "{last}");
    }

    #[test]
    fn strides_end_at_the_first_time_and_begin_at_the_last() {
        let schedule = Schedule::linear(10, (0.1, 0.2));
        assert_eq!(schedule.descent(10), [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
        assert_eq!(schedule.descent(5), [9, 7, 5, 3, 1]);
        assert_eq!(schedule.descent(4), [9, 6, 4, 1]);
        assert_eq!(schedule.descent(1), [9]);
    }

    #[test]
    fn a_stride_by_hand() {
        let schedule = Schedule::linear(3, (0.1, 0.3));
        // Image 0.5, noise -1 at the last time: x = √0.504 · 0.5 - √0.496; at the first √0.9 · 0.5 - √0.1.
        let mut x = [(0.504f64.sqrt() * 0.5 - 0.496f64.sqrt()) as f32];
        schedule.stride(&mut x, &[-1.0], 2, Some(0));
        near(f64::from(x[0]), 0.9f64.sqrt() * 0.5 - 0.1f64.sqrt());
        schedule.stride(&mut x, &[-1.0], 0, None);
        near(f64::from(x[0]), 0.5);
        // An image beyond 1 is 1, and what is over is noise: x = 2 at ᾱ 0.9, noise 0.
        let mut x = [2.0];
        schedule.stride(&mut x, &[0.0], 0, None);
        near(f64::from(x[0]), 1.0);
    }

    #[test]
    fn an_ancestral_step_by_hand() {
        let schedule = Schedule::linear(3, (0.1, 0.3));
        // Image 0.5, noise -1 at time 1: x = √0.72 · 0.5 - √0.28. The posterior's mean is (√0.9 · 0.2 / 0.28) · 0.5 + (√0.8 · 0.1 / 0.28) x,
        // its variance 0.1 / 0.28 · 0.2.
        let start = 0.72f64.sqrt() * 0.5 - 0.28f64.sqrt();
        let mut x = [start as f32];
        schedule.ancestral(&mut x, &[-1.0], &[2.0], 1);
        let mean = 0.9f64.sqrt() * 0.2 / 0.28 * 0.5 + 0.8f64.sqrt() * 0.1 / 0.28 * start;
        near(f64::from(x[0]), mean + 2.0 * (0.1f64 / 0.28 * 0.2).sqrt());
        // The last step is the image, whatever noise is at hand.
        let mut x = [(0.9f64.sqrt() * 0.5 - 0.1f64.sqrt()) as f32];
        schedule.ancestral(&mut x, &[-1.0], &[5.0], 0);
        near(f64::from(x[0]), 0.5);
    }
}
