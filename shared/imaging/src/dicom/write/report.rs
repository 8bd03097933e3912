//! Measurement Report (PS3.16 TID 1500) as a Comprehensive SR (PS3.3 A.35.3): a measurement group a lesion.

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};

use super::encoding::{HEAD_BYTES, file};
use super::labels::{Labels, Lesion, UNDATED};
use super::modules::{Builder, Code};
use super::{Error, Finding, derived_uid, segmentation};

/// What the object is called among the image's objects.
const OBJECT: &str = "measurements";

/// Room for a measurement group.
const GROUP_BYTES: usize = 4096;

/// How a content item is related to the one that it is in (C.17.3.2.4).
const CONTAINS: &str = "CONTAINS";
const OBSERVED: &str = "HAS OBS CONTEXT";
const MODIFIER: &str = "HAS CONCEPT MOD";

impl Labels<'_> {
    /// The bytes of a Measurement Report: of every lesion a group (TID 1410) with its long axis in mm and its area in mm², which refers to
    /// the lesion's frame of [`Labels::segmentation`] and shares its tracking UID. Measured is the mask that the image was made with.
    ///
    /// # Errors
    /// [`Error::Segments`] for no lesion; [`Error::Spacing`] where the image does not say how far its pixels lie apart, so that no size in mm
    /// is known; [`Error::Measurement`] for a size that is none; [`Error::Encoding`].
    pub fn measurements(&self) -> Result<Vec<u8>, Error> {
        let (plane, count) = (self.image.plane, self.lesions.len());
        if count == 0 {
            return Err(Error::Segments { count, width: plane.width(), height: plane.height() });
        }
        if plane.spacing.is_none() {
            return Err(Error::Spacing);
        }
        let mut groups = Vec::with_capacity(count);
        for (index, lesion) in self.lesions.iter().enumerate() {
            for value in [lesion.diameter_mm, lesion.area_mm2] {
                if !(value.is_finite() && value >= 0.0) {
                    return Err(Error::Measurement { lesion: index + 1, value });
                }
            }
            groups.push(self.group(index + 1, lesion));
        }
        file(self.report(groups).0, self.syntax(), HEAD_BYTES + GROUP_BYTES * count)
    }

    fn report(&self, groups: Vec<Builder>) -> Builder {
        let (image, object) = (self.image, self.object(OBJECT));
        let identity = self.identity(&object);
        let description = "Measurements of the lesions of a synthetic image";
        let mut set = image.head(&identity, uids::COMPREHENSIVE_SR_STORAGE, "SR", description);
        image.equipment(&mut set, "Synthesis of the image and of its lesions");
        // SR Document Series and General (C.17.1, C.17.2). Nobody has looked at it, and nobody has to: what it says is what was made.
        set.text(tags::SERIES_NUMBER, VR::IS, &(identity.image + 1).to_string())
            .empty_sequence(tags::REFERENCED_PERFORMED_PROCEDURE_STEP_SEQUENCE)
            .text(tags::CONTENT_DATE, VR::DA, UNDATED.0)
            .text(tags::CONTENT_TIME, VR::TM, UNDATED.1)
            .text(tags::COMPLETION_FLAG, VR::CS, "COMPLETE")
            .text(tags::VERIFICATION_FLAG, VR::CS, "UNVERIFIED")
            .empty_sequence(tags::PERFORMED_PROCEDURE_CODE_SEQUENCE)
            .sequence(tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE, self.evidence());
        // SR Document Content (C.17.3): the root is a container.
        let procedure = match image.modality {
            "CT" => Code("25045-6", "LN", "CT unspecified body region"),
            "DX" => Code("43468-8", "LN", "XR unspecified body region"),
            _ => Code("363679005", "SCT", "Imaging procedure"),
        };
        let language = Code("121049", "DCM", "Language of Content Item and Descendants");
        let mut content = vec![code(MODIFIER, language, Code("en", "RFC5646", "English"))];
        content.extend(observer());
        content.push(code(MODIFIER, Code("121058", "DCM", "Procedure reported"), procedure));
        content.push(container(Code("126010", "DCM", "Imaging Measurements"), None, groups));
        fill(&mut set, Code("126000", "DCM", "Imaging Measurement Report"), Some("1500"), content);
        set
    }

    /// What the report refers to, by series.
    fn evidence(&self) -> Builder {
        let series = |uid: &str, object: Builder| {
            let mut item = Builder::new();
            item.text(tags::SERIES_INSTANCE_UID, VR::UI, uid).sequence(tags::REFERENCED_SOP_SEQUENCE, object);
            item
        };
        let object = self.object(segmentation::OBJECT);
        let masks = self.identity(&object).series_uid();
        let series =
            vec![series(&self.image.identity.series_uid(), self.image_reference()), series(&masks, self.masks())];
        let mut study = Builder::new();
        study
            .text(tags::STUDY_INSTANCE_UID, VR::UI, &self.image.identity.study_uid())
            .items(tags::REFERENCED_SERIES_SEQUENCE, series);
        study
    }

    /// A reference to the Segmentation.
    fn masks(&self) -> Builder {
        let object = self.object(segmentation::OBJECT);
        Builder::reference(uids::SEGMENTATION_STORAGE, &self.identity(&object).instance_uid())
    }

    /// Planar ROI Measurements (TID 1410) of lesion `number`, from 1.
    fn group(&self, number: usize, lesion: &Lesion<'_>) -> Builder {
        let (name, uid) = self.tracking(number);
        // A reference names a frame or a segment, not both (PS3.3 10.3).
        let mut frame = self.masks();
        frame.text(tags::REFERENCED_FRAME_NUMBER, VR::IS, &number.to_string());
        let (mm, mm2) = (Code("mm", "UCUM", "mm"), Code("mm2", "UCUM", "square millimeter"));
        let content = vec![
            text(Code("112039", "DCM", "Tracking Identifier"), &name),
            reference_by_uid(Code("112040", "DCM", "Tracking Unique Identifier"), &uid),
            code(CONTAINS, Code("276214006", "SCT", "Finding category"), Finding::CATEGORY),
            code(CONTAINS, Code("121071", "DCM", "Finding"), self.finding.code()),
            image(Code("121214", "DCM", "Referenced Segmentation Frame"), frame),
            image(Code("121233", "DCM", "Source image for segmentation"), self.image_reference()),
            number_of(Code("103339001", "SCT", "Long Axis"), lesion.diameter_mm, mm),
            number_of(Code("42798000", "SCT", "Area"), lesion.area_mm2, mm2),
        ];
        container(Code("125007", "DCM", "Measurement Group"), Some("1410"), content)
    }
}

