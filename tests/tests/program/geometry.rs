//! Deliveries in the geometry of their sources.

use std::{fs, path::Path};

use hiresmed_imaging::{Mask, Spacing, dicom, raster};
use hiresmed_protocol::manifest::Image;

use crate::{
    harness::Bench,
    labels::{opens_elsewhere, valid},
};

const SOURCE: &str = "output.geometry = \"source\"\n";

/// Holds an image of a delivery at `out` against the size and spacing of its source: every file has them, the manifest's measures are
/// of the mask, and what is not near a lesion is the background's. `reach` are the pixels in which a lesion's surroundings end.
pub fn in_source_geometry(out: &Path, image: &Image, (columns, rows): (usize, usize), spacing: Spacing, reach: usize) {
    assert_eq!(image.dimensions, Some([columns as u32, rows as u32]));
    assert_eq!(image.spacing_mm, [spacing.row_mm, spacing.column_mm]);
    let read = |file: &str| dicom::read(out.join(file)).unwrap();
    let images = [&image.file, &image.background.as_ref().unwrap().file].map(|file| read(file));
    for image in &images {
        assert_eq!((image.width(), image.height(), image.attributes.spacing), (columns, rows, Some(spacing)));
    }
    let map = |file: &Option<hiresmed_protocol::manifest::File>| {
        let grey = raster::read_mask(out.join(&file.as_ref().unwrap().file)).unwrap();
        assert_eq!((grey.width(), grey.height()), (columns, rows));
        grey
    };
    let (mask, zones, candidates) = (map(&image.mask), map(&image.danger_zones), map(&image.candidates));
    assert!(zones.area() > 0 && candidates.area() > 0 && candidates.area() < columns * rows);
    let components = mask.components();
    assert_eq!(components.len(), image.lesions.len());
    for lesion in &image.lesions {
        let component = (0..components.len()).map(|index| components.mask(index)).find(|component| {
            let bounds = component.bounds().unwrap();
            [bounds.left, bounds.top, bounds.width, bounds.height].map(|value| value as u32) == lesion.bbox
        });
        let component = component.expect("a component in the lesion's box");
        let (x, y) = component.centroid().unwrap();
        assert!((x - lesion.centre[0]).hypot(y - lesion.centre[1]) < 1e-6);
        assert_eq!((component.area() as u64, component.longest_diameter()), (lesion.area_px, lesion.size_px));
        assert_eq!(component.longest_diameter_mm(spacing), lesion.diameter_mm);
    }
    let values = images.each_ref().map(|image| image.frame(0).unwrap().values);
    let changed = Mask::from_fn(columns, rows, |x, y| values[0][y * columns + x] != values[1][y * columns + x]);
    assert_eq!(changed.without(&mask.dilated(reach)).area(), 0, "changed far from every lesion");
    assert!(2 * changed.and(&mask).area() > mask.area(), "most of a lesion is changed");
}

