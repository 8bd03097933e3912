//! One small image through a model, to see that it works at all.

use std::collections::BTreeMap;

use crate::onnx::{Dim, Model, Port};
use crate::package::Kind;
use crate::runtime::Runtime;
use crate::session::{Session, SessionOptions};
use crate::tensor::Tensor;

/// Rows and columns where the graph leaves them open: a multiple of every stride in use.
const SIDE: usize = 64;
/// Coarsest noise of a SinGAN where the graph leaves it open, and the growth to the next finer one.
const COARSEST_SIDE: usize = 35;
const GROWTH: usize = 8;

type Graphs<'a> = BTreeMap<String, Vec<u8>>;
type Models<'a> = BTreeMap<&'a str, Model>;

/// What goes wrong when the model is run once; empty where nothing does.
pub(super) fn faults(kind: Kind, graphs: &Graphs<'_>, models: &Models<'_>, runtime: &Runtime) -> Vec<String> {
    let run = Run { graphs, models, runtime };
    let result = match kind {
        Kind::Vqgan | Kind::VqganResidual if graphs.contains_key("encoder") => run.autoencoder(),
        Kind::Vqgan | Kind::VqganResidual => run.same_size("reconstruct"),
        Kind::Unet => run.same_size("segment"),
        Kind::Singan => run.generator(2),
        Kind::SinganWhole => run.generator(1),
        Kind::Yolo => run.detector(),
        Kind::Prior if graphs.contains_key("predict") => run.masked_prior(),
        Kind::Prior => run.autoregressive_prior(),
        Kind::Ddpm => run.denoiser(),
        Kind::Styleswin => run.generator_from_latent(),
        _ => Ok(()),
    };
    result.err().into_iter().collect()
}

struct Run<'a> {
    graphs: &'a Graphs<'a>,
    models: &'a Models<'a>,
    runtime: &'a Runtime,
}

