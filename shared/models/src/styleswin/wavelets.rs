//! The Haar wavelets of an image and the low-pass filter between two scales, as convolutions with fixed kernels.

use tch::{Kind, Tensor};

use crate::training::on_device;

/// One tap of the low-pass filter along a row or a column: the binomial [1, 3, 3, 1] / 8.
const BINOMIAL: [f32; 4] = [0.125, 0.375, 0.375, 0.125];

/// The kernels, for images of one number of channels.
#[derive(Debug)]
pub(super) struct Wavelets {
    /// `[4 channels, channels, 2, 2]`: of each channel its mean, its differences by row, by column and by both.
    haar: Tensor,
    /// `[1, 1, 4, 4]`.
    binomial: Tensor,
}

impl Wavelets {
    pub(super) fn new(channels: i64) -> Self {
        // The two by two pixels in order; orthonormal.
        let of_one = [[0.5, 0.5, 0.5, 0.5], [-0.5, -0.5, 0.5, 0.5], [-0.5, 0.5, -0.5, 0.5], [0.5, -0.5, -0.5, 0.5f32]];
        let same = Tensor::eye(channels, (Kind::Float, crate::training::device()));
        let haar = on_device(&of_one.concat()).reshape([1, 4, 1, 2, 2]) * same.reshape([channels, 1, channels, 1, 1]);
        let along = on_device(&BINOMIAL);
        Self { haar: haar.reshape([4 * channels, channels, 2, 2]), binomial: along.outer(&along).reshape([1, 1, 4, 4]) }
    }

    /// The same in double precision, for checks by finite differences.
    #[cfg(test)]
    pub(super) fn to_double(&self) -> Self {
        Self { haar: self.haar.to_kind(Kind::Double), binomial: self.binomial.to_kind(Kind::Double) }
    }

    /// The orthonormal Haar transform of every two by two pixels: `[N, C, 2h, 2w]` to `[N, 4C, h, w]`.
    pub(super) fn bands(&self, images: &Tensor) -> Tensor {
        images.conv2d(&self.haar, None::<&Tensor>, [2, 2], [0, 0], [1, 1], 1)
    }

    /// Half the size, without what that cannot show: `[N, C, 2h, 2w]` to `[N, C, h, w]`, zeros outside.
    pub(super) fn halved(&self, images: &Tensor) -> Tensor {
        self.filtered(images, 2, 1)
    }

    /// Without what half the size cannot show, and a border for a convolution of three by three at every second pixel, which then needs none
    /// of its own: `[N, C, h, w]` to `[N, C, h + 1, w + 1]`, zeros outside.
    pub(super) fn blurred(&self, features: &Tensor) -> Tensor {
        self.filtered(features, 1, 2)
    }

    fn filtered(&self, x: &Tensor, stride: i64, padding: i64) -> Tensor {
        let channels = x.size()[1];
        let kernel = self.binomial.expand([channels, 1, 4, 4], false);
        x.conv2d(&kernel, None::<&Tensor>, [stride, stride], [padding, padding], [1, 1], channels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_keep_the_energy_and_say_which_way_an_edge_runs() {
        let wavelets = Wavelets::new(2);
        let random = Tensor::arange(2 * 2 * 64, (Kind::Float, tch::Device::Cpu)).sin().reshape([2, 2, 8, 8]);
        let bands = wavelets.bands(&random);
        assert_eq!(bands.size(), [2, 8, 4, 4]);
        let energy = |x: &Tensor| x.square().sum(Kind::Float).double_value(&[]);
        assert!((energy(&bands) / energy(&random) - 1.0).abs() < 1e-5);
        let row = Tensor::from_slice(&[1f32, 1.0, 3.0, 3.0]).reshape([1, 1, 2, 2]);
        let image = Tensor::cat(&[&row, &row.transpose(2, 3)], 1);
        let bands: Vec<f32> = wavelets.bands(&image).flatten(0, -1).try_into().unwrap();
        assert_eq!(bands, [4.0, 2.0, 0.0, 0.0, 4.0, 0.0, 2.0, 0.0]);
    }

    #[test]
    fn the_filter_keeps_what_is_even_and_drops_what_alternates() {
        let wavelets = Wavelets::new(1);
        let ones = Tensor::ones([1, 3, 8, 8], (Kind::Float, tch::Device::Cpu));
        let inside = |x: &Tensor| x.narrow(2, 2, 1).narrow(3, 2, 1).flatten(0, -1);
        let alternating = Tensor::from_slice(&[1f32, -1.0]).tile([1, 3, 8, 4]);
        let (halved, blurred) = (wavelets.halved(&ones), wavelets.blurred(&ones));
        assert_eq!((halved.size(), blurred.size()), (vec![1, 3, 4, 4], vec![1, 3, 9, 9]));
        for (image, expected) in [(&ones, 1.0), (&alternating, 0.0)] {
            for filtered in [wavelets.halved(image), wavelets.blurred(image)] {
                let worst = (inside(&filtered) - expected).abs().max().double_value(&[]);
                assert!(worst < 1e-6, "{worst}");
            }
        }
    }
}
