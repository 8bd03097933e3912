//! Packages the trained danger-zone U-Net: ONNX graph, held-out score, card, and overlays on patients without labels.
//!
//! `cargo run --release -p hiresmed-models --example package_zones -- CHECKPOINT REGIONS DATA ROOT`: CHECKPOINT is a safetensors file of
//! `train_lesions`, REGIONS what `lung_regions` wrote, DATA holds the data sets of [`OTHERS`]; ROOT gets `unet/{digest}/`.

use hiresmed_imaging::{Plane, Window, raster, resample, series};
use hiresmed_inference::package::{CARD_FILE, Draft, Kind, TrainingData, Window as Range, digest};
use hiresmed_inference::{Package, Runtime, Session, SessionOptions};
use hiresmed_models::unet::{Config, DangerZones, export};
use hiresmed_models::weights::Weights;
use std::path::Path;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Middles of the held-out blocks of `train_lesions`.
const SCORED: [u32; 12] = [5, 6, 7, 8, 19, 20, 21, 22, 32, 33, 34, 35];
/// Slices of patients that the network never saw, for the sheet.
const OTHERS: [&str; 8] = [
    "ct-lung-dicom-lung_dx-a0001/slice_000.dcm",
    "ct-lung-dicom-lung_dx-a0001/slice_005.dcm",
    "ct-body-dicom-covid19-ny-sbu/A002304_axial.dcm",
    "ct-body-dicom-covid19-ny-sbu/A046441_axial.dcm",
    "ct-body-dicom-covid19-ny-sbu/A098752_axial.dcm",
    "ct-lung-slices-iqothnccd/malignant/malignant_0391.jpg",
    "ct-lung-slices-iqothnccd/malignant/malignant_0472.jpg",
    "ct-lung-slices-iqothnccd/benign/benign_0093.jpg",
];
/// Side of a picture on the sheet, px, and pictures in a row.
const TILE: usize = 144;
const COLUMNS: usize = 4;

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [checkpoint, regions, data, root] = arguments.as_slice() else {
        return Err("usage: package_zones CHECKPOINT REGIONS DATA ROOT".into());
    };
    let weights = Weights::read(Path::new(checkpoint))?;
    let config: Config = serde_json::from_str(weights.metadata.get("configuration").ok_or("no configuration")?)?;
    let graph = export(&config, &weights)?;
    let session =
        Session::open(&Runtime::load()?, &graph, &SessionOptions { threads: 1, ..SessionOptions::default() })?;
    let zones = DangerZones::new(config.clone(), session)?;
    let dice = held_out_dice(&zones, Path::new(regions))?;
    let mut draft = Draft::new(Kind::Unet, "lung-zones", "CC BY 3.0");
    draft.parameters = config.parameters() as u64;
    draft.configuration = serde_json::to_value(config)?;
    draft.window = Some(Range { low: Window::LUNG_CT.low, high: Window::LUNG_CT.high });
    draft.scores.insert("dice_held_out".to_owned(), dice);
    draft.graphs.insert("segment".to_owned(), "segment.onnx".to_owned());
    draft.training_data = vec![TrainingData {
        name: "LIDC-IDRI-0001, slices outside three held-out blocks, organ labels of TotalSegmentator".to_owned(),
        digest: digest(&std::fs::read(Path::new(regions).join("z00.png"))?),
        licence: "CC BY 3.0 (LIDC-IDRI, Armato et al. 2011)".to_owned(),
    }];
    let (card, sheet) = (card(dice, draft.parameters), sheet(&zones, Path::new(data))?);
    let files = [("segment.onnx", graph.as_slice()), (CARD_FILE, card.as_bytes()), ("zones.png", sheet.as_slice())];
    let package = Package::write(Path::new(root), draft, &files)?;
    println!("Dice {dice:.4}: {}", package.directory().display());
    Ok(())
}

fn read(path: &Path) -> Fallible<Plane> {
    let slice = series::read_file(path)?.into_iter().next().ok_or("a file without a slice")?;
    Ok(slice.normalised(Window::LUNG_CT))
}

/// Mean Dice of the permissible region over the held-out slices, at full size.
fn held_out_dice(zones: &DangerZones, regions: &Path) -> Fallible<f64> {
    let mut sum = 0.0;
    for index in SCORED {
        let found = zones.permissible(&read(&regions.join(format!("z{index:02}.png")))?)?;
        let truth = read(&regions.join(format!("z{index:02}.mask.png")))?;
        let truth: Vec<u8> = truth.data().iter().map(|&value| u8::from(value > 0.0)).collect();
        let both = found.data().iter().zip(&truth).filter(|(a, b)| **a == 1 && **b == 1).count();
        sum += 2.0 * both as f64 / (found.area() + truth.iter().filter(|&&value| value == 1).count()) as f64;
    }
    Ok(sum / SCORED.len() as f64)
}

/// Slices of other patients with the permissible region tinted green.
fn sheet(zones: &DangerZones, data: &Path) -> Fallible<Vec<u8>> {
    let (width, height) = (COLUMNS * TILE, OTHERS.len().div_ceil(COLUMNS) * TILE);
    let mut pixels = vec![0u8; width * height * 3];
    for (at, name) in OTHERS.iter().enumerate() {
        let image = read(&data.join(name))?;
        let region = resample::resize_mask(&zones.permissible(&image)?, TILE, TILE);
        let small = resample::resize(&image, TILE, TILE, resample::Filter::Area);
        for y in 0..TILE {
            for x in 0..TILE {
                // Sixteen grey levels keep the PNG small.
                let grey = ((small.at(x, y) + 1.0) * 7.99) as u8 * 17;
                let green = if region.get(x, y) { grey.saturating_add(68) } else { grey };
                let to = ((at / COLUMNS * TILE + y) * width + at % COLUMNS * TILE + x) * 3;
                pixels[to..to + 3].copy_from_slice(&[grey, green, grey]);
            }
        }
    }
    Ok(raster::rgb_png(width, height, &pixels))
}

fn card(dice: f64, parameters: u64) -> String {
    format!(
        "# Danger zones `lung-zones`\n\n\
        A U-Net of {parameters} parameters that marks where a lung nodule may be in an axial chest CT slice (equation 15; 1 is permissible): \
        lung without the large vessels and airways. It works on a grid of 256 x 256.\n\n\
        - **Data**: the slices of LIDC-IDRI-0001 with TotalSegmentator's organ labels, augmented (flips, zoom, shift, rotation, contrast, \
        brightness, noise). Permissible is the five lobes' labels without soft tissue at least five pixels wide. Three blocks of six slices \
        were held out.\n\
        - **Held-out score**: Dice {dice:.3} of the permissible region on the middle slices of the held-out blocks. They are of the same \
        patient: the score says nothing of others.\n\
        - **Other patients, by eye** (`zones.png`: Lung-PET-CT-Dx, COVID-19-NY-SBU, IQ-OTH/NCCD; there are no labels to score): lungs are \
        found and the chest wall, mediastinum, hilar vessels and solid masses left out. Consolidated and ground-glass lung is partly left out, which \
        costs room and no error. The main bronchi are sometimes called permissible, and so is gas in the bowel below the diaphragm: \
        do not give it abdominal slices. Air outside the body is called permissible too, and is removed by intersecting with the body.\n\
        - **Licence**: CC BY 3.0 (LIDC-IDRI, Armato et al. 2011); these weights are a derived work under the same terms. Not for diagnosis.\n"
    )
}
