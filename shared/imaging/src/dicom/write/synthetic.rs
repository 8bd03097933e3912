//! Synthetic images that declare themselves: (0008,001C) Synthetic Data, Contributing Equipment "Synthesizing
//! Equipment" (PS3.16 code 109100), derived UIDs, nobody's identity.

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};

use super::encoding::{Pixels, Syntax, encode};
use super::modules::Builder;
use super::{Error, derived_uid};
use crate::{Plane, Spacing, Window};

/// (0012,0063): what keeps a patient out, at most 64 characters. True of every object that is written here: it is built from
/// nothing, and what an input says of its patient is not read.
const DEIDENTIFICATION: &str = "Synthetic, written anew: no attribute of an input, new UIDs";

/// (0008,2111) of everything that shows a synthetic image.
pub(super) const DERIVATION: &str = "Synthesised by a generative model; not an image of a patient; not for diagnosis";

/// Manufacturer (0008,0070) of every synthetic object: with Synthetic Data (0008,001C), how an object of ours is known.
pub const MANUFACTURER: &str = "hiresmed";

/// Which image of which request this is: the source of every UID.
///
/// The images of a request are independent of each other: a viewer must not stack them. Each has a frame of reference of its
/// own, which its background shares so that the two register, and since a series has a single frame of reference
/// (PS3.3 C.7.4.1.1.1) each object is a series of its own, in the request's one study.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The request's id together with its seed: two requests that make different images must differ here.
    pub request: &'a str,
    /// Image index in the request, from 0.
    pub image: u64,
    /// What it shows: `composite`, `background`, ... All objects of one image share its frame of reference.
    pub object: &'a str,
}

impl Identity<'_> {
    /// The SOP Instance UID.
    pub(super) fn instance_uid(&self) -> String {
        derived_uid(&["instance", self.request, &self.image.to_string(), self.object])
    }

    /// The Series Instance UID.
    pub(super) fn series_uid(&self) -> String {
        derived_uid(&["series", self.request, &self.image.to_string(), self.object])
    }

    /// The Study Instance UID: a request has one study.
    pub(super) fn study_uid(&self) -> String {
        derived_uid(&["study", self.request])
    }
}

/// A synthetic image to be written.
#[derive(Debug, Clone, Copy)]
pub struct Synthetic<'a> {
    /// Pixels in [-1, 1] over `window`; values beyond are clamped. Its spacing is written, 1 mm where it has none.
    pub plane: &'a Plane,
    /// The range of real-world values that 16 bits are spent on.
    pub window: Window,
    /// Source of the UIDs.
    pub identity: Identity<'a>,
    /// DICOM modality. `CT` becomes a CT Image, `DX` a Digital X-Ray Image for presentation, any other a Secondary Capture of conversion
    /// type SYN.
    pub modality: &'a str,
    /// Series description, at most 64 characters: what the object is, for a reader.
    pub description: &'a str,
    /// Body part examined (defined terms of PS3.16 annex L), such as `CHEST`.
    pub body_part: &'a str,
    /// Version of the software, written as that of the synthesizing equipment.
    pub software_version: &'a str,
    /// How the pixels are encoded.
    pub syntax: Syntax,
}

