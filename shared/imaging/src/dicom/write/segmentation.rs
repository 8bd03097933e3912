//! Segmentation (PS3.3 A.51): a segment and a frame a lesion, a bit a pixel.

use dicom_core::value::C;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};

use super::encoding::{HEAD_BYTES, file};
use super::labels::{Labels, UNDATED};
use super::modules::{Builder, Code};
use super::synthetic::{DERIVATION, side};
use super::{Error, derived_uid};

/// What the object is called in [`Labels::object`].
pub(super) const OBJECT: &str = "segmentation";

/// Room for the description of a segment and its frame.
const SEGMENT_BYTES: usize = 2048;

impl Labels<'_> {
    /// The bytes of a Segmentation of type BINARY: rows, columns, spacing, study and, for an axial slice, place and frame of reference
    /// are the image's. Every lesion is a segment (C.8.20.2) of one frame.
    ///
    /// # Errors
    /// [`Error::Segments`] for no lesion, or more than DICOM can number or hold; [`Error::Size`], [`Error::Encoding`].
    pub fn segmentation(&self) -> Result<Vec<u8>, Error> {
        let size = side(self.image.plane)?;
        let (packed, overlap) = self.packed(size)?;
        let room = packed.len() + HEAD_BYTES + SEGMENT_BYTES * self.lesions.len();
        let mut set = self.segmentation_dataset(size);
        set.text(tags::SEGMENTS_OVERLAP, VR::CS, if overlap { "YES" } else { "NO" });
        set.0.put(DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::from(packed)));
        file(set.0, self.syntax(), room)
    }

    /// The masks, a bit a pixel, the first pixel in the lowest bit. Frames follow one another without padding (PS3.5 8.1.1), so that one
    /// may begin within a byte; the whole is padded to even length (PS3.5 8.2). And whether two of them have a pixel in common.
    fn packed(&self, (columns, rows): (u16, u16)) -> Result<(Vec<u8>, bool), Error> {
        let (width, height, count) = (usize::from(columns), usize::from(rows), self.lesions.len());
        let refused = || Error::Segments { count, width, height };
        let bits = (width * height).checked_mul(count).ok_or_else(refused)?;
        let bytes = bits.div_ceil(8).next_multiple_of(2);
        // A length of 32 bits, of which all ones mean another thing.
        if count == 0 || u16::try_from(count).is_err() || u32::try_from(bytes).map_or(true, |length| length == u32::MAX)
        {
            return Err(refused());
        }
        let mut packed = vec![0u8; bytes];
        let (mut taken, mut overlap) = (vec![false; width * height], false);
        for (frame, lesion) in self.lesions.iter().enumerate() {
            for (at, _) in lesion.mask.data().iter().enumerate().filter(|(_, value)| **value != 0) {
                let (x, y) = ((at % lesion.mask.width()) as i64, (at / lesion.mask.width()) as i64);
                let inside = |value: Option<i64>, side: usize| {
                    value.and_then(|value| usize::try_from(value).ok()).filter(|value| *value < side)
                };
                let place = (inside(x.checked_add(lesion.left), width), inside(y.checked_add(lesion.top), height));
                if let (Some(x), Some(y)) = place {
                    let bit = (frame * height + y) * width + x;
                    packed[bit / 8] |= 1 << (bit % 8);
                    overlap |= std::mem::replace(&mut taken[y * width + x], true);
                }
            }
        }
        Ok((packed, overlap))
    }

    fn segmentation_dataset(&self, size: (u16, u16)) -> Builder {
        let (image, object) = (self.image, self.object(OBJECT));
        let identity = self.identity(&object);
        let mut set = image.head(&identity, uids::SEGMENTATION_STORAGE, "SEG", "Lesions of a synthetic image");
        image.equipment(&mut set, "Synthesis of the image and of its lesions");
        set.text(tags::IMAGE_TYPE, VR::CS, "DERIVED\\PRIMARY")
            .text(tags::BODY_PART_EXAMINED, VR::CS, image.body_part)
            // Segmentation Series (C.8.20.1) and Enhanced General Equipment (C.7.5.2) leave none of these empty; a program has no serial
            // number.
            .text(tags::SERIES_NUMBER, VR::IS, &(identity.image + 1).to_string())
            .text(tags::DEVICE_SERIAL_NUMBER, VR::LO, "none")
            .text(tags::CONTENT_DATE, VR::DA, UNDATED.0)
            .text(tags::CONTENT_TIME, VR::TM, UNDATED.1)
            .text(tags::DERIVATION_DESCRIPTION, VR::ST, DERIVATION)
            .text(tags::BURNED_IN_ANNOTATION, VR::CS, "NO")
            .text(tags::LOSSY_IMAGE_COMPRESSION, VR::CS, "00");
        set.number(tags::SAMPLES_PER_PIXEL, 1)
            .text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2")
            .text(tags::NUMBER_OF_FRAMES, VR::IS, &self.lesions.len().to_string())
            .number(tags::ROWS, size.1)
            .number(tags::COLUMNS, size.0)
            .number(tags::BITS_ALLOCATED, 1)
            .number(tags::BITS_STORED, 1)
            .number(tags::HIGH_BIT, 0)
            .number(tags::PIXEL_REPRESENTATION, 0);
        set.text(tags::SEGMENTATION_TYPE, VR::CS, "BINARY")
            .text(tags::CONTENT_LABEL, VR::CS, "LESIONS")
            .text(tags::CONTENT_DESCRIPTION, VR::LO, "Masks of the lesions that the image was made with")
            .text(tags::CONTENT_CREATOR_NAME, VR::PN, "")
            .items(tags::SEGMENT_SEQUENCE, self.each(|number| self.segment(number)));
        // Common Instance Reference (C.12.2).
        let mut series = Builder::new();
        series
            .text(tags::SERIES_INSTANCE_UID, VR::UI, &image.identity.series_uid())
            .sequence(tags::REFERENCED_INSTANCE_SEQUENCE, self.image_reference());
        set.sequence(tags::REFERENCED_SERIES_SEQUENCE, series);
        if self.axial() {
            image.frame_of_reference(&mut set);
        } else {
            set.text(tags::PATIENT_ORIENTATION, VR::CS, image.patient_orientation());
        }
        self.dimensions(&mut set);
        set.sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, self.shared())
            .items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, self.each(|number| self.frame(number, size)));
        set
    }

    /// What `of` gives for each lesion's number, from 1.
    fn each(&self, of: impl Fn(u16) -> Builder) -> Vec<Builder> {
        // No more numbers than 16 bits have: see `packed`.
        (1..=u16::MAX).take(self.lesions.len()).map(of).collect()
    }

    /// Whether the image has a place in a frame of reference.
    fn axial(&self) -> bool {
        self.image.modality == "CT"
    }

    /// Segment Description (C.8.20.4). What the generator put there is known, not guessed: the algorithm is the program itself.
    fn segment(&self, number: u16) -> Builder {
        let (name, uid) = self.tracking(usize::from(number));
        let mut item = Builder::new();
        item.number(tags::SEGMENT_NUMBER, number)
            .text(tags::SEGMENT_LABEL, VR::LO, &format!("{} {number}", self.finding.name()))
            .text(tags::SEGMENT_DESCRIPTION, VR::ST, "A synthetic lesion")
            .text(tags::SEGMENT_ALGORITHM_TYPE, VR::CS, "AUTOMATIC")
            .text(tags::SEGMENT_ALGORITHM_NAME, VR::LO, "hiresmed")
            .coded(tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE, super::Finding::CATEGORY)
            .coded(tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, self.finding.code())
            .text(tags::TRACKING_ID, VR::UT, &name)
            .text(tags::TRACKING_UID, VR::UI, &uid);
        item
    }

    /// Multi-frame Dimension (C.7.6.17): frames are told apart by segment, then, for a slice, by place.
    fn dimensions(&self, set: &mut Builder) {
        let organisation = derived_uid(&["hiresmed", "dimensions of a segmentation"]);
        let index = |pointer: Tag, group: Tag, label: &str| {
            let mut item = Builder::new();
            item.text(tags::DIMENSION_ORGANIZATION_UID, VR::UI, &organisation)
                .pointer(tags::DIMENSION_INDEX_POINTER, pointer)
                .pointer(tags::FUNCTIONAL_GROUP_POINTER, group)
                .text(tags::DIMENSION_DESCRIPTION_LABEL, VR::LO, label);
            item
        };
        let mut items = vec![index(
            tags::REFERENCED_SEGMENT_NUMBER,
            tags::SEGMENT_IDENTIFICATION_SEQUENCE,
            "Referenced Segment Number",
        )];
        if self.axial() {
            let label = "Image Position (Patient)";
            items.push(index(tags::IMAGE_POSITION_PATIENT, tags::PLANE_POSITION_SEQUENCE, label));
        }
        let mut organised = Builder::new();
        organised.text(tags::DIMENSION_ORGANIZATION_UID, VR::UI, &organisation);
        set.sequence(tags::DIMENSION_ORGANIZATION_SEQUENCE, organised).items(tags::DIMENSION_INDEX_SEQUENCE, items);
    }

    /// Functional groups of all frames: Pixel Measures and Plane Orientation (C.7.6.16.2.1, C.7.6.16.2.4) of a slice, none of a
    /// projection, whose spacing is its image's to say. Viewers want a thickness to make a volume of a slice, and a slice that was made by
    /// itself has none: its pixels are taken to be as thick as they are high.
    fn shared(&self) -> Builder {
        let mut shared = Builder::new();
        if self.axial() {
            let spacing = self.image.spacing();
            let (mut measures, mut plane) = (Builder::new(), Builder::new());
            measures
                .decimals(tags::PIXEL_SPACING, &[spacing.row_mm, spacing.column_mm])
                .decimals(tags::SLICE_THICKNESS, &[spacing.row_mm]);
            plane.decimals(tags::IMAGE_ORIENTATION_PATIENT, &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
            shared.sequence(tags::PIXEL_MEASURES_SEQUENCE, measures).sequence(tags::PLANE_ORIENTATION_SEQUENCE, plane);
        }
        shared
    }

    /// Functional groups of lesion `number`'s frame: Frame Content, Plane Position, Derivation Image and Segment Identification
    /// (C.7.6.16.2.2, C.7.6.16.2.3, C.7.6.16.2.6, C.8.20.3.1).
    fn frame(&self, number: u16, size: (u16, u16)) -> Builder {
        let mut source = self.image_reference();
        source
            .coded(
                tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE,
                Code("121322", "DCM", "Source image for image processing operation"),
            )
            .text(tags::SPATIAL_LOCATIONS_PRESERVED, VR::CS, "YES");
        let mut derivation = Builder::new();
        derivation
            .sequence(tags::SOURCE_IMAGE_SEQUENCE, source)
            .coded(tags::DERIVATION_CODE_SEQUENCE, Code("113076", "DCM", "Segmentation"));
        let mut segment = Builder::new();
        segment.number(tags::REFERENCED_SEGMENT_NUMBER, number);
        let mut frame = Builder::new();
        let mut index = vec![u32::from(number)];
        if self.axial() {
            let mut position = Builder::new();
            position.decimals(tags::IMAGE_POSITION_PATIENT, &self.image.position_mm(size));
            frame.sequence(tags::PLANE_POSITION_SEQUENCE, position);
            index.push(1);
        }
        let mut content = Builder::new();
        let index = PrimitiveValue::U32(C::from_vec(index));
        content.0.put(DataElement::new(tags::DIMENSION_INDEX_VALUES, VR::UL, index));
        frame
            .sequence(tags::FRAME_CONTENT_SEQUENCE, content)
            .sequence(tags::DERIVATION_IMAGE_SEQUENCE, derivation)
            .sequence(tags::SEGMENT_IDENTIFICATION_SEQUENCE, segment);
        frame
    }
}

