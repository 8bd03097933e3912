//! A package of a detector from a training checkpoint.

use hiresmed_imaging::Window;
use hiresmed_inference::package::{self, Draft, Kind, TrainingData};

use super::learner::MEAN;
use super::{Config, export};
use crate::training::{Error, Naming, Product};
use crate::weights::Weights;

/// The mean of the network as one graph; the checkpoint may be of any step.
pub(crate) fn product(checkpoint: &Weights, naming: &Naming) -> Result<Product, Error> {
    let value = |key: &str| checkpoint.metadata.get(key).ok_or_else(|| Error::Parent(format!("it has no {key}")));
    let unreadable = |key: &'static str| move |error: serde_json::Error| Error::Parent(format!("its {key}: {error}"));
    let config: Config = serde_json::from_str(value("configuration")?).map_err(unreadable("configuration"))?;
    let window: Window = serde_json::from_str(value("window")?).map_err(unreadable("window"))?;
    let graph = export(&config, &checkpoint.under(MEAN)).map_err(|error| Error::Export(error.to_string()))?;
    let mut draft = Draft::new(Kind::Yolo, &naming.name, &naming.licence);
    draft.configuration = serde_json::to_value(&config).map_err(|error| Error::Export(error.to_string()))?;
    draft.window = Some(package::Window { low: window.low, high: window.high });
    draft.training_data = vec![TrainingData {
        name: naming.data.clone(),
        digest: value("data")?.clone(),
        licence: naming.data_licence.clone(),
    }];
    draft.parameters = config.parameters() as u64;
    draft.graphs = [("detect".to_owned(), "detect.onnx".to_owned())].into();
    Ok(Product { draft, files: vec![("detect.onnx".to_owned(), graph)] })
}
