//! The training step of a token prior, and the checkpoint that resumes it.

use std::{collections::HashMap, path::Path};

use hiresmed_inference::{Package, Runtime, SessionOptions};
use rand::{RngExt, rand_core::SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Tensor, no_grad};

use super::{
    batch,
    config::{Config, Objective, PRESETS, Packaged, Training},
    data::{Example, Examples},
    network::{Dropout, Network},
};
use crate::{
    training::{self, Adam, Error, Figure, Randomness, Specification, keep_named, load_named},
    vqgan::Autoencoder,
    weights::{Array, Weights},
};

/// Shares of a watched image that are hidden, in turn.
const WATCHED_SHARES: [f64; 3] = [0.9, 0.6, 0.3];

/// The tokens of an image, row by row, with its modality and view.
type Labelled = (Vec<i64>, [i64; 2]);

/// The autoencoder whose tokens are learned.
#[derive(Debug)]
pub struct Tokeniser {
    autoencoder: Autoencoder,
    digest: String,
    codes: usize,
    /// The codes themselves, `[K, d]`, where the decoder's graph names them.
    codebook: Option<Array>,
}

impl Tokeniser {
    /// Opens a package of an autoencoder with an encoder.
    ///
    /// # Errors
    /// [`Error::Specification`] where it cannot be opened, has no encoder, or does not say how many codes it has.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let fault =
            |error: String| Error::Specification(vec![format!("the autoencoder {}: {error}", folder.display())]);
        let package = Package::open(folder).map_err(|error| fault(error.to_string()))?;
        let runtime = Runtime::load().map_err(|error| fault(error.to_string()))?;
        let autoencoder = Autoencoder::open(&package, &runtime, &SessionOptions::default());
        let autoencoder = autoencoder.map_err(|error| fault(error.to_string()))?;
        if !package.has_graph("encoder") {
            return Err(fault("it has no encoder graph; its tokens cannot be learned".to_owned()));
        }
        let codes = package.description().configuration["codes"].as_u64();
        let codes = codes.ok_or_else(|| fault("its configuration does not say how many codes it has".to_owned()))?;
        // Another program's export may name them otherwise: then the embedding starts at random.
        let named = package.model("decoder").ok().and_then(|model| model.initialiser("quantiser.codes").ok().flatten());
        let codebook = named.and_then(|codes| codes.into_f32().ok()).and_then(|(shape, data)| Array::new(shape, data));
        Ok(Self { autoencoder, digest: package.digest().to_owned(), codes: codes as usize, codebook })
    }

    /// The autoencoder itself.
    pub fn autoencoder(&self) -> &Autoencoder {
        &self.autoencoder
    }
}

/// A token prior in training.
#[derive(Debug)]
pub struct Learner {
    config: Config,
    training: Training,
    seed: u64,
    random: Randomness,
    tokeniser: Tokeniser,
    examples: Examples,
    /// Tokens and conditions of the watched images.
    watched: Vec<Labelled>,
    /// Those of images to learn from, by folder, image and geometry. Follows from the seed: no part of a checkpoint.
    views: HashMap<(usize, usize, usize), Labelled>,
    network: Network,
    /// Running average of the weights.
    average: Network,
    /// The average with the least watched loss, and that loss; infinite where none was watched yet.
    best: (Network, f64),
    /// The watched loss at the last look of this round.
    watched_loss: Option<f64>,
    adam: Adam,
    step: u64,
}

impl Learner {
    /// A learner for `specification`, new or continuing from `parent`. Of the parent, architecture, autoencoder and seed must be
    /// this training's; its number of steps and its rates may differ.
    ///
    /// # Errors
    /// Every fault of specification, data or parent, before the first step.
    pub fn open(specification: &Specification, parent: Option<&Weights>) -> Result<Self, Error> {
        let (mut config, training) = settings(specification)?;
        let folder = specification.autoencoder.as_deref().ok_or_else(|| {
            let fault =
                "a prior is trained on the tokens of an autoencoder: name the folder of its package as autoencoder";
            Error::Specification(vec![fault.to_owned()])
        })?;
        let tokeniser = Tokeniser::open(folder)?;
        if specification.settings["config"]["codes"].is_null() {
            config.codes = tokeniser.codes;
        }
        let (side, window) = (side(&config, &tokeniser), tokeniser.autoencoder.window());
        let (folders, hold_out) = (&specification.data, &specification.hold_out);
        let examples = Examples::open(folders, hold_out, &config, &training, window, side)?;
        Self::new(config, training, tokeniser, examples, specification.seed, parent)
    }

