//! A detector at work on images of any size, through ONNX Runtime; and its boxes as candidates (equation 14).

use hiresmed_imaging::{Plane, Window, resample};
use hiresmed_inference::onnx::{Dim, Port};
use hiresmed_inference::package::{Kind, Package};
use hiresmed_inference::{Runtime, Session, SessionOptions, Tensor};

use super::Error;
use super::config::PADDING;
use crate::data::Region;

/// Side of the network's square where neither the graph nor the package says it: that of YOLO11's exports.
const SIDE: usize = 640;

/// A lesion that was found, in pixels of the image that was searched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// Kind of lesion, from 0.
    pub class: usize,
    /// Probability, as the network sees it.
    pub score: f32,
    /// Where.
    pub region: Region,
}

/// What counts as found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Search {
    /// Boxes with a lower score are dropped.
    pub least_score: f32,
    /// Of two boxes of one class that overlap (IoU) by more than this, the less sure one is dropped.
    pub most_overlap: f32,
    /// The surest so many are kept.
    pub most: usize,
}

impl Default for Search {
    /// The usual ones: 0.25, 0.7, 300.
    fn default() -> Self {
        Self { least_score: 0.25, most_overlap: 0.7, most: 300 }
    }
}

impl Search {
    /// For places where a lesion might lie, rather than where one does: nearly everything counts.
    pub const CANDIDATES: Self = Self { least_score: 0.005, most_overlap: 0.5, most: 300 };
}

/// A detector package, opened.
#[derive(Debug)]
pub struct Detector {
    session: Session,
    window: Window,
    /// Of the network's input.
    input: String,
    channels: usize,
    width: usize,
    height: usize,
}

impl Detector {
    /// Opens a package's `detect` graph: one that was trained here, or any YOLO11 export.
    ///
    /// # Errors
    /// For a package of another kind, without a window, or whose graph does not open or takes no grey or colour image.
    pub fn open(package: &Package, runtime: &Runtime, options: &SessionOptions) -> Result<Self, Error> {
        let fault = |fault: String| Error::Configuration { faults: vec![fault] };
        if package.kind() != Kind::Yolo {
            return Err(fault(format!("the package {:?} is a {}, not a yolo", package.name(), package.kind())));
        }
        let description = package.description();
        let window = description.window.ok_or_else(|| fault("window is missing".to_owned()))?;
        let side = description.configuration["side"].as_u64().and_then(|side| usize::try_from(side).ok());
        let window = Window { low: window.low, high: window.high };
        Self::new(package.session("detect", runtime, options)?, window, side)
    }

    /// A detector over an open session. `window` is the range of real-world values that the network sees as [0, 1]; `side` counts
    /// where the graph leaves its input's size open.
    ///
    /// # Errors
    /// [`Error::Configuration`] where the graph takes no grey or colour image.
    pub fn new(session: Session, window: Window, side: Option<usize>) -> Result<Self, Error> {
        let open = side.unwrap_or(SIDE).clamp(32, 8192);
        let port = session.inputs().first();
        let size = |axis: usize, open: usize| match port.and_then(|port| fixed(port, axis)) {
            Some(size) => size,
            None => open,
        };
        let (channels, height, width) = (size(1, 3), size(2, open), size(3, open));
        let input = port.map(|port| port.name.clone()).unwrap_or_default();
        if !matches!(channels, 1 | 3) || height == 0 || width == 0 {
            let faults = vec![format!("its input is {channels} x {height} x {width}, expected 1 or 3 channels")];
            return Err(Error::Configuration { faults });
        }
        Ok(Self { session, window, input, channels, width, height })
    }

    /// The range of real-world values that an image must be normalised over.
    pub fn window(&self) -> Window {
        self.window
    }

