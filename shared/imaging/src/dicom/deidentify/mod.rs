//! De-identification of an image object (PS3.15 annex E, Basic Application Level Confidentiality Profile).
//!
//! The object is written anew rather than cleaned: only attributes on a list go over (`kept`), each value checked against its
//! representation, and the pixels are those that were decoded, so that nothing hides in a code stream, in overlays, in unused bits, in padding
//! or behind the last element. A JPEG-LS scan goes over as it was read, between markers of our own, where decoding it has shown that coding its
//! pixels gives the same bits: there is room for nothing else in it. UIDs are replaced consistently under the site's secret, patient's name and number by a pseudonym.
//! Text that is burned in is looked for ([`burned_in`](crate::burned_in)), and refused unless the caller waives that.

mod kept;
#[cfg(test)]
mod tests;
mod values;

use std::{collections::BTreeSet, path::Path};

use dicom_core::{
    DataDictionary, DataElement, PrimitiveValue, Tag, VR,
    dictionary::{DataDictionaryEntry, UidDictionary, UidDictionaryEntry},
    value::DataSetSequence,
};
use dicom_dictionary_std::{StandardDataDictionary, sop_class::StandardSopClassDictionary, tags};
use dicom_object::InMemDicomObject;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::{
    Attributes, DicomImage, ReadOptions,
    codec::jpeg_ls,
    dataset::{self, Dataset, Value},
    envelope,
    image::{Words, describe_dataset},
    write::{
        Syntax,
        encoding::{self, HEAD_BYTES, put_stream},
        uid::uid_of,
    },
};
use crate::{Error, Fault, burned_in::text_lines, measures::Bounds};
use kept::{CLASSES, When, kept};
use values::{Reader, Text};

/// What keeps pseudonyms from being undone: whoever has it can tell which pseudonym a known patient has. At least 16 bytes.
#[derive(Debug)]
pub struct SiteSecret(SecretSlice<u8>);

impl SiteSecret {
    /// Bytes of a secret at least.
    pub const LEAST_BYTES: usize = 16;

    /// A secret of these bytes; `None` where they are too few.
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() >= Self::LEAST_BYTES).then(|| Self(bytes.into()))
    }

    /// 32 bytes that follow from `value` and the secret (RFC 2104), for the purpose `what`.
    fn keyed(&self, what: &str, value: &str) -> [u8; 32] {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.expose_secret()) else { unreachable!() };
        for part in [what, value] {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }

    /// The UID that stands for `uid`: a UUID of version 8 under `2.25` (PS3.5 B.2).
    pub fn uid(&self, uid: &str) -> String {
        uid_of(self.keyed("uid", uid))
    }

    /// A text that tells the secret with `settings` from others, and nothing of it.
    pub fn fingerprint(&self, settings: &str) -> String {
        hex::encode(&self.keyed("settings", settings)[..8])
    }

    /// The name and number of a patient who had `id`.
    pub fn pseudonym(&self, id: &str) -> String {
        format!("P{}", hex::encode_upper(&self.keyed("patient", id)[..8]))
    }
}

/// What is kept and what is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// Option Retain Device Identity (PS3.15 E.3.8).
    pub retain_device: bool,
    /// Option Retain Patient Characteristics (E.3.7): sex, size, weight, and age, of which 90 years and more become 90.
    pub retain_characteristics: bool,
    /// Takes images that say, or look as if, they had text burned in.
    pub waive_burned_in: bool,
    /// How the pixels are written; JPEG-LS where they are grey, of one frame and of 16 bits at most, else uncompressed.
    pub syntax: Syntax,
}

/// What was done to one file. It holds no value of the file, but what is in the output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Modality of the object, where it is one of the standard's.
    pub modality: Option<String>,
    /// The patient's pseudonym.
    pub patient: String,
    /// The new UID of the study.
    pub study: String,
    /// The new UID of the series.
    pub series: String,
    /// Attributes that went over as they were.
    pub kept: usize,
    /// UIDs that were replaced.
    pub uids_replaced: usize,
    /// Keywords of the standard attributes that were dropped, at any depth.
    pub dropped: BTreeSet<String>,
    /// Private attributes that were dropped, at the top level.
    pub private_dropped: usize,
    /// Keywords of attributes that would have been kept, had their value been one of their representation.
    pub unreadable: BTreeSet<String>,
    /// Whether text was looked for in the pixels: it was not where that is waived.
    pub text_looked_for: bool,
}

/// A file without identity.
pub struct Deidentified {
    /// The new file.
    pub bytes: Vec<u8>,
    /// What the object says of its pixels, as it was.
    pub attributes: Attributes,
    /// What was done.
    pub report: Report,
}

