//! Contracts against graphs that fit and graphs that do not.

use super::*;
use crate::onnx::{Convolution, Graph, Interpolation, Pool, Value};
use crate::package::Draft;

fn image_dims() -> [Dim; 4] {
    ["N".into(), 1.into(), "H".into(), "W".into()]
}

fn token_dims() -> [Dim; 3] {
    ["N".into(), "h".into(), "w".into()]
}

fn graph(build: impl FnOnce(&mut Graph) -> (Value, ElementType, Vec<Dim>)) -> Vec<u8> {
    let mut graph = Graph::new("sample");
    let (value, element, dims) = build(&mut graph);
    graph.output(&value, "out", element, &dims);
    graph.finish().unwrap()
}

/// Tokens by thresholding the image at a quarter of its size.
fn encoder() -> Vec<u8> {
    graph(|graph| {
        let x = graph.input("x", F32, &image_dims());
        let pooled = graph.average_pool(&x, Pool { kernel: 4, stride: 4, padding: 0 });
        let squeezed = graph.squeeze(&pooled, &[1]);
        (graph.cast(&squeezed, I64), I64, token_dims().to_vec())
    })
}

fn decoder(factor: usize) -> Vec<u8> {
    graph(|graph| {
        let tokens = graph.input("tokens", I64, &token_dims());
        let tokens = graph.cast(&tokens, F32);
        let tokens = graph.unsqueeze(&tokens, &[1]);
        (graph.resize_by(&tokens, factor, Interpolation::Nearest), F32, image_dims().to_vec())
    })
}

fn same_size(channels: usize) -> Vec<u8> {
    convolution(1.into(), channels)
}

fn convolution(inputs: Dim, outputs: usize) -> Vec<u8> {
    graph(|graph| {
        let width = if let Dim::Fixed(width) = inputs { width as usize } else { 1 };
        let x = graph.input("x", F32, &["N".into(), inputs, "H".into(), "W".into()]);
        let weight = graph.constant_f32("weight", &[outputs, width, 1, 1], &vec![1.0; outputs * width]);
        let y = graph.conv(&x, &weight, None, Convolution::default());
        (y, F32, vec!["N".into(), Dim::Symbol("K".into()), "H".into(), "W".into()])
    })
}

fn generator(outputs: usize) -> Vec<u8> {
    generator_of(2, outputs)
}

fn generator_of(noise: usize, outputs: usize) -> Vec<u8> {
    graph(|graph| {
        let coarse = graph.input("z0", F32, &image_dims());
        let fine = graph.input("z1", F32, &["N".into(), Dim::Fixed(noise as i64), "h".into(), "w".into()]);
        let size = graph.spatial_shape(&fine);
        let coarse = graph.resize_to(&coarse, &size, Interpolation::Cubic);
        let sum = graph.add(&coarse, &fine);
        let weight = graph.constant_f32("weight", &[outputs, noise, 1, 1], &vec![1.0; outputs * noise]);
        let y = graph.conv(&sum, &weight, None, Convolution::default());
        (y, F32, vec!["N".into(), Dim::Symbol("K".into()), "H".into(), "W".into()])
    })
}

fn check_graphs(kind: Kind, graphs: &[(&str, Vec<u8>)]) -> Vec<String> {
    let mut draft = Draft::new(kind, "sample", "MIT");
    draft.window = Some(crate::package::Window { low: -1000.0, high: 400.0 });
    let json =
        serde_json::json!({"version": 1, "kind": kind, "name": "sample", "licence": "MIT", "window": draft.window});
    let description: Description = serde_json::from_value(json).unwrap();
    let graphs = graphs.iter().map(|(role, bytes)| ((*role).to_owned(), bytes.clone())).collect();
    check(&description, &graphs, &Runtime::load().unwrap())
}

#[test]
fn models_that_fit_are_taken() {
    let none: Vec<String> = Vec::new();
    assert_eq!(check_graphs(Kind::Vqgan, &[("encoder", encoder()), ("decoder", decoder(4))]), none);
    assert_eq!(check_graphs(Kind::Vqgan, &[("reconstruct", same_size(1))]), none);
    assert_eq!(check_graphs(Kind::Unet, &[("segment", same_size(1))]), none);
    assert_eq!(check_graphs(Kind::Singan, &[("generate", generator(2))]), none);
    assert_eq!(check_graphs(Kind::SinganWhole, &[("generate", generator_of(1, 1))]), none);
    assert_eq!(check_graphs(Kind::Density, &[]), none);
}

#[test]
fn models_that_do_not_fit_are_refused_with_the_reason() {
    let refused = |kind, graphs: &[(&str, Vec<u8>)], part: &str| {
        let faults = check_graphs(kind, graphs).join("\n");
        assert!(faults.contains(part), "{part:?} in {faults:?}");
    };
    refused(Kind::Vqgan, &[("encoder", encoder())], "a vqgan model has encoder and decoder, or reconstruct");
    refused(Kind::Vqgan, &[("encoder", encoder()), ("decoder", decoder(2))], "size must stay");
    refused(Kind::Vqgan, &[("encoder", same_size(1)), ("decoder", decoder(4))], "graph encoder: output out f32");
    refused(Kind::Vqgan, &[("reconstruct", same_size(2))], "size must stay");
    refused(Kind::Unet, &[("segment", encoder())], "is not f32 of rank 4");
    refused(Kind::Unet, &[("segment", generator(2))], "2 inputs, not 1");
    refused(Kind::Unet, &[("segment", same_size(1)), ("extra", same_size(1))], "graph extra is no role");
    refused(Kind::Singan, &[("generate", generator(3))], "3 channels, not image and mask");
    refused(Kind::SinganWhole, &[("generate", generator(2))], "its input 1 has 2 channels; the pipeline has 1 there");
    refused(Kind::Unet, &[("segment", convolution(3.into(), 1))], "its input has 3 channels; the pipeline has 1 there");
    refused(Kind::Unet, &[("segment", same_size(3))], "[1, 1, 64, 64] gave [1, 3, 64, 64]");
    refused(Kind::Singan, &[("generate", generator_of(1, 2))], "its input 1 has 1 channels; the pipeline has 2 there");
    refused(Kind::Vqgan, &[("reconstruct", convolution(5.into(), 5))], "repeats a grey image 1 to 4 times");
    refused(Kind::Vqgan, &[("reconstruct", convolution("C".into(), 1))], "leaves the channels open");
    refused(Kind::Density, &[("encoder", encoder())], "graph encoder is no role");
    refused(Kind::Unet, &[("segment", b"junk".to_vec())], "not an ONNX model");
    refused(Kind::Ddpm, &[], "a ddpm model has denoise");
}

