//! Between libtorch's tensors and checkpoints, and the randomness of a step.

use std::sync::OnceLock;

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor, kind::Element, no_grad};

use super::Error;
use crate::weights::{self, Array, Weights};

/// Where networks are trained: on the first CUDA device where libtorch has one, else on the CPU. Tests compare with numbers of the
/// CPU's.
pub fn device() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    if cfg!(test) { Device::Cpu } else { *DEVICE.get_or_init(Device::cuda_if_available) }
}

/// `values` as a tensor of one axis, where networks are trained.
pub fn on_device<T: Element>(values: &[T]) -> Tensor {
    Tensor::from_slice(values).to_device(device())
}

/// A weight of a convolution with its channels side by side in memory: the convolution then keeps all that follows so, which is the
/// faster layout on the CPU and on a GPU's matrix units. Values and shape are the same.
pub(crate) fn channels_last(weight: &Tensor) -> Tensor {
    weight.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// The elements of `tensor` (any kind, converted to f32).
///
/// # Errors
/// When libtorch cannot copy them.
pub fn array(tensor: &Tensor) -> Result<Array, Error> {
    let shape = tensor.size().iter().map(|&size| size as usize).collect();
    let flat = tensor.detach().to_kind(Kind::Float).to_device(Device::Cpu).contiguous().reshape([-1]);
    let mut data = vec![0f32; flat.numel()];
    let count = data.len();
    flat.f_copy_data(&mut data, count)?;
    Ok(Array { shape, data })
}

/// `array` as a tensor on the CPU.
pub fn tensor(array: &Array) -> Tensor {
    let shape: Vec<i64> = array.shape.iter().map(|&size| size as i64).collect();
    Tensor::from_slice(&array.data).reshape(shape)
}

/// Puts named tensors into `weights`, each name after `prefix`.
///
/// # Errors
/// When a tensor cannot be read back.
pub fn keep_named(named: &[(String, Tensor)], weights: &mut Weights, prefix: &str) -> Result<(), Error> {
    for (name, tensor) in named {
        weights.tensors.insert(format!("{prefix}{name}"), array(tensor)?);
    }
    Ok(())
}

/// Copies tensors of `weights` (each name after `prefix`) into `named`, in place.
///
/// # Errors
/// [`weights::Error::Mismatch`] listing every missing tensor and every wrong shape.
pub fn load_named(named: Vec<(String, Tensor)>, weights: &Weights, prefix: &str) -> Result<(), Error> {
    let mut faults = Vec::new();
    for (name, mut target) in named {
        match weights.tensors.get(&format!("{prefix}{name}")) {
            None => faults.push(format!("{prefix}{name} is missing")),
            Some(found) => {
                let source = tensor(found);
                if source.size() == target.size() {
                    no_grad(|| target.copy_(&source));
                } else {
                    faults.push(format!("{prefix}{name} is {:?}, expected {:?}", source.size(), target.size()));
                }
            }
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(weights::Error::Mismatch { faults }.into()) }
}

/// The randomness of a training: every draw is keyed by (seed, step, purpose), so that nothing but the step's number
/// needs to be kept to go on.
#[derive(Debug, Clone, Copy)]
pub struct Randomness {
    seed: u64,
}

impl Randomness {
    /// From the training's seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    fn key(self, step: u64, purpose: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"hiresmed training");
        hash.update(self.seed.to_le_bytes());
        hash.update(step.to_le_bytes());
        hash.update(purpose.as_bytes());
        hash.finalize().into()
    }

    /// A generator for `purpose` in `step`.
    pub fn generator(self, step: u64, purpose: &str) -> ChaCha8Rng {
        ChaCha8Rng::from_seed(self.key(step, purpose))
    }
}
