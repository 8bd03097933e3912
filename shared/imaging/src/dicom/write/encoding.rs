//! Data sets and pixels to the bytes of a file.

use dicom_core::value::{PixelFragmentSequence, Value};
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};

use super::{Error, derived_uid};
use crate::dicom::codec::jpeg_ls;

/// Transfer syntax of a written object; all are lossless.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Syntax {
    /// Uncompressed Explicit VR Little Endian: read by everything.
    #[default]
    Explicit,
    /// Deflated Explicit VR Little Endian.
    Deflated,
    /// JPEG-LS lossless: the smallest.
    JpegLs,
}

impl Syntax {
    /// The transfer syntax's UID.
    pub fn uid(self) -> &'static str {
        match self {
            Self::Explicit => uids::EXPLICIT_VR_LITTLE_ENDIAN,
            Self::Deflated => uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
            Self::JpegLs => uids::JPEGLS_LOSSLESS,
        }
    }
}

/// Room for everything but the pixels.
pub(in crate::dicom) const HEAD_BYTES: usize = 8192;

/// Stored values of an image.
pub(super) struct Pixels<'a> {
    pub stored: &'a [u16],
    pub width: u16,
    pub height: u16,
    pub bits_stored: u16,
}

/// `dataset` with its pixels as the bytes of a DICOM file.
pub(super) fn encode(mut dataset: InMemDicomObject, pixels: &Pixels<'_>, syntax: Syntax) -> Result<Vec<u8>, Error> {
    let room = 2 * pixels.stored.len() + HEAD_BYTES;
    if syntax == Syntax::JpegLs {
        let (width, height, bits) = (pixels.width, pixels.height, u32::from(pixels.bits_stored));
        put_stream(&mut dataset, jpeg_ls::encode(pixels.stored, width, height, bits));
    } else {
        dataset.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(pixels.stored.into())));
    }
    file(dataset, syntax, room)
}

/// Puts pixels into `dataset` as one code stream.
pub(in crate::dicom) fn put_stream(dataset: &mut InMemDicomObject, mut stream: Vec<u8>) {
    // Fragments have even lengths (PS3.5 A.4).
    if stream.len() % 2 == 1 {
        stream.push(0);
    }
    let fragments = Value::PixelSequence(PixelFragmentSequence::new(vec![0u32], vec![stream]));
    dataset.put(DataElement::new(tags::PIXEL_DATA, VR::OB, fragments));
}

/// `dataset`, its pixels in it, as the bytes of a DICOM file; about `room` of them.
pub(in crate::dicom) fn file(dataset: InMemDicomObject, syntax: Syntax, room: usize) -> Result<Vec<u8>, Error> {
    let failed = |error: &dyn std::error::Error| Error::Encoding(error.to_string());
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(syntax.uid())
        .implementation_class_uid(derived_uid(&["hiresmed", "implementation class"]))
        .implementation_version_name("HIRESMED");
    let object = dataset.with_meta(meta).map_err(|error| failed(&error))?;
    let mut bytes = Vec::with_capacity(room);
    object.write_all(&mut bytes).map_err(|error| failed(&error))?;
    // A deflated stream of odd length gets a zero behind it (PS3.5 A.5).
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    Ok(bytes)
}
