//! Labels that detectors and segmenters train on: COCO and YOLO, made from masks.

use serde::{Deserialize, Serialize};

use crate::Mask;
use crate::measures::Bounds;

/// A COCO data set (`annotations.coco.json`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Coco {
    /// What the set is.
    pub info: Info,
    /// Every image, also those without an annotation.
    pub images: Vec<Image>,
    /// Every labelled object.
    pub annotations: Vec<Annotation>,
    /// The classes.
    pub categories: Vec<Category>,
}

/// COCO's `info`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// For the reader.
    pub description: String,
    /// Of the software or the set.
    pub version: String,
}

/// An image of the set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// From 1.
    pub id: u64,
    /// Relative to the annotation file.
    pub file_name: String,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// A labelled object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Annotation {
    /// From 1.
    pub id: u64,
    /// Of [`Image`].
    pub image_id: u64,
    /// Of [`Category`].
    pub category_id: u64,
    /// Left, top, width, height in pixels.
    pub bbox: [f64; 4],
    /// Pixels of the mask.
    pub area: f64,
    /// The mask.
    pub segmentation: RunLengths,
    /// 0: a single object.
    pub iscrowd: u8,
}

/// Uncompressed run lengths over the columns, top to bottom, starting with a run of background (COCO's own order).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunLengths {
    /// Alternating background and object.
    pub counts: Vec<usize>,
    /// Height, width.
    pub size: [usize; 2],
}

/// A class of objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Category {
    /// From 1.
    pub id: u64,
    /// Such as `nodule`.
    pub name: String,
    /// Such as `lesion`.
    pub supercategory: String,
}

impl Coco {
    /// An empty set of one or more classes, numbered from 1.
    pub fn new(description: &str, version: &str, categories: &[(&str, &str)]) -> Self {
        let category = |(index, (name, group)): (usize, &(&str, &str))| Category {
            id: index as u64 + 1,
            name: (*name).to_owned(),
            supercategory: (*group).to_owned(),
        };
        Self {
            info: Info { description: description.to_owned(), version: version.to_owned() },
            categories: categories.iter().enumerate().map(category).collect(),
            ..Self::default()
        }
    }

    /// Adds an image and returns its id.
    pub fn add_image(&mut self, file_name: &str, width: usize, height: usize) -> u64 {
        let id = self.images.len() as u64 + 1;
        self.images.push(Image { id, file_name: file_name.to_owned(), width, height });
        id
    }

    /// Adds an object of one image; its mask has the image's size. An empty mask adds nothing and returns `None`.
    pub fn add_object(&mut self, image_id: u64, category_id: u64, mask: &Mask) -> Option<u64> {
        let bounds = mask.bounds()?;
        let id = self.annotations.len() as u64 + 1;
        self.annotations.push(Annotation {
            id,
            image_id,
            category_id,
            bbox: [bounds.left as f64, bounds.top as f64, bounds.width as f64, bounds.height as f64],
            area: mask.area() as f64,
            segmentation: RunLengths::from_mask(mask),
            iscrowd: 0,
        });
        Some(id)
    }
}

impl RunLengths {
    /// The runs of a mask.
    pub fn from_mask(mask: &Mask) -> Self {
        let mut counts = Vec::new();
        let (mut current, mut run) = (false, 0);
        for x in 0..mask.width() {
            for y in 0..mask.height() {
                if mask.get(x, y) != current {
                    counts.push(run);
                    (current, run) = (!current, 0);
                }
                run += 1;
            }
        }
        counts.push(run);
        Self { counts, size: [mask.height(), mask.width()] }
    }

    /// The mask of the runs; `None` when they do not add up to the size.
    pub fn to_mask(&self) -> Option<Mask> {
        let [height, width] = self.size;
        let total = self.counts.iter().try_fold(0usize, |sum, &count| sum.checked_add(count))?;
        if height.checked_mul(width)? != total {
            return None;
        }
        let mut mask = Mask::empty(width, height);
        let mut at = 0;
        for (index, &count) in self.counts.iter().enumerate() {
            if index % 2 == 1 {
                (at..at + count).for_each(|at| mask.set(at / height, at % height, true));
            }
            at += count;
        }
        Some(mask)
    }
}

/// A box of a YOLO label file, in shares of the image's sides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct YoloBox {
    /// Class index from 0.
    pub class: usize,
    /// Centre, from the left.
    pub centre_x: f64,
    /// Centre, from the top.
    pub centre_y: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

