//! Operations on masks: neighbours are the 8 around a pixel, the world outside the image is not set.

pub use crate::measures::Bounds;
use crate::{
    Mask, Plane,
    regions::{Regions, runs},
};

/// The 8-connected components of a mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Components {
    width: usize,
    height: usize,
    /// Component number + 1 of each pixel, 0 for background.
    labels: Vec<u32>,
    areas: Vec<usize>,
}

impl Components {
    /// Pixels of each component, in the order of their first pixel (row by row).
    pub fn areas(&self) -> &[usize] {
        &self.areas
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.areas.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.areas.is_empty()
    }

    /// The component at pixel `x`, `y`.
    pub fn at(&self, x: usize, y: usize) -> Option<usize> {
        (self.labels[y * self.width + x] as usize).checked_sub(1)
    }

    /// Component `index` alone; empty when there is no such component.
    pub fn mask(&self, index: usize) -> Mask {
        self.select(|component| component == index)
    }

    /// All components for which `keep` holds.
    pub fn select(&self, mut keep: impl FnMut(usize) -> bool) -> Mask {
        let kept: Vec<bool> = (0..self.len()).map(&mut keep).collect();
        let set = |&label: &u32| u8::from(label > 0 && kept[label as usize - 1]);
        Mask::new(self.width, self.height, self.labels.iter().map(set).collect())
    }

    /// The largest component's number; the first of equals.
    pub fn largest(&self) -> Option<usize> {
        (0..self.len()).max_by_key(|&index| (self.areas[index], usize::MAX - index))
    }
}

/// Set operations, pixel by pixel.
///
/// # Panics
/// All of them when the masks' sizes differ: the caller laid them over each other.
impl Mask {
    /// Pixels set in both.
    pub fn and(&self, other: &Mask) -> Mask {
        self.combined(other, |a, b| a & b)
    }

    /// Pixels set in either.
    pub fn or(&self, other: &Mask) -> Mask {
        self.combined(other, |a, b| a | b)
    }

    /// Pixels set here and not in `other`.
    pub fn without(&self, other: &Mask) -> Mask {
        self.combined(other, |a, b| a & (1 - b))
    }

    /// Pixels that are not set.
    pub fn inverted(&self) -> Mask {
        Mask::new(self.width(), self.height(), self.data().iter().map(|value| 1 - value).collect())
    }

    fn combined(&self, other: &Mask, value: impl Fn(u8, u8) -> u8) -> Mask {
        assert_eq!((self.width(), self.height()), (other.width(), other.height()), "masks of one size");
        let data = self.data().iter().zip(other.data()).map(|(&a, &b)| value(a, b)).collect();
        Mask::new(self.width(), self.height(), data)
    }
}

/// Shape operations.
impl Mask {
    /// The 8-connected components.
    pub fn components(&self) -> Components {
        let (width, height) = (self.width(), self.height());
        let regions = Regions::of(self, true, true);
        let mut labels = vec![0u32; width * height];
        for run in &regions.runs {
            labels[run.row * width + run.start..run.row * width + run.end].fill(run.region as u32 + 1);
        }
        Components { width, height, labels, areas: regions.areas }
    }

    /// The component with the most pixels; empty for an empty mask.
    pub fn largest_component(&self) -> Mask {
        let regions = Regions::of(self, true, true);
        let largest = regions.largest();
        self.kept(&regions, |region| Some(region) == largest)
    }

    /// The components of at least `area` pixels.
    pub fn components_from(&self, area: f64) -> Mask {
        let regions = Regions::of(self, true, true);
        self.kept(&regions, |region| regions.areas[region] as f64 >= area)
    }

    fn kept(&self, regions: &Regions, keep: impl Fn(usize) -> bool) -> Mask {
        let mut data = vec![0u8; self.data().len()];
        for run in regions.runs.iter().filter(|run| keep(run.region)) {
            data[run.row * self.width() + run.start..run.row * self.width() + run.end].fill(1);
        }
        Mask::new(self.width(), self.height(), data)
    }

