//! Reading a request from text, with errors that a person can act on.
//!
//! A text is read in three steps: its syntax, with line and column where it is wrong; its shape, held against the schema;
//! its values, as [`Request::validate`] checks them. A fault of the shape hides none of the values': all are named at once.

use serde_json::{Map, Value};

use crate::{
    request::{Candidates, Request, Synthesise, Train},
    shape,
    validate::{Fault, Faults},
};

/// Why a text is not a request.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The text is not TOML or JSON.
    #[error("line {line}, column {column}: {cause}")]
    Text {
        /// Line, counted from 1.
        line: usize,
        /// Column in characters, counted from 1.
        column: usize,
        /// What is wrong.
        cause: String,
    },
    /// Keys are unknown or missing, or values are of the wrong type or out of their ranges.
    #[error(transparent)]
    Faults(#[from] Faults),
}

/// What `kind` can be.
const KINDS: [&str; 3] = ["synthesise", "train", "candidates"];

/// Reads a request in TOML and validates it.
///
/// # Errors
/// [`Error::Text`] with line and column, or [`Error::Faults`] with everything that is wrong with keys and values.
pub fn toml(text: &str) -> Result<Request, Error> {
    let value: ::toml::Table = ::toml::from_str(text).map_err(|error| toml_error(text, &error))?;
    read(value.into_iter().map(|(key, value)| (key, plain(value))).collect())
}

/// Reads a request in JSON and validates it.
///
/// # Errors
/// As [`toml()`].
pub fn json(text: &str) -> Result<Request, Error> {
    match serde_json::from_str(text).map_err(|error| json_error(text, &error))? {
        Value::Object(table) => read(table)?,
        _ => return Err(Error::Text { line: 1, column: 1, cause: "a request is a table: `{ ... }`".to_owned() }),
    };
    // From the text once more: a table in memory no longer tells that a key was there twice.
    serde_json::from_str(text).map_err(|error| json_error(text, &error))
}

/// Reads a request for candidates in JSON, without the key `kind`, and validates it.
///
/// # Errors
/// As [`toml()`].
pub fn candidates(text: &str) -> Result<Candidates, Error> {
    match serde_json::from_str(text).map_err(|error| json_error(text, &error))? {
        Value::Object(mut table) if !table.contains_key("kind") => {
            table.insert("kind".to_owned(), "candidates".into());
            read(table)?
        }
        Value::Object(_) => {
            let kind = Fault::new("kind", "given", "unknown key: what is asked for here are candidates");
            return Err(Faults::from(vec![kind]).into());
        }
        _ => return Err(Error::Text { line: 1, column: 1, cause: "a request is a table: `{ ... }`".to_owned() }),
    };
    // From the text once more, as above.
    serde_json::from_str(text).map_err(|error| json_error(text, &error))
}

/// The same value as JSON has it. What JSON has not (dates, infinity, what is not a number) becomes text, which is refused
/// where a number is wanted.
fn plain(value: ::toml::Value) -> Value {
    match value {
        ::toml::Value::String(text) => text.into(),
        ::toml::Value::Integer(number) => number.into(),
        ::toml::Value::Float(number) if number.is_finite() => number.into(),
        ::toml::Value::Float(number) => number.to_string().into(),
        ::toml::Value::Boolean(truth) => truth.into(),
        ::toml::Value::Datetime(date) => date.to_string().into(),
        ::toml::Value::Array(items) => items.into_iter().map(plain).collect(),
        ::toml::Value::Table(table) => table.into_iter().map(|(key, value)| (key, plain(value))).collect(),
    }
}

fn read(mut table: Map<String, Value>) -> Result<Request, Error> {
    let mut faults = Vec::new();
    let kind = table.remove("kind");
    let known = kind.as_ref().and_then(Value::as_str).and_then(|kind| KINDS.into_iter().find(|known| *known == kind));
    let name = known.unwrap_or_else(|| {
        let value = kind.map_or_else(|| "missing".to_owned(), |kind| kind.to_string());
        faults.push(Fault::new("kind", value, "must be \"synthesise\", \"train\" or \"candidates\""));
        probably(&table)
    });
    let schema = match name {
        "train" => ::schemars::schema_for!(Train),
        "candidates" => ::schemars::schema_for!(Candidates),
        _ => ::schemars::schema_for!(Synthesise),
    };
    let mut value = Value::Object(table);
    faults.extend(shape::check(schema.as_value(), &mut value));
    value["kind"] = name.into();
    match serde_json::from_value::<Request>(value) {
        Ok(request) => {
            request.check(faults)?;
            Ok(request)
        }
        // The shape was checked: what is left is what the schema does not say.
        Err(error) if faults.is_empty() => Err(Error::Text { line: 1, column: 1, cause: error.to_string() }),
        Err(_) => Err(Faults::from(faults).into()),
    }
}

/// The kind that was probably meant, told by keys that only it has.
fn probably(table: &Map<String, Value>) -> &'static str {
    let has = |keys: &[&str]| keys.iter().any(|key| table.contains_key(*key));
    if has(&["model", "preset", "data", "steps", "hold_out"]) {
        "train"
    } else if has(&["input", "sha256", "diameter_mm"]) {
        "candidates"
    } else {
        "synthesise"
    }
}

fn toml_error(text: &str, error: &::toml::de::Error) -> Error {
    let start = error.span().map_or(0, |span| span.start).min(text.len());
    let before = text.get(..start).unwrap_or("");
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Error::Text {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        cause: error.message().trim().to_owned(),
    }
}

fn json_error(text: &str, error: &serde_json::Error) -> Error {
    let whole = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or("");
    // serde_json counts bytes; people count characters.
    let bytes = error.column().saturating_sub(1).min(line.len());
    let column = line.char_indices().take_while(|(start, _)| *start < bytes).count() + 1;
    Error::Text { line: error.line().max(1), column, cause: whole.strip_suffix(&position).unwrap_or(&whole).to_owned() }
}
