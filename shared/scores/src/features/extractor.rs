//! Features by an ONNX graph, spooled to a temporary file as they come.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use hiresmed_imaging::Plane;
use hiresmed_imaging::resample::{Filter, resize};
use hiresmed_inference::{Runtime, Session, SessionOptions};

use super::{Error, FeatureFile};
use crate::input::{ImagePort, Intensity, tensor};

/// A feature extractor: a graph that takes one image f32[1, 1 or 3, H, W] in [-1, 1] (grey repeated) and gives one vector
/// f32[1, d] (trailing dimensions of 1 are dropped).
///
/// Where the graph fixes H and W the image is resized to them, bilinear, pixel centres at half, without antialiasing: the
/// recipe of pytorch-fid. With another recipe (bicubic, antialiased) the same network gives another FID.
#[derive(Debug)]
pub struct Extractor {
    path: PathBuf,
    session: Session,
    input: String,
    port: ImagePort,
}

impl Extractor {
    /// Opens the graph in the file `path`.
    ///
    /// # Errors
    /// The file cannot be read, the runtime refuses it, or it takes and gives something else.
    pub fn open(runtime: &Runtime, path: impl AsRef<Path>, options: &SessionOptions) -> Result<Self, Error> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let session = Session::open(runtime, &bytes, options)
            .map_err(|source| Error::Session { path: path.to_owned(), source })?;
        let wrong = |cause: String| Error::Extractor { path: path.to_owned(), cause };
        let [input] = session.inputs() else {
            return Err(wrong(format!("it has {} inputs", session.inputs().len())));
        };
        if session.outputs().len() != 1 {
            return Err(wrong(format!("it has {} outputs", session.outputs().len())));
        }
        let port = ImagePort::of(input).map_err(wrong)?;
        Ok(Self { path: path.to_owned(), input: input.name.clone(), port, session })
    }

    /// The feature vector of one image; `intensity` says which of its values the network sees as -1 and 1.
    ///
    /// # Errors
    /// The run fails, or its result is no vector.
    pub fn features(&self, plane: &Plane, intensity: Intensity) -> Result<Vec<f32>, Error> {
        let failed = |source| Error::Session { path: self.path.clone(), source };
        let resized;
        let plane = match self.port.size {
            Some((height, width)) if (height, width) != (plane.height(), plane.width()) => {
                resized = resize(plane, width, height, Filter::Bilinear);
                &resized
            }
            _ => plane,
        };
        let input = tensor(plane, intensity, self.port.channels).map_err(|error| failed(error.into()))?;
        let output = self.session.run_single(&[(&self.input, input)]).map_err(failed)?;
        let (shape, features) = output.into_f32().map_err(|error| failed(error.into()))?;
        if shape.len() < 2 || shape[0] != 1 || shape[2..].iter().any(|&size| size != 1) || features.is_empty() {
            return Err(Error::Extractor {
                path: self.path.clone(),
                cause: format!("it gave a result of shape {shape:?}"),
            });
        }
        Ok(features)
    }
}

/// Feature vectors on their way to a temporary file, which has no name and goes when it is closed.
#[derive(Debug)]
pub struct Spool {
    file: BufWriter<File>,
    /// What the set is called in errors.
    name: PathBuf,
    rows: usize,
    dimension: Option<usize>,
}

impl Spool {
    /// An empty set, called `name` in errors.
    ///
    /// # Errors
    /// No temporary file can be made.
    pub fn new(name: impl AsRef<Path>) -> Result<Self, Error> {
        let name = name.as_ref().to_owned();
        let file = BufWriter::new(tempfile::tempfile().map_err(Error::io(&name))?);
        Ok(Self { file, name, rows: 0, dimension: None })
    }

    /// Adds one image's features.
    ///
    /// # Errors
    /// The disk is full, or the vector is not as long as the ones before.
    pub fn push(&mut self, features: &[f32]) -> Result<(), Error> {
        let dimension = *self.dimension.get_or_insert(features.len());
        if dimension != features.len() {
            return Err(Error::Dimension { first: dimension, second: features.len() });
        }
        for value in features {
            self.file.write_all(&value.to_le_bytes()).map_err(Error::io(&self.name))?;
        }
        self.rows += 1;
        Ok(())
    }

    /// The whole set, to be read in blocks. `None` where it is empty, so that even its dimension is unknown.
    ///
    /// # Errors
    /// The disk is full.
    pub fn finish(self) -> Result<Option<FeatureFile>, Error> {
        let Self { file, name, rows, dimension } = self;
        let file = file.into_inner().map_err(|error| Error::Io { path: name.clone(), source: error.into_error() })?;
        Ok(dimension.map(|dimension| FeatureFile::bare(name, file, rows, dimension)))
    }
}
