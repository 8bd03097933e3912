//! Data folders of images with boxes around lesions: YOLO label files beside the images, or COCO lists.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::lists::{ListedBox, Lists};
use super::{Image, Region, images, shown, size, slices};
use hiresmed_imaging::{Plane, Window, labels, series};

/// Pixels by which a box may reach over the image's edge: what rounding makes.
const TOLERANCE_PX: f64 = 1.0;

/// A lesion in an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Label {
    /// Kind of lesion, from 0.
    pub class: usize,
    /// Where, in pixels of the image.
    pub region: Region,
}

/// An image whose lesions are known.
#[derive(Debug, Clone, PartialEq)]
pub struct Boxed {
    /// The image.
    pub image: Image,
    boxes: Boxes,
}

/// Where an image's boxes stand.
#[derive(Debug, Clone, PartialEq)]
enum Boxes {
    /// In a YOLO label file.
    File(PathBuf),
    /// In a list.
    Listed(Vec<ListedBox>),
}

impl Boxed {
    /// The images of `folders` and below them with their boxes, by folder and path, except those that `hold_out` names.
    ///
    /// A file `*.json` with `images` and `annotations` is a COCO list, a file `*.csv` with the columns `file`, `xmin`, `ymin`, `xmax` and
    /// `ymax` a table of boxes: an image that one names has the boxes that it gives, and may have none. The boxes of any other image stand in `NAME.txt` beside it, or in the folder `labels` beside the folder
    /// `images` that it lies in; a file without a line says that there is no lesion.
    ///
    /// # Errors
    /// One sentence for every folder without an image, every image without labels, every list that cannot be read, and every name
    /// that holds nothing out.
    pub fn find(folders: &[PathBuf], hold_out: &[String]) -> Result<Vec<Self>, Vec<String>> {
        let (images, mut faults) = images(folders, hold_out);
        let mut lists = Vec::new();
        for root in folders {
            match Lists::read(root) {
                Ok(list) => lists.push(list),
                Err(of_root) => {
                    faults.extend(of_root);
                    lists.push(Lists::default());
                }
            }
        }
        // Without its list every image would seem to have no labels.
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut found = Vec::new();
        for image in images {
            let listed = lists.get(image.folder).and_then(|list| list.of(&image.path));
            let boxes = listed.map(|boxes| Boxes::Listed(boxes.clone()));
            match boxes.or_else(|| label_file(&image.path).map(Boxes::File)) {
                Some(boxes) => found.push(Self { image, boxes }),
                None => faults.push(format!(
                    "{} has no labels: write NAME.txt beside it (or in `labels` beside `images`), empty where there is no lesion, or \
                     name it in the list of boxes",
                    image.shown()
                )),
            }
        }
        if faults.is_empty() { Ok(found) } else { Err(faults) }
    }

    /// The image in [-1, 1], over `window` where its values are real-world ones, and its lesions of `classes` kinds.
    ///
    /// # Errors
    /// A sentence for every fault, which names the file from the data folder on: an unreadable image, one of several frames, a
    /// pixel that is no number, a label that is none, a box outside the image or without a pixel.
    pub fn read(&self, window: Window, classes: usize) -> Result<(Plane, Vec<Label>), Vec<String>> {
        let name = self.image.shown();
        let slices = slices(&self.image.root, &self.image.path).map_err(|fault| vec![fault])?;
        let plane = match slices.as_slice() {
            [slice] => slice.normalised(window),
            several => return Err(vec![format!("{name} holds {} frames, one is needed; split it", several.len())]),
        };
        let mut faults = Vec::new();
        if plane.data().is_empty() || !plane.is_finite() {
            faults.push(format!("{name} has a pixel that is no number; export it again"));
        }
        let boxes = self.boxes(&plane).unwrap_or_else(|fault| {
            faults.push(fault);
            Vec::new()
        });
        let mut labels = Vec::new();
        for (at, (class, corners)) in boxes.into_iter().enumerate() {
            match checked(class, corners, &plane, classes) {
                Ok(label) => labels.push(label),
                Err(cause) => faults.push(format!("{name}: box {} {cause}", at + 1)),
            }
        }
        if faults.is_empty() { Ok((plane, labels)) } else { Err(faults) }
    }

