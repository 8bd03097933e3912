//! `hiresmed-trainer compare`: figure 8, blocks against VQGAN's residual block on the same data, seeds and widths.
//!
//! All are trained in one process, a few steps of one and a few of the next in turn: what disturbs the machine disturbs all. A level is
//! reached at the first step from which on the smoothed figure is at or beyond it.

use std::{
    fmt::{self, Write as _},
    fs,
    path::PathBuf,
    time::Instant,
};

use anyhow::{Context as _, bail};
use hiresmed_imaging::{Plane, Window, series};
use hiresmed_models::{
    training::{
        self, Kind, Learner as _, Specification,
        curves::{self, Panel},
    },
    vqgan::{self, Block, Learner},
};
use hiresmed_scores::psnr;
use serde::{Deserialize, Serialize};

/// Steps of one block before it is the next one's turn.
const TURN: u64 = 10;
/// The loss is smoothed over so many steps.
const SMOOTH: usize = 25;
/// Levels between where both are after a tenth of the training and where both end.
const LEVELS: usize = 4;
/// Images are normalised to [-1, 1].
const DATA_RANGE: f64 = 2.0;

/// What is compared.
#[derive(Debug, clap::Args)]
pub struct CompareOptions {
    /// Folder with the training data; may be given several times.
    #[arg(long, required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    /// Series (a folder's name) or file (its name without extension) that is not trained on; `A*` for every name that begins
    /// with A. May be given several times.
    #[arg(long, num_args = 1..)]
    hold_out: Vec<String>,
    /// Folder of held-out images, on which fidelity is measured.
    #[arg(long)]
    held_out: PathBuf,
    /// Preset of an autoencoder, whose block and widths are replaced.
    #[arg(long, default_value = "ct256")]
    preset: String,
    /// Widths of the stages, as 32,64; may be given several times; the preset's without.
    #[arg(long, num_args = 1.., value_parser = widths)]
    widths: Vec<Widths>,
    /// Blocks, the others compared with the first; `:zero` after one lets its last convolution begin at zero.
    #[arg(long, num_args = 2.., value_parser = contestant, default_values = ["residual", "residual:zero", "hdfb:zero", "hdfb-light:zero"])]
    blocks: Vec<Contestant>,
    /// Terms of the loss; may be given several times.
    #[arg(long, num_args = 1.., value_enum, default_values_t = [Terms::Plain])]
    terms: Vec<Terms>,
    /// Folder of an autoencoder's package, with whose encoder the perceptual term is measured
    #[arg(long)]
    autoencoder: Option<PathBuf>,
    /// Seeds, counted from 1.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Steps of a training.
    #[arg(long, default_value_t = 400)]
    steps: u64,
    /// Steps between two looks at the held-out images.
    #[arg(long, default_value_t = 25)]
    look_every: u64,
    /// Held-out images that are looked at.
    #[arg(long, default_value_t = 3)]
    looks: usize,
    /// Folder of the results; trainings that are in it are not made again.
    #[arg(long)]
    out: PathBuf,
    /// Threads of one operation; as many as libtorch finds cores without.
    #[arg(long)]
    threads: Option<i32>,
}

/// Widths of an autoencoder's stages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Widths(Vec<usize>);

fn widths(text: &str) -> Result<Widths, String> {
    let numbers = text.split(',').map(str::parse).collect::<Result<_, _>>();
    numbers.map(Widths).map_err(|_| format!("{text:?} is not a list of widths such as 32,64"))
}

/// The terms beside reconstruction and quantisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Terms {
    /// None.
    Plain,
    /// The adversarial term, from a quarter of the training on.
    Gan,
    /// The perceptual term, by the features of the autoencoder's encoder that is named.
    Perceptual,
    /// Both.
    GanPerceptual,
}

/// A block, and how it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Contestant {
    block: Block,
    from_zero: bool,
}

fn contestant(text: &str) -> Result<Contestant, String> {
    let (block, from_zero) = text.strip_suffix(":zero").map_or((text, false), |block| (block, true));
    let block = serde_json::from_value(block.into());
    let block =
        block.map_err(|_| format!("{text:?} is not residual, hdfb or hdfb-light, or one of them with :zero"))?;
    Ok(Contestant { block, from_zero })
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.block {
            Block::Hdfb => "hdfb",
            Block::HdfbLight => "hdfb-light",
            Block::Residual => "residual",
        })?;
        f.write_str(if self.from_zero { ":zero" } else { "" })
    }
}

