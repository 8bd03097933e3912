//! JPEG-LS, lossless and near-lossless (ISO/IEC 14495-1).

use super::{Decoded, Layout};

pub(super) fn decode(_bytes: &[u8], _layout: &Layout) -> Result<Decoded, String> {
    Err("not yet supported".into())
}
