//! The training step of equation 1, and the checkpoint that resumes it.

use hiresmed_imaging::{Plane, Window};
use tch::{Device, Kind, Tensor, nn, no_grad};

use super::{
    blocks::Initialisation,
    chain::{PIXELS_AT_ONCE, Part},
    config::Config,
    discriminator::Discriminator,
    loss::{adaptive_weight, reconstruction},
    memory::{self, Memory},
    network::Network,
    perceptual::Features,
    training::{Crops, Precision, Training},
    variants,
};
use crate::{
    training::{self, Adam, Dataset, Error, Figure, Randomness, Specification, keep_named, load_named},
    weights::Weights,
};

/// A HiResMed-VQGAN in training.
pub struct Learner {
    config: Config,
    training: Training,
    seed: u64,
    random: Randomness,
    data: Dataset,
    network: Network,
    /// The network's trained tensors by name, the optimiser's.
    trainable: Vec<(String, Tensor)>,
    /// Running average of them, in the same order.
    average: Vec<(String, Tensor)>,
    optimiser: Adam,
    adversary: Adversary,
    perceptual: Option<Features>,
    step: u64,
}

struct Adversary {
    store: nn::VarStore,
    discriminator: Discriminator,
    optimiser: Adam,
}

impl Adversary {
    fn new(config: &Config, training: &Training, seed: u64, device: Device) -> Self {
        let store = nn::VarStore::new(device);
        let path = store.root() / "discriminator";
        let discriminator =
            Discriminator::new(&path, config.channels as i64, training.discriminator_width as i64, seed);
        let optimiser = Adam::new(Self::variables(&store), (0.5, 0.9), training.epsilon);
        Self { store, discriminator, optimiser }
    }

    fn variables(store: &nn::VarStore) -> Vec<(String, Tensor)> {
        let mut named: Vec<_> = store.variables().into_iter().collect();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        named
    }
}

impl Learner {
    /// A learner for `specification`, new or continuing from `parent`. Of the parent, architecture and seed must be
    /// this training's; its number of steps and its rates may differ.
    ///
    /// # Errors
    /// Every fault of specification, data or parent, before the first step.
    pub fn open(specification: &Specification, parent: Option<&Weights>) -> Result<Self, Error> {
        let (config, mut training) = settings(specification)?;
        let perceptual = perceptual(specification, &mut training)?;
        let least = training.crops.iter().map(|crops| crops.size).max().unwrap_or(0);
        let data = Dataset::open(&specification.data, &specification.hold_out, Window::LUNG_CT, least)?;
        Self::with(config, training, data, specification.seed, perceptual, parent)
    }

    /// A learner over `data`, without a perceptual term.
    ///
    /// # Errors
    /// [`Error::Data`] for images smaller than the crops, [`Error::Parent`] and [`Error::Weights`] where `parent` does not fit.
    pub fn new(
        config: Config,
        training: Training,
        data: Dataset,
        seed: u64,
        parent: Option<&Weights>,
    ) -> Result<Self, Error> {
        Self::with(config, training, data, seed, None, parent)
    }

    fn with(
        config: Config,
        training: Training,
        data: Dataset,
        seed: u64,
        perceptual: Option<Features>,
        parent: Option<&Weights>,
    ) -> Result<Self, Error> {
        let largest = training.crops.iter().map(|crops| crops.size).max().unwrap_or(0);
        let small = data.samples().iter().filter(|sample| sample.plane.width().min(sample.plane.height()) < largest);
        let faults: Vec<String> =
            small.map(|sample| format!("{} is smaller than the crops, {largest} pixels", sample.name)).collect();
        if !faults.is_empty() {
            return Err(Error::Data(faults));
        }
        let (random, device) = (Randomness::new(seed), training::device());
        let compute = match training.precision {
            Precision::Bf16 if device.is_cuda() => Kind::BFloat16,
            _ => Kind::Float,
        };
        let init = Initialisation {
            deviation: training.initial_deviation,
            blocks_from_zero: training.blocks_from_zero,
            compute,
            seed,
        };
        let network = Network::on(&config, init, device);
        let adversary = Adversary::new(&config, &training, seed, device);
        let trainable = network.trainable();
        let average = trainable.iter().map(|(name, tensor)| (name.clone(), tensor.detach().copy())).collect();
        let optimiser = Adam::new(network.trainable(), training.beta, training.epsilon);
        let mut learner = Self {
            config,
            training,
            seed,
            random,
            data,
            network,
            trainable,
            average,
            optimiser,
            adversary,
            perceptual,
            step: 0,
        };
        learner.fits()?;
        if let Some(parent) = parent {
            learner.restore(parent)?;
        }
        Ok(learner)
    }

