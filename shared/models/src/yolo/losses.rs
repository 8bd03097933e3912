//! What a detector learns by: classes by binary cross-entropy, boxes by CIoU (Zheng et al. 2020) and by the distribution focal loss
//! of their distances (Li et al. 2020).

use tch::{Kind, Tensor, no_grad};

use super::assign::assign;
use super::config::{Cell, Training};
use super::network::Answers;
use crate::data::{Label, Region};
use crate::training::{Error, array, device, on_device};

/// Keeps quotients of lengths finite.
const TINY: f64 = 1e-7;

/// The loss terms of a batch, unweighted.
#[derive(Debug)]
pub(super) struct Losses {
    /// 1 - CIoU.
    pub overlap: Tensor,
    /// Binary cross-entropy.
    pub class: Tensor,
    /// Distribution focal loss.
    pub distance: Tensor,
}

impl Losses {
    /// The sum under the training's weights.
    pub fn total(&self, training: &Training) -> Tensor {
        &self.overlap * training.overlap_weight
            + &self.class * training.class_weight
            + &self.distance * training.distance_weight
    }
}

/// The losses of what the network says of a batch whose lesions are `labels`, in pixels of the network's image. Each is a sum over
/// the cells, weighted by the scores that they are to give, over the sum of these scores.
pub(super) fn losses(
    answers: &Answers,
    cells: &[Cell],
    labels: &[Vec<Label>],
    training: &Training,
) -> Result<Losses, Error> {
    let classes = training.config.classes;
    let corners = corners(answers, cells);
    let targets = no_grad(|| Targets::find(answers, &corners, cells, labels, training))?;
    let scores = on_device(&targets.scores).reshape([labels.len() as i64, classes as i64, -1]);
    let total = targets.weights.iter().sum::<f32>().max(1.0);
    let class = answers.classes.binary_cross_entropy_with_logits(
        &scores,
        None::<&Tensor>,
        None::<&Tensor>,
        tch::Reduction::Sum,
    ) / f64::from(total);

    let places = on_device(&targets.places);
    let weights = on_device(&targets.weights) / f64::from(total);
    let expected = on_device(&targets.corners).reshape([-1, 4]);
    let found = corners.transpose(1, 2).reshape([-1, 4]).index_select(0, &places);
    let apart: Tensor = -ciou(&found, &expected) + 1.0;
    let overlap = (apart * &weights).sum(Kind::Float);

    let bins = answers.distances.size()[2];
    let logits = answers.distances.permute([0, 3, 1, 2]).reshape([-1, 4, bins]).index_select(0, &places);
    let distances = on_device(&targets.distances).reshape([-1, 4]);
    let distance = (distribution_focal(&logits, &distances) * &weights).sum(Kind::Float);
    Ok(Losses { overlap, class, distance })
}

/// Left, top, right, bottom in pixels of the boxes that the cells predict, `f32 [N, 4, cells]`.
pub(super) fn corners(answers: &Answers, cells: &[Cell]) -> Tensor {
    let bins = answers.distances.size()[2];
    let numbers = Tensor::arange(bins, (Kind::Float, device())).reshape([1, 1, bins, 1]);
    let strides: Vec<f32> = cells.iter().map(|cell| cell.stride).collect();
    let distances = (answers.distances.softmax(2, None) * numbers).sum_dim_intlist([2i64].as_slice(), false, None)
        * on_device(&strides);
    let centres: Vec<f32> =
        cells.iter().map(|cell| cell.centre.0).chain(cells.iter().map(|cell| cell.centre.1)).collect();
    let centres = on_device(&centres).reshape([1, 2, -1]);
    Tensor::cat(&[&centres - distances.narrow(1, 0, 2), &centres + distances.narrow(1, 2, 2)], 1)
}

/// What the cells of a batch are to say.
#[derive(Debug, Default)]
struct Targets {
    /// `[N, classes, cells]`: the score to give.
    scores: Vec<f32>,
    /// Of each answering cell: its number in `[N, cells]`.
    places: Vec<i64>,
    /// The score that it is to give.
    weights: Vec<f32>,
    /// Its lesion's left, top, right, bottom, px.
    corners: Vec<f32>,
    /// Distances of the cell's middle from them in strides, within the bins.
    distances: Vec<f32>,
}