/// Observer Context (TID 1001, 1002, 1004): a program, and nobody.
fn observer() -> [Builder; 5] {
    let uid = derived_uid(&["hiresmed", "device observer"]);
    [
        code(OBSERVED, Code("121005", "DCM", "Observer Type"), Code("121007", "DCM", "Device")),
        reference_by_uid(Code("121012", "DCM", "Device Observer UID"), &uid),
        text(Code("121013", "DCM", "Device Observer Name"), "hiresmed"),
        text(Code("121014", "DCM", "Device Observer Manufacturer"), "hiresmed"),
        text(Code("121015", "DCM", "Device Observer Model Name"), "hiresmed"),
    ]
}

/// A content item (C.17.3) without its value.
fn item(relationship: &str, kind: &str, name: Code) -> Builder {
    let mut item = Builder::new();
    item.text(tags::RELATIONSHIP_TYPE, VR::CS, relationship)
        .text(tags::VALUE_TYPE, VR::CS, kind)
        .coded(tags::CONCEPT_NAME_CODE_SEQUENCE, name);
    item
}

fn code(relationship: &str, name: Code, value: Code) -> Builder {
    let mut item = item(relationship, "CODE", name);
    item.coded(tags::CONCEPT_CODE_SEQUENCE, value);
    item
}