impl std::fmt::Debug for Deidentified {
    /// Without pixels, which do not belong into logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Deidentified {{ {} bytes, {:?} }}", self.bytes.len(), self.report)
    }
}

/// The image in `bytes` without its identity; `name` stands for the file in errors. The same file gives the same bytes under the same
/// secret and policy.
///
/// # Errors
/// As [`from_bytes`](super::from_bytes) for what is no image or cannot be decoded correctly in full; [`Fault::BurnedIn`] where text is,
/// or may be, in the pixels; [`Fault::Malformed`] where the object does not say what it is.
pub fn deidentify(
    bytes: &[u8],
    name: impl AsRef<Path>,
    secret: &SiteSecret,
    policy: &Policy,
    options: ReadOptions,
) -> Result<Deidentified, Error> {
    let name = name.as_ref();
    let fault = |fault: Fault| Error::new(name, fault);
    let envelope = envelope::open(bytes, options.limit_bytes).map_err(fault)?;
    let parsed = dataset::parse(&envelope.data, envelope.encoding);
    let (dataset, (attributes, image)) = describe_dataset(&envelope, parsed, name, options);
    let image = image.map_err(fault)?;
    let class = dataset.text(tags::SOP_CLASS_UID).unwrap_or_default();
    if !CLASSES.contains(&class.as_str()) {
        let class = StandardSopClassDictionary.by_uid(&class).map_or("nothing that is known", |entry| entry.name());
        return Err(fault(Fault::Class(class.to_owned())));
    }
    if dataset.text(tags::BURNED_IN_ANNOTATION).as_deref() == Some("YES") && !policy.waive_burned_in {
        return Err(fault(Fault::BurnedIn("the object says so (0028,0301)".into())));
    }
    let mut writer = Writer { secret, policy, signed: attributes.signed(), report: Report::default() };
    let mut object = InMemDicomObject::new_empty();
    writer.copy(&dataset, &mut object);
    writer.replace_identity(&dataset, &mut object).map_err(fault)?;
    writer.report.text_looked_for = !policy.waive_burned_in;
    let bytes = Pixels::decode(&image, policy, options.limit_bytes)?.file(object).map_err(fault)?;
    Ok(Deidentified { bytes, attributes, report: writer.report })
}

struct Writer<'a> {
    secret: &'a SiteSecret,
    policy: &'a Policy,
    signed: bool,
    report: Report,
}

