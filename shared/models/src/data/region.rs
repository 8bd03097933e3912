//! Boxes with real-valued edges.

use serde::{Deserialize, Serialize};

/// A box around a lesion, in pixels from the image's top left corner; a pixel's centre lies at + 0.5.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Region {
    /// First column.
    pub left: f32,
    /// First row.
    pub top: f32,
    /// Column behind the last.
    pub right: f32,
    /// Row below the last.
    pub bottom: f32,
}

impl Region {
    /// The box of this size about a centre.
    pub fn about((x, y): (f32, f32), width: f32, height: f32) -> Self {
        Self { left: x - width / 2.0, top: y - height / 2.0, right: x + width / 2.0, bottom: y + height / 2.0 }
    }

    /// Columns, never negative.
    pub fn width(&self) -> f32 {
        (self.right - self.left).max(0.0)
    }

    /// Rows, never negative.
    pub fn height(&self) -> f32 {
        (self.bottom - self.top).max(0.0)
    }

    /// Square pixels.
    pub fn area(&self) -> f32 {
        self.width() * self.height()
    }

    /// The middle, `(x, y)`.
    pub fn centre(&self) -> (f32, f32) {
        ((self.left + self.right) / 2.0, (self.top + self.bottom) / 2.0)
    }

    /// Whether a point lies inside.
    pub fn holds(&self, (x, y): (f32, f32)) -> bool {
        (self.left..self.right).contains(&x) && (self.top..self.bottom).contains(&y)
    }

    /// What both cover; empty where they do not meet.
    pub fn overlap(&self, other: &Self) -> Self {
        Self {
            left: self.left.max(other.left),
            top: self.top.max(other.top),
            right: self.right.min(other.right),
            bottom: self.bottom.min(other.bottom),
        }
    }

    /// Intersection over union, 0 where both are empty.
    pub fn iou(&self, other: &Self) -> f32 {
        let both = self.overlap(other).area();
        let either = self.area() + other.area() - both;
        if either > 0.0 { both / either } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_by_hand() {
        let a = Region { left: 0.0, top: 0.0, right: 4.0, bottom: 2.0 };
        let b = Region { left: 2.0, top: 0.0, right: 6.0, bottom: 2.0 };
        assert!((a.iou(&b) - 4.0 / 12.0).abs() < 1e-6);
        assert_eq!(a.iou(&Region { left: 5.0, right: 9.0, ..a }), 0.0);
        assert_eq!(Region::about((2.0, 1.0), 4.0, 2.0), a);
        let empty = Region::about((1.0, 1.0), 0.0, 0.0);
        assert_eq!(empty.iou(&empty), 0.0);
        assert!(a.holds((0.0, 1.9)) && !a.holds((4.0, 1.0)));
    }
}
