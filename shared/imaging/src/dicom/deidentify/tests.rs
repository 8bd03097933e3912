//! Objects stuffed with identity, and what is left of it.

use dicom_core::{dictionary::VirtualVr, header::Header, smallvec::smallvec};

use super::*;
use crate::{
    Plane, Spacing, Window,
    burned_in::tests::{burn, tissue},
    dicom::{
        from_bytes,
        write::{Identity, PatientSlice, Synthetic},
    },
};

/// In every text, and nowhere by chance.
const MARK: &str = "ZQXDOE";
/// The beginning of every UID, which no class of the standard has.
const ROOT: &str = "1.2.826.0.1.99";

fn secret() -> SiteSecret {
    SiteSecret::new(vec![7; 32]).unwrap()
}

fn run(bytes: &[u8], policy: &Policy) -> Result<Deidentified, Error> {
    deidentify(bytes, "memory", &secret(), policy, ReadOptions::default())
}

fn slice(plane: &Plane) -> Vec<u8> {
    let slice = PatientSlice {
        plane,
        patient_id: "MRN4711",
        derivation: "A test",
        number: 3,
        z_mm: 12.5,
        thickness_mm: 2.5,
        syntax: Syntax::Explicit,
    };
    slice.to_bytes().unwrap()
}

/// Hounsfield units from -200 to 1,000, whole.
fn tissue_hu() -> Plane {
    let mut plane = tissue(96, 80);
    plane.data_mut().iter_mut().for_each(|value| *value = (*value * 6.0).round() - 400.0);
    plane.with_spacing(Some(Spacing { row_mm: 0.7, column_mm: 0.8 }))
}

/// A value with a mark in it where `vr` can hold one.
fn marked(vr: VR) -> Option<PrimitiveValue> {
    Some(match vr {
        VR::AE
        | VR::CS
        | VR::LO
        | VR::LT
        | VR::PN
        | VR::SH
        | VR::ST
        | VR::UC
        | VR::UR
        | VR::UT
        | VR::AS
        | VR::DS
        | VR::IS => PrimitiveValue::from(MARK),
        VR::DA => PrimitiveValue::from("19540317"),
        VR::DT => PrimitiveValue::from("19540317101112"),
        VR::TM => PrimitiveValue::from("101112"),
        VR::UI => PrimitiveValue::from(format!("{ROOT}.5")),
        VR::OB | VR::UN => PrimitiveValue::U8(MARK.bytes().collect()),
        _ => return None,
    })
}

/// Every attribute of the standard's dictionary in the groups of data sets, with something identifying in it.
fn everything() -> Vec<DataElement<InMemDicomObject>> {
    let groups = (0x0008..=0x0088u16)
        .step_by(2)
        .chain([0x0400, 0x2000, 0x2100, 0x3006, 0x300A, 0x300C, 0x4008, 0x4010, 0x5400, 0xFFFA]);
    let tags = groups.flat_map(|group| (0..=u16::MAX).map(move |element| Tag(group, element)));
    let entries = tags.filter_map(|tag| StandardDataDictionary.by_tag(tag).map(|entry| (tag, entry.vr())));
    let elements = entries.filter_map(|(tag, vr)| match vr {
        VirtualVr::Exact(vr) => marked(vr).map(|value| DataElement::new(tag, vr, value)),
        _ => None,
    });
    // Without these no reader finds an image.
    elements.filter(|element| ![tags::PIXEL_DATA, tags::NUMBER_OF_FRAMES].contains(&element.tag())).collect()
}

