//! The windowed moments of two images, a row at a time: both passes of the Gaussian and the score itself in one sweep, with
//! a ring of eleven filtered rows instead of whole filtered images.

use hiresmed_imaging::Plane;

/// Half width of the Gaussian window: 11 taps.
pub(super) const RADIUS: usize = 5;
/// Standard deviation of the Gaussian window, pixels.
const SIGMA: f64 = 1.5;
const TAPS: usize = 2 * RADIUS + 1;
const K1: f64 = 0.01;
const K2: f64 = 0.03;

/// What is filtered: both images, the sum of their squares (their variances occur only as a sum), their product.
const MOMENTS: usize = 4;
type Moments = [Vec<f64>; MOMENTS];

/// The rows of a structural similarity map, in rising order.
pub(super) struct Rows<'a> {
    images: [&'a Plane; 2],
    kernel: [f64; RADIUS + 1],
    c1: f64,
    c2: f64,
    /// The moments of one row before filtering, mirrored by the window's radius on both sides.
    padded: Moments,
    /// The moments of the last rows after the horizontal pass; position p (a row plus the radius) is at p modulo 11.
    ring: Vec<Moments>,
    /// The positions that the ring holds end before this one.
    filled: usize,
    /// The moments of one row after both passes.
    row: Moments,
}

impl<'a> Rows<'a> {
    /// Two images of one size, at least 11 x 11.
    pub(super) fn new(a: &'a Plane, b: &'a Plane, data_range: f64) -> Self {
        let width = a.width();
        let moments = |length: usize| std::array::from_fn(|_| vec![0.0; length]);
        Self {
            images: [a, b],
            kernel: kernel(),
            c1: (K1 * data_range).powi(2),
            c2: (K2 * data_range).powi(2),
            padded: moments(width + 2 * RADIUS),
            ring: (0..TAPS).map(|_| moments(width)).collect(),
            filled: 0,
            row: moments(width),
        }
    }

    /// Writes row `y` of the map; `y` is larger than in the call before.
    pub(super) fn write(&mut self, y: usize, out: &mut [f64]) {
        pulp::Arch::new().dispatch(WriteRow { rows: self, y, out });
    }

    #[inline(always)]
    fn write_row(&mut self, y: usize, out: &mut [f64]) {
        for position in self.filled.max(y)..y + TAPS {
            self.filter_along_row(position);
        }
        self.filled = y + TAPS;
        for moment in 0..MOMENTS {
            let tap = |tap: usize| &self.ring[(y + tap) % TAPS][moment][..];
            filter_across(&self.kernel, std::array::from_fn(tap), &mut self.row[moment]);
        }
        let [ux, uy, squares, product] = &self.row;
        let moments = ux.iter().zip(uy).zip(squares.iter().zip(product));
        for (out, ((&ux, &uy), (&squares, &product))) in out.iter_mut().zip(moments) {
            let (mean_squares, mean_product) = (ux * ux + uy * uy, ux * uy);
            let (variances, covariance) = (squares - mean_squares, product - mean_product);
            *out = (2.0 * mean_product + self.c1) * (2.0 * covariance + self.c2)
                / ((mean_squares + self.c1) * (variances + self.c2));
        }
    }

    /// The horizontal pass over the row at `position`, mirrored into the image.
    #[inline(always)]
    fn filter_along_row(&mut self, position: usize) {
        let (width, height) = (self.images[0].width(), self.images[0].height());
        let start = mirrored(position, height) * width;
        let [x, y] = self.images.map(|image| &image.data()[start..start + width]);
        let [ux, uy, squares, product] = &mut self.padded;
        fill_padded(ux, x);
        fill_padded(uy, y);
        for (at, (&x, &y)) in ux.iter().zip(uy.iter()).enumerate() {
            squares[at] = x * x + y * y;
            product[at] = x * y;
        }
        let target = &mut self.ring[position % TAPS];
        for (padded, filtered) in self.padded.iter().zip(target) {
            let tap = |tap: usize| &padded[tap..tap + width];
            filter_across(&self.kernel, std::array::from_fn(tap), filtered);
        }
    }
}

/// Row `y` with the widest vectors of the processor, found at run time: the compiler vectorises what is inlined here. The
/// operations and their order are the same for every width, and so are the results.
struct WriteRow<'a, 'b> {
    rows: &'a mut Rows<'b>,
    y: usize,
    out: &'a mut [f64],
}

impl pulp::WithSimd for WriteRow<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _width: S) {
        self.rows.write_row(self.y, self.out);
    }
}

/// `out[i] = Σ kernel[|tap - 5|] * taps[tap][i]`. The window is symmetric, so opposite taps are added first.
#[inline(always)]
fn filter_across(kernel: &[f64; RADIUS + 1], taps: [&[f64]; TAPS], out: &mut [f64]) {
    let length = out.len();
    // Slices of one known length let the compiler drop the bounds checks and use vector instructions.
    let [a, b, c, d, e, f, g, h, i, j, k] = taps.map(|tap| &tap[..length]);
    for at in 0..length {
        out[at] = kernel[0] * f[at]
            + kernel[1] * (e[at] + g[at])
            + kernel[2] * (d[at] + h[at])
            + kernel[3] * (c[at] + i[at])
            + kernel[4] * (b[at] + j[at])
            + kernel[5] * (a[at] + k[at]);
    }
}

/// A row in f64, mirrored on both sides including the edge pixel.
#[inline(always)]
fn fill_padded(padded: &mut [f64], row: &[f32]) {
    let width = row.len();
    for (padded, &value) in padded[RADIUS..].iter_mut().zip(row) {
        *padded = f64::from(value);
    }
    for at in 0..RADIUS {
        padded[RADIUS - 1 - at] = f64::from(row[at]);
        padded[RADIUS + width + at] = f64::from(row[width - 1 - at]);
    }
}

/// The row at a position (an index plus the radius). Sides are at least 11, so one reflection suffices.
fn mirrored(position: usize, size: usize) -> usize {
    match position {
        p if p < RADIUS => RADIUS - 1 - p,
        p if p >= size + RADIUS => 2 * size + RADIUS - 1 - p,
        p => p - RADIUS,
    }
}

/// Weights by distance from the centre; all eleven sum to 1.
fn kernel() -> [f64; RADIUS + 1] {
    let weight = |distance: usize| (-0.5 * (distance as f64 / SIGMA).powi(2)).exp();
    let sum = 1.0 + 2.0 * (1..=RADIUS).map(weight).sum::<f64>();
    std::array::from_fn(|distance| weight(distance) / sum)
}
