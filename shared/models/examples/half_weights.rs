//! Writes an autoencoder's package again with its large weights in half precision, for a pack that has to stay small.
//!
//! `cargo run --release -p hiresmed-models --example half_weights -- PACKAGE ROOT IMAGES`: ROOT gets the new package, whose card says so;
//! on the images of the folder IMAGES both are compared. Where their mean fidelity differs by more than a hundredth of a decibel nothing is
//! written.

use std::path::Path;

use hiresmed_imaging::{Plane, Window, series};
use hiresmed_inference::{Package, Runtime, SessionOptions, onnx, package::CARD_FILE};
use hiresmed_models::vqgan::Autoencoder;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Values of the smallest tensor that is halved.
const LEAST: usize = 4096;
/// Decibels by which the mean fidelity may differ.
const TOLERANCE: f64 = 0.01;

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [package, root, images] = arguments.as_slice() else {
        return Err("usage: half_weights PACKAGE ROOT IMAGES".into());
    };
    let package = Package::open(Path::new(package))?;
    let window = package.description().window.ok_or("the package has no window")?;
    let slices = series::read_folder(images)?.slices;
    let images: Vec<Plane> =
        slices.iter().map(|slice| slice.normalised(Window { low: window.low, high: window.high })).collect();

    let mut files = Vec::new();
    for name in package.description().files.keys() {
        let bytes = package.file(name)?;
        files.push((name, if name.ends_with(".onnx") { onnx::with_half_weights(&bytes, LEAST)? } else { bytes }));
    }
    let write = |root: &Path, files: &[(&String, Vec<u8>)]| {
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        Package::write(root, package.description().to_draft(), &files)
    };
    let scratch = tempfile::tempdir()?;
    let (before, after) = (fidelity(&package, &images)?, fidelity(&write(scratch.path(), &files)?, &images)?);
    println!("{before:.4} dB as it was, {after:.4} dB halved");
    if (before - after).abs() > TOLERANCE {
        return Err("its fidelity is another: the package stays as it is".into());
    }
    for (_, card) in files.iter_mut().filter(|(name, _)| name.as_str() == CARD_FILE) {
        let note = format!(
            "\n## Precision\n\nWeights are stored in half precision: over {} held-out images the mean PSNR is {after:.3} dB with them and \
             {before:.3} dB with those that were trained and scored above.\n",
            images.len()
        );
        card.extend(note.bytes());
    }
    println!("{}", write(Path::new(root), &files)?.directory().display());
    Ok(())
}

/// Mean PSNR of reconstructions over [-1, 1], dB.
fn fidelity(package: &Package, images: &[Plane]) -> Fallible<f64> {
    let autoencoder = Autoencoder::open(package, &Runtime::load()?, &SessionOptions::default())?;
    let mut sum = 0.0;
    for image in images {
        let made = autoencoder.reconstruct(std::slice::from_ref(image))?;
        let squares = image.data().iter().zip(made[0].data()).map(|(a, b)| f64::from(a - b).powi(2));
        sum += 10.0 * (4.0 * image.data().len() as f64 / squares.sum::<f64>()).log10();
    }
    Ok(sum / images.len() as f64)
}
