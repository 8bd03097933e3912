//! Stage 4: places where anatomy allows a lesion (paper, equations 14 to 16).

use hiresmed_compositing::placement::{self, Candidates, Placer, Refusal, Rules};
use hiresmed_imaging::{Mask, Plane, Window, body};
use hiresmed_models::yolo::Detector;
use hiresmed_protocol::{
    ImageIndex,
    noise::Purpose,
    outcome::Stage,
    request::{Modality, Rule},
};

use super::candidates::window;
use super::models::LocationModel;
use super::{Background, Geometry, Locator, Pipeline, Sampled, Scene, generator};
use crate::jobs::Failure;

/// Clear millimetres between a lesion and the image's edge: a lesion that is cut off has no size.
const BORDER_MM: f64 = 3.0;

/// That border in pixels of `spacing_mm`.
pub(super) fn border_px(spacing_mm: f64) -> usize {
    (BORDER_MM / spacing_mm).ceil().max(2.0) as usize
}

/// Where an image's lesions go.
#[derive(Debug)]
pub struct Placed {
    /// The place of each lesion that found one, in order.
    pub lesions: Vec<placement::Placed>,
    /// Which of them the request gave.
    pub pinned: usize,
    /// M_danger: where a lesion may be.
    pub permissible: Mask,
    /// C_final of the first lesion.
    pub candidates: Plane,
}

/// What equation 16 is made of, for one background.
#[derive(Debug)]
pub struct Anatomy {
    /// C_loc.
    pub weights: Plane,
    /// M_danger: where a lesion may be.
    pub permissible: Mask,
    /// The body that was found in the image.
    pub body: Mask,
}

impl Anatomy {
    /// Without what lies around the source's content.
    pub fn of_content(self, geometry: &Geometry) -> Self {
        if geometry.fills(&self.weights) {
            return self;
        }
        let content = &geometry.content;
        Self {
            weights: self.weights.cropped(content),
            permissible: self.permissible.cropped(content),
            body: self.body.cropped(content),
        }
    }

    /// As placement wants it.
    pub fn scene(&self) -> placement::Scene<'_> {
        placement::Scene { weights: &self.weights, permissible: &self.permissible, body: &self.body }
    }
}

impl Locator {
    /// Body, danger zones and candidates of an image in [-1, 1].
    ///
    /// # Errors
    /// Permanent where a model refuses the image, no body is found in it, or nothing proposes a candidate in the body.
    pub fn anatomy(&self, plane: &Plane) -> Result<Anatomy, Failure> {
        let fail = |error: anyhow::Error| Failure::permanent(Stage::Placement, error);
        let (threshold, nothing) = match self.modality {
            Modality::Ct => (body::THRESHOLD_NORMALISED, format!("denser than {} HU", body::THRESHOLD_HU)),
            Modality::Kub => (body::THRESHOLD_RADIOGRAPH, "brighter than air".to_owned()),
        };
        let body = body::body_above(plane, threshold);
        if body.area() == 0 {
            return Err(fail(anyhow::anyhow!(
                "no body was found in the image: nothing in it is {nothing}; remove it from the input"
            )));
        }
        let permissible = self.danger_zones.permissible_within(plane, &body).map_err(|error| fail(error.into()))?;
        let weights = self.weights(plane, &body).map_err(fail)?;
        Ok(Anatomy { weights, permissible, body })
    }

    /// C_loc (equation 14): how likely a lesion's centre is at each pixel of the body, 0 outside.
    fn weights(&self, plane: &Plane, body: &Mask) -> anyhow::Result<Plane> {
        match &self.location {
            LocationModel::Density(density) => Ok(density.weights(body, plane.spacing)?),
            LocationModel::Detector(detector) => detected(detector, plane, body, self.modality),
            LocationModel::Both(density, detector) => {
                let weights =
                    product(detected(detector, plane, body, self.modality)?, &density.weights(body, plane.spacing)?);
                anyhow::ensure!(
                    weights.data().iter().any(|&weight| weight > 0.0),
                    "no candidate of the detector lies where the spatial prior has lesions; set placement.location to one of them"
                );
                Ok(weights)
            }
        }
    }
}

/// The candidates of a detector in the body.
fn detected(detector: &Detector, plane: &Plane, body: &Mask, modality: Modality) -> anyhow::Result<Plane> {
    let weights = detector.candidates(&windowed(plane, window(modality), detector.window()))?;
    let data = weights.data().iter().zip(body.data()).map(|(&weight, &inside)| if inside != 0 { weight } else { 0.0 });
    let weights = Plane::new(plane.width(), plane.height(), data.collect()).with_spacing(plane.spacing);
    anyhow::ensure!(
        weights.data().iter().any(|&weight| weight > 0.0),
        "the detector proposes no candidate in the body: this image may be of another part of it than those that it was trained on; \
         set placement.location to \"density\", or name another detector in models.yolo"
    );
    Ok(weights)
}

