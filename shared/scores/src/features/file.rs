//! Feature files: .npy matrices of which any block of rows can be read.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::head::{self, Element};
use super::{Error, block_rows};

/// A matrix of features on disk, shape `[rows, dimension]`, one row an image; f32 or f64, either byte order, row-major or
/// column-major.
#[derive(Debug)]
pub struct FeatureFile {
    path: PathBuf,
    file: File,
    /// Where the elements begin.
    offset: u64,
    rows: usize,
    dimension: usize,
    element: Element,
    column_major: bool,
    bytes: Vec<u8>,
}

impl FeatureFile {
    /// Opens a .npy file (NumPy enhancement proposal 1) and checks its head against its length.
    ///
    /// # Errors
    /// The file cannot be read, is no .npy file, no matrix of f32 or f64, or shorter than it declares.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let mut file = File::open(path).map_err(Error::io(path))?;
        let available = file.metadata().map_err(Error::io(path))?.len();
        let head = head::read(&mut file).map_err(|cause| Error::NotNpy { path: path.to_owned(), cause })?;
        let element = head.element().ok_or_else(|| Error::Type { path: path.to_owned(), found: head.descr.clone() })?;
        let shape = || Error::Shape { path: path.to_owned(), shape: head.shape.clone() };
        let (rows, dimension) = match head.shape[..] {
            [rows, dimension] if dimension > 0 => (rows, dimension),
            _ => return Err(shape()),
        };
        let elements = rows.checked_mul(dimension).and_then(|count| count.checked_mul(element.bytes as u64));
        let declared = elements.and_then(|bytes| bytes.checked_add(head.length)).ok_or_else(shape)?;
        if available < declared {
            return Err(Error::Truncated { path: path.to_owned(), declared, available });
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            offset: head.length,
            rows: rows as usize,
            dimension: dimension as usize,
            element,
            column_major: head.column_major,
            bytes: Vec::new(),
        })
    }

    /// A file of bare little-endian f32 values, row-major; `path` is its name in errors.
    pub(super) fn bare(path: PathBuf, file: File, rows: usize, dimension: usize) -> Self {
        let element = Element { bytes: 4, big_endian: false };
        Self { path, file, offset: 0, rows, dimension, element, column_major: false, bytes: Vec::new() }
    }

    /// Number of images.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Length of a feature vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ranges of rows that together are the whole file, each small enough to hold.
    pub fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, step) = (self.rows, block_rows(self.dimension));
        (0..rows).step_by(step).map(move |start| start..(start + step).min(rows))
    }

    /// Reads `rows` into `block`, row-major, shape `[rows, dimension]`.
    ///
    /// # Errors
    /// The file cannot be read, or one of its values is not a finite number.
    ///
    /// # Panics
    /// When `rows` goes beyond the file, as slices do.
    pub fn read(&mut self, rows: Range<usize>, block: &mut Vec<f64>) -> Result<(), Error> {
        assert!(rows.start <= rows.end && rows.end <= self.rows, "rows {rows:?} of {}", self.rows);
        let (count, dimension) = (rows.len(), self.dimension);
        block.clear();
        block.resize(count * dimension, 0.0);
        if self.column_major {
            for column in 0..dimension {
                self.fetch(column * self.rows + rows.start, count)?;
                let places = block[column..].iter_mut().step_by(dimension);
                decode(&self.bytes, self.element, places);
            }
        } else {
            self.fetch(rows.start * dimension, count * dimension)?;
            decode(&self.bytes, self.element, block.iter_mut());
        }
        match block.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(Error::NotFinite { path: self.path.clone(), row: rows.start + at / dimension }),
            None => Ok(()),
        }
    }

    /// Reads elements as they lie in the file.
    fn fetch(&mut self, first: usize, count: usize) -> Result<(), Error> {
        self.bytes.resize(count * self.element.bytes, 0);
        let start = self.offset + first as u64 * self.element.bytes as u64;
        let read = self.file.seek(SeekFrom::Start(start)).and_then(|_| self.file.read_exact(&mut self.bytes));
        read.map_err(Error::io(&self.path))
    }
}

