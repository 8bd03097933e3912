//! `hiresmed model sample`: whole images from a model that draws them from noise, as table 2 compares them.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use hiresmed_coordinator::models;
use hiresmed_imaging::{
    Plane, Spacing,
    dicom::write::{Identity, Syntax, Synthetic},
    files::write_atomically,
    resample::{Filter, resize},
    window::Window,
};
use hiresmed_inference::{
    Runtime, SessionOptions,
    package::{Kind, Package},
};
use hiresmed_models::{ddpm, singan, styleswin};
use serde::Serialize;

use super::StateArgument;
use crate::failure;

/// Largest side of an image, px.
const MOST_SIDE: u32 = 4096;

/// Draw whole images, without lesions, from a ddpm, a styleswin or a singan-whole
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Kind of the model
    kind: Kind,
    /// Its name or digest
    name: String,
    /// Folder for the images
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How many
    #[arg(long, default_value_t = 16)]
    count: u64,
    /// From which the noise of every image is derived
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Side of the images in pixels; the model's own are brought to it
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_SIDE)))]
    side: u32,
    /// Steps of a ddpm from noise to image; as many as it was trained with sample its own chain, fewer the deterministic one
    #[arg(long, default_value_t = 50)]
    steps: usize,
    #[command(flatten)]
    state: StateArgument,
}

/// What `samples.json` says: enough to make the same images again.
#[derive(Debug, Serialize)]
struct Record<'a> {
    kind: Kind,
    model: &'a str,
    seed: u64,
    side: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<usize>,
    images: Vec<String>,
}

/// A model that draws images in [-1, 1], of its own size.
enum Sampler {
    Ddpm(ddpm::Sampler, usize),
    Styleswin(styleswin::Sampler),
    Singan(singan::WholeImage),
}

impl Sampler {
    fn sample(&self, seed: u64, index: u64) -> Result<Plane> {
        Ok(match self {
            Self::Ddpm(sampler, steps) => match sampler.sample(seed, index, *steps) {
                Err(error @ ddpm::Error::Steps { .. }) => return Err(failure::refused(anyhow!("--steps: {error}"))),
                sampled => sampled?,
            },
            Self::Styleswin(sampler) => sampler.sample(seed, index)?,
            Self::Singan(sampler) => sampler.sample(seed, index)?,
        })
    }
}

/// Runs the command.
///
/// # Errors
/// The model is unknown or cannot be run, or the folder cannot be written.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (kind, out) = (arguments.kind, &arguments.out);
    if !matches!(kind, Kind::Ddpm | Kind::Styleswin | Kind::SinganWhole) {
        return Err(failure::refused(anyhow!(
            "a {kind} draws no whole images by itself; ddpm, styleswin and singan-whole do, and `hiresmed submit` makes images of the others"
        )));
    }
    let fleet = arguments.state.open()?;
    let digest = fleet.wait(models::resolve(fleet.ledger(), "name", kind.name(), &arguments.name));
    let digest = digest.map_err(failure::refused)?;
    let package = Package::open(&fleet.environment().package_folder(kind.name(), &digest)?)?;
    let (runtime, options) = (Runtime::load()?, SessionOptions::default());
    let sampler = match kind {
        Kind::Ddpm => Sampler::Ddpm(ddpm::Sampler::open(&package, &runtime, &options)?, arguments.steps),
        Kind::SinganWhole => Sampler::Singan(singan::WholeImage::open(&package, &runtime, &options)?),
        _ => Sampler::Styleswin(styleswin::Sampler::open(&package, &runtime, &options)?),
    };
    let description = package.description();
    let window = description.window.map_or(Window::LUNG_CT, |window| Window { low: window.low, high: window.high });
    fs::create_dir_all(out).with_context(|| format!("{} cannot be made", out.display()))?;
    let request = format!("{digest}/{}/{}", arguments.seed, arguments.steps);
    let mut images = Vec::new();
    for index in 0..arguments.count {
        let small = sampler.sample(arguments.seed, index)?;
        let plane = to_side(&small, arguments.side as usize, description.spacing_mm);
        let bytes = Synthetic {
            plane: &plane,
            window,
            identity: Identity { request: &request, image: index, object: "sample" },
            modality: "CT",
            description: "Synthetic image without lesions",
            body_part: "CHEST",
            software_version: env!("CARGO_PKG_VERSION"),
            syntax: Syntax::Explicit,
        }
        .to_bytes()?;
        let name = format!("{index:06}.dcm");
        write_atomically(out.join(&name), &bytes)?;
        images.push(name);
    }
    let record = Record {
        kind,
        model: package.digest(),
        seed: arguments.seed,
        side: arguments.side,
        steps: (kind == Kind::Ddpm).then_some(arguments.steps),
        images,
    };
    let path = out.join("samples.json");
    write_atomically(&path, &serde_json::to_vec_pretty(&record)?)?;
    eprintln!("{} images written", arguments.count);
    println!("{}", path.display());
    Ok(ExitCode::SUCCESS)
}

/// The image with sides of `side` px, clamped: a cubic overshoots. The spacing is that of the model's own pixels.
fn to_side(small: &Plane, side: usize, spacing_mm: Option<f64>) -> Plane {
    let filter = if side < small.width() { Filter::Area } else { Filter::Bicubic };
    let mut plane = resize(small, side, side, filter);
    plane.data_mut().iter_mut().for_each(|value| *value = value.clamp(-1.0, 1.0));
    let spacing = spacing_mm.map(|spacing| Spacing::square(spacing * small.width() as f64 / side as f64));
    plane.with_spacing(spacing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_brought_to_a_side_and_keep_their_extent() {
        let small = Plane::new(2, 2, vec![-1.0, 1.0, 1.0, -1.0]);
        let plane = to_side(&small, 8, Some(4.0));
        assert_eq!((plane.width(), plane.height(), plane.spacing), (8, 8, Some(Spacing::square(1.0))));
        assert!(plane.data().iter().all(|value| (-1.0..=1.0).contains(value)));
        assert_eq!(to_side(&small, 1, None).data(), [0.0]);
    }
}