/// `plane`, normalised over `from`, over `to` instead; what lies outside of `from` is lost already.
fn windowed(plane: &Plane, from: Window, to: Window) -> Plane {
    let mut plane = plane.clone();
    if from != to {
        plane.data_mut().iter_mut().for_each(|value| *value = to.normalise(from.denormalise(*value)));
    }
    plane
}

/// Pixel by pixel.
fn product(mut a: Plane, b: &Plane) -> Plane {
    a.data_mut().iter_mut().zip(b.data()).for_each(|(a, b)| *a *= b);
    a
}

impl Pipeline {
    /// What is known of a background before any lesion is placed on it.
    ///
    /// # Errors
    /// As [`Locator::anatomy`].
    pub fn anatomy(&self, background: &Background) -> Result<Anatomy, Failure> {
        self.locator.anatomy(&background.plane)
    }

    /// Places the lesions, pinned ones first. A drawn lesion beyond the least number that was asked for is left out where
    /// it has no room; any other without room fails the image.
    ///
    /// # Errors
    /// Permanent, with the reason of the refusal.
    pub fn placement(&self, index: ImageIndex, scene: &Scene, lesions: &[Sampled]) -> Result<Placed, Failure> {
        let Scene { background, anatomy, geometry, .. } = scene;
        // What a refusal says of pixels is of those in which lesions are placed.
        let of = geometry.map_or_else(String::new, |Geometry { content, columns, rows, .. }| {
            format!(
                " (in pixels of the image at {} x {}, which is delivered at {columns} x {rows})",
                content.width, content.height
            )
        });
        let refuse = |n: usize, error: Refusal| {
            Failure::permanent(Stage::Placement, anyhow::Error::new(error).context(format!("lesion {}{of}", n + 1)))
        };
        let rules = self.rules(background.spacing_mm(), geometry.as_ref());
        let mut placer = Placer::new(anatomy.scene(), rules).map_err(|error| refuse(0, error))?;
        let least = self.request.lesions.count.min as usize;
        let positions = &self.request.placement.positions;
        let mut evidence = lesions.is_empty().then(|| anatomy.weights.clone());
        for (n, lesion) in lesions.iter().enumerate() {
            let candidates = placer.candidates(&lesion.mask);
            let placed = match positions.get(n) {
                Some(&position) => placer.place_at(&lesion.mask, pixel(position, geometry.as_ref(), n)?),
                None => candidates.as_ref().map_err(Refusal::clone).and_then(|candidates| {
                    let mut noise = generator(&self.request, index, Purpose::Placement(n as u32));
                    placer.place_among(&lesion.mask, candidates, &mut noise)
                }),
            };
            if n == 0 {
                evidence = candidates.ok().map(|Candidates { map, .. }| map);
            }
            match placed {
                Ok(_) => {}
                Err(Refusal::NoRoom { .. } | Refusal::NoCandidate { .. }) if n >= least.max(positions.len()) => break,
                Err(error) => return Err(refuse(n, error)),
            }
        }
        let places = placer.placed().to_vec();
        Ok(Placed {
            pinned: positions.len().min(places.len()),
            lesions: places,
            // A first lesion that was pinned by force may fit nowhere else.
            candidates: evidence
                .unwrap_or_else(|| Plane::filled(background.plane.width(), background.plane.height(), 0.0)),
            permissible: anatomy.permissible.clone(),
        })
    }

    /// The request's rules in pixels. Where a pixel of the source is the larger one, lesions keep two of those from each other and
    /// from the image's edge.
    fn rules(&self, spacing_mm: f64, geometry: Option<&Geometry>) -> Rules {
        let wanted = &self.request.placement;
        let least_px = geometry.map_or(0, Geometry::margin_px);
        Rules {
            rule: match wanted.rule {
                Rule::Footprint => placement::Rule::Footprint,
                Rule::Centre => placement::Rule::Centre,
            },
            gap_px: ((wanted.gap_mm / spacing_mm).ceil() as usize).max(least_px),
            border_px: border_px(spacing_mm).max(least_px),
            override_danger: wanted.override_danger,
        }
    }
}

