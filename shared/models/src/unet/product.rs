//! A package of a danger-zone U-Net from a training checkpoint.

use super::{Config, export};
use crate::training::{Error, Naming, Product};
use crate::weights::Weights;
use hiresmed_imaging::Window;
use hiresmed_inference::package::{self, Draft, Kind, TrainingData};

/// The network as one graph; the checkpoint may be of any step.
pub(crate) fn product(checkpoint: &Weights, naming: &Naming) -> Result<Product, Error> {
    let value = |key: &str| checkpoint.metadata.get(key).ok_or_else(|| Error::Parent(format!("it has no {key}")));
    let config: Config = serde_json::from_str(value("configuration")?)
        .map_err(|error| Error::Parent(format!("its configuration: {error}")))?;
    let graph = export(&config, checkpoint).map_err(|error| Error::Export(error.to_string()))?;
    let mut draft = Draft::new(Kind::Unet, &naming.name, &naming.licence);
    draft.configuration = serde_json::to_value(&config).map_err(|error| Error::Export(error.to_string()))?;
    draft.window = Some(package::Window { low: Window::LUNG_CT.low, high: Window::LUNG_CT.high });
    draft.training_data = vec![TrainingData {
        name: naming.data.clone(),
        digest: value("data")?.clone(),
        licence: naming.data_licence.clone(),
    }];
    draft.parameters = config.parameters() as u64;
    draft.graphs = [("segment".to_owned(), "segment.onnx".to_owned())].into();
    Ok(Product { draft, files: vec![("segment.onnx".to_owned(), graph)] })
}
