//! Why a lesion is not placed.

/// Why a lesion is not placed. Coordinates are columns and rows from 0; lesions are counted from 1.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Maps of the scene differ in size.
    #[error("the {map} map is {found:?} pixels and the weights are {expected:?} (width, height); they must be equal")]
    Size {
        /// Which map.
        map: &'static str,
        /// Its width and height.
        found: (usize, usize),
        /// Width and height of the weights.
        expected: (usize, usize),
    },
    /// A weight is negative or not finite.
    #[error("the candidate weight at ({x}, {y}) is {value}; weights are finite and not negative")]
    Weight {
        /// Column.
        x: usize,
        /// Row.
        y: usize,
        /// The weight.
        value: f32,
    },
    /// The lesion's mask is empty.
    #[error("the lesion's mask has no pixel")]
    EmptyLesion,
    /// The position itself lies outside the image.
    #[error("({x}, {y}) lies outside the image of {width} x {height} pixels")]
    OutsideImage {
        /// Column.
        x: usize,
        /// Row.
        y: usize,
        /// Width of the image.
        width: usize,
        /// Height of the image.
        height: usize,
    },
    /// The lesion would touch the image's edge or its margin.
    #[error(
        "at ({x}, {y}) the lesion would span columns {left} to {right} and rows {top} to {bottom}, which is less than \
         {border_px} px from the image's edge"
    )]
    OnBorder {
        /// Column of the position.
        x: usize,
        /// Row of the position.
        y: usize,
        /// First column of the mask.
        left: i64,
        /// Last column of the mask.
        right: i64,
        /// First row of the mask.
        top: i64,
        /// Last row of the mask.
        bottom: i64,
        /// Margin that must stay clear.
        border_px: usize,
    },
    /// Part of the lesion would lie outside the body.
    #[error("at ({x}, {y}) {percent:.0} % of the lesion would lie outside the body")]
    OutsideBody {
        /// Column.
        x: usize,
        /// Row.
        y: usize,
        /// Share of what the rule tests, in percent.
        percent: f64,
    },
    /// Part of the lesion would lie in a danger zone.
    #[error(
        "at ({x}, {y}) {percent:.0} % of the lesion would lie in a danger zone; choose another position or set override_danger"
    )]
    DangerZone {
        /// Column.
        x: usize,
        /// Row.
        y: usize,
        /// Share of what the rule tests, in percent.
        percent: f64,
    },
    /// The lesion would come too near to one that is placed already.
    #[error("at ({x}, {y}) the lesion would come within {gap_px} px of lesion {lesion}")]
    NearLesion {
        /// Column.
        x: usize,
        /// Row.
        y: usize,
        /// The other lesion, in order of placement.
        lesion: usize,
        /// Gap that must stay clear.
        gap_px: usize,
    },
    /// The lesion fits nowhere.
    #[error(
        "no room: a lesion of {lesion_width} x {lesion_height} px ({lesion_area} px²) fits nowhere in the {free_area} px² that \
         are permissible, inside the body and free of other lesions; the largest disc that fits there is {widest_px:.0} px \
         wide. Ask for smaller or fewer lesions, or another background"
    )]
    NoRoom {
        /// Columns of the lesion's mask.
        lesion_width: usize,
        /// Rows of the lesion's mask.
        lesion_height: usize,
        /// Pixels of the lesion's mask.
        lesion_area: usize,
        /// Pixels where a lesion may be.
        free_area: usize,
        /// Diameter of the largest disc of such pixels.
        widest_px: f64,
    },
    /// The lesion fits, but where it fits the weights are zero.
    #[error(
        "the lesion fits at {positions} positions, but the candidate map gives each of them weight 0; use another location model"
    )]
    NoCandidate {
        /// Positions at which it fits.
        positions: usize,
    },
}
