//! The attributes that say how stored values are to be read (PS3.3 C.7.6.3, C.7.6.16, C.11.1, C.11.2).

use dicom_dictionary_std::tags;

use super::dataset::{Dataset, Value};
use crate::Spacing;

/// What a DICOM image object says about its pixels. Everything may be missing: a refusal reports what was there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attributes {
    /// Transfer Syntax UID of the file meta information.
    pub transfer_syntax: Option<String>,
    /// Modality (0008,0060).
    pub modality: Option<String>,
    /// SOP Instance UID.
    pub sop_instance_uid: Option<String>,
    /// Series Instance UID.
    pub series_instance_uid: Option<String>,
    /// Instance Number.
    pub instance_number: Option<i64>,
    /// Image Position (Patient), mm.
    pub position_mm: Option<[f64; 3]>,
    /// Image Orientation (Patient): direction cosines of the row, then of the column.
    pub orientation: Option<[f64; 6]>,
    /// Rows.
    pub rows: Option<u16>,
    /// Columns.
    pub columns: Option<u16>,
    /// Number of Frames; 1 where an image does not give it, `None` where it is not a positive integer.
    pub frames: Option<u32>,
    /// Samples per Pixel.
    pub samples: Option<u16>,
    /// Bits Allocated.
    pub bits_allocated: Option<u16>,
    /// Bits Stored.
    pub bits_stored: Option<u16>,
    /// High Bit; Bits Stored - 1 where it is missing.
    pub high_bit: Option<u16>,
    /// Pixel Representation: 0 unsigned, 1 two's complement.
    pub pixel_representation: Option<u16>,
    /// Planar Configuration of native colour.
    pub planar_configuration: Option<u16>,
    /// Photometric Interpretation.
    pub photometric: Option<String>,
    /// Rescale Slope.
    pub rescale_slope: Option<f64>,
    /// Rescale Intercept.
    pub rescale_intercept: Option<f64>,
    /// Window Center, every value.
    pub window_center: Option<Vec<f64>>,
    /// Window Width, every value.
    pub window_width: Option<Vec<f64>>,
    /// Pixel Spacing, else Imager Pixel Spacing, which is measured at the detector, over the Estimated Radiographic Magnification Factor
    /// where the object gives one (PS3.3 C.8.11.7).
    pub spacing: Option<Spacing>,
    /// The least and the largest stored value of pixels that hold nothing, such as those outside a CT's field of view: Pixel Padding
    /// Value and Range Limit (PS3.3 C.7.5.1.1.2), or those of floating point pixels.
    pub padding: Option<[f64; 2]>,
    /// Whether a Modality LUT Sequence takes the place of slope and intercept.
    pub modality_lut: bool,
    /// Whether a VOI LUT Sequence takes the place of the window.
    pub voi_lut: bool,
    /// VOI LUT Function (0028,1056): `LINEAR` where it is missing.
    pub voi_function: Option<String>,
}