/// The bytes of an object with all of `more` beside what `bytes` has, and within a sequence of it.
fn stuffed(bytes: &[u8], more: &[DataElement<InMemDicomObject>]) -> Vec<u8> {
    let mut object = dicom_object::from_reader(bytes).unwrap();
    let own: BTreeSet<Tag> = object.iter().map(|element| element.header().tag).collect();
    for element in more.iter().filter(|element| !own.contains(&element.tag())) {
        object.put(element.clone());
    }
    let nested = InMemDicomObject::from_element_iter(more.iter().cloned());
    for tag in [tags::REQUEST_ATTRIBUTES_SEQUENCE, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, tags::VOILUT_SEQUENCE] {
        object.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(vec![nested.clone()])));
    }
    object.put(DataElement::new(Tag(0x0009, 0x0010), VR::LO, PrimitiveValue::from(MARK)));
    object.put(DataElement::new(Tag(0x0009, 0x1001), VR::LO, PrimitiveValue::from(MARK)));
    object.put(DataElement::new(Tag(0x6000, 0x3000), VR::OW, PrimitiveValue::U16(smallvec![0x515A, 0x4458, 0x454F])));
    object.put(DataElement::new(Tag(0xFFFC, 0xFFFC), VR::OB, PrimitiveValue::U8(MARK.bytes().collect())));
    let mut bytes = Vec::new();
    object.write_all(&mut bytes).unwrap();
    bytes
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn nothing_is_left_of_an_identity_that_stands_in_every_attribute() {
    let more = everything();
    assert!(more.len() > 2000, "{} attributes", more.len());
    let original = slice(&tissue_hu());
    let stuffed = stuffed(&original, &more);
    for text in [MARK, ROOT, "19540317", "MRN4711"] {
        assert!(holds(&stuffed, text), "{text}");
    }
    for policy in [Policy::default(), Policy { syntax: Syntax::JpegLs, ..Policy::default() }] {
        let found = run(&stuffed, &policy).unwrap();
        for text in [MARK, ROOT, "19540317", "101112", "MRN4711"] {
            assert!(!holds(&found.bytes, text), "{text}");
        }
        let report = serde_json::to_string(&found.report).unwrap();
        for text in [MARK, ROOT, "19540317", "MRN4711"] {
            assert!(!report.contains(text), "{text} in {report}");
        }
        assert!(found.report.dropped.len() > 1500, "{}", found.report.dropped.len());
        assert!(found.report.dropped.contains("PatientBirthName") && found.report.private_dropped >= 2);
        assert!(found.report.unreadable.contains("InstanceNumber") || found.report.unreadable.contains("KVP"));
        let image = from_bytes(&found.bytes, "memory", ReadOptions::default()).unwrap();
        assert_eq!(image.to_plane(0).unwrap(), tissue_hu(), "the pixels and their spacing are what they were");
    }
}

#[test]
fn what_says_how_to_read_the_pixels_stays() {
    let plane = tissue_hu();
    let found = run(&slice(&plane), &Policy::default()).unwrap();
    let image = from_bytes(&found.bytes, "memory", ReadOptions::default()).unwrap();
    let (before, after) = (found.attributes, &image.attributes);
    assert_eq!(after.rescale_intercept, before.rescale_intercept);
    assert_eq!(after.slice_position_mm(), Some(12.5));
    assert_eq!((after.orientation, after.instance_number), (before.orientation, Some(3)));
    assert_eq!((after.window_center.clone(), after.bits_stored), (before.window_center, before.bits_stored));
    let object = dicom_object::from_reader(&found.bytes[..]).unwrap();
    let text = |tag| object.element(tag).unwrap().to_str().unwrap().into_owned();
    assert_eq!((text(tags::PATIENT_IDENTITY_REMOVED), text(tags::BURNED_IN_ANNOTATION)), ("YES".into(), "NO".into()));
    assert_eq!(text(tags::PATIENT_NAME), found.report.patient);
    let codes = object.element(tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE).unwrap().items().unwrap();
    assert_eq!(codes[0].element(tags::CODE_VALUE).unwrap().to_str().unwrap(), "113100");
}

