//! Values as they are kept: one byte that says how, then the content.

use bytes::Bytes;
use tokio::task::{JoinError, spawn_blocking};

/// The rest is a zstd frame.
const ZSTD: u8 = 1;

/// zstd's own default: faster than the network, and checkpoints shrink little more above it.
const LEVEL: i32 = 3;

/// Up to this size a value is compressed on the spot: it takes less than moving it to another thread.
const SMALL_BYTES: usize = 16 << 10;

/// The largest expanded value, in bytes: what is larger cannot have been put by us.
const MOST_BYTES: usize = 1 << 30;

pub(super) async fn compress(value: Bytes) -> Result<Vec<u8>, JoinError> {
    if value.len() <= SMALL_BYTES { Ok(compressed(&value)) } else { spawn_blocking(move || compressed(&value)).await }
}

/// The value; `None` where it is none of ours.
pub(super) async fn expand(kept: Vec<u8>) -> Result<Option<Bytes>, JoinError> {
    if kept.len() <= SMALL_BYTES { Ok(expanded(&kept)) } else { spawn_blocking(move || expanded(&kept)).await }
}

fn compressed(value: &[u8]) -> Vec<u8> {
    let mut kept = vec![ZSTD];
    // Compressing into memory fails only where there is none; the value is then not kept.
    match zstd::bulk::compress(value, LEVEL) {
        Ok(frame) => kept.extend_from_slice(&frame),
        Err(error) => tracing::warn!(%error, "a value was not compressed"),
    }
    kept
}

fn expanded(kept: &[u8]) -> Option<Bytes> {
    let frame = kept.strip_prefix(&[ZSTD])?;
    let size = zstd::zstd_safe::get_frame_content_size(frame).ok()??;
    let size = usize::try_from(size).ok().filter(|size| *size <= MOST_BYTES)?;
    zstd::bulk::decompress(frame, size).ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn values_come_back_and_shrink() {
        for size in [0, 1, SMALL_BYTES, SMALL_BYTES + 1, 3_000_000] {
            let value = Bytes::from(vec![7; size]);
            let kept = compress(value.clone()).await.unwrap();
            assert!(kept.len() < size.max(20), "{} for {size}", kept.len());
            assert_eq!(expand(kept).await.unwrap(), Some(value));
        }
    }

    #[tokio::test]
    async fn foreign_values_are_absent() {
        let mut huge = compressed(&[1; 100]);
        huge.truncate(10);
        for kept in [vec![], vec![ZSTD], b"plain text".to_vec(), vec![2, 3], huge] {
            assert_eq!(expand(kept).await.unwrap(), None);
        }
    }
}
