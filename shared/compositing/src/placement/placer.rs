//! Placing one lesion after the other on a background.

use hiresmed_imaging::{Mask, Plane};
use rand::Rng;

use super::fit::Footprint;
use super::{MINIMUM_GAP_PX, Refusal, Rule, Rules, Scene, centre};

/// A lesion's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Column and row of the lesion's centre (its mask's centroid, rounded).
    pub centre: (usize, usize),
    /// Row of the patch's first pixel in the image; negative where its surroundings reach over the edge.
    pub top: i64,
    /// Column of the patch's first pixel in the image.
    pub left: i64,
    /// Pixels of the lesion's mask.
    pub area: usize,
}

/// A position with its weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Column.
    pub x: usize,
    /// Row.
    pub y: usize,
    /// Share of all weight, so that the map's weights sum to 1.
    pub weight: f64,
}

/// C_final of equation 16 for one lesion: where its centre may be.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidates {
    /// C_loc where the lesion may be placed, 0 elsewhere; the scale of the scene's weights.
    pub map: Plane,
    /// The positions at which the rules allow the lesion, whatever their weight.
    pub allowed: Mask,
}

impl Candidates {
    /// The `count` heaviest positions that are at least `apart_px` pixels from each other along either axis, heaviest first;
    /// of equals the upper, then the left one.
    pub fn peaks(&self, count: usize, apart_px: usize) -> Vec<Candidate> {
        let width = self.map.width();
        let total: f64 = self.map.data().iter().map(|&weight| f64::from(weight)).sum();
        let mut order: Vec<usize> = (0..self.map.data().len()).filter(|&at| self.map.data()[at] > 0.0).collect();
        order.sort_by(|&a, &b| self.map.data()[b].total_cmp(&self.map.data()[a]).then(a.cmp(&b)));
        let mut peaks: Vec<Candidate> = Vec::new();
        for at in order {
            if peaks.len() == count {
                break;
            }
            let (x, y) = (at % width, at / width);
            if peaks.iter().all(|peak| peak.x.abs_diff(x).max(peak.y.abs_diff(y)) >= apart_px) {
                peaks.push(Candidate { x, y, weight: f64::from(self.map.data()[at]) / total });
            }
        }
        peaks
    }
}

/// Places lesions on one background, each apart from those before it.
#[derive(Debug, Clone)]
pub struct Placer<'a> {
    scene: Scene<'a>,
    rules: Rules,
    placed: Vec<Placed>,
    /// Number of the lesion (from 1) whose grown mask covers a pixel, 0 where none does.
    taken: Vec<u32>,
}

impl<'a> Placer<'a> {
    /// A background without lesions. Errors when the scene's maps differ in size or a weight is not one.
    pub fn new(scene: Scene<'a>, rules: Rules) -> Result<Self, Refusal> {
        let expected = (scene.weights.width(), scene.weights.height());
        for (map, mask) in [("permissible", scene.permissible), ("body", scene.body)] {
            let found = (mask.width(), mask.height());
            if found != expected {
                return Err(Refusal::Size { map, found, expected });
            }
        }
        let is_weight = |weight: &f32| (0.0..f32::INFINITY).contains(weight);
        if !scene.weights.data().iter().fold(true, |good, weight| good & is_weight(weight)) {
            let at = scene.weights.data().iter().position(|weight| !is_weight(weight)).unwrap_or_default();
            let value = scene.weights.data()[at];
            return Err(Refusal::Weight { x: at % expected.0, y: at / expected.0, value });
        }
        Ok(Self { scene, rules, placed: Vec::new(), taken: vec![0; expected.0 * expected.1] })
    }

    /// The lesions that are placed, in order.
    pub fn placed(&self) -> &[Placed] {
        &self.placed
    }

    /// C_final for a lesion with this mask, on what is still free.
    ///
    /// Errors when the mask is empty, and when the lesion fits nowhere.
    pub fn candidates(&self, mask: &Mask) -> Result<Candidates, Refusal> {
        let (footprint, _) = measure(mask)?;
        let allowed = self.allowed(&footprint);
        if allowed.area() == 0 {
            return Err(self.no_room(&footprint));
        }
        let weights = self.scene.weights.data().iter().zip(allowed.data());
        let map = weights.map(|(&weight, &allowed)| if allowed != 0 { weight } else { 0.0 }).collect();
        Ok(Candidates { map: Plane::new(allowed.width(), allowed.height(), map), allowed })
    }

    /// Draws a position for a lesion with this mask, each position as likely as its weight in C_final, and takes it.
    pub fn place(&mut self, mask: &Mask, rng: &mut impl Rng) -> Result<Placed, Refusal> {
        let candidates = self.candidates(mask)?;
        self.place_among(mask, &candidates, rng)
    }

    /// As [`place`](Self::place), with the `candidates` of the same mask as they are now.
    pub fn place_among(&mut self, mask: &Mask, candidates: &Candidates, rng: &mut impl Rng) -> Result<Placed, Refusal> {
        // Most positions weigh nothing.
        let weights = || candidates.map.data().iter().enumerate().filter(|(_, weight)| **weight > 0.0);
        let total: f64 = weights().map(|(_, &weight)| f64::from(weight)).sum();
        // 53 random bits: uniform in [0, 1).
        let target = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * total;
        // The first position whose sum exceeds the target; the last one where the product was rounded up to the total.
        let (mut sum, mut drawn) = (0.0f64, None);
        for (at, &weight) in weights() {
            sum += f64::from(weight);
            drawn = Some(at);
            if sum > target {
                break;
            }
        }
        let Some(at) = drawn else {
            return Err(Refusal::NoCandidate { positions: candidates.allowed.area() });
        };
        let width = candidates.map.width();
        self.take(mask, (at % width, at / width))
    }