#[cfg(test)]
mod tests {
    use dicom_object::{DefaultDicomObject, InMemDicomObject};
    use proptest::prelude::*;

    use super::*;
    use crate::dicom::write::{Finding, Identity, Lesion, Syntax, Synthetic};
    use crate::{Mask, Plane, Spacing, Window};

    fn image<'a>(plane: &'a Plane, modality: &'a str, syntax: Syntax) -> Synthetic<'a> {
        Synthetic {
            plane,
            window: Window::LUNG_CT,
            identity: Identity { request: "r-1/42", image: 3, object: "composite" },
            modality,
            description: "Synthetic image with lesions",
            body_part: "CHEST",
            software_version: "0.1.0",
            syntax,
        }
    }

    fn plane(width: usize, height: usize) -> Plane {
        Plane::filled(width, height, 0.0).with_spacing(Some(Spacing { row_mm: 0.5, column_mm: 0.75 }))
    }

    /// Lesions in frames of their own, at a place each.
    fn written(image: &Synthetic<'_>, placed: &[(Mask, i64, i64)]) -> Result<Vec<u8>, Error> {
        let lesions: Vec<Lesion> = placed
            .iter()
            .map(|(mask, left, top)| Lesion { mask, left: *left, top: *top, diameter_mm: 5.0, area_mm2: 20.0 })
            .collect();
        Labels { image, finding: Finding::Nodule, lesions: &lesions }.segmentation()
    }

