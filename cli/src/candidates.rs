//! `hiresmed candidates`: where a lesion may go in a background.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use hiresmed_compositing::placement::{Placer, Rules};
use hiresmed_coordinator::models::resolve;
use hiresmed_imaging::{Mask, Spacing, Window, files::write_atomically, raster};
use hiresmed_worker::pipeline::{Locator, decode};
use serde::Serialize;

use crate::{commands::StateArgument, failure};

/// Distances of pixel centres that can be used, as in requests.
const SPACING_MM: RangeInclusive<f64> = 0.05..=5.0;

/// Show where a lesion may go in a background: C_final of equation 16
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The background: a DICOM file, or a lung-windowed PNG or JPEG
    #[arg(long, value_name = "FILE")]
    background: PathBuf,
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
    /// The spatial prior, by alias or digest
    #[arg(long, default_value = "default", value_name = "NAME")]
    density: String,
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
    width: usize,
    height: usize,
    /// [row spacing, column spacing].
    spacing_mm: [f64; 2],
    diameter_mm: f64,
    /// Pixels at which the rules allow the lesion's centre.
    allowed_px: usize,
    /// The likeliest positions, a diameter apart.
    candidates: Vec<Position>,
}

#[derive(Serialize)]
struct Position {
    x: usize,
    y: usize,
    /// Share of the whole map's weight.
    weight: f64,
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
    let path = &arguments.background;
    let name = path.display().to_string();
    let bytes = std::fs::read(path).with_context(|| format!("{name} cannot be read")).map_err(failure::refused)?;
    let mut plane = decode(&bytes, &name, Window::LUNG_CT).map_err(failure::refused)?;
    let declared = arguments.spacing_mm.map(Spacing::square);
    let spacing = plane.spacing.or(declared).ok_or_else(|| {
        failure::refused(anyhow!("{name} does not say how far its pixels lie apart; give --spacing-mm"))
    })?;
    if ![spacing.row_mm, spacing.column_mm].iter().all(|mm| SPACING_MM.contains(mm)) {
        return Err(failure::refused(anyhow!(
            "{name} says that its pixels lie {} x {} mm apart, and {} to {} mm can be used; export it again from its source",
            spacing.row_mm,
            spacing.column_mm,
            SPACING_MM.start(),
            SPACING_MM.end()
        )));
    }
    plane.spacing = Some(spacing);

    let fleet = arguments.state.open()?;
    let model = |kind, name: &str| fleet.wait(resolve(fleet.ledger(), kind, kind, name));
    let (unet, density) = (model("unet", &arguments.unet)?, model("density", &arguments.density)?);
    let environment = fleet.environment();
    let anatomy = Locator::open(&environment, &unet, &density)?.anatomy(&plane).map_err(failure::refused)?;
    let diameter_px = arguments.diameter_mm / (spacing.row_mm * spacing.column_mm).sqrt();
    let candidates = Placer::new(anatomy.scene(), Rules::default())
        .and_then(|placer| placer.candidates(&disc(diameter_px)))
        .with_context(|| format!("{name}: a lesion of {} mm", arguments.diameter_mm))
        .map_err(failure::refused)?;
    if let Some(png) = &arguments.png {
        let greatest = candidates.map.data().iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        write_atomically(png, &raster::preview_png(&candidates.map, 0.0, greatest))?;
    }
    let answer = Answer {
        background: name,
        width: plane.width(),
        height: plane.height(),
        spacing_mm: [spacing.row_mm, spacing.column_mm],
        diameter_mm: arguments.diameter_mm,
        allowed_px: candidates.allowed.area(),
        candidates: candidates
            .peaks(arguments.count, diameter_px.ceil() as usize)
            .into_iter()
            .map(|peak| Position { x: peak.x, y: peak.y, weight: peak.weight })
            .collect(),
    };
    if arguments.json {
        println!("{}", serde_json::to_string(&answer)?);
    } else {
        println!("{} of {} pixels are allowed; the likeliest (x y weight):", answer.allowed_px, plane.data().len());
        for position in &answer.candidates {
            println!("{:5} {:5} {:.6}", position.x, position.y, position.weight);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A round lesion.
fn disc(diameter_px: f64) -> Mask {
    let side = diameter_px.ceil().max(1.0) as usize;
    let middle = (side as f64 - 1.0) / 2.0;
    let radius = (diameter_px / 2.0).max(0.5);
    Mask::from_fn(side, side, |x, y| (x as f64 - middle).hypot(y as f64 - middle) <= radius)
}

#[cfg(test)]
mod tests {
    use super::disc;

    #[test]
    fn a_disc_has_its_diameter() {
        for diameter in [1.0, 2.0, 5.7, 12.0, 17.0] {
            let area = std::f64::consts::PI * diameter * diameter / 4.0;
            let found = disc(diameter).area() as f64;
            assert!((found - area).abs() <= 0.35 * area + 1.0, "{diameter}: {found} pixels, {area:.1} expected");
        }
    }
}