    /// A learner over `examples`.
    ///
    /// # Errors
    /// [`Error::Specification`] where the configuration does not fit the autoencoder, [`Error::Parent`] and [`Error::Weights`]
    /// where `parent` does not fit.
    pub fn new(
        config: Config,
        training: Training,
        tokeniser: Tokeniser,
        examples: Examples,
        seed: u64,
        parent: Option<&Weights>,
    ) -> Result<Self, Error> {
        if tokeniser.codes != config.codes {
            let fault = format!("codes is {}, the autoencoder has {}", config.codes, tokeniser.codes);
            return Err(Error::Specification(vec![fault]));
        }
        let random = Randomness::new(seed);
        let mut rng = random.generator(0, "prior weights");
        let network = Network::new(&config, tokeniser.codebook.as_ref(), &mut rng);
        let (average, best) = (network.detached(), (network.detached(), f64::INFINITY));
        let adam = Adam::new(network.named(), training.beta, 1e-8);
        let mut learner = Self {
            config,
            training,
            seed,
            random,
            tokeniser,
            examples,
            watched: Vec::new(),
            views: HashMap::new(),
            network,
            average,
            best,
            watched_loss: None,
            adam,
            step: 0,
        };
        let watched = learner.examples.watched.iter();
        learner.watched = watched.map(|example| learner.tokens(example, None)).collect::<Result<_, _>>()?;
        if let Some(parent) = parent {
            learner.restore(parent)?;
        }
        Ok(learner)
    }

    fn restore(&mut self, parent: &Weights) -> Result<(), Error> {
        let value = |key: &str| parent.metadata.get(key).ok_or_else(|| Error::Parent(format!("it has no {key}")));
        let packaged: Packaged = serde_json::from_str(value("configuration")?)
            .map_err(|error| Error::Parent(format!("its configuration: {error}")))?;
        if packaged.config != self.config {
            return Err(Error::Parent("its architecture is another".into()));
        }
        if packaged.autoencoder != self.tokeniser.digest {
            let digest = &packaged.autoencoder;
            return Err(Error::Parent(format!("its tokens are those of another autoencoder, {digest}")));
        }
        if *value("seed")? != self.seed.to_string() {
            return Err(Error::Parent(format!("its seed is {}, not {}", value("seed")?, self.seed)));
        }
        self.step = value("step")?.parse().map_err(|_| Error::Parent("its step is no number".into()))?;
        // Infinity is written as `inf`, which parses.
        self.best.1 = value("best")?.parse().map_err(|_| Error::Parent("its best loss is no number".into()))?;
        load_named(self.network.named(), parent, "weights.")?;
        load_named(self.average.named(), parent, "average.")?;
        load_named(self.best.0.named(), parent, "best.")?;
        self.adam.restore(parent, "adam")
    }

    /// Tokens and condition of an example, with a generator under a random geometry.
    fn tokens(&self, example: &Example, rng: Option<&mut ChaCha8Rng>) -> Result<Labelled, Error> {
        let side = side(&self.config, &self.tokeniser);
        let image = batch::view(&example.plane, side, &self.training, rng);
        let mut tokens =
            self.tokeniser.autoencoder.encode(&[image]).map_err(|error| Error::Data(vec![error.to_string()]))?;
        let tokens = tokens.pop().ok_or_else(|| Error::Data(vec!["the encoder returned no tokens".into()]))?;
        if (tokens.rows, tokens.columns) != (self.config.rows, self.config.columns) {
            let (rows, columns) = (tokens.rows, tokens.columns);
            return Err(Error::Data(vec![format!("the encoder returned {columns} x {rows} tokens")]));
        }
        if tokens.data.iter().any(|code| !(0..self.config.codes as i64).contains(code)) {
            return Err(Error::Data(vec!["the encoder returned codes beyond those that it has".into()]));
        }
        Ok((tokens.data, example.condition))
    }

    /// Tokens and condition of an image to learn from under a random geometry: a new one, or one of those that are kept.
    fn seen(&mut self, folder: usize, image: usize, rng: &mut ChaCha8Rng) -> Result<Labelled, Error> {
        let example = &self.examples.learned[folder][image];
        if self.training.views == 0 {
            return self.tokens(example, Some(rng));
        }
        let key = (folder, image, rng.random_range(0..self.training.views));
        if let Some(seen) = self.views.get(&key) {
            return Ok(seen.clone());
        }
        let mut own = self.random.generator(0, &format!("prior view {key:?}"));
        let seen = self.tokens(example, Some(&mut own))?;
        self.views.insert(key, seen.clone());
        Ok(seen)
    }