impl Targets {
    fn find(
        answers: &Answers,
        corners: &Tensor,
        cells: &[Cell],
        labels: &[Vec<Label>],
        training: &Training,
    ) -> Result<Self, Error> {
        let (classes, count) = (training.config.classes, cells.len());
        let scores = array(&answers.classes.sigmoid())?.data;
        let corners = array(corners)?.data;
        // A distance of the last bin itself would have no bin above it.
        let farthest = training.config.bins as f32 - 1.01;
        let mut targets = Self { scores: vec![0.0; labels.len() * classes * count], ..Self::default() };
        for (image, labels) in labels.iter().enumerate() {
            let part = |edge: usize| &corners[(4 * image + edge) * count..(4 * image + edge + 1) * count];
            let [left, top, right, bottom] = [0, 1, 2, 3].map(part);
            let boxes: Vec<Region> = (0..count)
                .map(|at| Region { left: left[at], top: top[at], right: right[at], bottom: bottom[at] })
                .collect();
            let own = &scores[image * classes * count..(image + 1) * classes * count];
            for answer in assign(cells, labels, own, &boxes, training.cells_per_lesion) {
                let Label { class, region } = labels[answer.lesion];
                let Cell { centre: (x, y), stride } = cells[answer.cell];
                targets.scores[(image * classes + class) * count + answer.cell] = answer.score;
                targets.places.push((image * count + answer.cell) as i64);
                targets.weights.push(answer.score);
                targets.corners.extend([region.left, region.top, region.right, region.bottom]);
                let distances = [x - region.left, y - region.top, region.right - x, region.bottom - y];
                targets.distances.extend(distances.map(|distance| (distance / stride).clamp(0.0, farthest)));
            }
        }
        Ok(targets)
    }
}

/// CIoU of boxes `f32 [n, 4]` (left, top, right, bottom): overlap less the distance of the centres and the difference of the shapes;
/// `f32 [n]` up to 1.
pub(super) fn ciou(found: &Tensor, expected: &Tensor) -> Tensor {
    let edge = |boxes: &Tensor, at: i64| boxes.select(1, at);
    let size = |boxes: &Tensor, axis: i64| edge(boxes, axis + 2) - edge(boxes, axis);
    let (width, height) = (size(found, 0), size(found, 1));
    let (expected_width, expected_height) = (size(expected, 0), size(expected, 1));
    let along = |axis: i64| {
        let inner =
            edge(found, axis + 2).minimum(&edge(expected, axis + 2)) - edge(found, axis).maximum(&edge(expected, axis));
        let outer =
            edge(found, axis + 2).maximum(&edge(expected, axis + 2)) - edge(found, axis).minimum(&edge(expected, axis));
        let apart = (edge(found, axis) + edge(found, axis + 2) - edge(expected, axis) - edge(expected, axis + 2)) / 2.0;
        (inner.clamp_min(0.0), outer, apart)
    };
    let ((inner_x, outer_x, apart_x), (inner_y, outer_y, apart_y)) = (along(0), along(1));
    let both = inner_x * inner_y;
    let either = &width * &height + &expected_width * &expected_height - &both + TINY;
    let overlap = both / either;
    let far = (apart_x.square() + apart_y.square()) / (outer_x.square() + outer_y.square() + TINY);
    let angle = |width: &Tensor, height: &Tensor| (width / (height + TINY)).atan();
    let shape = (angle(&expected_width, &expected_height) - angle(&width, &height)).square()
        * (4.0 / std::f64::consts::PI.powi(2));
    // The shape's weight is a number, not a way to lower the loss.
    let weight = no_grad(|| &shape / (&shape - &overlap + (1.0 + TINY)));
    overlap - far - shape * weight
}

/// Cross-entropy of `logits` `f32 [n, 4, bins]` against the two bins on either side of `distances` `f32 [n, 4]`, each weighted by its
/// nearness; the mean over the four sides, `f32 [n]`.
pub(super) fn distribution_focal(logits: &Tensor, distances: &Tensor) -> Tensor {
    let below = distances.floor();
    let share_above = distances - &below;
    let below = below.to_kind(Kind::Int64).unsqueeze(-1);
    let logarithms = logits.log_softmax(-1, None);
    let at = |bin: &Tensor| logarithms.gather(-1, bin, false).squeeze_dim(-1);
    let share_below: Tensor = -&share_above + 1.0;
    let likelihood = at(&below) * share_below + at(&(&below + 1)) * &share_above;
    -likelihood.mean_dim([1i64].as_slice(), false, None)
}
