//! Why a file could not be read or written: the file, the cause, and what to do next.

use std::path::{Path, PathBuf};

/// What is wrong with a file's content.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The operating system refused to read or write.
    #[error("{0}; check that the path exists, that its permissions allow this, and that the disk has room")]
    Io(#[from] std::io::Error),
    /// The bytes are no DICOM data set.
    #[error(
        "not a DICOM file (no preamble, no file meta information, no plausible first element); remove it from the input or convert it"
    )]
    NotDicom,
    /// Fewer bytes than declared.
    #[error("truncated: {what} needs {declared} bytes, {available} are there; copy or export the file again")]
    Truncated {
        /// What was being read.
        what: String,
        /// Bytes that the file's own lengths ask for.
        declared: u64,
        /// Bytes that are there.
        available: u64,
    },
    /// A DICOM object without Pixel Data, such as a report or a plan.
    #[error("it has no pixel data (7FE0,0010); give an image object instead")]
    NoPixelData,
    /// The file contradicts its own format.
    #[error("malformed: {0}; export the file again from its source")]
    Malformed(String),
    /// Valid, perhaps, but beyond what this version decodes correctly.
    #[error("not supported: {0}; convert the file to uncompressed Explicit VR Little Endian or to JPEG-LS lossless")]
    Unsupported(String),
    /// A codec gave up on a frame.
    #[error("frame {frame} could not be decoded ({codec}): {reason}; export the file again, or uncompressed")]
    Decode {
        /// Frame index from 0.
        frame: usize,
        /// The codec's name.
        codec: &'static str,
        /// Its reason.
        reason: String,
    },
    /// Colour where grey is needed.
    #[error(
        "a grey image is needed and this one is colour (photometric interpretation {0}); convert it to MONOCHROME2"
    )]
    Colour(String),
    /// An object of a class that is not taken in.
    #[error("it is of the class {0}; give CT, MR, radiographs (CR, DX, XA, RF) or secondary captures")]
    Class(String),
    /// Text in the pixels, which may name a patient.
    #[error(
        "text is burned into its pixels: {0}; blank it with a tool for that, or waive the check where it names nobody"
    )]
    BurnedIn(String),
    /// Larger than the caller allows.
    #[error(
        "{what} would take {needed} bytes, the limit is {limit}; if the file can be trusted, split or crop it, or write a deflated one again uncompressed"
    )]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Bytes that it would take.
        needed: u64,
        /// Bytes that are allowed.
        limit: u64,
    },
}

/// A [`Fault`] with the file that has it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", file.display())]
pub struct Error {
    /// The file, or a name for bytes that came from elsewhere.
    pub file: PathBuf,
    /// What is wrong with it.
    #[source]
    pub fault: Fault,
}

impl Error {
    /// `fault`, found in `file`.
    pub fn new(file: impl AsRef<Path>, fault: impl Into<Fault>) -> Self {
        Self { file: file.as_ref().to_path_buf(), fault: fault.into() }
    }
}
