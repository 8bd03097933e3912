//! NIfTI-1 volumes (`.nii`, `.nii.gz`) as axial slices in DICOM's image order.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use flate2::read::GzDecoder;
use nifti::{InMemNiftiObject, IntoNdArray, NiftiHeader, NiftiObject};

use crate::dicom::ReadOptions;
use crate::{Error, Fault, Plane, Spacing};

/// A volume whose slices are in DICOM image order: columns towards the patient's left, rows towards the back.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume {
    /// Slices in the order of the file.
    pub slices: Vec<Plane>,
    /// Distance between slices, mm.
    pub slice_mm: f64,
}

/// Reads a volume of real-world values: slope and intercept of the file are applied.
///
/// NIfTI's axes are mapped to image order by the signs of the file's affine (x towards the right is mirrored, y towards
/// the front is mirrored); a file without an affine is taken as `[column, rows - 1 - row, slice]`. Volumes that are
/// rotated away from the axial plane are not reformatted.
///
/// # Errors
/// [`Fault::Io`], [`Fault::Malformed`] for damaged, truncated or not 3-dimensional files, [`Fault::TooLarge`].
pub fn read_volume(path: impl AsRef<Path>, options: ReadOptions) -> Result<Volume, Error> {
    let path = path.as_ref();
    let open = || Ok(inflated(BufReader::new(File::open(path)?), path));
    volume(open, options).map_err(|fault| Error::new(path, fault))
}

/// As [`read_volume`], of `bytes`, compressed where `name` ends in `.gz`; it stands for the file in errors.
///
/// # Errors
/// As [`read_volume`].
pub fn volume_from_bytes(bytes: &[u8], name: impl AsRef<Path>, options: ReadOptions) -> Result<Volume, Error> {
    let name = name.as_ref();
    volume(|| Ok(inflated(bytes, name)), options).map_err(|fault| Error::new(name, fault))
}

fn inflated<'a>(source: impl Read + 'a, name: &Path) -> Box<dyn Read + 'a> {
    match name.extension().is_some_and(|end| end == "gz") {
        true => Box::new(GzDecoder::new(source)),
        false => Box::new(source),
    }
}

/// Reads a volume of label ids (0 is background), slice by slice in image order, row-major.
///
/// # Errors
/// As [`read_volume`]; [`Fault::Malformed`] when a value is no integer from 0 to 65,535.
pub fn read_labels(path: impl AsRef<Path>, options: ReadOptions) -> Result<Vec<Labels>, Error> {
    let path = path.as_ref();
    let volume = read_volume(path, options)?;
    volume.slices.iter().map(|plane| Labels::from_plane(plane).map_err(|fault| Error::new(path, fault))).collect()
}

/// Label ids of one slice, shape `[height, width]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Ids, row-major.
    pub ids: Vec<u16>,
}

impl Labels {
    fn from_plane(plane: &Plane) -> Result<Self, Fault> {
        let id = |&value: &f32| (value.fract() == 0.0 && (0.0..=65_535.0).contains(&value)).then_some(value as u16);
        let ids: Option<Vec<u16>> = plane.data().iter().map(id).collect();
        let ids = ids.ok_or_else(|| Fault::Malformed("a label volume holds values that are no label ids".into()))?;
        Ok(Self { width: plane.width(), height: plane.height(), ids })
    }

    /// The mask of the pixels whose id is one of `ids`.
    pub fn mask(&self, ids: &[u16]) -> crate::Mask {
        let data = self.ids.iter().map(|id| u8::from(ids.contains(id))).collect();
        crate::Mask::new(self.width, self.height, data)
    }
}

fn volume<'a>(open: impl Fn() -> io::Result<Box<dyn Read + 'a>>, options: ReadOptions) -> Result<Volume, Fault> {
    // The parser is other people's code over hostile bytes: a panic in it is a refusal of this file, nothing more. Nothing that it borrows
    // outlives it.
    catch_unwind(AssertUnwindSafe(|| parse(open, options)))
        .unwrap_or_else(|_| Err(Fault::Malformed("NIfTI: the parser failed on damaged data".into())))
}

