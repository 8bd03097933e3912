//! A package of HiResMed-VQGAN from a training checkpoint.

use hiresmed_imaging::Window;
use hiresmed_inference::package::{self, Draft, Kind, TrainingData};

use super::{Block, Config, export};
use crate::{
    training::{Error, Naming, Product},
    weights::Weights,
};

/// Encoder and decoder with the running average of the weights.
pub(crate) fn product(checkpoint: &Weights, naming: &Naming) -> Result<Product, Error> {
    let value = |key: &str| checkpoint.metadata.get(key).ok_or_else(|| Error::Parent(format!("it has no {key}")));
    let config: Config = serde_json::from_str(value("configuration")?)
        .map_err(|error| Error::Parent(format!("its configuration: {error}")))?;
    let weights = checkpoint.under("average.");
    let graphs = export(&config, &weights).map_err(|error| Error::Export(error.to_string()))?;
    let kind = match config.block {
        Block::Hdfb | Block::HdfbLight => Kind::Vqgan,
        Block::Residual => Kind::VqganResidual,
    };
    let window = Window::LUNG_CT;
    let mut draft = Draft::new(kind, &naming.name, &naming.licence);
    draft.configuration = serde_json::to_value(&config).map_err(|error| Error::Export(error.to_string()))?;
    draft.window = Some(package::Window { low: window.low, high: window.high });
    draft.training_data = vec![TrainingData {
        name: naming.data.clone(),
        digest: value("data")?.clone(),
        licence: naming.data_licence.clone(),
    }];
    draft.parameters = weights.parameters() as u64;
    draft.graphs = [("encoder", "encoder.onnx"), ("decoder", "decoder.onnx")]
        .map(|(role, file)| (role.into(), file.into()))
        .into();
    // The decoder and the encoder each hold the codebook; the one-graph form would hold everything twice.
    let files = vec![("encoder.onnx".to_owned(), graphs.encoder), ("decoder.onnx".to_owned(), graphs.decoder)];
    Ok(Product { draft, files })
}
