//! What a model's name stands for: an alias, a digest, or the start of one.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use hiresmed_protocol::{
    Digest,
    job::Models,
    keys,
    request::{BackgroundMode, Location, LocatorNames, Modality, Synthesise, Train, TrainedModel},
};
use hiresmed_services::store;

use crate::{Error, Ledger, exemplars};

/// The alias of a model that a request does not name.
const DEFAULT: &str = "default";

/// Descriptions of models that are read at a time.
const AT_A_TIME: usize = 16;

/// Digits of a digest that are enough to try it as one.
const LEAST_DIGITS: usize = 8;

/// The models that a synthesis request names, by digest.
///
/// # Errors
/// [`Error::UnknownModel`], [`Error::AmbiguousModel`] or [`Error::OtherModality`], [`Error::Models`] where several are, the store's.
pub async fn resolve_all(ledger: &Ledger, request: &Synthesise) -> Result<Models, Error> {
    let (names, modality) = (&request.models, request.modality);
    let mut faults = Vec::new();
    let mut singan = BTreeSet::new();
    if names.singan.is_empty() {
        let all = registered(ledger, "singan").await?.into_iter();
        let said = all.map(async |digest| Ok::<_, Error>((digest, Said::of(ledger, "singan", &digest).await?)));
        let said: Vec<_> = stream::iter(said).buffer_unordered(AT_A_TIME).try_collect().await?;
        let fitting = said.into_iter().filter(|(_, said)| said.modality() == modality.as_str());
        singan = fitting.map(|(digest, _)| digest).collect();
        if singan.is_empty() {
            faults.push(unknown(ledger, "models.singan", "singan", "(any)").await?);
        }
    }
    for (index, name) in names.singan.iter().enumerate() {
        let exemplar = exemplars::named(name).map(|exemplar| exemplars::alias(&exemplar, modality));
        let name = exemplar.as_ref().unwrap_or(name);
        let digest = resolve_for(ledger, &format!("models.singan[{index}]"), "singan", name, modality).await;
        singan.extend(found(digest, &mut faults)?);
    }
    let [density, yolo] = proposers(names.density.as_deref(), names.yolo.as_deref(), request.placement.location);
    let samples = request.background.mode == BackgroundMode::Sample;
    let prior = names.prior.as_deref().or(samples.then_some(DEFAULT));
    let mut digests = BTreeMap::new();
    for (kind, name) in [
        ("prior", prior),
        ("vqgan", Some(&*names.vqgan)),
        ("unet", Some(&*names.unet)),
        ("density", density),
        ("yolo", yolo),
    ] {
        let Some(name) = name else { continue };
        // Tokens that are drawn mean something to one autoencoder alone.
        let own = match (kind, name == DEFAULT && samples, digests.get("prior")) {
            ("vqgan", true, Some(prior)) => Said::of(ledger, "prior", prior).await?.autoencoder(),
            _ => None,
        };
        let digest = match own {
            Some(digest) => resolve(ledger, "models.vqgan", kind, &digest.to_string()).await,
            None => resolve_for(ledger, &format!("models.{kind}"), kind, name, modality).await,
        };
        if let Some(digest) = found(digest, &mut faults)? {
            digests.insert(kind, digest);
        }
    }
    let digest = |kind: &str| digests.get(kind).copied();
    match (digest("vqgan"), digest("unet")) {
        (Some(vqgan), Some(unet)) if faults.is_empty() => {
            let singan = singan.into_iter().collect();
            let (density, yolo, prior) = (digest("density"), digest("yolo"), digest("prior"));
            Ok(Models { vqgan, singan, unet, density, yolo, prior })
        }
        _ => Err(together(faults)),
    }
}

/// What a package's `model.json` says that matters here.
#[derive(Debug, Default, serde::Deserialize)]
struct Said {
    #[serde(default)]
    modality: Option<String>,
    #[serde(default)]
    configuration: serde_json::Value,
}

