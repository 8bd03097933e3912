//! Lesions laid into the image's frame.

use hiresmed_imaging::{Mask, Plane, morphology::Bounds};

/// How far blending changes pixels beyond a lesion's mask, in pixels (8-neighbours).
pub(crate) const MARGIN: usize = 2;
/// How far blending reads beyond a lesion's mask: the margin, and half the widest window around a pixel of it.
const REACH: usize = MARGIN + crate::blend::WIDEST_WINDOW / 2;

/// A sampled lesion at its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch {
    /// The lesion with its surroundings, normalised to [-1, 1], of the mask's size.
    pub image: Plane,
    /// Which of its pixels are lesion: the annotation, and the region that is blended.
    pub mask: Mask,
    /// Row of the patch's first pixel in the image; negative where the surroundings reach over the border.
    pub top: i64,
    /// Column of the patch's first pixel in the image.
    pub left: i64,
}

/// Why lesions cannot be laid into an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A patch's image and mask differ in size.
    #[error("lesion {lesion}: its image is {image:?} pixels and its mask {mask:?} (width, height); they must be equal")]
    Size {
        /// Which patch, from 1.
        lesion: usize,
        /// Width and height of the image.
        image: (usize, usize),
        /// Width and height of the mask.
        mask: (usize, usize),
    },
    /// A pixel of a lesion's mask lies outside the image.
    #[error("lesion {lesion}: its mask reaches to column {x}, row {y}, outside the image of {width} x {height}")]
    Outside {
        /// Which patch, from 1.
        lesion: usize,
        /// Column.
        x: i64,
        /// Row.
        y: i64,
        /// Width of the image.
        width: usize,
        /// Height of the image.
        height: usize,
    },
    /// Two lesions' masks overlap or touch.
    #[error(
        "lesions {first} and {second} overlap or touch at column {x}, row {y}; they must be apart to be told apart"
    )]
    Touching {
        /// The earlier patch, from 1.
        first: usize,
        /// The later patch, from 1.
        second: usize,
        /// Column.
        x: usize,
        /// Row.
        y: usize,
    },
}

/// All lesions of an image in its frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Lesion intensities, normalised to [-1, 1], known in the mask and two pixels around it; 0 elsewhere.
    pub lesion: Plane,
    /// Union of the lesions' masks; an 8-connected component each, where their masks were connected.
    pub mask: Mask,
    /// Disjoint boxes that hold all that blending reads and changes.
    pub(crate) windows: Vec<Bounds>,
}

impl Layer {
    /// Lays `patches` into a frame of `width` by `height`.
    ///
    /// Where a patch ends less than two pixels from its mask, its edge is repeated: blending reads that far. Errors when a
    /// mask leaves the frame, when two masks overlap or touch, and when a patch's image and mask differ in size.
    pub fn new(width: usize, height: usize, patches: &[Patch]) -> Result<Self, Error> {
        let mut lesion = Plane::filled(width, height, 0.0);
        let mut owner = vec![0usize; width * height];
        for (index, patch) in patches.iter().enumerate() {
            claim(patch, index + 1, (width, height), &mut owner)?;
        }
        for (index, patch) in patches.iter().enumerate() {
            fill(patch, index + 1, &mut lesion, &owner);
        }
        let windows = disjoint(patches.iter().filter_map(|patch| window(patch, width, height)).collect());
        // Only where lesions are: the rest of these maps is never touched.
        let mut mask = Mask::empty(width, height);
        for Bounds { left, top, width: across, height: down } in &windows {
            for y in *top..top + down {
                for x in *left..left + across {
                    mask.set(x, y, owner[y * width + x] != 0);
                }
            }
        }
        Ok(Self { lesion, mask, windows })
    }
}

/// A layer over a mask that no patches were laid into: one window over everything.
#[cfg(test)]
impl Layer {
    pub(crate) fn over(lesion: Plane, mask: Mask) -> Self {
        let windows = vec![Bounds { left: 0, top: 0, width: mask.width(), height: mask.height() }];
        Self { lesion, mask, windows }
    }
}

