//! Attributes that every written image shares, by the modules of PS3.3.

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::encoding::Pixels;
use crate::{Spacing, Window};

/// A coded concept (PS3.3 8.8): value, scheme and meaning.
#[derive(Debug, Clone, Copy)]
pub(super) struct Code(pub &'static str, pub &'static str, pub &'static str);

/// A data set under construction.
pub(super) struct Builder(pub InMemDicomObject);

impl Builder {
    pub(super) fn new() -> Self {
        Self(InMemDicomObject::new_empty())
    }

    /// A text value; an empty one is a type 2 attribute without a value.
    pub(super) fn text(&mut self, tag: Tag, vr: VR, value: &str) -> &mut Self {
        let value = if value.is_empty() { PrimitiveValue::Empty } else { PrimitiveValue::from(value) };
        self.0.put(DataElement::new(tag, vr, value));
        self
    }

    pub(super) fn number(&mut self, tag: Tag, value: u16) -> &mut Self {
        self.0.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
        self
    }

    pub(super) fn decimals(&mut self, tag: Tag, values: &[f64]) -> &mut Self {
        let text: Vec<String> = values.iter().map(|&value| decimal_string(value)).collect();
        self.text(tag, VR::DS, &text.join("\\"))
    }

    pub(super) fn sequence(&mut self, tag: Tag, item: Builder) -> &mut Self {
        self.items(tag, vec![item])
    }

    /// A sequence of several items.
    pub(super) fn items(&mut self, tag: Tag, items: Vec<Builder>) -> &mut Self {
        let items: Vec<InMemDicomObject> = items.into_iter().map(|item| item.0).collect();
        self.0.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(items)));
        self
    }

    pub(super) fn empty_sequence(&mut self, tag: Tag) -> &mut Self {
        self.0.put(DataElement::new(tag, VR::SQ, DataSetSequence::<InMemDicomObject>::empty()));
        self
    }

    pub(super) fn sign(&mut self, tag: Tag, value: i16) -> &mut Self {
        self.0.put(DataElement::new(tag, VR::SS, PrimitiveValue::from(value)));
        self
    }

    /// A sequence of one code (PS3.3 8.8).
    pub(super) fn code(&mut self, tag: Tag, value: &str, scheme: &str, meaning: &str) -> &mut Self {
        let mut item = Builder::new();
        item.text(tags::CODE_VALUE, VR::SH, value).text(tags::CODING_SCHEME_DESIGNATOR, VR::SH, scheme).text(
            tags::CODE_MEANING,
            VR::LO,
            meaning,
        );
        self.sequence(tag, item)
    }

    /// [`Builder::code`] of a concept.
    pub(super) fn coded(&mut self, tag: Tag, Code(value, scheme, meaning): Code) -> &mut Self {
        self.code(tag, value, scheme, meaning)
    }

    /// A value that names an attribute.
    pub(super) fn pointer(&mut self, tag: Tag, to: Tag) -> &mut Self {
        self.0.put(DataElement::new(tag, VR::AT, PrimitiveValue::from(to)));
        self
    }

    /// A reference to an object (PS3.3 10.8), to be an item.
    pub(super) fn reference(class: &str, instance: &str) -> Self {
        let mut item = Self::new();
        item.text(tags::REFERENCED_SOP_CLASS_UID, VR::UI, class).text(
            tags::REFERENCED_SOP_INSTANCE_UID,
            VR::UI,
            instance,
        );
        item
    }

    /// Image Pixel (C.7.6.3). Nothing is written into the pixels of what is made here (C.7.6.1).
    pub(super) fn image_pixel(&mut self, pixels: &Pixels<'_>) -> &mut Self {
        self.number(tags::SAMPLES_PER_PIXEL, 1)
            .text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2")
            .number(tags::ROWS, pixels.height)
            .number(tags::COLUMNS, pixels.width)
            .number(tags::BITS_ALLOCATED, 16)
            .number(tags::BITS_STORED, pixels.bits_stored)
            .number(tags::HIGH_BIT, pixels.bits_stored - 1)
            .number(tags::PIXEL_REPRESENTATION, 0)
            .text(tags::BURNED_IN_ANNOTATION, VR::CS, "NO")
    }

    /// Modality LUT and VOI LUT (C.11.1, C.11.2). A window that shows `window`'s ends as black and white is one unit
    /// wider than their difference (C.11.2.1.2.1).
    pub(super) fn intensity(&mut self, slope: f64, intercept: f64, unit: &str, window: Window) -> &mut Self {
        let (low, high) = (f64::from(window.low), f64::from(window.high));
        self.decimals(tags::RESCALE_INTERCEPT, &[intercept])
            .decimals(tags::RESCALE_SLOPE, &[slope])
            .text(tags::RESCALE_TYPE, VR::LO, unit)
            .decimals(tags::WINDOW_CENTER, &[(low + high + 1.0) / 2.0])
            .decimals(tags::WINDOW_WIDTH, &[high - low + 1.0])
    }

    /// Image Plane (C.7.6.2) of an axial slice: rows to the patient's left, columns to the back.
    pub(super) fn axial_plane(
        &mut self,
        spacing: Spacing,
        position_mm: [f64; 3],
        thickness_mm: Option<f64>,
    ) -> &mut Self {
        let thickness = thickness_mm.map(decimal_string).unwrap_or_default();
        self.decimals(tags::PIXEL_SPACING, &[spacing.row_mm, spacing.column_mm])
            .decimals(tags::IMAGE_POSITION_PATIENT, &position_mm)
            .decimals(tags::IMAGE_ORIENTATION_PATIENT, &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
            .text(tags::SLICE_THICKNESS, VR::DS, &thickness)
    }

    /// De-identification attributes (C.7.1.1, C.12.1.1.1) and the empty type 2 ones of a patient. `method` says in words what
    /// was done: no code of PS3.15 annex E is given, since no profile was applied to a file, the object is written anew.
    pub(super) fn nobody(&mut self, name: &str, id: &str, method: &str) -> &mut Self {
        self.text(tags::PATIENT_NAME, VR::PN, name)
            .text(tags::PATIENT_ID, VR::LO, id)
            .text(tags::PATIENT_BIRTH_DATE, VR::DA, "")
            .text(tags::PATIENT_SEX, VR::CS, "")
            .text(tags::PATIENT_IDENTITY_REMOVED, VR::CS, "YES")
            .text(tags::DEIDENTIFICATION_METHOD, VR::LO, method)
            .text(tags::LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED, VR::CS, "REMOVED")
            .text(tags::STUDY_DATE, VR::DA, "")
            .text(tags::STUDY_TIME, VR::TM, "")
            .text(tags::REFERRING_PHYSICIAN_NAME, VR::PN, "")
            .text(tags::ACCESSION_NUMBER, VR::SH, "")
    }
}