    /// The lesions in `image`, normalised to [-1, 1] over the detector's window; surest first.
    ///
    /// # Errors
    /// [`Error::Session`], [`Error::NotFinite`], [`Error::Configuration`] for an output that is of no known layout.
    pub fn detect(&self, image: &Plane, search: &Search) -> Result<Vec<Detection>, Error> {
        if image.data().is_empty() {
            return Ok(Vec::new());
        }
        let (boxed, letterbox) = Letterbox::fit(image, self.width, self.height);
        let data = boxed.into_data().repeat(self.channels);
        let input = Tensor::f32([1, self.channels, self.height, self.width], data)?;
        let mut outputs = self.session.run(&[(&self.input, input)])?;
        if outputs.is_empty() {
            return Err(Error::Configuration { faults: vec!["the graph gave no output".to_owned()] });
        }
        // An export for segmentation has its boxes first, too.
        let (shape, data) = outputs.swap_remove(0).1.into_f32()?;
        let found = decode(&shape, &data, search.least_score)?;
        let mut kept = suppress(found, search);
        for detection in &mut kept {
            detection.region = letterbox.back(detection.region, image);
        }
        kept.retain(|detection| detection.region.area() > 0.0);
        Ok(kept)
    }

    /// C_loc (equation 14) over `image`: where the detector sees a lesion as possible, at a low threshold. Every box is a candidate
    /// as heavy as its score, spread over a normal distribution with half of the box's sides as its deviations.
    ///
    /// # Errors
    /// As [`detect`](Self::detect).
    pub fn candidates(&self, image: &Plane) -> Result<Plane, Error> {
        let found = self.detect(image, &Search::CANDIDATES)?;
        Ok(spread(&found, image.width(), image.height()).with_spacing(image.spacing))
    }
}

fn fixed(port: &Port, axis: usize) -> Option<usize> {
    match port.shape.as_ref()?.get(axis)? {
        Dim::Fixed(size) => usize::try_from(*size).ok(),
        Dim::Symbol(_) => None,
    }
}

/// How an image lies within the network's frame.
#[derive(Debug, Clone, Copy)]
struct Letterbox {
    /// Pixels of the frame for a pixel of the image, along each axis.
    scale: (f32, f32),
    left: usize,
    top: usize,
}

impl Letterbox {
    /// `image` in [-1, 1] as large as it fits into `width x height`, centred, grey around it; in [0, 1].
    fn fit(image: &Plane, width: usize, height: usize) -> (Plane, Self) {
        let ratio = (width as f64 / image.width() as f64).min(height as f64 / image.height() as f64);
        let side = |length: usize, most: usize| ((length as f64 * ratio).round() as usize).clamp(1, most);
        let (columns, rows) = (side(image.width(), width), side(image.height(), height));
        let mut small = resample::resize(image, columns, rows, resample::Filter::Area);
        small.data_mut().iter_mut().for_each(|value| *value = (*value + 1.0) / 2.0);
        let (left, top) = ((width - columns) / 2, (height - rows) / 2);
        let mut frame = Plane::filled(width, height, PADDING);
        frame.paste(&small, left, top);
        let scale = (columns as f32 / image.width() as f32, rows as f32 / image.height() as f32);
        (frame, Self { scale, left, top })
    }

    /// A box of the frame in the image, cut off at its edges.
    fn back(&self, region: Region, image: &Plane) -> Region {
        let x = |x: f32| ((x - self.left as f32) / self.scale.0).clamp(0.0, image.width() as f32);
        let y = |y: f32| ((y - self.top as f32) / self.scale.1).clamp(0.0, image.height() as f32);
        Region { left: x(region.left), top: y(region.top), right: x(region.right), bottom: y(region.bottom) }
    }
}

