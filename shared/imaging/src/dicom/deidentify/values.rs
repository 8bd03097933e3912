//! Values as their representation allows them (PS3.5 6.2), and nothing else: free text in a field of numbers may be a name.

use dicom_core::{PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;

use super::kept::{OTHER, terms};

/// Numbers in a file's byte order.
pub(super) struct Reader<'a> {
    pub bytes: &'a [u8],
    pub big_endian: bool,
}

impl Reader<'_> {
    /// All numbers of `N` bytes, by `from_le` of their bytes; `None` where bytes are left over.
    pub(super) fn numbers<const N: usize, T>(&self, from_le: fn([u8; N]) -> T) -> Option<Vec<T>> {
        let chunks = self.bytes.chunks_exact(N);
        if !chunks.remainder().is_empty() {
            return None;
        }
        let number = |chunk: &[u8]| {
            let mut bytes = [0; N];
            bytes.copy_from_slice(chunk);
            if self.big_endian {
                bytes.reverse();
            }
            from_le(bytes)
        };
        Some(chunks.map(number).collect())
    }

    /// Attributes that are pointed to (PS3.5 6.2, AT); `None` where one is not of the standard: who made it up may have named it so.
    pub(super) fn pointers(&self) -> Option<Vec<Tag>> {
        let halves = self.numbers(u16::from_le_bytes)?;
        let (pairs, []) = halves.as_chunks() else { return None };
        let tag = |&[group, element]: &[u16; 2]| Some(Tag(group, element)).filter(|_| group.is_multiple_of(2));
        pairs.iter().map(tag).collect()
    }
}

/// ASCII text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    /// The text without padding; `None` where it is not ASCII.
    pub(super) fn of(bytes: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii())?;
        Some(Self(text.trim_matches(['\0', ' '])))
    }

    pub(super) fn trimmed(self) -> &'a str {
        self.0
    }

    /// A UID of the standard's own root, which names a class and no instance.
    pub(super) fn standard_uid(self) -> Option<PrimitiveValue> {
        let standard = self.0.strip_prefix("1.2.840.10008.")?;
        let right = self.0.len() <= 64 && standard.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        right.then(|| PrimitiveValue::from(self.0))
    }

    /// The text where every value of it is one of `tag`'s representation.
    pub(super) fn checked(self, tag: Tag, vr: VR) -> Option<String> {
        let all = |right: &dyn Fn(&str) -> bool| {
            self.0.split('\\').all(|value| value.trim().is_empty() || right(value.trim()))
        };
        let known = |value: &str| terms(tag).contains(&value);
        if matches!(tag, tags::IMAGE_TYPE | tags::FRAME_TYPE) {
            let values = self.0.split('\\').map(str::trim).map(|value| if known(value) { value } else { OTHER });
            return Some(values.collect::<Vec<_>>().join("\\"));
        }
        let right = match vr {
            // Words of the standard, in Rescale Type and Modality LUT Type as well.
            VR::CS => all(&known),
            VR::LO if !terms(tag).is_empty() => all(&known),
            VR::DS => all(&|value| value.len() <= 16 && value.parse::<f64>().is_ok_and(f64::is_finite)),
            VR::IS => all(&|value| value.len() <= 12 && value.parse::<i64>().is_ok()),
            VR::AS => return age(self.0),
            // A number in practice; letters may be a name.
            VR::SH if tag == tags::STACK_ID => {
                all(&|value| value.len() <= 16 && value.bytes().all(|byte| byte.is_ascii_digit()))
            }
            VR::LO | VR::SH => all(&|value| {
                let longest = if vr == VR::SH { 16 } else { 64 };
                value.len() <= longest && value.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'^')
            }),
            _ => false,
        };
        right.then(|| self.0.to_owned())
    }
}

