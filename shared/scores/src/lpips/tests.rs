//! Both forms of graph, small ones made here.

use std::path::Path;

use hiresmed_inference::ElementType;
use hiresmed_inference::onnx::{Dim, Graph};
use safetensors::tensor::{Dtype, TensorView};

use super::*;

const INTENSITY: Intensity = Intensity { low: 0.0, range: 255.0 };

fn dims(channels: i64) -> [Dim; 4] {
    [Dim::Fixed(1), Dim::Fixed(channels), Dim::from("h"), Dim::from("w")]
}

/// Two feature maps: the input above 0, and its double.
fn backbone() -> Vec<u8> {
    let mut graph = Graph::new("backbone");
    let x = graph.input("x", ElementType::F32, &dims(3));
    let first = graph.relu(&x);
    let second = graph.add(&x, &x);
    graph.output(&first, "first", ElementType::F32, &dims(3));
    graph.output(&second, "second", ElementType::F32, &dims(3));
    graph.finish().unwrap()
}

fn write_weights(path: &Path, layers: &[[f32; 3]]) {
    let bytes: Vec<Vec<u8>> = layers.iter().map(|w| w.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = bytes.iter().enumerate().map(|(index, data)| {
        (format!("lin{index}.model.1.weight"), TensorView::new(Dtype::F32, vec![1, 3, 1, 1], data).unwrap())
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn images() -> (Plane, Plane) {
    let plane = |step: usize| Plane::new(4, 3, (0..12).map(|at| ((at * step + 9) % 256) as f32).collect());
    (plane(37), plane(101))
}

fn open(path: &Path) -> Result<Lpips, Error> {
    let options = SessionOptions { threads: 1, ..Default::default() };
    Lpips::open(&Runtime::load().unwrap(), path, &options)
}

#[test]
fn a_backbone_with_weights_beside_it_measures() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backbone.onnx");
    std::fs::write(&path, backbone()).unwrap();
    let layers = [[0.5, 0.25, 1.0], [0.1, 0.2, 0.3]];
    write_weights(&path.with_extension("safetensors"), &layers);
    let lpips = open(&path).unwrap();
    let (a, b) = images();
    let measured = lpips.distance(&a, &b, INTENSITY).unwrap();

    // The same by hand, in f64, straight from the definition.
    let shifted = |value: f32, channel: usize| {
        (f64::from(value) / 127.5 - 1.0 - f64::from(SHIFT[channel])) / f64::from(SCALE[channel])
    };
    let mut expected = 0.0;
    for (a, b) in a.data().iter().zip(b.data()) {
        let vectors = [a, b].map(|&value| [0, 1, 2].map(|channel| shifted(value, channel)));
        for (weights, map) in layers.iter().zip([|v: f64| v.max(0.0), |v: f64| 2.0 * v]) {
            let [a, b] = vectors.map(|vector| {
                let vector = vector.map(map);
                let norm = vector.iter().map(|v| v * v).sum::<f64>().sqrt() + 1e-10;
                vector.map(|v| v / norm)
            });
            expected += (0..3).map(|c| f64::from(weights[c]) * (a[c] - b[c]).powi(2)).sum::<f64>() / 12.0;
        }
    }
    assert!(expected > 0.01 && (measured - expected).abs() < 1e-6, "{measured}, expected {expected}");
    assert_eq!(lpips.distance(&a, &a, INTENSITY).unwrap(), 0.0);
    let error = lpips.distance(&a, &Plane::filled(3, 4, 0.0), INTENSITY).unwrap_err().to_string();
    assert!(error.contains("4x3 and 3x4"), "{error}");
}

#[test]
fn a_whole_metric_takes_two_images() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metric.onnx");
    let mut graph = Graph::new("metric");
    let (a, b) = (graph.input("a", ElementType::F32, &dims(1)), graph.input("b", ElementType::F32, &dims(1)));
    let difference = graph.sub(&a, &b);
    let square = graph.mul(&difference, &difference);
    let mean = graph.reduce_mean(&square, &[1, 2, 3], true);
    graph.output(&mean, "distance", ElementType::F32, &[1, 1, 1, 1].map(Dim::Fixed));
    std::fs::write(&path, graph.finish().unwrap()).unwrap();
    let (black, white) = (Plane::filled(5, 5, 0.0), Plane::filled(5, 5, 255.0));
    assert_eq!(open(&path).unwrap().distance(&black, &white, INTENSITY).unwrap(), 4.0);
}

#[test]
fn what_does_not_fit_is_refused_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backbone.onnx");
    let text = || {
        let text = open(&path).unwrap_err().to_string();
        assert!(text.contains(folder.path().to_str().unwrap()), "{text}");
        text
    };
    assert!(text().contains("backbone.onnx"));
    std::fs::write(&path, b"not a graph").unwrap();
    assert!(text().contains("cannot open the graph"));
    std::fs::write(&path, backbone()).unwrap();
    assert!(text().contains("backbone.safetensors"), "the weights are missing");
    write_weights(&path.with_extension("safetensors"), &[[1.0; 3]]);
    assert!(text().contains("1 weights for 2 feature maps"));
}