#[test]
fn the_dimensions_of_frames_stay_with_another_uid() {
    let sequence = |tag, items: Vec<InMemDicomObject>| DataElement::new(tag, VR::SQ, DataSetSequence::from(items));
    let uid = || DataElement::new(tags::DIMENSION_ORGANIZATION_UID, VR::UI, PrimitiveValue::from(format!("{ROOT}.6")));
    let index = |to| {
        InMemDicomObject::from_element_iter([
            DataElement::new(tags::DIMENSION_INDEX_POINTER, VR::AT, PrimitiveValue::Tags(smallvec![to])),
            DataElement::new(
                tags::FUNCTIONAL_GROUP_POINTER,
                VR::AT,
                PrimitiveValue::Tags(smallvec![tags::FRAME_CONTENT_SEQUENCE]),
            ),
            uid(),
        ])
    };
    let content = InMemDicomObject::from_element_iter([
        DataElement::new(tags::STACK_ID, VR::SH, PrimitiveValue::from("1")),
        DataElement::new(tags::IN_STACK_POSITION_NUMBER, VR::UL, PrimitiveValue::from(7u32)),
        DataElement::new(tags::DIMENSION_INDEX_VALUES, VR::UL, PrimitiveValue::U32(smallvec![1, 7])),
    ]);
    let frame = InMemDicomObject::from_element_iter([sequence(tags::FRAME_CONTENT_SEQUENCE, vec![content])]);
    let mut object = dicom_object::from_reader(&slice(&tissue_hu())[..]).unwrap();
    object.put(sequence(tags::DIMENSION_ORGANIZATION_SEQUENCE, vec![InMemDicomObject::from_element_iter([uid()])]));
    let pointers = [tags::STACK_ID, tags::IN_STACK_POSITION_NUMBER, Tag(0x0021, 0x1001)];
    object.put(sequence(tags::DIMENSION_INDEX_SEQUENCE, pointers.map(index).into()));
    object.put(sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, vec![frame]));
    let mut bytes = Vec::new();
    object.write_all(&mut bytes).unwrap();

    let found = run(&bytes, &Policy::default()).unwrap();
    let object = dicom_object::from_reader(&found.bytes[..]).unwrap();
    let items = |tag| object.element(tag).unwrap().items().unwrap();
    let replaced = secret().uid(&format!("{ROOT}.6"));
    let indices = items(tags::DIMENSION_INDEX_SEQUENCE);
    let organised = items(tags::DIMENSION_ORGANIZATION_SEQUENCE).iter().chain(indices);
    for item in organised {
        assert_eq!(item.element(tags::DIMENSION_ORGANIZATION_UID).unwrap().to_str().unwrap(), replaced);
    }
    let pointer = |item: &InMemDicomObject| Some(item.get(tags::DIMENSION_INDEX_POINTER)?.value().to_tag().unwrap());
    let kept: Vec<_> = indices.iter().map(pointer).collect();
    assert_eq!(kept, [Some(tags::STACK_ID), Some(tags::IN_STACK_POSITION_NUMBER), None], "a private pointer goes");
    let frame = &items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)[0];
    let content = &frame.element(tags::FRAME_CONTENT_SEQUENCE).unwrap().items().unwrap()[0];
    let values = content.element(tags::DIMENSION_INDEX_VALUES).unwrap().to_multi_int::<u32>().unwrap();
    assert_eq!((content.element(tags::STACK_ID).unwrap().to_str().unwrap().trim(), values), ("1", vec![1, 7]));
}