#[test]
fn slices_are_delivered_in_their_own_rows_columns_and_spacing() {
    let bench = Bench::new();
    let text = format!("{SOURCE}count = 4\nseed = 3\nbackground.draws = 2\noutput.seg = true\noutput.sr = true\n");
    let id = bench.submit(&format!("{text}chunk = 4"));
    bench.run(&["watch", &id]).expect(0);
    let delivered = bench.delivery(&id, "out");
    let images = &delivered.manifest.images;
    assert_eq!((images.len(), delivered.manifest.failures.len()), (4, 0));
    let out = bench.path("out");
    for image in images {
        let source = dicom::read(crate::harness::slice(0)).unwrap();
        let size = (source.width(), source.height());
        // A pixel of the plane in which lesions are blended is four of the source: two of them beyond the mask, and a cubic's reach.
        in_source_geometry(&out, image, size, source.attributes.spacing.unwrap(), 4 * 5);
        valid(&out.join(&image.file), "CTImage");
        valid(&out.join(&image.seg.as_ref().unwrap().file), "Segmentation");
        valid(&out.join(&image.sr.as_ref().unwrap().file), "ComprehensiveSR");
    }
    opens_elsewhere(&out);
    // Those of one source show one background, byte by byte.
    let background = |folder: &str, image: &Image| {
        let file = bench.path(folder).join(&image.background.as_ref().unwrap().file);
        dicom::read(file).unwrap().frame(0).unwrap().values
    };
    assert_eq!(images[0].input_sha256, images[1].input_sha256);
    assert_eq!(background("out", &images[0]), background("out", &images[1]));
    assert_ne!(background("out", &images[0]), background("out", &images[2]));
    // One image a job: the id of the request is in the files, and nothing else differs.
    let id = bench.submit(&format!("{text}chunk = 1"));
    bench.run(&["watch", &id]).expect(0);
    let one_by_one = bench.delivery(&id, "one");
    for (a, b) in images.iter().zip(&one_by_one.manifest.images) {
        assert_eq!((&a.lesions, &a.mask.as_ref().unwrap().sha256), (&b.lesions, &b.mask.as_ref().unwrap().sha256));
        assert_eq!(background("out", a), background("one", b));
    }
    // The same lesions as in the request's geometry, to a pixel of it.
    let id = bench.submit(&text.replace(SOURCE, ""));
    bench.run(&["watch", &id]).expect(0);
    for (a, b) in images.iter().zip(&bench.delivery(&id, "request").manifest.images) {
        assert_eq!(b.dimensions, None);
        for (a, b) in a.lesions.iter().zip(&b.lesions) {
            assert!((a.diameter_mm - b.diameter_mm).abs() < 2.8, "{} and {} mm", a.diameter_mm, b.diameter_mm);
            let away = |k: usize| (a.centre[k] - (4.0 * (b.centre[k] + 0.5) - 0.5)).abs();
            assert!(away(0) < 2.0 && away(1) < 2.0, "{:?} and {:?}", a.centre, b.centre);
        }
    }
}

#[test]
fn positions_are_in_pixels_of_the_source() {
    let bench = Bench::new();
    let deliver = |text: &str, name: &str| {
        let id = bench.submit(&format!("{SOURCE}count = 1\nseed = 3\n{text}"));
        bench.run(&["watch", &id]).expect(0);
        bench.delivery(&id, name).manifest
    };
    let [x, y] = deliver("", "drawn").images[0].lesions[0].centre;
    let pinned = deliver(&format!("placement.positions = [[{x}, {y}]]"), "pinned");
    let lesion = &pinned.images[0].lesions[0];
    // To half a pixel of the plane in which it is placed, and what the centroid of its mask is off its pixel's middle there.
    assert!(
        lesion.pinned && (lesion.centre[0] - x).hypot(lesion.centre[1] - y) < 4.0,
        "{:?} for {x}, {y}",
        lesion.centre
    );
    let request =
        bench.request(&format!("{SOURCE}count = 1\non_failure = \"stop\"\nplacement.positions = [[600, 20]]"));
    let said = ["[600, 20], outside of its source, an image of 512 x 512 pixels", "in pixels of the source"];
    bench.run(&["submit", &request, "--wait"]).complains(1, &said);
}

#[test]
fn what_has_no_source_or_would_be_cropped_is_refused() {
    let bench = Bench::new();
    let sampled = bench.request(&format!("{SOURCE}count = 1\nbackground.mode = \"sample\""));
    let said = "`output.geometry` = \"source\": must be \"request\" where background.mode is \"sample\"";
    bench.run(&["submit", &sampled]).complains(2, &[said]);
    let cropped = bench.path("cropped.toml");
    let text = "version = 1\nkind = \"synthesise\"\ncount = 1\non_failure = \"stop\"\n\
                size = { width = 128, height = 128, spacing_mm = 0.703125 }\n";
    fs::write(&cropped, format!("{text}{SOURCE}")).unwrap();
    let said = ["it has 512 x 512 pixels, and 128 x 128 of them would be kept", "leave size.spacing_mm out"];
    bench.run(&["submit", cropped.to_str().unwrap(), "--wait"]).complains(1, &said);
}
