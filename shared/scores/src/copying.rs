//! Data copying: whether a generator recites the images that it was trained on.
//!
//! The distance of two images is the root mean square difference of their pixels, the least over small shifts and mirroring, so that
//! neither hides a copy. What samples have as distances to the nearest training image is held against what images have that are no
//! samples: held-out ones (Meehan, Chaudhuri, Dasgupta: A Non-Parametric Test to Detect Data-Copying in Generative Models, AISTATS
//! 2020), or the training images themselves, each to those of other series.
//!
//! Such distances favour images that are blurred, which are near to everything: they find copies, and prove nothing where they find none.

use hiresmed_imaging::Plane;
use rayon::prelude::*;

use crate::Error;

/// Side to which the images are brought before they are compared, pixels: noise and texture are gone, anatomy is not.
pub const SIDE: usize = 64;
/// A copy may be shifted by so many pixels each way.
pub const SHIFT: usize = 4;
/// Name of the score in a model's description that is 1 where the model is suspect, and else 0.
pub const SUSPECT_SCORE: &str = "samples_suspect";
/// A probability under which something is no chance: three standard deviations, one of 700 generators that copy nothing.
const CHANCE: f64 = 1.35e-3;
const DEVIATIONS: f64 = 3.0;
/// Held-out images from which on samples are held against them: of a few, nothing is beyond chance.
const LEAST_HELD_OUT: usize = 8;
/// Training images at most that are themselves held against the others, evenly spread over the set.
const REFERENCES: usize = 64;

/// A training image.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// What it is a part of: its neighbours there are of the same patient.
    pub series: String,
    /// Its pixels, [-1, 1].
    pub plane: Plane,
}

/// Least, middle and greatest of some distances.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Distances.
    pub count: usize,
    /// The least.
    pub least: f64,
    /// The one in the middle, the greater one of two.
    pub middle: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Spread {
    /// `None` of nothing. `values` are sorted by size.
    fn of(values: &[f64]) -> Option<Self> {
        let (&least, &greatest) = (values.first()?, values.last()?);
        Some(Self { count: values.len(), least, middle: *values.get(values.len() / 2)?, greatest })
    }
}

/// Distances of samples to the training images beside those of images that are no samples: held-out ones where there are eight or more,
/// else training images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Against {
    /// Whether these are held-out images.
    pub held_out: bool,
    /// Share of the pairs in which the sample is nearer; ties count half. 0.5 where both are alike, 1 where all samples are copies.
    pub nearer: f64,
    /// The same as the standard score of Mann and Whitney's U: 0 where both are alike, far below it where samples are copies (Z_U of
    /// Meehan et al.).
    pub z: f64,
    /// Samples that are nearer than every image that is none: a generator that recites now and then has many of them, whatever its other
    /// samples are.
    pub first: usize,
    /// Probability of so many or more where both are alike (the precedence test; Balakrishnan and Ng, Precedence-Type Tests and Applications,
    /// 2006).
    pub first_chance: f64,
}

/// What there is to say on whether a generator copies, and whether it has collapsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// Samples to the training images.
    pub samples: Spread,
    /// Held-out images to the training images.
    pub held_out: Option<Spread>,
    /// Training images to those of other series, or of the same where there is one alone; `None` for a set of one image.
    pub training: Option<Spread>,
    /// Samples to each other; `None` for a single one.
    pub samples_apart: Option<Spread>,
    /// Training images to each other; `None` for a set of one image.
    pub training_apart: Option<Spread>,
    /// Samples beside what they are held against; `None` where there is nothing.
    pub against: Option<Against>,
}

