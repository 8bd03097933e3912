//! NIfTI-1 volumes (`.nii`, `.nii.gz`) as axial slices in DICOM's image order.

use std::path::Path;

use nifti::{IntoNdArray, NiftiHeader, NiftiObject, ReaderOptions};

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
    volume(path, options).map_err(|fault| Error::new(path, fault))
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

fn volume(path: &Path, options: ReadOptions) -> Result<Volume, Fault> {
    std::fs::metadata(path)?;
    let header = NiftiHeader::from_file(path).map_err(fault)?;
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
    let object = ReaderOptions::new().read_file(path).map_err(fault)?;
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