/// One training of all blocks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Heat {
    terms: Terms,
    widths: Widths,
    seed: u64,
    /// Epochs in a step: pixels of its crops over pixels of the data set.
    epochs_per_step: f64,
    /// By block, in the order in which they were named.
    runs: Vec<(String, Run)>,
}

/// One training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Run {
    parameters: usize,
    /// Mean absolute error of each step's crops.
    l1: Vec<f64>,
    /// Seconds of training until the end of each step.
    seconds: Vec<f64>,
    /// Step and mean PSNR of the held-out images, dB.
    psnr: Vec<(u64, f64)>,
}

impl Run {
    /// The loss, each step's mean with those before it.
    fn smooth(&self) -> Vec<f64> {
        let ends = 1..=self.l1.len();
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        ends.map(|end| mean(&self.l1[end.saturating_sub(SMOOTH)..end])).collect()
    }

    fn seconds_at(&self, step: u64) -> f64 {
        self.seconds.get((step as usize).saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    /// The first step from which on the loss stays at or under `level`.
    fn loss_reached(&self, level: f64) -> Option<u64> {
        let smooth = self.smooth();
        let above = smooth.iter().rposition(|&loss| loss > level).map_or(0, |last| last + 1);
        (above < smooth.len()).then_some(above as u64 + 1)
    }

    /// The first look from which on fidelity stays at or over `level`.
    fn fidelity_reached(&self, level: f64) -> Option<u64> {
        let below = self.psnr.iter().rposition(|&(_, psnr)| psnr < level).map_or(0, |last| last + 1);
        self.psnr.get(below).map(|&(step, _)| step)
    }
}

/// Trains what is not in the folder yet, and writes `compare.json`, `compare.md` and `compare.svg`.
///
/// # Errors
/// The training's and the file system's; what was trained until then remains.
pub fn compare(options: &CompareOptions) -> anyhow::Result<()> {
    if let Some(threads) = options.threads {
        training::set_threads(threads);
    }
    fs::create_dir_all(&options.out).with_context(|| format!("cannot make {}", options.out.display()))?;
    let preset = vqgan::Config::preset(&options.preset);
    let preset = preset.with_context(|| format!("--preset {}: unknown; see MODELS.md", options.preset))?;
    let held = held_out(options, preset.stride())?;
    let widths = if options.widths.is_empty() { vec![Widths(preset.widths)] } else { options.widths.clone() };
    let mut heats = Vec::new();
    for &terms in &options.terms {
        for widths in &widths {
            for seed in 1..=options.seeds {
                heats.push(heat(options, terms, widths, seed, &held)?);
            }
        }
    }
    let write = |name: &str, text: String| {
        let path = options.out.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write("compare.json", serde_json::to_string(&heats)?)?;
    write("compare.svg", curves::draw(&panels(&heats)).map_err(anyhow::Error::msg)?)?;
    let report = report(options, &heats)?;
    print!("{report}");
    write("compare.md", report)
}

/// The held-out images that are looked at, spread over the folder; their sides are multiples of `stride`.
fn held_out(options: &CompareOptions, stride: usize) -> anyhow::Result<Vec<Plane>> {
    let found = series::read_folder(&options.held_out)?;
    if let Some(fault) = found.faults.first() {
        bail!("a held-out image cannot be read: {fault}");
    }
    let count = options.looks.clamp(1, found.slices.len().max(1));
    let places = (0..count).filter_map(|index| found.slices.get((2 * index + 1) * found.slices.len() / (2 * count)));
    let cut = |plane: Plane| {
        let (width, height) = (plane.width() / stride * stride, plane.height() / stride * stride);
        let pixel = |i: usize| plane.at(i % width, i / width);
        Plane::new(width, height, (0..width * height).map(pixel).collect())
    };
    let held: Vec<Plane> = places.map(|slice| cut(slice.normalised(Window::LUNG_CT))).collect();
    if held.is_empty() {
        bail!("{} has no image", options.held_out.display());
    }
    Ok(held)
}

/// One training of all blocks, from the folder where it is there.
fn heat(options: &CompareOptions, terms: Terms, widths: &Widths, seed: u64, held: &[Plane]) -> anyhow::Result<Heat> {
    let name = serde_json::to_value(terms)?.as_str().unwrap_or_default().to_owned();
    let joined = |parts: Vec<String>, by: &str| parts.join(by);
    let width = joined(widths.0.iter().map(usize::to_string).collect(), "-");
    let blocks = joined(options.blocks.iter().map(|block| block.to_string().replace(':', "-")).collect(), "+");
    let file = format!("{}-{name}-{width}-{blocks}-seed-{seed}-steps-{}.json", options.preset, options.steps);
    let path = options.out.join(file);
    if let Ok(bytes) = fs::read(&path) {
        let found: Option<Heat> = serde_json::from_slice(&bytes).ok();
        let of_these = |heat: &Heat| {
            let blocks = options.blocks.iter().map(Contestant::to_string);
            heat.runs.iter().map(|(name, _)| name.clone()).eq(blocks)
        };
        let found = found.filter(of_these);
        return found.with_context(|| format!("{} is not a result; delete it", path.display()));
    }
    let sides = options.blocks.iter().map(|&block| Side::open(options, terms, widths, seed, block));
    let mut sides = sides.collect::<anyhow::Result<Vec<_>>>()?;
    let epochs_per_step = sides.first().map_or(f64::NAN, |side| side.epochs_per_step);
    let mut step = 0;
    while step < options.steps {
        // Who begins changes, so that none always finds the same one's memory.
        let first = (step / TURN) as usize % sides.len();
        let turn = TURN.min(options.steps - step);
        for index in 0..sides.len() {
            let index = (first + index) % sides.len();
            for _ in 0..turn {
                sides[index].step(options.look_every, held)?;
            }
        }
        step += turn;
        if step % 100 == 0 || step == options.steps {
            let last = |side: &Side| side.run.smooth().last().copied().unwrap_or(f64::NAN);
            let l1 = sides.iter().map(|side| format!("{} {:.4}", side.block, last(side))).collect();
            tracing::info!(terms = name, widths = width, seed, step, l1 = joined(l1, ", "));
        }
    }
    let runs = sides.into_iter().map(|side| (side.block.to_string(), side.run)).collect();
    let heat = Heat { terms, widths: widths.clone(), seed, epochs_per_step, runs };
    let partial = path.with_extension("partial");
    fs::write(&partial, serde_json::to_vec(&heat)?).and_then(|()| fs::rename(&partial, &path))?;
    Ok(heat)
}

/// A block in training.
struct Side {
    block: Contestant,
    learner: Learner,
    run: Run,
    epochs_per_step: f64,
}

impl Side {
    fn open(
        options: &CompareOptions,
        terms: Terms,
        widths: &Widths,
        seed: u64,
        block: Contestant,
    ) -> anyhow::Result<Self> {
        let mut settings = serde_json::json!({
            "config": {"widths": widths, "block": block.block},
            "training": {"blocks_from_zero": block.from_zero},
        });
        let mut training = vqgan::Training::preset(&options.preset).context("a preset has both")?;
        let perceptual = matches!(terms, Terms::Perceptual | Terms::GanPerceptual);
        if perceptual && options.autoencoder.is_none() {
            bail!("--terms {terms:?} needs --autoencoder, the package whose encoder's features the term compares");
        }
        if matches!(terms, Terms::Gan | Terms::GanPerceptual) {
            // VQGAN's weight.
            training.loss.adversarial = 0.8;
            settings["training"]["loss"] = serde_json::json!(&training.loss);
            settings["training"]["discriminator_start"] = (options.steps / 4).into();
        }
        let specification = Specification {
            kind: Kind::Vqgan,
            preset: options.preset.clone(),
            data: options.data.clone(),
            hold_out: options.hold_out.clone(),
            steps: Some(options.steps),
            seed,
            autoencoder: options.autoencoder.clone().filter(|_| perceptual),
            perceptual: None,
            settings,
        };
        let learner = Learner::open(&specification, None)?;
        let crops = training.crops_at(0).context("a preset has crops")?;
        let pixels: usize = learner.data().samples().iter().map(|sample| sample.plane.data().len()).sum();
        let parameters = learner.network().trainable().iter().map(|(_, tensor)| tensor.numel()).sum();
        let epochs_per_step = (crops.batch * crops.size * crops.size) as f64 / pixels as f64;
        Ok(Self { block, learner, run: Run { parameters, ..Run::default() }, epochs_per_step })
    }

    fn step(&mut self, look_every: u64, held: &[Plane]) -> anyhow::Result<()> {
        let started = Instant::now();
        let figures = self.learner.step()?;
        let seconds = started.elapsed().as_secs_f64() + self.run.seconds.last().copied().unwrap_or(0.0);
        let l1 = figures.iter().find(|(name, _)| *name == "l1").map_or(f64::NAN, |(_, value)| *value);
        self.run.l1.push(l1);
        self.run.seconds.push(seconds);
        let step = self.learner.steps_done();
        if step.is_multiple_of(look_every) || step == self.learner.steps_planned() {
            let scores = held
                .iter()
                .map(|plane| anyhow::Ok(psnr(plane, &self.learner.network().reconstruct(plane)?, DATA_RANGE)?));
            let scores = scores.collect::<anyhow::Result<Vec<_>>>()?;
            self.run.psnr.push((step, scores.iter().sum::<f64>() / scores.len() as f64));
        }
        Ok(())
    }
}

/// Loss by step and by second, fidelity by second, for each condition; the first seed's.
fn panels(heats: &[Heat]) -> Vec<Panel> {
    let mut panels = Vec::new();
    for heat in heats.iter().filter(|heat| heat.seed == 1) {
        let condition = format!("{:?}, widths {:?}", heat.terms, heat.widths.0);
        let mut panel = |what: &str, across: &str, line: &dyn Fn(&Run) -> Vec<(f64, f64)>| {
            panels.push(Panel {
                title: format!("{what}: {condition}"),
                across: across.to_owned(),
                lines: heat.runs.iter().map(|(name, run)| (name.clone(), line(run))).collect(),
            });
        };
        panel("L1", "step", &|run| (1..).map(f64::from).zip(run.smooth()).collect());
        panel("L1", "seconds", &|run| run.seconds.iter().copied().zip(run.smooth()).collect());
        panel("PSNR", "seconds", &|run| run.psnr.iter().map(|&(step, psnr)| (run.seconds_at(step), psnr)).collect());
    }
    panels
}

/// Epochs, steps and seconds to each level (Markdown).
fn report(options: &CompareOptions, heats: &[Heat]) -> anyhow::Result<String> {
    let first = options.blocks.first().map(Contestant::to_string).unwrap_or_default();
    let mut text = format!(
        "# Blocks of HiResMed-VQGAN\n\nPreset {}, {} steps, {} seeds; all in one process, {TURN} steps in turn. Medians over the \
         seeds; of ratios, which are to {first} with the same seed, the range as well. A level is reached where the figure stays at or \
         beyond it: the loss smoothed over {SMOOTH} steps, fidelity on {} held-out images every {} steps. `:zero`: the block's last \
         convolution begins at zero.\n",
        options.preset, options.steps, options.seeds, options.looks, options.look_every
    );
    let mut conditions: Vec<(Terms, &Widths)> = Vec::new();
    for heat in heats {
        if !conditions.contains(&(heat.terms, &heat.widths)) {
            conditions.push((heat.terms, &heat.widths));
        }
    }
    for (terms, widths) in conditions {
        let of: Vec<&Heat> = heats.iter().filter(|heat| (heat.terms, &heat.widths) == (terms, widths)).collect();
        writeln!(text, "\n## {terms:?}, widths {:?}\n", widths.0)?;
        writeln!(
            text,
            "| block | parameters | ms a step | ratio | L1 at the end | PSNR, dB |\n|---|---|---|---|---|---|"
        )?;
        let last = |values: &[f64]| values.last().copied().unwrap_or(f64::NAN);
        let step_ms = |run: &Run| 1e3 * last(&run.seconds) / run.seconds.len().max(1) as f64;
        for (index, block) in options.blocks.iter().enumerate() {
            let runs: Vec<&Run> = of.iter().map(|heat| &heat.runs[index].1).collect();
            let each = |figure: &dyn Fn(&Run) -> f64| median(runs.iter().map(|run| figure(run)).collect());
            writeln!(
                text,
                "| {block} | {} | {:.0} | {} | {:.4} | {:.2} |",
                runs.first().map_or(0, |run| run.parameters),
                each(&step_ms),
                ranged(of.iter().map(|heat| step_ms(&heat.runs[index].1) / step_ms(&heat.runs[0].1)).collect()),
                each(&|run| last(&run.smooth())),
                each(&|run| run.psnr.last().map_or(f64::NAN, |&(_, psnr)| psnr)),
            )?;
        }
        writeln!(
            text,
            "\n| level | block | epochs | steps | seconds | ratio of steps | ratio of seconds |\n|---|---|---|---|---|---|---|"
        )?;
        for (level, reached) in levels(&of) {
            for (index, block) in options.blocks.iter().enumerate() {
                let median_of = |figure: &dyn Fn(&Heat, &Run, u64) -> f64| {
                    let values = of.iter().filter_map(|heat| {
                        let run = &heat.runs[index].1;
                        reached(run).map(|step| figure(heat, run, step))
                    });
                    median(values.collect())
                };
                let ratio = |figure: &dyn Fn(&Run, u64) -> f64| {
                    let ratios = of.iter().filter_map(|heat| {
                        let [run, first] = [index, 0].map(|index| &heat.runs[index].1);
                        Some(figure(run, reached(run)?) / figure(first, reached(first)?))
                    });
                    ranged(ratios.collect())
                };
                writeln!(
                    text,
                    "| {level} | {block} | {:.1} | {:.0} | {:.1} | {} | {} |",
                    median_of(&|heat, _, step| step as f64 * heat.epochs_per_step),
                    median_of(&|_, _, step| step as f64),
                    median_of(&|_, run, step| run.seconds_at(step)),
                    ratio(&|_, step| step as f64),
                    ratio(&|run, step| run.seconds_at(step)),
                )?;
            }
        }
    }
    text += "\n![curves](compare.svg)\n";
    Ok(text)
}

type Reached = Box<dyn Fn(&Run) -> Option<u64>>;

/// The levels of loss and of fidelity that every run of the condition reaches, hardest last, and how a run reaches each.
fn levels(heats: &[&Heat]) -> Vec<(String, Reached)> {
    let runs: Vec<&Run> = heats.iter().flat_map(|heat| heat.runs.iter().map(|(_, run)| run)).collect();
    let between = |from: f64, to: f64| {
        (1..=LEVELS).map(move |number| from + (to - from) * number as f64 / LEVELS as f64).collect::<Vec<_>>()
    };
    let worst = |figures: &mut dyn Iterator<Item = f64>| figures.fold(f64::NEG_INFINITY, f64::max);
    let early = worst(&mut runs.iter().map(|run| run.smooth().get(run.l1.len() / 10).copied().unwrap_or(f64::NAN)));
    let late = worst(&mut runs.iter().map(|run| run.smooth().last().copied().unwrap_or(f64::NAN)));
    let mut levels: Vec<(String, Reached)> = Vec::new();
    // A loss falls by shares: its levels are even in the logarithm.
    for level in between(early.ln(), late.ln()).into_iter().map(f64::exp) {
        // Half a thousandth more, for the last level is the slowest one's very end.
        let level = level * 1.0005;
        levels.push((format!("L1 {level:.4}"), Box::new(move |run| run.loss_reached(level))));
    }
    let early =
        -worst(&mut runs.iter().map(|run| run.psnr.get(run.psnr.len() / 10).map_or(f64::NAN, |&(_, psnr)| -psnr)));
    let late = -worst(&mut runs.iter().map(|run| run.psnr.last().map_or(f64::NAN, |&(_, psnr)| -psnr)));
    for level in between(early, late) {
        levels.push((format!("PSNR {level:.2} dB"), Box::new(move |run| run.fidelity_reached(level - 1e-9))));
    }
    levels
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// The median, and in brackets the least and the largest.
fn ranged(values: Vec<f64>) -> String {
    let (low, high) =
        values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &x| (low.min(x), high.max(x)));
    format!("{:.2} ({low:.2} to {high:.2})", median(values))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The trainings in a folder of results.
    fn results(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.to_string_lossy().contains("-seed-")).collect()
    }

    fn run(l1: &[f64], psnr: &[(u64, f64)]) -> Run {
        let seconds = (1..=l1.len()).map(|step| step as f64 * 0.5).collect();
        Run { parameters: 1, l1: l1.to_vec(), seconds, psnr: psnr.to_vec() }
    }

    #[test]
    fn a_level_is_reached_where_the_figure_stays() {
        let run = run(&[4.0, 1.0, 4.0, 1.0, 1.0, 1.0], &[(2, 20.0), (4, 19.0), (6, 21.0)]);
        // The mean falls below 2.4 at step 4 (2.5), 5 (2.2).
        assert_eq!((run.loss_reached(2.4), run.loss_reached(1.9), run.loss_reached(9.0)), (Some(5), None, Some(1)));
        assert_eq!(
            (run.fidelity_reached(20.0), run.fidelity_reached(18.0), run.fidelity_reached(22.0)),
            (Some(6), Some(2), None)
        );
        assert_eq!(run.seconds_at(5), 2.5);
    }

    #[test]
    fn medians_and_ranges() {
        assert_eq!((median(vec![3.0, 1.0, 2.0]), median(vec![1.0, 2.0])), (2.0, 1.5));
        assert_eq!(ranged(vec![1.5, 0.5, 1.0]), "1.00 (0.50 to 1.50)");
    }

    #[test]
    fn all_blocks_are_trained_once_and_reported() {
        let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        for folder in &folders[..2] {
            let pixels: Vec<u8> = (0..40 * 40).map(|i| (i * 7 % 251) as u8).collect();
            fs::write(folder.path().join("a.png"), hiresmed_imaging::raster::grey_png(40, 40, &pixels)).unwrap();
        }
        let options = CompareOptions {
            autoencoder: None,
            data: vec![folders[0].path().into()],
            hold_out: Vec::new(),
            held_out: folders[1].path().into(),
            preset: "tiny".into(),
            widths: vec![widths("8,8").unwrap(), widths("8,16").unwrap()],
            blocks: ["residual", "hdfb", "hdfb-light:zero"].map(|block| contestant(block).unwrap()).into(),
            terms: vec![Terms::Plain, Terms::Gan],
            seeds: 1,
            steps: 12,
            look_every: 4,
            looks: 2,
            out: folders[2].path().into(),
            threads: Some(1),
        };
        compare(&options).unwrap();
        let first = fs::read_to_string(folders[2].path().join("compare.md")).unwrap();
        for part in ["## Plain, widths [8, 8]", "## Gan, widths [8, 16]", "PSNR", "| hdfb-light:zero |"] {
            assert!(first.contains(part), "{part} is not in {first}");
        }
        let found = results(folders[2].path());
        assert_eq!(found.len(), 4);
        let heat: Heat = serde_json::from_slice(&fs::read(&found[0]).unwrap()).unwrap();
        assert_eq!(
            heat.runs.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["residual", "hdfb", "hdfb-light:zero"]
        );
        for (name, run) in &heat.runs {
            assert_eq!((run.l1.len(), run.psnr.len()), (12, 3), "{name}");
        }
        let parameters: Vec<usize> = heat.runs.iter().map(|(_, run)| run.parameters).collect();
        assert!(parameters[2] < parameters[0] && parameters[0] < parameters[1], "{parameters:?}");
        // What is there is not trained again: its times would differ.
        compare(&options).unwrap();
        assert_eq!(fs::read_to_string(folders[2].path().join("compare.md")).unwrap(), first);
    }

    #[test]
    fn a_block_is_named_with_how_it_begins() {
        for text in ["residual", "hdfb", "hdfb-light", "residual:zero", "hdfb-light:zero"] {
            assert_eq!(contestant(text).unwrap().to_string(), text);
        }
        assert!(contestant("light").unwrap_err().contains("hdfb-light"));
    }

    #[test]
    fn widths_are_a_list() {
        assert_eq!(widths("32,64").unwrap(), Widths(vec![32, 64]));
        assert!(widths("32;64").is_err() && widths("").is_err());
    }
}
