//! A package of a StyleSwin from a training checkpoint.

use hiresmed_inference::package::Kind;

use super::{Config, export, learner::AVERAGE};
use crate::{
    training::{Error, Naming, Product, configuration, of_one_graph},
    weights::Weights,
};

/// The running average of the generator as one graph; the checkpoint may be of any step.
pub(crate) fn product(checkpoint: &Weights, naming: &Naming) -> Result<Product, Error> {
    let config: Config = configuration(checkpoint)?;
    let graph = export(&config, &checkpoint.under(AVERAGE)).map_err(|error| Error::Export(error.to_string()))?;
    of_one_graph(Kind::Styleswin, checkpoint, naming, (&config, config.parameters()), ("generate", graph))
}
