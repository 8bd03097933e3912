//! Folders of images to slices: DICOM, PNG, JPEG and NIfTI alike.

use std::path::{Path, PathBuf};

use crate::dicom::{self, ReadOptions};
use crate::{Error, Fault, Plane, Window, nifti, raster};

/// What a slice's values mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Units {
    /// Real-world values after rescale: Hounsfield units for CT.
    RealWorld,
    /// Display values from 0 to `max`, already windowed by whoever made the file.
    Display {
        /// The file's white.
        max: f32,
    },
    /// Values of a projection radiograph, which mean nothing but by the window that its file names.
    Windowed(Window),
}

/// One grey image of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// Unique within its series: the file's stem, with `-f0003` for a frame or `-z0003` for a volume's slice.
    pub name: String,
    /// The folder that holds the file, relative to the folder that was read; that folder's own name at its top.
    pub series: String,
    /// Series Instance UID, where a DICOM file says.
    pub uid: Option<String>,
    /// The file.
    pub path: PathBuf,
    /// Frame of a multi-frame file or slice of a volume, from 0.
    pub index: usize,
    /// The pixels.
    pub plane: Plane,
    /// What they mean.
    pub units: Units,
    /// DICOM modality, where the file says.
    pub modality: Option<String>,
    /// The plane through the patient, where a DICOM file says.
    pub view: Option<dicom::View>,
    /// Position along the slice normal, mm, where the file says.
    pub position_mm: Option<f64>,
}

impl Slice {
    /// The pixels in [-1, 1]: over `window` where they are real-world values, over their own where they are a radiograph's; display
    /// values are taken as windowed.
    pub fn normalised(&self, window: Window) -> Plane {
        let value = |&value: &f32| match self.units {
            Units::RealWorld => window.normalise(value),
            Units::Display { max } => (value / max * 2.0 - 1.0).clamp(-1.0, 1.0),
            Units::Windowed(own) => own.normalise(value),
        };
        let data = self.plane.data().iter().map(value).collect();
        Plane::new(self.plane.width(), self.plane.height(), data).with_spacing(self.plane.spacing)
    }
}

/// What a folder held.
#[derive(Debug, Default)]
pub struct Folder {
    /// Every slice that could be read, by series, then position (or instance number), then name.
    pub slices: Vec<Slice>,
    /// Every file that should have been an image and could not be read.
    pub faults: Vec<Error>,
}

/// The format that a file's name announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Dicom,
    Raster,
    Nifti,
}

/// Reads every image in `folder` and below it.
///
/// Taken as images: `.dcm`, `.dicom`, `.ima` and names without an extension (DICOM), `.png`, `.jpg`, `.jpeg`, `.nii`,
/// `.nii.gz`. Annotation volumes (NIfTI with `label`, `mask` or `seg` in the name), hidden files, a `DICOMDIR` and all
/// other extensions are passed over. A file without an extension that is no DICOM is passed over too.
///
/// # Errors
/// Only when `folder` itself cannot be listed; a file that cannot be read becomes one of [`Folder::faults`].
pub fn read_folder(folder: impl AsRef<Path>) -> Result<Folder, Error> {
    read_folder_with(folder, ReadOptions::default())
}

/// [`read_folder`] under the caller's bounds for each file.
///
/// # Errors
/// As [`read_folder`].
pub fn read_folder_with(folder: impl AsRef<Path>, options: ReadOptions) -> Result<Folder, Error> {
    let root = folder.as_ref();
    let mut result = Folder::default();
    let mut keyed = Vec::new();
    for path in files(root)? {
        match read_file_with(&path, options) {
            Ok(slices) => {
                let series = series_name(root, &path);
                keyed.extend(slices.into_iter().map(|mut slice| {
                    slice.slice.series.clone_from(&series);
                    slice
                }));
            }
            // A text without an extension beside the images is none of our business.
            Err(Error { fault: Fault::NotDicom, file }) if file.extension().is_none() => {}
            Err(error) => result.faults.push(error),
        }
    }
    keyed.sort_by(|a, b| {
        (&a.slice.series, &a.group)
            .cmp(&(&b.slice.series, &b.group))
            .then(a.order.total_cmp(&b.order))
            .then_with(|| (&a.slice.path, a.slice.index).cmp(&(&b.slice.path, b.slice.index)))
    });
    result.slices = keyed.into_iter().map(|keyed| keyed.slice).collect();
    make_unique(&mut result.slices);
    Ok(result)
}

/// Reads every slice of one file; its series is the name of its folder.
///
/// # Errors
/// [`Error`] with the file and the cause.
pub fn read_file(path: impl AsRef<Path>) -> Result<Vec<Slice>, Error> {
    Ok(read_file_with(path.as_ref(), ReadOptions::default())?.into_iter().map(|keyed| keyed.slice).collect())
}