fn decode<'a>(bytes: &[u8], element: Element, places: impl Iterator<Item = &'a mut f64>) {
    for (place, bytes) in places.zip(bytes.chunks_exact(element.bytes)) {
        *place = match (bytes, element.big_endian) {
            (&[a, b, c, d], false) => f64::from(f32::from_le_bytes([a, b, c, d])),
            (&[a, b, c, d], true) => f64::from(f32::from_be_bytes([a, b, c, d])),
            (&[a, b, c, d, e, f, g, h], false) => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
            (&[a, b, c, d, e, f, g, h], true) => f64::from_be_bytes([a, b, c, d, e, f, g, h]),
            _ => f64::NAN,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> tempfile::NamedTempFile {
        let head = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((head.len() as u16).to_le_bytes());
        bytes.extend(head.as_bytes());
        bytes.extend(data);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn every_layout_reads_the_same_block() {
        let values: Vec<f64> = (0..15).map(|value| f64::from(value) / 4.0).collect();
        let by_column: Vec<f64> = (0..15).map(|at| values[at % 5 * 3 + at / 5]).collect();
        let small = |to: fn(f32) -> [u8; 4]| values.iter().flat_map(|&v| to(v as f32)).collect::<Vec<_>>();
        let large = |to: fn(f64) -> [u8; 8], values: &[f64]| values.iter().flat_map(|&v| to(v)).collect::<Vec<_>>();
        for file in [
            npy("<f4", "False", "(5, 3)", &small(f32::to_le_bytes)),
            npy(">f4", "False", "(5, 3)", &small(f32::to_be_bytes)),
            npy("<f8", "False", "(5, 3)", &large(f64::to_le_bytes, &values)),
            npy(">f8", "False", "(5, 3)", &large(f64::to_be_bytes, &values)),
            npy("<f8", "True", "(5, 3)", &large(f64::to_le_bytes, &by_column)),
        ] {
            let mut features = FeatureFile::open(file.path()).unwrap();
            assert_eq!((features.rows(), features.dimension()), (5, 3));
            let mut block = Vec::new();
            features.read(1..4, &mut block).unwrap();
            assert_eq!(block, values[3..12]);
        }
    }

    #[test]
    fn what_is_no_matrix_of_numbers_is_refused_with_its_name() {
        let eight = [0u8; 32];
        let text = |file: &tempfile::NamedTempFile| {
            let text = FeatureFile::open(file.path()).unwrap_err().to_string();
            assert!(text.starts_with(file.path().to_str().unwrap()), "{text}");
            text
        };
        assert!(text(&npy("<f4", "False", "(8,)", &eight)).contains("shape [8]"));
        assert!(text(&npy("<f4", "False", "(8, 0)", &eight)).contains("shape [8, 0]"));
        assert!(text(&npy("<i4", "False", "(4, 2)", &eight)).contains("<i4"));
        assert!(text(&npy("<f8", "False", "(4, 2)", &eight)).contains("truncated"));
        assert!(text(&npy("<f8", "False", "(4294967296, 4294967296)", &eight)).contains("shape"));
        assert!(text(&npy("<f8", "False", &"(".repeat(5000), &eight)).contains("its head has"));
        let garbage = tempfile::NamedTempFile::new().unwrap();
        assert!(text(&garbage).contains("not a .npy file"));
        std::fs::write(garbage.path(), b"\x93NUMPY\x02\x00\xff\xff\xff\xff").unwrap();
        assert!(text(&garbage).contains("its head has"));
    }

    #[test]
    fn a_value_that_is_no_number_is_found_by_its_row() {
        let mut values = [1.0f64; 12];
        values[7] = f64::NAN;
        let file = npy("<f8", "False", "(4, 3)", &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
        let mut features = FeatureFile::open(file.path()).unwrap();
        let error = features.read(1..4, &mut Vec::new()).unwrap_err();
        assert!(matches!(error, Error::NotFinite { row: 2, .. }), "{error}");
    }
}
