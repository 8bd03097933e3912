//! How good a detector is on images that it was not trained on.

use super::Detection;
use crate::data::Label;

/// Overlap (IoU) from which a detection counts as the lesion's.
const OVERLAP: f32 = 0.5;
/// Recall values at which precision is averaged, as COCO does it.
const RECALLS: usize = 101;

/// Precision, recall and average precision over a set of images, all classes together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// Share of the detections at or above the threshold that are a lesion; `None` without a detection.
    pub precision: Option<f64>,
    /// Share of the lesions that are found at or above the threshold; `None` without a lesion.
    pub recall: Option<f64>,
    /// Mean precision over recall, whatever the threshold, at an IoU of 0.5; `None` without a lesion.
    pub ap50: Option<f64>,
    /// Lesions in all.
    pub lesions: usize,
    /// Detections at or above the threshold.
    pub detections: usize,
}

/// Scores of `images`, each with its detections (any order) and its labels. A lesion is found by one detection of its class, the
/// surest first; each further one of the same lesion is wrong.
pub fn score(images: &[(Vec<Detection>, Vec<Label>)], threshold: f32) -> Scores {
    let lesions: usize = images.iter().map(|(_, labels)| labels.len()).sum();
    let mut judged: Vec<(f32, bool)> = Vec::new();
    for (detections, labels) in images {
        judged.extend(judge(detections, labels));
    }
    judged.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut right, mut curve) = (0usize, Vec::with_capacity(judged.len()));
    for (at, (_, found)) in judged.iter().enumerate() {
        right += usize::from(*found);
        curve.push((right as f64 / lesions.max(1) as f64, right as f64 / (at + 1) as f64));
    }
    let at_threshold = judged.iter().take_while(|(score, _)| *score >= threshold);
    let (detections, right) =
        at_threshold.fold((0, 0), |(all, right), (_, found)| (all + 1, right + usize::from(*found)));
    let share = |of: usize| (of > 0).then(|| right as f64 / of as f64);
    Scores {
        precision: share(detections),
        recall: share(lesions),
        ap50: (lesions > 0).then(|| average(&curve)),
        lesions,
        detections,
    }
}

/// Each detection's score, and whether it is a lesion.
fn judge(detections: &[Detection], labels: &[Label]) -> Vec<(f32, bool)> {
    let mut order: Vec<&Detection> = detections.iter().collect();
    order.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut free = vec![true; labels.len()];
    let mut judged = Vec::with_capacity(order.len());
    for detection in order {
        let overlap = |at: &usize| labels[*at].region.iou(&detection.region);
        let best = (0..labels.len())
            .filter(|&at| free[at] && labels[at].class == detection.class && overlap(&at) >= OVERLAP)
            .max_by(|a, b| overlap(a).total_cmp(&overlap(b)));
        if let Some(at) = best {
            free[at] = false;
        }
        judged.push((detection.score, best.is_some()));
    }
    judged
}

/// Mean over recalls 0, 0.01 ... 1 of the best precision at that recall or above, from (recall, precision) by falling score.
fn average(curve: &[(f64, f64)]) -> f64 {
    let best = |recall: f64| {
        let reached = curve.iter().filter(|(reached, _)| *reached >= recall - 1e-12);
        reached.map(|(_, precision)| *precision).fold(0.0, f64::max)
    };
    (0..RECALLS).map(|at| best(at as f64 / (RECALLS - 1) as f64)).sum::<f64>() / RECALLS as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Region;

    fn region(x: f32) -> Region {
        Region::about((x, 10.0), 10.0, 10.0)
    }

    fn detection(x: f32, score: f32) -> Detection {
        Detection { class: 0, score, region: region(x) }
    }

    #[test]
    fn scores_by_hand() {
        let label = |x| Label { class: 0, region: region(x) };
        // Found, found twice (wrong), missed by half a box (IoU 1 / 3), and a lesion without a detection.
        let first = (vec![detection(10.0, 0.9), detection(11.0, 0.8)], vec![label(10.0)]);
        let second = (vec![detection(35.0, 0.7), detection(60.0, 0.2)], vec![label(30.0), label(60.0)]);
        let scores = score(&[first, second], 0.25);
        assert_eq!((scores.lesions, scores.detections), (3, 3));
        assert_eq!((scores.precision, scores.recall), (Some(1.0 / 3.0), Some(1.0 / 3.0)));
        // Precision 1 up to recall 1/3 (34 of the 101 points), 2/4 up to 2/3 (33 points), 0 beyond.
        let expected = (34.0 + 33.0 * 0.5) / 101.0;
        assert!((scores.ap50.unwrap() - expected).abs() < 1e-12, "{scores:?}");
    }

    #[test]
    fn nothing_found_and_nothing_to_find_are_told_apart() {
        let nothing = score(&[(Vec::new(), Vec::new())], 0.25);
        assert_eq!((nothing.precision, nothing.recall, nothing.ap50), (None, None, None));
        let missed = score(&[(Vec::new(), vec![Label { class: 0, region: region(5.0) }])], 0.25);
        assert_eq!((missed.precision, missed.recall, missed.ap50), (None, Some(0.0), Some(0.0)));
    }
}
