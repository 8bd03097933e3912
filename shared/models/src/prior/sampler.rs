//! A trained prior at work: token maps from noise, through ONNX Runtime.

use hiresmed_inference::{
    DeviceTensor, Runtime, Session, SessionOptions, Tensor,
    package::{Kind, Package},
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{
    Error,
    config::{Config, Objective, Packaged},
    sampling::{Order, Sampling, even_order, gumbel},
};
use crate::vqgan::Tokens;

/// What is asked of a sample; what is left out is not stated, as for some images of the training.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Condition<'a> {
    /// Modality, such as `ct`.
    pub modality: Option<&'a str>,
    /// View, such as `axial`.
    pub view: Option<&'a str>,
}

/// A prior's package, opened.
#[derive(Debug)]
pub struct TokenPrior {
    session: Session,
    /// Names of the graph's inputs in their order: a graph made elsewhere may call them otherwise.
    inputs: Vec<String>,
    packaged: Packaged,
    spacing_mm: Option<f64>,
}

impl TokenPrior {
    /// Opens a package's graph.
    ///
    /// # Errors
    /// For a package of another kind, without a usable configuration, or whose graph does not open.
    pub fn open(package: &Package, runtime: &Runtime, options: &SessionOptions) -> Result<Self, Error> {
        if package.kind() != Kind::Prior {
            return Err(Error::Kind { name: package.name().to_owned(), kind: package.kind() });
        }
        let description = package.description();
        let packaged: Packaged = serde_json::from_value(description.configuration.clone())
            .map_err(|error| Error::Configuration { faults: vec![format!("configuration: {error}")] })?;
        let role = match packaged.config.objective {
            Objective::Masked => "predict",
            Objective::Autoregressive => "step",
        };
        let session = package.session(role, runtime, options)?;
        Ok(Self { spacing_mm: description.spacing_mm, ..Self::new(packaged, session)? })
    }

    /// A prior over an open session of a graph as [`export`](super::export()) writes it.
    ///
    /// # Errors
    /// [`Error::Configuration`] with every fault.
    pub fn new(packaged: Packaged, session: Session) -> Result<Self, Error> {
        let mut faults = packaged.config.faults();
        faults.extend(packaged.sampling.faults());
        if packaged.stride == 0 {
            faults.push("stride is 0, allowed is 1 or more".to_owned());
        }
        let inputs: Vec<String> = session.inputs().iter().map(|port| port.name.clone()).collect();
        let expected = match packaged.config.objective {
            Objective::Masked => 2,
            Objective::Autoregressive => 5,
        };
        if inputs.len() != expected {
            faults.push(format!("its graph has {} inputs, not {expected}", inputs.len()));
        }
        if faults.is_empty() {
            Ok(Self { session, inputs, packaged, spacing_mm: None })
        } else {
            Err(Error::Configuration { faults })
        }
    }

    /// Digest of the autoencoder's package that decodes what is sampled, hex.
    pub fn autoencoder(&self) -> &str {
        &self.packaged.autoencoder
    }

    /// Distance of pixel centres of a sampled image, mm, where the training's images said it.
    pub fn spacing_mm(&self) -> Option<f64> {
        self.spacing_mm
    }

    /// How the package samples unless it is told otherwise.
    pub fn sampling(&self) -> Sampling {
        self.packaged.sampling
    }

