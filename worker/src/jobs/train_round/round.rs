//! A round: the data set and the parent checkpoint on disk, a bounded number of steps, the next checkpoint in the store;
//! after the last step the finished package.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hiresmed_inference::package::{CARD_FILE, Package};
use hiresmed_models::{
    training::{self, Budget, Ending, Flow, Kind, Naming, Product, Progress, Specification, Summary},
    weights::Weights,
};
use hiresmed_protocol::{
    Happening,
    job::{DataFiles, DataSet, Object, TrainRound},
    keys,
    outcome::{RoundResult, Stage, StageTiming, Success},
    request::{Modality, TrainedModel},
};

use crate::{
    busy,
    environment::Environment,
    jobs::{Context, Failure},
    packages,
    trainer::{HeldOut, Originality, Trial, draws_whole_images},
};

/// Longest time between two reports of the losses.
const REPORT: Duration = Duration::from_secs(1);

/// Data sets that the worker's disk keeps at most.
const DATA_SETS: usize = 4;

/// A round ends after this time even when its steps turned out slower than measured.
const LONGEST: Duration = Duration::from_secs(600);

/// Makes the round's steps.
pub(super) fn train(work: &TrainRound, environment: &Environment, context: &Context) -> Result<Success, Failure> {
    let specification = specification(work, environment)?;
    if work.parent.is_none() {
        // What cannot be scored is known before the first step, and not after the last.
        held_out(work, environment, specification.kind)?;
    }
    let folder = tempfile::tempdir().map_err(|error| Failure::transient(Stage::Training, error))?;
    let parent = work.parent.as_ref().map(|parent| checkpoint(parent, environment, folder.path())).transpose()?;
    let mut learner = training::open(&specification, parent.as_ref()).map_err(fault)?;
    drop(parent);
    let path = folder.path().join("checkpoint.safetensors");
    let mut losses = Losses::default();
    let mut last = None;
    let mut progress = |progress: &Progress| {
        busy::step_took(Duration::from_secs_f64(progress.seconds));
        losses.add(progress);
        if last.is_none_or(|time: Instant| time.elapsed() >= REPORT) || progress.step == progress.planned {
            let terms = losses.recent();
            environment.observe(|metrics| {
                for (term, value) in &terms {
                    metrics.set_training_loss(work.request.model.as_str(), term, *value);
                }
            });
            context.report(Happening::TrainingLoss { step: progress.step, of: progress.planned, terms });
            last = Some(Instant::now());
        }
        if context.stopped() { Flow::Stop } else { Flow::Continue }
    };
    let budget = Budget { steps: Some(work.steps), duration: Some(LONGEST) };
    let summary = training::round(learner.as_mut(), budget, &path, &mut progress).map_err(fault)?;
    drop(learner);
    if summary.steps == 0 || (summary.ending == Ending::Stopped && context.is_cancelled()) {
        // What a drained worker has made counts, and what a cancelled request has made does not.
        context.check()?;
    }
    finish(work, environment, context, &specification, &summary, &path, losses.means())
}

fn finish(
    work: &TrainRound,
    environment: &Environment,
    context: &Context,
    specification: &Specification,
    summary: &Summary,
    path: &Path,
    losses: BTreeMap<String, f64>,
) -> Result<Success, Failure> {
    let bytes = fs::read(path).map_err(|error| Failure::transient(Stage::Training, error))?;
    let name = format!("checkpoints/step-{:08}.safetensors", summary.steps_done);
    let output = context.output(environment, name, bytes)?;
    let checkpoint = Object { key: keys::object(&context.job().site, &output.sha256), sha256: output.sha256 };
    let package = match summary.ending {
        Ending::Finished => Some(package(work, environment, context, specification, path)?),
        Ending::Paused | Ending::Stopped => None,
    };
    let duration_ms = summary.seconds * 1000.0;
    let result = RoundResult {
        checkpoint,
        step: summary.steps_done,
        step_ms: duration_ms / summary.steps.max(1) as f64,
        losses,
        package,
    };
    let timing = StageTiming { stage: Stage::Training, duration_ms, runtime_ms: 0.0, count: summary.steps };
    Ok(Success { outputs: vec![output], round: Some(result), stages: vec![timing], ..Success::default() })
}

