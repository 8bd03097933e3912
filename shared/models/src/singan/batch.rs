//! One training step of models side by side (equation 13): WGAN-GP and reconstruction, each model's losses its own.
//!
//! Convolutions run in as many groups as there are models; everything else is by pixel, by channel or by model. Each model draws its
//! own noise from its own streams, so it learns what it learns alone. What is not bit-equal to that: a convolution in groups may add
//! its products in another order than one alone, and training carries such differences of rounding on.

use super::learner::{Learner, Scale};
use super::network::{Stack, forward, generate, gradient_penalty, resize};
use crate::training::{Adam, Error, Figure, device, on_device};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

/// Steps learners that are alike, each by one iteration, and gives each one's figures. A learner that is complete has none and stays
/// as it is. Where a learner's losses stop being numbers it alone ends.
pub(super) fn step(learners: &mut [&mut Learner]) -> Vec<Result<Vec<Figure>, Error>> {
    let (mut scales, mut rngs, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for learner in learners.iter_mut() {
        let Some(scale) = learner.scale.take() else { continue };
        rngs.push(learner.random.generator(learner.steps, "singan step"));
        rates.push(learner.rate(&scale));
        scales.push(scale);
    }
    // Alike learners are complete together.
    let Some(first) = learners.first().filter(|_| scales.len() == learners.len()) else {
        return learners.iter().map(|_| Ok(Vec::new())).collect();
    };
    let (critic_steps, generator_steps) = (first.training.critic_steps, first.training.generator_steps);
    let group: Vec<&Learner> = learners.iter().map(|learner| &**learner).collect();
    let real: Vec<Tensor> = group.iter().map(|learner| learner.real[learner.index()].shallow_clone()).collect();
    let mut batch = Batch { real: side_by_side(real), group, scales: &mut scales, rngs, rates };
    let nothing = || Tensor::zeros([batch.group.len() as i64], (Kind::Float, device()));
    let (mut critic, mut generator) = ((nothing(), nothing()), (nothing(), nothing()));
    for _ in 0..critic_steps {
        critic = batch.critic_step();
    }
    for _ in 0..generator_steps {
        generator = batch.generator_step();
    }
    let figures = [
        ("wasserstein", critic.0),
        ("penalty", critic.1),
        ("adversarial", generator.0),
        ("reconstruction", generator.1),
    ];
    let ended = learners.iter_mut().zip(scales).enumerate();
    ended
        .map(|(at, (learner, scale))| {
            let of_model = |tensor: &Tensor| tensor.double_value(&[at as i64]);
            learner.stepped(scale, figures.each_ref().map(|(name, values)| (*name, of_model(values))))
        })
        .collect()
}

/// Learners that are alike, `g` of them, their scales under way taken out.
struct Batch<'a> {
    group: Vec<&'a Learner>,
    scales: &'a mut [Scale],
    rngs: Vec<ChaCha8Rng>,
    /// Each one's learning rate.
    rates: Vec<f64>,
    /// `f32 [1, c g, h, w]`.
    real: Tensor,
}

