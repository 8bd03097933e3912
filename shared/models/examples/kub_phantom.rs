//! Draws the demo's radiographs: kidneys, ureters and bladder of phantoms, as DX objects. Nobody was imaged for them.
//!
//! `cargo run --release -p hiresmed-models --example kub_phantom -- FOLDER COUNT` writes `phantom-1.dcm` and so on: the same solids,
//! stretched and turned a little, and other gas. Organs are solids whose thickness along parallel rays has
//! a closed form; the image is the attenuation along each ray (Beer and Lambert) with the noise of its quanta, over the range that
//! a film would show. Lengths are millimetres, places are counted from the image's middle to the right and down; the patient's right is
//! the image's left.

use std::path::Path;

use hiresmed_imaging::{
    Plane, Spacing, Window,
    dicom::write::{Identity, Syntax, Synthetic},
};
use hiresmed_models::noise;
use rand::{RngExt, rand_core::SeedableRng};
use rand_chacha::ChaCha8Rng;

const SIDE: usize = 1024;
const SPACING_MM: f64 = 0.4;
/// Linear attenuation at about 60 keV, 1/mm: of fat; of water over fat; of cortical and of spongy bone over water; of gas over water.
const FAT: f64 = 0.0186;
const WATER: f64 = 0.0020;
const CORTEX: f64 = 0.034;
const SPONGE: f64 = 0.0085;
const GAS: f64 = -0.0206;
/// Quanta in a pixel where nobody stands.
const QUANTA: f64 = 1.5e6;
/// Attenuation that is black and that is white on the film.
const FILM: (f64, f64) = (2.5, 5.5);

type Point = (f64, f64);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, count] = arguments.as_slice() else { return Err("usage: kub_phantom FOLDER COUNT".into()) };
    for number in 1..=count.parse()? {
        let out = Path::new(folder).join(format!("phantom-{number}.dcm"));
        std::fs::write(&out, radiograph(number)?)?;
        println!("{}", out.display());
    }
    Ok(())
}

fn radiograph(number: u64) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut rng = ChaCha8Rng::seed_from_u64(number);
    let phantom = Phantom::new(&mut rng);
    let mut around = |middle: f64, reach: f64| middle + reach * (2.0 * rng.random::<f64>() - 1.0);
    let (wide, long) = (around(1.0, 0.06), around(1.0, 0.05));
    let (sine, cosine) = around(0.0, 2.0).to_radians().sin_cos();
    let (left, up) = (around(0.0, 6.0), around(32.0, 8.0));
    let place = |at: usize| (at as f64 + 0.5 - SIDE as f64 / 2.0) * SPACING_MM;
    let ray = |at: usize| {
        let (x, y) = (place(at % SIDE) + left, place(at / SIDE) + up);
        (-phantom.attenuation(((cosine * x + sine * y) / wide, (cosine * y - sine * x) / long))).exp()
    };
    let rays = blurred(&(0..SIDE * SIDE).map(ray).collect::<Vec<f64>>());
    let grain = noise::normal(&mut rng, SIDE * SIDE);
    let film = rays.iter().zip(grain).map(|(share, grain)| {
        let quanta = (QUANTA * share + f64::from(grain) * (QUANTA * share).sqrt()).max(1.0);
        let shown = ((QUANTA / quanta).ln() - FILM.0) / (FILM.1 - FILM.0);
        (2.0 * shown.clamp(0.0, 1.0) - 1.0) as f32
    });
    let plane = Plane::new(SIDE, SIDE, film.collect()).with_spacing(Some(Spacing::square(SPACING_MM)));
    let object = Synthetic {
        plane: &plane,
        window: Window::RADIOGRAPH,
        identity: Identity { request: "phantom of kidneys, ureters and bladder", image: number, object: "radiograph" },
        modality: "DX",
        description: "Phantom: kidneys, ureters and bladder",
        body_part: "ABDOMEN",
        software_version: env!("CARGO_PKG_VERSION"),
        syntax: Syntax::JpegLs,
    };
    Ok(object.to_bytes()?)
}