impl Evidence {
    /// Holds `samples` against `training`. `None` where either is empty.
    ///
    /// Takes time as `(samples + held_out + 64) * training`, 0.1 ms each for images of [`SIDE`].
    ///
    /// # Errors
    /// [`Error::Size`] where images differ in size, [`Error::Small`] where they are under [`SHIFT`] + 1 pixels wide or high,
    /// [`Error::NotFinite`].
    pub fn new(samples: &[Plane], training: &[Known], held_out: &[Plane]) -> Result<Option<Self>, Error> {
        let Some(first) = samples.first() else { return Ok(None) };
        for plane in samples.iter().chain(held_out).chain(training.iter().map(|known| &known.plane)) {
            crate::check(first, plane, 2.0)?;
        }
        if first.width().min(first.height()) <= SHIFT {
            return Err(Error::Small { width: first.width(), height: first.height(), least: SHIFT + 1 });
        }
        let to_training = |planes: &[Plane]| {
            let to = |plane| nearest(plane, training).map(|(_, distance)| distance);
            sorted(planes.par_iter().filter_map(to).collect())
        };
        let of_samples = to_training(samples);
        let Some(spread) = Spread::of(&of_samples) else { return Ok(None) };
        let of_held_out = to_training(held_out);
        let references = evenly(training, REFERENCES);
        let to_others = |known: &&Known| {
            let others = |same: bool| {
                let others = training.iter().filter(move |other| same || other.series != known.series);
                others.filter(|other| !std::ptr::eq(*other, *known))
            };
            let found = nearest(&known.plane, others(false)).or_else(|| nearest(&known.plane, others(true)));
            found.map(|(_, distance)| distance)
        };
        let of_training = sorted(references.par_iter().filter_map(to_others).collect());
        let references: Vec<&Plane> = references.iter().map(|known| &known.plane).collect();
        let shown: Vec<&Plane> = evenly(samples, REFERENCES);
        let enough = of_held_out.len() >= LEAST_HELD_OUT || of_training.is_empty();
        let yardstick = if enough { &of_held_out } else { &of_training };
        Ok(Some(Self {
            samples: spread,
            held_out: Spread::of(&of_held_out),
            training: Spread::of(&of_training),
            samples_apart: Spread::of(&pairs(&shown)),
            training_apart: Spread::of(&pairs(&references)),
            against: Against::of(&of_samples, yardstick, enough),
        }))
    }

    /// Whether samples are nearer to the training images than chance has it: the mark of a generator that recites, or of one that only
    /// blurs.
    pub fn is_suspect(&self) -> bool {
        self.against.is_some_and(|against| against.z <= -DEVIATIONS || against.first_chance <= CHANCE)
    }
}

impl Against {
    /// `None` where one has no value. Both are sorted.
    fn of(samples: &[f64], others: &[f64], held_out: bool) -> Option<Self> {
        let (count, other_count) = (samples.len() as f64, others.len() as f64);
        let pairs = count * other_count;
        let orders = samples.iter().flat_map(|sample| others.iter().map(move |other| sample.total_cmp(other)));
        let nearer: f64 = orders.map(|order| [1.0, 0.5, 0.0][(order as i8 + 1) as usize]).sum();
        let deviation = (pairs * (count + other_count + 1.0) / 12.0).sqrt();
        let least = others.first()?;
        let first = samples.iter().take_while(|sample| *sample < least).count();
        // That the first of all are samples, one after the other.
        let each = (0..first).map(|taken| (count - taken as f64) / (count + other_count - taken as f64));
        let first_chance = each.product();
        (pairs > 0.0).then(|| Self {
            held_out,
            nearer: nearer / pairs,
            z: (pairs / 2.0 - nearer) / deviation,
            first,
            first_chance,
        })
    }
}

/// The training image that is nearest to `image`, of the same size, over shifts and mirroring, and the distance; `None` of none.
pub fn nearest<'a>(image: &Plane, training: impl IntoIterator<Item = &'a Known>) -> Option<(&'a Known, f64)> {
    let turned = [image.clone(), mirrored(image)];
    training.into_iter().fold(None, |found, known| {
        let least = found.map_or(f64::INFINITY, |(_, least)| least);
        let distance = apart(&turned, &known.plane, least);
        if distance < least { Some((known, distance)) } else { found }
    })
}

/// Least root mean square difference of one of the two images to `other`, over shifts; `enough` where none is less.
fn apart(turned: &[Plane; 2], other: &Plane, enough: f64) -> f64 {
    let (width, height) = (other.width(), other.height());
    // Where two images begin to overlap of which one lies so much further on.
    let begin = |by: isize| (by.max(0) as usize, (-by).max(0) as usize);
    let mut least = enough;
    for (down, right) in shifts() {
        let ((left, other_left), (top, other_top)) = (begin(right), begin(down));
        let (columns, rows) = (width - right.unsigned_abs(), height - down.unsigned_abs());
        let count = (columns * rows) as f64;
        for image in turned {
            let row = |plane: &Plane, top: usize, left: usize, row: usize| (top + row) * plane.width() + left;
            let mut sum = 0.0;
            for at in 0..rows {
                let own = &image.data()[row(image, top, left, at)..][..columns];
                let others = &other.data()[row(other, other_top, other_left, at)..][..columns];
                sum += f64::from(own.iter().zip(others).map(|(a, b)| (a - b) * (a - b)).sum::<f32>());
                // No copy: the sum only grows.
                if sum >= least * least * count {
                    break;
                }
            }
            least = least.min((sum / count).sqrt());
        }
    }
    least
}

/// No shift first: most images are nearest there, and what follows ends early.
fn shifts() -> impl Iterator<Item = (isize, isize)> {
    let range = -(SHIFT as isize)..=SHIFT as isize;
    let all = range.clone().flat_map(move |down| range.clone().map(move |right| (down, right)));
    std::iter::once((0, 0)).chain(all.filter(|&shift| shift != (0, 0)))
}

