//! Every operator that the writer offers, run by ONNX Runtime and compared with a plain computation.

use super::{Convolution, Dim, Graph, Interpolation, Padding, Pool, Value};
use crate::{ElementType, Runtime, Session, SessionOptions, Tensor};

const IMAGE: [&str; 4] = ["N", "C", "H", "W"];

fn dims(symbols: &[&str]) -> Vec<Dim> {
    symbols.iter().map(|&symbol| Dim::from(symbol)).collect()
}

/// Runs `build` on one image of `shape` and returns shape and elements.
fn run(shape: [usize; 4], data: &[f32], build: impl FnOnce(&mut Graph, &Value) -> Value) -> (Vec<usize>, Vec<f32>) {
    let mut graph = Graph::new("operator");
    let x = graph.input("x", ElementType::F32, &dims(&IMAGE));
    let y = build(&mut graph, &x);
    graph.output(&y, "y", ElementType::F32, &dims(&["a", "b", "c", "d"]));
    let bytes = graph.finish().unwrap();
    let options = SessionOptions { threads: 1, ..Default::default() };
    let session = Session::open(&Runtime::load().unwrap(), &bytes, &options).unwrap();
    let x = Tensor::f32(shape, data.to_vec()).unwrap();
    session.run_single(&[("x", x)]).unwrap().into_f32().unwrap()
}

/// Reproducible values in [-1, 1).
fn noise(count: usize) -> Vec<f32> {
    let mut state = 0x9E37_79B9_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (index, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance, "element {index}: {a} is not {b}");
    }
}

#[test]
fn group_norm_is_its_definition() {
    let (channels, groups, pixels) = (6, 3, 20);
    let x: Vec<f32> = noise(2 * channels * pixels).iter().map(|value| value * 3.0 + 0.7).collect();
    let (scale, bias) = (noise(6), noise(12)[6..].to_vec());
    let mut expected = vec![0.0; x.len()];
    let size = channels / groups * pixels;
    for (group, block) in x.chunks(size).enumerate() {
        let mean = block.iter().sum::<f32>() / size as f32;
        let variance = block.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / size as f32;
        for (index, value) in block.iter().enumerate() {
            let channel = (group * size + index) / pixels % channels;
            expected[group * size + index] = (value - mean) / (variance + 1e-5).sqrt() * scale[channel] + bias[channel];
        }
    }
    let (shape, y) = run([2, channels, 4, 5], &x, |graph, x| {
        let scale = graph.constant_f32("norm.weight", &[6], &scale);
        let bias = graph.constant_f32("norm.bias", &[6], &bias);
        // Twice, since the constants inside are shared.
        graph.group_norm(x, groups, &scale, &bias, 1e-5);
        graph.group_norm(x, groups, &scale, &bias, 1e-5)
    });
    assert_eq!(shape, [2, 6, 4, 5]);
    assert_close(&y, &expected, 1e-5);
}

#[test]
fn activations_are_their_formulas() {
    let x = noise(64);
    let silu: Vec<f32> = x.iter().map(|&v| v / (1.0 + (-v).exp())).collect();
    assert_close(&run([1, 1, 8, 8], &x, |graph, x| graph.silu(x)).1, &silu, 1e-6);
    let (_, gelu) = run([1, 1, 1, 3], &[-1.0, 0.5, 2.0], |graph, x| graph.gelu(x));
    // x·Φ(x) from tables of the normal distribution.
    assert_close(&gelu, &[-0.158_655_25, 0.345_731_23, 1.954_499_7], 1e-6);
    let leaky: Vec<f32> = x.iter().map(|&v| if v < 0.0 { 0.2 * v } else { v }).collect();
    assert_close(&run([1, 1, 8, 8], &x, |graph, x| graph.leaky_relu(x, 0.2)).1, &leaky, 1e-7);
    let (_, softmax) = run([1, 2, 1, 1], &[0.0, 2.0_f32.ln()], |graph, x| graph.softmax(x, 1));
    assert_close(&softmax, &[1.0 / 3.0, 2.0 / 3.0], 1e-6);
    let batch: Vec<f32> = x.iter().map(|&v| (v - 0.25) / (4.0_f32 + 1e-5).sqrt() * 3.0 - 1.0).collect();
    let (_, y) = run([1, 1, 8, 8], &x, |graph, x| {
        let parts = [("scale", 3.0), ("bias", -1.0), ("mean", 0.25), ("variance", 4.0)];
        let [scale, bias, mean, variance] = parts.map(|(name, value)| graph.constant_f32(name, &[1], &[value]));
        graph.batch_norm(x, (&scale, &bias), (&mean, &variance), 1e-5)
    });
    assert_close(&y, &batch, 1e-6);
}

