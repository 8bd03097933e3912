//! The linear weights of the layers.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use super::Error;

/// Reads one vector a layer, in the layers' order. Tensors are f32 with C elements in any shape; their names begin with
/// `lin` and the layer's number, so that the published state dictionary (`lin0.model.1.weight`) can be saved as it is.
pub(super) fn read(path: &Path) -> Result<Vec<Vec<f32>>, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    parse(&bytes).map_err(|cause| Error::Weights { path: path.to_owned(), cause })
}

fn parse(bytes: &[u8]) -> Result<Vec<Vec<f32>>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| format!("not a .safetensors file ({error})"))?;
    let mut layers = BTreeMap::new();
    for (name, tensor) in file.iter() {
        let number = layer(name).ok_or_else(|| format!("a tensor is named {name:?}"))?;
        if tensor.dtype() != Dtype::F32 {
            return Err(format!("{name:?} is {:?}, not F32", tensor.dtype()));
        }
        let values = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        if layers.insert(number, values).is_some() {
            return Err(format!("layer {number} is there twice"));
        }
    }
    match layers.keys().copied().enumerate().find(|(index, number)| index != number) {
        Some((index, _)) => Err(format!("layer {index} is missing")),
        None => Ok(layers.into_values().collect()),
    }
}

/// The number in `lin3` or `lin3.model.1.weight`.
fn layer(name: &str) -> Option<usize> {
    let name = name.strip_prefix("lin")?;
    name.split_once('.').map_or(name, |(number, _)| number).parse().ok()
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;

    use super::*;

    fn file(tensors: &[(&str, &[f32])]) -> Vec<u8> {
        let bytes: Vec<(&str, Vec<u8>)> = tensors
            .iter()
            .map(|(name, values)| (*name, values.iter().flat_map(|value| value.to_le_bytes()).collect()))
            .collect();
        let views = bytes
            .iter()
            .map(|(name, data)| (*name, TensorView::new(Dtype::F32, vec![1, data.len() / 4, 1, 1], data).unwrap()));
        safetensors::serialize(views, None).unwrap()
    }

    #[test]
    fn layers_come_in_the_order_of_their_numbers() {
        let tensors: Vec<(String, [f32; 1])> =
            (0..11).map(|layer| (format!("lin{layer}.model.1.weight"), [layer as f32])).collect();
        let tensors: Vec<(&str, &[f32])> = tensors.iter().map(|(name, values)| (&**name, &values[..])).collect();
        let expected: Vec<Vec<f32>> = (0..11).map(|layer| vec![layer as f32]).collect();
        assert_eq!(parse(&file(&tensors)).unwrap(), expected);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        assert!(parse(b"nothing").unwrap_err().contains("not a .safetensors file"));
        assert!(parse(&file(&[("lin0", &[1.0]), ("lin2", &[1.0])])).unwrap_err().contains("layer 1 is missing"));
        assert!(parse(&file(&[("lin0", &[1.0]), ("lin0.weight", &[1.0])])).unwrap_err().contains("twice"));
        assert!(parse(&file(&[("bias", &[1.0])])).unwrap_err().contains("\"bias\""));
    }
}
