//! Random geometry that anatomy allows: zoom, shift, rotation and a smooth warp, and the image under it. Never mirrored: the heart
//! lies on the left.

use hiresmed_imaging::Plane;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use crate::noise;

/// Cells along a side of the grid whose corners a warp displaces.
const WARP_CELLS: i64 = 4;

/// How far a random geometry may go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// From 1 / this to this.
    pub zoom: f64,
    /// Share of the target's side, each way.
    pub shift: f64,
    /// Each way.
    pub rotation_degrees: f64,
    /// Standard deviation of the corners' displacement, share of half of the target's side.
    pub warp: f64,
}

/// One geometry, in units of the target: a map from the target's pixels to the source's.
#[derive(Debug)]
pub(crate) struct Geometry {
    pub zoom: f64,
    angle: f64,
    /// In halves of the target's side.
    shift: (f64, f64),
    /// In halves of the target's side, `[1, 2, corners, corners]`.
    warp: Option<Tensor>,
}

impl Geometry {
    /// The one that changes nothing.
    pub(crate) fn none() -> Self {
        Self { zoom: 1.0, angle: 0.0, shift: (0.0, 0.0), warp: None }
    }

    /// A random one.
    pub(crate) fn draw(limits: Limits, rng: &mut ChaCha8Rng) -> Self {
        let mut either = |limit: f64| limit * (2.0 * rng.random::<f64>() - 1.0);
        let zoom = limits.zoom.powf(either(1.0));
        let angle = either(limits.rotation_degrees).to_radians();
        let shift = (either(2.0 * limits.shift), either(2.0 * limits.shift));
        let corners = WARP_CELLS + 1;
        let warp = (limits.warp > 0.0).then(|| {
            let values = noise::normal(rng, (2 * corners * corners) as usize);
            Tensor::from_slice(&values).reshape([1, 2, corners, corners]) * limits.warp
        });
        Self { zoom, angle, shift, warp }
    }

    /// `plane` (in [-1, 1]) under this geometry, `target` columns and rows, each `scale` of its pixels apart before the zoom; the
    /// target's middle lies `middle` from the plane's, in halves of its sides. Bicubic; outside is air.
    pub(crate) fn view(&self, plane: &Plane, target: (usize, usize), scale: f64, middle: (f64, f64)) -> Plane {
        let (columns, rows) = (target.0 as i64, target.1 as i64);
        let (sine, cosine) = (scale * self.angle.sin() / self.zoom, scale * self.angle.cos() / self.zoom);
        // From a place in the target to a place in the source, both in halves of their own sides.
        let (x, y) = (target.0 as f64 / plane.width() as f64, target.1 as f64 / plane.height() as f64);
        let (x_by_y, y_by_x) = (target.1 as f64 / plane.width() as f64, target.0 as f64 / plane.height() as f64);
        // Halves of the target's sides, as it would be without the zoom, in halves of the source's.
        let reach = (scale * x, scale * y);
        let shift = (middle.0 + self.shift.0 * reach.0, middle.1 + self.shift.1 * reach.1);
        let affine = [cosine * x, -sine * x_by_y, shift.0, sine * y_by_x, cosine * y, shift.1];
        let affine = Tensor::from_slice(&affine.map(|value| value as f32)).reshape([1, 2, 3]);
        let mut grid = Tensor::affine_grid_generator(&affine, [1, 1, rows, columns], false);
        if let Some(coarse) = &self.warp {
            let reach = Tensor::from_slice(&[reach.0 as f32, reach.1 as f32]).reshape([1, 1, 1, 2]);
            grid += coarse.upsample_bicubic2d([rows, columns], true, None, None).permute([0, 2, 3, 1]) * reach;
        }
        let source = Tensor::from_slice(plane.data()).reshape([1, 1, plane.height() as i64, plane.width() as i64]);
        // Bicubic (2), zeros outside (0): shifted by one, zero is air.
        let image = ((source + 1.0).grid_sampler(&grid, 2, 0, false) - 1.0).clamp(-1.0, 1.0);
        let data = Vec::<f32>::try_from(&image.contiguous().reshape([-1])).unwrap_or_default();
        Plane::new(target.0, target.1, data)
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    /// A bright spot in air.
    fn spot(side: usize, (column, row): (usize, usize)) -> Plane {
        let value = |i: usize| {
            let (x, y) = ((i % side) as f32 - column as f32, (i / side) as f32 - row as f32);
            2.0 * (-(x * x + y * y) / 8.0).exp() - 1.0
        };
        Plane::new(side, side, (0..side * side).map(value).collect())
    }

    fn brightest(plane: &Plane) -> (usize, usize) {
        let at = (0..plane.data().len()).max_by(|&a, &b| plane.data()[a].total_cmp(&plane.data()[b])).unwrap();
        (at % plane.width(), at / plane.width())
    }

    const NONE: Limits = Limits { zoom: 1.0, shift: 0.0, rotation_degrees: 0.0, warp: 0.0 };

    #[test]
    fn nothing_changes_without_a_geometry() {
        let plane = spot(32, (20, 9));
        let seen = Geometry::none().view(&plane, (32, 32), 1.0, (0.0, 0.0));
        let worst = plane.data().iter().zip(seen.data()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4, "{worst}");
    }

    #[test]
    fn a_part_of_the_plane_lies_where_it_is_asked_for() {
        // The 16 pixels around (40, 24) of 64: their middle lies 8 of 32 to the right and 8 of 32 above the plane's.
        let seen = Geometry::none().view(&spot(64, (43, 22)), (16, 16), 1.0, (0.25, -0.25));
        assert_eq!(brightest(&seen), (43 - 32, 22 - 16));
    }

    #[test]
    fn left_stays_left_and_displacements_stay_within_their_limits() {
        let plane = spot(64, (16, 32));
        for seed in 0..12 {
            let mut rng = ChaCha8Rng::from_seed([seed; 32]);
            let limits = Limits { zoom: 1.1, shift: 0.05, rotation_degrees: 10.0, warp: 0.02 };
            let (column, row) = brightest(&Geometry::draw(limits, &mut rng).view(&plane, (64, 64), 1.0, (0.0, 0.0)));
            // 16 px left of the middle: at most 1.6 by the zoom, 3.5 by the shift, 3 by the turn, 4 deviations of 0.64 by the warp.
            assert!((5..28).contains(&column) && (21..44).contains(&row), "{column}, {row}");
        }
    }

    #[test]
    fn a_warp_moves_what_nothing_else_moves() {
        let plane = spot(64, (16, 32));
        let mut rng = ChaCha8Rng::from_seed([3; 32]);
        let seen = Geometry::draw(Limits { warp: 0.1, ..NONE }, &mut rng).view(&plane, (64, 64), 1.0, (0.0, 0.0));
        assert_ne!(seen, Geometry::none().view(&plane, (64, 64), 1.0, (0.0, 0.0)));
    }
}
