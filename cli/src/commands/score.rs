//! `hiresmed score`: how close synthetic images are to real ones, pair by pair and as sets.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use hiresmed_inference::{Runtime, SessionOptions};
use hiresmed_scores::features::{self, Extractor, FeatureFile};
use hiresmed_scores::folders::{self, Folders, PairScores, Scores, Sets, Survey};
use hiresmed_scores::{Intensity, Lpips, lpips};
use serde::{Serialize, Serializer};

use crate::failure;

/// Score synthetic images against real ones of the same file stems, and the two sets as wholes
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of real images: PNG, JPEG or DICOM (rescaled values)
    #[arg(long, value_name = "DIR")]
    real: PathBuf,
    /// Folder of synthetic images
    #[arg(long, value_name = "DIR")]
    synthetic: PathBuf,
    /// Folder of lesion masks, for the structural similarity outside them; non-zero pixels are lesion
    #[arg(long, value_name = "DIR")]
    masks: Option<PathBuf>,
    /// Difference of the largest and smallest possible value, in the images' units [default: 255 or 65535 by the bit depth
    /// of PNG and JPEG; for DICOM the extent of the real images' windows, else of their stored values]
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    data_range: Option<f64>,
    /// Features of the real images, one row an image, for FID and KID
    #[arg(long, value_name = "A.npy", requires = "features_synthetic")]
    features_real: Option<PathBuf>,
    /// Features of the synthetic images
    #[arg(long, value_name = "B.npy", requires = "features_real")]
    features_synthetic: Option<PathBuf>,
    /// Network that makes the features: an image f32[1, 1 or 3, H, W] in [-1, 1] to f32[1, d]
    #[arg(long, value_name = "M.onnx", conflicts_with = "features_real")]
    extractor: Option<PathBuf>,
    /// Network for LPIPS: a backbone with M.safetensors (lin0, lin1, …) beside it, or one that takes two images
    #[arg(long, value_name = "M.onnx")]
    lpips: Option<PathBuf>,
    /// Score the pairs that there are, and pass over images without a fitting partner or mask
    #[arg(long)]
    unpaired: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// What the command prints as JSON; what is undefined or infinite is null.
#[derive(Debug, Serialize)]
struct Report {
    pairs: Vec<PairRow>,
    mean: Row,
    sd: Row,
    sets: SetsRow,
}

#[derive(Debug, Serialize)]
struct PairRow {
    name: String,
    #[serde(flatten)]
    scores: Row,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Row {
    #[serde(serialize_with = "finite")]
    psnr: f64,
    #[serde(serialize_with = "finite")]
    psnr_paper: f64,
    #[serde(serialize_with = "finite")]
    ssim: f64,
    #[serde(serialize_with = "finite")]
    ssim_outside_mask: f64,
    /// Only where a network was given.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "finite_if_any")]
    lpips: Option<f64>,
}

#[derive(Debug, Serialize)]
struct SetsRow {
    fid: Option<f64>,
    kid: Option<f64>,
}

fn finite<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    value.is_finite().then_some(*value).serialize(serializer)
}

fn finite_if_any<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    finite(&value.unwrap_or(f64::NAN), serializer)
}

impl Row {
    /// `with_lpips`: the column is there even where no pair has a value.
    fn new(scores: Scores, with_lpips: bool) -> Self {
        let Scores { psnr, psnr_paper, ssim, ssim_outside_mask, lpips } = scores;
        Self { psnr, psnr_paper, ssim, ssim_outside_mask, lpips: with_lpips.then(|| lpips.unwrap_or(f64::NAN)) }
    }
}

/// Runs the command.
///
/// # Errors
/// What was given is refused, all at once: images that are not paired, unreadable files, networks of another form. The
/// inference runtime is missing where a network is given.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let folders = Folders {
        real: arguments.real.clone(),
        synthetic: arguments.synthetic.clone(),
        masks: arguments.masks.clone(),
        data_range: arguments.data_range,
        unpaired: arguments.unpaired,
    };
    let survey = folders::survey(&folders).map_err(refused)?;
    for text in &survey.passed_over {
        eprintln!("passed over: {text}");
    }
    if let Some(scale) = &survey.scale {
        eprintln!("data range {} ({})", scale.intensity.range, scale.reason);
    }
    let networks = Networks::open(arguments)?;
    // Features first: what is wrong with them shows before the pairs take their time.
    let sets = sets(arguments, &survey, networks.extractor.as_ref())?;
    for warning in &sets.warnings {
        eprintln!("warning: {warning}");
    }
    let pairs = folders::score_pairs(&survey.pairs, intensity(&survey), networks.lpips.as_ref()).map_err(refused)?;
    let report = report(pairs, &sets, networks.lpips.is_some());
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", table(&report));
    }
    Ok(ExitCode::SUCCESS)
}

