//! A blend made ready to run on a device.

use hiresmed_imaging::Plane;
use hiresmed_inference::{Runtime, Session, SessionOptions, Tensor};

use super::{Blend, Error, graph, reference};
use crate::layer::Layer;

/// One blend, ready to run: on the session's device for `paper` and `feather`, on the host for the others.
#[derive(Debug)]
pub struct Compositor {
    blend: Blend,
    session: Option<Session>,
}

impl Compositor {
    /// Opens the blend's graph on `runtime`.
    pub fn open(runtime: &Runtime, blend: Blend, options: &SessionOptions) -> Result<Self, Error> {
        let bytes = graph(blend)?;
        let session = bytes.map(|bytes| Session::open(runtime, &bytes, options)).transpose()?;
        Ok(Self { blend, session })
    }

    /// The blend that this runs.
    pub fn blend(&self) -> Blend {
        self.blend
    }

    /// The composite of `background` (normalised to [-1, 1]) and `layer`, of the same size; it keeps the background's spacing.
    ///
    /// Only boxes around the lesions are blended: a lesion is a thousandth of an image, and both have to be on the host
    /// anyway, before this for placement and after it to be written.
    pub fn composite(&self, background: &Plane, layer: &Layer) -> Result<Plane, Error> {
        check_size((background.width(), background.height()), layer)?;
        let mut composite = background.clone();
        for window in &layer.windows {
            let (below, lesion) = (background.cropped(window), layer.lesion.cropped(window));
            let part = Layer { lesion, mask: layer.mask.cropped(window), windows: Vec::new() };
            let blended = match &self.session {
                Some(session) => run(session, &below, &part)?,
                None => reference(self.blend, &below, &part)?,
            };
            composite.paste(&blended, window.left, window.top);
        }
        Ok(composite)
    }
}

fn check_size(background: (usize, usize), layer: &Layer) -> Result<(), Error> {
    let size = (layer.mask.width(), layer.mask.height());
    if background == size { Ok(()) } else { Err(Error::Size { background, layer: size }) }
}

/// The blend's graph on one box.
fn run(session: &Session, background: &Plane, layer: &Layer) -> Result<Plane, Error> {
    let shape = [1, 1, background.height(), background.width()];
    let mask = layer.mask.data().iter().map(|&value| f32::from(value)).collect();
    let inputs = [
        ("background", Tensor::f32(shape, background.data().to_vec())?),
        ("lesion", Tensor::f32(shape, layer.lesion.data().to_vec())?),
        ("mask", Tensor::f32(shape, mask)?),
    ];
    let (_, data) = session.run_single(&inputs)?.into_f32()?;
    Ok(Plane::new(background.width(), background.height(), data))
}
