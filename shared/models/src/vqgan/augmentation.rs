//! Variants of training images: what may be done to a crop, and to a picture in which left and right mean something.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How the images of a step are varied. In JSON `false`, `true`, or the fields of an [`Anatomy`].
#[derive(Debug, Clone, PartialEq)]
pub enum Augmentation {
    /// Crops as they are.
    None,
    /// Mirrored and turned by quarter turns: for small crops, whose texture has no up and no left. No value is interpolated.
    Square,
    /// What a patient could look like, for whole slices and crops that show where an organ lies.
    Anatomy(Anatomy),
}

/// Random geometry and intensity that anatomy allows. The heart stays on the left and the back below.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Anatomy {
    /// Zoom: from 1 / this to this.
    pub zoom: f64,
    /// Shift, share of the crop's side, each way.
    pub shift: f64,
    /// Rotation, degrees, each way.
    pub rotation_degrees: f64,
    /// Smooth displacement: its standard deviation at the corners of a grid of 4 x 4 cells, share of half of the crop's side.
    pub warp: f64,
    /// Whether left and right change places in half of the images: where sides mean nothing.
    pub mirror: bool,
    /// Contrast from 1 - this to 1 + this, and brightness from -this to this, over values in [-1, 1].
    pub intensity: f64,
    /// Largest standard deviation of normal noise that is added, over values in [-1, 1].
    pub noise: f64,
}

impl Default for Anatomy {
    /// The prior's geometry; over the lung window of 1,400 HU at most 14 HU of brightness and 7 HU of noise, since HU are calibrated.
    fn default() -> Self {
        Self { zoom: 1.15, shift: 0.05, rotation_degrees: 6.0, warp: 0.03, mirror: false, intensity: 0.02, noise: 0.01 }
    }
}

impl Anatomy {
    /// Every fault, each naming its field, the value and what is allowed.
    pub fn faults(&self) -> Vec<String> {
        let ranges = [
            ("zoom", self.zoom, 1.0, 2.0),
            ("shift", self.shift, 0.0, 0.5),
            ("rotation_degrees", self.rotation_degrees, 0.0, 180.0),
            ("warp", self.warp, 0.0, 0.2),
            ("intensity", self.intensity, 0.0, 0.5),
            ("noise", self.noise, 0.0, 0.5),
        ];
        let wrong = ranges.into_iter().filter(|(_, value, low, high)| !(low..=high).contains(&value));
        wrong.map(|(name, value, low, high)| format!("augment.{name} is {value}, allowed is {low} to {high}")).collect()
    }
}

impl Serialize for Augmentation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => false.serialize(serializer),
            Self::Square => true.serialize(serializer),
            Self::Anatomy(anatomy) => anatomy.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Augmentation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // By hand: an untagged enum would not say which field is wrong.
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Bool(square) => Ok(if square { Self::Square } else { Self::None }),
            value => serde_json::from_value(value).map(Self::Anatomy).map_err(|error| {
                serde::de::Error::custom(format!("augment is neither true nor false, and as an object: {error}"))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_form_is_read_and_the_new_one_says_what_is_wrong() {
        let read = |text: &str| serde_json::from_str::<Augmentation>(text);
        assert_eq!(read("true").unwrap(), Augmentation::Square);
        assert_eq!(read("false").unwrap(), Augmentation::None);
        let some = read("{\"warp\": 0.05, \"mirror\": true}").unwrap();
        assert_eq!(some, Augmentation::Anatomy(Anatomy { warp: 0.05, mirror: true, ..Anatomy::default() }));
        for kind in [Augmentation::None, Augmentation::Square, some] {
            assert_eq!(read(&serde_json::to_string(&kind).unwrap()).unwrap(), kind);
        }
        let text = read("{\"warps\": 0.05}").unwrap_err().to_string();
        assert!(text.contains("augment is neither") && text.contains("unknown field `warps`"), "{text}");
    }

    #[test]
    fn every_fault_is_listed() {
        let faults = Anatomy { zoom: 0.5, noise: f64::NAN, ..Anatomy::default() }.faults().join("\n");
        assert!(faults.contains("augment.zoom is 0.5, allowed is 1 to 2"), "{faults}");
        assert!(faults.contains("augment.noise is NaN"), "{faults}");
        assert_eq!(Anatomy::default().faults(), Vec::<String>::new());
    }
}
