//! Packages trained SinGANs: ONNX graph, card, and a sheet of samples to judge them by.
//!
//! `cargo run --release -p hiresmed-models --example package_lesions -- CHECKPOINTS EXEMPLARS ROOT`: CHECKPOINTS is where `train_lesions`
//! trained, EXEMPLARS what `lesion_exemplars` wrote; ROOT gets `singan/{digest}/` for each.

use hiresmed_imaging::raster;
use hiresmed_inference::package::{CARD_FILE, Draft, Kind, TrainingData, Window, digest};
use hiresmed_inference::{Package, Runtime, Session, SessionOptions};
use hiresmed_models::singan::{Config, Generator, Lesion, export};
use hiresmed_models::weights::Weights;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use std::path::{Path, PathBuf};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Samples on the sheet for each diameter.
const SAMPLES: usize = 24;
/// Diameters on the sheet, px: 4, 7 and 12 mm at 0.7 mm.
const DIAMETERS_PX: [f32; 3] = [6.0, 10.0, 17.0];
/// Pixels of the sheet for a pixel of a patch.
const ENLARGE: usize = 2;
/// Side of a tile, pixels of a patch.
const TILE: usize = 28;

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [checkpoints, exemplars, root] = arguments.as_slice() else {
        return Err("usage: package_lesions CHECKPOINTS EXEMPLARS ROOT".into());
    };
    let runtime = Runtime::load()?;
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(checkpoints)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    folders.sort();
    for folder in folders {
        let Some(checkpoint) = newest(&folder)? else { continue };
        let weights = Weights::read(&checkpoint)?;
        let Some(name) = weights.metadata.get("singan").and(weights.metadata.get("name")).cloned() else { continue };
        let config: Config = serde_json::from_str(weights.metadata.get("configuration").ok_or("no configuration")?)?;
        let graph = export(&name, &config, &weights)?;
        let options = SessionOptions { threads: 1, ..SessionOptions::default() };
        let generator = Generator::new(&name, config.clone(), Session::open(&runtime, &graph, &options)?)?;
        let lesions = samples(&generator)?;
        let package = Package::write(
            Path::new(root),
            draft(&name, &config, &lesions, Path::new(exemplars))?,
            &[
                ("generate.onnx", &graph),
                (CARD_FILE, card(&name, &config, &lesions).as_bytes()),
                ("samples.png", &sheet(&lesions)),
            ],
        )?;
        println!("{name}: {}", package.directory().display());
    }
    Ok(())
}

/// The checkpoint with the most steps in `folder`.
fn newest(folder: &Path) -> Fallible<Option<PathBuf>> {
    let paths = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths.filter(|path| path.extension().is_some_and(|extension| extension == "safetensors")).max())
}

/// Samples of every diameter.
fn samples(generator: &Generator) -> Fallible<Vec<(f32, Lesion)>> {
    let mut lesions = Vec::new();
    for diameter in DIAMETERS_PX {
        for seed in 0..SAMPLES as u8 {
            let mut rng = ChaCha8Rng::from_seed([seed + diameter as u8 * 10; 32]);
            lesions.push((diameter, generator.sample(&mut rng, diameter)?));
        }
    }
    Ok(lesions)
}

/// Mean and largest relative error of the delivered diameters.
fn diameter_error(lesions: &[(f32, Lesion)]) -> (f64, f64) {
    let errors = lesions.iter().map(|(wanted, lesion)| f64::from((lesion.diameter_px / wanted - 1.0).abs()));
    (errors.clone().sum::<f64>() / lesions.len() as f64, errors.fold(0.0, f64::max))
}

/// Mean and standard deviation of mask area over the square of its diameter, relative to the exemplar's.
fn relative_area(config: &Config, lesions: &[(f32, Lesion)]) -> (f64, f64) {
    let usual = f64::from(config.lesion_area_px) / f64::from(config.lesion_diameter_px).powi(2);
    let areas: Vec<f64> = lesions
        .iter()
        .map(|(_, lesion)| lesion.mask.area() as f64 / f64::from(lesion.diameter_px).powi(2) / usual)
        .collect();
    let mean = areas.iter().sum::<f64>() / areas.len() as f64;
    let square = areas.iter().map(|area| (area - mean).powi(2)).sum::<f64>() / (areas.len() - 1) as f64;
    (mean, square.sqrt())
}

fn draft(name: &str, config: &Config, lesions: &[(f32, Lesion)], exemplars: &Path) -> Fallible<Draft> {
    let (source, licence, _) = source(name);
    let mut draft = Draft::new(Kind::Singan, name, licence);
    draft.configuration = serde_json::to_value(config)?;
    draft.window = Some(Window { low: -1000.0, high: 400.0 });
    if is_stone(name) {
        draft.modality = Some("kub".to_owned());
        draft.window = Some(Window { low: 0.0, high: 65_535.0 });
    }
    draft.parameters = config.parameters() as u64;
    draft.graphs.insert("generate".to_owned(), "generate.onnx".to_owned());
    let files = [
        std::fs::read(exemplars.join(format!("{name}.png")))?,
        std::fs::read(exemplars.join(format!("{name}.mask.png")))?,
    ];
    draft.training_data =
        vec![TrainingData { name: source.to_owned(), digest: digest(&files.concat()), licence: licence.to_owned() }];
    let (mean, largest) = diameter_error(lesions);
    let (area, spread) = relative_area(config, lesions);
    let scores = [
        ("diameter_error_mean", mean),
        ("diameter_error_max", largest),
        ("relative_area_mean", area),
        ("relative_area_sd", spread),
    ];
    draft.scores = scores.map(|(score, value)| (score.to_owned(), value)).into();
    Ok(draft)
}

