//! Large images in overlapping tiles, so that memory is a tile's and not the image's.
//!
//! Not the same as the whole image: normalisations and excitation average over what a graph is given, and a tile's averages are not the
//! image's. Tiles that overlap are blended, which hides edges and not what lies behind them; what it comes to is in MEASURED.md.

use hiresmed_imaging::Plane;

use super::autoencoder::{Autoencoder, Error, Tokens};

/// How an image is cut into tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiles {
    /// Side of a tile, pixels; images that fit one tile are not cut. Rounded down to the autoencoder's stride.
    pub side: usize,
    /// Pixels that two neighbours share at least, less than `side`. Rounded up to the stride.
    pub overlap: usize,
}

/// Where tiles lie along one axis.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Axis {
    starts: Vec<usize>,
    length: usize,
}

impl Axis {
    /// Tiles of `side` over `length` cells, two sharing `overlap` at least, spread evenly.
    fn new(length: usize, side: usize, overlap: usize) -> Self {
        if length <= side {
            return Self { starts: vec![0], length };
        }
        let count = (length - overlap).div_ceil(side - overlap);
        let starts = (0..count).map(|index| index * (length - side) / (count - 1)).collect();
        Self { starts, length: side }
    }

    /// The part of the axis that belongs to tile `index` where each cell belongs to one: up to the middle of what two share.
    fn own(&self, index: usize) -> std::ops::Range<usize> {
        let cut = |index: usize| (self.starts[index] + self.length + self.starts[index + 1]) / 2;
        let last = index + 1 == self.starts.len();
        let start = if index == 0 { 0 } else { cut(index - 1) };
        start..if last { self.starts[index] + self.length } else { cut(index) }
    }

    /// The weight of cell `at` of tile `index`, both times `scale` cells: rising and falling over what is shared with a neighbour.
    fn weight(&self, index: usize, at: usize, scale: usize) -> f32 {
        let shared = |left: usize| ((self.starts[left] + self.length - self.starts[left + 1]) * scale) as f32;
        let ramp = |distance: usize, shared: f32| ((distance as f32 + 0.5) / shared).min(1.0);
        let rise = if index == 0 { 1.0 } else { ramp(at, shared(index - 1)) };
        let last = index + 1 == self.starts.len();
        let fall = if last { 1.0 } else { ramp(self.length * scale - 1 - at, shared(index)) };
        rise * fall
    }
}

impl Tiles {
    /// In tokens of `stride` pixels.
    ///
    /// # Errors
    /// [`Error::Input`] for tiles that share all they have, or none of a token.
    fn in_tokens(self, stride: usize) -> Result<(usize, usize), Error> {
        let (side, overlap) = (self.side / stride, self.overlap.div_ceil(stride));
        if side > overlap {
            return Ok((side, overlap));
        }
        Err(Error::Input(format!(
            "tiles of {} pixels cannot overlap by {}: tokens are {stride} pixels wide, and a tile must be larger than what it shares",
            self.side, self.overlap
        )))
    }
}

impl Autoencoder {
    /// [`encode`](Self::encode) tile by tile: each token comes from the tile in which it lies farthest from an edge.
    ///
    /// # Errors
    /// As there, and [`Error::Input`] for impossible tiles.
    pub fn encode_tiled(&self, image: &Plane, tiles: Tiles) -> Result<Tokens, Error> {
        let stride = self.stride();
        let (side, overlap) = tiles.in_tokens(stride)?;
        let (columns, rows) = (image.width().div_ceil(stride), image.height().div_ceil(stride));
        let (across, down) = (Axis::new(columns, side, overlap), Axis::new(rows, side, overlap));
        let mut data = vec![0; columns * rows];
        for (j, &top) in down.starts.iter().enumerate() {
            for (i, &left) in across.starts.iter().enumerate() {
                let (x, y) = (left * stride, top * stride);
                let tile = part(
                    image,
                    (x, y),
                    (across.length * stride).min(image.width() - x),
                    (down.length * stride).min(image.height() - y),
                );
                let tokens = self.encode(std::slice::from_ref(&tile))?.remove(0);
                for row in down.own(j) {
                    let own = across.own(i);
                    let from = (row - top) * tokens.columns + own.start - left;
                    data[row * columns + own.start..row * columns + own.end]
                        .copy_from_slice(&tokens.data[from..from + own.len()]);
                }
            }
        }
        Ok(Tokens { columns, rows, data, width: image.width(), height: image.height() })
    }

