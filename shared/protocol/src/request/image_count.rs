//! How many images a request asks for.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Images of an unbounded request: as many as Instance Number (0020,0013) can number, an IS of at most 2^31 - 1 (PS3.5, 6.2).
pub const MOST_UNBOUNDED: u64 = i32::MAX as u64;

/// The text that stands for no bound.
const UNBOUNDED: &str = "unbounded";

/// How many images a request asks for: a number, or the text `unbounded`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageCount {
    /// So many: 1 to 1,000,000.
    Bounded(u64),
    /// As many as somebody reads, up to [`MOST_UNBOUNDED`].
    Unbounded,
}

impl ImageCount {
    /// The number, where there is one.
    pub const fn bound(self) -> Option<u64> {
        match self {
            ImageCount::Bounded(images) => Some(images),
            ImageCount::Unbounded => None,
        }
    }
}

impl fmt::Display for ImageCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageCount::Bounded(images) => images.fmt(f),
            ImageCount::Unbounded => f.write_str(UNBOUNDED),
        }
    }
}

impl Serialize for ImageCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            ImageCount::Bounded(images) => serializer.serialize_u64(*images),
            ImageCount::Unbounded => serializer.serialize_str(UNBOUNDED),
        }
    }
}

impl<'de> Deserialize<'de> for ImageCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

struct Visitor;

impl de::Visitor<'_> for Visitor {
    type Value = ImageCount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number or \"unbounded\"")
    }

    fn visit_u64<E: de::Error>(self, images: u64) -> Result<ImageCount, E> {
        Ok(ImageCount::Bounded(images))
    }

    fn visit_i64<E: de::Error>(self, images: i64) -> Result<ImageCount, E> {
        let number = u64::try_from(images);
        number.map(ImageCount::Bounded).map_err(|_| E::invalid_value(de::Unexpected::Signed(images), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ImageCount, E> {
        match text {
            UNBOUNDED => Ok(ImageCount::Unbounded),
            other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
        }
    }
}

impl JsonSchema for ImageCount {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ImageCount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "integer", "format": "uint64", "minimum": 0 },
                { "type": "string", "const": UNBOUNDED }
            ]
        })
    }
}
