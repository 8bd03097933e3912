//! Lists of boxes beside the images: COCO's, and tables.
//!
//! A table is a CSV file (RFC 4180, without line breaks within a field) whose first line names columns: `file`, the image's path from the
//! table on or its name, `xmin`, `ymin`, `xmax` and `ymax` in pixels, and, if it likes, `class`, a name; others are not read. A row without
//! numbers says that its image has no lesion.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::shown;

/// Class, and left, top, width and height in pixels.
pub(super) type ListedBox = (usize, [f64; 4]);

/// The columns with a box.
const EDGES: [&str; 4] = ["xmin", "ymin", "xmax", "ymax"];

/// The lists of a data folder.
#[derive(Debug, Default)]
pub(super) struct Lists {
    by_path: BTreeMap<PathBuf, Vec<ListedBox>>,
    /// For a list that lies elsewhere than its images; a name that occurs twice stands for none.
    by_name: BTreeMap<String, Option<PathBuf>>,
}

#[derive(Deserialize)]
struct Coco {
    images: Vec<CocoImage>,
    annotations: Vec<CocoBox>,
    #[serde(default)]
    categories: Vec<CocoCategory>,
}

#[derive(Deserialize)]
struct CocoImage {
    id: u64,
    file_name: String,
}

#[derive(Deserialize)]
struct CocoBox {
    image_id: u64,
    category_id: u64,
    bbox: [f64; 4],
}

#[derive(Deserialize)]
struct CocoCategory {
    id: u64,
}

impl Lists {
    /// Reads every list in `root` and below it.
    ///
    /// # Errors
    /// A sentence for everything that is wrong with one.
    pub(super) fn read(root: &Path) -> Result<Self, Vec<String>> {
        let (mut lists, mut faults) = (Self::default(), Vec::new());
        let paths = files(root).map_err(|error| vec![format!("{}: {error}", root.display())])?;
        for path in paths {
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) => {
                    faults.push(format!("{}: {error}", shown(root, &path)));
                    continue;
                }
            };
            if has_ending(&path, "csv") {
                // As with JSON.
                if let Some(table) = Table::of(&bytes) {
                    faults.extend(lists.tabled(root, &path, &table));
                }
                continue;
            }
            // Any other JSON beside the images is none of our business.
            let is_list = serde_json::from_slice::<serde_json::Value>(&bytes)
                .is_ok_and(|value| value["images"].is_array() && value["annotations"].is_array());
            if is_list {
                match serde_json::from_slice(&bytes) {
                    Ok(coco) => faults.extend(lists.add(root, &path, coco)),
                    Err(error) => faults.push(format!("{}: not a COCO list of boxes: {error}", shown(root, &path))),
                }
            }
        }
        if faults.is_empty() { Ok(lists) } else { Err(faults) }
    }

    /// Takes a list in; a sentence for every box of an image or a category that it does not have.
    fn add(&mut self, root: &Path, path: &Path, coco: Coco) -> Vec<String> {
        let mut faults = Vec::new();
        let categories: BTreeSet<u64> = coco.categories.iter().map(|category| category.id).collect();
        let classes: BTreeMap<u64, usize> = categories.into_iter().enumerate().map(|(class, id)| (id, class)).collect();
        let folder = path.parent().unwrap_or(root);
        let mut of_id: BTreeMap<u64, PathBuf> = BTreeMap::new();
        for image in coco.images {
            let path = self.named(folder, &image.file_name);
            of_id.insert(image.id, path);
        }
        for (at, found) in coco.annotations.into_iter().enumerate() {
            let boxes = of_id.get(&found.image_id).and_then(|path| self.by_path.get_mut(path));
            match (boxes, classes.get(&found.category_id)) {
                (Some(boxes), Some(&class)) => boxes.push((class, found.bbox)),
                _ => faults.push(format!(
                    "{}: annotation {} names image {} and category {}, which it does not list both",
                    shown(root, path),
                    at + 1,
                    found.image_id,
                    found.category_id
                )),
            }
        }
        faults
    }

    /// Takes a table in; a sentence for every row that cannot be read.
    fn tabled(&mut self, root: &Path, path: &Path, table: &Table<'_>) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |line: usize, cause: String| faults.push(format!("{}: line {line}{cause}", shown(root, path)));
        let boxed = table.rows.iter().filter(|row| row.fields.len() == table.columns && !table.is_empty(row));
        let names: BTreeSet<&str> = boxed.map(|row| table.class_of(row)).collect();
        for row in &table.rows {
            if row.fields.len() != table.columns {
                let (found, wanted) = (row.fields.len(), table.columns);
                fault(row.line, format!(" has {found} fields, and the first line has {wanted}"));
                continue;
            }
            let image = self.named(path.parent().unwrap_or(root), row.fields[table.file]);
            if table.is_empty(row) {
                continue;
            }
            let mut edges = [0.0; 4];
            for ((edge, at), name) in edges.iter_mut().zip(table.edges).zip(EDGES) {
                match row.fields[at].parse() {
                    Ok(value) => *edge = value,
                    Err(_) => fault(row.line, format!(": {name} is {:?}, which is no number", row.fields[at])),
                }
            }
            let [left, top, right, bottom] = edges;
            let class = names.iter().position(|name| *name == table.class_of(row)).unwrap_or(0);
            self.by_path.entry(image).or_default().push((class, [left, top, right - left, bottom - top]));
        }
        faults
    }

    /// The path of an image that a list in `folder` calls `name`; from now on it has boxes, if only none.
    fn named(&mut self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        if !self.by_path.contains_key(&path) {
            let own = Path::new(name).file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.by_name.entry(own).and_modify(|known| *known = None).or_insert_with(|| Some(path.clone()));
            self.by_path.insert(path.clone(), Vec::new());
        }
        path
    }

    /// The boxes of an image that a list names.
    pub(super) fn of(&self, image: &Path) -> Option<&Vec<ListedBox>> {
        let name = image.file_name()?.to_string_lossy().into_owned();
        self.by_path.get(image).or_else(|| self.by_path.get(self.by_name.get(&name)?.as_ref()?))
    }
}