/// Whether an exemplar is one of `kub stones`, for radiographs.
fn is_stone(name: &str) -> bool {
    name.starts_with("stone")
}

/// Data set, licence with attribution, and how the mask was made.
fn source(name: &str) -> (&'static str, &'static str, &'static str) {
    if name.starts_with("lidc") {
        let mask = "what at least half of the slice's four readers outlined";
        (
            "LIDC-IDRI-0001, the one nodule of that patient, one slice (the name ends in its index)",
            "CC BY 3.0 (LIDC-IDRI, Armato et al. 2011)",
            mask,
        )
    } else if name.starts_with("lung-dx") {
        let mask = "the soft tissue inside the ellipse that the data set's tumour box encloses; the mass touches the pleura, so its outer \
                    outline is the ellipse's, not an anatomical one";
        (
            "Lung-PET-CT-Dx, patient A0001, one slice of its adenocarcinoma",
            "CC BY 4.0 (Lung-PET-CT-Dx, doi 10.7937/TCIA.2020.NNC20461)",
            mask,
        )
    } else if is_stone(name) {
        let mask = "what is nearly white inside the data set's box. On CT in a soft-tissue window a stone is white throughout: only its \
                    outline is real, and its thickness along the ray is taken for what it would be were it as deep as it is wide";
        (
            "coronal CT of kidneys, one stone of one slice",
            "CC BY 4.0 (Roboflow Universe, tez-nwkf5/tez_roi_aug v3)",
            mask,
        )
    } else {
        let mask = "tissue connected to a seed that we set by eye: the data set has no boxes. Its 8-bit grey values were brought to Hounsfield \
                    units by two points, air and muscle, and its pixel spacing is unknown";
        (
            "IQ-OTH/NCCD, one slice (the name ends in its number)",
            "CC BY 4.0 (IQ-OTH/NCCD, doi 10.17632/bhmdr45bh2)",
            mask,
        )
    }
}

fn card(name: &str, config: &Config, lesions: &[(f32, Lesion)]) -> String {
    let (source, licence, mask) = source(name);
    let ((mean, largest), (area, spread)) = (diameter_error(lesions), relative_area(config, lesions));
    let [height, width] = config.finest();
    let surroundings = match is_stone(name) {
        true => "tissue beyond it was replaced by an even grey with grain",
        false => "tissue beyond the lesion (chest wall, mediastinum) was replaced by lung of the same slice",
    };
    format!(
        "# SinGAN `{name}`\n\n\
        Draws {} with their masks from noise, in the likeness of one exemplar. `samples.png` shows {SAMPLES} samples each at \
        {:.0}, {:.0} and {:.0} px, every patch above its mask.\n\n\
        - **Exemplar**: {source}. Mask: {mask}. The crop was resampled to {width} x {height} px with a lesion of {:.0} px; {surroundings}.\n\
        - **Training**: preset `lesion` ({} scales, {} parameters; 1 seed), image and soft mask as two channels.\n\
        - **Measured** over the {} samples of the sheet: delivered longest diameter off by {:.1} % on average, {:.1} % at most; mask area \
        {area:.2} +- {spread:.2} of the exemplar's at equal diameter. One image cannot be held out from a model of one image: there is no \
        held-out likelihood.\n\
        - **Licence**: {licence}; these weights are a derived work under the same terms.\n\
        - **Limits**: far fewer iterations than the published recipe's 2,000 a scale, and a reconstruction from fresh noise that holds \
        samples near the exemplar: they differ in orientation, grey values, texture and edge, and little in overall shape. Lesions under \
        6 px have little inner structure. Not for diagnosis.\n",
        if is_stone(name) { "kidney stones for radiographs" } else { "lung lesions" },
        DIAMETERS_PX[0],
        DIAMETERS_PX[1],
        DIAMETERS_PX[2],
        config.lesion_diameter_px,
        config.scales(),
        config.parameters(),
        lesions.len(),
        mean * 100.0,
        largest * 100.0,
    )
}

/// Rows of patches, each over its mask.
fn sheet(lesions: &[(f32, Lesion)]) -> Vec<u8> {
    let columns = SAMPLES / 2;
    let rows = lesions.len() / columns * 2;
    let (width, height) = (columns * TILE * ENLARGE, rows * TILE * ENLARGE);
    let pixel = |at: usize| {
        let (x, y) = (at % width / ENLARGE, at / width / ENLARGE);
        let (column, row) = (x / TILE, y / TILE);
        let (_, lesion) = &lesions[row / 2 * columns + column];
        let (size, offset) = ((lesion.mask.width(), lesion.mask.height()), |size: usize| TILE.saturating_sub(size) / 2);
        let (x, y) = ((x % TILE).checked_sub(offset(size.0)), (y % TILE).checked_sub(offset(size.1)));
        match (x, y) {
            (Some(x), Some(y)) if x < size.0 && y < size.1 && row % 2 == 0 => {
                ((lesion.image.at(x, y) + 1.0) * 127.5) as u8
            }
            (Some(x), Some(y)) if x < size.0 && y < size.1 => u8::from(lesion.mask.get(x, y)) * 255,
            _ => 0,
        }
    };
    raster::grey_png(width, height, &(0..width * height).map(pixel).collect::<Vec<_>>())
}