impl Batch<'_> {
    /// One critic step; gives (critic loss without penalty, penalty), `f32 [g]` each.
    fn critic_step(&mut self) -> (Tensor, Tensor) {
        let (noise, previous) = self.fresh_input();
        let generators: Vec<&Stack> = self.scales.iter().map(|scale| &scale.generator).collect();
        let fake = tch::no_grad(|| generate(&generators, &noise, &previous));
        let critics: Vec<&Stack> = self.scales.iter().map(|scale| &scale.critic).collect();
        let wasserstein = scores(&critics, &fake) - scores(&critics, &self.real);
        let channels = self.group[0].config.channels;
        let shares =
            self.rngs.iter_mut().flat_map(|rng| std::iter::repeat_n(rand::RngExt::random::<f32>(rng), channels));
        let share = on_device(&shares.collect::<Vec<f32>>()).reshape([1, -1, 1, 1]);
        let between = &self.real * &share + &fake * (1.0 - &share);
        let penalty = gradient_penalty(&critics, &between);
        let loss = (&wasserstein + &penalty * self.group[0].training.penalty).sum(Kind::Float);
        descend(self.scales.iter_mut().map(|scale| &mut scale.critic_adam).collect(), &self.rates, &loss);
        (wasserstein.detach(), penalty.detach())
    }

    /// One generator step on a fresh fake; gives (adversarial loss, reconstruction's mean squared error), `f32 [g]` each.
    fn generator_step(&mut self) -> (Tensor, Tensor) {
        let (noise, previous) = self.fresh_input();
        let settings = &self.group[0].training;
        let fresh = settings.fresh_reconstruction && self.group[0].index() == 0;
        let streams = self.group.iter().zip(&mut self.rngs).zip(self.scales.iter());
        let rebuild = streams.map(
            |((learner, rng), scale)| {
                if fresh { learner.noise_map(rng, 0) } else { scale.noise.shallow_clone() }
            },
        );
        let rebuild = side_by_side(rebuild.collect());
        let below = side_by_side(self.scales.iter().map(|scale| scale.previous.shallow_clone()).collect());
        let generators: Vec<&Stack> = self.scales.iter().map(|scale| &scale.generator).collect();
        let critics: Vec<&Stack> = self.scales.iter().map(|scale| &scale.critic).collect();
        let adversarial = -scores(&critics, &generate(&generators, &noise, &previous));
        let rebuilt = generate(&generators, &rebuild, &below);
        let error = (rebuilt - &self.real).square().reshape([self.group.len() as i64, -1]);
        let error = error.mean_dim([1i64].as_slice(), false, Kind::Float);
        let loss = (&adversarial + &error * settings.reconstruction).sum(Kind::Float);
        descend(self.scales.iter_mut().map(|scale| &mut scale.generator_adam).collect(), &self.rates, &loss);
        (adversarial.detach(), error.detach())
    }

    /// Inputs of the scale under way from fresh noise: this scale's own noise, and the frozen scales' up-sampled samples, `f32
    /// [1, c g, h, w]` each.
    fn fresh_input(&mut self) -> (Tensor, Tensor) {
        let mut previous = Tensor::zeros_like(&self.real);
        for scale in 0..self.group[0].index() {
            let noise = self.noise(scale);
            if scale == 0 {
                previous = noise.zeros_like();
            }
            let generators: Vec<&Stack> = self.group.iter().map(|learner| &learner.finished[scale]).collect();
            let output = tch::no_grad(|| generate(&generators, &noise, &previous));
            previous = resize(&output, self.group[0].config.sizes[scale + 1]);
        }
        (self.noise(self.group[0].index()), previous)
    }

    /// Every model's noise of `scale`, multiplied by its amplitude.
    fn noise(&mut self, scale: usize) -> Tensor {
        let streams = self.group.iter().zip(&mut self.rngs);
        side_by_side(streams.map(|(learner, rng)| learner.fresh_noise(rng, scale)).collect())
    }
}

/// Each critic's mean over its image, `f32 [g]`.
fn scores(critics: &[&Stack], image: &Tensor) -> Tensor {
    forward(critics, image).mean_dim([0i64, 2, 3].as_slice(), false, Kind::Float)
}

/// The models' tensors as channels of one.
fn side_by_side(mut tensors: Vec<Tensor>) -> Tensor {
    match tensors.len() {
        1 => tensors.remove(0),
        _ => Tensor::cat(&tensors, 1),
    }
}

/// One step down `loss` over the optimisers' parameters only, each at its own rate.
fn descend(adams: Vec<&mut Adam>, rates: &[f64], loss: &Tensor) {
    let parameters: Vec<&Tensor> = adams.iter().flat_map(|adam| adam.parameters()).collect();
    let gradients = Tensor::run_backward(&[loss], &parameters, false, false);
    let mut rest = gradients.as_slice();
    for (adam, rate) in adams.into_iter().zip(rates) {
        let (own, others) = rest.split_at(adam.parameters().len());
        adam.step(own, *rate, None);
        rest = others;
    }
}
