//! A package of a token prior from a training checkpoint.

use hiresmed_inference::package::{self, Draft, Kind, TrainingData};

use super::{Packaged, export};
use crate::{
    training::{Error, Naming, Product},
    weights::Weights,
};

/// The network as one graph, with the weights of the least watched loss, or with the running average where none was watched.
pub(crate) fn product(checkpoint: &Weights, naming: &Naming) -> Result<Product, Error> {
    let value = |key: &str| checkpoint.metadata.get(key).ok_or_else(|| Error::Parent(format!("it has no {key}")));
    let fault = |key: &str, error: serde_json::Error| Error::Parent(format!("its {key}: {error}"));
    let packaged: Packaged =
        serde_json::from_str(value("configuration")?).map_err(|error| fault("configuration", error))?;
    let [low, high]: [f32; 2] = serde_json::from_str(value("window")?).map_err(|error| fault("window", error))?;
    let watched = value("best")?.parse::<f64>().ok().filter(|loss| loss.is_finite());
    let weights = checkpoint.under(if watched.is_some() { "best." } else { "average." });
    let (role, graph) = export(&packaged.config, &weights).map_err(|error| Error::Export(error.to_string()))?;
    let file = format!("{role}.onnx");
    let mut draft = Draft::new(Kind::Prior, &naming.name, &naming.licence);
    draft.configuration = serde_json::to_value(&packaged).map_err(|error| Error::Export(error.to_string()))?;
    draft.window = Some(package::Window { low, high });
    draft.spacing_mm = serde_json::from_str(value("spacing_mm")?).map_err(|error| fault("spacing_mm", error))?;
    draft.training_data = vec![TrainingData {
        name: naming.data.clone(),
        digest: value("data")?.clone(),
        licence: naming.data_licence.clone(),
    }];
    draft.parameters = packaged.config.parameters() as u64;
    draft.graphs = [(role.to_owned(), file.clone())].into();
    draft.scores.extend(watched.map(|loss| ("watched_loss".to_owned(), loss)));
    Ok(Product { draft, files: vec![(file, graph)] })
}