/// `value` as a decimal string of at most 16 characters (PS3.5 6.2), as near to it as they allow.
pub(super) fn decimal_string(value: f64) -> String {
    let plain = format!("{value}");
    if plain.len() <= 16 {
        return plain;
    }
    (0..=15)
        .flat_map(|digits| [format!("{value:.digits$}"), format!("{value:.digits$e}")])
        .filter(|text| text.len() <= 16)
        .min_by(|a, b| {
            let error = |text: &str| text.parse::<f64>().map_or(f64::INFINITY, |parsed| (parsed - value).abs());
            error(a).total_cmp(&error(b))
        })
        .unwrap_or_else(|| "0".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_strings_are_short_and_near() {
        for value in [1400.0 / 65_535.0, -1000.0, 0.703125, 1.0 / 3.0, -1.0 / 3e7, 123_456_789.123_456_78, 1e-12 / 7.0]
        {
            let text = decimal_string(value);
            assert!(text.len() <= 16, "{text}");
            let parsed: f64 = text.parse().unwrap();
            assert!((parsed - value).abs() <= value.abs() * 1e-8, "{text} for {value}");
        }
        assert_eq!(decimal_string(1400.0 / 65_535.0), "0.02136263065537");
        assert_eq!(decimal_string(-1024.0), "-1024");
    }
}