    /// What a step of `specification` needs, by the arithmetic, with the crops that need most; known without its data.
    ///
    /// # Errors
    /// Every fault of the specification.
    pub fn memory(specification: &Specification) -> Result<Option<Memory>, Error> {
        let (config, mut training) = settings(specification)?;
        let perceptual = perceptual(specification, &mut training)?;
        Ok(largest(&config, &training, perceptual.as_ref()))
    }

    /// Refuses what cannot end well: on the CPU a step that needs more than the machine has.
    fn fits(&self) -> Result<(), Error> {
        let (Some(needed), Some(there)) = (
            largest(&self.config, &self.training, self.perceptual.as_ref()).map(|memory| memory.peak()),
            memory::of_machine(),
        ) else {
            return Ok(());
        };
        if self.network.device().is_cuda() || needed <= there {
            return Ok(());
        }
        let ask = if self.training.checkpointing { "" } else { "set training.checkpointing, or " };
        Err(Error::Specification(vec![format!(
            "a step needs {:.1} GB, and this machine has {:.1} GB: {ask}take smaller crops or batches",
            needed as f64 / 1e9,
            there as f64 / 1e9
        )]))
    }

    /// The architecture.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The images that it learns from.
    pub fn data(&self) -> &Dataset {
        &self.data
    }

    /// The network in training (not the average).
    pub fn network(&self) -> &Network {
        &self.network
    }

    fn restore(&mut self, parent: &Weights) -> Result<(), Error> {
        let value = |key: &str| parent.metadata.get(key).ok_or_else(|| Error::Parent(format!("it has no {key}")));
        let config: Config = serde_json::from_str(value("configuration")?)
            .map_err(|error| Error::Parent(format!("its configuration: {error}")))?;
        if config != self.config {
            return Err(Error::Parent("its architecture is another".into()));
        }
        if *value("seed")? != self.seed.to_string() {
            return Err(Error::Parent(format!("its seed is {}, not {}", value("seed")?, self.seed)));
        }
        let (found, own) = (parent.metadata.get("perceptual"), self.perceptual.as_ref().map(|features| &features.name));
        if found != own {
            let [found, own] = [found, own].map(|name| name.map_or("nothing", String::as_str));
            return Err(Error::Parent(format!(
                "its perceptual term is measured with {found}, this training's with {own}"
            )));
        }
        self.step = value("step")?.parse().map_err(|_| Error::Parent("its step is no number".into()))?;
        load_named(self.network.variables(), parent, "weights.")?;
        let average = self.average.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        load_named(average, parent, "average.")?;
        load_named(Adversary::variables(&self.adversary.store), parent, "")?;
        self.optimiser.restore(parent, "adam")?;
        self.adversary.optimiser.restore(parent, "adam-discriminator")
    }