    /// Takes the position `(column, row)` of the lesion's centre, if the rules allow it; refuses with the reason if not.
    pub fn place_at(&mut self, mask: &Mask, position: (usize, usize)) -> Result<Placed, Refusal> {
        let (footprint, _) = measure(mask)?;
        self.check(&footprint, position)?;
        self.take(mask, position)
    }

    fn check(&self, footprint: &Footprint, (x, y): (usize, usize)) -> Result<(), Refusal> {
        let (width, height) = (self.scene.weights.width(), self.scene.weights.height());
        if x >= width || y >= height {
            return Err(Refusal::OutsideImage { x, y, width, height });
        }
        let (column, row, border) = (x as i64, y as i64, self.rules.border_px as i64);
        let (left, right) = (column + footprint.left, column + footprint.right);
        let (top, bottom) = (row + footprint.top, row + footprint.bottom);
        if left < border || top < border || right >= width as i64 - border || bottom >= height as i64 - border {
            return Err(Refusal::OnBorder { x, y, left, right, top, bottom, border_px: self.rules.border_px });
        }
        let outside_percent = |mask: &Mask| match self.rules.rule {
            Rule::Footprint => 100.0 * (1.0 - footprint.count(mask, (x, y)) as f64 / footprint.area as f64),
            Rule::Centre => 100.0 * f64::from(u8::from(!mask.get(x, y))),
        };
        let percent = outside_percent(self.scene.body);
        if percent > 0.0 {
            return Err(Refusal::OutsideBody { x, y, percent });
        }
        let percent = outside_percent(self.scene.permissible);
        if percent > 0.0 && !self.rules.override_danger {
            return Err(Refusal::DangerZone { x, y, percent });
        }
        for lesion in 1..=self.placed.len() {
            let near = Mask::new(width, height, self.taken.iter().map(|&n| u8::from(n == lesion as u32)).collect());
            if footprint.count(&near, (x, y)) > 0 {
                return Err(Refusal::NearLesion { x, y, lesion, gap_px: self.gap() });
            }
        }
        Ok(())
    }

    fn allowed(&self, footprint: &Footprint) -> Mask {
        let clear = self.clear_area();
        match self.rules.rule {
            Rule::Footprint => footprint.erode(&self.safe(clear)),
            Rule::Centre => self.safe(footprint.erode(&clear)),
        }
    }

    /// Of `area`, what lies in the body and in no danger zone.
    fn safe(&self, area: Mask) -> Mask {
        area.and(self.scene.body).and(self.scene.permissible)
    }

    /// Pixels inside the margin and apart from other lesions.
    fn clear_area(&self) -> Mask {
        let (width, height, border) = (self.scene.weights.width(), self.scene.weights.height(), self.rules.border_px);
        let mut clear = vec![0u8; width * height];
        if 2 * border < width.min(height) {
            let columns = border..width - border;
            for y in border..height - border {
                let taken = &self.taken[y * width..(y + 1) * width][columns.clone()];
                let row = &mut clear[y * width..(y + 1) * width][columns.clone()];
                row.iter_mut().zip(taken).for_each(|(clear, &lesion)| *clear = u8::from(lesion == 0));
            }
        }
        Mask::new(width, height, clear)
    }

    fn take(&mut self, mask: &Mask, position: (usize, usize)) -> Result<Placed, Refusal> {
        let (footprint, centre) = measure(mask)?;
        let (width, height) = (self.scene.weights.width() as i64, self.scene.weights.height() as i64);
        let (lesion, gap) = (self.placed.len() as u32 + 1, self.gap());
        // Grown by the gap: a mask that stays off this has at least that many clear pixels between.
        let (grown, left, top) = footprint.grown(gap);
        let (left, top) = (position.0 as i64 + left, position.1 as i64 + top);
        for (y, row) in grown.data().chunks_exact(grown.width()).enumerate() {
            for (x, _) in row.iter().enumerate().filter(|(_, value)| **value != 0) {
                let (x, y) = (left + x as i64, top + y as i64);
                if (0..width).contains(&x) && (0..height).contains(&y) {
                    let taken = &mut self.taken[(y * width + x) as usize];
                    *taken = if *taken == 0 { lesion } else { *taken };
                }
            }
        }
        let placed = Placed {
            centre: position,
            top: position.1 as i64 - centre.1 as i64,
            left: position.0 as i64 - centre.0 as i64,
            area: footprint.area,
        };
        self.placed.push(placed);
        Ok(placed)
    }

    fn gap(&self) -> usize {
        self.rules.gap_px.max(MINIMUM_GAP_PX)
    }

    fn no_room(&self, footprint: &Footprint) -> Refusal {
        let free = self.safe(self.clear_area());
        let deepest = free.distance_to_edge().data().iter().copied().fold(0.0, f32::max);
        Refusal::NoRoom {
            lesion_width: (footprint.right - footprint.left + 1) as usize,
            lesion_height: (footprint.bottom - footprint.top + 1) as usize,
            lesion_area: footprint.area,
            free_area: free.area(),
            // From the middle of the deepest pixel to the first that is not free, both ways, less that pixel itself.
            widest_px: (2.0 * f64::from(deepest) - 1.0).max(0.0),
        }
    }
}

fn measure(mask: &Mask) -> Result<(Footprint, (usize, usize)), Refusal> {
    let centre = centre(mask).ok_or(Refusal::EmptyLesion)?;
    let footprint = Footprint::new(mask, centre).ok_or(Refusal::EmptyLesion)?;
    Ok((footprint, centre))
}
