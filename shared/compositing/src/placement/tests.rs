//! Placement against a pixel-by-pixel statement of the rules.

use hiresmed_imaging::{Mask, Plane};
use proptest::prelude::*;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;

#[derive(Debug)]
struct Background {
    weights: Plane,
    permissible: Mask,
    body: Mask,
}

impl Background {
    fn open(width: usize, height: usize) -> Self {
        let everywhere = Mask::from_fn(width, height, |_, _| true);
        Self { weights: Plane::filled(width, height, 1.0), permissible: everywhere.clone(), body: everywhere }
    }

    fn scene(&self) -> Scene<'_> {
        Scene { weights: &self.weights, permissible: &self.permissible, body: &self.body }
    }

    fn placer(&self, rules: Rules) -> Placer<'_> {
        Placer::new(self.scene(), rules).unwrap()
    }
}

fn disc(side: usize) -> Mask {
    let radius = side as f64 / 2.0;
    Mask::from_fn(side, side, |x, y| {
        (x as f64 + 0.5 - radius).powi(2) + (y as f64 + 0.5 - radius).powi(2) <= radius * radius
    })
}

fn rng(seed: u8) -> ChaCha8Rng {
    ChaCha8Rng::from_seed([seed; 32])
}

/// The lesion's pixels in the image, if all are inside.
fn pixels(mask: &Mask, (x, y): (usize, usize), size: (usize, usize)) -> Option<Vec<(usize, usize)>> {
    let (cx, cy) = centre(mask)?;
    let mut pixels = Vec::new();
    for row in 0..mask.height() {
        for column in (0..mask.width()).filter(|&column| mask.get(column, row)) {
            let (px, py) = ((x + column).checked_sub(cx)?, (y + row).checked_sub(cy)?);
            if px >= size.0 || py >= size.1 {
                return None;
            }
            pixels.push((px, py));
        }
    }
    Some(pixels)
}

/// The rules, said plainly.
fn obeys(
    background: &Background,
    rules: Rules,
    mask: &Mask,
    at: (usize, usize),
    others: &[Vec<(usize, usize)>],
) -> bool {
    let size = (background.weights.width(), background.weights.height());
    let Some(own) = pixels(mask, at, size) else { return false };
    let border = rules.border_px;
    let off_border =
        |&(x, y): &(usize, usize)| x >= border && y >= border && x + border < size.0 && y + border < size.1;
    let safe = |&(x, y): &(usize, usize)| background.permissible.get(x, y) && background.body.get(x, y);
    let gap = rules.gap_px.max(MINIMUM_GAP_PX);
    let near = |a: &(usize, usize), b: &(usize, usize)| a.0.abs_diff(b.0).max(a.1.abs_diff(b.1)) <= gap;
    own.iter().all(off_border)
        && match rules.rule {
            Rule::Footprint => own.iter().all(safe),
            Rule::Centre => safe(&at),
        }
        && !others.iter().flatten().any(|other| own.iter().any(|pixel| near(pixel, other)))
}

fn mask_strategy(max_side: usize) -> impl Strategy<Value = Mask> {
    (1..=max_side, 1..=max_side).prop_flat_map(|(width, height)| {
        prop::collection::vec(prop::bool::weighted(0.7), width * height).prop_map(move |mut bits| {
            bits[width * height / 2] = true;
            Mask::new(width, height, bits.into_iter().map(u8::from).collect())
        })
    })
}

fn background_strategy() -> impl Strategy<Value = Background> {
    (12usize..48, 12usize..48, any::<u64>()).prop_map(|(width, height, seed)| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut holes = Mask::empty(width, height);
        for _ in 0..4 {
            let mut below = |bound: usize| (rng.next_u32() as usize) % bound;
            let (x, y, side) = (below(width), below(height), 1 + below(6));
            for dy in 0..side {
                for dx in 0..side {
                    holes.set((x + dx).min(width - 1), (y + dy).min(height - 1), true);
                }
            }
        }
        let weights = (0..width * height).map(|_| (rng.next_u32() % 5) as f32).collect();
        let cut = rng.next_u32() as usize % 5;
        Background {
            weights: Plane::new(width, height, weights),
            permissible: holes.inverted(),
            body: Mask::from_fn(width, height, |x, y| x + y >= cut),
        }
    })
}

