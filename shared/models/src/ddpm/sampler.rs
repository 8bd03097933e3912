//! A trained diffusion model at work: images from noise, through ONNX Runtime.

use hiresmed_imaging::Plane;
use hiresmed_inference::{
    Runtime, Session, SessionOptions, Tensor,
    package::{Kind, Package},
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use super::{Config, Error, schedule::Schedule};
use crate::noise;

/// A diffusion package, opened.
#[derive(Debug)]
pub struct Sampler {
    config: Config,
    schedule: Schedule,
    session: Session,
    /// Names of the graph's image and time: a graph made elsewhere may call them otherwise.
    inputs: [String; 2],
}

impl Sampler {
    /// Opens a package's `denoise` graph.
    ///
    /// # Errors
    /// For a package of another kind, without a usable configuration, or whose graph does not open.
    pub fn open(package: &Package, runtime: &Runtime, options: &SessionOptions) -> Result<Self, Error> {
        if package.kind() != Kind::Ddpm {
            return Err(Error::Kind { name: package.name().to_owned(), kind: package.kind() });
        }
        let config = serde_json::from_value(package.description().configuration.clone())
            .map_err(|error| Error::Configuration { faults: vec![format!("configuration: {error}")] })?;
        Self::new(config, package.session("denoise", runtime, options)?)
    }

    /// A sampler over an open session of a graph as [`export`](super::export()) writes it.
    ///
    /// # Errors
    /// [`Error::Configuration`] with every fault.
    pub fn new(config: Config, session: Session) -> Result<Self, Error> {
        let mut faults = config.faults();
        let inputs: Vec<String> = session.inputs().iter().map(|port| port.name.clone()).collect();
        let inputs = <[String; 2]>::try_from(inputs)
            .map_err(|found| faults.push(format!("its graph has {} inputs, not an image and a time", found.len())));
        match inputs {
            Ok(inputs) if faults.is_empty() => Ok(Self { schedule: config.schedule(), config, session, inputs }),
            _ => Err(Error::Configuration { faults }),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Image `index` of the row that `seed` begins, in [-1, 1], `side` x `side` px. With as many `steps` as there are noise levels it is
    /// an ancestral sample (Ho et al. 2020), with fewer one of DDIM without fresh noise (η = 0; Song et al. 2021).
    ///
    /// The same seed, index and number of steps give the same image on the same device and runtime, whatever else is sampled.
    ///
    /// # Errors
    /// [`Error::Steps`] for 0 steps or more than there are noise levels, [`Error::NotFinite`], [`Error::Shape`], and those of the
    /// session.
    pub fn sample(&self, seed: u64, index: u64, steps: usize) -> Result<Plane, Error> {
        let Config { channels, side, times, .. } = self.config;
        if !(1..=times).contains(&steps) {
            return Err(Error::Steps { asked: steps, most: times });
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index);
        let count = channels * side * side;
        let mut x = noise::normal(&mut rng, count);
        let descent = self.schedule.descent(steps);
        for (at, &time) in descent.iter().enumerate() {
            let found = self.noise(&x, time)?;
            if steps == times {
                let fresh = noise::normal(&mut rng, count);
                self.schedule.ancestral(&mut x, &found, &fresh, time);
            } else {
                self.schedule.stride(&mut x, &found, time, descent.get(at + 1).copied());
            }
        }
        let mean = |pixel: usize| (0..channels).map(|channel| x[channel * side * side + pixel]).sum::<f32>();
        Ok(Plane::new(side, side, (0..side * side).map(|pixel| mean(pixel) / channels as f32).collect()))
    }

    /// What the network takes for noise in `x` at `time`.
    fn noise(&self, x: &[f32], time: usize) -> Result<Vec<f32>, Error> {
        let Config { channels, side, .. } = self.config;
        let expected = vec![1, channels, side, side];
        let image = Tensor::f32(expected.clone(), x.to_vec())?;
        let time = Tensor::i64([1], vec![time as i64])?;
        let [image_name, time_name] = &self.inputs;
        let (found, noise) = self.session.run_single(&[(image_name, image), (time_name, time)])?.into_f32()?;
        if found != expected {
            return Err(Error::Shape { found, expected });
        }
        if noise.iter().all(|value| value.is_finite()) { Ok(noise) } else { Err(Error::NotFinite) }
    }
}