    fn read(bytes: &[u8]) -> DefaultDicomObject {
        dicom_object::from_reader(&bytes[128..]).unwrap()
    }

    /// Frame by frame, as PS3.5 8.1.1 has them.
    fn frames(object: &DefaultDicomObject) -> Vec<Mask> {
        let number = |tag| object.element(tag).unwrap().to_int::<usize>().unwrap();
        let (width, height) = (number(tags::COLUMNS), number(tags::ROWS));
        let bytes = object.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap();
        assert_eq!(bytes.len() % 2, 0);
        let bit = |at: usize| bytes[at / 8] >> (at % 8) & 1 == 1;
        let used = width * height * number(tags::NUMBER_OF_FRAMES);
        assert!((used..8 * bytes.len()).all(|at| !bit(at)), "what pads the pixels is not 0");
        let frame = |n: usize| Mask::from_fn(width, height, |x, y| bit((n * height + y) * width + x));
        (0..number(tags::NUMBER_OF_FRAMES)).map(frame).collect()
    }

    fn items(object: &InMemDicomObject, tag: Tag) -> Vec<InMemDicomObject> {
        object.element(tag).unwrap().items().unwrap().to_vec()
    }

    fn text(object: &InMemDicomObject, tag: Tag) -> String {
        object.element(tag).unwrap().to_str().unwrap().into_owned()
    }

