//! A small pack: the shipped autoencoder and prior, lesions and danger zones that are plain formulas, four slices. What
//! these tests are about is who makes an image and when, not how it looks; images of 128 pixels are made in no time.

use std::{fs, path::Path};

use hiresmed_inference::{
    ElementType,
    onnx::{Convolution, Dim, Graph, Interpolation},
    package::{Draft, Kind, Package},
};

use crate::harness::{pack, slice};

/// Side of the constant lesion in pixels, and its radius.
const SIDE: usize = 33;
const RADIUS: f64 = 9.0;

/// What a request for the fixture's images begins with.
pub const SMALL: &str = "size = { width = 128, height = 128 }\nlesions = { count = { min = 1, max = 1 }, \
                         diameter_mm = { min = 18.0, max = 24.0 } }\n";

/// Writes the pack.
pub fn write(folder: &Path) {
    let models = folder.join("models");
    for kind in ["vqgan", "density"] {
        copy(&pack().join("models").join(kind), &models.join(kind));
    }
    danger_zones(&models);
    lesions(&models);
    let series = folder.join("sample/series");
    fs::create_dir_all(&series).unwrap();
    fs::write(folder.join("sample/contours.json"), r#"{"annotations":[]}"#).unwrap();
    for number in [6, 8, 10, 12] {
        fs::copy(slice(number), series.join(format!("{number}.dcm"))).unwrap();
    }
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// What is darker than -425 HU is permissible.
fn danger_zones(models: &Path) {
    let mut graph = Graph::new("unet");
    let dims = [Dim::from("n"), Dim::Fixed(1), Dim::from("h"), Dim::from("w")];
    let x = graph.input("x", ElementType::F32, &dims);
    let weight = graph.constant_f32("weight", &[1, 1, 1, 1], &[-4.0]);
    let bias = graph.constant_f32("bias", &[1], &[-0.72]);
    let logits = graph.conv(&x, &weight, Some(&bias), Convolution::default());
    graph.output(&logits, "logits", ElementType::F32, &dims);
    package(models, Kind::Unet, "segment", graph.finish().unwrap(), serde_json::Value::Null);
}

/// A disc with a little noise, of whatever size is asked for.
fn lesions(models: &Path) {
    let mut graph = Graph::new("singan");
    let dims = |channels| [Dim::from("n"), Dim::Fixed(channels), Dim::from("h"), Dim::from("w")];
    let coarse =
        graph.input("z0", ElementType::F32, &[Dim::from("n"), Dim::Fixed(1), Dim::from("h0"), Dim::from("w0")]);
    let fine = graph.input("z1", ElementType::F32, &dims(2));
    let centre = (SIDE / 2) as f64;
    let depth = |i: usize| RADIUS - ((i % SIDE) as f64 - centre).hypot((i / SIDE) as f64 - centre);
    let inside = (0..SIDE * SIDE).map(|i| depth(i).clamp(-1.0, 1.0) as f32);
    let image = inside.clone().map(|inside| inside * 0.5 - 0.3);
    let pixels: Vec<f32> = image.chain(inside).collect();
    let disc = graph.constant_f32("disc", &[1, 2, SIDE, SIDE], &pixels);
    let size = graph.spatial_shape(&fine);
    let disc = graph.resize_to(&disc, &size, Interpolation::Linear);
    let amplitude = graph.constant_f32("amplitude", &[1, 2, 1, 1], &[0.05, 0.0]);
    let noise = graph.mul(&fine, &amplitude);
    let shade = graph.reduce_mean(&coarse, &[2, 3], true);
    let shade = graph.mul(&shade, &amplitude);
    let noise = graph.add(&noise, &shade);
    let y = graph.add(&disc, &noise);
    graph.output(&y, "y", ElementType::F32, &dims(2));
    let configuration = serde_json::json!({
        "sizes": [[25, 25], [SIDE, SIDE]], "widths": [4, 4], "noise_amplitudes": [1.0, 0.1],
        "lesion_diameter_px": 2.0 * RADIUS + 1.0, "lesion_area_px": std::f64::consts::PI * RADIUS * RADIUS,
        "mask_threshold": 0.0
    });
    package(models, Kind::Singan, "generate", graph.finish().unwrap(), configuration);
}

fn package(models: &Path, kind: Kind, role: &str, graph: Vec<u8>, configuration: serde_json::Value) {
    let mut draft = Draft::new(kind, "fixture", "MIT OR Apache-2.0");
    draft.configuration = configuration;
    draft.graphs.insert(role.to_owned(), "graph.onnx".to_owned());
    Package::write(models, draft, &[("graph.onnx", &graph)]).unwrap();
}
