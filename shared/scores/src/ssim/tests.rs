use super::*;

/// An image by formula, so that the expectation could be computed elsewhere.
fn image(seed: u32) -> Plane {
    let value = |i: usize| ((i as u32 + 7919 * seed).wrapping_mul(2_654_435_761) >> 16) % 256;
    Plane::new(24, 20, (0..480).map(|i| value(i) as f32).collect())
}

#[test]
fn equal_images_score_one() {
    assert!((ssim(&image(1), &image(1), 255.0).unwrap() - 1.0).abs() < 1e-12);
}

#[test]
fn equals_stored_expectations() {
    let (a, b) = (image(1), image(2));
    let mut c = a.clone();
    c.data_mut().iter_mut().enumerate().for_each(|(i, value)| *value += (i % 7) as f32 - 3.0);
    // scikit-image 0.26 with gaussian_weights, sigma 1.5, use_sample_covariance=False, data_range 255.
    assert!((ssim(&a, &b, 255.0).unwrap() - 0.689591866695952).abs() < 1e-9);
    assert!((ssim(&a, &c, 255.0).unwrap() - 0.9996293413306481).abs() < 1e-9);
}

#[test]
fn bands_join_without_a_seam() {
    let tall = |seed: u32| {
        let value = |i: usize| ((i as u32 + 7919 * seed).wrapping_mul(2_654_435_761) >> 16) % 256;
        Plane::new(13, 300, (0..13 * 300).map(|i| value(i) as f32).collect())
    };
    let (a, b) = (tall(1), tall(2));
    let map = ssim_map(&a, &b, 255.0).unwrap();
    let mut rows = Rows::new(&a, &b, 255.0);
    let mut row = vec![0.0; 13];
    for y in 0..300 {
        rows.write(y, &mut row);
        assert_eq!(row, map.data[y * 13..(y + 1) * 13], "row {y}");
    }
    assert!((map.mean() - ssim(&a, &b, 255.0).unwrap()).abs() < 1e-14);
}

#[test]
fn constant_images_have_the_score_of_their_means() {
    let (a, b) = (Plane::filled(16, 12, 3.0), Plane::filled(16, 12, 7.0));
    let c1 = (0.01f64 * 10.0).powi(2);
    let expected = (2.0 * 21.0 + c1) / (9.0 + 49.0 + c1);
    assert!((ssim(&a, &b, 10.0).unwrap() - expected).abs() < 1e-9);
    assert!((ssim(&a, &a, 10.0).unwrap() - 1.0).abs() < 1e-9);
}

#[test]
fn the_mean_outside_a_mask_leaves_out_the_lesion_and_the_border() {
    let (a, b) = (image(1), image(2));
    let map = ssim_map(&a, &b, 255.0).unwrap();
    let none = Mask::empty(24, 20);
    assert!((map.mean_outside(&none).unwrap().unwrap() - map.mean()).abs() < 1e-14);
    let but_one = Mask::from_fn(24, 20, |x, y| (x, y) != (8, 9));
    assert_eq!(map.mean_outside(&but_one).unwrap(), Some(map.data[9 * 24 + 8]));
    // All that is left lies on the border.
    let middle = Mask::from_fn(24, 20, |x, y| (5..19).contains(&x) && (5..15).contains(&y));
    assert_eq!(map.mean_outside(&middle).unwrap(), None);
    assert!(matches!(map.mean_outside(&Mask::empty(20, 24)), Err(Error::Mask { .. })));
}

#[test]
fn refuses_images_smaller_than_the_window() {
    let a = Plane::filled(10, 30, 0.0);
    assert_eq!(ssim(&a, &a, 1.0), Err(Error::Small { width: 10, height: 30, least: 11 }));
    let pair = (Plane::filled(16, 16, 0.0), Plane::filled(16, 16, f32::NAN));
    assert_eq!(ssim(&pair.0, &pair.1, 1.0), Err(Error::NotFinite));
}