/// What to train, with the data set as folders on this machine.
fn specification(work: &TrainRound, environment: &Environment) -> Result<Specification, Failure> {
    let request = &work.request;
    let (root, folders) = data_set(&work.data, environment)?;
    let perceptual = work.perceptual.as_ref().map(|files| backbone(&data_set(files, environment)?)).transpose()?;
    let autoencoder =
        work.autoencoder.as_ref().map(|digest| environment.package_folder("vqgan", digest)).transpose()?;
    Ok(Specification {
        kind: match request.model {
            TrainedModel::Vqgan => Kind::Vqgan,
            TrainedModel::Singan => Kind::Singan,
            TrainedModel::Unet => Kind::Unet,
            TrainedModel::Prior => Kind::Prior,
            TrainedModel::Yolo => Kind::Yolo,
            TrainedModel::Ddpm => Kind::Ddpm,
            TrainedModel::Styleswin => Kind::Styleswin,
        },
        preset: request.preset.clone(),
        data: folders.iter().map(|name| root.join(name)).collect(),
        hold_out: request.hold_out.clone(),
        steps: Some(request.steps),
        seed: request.seed,
        autoencoder,
        perceptual,
        settings: serde_json::Value::Null,
    })
}

/// The data set's folder, brought from the store on first use, and the names of its sources.
fn data_set(data: &DataSet, environment: &Environment) -> Result<(PathBuf, BTreeSet<String>), Failure> {
    let listing = &data.listing;
    let bytes = environment.store.get(&listing.key)?;
    let listed: DataFiles = serde_json::from_slice(&bytes)
        .with_context(|| format!("the data set's listing {} cannot be read", listing.key))
        .map_err(|error| Failure::permanent(Stage::Training, error))?;
    let root = environment.scratch().join("data").join(listing.sha256.to_string());
    if !root.is_dir() {
        packages::fill(&root, |target| {
            for (name, object) in &listed.files {
                packages::write(target, name, &environment.store.get(&object.key)?)?;
            }
            Ok(())
        })?;
        // Only space is at stake.
        let _ = packages::evict(&environment.scratch().join("data"), DATA_SETS);
    }
    let sources = listed.files.keys().filter_map(|name| name.split('/').next());
    Ok((root, sources.map(str::to_owned).collect()))
}

/// The images that the finished model is scored on, where there are any.
fn held_out(work: &TrainRound, environment: &Environment, kind: Kind) -> Result<Option<HeldOut>, Failure> {
    let Some(images) = &work.score_on else { return Ok(None) };
    let (root, folders) = data_set(images, environment)?;
    let folders: Vec<PathBuf> = folders.iter().map(|name| root.join(name)).collect();
    let held = HeldOut::read(kind, &work.request.preset, &folders);
    held.map(Some).map_err(|error| Failure::permanent(Stage::Training, error))
}

/// The one file with a network's weights in a source's folders.
fn backbone((root, folders): &(PathBuf, BTreeSet<String>)) -> Result<PathBuf, Failure> {
    let mut found = Vec::new();
    for folder in folders {
        let entries = fs::read_dir(root.join(folder)).map_err(|error| Failure::transient(Stage::Training, error))?;
        found.extend(entries.flatten().map(|entry| entry.path()).filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            (name.ends_with(".safetensors") && !name.ends_with(".lin.safetensors")) || name.ends_with(".onnx")
        }));
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        count => Err(Failure::permanent(
            Stage::Training,
            anyhow::anyhow!(
                "the source of the perceptual network has {count} files that end in .safetensors or .onnx; give it one, and LPIPS' linear \
                 weights in it or in a .lin.safetensors beside it"
            ),
        )),
    }
}

fn checkpoint(parent: &Object, environment: &Environment, folder: &Path) -> Result<Weights, Failure> {
    let path = folder.join("parent.safetensors");
    let bytes = environment.store.get(&parent.key)?;
    fs::write(&path, &bytes).map_err(|error| Failure::transient(Stage::Training, error))?;
    Weights::read(&path).map_err(|error| Failure::permanent(Stage::Training, error))
}

