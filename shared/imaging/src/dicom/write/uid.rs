//! Unique identifiers that follow from what an object is, so that a second run makes the same ones.

use sha2::{Digest, Sha256};

/// A UID under `2.25` (PS3.5 B.2): a UUID of version 8 (RFC 9562, 5.8) from the SHA-256 digest of `parts`, as a decimal
/// number. Equal parts give equal UIDs; each part's length is hashed too, so that `["ab", "c"]` is not `["a", "bc"]`.
pub fn derived_uid(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    hash.update(b"hiresmed uid 1");
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    uid_of(hash.finalize().into())
}

/// The UID of a digest: see [`derived_uid`].
pub(in crate::dicom) fn uid_of(digest: [u8; 32]) -> String {
    let mut uuid = [0u8; 16];
    uuid.copy_from_slice(&digest[..16]);
    uuid[6] = (uuid[6] & 0x0F) | 0x80;
    uuid[8] = (uuid[8] & 0x3F) | 0x80;
    format!("2.25.{}", u128::from_be_bytes(uuid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_valid_stable_and_distinct() {
        let uid = derived_uid(&["request", "7", "composite"]);
        assert_eq!(uid, derived_uid(&["request", "7", "composite"]));
        assert_ne!(uid, derived_uid(&["request", "7", "background"]));
        assert_ne!(derived_uid(&["ab", "c"]), derived_uid(&["a", "bc"]));
        for index in 0..200 {
            let uid = derived_uid(&["r", &index.to_string()]);
            let number = uid.strip_prefix("2.25.").unwrap();
            assert!(uid.len() <= 64 && !number.starts_with('0') && number.bytes().all(|b| b.is_ascii_digit()));
            let uuid = number.parse::<u128>().unwrap();
            assert_eq!((uuid >> 76 & 0xF, uuid >> 62 & 0x3), (8, 2));
        }
    }
}
