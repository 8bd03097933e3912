//! Contact sheets: many planes in one picture, with mask outlines, for people to look at.

use crate::raster::{rgb_png, to_8_bit};
use crate::resample::{Filter, resize, resize_mask};
use crate::{Mask, Plane};

/// Colour of mask outlines unless a tile says otherwise.
pub const OUTLINE: [u8; 3] = [255, 64, 64];

/// One picture of a sheet.
#[derive(Debug, Clone, Copy)]
pub struct Tile<'a> {
    /// The image.
    pub plane: &'a Plane,
    /// Value shown black.
    pub low: f32,
    /// Value shown white.
    pub high: f32,
    /// A mask of the plane's size whose outline is drawn around it, just outside, so that nothing in it is hidden.
    pub mask: Option<&'a Mask>,
    /// The outline's colour.
    pub outline: [u8; 3],
}

impl<'a> Tile<'a> {
    /// A plane that is normalised to [-1, 1].
    pub fn normalised(plane: &'a Plane, mask: Option<&'a Mask>) -> Self {
        Self { plane, low: -1.0, high: 1.0, mask, outline: OUTLINE }
    }
}

/// A PNG of all tiles, row by row, `columns` to a row, each fitted into a square of `side` pixels (aspect kept, centred on
/// black) with a gap of 2 pixels. Sides and columns of 0 become 1.
pub fn contact_sheet(tiles: &[Tile<'_>], columns: usize, side: usize) -> Vec<u8> {
    const GAP: usize = 2;
    let (columns, side) = (columns.max(1).min(tiles.len().max(1)), side.max(1));
    let rows = tiles.len().div_ceil(columns).max(1);
    let (width, height) = (columns * (side + GAP) - GAP, rows * (side + GAP) - GAP);
    let mut rgb = vec![0u8; width * height * 3];
    for (index, tile) in tiles.iter().enumerate() {
        let (left, top) = (index % columns * (side + GAP), index / columns * (side + GAP));
        draw(tile, side, |x, y, colour| {
            let at = ((top + y) * width + left + x) * 3;
            rgb[at..at + 3].copy_from_slice(&colour);
        });
    }
    rgb_png(width, height, &rgb)
}

fn draw(tile: &Tile<'_>, side: usize, mut paint: impl FnMut(usize, usize, [u8; 3])) {
    let (plane_width, plane_height) = (tile.plane.width().max(1), tile.plane.height().max(1));
    let longest = plane_width.max(plane_height);
    let (width, height) = ((plane_width * side / longest).max(1), (plane_height * side / longest).max(1));
    let filter = if longest > side { Filter::Area } else { Filter::Bicubic };
    let grey = to_8_bit(&resize(tile.plane, width, height, filter), tile.low, tile.high);
    let outline = tile.mask.map(|mask| {
        let mask = resize_mask(mask, width, height);
        mask.dilated(1).without(&mask)
    });
    let (left, top) = ((side - width) / 2, (side - height) / 2);
    for y in 0..height {
        for x in 0..width {
            let outlined = outline.as_ref().is_some_and(|outline| outline.get(x, y));
            let value = grey[y * width + x];
            paint(left + x, top + y, if outlined { tile.outline } else { [value; 3] });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixels(png: &[u8]) -> image::RgbImage {
        image::load_from_memory(png).unwrap().to_rgb8()
    }

    #[test]
    fn tiles_are_laid_out_windowed_and_outlined() {
        let (black, white) = (Plane::filled(20, 10, -1.0), Plane::filled(20, 20, 1.0));
        let mask = Mask::from_fn(20, 20, |x, y| (8..12).contains(&x) && (8..12).contains(&y));
        let tiles =
            [Tile::normalised(&black, None), Tile::normalised(&white, Some(&mask)), Tile::normalised(&white, None)];
        let sheet = pixels(&contact_sheet(&tiles, 2, 20));
        assert_eq!(sheet.dimensions(), (42, 42));
        assert_eq!(sheet.get_pixel(10, 10).0, [0, 0, 0]);
        assert_eq!(sheet.get_pixel(22 + 10, 10).0, [255, 255, 255]);
        assert_eq!(sheet.get_pixel(22 + 7, 10).0, OUTLINE);
        assert_eq!(sheet.get_pixel(5, 22 + 5).0, [255, 255, 255]);
        assert_eq!(sheet.get_pixel(30, 30).0, [0, 0, 0]);
    }

    #[test]
    fn empty_sheets_and_odd_sizes_are_pictures_too() {
        assert_eq!(pixels(&contact_sheet(&[], 4, 8)).dimensions(), (8, 8));
        let plane = Plane::filled(1, 300, 0.0);
        assert_eq!(pixels(&contact_sheet(&[Tile::normalised(&plane, None)], 0, 0)).dimensions(), (1, 1));
    }
}