    #[test]
    fn frames_begin_within_bytes() {
        // 15 bits a frame: the second begins at the last bit of a byte, the third two bits before the end of one.
        let plane = plane(5, 3);
        let dot = Mask::from_fn(1, 1, |_, _| true);
        let full = Mask::from_fn(5, 3, |_, _| true);
        let object = read(&written(&image(&plane, "CT", Syntax::Explicit), &[(dot, 4, 2), (full, 0, 0)]).unwrap());
        let bytes = object.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap();
        assert_eq!(&bytes[..], [0, 0b1100_0000, 0xFF, 0b0011_1111]);
        assert_eq!(text(&object, tags::SEGMENTS_OVERLAP), "YES");
    }

    proptest! {
        #[test]
        fn masks_come_back_whatever_their_size(
            width in 1usize..20, height in 1usize..20,
            lesions in proptest::collection::vec((1usize..9, 1usize..9, -9i64..20, -9i64..20, 0u64..), 1..6),
        ) {
            let plane = plane(width, height);
            let placed: Vec<_> = lesions.iter().map(|&(across, down, left, top, bits)| {
                (Mask::from_fn(across, down, |x, y| bits >> ((y * 9 + x) % 64) & 1 == 1), left, top)
            }).collect();
            for syntax in [Syntax::Explicit, Syntax::Deflated, Syntax::JpegLs] {
                let object = read(&written(&image(&plane, "CT", syntax), &placed).unwrap());
                let whole = |(mask, left, top): &(Mask, i64, i64)| Mask::from_fn(width, height, |x, y| {
                    let (x, y) = (x as i64 - left, y as i64 - top);
                    (0..mask.width() as i64).contains(&x) && (0..mask.height() as i64).contains(&y)
                        && mask.get(x as usize, y as usize)
                });
                prop_assert_eq!(frames(&object), placed.iter().map(whole).collect::<Vec<_>>());
                let expected = if syntax == Syntax::JpegLs { Syntax::Explicit } else { syntax };
                prop_assert_eq!(object.meta().transfer_syntax(), expected.uid());
            }
        }
    }

