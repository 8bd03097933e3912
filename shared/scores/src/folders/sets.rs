//! Scores of whole sets.

use std::path::Path;

use super::Error;
use super::files::Image;
use crate::features::{Extractor, FeatureFile, Spool};
use crate::{Intensity, Moments, fid, kid};

/// Distances of two sets; `None` where a set is too small to have them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sets {
    /// Fréchet distance of the features.
    pub fid: Option<f64>,
    /// Kernel distance of the features.
    pub kid: Option<f64>,
    /// What keeps these numbers from being compared with others.
    pub warnings: Vec<String>,
}

/// Features of every image, one image in memory at a time; `None` for no images.
///
/// # Errors
/// An image cannot be decoded, the extractor fails, or the disk is full.
pub fn extract(
    set: &Path,
    images: &[Image],
    extractor: &Extractor,
    intensity: Intensity,
) -> Result<Option<FeatureFile>, Error> {
    let mut spool = Spool::new(set)?;
    for image in images {
        spool.push(&extractor.features(&image.read()?, intensity)?)?;
    }
    Ok(spool.finish()?)
}

/// Scores two sets by their features, read in blocks.
///
/// # Errors
/// Files that cannot be read, values that are not finite, sets of different dimensions.
pub fn score_sets(real: &mut FeatureFile, synthetic: &mut FeatureFile) -> Result<Sets, Error> {
    let kid = kid(real, synthetic)?;
    let (first, second) = (Moments::of(real)?, Moments::of(synthetic)?);
    let fid = fid(&first, &second)?;
    let mut warnings = Vec::new();
    for (features, moments) in [(&*real, &first), (&*synthetic, &second)] {
        let (path, count, dimension) = (features.path().display(), moments.count(), moments.dimension());
        if count < 2 {
            warnings.push(format!("{path}: {count} feature vectors; FID and KID are undefined under two"));
        } else if moments.is_rank_deficient() {
            warnings.push(format!(
                "{path}: {count} feature vectors of {dimension} dimensions; the covariance is rank-deficient (rank {} at \
                 most) and FID depends on the number of images: compare it only with sets as large, or use KID",
                count - 1
            ));
        }
    }
    Ok(Sets { fid, kid, warnings })
}