/// Makes the package of a finished training, judges it, and puts it into the store, `model.json` last.
fn package(
    work: &TrainRound,
    environment: &Environment,
    context: &Context,
    specification: &Specification,
    checkpoint: &Path,
) -> Result<Object, Failure> {
    let permanent = |error: anyhow::Error| Failure::permanent(Stage::Training, error);
    let weights = Weights::read(checkpoint).map_err(|error| permanent(error.into()))?;
    let naming = Naming {
        name: work.request.name.clone(),
        data: work.request.data.join(", "),
        data_licence: "the site's own data: not stated".to_owned(),
        licence: "as the training data permit: not stated".to_owned(),
        modality: match work.request.modality {
            Modality::Ct => None,
            other => Some(other.as_str().to_owned()),
        },
    };
    let mut product = training::product(&weights, &naming).map_err(|error| permanent(error.into()))?;
    let folder = tempfile::tempdir().map_err(|error| Failure::transient(Stage::Training, error))?;
    let write = |product: &Product| {
        let files: Vec<_> = product.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        Package::write(folder.path(), product.draft.clone(), &files).map_err(|error| permanent(error.into()))
    };
    let held = held_out(work, environment, specification.kind)?;
    let mut evidence = None;
    // What is judged are the graphs that are delivered, through the runtime that runs them.
    if draws_whole_images(product.draft.kind) {
        let trial = Trial {
            folders: &specification.data,
            hold_out: &specification.hold_out,
            autoencoder: specification.autoencoder.as_deref(),
            samples: Trial::SAMPLES,
            steps: Trial::STEPS,
        };
        let held = held.map(HeldOut::into_slices).unwrap_or_default();
        // A worker that drains has made all the steps and finishes.
        let originality = Originality::of(&write(&product)?, &trial, &held, || context.is_cancelled())
            .map_err(|error| if context.is_cancelled() { Failure::Cancelled } else { permanent(error) })?;
        evidence = Some(originality.enter(&mut product.draft, &mut product.files));
    } else if let Some(held) = held {
        product.draft.scores = held.score(&write(&product)?).map_err(permanent)?;
    }
    let card = training::card(&product.draft, &weights, &product.files, evidence.as_deref(), None);
    product.files.push((CARD_FILE.to_owned(), card.into_bytes()));
    let package = write(&product)?;
    let digest = package.digest().parse().map_err(|error| permanent(anyhow::Error::new(error)))?;
    let prefix = keys::model(package.kind().name(), &digest);
    for (name, bytes) in &product.files {
        environment.store.put_if_absent(&format!("{prefix}{name}"), bytes.clone())?;
    }
    let description = fs::read(package.directory().join("model.json"));
    let description = description.map_err(|error| Failure::transient(Stage::Training, error))?;
    let key = format!("{prefix}model.json");
    environment.store.put_if_absent(&key, description)?;
    Ok(Object { key, sha256: digest })
}

/// Of all that training can meet, only a checkpoint that cannot be written may pass.
fn fault(error: training::Error) -> Failure {
    match error {
        training::Error::Weights(_) => Failure::transient(Stage::Training, error),
        error => Failure::permanent(Stage::Training, error),
    }
}

/// Sums of the loss terms, for the round and since the last report.
#[derive(Default)]
struct Losses {
    round: Sums,
    recent: Sums,
}

/// Sum and count of each term: not every step has every figure.
#[derive(Default)]
struct Sums(BTreeMap<String, (f64, u64)>);

impl Losses {
    fn add(&mut self, progress: &Progress) {
        for sums in [&mut self.round, &mut self.recent] {
            for (name, value) in progress.figures {
                let (sum, count) = sums.0.entry((*name).to_owned()).or_default();
                (*sum, *count) = (*sum + value, *count + 1);
            }
        }
    }

    /// The means since the last report.
    fn recent(&mut self) -> BTreeMap<String, f64> {
        std::mem::take(&mut self.recent).means()
    }

    fn means(self) -> BTreeMap<String, f64> {
        self.round.means()
    }
}

impl Sums {
    fn means(self) -> BTreeMap<String, f64> {
        let means = self.0.into_iter().map(|(name, (sum, count))| (name, sum / count as f64));
        means.filter(|(_, mean)| mean.is_finite()).collect()
    }
}
