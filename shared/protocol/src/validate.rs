//! Checking a request's values: everything that is wrong, at once.

use std::{fmt, ops::RangeInclusive};

use crate::{
    Digest, VERSION,
    request::{
        Background, BackgroundMode, Candidates, EXEMPLARS, Geometry, ImageCount, Request, Size, Synthesise, Train,
        TrainedModel,
    },
};

/// Something that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// The key, with dots: `lesions.diameter_mm.min`.
    pub path: String,
    /// What was given, or `missing`.
    pub value: String,
    /// What is allowed, continuing the sentence that begins with the key.
    pub allowed: String,
}

impl Fault {
    pub(crate) fn new(path: impl Into<String>, value: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { path: path.into(), value: value.into(), allowed: allowed.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` = {}: {}", self.path, self.value, self.allowed)
    }
}

/// All faults of a request; at least one.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// The faults, in the order of the keys.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.0.iter()
    }
}

impl From<Vec<Fault>> for Faults {
    fn from(faults: Vec<Fault>) -> Self {
        Self(faults)
    }
}

impl<'a> IntoIterator for &'a Faults {
    type Item = &'a Fault;
    type IntoIter = std::slice::Iter<'a, Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the request has {} fault{}", self.0.len(), if self.0.len() == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for Faults {}

/// The greatest seed: what a JSON number holds exactly in every reader (RFC 8259, section 6).
pub const GREATEST_SEED: u64 = (1 << 53) - 1;

/// Images of a request that says how many.
const MOST_IMAGES: u64 = 1_000_000;

/// Pixel spacing in millimetres that is assumed where a request names none, to judge whether a lesion fits: the coarsest
/// of usual chest CT. The lesion's place is judged again when the image's own spacing is known.
const COARSE_SPACING_MM: f64 = 1.0;

/// The most rows or columns of an image: DICOM gives them 16 bits (PS3.3 C.7.6.3.1.1).
const MOST_SIDE: u32 = 65_535;

impl Request {
    /// Checks every value.
    ///
    /// # Errors
    /// All faults at once, each with its path, the value and what is allowed.
    pub fn validate(&self) -> Result<(), Faults> {
        self.check(Vec::new())
    }

    /// As [`Request::validate`], where `faults` were found before in the text: the values in their places are no longer
    /// those that were given, and are not judged.
    pub(crate) fn check(&self, faults: Vec<Fault>) -> Result<(), Faults> {
        let mut check = Check(faults);
        match self {
            Request::Synthesise(synthesise) => check.synthesise(synthesise),
            Request::Train(train) => check.train(train),
            Request::Candidates(candidates) => check.candidates(candidates),
        }
        if check.0.is_empty() { Ok(()) } else { Err(Faults(check.0)) }
    }
}

struct Check(Vec<Fault>);

impl Check {
    /// Whether nothing is wrong at `path`, inside it, or with a table around it.
    fn sound(&self, path: &str) -> bool {
        let within = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        !self.0.iter().any(|fault| within(&fault.path, path) || within(path, &fault.path))
    }

    fn fault(&mut self, path: &str, value: impl fmt::Display, allowed: impl Into<String>) {
        if self.sound(path) {
            self.0.push(Fault::new(path, value.to_string(), allowed));
        }
    }

    /// A fault unless `right`. Where the text was at fault here already, what is allowed is added to that.
    fn range(&mut self, path: &str, value: impl fmt::Display, right: bool, allowed: &str) {
        if let Some(fault) = self.0.iter_mut().find(|fault| fault.path == path) {
            fault.allowed = format!("{}, {allowed}", fault.allowed);
        } else if !right {
            self.fault(path, value, format!("must be {allowed}"));
        }
    }

    fn whole(&mut self, path: &str, value: u64, range: RangeInclusive<u64>) {
        self.range(path, value, range.contains(&value), &format!("{} to {}", range.start(), range.end()));
    }

    fn real(&mut self, path: &str, value: f64, range: RangeInclusive<f64>, unit: &str) {
        // Also refuses what is not a number.
        self.range(path, value, range.contains(&value), &format!("{} to {}{unit}", range.start(), range.end()));
    }

    fn version(&mut self, version: u32) {
        let allowed = format!("{VERSION}, the version that this program speaks");
        self.range("version", version, version == VERSION, &allowed);
    }

    fn synthesise(&mut self, request: &Synthesise) {
        self.version(request.version);
        if let Some(name) = &request.name
            && !(1..=100).contains(&name.chars().count())
        {
            self.fault("name", format!("{name:?}"), "must have 1 to 100 characters");
        }
        self.count(request.count);
        self.whole("seed", request.seed, 0..=GREATEST_SEED);
        self.size(&request.size);
        self.source("inputs", &request.inputs);
        self.models(request);
        self.lesions(request);
        self.background(&request.background);
        self.placement(request);
        if request.output.sr && !request.output.seg && self.sound("output.seg") {
            let allowed = "must be false unless output.seg is true: a report's measurements are of segments";
            self.fault("output.sr", true, allowed);
        }
        let sampled = request.background.mode == BackgroundMode::Sample && self.sound("background.mode");
        if request.output.geometry == Geometry::Source && sampled {
            let allowed =
                "must be \"request\" where background.mode is \"sample\": such a background has no source image";
            self.fault("output.geometry", "\"source\"", allowed);
        }
        // Absent as well where the text gave something else than a number.
        self.whole("chunk", request.chunk.unwrap_or(1), 1..=1000);
    }

    fn background(&mut self, background: &Background) {
        let most = match background.mode {
            BackgroundMode::Reconstruct => 64,
            // Each is drawn with its image's own noise.
            BackgroundMode::Sample => 1,
        };
        self.whole("background.draws", background.draws.unwrap_or(1).into(), 1..=most);
        self.real("background.temperature", background.temperature.unwrap_or(1.0), 0.1..=2.0, "");
        self.whole("background.top_k", background.top_k.unwrap_or(1).into(), 1..=65_536);
        if background.mode == BackgroundMode::Reconstruct {
            let allowed = "must be left out unless background.mode is \"sample\"";
            if let Some(temperature) = background.temperature {
                self.fault("background.temperature", temperature, allowed);
            }
            if let Some(top_k) = background.top_k {
                self.fault("background.top_k", top_k, allowed);
            }
        }
    }

    fn count(&mut self, count: ImageCount) {
        let right = count.bound().is_none_or(|images| (1..=MOST_IMAGES).contains(&images));
        self.range("count", count, right, &format!("1 to {MOST_IMAGES}, or \"unbounded\" for a stream"));
    }

    fn size(&mut self, size: &Size) {
        for (path, side) in [("size.width", size.width), ("size.height", size.height)] {
            let right = (64..=4096).contains(&side) && side.is_multiple_of(8);
            self.range(path, side, right, "a multiple of 8, 64 to 4096 pixels");
        }
        self.real("size.spacing_mm", size.spacing_mm.unwrap_or(COARSE_SPACING_MM), 0.05..=5.0, " mm");
    }

    fn models(&mut self, request: &Synthesise) {
        let models = &request.models;
        let named = [("models.vqgan", Some(&models.vqgan)), ("models.unet", Some(&models.unet))];
        let optional = [
            ("models.density", models.density.as_ref()),
            ("models.yolo", models.yolo.as_ref()),
            ("models.prior", models.prior.as_ref()),
        ];
        for (path, name) in named.into_iter().chain(optional) {
            if let Some(name) = name {
                self.alias(path, name);
            }
        }
        for (index, name) in models.singan.iter().enumerate() {
            let path = format!("models.singan[{index}]");
            match name.strip_prefix(EXEMPLARS) {
                Some(digest) if digest.parse::<Digest>().is_ok() => {}
                Some(_) => {
                    let allowed = format!("must go on after `{EXEMPLARS}` with the 64 digits of an exemplar's digest");
                    self.fault(&path, format!("{name:?}"), allowed);
                }
                None => self.alias(&path, name),
            }
        }
    }

    fn lesions(&mut self, request: &Synthesise) {
        let count = request.lesions.count;
        self.whole("lesions.count.min", count.min.into(), 1..=16);
        self.whole("lesions.count.max", count.max.into(), 1..=16);
        if count.min > count.max && self.sound("lesions.count.max") {
            self.fault("lesions.count.min", count.min, format!("must be at most lesions.count.max ({})", count.max));
        }
        let diameter = request.lesions.diameter_mm;
        self.real("lesions.diameter_mm.min", diameter.min, 1.0..=200.0, " mm");
        self.real("lesions.diameter_mm.max", diameter.max, 1.0..=200.0, " mm");
        if diameter.min > diameter.max && self.sound("lesions.diameter_mm.max") {
            let allowed = format!("must be at most lesions.diameter_mm.max ({} mm)", diameter.max);
            self.fault("lesions.diameter_mm.min", diameter.min, allowed);
        }
        self.fits("lesions.diameter_mm.max", diameter.max, &request.size);
    }

    /// Whether a lesion is smaller than its image.
    fn fits(&mut self, path: &str, diameter_mm: f64, size: &Size) {
        let spacing_mm = size.spacing_mm.unwrap_or(COARSE_SPACING_MM);
        let side = size.width.min(size.height);
        let side_mm = f64::from(side) * spacing_mm;
        let sized = ["size.width", "size.height", "size.spacing_mm"].iter().all(|path| self.sound(path));
        if diameter_mm >= side_mm && sized {
            let allowed =
                format!("must be less than the image's shorter side, {side_mm} mm ({side} px of {spacing_mm} mm)");
            self.fault(path, diameter_mm, allowed);
        }
    }

    fn placement(&mut self, request: &Synthesise) {
        let placement = &request.placement;
        self.real("placement.gap_mm", placement.gap_mm, 0.0..=100.0, " mm");
        let sides = match request.output.geometry {
            Geometry::Request => [request.size.width, request.size.height],
            // Each source has its own, against which its positions are held when it is read.
            Geometry::Source => [MOST_SIDE; 2],
        };
        let ends = sides.map(|side| f64::from(side.saturating_sub(1)));
        for (index, [x, y]) in placement.positions.iter().enumerate() {
            let inside = (0.0..=ends[0]).contains(x) && (0.0..=ends[1]).contains(y);
            if !inside && self.sound("size.width") && self.sound("size.height") {
                let allowed = format!("must be [x, y] inside the image: [0 to {}, 0 to {}] pixels", ends[0], ends[1]);
                self.fault(&format!("placement.positions[{index}]"), format!("[{x}, {y}]"), allowed);
            }
        }
        let (given, most) = (placement.positions.len(), request.lesions.count.max);
        if given > most as usize && self.sound("lesions.count.max") {
            let allowed = format!("must be at most lesions.count.max ({most})");
            self.0.push(Fault::new("placement.positions", format!("{given} positions"), allowed));
        }
    }

    fn train(&mut self, request: &Train) {
        self.version(request.version);
        self.alias("name", &request.name);
        self.alias("preset", &request.preset);
        if let Some(name) = &request.autoencoder {
            self.alias("autoencoder", name);
            if !matches!(request.model, TrainedModel::Prior | TrainedModel::Vqgan) {
                let allowed = "must be left out: only a prior and a vqgan's perceptual term need one";
                self.fault("autoencoder", format!("{name:?}"), allowed);
            }
        }
        if let Some(source) = &request.perceptual {
            self.source("perceptual", source);
            if request.model != TrainedModel::Vqgan {
                self.fault("perceptual", format!("{source:?}"), "must be left out: only a vqgan has a perceptual term");
            }
        }
        if request.data.is_empty() {
            self.fault("data", "[]", "must name at least one folder alias or prefix");
        }
        for (index, source) in request.data.iter().enumerate() {
            self.source(&format!("data[{index}]"), source);
        }
        for (index, source) in request.score_on.iter().enumerate() {
            let path = format!("score_on[{index}]");
            self.source(&path, source);
            if !request.model.is_scored() {
                let allowed = "must be left out: a singan, which has one exemplar, cannot be scored on images";
                self.fault(&path, format!("{source:?}"), allowed);
            } else if request.data.contains(source) {
                self.fault(&path, format!("{source:?}"), "must not be trained on: name a source that is not in data");
            }
        }
        self.whole("steps", request.steps, 1..=10_000_000);
        self.whole("seed", request.seed, 0..=GREATEST_SEED);
        for (index, name) in request.hold_out.iter().enumerate() {
            if name.is_empty() || name.contains(['/', '\\', '\0']) {
                let path = format!("hold_out[{index}]");
                self.fault(&path, format!("{name:?}"), "must be a folder's name, without `/`");
            }
        }
    }

    fn candidates(&mut self, request: &Candidates) {
        self.version(request.version);
        self.below("input", &request.input, "the key of an image below the site's inputs");
        self.size(&request.size);
        self.real("diameter_mm", request.diameter_mm, 1.0..=200.0, " mm");
        self.fits("diameter_mm", request.diameter_mm, &request.size);
        self.whole("count", request.count.into(), 1..=200);
        let models = &request.models;
        let optional = [("models.density", models.density.as_ref()), ("models.yolo", models.yolo.as_ref())];
        let optional = optional.into_iter().filter_map(|(path, name)| Some((path, name?)));
        for (path, name) in [("models.unet", &models.unet)].into_iter().chain(optional) {
            self.alias(path, name);
        }
    }

    /// An alias, a digest or a digest's prefix: safe as a part of a key.
    fn alias(&mut self, path: &str, name: &str) {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 64 || name.starts_with(['.', '-']) || !name.bytes().all(allowed) {
            let allowed = "must have 1 to 64 letters, digits, `-`, `_` or `.`, and begin with a letter or digit";
            self.fault(path, format!("{name:?}"), allowed);
        }
    }

    /// An alias of a folder, or a prefix of keys.
    fn source(&mut self, path: &str, source: &str) {
        self.below(path, source, "`sample`, a folder alias or a prefix of the store");
    }

    /// A key or a prefix of keys: relative, and never upwards.
    fn below(&mut self, path: &str, key: &str, what: &str) {
        let upwards = key.split('/').any(|part| part == ".." || part == ".");
        let control = key.chars().any(char::is_control);
        if key.is_empty() || key.len() > 512 || key.starts_with('/') || upwards || control {
            let bounds = "1 to 512 characters, not starting with `/`, without `.` or `..` as a part";
            self.fault(path, format!("{key:?}"), format!("must be {what}: {bounds}"));
        }
    }
}