fn mirrored(image: &Plane) -> Plane {
    let rows = image.data().chunks(image.width()).flat_map(|row| row.iter().rev().copied());
    Plane::new(image.width(), image.height(), rows.collect())
}

/// The distances of every two of the images, sorted.
fn pairs(images: &[&Plane]) -> Vec<f64> {
    let to_others = |(at, image): (usize, &&Plane)| {
        let turned = [(*image).clone(), mirrored(image)];
        images[..at].iter().map(|other| apart(&turned, other, f64::INFINITY)).collect::<Vec<_>>()
    };
    sorted(images.par_iter().enumerate().flat_map_iter(to_others).collect())
}

/// At most `most` of the values, evenly spread over them.
fn evenly<T>(values: &[T], most: usize) -> Vec<&T> {
    let count = values.len().min(most);
    (0..count).filter_map(|at| values.get(at * values.len() / count)).collect()
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture that is unlike that of any other seed: a few discs on dark ground.
    fn picture(seed: usize) -> Plane {
        // SplitMix64.
        let mut state = seed as u64;
        let mut of = |most: f32| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed ^ (mixed >> 31)) >> 40) as f32 / (1u64 << 24) as f32 * most
        };
        let mut disc = |_| (of(64.0), of(64.0), 6.0 + of(14.0), of(1.5));
        let discs: Vec<_> = (0..6).map(&mut disc).collect();
        let value = |x: f32, y: f32| {
            let lit = discs.iter().filter(|(left, top, radius, _)| (x - left).hypot(y - top) < *radius);
            (-1.0 + lit.map(|(.., light)| light).sum::<f32>()).min(1.0)
        };
        Plane::new(SIDE, SIDE, (0..SIDE * SIDE).map(|at| value((at % SIDE) as f32, (at / SIDE) as f32)).collect())
    }

    fn shifted(plane: &Plane, right: usize, down: usize) -> Plane {
        let mut moved = Plane::filled(SIDE, SIDE, -1.0);
        for y in down..SIDE {
            for x in right..SIDE {
                moved.set(x, y, plane.at(x - right, y - down));
            }
        }
        moved
    }

    fn known(seeds: std::ops::Range<usize>) -> Vec<Known> {
        seeds.map(|seed| Known { series: seed.to_string(), plane: picture(seed) }).collect()
    }

    #[test]
    fn neither_a_shift_nor_a_mirror_hides_a_copy() {
        let (image, other) = (picture(1), picture(2));
        let distance =
            |a: &Plane, b: &Plane| nearest(a, [&Known { series: String::new(), plane: b.clone() }]).unwrap().1;
        assert_eq!(distance(&image, &image), 0.0);
        assert_eq!(distance(&mirrored(&image), &image), 0.0);
        assert_eq!(distance(&shifted(&image, 3, 4), &image), 0.0);
        assert_eq!(distance(&mirrored(&shifted(&image, 4, 0)), &image), 0.0);
        assert!(distance(&shifted(&image, 7, 0), &image) > 0.1);
        assert!(distance(&image, &other) > 0.2);
        assert_eq!(distance(&image, &other), distance(&other, &image));
        // Half a pixel's worth of grey everywhere.
        let lighter = Plane::new(SIDE, SIDE, image.data().iter().map(|value| value + 0.01).collect());
        assert!((distance(&lighter, &image) - 0.01).abs() < 1e-6);
    }

    #[test]
    fn the_nearest_is_the_one_that_every_comparison_finds() {
        let others = known(3..9);
        for seed in 0..3 {
            let image = picture(seed);
            let turned = [image.clone(), mirrored(&image)];
            let each = others.iter().map(|known| apart(&turned, &known.plane, f64::INFINITY));
            let least = each.fold(f64::INFINITY, f64::min);
            let (known, distance) = nearest(&image, &others).unwrap();
            assert_eq!((distance, apart(&turned, &known.plane, f64::INFINITY)), (least, least));
        }
    }

    #[test]
    fn a_generator_that_recites_is_suspect_and_one_that_does_not_is_not() {
        let training = known(0..24);
        let held_out: Vec<Plane> = (30..42).map(picture).collect();
        let copies: Vec<Plane> = training.iter().step_by(2).map(|known| shifted(&known.plane, 2, 1)).collect();
        let own: Vec<Plane> = (50..66).map(picture).collect();
        for reference in [&held_out[..], &[]] {
            let recited = Evidence::new(&copies, &training, reference).unwrap().unwrap();
            assert!(recited.is_suspect(), "{recited:?}");
            assert_eq!((recited.samples.greatest, recited.against.unwrap().nearer), (0.0, 1.0));
            let drawn = Evidence::new(&own, &training, reference).unwrap().unwrap();
            assert!(!drawn.is_suspect(), "{drawn:?}");
            assert!((0.2..0.8).contains(&drawn.against.unwrap().nearer), "{drawn:?}");
            assert_eq!(drawn.held_out.is_some(), !reference.is_empty());
        }
        // Two of them prove nothing: the training images are the yardstick, and both are told.
        let recited = Evidence::new(&copies, &training, &held_out[..2]).unwrap().unwrap();
        assert!(recited.is_suspect() && !recited.against.unwrap().held_out, "{recited:?}");
        assert_eq!(recited.held_out.unwrap().count, 2);
    }

    #[test]
    fn one_that_recites_now_and_then_is_suspect_though_its_other_samples_are_far() {
        let others: Vec<f64> = (0..25).map(|at| 0.4 + f64::from(at) / 250.0).collect();
        let mixed: Vec<f64> = (0..32).map(|at| if at < 13 { 0.3 } else { 0.6 }).collect();
        let against = Against::of(&mixed, &others, true).unwrap();
        assert!(against.z > 0.0 && against.first == 13 && against.first_chance < CHANCE, "{against:?}");
        let few = Against::of(&mixed[10..], &others, true).unwrap();
        assert!(few.first == 3 && few.first_chance > 0.05, "{few:?}");
    }

    #[test]
    fn the_score_is_that_of_mann_and_whitney() {
        let against = Against::of(&[1.0, 2.0, 5.0], &[3.0, 4.0, 5.0, 6.0], true).unwrap();
        // scipy.stats.mannwhitneyu([1, 2, 5], [3, 4, 5, 6]): U = 2.5 of 12; without its correction for ties and continuity.
        assert_eq!(against.nearer, 9.5 / 12.0);
        assert!((against.z - (2.5 - 6.0) / 8f64.sqrt()).abs() < 1e-12, "{against:?}");
        // Two of seven are the first, both of the three: 3/7 · 2/6.
        assert_eq!(against.first, 2);
        assert!((against.first_chance - 1.0 / 7.0).abs() < 1e-12, "{against:?}");
        let equal = Against { held_out: true, nearer: 0.5, z: 0.0, first: 0, first_chance: 1.0 };
        assert_eq!(Against::of(&[1.0], &[1.0], true), Some(equal));
        assert_eq!(Against::of(&[], &[1.0], true), None);
    }

    #[test]
    fn a_neighbour_of_the_same_series_is_no_yardstick_where_there_are_others() {
        let pair = |seed: usize| {
            let series = seed.to_string();
            let near = Plane::new(SIDE, SIDE, picture(seed).data().iter().map(|value| value * 0.99).collect());
            [Known { series: series.clone(), plane: picture(seed) }, Known { series, plane: near }]
        };
        let training: Vec<Known> = (0..6).flat_map(pair).collect();
        let of = |training: &[Known]| Evidence::new(&[picture(9)], training, &[]).unwrap().unwrap().training.unwrap();
        assert!(of(&training).least > 0.1);
        assert!(of(&training[..2]).least < 0.02, "one series alone has nothing else");
        assert_eq!(Evidence::new(&[picture(9)], &training[..1], &[]).unwrap().unwrap().training, None);
    }

    #[test]
    fn a_generator_that_has_collapsed_has_samples_that_are_alike() {
        let training = known(0..8);
        let alike: Vec<Plane> = (0..4).map(|by| shifted(&picture(30), by, 0)).collect();
        let evidence = Evidence::new(&alike, &training, &[]).unwrap().unwrap();
        assert_eq!(evidence.samples_apart.unwrap().greatest, 0.0);
        assert!(evidence.training_apart.unwrap().least > 0.1);
        assert_eq!(evidence.samples_apart.unwrap().count, 6);
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let training = known(0..2);
        assert_eq!(Evidence::new(&[], &training, &[]), Ok(None));
        assert_eq!(Evidence::new(&[picture(1)], &[], &[]), Ok(None));
        let small = Plane::filled(SIDE, SIDE - 1, 0.0);
        assert!(matches!(Evidence::new(&[picture(1)], &training, &[small]), Err(Error::Size { .. })));
        let hole = Plane::filled(SIDE, SIDE, f32::NAN);
        assert_eq!(Evidence::new(&[hole], &training, &[]), Err(Error::NotFinite));
        let narrow = Known { series: String::new(), plane: Plane::filled(SHIFT, 9, 0.0) };
        let refused = Evidence::new(std::slice::from_ref(&narrow.plane), std::slice::from_ref(&narrow), &[]);
        assert!(matches!(refused, Err(Error::Small { .. })), "{refused:?}");
    }
}
