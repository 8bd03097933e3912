//! The README's picture: some images of a demo, each as its background, its composite with the lesions outlined, and its largest
//! lesion enlarged.
//!
//! `cargo run --release -p hiresmed-imaging --example demo_picture -- DEMO OUT.png STEM...` with DEMO a folder that `hiresmed demo` wrote
//! and STEM names of its images, such as `image-00003`.

use hiresmed_imaging::sheet::{Tile, contact_sheet};
use hiresmed_imaging::{Mask, Plane, Window, files, raster, series};
use std::path::Path;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Side of a picture, px.
const TILE: usize = 300;
/// Side of what is enlarged, px of the image.
const ENLARGED: usize = 72;

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [demo, out, stems @ ..] = arguments.as_slice() else {
        return Err("usage: demo_picture DEMO OUT.png STEM...".into());
    };
    let demo = Path::new(demo);
    let (mut backgrounds, mut composites, mut lesions, mut masks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for stem in stems {
        backgrounds.push(image(&demo.join(format!("backgrounds/{stem}.dcm")))?);
        let composite = image(&demo.join(format!("images/{stem}.dcm")))?;
        let mask = raster::read_mask(demo.join(format!("masks/{stem}.png")))?;
        lesions.push(enlarged(&composite, &mask)?);
        composites.push(composite);
        masks.push(mask);
    }
    let tiles: Vec<Tile> = backgrounds
        .iter()
        .map(|plane| Tile::normalised(plane, None))
        .chain(composites.iter().zip(&masks).map(|(plane, mask)| Tile::normalised(plane, Some(mask))))
        .chain(lesions.iter().map(|plane| Tile::normalised(plane, None)))
        .collect();
    files::write_atomically(out, &contact_sheet(&tiles, stems.len(), TILE))?;
    Ok(())
}

fn image(path: &Path) -> Fallible<Plane> {
    let slice = series::read_file(path)?.into_iter().next().ok_or("a file without an image")?;
    Ok(slice.normalised(Window::LUNG_CT))
}

/// What surrounds the largest lesion.
fn enlarged(composite: &Plane, mask: &Mask) -> Fallible<Plane> {
    let bounds = mask.largest_component().bounds().ok_or("an image without a lesion")?;
    let start = |start: usize, length: usize, size: usize| {
        (start + length / 2).saturating_sub(ENLARGED / 2).min(size.saturating_sub(ENLARGED))
    };
    let left = start(bounds.left, bounds.width, composite.width());
    let top = start(bounds.top, bounds.height, composite.height());
    let pixels = (top..top + ENLARGED).flat_map(|y| (left..left + ENLARGED).map(move |x| (x, y)));
    Ok(Plane::new(ENLARGED, ENLARGED, pixels.map(|(x, y)| composite.at(x, y)).collect()))
}
