//! Images from a package of a StyleSwin, through ONNX Runtime.

use hiresmed_imaging::Plane;
use hiresmed_inference::{
    Runtime, Session, SessionOptions, Tensor,
    package::{Kind, Package},
};

use super::{Error, config::Config};
use crate::noise;

/// A StyleSwin package, opened.
#[derive(Debug)]
pub struct Sampler {
    config: Config,
    session: Session,
    /// Names of the graph's inputs in their order: a graph made elsewhere may call them otherwise.
    inputs: Vec<String>,
    truncation: f32,
}

impl Sampler {
    /// Opens a package's `generate` graph.
    ///
    /// # Errors
    /// For a package of another kind, without a usable configuration, or whose graph does not open.
    pub fn open(package: &Package, runtime: &Runtime, options: &SessionOptions) -> Result<Self, Error> {
        if package.kind() != Kind::Styleswin {
            return Err(Error::Kind { name: package.name().to_owned(), kind: package.kind() });
        }
        let config = serde_json::from_value(package.description().configuration.clone())
            .map_err(|error| Error::Configuration { faults: vec![format!("configuration: {error}")] })?;
        Self::new(config, package.session("generate", runtime, options)?)
    }

    /// A sampler over an open session of a graph as [`export`](super::export()) writes it; a graph with the latent vector alone will do.
    ///
    /// # Errors
    /// [`Error::Configuration`] with every fault.
    pub fn new(config: Config, session: Session) -> Result<Self, Error> {
        let mut faults = config.faults();
        let inputs: Vec<String> = session.inputs().iter().map(|port| port.name.clone()).collect();
        if !(1..=2).contains(&inputs.len()) {
            faults.push(format!("its graph has {} inputs, not latent (and truncation)", inputs.len()));
        }
        if faults.is_empty() {
            Ok(Self { config, session, inputs, truncation: 1.0 })
        } else {
            Err(Error::Configuration { faults })
        }
    }

    /// Draws styles towards their mean from here on: 1 leaves them, as without this call; 0 gives the mean image alone. A graph
    /// with the latent vector alone takes no notice.
    ///
    /// # Errors
    /// [`Error::Truncation`] outside 0 to 1.
    pub fn with_truncation(mut self, truncation: f32) -> Result<Self, Error> {
        if !(0.0..=1.0).contains(&truncation) {
            return Err(Error::Truncation(truncation));
        }
        self.truncation = truncation;
        Ok(self)
    }

    /// Side of a sample, px.
    pub fn side(&self) -> usize {
        self.config.side()
    }

    /// Sample `index` of `seed`, in [-1, 1] over the package's window, at the model's size; channels are averaged. The same seed and
    /// index give the same bytes on the same device and runtime, whatever else was sampled.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NotFinite`], and those of the session.
    pub fn sample(&self, seed: u64, index: u64) -> Result<Plane, Error> {
        let latent = noise::normal(&mut noise::generator(seed, index, "latent"), self.config.latent);
        let given = [Tensor::f32([1, self.config.latent], latent)?, Tensor::f32([1, 1], vec![self.truncation])?];
        let inputs: Vec<(&str, Tensor)> = self.inputs.iter().map(String::as_str).zip(given).collect();
        let (found, data) = self.session.run_single(&inputs)?.into_f32()?;
        let (channels, side) = (self.config.channels, self.config.side());
        let expected = vec![1, channels, side, side];
        if found != expected {
            return Err(Error::Shape { found, expected });
        }
        if !data.iter().all(|value| value.is_finite()) {
            return Err(Error::NotFinite);
        }
        let pixel = |at: usize| {
            let sum: f32 = (0..channels).map(|channel| data[channel * side * side + at]).sum();
            (sum / channels as f32).clamp(-1.0, 1.0)
        };
        Ok(Plane::new(side, side, (0..side * side).map(pixel).collect()))
    }
}