    /// The mask with every hole filled: background that no 4-connected path joins to the image's border.
    pub fn holes_filled(&self) -> Mask {
        let (width, height) = (self.width(), self.height());
        let regions = Regions::of(self, false, false);
        let mut open = vec![false; regions.areas.len()];
        for run in &regions.runs {
            open[run.region] |= run.row == 0 || run.row + 1 == height || run.start == 0 || run.end == width;
        }
        let mut data = self.data().to_vec();
        for run in regions.runs.iter().filter(|run| !open[run.region]) {
            data[run.row * width + run.start..run.row * width + run.end].fill(1);
        }
        Mask::new(width, height, data)
    }

    /// Every pixel within `radius` steps of a set pixel, diagonals counting as one step.
    pub fn dilated(&self, radius: usize) -> Mask {
        self.spread_rows(radius).spread_columns(radius)
    }

    /// Every pixel whose neighbours within `radius` steps, diagonals counting as one, are all set.
    pub fn eroded(&self, radius: usize) -> Mask {
        // Outside is not set: pixels nearer to the border than the radius go.
        let inside = self.inverted().dilated(radius).inverted();
        let (width, height) = (self.width(), self.height());
        let off_border = |x: usize, y: usize| {
            x >= radius && y >= radius && x + radius < width && y + radius < height && inside.get(x, y)
        };
        Mask::from_fn(width, height, off_border)
    }

    /// Every pixel within `radius` steps of a set pixel of its row.
    fn spread_rows(&self, radius: usize) -> Mask {
        let mut data = vec![0u8; self.data().len()];
        let width = self.width().max(1);
        for (target, source) in data.chunks_exact_mut(width).zip(self.data().chunks_exact(width)) {
            // Distance to the last set pixel behind, then the same from the other end.
            let mut since = usize::MAX;
            for (target, &source) in target.iter_mut().zip(source) {
                since = if source != 0 { 0 } else { since.saturating_add(1) };
                *target = u8::from(since <= radius);
            }
            since = usize::MAX;
            for (target, &source) in target.iter_mut().zip(source).rev() {
                since = if source != 0 { 0 } else { since.saturating_add(1) };
                *target |= u8::from(since <= radius);
            }
        }
        Mask::new(self.width(), self.height(), data)
    }

    /// Every pixel within `radius` steps of a set pixel of its column; row by row, as memory lies.
    fn spread_columns(&self, radius: usize) -> Mask {
        let (width, height) = (self.width(), self.height());
        let radius = radius.min(u32::MAX as usize - 1) as u32;
        let mut data = vec![0u8; width * height];
        for backwards in [false, true] {
            let mut since = vec![u32::MAX; width];
            for row in 0..height {
                let row = if backwards { height - 1 - row } else { row };
                let range = row * width..(row + 1) * width;
                let pixels = data[range.clone()].iter_mut().zip(&self.data()[range]);
                for ((target, &source), since) in pixels.zip(&mut since) {
                    *since = if source != 0 { 0 } else { since.saturating_add(1) };
                    *target |= u8::from(*since <= radius);
                }
            }
        }
        Mask::new(width, height, data)
    }

    /// Euclidean distance from each set pixel's centre to the nearest centre that is not set, in pixels; 0 where the
    /// pixel is not set. Exact (Felzenszwalb and Huttenlocher, 2012).
    pub fn distance_to_edge(&self) -> Plane {
        let (width, height) = (self.width() + 2, self.height() + 2);
        // One frame of background around, since the outside is not set.
        let far = ((width + height) * (width + height)) as f64;
        let mut squared = vec![0f64; width * height];
        for y in 0..self.height() {
            for x in 0..self.width() {
                squared[(y + 1) * width + x + 1] = if self.get(x, y) { far } else { 0.0 };
            }
        }
        let mut line = Vec::new();
        for x in 0..width {
            line.clear();
            line.extend((0..height).map(|y| squared[y * width + x]));
            lower_envelope(&line).into_iter().enumerate().for_each(|(y, value)| squared[y * width + x] = value);
        }
        for row in squared.chunks_exact_mut(width) {
            let transformed = lower_envelope(row);
            row.copy_from_slice(&transformed);
        }
        let inner = |at: usize| {
            let (x, y) = (at % self.width(), at / self.width());
            squared[(y + 1) * width + x + 1].sqrt() as f32
        };
        Plane::new(self.width(), self.height(), (0..self.width() * self.height()).map(inner).collect())
    }