impl Synthetic<'_> {
    /// The SOP Instance UID that the object gets.
    pub fn sop_instance_uid(&self) -> String {
        self.identity.instance_uid()
    }

    /// The bytes of the DICOM file. The same input gives the same bytes: no clock and no chance is involved.
    ///
    /// Stored values are unsigned 16 bit, `Window::to_stored` of each pixel; slope and intercept map them back to
    /// real-world values, exactly enough that `to_stored(normalise(value))` is the stored value again.
    ///
    /// # Errors
    /// [`Error::Size`], [`Error::NotANumber`], [`Error::Window`], [`Error::Encoding`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let Window { low, high } = self.window;
        if !(low < high && low.is_finite() && high.is_finite()) {
            return Err(Error::Window { low, high });
        }
        let stored = self.stored()?;
        let pixels =
            Pixels { stored: &stored, width: side(self.plane)?.0, height: side(self.plane)?.1, bits_stored: 16 };
        encode(self.dataset(&pixels).0, &pixels, self.syntax)
    }

    fn stored(&self) -> Result<Vec<u16>, Error> {
        let values = self.plane.data();
        if values.iter().fold(false, |found, value| found | value.is_nan()) {
            let at = values.iter().position(|value| value.is_nan()).unwrap_or_default();
            return Err(Error::NotANumber { x: at % self.plane.width(), y: at / self.plane.width() });
        }
        Ok(values.iter().map(|&value| self.window.to_stored(value)).collect())
    }

    /// SOP class of the object.
    pub(super) fn sop_class(&self) -> &'static str {
        match self.modality {
            "CT" => uids::CT_IMAGE_STORAGE,
            "DX" => uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION,
            _ => uids::SECONDARY_CAPTURE_IMAGE_STORAGE,
        }
    }

    /// A data set with what every object of the request says: whose it is, that nobody is shown, and what made it (Patient, General
    /// Study, General Series, General Equipment, SOP Common; C.7.1.1, C.7.2.1, C.7.3.1, C.7.5.1, C.12.1).
    pub(super) fn head(&self, identity: &Identity<'_>, class: &str, modality: &str, description: &str) -> Builder {
        let Identity { request, image, .. } = *identity;
        let anonym = derived_uid(&["patient", request]);
        let id = format!("SYN-{}", &anonym[anonym.len() - 12..]);
        let mut set = Builder::new();
        set.text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192")
            .text(tags::SOP_CLASS_UID, VR::UI, class)
            .text(tags::SOP_INSTANCE_UID, VR::UI, &identity.instance_uid())
            .text(tags::SYNTHETIC_DATA, VR::CS, "YES")
            .nobody(&format!("SYNTHETIC^{id}"), &id, DEIDENTIFICATION)
            .text(tags::STUDY_INSTANCE_UID, VR::UI, &identity.study_uid())
            .text(tags::STUDY_ID, VR::SH, "")
            .text(tags::SERIES_INSTANCE_UID, VR::UI, &identity.series_uid())
            .text(tags::SERIES_NUMBER, VR::IS, "")
            .text(tags::SERIES_DESCRIPTION, VR::LO, description)
            .text(tags::MODALITY, VR::CS, modality)
            .text(tags::MANUFACTURER, VR::LO, MANUFACTURER)
            .text(tags::MANUFACTURER_MODEL_NAME, VR::LO, "hiresmed")
            .text(tags::SOFTWARE_VERSIONS, VR::LO, self.software_version)
            .text(tags::INSTANCE_NUMBER, VR::IS, &(image + 1).to_string());
        set
    }

    fn dataset(&self, pixels: &Pixels<'_>) -> Builder {
        let ct = self.modality == "CT";
        let image_type = match self.modality {
            "CT" => "DERIVED\\SECONDARY\\AXIAL",
            // The third value is there, and empty, for a radiograph (C.8.11.3.1.1).
            "DX" => "DERIVED\\SECONDARY\\",
            _ => "DERIVED\\SECONDARY",
        };
        let mut set = self.head(&self.identity, self.sop_class(), self.modality, self.description);
        set.text(tags::IMAGE_TYPE, VR::CS, image_type)
            .text(tags::BODY_PART_EXAMINED, VR::CS, self.body_part)
            .text(tags::DERIVATION_DESCRIPTION, VR::ST, DERIVATION)
            .text(tags::LOSSY_IMAGE_COMPRESSION, VR::CS, "00")
            .image_pixel(pixels);
        let (slope, intercept) = self.window.rescale();
        set.intensity(slope, intercept, if ct { "HU" } else { "US" }, self.window);
        self.equipment(&mut set, "Synthesis of the whole image");
        let spacing = self.spacing();
        if ct {
            self.ct(&mut set, spacing, pixels);
        } else if self.modality == "DX" {
            self.radiograph(&mut set, spacing);
        } else {
            set.text(tags::CONVERSION_TYPE, VR::CS, "SYN")
                .text(tags::PATIENT_ORIENTATION, VR::CS, self.patient_orientation())
                .decimals(tags::PIXEL_SPACING, &[spacing.row_mm, spacing.column_mm])
                .text(tags::PIXEL_SPACING_CALIBRATION_TYPE, VR::CS, "GEOMETRY")
                .text(tags::PIXEL_SPACING_CALIBRATION_DESCRIPTION, VR::LO, "Spacing of the training images");
        }
        set
    }

    /// Contributing Equipment (C.12.1.1.5); `what` it did.
    pub(super) fn equipment(&self, set: &mut Builder, what: &str) {
        let mut item = Builder::new();
        item.code(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, "109100", "DCM", "Synthesizing Equipment")
            .text(tags::MANUFACTURER, VR::LO, MANUFACTURER)
            .text(tags::MANUFACTURER_MODEL_NAME, VR::LO, "hiresmed")
            .text(tags::SOFTWARE_VERSIONS, VR::LO, self.software_version)
            .text(tags::CONTRIBUTION_DESCRIPTION, VR::ST, what);
        set.sequence(tags::CONTRIBUTING_EQUIPMENT_SEQUENCE, item);
    }

    /// Frame of Reference, Image Plane and CT Image (C.7.4.1, C.7.6.2, C.8.2.1).
    fn ct(&self, set: &mut Builder, spacing: Spacing, pixels: &Pixels<'_>) {
        self.frame_of_reference(set);
        set.text(tags::PATIENT_POSITION, VR::CS, "HFS")
            .axial_plane(spacing, self.position_mm((pixels.width, pixels.height)), None)
            .text(tags::KVP, VR::DS, "")
            .text(tags::ACQUISITION_NUMBER, VR::IS, "");
    }

    /// Frame of Reference (C.7.4.1): all objects of one image share it.
    pub(super) fn frame_of_reference(&self, set: &mut Builder) {
        let Identity { request, image, .. } = self.identity;
        set.text(
            tags::FRAME_OF_REFERENCE_UID,
            VR::UI,
            &derived_uid(&["frame of reference", request, &image.to_string()]),
        )
        .text(tags::POSITION_REFERENCE_INDICATOR, VR::LO, "");
    }

    /// Centre of the first pixel of an axial slice of `size` (columns, rows): the slice is centred in its own frame of reference.
    pub(super) fn position_mm(&self, size: (u16, u16)) -> [f64; 3] {
        let spacing = self.spacing();
        let corner = |length: u16, mm: f64| -(f64::from(length) - 1.0) / 2.0 * mm;
        [corner(size.0, spacing.column_mm), corner(size.1, spacing.row_mm), 0.0]
    }

    /// Where rows and columns of a projection lead (C.7.6.1.1.1); unknown of anything else that has no place in a frame of reference.
    pub(super) fn patient_orientation(&self) -> &'static str {
        if self.modality == "DX" { "L\\F" } else { "" }
    }

    /// The spacing that is written.
    pub(super) fn spacing(&self) -> Spacing {
        self.plane.spacing.unwrap_or(Spacing::square(1.0))
    }
}