/// Of what `open` opens, twice: the sizes in the header decide on the rest.
fn parse<'a>(open: impl Fn() -> io::Result<Box<dyn Read + 'a>>, options: ReadOptions) -> Result<Volume, Fault> {
    let header = NiftiHeader::from_reader(open()?).map_err(fault)?;
    let dim = header.dim().map_err(fault)?;
    let (width, height, depth) = match *dim {
        [width, height] => (width, height, 1),
        [width, height, depth, ref rest @ ..] if rest.iter().all(|&length| length == 1) => (width, height, depth),
        _ => return Err(Fault::Malformed(format!("a volume of dimensions {dim:?}, 3 are needed"))),
    };
    let needed = u64::from(width) * u64::from(height) * u64::from(depth) * 8;
    if needed > options.limit_bytes {
        return Err(Fault::TooLarge { what: "the volume", needed, limit: options.limit_bytes });
    }
    // Extensions in front of the voxels have lengths of their own, and compressed they cost nothing.
    let mut source = open()?.take(options.limit_bytes);
    let object = InMemNiftiObject::from_reader(&mut source).map_err(|error| match source.limit() {
        0 => Fault::TooLarge { what: "the volume", needed: options.limit_bytes + 1, limit: options.limit_bytes },
        _ => fault(error),
    })?;
    let array = object.into_volume().into_ndarray::<f32>().map_err(fault)?;
    let (width, height, depth) = (usize::from(width), usize::from(height), usize::from(depth));
    let flat: Vec<f32> = {
        // Reversed axes of the Fortran-ordered array are C order: slice, y, x.
        let reversed = array.reversed_axes();
        reversed.iter().copied().collect()
    };
    let (mirror_x, mirror_y) = mirrored(&header);
    let spacing = Spacing { row_mm: f64::from(header.pixdim[2]).abs(), column_mm: f64::from(header.pixdim[1]).abs() };
    let spacing = (spacing.row_mm > 0.0 && spacing.column_mm > 0.0).then_some(spacing);
    let slice = |z: usize| {
        let at = |x: usize, y: usize| {
            let x = if mirror_x { width - 1 - x } else { x };
            let y = if mirror_y { height - 1 - y } else { y };
            flat[(z * height + y) * width + x]
        };
        let data = (0..width * height).map(|pixel| at(pixel % width, pixel / width)).collect();
        Plane::new(width, height, data).with_spacing(spacing)
    };
    Ok(Volume { slices: (0..depth).map(slice).collect(), slice_mm: f64::from(header.pixdim[3]).abs() })
}

/// Whether x and y run against the image order (columns to the left, rows to the back; NIfTI points right and front).
fn mirrored(header: &NiftiHeader) -> (bool, bool) {
    if header.sform_code > 0 {
        return (header.srow_x[0] > 0.0, header.srow_y[1] > 0.0);
    }
    if header.qform_code > 0 {
        let (b, c, d) = (f64::from(header.quatern_b), f64::from(header.quatern_c), f64::from(header.quatern_d));
        let a2 = (1.0 - b * b - c * c - d * d).max(0.0);
        return (a2 + b * b - c * c - d * d > 0.0, a2 + c * c - b * b - d * d > 0.0);
    }
    (false, true)
}

