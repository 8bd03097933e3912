//! Sizes and places of masks, in pixels.

use crate::{Mask, Spacing};

/// An axis-aligned box in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Bounds {
    /// First column.
    pub left: usize,
    /// First row.
    pub top: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Mask {
    /// The smallest box around all set pixels.
    pub fn bounds(&self) -> Option<Bounds> {
        let (mut left, mut right, mut top, mut bottom) = (usize::MAX, 0, usize::MAX, 0);
        for (y, row) in self.data().chunks_exact(self.width().max(1)).enumerate() {
            let set = |&value: &u8| value != 0;
            if let (Some(first), Some(last)) = (row.iter().position(set), row.iter().rposition(set)) {
                (left, right, top, bottom) = (left.min(first), right.max(last), top.min(y), y);
            }
        }
        (left != usize::MAX).then(|| Bounds { left, top, width: right - left + 1, height: bottom - top + 1 })
    }

    /// Mean column and row of the set pixels.
    pub fn centroid(&self) -> Option<(f64, f64)> {
        let area = self.area();
        let (mut x, mut y) = (0u64, 0u64);
        for (row, pixels) in self.data().chunks_exact(self.width().max(1)).enumerate() {
            for (column, _) in pixels.iter().enumerate().filter(|(_, value)| **value != 0) {
                x += column as u64;
                y += row as u64;
            }
        }
        (area > 0).then(|| (x as f64 / area as f64, y as f64 / area as f64))
    }

    /// The longest diameter in pixels: the largest distance between two set pixels' centres, plus 1 for the half pixels
    /// at both ends; 0 for an empty mask.
    pub fn longest_diameter(&self) -> f64 {
        let hull = self.hull();
        let mut longest: Option<f64> = None;
        for (index, a) in hull.iter().enumerate() {
            for b in &hull[index..] {
                let squared = ((a.0 - b.0).pow(2) + (a.1 - b.1).pow(2)) as f64;
                longest = Some(longest.map_or(squared, |longest| longest.max(squared)));
            }
        }
        longest.map_or(0.0, |squared| squared.sqrt() + 1.0)
    }

    /// The longest diameter in millimetres where pixel centres lie `spacing` apart: as [`longest_diameter`](Self::longest_diameter), also
    /// where rows and columns lie differently far apart. The pixel that is added for the half pixels at both ends is as long as it is
    /// along that diameter.
    pub fn longest_diameter_mm(&self, spacing: Spacing) -> f64 {
        if spacing.row_mm == spacing.column_mm {
            return self.longest_diameter() * spacing.row_mm;
        }
        let hull = self.hull();
        let mut longest = 0f64;
        for (index, a) in hull.iter().enumerate() {
            for b in &hull[index..] {
                let (rows, columns) = ((a.0 - b.0) as f64, (a.1 - b.1) as f64);
                let length_mm = (rows * spacing.row_mm).hypot(columns * spacing.column_mm);
                let length_px = rows.hypot(columns);
                let pixel_mm =
                    if length_px > 0.0 { length_mm / length_px } else { spacing.row_mm.max(spacing.column_mm) };
                longest = longest.max(length_mm + pixel_mm);
            }
        }
        longest
    }

    /// Diameter in pixels of the disc of the same area.
    pub fn equivalent_diameter(&self) -> f64 {
        2.0 * (self.area() as f64 / std::f64::consts::PI).sqrt()
    }

    /// Corners of the convex hull of the set pixels' centres (Andrew's monotone chain).
    fn hull(&self) -> Vec<(i64, i64)> {
        let mut points = Vec::new();
        for y in 0..self.height() {
            let row = &self.data()[y * self.width()..(y + 1) * self.width()];
            if let (Some(first), Some(last)) = (row.iter().position(|&v| v != 0), row.iter().rposition(|&v| v != 0)) {
                points.push((y as i64, first as i64));
                points.push((y as i64, last as i64));
            }
        }
        points.dedup();
        let half = |points: &mut dyn Iterator<Item = &(i64, i64)>| {
            let mut chain: Vec<(i64, i64)> = Vec::new();
            for &point in points {
                while let [.., a, b] = chain[..] {
                    let cross = (b.0 - a.0) * (point.1 - a.1) - (b.1 - a.1) * (point.0 - a.0);
                    if cross > 0 {
                        break;
                    }
                    chain.pop();
                }
                chain.push(point);
            }
            chain
        };
        let mut hull = half(&mut points.iter());
        hull.extend(half(&mut points.iter().rev()));
        hull
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A mask from a drawing: `#` is set.
    fn drawn(rows: &[&str]) -> Mask {
        Mask::from_fn(rows[0].len(), rows.len(), |x, y| rows[y].as_bytes()[x] == b'#')
    }

    #[test]
    fn measures_of_known_shapes() {
        let line = drawn(&[".......", ".#####.", "......."]);
        assert_eq!(line.longest_diameter(), 5.0);
        assert_eq!(line.bounds(), Some(Bounds { left: 1, top: 1, width: 5, height: 1 }));
        assert_eq!(line.centroid(), Some((3.0, 1.0)));
        assert_eq!(drawn(&["#"]).longest_diameter(), 1.0);
        assert_eq!(Mask::empty(4, 4).longest_diameter(), 0.0);
        assert_eq!(Mask::empty(4, 4).bounds(), None);
        let disc = Mask::from_fn(41, 41, |x, y| (x as f64 - 20.0).hypot(y as f64 - 20.0) <= 10.0);
        assert!((disc.longest_diameter() - 21.0).abs() < 0.5);
        assert!((disc.equivalent_diameter() - 20.0).abs() < 0.5);
    }

    #[test]
    fn a_diameter_in_millimetres_is_that_of_the_pixels_where_they_are_square_and_right_where_not() {
        let disc = Mask::from_fn(41, 41, |x, y| (x as f64 - 20.0).hypot(y as f64 - 20.0) <= 10.0);
        let square = Spacing::square(0.7);
        assert_eq!(disc.longest_diameter_mm(square), disc.longest_diameter() * 0.7);
        // A disc of 20 mm over pixels of 2 x 0.5 mm.
        let flat = Mask::from_fn(60, 20, |x, y| ((x as f64 - 30.0) * 0.5).hypot((y as f64 - 10.0) * 2.0) <= 10.0);
        let found = flat.longest_diameter_mm(Spacing { row_mm: 2.0, column_mm: 0.5 });
        assert!((20.0..22.5).contains(&found), "{found}");
        let line = drawn(&["#####"]);
        assert_eq!(line.longest_diameter_mm(Spacing { row_mm: 2.0, column_mm: 0.5 }), 2.5);
        assert_eq!(drawn(&["#"]).longest_diameter_mm(Spacing { row_mm: 2.0, column_mm: 0.5 }), 2.0);
        assert_eq!(Mask::empty(4, 4).longest_diameter_mm(Spacing { row_mm: 2.0, column_mm: 0.5 }), 0.0);
    }

    fn any_mask() -> impl Strategy<Value = Mask> {
        (1usize..24, 1usize..24).prop_flat_map(|(width, height)| {
            proptest::collection::vec(0u8..2, width * height).prop_map(move |data| Mask::new(width, height, data))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn longest_diameter_is_the_largest_pairwise_distance(mask in any_mask()) {
            let points: Vec<(i64, i64)> = (0..mask.data().len()).filter(|&at| mask.data()[at] != 0)
                .map(|at| ((at % mask.width()) as i64, (at / mask.width()) as i64)).collect();
            let longest = points.iter().flat_map(|a| points.iter().map(move |b| (a.0 - b.0).pow(2) + (a.1 - b.1).pow(2)))
                .max().map_or(0.0, |squared| (squared as f64).sqrt() + 1.0);
            prop_assert!((mask.longest_diameter() - longest).abs() < 1e-9);
        }
    }
}
