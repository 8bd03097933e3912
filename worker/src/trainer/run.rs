//! `hiresmed-trainer run`: a training in one folder, in rounds, resumed from its newest checkpoint.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::Context as _;
use hiresmed_models::{
    training::{self, Budget, Ending, Flow, Kind, Specification},
    vqgan,
};

/// Steps between two lines of the log.
const LOG_EVERY: u64 = 50;

/// What to train, and where.
#[derive(Debug, clap::Args)]
pub struct RunOptions {
    /// Kind of model: vqgan, singan, unet, yolo, prior, ddpm or styleswin.
    #[arg(long, value_parser = kind)]
    kind: Kind,
    /// Preset of architecture and training, such as ct512.
    #[arg(long)]
    preset: String,
    /// Folder with the training data; may be given several times.
    #[arg(long, required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    /// Series (a folder's name) or file (its name without extension) that is not trained on; `A*` for every name that begins
    /// with A. May be given several times.
    #[arg(long, num_args = 1..)]
    hold_out: Vec<String>,
    /// Folder of the checkpoints; a training in it goes on from the newest.
    #[arg(long)]
    out: PathBuf,
    /// Steps in all; the preset's without.
    #[arg(long)]
    steps: Option<u64>,
    /// Seconds between checkpoints.
    #[arg(long, default_value_t = 300)]
    round_seconds: u64,
    /// Seed of initialisation, data order and augmentation.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder of an autoencoder's package: whose tokens a prior learns, or with whose encoder a vqgan's perceptual term is measured.
    #[arg(long)]
    autoencoder: Option<PathBuf>,
    /// File with AlexNet's or VGG16's weights and LPIPS' linear ones (safetensors or ONNX), for a vqgan's perceptual term.
    #[arg(long, value_name = "FILE")]
    perceptual: Option<PathBuf>,
    /// Checkpoint to start from where the folder has none.
    #[arg(long)]
    from: Option<PathBuf>,
    /// JSON file with the fields of the preset that differ.
    #[arg(long)]
    settings: Option<PathBuf>,
    /// Threads of one operation; as many as libtorch finds cores without.
    #[arg(long)]
    threads: Option<i32>,
}

fn kind(text: &str) -> Result<Kind, String> {
    let value = serde_json::Value::String(text.to_owned());
    serde_json::from_value(value)
        .map_err(|_| format!("{text:?} is not vqgan, singan, unet, yolo, prior, ddpm or styleswin"))
}

/// Trains until the training is complete or `stop` is set (seen between steps). Calling it again goes on.
///
/// # Errors
/// The training's; the last checkpoint remains.
pub fn run(options: RunOptions, stop: &AtomicBool) -> anyhow::Result<()> {
    let settings = match &options.settings {
        None => serde_json::Value::Null,
        Some(path) => {
            let text =
                fs::read_to_string(path).with_context(|| format!("cannot read the settings {}", path.display()))?;
            serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?
        }
    };
    if let Some(threads) = options.threads {
        hiresmed_models::training::set_threads(threads);
    }
    let specification = Specification {
        kind: options.kind,
        preset: options.preset,
        data: options.data,
        hold_out: options.hold_out,
        steps: options.steps,
        seed: options.seed,
        autoencoder: options.autoencoder,
        perceptual: options.perceptual,
        settings,
    };
    if specification.kind == Kind::Vqgan
        && let Some(memory) = vqgan::Learner::memory(&specification)?
    {
        tracing::info!("a step needs about {:.1} GB, by the shapes of its tensors", memory.peak() as f64 / 1e9);
    }
    let budget = Budget { steps: None, duration: Some(Duration::from_secs(options.round_seconds)) };
    // Sum and count of each: not every step has every figure.
    let mut sums: BTreeMap<&'static str, (f64, u64)> = BTreeMap::new();
    let (mut steps, mut seconds) = (0u64, 0.0);
    let mut progress = |progress: &training::Progress| {
        steps += 1;
        seconds += progress.seconds;
        for (name, value) in progress.figures {
            let (sum, count) = sums.entry(name).or_default();
            (*sum, *count) = (*sum + value, *count + 1);
        }
        if progress.step.is_multiple_of(LOG_EVERY) || progress.step == progress.planned {
            let line: Vec<String> =
                sums.iter().map(|(name, (sum, count))| format!("{name} {:.4}", sum / *count as f64)).collect();
            tracing::info!(
                step = progress.step,
                planned = progress.planned,
                step_ms = (1e3 * seconds / steps as f64).round(),
                "{}",
                line.join(" ")
            );
            sums.clear();
            (steps, seconds) = (0, 0.0);
        }
        if stop.load(Ordering::Relaxed) { Flow::Stop } else { Flow::Continue }
    };
    let mut ended = |summary: &training::Summary, path: &std::path::Path| {
        tracing::info!(step = summary.steps_done, checkpoint = %path.display(), "round ended");
    };
    let (summary, path) =
        training::train(&specification, &options.out, options.from.as_deref(), budget, &mut progress, &mut ended)?;
    match summary.ending {
        Ending::Finished => tracing::info!(checkpoint = %path.display(), "training is complete"),
        Ending::Stopped | Ending::Paused => {
            tracing::info!(
                step = summary.steps_done,
                planned = summary.steps_planned,
                "stopped; the same command goes on"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hiresmed_models::training::newest_checkpoint;

    use super::*;

    fn options(data: PathBuf, out: PathBuf) -> RunOptions {
        RunOptions {
            kind: Kind::Vqgan,
            preset: "tiny".into(),
            data: vec![data],
            hold_out: Vec::new(),
            out,
            steps: Some(3),
            round_seconds: 300,
            seed: 1,
            autoencoder: None,
            perceptual: None,
            from: None,
            settings: None,
            threads: Some(1),
        }
    }

    #[test]
    fn the_same_command_goes_on_until_the_training_is_complete() {
        let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let pixels: Vec<u8> = (0..40 * 40).map(|i| (i % 251) as u8).collect();
        fs::write(data.path().join("a.png"), hiresmed_imaging::raster::grey_png(40, 40, &pixels)).unwrap();
        let step = || newest_checkpoint(out.path()).unwrap().file_stem().unwrap().to_string_lossy().into_owned();
        // A flag that is set already stops after every step.
        let stop = AtomicBool::new(true);
        for expected in ["step-00000001", "step-00000002", "step-00000003", "step-00000003"] {
            run(options(data.path().into(), out.path().into()), &stop).unwrap();
            assert_eq!(step(), expected);
        }
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 2, "the last two checkpoints are kept, nothing else");
    }

    #[test]
    fn a_wrong_data_set_is_refused_before_the_first_step() {
        let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let error = run(options(data.path().into(), out.path().into()), &AtomicBool::new(false)).unwrap_err();
        assert!(error.to_string().contains("has no image to train on"), "{error}");
        assert!(newest_checkpoint(out.path()).is_none());
    }
}