    #[test]
    fn segments_belong_to_the_image_and_say_that_they_are_synthetic() {
        let plane = plane(40, 30);
        let lesions = [(Mask::from_fn(4, 4, |_, _| true), 3, 5), (Mask::from_fn(2, 6, |_, _| true), 20, 9)];
        for modality in ["CT", "DX"] {
            let image = image(&plane, modality, Syntax::Explicit);
            let bytes = written(&image, &lesions).unwrap();
            assert_eq!(bytes, written(&image, &lesions).unwrap());
            let (object, source) = (read(&bytes), read(&image.to_bytes().unwrap()));
            assert_eq!(text(&object, tags::SEGMENTS_OVERLAP), "NO");
            let shared = [tags::STUDY_INSTANCE_UID, tags::PATIENT_ID, tags::PATIENT_NAME, tags::SYNTHETIC_DATA];
            for tag in shared.into_iter().chain((modality == "CT").then_some(tags::FRAME_OF_REFERENCE_UID)) {
                assert_eq!(text(&object, tag), text(&source, tag));
            }
            assert_ne!(text(&object, tags::SERIES_INSTANCE_UID), text(&source, tags::SERIES_INSTANCE_UID));
            assert_eq!(object.get(tags::FRAME_OF_REFERENCE_UID).is_some(), modality == "CT");
            let series = &items(&object, tags::REFERENCED_SERIES_SEQUENCE)[0];
            assert_eq!(text(series, tags::SERIES_INSTANCE_UID), text(&source, tags::SERIES_INSTANCE_UID));
            let instance = &items(series, tags::REFERENCED_INSTANCE_SEQUENCE)[0];
            for (to, of) in [
                (tags::REFERENCED_SOP_CLASS_UID, tags::SOP_CLASS_UID),
                (tags::REFERENCED_SOP_INSTANCE_UID, tags::SOP_INSTANCE_UID),
            ] {
                assert_eq!(text(instance, to), text(&source, of));
            }
            let segments = items(&object, tags::SEGMENT_SEQUENCE);
            assert_eq!(text(&segments[1], tags::SEGMENT_LABEL), "Nodule 2");
            assert_ne!(text(&segments[0], tags::TRACKING_UID), text(&segments[1], tags::TRACKING_UID));
            assert_eq!(items(&object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).len(), 2);
        }
    }

    #[test]
    fn no_lesion_and_too_many_are_refused() {
        let plane = plane(8, 8);
        let image = image(&plane, "CT", Syntax::Explicit);
        assert!(matches!(written(&image, &[]), Err(Error::Segments { count: 0, .. })));
        let many = vec![(Mask::empty(1, 1), 0, 0); 65_536];
        assert!(matches!(written(&image, &many), Err(Error::Segments { .. })));
        let far = [(Mask::from_fn(2, 2, |_, _| true), i64::MAX, i64::MIN)];
        assert_eq!(frames(&read(&written(&image, &far).unwrap()))[0].area(), 0);
    }
}