impl Writer<'_> {
    /// Copies what is kept of `from`, and counts what is not.
    fn copy(&mut self, from: &Dataset<'_>, into: &mut InMemDicomObject) {
        for (tag, value) in from.iter() {
            let kept = kept(tag).filter(|(_, when)| match when {
                When::Always => true,
                When::Device => self.policy.retain_device,
                When::Characteristics => self.policy.retain_characteristics,
            });
            let Some((vr, _)) = kept else {
                self.drop(tag, value);
                continue;
            };
            match (vr, value) {
                (VR::SQ, Value::Items(items)) => {
                    let mut copies = Vec::with_capacity(items.len());
                    for item in items {
                        let mut copy = InMemDicomObject::new_empty();
                        self.copy(item, &mut copy);
                        copies.push(copy);
                    }
                    into.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(copies)));
                    self.report.kept += 1;
                }
                (_, Value::Bytes(bytes)) if vr != VR::SQ => self.copy_value(tag, vr, bytes, from, into),
                _ => drop(self.report.unreadable.insert(keyword(tag))),
            }
        }
    }

    fn copy_value(&mut self, tag: Tag, vr: VR, bytes: &[u8], from: &Dataset<'_>, into: &mut InMemDicomObject) {
        let reader = Reader { bytes, big_endian: from.is_big_endian() };
        // Numbers whose sign is that of the pixels (PS3.5 A.1).
        let of_pixels = matches!(tag, tags::PIXEL_PADDING_VALUE | tags::PIXEL_PADDING_RANGE_LIMIT);
        let vr = if of_pixels && self.signed { VR::SS } else { vr };
        let value = match vr {
            VR::UI => match Text::of(bytes) {
                Some(uid) if tag == tags::SOP_CLASS_UID => uid.standard_uid(),
                Some(uid) => {
                    self.report.uids_replaced += 1;
                    Some(PrimitiveValue::from(self.secret.uid(uid.trimmed())))
                }
                None => None,
            },
            VR::US => reader.numbers(u16::from_le_bytes).map(|all| PrimitiveValue::U16(all.into())),
            VR::SS => reader.numbers(i16::from_le_bytes).map(|all| PrimitiveValue::I16(all.into())),
            VR::OW => reader.numbers(u16::from_le_bytes).map(|all| PrimitiveValue::U16(all.into())),
            VR::UL => reader.numbers(u32::from_le_bytes).map(|all| PrimitiveValue::U32(all.into())),
            VR::AT => reader.pointers().map(|all| PrimitiveValue::Tags(all.into())),
            VR::FD => reader.numbers(f64::from_le_bytes).map(|all| PrimitiveValue::F64(all.into())),
            _ => Text::of(bytes).and_then(|text| text.checked(tag, vr)).map(PrimitiveValue::from),
        };
        match value {
            Some(value) => {
                into.put(DataElement::new(tag, vr, value));
                if vr != VR::UI || tag == tags::SOP_CLASS_UID {
                    self.report.kept += 1;
                }
            }
            None => drop(self.report.unreadable.insert(keyword(tag))),
        }
    }

    /// Counts an attribute that is not copied, and those in it.
    fn drop(&mut self, tag: Tag, value: &Value<'_>) {
        if written_anew(tag) {
            return;
        }
        match tag.group() % 2 {
            0 => drop(self.report.dropped.insert(keyword(tag))),
            _ => self.report.private_dropped += 1,
        }
        if let Value::Items(items) = value {
            items.iter().flat_map(Dataset::iter).for_each(|(tag, value)| self.drop(tag, value));
        }
    }

    /// The attributes that say who it is no more, and that this was done (PS3.15 E.1.1, PS3.3 C.7.1.1, C.12.1.1.1).
    fn replace_identity(&mut self, from: &Dataset<'_>, into: &mut InMemDicomObject) -> Result<(), Fault> {
        let need = |tag: Tag| match into.element(tag) {
            Ok(_) => Ok(()),
            Err(_) => Err(Fault::Malformed(format!("{} {tag} is missing, or no value of its kind", keyword(tag)))),
        };
        for tag in [tags::SOP_CLASS_UID, tags::SOP_INSTANCE_UID, tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID] {
            need(tag)?;
        }
        // A patient without a number is told apart by the study.
        let id = from
            .text(tags::PATIENT_ID)
            .map(|id| format!("{id}\\{}", from.text(tags::ISSUER_OF_PATIENT_ID).unwrap_or_default()));
        let id = id.or_else(|| from.text(tags::STUDY_INSTANCE_UID)).unwrap_or_default();
        self.report.patient = self.secret.pseudonym(&id);
        let written =
            |tag| into.element(tag).ok().and_then(|element| element.to_str().ok()).unwrap_or_default().into_owned();
        (self.report.study, self.report.series) =
            (written(tags::STUDY_INSTANCE_UID), written(tags::SERIES_INSTANCE_UID));
        // As it was checked: a name may stand in any field, and reports and indices are read by others.
        self.report.modality = Some(written(tags::MODALITY)).filter(|modality| !modality.is_empty());
        let mut text = |tag, vr, value: &str| {
            let value = if value.is_empty() { PrimitiveValue::Empty } else { PrimitiveValue::from(value) };
            into.put(DataElement::new(tag, vr, value));
        };
        text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192");
        text(tags::PATIENT_NAME, VR::PN, &self.report.patient);
        text(tags::PATIENT_ID, VR::LO, &self.report.patient);
        for (tag, vr) in [
            (tags::PATIENT_BIRTH_DATE, VR::DA),
            (tags::STUDY_DATE, VR::DA),
            (tags::STUDY_TIME, VR::TM),
            (tags::STUDY_ID, VR::SH),
            (tags::ACCESSION_NUMBER, VR::SH),
            (tags::REFERRING_PHYSICIAN_NAME, VR::PN),
        ] {
            text(tag, vr, "");
        }
        text(tags::PATIENT_IDENTITY_REMOVED, VR::CS, "YES");
        text(tags::LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED, VR::CS, "REMOVED");
        text(tags::DEIDENTIFICATION_METHOD, VR::LO, "Written anew from a list of attributes");
        if !self.policy.waive_burned_in {
            text(tags::BURNED_IN_ANNOTATION, VR::CS, "NO");
        }
        // Required, if without a value, of every image.
        for (tag, vr) in [
            (tags::PATIENT_SEX, VR::CS),
            (tags::MANUFACTURER, VR::LO),
            (tags::POSITION_REFERENCE_INDICATOR, VR::LO),
            (tags::SERIES_NUMBER, VR::IS),
            (tags::INSTANCE_NUMBER, VR::IS),
            (tags::BODY_PART_EXAMINED, VR::CS),
            (tags::PATIENT_ORIENTATION, VR::CS),
            (tags::LATERALITY, VR::CS),
        ] {
            let instead = tag == tags::LATERALITY && into.element(tags::IMAGE_LATERALITY).is_ok();
            if into.element(tag).is_err() && !instead {
                into.put(DataElement::new(tag, vr, PrimitiveValue::Empty));
            }
        }
        let codes = [
            (true, "113100", "Basic Application Confidentiality Profile"),
            (self.policy.retain_characteristics, "113108", "Retain Patient Characteristics Option"),
            (self.policy.retain_device, "113109", "Retain Device Identity Option"),
        ];
        let items = codes.into_iter().filter(|(applies, ..)| *applies).map(|(_, code, meaning)| {
            InMemDicomObject::from_element_iter([
                DataElement::new(tags::CODE_VALUE, VR::SH, PrimitiveValue::from(code)),
                DataElement::new(tags::CODING_SCHEME_DESIGNATOR, VR::SH, PrimitiveValue::from("DCM")),
                DataElement::new(tags::CODE_MEANING, VR::LO, PrimitiveValue::from(meaning)),
            ])
        });
        let items = DataSetSequence::from(items.collect::<Vec<_>>());
        into.put(DataElement::new(tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE, VR::SQ, items));
        Ok(())
    }
}