/// An age: of 90 years and more, 90 (the oldest are too few to hide among).
fn age(text: &str) -> Option<String> {
    let (count, unit) = text.split_at_checked(3)?;
    let count: u32 = count.bytes().all(|byte| byte.is_ascii_digit()).then(|| count.parse().ok())??;
    let days = match unit {
        "D" => 1.0,
        "W" => 7.0,
        "M" => 365.25 / 12.0,
        "Y" => 365.25,
        _ => return None,
    };
    let old = f64::from(count) * days >= 90.0 * 365.25;
    Some(if old { "090Y".to_owned() } else { text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str, tag: Tag, vr: VR) -> Option<String> {
        Text::of(text.as_bytes()).and_then(|text| text.checked(tag, vr))
    }

    #[test]
    fn a_name_is_no_number_and_no_code() {
        assert_eq!(checked("0.7\\0.7 ", tags::PIXEL_SPACING, VR::DS).as_deref(), Some("0.7\\0.7"));
        assert_eq!(checked("0.7\\DOE", tags::PIXEL_SPACING, VR::DS), None);
        assert_eq!(checked("inf", tags::PIXEL_SPACING, VR::DS), None);
        assert_eq!(checked("12", tags::INSTANCE_NUMBER, VR::IS).as_deref(), Some("12"));
        assert_eq!(checked("Doe", tags::INSTANCE_NUMBER, VR::IS), None);
        assert_eq!(checked("12", tags::STACK_ID, VR::SH).as_deref(), Some("12"));
        assert_eq!(checked("DOE12", tags::STACK_ID, VR::SH), None);
        assert_eq!(checked("Doe^Jane", tags::MODALITY, VR::CS), None);
        assert_eq!(
            checked("ORIGINAL\\PRIMARY\\AXIAL", tags::IMAGE_TYPE, VR::CS).as_deref(),
            Some("ORIGINAL\\PRIMARY\\AXIAL")
        );
        assert_eq!(checked("DOE JANE", tags::BODY_PART_EXAMINED, VR::CS), None);
        let kept = checked("DERIVED\\DOE\\AXIAL", tags::IMAGE_TYPE, VR::CS);
        assert_eq!(kept.as_deref(), Some("DERIVED\\OTHER\\AXIAL"));
        assert_eq!(checked("CHEST", tags::BODY_PART_EXAMINED, VR::CS).as_deref(), Some("CHEST"));
        assert_eq!(checked("Jane", tags::RESCALE_TYPE, VR::LO), None);
        assert_eq!(checked("HU", tags::RESCALE_TYPE, VR::LO).as_deref(), Some("HU"));
        assert!(Text::of("Jürgen".as_bytes()).is_none() && Text::of(b"J\xFCrgen").is_none());
    }

    #[test]
    fn the_oldest_are_all_ninety() {
        for (text, expected) in [
            ("089Y", Some("089Y")),
            ("090Y", Some("090Y")),
            ("103Y", Some("090Y")),
            ("011M", Some("011M")),
            ("Doe", None),
            ("1 0Y", None),
            ("", None),
        ] {
            assert_eq!(checked(text, tags::PATIENT_AGE, VR::AS).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn numbers_of_either_order_are_the_same() {
        let read = |bytes: &[u8], big_endian| Reader { bytes, big_endian }.numbers(u16::from_le_bytes);
        assert_eq!(read(&[1, 2, 3, 4], false), Some(vec![0x0201, 0x0403]));
        assert_eq!(read(&[1, 2, 3, 4], true), Some(vec![0x0102, 0x0304]));
        assert_eq!(read(&[1, 2, 3], true), None);
    }

    #[test]
    fn pointers_are_to_attributes_of_the_standard() {
        let read = |bytes: &[u8], big_endian| Reader { bytes, big_endian }.pointers();
        assert_eq!(read(&[0x20, 0, 0x56, 0x90], false), Some(vec![tags::STACK_ID]));
        assert_eq!(read(&[0, 0x20, 0x90, 0x56], true), Some(vec![tags::STACK_ID]));
        assert_eq!(read(&[0x21, 0, 0x56, 0x90], false), None);
        assert_eq!(read(&[0x20, 0, 0x56], false), None);
        assert_eq!(read(&[0x20, 0, 0x56, 0x90, 1, 0], false), None);
    }

    #[test]
    fn only_the_standards_uids_name_a_class() {
        let uid = |text: &str| Text::of(text.as_bytes()).and_then(|text| text.standard_uid()).is_some();
        assert!(uid("1.2.840.10008.5.1.4.1.1.2") && !uid("1.2.840.113619.2") && !uid("1.2.840.10008.DOE"));
    }
}