    /// Every set pixel that a disc of `radius` pixels lying within the mask covers: thin parts go.
    pub fn opened(&self, radius: f32) -> Mask {
        let near_edge = self.inverted().grown(radius);
        // Outside the image is not set, and one step away from the border.
        let far = |at: usize, size: usize| (at + 1).min(size - at) as f32 > radius;
        let (width, height) = (self.width(), self.height());
        let columns: Vec<u8> = (0..width).map(|x| u8::from(far(x, width))).collect();
        let mut core = vec![0u8; width * height];
        for (y, row) in core.chunks_exact_mut(width.max(1)).enumerate().filter(|(y, _)| far(*y, height)) {
            let near = &near_edge.data()[y * width..(y + 1) * width];
            row.iter_mut().zip(near).zip(&columns).for_each(|((core, near), column)| *core = (1 - near) & column);
        }
        Mask::new(width, height, core).grown(radius).and(self)
    }

    /// Every pixel whose centre lies within `radius` pixels (Euclidean) of a set pixel's centre.
    pub fn grown(&self, radius: f32) -> Mask {
        let (width, height) = (self.width(), self.height());
        let disc = half_widths(radius, width.max(height));
        let mut data = vec![0u8; width * height];
        for (y, row) in self.data().chunks_exact(width.max(1)).enumerate() {
            for run in runs(row, |pixel| pixel != 0) {
                for (step, &reach) in disc.iter().enumerate() {
                    let columns = run.start.saturating_sub(reach)..(run.end + reach).min(width);
                    let rows = [y.checked_sub(step), Some(y + step).filter(|&row| step > 0 && row < height)];
                    for row in rows.into_iter().flatten() {
                        data[row * width..(row + 1) * width][columns.clone()].fill(1);
                    }
                }
            }
        }
        Mask::new(width, height, data)
    }

    /// Set pixels with a neighbour (of 8) that is not set.
    pub fn outline(&self) -> Mask {
        self.without(&self.eroded(1))
    }
}

/// A disc of `radius` by its rows: how far it reaches to either side in its middle row, the next one, and so on; none for a
/// negative radius. Rows and columns beyond `size` are left out.
fn half_widths(radius: f32, size: usize) -> Vec<usize> {
    let within = |x: usize, y: usize| ((x * x + y * y) as f64).sqrt() as f32 <= radius;
    let mut half_width = if radius >= 0.0 { (radius as usize).saturating_add(1).min(size) } else { 0 };
    let mut disc = Vec::new();
    for y in (0..=size).take_while(|&y| within(0, y)) {
        while !within(half_width, y) {
            half_width -= 1;
        }
        disc.push(half_width);
    }
    disc
}