/// The box of a patch's mask in the frame, grown by all that blending reads and cut off at the frame's border; none for an
/// empty mask. The mask lies inside the frame.
fn window(patch: &Patch, width: usize, height: usize) -> Option<Bounds> {
    let bounds = patch.mask.bounds()?;
    let extent = |start: i64, length: usize, size: usize| {
        let (first, reach) = (start, REACH as i64);
        let from = (first - reach).clamp(0, size as i64) as usize;
        let to = (first + length as i64 + reach).clamp(0, size as i64) as usize;
        (from, to - from)
    };
    let (left, across) = extent(patch.left + bounds.left as i64, bounds.width, width);
    let (top, down) = extent(patch.top + bounds.top as i64, bounds.height, height);
    Some(Bounds { left, top, width: across, height: down })
}

/// Boxes that meet become one, until none do: a pixel is blended once, with all that is near it.
fn disjoint(mut boxes: Vec<Bounds>) -> Vec<Bounds> {
    let meet = |a: &Bounds, b: &Bounds| {
        a.left < b.left + b.width && b.left < a.left + a.width && a.top < b.top + b.height && b.top < a.top + a.height
    };
    let mut apart: Vec<Bounds> = Vec::new();
    while let Some(next) = boxes.pop() {
        match apart.iter().position(|other| meet(other, &next)) {
            Some(at) => boxes.push(around(apart.swap_remove(at), next)),
            None => apart.push(next),
        }
    }
    apart
}

fn around(a: Bounds, b: Bounds) -> Bounds {
    let (left, top) = (a.left.min(b.left), a.top.min(b.top));
    let (right, bottom) = ((a.left + a.width).max(b.left + b.width), (a.top + a.height).max(b.top + b.height));
    Bounds { left, top, width: right - left, height: bottom - top }
}

/// Enters the patch's mask into `owner` and checks that it is inside and apart from earlier ones.
fn claim(patch: &Patch, lesion: usize, (width, height): (usize, usize), owner: &mut [usize]) -> Result<(), Error> {
    let image = (patch.image.width(), patch.image.height());
    let mask = (patch.mask.width(), patch.mask.height());
    if image != mask {
        return Err(Error::Size { lesion, image, mask });
    }
    for (x, y) in mask_pixels(patch) {
        let inside = |value: i64, size: usize| usize::try_from(value).ok().filter(|&value| value < size);
        let (Some(column), Some(row)) = (inside(x, width), inside(y, height)) else {
            return Err(Error::Outside { lesion, x, y, width, height });
        };
        let columns = column.saturating_sub(1)..=(column + 1).min(width - 1);
        for near_y in row.saturating_sub(1)..=(row + 1).min(height - 1) {
            for near_x in columns.clone() {
                let first = owner[near_y * width + near_x];
                if first != 0 && first != lesion {
                    return Err(Error::Touching { first, second: lesion, x: near_x, y: near_y });
                }
            }
        }
        owner[row * width + column] = lesion;
    }
    Ok(())
}

/// Writes the patch's intensities to its mask and the margin around, sparing other lesions' masks.
fn fill(patch: &Patch, lesion: usize, plane: &mut Plane, owner: &[usize]) {
    let (width, height) = (plane.width() as i64, plane.height() as i64);
    let margin = MARGIN as i64;
    let near = patch_neighbourhood(&patch.mask);
    for y in -margin..patch.mask.height() as i64 + margin {
        for x in -margin..patch.mask.width() as i64 + margin {
            let (column, row) = (patch.left + x, patch.top + y);
            let inside = (0..width).contains(&column) && (0..height).contains(&row);
            if !inside || !near.get((x + margin) as usize, (y + margin) as usize) {
                continue;
            }
            let owned_by = owner[(row * width + column) as usize];
            if owned_by == 0 || owned_by == lesion {
                let source_x = x.clamp(0, patch.image.width() as i64 - 1) as usize;
                let source_y = y.clamp(0, patch.image.height() as i64 - 1) as usize;
                plane.set(column as usize, row as usize, patch.image.at(source_x, source_y));
            }
        }
    }
}

