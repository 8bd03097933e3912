//! `hiresmed candidates`: where a lesion may go in a background.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use hiresmed_coordinator::models::resolve_for;
use hiresmed_imaging::{Spacing, files::write_atomically, raster};
use hiresmed_protocol::{outcome::FoundCandidates, request::Location};
use hiresmed_worker::pipeline::{
    LocationModels, Locator,
    candidates::{SPACING_MM, read, usable_spacing},
};
use serde::Serialize;

use crate::{
    commands::{ModalityArgument, StateArgument},
    failure,
};

/// Show where a lesion may go in a background: C_final of equation 16
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The background: a DICOM file, or a PNG or JPEG that is windowed already
    #[arg(long, value_name = "FILE")]
    background: PathBuf,
    #[command(flatten)]
    modality: ModalityArgument,
    /// Longest diameter of the lesion in millimetres; its whole footprint must be allowed
    #[arg(long, default_value_t = 8.0, value_name = "MM")]
    diameter_mm: f64,
    /// Distance of pixel centres in millimetres, for a picture that does not say it
    #[arg(long, value_name = "MM")]
    spacing_mm: Option<f64>,
    /// How many positions to list, the likeliest first
    #[arg(long, default_value_t = 20, value_name = "N")]
    count: usize,
    /// The model of permissible regions, by alias or digest
    #[arg(long, default_value = "default", value_name = "NAME")]
    unet: String,
    /// What proposes candidates: the spatial prior (density), a lesion detector, or both, whose maps are multiplied
    #[arg(long, default_value = "density", value_name = "WHAT", value_parser = location)]
    location: Location,
    /// The spatial prior, by alias or digest
    #[arg(long, default_value = "default", value_name = "NAME")]
    density: String,
    /// The lesion detector, by alias or digest
    #[arg(long, default_value = "default", value_name = "NAME")]
    yolo: String,
    /// Write the whole map as a PNG: brighter is likelier, 0 is not allowed
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    state: StateArgument,
}

#[derive(Serialize)]
struct Answer {
    background: String,
    #[serde(flatten)]
    found: FoundCandidates,
}

fn location(text: &str) -> Result<Location, String> {
    // As requests say it.
    serde_json::from_value(text.into()).map_err(|_| format!("{text:?} is none of density, detector, both"))
}

/// Runs the command.
///
/// # Errors
/// The background cannot be read, or a lesion of this size fits nowhere in it.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !(arguments.diameter_mm > 0.0 && arguments.diameter_mm <= 200.0) {
        return Err(failure::refused(anyhow!(
            "--diameter-mm {}: must be above 0 and at most 200",
            arguments.diameter_mm
        )));
    }
    if let Some(mm) = arguments.spacing_mm.filter(|mm| !SPACING_MM.contains(mm)) {
        let (least, most) = (SPACING_MM.start(), SPACING_MM.end());
        return Err(failure::refused(anyhow!("--spacing-mm {mm}: must be {least} to {most} mm")));
    }
    let (path, modality) = (&arguments.background, arguments.modality.modality());
    let name = path.display().to_string();
    let bytes = std::fs::read(path).with_context(|| format!("{name} cannot be read")).map_err(failure::refused)?;
    let mut plane = read(&bytes, &name, modality).map_err(failure::refused)?;
    plane.spacing = plane.spacing.or(arguments.spacing_mm.map(Spacing::square));
    let spacing = usable_spacing(&plane, &name, "give --spacing-mm").map_err(failure::refused)?;

    let fleet = arguments.state.open()?;
    let model = |kind, name: &str| fleet.wait(resolve_for(fleet.ledger(), kind, kind, name, modality));
    let unet = model("unet", &arguments.unet)?;
    let wanted = |other, kind, name: &str| (arguments.location != other).then(|| model(kind, name)).transpose();
    let models = LocationModels {
        density: wanted(Location::Detector, "density", &arguments.density)?,
        yolo: wanted(Location::Density, "yolo", &arguments.yolo)?,
    };
    let environment = fleet.environment();
    let (found, candidates) = Locator::open(&environment, &unet, arguments.location, models, modality)?
        .candidates(&plane, spacing, None, arguments.diameter_mm, arguments.count)
        .map_err(|error| failure::refused(anyhow!(error).context(name.clone())))?;
    if let Some(png) = &arguments.png {
        let greatest = candidates.map.data().iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        write_atomically(png, &raster::preview_png(&candidates.map, 0.0, greatest))?;
    }
    let answer = Answer { background: name, found };
    if arguments.json {
        println!("{}", serde_json::to_string(&answer)?);
    } else {
        println!(
            "{} of {} pixels are allowed; the likeliest (x y weight):",
            answer.found.allowed_px,
            plane.data().len()
        );
        for position in &answer.found.candidates {
            println!("{:5} {:5} {:.6}", position.x, position.y, position.weight);
        }
    }
    Ok(ExitCode::SUCCESS)
}
