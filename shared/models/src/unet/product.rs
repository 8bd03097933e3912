//! A package of a danger-zone U-Net from a training checkpoint.

use hiresmed_inference::package::Kind;

use super::{Config, export};
use crate::{
    training::{Error, Naming, Product, configuration, of_one_graph},
    weights::Weights,
};

/// The network as one graph; the checkpoint may be of any step.
pub(crate) fn product(checkpoint: &Weights, naming: &Naming) -> Result<Product, Error> {
    let config: Config = configuration(checkpoint)?;
    let graph = export(&config, checkpoint).map_err(|error| Error::Export(error.to_string()))?;
    of_one_graph(Kind::Unet, checkpoint, naming, (&config, config.parameters()), ("segment", graph))
}