#[test]
fn a_denoiser_takes_a_noise_level_and_keeps_the_images_shape() {
    let denoiser = |element: ElementType, factor: usize| {
        graph(|graph| {
            let x = graph.input("x", F32, &image_dims());
            let time = graph.input("time", element, &["N".into()]);
            let time = graph.cast(&time, F32);
            let time = graph.unsqueeze(&time, &[1, 2, 3]);
            let sum = graph.add(&x, &time);
            (graph.resize_by(&sum, factor, Interpolation::Nearest), F32, image_dims().to_vec())
        })
    };
    let faults = |graph: Vec<u8>| check_graphs(Kind::Ddpm, &[("denoise", graph)]).join("\n");
    assert_eq!(faults(denoiser(I64, 1)), "");
    assert!(faults(denoiser(I64, 2)).contains("size must stay"));
    assert!(faults(denoiser(F32, 1)).contains("is not i64 of rank 1"));
    assert!(faults(same_size(1)).contains("it has 1 inputs, not 2"));
}

#[test]
fn a_generator_makes_an_image_of_a_latent_whose_length_is_fixed() {
    let generator = |latent: Dim, others: usize, channels: i64| {
        graph(|graph| {
            let latent = graph.input("latent", F32, &["N".into(), latent]);
            (0..others).for_each(|index| drop(graph.input(&format!("x{index}"), F32, &["N".into(), 1.into()])));
            let mean = graph.reduce_mean(&latent, &[1], true);
            let mean = graph.unsqueeze(&mean, &[2, 3]);
            let size = graph.integers(&[1, channels, 8, 8]);
            (graph.expand(&mean, &size), F32, ["N", "K", "H", "W"].map(Dim::from).to_vec())
        })
    };
    let faults = |graph: Vec<u8>| check_graphs(Kind::Styleswin, &[("generate", graph)]).join("\n");
    assert_eq!(faults(generator(8.into(), 0, 1)) + &faults(generator(8.into(), 1, 1)), "");
    for (graph, part) in [
        (generator("Z".into(), 0, 1), "axis 1 of its input 0 is not fixed"),
        (generator(8.into(), 2, 1), "3 inputs, not latent (and truncation)"),
        (generator(8.into(), 0, 5), "gave [1, 5, 8, 8]"),
        (same_size(1), "input x f32[N, 1, H, W] is not f32 of rank 2"),
    ] {
        let found = faults(graph);
        assert!(found.contains(part), "{part:?} in {found:?}");
    }
}

#[test]
fn detectors_come_in_two_layouts() {
    let detector = |shape: [i64; 3]| {
        graph(|graph| {
            let x = graph.input("images", F32, &[1.into(), 3.into(), 640.into(), 640.into()]);
            let mean = graph.reduce_mean(&x, &[1, 2, 3], false);
            let mean = graph.unsqueeze(&mean, &[1, 2]);
            let size = graph.integers(&shape);
            (graph.expand(&mean, &size), F32, shape.map(Dim::Fixed).to_vec())
        })
    };
    assert!(check_graphs(Kind::Yolo, &[("detect", detector([1, 5, 8400]))]).is_empty());
    assert!(check_graphs(Kind::Yolo, &[("detect", detector([1, 300, 6]))]).is_empty());
    assert!(check_graphs(Kind::Yolo, &[("detect", detector([1, 4, 5]))])[0].contains("neither"));
}

#[test]
fn a_prior_gives_logits_for_every_token_of_a_map_whose_size_is_fixed() {
    let prior = |rows: Dim, places: usize, inputs: usize| {
        graph(|graph| {
            graph.input("tokens", I64, &["N".into(), rows, 3.into()]);
            if inputs > 1 {
                graph.input("conditions", I64, &["N".into(), 2.into()]);
            }
            let logits = graph.constant_f32("likely", &[1, places, 5], &vec![0.0; places * 5]);
            (logits, F32, vec!["N".into(), "T".into(), 5.into()])
        })
    };
    let faults = |graph: Vec<u8>| check_graphs(Kind::Prior, &[("predict", graph)]).join("\n");
    assert_eq!(faults(prior(2.into(), 6, 2)), "");
    for (graph, part) in [
        (prior(2.into(), 5, 2), "3 x 2 tokens gave [1, 5, 5], not [1, 6, K]"),
        (prior("h".into(), 6, 2), "axis 1 of its input 0 is not fixed"),
        (prior(2.into(), 6, 1), "it has 1 inputs, not 2"),
    ] {
        let found = faults(graph);
        assert!(found.contains(part), "{part:?} in {found:?}");
    }
    let text = check_graphs(Kind::Prior, &[("step", prior(2.into(), 6, 2))]).join("\n");
    assert!(text.contains("it has 2 inputs, not 5"), "{text}");
}
