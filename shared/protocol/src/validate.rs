//! Checking a request's values: everything that is wrong, at once.

use std::{fmt, ops::RangeInclusive};

use crate::{
    VERSION,
    request::{Request, Size, Synthesise, Train},
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

/// Pixel spacing in millimetres that is assumed where a request names none, to judge whether a lesion fits: the coarsest
/// of usual chest CT. The lesion's place is judged again when the image's own spacing is known.
const COARSE_SPACING_MM: f64 = 1.0;

impl Request {
    /// Checks every value.
    ///
    /// # Errors
    /// All faults at once, each with its path, the value and what is allowed.
    pub fn validate(&self) -> Result<(), Faults> {
        let mut check = Check::default();
        match self {
            Request::Synthesise(synthesise) => check.synthesise(synthesise),
            Request::Train(train) => check.train(train),
        }
        if check.0.is_empty() { Ok(()) } else { Err(Faults(check.0)) }
    }
}

#[derive(Default)]
struct Check(Vec<Fault>);

impl Check {
    fn fault(&mut self, path: &str, value: impl fmt::Display, allowed: impl Into<String>) {
        self.0.push(Fault::new(path, value.to_string(), allowed));
    }

    fn whole(&mut self, path: &str, value: u64, range: RangeInclusive<u64>) -> bool {
        let inside = range.contains(&value);
        if !inside {
            self.fault(path, value, format!("must be {} to {}", range.start(), range.end()));
        }
        inside
    }

    fn real(&mut self, path: &str, value: f64, range: RangeInclusive<f64>, unit: &str) -> bool {
        // Also refuses what is not a number.
        let inside = range.contains(&value);
        if !inside {
            self.fault(path, value, format!("must be {} to {}{unit}", range.start(), range.end()));
        }
        inside
    }

    fn version(&mut self, version: u32) {
        if version != VERSION {
            self.fault("version", version, format!("must be {VERSION}, the version that this program speaks"));
        }
    }

    fn synthesise(&mut self, request: &Synthesise) {
        self.version(request.version);
        if let Some(name) = &request.name
            && !(1..=100).contains(&name.chars().count())
        {
            self.fault("name", format!("{name:?}"), "must have 1 to 100 characters");
        }
        self.whole("count", request.count, 1..=1_000_000);
        self.whole("seed", request.seed, 0..=GREATEST_SEED);
        self.size(&request.size);
        self.source("inputs", &request.inputs);
        self.models(request);
        self.lesions(request);
        self.placement(request);
        if let Some(chunk) = request.chunk {
            self.whole("chunk", chunk, 1..=1000);
        }
    }

    fn size(&mut self, size: &Size) {
        for (path, side) in [("size.width", size.width), ("size.height", size.height)] {
            if !(64..=4096).contains(&side) || !side.is_multiple_of(8) {
                self.fault(path, side, "must be a multiple of 8, 64 to 4096 pixels");
            }
        }
        if let Some(spacing) = size.spacing_mm {
            self.real("size.spacing_mm", spacing, 0.05..=5.0, " mm");
        }
    }

    fn models(&mut self, request: &Synthesise) {
        let models = &request.models;
        let named = [("models.vqgan", Some(&models.vqgan)), ("models.unet", Some(&models.unet))];
        let optional = [("models.density", models.density.as_ref()), ("models.yolo", models.yolo.as_ref())];
        for (path, name) in named.into_iter().chain(optional) {
            if let Some(name) = name {
                self.alias(path, name);
            }
        }
        for (index, name) in models.singan.iter().enumerate() {
            self.alias(&format!("models.singan[{index}]"), name);
        }
    }

    fn lesions(&mut self, request: &Synthesise) {
        let count = request.lesions.count;
        let least = self.whole("lesions.count.min", count.min.into(), 1..=16);
        let greatest = self.whole("lesions.count.max", count.max.into(), 1..=16);
        if least && greatest && count.min > count.max {
            self.fault("lesions.count.min", count.min, format!("must be at most lesions.count.max ({})", count.max));
        }
        let diameter = request.lesions.diameter_mm;
        let least = self.real("lesions.diameter_mm.min", diameter.min, 1.0..=200.0, " mm");
        let greatest = self.real("lesions.diameter_mm.max", diameter.max, 1.0..=200.0, " mm");
        if least && greatest && diameter.min > diameter.max {
            let allowed = format!("must be at most lesions.diameter_mm.max ({} mm)", diameter.max);
            self.fault("lesions.diameter_mm.min", diameter.min, allowed);
        }
        let spacing_mm = request.size.spacing_mm.unwrap_or(COARSE_SPACING_MM);
        let side_mm = f64::from(request.size.width.min(request.size.height)) * spacing_mm;
        if greatest && diameter.max >= side_mm {
            let allowed = format!(
                "must be less than the image's shorter side, {side_mm} mm ({} px of {spacing_mm} mm)",
                request.size.width.min(request.size.height)
            );
            self.fault("lesions.diameter_mm.max", diameter.max, allowed);
        }
    }

    fn placement(&mut self, request: &Synthesise) {
        let placement = &request.placement;
        self.real("placement.gap_mm", placement.gap_mm, 0.0..=100.0, " mm");
        let most = request.lesions.count.max as usize;
        if placement.positions.len() > most {
            let given = format!("{} positions", placement.positions.len());
            self.fault("placement.positions", given, format!("must be at most lesions.count.max ({most})"));
        }
        let ends = [request.size.width, request.size.height].map(|side| f64::from(side.saturating_sub(1)));
        for (index, [x, y]) in placement.positions.iter().enumerate() {
            if !(0.0..=ends[0]).contains(x) || !(0.0..=ends[1]).contains(y) {
                let allowed = format!("must be [x, y] inside the image: [0 to {}, 0 to {}] pixels", ends[0], ends[1]);
                self.fault(&format!("placement.positions[{index}]"), format!("[{x}, {y}]"), allowed);
            }
        }
    }

    fn train(&mut self, request: &Train) {
        self.version(request.version);
        self.alias("name", &request.name);
        self.alias("preset", &request.preset);
        if request.data.is_empty() {
            self.fault("data", "[]", "must name at least one folder alias or prefix");
        }
        for (index, source) in request.data.iter().enumerate() {
            self.source(&format!("data[{index}]"), source);
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

    /// An alias, a digest or a digest's prefix: safe as a part of a key.
    fn alias(&mut self, path: &str, name: &str) {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 64 || name.starts_with(['.', '-']) || !name.bytes().all(allowed) {
            let allowed = "must have 1 to 64 letters, digits, `-`, `_` or `.`, and begin with a letter or digit";
            self.fault(path, format!("{name:?}"), allowed);
        }
    }

    /// An alias of a folder, or a prefix of keys: relative, and never upwards.
    fn source(&mut self, path: &str, source: &str) {
        let upwards = source.split('/').any(|part| part == ".." || part == ".");
        let control = source.chars().any(char::is_control);
        if source.is_empty() || source.len() > 512 || source.starts_with('/') || upwards || control {
            let allowed = "must be `sample`, a folder alias or a prefix of the store: 1 to 512 characters, not starting \
                           with `/`, without `.` or `..` as a part";
            self.fault(path, format!("{source:?}"), allowed);
        }
    }
}
