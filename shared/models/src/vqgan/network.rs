//! Encoder, codebook and decoder together.

use hiresmed_imaging::Plane;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor, nn, no_grad};

use super::{
    blocks::{BlockOptions, Initialisation},
    chain::{Chain, Gradients},
    config::Config,
    decoder::Decoder,
    encoder::Encoder,
    quantiser::{Quantised, Quantiser},
    training::LossWeights,
};
use crate::{
    training::{Error, load_named},
    weights::Weights,
};

/// A HiResMed-VQGAN in libtorch.
#[derive(Debug)]
pub struct Network {
    store: nn::VarStore,
    encoder: Encoder,
    pub(super) quantiser: Quantiser,
    decoder: Decoder,
    channels: i64,
}

impl Network {
    /// With fresh weights, always the same, on the CPU and in f32; `initial_deviation` asks for N(0, σ) instead of Kaiming's.
    pub fn new(config: &Config, initial_deviation: Option<f64>) -> Self {
        Self::on(config, Initialisation { deviation: initial_deviation, ..Initialisation::default() }, Device::Cpu)
    }

    pub(super) fn on(config: &Config, init: Initialisation, device: Device) -> Self {
        let store = nn::VarStore::new(device);
        let options = BlockOptions {
            block: config.block,
            squeeze_excitation: config.squeeze_excitation,
            drop_path: config.drop_path,
            init,
        };
        let root = store.root();
        let encoder = Encoder::new(&(&root / "encoder"), config, options);
        let quantiser = Quantiser::new(&(&root / "quantiser"), config, init);
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

    /// Where it is.
    pub(super) fn device(&self) -> Device {
        self.store.device()
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
        no_grad(|| self.quantiser.forward(&self.encoder.forward(images), &NO_LOSS).tokens)
    }

    /// Images `[N, C, H, W]` from tokens `[N, h, w]`, not clamped, without gradient.
    pub fn decode(&self, tokens: &Tensor) -> Tensor {
        no_grad(|| self.decoder.forward(&self.quantiser.embed(tokens)))
    }

    /// An image through encoder, codebook and decoder, all in [-1, 1]; its sides are multiples of the stride.
    ///
    /// # Errors
    /// [`Error::Torch`] where libtorch refuses it.
    pub fn reconstruct(&self, image: &Plane) -> Result<Plane, Error> {
        let shape = [1, 1, image.height() as i64, image.width() as i64];
        let pixels = Tensor::from_slice(image.data()).f_reshape(shape)?.to_device(self.store.device());
        let back = self.decode(&self.encode(&pixels.expand([1, self.channels, shape[2], shape[3]], false)));
        let pixels = back.clamp(-1.0, 1.0).narrow(1, 0, 1).reshape([-1]);
        Ok(Plane::new(image.width(), image.height(), Vec::try_from(&pixels)?))
    }

    /// A training batch `[N, C, H, W]` through the network; `at_once` asks for activations that are made again in the backward
    /// pass, for so many pixels at once; `random` decides what is dropped.
    ///
    /// # Errors
    /// [`Error::Torch`] for another shape.
    pub(super) fn run(
        &self,
        images: &Tensor,
        weights: &LossWeights,
        at_once: Option<usize>,
        random: &mut ChaCha8Rng,
    ) -> Result<Pass<'_>, Error> {
        let size = |x: &Tensor| x.size4().map(|(n, c, h, w)| [n, c, h, w]);
        let device = images.device();
        let encoder = self.encoder.segments(size(images)?, device, random);
        let (encoder, z) = Chain::run(encoder, images, at_once, false);
        let z = z.set_requires_grad(true);
        let quantised = self.quantiser.forward(&z, weights);
        let decoder = self.decoder.segments(size(&quantised.codes)?, device, random);
        let (decoder, y) = Chain::run(decoder, &quantised.codes, at_once, true);
        Ok(Pass { network: self, encoder, z, quantised, decoder, images: y.set_requires_grad(true) })
    }

    /// The same in one graph.
    #[cfg(test)]
    pub(super) fn whole(&self, images: &Tensor, weights: &LossWeights) -> (Tensor, Quantised) {
        let quantised = self.quantiser.forward(&self.encoder.forward(images), weights);
        (self.decoder.forward(&quantised.codes), quantised)
    }

    /// Encoder outputs, quantised, without gradient: to seed the codebook.
    pub(super) fn quantise(&self, images: &Tensor) -> Quantised {
        no_grad(|| self.quantiser.forward(&self.encoder.forward(images), &NO_LOSS))
    }
}

/// A training batch that has gone through the network, and waits for the gradients of its reconstructions.
pub(super) struct Pass<'a> {
    network: &'a Network,
    encoder: Chain<'a>,
    /// Encoder outputs `[N, latent, h, w]`, where the encoder's graph ends.
    z: Tensor,
    pub(super) quantised: Quantised,
    decoder: Chain<'a>,
    /// Reconstructions `[N, C, H, W]`, not clamped, where the decoder's graph ends.
    pub(super) images: Tensor,
}

impl Pass<'_> {
    /// From gradients of the reconstructions, `[N, C, H, W]` each, those of the decoder's last kernel, on which VQGAN balances its
    /// losses.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn of_last_layer<const K: usize>(&self, outwards: [&Tensor; K]) -> Result<[Tensor; K], Error> {
        self.decoder.of_last(self.network.decoder.last_layer(), outwards)
    }

    /// The gradients of `parameters` (the network's trained tensors by name), in their order, from the reconstructions' `outwards`
    /// `[N, C, H, W]` and the quantisation loss times `weight`; and what the codebook saw.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn backward(
        self,
        outwards: Tensor,
        weight: f64,
        parameters: &[(String, Tensor)],
    ) -> Result<(Vec<Tensor>, Quantised), Error> {
        let Self { encoder, z, quantised, decoder, .. } = self;
        let mut gradients = Gradients::new(parameters.len());
        let at_codes = decoder.backward(outwards, parameters, &mut gradients)?.ok_or_else(|| broken("codes"))?;
        let loss = (&quantised.codes * at_codes).sum(Kind::Float) + &quantised.loss * weight;
        let place = parameters.iter().position(|(name, _)| name == "quantiser.codes");
        let place = place.ok_or_else(|| broken("codebook"))?;
        let mut found = Tensor::f_run_backward(&[&loss], &[&parameters[place].1, &z], false, false)?;
        let at_z = found.pop().ok_or_else(|| broken("encoder's outputs"))?;
        found.pop().into_iter().for_each(|gradient| gradients.add(place, gradient));
        encoder.backward(at_z, parameters, &mut gradients)?;
        Ok((gradients.finish(parameters), quantised))
    }
}

fn broken(what: &str) -> Error {
    Error::Torch(tch::TchError::Torch(format!("there is no gradient of the {what}")))
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
