//! Whether a model that draws whole images draws those that it was trained on.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use hiresmed_imaging::{
    Plane, Window, series,
    sheet::{Tile, contact_sheet},
};
use hiresmed_inference::{
    Runtime, SessionOptions,
    package::{Draft, Kind, Package},
};
use hiresmed_models::{
    data::{self, square},
    ddpm,
    prior::{self, Condition, TokenPrior},
    styleswin,
    vqgan::Autoencoder,
};
use hiresmed_protocol::request::Modality;
use hiresmed_scores::copying::{Evidence, Known, SHIFT, SIDE, SUSPECT_SCORE, Spread, nearest};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use crate::pipeline::condition;

/// The sheet's file in a package.
const SHEET_FILE: &str = "samples.png";
/// Seed of the samples that are judged.
const SEED: u64 = 1;
/// Samples on the sheet, pictures in a row of it, and a picture's side, px.
const SHOWN: usize = 8;
const COLUMNS: usize = 4;
const TILE: usize = 256;

/// What a model has learned from, and how its samples are drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trial<'a> {
    /// Folders that it was trained on.
    pub(crate) folders: &'a [PathBuf],
    /// What of them it was not trained on: see [`HoldOut`](data::HoldOut).
    pub(crate) hold_out: &'a [String],
    /// Folder of the package that decodes a prior's tokens.
    pub(crate) autoencoder: Option<&'a Path>,
    /// Samples that are judged.
    pub(crate) samples: u64,
    /// Steps of a diffusion model's sample; as many as it was trained with at most.
    pub(crate) steps: usize,
}

impl Trial<'_> {
    /// Enough to find a generator that recites every other time.
    pub(crate) const SAMPLES: u64 = 32;
    /// As many as `hiresmed model sample` takes unless it is asked otherwise.
    pub(crate) const STEPS: usize = 50;
}

/// What samples of a model look like beside what it was trained on.
#[derive(Debug)]
pub(crate) struct Originality {
    evidence: Evidence,
    trained: Vec<Known>,
    samples: Vec<Plane>,
    /// In how many steps they were drawn, where that is to be said.
    steps: Option<usize>,
}

/// Whether models of a kind draw whole images of patients out of many.
pub(crate) const fn draws_whole_images(kind: Kind) -> bool {
    matches!(kind, Kind::Prior | Kind::Ddpm | Kind::Styleswin)
}

impl Originality {
    /// Draws samples from `package` and holds them against the images of the training and `held_out`. A large diffusion model's take many
    /// minutes on a CPU: `stopped` is asked before each.
    ///
    /// # Errors
    /// For a package of another kind or that does not open, and for images that cannot be read or compared; once `stopped` says so.
    pub(crate) fn of(
        package: &Package,
        trial: &Trial<'_>,
        held_out: &[series::Slice],
        stopped: impl Fn() -> bool,
    ) -> anyhow::Result<Self> {
        let generator = Generator::open(package, trial)?;
        let sample = |index| {
            if stopped() {
                bail!("stopped after {index} of {} samples", trial.samples);
            }
            generator.draw(index)
        };
        let samples = (0..trial.samples).map(sample).collect::<anyhow::Result<Vec<_>>>()?;
        let window = match (&generator, package.description().window) {
            (Generator::Prior(_, autoencoder, _), _) => autoencoder.window(),
            (_, Some(window)) => Window { low: window.low, high: window.high },
            (_, None) => Window::LUNG_CT,
        };
        let small = |slice: &series::Slice| square(&slice.normalised(window), SIDE);
        let trained = known(trial, &small)?;
        let own: Vec<Plane> = samples.iter().map(|sample| square(sample, SIDE)).collect();
        let held_out: Vec<Plane> = held_out.iter().map(small).collect();
        let evidence = Evidence::new(&own, &trained, &held_out)?.context("there is no sample or no training image")?;
        if evidence.is_suspect() {
            tracing::warn!(
                model = package.name(),
                nearest = evidence.samples.middle,
                "samples are nearer to the training images than other images are: the model may recite; see its card"
            );
        }
        let steps = if let Generator::Ddpm(_, steps) = generator { Some(steps) } else { None };
        Ok(Self { evidence, trained, samples, steps })
    }