impl Synthetic<'_> {
    /// DX Series, Anatomy Imaged, Image, Detector and Positioning, Acquisition Context (C.8.11.1 to C.8.11.5, C.7.6.14) of an
    /// antero-posterior view. Brighter is more attenuation; distances are the patient's, as if the detector touched it.
    fn radiograph(&self, set: &mut Builder, spacing: Spacing) {
        let mm = [spacing.row_mm, spacing.column_mm];
        set.text(tags::PRESENTATION_INTENT_TYPE, VR::CS, "FOR PRESENTATION")
            .text(tags::IMAGE_LATERALITY, VR::CS, "U")
            .text(tags::PATIENT_ORIENTATION, VR::CS, self.patient_orientation())
            .text(tags::VIEW_POSITION, VR::CS, "AP")
            .code(tags::VIEW_CODE_SEQUENCE, "399348003", "SCT", "antero-posterior")
            .text(tags::POSITIONER_TYPE, VR::CS, "")
            .text(tags::PIXEL_INTENSITY_RELATIONSHIP, VR::CS, "LOG")
            .text(tags::PRESENTATION_LUT_SHAPE, VR::CS, "IDENTITY")
            .text(tags::DETECTOR_TYPE, VR::CS, "")
            .decimals(tags::IMAGER_PIXEL_SPACING, &mm)
            .decimals(tags::PIXEL_SPACING, &mm)
            .text(tags::PIXEL_SPACING_CALIBRATION_TYPE, VR::CS, "GEOMETRY")
            .text(tags::PIXEL_SPACING_CALIBRATION_DESCRIPTION, VR::LO, "Spacing of the training images");
        match self.body_part {
            "ABDOMEN" => set.code(tags::ANATOMIC_REGION_SEQUENCE, "818981001", "SCT", "Abdomen"),
            "CHEST" => set.code(tags::ANATOMIC_REGION_SEQUENCE, "816094009", "SCT", "Chest"),
            _ => set.empty_sequence(tags::ANATOMIC_REGION_SEQUENCE),
        };
        set.empty_sequence(tags::ACQUISITION_CONTEXT_SEQUENCE);
        set.sign(tags::PIXEL_INTENSITY_RELATIONSHIP_SIGN, 1);
    }
}

