//! Identifiers: content digests, and the names of requests, jobs, sites and images.
//!
//! Every identifier is safe as a path component and as a part of a queue's routing key: lower-case letters, digits and
//! hyphens only.

use std::{fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

use crate::request::Request;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is not 64 hexadecimal digits.
    #[error("`{0}` is not a SHA-256 digest: give 64 hexadecimal digits")]
    Digest(String),
    /// The text has a forbidden character or length.
    #[error(
        "`{text}` is not a {what}: use 1 to {longest} lower-case letters, digits and hyphens, not starting with a hyphen"
    )]
    Name {
        /// What the text should have named.
        what: &'static str,
        /// The refused text.
        text: String,
        /// The greatest permitted number of characters.
        longest: usize,
    },
}

/// A SHA-256 digest of an object's bytes (FIPS 180-4), written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// A digest that was computed elsewhere, for example while streaming.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 12 hexadecimal digits, for people to read; not an identifier.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| Error::Digest(text.to_owned()))?;
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Digest {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Digest".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9a-fA-F]{64}$", "description": "SHA-256 in hexadecimal" })
    }
}

fn check_name(what: &'static str, longest: usize, text: &str) -> Result<(), Error> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if text.is_empty() || text.len() > longest || text.starts_with('-') || !text.bytes().all(allowed) {
        return Err(Error::Name { what, text: text.chars().take(80).collect(), longest });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$docs:meta])* $name:ident, $what:literal, $longest:literal) => {
        $(#[$docs])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                check_name($what, $longest, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "pattern": "^[a-z0-9][a-z0-9-]*$",
                    "maxLength": $longest,
                    "description": $what
                })
            }
        }
    };
}

name!(
    /// A request's name: derived from what it asks for, so that the same request twice is one request.
    RequestId,
    "request id",
    64
);
name!(
    /// A job's name: the request's, the kind's initial and the job's number in its plan.
    JobId,
    "job id",
    96
);
name!(
    /// The name of a hospital or laboratory of the consortium. A single machine is the site `local`.
    SiteId,
    "site id",
    48
);

impl SiteId {
    /// The site of a machine that works for itself.
    pub fn local() -> Self {
        Self("local".to_owned())
    }
}

impl Default for SiteId {
    fn default() -> Self {
        Self::local()
    }
}

impl RequestId {
    /// The id of `request` at `site`: 32 hexadecimal digits of the SHA-256 of both.
    ///
    /// Two requests are the same when all their values are, defaults filled in, whatever the order or format in which
    /// they were written. `idempotency_key`, if given, takes the request's place: the caller decides what is the same.
    pub fn derive(request: &Request, site: &SiteId, idempotency_key: Option<&str>) -> Self {
        let mut hash = Sha256::new();
        let (domain, subject) = match idempotency_key {
            Some(key) => ("hiresmed request key 1", key.to_owned()),
            None => ("hiresmed request 1", request.to_canonical_json()),
        };
        for part in [domain, site.as_str(), &subject] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hex::encode(&hash.finalize()[..16]))
    }
}

impl JobId {
    /// The id of the `index`-th synthesis job of `request`, counted from 0.
    pub fn synthesise(request: &RequestId, index: u64) -> Self {
        Self(format!("{request}-s{index:05}"))
    }

    /// The number of a synthesis job within its request, where the id is of such a job.
    pub fn synthesis_number(&self) -> Option<u64> {
        self.0.rsplit_once("-s")?.1.parse().ok()
    }

    /// The id of training round `round` of `request`, counted from 0.
    pub fn train_round(request: &RequestId, round: u64) -> Self {
        Self(format!("{request}-t{round:05}"))
    }

    /// The id of the one job of `request`, which asks for candidates.
    pub fn candidates(request: &RequestId) -> Self {
        Self(format!("{request}-c00000"))
    }
}

/// An image's number within its request, counted from 0. It does not depend on how the request is cut into jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ImageIndex(pub u64);

impl ImageIndex {
    /// The stem that all files of this image share: `image-00007`.
    pub fn stem(self) -> String {
        format!("image-{:05}", self.0)
    }
}

impl fmt::Display for ImageIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_read_back_and_refuse_other_texts() {
        let digest = Digest::of(b"abc");
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_string(), text, "FIPS 180-4's own example");
        assert_eq!(text.parse::<Digest>().unwrap(), digest);
        assert_eq!(text.to_uppercase().parse::<Digest>().unwrap(), digest);
        assert_eq!(digest.short(), "ba7816bf8f01");
        for refused in ["", "ba78", &text[1..], &text.replace('b', "x"), &format!("{text}00")] {
            assert!(refused.parse::<Digest>().is_err(), "{refused}");
        }
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
    }

    #[test]
    fn names_are_safe_as_path_components() {
        for name in ["a", "0", "charite-berlin", "x-"] {
            assert_eq!(name.parse::<SiteId>().unwrap().as_str(), name);
        }
        for name in ["", "-a", "A", "a.b", "a/b", "..", "ä", "a b", "a\0", &"x".repeat(49)] {
            assert!(name.parse::<SiteId>().is_err(), "{name:?}");
            assert!(serde_json::from_value::<SiteId>(name.into()).is_err(), "{name:?}");
        }
    }
}