#[test]
fn convolutions_slide_their_windows() {
    // A kernel with one tap at its top left shifts the image down and right by one.
    let x = [1.0, 2.0, 3.0, 4.0];
    let mut tap = [0.0; 9];
    tap[0] = 1.0;
    let geometry = Convolution { padding: 1, ..Default::default() };
    let (_, y) = run([1, 1, 2, 2], &x, |graph, x| {
        let weight = graph.constant_f32("weight", &[1, 1, 3, 3], &tap);
        let bias = graph.constant_f32("bias", &[1], &[0.5]);
        graph.conv(x, &weight, Some(&bias), geometry)
    });
    assert_eq!(y, [0.5, 0.5, 0.5, 1.5]);

    // Kernel 2 and stride 2 paint each pixel as a block.
    let geometry = Convolution { stride: 2, ..Default::default() };
    let (shape, y) = run([1, 1, 1, 2], &[3.0, 5.0], |graph, x| {
        let weight = graph.constant_f32("weight", &[1, 1, 2, 2], &[1.0, 2.0, 3.0, 4.0]);
        graph.conv_transpose(x, &weight, None, geometry, 0)
    });
    assert_eq!((shape, y), (vec![1, 1, 2, 4], vec![3.0, 6.0, 5.0, 10.0, 9.0, 12.0, 15.0, 20.0]));

    // Depth-wise: each channel has its own weight.
    let geometry = Convolution { groups: 2, ..Default::default() };
    let (_, y) = run([1, 2, 1, 2], &[1.0, 2.0, 3.0, 4.0], |graph, x| {
        let weight = graph.constant_f32("weight", &[2, 1, 1, 1], &[10.0, -1.0]);
        graph.conv(x, &weight, None, geometry)
    });
    assert_eq!(y, [10.0, 20.0, -3.0, -4.0]);

    let pool = Pool { kernel: 2, stride: 2, padding: 0 };
    let x = [1.0, 5.0, -1.0, -2.0, 3.0, 4.0, -3.0, -4.0];
    assert_eq!(run([1, 1, 2, 4], &x, |graph, x| graph.max_pool(x, pool)).1, [5.0, -1.0]);
    assert_eq!(run([1, 1, 2, 4], &x, |graph, x| graph.average_pool(x, pool)).1, [3.25, -2.5]);
    assert_eq!(run([1, 2, 2, 2], &x, |graph, x| graph.global_average_pool(x)).1, [0.75, 0.0]);
}

/// One row resized as PyTorch does it: taps around `(i + 0.5) · scale - 0.5`, clamped at the border.
fn resized_row(row: &[f32], size: usize, interpolation: Interpolation) -> Vec<f32> {
    let scale = row.len() as f64 / size as f64;
    let at = |index: i64| f64::from(row[index.clamp(0, row.len() as i64 - 1) as usize]);
    let cubic = |distance: f64| {
        let (a, d) = (-0.75, distance.abs());
        if d <= 1.0 {
            ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
        } else if d < 2.0 {
            ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a
        } else {
            0.0
        }
    };
    let value = |index: usize| {
        let centre = (index as f64 + 0.5) * scale - 0.5;
        let first = centre.floor() as i64;
        match interpolation {
            Interpolation::Cubic => (first - 1..=first + 2).map(|tap| at(tap) * cubic(centre - tap as f64)).sum(),
            Interpolation::Linear => {
                let (fraction, centre) = (centre.max(0.0).fract(), centre.max(0.0) as i64);
                at(centre) * (1.0 - fraction) + at(centre + 1) * fraction
            }
            Interpolation::Nearest => at((index as f64 * scale) as i64),
        }
    };
    (0..size).map(|index| value(index) as f32).collect()
}

#[test]
fn resizing_equals_the_reference_up_and_down() {
    let row = noise(7);
    for interpolation in [Interpolation::Cubic, Interpolation::Linear, Interpolation::Nearest] {
        for size in [3, 7, 11, 28] {
            let (shape, y) = run([1, 1, 1, 7], &row, |graph, x| {
                let size = graph.integers(&[1, size as i64]);
                graph.resize_to(x, &size, interpolation)
            });
            assert_eq!(shape, [1, 1, 1, size]);
            assert_close(&y, &resized_row(&row, size, interpolation), 2e-6);
        }
    }
    let (shape, y) = run([1, 1, 1, 7], &row, |graph, x| graph.resize_by(x, 2, Interpolation::Linear));
    assert_eq!(shape, [1, 1, 2, 14]);
    assert_close(&y[..14], &resized_row(&row, 14, Interpolation::Linear), 2e-6);
}