    /// Puts the scores into a package's description and the sheet among its files, and gives the card's section.
    pub(crate) fn enter(&self, draft: &mut Draft, files: &mut Vec<(String, Vec<u8>)>) -> String {
        draft.scores = self.scores();
        files.push((SHEET_FILE.to_owned(), self.sheet()));
        self.section()
    }

    /// What a description says of it.
    fn scores(&self) -> BTreeMap<String, f64> {
        let mut scores = BTreeMap::new();
        for (name, _, spread) in self.rows() {
            scores.insert(format!("{name}_least"), spread.least);
            scores.insert(format!("{name}_middle"), spread.middle);
        }
        if let Some(against) = self.evidence.against {
            scores.insert("samples_nearer_share".to_owned(), against.nearer);
            scores.insert("samples_nearer_z".to_owned(), against.z);
            scores.insert("samples_nearest_of_all".to_owned(), against.first as f64);
        }
        scores.insert(SUSPECT_SCORE.to_owned(), f64::from(u8::from(self.evidence.is_suspect())));
        scores.values_mut().for_each(|score| *score = (*score * 1e4).round() / 1e4);
        scores
    }

    /// A sheet of samples.
    fn sheet(&self) -> Vec<u8> {
        let tiles: Vec<Tile> = self.samples.iter().take(SHOWN).map(|sample| Tile::normalised(sample, None)).collect();
        contact_sheet(&tiles, COLUMNS, TILE)
    }

    /// A sheet of samples, each row above the training images nearest to them: to look at, and not to be given away.
    pub(crate) fn sheet_beside_nearest(&self) -> Vec<u8> {
        // Whole rows, so that each sample lies above its own.
        let columns = COLUMNS.min(self.samples.len()).max(1);
        let mut planes = Vec::new();
        for row in self.samples.chunks_exact(columns).take(COLUMNS) {
            let own: Vec<Plane> = row.iter().map(|sample| square(sample, SIDE)).collect();
            let nearest = own.iter().filter_map(|sample| nearest(sample, &self.trained));
            let nearest: Vec<Plane> = nearest.map(|(known, _)| known.plane.clone()).collect();
            planes.extend(own.into_iter().chain(nearest));
        }
        let tiles: Vec<Tile> = planes.iter().map(|plane| Tile::normalised(plane, None)).collect();
        contact_sheet(&tiles, columns, TILE)
    }

    /// The card's section (Markdown).
    fn section(&self) -> String {
        let mut text = format!(
            "## Does it recite, has it collapsed?\n\nRoot mean square difference of pixels over [-1, 1] at {SIDE} x {SIDE}, the least over shifts \
             of up to {SHIFT} px and mirroring; {} training images, samples of seed {SEED}{}. A model that recites gives samples nearer to a \
             training image than other images are; one that has collapsed gives samples nearer to each other than training images are.\n\n\
             | | number | least | middle | greatest |\n|---|---|---|---|---|\n",
            self.trained.len(),
            self.steps.map_or(String::new(), |steps| format!(" in {steps} steps")),
        );
        for (_, what, Spread { count, least, middle, greatest }) in self.rows() {
            let _ = writeln!(text, "| {what} | {count} | {least:.3} | {middle:.3} | {greatest:.3} |");
        }
        if let Some(against) = self.evidence.against {
            let than = if against.held_out { "held-out image" } else { "training image to those of other series" };
            let _ = write!(
                text,
                "\nOf all pairs a sample is nearer than a {than} in {:.0} % (half where both are alike; Mann and Whitney's U, Z {:.1}; Meehan \
                 et al. 2020). {} of {} samples are nearer than every {than}, a probability of {:.3} where both are alike. {}",
                100.0 * against.nearer,
                against.z,
                against.first,
                self.evidence.samples.count,
                against.first_chance,
                match (self.evidence.is_suspect(), against.held_out) {
                    (true, _) =>
                        "**That is no chance: it may recite its training images, or its samples may be blurred, which brings them near to \
                         everything. Hold them beside the training images before one leaves the site.**",
                    (false, true) => "That is no sign of recital, and no proof against it.",
                    (false, false) =>
                        "That is no sign of recital, and weak: training images may be near to each other. Eight held-out images or more, of \
                         other patients, make a better yardstick.",
                }
            );
            text += "\n";
        }
        let _ = write!(text, "\n![samples]({SHEET_FILE})\n");
        text
    }