impl Said {
    /// Of a registered package; nothing of one that is gone or says nothing that can be read: the worker refuses it by its name.
    async fn of(ledger: &Ledger, kind: &str, digest: &Digest) -> Result<Self, Error> {
        match ledger.store().get(&format!("{}model.json", keys::model(kind, digest))).await {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
            Err(store::Error::NotFound(_)) => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }

    fn modality(&self) -> &str {
        self.modality.as_deref().unwrap_or(Modality::Ct.as_str())
    }

    /// The autoencoder whose tokens a prior has learned.
    fn autoencoder(&self) -> Option<Digest> {
        self.configuration["autoencoder"].as_str()?.parse().ok()
    }
}

/// The digest that `name` stands for in a request for images of `modality`.
///
/// # Errors
/// As [`resolve`], and [`Error::OtherModality`] for a model of another one.
pub async fn resolve_for(
    ledger: &Ledger,
    path: &str,
    kind: &'static str,
    name: &str,
    modality: Modality,
) -> Result<Digest, Error> {
    let name = if name == DEFAULT { modality.default_alias() } else { name };
    let digest = resolve(ledger, path, kind, name).await?;
    let own = Said::of(ledger, kind, &digest).await?;
    if own.modality() == modality.as_str() {
        return Ok(digest);
    }
    let (path, name, own) = (path.to_owned(), name.to_owned(), own.modality().to_owned());
    Err(Error::OtherModality { path, kind, name, own, wanted: modality.as_str() })
}

/// Looks only whether the models of a synthesis request can be found, those aside that its exemplars are to get.
///
/// # Errors
/// As [`resolve_all`].
pub(crate) async fn resolve_others(ledger: &Ledger, request: &Synthesise) -> Result<(), Error> {
    let mut faults = match resolve_all(ledger, request).await {
        Ok(_) => return Ok(()),
        Err(Error::Models(faults)) => faults,
        Err(fault) => vec![fault],
    };
    faults.retain(|fault| !matches!(fault, Error::UnknownModel { name, .. } if exemplars::is_alias(name)));
    if faults.is_empty() { Ok(()) } else { Err(together(faults)) }
}

/// The autoencoder that a training needs, by digest: a prior's always, another model's where it names one.
///
/// # Errors
/// As [`resolve`].
pub async fn resolve_autoencoder(ledger: &Ledger, request: &Train) -> Result<Option<Digest>, Error> {
    let name = match (&request.autoencoder, request.model) {
        (Some(name), _) => name,
        (None, TrainedModel::Prior) => DEFAULT,
        (None, _) => return Ok(None),
    };
    resolve_for(ledger, "autoencoder", "vqgan", name, request.modality).await.map(Some)
}

/// The models that a request for candidates names, by digest: of permissible regions, and the spatial prior.
///
/// # Errors
/// As [`resolve_all`].
pub async fn resolve_locator(
    ledger: &Ledger,
    names: &LocatorNames,
    location: Location,
    modality: Modality,
) -> Result<Locators, Error> {
    let mut faults = Vec::new();
    let unet = found(resolve_for(ledger, "models.unet", "unet", &names.unet, modality).await, &mut faults)?;
    let [density, yolo] = proposers(names.density.as_deref(), names.yolo.as_deref(), location);
    let mut digests = [None, None];
    for (digest, (kind, name)) in digests.iter_mut().zip([("density", density), ("yolo", yolo)]) {
        if let Some(name) = name {
            let resolved = resolve_for(ledger, &format!("models.{kind}"), kind, name, modality).await;
            *digest = found(resolved, &mut faults)?;
        }
    }
    let [density, yolo] = digests;
    match unet {
        Some(unet) if faults.is_empty() => Ok(Locators { unet, density, yolo }),
        _ => Err(together(faults)),
    }
}

/// The models that say where a lesion may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Locators {
    /// The model of permissible regions.
    pub unet: Digest,
    /// The spatial prior, where it is wanted.
    pub density: Option<Digest>,
    /// The detector, where it is wanted.
    pub yolo: Option<Digest>,
}