/// One dimension of the squared distance transform: the lower envelope of the parabolas over `values`.
fn lower_envelope(values: &[f64]) -> Vec<f64> {
    let mut vertices: Vec<usize> = Vec::with_capacity(values.len());
    let mut starts: Vec<f64> = Vec::with_capacity(values.len());
    for q in 0..values.len() {
        let parabola = |at: usize| values[at] + (at * at) as f64;
        let mut start = f64::NEG_INFINITY;
        while let Some(&last) = vertices.last() {
            start = (parabola(q) - parabola(last)) / (2.0 * (q as f64 - last as f64));
            if start > starts[vertices.len() - 1] {
                break;
            }
            vertices.pop();
            starts.pop();
            start = f64::NEG_INFINITY;
        }
        vertices.push(q);
        starts.push(start);
    }
    let mut segment = 0;
    (0..values.len())
        .map(|q| {
            while segment + 1 < vertices.len() && starts[segment + 1] < q as f64 {
                segment += 1;
            }
            let offset = q as f64 - vertices[segment] as f64;
            offset * offset + values[vertices[segment]]
        })
        .collect()
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
    fn diagonal_pixels_are_one_component() {
        let components = drawn(&["#...", ".#..", "...#", "...#"]).components();
        assert_eq!(components.areas(), [2, 2]);
        assert_eq!(components.at(1, 1), Some(0));
        assert_eq!(components.at(2, 0), None);
        assert_eq!(drawn(&["#...", ".#.#", "..#."]).components().len(), 1);
        assert_eq!(drawn(&["##..", "....", "...#"]).largest_component(), drawn(&["##..", "....", "...."]));
        assert_eq!(Mask::empty(3, 3).largest_component(), Mask::empty(3, 3));
        let pieces = drawn(&["##..", "....", "...#"]);
        assert_eq!(pieces.components_from(1.5), drawn(&["##..", "....", "...."]));
        assert_eq!((pieces.components_from(1.0), pieces.components_from(3.0).area()), (pieces, 0));
    }

    #[test]
    fn holes_are_filled_and_bays_are_not() {
        let mask = drawn(&[".####", ".#..#", "##.##", "#..#.", "####."]);
        assert_eq!(mask.holes_filled(), drawn(&[".####", ".####", "#####", "####.", "####."]));
        let bay = drawn(&["###", "#..", "###"]);
        assert_eq!(bay.holes_filled(), bay);
        // A diagonal gap is closed for 4-connected background.
        assert!(drawn(&[".##.", "#..#", "#..#", ".##."]).holes_filled().get(1, 1));
    }

    #[test]
    fn distance_is_euclidean_and_sees_the_border() {
        let mask = Mask::from_fn(9, 7, |x, y| (x, y) != (0, 0));
        let distance = mask.distance_to_edge();
        assert_eq!(distance.at(0, 0), 0.0);
        assert_eq!(distance.at(4, 3), 4.0);
        assert!((distance.at(1, 1) - 2f32.sqrt()).abs() < 1e-6);
        assert_eq!(distance.at(8, 6), 1.0);
    }

    #[test]
    fn a_thin_table_does_not_survive_an_opening() {
        let mask = Mask::from_fn(60, 60, |x, y| (10..40).contains(&x) && (5..40).contains(&y) || y == 45 || y == 46);
        let opened = mask.opened(3.0);
        assert!(opened.get(25, 20) && opened.get(10, 20));
        assert!(!opened.get(25, 45) && !opened.get(25, 46));
    }

    #[test]
    fn outlines_are_the_outermost_pixels() {
        assert_eq!(drawn(&["###", "###", "###"]).outline().area(), 8);
    }

    fn any_mask() -> impl Strategy<Value = Mask> {
        (1usize..24, 1usize..24).prop_flat_map(|(width, height)| {
            proptest::collection::vec(0u8..2, width * height).prop_map(move |data| Mask::new(width, height, data))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn morphology_agrees_with_its_definition(mask in any_mask(), radius in 0usize..4) {
            let (dilated, eroded, distance) = (mask.dilated(radius), mask.eroded(radius), mask.distance_to_edge());
            let grown = mask.grown(radius as f32);
            for y in 0..mask.height() as i64 {
                for x in 0..mask.width() as i64 {
                    let reach = radius as i64;
                    let set = |x: i64, y: i64| {
                        x >= 0 && y >= 0 && x < mask.width() as i64 && y < mask.height() as i64
                            && mask.get(x as usize, y as usize)
                    };
                    let around = || (-reach..=reach).flat_map(|dy| (-reach..=reach).map(move |dx| (dx, dy)));
                    let any = around().any(|(dx, dy)| set(x + dx, y + dy));
                    let all = around().all(|(dx, dy)| set(x + dx, y + dy));
                    let near = around().any(|(dx, dy)| dx * dx + dy * dy <= reach * reach && set(x + dx, y + dy));
                    let (ux, uy) = (x as usize, y as usize);
                    prop_assert_eq!(dilated.get(ux, uy), any);
                    prop_assert_eq!(eroded.get(ux, uy), all);
                    prop_assert_eq!(grown.get(ux, uy), near);
                    let nearest = (-25..50i64).flat_map(|v| (-25..50i64).map(move |u| (u, v)))
                        .filter(|&(u, v)| !set(u, v)).map(|(u, v)| (u - x).pow(2) + (v - y).pow(2)).min().unwrap();
                    prop_assert!((f64::from(distance.at(ux, uy)) - (nearest as f64).sqrt()).abs() < 1e-4);
                }
            }
        }
    }
}