/// The mask grown by the margin, in a frame that is larger by the margin on every side.
fn patch_neighbourhood(mask: &Mask) -> Mask {
    let (width, height) = (mask.width() + 2 * MARGIN, mask.height() + 2 * MARGIN);
    let framed = Mask::from_fn(width, height, |x, y| {
        let (x, y) = (x.wrapping_sub(MARGIN), y.wrapping_sub(MARGIN));
        x < mask.width() && y < mask.height() && mask.get(x, y)
    });
    framed.dilated(MARGIN)
}

fn mask_pixels(patch: &Patch) -> impl Iterator<Item = (i64, i64)> {
    let width = patch.mask.width().max(1);
    let set = patch.mask.data().iter().enumerate().filter(|(_, value)| **value != 0);
    set.map(move |(at, _)| (patch.left + (at % width) as i64, patch.top + (at / width) as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(value: f32, top: i64, left: i64) -> Patch {
        // Lesion in the middle of 4 x 3, two pixels wide.
        let mask = Mask::from_fn(4, 3, |x, y| y == 1 && (x == 1 || x == 2));
        Patch { image: Plane::filled(4, 3, value), mask, top, left }
    }

    #[test]
    fn lesions_lie_where_they_were_put_with_their_margins() {
        let layer = Layer::new(20, 10, &[patch(0.5, 3, 4), patch(-0.5, 3, 12)]).unwrap();
        assert_eq!(layer.mask.area(), 4);
        assert!(layer.mask.get(5, 4) && layer.mask.get(6, 4) && layer.mask.get(13, 4));
        assert_eq!(layer.lesion.at(5, 4), 0.5);
        assert_eq!(layer.lesion.at(5, 2), 0.5, "two pixels above the mask, beyond the patch: its edge repeated");
        assert_eq!(layer.lesion.at(5, 1), 0.0);
        assert_eq!(layer.lesion.at(13, 6), -0.5);
    }

    #[test]
    fn surroundings_may_leave_the_image_and_masks_may_not() {
        assert!(Layer::new(20, 10, &[patch(0.5, -1, -1)]).is_ok());
        let error = Layer::new(20, 10, &[patch(0.5, -1, -2)]).unwrap_err();
        assert_eq!(error, Error::Outside { lesion: 1, x: -1, y: 0, width: 20, height: 10 });
        assert!(Layer::new(20, 10, &[patch(0.5, 8, 17)]).is_ok());
        assert!(matches!(Layer::new(20, 10, &[patch(0.5, 8, 18)]), Err(Error::Outside { x: 20, .. })));
    }

    #[test]
    fn windows_that_meet_become_one() {
        let layer = |left: i64| Layer::new(100, 40, &[patch(0.5, 20, 4), patch(0.5, 20, left)]).unwrap();
        // The mask is at columns 5 and 6 of row 21: six pixels around it, cut off at the left border.
        let first = Bounds { left: 0, top: 15, width: 13, height: 13 };
        let mut apart = layer(60).windows;
        apart.sort_by_key(|window| window.left);
        assert_eq!(apart, [first, Bounds { left: 55, top: 15, width: 14, height: 13 }]);
        assert_eq!(layer(16).windows, [Bounds { left: 0, top: 15, width: 25, height: 13 }]);
    }

    #[test]
    fn touching_masks_and_unequal_sizes_are_refused() {
        let error = Layer::new(20, 10, &[patch(0.5, 3, 4), patch(0.5, 4, 6)]).unwrap_err();
        assert!(matches!(error, Error::Touching { first: 1, second: 2, .. }), "{error}");
        let mut wrong = patch(0.5, 3, 4);
        wrong.image = Plane::filled(3, 3, 0.0);
        assert!(matches!(Layer::new(20, 10, &[wrong]), Err(Error::Size { lesion: 1, .. })));
    }
}
