//! From a finished training to what a model package is made of.

use hiresmed_imaging::Window;
use hiresmed_inference::{
    onnx,
    package::{self, Draft, Kind, TrainingData},
};

use super::{Error, card};
use crate::weights::Weights;

/// What the weights do not say themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    /// The package's name, by which requests may call it.
    pub name: String,
    /// Name of the training data, and the part of it that was used.
    pub data: String,
    /// Licence and attribution of the training data.
    pub data_licence: String,
    /// Licence of the weights.
    pub licence: String,
    /// Kind of image, where it is not `ct`: `kub`.
    pub modality: Option<String>,
}

/// The contents of a package: its description, its graphs by file name and the curves of its training. Scores, card and the like are
/// added by the caller.
#[derive(Debug, Clone)]
pub struct Product {
    /// The description.
    pub draft: Draft,
    /// The files that the description names.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Product {
    /// Elements of a weight at least that is stored in half precision.
    const LEAST_HALVED: usize = 4096;

    /// With the large weights of its graphs in half precision: for packages that travel. Whoever scores it scores these.
    ///
    /// # Errors
    /// [`Error::Export`] for a weight that half precision does not hold.
    pub fn with_half_weights(mut self) -> Result<Self, Error> {
        for (_, bytes) in self.files.iter_mut().filter(|(name, _)| name.ends_with(".onnx")) {
            let halved = onnx::with_half_weights(bytes, Self::LEAST_HALVED);
            *bytes = halved.map_err(|error| Error::Export(error.to_string()))?;
        }
        Ok(self)
    }
}

/// The product of a kind of one graph: `graph` by its role, of a network with `config` and so many parameters.
///
/// # Errors
/// [`Error::Parent`] for a checkpoint that does not name its data; [`Error::Export`].
pub(crate) fn of_one_graph(
    kind: Kind,
    checkpoint: &Weights,
    naming: &Naming,
    (config, parameters): (&impl serde::Serialize, usize),
    (role, graph): (&str, Vec<u8>),
) -> Result<Product, Error> {
    let data = checkpoint.metadata.get("data").ok_or_else(|| Error::Parent("it has no data".to_owned()))?;
    let mut draft = Draft::new(kind, &naming.name, &naming.licence);
    draft.configuration = serde_json::to_value(config).map_err(|error| Error::Export(error.to_string()))?;
    draft.window = Some(package::Window { low: Window::LUNG_CT.low, high: Window::LUNG_CT.high });
    draft.training_data =
        vec![TrainingData { name: naming.data.clone(), digest: data.clone(), licence: naming.data_licence.clone() }];
    draft.parameters = parameters as u64;
    let file = format!("{role}.onnx");
    draft.graphs = [(role.to_owned(), file.clone())].into();
    Ok(Product { draft, files: vec![(file, graph)] })
}

/// The architecture that a checkpoint names.
///
/// # Errors
/// [`Error::Parent`] where it names none, or one of another version.
pub(crate) fn configuration<T: serde::de::DeserializeOwned>(checkpoint: &Weights) -> Result<T, Error> {
    let text = checkpoint.metadata.get("configuration");
    let text = text.ok_or_else(|| Error::Parent("it has no configuration".to_owned()))?;
    serde_json::from_str(text).map_err(|error| Error::Parent(format!("its configuration: {error}")))
}

/// The product of a checkpoint, by the kind that it names. It may be of any step: a training need not be complete.
///
/// # Errors
/// [`Error::Parent`] for a checkpoint of an unknown kind or without its configuration; [`Error::Export`].
pub fn product(checkpoint: &Weights, naming: &Naming) -> Result<Product, Error> {
    let mut product = match checkpoint.metadata.get("kind").map(String::as_str) {
        Some("vqgan") => crate::vqgan::product(checkpoint, naming),
        Some("singan") => crate::singan::product(checkpoint, naming),
        Some("unet") => crate::unet::product(checkpoint, naming),
        Some("prior") => crate::prior::product(checkpoint, naming),
        Some("yolo") => crate::yolo::product(checkpoint, naming),
        Some("ddpm") => crate::ddpm::product(checkpoint, naming),
        Some("styleswin") => crate::styleswin::product(checkpoint, naming),
        Some(kind) => Err(Error::Parent(format!("its kind is {kind:?}, of which no package can be made"))),
        None => Err(Error::Parent("it does not name its kind".into())),
    }?;
    if naming.modality.is_some() {
        product.draft.modality.clone_from(&naming.modality);
        let Window { low, high } = Window::RADIOGRAPH;
        product.draft.window = Some(package::Window { low, high });
    }
    if let Some(curves) = card::curves(checkpoint)? {
        product.files.push((card::CURVES_FILE.to_owned(), curves.into_bytes()));
    }
    Ok(product)
}