fn text(name: Code, value: &str) -> Builder {
    let mut item = item(OBSERVED, "TEXT", name);
    item.text(tags::TEXT_VALUE, VR::UT, value);
    item
}

fn reference_by_uid(name: Code, uid: &str) -> Builder {
    let mut item = item(OBSERVED, "UIDREF", name);
    item.text(tags::UID, VR::UI, uid);
    item
}

fn image(name: Code, object: Builder) -> Builder {
    let mut item = item(CONTAINS, "IMAGE", name);
    item.sequence(tags::REFERENCED_SOP_SEQUENCE, object);
    item
}

/// A measurement (TID 300), as a decimal of 16 characters and, since not every number is one, as it is.
fn number_of(name: Code, value: f64, unit: Code) -> Builder {
    let mut measured = Builder::new();
    measured
        .decimals(tags::NUMERIC_VALUE, &[value])
        .coded(tags::MEASUREMENT_UNITS_CODE_SEQUENCE, unit)
        .0
        .put(DataElement::new(tags::FLOATING_POINT_VALUE, VR::FD, PrimitiveValue::from(value)));
    let mut item = item(CONTAINS, "NUM", name);
    item.sequence(tags::MEASURED_VALUE_SEQUENCE, measured);
    item
}

fn container(name: Code, template: Option<&str>, content: Vec<Builder>) -> Builder {
    let mut item = Builder::new();
    item.text(tags::RELATIONSHIP_TYPE, VR::CS, CONTAINS);
    fill(&mut item, name, template, content);
    item
}

/// Makes `set` a container by a template of PS3.16, if by one.
fn fill(set: &mut Builder, name: Code, template: Option<&str>, content: Vec<Builder>) {
    set.text(tags::VALUE_TYPE, VR::CS, "CONTAINER")
        .coded(tags::CONCEPT_NAME_CODE_SEQUENCE, name)
        .text(tags::CONTINUITY_OF_CONTENT, VR::CS, "SEPARATE")
        .items(tags::CONTENT_SEQUENCE, content);
    if let Some(identifier) = template {
        let mut item = Builder::new();
        item.text(tags::MAPPING_RESOURCE, VR::CS, "DCMR").text(tags::TEMPLATE_IDENTIFIER, VR::CS, identifier);
        set.sequence(tags::CONTENT_TEMPLATE_SEQUENCE, item);
    }
}

#[cfg(test)]
mod tests {
    use dicom_core::Tag;
    use dicom_object::InMemDicomObject;

    use super::*;
    use crate::dicom::write::{Identity, Syntax, Synthetic};
    use crate::{Mask, Plane, Spacing, Window};

    fn written(spacing: Option<Spacing>, diameters_mm: &[f64], finding: Finding) -> [Result<Vec<u8>, Error>; 2] {
        let (plane, mask) =
            (Plane::filled(40, 30, 0.0).with_spacing(spacing), Mask::from_fn(4, 5, |x, y| x > 0 || y > 0));
        let image = Synthetic {
            plane: &plane,
            window: Window::LUNG_CT,
            identity: Identity { request: "r-1/42", image: 3, object: "composite" },
            modality: if finding == Finding::Nodule { "CT" } else { "DX" },
            description: "",
            body_part: "CHEST",
            software_version: "0.1.0",
            syntax: Syntax::Deflated,
        };
        let lesions: Vec<_> = diameters_mm
            .iter()
            .map(|&diameter_mm| Lesion { mask: &mask, left: 3, top: 7, diameter_mm, area_mm2: 19.0 / 3.0 })
            .collect();
        let labels = Labels { image: &image, finding, lesions: &lesions };
        [labels.measurements(), labels.segmentation()]
    }