#[test]
fn what_hides_around_a_scan_goes_and_the_same_image_stays_the_same_file() {
    let uncompressed = slice(&tissue_hu());
    let expected = run(&uncompressed, &Policy::default()).unwrap().bytes;
    let image = from_bytes(&uncompressed, "memory", ReadOptions::default()).unwrap();
    let stored: Vec<u16> = image.frame(0).unwrap().values.into_iter().map(|value| value as u16).collect();
    let (width, height, bits) = (image.width() as u16, image.height() as u16, image.attributes.bits_stored.unwrap());
    let stream = jpeg_ls::encode(&stored, width, height, bits.into());
    let as_stream = |stream: Vec<u8>| {
        let mut object = dicom_object::from_reader(&uncompressed[..]).unwrap().into_inner();
        put_stream(&mut object, stream);
        let bytes = encoding::file(object, Syntax::JpegLs, 0).unwrap();
        let mut values =
            from_bytes(&bytes, "memory", ReadOptions::default()).unwrap().frame(0).unwrap().values.into_iter();
        assert!(stored.iter().all(|&value| values.next() == Some(value.into())));
        run(&bytes, &Policy::default()).unwrap().bytes
    };
    let with = |at: usize, more: &[u8]| [&stream[..at], more, &stream[at..]].concat();
    let segment = |marker: u8| [&[0xFF, marker, 0, 2 + MARK.len() as u8], MARK.as_bytes()].concat();
    let end = stream.len() - 2;
    for stream in [
        stream.clone(),
        with(2, &segment(0xFE)),
        with(15, &segment(0xE3)),
        with(end, &segment(0xFE)),
        with(end, &[0; 9]),
        with(end, MARK.as_bytes()),
        with(end + 2, MARK.as_bytes()),
    ] {
        assert!(as_stream(stream) == expected);
    }
}

#[test]
fn a_second_time_changes_the_identity_and_nothing_else() {
    let first = run(&slice(&tissue_hu()), &Policy::default()).unwrap();
    assert_eq!(first.bytes, run(&slice(&tissue_hu()), &Policy::default()).unwrap().bytes);
    let second = run(&first.bytes, &Policy::default()).unwrap();
    assert_ne!(second.bytes, first.bytes);
    assert_eq!((second.bytes.len(), second.report.unreadable.len()), (first.bytes.len(), 0));
}

#[test]
fn uids_and_pseudonyms_agree_within_a_site_and_not_between_sites() {
    let (ours, theirs) = (secret(), SiteSecret::new(vec![8; 32]).unwrap());
    assert!(SiteSecret::new(vec![7; 15]).is_none());
    assert_eq!(ours.uid("1.2.3"), ours.uid("1.2.3"));
    assert!(ours.uid("1.2.3") != ours.uid("1.2.4") && ours.uid("1.2.3") != theirs.uid("1.2.3"));
    assert_ne!(ours.pseudonym("4711"), theirs.pseudonym("4711"));
    assert!(!format!("{ours:?}").contains('7'));
    let uid = ours.uid("1.2.3");
    assert!(uid.len() <= 64 && uid.starts_with("2.25."));
    // Slices of a series stay one.
    let series = |number| {
        let plane = tissue_hu();
        let bytes = PatientSlice {
            plane: &plane,
            patient_id: "MRN4711",
            derivation: "",
            number,
            z_mm: f64::from(number),
            thickness_mm: 1.0,
            syntax: Syntax::Explicit,
        };
        let found = run(&bytes.to_bytes().unwrap(), &Policy::default()).unwrap();
        let attributes = from_bytes(&found.bytes, "memory", ReadOptions::default()).unwrap().attributes;
        (attributes.series_instance_uid, attributes.sop_instance_uid, found.report.patient)
    };
    let (first, second) = (series(1), series(2));
    assert_eq!((&first.0, &first.2), (&second.0, &second.2));
    assert_ne!(first.1, second.1);
}

#[test]
fn a_name_in_the_place_of_a_modality_is_in_no_report() {
    let mut object = dicom_object::from_reader(&slice(&tissue_hu())[..]).unwrap();
    object.put(DataElement::new(tags::MODALITY, VR::CS, PrimitiveValue::from(MARK)));
    let mut bytes = Vec::new();
    object.write_all(&mut bytes).unwrap();
    let found = run(&bytes, &Policy::default()).unwrap();
    assert!(!holds(&found.bytes, MARK) && found.report.unreadable.contains("Modality"));
    assert_eq!(found.report.modality, None);
    assert_eq!(run(&slice(&tissue_hu()), &Policy::default()).unwrap().report.modality.as_deref(), Some("CT"));
}