/// Attributes that every written file has of its own.
fn written_anew(tag: Tag) -> bool {
    matches!(
        tag,
        tags::SAMPLES_PER_PIXEL
            | tags::PHOTOMETRIC_INTERPRETATION
            | tags::PLANAR_CONFIGURATION
            | tags::ROWS
            | tags::COLUMNS
            | tags::BITS_ALLOCATED
            | tags::BITS_STORED
            | tags::HIGH_BIT
            | tags::PIXEL_REPRESENTATION
            | tags::PIXEL_DATA
            | tags::SPECIFIC_CHARACTER_SET
    )
}

/// The attribute's keyword (PS3.6), or its number where it has none.
fn keyword(tag: Tag) -> String {
    StandardDataDictionary.by_tag(tag).map_or_else(|| tag.to_string(), |entry| entry.alias().to_owned())
}

/// Decoded stored values of all frames, as they are written.
struct Pixels {
    data: Vec<u8>,
    /// How `data` are written: values one behind the other, or one JPEG-LS stream.
    syntax: Syntax,
    photometric: String,
    samples: u16,
    width: u16,
    height: u16,
    bits_allocated: u16,
    bits_stored: u16,
    signed: bool,
}

impl Pixels {
    /// Decodes every frame and looks for text in it, unless that is waived. All of them together take `limit` bytes at most: each
    /// may come from a few bytes.
    fn decode(image: &DicomImage, policy: &Policy, limit: u64) -> Result<Self, Error> {
        let attributes = &image.attributes;
        let bits_stored = attributes.bits_stored.unwrap_or(16);
        let bits_allocated = match bits_stored {
            ..=8 => 8,
            9..=16 => 16,
            _ => 32,
        };
        let samples = u64::from(attributes.samples.unwrap_or(1));
        let frame = (image.width() * image.height()) as u64 * samples * u64::from(bits_allocated) / 8;
        let needed = frame.saturating_mul(image.frames() as u64);
        if needed > limit {
            return Err(Error::new(image.file(), Fault::TooLarge { what: "all decoded frames", needed, limit }));
        }
        let compressible = samples == 1 && image.frames() == 1 && (2..=16).contains(&bits_stored);
        let syntax = if policy.syntax == Syntax::JpegLs && !compressible { Syntax::Explicit } else { policy.syntax };
        let mut data = Vec::new();
        for index in 0..image.frames() {
            let Words { values, scan } = image.words(index)?;
            if !policy.waive_burned_in
                && let Some(line) = text_in(&values, attributes, (image.width(), image.height()))
            {
                let Bounds { left, top, width, height } = line;
                let text = format!("frame {index} looks so at column {left}, row {top}, {width} x {height} pixels");
                return Err(Error::new(image.file(), Fault::BurnedIn(text)));
            }
            match bits_allocated {
                _ if syntax == Syntax::JpegLs => data = stream(&values, scan, image, bits_stored),
                8 => data.extend(values.iter().map(|&value| value as u8)),
                16 => data.extend(values.iter().flat_map(|&value| (value as u16).to_le_bytes())),
                _ => data.extend(values.iter().flat_map(|&value| value.to_le_bytes())),
            }
        }
        let photometric = match (samples, attributes.photometric.as_deref()) {
            (1, Some(photometric)) => photometric,
            _ => "RGB",
        };
        Ok(Self {
            data,
            syntax,
            photometric: photometric.to_owned(),
            samples: samples as u16,
            width: image.width() as u16,
            height: image.height() as u16,
            bits_allocated,
            bits_stored,
            signed: attributes.signed(),
        })
    }