impl YoloBox {
    /// The box around `bounds` in an image of `width x height` pixels.
    pub fn new(class: usize, bounds: Bounds, width: usize, height: usize) -> Self {
        let (columns, rows) = (width as f64, height as f64);
        Self {
            class,
            centre_x: (bounds.left as f64 + bounds.width as f64 / 2.0) / columns,
            centre_y: (bounds.top as f64 + bounds.height as f64 / 2.0) / rows,
            width: bounds.width as f64 / columns,
            height: bounds.height as f64 / rows,
        }
    }
}

/// A YOLO label file: `class cx cy w h`, a line a box, six digits. Empty for an image without objects.
pub fn yolo_text(boxes: &[YoloBox]) -> String {
    let line =
        |b: &YoloBox| format!("{} {:.6} {:.6} {:.6} {:.6}\n", b.class, b.centre_x, b.centre_y, b.width, b.height);
    boxes.iter().map(line).collect()
}

/// A line of a YOLO label file that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the YOLO labels is not `class cx cy w h` with shares from 0 to 1: {text:?}; correct it")]
pub struct YoloError {
    /// From 1.
    pub line: usize,
    /// What it says.
    pub text: String,
}

/// The boxes of a YOLO label file; empty lines are passed over.
///
/// # Errors
/// [`YoloError`] for the first line that is none.
pub fn parse_yolo(text: &str) -> Result<Vec<YoloBox>, YoloError> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| parse_box(line).ok_or_else(|| YoloError { line: index + 1, text: line.to_owned() }))
        .collect()
}

fn parse_box(line: &str) -> Option<YoloBox> {
    let mut parts = line.split_whitespace();
    let class = parts.next()?.parse().ok()?;
    let mut share = || parts.next()?.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    let parsed = YoloBox { class, centre_x: share()?, centre_y: share()?, width: share()?, height: share()? };
    parts.next().is_none().then_some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mask() -> Mask {
        Mask::from_fn(6, 4, |x, y| (1..4).contains(&x) && (1..3).contains(&y))
    }

    #[test]
    fn runs_go_down_the_columns_and_start_with_background() {
        let runs = RunLengths::from_mask(&mask());
        assert_eq!(runs.counts, [5, 2, 2, 2, 2, 2, 9]);
        assert_eq!(runs.size, [4, 6]);
        assert_eq!(RunLengths::from_mask(&Mask::from_fn(2, 2, |_, _| true)).counts, [0, 4]);
        assert!(RunLengths { counts: vec![3, 2], size: [2, 2] }.to_mask().is_none());
    }

    #[test]
    fn a_coco_set_has_what_its_readers_look_for() {
        let mut coco = Coco::new("synthetic lung CT", "1", &[("nodule", "lesion")]);
        let image = coco.add_image("images/0000.dcm", 6, 4);
        assert_eq!(coco.add_object(image, 1, &mask()), Some(1));
        assert_eq!(coco.add_object(image, 1, &Mask::empty(6, 4)), None);
        let json: serde_json::Value = serde_json::from_slice(&serde_json::to_vec(&coco).unwrap()).unwrap();
        assert_eq!(json["images"][0]["file_name"], "images/0000.dcm");
        assert_eq!(json["annotations"][0]["bbox"], serde_json::json!([1.0, 1.0, 3.0, 2.0]));
        assert_eq!(json["annotations"][0]["area"], 6.0);
        assert_eq!(json["annotations"][0]["category_id"], json["categories"][0]["id"]);
        assert_eq!(json["annotations"][0]["image_id"], json["images"][0]["id"]);
        assert_eq!(serde_json::from_value::<Coco>(json).unwrap(), coco);
    }

    #[test]
    fn yolo_boxes_are_shares_of_the_image() {
        let boxes = [YoloBox::new(0, mask().bounds().unwrap(), 6, 4)];
        let text = yolo_text(&boxes);
        assert_eq!(text, "0 0.416667 0.500000 0.500000 0.500000\n");
        let read = parse_yolo(&text).unwrap();
        assert!((read[0].centre_x - boxes[0].centre_x).abs() < 1e-6 && read[0].class == 0);
        assert_eq!(parse_yolo("\n0 0.5 0.5 0.1 0.1\n0 1.5 0.5 0.1 0.1").unwrap_err().line, 3);
        assert!(parse_yolo("0 0.5 0.5 0.1").is_err() && parse_yolo("0 0.5 0.5 0.1 0.1 9").is_err());
        assert!(parse_yolo("").unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn run_lengths_come_back(width in 1usize..20, height in 1usize..20, bits in proptest::collection::vec(0u8..2, 400)) {
            let mask = Mask::new(width, height, bits[..width * height].to_vec());
            prop_assert_eq!(RunLengths::from_mask(&mask).to_mask().unwrap(), mask);
        }
    }
}