fn rules_strategy() -> impl Strategy<Value = Rules> {
    (any::<bool>(), 0usize..8, 0usize..4).prop_map(|(footprint, gap_px, border_px)| Rules {
        rule: if footprint { Rule::Footprint } else { Rule::Centre },
        gap_px,
        border_px,
        override_danger: false,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_placed_lesion_obeys_the_rules_and_every_allowed_position_is_found(
        background in background_strategy(),
        rules in rules_strategy(),
        masks in prop::collection::vec(mask_strategy(7), 1..4),
        seed in any::<u8>(),
    ) {
        let size = (background.weights.width(), background.weights.height());
        let mut placer = background.placer(rules);
        let mut rng = rng(seed);
        let mut others = Vec::new();
        for mask in &masks {
            let expected = Mask::from_fn(size.0, size.1, |x, y| obeys(&background, rules, mask, (x, y), &others));
            match placer.candidates(mask) {
                Ok(candidates) => {
                    prop_assert_eq!(&candidates.allowed, &expected);
                    // Pinned positions are judged by the same rules.
                    for at in (0..size.0 * size.1).step_by(7) {
                        let position = (at % size.0, at / size.0);
                        let taken = placer.clone().place_at(mask, position).is_ok();
                        prop_assert_eq!(taken, expected.get(position.0, position.1));
                    }
                }
                Err(refusal) => {
                    prop_assert_eq!(expected.area(), 0);
                    prop_assert!(matches!(refusal, Refusal::NoRoom { .. }), "{}", refusal);
                    continue;
                }
            }
            match placer.place(mask, &mut rng) {
                Ok(placed) => {
                    prop_assert!(expected.get(placed.centre.0, placed.centre.1));
                    prop_assert!(background.weights.at(placed.centre.0, placed.centre.1) > 0.0);
                    others.push(pixels(mask, placed.centre, size).unwrap());
                }
                Err(refusal) => prop_assert!(matches!(refusal, Refusal::NoCandidate { .. }), "{}", refusal),
            }
        }
    }
}

#[test]
fn positions_repeat_with_the_seed_and_follow_the_weights() {
    let mut background = Background::open(64, 32);
    for y in 0..32 {
        for x in 0..64 {
            background.weights.set(x, y, if x < 32 { 3.0 } else { 1.0 });
        }
    }
    let rules = Rules { border_px: 0, ..Default::default() };
    let draw = |rng: &mut ChaCha8Rng| background.placer(rules).place(&disc(1), rng).unwrap().centre;
    let mut generator = rng(1);
    let drawn: Vec<(usize, usize)> = (0..4000).map(|_| draw(&mut generator)).collect();
    let mut generator = rng(1);
    assert_eq!(drawn[..50], (0..50).map(|_| draw(&mut generator)).collect::<Vec<_>>());
    assert_ne!(draw(&mut rng(2)), draw(&mut rng(3)));
    // Three in four to the left: within four standard deviations of 4,000 draws.
    let left = drawn.iter().filter(|(x, _)| *x < 32).count() as f64 / 4000.0;
    assert!((left - 0.75).abs() < 0.028, "{left}");
    let (rows, columns): (f64, f64) =
        drawn.iter().fold((0.0, 0.0), |sum, &(x, y)| (sum.0 + y as f64, sum.1 + x as f64));
    assert!((rows / 4000.0 - 15.5).abs() < 0.6, "{}", rows / 4000.0);
    assert!((columns / 4000.0 - 23.5).abs() < 1.1, "{}", columns / 4000.0);
}

#[test]
fn each_refusal_names_its_reason() {
    let mut background = Background::open(40, 30);
    background.permissible = Mask::from_fn(40, 30, |x, _| x < 20);
    background.body = Mask::from_fn(40, 30, |_, y| y >= 6);
    let mut placer = background.placer(Rules { border_px: 2, gap_px: 6, ..Default::default() });
    let lesion = disc(5);
    let refusal = |placer: &mut Placer<'_>, at| placer.place_at(&lesion, at).unwrap_err().to_string();
    assert_eq!(refusal(&mut placer, (40, 3)), "(40, 3) lies outside the image of 40 x 30 pixels");
    let text = refusal(&mut placer, (3, 15));
    assert!(text.contains("columns 1 to 5") && text.contains("2 px from the image's edge"), "{text}");
    let text = refusal(&mut placer, (10, 7));
    assert!(text.contains("14 % of the lesion would lie outside the body"), "{text}");
    let text = refusal(&mut placer, (19, 15));
    assert!(text.contains("38 % of the lesion would lie in a danger zone"), "{text}");
    assert!(placer.place_at(&lesion, (10, 15)).is_ok());
    assert!(refusal(&mut placer, (10, 25)).contains("within 6 px of lesion 1"));
    assert!(placer.place_at(&lesion, (10, 26)).is_err(), "the border");
    assert_eq!(placer.placed().len(), 1);
    assert_eq!(placer.place_at(&Mask::empty(3, 3), (10, 15)), Err(Refusal::EmptyLesion));
}

#[test]
fn danger_zones_can_be_overridden_for_pinned_positions_only() {
    let mut background = Background::open(40, 30);
    background.permissible = Mask::empty(40, 30);
    let rules = Rules { override_danger: true, ..Default::default() };
    assert!(background.placer(rules).place_at(&disc(5), (20, 15)).is_ok());
    let refusal = background.placer(rules).place(&disc(5), &mut rng(1)).unwrap_err();
    assert!(matches!(refusal, Refusal::NoRoom { free_area: 0, .. }), "{refusal}");
}

#[test]
fn the_paper_s_rule_tests_the_centre_alone() {
    let mut background = Background::open(40, 30);
    background.permissible = Mask::from_fn(40, 30, |x, y| (x, y) == (20, 15));
    let centre_rule = Rules { rule: Rule::Centre, ..Default::default() };
    assert_eq!(background.placer(centre_rule).place(&disc(9), &mut rng(1)).unwrap().centre, (20, 15));
    assert!(background.placer(Rules::default()).place(&disc(9), &mut rng(1)).is_err());
}

#[test]
fn no_room_says_how_much_there_is() {
    let mut background = Background::open(60, 60);
    background.permissible = Mask::from_fn(60, 60, |x, y| (20..31).contains(&x) && (20..31).contains(&y));
    let refusal = background.placer(Rules::default()).candidates(&disc(15)).unwrap_err();
    let expected = Refusal::NoRoom {
        lesion_width: 15,
        lesion_height: 15,
        lesion_area: disc(15).area(),
        free_area: 121,
        widest_px: 11.0,
    };
    assert_eq!(refusal, expected);
    assert!(refusal.to_string().contains("15 x 15 px"));
    assert!(background.placer(Rules::default()).candidates(&disc(11)).is_ok());
    // Larger than the image in either direction.
    assert!(matches!(
        background.placer(Rules::default()).candidates(&Mask::from_fn(200, 1, |_, _| true)),
        Err(Refusal::NoRoom { lesion_width: 200, .. })
    ));
    background.weights = Plane::filled(60, 60, 0.0);
    let refusal = background.placer(Rules::default()).place(&disc(11), &mut rng(1)).unwrap_err();
    assert_eq!(refusal, Refusal::NoCandidate { positions: 1 });
}

#[test]
fn peaks_are_heaviest_first_and_apart() {
    let mut background = Background::open(40, 30);
    background.weights = Plane::filled(40, 30, 0.0);
    for (x, y, weight) in [(10, 10, 4.0), (11, 10, 3.0), (25, 20, 2.0), (1, 1, 9.0)] {
        background.weights.set(x, y, weight);
    }
    let candidates = background.placer(Rules::default()).candidates(&disc(3)).unwrap();
    let peaks = candidates.peaks(5, 4);
    assert_eq!(peaks.iter().map(|peak| (peak.x, peak.y)).collect::<Vec<_>>(), [(10, 10), (25, 20)]);
    assert!((peaks[0].weight - 4.0 / 9.0).abs() < 1e-9);
}

#[test]
fn a_scene_that_is_not_one_is_refused() {
    let mut background = Background::open(40, 30);
    background.weights.set(3, 4, f32::NAN);
    assert!(matches!(Placer::new(background.scene(), Rules::default()), Err(Refusal::Weight { x: 3, y: 4, .. })));
    background.weights.set(3, 4, -1.0);
    assert!(Placer::new(background.scene(), Rules::default()).is_err());
    background.weights.set(3, 4, 1.0);
    background.body = Mask::empty(39, 30);
    let text = Placer::new(background.scene(), Rules::default()).unwrap_err().to_string();
    assert!(text.contains("body map is (39, 30)"), "{text}");
}

#[test]
fn the_patch_lands_around_its_centre() {
    let background = Background::open(40, 30);
    // A mask off the middle of its patch.
    let mask = Mask::from_fn(20, 20, |x, y| (12..15).contains(&x) && (3..6).contains(&y));
    let placed = background.placer(Rules::default()).place_at(&mask, (13, 8)).unwrap();
    assert_eq!((placed.left, placed.top, placed.area), (0, 4, 9));
}