    /// Distances by name, in words, and themselves.
    fn rows(&self) -> impl Iterator<Item = (&'static str, &'static str, Spread)> {
        let Evidence { samples, held_out, training, samples_apart, training_apart, .. } = self.evidence;
        let rows = [
            ("samples_nearest", "samples to the nearest training image", Some(samples)),
            ("held_out_nearest", "held-out images to the nearest training image", held_out),
            ("training_nearest", "training images to the nearest one of another series, if there is one", training),
            ("samples_apart", "samples to each other", samples_apart),
            ("training_apart", "training images to each other", training_apart),
        ];
        rows.into_iter().filter_map(|(name, what, spread)| Some((name, what, spread?)))
    }
}

/// The images of the training, small.
fn known(trial: &Trial<'_>, small: &impl Fn(&series::Slice) -> Plane) -> anyhow::Result<Vec<Known>> {
    let (images, mut faults) = data::images(trial.folders, trial.hold_out);
    let mut known = Vec::new();
    for image in &images {
        match image.read(0) {
            Err(of_image) => faults.extend(of_image),
            Ok(slices) => known.extend(slices.iter().map(|slice| Known {
                series: slice.uid.clone().unwrap_or_else(|| format!("{}/{}", image.folder, slice.series)),
                plane: small(slice),
            })),
        }
    }
    if !faults.is_empty() {
        bail!("training images cannot be read: {}", faults.join("; "));
    }
    Ok(known)
}

/// A model that draws whole images, in [-1, 1].
enum Generator {
    Prior(Box<TokenPrior>, Box<Autoencoder>, Modality),
    Ddpm(ddpm::Sampler, usize),
    Styleswin(styleswin::Sampler),
}

impl Generator {
    fn open(package: &Package, trial: &Trial<'_>) -> anyhow::Result<Self> {
        let (runtime, options) = (Runtime::load()?, SessionOptions::default());
        Ok(match package.kind() {
            Kind::Prior => {
                let folder = trial.autoencoder.context("a prior's samples need the autoencoder that decodes them")?;
                let modality = match package.description().modality() {
                    "kub" => Modality::Kub,
                    _ => Modality::Ct,
                };
                let prior = TokenPrior::open(package, &runtime, &options)?;
                let autoencoder = Autoencoder::open(&Package::open(folder)?, &runtime, &options)?;
                Self::Prior(Box::new(prior), Box::new(autoencoder), modality)
            }
            Kind::Ddpm => {
                let sampler = ddpm::Sampler::open(package, &runtime, &options)?;
                let steps = trial.steps.min(sampler.config().times);
                Self::Ddpm(sampler, steps)
            }
            Kind::Styleswin => Self::Styleswin(styleswin::Sampler::open(package, &runtime, &options)?),
            kind => bail!("a {kind:?} draws no whole images of patients out of many"),
        })
    }

    fn draw(&self, index: u64) -> anyhow::Result<Plane> {
        Ok(match self {
            Self::Prior(prior, autoencoder, modality) => {
                let sample = |condition| {
                    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
                    rng.set_stream(index);
                    prior.sample(condition, &prior.sampling(), &mut rng)
                };
                let tokens = match sample(condition(*modality)) {
                    // Requests for images will be refused for it, and its training is not lost.
                    Err(prior::Error::Condition { .. }) => sample(Condition::default()),
                    sampled => sampled,
                }?;
                autoencoder.decode(&[tokens])?.pop().context("the autoencoder returned no image")?
            }
            Self::Ddpm(sampler, steps) => sampler.sample(SEED, index, *steps)?,
            Self::Styleswin(sampler) => sampler.sample(SEED, index)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, fs};

    use hiresmed_imaging::raster;

    use super::*;

    fn pack() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/pack")
    }

    /// The one shipped package of a kind.
    fn shipped(kind: &str) -> Package {
        let folder = fs::read_dir(pack().join("models").join(kind)).unwrap().next().unwrap().unwrap();
        Package::open(&folder.path()).unwrap()
    }

    fn trial(folders: &[PathBuf], samples: u64) -> Trial<'_> {
        Trial { folders, hold_out: &[], autoencoder: None, samples, steps: 2 }
    }