    /// A token map: the same generator gives the same one on the same device and runtime.
    ///
    /// # Errors
    /// [`Error::Condition`] for a modality or view that was not learned, [`Error::Sampling`] with every fault of `sampling`, and
    /// those of the session.
    pub fn sample(&self, condition: Condition<'_>, sampling: &Sampling, rng: &mut ChaCha8Rng) -> Result<Tokens, Error> {
        let faults = sampling.faults();
        if !faults.is_empty() {
            return Err(Error::Sampling(faults));
        }
        let config = &self.packaged.config;
        let find = |what: &'static str, list: &[String], asked: Option<&str>| {
            Config::index(list, asked).ok_or_else(|| {
                let (asked, known) = (asked.unwrap_or_default().to_owned(), list.join(", "));
                Error::Condition { what, asked, known }
            })
        };
        let conditions = vec![
            find("modality", &config.modalities, condition.modality)?,
            find("view", &config.views, condition.view)?,
        ];
        let data = match config.objective {
            Objective::Masked => self.masked(conditions, sampling, rng)?,
            Objective::Autoregressive => self.one_by_one(conditions, sampling, rng)?,
        };
        let (columns, rows, stride) = (config.columns, config.rows, self.packaged.stride);
        Ok(Tokens { columns, rows, data, width: columns * stride, height: rows * stride })
    }

    /// Masked parallel decoding (Chang et al. 2022): all hidden tokens are drawn at once, those kept that come first in the sampling's
    /// [`Order`], and the others drawn again in the light of these; fewer are hidden with every step, along a cosine.
    fn masked(&self, conditions: Vec<i64>, sampling: &Sampling, rng: &mut ChaCha8Rng) -> Result<Vec<i64>, Error> {
        let config = &self.packaged.config;
        let (count, hidden) = (config.tokens(), config.codes as i64);
        let mut tokens = vec![hidden; count];
        let turns = match sampling.order {
            Order::Likeliest => Vec::new(),
            Order::Even => {
                let roll = (rng.random_range(0..config.rows), rng.random_range(0..config.columns));
                let mut turns = vec![0.0f32; count];
                let order = even_order((config.rows, config.columns), roll);
                order.into_iter().enumerate().for_each(|(turn, place)| turns[place] = -(turn as f32));
                turns
            }
        };
        for step in 0..sampling.steps {
            let input = Tensor::i64([1, config.rows, config.columns], tokens.clone())?;
            let conditions = Tensor::i64([1, 2], conditions.clone())?;
            let output = self.session.run_single(&[(&self.inputs[0], input), (&self.inputs[1], conditions)])?;
            let logits = self.logits(output, count)?;
            // Less chance with every step, as in annealing.
            let spread = sampling.spread * (1.0 - (step + 1) as f32 / sampling.steps as f32);
            let mut drawn = Vec::new();
            for place in (0..count).filter(|&place| tokens[place] == hidden) {
                let (code, likelihood) = sampling.draw(&logits[place * config.codes..][..config.codes], rng);
                let worth = match sampling.order {
                    Order::Likeliest => likelihood + spread * gumbel(rng),
                    Order::Even => turns[place],
                };
                drawn.push((worth, place, code));
            }
            // Of equals the first: the order must not depend on the sort.
            drawn.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let keep = drawn.len().saturating_sub(sampling.hidden_after(step, count));
            drawn.into_iter().take(keep).for_each(|(_, place, code)| tokens[place] = code);
        }
        Ok(tokens)
    }

    /// A token a step, in raster order, each from those before it.
    fn one_by_one(&self, conditions: Vec<i64>, sampling: &Sampling, rng: &mut ChaCha8Rng) -> Result<Vec<i64>, Error> {
        let config = &self.packaged.config;
        let none = || Tensor::f32([config.layers, 1, config.heads, 0, config.head_width()], Vec::new());
        let (mut keys, mut values) = (DeviceTensor::from_host(none()?)?, DeviceTensor::from_host(none()?)?);
        let conditions = DeviceTensor::from_host(Tensor::i64([1, 2], conditions)?)?;
        // Keys and values stay where they are.
        let host: Vec<&str> = self.session.outputs().iter().take(1).map(|logits| logits.name.as_str()).collect();
        let mut tokens = Vec::with_capacity(config.tokens());
        let mut before = config.codes as i64;
        for place in 0..config.tokens() as i64 {
            let token = DeviceTensor::from_host(Tensor::i64([1, 1], vec![before])?)?;
            let place = DeviceTensor::from_host(Tensor::i64([1], vec![place])?)?;
            let given = [&token, &place, &conditions, &keys, &values];
            let inputs: Vec<_> = self.inputs.iter().map(String::as_str).zip(given).collect();
            let mut outputs = self.session.run_bound(&inputs, &host)?.into_iter().map(|(_, tensor)| tensor);
            let (Some(logits), Some(next_keys), Some(next_values)) = (outputs.next(), outputs.next(), outputs.next())
            else {
                let faults = vec!["the graph step does not give logits, keys and values".to_owned()];
                return Err(Error::Configuration { faults });
            };
            (keys, values) = (next_keys, next_values);
            (before, _) = sampling.draw(&self.logits(logits.to_host()?, 1)?, rng);
            tokens.push(before);
        }
        Ok(tokens)
    }

    /// Logits of `count` places, row by row.
    fn logits(&self, output: Tensor, count: usize) -> Result<Vec<f32>, Error> {
        let (found, logits) = output.into_f32()?;
        let expected = vec![1, count, self.packaged.config.codes];
        if found != expected {
            return Err(Error::Shape { found, expected });
        }
        if logits.iter().all(|value| value.is_finite()) { Ok(logits) } else { Err(Error::NotFinite) }
    }
}