struct Networks {
    extractor: Option<Extractor>,
    lpips: Option<Lpips>,
}

impl Networks {
    fn open(arguments: &Arguments) -> Result<Self> {
        if arguments.extractor.is_none() && arguments.lpips.is_none() {
            return Ok(Self { extractor: None, lpips: None });
        }
        let runtime = Runtime::load()?;
        let options = SessionOptions::default();
        let extractor = arguments.extractor.as_ref().map(|path| Extractor::open(&runtime, path, &options));
        let lpips = arguments.lpips.as_ref().map(|path| Lpips::open(&runtime, path, &options));
        let extractor = extractor.transpose().map_err(|error: features::Error| failure::refused(error))?;
        let lpips = lpips.transpose().map_err(|error: lpips::Error| failure::refused(error))?;
        Ok(Self { extractor, lpips })
    }
}

/// Without images there is nothing that it could be applied to.
fn intensity(survey: &Survey) -> Intensity {
    survey.scale.as_ref().map_or(Intensity { low: 0.0, range: 1.0 }, |scale| scale.intensity)
}

fn sets(arguments: &Arguments, survey: &Survey, extractor: Option<&Extractor>) -> Result<Sets> {
    let open = |path: &Path| FeatureFile::open(path).map_err(failure::refused);
    let (real, synthetic) = match (&arguments.features_real, &arguments.features_synthetic, extractor) {
        (Some(real), Some(synthetic), _) => (Some(open(real)?), Some(open(synthetic)?)),
        (_, _, Some(extractor)) => {
            let extract = |set: &Path, images: &[folders::Image]| {
                folders::extract(set, images, extractor, intensity(survey)).map_err(refused)
            };
            (extract(&arguments.real, &survey.real)?, extract(&arguments.synthetic, &survey.synthetic)?)
        }
        _ => return Ok(Sets::default()),
    };
    match (real, synthetic) {
        (Some(mut real), Some(mut synthetic)) => folders::score_sets(&mut real, &mut synthetic).map_err(refused),
        _ => Err(failure::refused(anyhow!("a folder without images has no features; give both folders images"))),
    }
}

fn refused(error: folders::Error) -> anyhow::Error {
    failure::refused(error)
}

fn report(pairs: Vec<PairScores>, sets: &Sets, with_lpips: bool) -> Report {
    let mean = Row::new(folders::mean(&pairs), with_lpips);
    let sd = Row::new(folders::standard_deviation(&pairs), with_lpips);
    let rows = pairs.into_iter().map(|pair| PairRow { name: pair.name, scores: Row::new(pair.scores, with_lpips) });
    Report { pairs: rows.collect(), mean, sd, sets: SetsRow { fid: sets.fid, kid: sets.kid } }
}

/// A line a pair, then mean, standard deviation and the sets; `-` where a score is undefined.
fn table(report: &Report) -> String {
    let width = report.pairs.iter().map(|pair| pair.name.chars().count()).max().unwrap_or(0).max(4);
    let with_lpips = report.mean.lpips.is_some();
    let mut text =
        format!("{:width$}  {:>9} {:>10} {:>8} {:>17}", "name", "psnr", "psnr_paper", "ssim", "ssim_outside_mask");
    text.push_str(if with_lpips { "    lpips\n" } else { "\n" });
    let rows = report.pairs.iter().map(|pair| (&*pair.name, &pair.scores));
    for (name, row) in rows.chain([("mean", &report.mean), ("sd", &report.sd)]) {
        let [psnr, paper] = [row.psnr, row.psnr_paper].map(|value| number(Some(value), 3));
        let [ssim, outside] = [row.ssim, row.ssim_outside_mask].map(|value| number(Some(value), 5));
        text.push_str(&format!("{name:width$}  {psnr:>9} {paper:>10} {ssim:>8} {outside:>17}"));
        if with_lpips {
            text.push_str(&format!(" {:>8}", number(row.lpips, 5)));
        }
        text.push('\n');
    }
    text.push_str(&format!("\nfid {}\nkid {}\n", number(report.sets.fid, 6), number(report.sets.kid, 9)));
    text
}

fn number(value: Option<f64>, places: usize) -> String {
    match value {
        Some(value) if value == f64::INFINITY => "inf".to_owned(),
        Some(value) if value.is_finite() => format!("{value:.places$}"),
        _ => "-".to_owned(),
    }
}
