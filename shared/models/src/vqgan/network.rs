//! Encoder, codebook and decoder together.

use hiresmed_imaging::Plane;
use tch::{Device, Tensor, nn, no_grad};

use super::{
    blocks::{BlockOptions, Initialisation},
    config::{Config, LossWeights},
    decoder::Decoder,
    encoder::Encoder,
    quantiser::{Quantised, Quantiser},
};
use crate::{
    training::{Error, load_named},
    weights::Weights,
};

/// A HiResMed-VQGAN in libtorch, on the CPU.
#[derive(Debug)]
pub struct Network {
    store: nn::VarStore,
    encoder: Encoder,
    pub(super) quantiser: Quantiser,
    decoder: Decoder,
    channels: i64,
}

impl Network {
    /// With fresh weights (drawn from libtorch's generator); `initial_deviation` asks for N(0, σ) instead of Kaiming's.
    pub fn new(config: &Config, initial_deviation: Option<f64>) -> Self {
        let store = nn::VarStore::new(Device::Cpu);
        let options = BlockOptions {
            block: config.block,
            squeeze_excitation: config.squeeze_excitation,
            drop_path: config.drop_path,
            init: Initialisation(initial_deviation),
        };
        let root = store.root();
        let encoder = Encoder::new(&(&root / "encoder"), config, options);
        let quantiser = Quantiser::new(&(&root / "quantiser"), config);
        let decoder = Decoder::new(&(&root / "decoder"), config, options);
        Self { store, encoder, quantiser, decoder, channels: config.channels as i64 }
    }

    /// With the weights of a package or a checkpoint.
    ///
    /// # Errors
    /// A mismatch listing every tensor that is missing or has another shape.
    pub fn load(config: &Config, weights: &Weights) -> Result<Self, Error> {
        let network = Self::new(config, None);
        load_named(network.trainable(), weights, "")?;
        Ok(network)
    }

    /// Every tensor by name, sorted, the codes' ages included.
    pub fn variables(&self) -> Vec<(String, Tensor)> {
        let mut named: Vec<_> = self.store.variables().into_iter().collect();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        named
    }

    /// The trained tensors by name, sorted.
    pub fn trainable(&self) -> Vec<(String, Tensor)> {
        self.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad()).collect()
    }

    /// Tokens `[N, H / stride, W / stride]` (i64) of images `[N, C, H, W]`, without gradient.
    pub fn encode(&self, images: &Tensor) -> Tensor {
        no_grad(|| self.quantiser.forward(&self.encoder.forward(images, false), &NO_LOSS).tokens)
    }

    /// Images `[N, C, H, W]` from tokens `[N, h, w]`, not clamped, without gradient.
    pub fn decode(&self, tokens: &Tensor) -> Tensor {
        no_grad(|| self.decoder.forward(&self.quantiser.embed(tokens), false))
    }

    /// An image through encoder, codebook and decoder, all in [-1, 1]; its sides are multiples of the stride.
    ///
    /// # Errors
    /// [`Error::Torch`] where libtorch refuses it.
    pub fn reconstruct(&self, image: &Plane) -> Result<Plane, Error> {
        let shape = [1, 1, image.height() as i64, image.width() as i64];
        let pixels = Tensor::from_slice(image.data()).f_reshape(shape)?;
        let back = self.decode(&self.encode(&pixels.expand([1, self.channels, shape[2], shape[3]], false)));
        let pixels = back.clamp(-1.0, 1.0).narrow(1, 0, 1).reshape([-1]);
        Ok(Plane::new(image.width(), image.height(), Vec::try_from(&pixels)?))
    }

    pub(super) fn forward(&self, images: &Tensor, weights: &LossWeights) -> (Tensor, Quantised) {
        let quantised = self.quantiser.forward(&self.encoder.forward(images, true), weights);
        (self.decoder.forward(&quantised.codes, true), quantised)
    }

    /// Encoder outputs, quantised, without gradient: to seed the codebook.
    pub(super) fn quantise(&self, images: &Tensor) -> Quantised {
        no_grad(|| self.quantiser.forward(&self.encoder.forward(images, true), &NO_LOSS))
    }

    pub(super) fn last_layer(&self) -> &Tensor {
        self.decoder.last_layer()
    }
}

const NO_LOSS: LossWeights = LossWeights {
    absolute: 0.0,
    squared: 0.0,
    quantisation: 0.0,
    commitment: 0.0,
    codebook: 0.0,
    perceptual: 0.0,
    adversarial: 0.0,
};
