//! Learned perceptual image patch similarity (equation 19; Zhang et al. 2018), version 0.1.

mod distance;
mod weights;

use std::path::{Path, PathBuf};

use hiresmed_imaging::Plane;
use hiresmed_inference::{Runtime, Session, SessionOptions, Tensor, session, tensor as tensors};

use crate::input::{ImagePort, Intensity, tensor};

pub use distance::distance;

/// What the published networks subtract from red, green and blue in [-1, 1], and divide by, before their backbone.
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];

/// Why a perceptual distance cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused to read.
    #[error("{}: {source}; check that the path exists and that its permissions allow this", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The graph is neither a backbone nor a whole metric.
    #[error(
        "{}: {cause}; LPIPS takes a backbone (one image f32[1, 3, H, W] to feature maps f32[1, C, h, w], with linear \
         weights in a .safetensors file of the same stem) or a whole metric (two images to one number)", .path.display()
    )]
    Graph {
        /// The graph's file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The linear weights do not fit.
    #[error("{}: {cause}; it holds one tensor of C weights for each feature map, named lin0, lin1, …", .path.display())]
    Weights {
        /// The weights' file.
        path: PathBuf,
        /// What is wrong with them.
        cause: String,
    },
    /// The graph does not open or failed to run.
    #[error("{}: {source}", .path.display())]
    Session {
        /// The graph's file.
        path: PathBuf,
        /// What the runtime said.
        #[source]
        source: session::Error,
    },
    /// The images have different sizes, or one that the graph does not take.
    #[error("the images are {}x{} and {}x{} pixels; {} takes two of one size{}", .first.0, .first.1, .second.0, .second.1,
            .path.display(), .taken.map(|(width, height)| format!(", {width}x{height}")).unwrap_or_default())]
    Size {
        /// The graph's file.
        path: PathBuf,
        /// Width and height of the first image.
        first: (usize, usize),
        /// Width and height of the second image.
        second: (usize, usize),
        /// Width and height that the graph takes, where it takes one only.
        taken: Option<(usize, usize)>,
    },
}

/// A perceptual distance, ready to measure.
///
/// Two forms of graph are taken. A *backbone* takes one image f32[1, 3, H, W], already shifted and scaled, and gives any
/// number of feature maps f32[1, C, h, w]; the published linear weights lie beside it, in a .safetensors file of the same
/// stem. A *whole metric* takes two images f32[1, 1 or 3, H, W] in [-1, 1] and gives one number.
#[derive(Debug)]
pub struct Lpips {
    path: PathBuf,
    session: Session,
    inputs: Vec<String>,
    port: ImagePort,
    /// Of a backbone, a vector for each feature map.
    weights: Option<Vec<Vec<f32>>>,
}

impl Lpips {
    /// Opens the graph in the file `path` and, for a backbone, the weights beside it.
    ///
    /// # Errors
    /// A file cannot be read, the runtime refuses the graph, or graph and weights are not of one of the two forms.
    pub fn open(runtime: &Runtime, path: impl AsRef<Path>, options: &SessionOptions) -> Result<Self, Error> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let session = Session::open(runtime, &bytes, options)
            .map_err(|source| Error::Session { path: path.to_owned(), source })?;
        let wrong = |cause: String| Error::Graph { path: path.to_owned(), cause };
        let ports: Vec<ImagePort> =
            session.inputs().iter().map(|port| ImagePort::of(port).map_err(wrong)).collect::<Result<_, _>>()?;
        let outputs = session.outputs().len();
        let (port, weights) = match *ports {
            [port] if port.channels == 3 => {
                let weights = weights::read(&path.with_extension("safetensors"))?;
                if weights.len() != outputs {
                    let cause = format!("{} weights for {outputs} feature maps", weights.len());
                    return Err(Error::Weights { path: path.with_extension("safetensors"), cause });
                }
                (port, Some(weights))
            }
            [first, second] if first == second && outputs == 1 => (first, None),
            _ => return Err(wrong(format!("it has {} inputs and {outputs} outputs", ports.len()))),
        };
        let inputs = session.inputs().iter().map(|port| port.name.clone()).collect();
        Ok(Self { path: path.to_owned(), session, inputs, port, weights })
    }

    /// The distance of two grey images of one size; 0 for equal ones. `intensity` says which of their values the network
    /// sees as -1 and 1.
    ///
    /// # Errors
    /// Sizes that differ or do not fit the graph; a run that fails.
    pub fn distance(&self, a: &Plane, b: &Plane, intensity: Intensity) -> Result<f64, Error> {
        let (first, second) = ((a.width(), a.height()), (b.width(), b.height()));
        let taken = self.port.size.map(|(height, width)| (width, height));
        if first != second || taken.is_some_and(|taken| taken != first) {
            return Err(Error::Size { path: self.path.clone(), first, second, taken });
        }
        let failed = |source| Error::Session { path: self.path.clone(), source };
        let input = |plane| tensor(plane, intensity, self.port.channels).map_err(|error| failed(error.into()));
        let (a, b) = (input(a)?, input(b)?);
        let wrong = |cause: String| Error::Graph { path: self.path.clone(), cause };
        match &self.weights {
            Some(weights) => {
                let (a, b) = (self.features(a).map_err(failed)?, self.features(b).map_err(failed)?);
                distance(&a, &b, weights).map_err(wrong)
            }
            None => {
                let inputs = [(&*self.inputs[0], a), (&*self.inputs[1], b)];
                let (shape, values) =
                    self.session.run_single(&inputs).and_then(|output| Ok(output.into_f32()?)).map_err(failed)?;
                match *values {
                    [value] => Ok(f64::from(value)),
                    _ => Err(wrong(format!("it gave a result of shape {shape:?}"))),
                }
            }
        }
    }

    fn features(&self, image: Tensor) -> Result<Vec<Tensor>, session::Error> {
        let shifted = shifted(image)?;
        let outputs = self.session.run(&[(&*self.inputs[0], shifted)])?;
        Ok(outputs.into_iter().map(|(_, tensor)| tensor).collect())
    }
}

/// The fixed shift and scale of the three channels.
fn shifted(image: Tensor) -> Result<Tensor, tensors::Error> {
    let (shape, mut data) = image.into_f32()?;
    let pixels = (data.len() / 3).max(1);
    for (channel, (shift, scale)) in data.chunks_exact_mut(pixels).zip(SHIFT.into_iter().zip(SCALE)) {
        channel.iter_mut().for_each(|value| *value = (*value - shift) / scale);
    }
    Tensor::f32(shape, data)
}

#[cfg(test)]
mod tests;