    /// [`decode`](Self::decode) tile by tile; over what two tiles share the image goes over from one to the other.
    ///
    /// # Errors
    /// As there, and [`Error::Input`] for impossible tiles.
    pub fn decode_tiled(&self, tokens: &Tokens, tiles: Tiles) -> Result<Plane, Error> {
        let stride = self.stride();
        let (side, overlap) = tiles.in_tokens(stride)?;
        let Tokens { columns, rows, width, height, .. } = *tokens;
        if tokens.data.len() != columns * rows || width > columns * stride || height > rows * stride {
            return Err(Error::Input(format!("{} tokens do not make {width} x {height} pixels", tokens.data.len())));
        }
        let (across, down) = (Axis::new(columns, side, overlap), Axis::new(rows, side, overlap));
        let (mut sum, mut weights) = (vec![0f32; width * height], vec![0f32; width * height]);
        for (j, &top) in down.starts.iter().enumerate() {
            for (i, &left) in across.starts.iter().enumerate() {
                let rows_of =
                    (top..top + down.length).flat_map(|row| &tokens.data[row * columns + left..][..across.length]);
                let tile = Tokens {
                    columns: across.length,
                    rows: down.length,
                    data: rows_of.copied().collect(),
                    width: (across.length * stride).min(width - left * stride),
                    height: (down.length * stride).min(height - top * stride),
                };
                let image = self.decode(std::slice::from_ref(&tile))?.remove(0);
                let horizontal: Vec<f32> = (0..image.width()).map(|x| across.weight(i, x, stride)).collect();
                for y in 0..image.height() {
                    let vertical = down.weight(j, y, stride);
                    let start = (top * stride + y) * width + left * stride;
                    for (x, horizontal) in horizontal.iter().enumerate() {
                        sum[start + x] += horizontal * vertical * image.at(x, y);
                        weights[start + x] += horizontal * vertical;
                    }
                }
            }
        }
        let data = sum.into_iter().zip(weights).map(|(sum, weight)| sum / weight).collect();
        Ok(Plane::new(width, height, data))
    }

    /// [`reconstruct`](Self::reconstruct) tile by tile: an image of any size in the memory of a tile.
    ///
    /// # Errors
    /// As there, [`Error::Missing`] for a package of one graph, and [`Error::Input`] for impossible tiles.
    pub fn reconstruct_tiled(&self, image: &Plane, tiles: Tiles) -> Result<Plane, Error> {
        let plane = self.decode_tiled(&self.encode_tiled(image, tiles)?, tiles)?;
        Ok(plane.with_spacing(image.spacing))
    }
}

/// `width` x `height` pixels of `plane` from (x, y) on.
fn part(plane: &Plane, (x, y): (usize, usize), width: usize, height: usize) -> Plane {
    let rows = (y..y + height).flat_map(|row| &plane.data()[row * plane.width() + x..][..width]);
    Plane::new(width, height, rows.copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_an_axis_and_share_what_they_should() {
        for (length, side, overlap) in [(10, 16, 4), (100, 16, 4), (128, 64, 16), (65, 64, 1), (37, 12, 11)] {
            let axis = Axis::new(length, side, overlap);
            assert_eq!((axis.starts[0], axis.starts.last().unwrap() + axis.length), (0, length));
            for pair in axis.starts.windows(2) {
                assert!(pair[1] > pair[0] && pair[0] + axis.length >= pair[1] + overlap, "{axis:?}");
            }
            let own: Vec<usize> = (0..axis.starts.len()).flat_map(|index| axis.own(index)).collect();
            assert_eq!(own, (0..length).collect::<Vec<_>>());
        }
    }

    #[test]
    fn weights_go_over_from_one_tile_to_the_next() {
        let axis = Axis::new(28, 16, 4);
        assert_eq!(axis.starts, [0, 12]);
        let of_both = |at: usize| (axis.weight(0, at, 2), axis.weight(1, at - 24, 2));
        for at in 24..32 {
            let (left, right) = of_both(at);
            assert!((left + right - 1.0).abs() < 1e-6, "{left} {right}");
        }
        assert!(of_both(24).0 > 0.9 && of_both(31).1 > 0.9);
        assert_eq!((axis.weight(0, 0, 2), axis.weight(1, 31, 2)), (1.0, 1.0));
    }

    #[test]
    fn impossible_tiles_are_refused() {
        assert_eq!(Tiles { side: 70, overlap: 9 }.in_tokens(4).unwrap(), (17, 3));
        for tiles in [Tiles { side: 64, overlap: 64 }, Tiles { side: 3, overlap: 0 }] {
            assert!(tiles.in_tokens(4).unwrap_err().to_string().contains("cannot overlap"), "{tiles:?}");
        }
    }
}