    fn items(object: &InMemDicomObject, tag: Tag) -> Vec<InMemDicomObject> {
        object.element(tag).unwrap().items().unwrap().to_vec()
    }

    fn text(object: &InMemDicomObject, tag: Tag) -> String {
        object.element(tag).unwrap().to_str().unwrap().into_owned()
    }

    /// The items of a container whose name has a code.
    fn named(object: &InMemDicomObject, value: &str) -> Vec<InMemDicomObject> {
        let name = |item: &InMemDicomObject| text(&items(item, tags::CONCEPT_NAME_CODE_SEQUENCE)[0], tags::CODE_VALUE);
        items(object, tags::CONTENT_SEQUENCE).into_iter().filter(|item| name(item) == value).collect()
    }

    #[test]
    fn a_group_has_its_lesions_sizes_and_its_frame_of_the_masks() {
        for (finding, value) in [(Finding::Nodule, "27925004"), (Finding::Calculus, "56381008")] {
            let diameters = [5.25, 20.0 / 3.0];
            let [report, masks] = written(Some(Spacing::square(0.7)), &diameters, finding).map(|bytes| bytes.unwrap());
            let [again, _] = written(Some(Spacing::square(0.7)), &diameters, finding);
            assert_eq!(report, again.unwrap());
            let [report, masks] = [report, masks].map(|bytes| dicom_object::from_reader(&bytes[128..]).unwrap());
            assert_eq!(text(&report, tags::SYNTHETIC_DATA), "YES");
            assert_eq!(text(&report, tags::STUDY_INSTANCE_UID), text(&masks, tags::STUDY_INSTANCE_UID));
            let groups = named(&named(&report, "126010")[0], "125007");
            assert_eq!(groups.len(), 2);
            for (index, (group, diameter)) in groups.iter().zip(diameters).enumerate() {
                let finding = &items(&named(group, "121071")[0], tags::CONCEPT_CODE_SEQUENCE)[0];
                assert_eq!(text(finding, tags::CODE_VALUE), value);
                let frame = &items(&named(group, "121214")[0], tags::REFERENCED_SOP_SEQUENCE)[0];
                assert_eq!(text(frame, tags::REFERENCED_SOP_INSTANCE_UID), text(&masks, tags::SOP_INSTANCE_UID));
                assert_eq!(text(frame, tags::REFERENCED_FRAME_NUMBER), (index + 1).to_string());
                let segment = &items(&masks, tags::SEGMENT_SEQUENCE)[index];
                assert_eq!(text(&named(group, "112040")[0], tags::UID), text(segment, tags::TRACKING_UID));
                for (name, expected, unit) in [("103339001", diameter, "mm"), ("42798000", 19.0 / 3.0, "mm2")] {
                    let measured = &items(&named(group, name)[0], tags::MEASURED_VALUE_SEQUENCE)[0];
                    let exact = measured.element(tags::FLOATING_POINT_VALUE).unwrap().to_float64().unwrap();
                    let decimal: f64 = text(measured, tags::NUMERIC_VALUE).parse().unwrap();
                    assert!(exact == expected && (decimal - expected).abs() < 1e-9);
                    let units = &items(measured, tags::MEASUREMENT_UNITS_CODE_SEQUENCE)[0];
                    assert_eq!(text(units, tags::CODE_VALUE), unit);
                }
            }
        }
    }

    #[test]
    fn what_has_no_size_in_millimetres_is_not_reported() {
        let report = |spacing, diameters: &[f64]| {
            let [report, _] = written(spacing, diameters, Finding::Nodule);
            report
        };
        let known = Some(Spacing::square(0.7));
        assert!(matches!(report(None, &[5.0]), Err(Error::Spacing)));
        assert!(matches!(report(known, &[]), Err(Error::Segments { count: 0, .. })));
        for bad in [f64::NAN, f64::INFINITY, -1.0] {
            assert!(matches!(report(known, &[5.0, bad]), Err(Error::Measurement { lesion: 2, .. })));
        }
    }
}