/// The detector's blur: a binomial of five pixels.
fn blurred(image: &[f64]) -> Vec<f64> {
    let pass = |image: &[f64], step: usize, along: fn(usize) -> usize| -> Vec<f64> {
        let at = |place: usize, shift: isize| {
            let moved = along(place) as isize + shift;
            if (0..SIDE as isize).contains(&moved) {
                image[(place as isize + shift * step as isize) as usize]
            } else {
                image[place]
            }
        };
        let weights = [(-2, 1.0), (-1, 4.0), (0, 6.0), (1, 4.0), (2, 1.0)];
        (0..image.len())
            .map(|place| weights.iter().map(|(shift, weight)| weight / 16.0 * at(place, *shift)).sum())
            .collect()
    };
    pass(&pass(image, 1, |place| place % SIDE), SIDE, |place| place / SIDE)
}

/// Thickness of an ellipsoid with these half axes in the plane, turned by `turn`, as a share of its depth.
fn ellipsoid(p: Point, centre: Point, (a, b): Point, turn: f64) -> f64 {
    let (x, y) = (p.0 - centre.0, p.1 - centre.1);
    let (sine, cosine) = turn.to_radians().sin_cos();
    let square = ((cosine * x + sine * y) / a).powi(2) + ((cosine * y - sine * x) / b).powi(2);
    (1.0 - square).max(0.0).sqrt()
}

