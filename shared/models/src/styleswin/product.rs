//! A package of a StyleSwin from a training checkpoint.

use hiresmed_imaging::Window;
use hiresmed_inference::package::{self, Draft, Kind, TrainingData};

use super::{Config, export, learner::AVERAGE};
use crate::{
    training::{Error, Naming, Product},
    weights::Weights,
};

/// The running average of the generator as one graph; the checkpoint may be of any step.
pub(crate) fn product(checkpoint: &Weights, naming: &Naming) -> Result<Product, Error> {
    let value = |key: &str| checkpoint.metadata.get(key).ok_or_else(|| Error::Parent(format!("it has no {key}")));
    let config: Config = serde_json::from_str(value("configuration")?)
        .map_err(|error| Error::Parent(format!("its configuration: {error}")))?;
    let graph = export(&config, &checkpoint.under(AVERAGE)).map_err(|error| Error::Export(error.to_string()))?;
    let mut draft = Draft::new(Kind::Styleswin, &naming.name, &naming.licence);
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
