//! What is known of a synthetic image's lesions, as DICOM objects that annotation tools and archives read: a Segmentation and a
//! Measurement Report.

use super::encoding::Syntax;
use super::modules::{Builder, Code};
use super::synthetic::Identity;
use super::{Synthetic, derived_uid};
use crate::Mask;

/// Content Date and Time, which both objects must have (PS3.3 C.7.6.16, C.17.2) and nothing in a request says: a value that
/// nobody takes for the day of an examination. A clock would make every run's bytes its own.
pub(super) const UNDATED: (&str, &str) = ("19000101", "000000");

/// What a lesion is: the category and type of its segment, and the finding of its measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// A nodule of the lung.
    Nodule,
    /// A stone.
    Calculus,
}

impl Finding {
    /// Segmented Property Category (CID 7150), and the finding's category.
    pub(super) const CATEGORY: Code = Code("49755003", "SCT", "Morphologically Abnormal Structure");

    /// Segmented Property Type (CID 7159 has the nodule, and is extensible), and the finding.
    pub(super) fn code(self) -> Code {
        match self {
            Self::Nodule => Code("27925004", "SCT", "Nodule"),
            Self::Calculus => Code("56381008", "SCT", "Calculus"),
        }
    }

    /// What a person calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nodule => "Nodule",
            Self::Calculus => "Stone",
        }
    }
}

/// A lesion of an image.
#[derive(Debug, Clone, Copy)]
pub struct Lesion<'a> {
    /// The lesion's pixels, in a frame of their own.
    pub mask: &'a Mask,
    /// Column of the mask's first pixel in the image; what lies outside of the image is left out.
    pub left: i64,
    /// Row of the mask's first pixel in the image.
    pub top: i64,
    /// Longest in-plane diameter in mm.
    pub diameter_mm: f64,
    /// Area in mm².
    pub area_mm2: f64,
}

/// The lesions of one synthetic image. Both objects are in the image's study, each a series of its own, and nothing in them
/// depends on a clock: the same input gives the same bytes.
#[derive(Debug, Clone, Copy)]
pub struct Labels<'a> {
    /// The image, as it is written.
    pub image: &'a Synthetic<'a>,
    /// What all lesions are.
    pub finding: Finding,
    /// The lesions: lesion n, from 1, is segment n, frame n and measurement group n.
    pub lesions: &'a [Lesion<'a>],
}

impl Labels<'_> {
    /// What an object about the image is called among the image's objects.
    pub(super) fn object(&self, name: &str) -> String {
        format!("{} {name}", self.image.identity.object)
    }

    /// What the UIDs of an object follow from; `object` is its name by [`Labels::object`].
    pub(super) fn identity<'a>(&'a self, object: &'a str) -> Identity<'a> {
        Identity { object, ..self.image.identity }
    }

    /// Tracking ID and Tracking UID of lesion `number`, which join its segment and its measurements.
    pub(super) fn tracking(&self, number: usize) -> (String, String) {
        let Identity { request, image, object } = self.image.identity;
        let uid = derived_uid(&["lesion", request, &image.to_string(), object, &number.to_string()]);
        (format!("Image {}, lesion {number}", image + 1), uid)
    }

    /// A reference to the image (PS3.3 10.8).
    pub(super) fn image_reference(&self) -> Builder {
        Builder::reference(self.image.sop_class(), &self.image.sop_instance_uid())
    }

    /// How the objects are encoded where the image is encoded by its own syntax. JPEG-LS has no place in them: it is for samples of 2
    /// bits and more, and a report has no pixels.
    pub(super) fn syntax(&self) -> Syntax {
        match self.image.syntax {
            Syntax::JpegLs => Syntax::Explicit,
            syntax => syntax,
        }
    }
}
