//! Which object a file holds, for whoever passes files on without decoding them.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::dataset::{Dataset, parse};
use super::image::ReadOptions;
use super::write::MANUFACTURER;
use super::{envelope, image::read_bounded};
use crate::Fault;

/// A DICOM file's object by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identification {
    /// SOP Instance UID (0008,0018).
    pub sop_instance: String,
    /// Study Instance UID (0020,000D).
    pub study: String,
    /// Whether it says of itself that this project synthesised it: Synthetic Data (0008,001C) is YES, and the manufacturer is
    /// `hiresmed`.
    pub is_ours: bool,
}

/// Reads which object the file at `path` holds, without decoding its pixels, and gives the file's bytes too.
///
/// # Errors
/// The file cannot be read, is larger than `options` allow, is no file of PS3.10 chapter 7 (preamble and file meta information with a
/// transfer syntax), is cut short or malformed, or has no valid UID (PS3.5 chapter 9) of instance or study.
pub fn identify(path: &std::path::Path, options: ReadOptions) -> Result<(Identification, Vec<u8>), Fault> {
    let bytes = read_bounded(path, options)?;
    Ok((from_bytes(&bytes, options)?, bytes))
}

fn from_bytes(bytes: &[u8], options: ReadOptions) -> Result<Identification, Fault> {
    if bytes.get(128..132) != Some(b"DICM".as_slice()) {
        return Err(Fault::NotDicom);
    }
    let envelope = envelope::open(bytes, options.limit_bytes)?;
    if envelope.transfer_syntax.is_none() {
        return Err(Fault::Malformed("the file meta information names no transfer syntax".to_owned()));
    }
    let (dataset, ended) = parse(&envelope.data, envelope.encoding);
    if let Some(fault) = ended {
        return Err(fault);
    }
    let is_ours = dataset.text(tags::SYNTHETIC_DATA).as_deref() == Some("YES")
        && dataset.text(tags::MANUFACTURER).as_deref() == Some(MANUFACTURER);
    // A file that was cut between two elements looks whole otherwise.
    if is_ours && dataset.get(tags::PIXEL_DATA).is_none() {
        return Err(Fault::NoPixelData);
    }
    Ok(Identification {
        sop_instance: uid(&dataset, tags::SOP_INSTANCE_UID, "SOP Instance UID (0008,0018)")?,
        study: uid(&dataset, tags::STUDY_INSTANCE_UID, "Study Instance UID (0020,000D)")?,
        is_ours,
    })
}

fn uid(dataset: &Dataset<'_>, tag: Tag, name: &str) -> Result<String, Fault> {
    let value = dataset.text(tag).ok_or_else(|| Fault::Malformed(format!("it has no {name}")))?;
    let valid = value.len() <= 64 && value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if valid { Ok(value) } else { Err(Fault::Malformed(format!("its {name} is no UID"))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Plane, Window,
        dicom::write::{Identity, PatientSlice, Syntax, Synthetic},
    };

    fn synthetic(plane: &Plane, syntax: Syntax) -> (String, Vec<u8>) {
        let synthetic = Synthetic {
            plane,
            window: Window { low: -1000.0, high: 1000.0 },
            identity: Identity { request: "r", image: 3, object: "composite" },
            modality: "CT",
            description: "Synthetic",
            body_part: "CHEST",
            software_version: "1",
            syntax,
        };
        (synthetic.sop_instance_uid(), synthetic.to_bytes().unwrap())
    }

    #[test]
    fn ours_are_told_from_a_patients_in_every_syntax() {
        let plane = Plane::new(16, 16, vec![0.0; 256]);
        for syntax in [Syntax::Explicit, Syntax::Deflated, Syntax::JpegLs] {
            let (sop_instance, bytes) = synthetic(&plane, syntax);
            let found = from_bytes(&bytes, ReadOptions::default()).unwrap();
            assert!(found.is_ours && found.sop_instance == sop_instance && !found.study.is_empty(), "{found:?}");
        }
        let slice = PatientSlice {
            plane: &plane,
            patient_id: "7",
            derivation: "none",
            number: 1,
            z_mm: 0.0,
            thickness_mm: 1.0,
            syntax: Syntax::Explicit,
        };
        assert!(!from_bytes(&slice.to_bytes().unwrap(), ReadOptions::default()).unwrap().is_ours);
    }

    #[test]
    fn what_is_damaged_has_no_name() {
        let (sop_instance, bytes) = synthetic(&Plane::new(16, 16, vec![0.0; 256]), Syntax::Explicit);
        for length in 0..bytes.len() {
            // Cut between elements in front of the mark, it is nobody's.
            let whole = from_bytes(&bytes[..length], ReadOptions::default()).is_ok_and(|found| found.is_ours);
            assert!(!whole, "cut at {length}");
        }
        let at = bytes.windows(4).rposition(|window| window == [0x08, 0, 0x18, 0]).unwrap();
        let mut damaged = bytes;
        assert_eq!(&damaged[at + 8..at + 8 + sop_instance.len()], sop_instance.as_bytes());
        damaged[at + 8] = b'/';
        let error = from_bytes(&damaged, ReadOptions::default()).unwrap_err().to_string();
        assert!(error.contains("SOP Instance UID"), "{error}");
    }
}
