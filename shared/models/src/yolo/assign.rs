//! Which cells answer for which lesion: task-aligned assignment (Feng et al. 2021, TOOD).
//!
//! A cell's alignment with a lesion is score^0.5 · IoU^6 of what it predicts now. Of the cells inside a lesion's box those that
//! are best aligned answer for it; the best of them is to reach the best IoU as its score, the others in proportion.

use super::config::Cell;
use crate::data::{Label, Region};

/// Exponents of score and overlap in the alignment.
const SCORE_POWER: f32 = 0.5;
const OVERLAP_POWER: i32 = 6;
/// A lesion is looked for in a box of at least so many cells of the finest level along each side: of few pixels, it might hold the
/// middle of none.
const LEAST_CELLS: f32 = 2.0;

/// A cell that answers for a lesion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Answer {
    /// Index of the cell.
    pub cell: usize,
    /// Index of the lesion.
    pub lesion: usize,
    /// The score that the cell is to give the lesion's class, in (0, 1].
    pub score: f32,
}

/// A candidate of one lesion.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    cell: usize,
    alignment: f32,
    overlap: f32,
    distance: f32,
}

/// The answers in one image, by cell. `scores` `[classes, cells]` are probabilities, `boxes` `[cells]` in pixels, both as the
/// network gives them now; `most` cells answer for one lesion at most.
pub(super) fn assign(cells: &[Cell], labels: &[Label], scores: &[f32], boxes: &[Region], most: usize) -> Vec<Answer> {
    let finest = cells.iter().map(|cell| cell.stride).fold(f32::INFINITY, f32::min);
    let mut best: Vec<Option<(usize, Candidate)>> = vec![None; cells.len()];
    for (lesion, label) in labels.iter().enumerate() {
        let Some(scores) = scores.get(label.class * cells.len()..(label.class + 1) * cells.len()) else { continue };
        for candidate in candidates(cells, &label.region, scores, boxes, finest, most) {
            let taken = &mut best[candidate.cell];
            // A cell that two lesions want answers for the one that it overlaps more.
            if taken.is_none_or(|(_, other)| candidate.overlap > other.overlap) {
                *taken = Some((lesion, candidate));
            }
        }
    }
    let mut greatest = vec![(0f32, 0f32); labels.len()];
    for (lesion, candidate) in best.iter().flatten() {
        let (alignment, overlap) = &mut greatest[*lesion];
        *alignment = alignment.max(candidate.alignment);
        *overlap = overlap.max(candidate.overlap);
    }
    let answer = |(lesion, candidate): &(usize, Candidate)| {
        let (alignment, overlap) = greatest[*lesion];
        // Where all alignments vanish, all are equal.
        let share = if alignment > 0.0 { candidate.alignment / alignment } else { 1.0 };
        Answer { cell: candidate.cell, lesion: *lesion, score: (share * overlap).clamp(1e-4, 1.0) }
    };
    best.iter().flatten().map(answer).collect()
}

/// The best aligned cells of a lesion; of equals the nearest, so that a lesion that nothing overlaps yet has some too.
fn candidates(
    cells: &[Cell],
    lesion: &Region,
    scores: &[f32],
    boxes: &[Region],
    finest: f32,
    most: usize,
) -> Vec<Candidate> {
    let least = LEAST_CELLS * finest;
    let (x, y) = lesion.centre();
    let reach = Region::about((x, y), lesion.width().max(least), lesion.height().max(least));
    let inside = (0..cells.len()).filter(|&cell| reach.holds(cells[cell].centre));
    let mut found: Vec<Candidate> = inside
        .map(|cell| {
            let overlap = lesion.iou(&boxes[cell]);
            let alignment = scores[cell].powf(SCORE_POWER) * overlap.powi(OVERLAP_POWER);
            let centre = cells[cell].centre;
            Candidate { cell, alignment, overlap, distance: (centre.0 - x).hypot(centre.1 - y) }
        })
        .collect();
    found.sort_by(|a, b| b.alignment.total_cmp(&a.alignment).then(a.distance.total_cmp(&b.distance)));
    found.truncate(most);
    found
}

#[cfg(test)]
mod tests {
    use super::super::config::Config;
    use super::*;

    fn cells() -> Vec<Cell> {
        Config { side: 64, finest_stride: 4, ..Config::N }.cells(64)
    }

    fn label(centre: (f32, f32), side: f32) -> Label {
        Label { class: 0, region: Region::about(centre, side, side) }
    }

    #[test]
    fn the_best_aligned_cells_inside_the_box_answer() {
        let cells = cells();
        let lesion = label((20.0, 20.0), 16.0);
        let mut boxes: Vec<Region> = cells.iter().map(|cell| Region::about(cell.centre, 1.0, 1.0)).collect();
        let mut scores = vec![0.1; cells.len()];
        // Row 4, column 4 of the finest level (16 x 16 cells) predicts the lesion itself; its neighbour three quarters of it.
        (boxes[4 * 16 + 4], scores[4 * 16 + 4]) = (lesion.region, 0.64);
        boxes[4 * 16 + 5] = Region { right: 24.0, ..lesion.region };
        // Far away, and as good: not inside the box.
        (boxes[0], scores[0]) = (lesion.region, 1.0);
        let answers = assign(&cells, &[lesion], &scores, &boxes, 2);
        assert_eq!(answers.len(), 2);
        assert_eq!((answers[0].cell, answers[0].score), (4 * 16 + 4, 1.0));
        // Alignment 0.1^0.5 · 0.75^6 against 0.8: its share of the best IoU, 1.
        let expected = 0.1f32.sqrt() * 0.75f32.powi(6) / 0.8;
        assert_eq!(answers[1].cell, 4 * 16 + 5);
        assert!((answers[1].score - expected).abs() < 1e-5, "{answers:?}");
    }

    #[test]
    fn a_cell_answers_once_and_for_the_lesion_that_it_overlaps_more() {
        let cells = cells();
        let lesions = [label((20.0, 20.0), 16.0), label((24.0, 20.0), 16.0)];
        let boxes: Vec<Region> = cells.iter().map(|_| lesions[1].region).collect();
        let answers = assign(&cells, &lesions, &vec![0.5; cells.len()], &boxes, 500);
        let mut seen: Vec<usize> = answers.iter().map(|answer| answer.cell).collect();
        seen.dedup();
        assert_eq!(seen.len(), answers.len());
        for answer in &answers {
            let inside = lesions[1].region.holds(cells[answer.cell].centre);
            assert_eq!(answer.lesion, usize::from(inside), "{answer:?}");
        }
    }

    #[test]
    fn the_smallest_lesion_has_an_answer_even_before_anything_overlaps_it() {
        let cells = cells();
        let boxes = vec![Region::about((0.0, 0.0), 0.0, 0.0); cells.len()];
        // Between four cells' middles.
        let answers = assign(&cells, &[label((20.0, 20.0), 1.0)], &vec![0.0; cells.len()], &boxes, 10);
        assert!((1..=10).contains(&answers.len()) && answers.iter().all(|answer| answer.score > 0.0), "{answers:?}");
        assert!(assign(&cells, &[], &vec![0.0; cells.len()], &boxes, 10).is_empty());
    }
}