/// Columns and rows where DICOM can express them.
pub(super) fn side(plane: &Plane) -> Result<(u16, u16), Error> {
    let (width, height) = (plane.width(), plane.height());
    match (u16::try_from(width), u16::try_from(height)) {
        (Ok(columns), Ok(rows)) if columns > 0 && rows > 0 => Ok((columns, rows)),
        _ => Err(Error::Size { width, height }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dicom::{ReadOptions, from_bytes};

    fn plane() -> Plane {
        // Every 16-bit value once.
        let data = (0..=u16::MAX).map(|stored| Window::LUNG_CT.from_stored(stored)).collect();
        Plane::new(256, 256, data).with_spacing(Some(Spacing { row_mm: 0.703125, column_mm: 2.0 / 3.0 }))
    }

    fn synthetic(plane: &Plane, modality: &'static str, syntax: Syntax) -> Vec<u8> {
        Synthetic {
            plane,
            window: Window::LUNG_CT,
            identity: Identity { request: "r-1/42", image: 3, object: "composite" },
            modality,
            description: "Synthetic lung CT with nodules",
            body_part: "CHEST",
            software_version: "0.1.0",
            syntax,
        }
        .to_bytes()
        .unwrap()
    }

    #[test]
    fn stored_values_survive_every_syntax_and_every_object() {
        for modality in ["CT", "DX", "OT"] {
            for syntax in [Syntax::Explicit, Syntax::Deflated, Syntax::JpegLs] {
                let bytes = synthetic(&plane(), modality, syntax);
                let image = from_bytes(&bytes, "memory", ReadOptions::default()).unwrap();
                assert_eq!(image.attributes.transfer_syntax.as_deref(), Some(syntax.uid()));
                assert_eq!(image.attributes.modality.as_deref(), Some(modality));
                assert!(image.frame(0).unwrap().values.iter().copied().eq(0..=65_535));
                let read = image.to_plane(0).unwrap();
                let restored = read.data().iter().map(|&hu| Window::LUNG_CT.to_stored(Window::LUNG_CT.normalise(hu)));
                assert!(restored.eq(0..=u16::MAX));
                let spacing = read.spacing.unwrap();
                assert!((spacing.column_mm - 2.0 / 3.0).abs() < 1e-9 && spacing.row_mm == 0.703125);
            }
        }
    }

    #[test]
    fn the_same_image_gives_the_same_bytes_and_says_that_it_is_synthetic() {
        let bytes = synthetic(&plane(), "CT", Syntax::Explicit);
        assert_eq!(bytes, synthetic(&plane(), "CT", Syntax::Explicit));
        let object = dicom_object::from_reader(&bytes[128..]).unwrap();
        let text = |tag| object.element(tag).unwrap().to_str().unwrap().into_owned();
        assert_eq!(text(tags::SYNTHETIC_DATA), "YES");
        assert_eq!(text(tags::PATIENT_IDENTITY_REMOVED), "YES");
        assert!(text(tags::IMAGE_TYPE).starts_with("DERIVED\\SECONDARY"));
        assert!(text(tags::SOP_INSTANCE_UID).starts_with("2.25."));
        assert_eq!(text(tags::INSTANCE_NUMBER), "4");
        let equipment = object.element(tags::CONTRIBUTING_EQUIPMENT_SEQUENCE).unwrap().items().unwrap();
        let purpose = equipment[0].element(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE).unwrap().items().unwrap();
        assert_eq!(purpose[0].element(tags::CODE_VALUE).unwrap().to_str().unwrap(), "109100");
    }

    #[test]
    fn an_image_registers_with_its_background_and_with_no_other_image() {
        let plane = Plane::filled(8, 8, 0.0);
        let written = |image, object| {
            let identity = Identity { request: "r-1/42", image, object };
            let (description, body_part, software_version) = ("", "CHEST", "0");
            let (window, modality, syntax) = (Window::LUNG_CT, "CT", Syntax::Explicit);
            let plane = &plane;
            let object =
                Synthetic { plane, window, identity, modality, description, body_part, software_version, syntax };
            dicom_object::from_reader(&object.to_bytes().unwrap()[128..]).unwrap()
        };
        let objects = [written(0, "composite"), written(0, "background"), written(1, "composite")];
        let text = |tag| objects.each_ref().map(|object| object.element(tag).unwrap().to_str().unwrap().into_owned());
        let frames = text(tags::FRAME_OF_REFERENCE_UID);
        assert!(frames[0] == frames[1] && frames[0] != frames[2], "{frames:?}");
        let series = text(tags::SERIES_INSTANCE_UID);
        assert!(series[0] != series[1] && series[0] != series[2], "one frame of reference a series: {series:?}");
        let studies = text(tags::STUDY_INSTANCE_UID);
        assert!(studies[0] == studies[1] && studies[0] == studies[2], "{studies:?}");
        for position in text(tags::IMAGE_POSITION_PATIENT) {
            assert!(position.ends_with("\\0"), "{position}");
        }
        for (method, object) in text(tags::DEIDENTIFICATION_METHOD).iter().zip(&objects) {
            assert!(method.contains("no attribute of an input") && method.len() <= 64, "{method}");
            // No profile of PS3.15 is claimed that nobody applied to the inputs.
            assert!(object.element_opt(tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE).unwrap().is_none());
        }
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let mut plane = Plane::filled(4, 4, 0.0);
        plane.set(2, 1, f32::NAN);
        let attempt = |plane: &Plane, window| {
            let identity = Identity { request: "r", image: 0, object: "composite" };
            let (modality, description, body_part, software_version) = ("CT", "", "CHEST", "0");
            Synthetic {
                plane,
                window,
                identity,
                modality,
                description,
                body_part,
                software_version,
                syntax: Syntax::Explicit,
            }
            .to_bytes()
        };
        assert!(matches!(attempt(&plane, Window::LUNG_CT), Err(Error::NotANumber { x: 2, y: 1 })));
        assert!(matches!(attempt(&Plane::filled(0, 0, 0.0), Window::LUNG_CT), Err(Error::Size { .. })));
        let window = Window { low: 1.0, high: 1.0 };
        assert!(matches!(attempt(&Plane::filled(2, 2, 0.0), window), Err(Error::Window { .. })));
    }
}