    /// The boxes as the text of a YOLO label file; `classes` kinds are known.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn label_text(&self, classes: usize) -> Result<String, Vec<String>> {
        let (plane, found) = self.read(Window::LUNG_CT, classes)?;
        let (width, height) = (plane.width() as f64, plane.height() as f64);
        let line = |Label { class, region }: &Label| {
            let (x, y) = region.centre();
            labels::YoloBox {
                class: *class,
                centre_x: f64::from(x) / width,
                centre_y: f64::from(y) / height,
                width: f64::from(region.width()) / width,
                height: f64::from(region.height()) / height,
            }
        };
        Ok(labels::yolo_text(&found.iter().map(line).collect::<Vec<_>>()))
    }

    /// Class and left, top, right, bottom in pixels of each box, as they stand there.
    fn boxes(&self, plane: &Plane) -> Result<Vec<(usize, [f64; 4])>, String> {
        let corners = |x: f64, y: f64, width: f64, height: f64| [x, y, x + width, y + height];
        match &self.boxes {
            Boxes::Listed(boxes) => {
                Ok(boxes.iter().map(|&(class, [x, y, width, height])| (class, corners(x, y, width, height))).collect())
            }
            Boxes::File(path) => {
                let name = shown(&self.image.root, path);
                let text = fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
                let boxes = labels::parse_yolo(&text).map_err(|error| format!("{name}: {error}"))?;
                let (columns, rows) = (plane.width() as f64, plane.height() as f64);
                let in_pixels = |found: labels::YoloBox| {
                    let (width, height) = (found.width * columns, found.height * rows);
                    let (x, y) = (found.centre_x * columns - width / 2.0, found.centre_y * rows - height / 2.0);
                    (found.class, corners(x, y, width, height))
                };
                Ok(boxes.into_iter().map(in_pixels).collect())
            }
        }
    }
}

/// A box that can be learned, cut off at the image's edge where rounding put it over; else what is wrong with it.
fn checked(class: usize, corners: [f64; 4], plane: &Plane, classes: usize) -> Result<Label, String> {
    let [left, top, right, bottom] = corners;
    if class >= classes {
        return Err(format!("is of class {class}, and the network has {classes}, counted from 0"));
    }
    if !corners.iter().all(|edge| edge.is_finite()) || right <= left || bottom <= top {
        return Err("has no size; remove or correct it".to_owned());
    }
    let (width, height) = (plane.width() as f64, plane.height() as f64);
    let over = (-left).max(-top).max(right - width).max(bottom - height);
    if over > TOLERANCE_PX {
        return Err(format!("reaches {over:.1} px over the edge of the image of {} px; correct it", size(plane)));
    }
    let (x, y) = (|x: f64| x.clamp(0.0, width) as f32, |y: f64| y.clamp(0.0, height) as f32);
    let region = Region { left: x(left), top: y(top), right: x(right), bottom: y(bottom) };
    if region.area() > 0.0 { Ok(Label { class, region }) } else { Err("has no pixel; remove it".to_owned()) }
}