    /// The next examples: first a folder, then one of its images, so that a large folder does not drown a small one.
    fn draw(&mut self) -> Result<Vec<Labelled>, Error> {
        let mut rng = self.random.generator(self.step, "prior images");
        let folders = self.examples.learned.len();
        if folders == 0 || self.examples.learned.iter().any(Vec::is_empty) {
            return Err(Error::Data(vec!["it has no image".into()]));
        }
        let mut drawn = Vec::with_capacity(self.training.batch * self.training.repeats);
        for _ in 0..self.training.batch {
            let folder = rng.random_range(0..folders);
            let image = rng.random_range(0..self.examples.learned[folder].len());
            let (tokens, stated) = self.seen(folder, image, &mut rng)?;
            for _ in 0..self.training.repeats {
                let condition = stated.map(|index| if rng.random_bool(self.training.unstated) { 0 } else { index });
                drawn.push((tokens.clone(), condition));
            }
        }
        Ok(drawn)
    }

    /// The loss of `network` on images with these tokens and conditions; `share` fixes what is hidden of each.
    fn loss(&self, network: &Network, images: &[Labelled], share: Option<f64>, rng: &mut ChaCha8Rng) -> Tensor {
        let (mut dropout, smoothing, corrupted) = match share {
            None => {
                let own = self.random.generator(self.step, "prior dropout");
                (Dropout::new(self.training.dropout, own), self.training.label_smoothing, self.training.corrupted)
            }
            Some(_) => (Dropout::default(), 0.0, 0.0),
        };
        let size = (self.config.rows as i64, self.config.columns as i64);
        let (codes, count) = (self.config.codes, self.config.tokens());
        let conditions: Vec<i64> = images.iter().flat_map(|(_, condition)| *condition).collect();
        let conditions = training::on_device(&conditions).reshape([-1, 2]);
        let (mut inputs, mut places, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for (index, (tokens, _)) in (0i64..).zip(images) {
            match self.config.objective {
                Objective::Masked => {
                    let hidden = match share {
                        None => batch::hidden(count, rng),
                        Some(share) => batch::hidden_share(count, share, rng),
                    };
                    let [input, place, target] = batch::hide(tokens, &hidden, codes as i64, size);
                    inputs.push(input);
                    places.push(place + index * count as i64);
                    targets.push(target);
                }
                Objective::Autoregressive => {
                    inputs.push(batch::predecessors(tokens, (codes as i64, codes), corrupted, rng, size));
                    targets.push(training::on_device(tokens));
                }
            }
        }
        let features = network.features(&Tensor::cat(&inputs, 0), &conditions, &mut dropout);
        let mut features = features.reshape([-1, self.config.embedding as i64]);
        if !places.is_empty() {
            // Only hidden tokens are judged: logits of the others would be computed for nothing.
            features = features.index_select(0, &Tensor::cat(&places, 0));
        }
        batch::cross_entropy(&network.logits(&features), &Tensor::cat(&targets, 0), smoothing)
    }

    /// Mean loss of the running average on the watched images, with the same tokens hidden at every look.
    fn watch(&self) -> f64 {
        let images = self.watched.iter().enumerate();
        let losses = images.map(|(index, image)| {
            let mut rng = ChaCha8Rng::seed_from_u64(index as u64);
            let share = WATCHED_SHARES[index % WATCHED_SHARES.len()];
            let loss = || self.loss(&self.average, std::slice::from_ref(image), Some(share), &mut rng);
            no_grad(loss).double_value(&[])
        });
        losses.sum::<f64>() / self.watched.len() as f64
    }

    fn finite(&self, term: &'static str, value: f64) -> Result<f64, Error> {
        if value.is_finite() { Ok(value) } else { Err(Error::NotFinite { term, step: self.step, value }) }
    }

    /// Decay of matrices apart from the gradient (Loshchilov and Hutter 2019); norms, biases and codes are left alone.
    fn decay(&self, rate: f64) {
        let factor = 1.0 - rate * self.training.weight_decay;
        let matrices = self.network.named().into_iter();
        let matrices = matrices.filter(|(name, tensor)| name.ends_with(".weight") && tensor.dim() == 2);
        no_grad(|| matrices.for_each(|(_, mut tensor)| drop(tensor.g_mul_scalar_(factor))));
    }

    fn average_weights(&self) {
        // Early on a long average would remember the initialisation.
        let decay = self.training.average_decay.min((1.0 + self.step as f64) / (10.0 + self.step as f64));
        no_grad(|| {
            for ((_, mut average), (_, current)) in self.average.named().into_iter().zip(self.network.named()) {
                let _ = average.lerp_(&current, 1.0 - decay);
            }
        });
    }
}

impl training::Learner for Learner {
    fn step(&mut self) -> Result<Vec<Figure>, Error> {
        let images = self.draw()?;
        let mut rng = self.random.generator(self.step, "prior hidden");
        let loss = self.loss(&self.network, &images, None, &mut rng);
        let mut figures = vec![("loss", self.finite("loss", loss.double_value(&[]))?)];
        let rate = self.training.rate_at(self.step);
        let gradients = Tensor::run_backward(&[&loss], self.adam.parameters(), false, false);
        self.decay(rate);
        let norm = self.adam.step(&gradients, rate, Some(self.training.clip_norm));
        figures.push(("gradient", self.finite("gradient", norm)?));
        self.average_weights();
        self.step += 1;
        let looks = self.step.is_multiple_of(self.training.watch_every) || self.step == self.training.steps;
        if looks && !self.watched.is_empty() {
            let watched = self.finite("watched", self.watch())?;
            self.watched_loss = Some(watched);
            if watched < self.best.1 {
                self.best = (self.average.detached(), watched);
            }
        }
        // At every step, since means are reported.
        figures.extend(self.watched_loss.map(|loss| ("watched", loss)));
        Ok(figures)
    }

