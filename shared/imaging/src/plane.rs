//! Grey images and masks, row-major, origin at the top left pixel's centre.

use crate::morphology::Bounds;

/// Distance between pixel centres in millimetres (DICOM Pixel Spacing, PS3.3 10.7.1.3: rows first).
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Spacing {
    /// Between the centres of two rows (vertical), mm.
    pub row_mm: f64,
    /// Between the centres of two columns (horizontal), mm.
    pub column_mm: f64,
}

impl Spacing {
    /// The same spacing along both axes.
    pub const fn square(mm: f64) -> Self {
        Self { row_mm: mm, column_mm: mm }
    }
}

/// One grey image, `f32`, shape `[height, width]`, in real-world units (Hounsfield units for CT) unless a function says
/// that it is normalised to [-1, 1] over a [`Window`](crate::Window).
#[derive(Debug, Clone, PartialEq)]
pub struct Plane {
    width: usize,
    height: usize,
    data: Vec<f32>,
    /// Physical distance between pixels, where it is known.
    pub spacing: Option<Spacing>,
}

impl Plane {
    /// A plane over `data`, row-major.
    ///
    /// # Panics
    /// When `data.len() != width * height`: the caller made both.
    pub fn new(width: usize, height: usize, data: Vec<f32>) -> Self {
        assert_eq!(data.len(), width * height, "a plane's data is width x height");
        Self { width, height, data, spacing: None }
    }

    /// A plane with every pixel at `value`.
    pub fn filled(width: usize, height: usize, value: f32) -> Self {
        Self::new(width, height, vec![value; width * height])
    }

    /// The same plane with its spacing declared.
    pub fn with_spacing(mut self, spacing: Option<Spacing>) -> Self {
        self.spacing = spacing;
        self
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// All pixels, row-major.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// All pixels, row-major, to be changed.
    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// The pixels themselves.
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }

    /// Pixel at column `x`, row `y`.
    ///
    /// # Panics
    /// Outside the plane, as slices do.
    pub fn at(&self, x: usize, y: usize) -> f32 {
        debug_assert!(x < self.width);
        self.data[y * self.width + x]
    }

    /// Sets the pixel at column `x`, row `y`.
    pub fn set(&mut self, x: usize, y: usize, value: f32) {
        debug_assert!(x < self.width);
        self.data[y * self.width + x] = value;
    }

    /// Whether every pixel is a finite number. All are looked at, as a loop that may end early takes longer than one that may not.
    pub fn is_finite(&self) -> bool {
        self.data.iter().fold(true, |finite, value| finite & value.is_finite())
    }

    /// The pixels in `bounds`, which lies within the plane; the spacing is kept.
    ///
    /// # Panics
    /// Where it does not, as slices do.
    pub fn cropped(&self, bounds: &Bounds) -> Self {
        let data = rows(&self.data, self.width, bounds).flatten().copied().collect();
        Self::new(bounds.width, bounds.height, data).with_spacing(self.spacing)
    }

    /// Replaces the pixels from column `left` and row `top` on by those of `part`, which must fit.
    ///
    /// # Panics
    /// Where it does not, as slices do.
    pub fn paste(&mut self, part: &Plane, left: usize, top: usize) {
        for y in 0..part.height {
            let start = (top + y) * self.width + left;
            self.data[start..start + part.width].copy_from_slice(&part.data[y * part.width..(y + 1) * part.width]);
        }
    }
}

/// The part of each row of a row-major image that lies in `bounds`.
fn rows<'a, T>(data: &'a [T], width: usize, bounds: &Bounds) -> impl Iterator<Item = &'a [T]> {
    let Bounds { left, top, width: across, height } = *bounds;
    (top..top + height).map(move |y| &data[y * width + left..y * width + left + across])
}

/// A binary image, one byte a pixel, 0 or 1, shape `[height, width]`, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    width: usize,
    height: usize,
    data: Vec<u8>,
}

impl Mask {
    /// A mask over `data`; every non-zero byte becomes 1.
    ///
    /// # Panics
    /// When `data.len() != width * height`.
    pub fn new(width: usize, height: usize, mut data: Vec<u8>) -> Self {
        assert_eq!(data.len(), width * height, "a mask's data is width x height");
        data.iter_mut().for_each(|value| *value = u8::from(*value != 0));
        Self { width, height, data }
    }

    /// A mask with no pixel set.
    pub fn empty(width: usize, height: usize) -> Self {
        Self { width, height, data: vec![0; width * height] }
    }

    /// The mask of the pixels for which `test(x, y)` holds.
    pub fn from_fn(width: usize, height: usize, mut test: impl FnMut(usize, usize) -> bool) -> Self {
        let mut mask = Self::empty(width, height);
        for y in 0..height {
            for x in 0..width {
                mask.data[y * width + x] = u8::from(test(x, y));
            }
        }
        mask
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// All pixels, 0 or 1, row-major.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Whether the pixel at column `x`, row `y` is set.
    pub fn get(&self, x: usize, y: usize) -> bool {
        debug_assert!(x < self.width);
        self.data[y * self.width + x] != 0
    }

    /// Sets or clears the pixel at column `x`, row `y`.
    pub fn set(&mut self, x: usize, y: usize, value: bool) {
        debug_assert!(x < self.width);
        self.data[y * self.width + x] = u8::from(value);
    }

    /// The pixels in `bounds`, which lies within the mask.
    ///
    /// # Panics
    /// Where it does not, as slices do.
    pub fn cropped(&self, bounds: &Bounds) -> Self {
        let data = rows(&self.data, self.width, bounds).flatten().copied().collect();
        Self { width: bounds.width, height: bounds.height, data }
    }

    /// Sets the pixels that are set in `part`, which must fit, from column `left` and row `top` on.
    ///
    /// # Panics
    /// Where it does not, as slices do.
    pub fn paste(&mut self, part: &Mask, left: usize, top: usize) {
        for y in 0..part.height {
            let start = (top + y) * self.width + left;
            let (row, part) =
                (&mut self.data[start..start + part.width], &part.data[y * part.width..(y + 1) * part.width]);
            row.iter_mut().zip(part).for_each(|(value, part)| *value |= part);
        }
    }

    /// Number of pixels that are set.
    pub fn area(&self) -> usize {
        self.data.iter().map(|&value| usize::from(value)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_cropped_and_pasted_back() {
        let plane = Plane::new(5, 4, (0..20).map(|value| value as f32).collect());
        let bounds = Bounds { left: 1, top: 2, width: 3, height: 2 };
        let part = plane.cropped(&bounds);
        assert_eq!(part.data(), [11.0, 12.0, 13.0, 16.0, 17.0, 18.0]);
        let mut copy = Plane::filled(5, 4, -1.0);
        copy.paste(&part, 1, 2);
        assert_eq!((copy.at(1, 2), copy.at(3, 3), copy.at(0, 2), copy.at(4, 3)), (11.0, 18.0, -1.0, -1.0));
        let mask = Mask::from_fn(5, 4, |x, y| x == 3 && y == 2);
        assert_eq!(mask.cropped(&bounds).data(), [0, 0, 1, 0, 0, 0]);
        let mut other = Mask::from_fn(5, 4, |x, y| (x, y) == (1, 2));
        other.paste(&mask.cropped(&bounds), 1, 2);
        assert_eq!(other, Mask::from_fn(5, 4, |x, y| y == 2 && (x == 1 || x == 3)));
    }
}
