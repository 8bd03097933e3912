//! Named tensors on disk: safetensors with text metadata, written atomically.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use hiresmed_inference::onnx::{Graph, Value};
use safetensors::{Dtype, SafeTensors, View};

/// The one metadata key of our files; its value is a JSON object.
const METADATA_KEY: &str = "hiresmed";

/// Reading or writing weights failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or written.
    #[error("{path}: {source}; check that the folder exists, is writable and has room")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes are no safetensors file of 32-bit floats.
    #[error("{path}: not a readable checkpoint: {cause}; it may be truncated, use an earlier one")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// A tensor that the model needs is absent, or has another shape.
    #[error("weights do not fit the configuration: {}", .faults.join("; "))]
    Mismatch {
        /// One sentence per tensor.
        faults: Vec<String>,
    },
}

/// A tensor of 32-bit floats, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Sizes of the axes.
    pub shape: Vec<usize>,
    /// Elements, as many as the product of `shape`.
    pub data: Vec<f32>,
}

impl Array {
    /// An array, or `None` where `data` has not as many elements as `shape` says.
    pub fn new(shape: Vec<usize>, data: Vec<f32>) -> Option<Self> {
        (shape.iter().product::<usize>() == data.len()).then_some(Self { shape, data })
    }
}

impl View for &Array {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.data.iter().flat_map(|value| value.to_le_bytes()).collect())
    }
    fn data_len(&self) -> usize {
        self.data.len() * 4
    }
}

/// Named tensors and text metadata: a model's weights, or a training checkpoint.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weights {
    /// Tensors by name.
    pub tensors: BTreeMap<String, Array>,
    /// Text by key (configuration as JSON, step, seed...).
    pub metadata: BTreeMap<String, String>,
}

impl Weights {
    /// The tensor `name`, where it has `shape` and holds finite values only; a sentence with its fault otherwise.
    pub(crate) fn checked(&self, name: &str, shape: &[usize]) -> Result<&Array, String> {
        match self.tensors.get(name) {
            None => Err(format!("{name} is missing")),
            Some(array) if array.shape != shape => Err(format!("{name} is {:?}, expected {shape:?}", array.shape)),
            Some(array) if array.data.iter().any(|value| !value.is_finite()) => {
                Err(format!("{name} holds a value that is not finite"))
            }
            Some(array) => Ok(array),
        }
    }

    /// The tensor `name` as an initialiser of `graph`. One that is at fault is told in `faults`: the graph is not used then.
    pub(crate) fn initialiser(
        &self,
        graph: &mut Graph,
        name: &str,
        shape: &[usize],
        faults: &mut Vec<String>,
    ) -> Value {
        match self.checked(name, shape) {
            Ok(array) => graph.constant_f32(name, &array.shape, &array.data),
            Err(fault) => {
                faults.push(fault);
                graph.constant_f32(name, &[0], &[])
            }
        }
    }

    /// Reads a safetensors file.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Format`], naming the file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = fs::read(path).map_err(|source| Error::File { path: path.into(), source })?;
        Self::from_bytes(&bytes).map_err(|cause| Error::Format { path: path.into(), cause })
    }

    /// Reads safetensors bytes; the error says what is wrong with them.
    ///
    /// # Errors
    /// A sentence, for bytes that are no safetensors file of 32-bit floats.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
        let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        let text = header.metadata().as_ref().and_then(|metadata| metadata.get(METADATA_KEY));
        let metadata = text.map(|text| serde_json::from_str(text).map_err(|error| error.to_string())).transpose()?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            if view.dtype() != Dtype::F32 {
                return Err(format!("tensor {name} is {:?}, expected F32", view.dtype()));
            }
            let data = view.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
            tensors.insert(name.to_owned(), Array { shape: view.shape().to_vec(), data });
        }
        Ok(Self { tensors, metadata: metadata.unwrap_or_default() })
    }

    /// As safetensors bytes; equal weights give equal bytes.
    ///
    /// # Errors
    /// A sentence, where the format cannot hold them.
    pub fn to_bytes(&self) -> Result<Vec<u8>, String> {
        // One key at most: the library keeps metadata in a hash map, whose order would differ from run to run.
        let text = serde_json::to_string(&self.metadata).map_err(|error| error.to_string())?;
        let metadata = HashMap::from([(METADATA_KEY.to_owned(), text)]);
        safetensors::serialize(self.tensors.iter(), Some(metadata)).map_err(|error| error.to_string())
    }

    /// Writes a safetensors file: beside its final name first, synchronised, then renamed, so that a reader sees the old
    /// file or the new one and never a part.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Format`], naming the file.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let bytes = self.to_bytes().map_err(|cause| Error::Format { path: path.into(), cause })?;
        let temporary = path.with_extension(format!("partial-{}", std::process::id()));
        let written = (|| {
            let mut file = fs::File::create(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        })();
        written.map_err(|source| {
            // The partial file is useless; that it cannot be removed either is not the error to report.
            let _ = fs::remove_file(&temporary);
            Error::File { path: path.into(), source }
        })
    }

    /// The tensors whose names start with `prefix`, without it; metadata is kept.
    pub fn under(&self, prefix: &str) -> Self {
        let tensors = self.tensors.iter();
        let tensors = tensors.filter_map(|(name, array)| Some((name.strip_prefix(prefix)?.to_owned(), array.clone())));
        Self { tensors: tensors.collect(), metadata: self.metadata.clone() }
    }

    /// Number of elements of all tensors.
    pub fn parameters(&self) -> usize {
        self.tensors.values().map(|array| array.data.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights() -> Weights {
        let array = Array::new(vec![2, 2], vec![1.0, f32::NAN, -0.0, f32::MIN_POSITIVE]).unwrap();
        Weights {
            tensors: BTreeMap::from([
                ("a.b".to_owned(), array),
                ("c".to_owned(), Array { shape: vec![], data: vec![2.0] }),
            ]),
            metadata: BTreeMap::from([("step".to_owned(), "7".to_owned()), ("kind".to_owned(), "x".to_owned())]),
        }
    }

    #[test]
    fn what_is_written_is_read_back_bit_by_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        weights().write(&path).unwrap();
        let back = Weights::read(&path).unwrap();
        assert_eq!(back.metadata, weights().metadata);
        assert_eq!(back.to_bytes().unwrap(), weights().to_bytes().unwrap());
        assert_eq!(back.under("a.").tensors["b"].data[1].to_bits(), f32::NAN.to_bits());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no partial file remains");
    }

    #[test]
    fn a_truncated_file_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let bytes = weights().to_bytes().unwrap();
        for length in [0, 4, 20, bytes.len() - 1] {
            fs::write(&path, &bytes[..length]).unwrap();
            let error = Weights::read(&path).unwrap_err().to_string();
            assert!(error.contains("w.safetensors"), "{error}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent/w.safetensors");
        assert!(matches!(weights().write(&path), Err(Error::File { .. })));
    }

    #[test]
    fn shapes_must_fit_their_data() {
        assert!(Array::new(vec![2, 2], vec![0.0; 3]).is_none());
    }
}