    fn steps_done(&self) -> u64 {
        self.step
    }

    fn steps_planned(&self) -> u64 {
        self.training.steps
    }

    fn checkpoint(&self) -> Result<Weights, Error> {
        let mut weights = Weights::default();
        keep_named(&self.network.named(), &mut weights, "weights.")?;
        keep_named(&self.average.named(), &mut weights, "average.")?;
        keep_named(&self.best.0.named(), &mut weights, "best.")?;
        self.adam.keep(&mut weights, "adam")?;
        let packaged = Packaged {
            config: self.config.clone(),
            autoencoder: self.tokeniser.digest.clone(),
            stride: self.tokeniser.autoencoder.stride(),
            sampling: self.training.sampling,
        };
        let text = |value: Result<String, serde_json::Error>| value.map_err(|error| Error::Parent(error.to_string()));
        let window = self.tokeniser.autoencoder.window();
        let metadata = [
            ("kind", "prior".to_owned()),
            ("configuration", text(serde_json::to_string(&packaged))?),
            ("training", text(serde_json::to_string(&self.training))?),
            ("window", text(serde_json::to_string(&[window.low, window.high]))?),
            ("spacing_mm", text(serde_json::to_string(&self.examples.spacing_mm))?),
            ("seed", self.seed.to_string()),
            ("step", self.step.to_string()),
            ("best", self.best.1.to_string()),
            ("data", self.examples.digest.clone()),
        ];
        weights.metadata.extend(metadata.map(|(key, value)| (key.to_owned(), value)));
        Ok(weights)
    }
}

/// Columns and rows in pixels of what the token map shows.
fn side(config: &Config, tokeniser: &Tokeniser) -> (usize, usize) {
    let stride = tokeniser.autoencoder.stride();
    (config.columns * stride, config.rows * stride)
}

/// Architecture and training of a specification: the preset's, with its `settings` laid over: `{"config": {..},
/// "training": {..}}`.
fn settings(specification: &Specification) -> Result<(Config, Training), Error> {
    let unknown = || {
        let (preset, known) = (&specification.preset, PRESETS.join(", "));
        Error::Specification(vec![format!("a prior has no preset {preset:?}; choose one of {known}")])
    };
    let config = Config::preset(&specification.preset).ok_or_else(unknown)?;
    let training = Training::preset(&specification.preset).ok_or_else(unknown)?;
    let (config, mut training) = training::laid_over(specification, &config, &training)?;
    training.steps = specification.steps.unwrap_or(training.steps);
    let mut faults = config.faults();
    faults.extend(training.faults(&config));
    if faults.is_empty() { Ok((config, training)) } else { Err(Error::Specification(faults)) }
}
