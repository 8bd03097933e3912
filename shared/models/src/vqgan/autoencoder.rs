//! A trained VQGAN at work: images to tokens to images, through ONNX Runtime.

use hiresmed_imaging::{Plane, Window};
use hiresmed_inference::{
    DeviceTensor, Runtime, Session, SessionOptions, Tensor,
    onnx::Dim,
    package::{self, Kind, Package},
    session, tensor,
};

use super::config::Config;

/// Sides are padded to a multiple of this where a package does not say what its stride is.
const UNKNOWN_STRIDE: usize = 64;

/// Why an image could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The package is of another kind.
    #[error("the package {name:?} is a {kind}; a background needs a vqgan package")]
    Kind {
        /// Its name.
        name: String,
        /// Its kind.
        kind: Kind,
    },
    /// The package has neither a pair of encoder and decoder nor a reconstruct graph, or one of another shape.
    #[error("the package {name:?} cannot be used: {cause}; import it again to have it checked")]
    Graphs {
        /// Its name.
        name: String,
        /// What is wrong.
        cause: String,
    },
    /// The package has only a reconstruct graph, and tokens were asked for.
    #[error("this package has no {0} graph; it can only reconstruct")]
    Missing(&'static str),
    /// An image without pixels, or tokens that do not fit their sizes.
    #[error("{0}")]
    Input(String),
    /// The package or one of its files.
    #[error(transparent)]
    Package(#[from] package::Error),
    /// A session.
    #[error(transparent)]
    Session(#[from] session::Error),
    /// A tensor of a session.
    #[error(transparent)]
    Tensor(#[from] tensor::Error),
}

/// An image as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Tokens per row.
    pub columns: usize,
    /// Rows of tokens.
    pub rows: usize,
    /// Code indices, row-major.
    pub data: Vec<i64>,
    /// Width of the image in pixels: columns times stride, less the padding.
    pub width: usize,
    /// Height of the image in pixels.
    pub height: usize,
}

/// A VQGAN package, opened. Images are planes normalised to [-1, 1] over the package's window.
#[derive(Debug)]
pub struct Autoencoder {
    encoder: Option<Session>,
    decoder: Option<Session>,
    reconstruct: Option<Session>,
    stride: usize,
    channels: usize,
    window: Window,
}

impl Autoencoder {
    /// Opens a package's graphs: `encoder` and `decoder`, or `reconstruct` alone (a site's own model).
    ///
    /// # Errors
    /// For a package of another kind, without these graphs, or whose graphs do not open.
    pub fn open(package: &Package, runtime: &Runtime, options: &SessionOptions) -> Result<Self, Error> {
        if !matches!(package.kind(), Kind::Vqgan | Kind::VqganResidual) {
            return Err(Error::Kind { name: package.name().to_owned(), kind: package.kind() });
        }
        let open = |role: &str| package.has_graph(role).then(|| package.session(role, runtime, options)).transpose();
        let (encoder, decoder) = (open("encoder")?, open("decoder")?);
        let pair = encoder.is_some() && decoder.is_some();
        let reconstruct = if pair { None } else { open("reconstruct")? };
        let fault = |cause: &str| Error::Graphs { name: package.name().to_owned(), cause: cause.to_owned() };
        let first = encoder.as_ref().filter(|_| pair).or(reconstruct.as_ref());
        let first = first.ok_or_else(|| fault("it has neither encoder and decoder nor reconstruct"))?;
        let image = first.inputs().first().and_then(|port| port.shape.clone());
        let channels = match image.as_deref() {
            Some([_, Dim::Fixed(channels @ 1..=4), _, _]) => *channels as usize,
            _ => return Err(fault("its image input is not [N, C, H, W] with 1 to 4 channels")),
        };
        let description = package.description();
        let configuration = serde_json::from_value::<Config>(description.configuration.clone());
        let declared = description.configuration["stride"].as_u64().filter(|&stride| (1..=4096).contains(&stride));
        let stride = configuration.map_or(declared.map_or(UNKNOWN_STRIDE, |stride| stride as usize), |c| c.stride());
        let window = description.window.map_or(Window::LUNG_CT, |w| Window { low: w.low, high: w.high });
        Ok(Self { encoder, decoder, reconstruct, stride, channels, window })
    }

    /// Side of a token in pixels.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The intensity window over which images are normalised.
    pub fn window(&self) -> Window {
        self.window
    }

    /// Tokens of each image.
    ///
    /// # Errors
    /// [`Error::Missing`] for a package without an encoder, and those of the session.
    pub fn encode(&self, images: &[Plane]) -> Result<Vec<Tokens>, Error> {
        let encoder = self.encoder.as_ref().ok_or(Error::Missing("encoder"))?;
        let mut all = Vec::with_capacity(images.len());
        for batch in images.chunk_by(same_size) {
            let (shape, data) = encoder.run_single(&[(input(encoder)?, self.batch(batch)?)])?.into_i64()?;
            let [_, rows, columns] = shape[..] else {
                return Err(Error::Input(format!(
                    "the encoder returned tokens of shape {shape:?}, expected [N, h, w]"
                )));
            };
            all.extend(data.chunks(rows * columns).zip(batch).map(|(tokens, image)| Tokens {
                columns,
                rows,
                data: tokens.to_vec(),
                width: image.width(),
                height: image.height(),
            }));
        }
        Ok(all)
    }

    /// The image of each token map.
    ///
    /// # Errors
    /// [`Error::Missing`] for a package without a decoder, [`Error::Input`] for tokens that do not fit their sizes, and
    /// those of the session.
    pub fn decode(&self, tokens: &[Tokens]) -> Result<Vec<Plane>, Error> {
        let decoder = self.decoder.as_ref().ok_or(Error::Missing("decoder"))?;
        let mut images = Vec::with_capacity(tokens.len());
        for batch in tokens.chunk_by(|a, b| (a.columns, a.rows) == (b.columns, b.rows)) {
            let (columns, rows) = (batch[0].columns, batch[0].rows);
            if let Some(wrong) = batch.iter().find(|tokens| tokens.data.len() != columns * rows || columns * rows == 0)
            {
                return Err(Error::Input(format!("{} tokens do not make {columns} x {rows}", wrong.data.len())));
            }
            let data: Vec<i64> = batch.iter().flat_map(|tokens| tokens.data.iter().copied()).collect();
            let tensor = Tensor::i64([batch.len(), rows, columns], data)?;
            let y = decoder.run_single(&[(input(decoder)?, tensor)])?;
            images.extend(crop(y, batch.iter().map(|tokens| (tokens.width, tokens.height)))?);
        }
        Ok(images)
    }

    /// Encodes and decodes each image; the result has the image's size and spacing.
    ///
    /// # Errors
    /// [`Error::Input`] for an image without pixels, and those of the sessions.
    pub fn reconstruct(&self, images: &[Plane]) -> Result<Vec<Plane>, Error> {
        let mut planes = Vec::with_capacity(images.len());
        for batch in images.chunk_by(same_size) {
            let x = self.batch(batch)?;
            let y = match &self.reconstruct {
                None => self.through_tokens(x)?,
                Some(session) => {
                    let mut outputs = session.run(&[(input(session)?, x)])?;
                    // The image is the output of rank four, wherever it stands.
                    outputs.retain(|(_, tensor)| tensor.shape().len() == 4);
                    outputs.pop().ok_or(Error::Missing("image output in the reconstruct"))?.1
                }
            };
            planes.extend(crop(y, batch.iter().map(|image| (image.width(), image.height())))?);
        }
        Ok(planes.into_iter().zip(images).map(|(plane, image)| plane.with_spacing(image.spacing)).collect())
    }

    /// `[N, C, H, W]` encoded and decoded; the tokens stay on the sessions' device.
    fn through_tokens(&self, x: Tensor) -> Result<Tensor, Error> {
        let encoder = self.encoder.as_ref().ok_or(Error::Missing("encoder"))?;
        let decoder = self.decoder.as_ref().ok_or(Error::Missing("decoder"))?;
        let x = DeviceTensor::from_host(x)?;
        let tokens = encoder.run_bound(&[(input(encoder)?, &x)], &[])?;
        let [(_, tokens)] = &tokens[..] else { return Err(Error::Missing("only output, the tokens, in the encode")) };
        let image = decoder.outputs().first().ok_or(Error::Missing("image output in the decode"))?;
        let y = decoder.run_bound(&[(input(decoder)?, tokens)], &[&image.name])?;
        let [(_, y)] = &y[..] else { return Err(Error::Missing("only output, the image, in the decode")) };
        Ok(y.to_host()?)
    }

    /// Images of one size as `[N, C, H, W]`, the last row and column repeated up to the stride.
    fn batch(&self, images: &[Plane]) -> Result<Tensor, Error> {
        let (width, height) = (images[0].width(), images[0].height());
        if width == 0 || height == 0 {
            return Err(Error::Input("an image has no pixels".into()));
        }
        let (padded_width, padded_height) = (width.next_multiple_of(self.stride), height.next_multiple_of(self.stride));
        let mut data = Vec::with_capacity(images.len() * self.channels * padded_width * padded_height);
        for image in images {
            for _ in 0..self.channels {
                for y in 0..padded_height {
                    let start = y.min(height - 1) * width;
                    let row = &image.data()[start..start + width];
                    data.extend_from_slice(row);
                    data.extend(std::iter::repeat_n(row[width - 1], padded_width - width));
                }
            }
        }
        Ok(Tensor::f32([images.len(), self.channels, padded_height, padded_width], data)?)
    }
}

fn same_size(a: &Plane, b: &Plane) -> bool {
    (a.width(), a.height()) == (b.width(), b.height())
}

/// The name of a session's one input.
fn input(session: &Session) -> Result<&str, Error> {
    let name = session.inputs().first().map(|port| port.name.as_str());
    name.ok_or_else(|| Error::Input("a graph of the package has no input".into()))
}

/// Planes of the given sizes (width, height) from the top left of `[N, C, H, W]`, channels averaged, clamped to [-1, 1].
fn crop(y: Tensor, sizes: impl Iterator<Item = (usize, usize)>) -> Result<Vec<Plane>, Error> {
    let (shape, data) = y.into_f32()?;
    let [_, channels, rows, columns] = shape[..] else {
        return Err(Error::Input(format!("the decoder returned an image of shape {shape:?}, expected [N, C, H, W]")));
    };
    let area = rows * columns;
    let plane = |(image, (width, height)): (&[f32], (usize, usize))| {
        if width > columns || height > rows {
            return Err(Error::Input(format!("the decoder returned {columns} x {rows} pixels for {width} x {height}")));
        }
        let pixel = |index: usize| {
            let (x, y) = (index % width, index / width);
            let sum: f32 = (0..channels).map(|channel| image[channel * area + y * columns + x]).sum();
            (sum / channels as f32).clamp(-1.0, 1.0)
        };
        Ok(Plane::new(width, height, (0..width * height).map(pixel).collect()))
    };
    data.chunks(channels * area).zip(sizes).map(plane).collect()
}