    /// This step's crops, `[N, C, size, size]`.
    fn batch(&self) -> Result<Tensor, Error> {
        let missing = || Error::Specification(vec!["crops has no entry with from_step 0".into()]);
        let crops = self.training.crops_at(self.step).ok_or_else(missing)?;
        let mut random = self.random.generator(self.step, "crops");
        let mut images = Vec::with_capacity(crops.batch);
        for _ in 0..crops.batch {
            let mut image = Plane::filled(0, 0, 0.0);
            // Air outside the body teaches nothing: an empty crop is drawn again, twice at most.
            for _ in 0..3 {
                let sample = self.data.draw(&mut random).ok_or_else(|| Error::Data(vec!["it has no image".into()]))?;
                image = variants::crop(&sample.plane, crops.size, &self.training.augment, &mut random);
                if image.data().iter().sum::<f32>() > -0.9 * image.data().len() as f32 {
                    break;
                }
            }
            let side = crops.size as i64;
            let image = Tensor::from_slice(image.data()).reshape([1, side, side]);
            let image = variants::vary(image, &self.training.augment, &mut random);
            images.push(image.expand([self.config.channels as i64, side, side], false));
        }
        Ok(Tensor::stack(&images, 0).contiguous().to_device(self.network.device()))
    }

    fn finite(&self, term: &'static str, value: f64) -> Result<f64, Error> {
        if value.is_finite() { Ok(value) } else { Err(Error::NotFinite { term, step: self.step, value }) }
    }

    fn average_weights(&mut self) {
        // Early on a long average would remember the initialisation.
        let decay = self.training.average_decay.min((1.0 + self.step as f64) / (10.0 + self.step as f64));
        no_grad(|| {
            for ((_, average), current) in self.average.iter_mut().zip(self.optimiser.parameters()) {
                let _ = average.lerp_(current, 1.0 - decay);
            }
        });
    }
}

impl training::Learner for Learner {
    fn step(&mut self) -> Result<Vec<Figure>, Error> {
        let mut random = self.random.generator(self.step, "step");
        let x = self.batch()?;
        if self.step == 0 {
            let outputs = self.network.quantise(&x);
            self.network.quantiser.seed_all(&outputs, &mut random);
        }
        let weights = self.training.loss.clone();
        let at_once = self.training.checkpointing.then_some(PIXELS_AT_ONCE);
        let pass = self.network.run(&x, &weights, at_once, &mut random)?;
        let y = pass.images.shallow_clone();
        let (count, _, height, width) = x.size4()?;
        let parts: Vec<Part> = Part::all(count as usize, (height * width) as usize, at_once).collect();
        let reconstruction = reconstruction(&x, &y, &weights, self.perceptual.as_ref(), &parts)?;
        let quantisation = pass.quantised.loss.double_value(&[]) * weights.quantisation;
        let (mut loss, mut outwards) = (reconstruction.loss + quantisation, reconstruction.gradient);
        let mut figures = vec![("l1", reconstruction.absolute), ("quantisation", quantisation)];
        figures.extend(reconstruction.perceptual.map(|distance| ("perceptual", distance)));
        let adversarial =
            self.training.discriminator_start.is_some_and(|start| self.step >= start) && weights.adversarial > 0.0;
        if adversarial {
            let generator = self.adversary.discriminator.generator_loss(&y);
            let value = generator.double_value(&[]);
            let gradient = Tensor::f_run_backward(&[generator], &[&y], false, false)?.remove(0);
            let [of_reconstruction, of_generator] = pass.of_last_layer([&outwards, &gradient])?;
            let weight = adaptive_weight(&of_reconstruction, &of_generator);
            figures.extend([("generator", value), ("adaptive", weight)]);
            loss += weights.adversarial * weight * value;
            outwards = no_grad(|| outwards + gradient * (weights.adversarial * weight));
        }
        self.finite("loss", loss)?;
        let rate = self.training.rate_at(self.step);
        let (gradients, quantised) = pass.backward(outwards, weights.quantisation, &self.trainable)?;
        let norm = self.optimiser.step(&gradients, rate, self.training.clip_norm);
        drop(gradients);
        figures.push(("gradient", self.finite("gradient", norm)?));
        let (usage, dead) = self.network.quantiser.reseed(&quantised, self.training.dead_after, &mut random);
        if let Some(rows) = dead {
            self.optimiser.clear_rows("quantiser.codes", &rows);
        }
        figures.extend([
            ("perplexity", usage.perplexity),
            ("live", usage.live_share),
            ("reseeded", usage.reseeded as f64),
        ]);
        if adversarial {
            let loss = self.adversary.discriminator.critic_loss(&x, &y);
            figures.push(("critic", self.finite("critic", loss.double_value(&[]))?));
            let gradients = Tensor::f_run_backward(&[&loss], self.adversary.optimiser.parameters(), false, false)?;
            let _ = self.adversary.optimiser.step(&gradients, self.training.discriminator_rate, None);
        }
        self.average_weights();
        self.step += 1;
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
        keep_named(&self.network.variables(), &mut weights, "weights.")?;
        keep_named(&self.average, &mut weights, "average.")?;
        keep_named(&Adversary::variables(&self.adversary.store), &mut weights, "")?;
        self.optimiser.keep(&mut weights, "adam")?;
        self.adversary.optimiser.keep(&mut weights, "adam-discriminator")?;
        let text = |value: Result<String, serde_json::Error>| value.map_err(|error| Error::Parent(error.to_string()));
        let metadata = [
            ("kind", "vqgan".to_owned()),
            ("configuration", text(serde_json::to_string(&self.config))?),
            ("training", text(serde_json::to_string(&self.training))?),
            ("seed", self.seed.to_string()),
            ("step", self.step.to_string()),
            ("data", self.data.digest().to_owned()),
        ];
        weights.metadata.extend(metadata.map(|(key, value)| (key.to_owned(), value)));
        weights
            .metadata
            .extend(self.perceptual.iter().map(|features| ("perceptual".to_owned(), features.name.clone())));
        Ok(weights)
    }
}

