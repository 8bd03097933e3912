//! The models of a request, opened once and kept between its jobs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use hiresmed_compositing::{Blend, Compositor};
use hiresmed_inference::{Provider, Runtime, Session, SessionOptions, package::Package};
use hiresmed_models::{
    density::Prior, prior::TokenPrior, singan::Generator, unet::DangerZones, vqgan::Autoencoder, yolo::Detector,
};
use hiresmed_protocol::{
    Digest,
    job::Models,
    manifest::Execution,
    outcome::Stage,
    request::{self, BackgroundMode, Location, Modality, Synthesise},
};

use crate::{Environment, jobs::Failure};

/// Everything that makes a request's images, ready to run.
pub struct Pipeline {
    pub(super) request: Synthesise,
    pub(super) autoencoder: Arc<Autoencoder>,
    /// Where backgrounds are sampled.
    pub(super) prior: Option<Arc<TokenPrior>>,
    /// Lesion models by their digest, sorted.
    pub(super) lesions: Vec<(Digest, Arc<Generator>)>,
    pub(super) locator: Locator,
    pub(super) compositor: Arc<Compositor>,
    runtime: Arc<Runtime>,
    /// Digests by kind, for the manifest.
    pub(super) digests: BTreeMap<String, Digest>,
    pub(super) execution: Execution,
}

impl Pipeline {
    /// Opens the models that a request's plan names, for `lanes` images at the same time, which share the environment's
    /// threads. What an earlier job left open is used again.
    ///
    /// # Errors
    /// Permanent where a package is missing, damaged, of another kind, or cannot be run; transient where the store or the
    /// disk fails.
    pub fn open(
        environment: &Environment,
        models: &Models,
        request: &Synthesise,
        lanes: usize,
    ) -> Result<Self, Failure> {
        let loader = Loader::new(environment, lanes)?;
        let lesions = models
            .singan
            .iter()
            .map(|digest| {
                let open = |package: &Package| Ok(Generator::open(package, &loader.runtime, &loader.small)?);
                Ok((*digest, loader.model("singan", digest, open)?))
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        let blend = match request.blend {
            request::Blend::Paper => Blend::Paper,
            request::Blend::Feather => Blend::Feather,
            request::Blend::Poisson => Blend::Poisson,
            request::Blend::Attenuation => Blend::Attenuation,
        };
        let mut digests = BTreeMap::from([("vqgan".to_owned(), models.vqgan), ("unet".to_owned(), models.unet)]);
        digests.extend(models.density.map(|digest| ("density".to_owned(), digest)));
        digests.extend(models.yolo.map(|digest| ("yolo".to_owned(), digest)));
        let prior = match request.background.mode {
            BackgroundMode::Sample => models.prior,
            BackgroundMode::Reconstruct => None,
        };
        digests.extend(prior.map(|digest| ("prior".to_owned(), digest)));
        Ok(Self {
            request: request.clone(),
            prior: prior.map(|digest| Self::prior(&loader, &digest, &models.vqgan)).transpose()?,
            autoencoder: loader.model("vqgan", &models.vqgan, |package| {
                Ok(Autoencoder::open(package, &loader.runtime, &loader.large)?)
            })?,
            lesions,
            locator: Locator::load(
                &loader,
                &models.unet,
                request.placement.location,
                LocationModels { density: models.density, yolo: models.yolo },
                request.modality,
            )?,
            compositor: environment.residents.get_or_load(&format!("blend {blend:?} {lanes}"), || {
                Compositor::open(&loader.runtime, blend, &loader.blend).map_err(refuse)
            })?,
            digests,
            execution: Execution {
                provider: loader.large.provider.name().to_owned(),
                runtime_version: loader.runtime.version().to_owned(),
                batch_size: 1,
            },
            runtime: loader.runtime,
        })
    }

    /// Gives back the memory that is kept between images, where no image is in the making.
    ///
    /// # Errors
    /// The runtime's.
    pub(crate) fn give_back_memory(&self) -> Result<(), hiresmed_inference::session::Error> {
        Session::give_back_memory(&self.runtime)
    }

    /// Opens the prior over the tokens of `vqgan`.
    fn prior(loader: &Loader<'_>, digest: &Digest, vqgan: &Digest) -> Result<Arc<TokenPrior>, Failure> {
        let open = |package: &Package| Ok(TokenPrior::open(package, &loader.runtime, &loader.large)?);
        let prior = loader.model("prior", digest, open)?;
        let own = prior.autoencoder();
        if own != vqgan.to_string() {
            return Err(refuse(anyhow::anyhow!(
                "the prior {} has learned the tokens of the autoencoder {own}, and models.vqgan is {vqgan}: its tokens would be \
                 decoded to something else; set models.vqgan to \"{own}\", or models.prior to one of {vqgan}",
                digest.short()
            )));
        }
        Ok(prior)
    }
}

/// The models that say where a lesion may be.
pub struct Locator {
    pub(super) danger_zones: Arc<DangerZones>,
    pub(super) location: LocationModel,
    pub(super) modality: Modality,
}

/// What a location may need, by digest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LocationModels {
    /// The spatial prior.
    pub density: Option<Digest>,
    /// The lesion detector.
    pub yolo: Option<Digest>,
}

/// What proposes candidates C_loc (equation 14).
pub(super) enum LocationModel {
    Density(Arc<Prior>),
    Detector(Arc<Detector>),
    /// Both: the product of their maps.
    Both(Arc<Prior>, Arc<Detector>),
}

impl Locator {
    /// Opens the model of permissible regions `unet`, and those of `models` that `location` wants; all are for images of `modality`.
    ///
    /// # Errors
    /// As [`Pipeline::open`], and where `models` lacks one of them.
    pub fn open(
        environment: &Environment,
        unet: &Digest,
        location: Location,
        models: LocationModels,
        modality: Modality,
    ) -> Result<Self, Failure> {
        Self::load(&Loader::new(environment, 1)?, unet, location, models, modality)
    }

