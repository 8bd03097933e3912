//! Radiographs with stones, made with the models that come with the project from a radiograph of the test's own.

use std::{collections::BTreeSet, fs};

use hiresmed_imaging::{
    Plane, Spacing, Window, dicom,
    dicom::write::{Identity, Syntax, Synthetic},
    raster,
};

use crate::{
    geometry::in_source_geometry,
    harness::{Bench, Delivered, Said, pack},
    labels::{opens_elsewhere, valid},
};

const SIDE: usize = 512;

/// A trunk with a spine in an image 358 mm wide, as a DX object of `width` x `height` square pixels.
fn radiograph(width: usize, height: usize) -> Vec<u8> {
    let pixel = SIDE as f32 / width as f32;
    let value = |at: usize| {
        let (x, y) = ((at % width) as f32 * pixel, (at / width) as f32 * pixel);
        let across = (x - 256.0) / 215.0;
        if across.abs() >= 1.0 {
            return -1.0;
        }
        let spine = if (x - 256.0).abs() < 32.0 { 0.45 } else { 0.0 };
        -0.2 + 0.25 * (1.0 - across * across).sqrt() + spine + 0.02 * ((x * 0.7).sin() * (y * 0.9).cos())
    };
    let spacing = Spacing::square(0.7 * SIDE as f64 / width as f64);
    let plane = Plane::new(width, height, (0..width * height).map(value).collect()).with_spacing(Some(spacing));
    Synthetic {
        plane: &plane,
        window: Window::RADIOGRAPH,
        identity: Identity { request: "phantom", image: 0, object: "source" },
        modality: "DX",
        description: "Phantom",
        body_part: "ABDOMEN",
        software_version: "0",
        syntax: Syntax::Explicit,
    }
    .to_bytes()
    .unwrap()
}

/// The program with the models that come with the project.
fn run(bench: &Bench, arguments: &[&str]) -> Said {
    Said::of(bench.command(arguments).env("HIRESMED_PACK", pack()).output().unwrap())
}