impl Run<'_> {
    fn autoencoder(&self) -> Result<(), String> {
        let x = self.input("encoder", 0, [1, SIDE])?;
        let shape = x.shape().to_vec();
        let tokens = self.first_output("encoder", vec![x])?;
        rank("encoder", &tokens, 3)?;
        let y = self.first_output("decoder", vec![tokens])?;
        equal_shape("decoder", &y, &shape)
    }

    fn same_size(&self, role: &str) -> Result<(), String> {
        let x = self.input(role, 0, [1, SIDE])?;
        let shape = x.shape().to_vec();
        let y = self.first_output(role, vec![x])?;
        equal_shape(role, &y, &shape)
    }

    /// A generator of images of `wanted` channels.
    fn generator(&self, wanted: usize) -> Result<(), String> {
        let count = self.models.get("generate").map_or(0, |model| model.inputs.len());
        let noises: Vec<Tensor> = (0..count)
            .map(|scale| {
                let channels = if scale == 0 { 1 } else { wanted };
                self.input("generate", scale, [channels, COARSEST_SIDE + GROWTH * scale])
            })
            .collect::<Result<_, _>>()?;
        let y = self.first_output("generate", noises)?;
        rank("generate", &y, 4)?;
        match y.shape()[1] {
            channels if channels == wanted => Ok(()),
            channels => {
                let meaning = if wanted == 1 { "a whole image" } else { "image and mask" };
                Err(format!("graph generate: a dry run gave {channels} channels, not {meaning}"))
            }
        }
    }

    fn generator_from_latent(&self) -> Result<(), String> {
        let count = self.models.get("generate").map_or(0, |model| model.inputs.len());
        if !(1..=2).contains(&count) {
            return Err(format!("graph generate: it has {count} inputs, not latent (and truncation)"));
        }
        let mut inputs = Vec::new();
        for index in 0..count {
            let length = if index == 0 { self.size("generate", 0, 1)? } else { 1 };
            let zeros = Tensor::f32([1, length], vec![0.0; length]);
            inputs.push(zeros.map_err(|error| format!("graph generate: {error}"))?);
        }
        let image = self.first_output("generate", inputs)?;
        match *image.shape() {
            [1, 1..=4, height, width] if height > 0 && width > 0 => Ok(()),
            _ => Err(format!("graph generate: one latent gave {:?}, not [1, 1 to 4, H, W]", image.shape())),
        }
    }

    fn detector(&self) -> Result<(), String> {
        let y = self.first_output("detect", vec![self.input("detect", 0, [3, 640])?])?;
        rank("detect", &y, 3)?;
        let shape = y.shape();
        if shape[1] >= 5 || shape[2] == 6 {
            return Ok(());
        }
        Err(format!("graph detect: a dry run gave {shape:?}, which is neither [N, 4 + classes, n] nor [N, n, 6]"))
    }

    fn masked_prior(&self) -> Result<(), String> {
        let [rows, columns] = [1, 2].map(|axis| self.size("predict", 0, axis));
        let (rows, columns) = (rows?, columns?);
        let inputs = vec![zeros("predict", [1, rows, columns])?, zeros("predict", [1, 2])?];
        let logits = self.first_output("predict", inputs)?;
        if let [1, places, codes] = *logits.shape()
            && places == rows * columns
            && codes > 0
        {
            return Ok(());
        }
        Err(format!(
            "graph predict: {columns} x {rows} tokens gave {:?}, not [1, {}, K]",
            logits.shape(),
            rows * columns
        ))
    }

    fn autoregressive_prior(&self) -> Result<(), String> {
        let [layers, heads, width] = [0, 2, 4].map(|axis| self.size("step", 3, axis));
        let none = [layers?, 1, heads?, 0, width?];
        let none = || Tensor::f32(none, Vec::new()).map_err(|error| format!("graph step: {error}"));
        let inputs = vec![zeros("step", [1, 1])?, zeros("step", [1])?, zeros("step", [1, 2])?, none()?, none()?];
        let logits = self.first_output("step", inputs)?;
        match *logits.shape() {
            [1, 1, codes] if codes > 0 => Ok(()),
            _ => Err(format!("graph step: one token gave {:?}, not [1, 1, K]", logits.shape())),
        }
    }

    fn denoiser(&self) -> Result<(), String> {
        let x = self.input("denoise", 0, [1, SIDE])?;
        let shape = x.shape().to_vec();
        let noise = self.first_output("denoise", vec![x, zeros("denoise", [shape[0]])?])?;
        equal_shape("denoise", &noise, &shape)
    }

    /// A size that an input must fix.
    fn size(&self, role: &str, index: usize, axis: usize) -> Result<usize, String> {
        let port = self.models.get(role).and_then(|model| model.inputs.get(index));
        match port.and_then(|port| super::fixed(port, axis)).and_then(|size| usize::try_from(size).ok()) {
            Some(size @ 1..=4096) => Ok(size),
            _ => Err(format!(
                "graph {role}: axis {axis} of its input {index} is not fixed between 1 and 4096; export it so"
            )),
        }
    }

    /// Zeros in the shape of an input, with open dimensions filled in: one image of so many channels and of this side.
    fn input(&self, role: &str, index: usize, open: [usize; 2]) -> Result<Tensor, String> {
        let port = self.models.get(role).and_then(|model| model.inputs.get(index));
        let shape = port.map(|port| input_shape(port, open)).unwrap_or_default();
        let count = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        match count {
            Some(count) if count <= 1 << 26 => {
                Tensor::f32(shape, vec![0.0; count]).map_err(|error| format!("graph {role}: {error}"))
            }
            _ => Err(format!("graph {role}: its declared input shape {shape:?} is too large to be an image")),
        }
    }

    fn first_output(&self, role: &str, inputs: Vec<Tensor>) -> Result<Tensor, String> {
        let failed = |error: crate::session::Error| format!("graph {role}: a dry run failed: {error}");
        let bytes = self.graphs.get(role).ok_or_else(|| format!("graph {role} is missing"))?;
        let options = SessionOptions { arena: false, ..Default::default() };
        let session = Session::open(self.runtime, bytes, &options).map_err(failed)?;
        let names: Vec<String> = session.inputs().iter().map(|port| port.name.clone()).collect();
        let named: Vec<(&str, Tensor)> = names.iter().map(String::as_str).zip(inputs).collect();
        let outputs = session.run(&named).map_err(failed)?;
        outputs.into_iter().next().map(|(_, tensor)| tensor).ok_or_else(|| format!("graph {role} gave no output"))
    }
}

fn zeros(role: &str, shape: impl Into<Vec<usize>>) -> Result<Tensor, String> {
    let shape = shape.into();
    let count = shape.iter().product();
    Tensor::i64(shape, vec![0; count]).map_err(|error| format!("graph {role}: {error}"))
}

fn input_shape(port: &Port, [channels, side]: [usize; 2]) -> Vec<usize> {
    let open = [1, channels, side, side];
    let Some(dims) = &port.shape else { return open.to_vec() };
    let size = |(index, dim): (usize, &Dim)| match dim {
        Dim::Fixed(size) => usize::try_from(*size).unwrap_or(0),
        Dim::Symbol(_) => open.get(index).copied().unwrap_or(1),
    };
    dims.iter().enumerate().map(size).collect()
}

fn rank(role: &str, tensor: &Tensor, expected: usize) -> Result<(), String> {
    let shape = tensor.shape();
    if shape.len() == expected {
        Ok(())
    } else {
        Err(format!("graph {role}: a dry run gave shape {shape:?}, not of rank {expected}"))
    }
}

fn equal_shape(role: &str, found: &Tensor, expected: &[usize]) -> Result<(), String> {
    if found.shape() != expected {
        return Err(format!(
            "graph {role}: an input of shape {expected:?} gave {:?}; channels and size must stay",
            found.shape()
        ));
    }
    Ok(())
}
