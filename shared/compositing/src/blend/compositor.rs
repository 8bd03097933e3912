//! A blend made ready to run on a device.

use hiresmed_imaging::Plane;
use hiresmed_inference::{DeviceTensor, Runtime, Session, SessionOptions, Tensor};

use super::{Blend, Error, graph, reference};
use crate::layer::Layer;

/// One blend, ready to run: on the session's device for `paper` and `feather`, on the host for `poisson`.
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
    pub fn composite(&self, background: &Plane, layer: &Layer) -> Result<Plane, Error> {
        let Some(session) = &self.session else { return reference(self.blend, background, layer) };
        let size = check_size((background.width(), background.height()), layer)?;
        let [lesion, mask] = tensors(layer)?;
        let background_tensor = Tensor::f32([1, 1, size.1, size.0], background.data().to_vec())?;
        let inputs = [("background", background_tensor), ("lesion", lesion), ("mask", mask)];
        let (_, data) = session.run_single(&inputs)?.into_f32()?;
        Ok(Plane::new(size.0, size.1, data).with_spacing(background.spacing))
    }

    /// The same with the background on the session's device, `f32[1, 1, H, W]`, as a decoder left it; the composite
    /// stays there. `poisson` brings the background to the host.
    pub fn composite_bound(&self, background: &DeviceTensor, layer: &Layer) -> Result<DeviceTensor, Error> {
        let shape = background.shape();
        let [1, 1, height, width] = shape[..] else {
            return Err(Error::Size {
                background: (shape.last().copied().unwrap_or(0), shape.iter().rev().nth(1).copied().unwrap_or(0)),
                layer: (layer.mask.width(), layer.mask.height()),
            });
        };
        check_size((width, height), layer)?;
        let Some(session) = &self.session else {
            let (_, data) = background.to_host()?.into_f32()?;
            let composite = reference(self.blend, &Plane::new(width, height, data), layer)?;
            return Ok(DeviceTensor::from_host(Tensor::f32(shape, composite.into_data())?)?);
        };
        let [lesion, mask] = tensors(layer)?;
        let (lesion, mask) = (DeviceTensor::from_host(lesion)?, DeviceTensor::from_host(mask)?);
        let inputs = [("background", background), ("lesion", &lesion), ("mask", &mask)];
        let output = session.run_bound(&inputs)?.pop();
        let missing = || hiresmed_inference::session::Error::Run { cause: "the blend gave no composite".into() };
        Ok(output.ok_or_else(missing)?.1)
    }
}

fn check_size(background: (usize, usize), layer: &Layer) -> Result<(usize, usize), Error> {
    let size = (layer.mask.width(), layer.mask.height());
    if background == size { Ok(size) } else { Err(Error::Size { background, layer: size }) }
}

fn tensors(layer: &Layer) -> Result<[Tensor; 2], Error> {
    let shape = [1, 1, layer.mask.height(), layer.mask.width()];
    let mask = layer.mask.data().iter().map(|&value| f32::from(value)).collect();
    Ok([Tensor::f32(shape, layer.lesion.data().to_vec())?, Tensor::f32(shape, mask)?])
}