/// The memory of a step with the crops that need most.
fn largest(config: &Config, training: &Training, perceptual: Option<&Features>) -> Option<Memory> {
    let of = |&crops: &Crops| {
        let perceptual = perceptual.map_or(0, |features| features.bytes(crops.size));
        Memory::of_step(config, training, crops, perceptual)
    };
    training.crops.iter().map(of).max_by_key(Memory::peak)
}

/// Architecture and training of a specification: the preset's, with its `settings` laid over: `{"config": {..},
/// "training": {..}}`.
pub(crate) fn settings(specification: &Specification) -> Result<(Config, Training), Error> {
    let unknown = || {
        Error::Specification(vec![format!(
            "preset {:?} is unknown, known are {}",
            specification.preset,
            super::PRESETS.join(", ")
        )])
    };
    let config = Config::preset(&specification.preset).ok_or_else(unknown)?;
    let training = Training::preset(&specification.preset).ok_or_else(unknown)?;
    let (config, mut training) = training::laid_over(specification, &config, &training)?;
    training.steps = specification.steps.unwrap_or(training.steps);
    let mut faults = config.faults();
    faults.extend(training.faults(&config));
    if faults.is_empty() { Ok((config, training)) } else { Err(Error::Specification(faults)) }
}

/// What the perceptual term is measured with: the backbone or else the autoencoder that the specification names. Who names one and
/// gives the term no weight gets VQGAN's, 1.
fn perceptual(specification: &Specification, training: &mut Training) -> Result<Option<Features>, Error> {
    let device = training::device();
    let features = match (&specification.perceptual, &specification.autoencoder) {
        (Some(path), _) => Features::lpips(path, device)?,
        (None, Some(folder)) => Features::encoder(folder, device)?,
        (None, None) if training.loss.perceptual > 0.0 => {
            let fault = format!(
                "loss.perceptual is {}, and nothing is named to measure it with: name AlexNet's or VGG16's weights, or an autoencoder \
                 whose encoder's features will do, or set it to 0",
                training.loss.perceptual
            );
            return Err(Error::Specification(vec![fault]));
        }
        (None, None) => return Ok(None),
    };
    let small = training.crops.iter().find(|crops| crops.size < features.least);
    if let Some(crops) = small {
        let fault =
            format!("crops of {} pixels are too small for {}: it needs {}", crops.size, features.name, features.least);
        return Err(Error::Specification(vec![fault]));
    }
    if training.loss.perceptual == 0.0 {
        training.loss.perceptual = 1.0;
    }
    Ok(Some(features))
}
