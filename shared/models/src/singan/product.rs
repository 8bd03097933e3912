//! A package of a SinGAN from a training checkpoint.

use super::config::WHOLE_CHANNELS;
use super::{Config, export};
use crate::training::{Error, Naming, Product};
use crate::weights::Weights;
use hiresmed_imaging::Window;
use hiresmed_inference::package::{self, Draft, Kind, TrainingData};

/// All scales in one graph, of kind `singan`, or `singan-whole` where a whole image was learned. The training must be complete: a
/// scale without weights cannot be exported.
pub(crate) fn product(checkpoint: &Weights, naming: &Naming) -> Result<Product, Error> {
    let value = |key: &str| checkpoint.metadata.get(key).ok_or_else(|| Error::Parent(format!("it has no {key}")));
    let config: Config = serde_json::from_str(value("configuration")?)
        .map_err(|error| Error::Parent(format!("its configuration: {error}")))?;
    let graph = export(&naming.name, &config, checkpoint).map_err(|error| Error::Export(error.to_string()))?;
    let kind = if config.channels == WHOLE_CHANNELS { Kind::SinganWhole } else { Kind::Singan };
    let mut draft = Draft::new(kind, &naming.name, &naming.licence);
    draft.configuration = serde_json::to_value(&config).map_err(|error| Error::Export(error.to_string()))?;
    draft.window = Some(package::Window { low: Window::LUNG_CT.low, high: Window::LUNG_CT.high });
    draft.training_data = vec![TrainingData {
        name: naming.data.clone(),
        digest: value("data")?.clone(),
        licence: naming.data_licence.clone(),
    }];
    draft.parameters = config.parameters() as u64;
    draft.graphs = [("generate".to_owned(), "generate.onnx".to_owned())].into();
    Ok(Product { draft, files: vec![("generate.onnx".to_owned(), graph)] })
}
