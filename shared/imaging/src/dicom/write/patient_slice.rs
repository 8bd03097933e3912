//! De-identified slices of a real CT, written again as DICOM from published Hounsfield units.

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};

use super::encoding::{Pixels, Syntax, encode};
use super::modules::Builder;
use super::synthetic::side;
use super::{Error, derived_uid};
use crate::{Plane, Spacing, Window};

/// Stored 0 means this many HU; 12 bits reach from there to 3,071 HU.
const LOW_HU: f32 = -1024.0;
const HIGH_HU: f32 = 3071.0;

/// One axial slice of a published, de-identified CT. Nothing in it is synthetic.
#[derive(Debug, Clone, Copy)]
pub struct PatientSlice<'a> {
    /// Hounsfield units, whole numbers from -1,024 to 3,071.
    pub plane: &'a Plane,
    /// The collection's public pseudonym of the patient; the source of the UIDs too.
    pub patient_id: &'a str,
    /// Collection, licence and what was done to the values, for the reader.
    pub derivation: &'a str,
    /// Instance Number, from 1.
    pub number: u32,
    /// Position of the slice along the patient, mm.
    pub z_mm: f64,
    /// Slice thickness, mm.
    pub thickness_mm: f64,
    /// How the pixels are encoded.
    pub syntax: Syntax,
}

impl PatientSlice<'_> {
    /// The bytes of the DICOM file, 12 bits stored, Rescale Intercept -1,024. The image is centred in its plane, since
    /// published volumes do not carry the scanner's position.
    ///
    /// # Errors
    /// [`Error::Range`] for a value that 12 bits do not hold exactly, [`Error::Size`], [`Error::Encoding`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let (width, height) = side(self.plane)?;
        let stored = |&value: &f32| match (LOW_HU..=HIGH_HU).contains(&value) && value.fract() == 0.0 {
            true => Ok((value - LOW_HU) as u16),
            false => Err(Error::Range { value, low: LOW_HU, high: HIGH_HU }),
        };
        let stored: Vec<u16> = self.plane.data().iter().map(stored).collect::<Result<_, _>>()?;
        let pixels = Pixels { stored: &stored, width, height, bits_stored: 12 };
        encode(self.dataset(&pixels).0, &pixels, self.syntax)
    }

    fn dataset(&self, pixels: &Pixels<'_>) -> Builder {
        let id = self.patient_id;
        let uid = |level: &str| derived_uid(&["patient slice", id, level]);
        let spacing = self.plane.spacing.unwrap_or(Spacing::square(1.0));
        let corner = |length: u16, mm: f64| -(f64::from(length) - 1.0) / 2.0 * mm;
        let position = [corner(pixels.width, spacing.column_mm), corner(pixels.height, spacing.row_mm), self.z_mm];
        let mut set = Builder::new();
        set.text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192")
            .text(tags::IMAGE_TYPE, VR::CS, "DERIVED\\PRIMARY\\AXIAL")
            .text(tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE)
            .text(tags::SOP_INSTANCE_UID, VR::UI, &uid(&format!("instance {}", self.number)))
            .nobody(id, id, "De-identified by the collection's publisher")
            .text(tags::STUDY_INSTANCE_UID, VR::UI, &uid("study"))
            .text(tags::STUDY_ID, VR::SH, "")
            .text(tags::SERIES_INSTANCE_UID, VR::UI, &uid("series"))
            .text(tags::SERIES_NUMBER, VR::IS, "1")
            .text(tags::MODALITY, VR::CS, "CT")
            .text(tags::BODY_PART_EXAMINED, VR::CS, "CHEST")
            .text(tags::MANUFACTURER, VR::LO, "")
            .text(tags::INSTANCE_NUMBER, VR::IS, &self.number.to_string())
            .text(tags::DERIVATION_DESCRIPTION, VR::ST, self.derivation)
            .text(tags::LOSSY_IMAGE_COMPRESSION, VR::CS, "00")
            .text(tags::FRAME_OF_REFERENCE_UID, VR::UI, &uid("frame of reference"))
            .text(tags::POSITION_REFERENCE_INDICATOR, VR::LO, "")
            .text(tags::PATIENT_POSITION, VR::CS, "HFS")
            .axial_plane(spacing, position, Some(self.thickness_mm))
            .text(tags::KVP, VR::DS, "")
            .text(tags::ACQUISITION_NUMBER, VR::IS, "")
            .image_pixel(pixels)
            .intensity(1.0, f64::from(LOW_HU), "HU", Window { low: -1350.0, high: 150.0 });
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dicom::{ReadOptions, from_bytes};

    #[test]
    fn hounsfield_units_come_back_exactly_and_the_rest_is_refused() {
        let data = (0..4096).map(|at| at as f32 - 1024.0).collect();
        let plane = Plane::new(64, 64, data).with_spacing(Some(Spacing::square(0.703125)));
        fn slice(plane: &Plane) -> PatientSlice<'_> {
            PatientSlice {
                plane,
                patient_id: "TEST-0001",
                derivation: "A test",
                number: 2,
                z_mm: -152.5,
                thickness_mm: 2.5,
                syntax: Syntax::JpegLs,
            }
        }
        let bytes = slice(&plane).to_bytes().unwrap();
        let image = from_bytes(&bytes, "memory", ReadOptions::default()).unwrap();
        assert_eq!(image.to_plane(0).unwrap(), plane);
        assert_eq!(image.attributes.slice_position_mm(), Some(-152.5));
        for bad in [0.5, 5000.0, f32::NAN] {
            let plane = Plane::filled(2, 2, bad);
            assert!(matches!(slice(&plane).to_bytes(), Err(Error::Range { .. })));
        }
    }
}