#[test]
fn options_keep_the_device_and_the_patients_traits() {
    let element = |tag, vr, text: &str| DataElement::new(tag, vr, PrimitiveValue::from(text));
    let mut object = dicom_object::from_reader(&slice(&tissue_hu())[..]).unwrap();
    for element in [
        element(tags::MANUFACTURER, VR::LO, "ACME"),
        element(tags::STATION_NAME, VR::SH, "CT01"),
        element(tags::PATIENT_AGE, VR::AS, "097Y"),
        element(tags::PATIENT_SEX, VR::CS, "F"),
    ] {
        object.put(element);
    }
    let mut bytes = Vec::new();
    object.write_all(&mut bytes).unwrap();
    let texts = |policy: &Policy| {
        let object = dicom_object::from_reader(&run(&bytes, policy).unwrap().bytes[..]).unwrap();
        [tags::MANUFACTURER, tags::STATION_NAME, tags::PATIENT_AGE, tags::PATIENT_SEX]
            .map(|tag| object.element(tag).map_or("-".to_owned(), |element| element.to_str().unwrap().into_owned()))
    };
    assert_eq!(texts(&Policy::default()), ["", "-", "-", ""]);
    let all = Policy { retain_device: true, retain_characteristics: true, ..Policy::default() };
    assert_eq!(texts(&all), ["ACME", "CT01", "090Y", "F"]);
}

#[test]
fn text_in_the_pixels_is_refused_unless_waived() {
    let mut plane = tissue_hu();
    burn(&mut plane, "DOE JANE 1954", (8, 60), 1, 3000.0);
    let bytes = slice(&plane);
    let text = run(&bytes, &Policy::default()).unwrap_err().to_string();
    assert!(text.contains("text is burned into its pixels: frame 0") && text.contains("row 60"), "{text}");
    let waived = Policy { waive_burned_in: true, ..Policy::default() };
    let found = run(&bytes, &waived).unwrap();
    assert!(!found.report.text_looked_for);
    let object = dicom_object::from_reader(&found.bytes[..]).unwrap();
    assert!(object.element(tags::BURNED_IN_ANNOTATION).is_err(), "nobody has looked");
    // What the object says counts, whatever it looks like.
    let mut object = dicom_object::from_reader(&slice(&tissue_hu())[..]).unwrap();
    object.put(DataElement::new(tags::BURNED_IN_ANNOTATION, VR::CS, PrimitiveValue::from("YES")));
    let mut bytes = Vec::new();
    object.write_all(&mut bytes).unwrap();
    let text = run(&bytes, &Policy::default()).unwrap_err().to_string();
    assert!(text.contains("the object says so"), "{text}");
}

#[test]
fn synthetic_images_and_damaged_ones() {
    let plane = Plane::new(32, 16, (0..512).map(|at| at as f32 - 900.0).collect());
    let bytes = Synthetic {
        plane: &plane,
        window: Window::LUNG_CT,
        identity: Identity { request: "r", image: 1, object: "image" },
        modality: "CT",
        description: "A test",
        body_part: "CHEST",
        software_version: "1",
        syntax: Syntax::JpegLs,
    }
    .to_bytes()
    .unwrap();
    let found = run(&bytes, &Policy::default()).unwrap();
    let planes = [&bytes, &found.bytes]
        .map(|bytes| from_bytes(bytes, "memory", ReadOptions::default()).unwrap().to_plane(0).unwrap());
    assert_eq!(planes[0], planes[1]);
    for length in [0, 4, 200, bytes.len() / 2, bytes.len() - 3] {
        assert!(run(&bytes[..length], &Policy::default()).is_err(), "{length}");
    }
}