/// 1 well inside (`distance` negative), 0 outside, over `width`.
fn soft(distance: f64, width: f64) -> f64 {
    let t = (0.5 - distance / width).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Distance to a line of straight parts, and how far along it the nearest place lies, 0 to 1.
fn along(p: Point, line: &[Point]) -> (f64, f64) {
    let parts = (line.len() - 1) as f64;
    let near = line.windows(2).enumerate().map(|(at, ends)| {
        let (d, e) = ((ends[1].0 - ends[0].0, ends[1].1 - ends[0].1), (p.0 - ends[0].0, p.1 - ends[0].1));
        let t = ((e.0 * d.0 + e.1 * d.1) / (d.0 * d.0 + d.1 * d.1)).clamp(0.0, 1.0);
        ((e.0 - t * d.0).hypot(e.1 - t * d.1), (at as f64 + t) / parts)
    });
    near.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((f64::INFINITY, 0.0))
}

/// Distance to a polygon's edge, negative inside.
fn outline(p: Point, corners: &[Point]) -> f64 {
    let mut closed = corners.to_vec();
    closed.push(corners[0]);
    let crossings = closed.windows(2).filter(|ends| {
        let ((ax, ay), (bx, by)) = (ends[0], ends[1]);
        (ay > p.1) != (by > p.1) && p.0 < ax + (p.1 - ay) / (by - ay) * (bx - ax)
    });
    let inside = crossings.count() % 2 == 1;
    along(p, &closed).0 * if inside { -1.0 } else { 1.0 }
}

/// Corners rounded: each side's thirds instead of its ends (Chaikin), three times.
fn rounded(corners: &[Point]) -> Vec<Point> {
    let mut corners = corners.to_vec();
    for _ in 0..3 {
        let next = corners.iter().cycle().skip(1);
        let cut = |a: Point, b: Point, t: f64| (a.0 + t * (b.0 - a.0), a.1 + t * (b.1 - a.1));
        corners = corners.iter().zip(next).flat_map(|(&a, &b)| [cut(a, b, 0.25), cut(a, b, 0.75)]).collect();
    }
    corners
}

/// A line through `points`, smooth.
fn smooth(points: &[Point]) -> Vec<Point> {
    let at = |index: isize| points[index.clamp(0, points.len() as isize - 1) as usize];
    let mut line = Vec::new();
    for part in 0..points.len() as isize - 1 {
        let [a, b, c, d] = [at(part - 1), at(part), at(part + 1), at(part + 2)];
        for step in 0..8 {
            let t = f64::from(step) / 8.0;
            let mix = |a: f64, b: f64, c: f64, d: f64| {
                0.5 * (2.0 * b
                    + (c - a) * t
                    + (2.0 * a - 5.0 * b + 4.0 * c - d) * t * t
                    + (3.0 * b - a - 3.0 * c + d) * t.powi(3))
            };
            line.push((mix(a.0, b.0, c.0, d.0), mix(a.1, b.1, c.1, d.1)));
        }
    }
    line.push(points[points.len() - 1]);
    line
}

/// Millimetres of cortical and of spongy bone.
#[derive(Clone, Copy, Default)]
struct Bone {
    cortex: f64,
    sponge: f64,
}

impl Bone {
    fn add(&mut self, cortex: f64, sponge: f64) {
        self.cortex += cortex;
        self.sponge += sponge;
    }

    /// A round bone of this radius whose shell is so thick, at `distance` from its axis.
    fn tube(&mut self, distance: f64, radius: f64, shell: f64) {
        let chord = |radius: f64| 2.0 * (radius * radius - distance * distance).max(0.0).sqrt();
        let inner = chord((radius - shell).max(0.0));
        self.add(chord(radius) - inner, inner);
    }

    /// A flat bone inside an outline: its two faces, its rim, and what is between.
    fn plate(&mut self, distance: f64, faces: f64, rim: f64, between: f64) {
        let inside = soft(distance, 1.0);
        self.add(inside * (faces + rim * (distance / 2.2).exp()), inside * between * (1.0 - (distance / 6.0).exp()));
    }
}

/// Smooth noise of about unit deviation whose grains are `grain` mm wide.
struct Texture {
    grain: f64,
    columns: usize,
    values: Vec<f32>,
}

impl Texture {
    fn new(grain: f64, rng: &mut ChaCha8Rng) -> Self {
        let columns = (SIDE as f64 * SPACING_MM / grain) as usize + 4;
        Self { grain, columns, values: noise::normal(rng, columns * columns) }
    }

    fn at(&self, p: Point) -> f64 {
        let reach = SIDE as f64 * SPACING_MM / 2.0;
        let (x, y) = ((p.0 + reach) / self.grain, (p.1 + reach) / self.grain);
        let (column, row) = (x.max(0.0) as usize, y.max(0.0) as usize);
        let ease = |t: f64| t * t * (3.0 - 2.0 * t);
        let (s, t) = (ease(x - column as f64), ease(y - row as f64));
        let value = |dx: usize, dy: usize| {
            let at = (row + dy).min(self.columns - 1) * self.columns + (column + dx).min(self.columns - 1);
            f64::from(self.values[at])
        };
        (1.0 - t) * ((1.0 - s) * value(0, 0) + s * value(1, 0)) + t * ((1.0 - s) * value(0, 1) + s * value(1, 1))
    }
}

/// A vertebra: middle, half width and half height of its body.
struct Vertebra {
    middle: Point,
    width: f64,
    height: f64,
}

impl Vertebra {
    fn add(&self, p: Point, bone: &mut Bone) {
        let (w, h) = (self.width, self.height);
        let (x, y) = (p.0 - self.middle.0, p.1 - self.middle.1);
        if x.abs() > w + 34.0 || y.abs() > 2.0 * h + 16.0 {
            return;
        }
        // The body, waisted, with its end plates and its walls.
        let wall = w * (0.90 + 0.10 * (y / h).powi(2).min(1.0));
        let inside = soft(x.abs() - wall, 1.2) * soft(y.abs() - h, 1.2);
        let round = (1.0 - (x / (w + 3.0)).powi(2)).max(0.0).sqrt();
        let plates = (-((y.abs() - h + 0.9) / 0.8).powi(2)).exp() + 0.5 * (-((y.abs() - h + 3.2) / 1.2).powi(2)).exp();
        let walls = (-((x.abs() - wall + 0.8) / 0.9).powi(2)).exp();
        bone.add(inside * (2.0 + 9.0 * plates * round + 6.0 * walls), inside * 31.0 * round);
        // Pedicles end on, a ring each.
        let side = x.abs();
        let pedicle = ((side - 0.62 * w) / 4.6).hypot((y + 0.22 * h) / 6.4);
        bone.add(7.0 * (-((pedicle - 0.92) / 0.2).powi(2)).exp(), 6.0 * soft(pedicle - 1.0, 0.3));
        // Spinous process and laminae.
        let process = (x / 2.6).hypot((y - 0.55 * h) / 8.0);
        bone.add(6.0 * (-((process - 0.9) / 0.25).powi(2)).exp(), 12.0 * soft(process - 1.0, 0.3));
        let (lamina, _) = along((side, y), &[(1.0, 0.1 * h), (0.5 * w, 0.45 * h)]);
        bone.add(1.6 * soft(lamina - 4.0, 2.0), 4.0 * soft(lamina - 4.0, 2.0));
        // Facets: down to the next one's, and up.
        for line in [[(0.55 * w, 0.1 * h), (0.58 * w, 1.25 * h)], [(0.66 * w, -0.3 * h), (0.72 * w, -1.15 * h)]] {
            let (facet, _) = along((side, y), &line);
            bone.tube(facet, 4.4, 1.0);
        }
        // Transverse processes.
        let (distance, t) = along((side, y), &[(0.8 * w, -0.15 * h), (w + 19.0, -0.05 * h - 2.0)]);
        let radius = 4.0 - 1.2 * t;
        bone.add(
            1.9 * soft(distance - radius, 1.0) + 1.6 * (-((distance - radius + 0.6) / 0.7).powi(2)).exp(),
            2.5 * soft(distance - radius, 1.5),
        );
    }
}

struct Phantom {
    spine: Vec<Vertebra>,
    /// Each as a line with its radius.
    ribs: Vec<(Vec<Point>, f64)>,
    ilium: Vec<Point>,
    sacrum: Vec<Point>,
    psoas: Vec<Point>,
    liver: Vec<Point>,
    /// Middle, half axes, turn and depth.
    gas: Vec<(Point, Point, f64, f64)>,
    trabeculae: [Texture; 3],
    flesh: [Texture; 3],
}

impl Phantom {
    fn new(rng: &mut ChaCha8Rng) -> Self {
        let heights = [
            (-196.0, 18.5, 11.5),
            (-166.0, 19.5, 12.0),
            (-134.5, 20.5, 12.7),
            (-101.5, 21.5, 13.2),
            (-67.0, 22.5, 13.5),
            (-31.5, 23.5, 13.8),
            (4.5, 24.5, 13.8),
            (39.5, 25.5, 13.0),
        ];
        let bent = |y: f64| 2.2 * (y / 75.0).sin();
        let spine = heights.map(|(y, width, height)| Vertebra { middle: (bent(y), y), width, height });
        let mut ribs = Vec::new();
        for side in [-1.0, 1.0] {
            for line in [
                vec![(22.0, -203.0), (55.0, -214.0), (100.0, -205.0), (140.0, -175.0), (163.0, -135.0)],
                vec![(22.0, -190.0), (52.0, -193.0), (92.0, -178.0), (128.0, -143.0), (152.0, -98.0)],
                vec![(22.0, -160.0), (50.0, -157.0), (84.0, -137.0), (112.0, -104.0), (126.0, -76.0)],
                vec![(23.0, -128.0), (46.0, -121.0), (70.0, -102.0), (86.0, -82.0)],
            ] {
                let bent = line.iter().map(|(x, y)| (side * x, y + 1.5 * side)).collect::<Vec<_>>();
                ribs.push((smooth(&bent), 5.2));
            }
        }
        let ilium = rounded(&[
            (30.0, 60.0),
            (44.0, 34.0),
            (72.0, 12.0),
            (104.0, 6.0),
            (132.0, 18.0),
            (148.0, 46.0),
            (143.0, 74.0),
            (129.0, 96.0),
            (126.0, 122.0),
            (112.0, 134.0),
            (82.0, 138.0),
            (66.0, 118.0),
            (54.0, 102.0),
            (40.0, 92.0),
        ]);
        let half = [(33.0, 58.0), (36.0, 76.0), (30.0, 98.0), (19.0, 122.0), (10.0, 142.0), (5.0, 154.0)];
        let other = half.iter().rev().map(|(x, y)| (-x, *y));
        let sacrum = rounded(&half.iter().copied().chain(other).collect::<Vec<_>>());
        let psoas = rounded(&[
            (14.0, -120.0),
            (24.0, -100.0),
            (36.0, -50.0),
            (50.0, 10.0),
            (64.0, 70.0),
            (74.0, 120.0),
            (52.0, 118.0),
            (34.0, 60.0),
            (22.0, 0.0),
        ]);
        let liver = rounded(&[
            (-178.0, -215.0),
            (-20.0, -215.0),
            (-28.0, -165.0),
            (-70.0, -112.0),
            (-118.0, -62.0),
            (-150.0, -42.0),
            (-170.0, -70.0),
        ]);
        let texture = |grains: [f64; 3], rng: &mut ChaCha8Rng| grains.map(|grain| Texture::new(grain, rng));
        let gas = gas(rng);
        let (trabeculae, flesh) = (texture([0.9, 1.8, 4.0], rng), texture([4.0, 11.0, 34.0], rng));
        Self { spine: spine.into(), ribs, ilium, sacrum, psoas, liver, gas, trabeculae, flesh }
    }

    /// Attenuation along the ray through `p`.
    fn attenuation(&self, p: Point) -> f64 {
        let (x, y) = p;
        // Waist and hips.
        let half = 165.0 - 14.0 * (-((y + 20.0) / 60.0).powi(2)).exp() + 12.0 * (-((y - 120.0) / 70.0).powi(2)).exp();
        let thickness = |half: f64, depth: f64| depth * (1.0 - (x.abs() / half).powf(2.6)).max(0.0).powf(0.55);
        let (body, inside) = (thickness(half, 214.0), thickness(half - 17.0, 176.0));
        if body == 0.0 {
            return 0.0;
        }
        let texture = |textures: &[Texture; 3], weights: [f64; 3]| {
            textures.iter().zip(weights).map(|(texture, weight)| weight * texture.at(p)).sum::<f64>()
        };
        let flesh = texture(&self.flesh, [0.016, 0.022, 0.03]);
        let mut water = inside * (0.72 + flesh);
        let side = x.abs();
        water += 34.0 * soft(outline((side, y), &self.psoas), 5.0);
        water += 42.0 * soft(outline(p, &self.liver), 7.0);
        for (centre, turn) in [((-64.0, -66.0), 14.0), ((62.0, -80.0), -14.0)] {
            water += 70.0 * ellipsoid(p, centre, (27.0, 55.0), turn);
        }
        water += 45.0 * ellipsoid(p, (104.0, -172.0), (34.0, 52.0), -24.0);
        water += 46.0 * ellipsoid(p, (2.0, 152.0), (52.0, 36.0), 0.0);
        let bone = self.bone(p);
        let trabeculae = (1.0 + texture(&self.trabeculae, [0.20, 0.16, 0.10])).max(0.4);
        // Where two pockets overlap, the wall between them is a fold and not twice the gas.
        let depth = |gas: &(Point, Point, f64, f64)| gas.3 * ellipsoid(p, gas.0, gas.1, gas.2);
        let gas = self.gas.iter().map(depth).fold(0.0, f64::max);
        FAT * body + WATER * water + CORTEX * bone.cortex + SPONGE * bone.sponge * trabeculae + GAS * gas
    }

    fn bone(&self, p: Point) -> Bone {
        let (x, y) = p;
        let side = x.abs();
        let mut bone = Bone::default();
        self.spine.iter().for_each(|vertebra| vertebra.add(p, &mut bone));
        for (line, radius) in &self.ribs {
            let (distance, t) = along(p, line);
            bone.tube(distance, radius * (1.0 - 0.25 * t), 0.9);
        }
        let ilium = outline((side, y), &self.ilium);
        // Thin in the middle of the wing, thick towards the hip.
        let hip = (-((side - 100.0) / 30.0).powi(2) - ((y - 128.0) / 26.0).powi(2)).exp();
        bone.plate(ilium, 2.6, 4.5, 5.0 + 16.0 * hip);
        let crest = soft(ilium, 1.0) * soft(y - 60.0, 30.0);
        bone.add(crest * 4.0 * (ilium / 3.0).exp(), 0.0);
        let sacrum = outline(p, &self.sacrum);
        bone.plate(sacrum, 2.0, 3.0, 24.0);
        for (row, across) in [(80.0, 17.0), (98.0, 14.5), (114.0, 12.0), (128.0, 9.5)] {
            let hole = ((side - across) / 4.6).hypot((y - row) / 3.6);
            bone.add(1.6 * (-((hole - 1.15) / 0.22).powi(2)).exp(), -9.0 * soft(hole - 1.0, 0.5) * soft(sacrum, 2.0));
            let crest = (x / 2.0).hypot((y - row + 6.0) / 5.5);
            bone.add(3.0 * (-((crest - 0.9) / 0.3).powi(2)).exp(), 0.0);
        }
        // The brim of the pelvis, the rami around the obturator's hole, and the symphysis between them.
        let mut ring = |line: &[Point], radius: f64, shell: f64| bone.tube(along((side, y), line).0, radius, shell);
        ring(&[(38.0, 88.0), (56.0, 104.0), (68.0, 124.0), (74.0, 146.0)], 2.4, 1.6);
        ring(&[(74.0, 146.0), (66.0, 160.0), (44.0, 172.0), (12.0, 182.0)], 7.0, 1.5);
        ring(&[(11.0, 182.0), (12.0, 198.0)], 8.6, 1.3);
        ring(&[(16.0, 196.0), (30.0, 215.0), (48.0, 222.0), (62.0, 212.0)], 6.0, 1.2);
        ring(&[(84.0, 150.0), (74.0, 178.0), (62.0, 212.0)], 9.0, 1.6);
        // Head, neck and shaft of the femur in its socket.
        let head = 23.5;
        let from_head = (side - 104.0).hypot(y - 160.0);
        bone.tube(from_head, head, 1.1);
        let turn = (160.0 - y).atan2(side - 104.0).to_degrees();
        let roof = soft((turn - 85.0).abs() - 72.0, 14.0);
        bone.add(roof * 9.0 * (-((from_head - head - 3.2) / 1.2).powi(2)).exp(), 0.0);
        bone.tube(along((side, y), &[(121.0, 173.0), (138.0, 188.0)]).0, 12.5, 1.2);
        bone.tube(along((side, y), &[(140.0, 184.0), (140.0, 230.0)]).0, 15.5, 3.2);
        bone.add(0.0, 20.0 * ellipsoid((side, y), (148.0, 180.0), (11.0, 16.0), -20.0));
        bone
    }
}

/// Gas in stomach and bowel: pockets along the colon between its folds, and bubbles in what it holds.
fn gas(rng: &mut ChaCha8Rng) -> Vec<(Point, Point, f64, f64)> {
    let mut pockets = vec![((72.0, -196.0), (44.0, 15.0), 12.0, 26.0)];
    let colon = [
        (vec![(-118.0, 40.0), (-126.0, 6.0), (-128.0, -34.0)], 0.7, 13.0),
        (
            vec![
                (-122.0, -58.0),
                (-92.0, -38.0),
                (-52.0, -18.0),
                (-8.0, -14.0),
                (40.0, -34.0),
                (84.0, -76.0),
                (112.0, -112.0),
            ],
            0.9,
            14.0,
        ),
        (vec![(128.0, -92.0), (134.0, -46.0), (130.0, 2.0), (118.0, 40.0)], 0.55, 9.0),
        (vec![(86.0, 66.0), (52.0, 92.0), (20.0, 104.0), (2.0, 122.0)], 0.6, 10.0),
    ];
    for (line, filled, radius) in colon {
        let line = smooth(&line);
        for at in (0..line.len()).step_by(2) {
            if rng.random::<f64>() > filled {
                continue;
            }
            let mut around = |value: f64, share: f64| value * (1.0 + share * (2.0 * rng.random::<f64>() - 1.0));
            let (a, b, depth) = (around(radius, 0.3), around(radius * 0.8, 0.3), around(radius * 1.5, 0.5));
            let turn = around(1.0, 1.0) * 90.0;
            pockets.push((line[at], (a, b), turn, depth));
        }
    }
    for _ in 0..150 {
        let mut around = |middle: f64, reach: f64| middle + reach * (2.0 * rng.random::<f64>() - 1.0);
        let (x, y) = (around(-122.0, 15.0), around(18.0, 52.0));
        let radius = around(2.6, 1.5);
        pockets.push(((x, y), (radius, radius), 0.0, 2.2 * radius));
    }
    pockets
}