/// The label file of an image, if there is one.
fn label_file(image: &Path) -> Option<PathBuf> {
    let name = format!("{}.txt", series::stem(image));
    let beside = image.with_file_name(&name);
    if beside.is_file() {
        return Some(beside);
    }
    let folder = image.ancestors().skip(1).find(|folder| folder.file_name().is_some_and(|name| name == "images"))?;
    let inner = image.strip_prefix(folder).ok()?.with_file_name(&name);
    Some(folder.with_file_name("labels").join(inner)).filter(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::GrayImage::from_pixel(40, 20, image::Luma([128])).save(path).unwrap();
    }

    fn set(folder: &Path) -> PathBuf {
        let root = folder.join("set");
        for name in ["images/exam1_0", "images/exam1_1", "images/exam2_0"] {
            png(&root.join(format!("{name}.png")));
        }
        fs::create_dir_all(root.join("labels")).unwrap();
        for (name, text) in [("exam1_0", "0 0.5 0.5 0.1 0.2\n"), ("exam1_1", ""), ("exam2_0", "0 0.9 0.5 0.2 0.2")] {
            fs::write(root.join(format!("labels/{name}.txt")), text).unwrap();
        }
        root
    }

    fn find(root: &Path, hold_out: &[&str]) -> Result<Vec<Boxed>, Vec<String>> {
        Boxed::find(&[root.to_path_buf()], &hold_out.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn yolo_labels_lie_beside_the_images_or_beside_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        let root = set(folder.path());
        let found = find(&root, &[]).unwrap();
        let read: Vec<_> = found.iter().map(|image| image.read(Window::LUNG_CT, 1).unwrap().1).collect();
        assert_eq!(read.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0, 1]);
        assert_eq!(read[0][0].region, Region { left: 18.0, top: 8.0, right: 22.0, bottom: 12.0 });
        assert_eq!(found[0].label_text(1).unwrap(), "0 0.500000 0.500000 0.100000 0.200000\n");
        // An exam is held out as a whole.
        assert_eq!(find(&root, &["exam1_*"]).unwrap().len(), 1);
        fs::write(root.join("images/exam2_0.txt"), "").unwrap();
        assert!(find(&root, &[]).unwrap()[2].read(Window::LUNG_CT, 1).unwrap().1.is_empty(), "beside it comes first");
    }

    #[test]
    fn a_coco_list_says_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let root = set(folder.path());
        fs::remove_dir_all(root.join("labels")).unwrap();
        let coco = serde_json::json!({
            "images": [{"id": 7, "file_name": "images/exam1_0.png", "width": 40, "height": 20},
                {"id": 8, "file_name": "exam1_1.png"}, {"id": 9, "file_name": "exam2_0.png"}],
            "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [18, 8, 4, 4], "iscrowd": 0},
                {"id": 2, "image_id": 9, "category_id": 5, "bbox": [0, 0, 2, 2]}],
            "categories": [{"id": 5, "name": "mass"}, {"id": 3, "name": "nodule"}],
        });
        fs::write(root.join("annotations.coco.json"), coco.to_string()).unwrap();
        fs::write(root.join("notes.json"), "{}").unwrap();
        let found = find(&root, &[]).unwrap();
        let (_, labels) = found[0].read(Window::LUNG_CT, 2).unwrap();
        let region = Region { left: 18.0, top: 8.0, right: 22.0, bottom: 12.0 };
        assert_eq!(labels, [Label { class: 0, region }]);
        assert!(found[1].read(Window::LUNG_CT, 2).unwrap().1.is_empty());
        assert_eq!(found[2].read(Window::LUNG_CT, 2).unwrap().1[0].class, 1);
        let wrong = coco.to_string().replace("\"image_id\":9", "\"image_id\":4");
        fs::write(root.join("annotations.coco.json"), wrong).unwrap();
        assert!(find(&root, &[]).unwrap_err()[0].contains("annotation 2 names image 4"));
    }

    #[test]
    fn a_table_says_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let root = set(folder.path());
        fs::remove_dir_all(root.join("labels")).unwrap();
        let table = "file,z_mm,class,xmin,ymin,xmax,ymax\n\"images/exam1_0.png\",-2.5,nodule,18,8,22,12\n\
                     images/exam1_0.png,-2.5,mass,0,0,2,2\nexam1_1.png,,,,,,\nexam2_0.png,1,nodule,1,2,3,4\n";
        fs::write(root.join("boxes.csv"), table).unwrap();
        fs::write(root.join("notes.csv"), "exam,age\n1,60\n").unwrap();
        let found = find(&root, &[]).unwrap();
        let read: Vec<_> = found.iter().map(|image| image.read(Window::LUNG_CT, 2).unwrap().1).collect();
        assert_eq!(read.iter().map(Vec::len).collect::<Vec<_>>(), [2, 0, 1]);
        // Classes in the order of their names.
        let region = Region { left: 18.0, top: 8.0, right: 22.0, bottom: 12.0 };
        assert_eq!(read[0][0], Label { class: 1, region });
        assert_eq!(read[0][1].class, 0);
        // An image that the table does not name may have lesions or none: who knows says so.
        fs::write(root.join("boxes.csv"), table.replace("exam1_1.png,,,,,,\n", "")).unwrap();
        assert!(find(&root, &[]).unwrap_err()[0].starts_with("set/images/exam1_1.png has no labels"));
        fs::write(root.join("boxes.csv"), table.replace(",1,2,3,4", ",1,x,3,4").replace(",22,12", ",22")).unwrap();
        let faults = find(&root, &[]).unwrap_err();
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].contains("set/boxes.csv: line 2 has 6 fields, and the first line has 7"), "{faults:?}");
        assert!(faults[1].contains("set/boxes.csv: line 5: ymin is \"x\""), "{faults:?}");
    }

    #[test]
    fn every_fault_is_named_from_the_data_folder_on() {
        let folder = tempfile::tempdir().unwrap();
        let root = set(folder.path());
        fs::write(root.join("labels/exam1_0.txt"), "0 0.0 0.5 0.2 0.2\n1 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.0 0.1").unwrap();
        fs::write(root.join("labels/exam1_1.txt"), "0 0.5 NaN 0.1 0.1").unwrap();
        let found = find(&root, &[]).unwrap();
        let faults = found[0].read(Window::LUNG_CT, 1).unwrap_err();
        assert_eq!(faults.len(), 3, "{faults:?}");
        for (fault, part) in faults.iter().zip(["4.0 px over the edge", "of class 1", "no size"]) {
            assert!(fault.starts_with("set/images/exam1_0.png: box") && fault.contains(part), "{fault}");
        }
        let faults = found[1].read(Window::LUNG_CT, 1).unwrap_err();
        assert!(faults[0].contains("set/labels/exam1_1.txt") && faults[0].contains("line 1"), "{faults:?}");
        fs::remove_file(root.join("labels/exam2_0.txt")).unwrap();
        assert!(find(&root, &[]).unwrap_err()[0].starts_with("set/images/exam2_0.png has no labels"));
        assert!(find(&root, &["nosuch"]).is_err() && find(&folder.path().join("absent"), &[]).is_err());
    }
}