/// The image files that [`read_folder`] would read, sorted by path.
///
/// # Errors
/// When a folder cannot be listed.
pub fn files(folder: impl AsRef<Path>) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut open = vec![folder.as_ref().to_path_buf()];
    while let Some(folder) = open.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|error| Error::new(&folder, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| Error::new(&folder, error))?;
            let path = entry.path();
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            let kind = entry.file_type().map_err(|error| Error::new(&path, error))?;
            // Links to folders are not followed: they may run in circles.
            if kind.is_dir() && !hidden {
                open.push(path);
            } else if !hidden && path.is_file() && format(&path).is_some() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A slice with what orders it within its series.
struct Keyed {
    slice: Slice,
    group: String,
    order: f64,
}

fn format(path: &Path) -> Option<Format> {
    let name = path.file_name()?.to_string_lossy().to_lowercase();
    if name.ends_with(".nii") || name.ends_with(".nii.gz") {
        let annotation = ["label", "mask", "seg"].iter().any(|word| name.contains(word));
        return (!annotation).then_some(Format::Nifti);
    }
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("dcm" | "dicom" | "ima") => Some(Format::Dicom),
        Some("png" | "jpg" | "jpeg") => Some(Format::Raster),
        None if name != "dicomdir" => Some(Format::Dicom),
        _ => None,
    }
}

/// A file's name without the endings of images, `.nii.gz` included.
pub fn stem(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let lower = name.to_lowercase();
    let suffix = [".nii.gz", ".nii", ".dcm", ".dicom", ".ima", ".png", ".jpg", ".jpeg"];
    let cut = suffix.iter().find(|suffix| lower.ends_with(**suffix)).map_or(0, |suffix| suffix.len());
    name[..name.len() - cut].to_owned()
}

fn series_name(root: &Path, path: &Path) -> String {
    let folder = path.parent().unwrap_or(root);
    let relative = folder.strip_prefix(root).unwrap_or(folder).to_string_lossy().replace('\\', "/");
    if !relative.is_empty() {
        return relative;
    }
    let absolute = std::fs::canonicalize(root).unwrap_or_else(|_| root.to_path_buf());
    absolute.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn read_file_with(path: &Path, options: ReadOptions) -> Result<Vec<Keyed>, Error> {
    let series = path.parent().map(|parent| series_name(parent, path)).unwrap_or_default();
    let name = stem(path);
    let slice = |name: String, index: usize, plane: Plane, units: Units| Slice {
        name,
        series: series.clone(),
        uid: None,
        path: path.to_path_buf(),
        index,
        plane,
        units,
        modality: None,
        view: None,
        position_mm: None,
    };
    match format(path).unwrap_or(Format::Dicom) {
        Format::Raster => {
            let grey = raster::read_grey(path, options)?;
            let slice = slice(name.clone(), 0, grey.plane, Units::Display { max: grey.max });
            Ok(vec![Keyed { slice, group: String::new(), order: 0.0 }])
        }
        Format::Nifti => {
            let volume = nifti::read_volume(path, options)?;
            let keyed = |(z, plane): (usize, Plane)| {
                let mut slice = slice(format!("{name}-z{z:04}"), z, plane, Units::RealWorld);
                slice.position_mm = Some(z as f64 * volume.slice_mm);
                Keyed { slice, group: name.clone(), order: z as f64 }
            };
            Ok(volume.slices.into_iter().enumerate().map(keyed).collect())
        }
        Format::Dicom => {
            let image = dicom::read_with(path, options)?;
            (0..image.frames())
                .map(|frame| {
                    let (plane, units) = match image.attributes.is_radiograph() {
                        true => image.shown(frame).map(|(plane, window)| (plane, Units::Windowed(window)))?,
                        false => (image.to_plane(frame)?, Units::RealWorld),
                    };
                    let name = if image.frames() == 1 { name.clone() } else { format!("{name}-f{frame:04}") };
                    let mut slice = slice(name, frame, plane, units);
                    let attributes = &image.attributes;
                    slice.uid.clone_from(&attributes.series_instance_uid);
                    slice.modality.clone_from(&attributes.modality);
                    slice.view = attributes.view();
                    slice.position_mm = attributes.slice_position_mm();
                    let order = slice.position_mm.or(attributes.instance_number.map(|number| number as f64));
                    let group = attributes.series_instance_uid.clone().unwrap_or_default();
                    Ok(Keyed { slice, group, order: order.unwrap_or(0.0) })
                })
                .collect()
        }
    }
}

/// Stems that occur twice in a series (`a.dcm` beside `a.png`) get a number.
fn make_unique(slices: &mut [Slice]) {
    let mut seen = std::collections::HashMap::new();
    for slice in slices {
        let count = seen.entry((slice.series.clone(), slice.name.clone())).or_insert(0u32);
        *count += 1;
        if *count > 1 {
            slice.name = format!("{}-{count}", slice.name);
        }
    }
}