/// The pixel in which lesion `n`, from 0, is to be centred by a position of the request.
fn pixel([x, y]: [f64; 2], geometry: Option<&Geometry>, n: usize) -> Result<(usize, usize), Failure> {
    let Some(geometry) = geometry else { return Ok((x.round().max(0.0) as usize, y.round().max(0.0) as usize)) };
    geometry.content_pixel([x, y]).ok_or_else(|| {
        let Geometry { columns, rows, .. } = geometry;
        let text = format!(
            "lesion {}: placement.positions has [{x}, {y}], outside of its source, an image of {columns} x {rows} pixels; with \
             output.geometry \"source\" positions are in pixels of the source",
            n + 1
        );
        Failure::permanent(Stage::Placement, anyhow::anyhow!(text))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hiresmed_imaging::Spacing;
    use hiresmed_inference::onnx::{Dim, Graph};
    use hiresmed_inference::{ElementType, Runtime, Session, SessionOptions};
    use hiresmed_models::density::{Annotation, Fit, Prior, fit};
    use hiresmed_models::unet::{self, DangerZones};

    use super::*;

    fn session(graph: Graph) -> Session {
        Session::open(&Runtime::load().unwrap(), &graph.finish().unwrap(), &SessionOptions::default()).unwrap()
    }

    /// Permits every place.
    fn permissive() -> DangerZones {
        let mut graph = Graph::new("unet");
        let dims = [Dim::from("n"), Dim::Fixed(1), Dim::from("h"), Dim::from("w")];
        let x = graph.input("x", ElementType::F32, &dims);
        let x = graph.abs(&x);
        let one = graph.scalar(1.0);
        let y = graph.add(&x, &one);
        graph.output(&y, "logits", ElementType::F32, &dims);
        DangerZones::new(unet::Config { widths: vec![4], side: 32 }, session(graph)).unwrap()
    }

    /// Finds these boxes (left, top, right, bottom, score, class) in a frame of 128 px, whatever it sees.
    fn detector(boxes: &[[f32; 6]]) -> Detector {
        let mut graph = Graph::new("yolo");
        let dims = [Dim::Fixed(1), Dim::Fixed(1), Dim::Fixed(128), Dim::Fixed(128)];
        let image = graph.input("images", ElementType::F32, &dims);
        let mean = graph.reduce_mean(&image, &[2, 3], false);
        let zero = graph.scalar(0.0);
        let nothing = graph.mul(&mean, &zero);
        let values = graph.constant_f32("boxes", &[1, boxes.len(), 6], boxes.as_flattened());
        let output = graph.add(&values, &nothing);
        let dims = [1, boxes.len() as i64, 6].map(Dim::Fixed);
        graph.output(&output, "output0", ElementType::F32, &dims);
        Detector::new(session(graph), Window { low: -160.0, high: 240.0 }, None).unwrap()
    }

    /// Lesions about 40 mm right of the body's middle in the image.
    fn prior() -> Prior {
        let nodule = Annotation { scan: 1, slices: (0, 0), x_mm: 25.0, y_mm: 0.0 };
        Prior::new(fit(&[nodule], &Fit { body_mm: [100.0, 100.0], ..Fit::default() }).unwrap()).unwrap()
    }

    /// A body of 100 x 100 mm in air.
    fn plane() -> Plane {
        let inside = |at: usize| (14..114).contains(&(at % 128)) && (14..114).contains(&(at / 128));
        let data = (0..128 * 128).map(|at| if inside(at) { 0.5 } else { -1.0 }).collect();
        Plane::new(128, 128, data).with_spacing(Some(Spacing::square(1.0)))
    }

    fn anatomy(location: LocationModel) -> Result<Anatomy, Failure> {
        Locator { danger_zones: Arc::new(permissive()), location, modality: Modality::Ct }.anatomy(&plane())
    }

    fn sum(weights: &Plane, columns: std::ops::Range<usize>) -> f32 {
        columns.flat_map(|x| (0..128).map(move |y| (x, y))).map(|(x, y)| weights.at(x, y)).sum()
    }

    #[test]
    fn candidates_come_from_the_detector_or_from_both() {
        let left = [36.0, 60.0, 44.0, 68.0, 0.6, 0.0];
        let right = [86.0, 60.0, 94.0, 68.0, 0.2, 0.0];
        let outside = [1.0, 1.0, 5.0, 5.0, 0.9, 0.0];
        let detected = anatomy(LocationModel::Detector(Arc::new(detector(&[left, right, outside])))).unwrap();
        let (on_left, on_right) = (sum(&detected.weights, 0..64), sum(&detected.weights, 64..128));
        assert!((on_left / on_right - 3.0).abs() < 0.01, "{on_left} {on_right}");
        assert_eq!(detected.weights.at(3, 3), 0.0, "outside the body");
        let both = LocationModel::Both(Arc::new(prior()), Arc::new(detector(&[left, right])));
        let both = anatomy(both).unwrap();
        let prior = anatomy(LocationModel::Density(Arc::new(prior()))).unwrap();
        for (x, y) in [(40, 64), (90, 64), (92, 66), (64, 64)] {
            let expected = prior.weights.at(x, y) * detected.weights.at(x, y);
            assert!((both.weights.at(x, y) - expected).abs() <= 1e-6 * expected, "{x} {y}");
        }
    }

    #[test]
    fn a_detector_that_proposes_nothing_in_the_body_is_an_error_that_says_so() {
        let outside = [1.0, 1.0, 5.0, 5.0, 0.9, 0.0];
        let unsure = [36.0, 60.0, 44.0, 68.0, 0.001, 0.0];
        let failure = anatomy(LocationModel::Detector(Arc::new(detector(&[outside, unsure])))).unwrap_err();
        assert!(failure.to_string().contains("proposes no candidate in the body"), "{failure}");
    }

    #[test]
    fn a_detector_sees_its_own_window() {
        let water = Window::LUNG_CT.normalise(40.0);
        let plane = windowed(&Plane::filled(2, 2, water), Window::LUNG_CT, Window { low: -160.0, high: 240.0 });
        assert!(plane.at(1, 1).abs() < 1e-6, "{}", plane.at(1, 1));
    }
}
