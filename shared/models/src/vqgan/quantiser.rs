//! The codebook: nearest code by cosine distance, straight-through gradient, seeding of dead codes.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Reduction, Tensor, nn, no_grad};

use super::{blocks::Initialisation, config::Config, training::LossWeights};

/// Codes on the unit sphere, scaled by `sqrt(latent)` where they leave it, so that the decoder sees unit variance.
#[derive(Debug)]
pub(crate) struct Quantiser {
    codes: Tensor,
    /// Steps since each code was last used, `[codes]`.
    ages: Tensor,
    scale: f64,
    count: i64,
}

/// What quantising a batch gives.
#[derive(Debug)]
pub(crate) struct Quantised {
    /// Codes for the decoder with the encoder's gradient, `[N, latent, h, w]`.
    pub codes: Tensor,
    /// `alpha * commitment + gamma * codebook`, a scalar.
    pub loss: Tensor,
    /// Index of each token's code, `[N, h, w]`, 64-bit integers.
    pub tokens: Tensor,
    /// Unit encoder outputs, `[N * h * w, latent]`, detached.
    outputs: Tensor,
}

impl Quantised {
    /// So many random unit encoder outputs, `[count, latent]`.
    fn some(&self, count: i64, random: &mut ChaCha8Rng) -> Tensor {
        let all = self.outputs.size().first().copied().unwrap_or(0).max(1);
        let picks: Vec<i64> = (0..count).map(|_| random.random_range(0..all)).collect();
        self.outputs.index_select(0, &Tensor::from_slice(&picks).to_device(self.outputs.device()))
    }
}

/// How a batch used the codebook.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Exponential of the entropy of the tokens' distribution: the effective number of codes.
    pub perplexity: f64,
    /// Share of codes used within the last `dead_after` steps.
    pub live_share: f64,
    /// Codes seeded anew after this step.
    pub reseeded: i64,
}

fn unit(x: &Tensor) -> Tensor {
    // The floor is part of the exported graph too: a zero vector has no direction.
    x / x.square().sum_dim_intlist(&[1i64][..], true, Kind::Float).sqrt().clamp_min(1e-12)
}

impl Quantiser {
    pub(crate) fn new(path: &nn::Path, config: &Config, init: Initialisation) -> Self {
        let (count, latent) = (config.codes as i64, config.latent as i64);
        Self {
            codes: init.normal(path, "codes", &[count, latent], 1.0),
            ages: path.zeros_no_train("ages", &[count]),
            scale: (latent as f64).sqrt(),
            count,
        }
    }

    /// Quantises encoder outputs `[N, latent, h, w]`.
    pub(crate) fn forward(&self, z: &Tensor, weights: &LossWeights) -> Quantised {
        let size = z.size();
        let (n, d, h, w) = (size[0], size[1], size[2], size[3]);
        let x = unit(&z.permute([0, 2, 3, 1]).reshape([-1, d]));
        let codes = unit(&self.codes);
        let index = no_grad(|| x.matmul(&codes.tr()).argmax(1, false));
        let q = Tensor::embedding(&codes, &index, -1, false, false) * self.scale;
        let outputs = x.detach();
        let x = x * self.scale;
        let commitment = x.mse_loss(&q.detach(), Reduction::Mean);
        let codebook = q.mse_loss(&x.detach(), Reduction::Mean);
        let y = &x + (&q - &x).detach();
        Quantised {
            codes: y.reshape([n, h, w, d]).permute([0, 3, 1, 2]).contiguous(),
            loss: commitment * weights.commitment + codebook * weights.codebook,
            tokens: index.reshape([n, h, w]),
            outputs,
        }
    }

    /// Codes `[N, latent, h, w]` of tokens `[N, h, w]`, as the decoder takes them.
    pub(crate) fn embed(&self, tokens: &Tensor) -> Tensor {
        let codes = unit(&self.codes) * self.scale;
        Tensor::embedding(&codes, tokens, -1, false, false).permute([0, 3, 1, 2]).contiguous()
    }

    /// Records which codes a training batch used and seeds those unused for more than `dead_after` steps from random
    /// encoder outputs of the batch. Called after the optimiser's step; returns the usage and the seeded codes' indices
    /// (their moments must be cleared).
    pub(crate) fn reseed(
        &mut self,
        batch: &Quantised,
        dead_after: u64,
        random: &mut ChaCha8Rng,
    ) -> (Usage, Option<Tensor>) {
        no_grad(|| {
            let index = batch.tokens.reshape([-1]);
            let counts = index.bincount(None::<Tensor>, self.count).to_kind(Kind::Float);
            let unused = counts.le(0.5).to_kind(Kind::Float);
            let ages = (&self.ages + 1.0) * unused;
            self.ages.copy_(&ages);
            let share = &counts / counts.sum(Kind::Float);
            let entropy = -(&share * share.clamp_min(1e-12).log()).sum(Kind::Double).double_value(&[]);
            let dead = self.ages.gt(dead_after as f64).nonzero().reshape([-1]);
            let reseeded = dead.size()[0];
            let live_share = 1.0 - reseeded as f64 / self.count as f64;
            let usage = Usage { perplexity: entropy.exp(), live_share, reseeded };
            if reseeded == 0 {
                return (usage, None);
            }
            // Codes live on the sphere: scaled to the norm of a fresh code so that all move alike under the optimiser.
            let seeds = batch.some(reseeded, random) * self.scale;
            let _ = self.codes.index_copy_(0, &dead, &seeds);
            let _ = self.ages.index_fill_(0, &dead, 0.0);
            (usage, Some(dead))
        })
    }

    /// Sets every code to a random encoder output of the batch: the start of training.
    pub(crate) fn seed_all(&mut self, batch: &Quantised, random: &mut ChaCha8Rng) {
        no_grad(|| {
            let seeds = batch.some(self.count, random) * self.scale;
            self.codes.copy_(&seeds);
        });
    }
}
