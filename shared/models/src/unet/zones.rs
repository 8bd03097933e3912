//! The permissible region of an image, through ONNX Runtime.

use super::Error;
use super::config::Config;
use hiresmed_imaging::{Mask, Plane, body, resample};
use hiresmed_inference::package::{Kind, Package};
use hiresmed_inference::{Runtime, Session, SessionOptions, Tensor};

/// Pieces smaller than this share of the image are dropped: noise, and gas that looks like lung.
const SMALLEST_PIECE: f64 = 0.002;

/// A danger-zone package, opened.
#[derive(Debug)]
pub struct DangerZones {
    config: Config,
    session: Session,
}

impl DangerZones {
    /// Opens a package's `segment` graph.
    ///
    /// A package made elsewhere may have no configuration: then images are resampled to 256 x 256.
    ///
    /// # Errors
    /// For a package of another kind, with an impossible configuration, or whose graph does not open.
    pub fn open(package: &Package, runtime: &Runtime, options: &SessionOptions) -> Result<Self, Error> {
        if package.kind() != Kind::Unet {
            let fault = format!("the package {:?} is a {}, not a unet", package.name(), package.kind());
            return Err(Error::Configuration { faults: vec![fault] });
        }
        let value = &package.description().configuration;
        let config = if value.is_null() { Ok(Config::default()) } else { serde_json::from_value(value.clone()) };
        let config =
            config.map_err(|error| Error::Configuration { faults: vec![format!("configuration: {error}")] })?;
        Self::new(config, package.session("segment", runtime, options)?)
    }

    /// Danger zones over an open session of a graph as [`export`](super::export()) writes it.
    ///
    /// # Errors
    /// [`Error::Configuration`] with every fault.
    pub fn new(config: Config, session: Session) -> Result<Self, Error> {
        let faults = config.faults();
        if faults.is_empty() { Ok(Self { config, session }) } else { Err(Error::Configuration { faults }) }
    }

    /// Where a lesion may be (equation 15: 1 is permissible) in `image`, normalised to [-1, 1]; a mask of the image's size.
    /// `body` is the body in the image, as [`body::body_above`] finds it.
    ///
    /// The first output channel is the logit of "permissible". The result is intersected with the body, and
    /// pieces under 0.2 % of the image are dropped: the network calls some gas outside the lungs permissible.
    ///
    /// # Errors
    /// [`Error::Session`] and [`Error::NotFinite`].
    ///
    /// # Panics
    /// When the body's size is not the image's: the caller made both.
    pub fn permissible_within(&self, image: &Plane, body: &Mask) -> Result<Mask, Error> {
        let logits = self.logits(image)?;
        let (width, height) = (image.width(), image.height());
        let logits = resample::resize(&logits, width, height, resample::Filter::Bilinear);
        let positive = logits.data().iter().map(|&logit| u8::from(logit > 0.0)).collect();
        let permissible = Mask::new(width, height, positive).and(body);
        Ok(permissible.components_from(SMALLEST_PIECE * (width * height) as f64))
    }

    /// [`permissible_within`](Self::permissible_within) the body that is found in `image`.
    ///
    /// # Errors
    /// [`Error::Session`] and [`Error::NotFinite`].
    pub fn permissible(&self, image: &Plane) -> Result<Mask, Error> {
        self.permissible_within(image, &body::body_above(image, body::THRESHOLD_NORMALISED))
    }

    /// Logits of "permissible" on the network's own grid.
    fn logits(&self, image: &Plane) -> Result<Plane, Error> {
        let side = self.config.side;
        let small = resample::resize(image, side, side, resample::Filter::Area);
        let input = Tensor::f32([1, 1, side, side], small.into_data())?;
        let name = self.session.inputs().first().map(|input| input.name.clone()).unwrap_or_default();
        let (shape, data) = self.session.run_single(&[(&name, input)])?.into_f32()?;
        let [1, _, height, width] = shape[..] else {
            let faults = vec![format!("the graph gave shape {shape:?}, expected [1, k, h, w]")];
            return Err(Error::Configuration { faults });
        };
        let logits: Vec<f32> = data.into_iter().take(width * height).collect();
        if logits.iter().any(|value| !value.is_finite()) {
            return Err(Error::NotFinite);
        }
        Ok(Plane::new(width, height, logits))
    }
}