#[test]
fn layout_moves_what_it_says() {
    let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let (shape, y) = run([1, 1, 2, 3], &x, |graph, x| graph.transpose(x, &[0, 1, 3, 2]));
    assert_eq!((shape, y), (vec![1, 1, 3, 2], vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
    assert_eq!(run([1, 1, 2, 3], &x, |graph, x| graph.slice(x, 3, -2, i64::MAX)).1, [2.0, 3.0, 5.0, 6.0]);
    let (_, y) = run([1, 1, 2, 3], &x, |graph, x| {
        let last = graph.integers(&[2, 0]);
        graph.gather(x, &last, 3)
    });
    assert_eq!(y, [3.0, 1.0, 6.0, 4.0]);
    let (shape, y) = run([1, 1, 1, 2], &[1.0, 2.0], |graph, x| graph.pad(x, [0, 1, 1, 2], Padding::Edge));
    assert_eq!((shape, y), (vec![1, 1, 2, 5], vec![1.0, 1.0, 2.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0, 2.0]));
    assert_eq!(run([1, 1, 1, 2], &[1.0, 2.0], |graph, x| graph.pad(x, [0, 1, 0, 0], Padding::Zero)).1, [0.0, 1.0, 2.0]);
    assert_eq!(
        run([1, 1, 1, 2], &[1.0, 2.0], |graph, x| graph.pad(x, [0, 1, 0, 0], Padding::Reflect)).1,
        [2.0, 1.0, 2.0]
    );
    let (shape, _) = run([1, 1, 2, 3], &x, |graph, x| {
        let squeezed = graph.squeeze(x, &[0]);
        let doubled = graph.concat(&[&squeezed, &squeezed], 0);
        let size = graph.spatial_shape(x);
        let leading = graph.integers(&[1, 2]);
        let shape = graph.concat(&[&leading, &size], 0);
        let doubled = graph.unsqueeze(&doubled, &[0]);
        graph.expand(&doubled, &shape)
    });
    assert_eq!(shape, [1, 2, 2, 3]);
}

#[test]
fn rolling_brings_in_at_one_end_what_left_at_the_other() {
    let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    assert_eq!(run([1, 1, 2, 3], &x, |graph, x| graph.roll(x, 3, 1)).1, [3.0, 1.0, 2.0, 6.0, 4.0, 5.0]);
    assert_eq!(run([1, 1, 2, 3], &x, |graph, x| graph.roll(x, 3, -1)).1, [2.0, 3.0, 1.0, 5.0, 6.0, 4.0]);
    assert_eq!(run([1, 1, 2, 3], &x, |graph, x| graph.roll(x, 2, 1)).1, [4.0, 5.0, 6.0, 1.0, 2.0, 3.0]);
}

#[test]
fn layer_norm_is_its_definition() {
    let x: Vec<f32> = noise(12).iter().map(|value| value * 3.0 + 0.7).collect();
    let (scale, bias) = (noise(4), noise(8)[4..].to_vec());
    let mut expected = Vec::new();
    for row in x.chunks(4) {
        let mean = row.iter().sum::<f32>() / 4.0;
        let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / 4.0;
        let normal = row.iter().map(|value| (value - mean) / (variance + 1e-5).sqrt());
        expected.extend(normal.zip(scale.iter().zip(&bias)).map(|(value, (scale, bias))| value * scale + bias));
    }
    let (_, y) = run([1, 1, 3, 4], &x, |graph, x| {
        let scale = graph.constant_f32("norm.weight", &[4], &scale);
        let bias = graph.constant_f32("norm.bias", &[4], &bias);
        graph.layer_norm(x, &scale, &bias, 1e-5)
    });
    assert_close(&y, &expected, 1e-5);
}

#[test]
fn arithmetic_is_arithmetic() {
    let x = [3.0, 4.0, 0.0, 0.0];
    let (_, y) = run([1, 2, 1, 2], &x, |graph, x| graph.normalise_l2(x, 3));
    assert_close(&y, &[0.6, 0.8, 0.0, 0.0], 1e-6);
    let (_, y) = run([1, 3, 1, 2], &[1.0, 2.0, 5.0, 2.0, 5.0, 1.0], |graph, x| {
        let index = graph.argmax(x, 1, true);
        graph.cast(&index, ElementType::F32)
    });
    assert_eq!(y, [1.0, 0.0], "the first of equals wins");
    let (_, y) = run([1, 1, 1, 3], &[-2.0, 0.5, f32::MIN_POSITIVE], |graph, x| {
        let (zero, one) = (graph.scalar(0.0), graph.scalar(1.0));
        let (above, below) = (graph.greater(x, &zero), graph.less(x, &one));
        let inside = graph.and(&above, &below);
        graph.r#where(&inside, x, &one)
    });
    assert_eq!(y, [1.0, 0.5, f32::MIN_POSITIVE]);
    let (_, y) = run([1, 1, 2, 2], &[1.0, 2.0, 3.0, 4.0], |graph, x| graph.matmul(x, x));
    assert_eq!(y, [7.0, 10.0, 15.0, 22.0]);
    let (_, y) = run([1, 1, 2, 2], &[1.0, 2.0, 3.0, 4.0], |graph, x| graph.reduce_mean(x, &[2, 3], true));
    assert_eq!(y, [2.5]);
    let (_, y) = run([1, 1, 2, 2], &[1.0, 2.0, 3.0, 4.0], |graph, x| graph.reduce_sum(x, &[3], true));
    assert_eq!(y, [3.0, 7.0]);
    assert_eq!(run([1, 1, 1, 3], &[-2.0, 0.5, 2.0], |graph, x| graph.clip(x, -1.0, 1.0)).1, [-1.0, 0.5, 1.0]);
}
