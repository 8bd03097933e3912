//! Labels of a whole delivery, made from its manifest and masks.

use std::path::Path;

use anyhow::{Result, bail};
use hiresmed_imaging::{labels::Coco, raster};
use hiresmed_protocol::Manifest;

/// `annotations.coco.json` of a delivery whose files lie in `folder`: an annotation for each component of each mask.
///
/// # Errors
/// A mask cannot be read, or does not have a component for each lesion of the manifest.
pub fn coco(manifest: &Manifest, folder: &Path) -> Result<Vec<u8>> {
    let mut set =
        Coco::new("Synthetic images with lesions, not of patients", &manifest.generator, &[("lesion", "finding")]);
    for image in &manifest.images {
        let [width, height] = manifest.dimensions(image).map(|side| side as usize);
        let id = set.add_image(&image.file, width, height);
        let Some(mask) = &image.mask else { continue };
        let path = folder.join(&mask.file);
        let components = raster::read_mask(&path)?.components();
        if components.len() != image.lesions.len() {
            bail!("{}: {} components for {} lesions", path.display(), components.len(), image.lesions.len());
        }
        for lesion in &image.lesions {
            // A lesion is the component that fills its box.
            let found = (0..components.len()).map(|index| components.mask(index)).find(|component| {
                component.bounds().is_some_and(|bounds| {
                    [bounds.left, bounds.top, bounds.width, bounds.height].map(|value| value as u32) == lesion.bbox
                })
            });
            match found {
                Some(component) => set.add_object(id, 1, &component),
                None => bail!("{}: no component has the box {:?} of the manifest", path.display(), lesion.bbox),
            };
        }
    }
    Ok(serde_json::to_vec(&set)?)
}
