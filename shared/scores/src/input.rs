//! Images as networks see them.

use hiresmed_imaging::Plane;
use hiresmed_inference::onnx::{Dim, Port};
use hiresmed_inference::{ElementType, Tensor, tensor};

/// The values that a network sees as -1 and 1, in the images' units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Intensity {
    /// Value at -1.
    pub low: f64,
    /// Distance to the value at 1, positive.
    pub range: f64,
}

impl Intensity {
    /// `value` in [-1, 1]; what lies outside is clamped, as a display would.
    fn normalise(self, value: f32) -> f32 {
        (((f64::from(value) - self.low) / self.range * 2.0 - 1.0).clamp(-1.0, 1.0)) as f32
    }
}

/// A grey image in [-1, 1] as a tensor f32[1, channels, H, W], the same in every channel.
///
/// # Errors
/// None in fact: the length follows from the plane.
pub(crate) fn tensor(plane: &Plane, intensity: Intensity, channels: usize) -> Result<Tensor, tensor::Error> {
    let grey: Vec<f32> = plane.data().iter().map(|&value| intensity.normalise(value)).collect();
    Tensor::f32([1, channels, plane.height(), plane.width()], grey.repeat(channels))
}

/// What an image input declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImagePort {
    /// 1 or 3; 3 where the graph leaves it open.
    pub(crate) channels: usize,
    /// Height and width, where the graph fixes both.
    pub(crate) size: Option<(usize, usize)>,
}

impl ImagePort {
    /// Reads an input f32[N, C, H, W]; says what is wrong with it otherwise.
    pub(crate) fn of(port: &Port) -> Result<Self, String> {
        let wrong = || Err(format!("its input is {port}"));
        let Some([batch, channels, height, width]) = port.shape.as_deref() else { return wrong() };
        if port.element != Some(ElementType::F32) || matches!(batch, Dim::Fixed(size) if *size != 1) {
            return wrong();
        }
        let channels = match channels {
            Dim::Fixed(channels @ (1 | 3)) => *channels as usize,
            Dim::Symbol(_) => 3,
            Dim::Fixed(_) => return wrong(),
        };
        let size = match (height, width) {
            (&Dim::Fixed(height), &Dim::Fixed(width)) if height > 0 && width > 0 => {
                Some((height as usize, width as usize))
            }
            (Dim::Symbol(_), Dim::Symbol(_)) => None,
            _ => return wrong(),
        };
        Ok(Self { channels, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(element: ElementType, shape: &[Dim]) -> Port {
        Port { name: "x".to_owned(), element: Some(element), shape: Some(shape.to_vec()) }
    }

    #[test]
    fn values_span_minus_one_to_one_in_every_channel() {
        let plane = Plane::new(2, 2, vec![-1000.0, -300.0, 400.0, 4000.0]);
        let tensor = tensor(&plane, Intensity { low: -1000.0, range: 1400.0 }, 3).unwrap();
        assert_eq!(tensor.shape(), [1, 3, 2, 2]);
        assert_eq!(tensor.as_f32().unwrap(), [-1.0, 0.0, 1.0, 1.0].repeat(3));
    }

    #[test]
    fn image_inputs_are_told_from_others() {
        let open = |channels: i64| [Dim::from("n"), Dim::Fixed(channels), Dim::from("h"), Dim::from("w")];
        let read = |element, shape: &[Dim]| ImagePort::of(&port(element, shape));
        assert_eq!(read(ElementType::F32, &open(1)), Ok(ImagePort { channels: 1, size: None }));
        let fixed = [1, 3, 299, 299].map(Dim::Fixed);
        assert_eq!(read(ElementType::F32, &fixed), Ok(ImagePort { channels: 3, size: Some((299, 299)) }));
        assert!(read(ElementType::F32, &open(2)).unwrap_err().contains("x f32[n, 2, h, w]"));
        assert!(read(ElementType::F16, &open(3)).is_err());
        assert!(read(ElementType::F32, &fixed[..3]).is_err());
        assert!(read(ElementType::F32, &[8, 3, 9, 9].map(Dim::Fixed)).is_err());
    }
}