    /// The image pixel module (PS3.3 C.7.6.3) behind `object`, as a file.
    fn file(self, mut object: InMemDicomObject) -> Result<Vec<u8>, Fault> {
        let mut number = |tag, value: u16| drop(object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value))));
        for (tag, value) in [
            (tags::SAMPLES_PER_PIXEL, self.samples),
            (tags::ROWS, self.height),
            (tags::COLUMNS, self.width),
            (tags::BITS_ALLOCATED, self.bits_allocated),
            (tags::BITS_STORED, self.bits_stored),
            (tags::HIGH_BIT, self.bits_stored.saturating_sub(1)),
            (tags::PIXEL_REPRESENTATION, u16::from(self.signed)),
        ] {
            number(tag, value);
        }
        if self.samples > 1 {
            number(tags::PLANAR_CONFIGURATION, 0);
        }
        let photometric = PrimitiveValue::from(self.photometric.as_str());
        object.put(DataElement::new(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, photometric));
        let room = self.data.len() + HEAD_BYTES;
        let numbers = |vr, value| DataElement::new(tags::PIXEL_DATA, vr, value);
        match self.bits_allocated {
            _ if self.syntax == Syntax::JpegLs => put_stream(&mut object, self.data),
            8 => {
                let mut bytes = self.data;
                if bytes.len() % 2 == 1 {
                    bytes.push(0);
                }
                drop(object.put(numbers(VR::OB, PrimitiveValue::U8(bytes.into()))));
            }
            16 => {
                let words: Vec<u16> = self.data.as_chunks().0.iter().map(|&pair| u16::from_le_bytes(pair)).collect();
                drop(object.put(numbers(VR::OW, PrimitiveValue::U16(words.into()))));
            }
            _ => {
                let words: Vec<u32> = self.data.as_chunks().0.iter().map(|&four| u32::from_le_bytes(four)).collect();
                drop(object.put(numbers(VR::OW, PrimitiveValue::U32(words.into()))));
            }
        }
        let file = encoding::file(object, self.syntax, room);
        file.map_err(|error| Fault::Malformed(format!("it cannot be written again ({error})")))
    }
}

/// One frame as a JPEG-LS stream: of `scan` where there is one, which is what coding `values` gives.
fn stream(values: &[u32], scan: Option<jpeg_ls::Scan<'_>>, image: &DicomImage, bits_stored: u16) -> Vec<u8> {
    let (width, height, bits) = (image.width() as u16, image.height() as u16, u32::from(bits_stored));
    if let Some(scan) = scan {
        return jpeg_ls::stream(width, height, bits, scan.bytes);
    }
    // Without the sign's extension (PS3.5 8.2.3): the stream has as many bits as are stored.
    let mask = u16::MAX >> (16 - bits_stored);
    let stored: Vec<u16> = values.iter().map(|&value| value as u16 & mask).collect();
    jpeg_ls::encode(&stored, width, height, bits)
}

/// The first line of text in a frame.
fn text_in(values: &[u32], attributes: &Attributes, (width, height): (usize, usize)) -> Option<Bounds> {
    let (samples, signed) = (usize::from(attributes.samples.unwrap_or(1)).max(1), attributes.signed());
    let size = (width, height);
    let lines = if samples == 1 && attributes.bits_stored < Some(32) {
        let values = values.iter().map(|&value| value as i32);
        let (low, high) = values.clone().fold((i32::MAX, i32::MIN), |(low, high), v| (low.min(v), high.max(v)));
        text_lines(values.map(|value| value as f32), size, low as f32, high as f32)
    } else {
        let wide = |value: &u32| if signed { i64::from(*value as i32) } else { i64::from(*value) };
        let pixels = values.chunks_exact(samples);
        let grey: Vec<f32> = pixels.map(|pixel| pixel.iter().map(wide).sum::<i64>() as f32 / samples as f32).collect();
        let range = (f32::INFINITY, f32::NEG_INFINITY);
        let (low, high) = grey.iter().fold(range, |(low, high), &value| (low.min(value), high.max(value)));
        text_lines(grey.into_iter(), size, low, high)
    };
    lines.first().copied()
}