/// The boxes with `least_score` or more, of either layout: `[1, 4 + classes, n]` with centre, size and each class's score, or
/// `[1, n, 6]` (an export with `nms=True`) with corners, score and class.
fn decode(shape: &[usize], data: &[f32], least_score: f32) -> Result<Vec<Detection>, Error> {
    if data.iter().any(|value| !value.is_finite()) {
        return Err(Error::NotFinite);
    }
    let fault = |fault: String| Error::Configuration { faults: vec![fault] };
    let found: Vec<Detection> = match *shape {
        [1, _, 6] => {
            let rows = data.as_chunks::<6>().0.iter();
            rows.filter(|row| row[4] >= least_score)
                .map(|&[left, top, right, bottom, score, class]| Detection {
                    class: class.max(0.0) as usize,
                    score,
                    region: Region { left, top, right, bottom },
                })
                .collect()
        }
        [1, rows, cells] if rows >= 5 && cells > 0 => {
            let row = |at: usize| &data[at * cells..(at + 1) * cells];
            let of = |cell: usize| {
                let scores = (4..rows).map(|at| row(at)[cell]).enumerate();
                let (class, score) = scores.max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))?;
                let [x, y, width, height] = [0, 1, 2, 3].map(|at| row(at)[cell]);
                let region = Region::about((x, y), width.max(0.0), height.max(0.0));
                (score >= least_score).then_some(Detection { class, score, region })
            };
            (0..cells).filter_map(of).collect()
        }
        _ => return Err(fault(format!("the graph gave shape {shape:?}, expected [1, 4 + classes, n] or [1, n, 6]"))),
    };
    match found.iter().find(|detection| detection.score > 1.0 + 1e-3) {
        Some(Detection { score, .. }) => Err(fault(format!(
            "the graph gave a score of {score}; scores are probabilities, without an activation the export is of no use"
        ))),
        None => Ok(found),
    }
}

/// The surest boxes, without those that overlap a surer one of their class (non-maximum suppression).
fn suppress(mut found: Vec<Detection>, search: &Search) -> Vec<Detection> {
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Detection> = Vec::new();
    for detection in found {
        if kept.len() == search.most {
            break;
        }
        let again = kept
            .iter()
            .any(|surer| surer.class == detection.class && surer.region.iou(&detection.region) > search.most_overlap);
        if !again {
            kept.push(detection);
        }
    }
    kept
}

