//! Readings from a CSV file: every fault at once, each with its line.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What an image is, or is said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Of a patient; the positive class.
    Real,
    /// Made.
    Synthetic,
}

impl Class {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "real" => Some(Self::Real),
            "synthetic" => Some(Self::Synthetic),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Real => "real",
            Self::Synthetic => "synthetic",
        }
    }
}

/// One answer of one reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Who read.
    pub reader: String,
    /// Which image.
    pub image: String,
    /// What it is.
    pub truth: Class,
    /// What the reader called it.
    pub answer: Class,
}

/// Why readings cannot be scored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused to read.
    #[error("{}: {source}; check that the path exists and that its permissions allow this", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The content has faults; all are listed.
    #[error("{}: {} faults; put them right and score again:\n  {}", .path.display(), .faults.len(), .faults.join("\n  "))]
    Faults {
        /// The file.
        path: PathBuf,
        /// Every fault, with its line from 1.
        faults: Vec<String>,
    },
}

const COLUMNS: [&str; 4] = ["reader", "image", "truth", "answer"];

/// Reads a CSV file (RFC 4180, UTF-8) with the columns `reader`, `image`, `truth` and `answer` in any order; others are
/// passed over. Truth and answer are `real` or `synthetic`.
///
/// # Errors
/// The file cannot be read, or its content has faults: missing columns, unknown classes, empty names, two answers of one
/// reader on one image, two truths of one image, no reading at all.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<Reading>, Error> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    parse(&bytes).map_err(|faults| Error::Faults { path: path.to_owned(), faults })
}

fn parse(bytes: &[u8]) -> Result<Vec<Reading>, Vec<String>> {
    let mut file = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let columns = columns(file.headers().map_err(|error| vec![format!("line 1: {error}")])?)?;
    let mut faults = Vec::new();
    let mut readings = Vec::new();
    let mut seen = Seen::default();
    for record in file.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                faults.push(unreadable(&error));
                continue;
            }
        };
        let line = record.position().map_or(0, csv::Position::line);
        let fields = columns.map(|column| record.get(column).unwrap_or_default());
        match reading(fields) {
            Ok(reading) => {
                faults.extend(seen.contradictions(line, &reading));
                readings.push(reading);
            }
            Err(own) => faults.extend(own.into_iter().map(|fault| format!("line {line}: {fault}"))),
        }
    }
    if readings.is_empty() && faults.is_empty() {
        faults.push("there is no reading; each line after the head is one".to_owned());
    }
    if faults.is_empty() { Ok(readings) } else { Err(faults) }
}

/// Where the columns are.
fn columns(head: &csv::StringRecord) -> Result<[usize; 4], Vec<String>> {
    let mut faults = Vec::new();
    let places = COLUMNS.map(|name| {
        let mut places = head.iter().enumerate().filter(|(_, column)| *column == name).map(|(place, _)| place);
        match (places.next(), places.next()) {
            (Some(place), None) => place,
            (None, _) => {
                faults.push(format!("line 1: the column {name:?} is missing"));
                0
            }
            (Some(_), Some(_)) => {
                faults.push(format!("line 1: the column {name:?} is there twice"));
                0
            }
        }
    });
    if faults.is_empty() { Ok(places) } else { Err(faults) }
}

fn unreadable(error: &csv::Error) -> String {
    let line = error.position().map_or(0, csv::Position::line);
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("line {line}: {len} fields, the head has {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => format!("line {line}: not UTF-8"),
        _ => format!("line {line}: {error}"),
    }
}

fn reading([reader, image, truth, answer]: [&str; 4]) -> Result<Reading, Vec<String>> {
    let mut faults = Vec::new();
    for (name, text) in [("reader", reader), ("image", image)] {
        if text.is_empty() {
            faults.push(format!("{name} is empty"));
        }
    }
    let mut class = |name: &str, text: &str| {
        let class = Class::parse(text);
        if class.is_none() {
            faults.push(format!("{name} is {text:?}; it is \"real\" or \"synthetic\""));
        }
        class
    };
    match (class("truth", truth), class("answer", answer)) {
        (Some(truth), Some(answer)) if faults.is_empty() => {
            Ok(Reading { reader: reader.to_owned(), image: image.to_owned(), truth, answer })
        }
        _ => Err(faults),
    }
}

/// What earlier lines have said.
#[derive(Default)]
struct Seen {
    answers: HashMap<(String, String), u64>,
    truths: HashMap<String, (Class, u64)>,
}

impl Seen {
    fn contradictions(&mut self, line: u64, reading: &Reading) -> Vec<String> {
        let mut faults = Vec::new();
        let Reading { reader, image, truth, .. } = reading;
        let first = *self.answers.entry((reader.clone(), image.clone())).or_insert(line);
        if first != line {
            faults.push(format!("line {line}: {reader:?} has read {image:?} before, in line {first}"));
        }
        let (class, first) = *self.truths.entry(image.clone()).or_insert((*truth, line));
        if class != *truth {
            let (own, other) = (truth.name(), class.name());
            faults.push(format!("line {line}: {image:?} is {own} here and {other} in line {first}"));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_in_any_order_and_others_are_passed_over() {
        let text = "\u{feff}answer,minutes,image,reader,truth\r\nreal, 3,a ,\"Reader, senior\",synthetic\r\n";
        let readings = parse(text.as_bytes()).unwrap();
        let expected = Reading {
            reader: "Reader, senior".to_owned(),
            image: "a".to_owned(),
            truth: Class::Synthetic,
            answer: Class::Real,
        };
        assert_eq!(readings, [expected]);
    }

    #[test]
    fn every_fault_is_listed_with_its_line() {
        let text = "reader,image,truth,answer\nA,1,real,real\nA,1,real,fake\nA,1,synthetic,real\n,2,Real,real\nB,3\nB,1,real,real\n";
        let faults = parse(text.as_bytes()).unwrap_err();
        assert_eq!(
            faults,
            [
                "line 3: answer is \"fake\"; it is \"real\" or \"synthetic\"",
                "line 4: \"A\" has read \"1\" before, in line 2",
                "line 4: \"1\" is synthetic here and real in line 2",
                "line 5: reader is empty",
                "line 5: truth is \"Real\"; it is \"real\" or \"synthetic\"",
                "line 6: 2 fields, the head has 4",
            ]
        );
    }

    #[test]
    fn missing_and_doubled_columns_are_listed() {
        let faults = parse(b"reader,image,image,answer\n").unwrap_err();
        assert_eq!(faults, ["line 1: the column \"image\" is there twice", "line 1: the column \"truth\" is missing"]);
        assert_eq!(parse(b"").unwrap_err().len(), 4);
    }

    #[test]
    fn an_empty_study_and_bytes_that_are_no_text_are_refused() {
        assert!(parse(b"reader,image,truth,answer\n").unwrap_err()[0].contains("no reading"));
        let faults = parse(b"reader,image,truth,answer\n\xff,1,real,real\n").unwrap_err();
        assert_eq!(faults, ["line 2: not UTF-8"]);
    }

    #[test]
    fn the_error_names_the_file() {
        let text = read("no-such-folder/readings.csv").unwrap_err().to_string();
        assert!(text.starts_with("no-such-folder/readings.csv: "), "{text}");
    }
}
