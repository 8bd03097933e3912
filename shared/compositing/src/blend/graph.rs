//! `paper` and `feather` as ONNX graphs, so that the composite is made on the background's device.

use hiresmed_inference::ElementType::F32;
use hiresmed_inference::onnx::{self, Convolution, Dim, Graph, Padding, Value};

use super::Blend;
use super::kernel::{
    LEVEL_FLOOR, LEVEL_SIDE, LEVEL_SIGMA, PAPER_SIDE, PAPER_SIGMA, RAMP_SIDE, RAMP_SIGMA, SOBEL, gaussian,
};

/// The blend as an ONNX model: `background`, `lesion`, `mask` (0 or 1), all `f32[N, 1, H, W]`, to `composite` of the same
/// shape. `None` for `poisson` and `attenuation`, which run on the host.
///
/// The composite ends in one `Where`: outside the blended region the background's bits pass through.
pub fn graph(blend: Blend) -> Result<Option<Vec<u8>>, onnx::Error> {
    if matches!(blend, Blend::Poisson | Blend::Attenuation) {
        return Ok(None);
    }
    let mut graph = Graph::new("composite");
    let shape: [Dim; 4] = ["N".into(), 1.into(), "H".into(), "W".into()];
    let background = graph.input("background", F32, &shape);
    let lesion = graph.input("lesion", F32, &shape);
    let mask = graph.input("mask", F32, &shape);
    let composite = match blend {
        Blend::Paper => paper(&mut graph, &background, &lesion, &mask),
        _ => feather(&mut graph, &background, &lesion, &mask),
    };
    graph.output(&composite, "composite", F32, &shape);
    graph.finish().map(Some)
}

fn paper(graph: &mut Graph, background: &Value, lesion: &Value, mask: &Value) -> Value {
    let zero = graph.scalar(0.0);
    let inside = graph.greater(mask, &zero);
    let lesion = graph.clip(lesion, -1.0, 1.0);
    let pasted = graph.r#where(&inside, &lesion, background);
    let transposed: Vec<f32> = (0..9).map(|at| SOBEL[at % 3 * 3 + at / 3]).collect();
    let horizontal = convolve(graph, mask, "sobel_horizontal", 3, &SOBEL);
    let vertical = convolve(graph, mask, "sobel_vertical", 3, &transposed);
    let (horizontal, vertical) = (graph.abs(&horizontal), graph.abs(&vertical));
    let strength = graph.add(&horizontal, &vertical);
    let contour = graph.greater(&strength, &zero);
    let blurred = convolve(graph, &pasted, "contour_blur", PAPER_SIDE, &gaussian(PAPER_SIDE, PAPER_SIGMA));
    let blurred = graph.clip(&blurred, -1.0, 1.0);
    graph.r#where(&contour, &blurred, &pasted)
}

fn feather(graph: &mut Graph, background: &Value, lesion: &Value, mask: &Value) -> Value {
    let (zero, one) = (graph.scalar(0.0), graph.scalar(1.0));
    let coverage = convolve(graph, mask, "ramp", RAMP_SIDE, &gaussian(RAMP_SIDE, RAMP_SIGMA));
    let region = graph.greater(&coverage, &zero);
    let outside = graph.sub(&one, mask);
    let ring = graph.r#where(&region, &outside, &zero);
    let on_ring = graph.greater(&ring, &zero);
    let difference = graph.sub(background, lesion);
    let difference = graph.r#where(&on_ring, &difference, &zero);
    let level = gaussian(LEVEL_SIDE, LEVEL_SIGMA);
    let weight = convolve(graph, &ring, "level_weight", LEVEL_SIDE, &level);
    let floor = graph.scalar(LEVEL_FLOOR);
    let weight = graph.max(&weight, &floor);
    let offset = convolve(graph, &difference, "level", LEVEL_SIDE, &level);
    let offset = graph.div(&offset, &weight);
    // 3c² - 2c³: the ramp with level ends.
    let (two, three) = (graph.scalar(2.0), graph.scalar(3.0));
    let doubled = graph.mul(&two, &coverage);
    let rest = graph.sub(&three, &doubled);
    let square = graph.mul(&coverage, &coverage);
    let alpha = graph.mul(&square, &rest);
    let inverse = graph.sub(&one, &alpha);
    let drawn = graph.mul(&inverse, &offset);
    let lesion = graph.add(lesion, &drawn);
    let change = graph.sub(&lesion, background);
    let change = graph.mul(&alpha, &change);
    let blended = graph.add(background, &change);
    let blended = graph.clip(&blended, -1.0, 1.0);
    graph.r#where(&region, &blended, background)
}

/// Convolution with edges repeated beyond the image, as the reference does it.
fn convolve(graph: &mut Graph, x: &Value, name: &str, side: usize, kernel: &[f32]) -> Value {
    let weight = graph.constant_f32(name, &[1, 1, side, side], kernel);
    let padded = graph.pad(x, [(side / 2) as i64; 4], Padding::Edge);
    graph.conv(&padded, &weight, None, Convolution::default())
}