/// The names of spatial prior and detector: what is named, and `default` for what `location` wants and nobody names.
fn proposers<'a>(density: Option<&'a str>, yolo: Option<&'a str>, location: Location) -> [Option<&'a str>; 2] {
    [
        density.or((location != Location::Detector).then_some(DEFAULT)),
        yolo.or((location != Location::Density).then_some(DEFAULT)),
    ]
}

/// One error for several names at fault.
fn together(mut faults: Vec<Error>) -> Error {
    match faults.pop() {
        Some(only) if faults.is_empty() => only,
        last => {
            faults.extend(last);
            Error::Models(faults)
        }
    }
}

/// Sets a name at fault aside, so that the others are looked at too; what else fails ends it.
fn found(digest: Result<Digest, Error>, faults: &mut Vec<Error>) -> Result<Option<Digest>, Error> {
    match digest {
        Ok(digest) => Ok(Some(digest)),
        Err(fault) if fault.is_refusal() => {
            faults.push(fault);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The digest that `name` stands for. An alias comes before a digest that starts with the same digits.
///
/// # Errors
/// [`Error::UnknownModel`], [`Error::AmbiguousModel`], the store's.
pub async fn resolve(ledger: &Ledger, path: &str, kind: &'static str, name: &str) -> Result<Digest, Error> {
    match ledger.store().get(&keys::alias(kind, name)).await {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            return text.trim().parse().map_err(|error: hiresmed_protocol::ids::Error| Error::Document {
                key: keys::alias(kind, name),
                cause: error.to_string(),
            });
        }
        Err(store::Error::NotFound(_) | store::Error::Key { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    if name.len() >= LEAST_DIGITS && name.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        let start = name.to_ascii_lowercase();
        let known = registered(ledger, kind).await?;
        let matching: Vec<_> = known.into_iter().filter(|digest| digest.to_string().starts_with(&start)).collect();
        match matching[..] {
            [digest] => return Ok(digest),
            [] => {}
            _ => {
                let (path, name) = (path.to_owned(), name.to_owned());
                return Err(Error::AmbiguousModel { path, kind, name, count: matching.len() });
            }
        }
    }
    Err(unknown(ledger, path, kind, name).await?)
}

/// The digests of all packages of a kind.
///
/// # Errors
/// The store's.
pub async fn registered(ledger: &Ledger, kind: &str) -> Result<BTreeSet<Digest>, Error> {
    let prefix = format!("models/{kind}/");
    let keys = ledger.store().list(&prefix).await?;
    let digests = keys.iter().filter_map(|key| {
        let (digest, file) = key.strip_prefix(&prefix)?.split_once('/')?;
        (file == "model.json").then(|| digest.parse().ok())?
    });
    Ok(digests.collect())
}

/// The aliases of a kind, sorted.
///
/// # Errors
/// The store's.
pub async fn aliases(ledger: &Ledger, kind: &str) -> Result<Vec<String>, Error> {
    let prefix = keys::alias(kind, "");
    let keys = ledger.store().list(&prefix).await?;
    Ok(keys.iter().filter_map(|key| key.strip_prefix(&prefix)).map(str::to_owned).collect())
}

async fn unknown(ledger: &Ledger, path: &str, kind: &'static str, name: &str) -> Result<Error, Error> {
    let aliases = aliases(ledger, kind).await?;
    let known = if aliases.is_empty() {
        format!(
            "none is registered: train one with `hiresmed train` or bring one with `hiresmed model import` ({kind})"
        )
    } else {
        format!("known are {}; `hiresmed model list` shows their digests", aliases.join(", "))
    };
    Ok(Error::UnknownModel { path: path.to_owned(), kind, name: name.to_owned(), known })
}