    fn load(
        loader: &Loader<'_>,
        unet: &Digest,
        location: Location,
        models: LocationModels,
        modality: Modality,
    ) -> Result<Self, Failure> {
        let density = || loader.density(&named(models.density, "spatial prior", "density")?);
        let detector = || loader.detector(&named(models.yolo, "lesion detector", "yolo")?);
        let location = match location {
            Location::Density => LocationModel::Density(density()?),
            Location::Detector => LocationModel::Detector(detector()?),
            Location::Both => LocationModel::Both(density()?, detector()?),
        };
        Ok(Self { danger_zones: loader.danger_zones(unet)?, location, modality })
    }
}

/// Opens packages of one environment.
struct Loader<'a> {
    environment: &'a Environment,
    runtime: Arc<Runtime>,
    /// Images in the making at the same time.
    lanes: usize,
    /// For networks over whole images. A GPU runs one at a time: its own threads are shared already.
    large: SessionOptions,
    /// For networks over a lesion: too small to share among threads, and for a GPU to be worth the way there.
    small: SessionOptions,
    /// For blending, a few operations for each pixel: no work for a GPU either.
    blend: SessionOptions,
}

/// The model of a plan that a request's location needs.
fn named(digest: Option<Digest>, what: &str, kind: &str) -> Result<Digest, Failure> {
    digest.ok_or_else(|| {
        refuse(anyhow::anyhow!(
            "the plan names no {what}, which placement.location asks for; name one in models.{kind}, or choose another location"
        ))
    })
}

impl<'a> Loader<'a> {
    fn new(environment: &'a Environment, lanes: usize) -> Result<Self, Failure> {
        let provider = environment.provider;
        let load = || Runtime::load_for(provider).map_err(refuse);
        let runtime = environment.residents.get_or_load("onnxruntime", load)?;
        let threads = (environment.threads / lanes.max(1)).max(1);
        let blend = SessionOptions { threads, lanes, ..SessionOptions::default() };
        let large = match provider {
            Provider::Cpu => blend,
            Provider::Cuda { .. } => SessionOptions { lanes: 1, provider, ..blend },
        };
        Ok(Self { environment, runtime, lanes, large, small: SessionOptions { threads: 1, ..blend }, blend })
    }

    fn danger_zones(&self, unet: &Digest) -> Result<Arc<DangerZones>, Failure> {
        self.model("unet", unet, |package| Ok(DangerZones::open(package, &self.runtime, &self.large)?))
    }

    fn density(&self, density: &Digest) -> Result<Arc<Prior>, Failure> {
        self.model("density", density, |package| Ok(Prior::open(package)?))
    }

    fn detector(&self, yolo: &Digest) -> Result<Arc<Detector>, Failure> {
        self.model("yolo", yolo, |package| Ok(Detector::open(package, &self.runtime, &self.large)?))
    }

    fn model<T: Send + Sync + 'static>(
        &self,
        kind: &str,
        digest: &Digest,
        open: impl FnOnce(&Package) -> anyhow::Result<T>,
    ) -> Result<Arc<T>, Failure> {
        let name = format!("{kind} {digest} {}", self.lanes);
        self.environment.residents.get_or_load(&name, || {
            let started = Instant::now();
            let folder = self.environment.package_folder(kind, digest)?;
            let opened = Package::open(&folder)
                .map_err(anyhow::Error::from)
                .and_then(|package| {
                    self.show_scores(kind, &package);
                    open(&package)
                })
                .with_context(|| format!("the {kind} model {} cannot be used", digest.short()))
                .map_err(refuse)?;
            self.environment.observe(|metrics| metrics.model_loaded(kind, started.elapsed().as_secs_f64()));
            Ok::<_, Failure>(opened)
        })
    }

    /// Shows the held-out scores of what is opened. Of their names only these: a package may have any.
    fn show_scores(&self, kind: &str, package: &Package) {
        for name in ["psnr_db", "ssim", "dice_held_out", "ap50_held_out"] {
            if let Some(&score) = package.description().scores.get(name) {
                self.environment.observe(|metrics| metrics.set_score(&format!("{kind}_{name}"), score));
            }
        }
    }
}

fn refuse(error: impl Into<anyhow::Error>) -> Failure {
    Failure::permanent(Stage::Inputs, error)
}