    /// Nothing stops this.
    fn never() -> bool {
        false
    }

    #[test]
    fn a_model_whose_samples_are_its_training_images_is_told_from_one_whose_are_not() {
        let package = shipped("styleswin");
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().to_path_buf()];
        let generator = Generator::open(&package, &trial(&folders, 0)).unwrap();
        for index in 0..12 {
            let image = generator.draw(index).unwrap();
            let grey = raster::to_8_bit(&image, -1.0, 1.0);
            let png = raster::grey_png(image.width(), image.height(), &grey);
            fs::write(folder.path().join(format!("{index}.png")), png).unwrap();
        }
        let held_out = series::read_folder(pack().join("sample/series")).unwrap().slices;
        let recited = Originality::of(&package, &trial(&folders, 12), &held_out, never).unwrap();
        let scores = recited.scores();
        assert!(scores["samples_nearest_middle"] < 0.01 && scores["held_out_nearest_least"] > 0.2, "{scores:?}");
        assert_eq!((scores["samples_nearer_share"], scores[SUSPECT_SCORE]), (1.0, 1.0));
        assert!(recited.section().contains("**That is no chance"), "{}", recited.section());

        let folders = [pack().join("sample/series")];
        let own = Originality::of(&package, &trial(&folders, 12), &[], never).unwrap();
        let (scores, section) = (own.scores(), own.section());
        assert!(scores["samples_nearest_least"] > 0.2 && !scores.contains_key("held_out_nearest_least"), "{scores:?}");
        assert_eq!(scores[SUSPECT_SCORE], 0.0);
        assert!(section.contains("no sign of recital") && section.contains("![samples](samples.png)"), "{section}");
    }

    #[test]
    fn a_diffusion_models_samples_say_in_how_many_steps_they_were_drawn() {
        let folders = [pack().join("sample/series")];
        let found = Originality::of(&shipped("ddpm"), &trial(&folders, 2), &[], never).unwrap();
        assert!(found.section().contains("samples of seed 1 in 2 steps"), "{}", found.section());
        let folder = tempfile::tempdir().unwrap();
        let size = |sheet: Vec<u8>| {
            let path = folder.path().join("sheet.png");
            fs::write(&path, sheet).unwrap();
            let plane = series::read_file(path).unwrap().remove(0).plane;
            (plane.width(), plane.height())
        };
        assert_eq!(size(found.sheet()), (2 * 258 - 2, 256));
        assert_eq!(
            size(found.sheet_beside_nearest()),
            (2 * 258 - 2, 2 * 258 - 2),
            "samples above the images nearest to them"
        );
    }

    #[test]
    fn it_stops_between_two_samples() {
        let folders = [pack().join("sample/series")];
        let asked = Cell::new(0);
        let third = || asked.replace(asked.get() + 1) == 2;
        let stopped = Originality::of(&shipped("styleswin"), &trial(&folders, 12), &[], third).unwrap_err();
        assert_eq!((stopped.to_string().as_str(), asked.get()), ("stopped after 2 of 12 samples", 3));
    }

    #[test]
    fn what_cannot_be_judged_is_told() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.png"), "no image").unwrap();
        let folders = [folder.path().to_path_buf()];
        let fault =
            |kind: &str| Originality::of(&shipped(kind), &trial(&folders, 1), &[], never).unwrap_err().to_string();
        assert!(fault("styleswin").contains("a.png"), "{}", fault("styleswin"));
        assert!(fault("prior").contains("need the autoencoder"), "{}", fault("prior"));
        assert!(fault("vqgan-residual").contains("draws no whole images"), "{}", fault("vqgan-residual"));
    }
}