/// Names of the shipped packages of a kind that are for `modality`, by digest.
fn shipped(kind: &str, modality: Option<&str>) -> BTreeSet<String> {
    let folders = fs::read_dir(pack().join("models").join(kind)).unwrap().map(|entry| entry.unwrap().path());
    let fits = |folder: &std::path::PathBuf| {
        let text = fs::read(folder.join("model.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()["modality"].as_str() == modality
    };
    folders.filter(fits).map(|folder| folder.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn stones_are_added_to_radiographs_and_nothing_else_changes() {
    let bench = Bench::new();
    let folder = bench.path("inputs");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("a.dcm"), radiograph(SIDE, SIDE)).unwrap();
    let (request, out) = (bench.path("kub.toml"), bench.path("out"));
    fs::write(
        &request,
        "version = 1\nkind = \"synthesise\"\ncount = 3\nmodality = \"kub\"\nblend = \"attenuation\"\n\
         lesions.count = { min = 2, max = 2 }\noutput = { seg = true, sr = true }\n",
    )
    .unwrap();
    let (request, inputs) = (request.to_str().unwrap(), folder.to_str().unwrap());
    run(&bench, &["submit", request, "--inputs", inputs, "--wait", "--out", out.to_str().unwrap()]).expect(0);
    let delivered = Delivered::read(&out);
    assert_eq!((delivered.indices(), delivered.manifest.failures.len()), (vec![0, 1, 2], 0));
    let stones = shipped("singan", Some("kub"));
    for image in &delivered.manifest.images {
        assert!(shipped("unet", Some("kub")).contains(&image.models["unet"].to_string()));
        assert!(!image.lesions.is_empty());
        for lesion in &image.lesions {
            assert!(stones.contains(&lesion.exemplar.to_string()), "a stone and no nodule");
        }
        let read = |file: &str| dicom::read(out.join(file)).unwrap();
        let (composite, background) = (read(&image.file), read(&image.background.as_ref().unwrap().file));
        assert_eq!(composite.attributes.modality.as_deref(), Some("DX"));
        let mask = raster::read_mask(out.join(&image.mask.as_ref().unwrap().file)).unwrap();
        let near = mask.dilated(2);
        let (after, before) = (composite.frame(0).unwrap().values, background.frame(0).unwrap().values);
        let mut brighter = 0;
        for (at, (after, before)) in after.iter().zip(&before).enumerate() {
            assert!(after == before || (near.data()[at] != 0 && after > before), "pixel {at}: {before} to {after}");
            brighter += usize::from(after > before && mask.data()[at] != 0);
        }
        assert!(2 * brighter > mask.area(), "{brighter} of {} pixels", mask.area());
        valid(&out.join(&image.file), "DXImageForPresentation");
        valid(&out.join(&image.seg.as_ref().unwrap().file), "Segmentation");
        valid(&out.join(&image.sr.as_ref().unwrap().file), "ComprehensiveSR");
    }
    opens_elsewhere(&out);
}

#[test]
fn a_radiograph_larger_than_its_plane_comes_back_at_its_own_resolution() {
    let bench = Bench::new();
    let folder = bench.path("inputs");
    fs::create_dir_all(&folder).unwrap();
    // Odd, and of other proportions than the plane: there is air beside it.
    let (width, height) = (1283, 1101);
    let source = radiograph(width, height);
    fs::write(folder.join("a.dcm"), &source).unwrap();
    let spacing = dicom::from_bytes(&source, "a.dcm", Default::default()).unwrap().attributes.spacing.unwrap();
    let (request, out) = (bench.path("kub.toml"), bench.path("out"));
    fs::write(
        &request,
        "version = 1\nkind = \"synthesise\"\ncount = 1\nmodality = \"kub\"\nblend = \"attenuation\"\n\
         lesions.count = { min = 2, max = 2 }\noutput = { geometry = \"source\", seg = true, sr = true }\n",
    )
    .unwrap();
    let (request, inputs) = (request.to_str().unwrap(), folder.to_str().unwrap());
    run(&bench, &["submit", request, "--inputs", inputs, "--wait", "--out", out.to_str().unwrap()]).expect(0);
    let delivered = Delivered::read(&out);
    assert_eq!((delivered.indices(), delivered.manifest.failures.len()), (vec![0], 0));
    let image = &delivered.manifest.images[0];
    in_source_geometry(&out, image, (width, height), spacing, 13);
    let composite = dicom::read(out.join(&image.file)).unwrap();
    assert_eq!(composite.attributes.bits_stored, Some(16));
    // All of the source is there, also where the plane goes on.
    let values = composite.frame(0).unwrap().values;
    let mean = |rows: std::ops::Range<usize>| {
        let middle = rows.clone().map(|y| values[y * width + width / 2]).sum::<i64>();
        middle / rows.len() as i64
    };
    let (top, middle, bottom) = (mean(0..3), mean(height / 2..height / 2 + 20), mean(height - 3..height));
    assert!((top - middle).abs() < 4000 && (bottom - middle).abs() < 4000, "{top} {middle} {bottom}");
    valid(&out.join(&image.file), "DXImageForPresentation");
    valid(&out.join(&image.seg.as_ref().unwrap().file), "Segmentation");
    opens_elsewhere(&out);
}

#[test]
fn the_demo_makes_radiographs_of_phantoms() {
    let bench = Bench::new();
    let out = bench.path("out");
    run(&bench, &["demo", "--modality", "kub", "--count", "4", "--out", out.to_str().unwrap()]).expect(0);
    let delivered = Delivered::read(&out);
    assert_eq!((delivered.indices(), delivered.manifest.failures.len()), (vec![0, 1, 2, 3], 0));
    let images = &delivered.manifest.images;
    let sources: BTreeSet<_> = images.iter().map(|image| image.input_sha256).collect();
    assert_eq!(sources.len(), 2, "each phantom is used");
    assert!(images.iter().all(|image| !image.lesions.is_empty()));
    assert_eq!(dicom::read(out.join(&images[0].file)).unwrap().frame(0).unwrap().values.len(), 1024 * 1024);
    valid(&out.join(&images[0].file), "DXImageForPresentation");
    let said = run(&bench, &["demo", "--modality", "kub", "--background", "sample", "--out", out.to_str().unwrap()]);
    said.complains(1, &["no prior for radiographs", "leave --background out"]);
}

#[test]
fn models_of_another_modality_are_refused_by_their_names() {
    let bench = Bench::new();
    let request = bench.path("wrong.toml");
    for (text, said) in [
        (
            "models.unet = \"kub-zones\"",
            "`models.unet`: the unet model `kub-zones` is for `kub` images, and the request is for `ct`",
        ),
        (
            "modality = \"kub\"\nmodels.density = \"lung-nodules\"",
            "`models.density`: the density model `lung-nodules` is for `ct` images, and the request is for `kub`",
        ),
    ] {
        fs::write(&request, format!("version = 1\nkind = \"synthesise\"\ncount = 1\n{text}\n")).unwrap();
        run(&bench, &["submit", request.to_str().unwrap()]).complains(2, &[said]);
    }
    // A slice of a lung is no radiograph.
    fs::write(&request, "version = 1\nkind = \"synthesise\"\ncount = 1\nmodality = \"kub\"\n").unwrap();
    let said = run(&bench, &["submit", request.to_str().unwrap(), "--wait"]);
    assert!(said.errors.contains("its modality is CT, and the request is for `kub`"), "{}", said.errors);
}
