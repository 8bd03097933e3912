//! Reader contours to masks, and several readers' masks to one.

use crate::Mask;

/// Corners in pixel coordinates, `(column, row)`, pixel centres at integers; closed from the last to the first.
pub type Polygon = Vec<(f64, f64)>;

/// The mask of `polygon`: every pixel whose centre lies inside (even-odd rule), and every pixel that an edge passes
/// through. Parts outside the image are cut off.
pub fn fill(width: usize, height: usize, polygon: &[(f64, f64)]) -> Mask {
    let mut mask = Mask::empty(width, height);
    if polygon.iter().any(|(x, y)| !x.is_finite() || !y.is_finite()) {
        return mask;
    }
    let edges = || polygon.iter().zip(polygon.iter().cycle().skip(1));
    for row in 0..height {
        let y = row as f64;
        let mut crossings: Vec<f64> = edges()
            .filter(|(a, b)| (a.1 <= y) != (b.1 <= y))
            .map(|(a, b)| a.0 + (y - a.1) / (b.1 - a.1) * (b.0 - a.0))
            .collect();
        crossings.sort_by(f64::total_cmp);
        for pair in crossings.chunks_exact(2) {
            let first = pair[0].ceil().max(0.0) as usize;
            let last = pair[1].floor();
            for x in first..width {
                if x as f64 > last {
                    break;
                }
                mask.set(x, row, true);
            }
        }
    }
    edges().for_each(|(a, b)| draw(&mut mask, *a, *b));
    mask
}

/// Sets every pixel along an edge, stepping by at most one pixel.
fn draw(mask: &mut Mask, a: (f64, f64), b: (f64, f64)) {
    let steps = (b.0 - a.0).abs().max((b.1 - a.1).abs()).ceil().clamp(1.0, 1e5) as usize;
    for step in 0..=steps {
        let share = step as f64 / steps as f64;
        let (x, y) = ((a.0 + share * (b.0 - a.0)).round(), (a.1 + share * (b.1 - a.1)).round());
        if x >= 0.0 && y >= 0.0 && (x as usize) < mask.width() && (y as usize) < mask.height() {
            mask.set(x as usize, y as usize, true);
        }
    }
}

/// Pixels that at least `share` of the readers' masks set (0.5: half of them or more); `None` without readers or for
/// masks of different sizes.
pub fn consensus(readers: &[Mask], share: f64) -> Option<Mask> {
    let first = readers.first()?;
    if readers.iter().any(|mask| (mask.width(), mask.height()) != (first.width(), first.height())) {
        return None;
    }
    let needed = (share * readers.len() as f64).max(f64::MIN_POSITIVE);
    Some(Mask::from_fn(first.width(), first.height(), |x, y| {
        readers.iter().filter(|mask| mask.get(x, y)).count() as f64 >= needed
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_square_contains_its_boundary() {
        let mask = fill(10, 10, &[(2.0, 3.0), (6.0, 3.0), (6.0, 7.0), (2.0, 7.0)]);
        assert_eq!(mask, Mask::from_fn(10, 10, |x, y| (2..=6).contains(&x) && (3..=7).contains(&y)));
    }

    #[test]
    fn concave_shapes_keep_their_bay() {
        let mask = fill(12, 12, &[(1.0, 1.0), (10.0, 1.0), (10.0, 10.0), (6.0, 4.0), (1.0, 10.0)]);
        assert!(mask.get(3, 3) && mask.get(9, 5) && mask.get(6, 4));
        assert!(!mask.get(6, 8));
    }

    #[test]
    fn points_lines_and_polygons_outside_are_harmless() {
        assert_eq!(fill(5, 5, &[]).area(), 0);
        assert_eq!(fill(5, 5, &[(2.0, 2.0)]).area(), 1);
        assert_eq!(fill(5, 5, &[(0.0, 0.0), (4.0, 4.0)]).area(), 5);
        assert_eq!(fill(5, 5, &[(-5.0, -5.0), (20.0, -5.0), (20.0, 20.0), (-5.0, 20.0)]).area(), 25);
        assert_eq!(fill(5, 5, &[(f64::NAN, 1.0), (2.0, 2.0)]).area(), 0);
    }

    #[test]
    fn half_of_the_readers_decide() {
        let reader = |columns: usize| Mask::from_fn(4, 1, |x, _| x < columns);
        let readers = [reader(1), reader(2), reader(3), reader(4)];
        assert_eq!(consensus(&readers, 0.5).unwrap(), reader(3));
        assert_eq!(consensus(&readers[..3], 0.5).unwrap(), reader(2));
        assert!(consensus(&[], 0.5).is_none());
        assert!(consensus(&[reader(1), Mask::empty(3, 3)], 0.5).is_none());
    }
}