/// The sum of the candidates' normal distributions, cut off at three deviations.
fn spread(found: &[Detection], width: usize, height: usize) -> Plane {
    let mut weights = Plane::filled(width, height, 0.0);
    for Detection { score, region, .. } in found {
        let (x, y) = region.centre();
        let (sx, sy) = ((region.width() / 2.0).max(1.0), (region.height() / 2.0).max(1.0));
        let peak = score / (std::f32::consts::TAU * sx * sy);
        let range = |middle: f32, deviation: f32, length: usize| {
            let first = (middle - 3.0 * deviation).max(0.0) as usize;
            first..((middle + 3.0 * deviation).ceil().max(0.0) as usize).min(length)
        };
        for row in range(y, sy, height) {
            let dy = (row as f32 + 0.5 - y) / sy;
            for column in range(x, sx, width) {
                let dx = (column as f32 + 0.5 - x) / sx;
                let weight = peak * (-(dx * dx + dy * dy) / 2.0).exp();
                weights.set(column, row, weights.at(column, row) + weight);
            }
        }
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;
    use hiresmed_inference::ElementType;
    use hiresmed_inference::onnx::{Graph, Value};

    /// A graph that takes `[1, channels, side, side]` and gives `values` of `shape`, whatever the image; and adds the image's mean,
    /// times 0, so that the input is used.
    fn constant(channels: i64, side: Dim, shape: [usize; 3], values: &[f32]) -> Session {
        let mut graph = Graph::new("constant");
        let dims = [Dim::from("n"), Dim::Fixed(channels), side.clone(), side];
        let image = graph.input("images", ElementType::F32, &dims);
        let mean = graph.reduce_mean(&image, &[1, 2, 3], false);
        let zero = graph.scalar(0.0);
        let nothing = graph.mul(&mean, &zero);
        let nothing = graph.unsqueeze(&nothing, &[1, 2]);
        let values = graph.constant_f32("values", &shape, values);
        let output: Value = graph.add(&values, &nothing);
        graph.output(&output, "output0", ElementType::F32, &shape.map(|size| Dim::Fixed(size as i64)));
        Session::open(&Runtime::load().unwrap(), &graph.finish().unwrap(), &SessionOptions::default()).unwrap()
    }

    fn close(a: &Region, b: &Region) -> bool {
        let pairs = [(a.left, b.left), (a.top, b.top), (a.right, b.right), (a.bottom, b.bottom)];
        pairs.iter().all(|(a, b)| (a - b).abs() < 1e-3)
    }

    #[test]
    fn both_layouts_give_the_same_boxes_in_the_images_own_pixels() {
        // 128 x 64 px in a frame of 64: half the size, 16 px of grey above and below.
        let image = Plane::filled(128, 64, 0.0);
        let expected = Region { left: 20.0, top: 10.0, right: 40.0, bottom: 20.0 };
        // The lesion, nearly the same box again, another class there, and one that is not sure.
        #[rustfmt::skip]
        let raw = [
            15.0, 15.1, 15.0, 50.0,
            23.5, 23.5, 23.5, 50.0,
            10.0, 10.0, 10.0, 4.0,
            5.0, 5.0, 5.0, 4.0,
            0.9, 0.8, 0.1, 0.2,
            0.1, 0.1, 0.7, 0.1,
        ];
        let window = Window::LUNG_CT;
        let detector = Detector::new(constant(1, Dim::Fixed(64), [1, 6, 4], &raw), window, None).unwrap();
        let found = detector.detect(&image, &Search::default()).unwrap();
        assert_eq!(found.iter().map(|found| (found.class, found.score)).collect::<Vec<_>>(), [(0, 0.9), (1, 0.7)]);
        assert!(close(&found[0].region, &expected), "{found:?}");
        #[rustfmt::skip]
        let corners = [
            10.0, 21.0, 20.0, 26.0, 0.9, 0.0,
            10.0, 21.0, 20.0, 26.0, 0.7, 1.0,
            0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
        ];
        // Colour, and a size that the graph leaves open.
        let session = constant(3, Dim::from("s"), [1, 3, 6], &corners);
        let other = Detector::new(session, window, Some(64)).unwrap().detect(&image, &Search::default()).unwrap();
        assert_eq!(other.len(), 2);
        assert!(found.iter().zip(&other).all(|(a, b)| a.class == b.class && close(&a.region, &b.region)), "{other:?}");
    }

    #[test]
    fn candidates_are_as_heavy_as_their_scores() {
        let corners = [10.0, 10.0, 20.0, 20.0, 0.6, 0.0, 40.0, 36.0, 44.0, 44.0, 0.2, 0.0];
        let session = constant(1, Dim::Fixed(64), [1, 2, 6], &corners);
        let detector = Detector::new(session, Window::LUNG_CT, None).unwrap();
        let weights = detector.candidates(&Plane::filled(64, 64, 0.0)).unwrap();
        let sum = |left: usize, right: usize| {
            let rows = (0..64).flat_map(|y| (left..right).map(move |x| (x, y)));
            rows.map(|(x, y)| weights.at(x, y)).sum::<f32>()
        };
        // Three deviations hold 98.9 % of a normal distribution over the plane.
        assert!((sum(0, 32) - 0.6).abs() < 0.01 && (sum(32, 64) - 0.2).abs() < 0.01, "{} {}", sum(0, 32), sum(32, 64));
        assert!(weights.data().iter().all(|weight| (0.0..1.0).contains(weight)));
    }

    #[test]
    fn outputs_that_are_none_are_refused() {
        let detect = |shape: [usize; 3], values: &[f32]| {
            let detector = Detector::new(constant(1, Dim::Fixed(64), shape, values), Window::LUNG_CT, None).unwrap();
            detector.detect(&Plane::filled(8, 8, 0.0), &Search::default()).unwrap_err()
        };
        assert!(matches!(detect([1, 5, 1], &[1.0, 1.0, 1.0, f32::NAN, 0.5]), Error::NotFinite));
        assert!(detect([1, 5, 1], &[1.0, 1.0, 1.0, 1.0, 3.5]).to_string().contains("score of 3.5"));
        assert!(detect([1, 4, 2], &[0.0; 8]).to_string().contains("[1, 4, 2]"));
        let two = constant(2, Dim::Fixed(64), [1, 5, 1], &[0.0; 5]);
        assert!(Detector::new(two, Window::LUNG_CT, None).unwrap_err().to_string().contains("1 or 3 channels"));
    }
}
