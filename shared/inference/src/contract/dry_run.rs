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
        Kind::Vqgan | Kind::VqganResidual => run.same_size("reconstruct", true),
        Kind::Unet => run.same_size("segment", false),
        Kind::Singan => run.generator(),
        Kind::Yolo => run.detector(),
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
        let x = self.image("encoder", SIDE)?;
        let shape = x.shape().to_vec();
        let tokens = self.first_output("encoder", vec![x])?;
        rank("encoder", &tokens, 3)?;
        let y = self.first_output("decoder", vec![tokens])?;
        equal_shape("decoder", &y, &shape, true)
    }

    fn same_size(&self, role: &str, same_channels: bool) -> Result<(), String> {
        let x = self.image(role, SIDE)?;
        let shape = x.shape().to_vec();
        let y = self.first_output(role, vec![x])?;
        equal_shape(role, &y, &shape, same_channels)
    }

    fn generator(&self) -> Result<(), String> {
        let count = self.models.get("generate").map_or(0, |model| model.inputs.len());
        let noises: Vec<Tensor> = (0..count)
            .map(|scale| self.input("generate", scale, COARSEST_SIDE + GROWTH * scale))
            .collect::<Result<_, _>>()?;
        let y = self.first_output("generate", noises)?;
        rank("generate", &y, 4)?;
        match y.shape()[1] {
            2 => Ok(()),
            channels => Err(format!("graph generate: a dry run gave {channels} channels, not image and mask")),
        }
    }

    fn detector(&self) -> Result<(), String> {
        let y = self.first_output("detect", vec![self.image("detect", 640)?])?;
        rank("detect", &y, 3)?;
        let shape = y.shape();
        if shape[1] >= 5 || shape[2] == 6 {
            return Ok(());
        }
        Err(format!("graph detect: a dry run gave {shape:?}, which is neither [N, 4 + classes, n] nor [N, n, 6]"))
    }

    fn image(&self, role: &str, side: usize) -> Result<Tensor, String> {
        self.input(role, 0, side)
    }

    /// Zeros in the shape of an input, with open dimensions filled in: one image, the declared channels or one, `side`.
    fn input(&self, role: &str, index: usize, side: usize) -> Result<Tensor, String> {
        let port = self.models.get(role).and_then(|model| model.inputs.get(index));
        let shape = port.map(|port| input_shape(port, side)).unwrap_or_default();
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

fn input_shape(port: &Port, side: usize) -> Vec<usize> {
    let open = [1, 1, side, side];
    let Some(dims) = &port.shape else { return open.to_vec() };
    let size = |(index, dim): (usize, &Dim)| match dim {
        Dim::Fixed(size) => usize::try_from(*size).unwrap_or(0),
        // An open number of channels is a detector's three or a grey image's one; the caller's side tells them apart.
        Dim::Symbol(_) if index == 1 && side >= 640 => 3,
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

fn equal_shape(role: &str, found: &Tensor, expected: &[usize], same_channels: bool) -> Result<(), String> {
    rank(role, found, expected.len())?;
    let differs = |index: &usize| (same_channels || *index != 1) && found.shape()[*index] != expected[*index];
    if (0..expected.len()).any(|index| differs(&index)) {
        return Err(format!(
            "graph {role}: an input of shape {expected:?} gave {:?}; the size must stay",
            found.shape()
        ));
    }
    Ok(())
}
