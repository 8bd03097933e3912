//! API keys: `hmk_{id}_{secret}`, the id 64 and the secret 256 random bits, both in hexadecimal.

use std::{fmt, str::FromStr};

use hiresmed_protocol::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Error;

/// What every key starts with, so that scanners for leaked secrets find them.
const PREFIX: &str = "hmk_";

/// A key's id: 16 lower-case hexadecimal digits. Not secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(#[schemars(regex(pattern = "^[0-9a-f]{16}$"))] String);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for KeyId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if is_hex(&text, 16) {
            Ok(Self(text))
        } else {
            Err("a key's id is 16 lower-case hexadecimal digits".to_owned())
        }
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> String {
        id.0
    }
}

/// A key's secret. It has no `Debug` and no `Display`: [`text`] is the only way out.
pub struct Secret([u8; 32]);

impl Secret {
    /// What is kept of it.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }
}

/// A new id and secret.
///
/// # Errors
/// [`Error::Randomness`].
pub fn generate() -> Result<(KeyId, Secret), Error> {
    let (mut id, mut secret) = ([0; 8], [0; 32]);
    for bytes in [&mut id[..], &mut secret[..]] {
        getrandom::fill(bytes).map_err(|error| Error::Randomness(error.to_string()))?;
    }
    Ok((KeyId(hex::encode(id)), Secret(secret)))
}

/// The key as its owner gets it, once.
pub fn text(id: &KeyId, secret: &Secret) -> String {
    format!("{PREFIX}{id}_{}", hex::encode(secret.0))
}

/// The id and secret of a key's text.
pub fn parse(text: &str) -> Option<(KeyId, Secret)> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(secret, &mut bytes).ok()?;
    Some((id.parse().ok()?, Secret(bytes)))
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_and_differ() {
        let ((id, secret), (other, _)) = (generate().unwrap(), generate().unwrap());
        assert_ne!(id, other);
        let text = text(&id, &secret);
        assert_eq!(text.len(), 4 + 16 + 1 + 64);
        let (read, same) = parse(&text).unwrap();
        assert_eq!((read, same.digest()), (id, secret.digest()));
        for bad in ["", "hmk_", "hmk_a_b", &text[1..], &text[..84], &text.to_uppercase(), &format!("{text}0")] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