impl Attributes {
    pub(super) fn read(dataset: &Dataset<'_>, transfer_syntax: Option<String>) -> Self {
        let shared = dataset.item(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
        let frame = dataset.item(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
        // Enhanced objects keep these in functional groups, shared or of the first frame (PS3.3 C.7.6.16).
        let group = |tag| shared.and_then(|item| item.item(tag)).or_else(|| frame.and_then(|item| item.item(tag)));
        let decimals = |tag, within| {
            dataset.decimals(tag).or_else(|| group(within).and_then(|item: &Dataset<'_>| item.decimals(tag)))
        };
        let transformation = tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE;
        let first = |values: Option<Vec<f64>>| values.and_then(|values| values.first().copied());
        let rows = dataset.unsigned16(tags::ROWS);
        let spacing = decimals(tags::PIXEL_SPACING, tags::PIXEL_MEASURES_SEQUENCE)
            .and_then(|values| spacing(&values))
            .or_else(|| {
                let factor = first(dataset.decimals(tags::ESTIMATED_RADIOGRAPHIC_MAGNIFICATION_FACTOR));
                let factor = factor.filter(|factor| *factor >= 1.0).unwrap_or(1.0);
                let values = dataset.decimals(tags::IMAGER_PIXEL_SPACING)?;
                spacing(&values.into_iter().map(|value| value / factor).collect::<Vec<_>>())
            });
        let bits_stored = dataset.unsigned16(tags::BITS_STORED);
        Self {
            transfer_syntax,
            modality: dataset.text(tags::MODALITY),
            sop_instance_uid: dataset.text(tags::SOP_INSTANCE_UID),
            series_instance_uid: dataset.text(tags::SERIES_INSTANCE_UID),
            instance_number: dataset.text(tags::INSTANCE_NUMBER).and_then(|text| text.parse().ok()),
            position_mm: dataset.decimals(tags::IMAGE_POSITION_PATIENT).and_then(|values| values.try_into().ok()),
            orientation: dataset.decimals(tags::IMAGE_ORIENTATION_PATIENT).and_then(|values| values.try_into().ok()),
            rows,
            columns: dataset.unsigned16(tags::COLUMNS),
            frames: match dataset.text(tags::NUMBER_OF_FRAMES) {
                Some(text) => text.parse().ok().filter(|&frames| frames > 0),
                None => rows.map(|_| 1),
            },
            samples: dataset.unsigned16(tags::SAMPLES_PER_PIXEL),
            bits_allocated: dataset.unsigned16(tags::BITS_ALLOCATED),
            bits_stored,
            high_bit: dataset.unsigned16(tags::HIGH_BIT).or_else(|| bits_stored.and_then(|bits| bits.checked_sub(1))),
            pixel_representation: dataset.unsigned16(tags::PIXEL_REPRESENTATION),
            planar_configuration: dataset.unsigned16(tags::PLANAR_CONFIGURATION),
            photometric: dataset.text(tags::PHOTOMETRIC_INTERPRETATION),
            rescale_slope: first(decimals(tags::RESCALE_SLOPE, transformation)),
            rescale_intercept: first(decimals(tags::RESCALE_INTERCEPT, transformation)),
            window_center: decimals(tags::WINDOW_CENTER, tags::FRAME_VOILUT_SEQUENCE),
            window_width: decimals(tags::WINDOW_WIDTH, tags::FRAME_VOILUT_SEQUENCE),
            spacing,
            padding: padding(dataset),
            modality_lut: has_items(dataset, tags::MODALITY_LUT_SEQUENCE),
            voi_lut: has_items(dataset, tags::VOILUT_SEQUENCE),
            voi_function: dataset.text(tags::VOILUT_FUNCTION),
        }
    }

    /// Whether stored values are two's complement.
    pub fn signed(&self) -> bool {
        self.pixel_representation == Some(1)
    }

    /// Whether this is a projection radiograph, whose values have no physical unit: `DX`, `CR`, `RG`, `PX`, `IO` or `MG`.
    pub fn is_radiograph(&self) -> bool {
        let radiography = ["DX", "CR", "RG", "PX", "IO", "MG"];
        self.modality.as_deref().is_some_and(|modality| radiography.contains(&modality))
    }

    /// Position along the normal of the image plane, mm; orders the slices of a series. `None` without a geometry.
    pub fn slice_position_mm(&self) -> Option<f64> {
        let (position, normal) = (self.position_mm?, self.normal()?);
        Some(position.iter().zip(normal).map(|(a, b)| a * b).sum())
    }

    /// The plane through the patient that the image is nearest to. `None` without an orientation.
    pub fn view(&self) -> Option<View> {
        // Axes of the patient (PS3.3 C.7.6.2.1.1): x to the left, y to the back, z to the head.
        let views = [View::Sagittal, View::Coronal, View::Axial];
        let nearest = self.normal()?.into_iter().map(f64::abs).zip(views).max_by(|a, b| a.0.total_cmp(&b.0));
        nearest.filter(|(cosine, _)| *cosine > 0.0).map(|(_, view)| view)
    }

    fn normal(&self) -> Option<[f64; 3]> {
        let o = self.orientation?;
        Some([o[1] * o[5] - o[2] * o[4], o[2] * o[3] - o[0] * o[5], o[0] * o[4] - o[1] * o[3]])
    }
}

/// A plane through the patient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Across the body.
    Axial,
    /// Along the body, from left to right.
    Coronal,
    /// Along the body, from front to back.
    Sagittal,
}

impl View {
    /// The name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Axial => "axial",
            Self::Coronal => "coronal",
            Self::Sagittal => "sagittal",
        }
    }
}

fn padding(dataset: &Dataset<'_>) -> Option<[f64; 2]> {
    let signed = dataset.unsigned16(tags::PIXEL_REPRESENTATION) == Some(1);
    let whole = |tag| dataset.unsigned16(tag).map(|bits| if signed { f64::from(bits as i16) } else { f64::from(bits) });
    let single = |tag| dataset.floats(tag).and_then(|values| values.first().copied());
    let double = |tag| dataset.doubles(tag).and_then(|values| values.first().copied());
    let (value, limit) = if dataset.get(tags::FLOAT_PIXEL_DATA).is_some() {
        (single(tags::FLOAT_PIXEL_PADDING_VALUE), single(tags::FLOAT_PIXEL_PADDING_RANGE_LIMIT))
    } else if dataset.get(tags::DOUBLE_FLOAT_PIXEL_DATA).is_some() {
        (double(tags::DOUBLE_FLOAT_PIXEL_PADDING_VALUE), double(tags::DOUBLE_FLOAT_PIXEL_PADDING_RANGE_LIMIT))
    } else {
        (whole(tags::PIXEL_PADDING_VALUE), whole(tags::PIXEL_PADDING_RANGE_LIMIT))
    };
    let (value, limit) = (value?, limit.or(value)?);
    Some([value.min(limit), value.max(limit)])
}

fn has_items(dataset: &Dataset<'_>, tag: dicom_core::Tag) -> bool {
    matches!(dataset.get(tag), Some(Value::Items(items)) if !items.is_empty())
}

fn spacing(values: &[f64]) -> Option<Spacing> {
    match values {
        [row_mm, column_mm] if *row_mm > 0.0 && *column_mm > 0.0 => {
            Some(Spacing { row_mm: *row_mm, column_mm: *column_mm })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_orientation_tells_the_view() {
        let view = |orientation| Attributes { orientation, ..Attributes::default() }.view();
        assert_eq!(view(Some([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])), Some(View::Axial));
        assert_eq!(view(Some([1.0, 0.0, 0.0, 0.0, 0.0, -1.0])), Some(View::Coronal));
        assert_eq!(view(Some([0.0, 1.0, 0.0, 0.0, 0.1, -1.0])), Some(View::Sagittal));
        assert_eq!((view(None), view(Some([0.0; 6]))), (None, None));
    }
}
