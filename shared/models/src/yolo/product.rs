//! A package of a detector from a training checkpoint.

use hiresmed_imaging::Window;
use hiresmed_inference::package::{self, Kind};

use super::learner::MEAN;
use super::{Config, export};
use crate::training::{Error, Naming, Product, configuration, of_one_graph};
use crate::weights::Weights;

/// The mean of the network as one graph, with the window that its training settings name; the checkpoint may be of any step.
pub(crate) fn product(checkpoint: &Weights, naming: &Naming) -> Result<Product, Error> {
    let config: Config = configuration(checkpoint)?;
    let window = checkpoint.metadata.get("window").ok_or_else(|| Error::Parent("it has no window".to_owned()))?;
    let window: Window = serde_json::from_str(window).map_err(|error| Error::Parent(format!("its window: {error}")))?;
    let graph = export(&config, &checkpoint.under(MEAN)).map_err(|error| Error::Export(error.to_string()))?;
    let mut product = of_one_graph(Kind::Yolo, checkpoint, naming, (&config, config.parameters()), ("detect", graph))?;
    product.draft.window = Some(package::Window { low: window.low, high: window.high });
    Ok(product)
}
