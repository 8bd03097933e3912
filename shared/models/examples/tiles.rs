//! How far images that are decoded in tiles are from whole ones: prints a table and the peaks of memory, and writes pictures.
//!
//! `cargo run --release -p hiresmed-models --example tiles -- PACKAGE IMAGE OUT SIDE [SCALE]`: PACKAGE a model package's folder, IMAGE a
//! DICOM slice, OUT a folder, SIDE of a tile in pixels, SCALE by which the slice is enlarged first. Differences are over [-1, 1], in
//! thousandths. A seam is the difference's mean step across the column or row where it is largest, over the median one's.

use hiresmed_imaging::{Plane, raster, resample, series};
use hiresmed_inference::{Runtime, SessionOptions, package::Package};
use hiresmed_models::vqgan::{Autoencoder, Tiles};
use std::path::Path;

type Fault = Box<dyn std::error::Error>;

fn main() -> Result<(), Fault> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [package, image, out, side, rest @ ..] = arguments.as_slice() else {
        return Err("usage: tiles PACKAGE IMAGE OUT SIDE [SCALE]".into());
    };
    let (side, scale): (usize, usize) = (side.parse()?, rest.first().map_or(Ok(1), |text| text.parse())?);
    let model = Autoencoder::open(
        &Package::open(Path::new(package))?,
        &Runtime::load()?,
        &SessionOptions { threads: 1, ..SessionOptions::default() },
    )?;
    let slice = series::read_file(Path::new(image))?.remove(0).normalised(model.window());
    let slice = resample::resize(&slice, slice.width() * scale, slice.height() * scale, resample::Filter::Bicubic);
    std::fs::create_dir_all(out)?;
    let write = |name: &str, plane: &Plane, low: f32, high: f32| {
        std::fs::write(Path::new(out).join(name), raster::preview_png(plane, low, high))
    };
    let _ = model.reconstruct_tiled(&slice, Tiles { side, overlap: side / 4 })?;
    let peak = peak_mb()?;
    let tokens = model.encode(std::slice::from_ref(&slice))?.remove(0);
    let whole = model.decode(std::slice::from_ref(&tokens))?.remove(0);
    write("whole.png", &whole, -1.0, 1.0)?;
    println!("whole: {:.2} dB; peak of memory {peak} MB with tiles, {} MB whole", psnr(&slice, &whole), peak_mb()?);
    println!(
        "| overlap, px | other tokens, % | mean | 99.9 % | max | seam | dB | of whole tokens: mean | max | seam |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for overlap in [0, 16, 32, 64, 128].into_iter().filter(|&overlap| overlap < side) {
        let tiles = Tiles { side, overlap };
        let of_tiles = model.encode_tiled(&slice, tiles)?;
        let others = tokens.data.iter().zip(&of_tiles.data).filter(|(a, b)| a != b).count();
        let y = model.decode_tiled(&of_tiles, tiles)?;
        let decoded = model.decode_tiled(&tokens, tiles)?;
        let (both, one) = (Difference::of(&whole, &y), Difference::of(&whole, &decoded));
        println!(
            "| {overlap} | {:.2} | {:.2} | {:.1} | {:.0} | {:.2} | {:.2} | {:.2} | {:.0} | {:.2} |",
            100.0 * others as f64 / tokens.data.len() as f64,
            both.mean,
            both.most,
            both.max,
            seam(&whole, &y),
            psnr(&slice, &y),
            one.mean,
            one.max,
            seam(&whole, &decoded)
        );
        write(&format!("tiles-{overlap}.png"), &y, -1.0, 1.0)?;
        let data = whole.data().iter().zip(y.data()).map(|(a, b)| b - a).collect();
        write(&format!("difference-{overlap}.png"), &Plane::new(y.width(), y.height(), data), -0.1, 0.1)?;
    }
    Ok(())
}

/// The process's peak of resident memory.
fn peak_mb() -> Result<usize, Fault> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find(|line| line.starts_with("VmHWM")).ok_or("no peak is known")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse::<usize>()? / 1024)
}

/// Differences over [-1, 1], in thousandths.
struct Difference {
    mean: f64,
    /// That of the pixel under which 99.9 % lie.
    most: f32,
    max: f32,
}

impl Difference {
    fn of(a: &Plane, b: &Plane) -> Self {
        let mut all: Vec<f32> = a.data().iter().zip(b.data()).map(|(a, b)| 1e3 * (a - b).abs()).collect();
        all.sort_by(f32::total_cmp);
        let mean = all.iter().map(|&value| f64::from(value)).sum::<f64>() / all.len().max(1) as f64;
        let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize];
        Self { mean, most: at(0.999), max: at(1.0) }
    }
}

/// Over [-1, 1].
fn psnr(a: &Plane, b: &Plane) -> f64 {
    let squares = a.data().iter().zip(b.data()).map(|(a, b)| f64::from(a - b).powi(2));
    10.0 * (4.0 * a.data().len() as f64 / squares.sum::<f64>()).log10()
}

/// The mean step of the difference across the column or row where it is largest, over the median one's.
fn seam(whole: &Plane, y: &Plane) -> f64 {
    let difference = |x: usize, row: usize| f64::from(y.at(x, row) - whole.at(x, row));
    let worst = |mut steps: Vec<f64>| {
        steps.sort_by(f64::total_cmp);
        steps[steps.len() - 1] / steps[steps.len() / 2].max(1e-12)
    };
    let (width, height) = (y.width(), y.height());
    let across = |x: usize| (0..height).map(|row| (difference(x, row) - difference(x - 1, row)).abs()).sum();
    let down = |row: usize| (0..width).map(|x| (difference(x, row) - difference(x, row - 1)).abs()).sum();
    worst((1..width).map(across).collect()).max(worst((1..height).map(down).collect()))
}