/// JSON and CSV files below `root`.
fn files(root: &Path) -> std::io::Result<Vec<PathBuf>> {
    let (mut found, mut open) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            // Links to folders are not followed: they may run in circles.
            if entry.file_type()?.is_dir() && !hidden {
                open.push(entry.path());
            } else if !hidden && ["json", "csv"].iter().any(|ending| has_ending(&entry.path(), ending)) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|own| own.eq_ignore_ascii_case(ending))
}

/// A line of a table.
struct Row<'a> {
    /// Counted from 1.
    line: usize,
    fields: Vec<&'a str>,
}

/// A table of boxes.
struct Table<'a> {
    columns: usize,
    file: usize,
    class: Option<usize>,
    edges: [usize; 4],
    rows: Vec<Row<'a>>,
}

impl<'a> Table<'a> {
    /// `None` for a file that has not the columns of a table of boxes.
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?.trim_start_matches('\u{feff}');
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let mut rows: Vec<Row<'a>> =
            lines.map(|(at, line)| Row { line: at + 1, fields: fields(line).collect() }).collect();
        if rows.is_empty() {
            return None;
        }
        let head = rows.remove(0).fields;
        let column = |name: &str| head.iter().position(|field| field.eq_ignore_ascii_case(name));
        let [left, top, right, bottom] = EDGES.map(column);
        let edges = [left?, top?, right?, bottom?];
        Some(Self { columns: head.len(), file: column("file")?, class: column("class"), edges, rows })
    }

    /// What kind of lesion a row has, by name.
    fn class_of(&self, row: &Row<'a>) -> &'a str {
        self.class.map(|at| row.fields[at]).unwrap_or_default()
    }

    /// Whether a row says that there is no lesion.
    fn is_empty(&self, row: &Row<'_>) -> bool {
        self.edges.iter().all(|&at| row.fields[at].is_empty())
    }
}

/// A line's fields, without the quotes around them.
fn fields(line: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let split = line.split(move |character| {
        quoted ^= character == '"';
        character == ',' && !quoted
    });
    split.map(|field| {
        let field = field.trim();
        field.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(field).trim()
    })
}
