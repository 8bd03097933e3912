//! Look-up tables of modality and VOI (PS3.3 C.11.1, C.11.2).

use dicom_dictionary_std::tags;

use super::dataset::Dataset;

/// A table from values to greys; what lies before its first value gets the first entry, what lies behind its last one the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lut {
    first: i64,
    entries: Vec<u16>,
    bits: u32,
}

impl Lut {
    /// The table in an item of a LUT sequence, for pixels that are `signed` or not; `None` where it contradicts itself.
    pub(super) fn read(item: &Dataset<'_>, signed: bool) -> Option<Self> {
        let [count, first, bits] = item.unsigned16s(tags::LUT_DESCRIPTOR)?.try_into().ok()?;
        // 65,536 entries do not fit the field (C.11.1.1.1).
        let count = if count == 0 { 1 << 16 } else { usize::from(count) };
        let first = if signed { i64::from(first as i16) } else { first.into() };
        let bytes = item.bytes(tags::LUT_DATA)?;
        let entries = match bytes.len() {
            length if length >= 2 * count => item.unsigned16s(tags::LUT_DATA)?,
            // Entries of 8 bits may lie two in a word, the first in the lower byte.
            length if length >= count && bits <= 8 => match item.is_big_endian() {
                false => bytes.iter().map(|&byte| byte.into()).collect(),
                true => bytes.chunks(2).flat_map(|pair| pair.iter().rev()).map(|&byte| byte.into()).collect(),
            },
            _ => return None,
        };
        let entries: Vec<u16> = entries.into_iter().take(count).collect();
        let fits = (1..=16).contains(&bits) && entries.iter().all(|&entry| u32::from(entry) >> bits == 0);
        fits.then_some(Self { first, entries, bits: bits.into() })
    }

    /// The entry for `value`, rounded.
    pub(super) fn at(&self, value: f64) -> u16 {
        // A cast saturates; no number becomes 0.
        let index = (value.round() as i64).saturating_sub(self.first).clamp(0, self.entries.len() as i64 - 1);
        self.entries[index as usize]
    }

    /// The largest grey that its bits can hold.
    pub(super) fn most(&self) -> f64 {
        ((1u32 << self.bits) - 1).into()
    }
}

#[cfg(test)]
mod tests {
    use dicom_core::{DataElement, PrimitiveValue, VR, value::DataSetSequence};
    use dicom_object::InMemDicomObject;

    use super::*;
    use crate::{
        Plane,
        dicom::{DicomImage, ReadOptions, from_bytes, write::PatientSlice, write::Syntax},
    };

    type Element = DataElement<InMemDicomObject>;

    fn numbers(tag: dicom_core::Tag, values: &[u16]) -> Element {
        DataElement::new(tag, VR::US, PrimitiveValue::U16(values.into()))
    }

    fn words(values: &[u16]) -> PrimitiveValue {
        PrimitiveValue::U16(values.into())
    }

    fn text(tag: dicom_core::Tag, vr: VR, value: &str) -> Element {
        DataElement::new(tag, vr, PrimitiveValue::from(value))
    }

    /// A sequence with a table: entries from value 10 on, of 8 bits.
    fn table(sequence: dicom_core::Tag, descriptor: &[u16], data: PrimitiveValue) -> Element {
        let item = InMemDicomObject::from_element_iter([
            numbers(tags::LUT_DESCRIPTOR, descriptor),
            DataElement::new(tags::LUT_DATA, VR::OW, data),
        ]);
        DataElement::new(sequence, VR::SQ, DataSetSequence::from(vec![item]))
    }

    /// Stored values 0 to 63 as a radiograph without a rescale, with `more` put into it.
    fn image(more: &[Element]) -> DicomImage {
        let plane = Plane::new(8, 8, (0..64).map(|value| value as f32 - 1024.0).collect());
        let slice = PatientSlice {
            plane: &plane,
            patient_id: "TEST",
            derivation: "",
            number: 1,
            z_mm: 0.0,
            thickness_mm: 1.0,
            syntax: Syntax::Explicit,
        };
        let mut object = dicom_object::from_reader(&slice.to_bytes().unwrap()[..]).unwrap();
        let without = [tags::RESCALE_SLOPE, tags::RESCALE_INTERCEPT, tags::WINDOW_CENTER, tags::WINDOW_WIDTH];
        for tag in without {
            let _ = object.remove_element(tag);
        }
        object.put(text(tags::MODALITY, VR::CS, "DX"));
        more.iter().for_each(|element| drop(object.put(element.clone())));
        let mut bytes = Vec::new();
        object.write_all(&mut bytes).unwrap();
        from_bytes(&bytes, "memory", ReadOptions::default()).unwrap()
    }