fn fault(error: nifti::NiftiError) -> Fault {
    match error {
        nifti::NiftiError::Io(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => Fault::Io(error),
        error => Fault::Malformed(format!("NIfTI: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A NIfTI-1 file of int16, 3 x 2 x 2, whose values count up in file order; `affine` holds the diagonal's signs.
    fn file(affine: Option<(f32, f32)>, values: usize) -> Vec<u8> {
        let mut bytes = vec![0u8; 352];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &348i32.to_le_bytes());
        for (index, length) in [3i16, 3, 2, 2, 1, 1, 1, 1].iter().enumerate() {
            put(40 + 2 * index, &length.to_le_bytes());
        }
        put(70, &4i16.to_le_bytes());
        put(72, &16i16.to_le_bytes());
        for (index, size) in [1f32, 0.5, 0.75, 2.5].iter().enumerate() {
            put(76 + 4 * index, &size.to_le_bytes());
        }
        put(108, &352f32.to_le_bytes());
        put(112, &1f32.to_le_bytes());
        put(344, b"n+1\0");
        if let Some((x, y)) = affine {
            put(254, &1i16.to_le_bytes());
            put(280, &(0.5 * x).to_le_bytes());
            put(300, &(0.75 * y).to_le_bytes());
            put(320, &2.5f32.to_le_bytes());
        }
        (0..values).for_each(|value| bytes.extend((value as i16).to_le_bytes()));
        bytes
    }

    fn read(name: &str, bytes: &[u8]) -> Result<Volume, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        read_volume(&path, ReadOptions::default())
    }

    #[test]
    fn axes_are_turned_to_image_order() {
        // [column, rows - 1 - row, slice]: x towards the left, y towards the front.
        let usual = read("a.nii", &file(Some((-1.0, 1.0)), 12)).unwrap();
        assert_eq!(usual.slices.len(), 2);
        assert_eq!(usual.slices[0].data(), [3.0, 4.0, 5.0, 0.0, 1.0, 2.0]);
        assert_eq!(usual.slices[1].at(0, 1), 6.0);
        assert_eq!(usual.slices[0].spacing, Some(Spacing { row_mm: 0.75, column_mm: 0.5 }));
        assert_eq!(usual.slice_mm, 2.5);
        assert_eq!(read("a.nii", &file(None, 12)).unwrap(), usual);
        let turned = read("a.nii", &file(Some((1.0, -1.0)), 12)).unwrap();
        assert_eq!(turned.slices[0].data(), [2.0, 1.0, 0.0, 5.0, 4.0, 3.0]);
    }

    #[test]
    fn truncated_and_foreign_files_are_refused() {
        assert!(read("a.nii", &file(None, 7)).is_err());
        assert!(read("a.nii", b"no volume").is_err());
        assert!(read("a.nii.gz", &file(None, 12)).is_err());
        let error = read_volume("missing.nii", ReadOptions::default()).unwrap_err();
        assert!(matches!(error.fault, Fault::Io(_)) && error.to_string().contains("missing.nii"));
    }

    #[test]
    fn sizes_that_the_parser_panics_on_are_refused() {
        // Found by fuzzing: voxels of 16 bits by their type, and of 3 or 8 by their size.
        for bits in [3, 8] {
            let mut damaged = file(None, 12);
            damaged[72] = bits;
            let error = volume_from_bytes(&damaged, "a.nii", ReadOptions::default()).unwrap_err();
            assert!(error.to_string().contains("the parser failed"), "{error}");
        }
    }

    #[test]
    fn extensions_without_bound_are_refused() {
        let mut bytes = file(None, 0);
        bytes[108..112].copy_from_slice(&1e9f32.to_le_bytes());
        bytes[348] = 1;
        bytes.extend([&1_000_000_000i32.to_le_bytes(), [0; 4].as_slice()].concat());
        bytes.resize(64 << 20, 0);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, &bytes).unwrap();
        let packed = packed.finish().unwrap();
        assert!(packed.len() < 1 << 20, "{} bytes", packed.len());
        let error = volume_from_bytes(&packed, "bomb.nii.gz", ReadOptions { limit_bytes: 8 << 20 }).unwrap_err();
        assert!(matches!(error.fault, Fault::TooLarge { limit: 8_388_608, .. }), "{error}");
    }

    #[test]
    fn labels_are_ids() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.nii");
        std::fs::write(&path, file(None, 12)).unwrap();
        let labels = read_labels(&path, ReadOptions::default()).unwrap();
        assert_eq!(labels[0].ids, [3, 4, 5, 0, 1, 2]);
        assert_eq!(labels[0].mask(&[4, 0]).data(), [0, 1, 0, 1, 0, 0]);
    }
}