    fn close(found: &[f32], expected: &[f64]) {
        let right = found.iter().zip(expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6);
        assert!(right && found.len() == expected.len(), "{found:?} {expected:?}");
    }

    #[test]
    fn a_modality_table_takes_the_place_of_a_slope() {
        // Five entries, in words and two in a word.
        for data in [words(&[9, 30, 60, 90, 200]), words(&[0x1E09, 0x5A3C, 0xC8])] {
            let lut = table(tags::MODALITY_LUT_SEQUENCE, &[5, 10, 8], data);
            let plane = image(std::slice::from_ref(&lut)).to_plane(0).unwrap();
            close(&plane.data()[8..17], &[9.0, 9.0, 9.0, 30.0, 60.0, 90.0, 200.0, 200.0, 200.0]);
            let inverted = [lut, text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1")];
            let plane = image(&inverted).to_plane(0).unwrap();
            close(&plane.data()[10..15], &[246.0, 225.0, 195.0, 165.0, 55.0]);
        }
        let broken = image(&[table(tags::MODALITY_LUT_SEQUENCE, &[9, 10, 8], words(&[1, 2]))]);
        assert!(broken.to_plane(0).unwrap_err().to_string().contains("contradicts itself"));
        let large = image(&[table(tags::MODALITY_LUT_SEQUENCE, &[2, 0, 8], words(&[1, 256]))]);
        assert!(large.to_plane(0).is_err(), "an entry of more bits than there are");
    }

    #[test]
    fn what_is_shown_follows_table_and_sigmoid() {
        let lut = table(tags::VOILUT_SEQUENCE, &[3, 20, 10], words(&[0, 512, 1023]));
        let (plane, window) = image(std::slice::from_ref(&lut)).shown(0).unwrap();
        assert_eq!((window.low, window.high), (0.0, 1.0));
        close(&plane.data()[18..25], &[0.0, 0.0, 0.0, 512.0 / 1023.0, 1.0, 1.0, 1.0]);
        // The file speaks of values before they are inverted; what is shown is inverted.
        let inverted = [lut.clone(), text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1")];
        close(&image(&inverted).shown(0).unwrap().0.data()[19..23], &[1.0, 1.0, 511.0 / 1023.0, 0.0]);
        // A window beside the table is as good, and simpler.
        let window = [text(tags::WINDOW_CENTER, VR::DS, "32.5"), text(tags::WINDOW_WIDTH, VR::DS, "11")];
        let (plane, shown) = image(&[&window[..], &[lut]].concat()).shown(0).unwrap();
        assert_eq!((plane.at(3, 4), shown.low, shown.high), (35.0, 27.0, 37.0));
        let sigmoid = [&window[..], &[text(tags::VOILUT_FUNCTION, VR::CS, "SIGMOID")]].concat();
        let (plane, _) = image(&sigmoid).shown(0).unwrap();
        let curve = |value: f64| 1.0 / (1.0 + (-4.0 * (value - 32.5) / 11.0).exp());
        close(&plane.data()[30..33], &[curve(30.0), curve(31.0), curve(32.0)]);
    }

    #[test]
    fn magnification_brings_the_detectors_spacing_into_the_patient() {
        let imager = text(tags::IMAGER_PIXEL_SPACING, VR::DS, "0.2\\0.3");
        let factor = |factor: &str| text(tags::ESTIMATED_RADIOGRAPHIC_MAGNIFICATION_FACTOR, VR::DS, factor);
        let mut own = image(&[imager.clone(), factor("2")]);
        // Pixel Spacing, where there is one, is the patient's already.
        assert_eq!(own.attributes.spacing.unwrap().row_mm, 1.0);
        let none = DataElement::new(tags::PIXEL_SPACING, VR::DS, PrimitiveValue::Empty);
        for (more, row_mm, column_mm) in [
            (vec![imager.clone(), factor("2")], 0.1, 0.15),
            (vec![imager.clone()], 0.2, 0.3),
            (vec![imager, factor("0")], 0.2, 0.3),
        ] {
            own = image(&[&more[..], std::slice::from_ref(&none)].concat());
            let spacing = own.attributes.spacing.unwrap();
            assert_eq!((spacing.row_mm, spacing.column_mm), (row_mm, column_mm));
        }
    }
}
